"""The codec's decoder: latent vectors -> the voice, as pulses and noise, each shaped by a spectrum per frame.

    output = inverse STFT( exp(harmonic) e^{i phase} * STFT(pulses at the pitch) + exp(noise) e^{i random} )

A network of causal ConvNeXt blocks gives the two log magnitudes, the phase and the pitch of every frame; the phase is the
minimum phase that belongs to the harmonic magnitudes, turned by what the network adds to it. So voiced sound has clean
harmonics however little the network was trained. The pitch is taught, not found: no gradient goes through the pulses.

A frame's window ends after the sound that its latent vector was made of. So that nothing need be foreseen, a frame's spectrum is
given with the next latent vector, whose own frame ends where that window does, and so does the pitch given with it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.convnext import Block, FrameConv

OVERLAP_FRAMES = 3  # a squared Hann window sums to a constant when three of them overlap
WINDOW_SAMPLES = OVERLAP_FRAMES * CODEC_FRAME_SAMPLES
OVERLAP_GAIN = 8 / (3 * OVERLAP_FRAMES)  # one over that constant
BINS = WINDOW_SAMPLES // 2 + 1
PARTS = 4  # of a frame's spectrum: log magnitudes of noise and of harmonics, and how the phase turns (real - 1, imaginary)
SILENCE = -9.0  # log magnitude that nobody hears
MAX_LOG_MAGNITUDE = 6.0  # far above speech; keeps exp() finite whatever the codes
MIDDLE_HZ, LOWEST_HZ, HIGHEST_HZ = 180.0, 50.0, 600.0  # of the pitch
HIGHEST_HARMONIC_HZ = 11_000.0
NOISE_FRAMES = 509  # random numbers repeat after this many frames


@dataclass
class DecodeState:
    """Rows are slots. `tail`: output sums begun, not yet complete; `pulses`: the last ones (both [B, 2, hop])."""

    tail: Tensor
    pulses: Tensor
    hz: Tensor  # [B] pitch at the end of them
    cycles: Tensor  # [B] their phase there, in double precision
    position: Tensor  # [B] in the table of random numbers
    log_pitch: Tensor  # [B] added to the logarithm of the pitch: another voice
    log_tract: Tensor  # [B] the same for the frequencies of the spectra
    histories: list[Tensor]  # one [B, kernel - 1, C] per convolution


class FrameDecoder(nn.Module):
    """Latent [B, T, D] -> pitch, magnitudes -> samples."""

    def __init__(self, inputs: int, width: int, blocks: int, kernel: int):
        super().__init__()
        self.from_latent = FrameConv(inputs, width, kernel)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, kernel) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.to_spectrum = nn.Linear(width, PARTS * BINS)
        self.to_pitch = nn.Parameter(torch.zeros(width))
        self.pitch_bias = nn.Parameter(torch.zeros(()))
        noise = F.normalize(
            torch.randn(NOISE_FRAMES, BINS, 2, generator=torch.Generator().manual_seed(0)), dim=-1
        )
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)
        self.history_shapes = [(kernel - 1, inputs)] + [(kernel - 1, width)] * blocks

    def initial_state(self, batch: int) -> DecodeState:
        zeros = self.window.new_zeros
        return DecodeState(
            tail=zeros(batch, OVERLAP_FRAMES - 1, CODEC_FRAME_SAMPLES),
            pulses=zeros(batch, OVERLAP_FRAMES - 1, CODEC_FRAME_SAMPLES),
            hz=zeros(batch),
            cycles=zeros(batch, dtype=torch.float64),
            position=zeros(batch, dtype=torch.int64),
            log_pitch=zeros(batch),
            log_tract=zeros(batch),
            histories=[zeros(batch, *shape) for shape in self.history_shapes],
        )

    def step(self, latent: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """latent [B, T, D] -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        spectrum, log_hz, histories = self.controls(latent, state.histories)
        spectrum, log_hz = warp(spectrum, state.log_tract), log_hz + state.log_pitch[:, None]
        wave, state = self.sound(spectrum, log_hz, state)
        state.histories = histories
        return wave, state

    def controls(
        self, latent: Tensor, histories: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """latent [B, T, D] -> the PARTS of the spectra of frames before [B, T, PARTS * BINS], log of Hz [B, T] at frames' ends."""
        x, spectrum, histories = self.network(latent, histories)
        log_hz = (
            (x.float() * self.to_pitch).sum(-1)
            + self.pitch_bias
            + torch.log(torch.tensor(MIDDLE_HZ))
        )
        return spectrum.float().clamp(max=MAX_LOG_MAGNITUDE), log_hz, histories

    def network(
        self, latent: Tensor, histories: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """latent [B, T, D] -> frames [B, T, C], what becomes their spectrum [B, T, PARTS * BINS], histories."""
        x, history = self.from_latent.step(latent, histories[0])
        x, new = self.first_norm(x), [history]
        for block, history in zip(self.blocks, histories[1:], strict=True):
            x, history = block.step(x, history)
            new.append(history)
        x = self.norm(x)
        return x, self.to_spectrum(x), new

    def sound(
        self, spectrum: Tensor, log_hz: Tensor, state: DecodeState
    ) -> tuple[Tensor, DecodeState]:
        """What `controls` gives -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        frames = log_hz.shape[1]
        log_noise, log_harmonic, *turn = spectrum.chunk(PARTS, dim=-1)
        with torch.no_grad():
            hz = log_hz.exp().clamp(LOWEST_HZ, HIGHEST_HZ)
            pulses, cycles = pulse_train(hz, state.hz, state.cycles)
            pulses = torch.cat([state.pulses.flatten(1), pulses], dim=1)
            windows = pulses.unfold(1, WINDOW_SAMPLES, CODEC_FRAME_SAMPLES) * self.window
            source = torch.fft.rfft(windows) * (
                2 / self.window.sum()
            )  # a harmonic's peak has magnitude 1
            positions = state.position[:, None] + torch.arange(frames, device=hz.device)
            noise = torch.view_as_complex(self.noise[positions % NOISE_FRAMES])
        sound = source * minimum_phase(log_harmonic) * unit(*turn) + noise * torch.exp(log_noise)
        windows = torch.fft.irfft(sound, n=WINDOW_SAMPLES) * (OVERLAP_GAIN * self.window)
        wave, tail = overlap_add(windows, state.tail)
        pulses = (
            pulses[:, frames * CODEC_FRAME_SAMPLES :].unflatten(1, (OVERLAP_FRAMES - 1, -1)).clone()
        )
        position = (state.position + frames) % NOISE_FRAMES
        pitch_and_tract = state.log_pitch, state.log_tract
        return wave, DecodeState(
            tail, pulses, hz[:, -1], cycles, position, *pitch_and_tract, state.histories
        )


def warp(spectrum: Tensor, log_tract: Tensor) -> Tensor:
    """What `controls` gives [B, T, PARTS * BINS] with all resonances exp(log_tract) [B] times as high; 0 changes nothing."""
    if not log_tract.any():
        return spectrum
    place = (torch.arange(BINS, device=spectrum.device) / log_tract.exp()[:, None]).clamp(
        max=BINS - 1
    )
    below = place.floor().clamp(max=BINS - 2)
    share, below = (place - below)[:, None, None], below.long()[:, None, None]
    both = spectrum.unflatten(-1, (PARTS, BINS))
    low, high = (both.gather(-1, (below + step).expand(both.shape)) for step in (0, 1))
    return (low * (1 - share) + high * share).flatten(-2)


def pulse_train(hz: Tensor, before: Tensor, cycles: Tensor) -> tuple[Tensor, Tensor]:
    """hz [B, T] at the frames' ends, hz before [B], phase [B] -> pulses [B, T * CODEC_FRAME_SAMPLES], phase [B].

    All harmonics below a limit, each of amplitude 1, as one closed sum; the last comes and goes gradually:
    cos(a) + cos(2a) + ... + cos(na) = sin((n + 1/2) a) / (2 sin(a/2)) - 1/2.
    """
    starts = torch.cat([before.clamp(min=LOWEST_HZ)[:, None], hz[:, :-1]], dim=1)
    share = torch.arange(1, CODEC_FRAME_SAMPLES + 1, device=hz.device) / CODEC_FRAME_SAMPLES
    hz = (starts[..., None] + (hz - starts)[..., None] * share).flatten(1)  # [B, T * hop]
    phase = cycles[:, None] + (hz.double() / SAMPLE_RATE).cumsum(1)
    cycles = phase[:, -1] % 1.0
    turn = (phase - phase.floor()).float() * torch.pi  # half the angle a, from 0 to pi
    number = HIGHEST_HARMONIC_HZ / hz
    whole = number.floor()
    below = 2 * torch.sin(turn)
    at_pulse = below < 2e-3
    sums = torch.where(
        at_pulse, whole + 0.5, torch.sin((2 * whole + 1) * turn) / below.masked_fill(at_pulse, 1.0)
    )
    return sums - 0.5 + (number - whole) * torch.cos(2 * (whole + 1) * turn), cycles


def unit(real: Tensor, imaginary: Tensor) -> Tensor:
    """How the phase turns, as the network gives it (zeros: not at all) -> complex numbers of magnitude 1."""
    real = 1 + real
    scale = (real.square() + imaginary.square()).clamp(min=1e-6).rsqrt()
    return torch.complex(real * scale, imaginary * scale)


def minimum_phase(log_magnitude: Tensor) -> Tensor:
    """Log magnitudes [..., BINS] -> the complex spectrum of the causal filter that rings as early as it can."""
    cepstrum = torch.fft.irfft(log_magnitude, n=WINDOW_SAMPLES)
    fold = torch.zeros(WINDOW_SAMPLES, device=log_magnitude.device)
    fold[0] = fold[WINDOW_SAMPLES // 2] = 1.0
    fold[1 : WINDOW_SAMPLES // 2] = 2.0
    phase = torch.fft.rfft(cepstrum * fold).imag.contiguous()  # the real part is log_magnitude
    return torch.polar(log_magnitude.exp(), phase)


def overlap_add(windows: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """windows [B, T, OVERLAP_FRAMES * hop], tail [B, OVERLAP_FRAMES - 1, hop] -> wave [B, T * hop], tail.

    With a, b, c the three parts of a window, frame t of the output is a[t] + b[t - 1] + c[t - 2]:

        window 0   a0 b0 c0
        window 1      a1 b1 c1
        window 2         a2 b2 c2
        output     0  1  2  | the tail
    """
    frames = windows.shape[1]
    parts = windows.unflatten(2, (OVERLAP_FRAMES, -1)).unbind(2)
    sums = F.pad(tail, (0, 0, 0, frames))
    for late, part in enumerate(parts):
        sums = sums + F.pad(part, (0, 0, late, OVERLAP_FRAMES - 1 - late))
    return sums[:, :frames].flatten(1), sums[:, frames:].clone()
