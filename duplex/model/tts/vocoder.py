"""The codec's decoder: latent vectors -> the voice, as pulses and noise shaped by spectra.

    output = inverse STFT( exp(harmonic) e^{i phase} * STFT(pulses at the pitch)
                           + exp(noise) e^{i random} )

A network of causal ConvNeXt blocks gives the two log magnitudes, the phase and the pitch of every
frame; the phase is the minimum phase that belongs to the harmonic magnitudes, turned by what the
network adds to it. So voiced sound has clean harmonics however little the network was trained. The
pitch is taught, not found: no gradient goes through the pulses.

A frame's window ends after the sound that its latent vector was made of. So that nothing need be
foreseen, a frame's spectrum is given with the next latent vector, whose own frame ends where that
window does, and so does the pitch given with it.

Letters in shapes: B slots, T frames, L width of latent vectors, C width of the network.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.tts.convnext import Block, FrameConv
from duplex.voices import Voice

# Windows that overlap: the squares of three Hann windows sum to a constant.
OVERLAP_FRAMES = 3
WINDOW_SAMPLES = OVERLAP_FRAMES * CODEC_FRAME_SAMPLES

# One over that constant.
OVERLAP_GAIN = 8 / (3 * OVERLAP_FRAMES)
BINS = WINDOW_SAMPLES // 2 + 1

# Parts of a frame's spectrum: log magnitudes of noise and of harmonics, and how the phase turns
# (real - 1, imaginary).
PARTS = 4

# A log magnitude that nobody hears.
SILENCE = -9.0

# The pitch where the network gives 0, and the lowest pitch.
MIDDLE_HZ = 180.0
MIN_HZ = 50.0

# Random numbers repeat after so many frames.
NOISE_FRAMES = 509


@dataclass
class DecodeState:
    """What the decoder remembers; rows are slots, all of it is zeros at the beginning."""

    tail: Tensor  # [B, 2, hop] sums of the output that are not complete yet
    pulses: Tensor  # [B, 2, hop] the last ones
    hz: Tensor  # [B] the pitch at their end
    cycles: Tensor  # [B] their phase there, in double precision
    position: Tensor  # [B] the place in the table of random numbers
    log_pitch: Tensor  # [B] added to the log of the pitch: another voice
    log_tract: Tensor  # [B] the same for the frequencies of the spectra
    histories: list[Tensor]  # one [B, kernel - 1, C] for each convolution

    def tensors(self) -> list[Tensor]:
        """All of it, the histories last."""
        sound = [self.tail, self.pulses, self.hz, self.cycles, self.position]
        return [*sound, self.log_pitch, self.log_tract, *self.histories]

    def reset(self, slots: list[int]) -> None:
        """Put these slots back to the beginning, in place."""
        for tensor in self.tensors():
            tensor[slots] = 0

    def select(self, slots: list[int]) -> "DecodeState":
        """A state of these slots alone, copied."""
        some = torch.tensor(slots)
        return from_tensors([tensor.index_select(0, some) for tensor in self.tensors()])

    def assign(self, slots: list[int], part: "DecodeState") -> None:
        """Set these slots to what `select` gave and a step has changed, in place."""
        some = torch.tensor(slots)
        for tensor, value in zip(self.tensors(), part.tensors(), strict=True):
            tensor[some] = value

    def set_voice(self, slot: int, voice: Voice) -> None:
        """Speak with another pitch and vocal tract from the next step on."""
        self.log_pitch[slot] = math.log(voice.pitch)
        self.log_tract[slot] = math.log(voice.tract)


def from_tensors(tensors: list[Tensor]) -> DecodeState:
    """The reverse of DecodeState.tensors."""
    return DecodeState(*tensors[:7], histories=tensors[7:])


class FrameDecoder(nn.Module):
    """Latent vectors [B, T, L] -> pitch, magnitudes -> samples."""

    def __init__(self, inputs: int, width: int, blocks: int, kernel: int):
        super().__init__()
        self.from_latent = FrameConv(inputs, width, kernel)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, kernel) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.to_spectrum = nn.Linear(width, PARTS * BINS)
        self.to_pitch = nn.Parameter(torch.zeros(width))
        self.pitch_bias = nn.Parameter(torch.zeros(()))
        generator = torch.Generator().manual_seed(0)
        noise = F.normalize(torch.randn(NOISE_FRAMES, BINS, 2, generator=generator), dim=-1)
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)
        # Whether each step does the same, whatever voice it is: nothing is read back then.
        self.always_warps = False
        self.history_shapes = [(kernel - 1, inputs)] + [(kernel - 1, width)] * blocks

    def initial_state(self, batch: int) -> DecodeState:
        """A state before the first frame."""
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
        """latent [B, T, L] -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        return self.render(*self.network(latent, state.histories), state)

    def render(
        self, x: Tensor, spectrum: Tensor, histories: list[Tensor], state: DecodeState
    ) -> tuple[Tensor, DecodeState]:
        """What `network` gives -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        spectrum, log_hz = self.to_controls(x, spectrum)
        if self.always_warps or state.log_tract.any():
            spectrum = warp(spectrum, state.log_tract)
        wave, state = self.sound(spectrum, log_hz + state.log_pitch[:, None], state)
        state.histories = histories
        return wave, state

    def network(
        self, latent: Tensor, histories: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """latent [B, T, L] -> frames [B, T, C], what becomes their spectrum [B, T, PARTS * BINS],
        histories."""
        x, history = self.from_latent.step(latent, histories[0])
        x = self.first_norm(x)
        new = [history]
        for block, history in zip(self.blocks, histories[1:], strict=True):
            x, history = block.step(x, history)
            new.append(history)
        x = self.norm(x)
        return x, self.to_spectrum(x), new

    def to_controls(self, x: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, T, C] and spectra of `network` -> spectra [B, T, PARTS * BINS] of the frames
        before, log of Hz [B, T] at the frames' ends."""
        middle = torch.log(torch.tensor(MIDDLE_HZ))
        log_hz = (x.float() * self.to_pitch).sum(-1) + self.pitch_bias + middle
        # The bound is far above speech; it keeps exp() finite whatever the codes are.
        return spectrum.float().clamp(max=6.0), log_hz

    def controls(
        self, latent: Tensor, histories: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """latent [B, T, L] -> spectra and log of Hz as `to_controls` gives them, histories."""
        x, spectrum, histories = self.network(latent, histories)
        return *self.to_controls(x, spectrum), histories

    def sound(
        self, spectrum: Tensor, log_hz: Tensor, state: DecodeState
    ) -> tuple[Tensor, DecodeState]:
        """What `controls` gives -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        frames = log_hz.shape[1]
        log_noise, log_harmonic, *turn = spectrum.chunk(PARTS, dim=-1)
        # 1. The sources: pulses at the pitch, and random numbers. No gradient goes through them.
        with torch.no_grad():
            hz = log_hz.exp().clamp(MIN_HZ, 600.0)
            pulses, cycles = pulse_train(hz, state.hz, state.cycles)
            pulses = torch.cat([state.pulses.flatten(1), pulses], dim=1)
            windows = pulses.unfold(1, WINDOW_SAMPLES, CODEC_FRAME_SAMPLES) * self.window
            # A harmonic's peak has magnitude 1.
            source = torch.fft.rfft(windows) * (2 / self.window.sum())
            positions = state.position[:, None] + torch.arange(frames, device=hz.device)
            noise = torch.view_as_complex(self.noise[positions % NOISE_FRAMES])
        # 2. Both shaped by their spectra, and back to samples.
        sound = source * minimum_phase(log_harmonic) * unit(*turn) + noise * torch.exp(log_noise)
        windows = torch.fft.irfft(sound, n=WINDOW_SAMPLES) * (OVERLAP_GAIN * self.window)
        wave, tail = overlap_add(windows, state.tail)
        pulses = pulses[:, frames * CODEC_FRAME_SAMPLES :].unflatten(1, (OVERLAP_FRAMES - 1, -1))
        return wave, DecodeState(
            tail=tail,
            pulses=pulses.clone(),
            hz=hz[:, -1],
            cycles=cycles,
            position=(state.position + frames) % NOISE_FRAMES,
            log_pitch=state.log_pitch,
            log_tract=state.log_tract,
            histories=state.histories,
        )


def warp(spectrum: Tensor, log_tract: Tensor) -> Tensor:
    """Spectra [B, T, PARTS * BINS] with all resonances exp(log_tract) [B] times as high; 0 changes
    nothing."""
    bins = torch.arange(BINS, device=spectrum.device)
    place = (bins / log_tract.exp()[:, None]).clamp(max=BINS - 1)
    below = place.floor().clamp(max=BINS - 2)
    share = (place - below)[:, None, None]
    below = below.long()[:, None, None]
    both = spectrum.unflatten(-1, (PARTS, BINS))
    low, high = (both.gather(-1, (below + step).expand(both.shape)) for step in (0, 1))
    return (low * (1 - share) + high * share).flatten(-2)


def pulse_train(hz: Tensor, before: Tensor, cycles: Tensor) -> tuple[Tensor, Tensor]:
    """hz [B, T] at the frames' ends, hz before [B], phase [B] -> pulses [B, T * hop], phase [B].

    All harmonics below a limit, each of amplitude 1, as one closed sum; the last comes and goes
    gradually: cos(a) + cos(2a) + ... + cos(na) = sin((n + 1/2) a) / (2 sin(a/2)) - 1/2.
    """
    starts = torch.cat([before.clamp(min=MIN_HZ)[:, None], hz[:, :-1]], dim=1)
    share = torch.arange(1, CODEC_FRAME_SAMPLES + 1, device=hz.device) / CODEC_FRAME_SAMPLES
    hz = (starts[..., None] + (hz - starts)[..., None] * share).flatten(1)  # [B, T * hop]
    phase = cycles[:, None] + (hz.double() / SAMPLE_RATE).cumsum(1)
    cycles = phase[:, -1] % 1.0
    turn = (phase - phase.floor()).float() * torch.pi  # half the angle a, from 0 to pi
    number = 11_000.0 / hz  # of harmonics
    whole = number.floor()
    below = 2 * torch.sin(turn)
    at_pulse = below < 2e-3
    between = torch.sin((2 * whole + 1) * turn) / below.masked_fill(at_pulse, 1.0)
    sums = torch.where(at_pulse, whole + 0.5, between)
    return sums - 0.5 + (number - whole) * torch.cos(2 * (whole + 1) * turn), cycles


def unit(real: Tensor, imaginary: Tensor) -> Tensor:
    """How the phase turns (zeros: not at all) -> complex numbers of magnitude 1."""
    real = 1 + real
    scale = (real.square() + imaginary.square()).clamp(min=1e-6).rsqrt()
    return torch.complex(real * scale, imaginary * scale)


def minimum_phase(log_magnitude: Tensor) -> Tensor:
    """Log magnitudes [..., BINS] -> the spectrum of the causal filter that rings as early as it
    can."""
    cepstrum = torch.fft.irfft(log_magnitude, n=WINDOW_SAMPLES)
    fold = torch.zeros(WINDOW_SAMPLES, device=log_magnitude.device)
    fold[0] = fold[WINDOW_SAMPLES // 2] = 1.0
    fold[1 : WINDOW_SAMPLES // 2] = 2.0
    phase = torch.fft.rfft(cepstrum * fold).imag.contiguous()  # The real part is log_magnitude.
    return torch.polar(log_magnitude.exp(), phase)


def overlap_add(windows: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """windows [B, T, 3 hop], tail [B, 2, hop] -> wave [B, T * hop], tail.

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
