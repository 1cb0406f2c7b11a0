"""What all slots hear in a tick, as one function of fixed shapes: features, phones, voices.

Letters in shapes: B slots, N samples of a tick, W width of the encoder's vectors, V width of the
speaker head's.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from duplex.agent.hearing import speech_activity
from duplex.agent.hearing.recognition import Heard
from duplex.audio import ENCODER_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.device.link import Graph, Link
from duplex.model.asr import features
from duplex.model.asr.encoder import PHONES, Encoder
from duplex.model.asr.features import BANDS

# Of a tick: frames and bands of the log power.
POWER = (MEL_FRAMES_PER_TICK, BANDS)


class Ears:
    """See Recognition.hear; the networks and what they remember are on the device."""

    def __init__(
        self, encoder: Encoder, heads: tuple[Module | None, ...], slots: int, link: Link, has_power
    ):
        """
        Args:
            heads: the speaker head and the sound head, if there are any.
            has_power: whether the log power is wanted too, for the second pass.
        """
        self.link = link
        self.encoder = encoder
        self.heads = heads
        self.has_power = has_power
        self.sound = features.initial_state(slots, link.device)
        self.state = encoder.initial_state(slots)
        self.state.cursor = link.buffer(dtype=torch.int64)
        self.vectors = link.buffer(slots, encoder.config.features)
        self.none = torch.zeros(slots, 0)
        state = self.state
        kept = [state.mel_tail, state.conv_tail, state.filled, state.cursor]
        kept += [self.sound.tail, self.sound.peak]
        self.graph = Graph(link, self.tick, [link.buffer(slots, TICK_SAMPLES)], kept)

    def tick(self, audio: Tensor) -> Tensor:
        """audio [B, N] -> what the host needs of it, side by side, [B, numbers]."""
        (mel, power), sound = features.log_mel_and_power(audio, self.sound)
        self.sound.tail.copy_(sound.tail)
        self.sound.peak.copy_(sound.peak)
        state = self.state
        tails = state.mel_tail, state.conv_tail, state.early
        frames = self.encoder.tick(mel, state)
        for buffer, new in zip(tails, (state.mel_tail, state.conv_tail, state.early), strict=True):
            buffer.copy_(new)
        state.mel_tail, state.conv_tail, state.early = tails
        config = self.encoder.config
        state.filled.copy_((state.filled + ENCODER_FRAMES_PER_TICK).clamp(max=config.window))
        state.cursor.copy_((state.cursor + ENCODER_FRAMES_PER_TICK) % config.ring)
        vectors, phones = self.encoder.heads(frames)
        self.vectors.copy_(vectors[:, 0])
        found = [phones.float().flatten(1), speech_activity.level_db(audio)[:, None]]
        found += [head(state.early.float())[:, 0] for head in self.heads if head is not None]
        if self.has_power:
            found.append(power.flatten(1))
        return torch.cat(found, 1)

    def hear(self, audio: np.ndarray) -> Heard:
        """One wait. The vectors stay on the device: an empty tensor stands for them."""
        found = self.link.fetch(self.graph(audio))
        speaker, sound = self.heads
        sizes = [
            ENCODER_FRAMES_PER_TICK * (1 + len(PHONES)),
            1,
            0 if speaker is None else speaker.config.vector,
            0 if sound is None else sound.config.kinds,
            POWER[0] * POWER[1] if self.has_power else 0,
        ]
        phones, level, voices, scores, power = np.split(found, np.cumsum(sizes)[:-1], 1)
        return Heard(
            self.none,
            torch.from_numpy(power.copy()).view(-1, *POWER) if self.has_power else None,
            phones.reshape(len(found), ENCODER_FRAMES_PER_TICK, -1),
            level[:, 0].tolist(),
            None if speaker is None else voices,
            None if sound is None else scores,
        )

    def tensors(self) -> list[Tensor]:
        """What it remembers."""
        state = self.state
        tails = [self.sound.tail, self.sound.peak, state.mel_tail, state.conv_tail, state.early]
        return [*tails, state.keys, state.values, state.filled, self.vectors]

    def reset(self, slot: int) -> None:
        """The slot has heard nothing."""
        self.sound.reset([slot])
        self.state.reset([slot])
