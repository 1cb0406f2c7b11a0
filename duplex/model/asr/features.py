"""Causal log-mel features: the microphone's wave as the encoder sees it, a frame every 10 ms.

Frame n ends with sample 240 (n + 1) and looks back one window of 25 ms, so nothing waits for the
future. A window of 600 samples at 24 kHz has the same bins of 40 Hz as Whisper's 400 at 16 kHz, so
Whisper's filters apply to the lowest 201 bins. Whisper divides by the loudest moment of the whole
clip; a stream has no such thing, so each slot keeps a running peak that decays slowly, and
everything is measured from there.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torchaudio

from duplex.audio import MEL_HOP_SAMPLES, MEL_RATE, MEL_WINDOW_SAMPLES

# Mel bands of a frame.
BANDS = 80

# Bins that Whisper's filters apply to: 0 to 8000 Hz in steps of 40 Hz.
BINS = 201

# What a frame needs from before its own hop: 360 samples.
TAIL_SAMPLES = MEL_WINDOW_SAMPLES - MEL_HOP_SAMPLES

# How fast the peak decays, in powers of ten a frame: 2 dB a second.
PEAK_DECAY = 0.2 / MEL_RATE

# The lowest peak, about 30 dB below full scale: silence and faint noise are not blown up further.
MIN_PEAK = -0.5


@dataclass
class FeatureState:
    """What is remembered of each slot's wave."""

    tail: torch.Tensor  # [B, 360] the last samples
    peak: torch.Tensor  # [B] the running peak, log10 of power
    # Hann window [600] and mel filters [201, 80].
    tables: tuple[torch.Tensor, torch.Tensor]

    def reset(self, slots: list[int]) -> None:
        """Put these slots back to the beginning."""
        self.tail[slots] = 0.0
        self.peak[slots] = MIN_PEAK


def initial_state(batch: int, device: torch.device | str = "cpu") -> FeatureState:
    """A state before the first sound."""
    peak = torch.full((batch,), MIN_PEAK, device=device)
    tables = _window_and_filters(torch.device(device))
    return FeatureState(torch.zeros(batch, TAIL_SAMPLES, device=device), peak, tables)


def log_mel(wave: torch.Tensor, state: FeatureState) -> tuple[torch.Tensor, FeatureState]:
    """wave [B, 240 N] in [-1, 1] -> mel [B, N, 80] in Whisper's usual range, and the next state."""
    (mel, _), state = log_mel_and_power(wave, state)
    return mel, state


def log_mel_and_power(
    wave: torch.Tensor, state: FeatureState
) -> tuple[tuple[torch.Tensor, torch.Tensor], FeatureState]:
    """As log_mel, and before the peak is taken off: log10 of the power in the bands [B, N, 80]."""
    assert wave.dim() == 2 and wave.shape[1] % MEL_HOP_SAMPLES == 0, (
        f"wave must be [B, N*240], got {list(wave.shape)}"
    )
    joined = torch.cat([state.tail, wave.float()], 1)
    power = log_power(joined, state.tables)
    peak = running_peak(power.amax(-1), state.peak)
    tail = joined[:, -TAIL_SAMPLES:].clone()
    state = FeatureState(tail, peak[:, -1].clone(), state.tables)
    return (normalise(power, peak), power), state


def log_power(
    wave: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor] | None = None
) -> torch.Tensor:
    """wave [B, 360 + 240 N] -> log10 of the power in the mel bands [B, N, 80]."""
    window, filters = tables or _window_and_filters(wave.device)
    frames = wave.unfold(-1, MEL_WINDOW_SAMPLES, MEL_HOP_SAMPLES)  # [B, N, 600]
    spectrum = torch.fft.rfft(frames * window)[..., :BINS]
    power = spectrum.real.square() + spectrum.imag.square()
    return (power @ filters).clamp(min=1e-10).log10()


def running_peak(levels: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """levels [B, N], peak before [B] -> max(levels[n], peak[n-1] - decay, floor) [B, N]."""
    # Without the decay the recursion is a cumulative maximum. Frames count from this call on, so
    # the numbers stay small.
    rise = PEAK_DECAY * torch.arange(1, levels.shape[1] + 1, device=levels.device)
    start = torch.cat([before[:, None], levels + rise], 1)
    return (start.cummax(1).values[:, 1:] - rise).clamp(min=MIN_PEAK)


def normalise(power: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """log10 power [B, N, 80], peak [B, N] -> Whisper's usual range, the peak at (1.5 + 4) / 4."""
    dynamic_range = 8.0  # Powers of ten below the peak that stay visible, as in Whisper.
    usual_peak = 1.5  # That of a loud recording in Whisper's own values.
    return ((power - peak[..., None]).clamp(min=-dynamic_range) + usual_peak + 4.0) / 4.0


@cache
def _window_and_filters(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Hann window scaled to Whisper's amplitude [600] and Whisper's mel filters [201, 80]."""
    # They are kept for all callers, those that want gradients too.
    with torch.inference_mode(False):
        # Whisper's window of 400 samples at 16 kHz sets the scale of its power values.
        window = torch.hann_window(MEL_WINDOW_SAMPLES, device=device) * (400 / MEL_WINDOW_SAMPLES)
        filters = torchaudio.functional.melscale_fbanks(
            BINS, 0.0, 8000.0, BANDS, 16_000, norm="slaney", mel_scale="slaney"
        )
        return window, filters.to(device)
