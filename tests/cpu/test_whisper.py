"""Whisper in 8 bits hears what it hears in 32."""

import torch

from duplex.cpu.whisper import compress
from tests.tiny_whisper import tiny_whisper


def test_likelihoods_are_nearly_the_same():
    """And the Whisper that it was made of is as it was."""
    whisper = tiny_whisper()
    power = torch.randn(60, 80, generator=torch.Generator().manual_seed(1)) - 3
    texts = ["so we go", "hi"]
    before = whisper.score(whisper.encode(power), texts)
    smaller = compress(whisper)
    found = smaller.score(smaller.encode(power), texts)
    assert found != before
    for value, expected in zip(found, before, strict=True):
        assert abs(value / expected - 1) < 0.02
    assert whisper.score(whisper.encode(power), texts) == before


def test_it_reads_greedily_with_and_without_a_draft():
    smaller = compress(tiny_whisper())
    h = smaller.encode(torch.randn(60, 80, generator=torch.Generator().manual_seed(1)) - 3)
    reading = smaller.decode(h, 12)
    assert smaller.decode(h, 12, reading.tokens[:5]).tokens == reading.tokens
