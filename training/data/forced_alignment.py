"""When was what said: forced alignment of known text to sound, from the log-probabilities of the encoder's CTC over phones.

A causal encoder names a phone, as one spike, some time after it has begun; how long, was measured on speech whose times are
known.
"""

import numpy as np
import torch
import torchaudio
from duplex.training.data.normalize import heard_form, phones
from torch.nn import functional as F

from duplex.audio import (
    ENCODER_FRAME_S,
    SAMPLE_RATE,
    TICK_SAMPLES,
)
from duplex.model import features
from duplex.model.encoder import BLANK, WORD_END, Encoder

AFTER_START_S, AFTER_END_S = (
    0.21,
    0.15,
)  # from a word's first sound to its first spike, from its last sound to its last
SHORTEST_WORD_S = 0.02
TAIL_TICKS = 6  # of silence after the sound: the last spikes come late


def spike_frames(log_probs: torch.Tensor, targets: list[int]) -> list[int] | None:
    """log_probs [T, 1 + phones]: the frame at which each target first stands, by forced alignment; None where it cannot."""
    if len(targets) + sum(a == b for a, b in zip(targets, targets[1:], strict=False)) > len(
        log_probs
    ):
        return None
    path, _ = torchaudio.functional.forced_align(
        log_probs[None], torch.tensor([targets], dtype=torch.int32), blank=BLANK
    )
    path = path[0].tolist()
    return [t for t, p in enumerate(path) if p and (t == 0 or path[t - 1] != p)]


def spans(log_probs: torch.Tensor, words: list[list[int]]) -> list[tuple[float, float]] | None:
    """log_probs [T, 1 + phones], each word's phones with the WORD_END after them -> (start, end) in seconds of every word.

    None where there are more phones than frames to hear them in.
    """
    frames = spike_frames(log_probs, [phone for word in words for phone in word])
    if frames is None:
        return None
    found, before, first = [], 0.0, 0
    for word in words:
        own = zip(frames[first : first + len(word)], word, strict=True)
        spikes, first = (
            [frame * ENCODER_FRAME_S for frame, phone in own if phone != WORD_END],
            first + len(word),
        )
        end = max(spikes[-1] - AFTER_END_S, before + SHORTEST_WORD_S)
        start = min(max(before, spikes[0] - AFTER_START_S), end - SHORTEST_WORD_S)
        found.append((start, end))
        before = end
    return found


@torch.no_grad()
def hear(encoder: Encoder, wave: np.ndarray) -> torch.Tensor:
    """wave float32 [N] -> log-probabilities [T, 1 + phones], as a stream, so however long it is it costs no more memory."""
    padded = F.pad(
        torch.from_numpy(wave), (0, TAIL_TICKS * TICK_SAMPLES + -len(wave) % TICK_SAMPLES)
    )[None]
    mel, _ = features.log_mel(padded, features.initial_state(1))
    (_, log_probs), _ = encoder.step(mel, encoder.initial_state(1))
    return log_probs[0]


def forced_align(wave: np.ndarray, text: str, encoder: Encoder) -> list[list]:
    """wave float32 [N], and what is said in it -> [[word as written, start, end], ...] in seconds.

    What is not spoken (a dash) belongs to no word and is left out. Raises ValueError where the text cannot be in the sound.
    """
    said = [(word, spoken) for word in text.split() if (spoken := phones(heard_form(word)))]
    if not said:
        return []
    found = spans(hear(encoder, wave), [spoken for _, spoken in said])
    length = len(wave) / SAMPLE_RATE
    if found is None:
        raise ValueError(f"{len(said)} words do not fit into {length:.1f} s of sound")
    return [
        [w, round(min(a, length), 3), round(min(b, length), 3)]
        for (w, _), (a, b) in zip(said, found, strict=True)
    ]
