"""Features: stream equals whole, no look-ahead, Whisper's values, a running peak that forgets."""

import pytest
import torch
import torchaudio
from transformers import WhisperFeatureExtractor

from duplex.audio import MEL_HOP_SAMPLES, SAMPLE_RATE
from duplex.model.asr.features import (
    BINS,
    MIN_PEAK,
    PEAK_DECAY,
    TAIL_SAMPLES,
    initial_state,
    log_mel,
    log_power,
    running_peak,
)


def noise(batch: int, frames: int) -> torch.Tensor:
    """Noise whose level goes up and down, so that the peak matters."""
    samples = frames * MEL_HOP_SAMPLES
    loudness = torch.linspace(0, 9, samples).sin().square()
    generator = torch.Generator().manual_seed(0)
    return 0.3 * loudness * torch.randn(batch, samples, generator=generator)


@pytest.mark.parametrize("chunks", [[1] * 30, [8, 8, 8, 6], [3, 1, 17, 9], [29, 1]])
def test_stream_equals_whole(chunks):
    wave = noise(2, 30)
    whole, _ = log_mel(wave, initial_state(2))
    state = initial_state(2)
    parts = []
    for part in wave.split([n * MEL_HOP_SAMPLES for n in chunks], 1):
        mel, state = log_mel(part, state)
        parts.append(mel)
    assert (torch.cat(parts, 1) - whole).norm() / whole.norm() < 1e-6


def test_no_frame_depends_on_later_samples():
    wave = noise(1, 20).requires_grad_()
    mel, _ = log_mel(wave, initial_state(1))
    for n in (0, 7, 19):
        (gradient,) = torch.autograd.grad(mel[:, n].sum(), wave, retain_graph=True)
        assert not gradient[:, (n + 1) * MEL_HOP_SAMPLES :].any()
        assert gradient[:, : (n + 1) * MEL_HOP_SAMPLES].abs().max() > 0


def test_filters_are_whispers():
    ours = torchaudio.functional.melscale_fbanks(
        BINS, 0.0, 8000.0, 80, 16_000, norm="slaney", mel_scale="slaney"
    )
    theirs = torch.from_numpy(WhisperFeatureExtractor(feature_size=80).mel_filters)
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("hz", [200, 1000, 3400])
def test_tone_has_whispers_values(hz):
    """The same tone at both rates, compared in a steady frame and before levels are handled."""

    def tone(rate: int) -> torch.Tensor:
        return 0.4 * torch.sin(2 * torch.pi * hz * torch.arange(rate) / rate)

    wave = torch.cat([torch.zeros(TAIL_SAMPLES), tone(SAMPLE_RATE)])
    ours = log_power(wave[None])[0, 50]
    extractor = WhisperFeatureExtractor(feature_size=80)
    found = extractor(tone(16_000).numpy(), sampling_rate=16_000, return_tensors="pt")
    theirs = found.input_features[0, :, 50] * 4 - 4
    # Whisper cuts at 8 below the peak; rounding rules the bottom.
    audible = theirs > theirs.max() - 6
    assert (ours - theirs)[audible].abs().max() < 0.02


def test_peak_is_a_slow_maximum():
    levels = torch.randn(2, 50, generator=torch.Generator().manual_seed(1)).cumsum(1) * 0.01
    before = torch.tensor([1.0, MIN_PEAK])
    peak = before
    expected = []
    for level in levels.unbind(1):
        peak = torch.maximum(peak - PEAK_DECAY, level).clamp(min=MIN_PEAK)
        expected.append(peak)
    assert torch.allclose(running_peak(levels, before), torch.stack(expected, 1), atol=1e-6)


def test_level_hardly_matters_and_silence_stays_low():
    time = torch.arange(20 * MEL_HOP_SAMPLES) / SAMPLE_RATE
    tone = 0.5 * torch.sin(2 * torch.pi * 600 * time)[None]
    loud, _ = log_mel(tone, initial_state(1))
    soft, _ = log_mel(tone * 0.1, initial_state(1))
    audible = loud[:, 2:] > loud.max() - 1.5  # From the first frame whose window is full.
    assert (loud - soft)[:, 2:][audible].abs().max() < 0.01
    hiss, _ = log_mel(torch.randn(1, 20 * MEL_HOP_SAMPLES) * 1e-4, initial_state(1))
    assert hiss.max() < loud.max() - 0.5


def test_reset_of_one_slot():
    _, state = log_mel(noise(3, 10), initial_state(3))
    kept = state.tail[[0, 2]].clone()
    state.reset([1])
    assert torch.equal(state.tail[[0, 2]], kept)
    assert not state.tail[1].any()
    assert state.peak[1] == MIN_PEAK
