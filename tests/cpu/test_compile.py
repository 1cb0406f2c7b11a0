"""The one door: parts go in, parts with the same calls come out."""

from contextlib import nullcontext

import pytest
import torch

from duplex import cpu
from duplex.cpu import helper_thread
from duplex.cpu.encoder import CompiledEncoder
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.parts import Parts
from duplex.model.tts.seanet import SeanetCodec, SeanetConfig


@pytest.fixture
def parts() -> Parts:
    """An encoder, and a codec that has no compiled form."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=32, layers=1, heads=2, window=16)).eval()
    return Parts(encoder=encoder, codec=SeanetCodec(SeanetConfig(filters=4, codebook_size=16)))


def test_networks_without_a_compiled_form_stay(parts):
    compiled = cpu.compile(parts, threads=1)
    assert isinstance(compiled.encoder, CompiledEncoder)
    assert compiled.codec is parts.codec
    assert compiled.lm is None
    assert isinstance(parts.encoder, Encoder), "the parts that were given are what they were"


@pytest.mark.parametrize(
    ("threads", "helper"),
    [(1, nullcontext), pytest.param(2, helper_thread.running, marks=pytest.mark.slow)],
)
def test_second_thread_is_lent_where_it_is_wanted(parts, threads, helper):
    assert cpu.compile(parts, threads).helper_thread is helper
