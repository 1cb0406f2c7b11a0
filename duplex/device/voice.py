"""What all slots say in a tick, as one function of fixed shapes: talker, codec, samples.

Which phone is said in which frame is planned on the host, with what the phone encoder makes of all
slots' new phones in one more function.

Letters in shapes: R rows of new phones, P phones, B slots, K codebooks drawn, C width of codes,
N samples of a tick.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from duplex.audio import CODEC_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.device.link import Graph, Link
from duplex.model.tts.codec import Codec
from duplex.model.tts.synthesis import StreamingSynthesizer, TickPlan
from duplex.model.tts.talker import POSITION_FEATURES, Talker

# New phones that are encoded at once, and of how many slots; more of one slot, which are rare, are
# encoded on the host.
MOST_PHONES = 48
PHONE_ROWS = 32


class Voice:
    """Talker and codec of all slots on the device."""

    def __init__(self, talker: Talker, codec: Codec, slots: int, link: Link, idle_ticks: int):
        """
        Args:
            talker, codec: on the device.
            idle_ticks: of silence, after which a slot's codec rests.
        """
        self.link = link
        self.codec = codec
        self.idle_ticks = idle_ticks
        self.synthesizer = StreamingSynthesizer(talker)
        codec.decoder.always_warps = True
        self.synthesis_state = self.synthesizer.initial_state(slots)
        self.synthesis_state.position = link.buffer(dtype=torch.int64)
        self.codec_state = codec.initial_decode_state(slots)
        self.silent_ticks = link.buffer(slots, dtype=torch.int64)
        self.silence = torch.zeros(slots, TICK_SAMPLES)
        # Ticks since each slot said anything, as the host knows.
        self.rested = np.zeros(slots, np.int64)
        config = talker.config
        frames = (slots, CODEC_FRAMES_PER_TICK)
        inputs = [
            link.buffer(*frames, config.code_width),
            link.buffer(*frames, POSITION_FEATURES),
            link.buffer(*frames, config.drawn),
            link.buffer(*frames, dtype=torch.bool),
            link.buffer(slots, dtype=torch.bool),
        ]
        said = self.synthesis_state
        kept = [said.visible, said.sums, said.position, self.silent_ticks]
        kept += self.codec_state.tensors()
        self.graph = Graph(link, self.tick, inputs, kept)
        numbers = partial(link.buffer, dtype=torch.int64)
        rows = min(slots, PHONE_ROWS)
        self.first_voice = numbers(rows)
        inputs = [numbers(rows, MOST_PHONES), numbers(rows)]
        self.phones = Graph(link, self.encode_rows, inputs)

    def tick(
        self, phones: Tensor, positions: Tensor, uniform: Tensor, forced: Tensor, begins: Tensor
    ) -> Tensor:
        """What StreamingSynthesizer.gather gives, and begins bool [B] -> samples [B, N]."""
        said = self.synthesis_state
        sums = said.sums
        said.visible.masked_fill_(begins[:, None, None], False)
        sums.copy_(torch.where(begins[:, None], self.synthesizer.silence_sums, sums))
        codes = self.synthesizer.sample_patches(said, phones, positions, uniform, forced)
        sums.copy_(said.sums)
        said.sums = sums
        silence = self.synthesizer.talker.silence_codes[: codes.shape[2]]
        is_silent = (codes == silence).all(2).all(1)
        self.silent_ticks.copy_((self.silent_ticks + 1).masked_fill(~is_silent, 0))
        sounds = self.silent_ticks < self.idle_ticks
        latent = self.codec.dequantize(codes.transpose(1, 2))
        wave, state = self.codec.decoder.step(latent, self.codec_state)
        for buffer, new in zip(self.codec_state.tensors(), state.tensors(), strict=True):
            kept = sounds.view(-1, *[1] * (buffer.dim() - 1))
            buffer.copy_(torch.where(kept, new, buffer))
        return wave.float().clamp(-1, 1).masked_fill(~sounds[:, None], 0.0)

    def encode_rows(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """Phones [R, P], of which so many [R] count -> conditions and log frames [R, P, C + 1]."""
        encoder = self.synthesizer.talker.phone_encoder
        conditions, log_frames = encoder(phones, lengths, self.first_voice)
        return torch.cat([conditions, log_frames[..., None]], -1)

    def encode_phones(self, alone: Callable, given: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """See StreamingSynthesizer.encode_each, which `alone` is: one wait, none without phones."""
        short = [place for place, phones in enumerate(given) if len(phones) <= MOST_PHONES]
        rows = len(self.first_voice)
        parts = []
        for begin in range(0, len(short), rows):
            phones = np.zeros((rows, MOST_PHONES), np.int64)
            lengths = np.zeros(rows, np.int64)
            for row, place in enumerate(short[begin : begin + rows]):
                lengths[row] = len(given[place])
                phones[row, : lengths[row]] = given[place]
            parts.append(self.phones(phones, lengths).clone())
        found = {}
        if parts:
            encoded = torch.from_numpy(self.link.fetch(torch.cat(parts)))
            for own, place in zip(encoded, short, strict=False):
                own = own[: len(given[place])].clone()  # All rows would be kept with it.
                found[place] = own[:, :-1], own[:, -1]
        return [found.get(place) or alone([phones])[0] for place, phones in enumerate(given)]

    def speak(self, planner: StreamingSynthesizer, plan: TickPlan) -> np.ndarray:
        """The sound of a tick [B, N]: one wait, none where all slots have rested for long.

        planner: made the plan, on the host.
        """
        speaks = np.array([any(frames) for frames in plan.frames])
        self.rested = np.where(speaks, 0, self.rested + 1)
        if self.rested.min() > self.idle_ticks:
            return self.silence.numpy().copy()
        begins = np.zeros(len(speaks), bool)
        begins[plan.begins] = True
        planner.calls += planner.patches
        given = planner.gather(self.synthesis_state, plan.frames)
        return self.link.fetch(self.graph(*given, begins))

    def tensors(self) -> list[Tensor]:
        """What it remembers."""
        said = self.synthesis_state
        return [said.keys, said.values, said.visible, said.sums, *self.codec_state.tensors()]

    def reset(self, slot: int) -> None:
        """The slot has said nothing."""
        self.rested[slot] = 0
        self.silent_ticks[slot] = 0
