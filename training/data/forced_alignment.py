"""When was what said: forced alignment of known text to sound, by the encoder's CTC over phones.

A causal encoder names a phone, as one spike, some time after it has begun; how long, was measured
on speech whose times are known.
"""

import numpy as np
import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F

from duplex.audio import ENCODER_FRAME_S, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.asr import features
from duplex.model.asr.encoder import BLANK, WORD_END, Encoder
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.normalize import phones

# Seconds from a word's first sound to its first spike.
AFTER_START_S = 0.21
# Seconds from a word's last sound to its last spike.
AFTER_END_S = 0.15


def frames_needed(targets: list[int]) -> int:
    """Frames of a CTC path: one for each phone, and a blank between two equal ones."""
    return len(targets) + sum(a == b for a, b in zip(targets, targets[1:], strict=False))


def spike_frames(log_probs: Tensor, targets: list[int]) -> list[int] | None:
    """The frame at which each target first stands, by forced alignment.

    log_probs [T, 1 + phones]. None where there are more targets than frames for them.
    """
    if frames_needed(targets) > len(log_probs):
        return None
    wanted = torch.tensor([targets], dtype=torch.int32)
    path, _ = torchaudio.functional.forced_align(log_probs[None], wanted, blank=BLANK)
    path = path[0].tolist()
    return [t for t, phone in enumerate(path) if phone and (t == 0 or path[t - 1] != phone)]


def word_spans(log_probs: Tensor, words: list[list[int]]) -> list[tuple[float, float]] | None:
    """(start, end) in seconds of every word; each lasts at least 0.02 s.

    log_probs [T, 1 + phones]; words: the phones of each, with the WORD_END after them. None where
    there are more phones than frames to hear them in.
    """
    frames = spike_frames(log_probs, [phone for word in words for phone in word])
    if frames is None:
        return None
    spans = []
    before = 0.0
    first = 0
    for word in words:
        own = zip(frames[first : first + len(word)], word, strict=True)
        spikes = [frame * ENCODER_FRAME_S for frame, phone in own if phone != WORD_END]
        first += len(word)
        end = max(spikes[-1] - AFTER_END_S, before + 0.02)
        start = min(max(before, spikes[0] - AFTER_START_S), end - 0.02)
        spans.append((start, end))
        before = end
    return spans


@torch.no_grad()
def stream_log_probs(encoder: Encoder, wave: np.ndarray) -> Tensor:
    """The encoder's log-probabilities [T, 1 + phones] for a wave float32 [N], as a stream.

    So it costs no more memory however long the wave is. It goes on for 6 ticks of silence: the last
    spikes come late.
    """
    silence = 6 * TICK_SAMPLES + -len(wave) % TICK_SAMPLES
    padded = F.pad(torch.from_numpy(wave), (0, silence))[None]
    mel, _ = features.log_mel(padded, features.initial_state(1))
    (_, log_probs), _ = encoder.step(mel, encoder.initial_state(1))
    return log_probs[0]


def fit(log_probs: Tensor, text: str) -> float:
    """How well a text fits log-probabilities [T, 1 + phones]: nats a phone; -inf: it is too long.

    It is the mean, over the phones, of what the encoder gave each where it is put.
    """
    targets = phones(spoken_form(text))
    frames = spike_frames(log_probs, targets) if targets else None
    if frames is None:
        return -float("inf")
    return float(log_probs[frames, targets].mean())


def forced_align(wave: np.ndarray, text: str, encoder: Encoder) -> list[list]:
    """When each word of a text is said in a wave float32 [N].

    Returns [[word as written, start, end], ...] in seconds. What is not spoken (a dash) belongs to
    no word and is left out. Raises ValueError where the text cannot be in the sound.
    """
    return align_words(stream_log_probs(encoder, wave), text, len(wave) / SAMPLE_RATE)


def align_words(log_probs: Tensor, text: str, seconds: float) -> list[list]:
    """As `forced_align`, from log-probabilities [T, 1 + phones] of so many seconds."""
    words = [(word, phones(spoken_form(word))) for word in text.split()]
    words = [(word, spoken) for word, spoken in words if spoken]
    if not words:
        return []
    spans = word_spans(log_probs, [spoken for _, spoken in words])
    if spans is None:
        raise ValueError(f"{len(words)} words do not fit into {seconds:.1f} s of sound")
    return [
        [word, round(min(start, seconds), 3), round(min(end, seconds), 3)]
        for (word, _), (start, end) in zip(words, spans, strict=True)
    ]
