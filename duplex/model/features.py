"""Causal log-mel features: the microphone's wave as the encoder sees it, one frame of 80 bands every 10 ms.

Frame n ends with sample 240 (n + 1) and looks back one window of 25 ms, so nothing waits for the future. A window of
600 samples at 24 kHz has the same bins of 40 Hz as Whisper's 400 at 16 kHz, so Whisper's filters apply to the lowest
201 bins. Whisper divides by the loudest moment of the whole clip; a stream has no such thing, so each slot keeps a
running peak that decays slowly and everything is measured from there.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torchaudio

from duplex.audio import MEL_HOP_SAMPLES, MEL_RATE, MEL_WINDOW_SAMPLES

BANDS = 80
BINS = 201  # 0 to 8000 Hz in steps of 40 Hz
WHISPER_WINDOW_SAMPLES = 400  # at 16 kHz: sets the scale of Whisper's power values
TAIL_SAMPLES = (
    MEL_WINDOW_SAMPLES - MEL_HOP_SAMPLES
)  # 360, what a frame needs from before its own hop

LOWEST_POWER = 1e-10
DYNAMIC_RANGE = 8.0  # powers of ten below the peak that stay visible, as in Whisper
PEAK_DECAY = 0.2 / MEL_RATE  # powers of ten per frame: 2 dB each second
PEAK_FLOOR = (
    -0.5
)  # about 30 dB below full scale: silence and faint noise are not blown up beyond this
USUAL_PEAK = 1.5  # where the peak of a loud recording lies in Whisper's own values


@dataclass
class FeatureState:
    tail: torch.Tensor  # [B, 360] the last samples
    peak: torch.Tensor  # [B] running peak, log10 of power


def initial_state(batch: int, device: torch.device | str = "cpu") -> FeatureState:
    peak = torch.full((batch,), PEAK_FLOOR, device=device)
    return FeatureState(torch.zeros(batch, TAIL_SAMPLES, device=device), peak)


def reset(state: FeatureState, slots: list[int]) -> None:
    """Put these slots back to the beginning."""
    state.tail[slots] = 0.0
    state.peak[slots] = PEAK_FLOOR


@cache
def _window_and_filters(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Hann window scaled to Whisper's amplitude [600] and Whisper's mel filters [201, 80]."""
    with torch.inference_mode(False):  # kept for all callers, those that want gradients too
        return _make_window_and_filters(device)


def _make_window_and_filters(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    window = torch.hann_window(MEL_WINDOW_SAMPLES, device=device) * (
        WHISPER_WINDOW_SAMPLES / MEL_WINDOW_SAMPLES
    )
    filters = torchaudio.functional.melscale_fbanks(
        BINS, 0.0, 8000.0, BANDS, 16_000, norm="slaney", mel_scale="slaney"
    )
    return window, filters.to(device)


def log_power(wave: torch.Tensor) -> torch.Tensor:
    """wave [B, 360 + N*240] -> log10 of the power in the mel bands [B, N, 80], without any level handling."""
    window, filters = _window_and_filters(wave.device)
    frames = wave.unfold(-1, MEL_WINDOW_SAMPLES, MEL_HOP_SAMPLES)  # [B, N, 600]
    spectrum = torch.fft.rfft(frames * window)[..., :BINS]
    power = spectrum.real.square() + spectrum.imag.square()
    return (power @ filters).clamp(min=LOWEST_POWER).log10()


def running_peak(levels: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """levels [B, N] -> peak[n] = max(levels[n], peak[n-1] - decay, floor) [B, N], starting from `before` [B]."""
    # Undo the decay, and the recursion is a cumulative maximum. Positions count from this call, so they stay small.
    rise = PEAK_DECAY * torch.arange(1, levels.shape[1] + 1, device=levels.device)
    start = torch.cat([before[:, None], levels + rise], 1)
    return (start.cummax(1).values[:, 1:] - rise).clamp(min=PEAK_FLOOR)


def normalise(power: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """log10 power [B, N, 80] and peak [B, N] -> values in Whisper's usual range, the peak at (1.5 + 4) / 4."""
    return ((power - peak[..., None]).clamp(min=-DYNAMIC_RANGE) + USUAL_PEAK + 4.0) / 4.0


def log_mel(wave: torch.Tensor, state: FeatureState) -> tuple[torch.Tensor, FeatureState]:
    """wave [B, N*240] -> mel [B, N, 80]."""
    assert wave.dim() == 2 and wave.shape[1] % MEL_HOP_SAMPLES == 0, (
        f"wave must be [B, N*240], got {list(wave.shape)}"
    )
    joined = torch.cat([state.tail, wave.float()], 1)
    power = log_power(joined)
    peak = running_peak(power.amax(-1), state.peak)
    return normalise(power, peak), FeatureState(
        joined[:, -TAIL_SAMPLES:].clone(), peak[:, -1].clone()
    )
