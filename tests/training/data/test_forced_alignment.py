"""Forced alignment finds the words where they were said."""

import numpy as np
import pytest
import torch

from duplex.audio import ENCODER_FRAME_S, TICK_S
from duplex.model.asr.encoder import PHONES
from duplex.training.data.forced_alignment import (
    AFTER_END_S,
    AFTER_START_S,
    align_words,
    spike_frames,
)
from duplex.training.data.normalize import phones

WORDS = [("hello", 0.5, 1.0), ("eel", 1.5, 2.3), ("bee", 4.0, 4.6), ("it's", 4.7, 5.5)]


def planted_spikes() -> tuple[torch.Tensor, list[int], list[int]]:
    """Log-probabilities with spikes of WORDS, some of them weak; their frames, their phones.

    A spike comes some time after its sound, as an encoder gives it.
    """
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.001, 0.01, (320, 1 + len(PHONES)))
    frames = []
    targets = []
    for word, start, end in WORDS:
        said = phones(word)
        times = np.linspace(start + AFTER_START_S, end + AFTER_END_S, len(said) - 1)
        frames += [round(t / ENCODER_FRAME_S) for t in [*times, times[-1] + 0.06]]
        targets += said
    for n, (frame, phone) in enumerate(zip(frames, targets, strict=True)):
        probabilities[frame, phone] += 0.3 if n % 3 == 0 else 1.0
    probabilities[:, 0] += np.where(probabilities[:, 1:].max(1) > 0.5, 0.0, 0.5)
    log_probs = np.log(probabilities / probabilities.sum(1, keepdims=True))
    return torch.from_numpy(log_probs).float(), frames, targets


def test_words_are_found_within_a_tick():
    log_probs, _, _ = planted_spikes()
    found = align_words(log_probs, "Hello, eel -- bee it's!", 6.4)
    assert [word for word, _, _ in found] == ["Hello,", "eel", "bee", "it's!"]
    for (_, start, end), (_, true_start, true_end) in zip(found, WORDS, strict=True):
        assert abs(end - true_end) <= TICK_S and abs(start - true_start) <= TICK_S


def test_spikes_are_found_or_there_is_no_room_for_them():
    log_probs, frames, targets = planted_spikes()
    assert spike_frames(log_probs, targets) == frames
    assert spike_frames(log_probs[:10], targets) is None


def test_a_text_that_cannot_be_in_the_sound_is_an_error():
    log_probs, _, _ = planted_spikes()
    with pytest.raises(ValueError, match="do not fit into 6.4 s"):
        align_words(log_probs, "hello " * 99, 6.4)
