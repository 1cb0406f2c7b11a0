"""The codec that makes the agent's voice: 24 kHz audio <-> 75 frames of 8 codes a second, streaming both ways.

Geometry and quantizer are those of `encodec.EncodecModel.encodec_model_24khz` (24 kHz, 75 Hz, the package's residual
vector quantizer, 8 codebooks of 1024 entries of 128 numbers, any leading subset of codebooks decodes). Encoder and
decoder are not SEANet but work at the frame rate, as Vocos does (arXiv 2306.00814): a window of samples becomes one
vector, ConvNeXt blocks with left context only, and an inverse Fourier transform with overlap-add turns vectors back
into samples (`duplex.model.vocoder`). That runs many times faster on a CPU and gives the same interface.

The decoder looks at no later frame. One frame's spectrum is given with the next frame and spans three frames of output, and the
samples that are complete are given out at once, so what leaves is `decoder_delay_samples` behind what the encoder was given.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from duplex import checkpoint
from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model import seanet
from duplex.model.convnext import Block
from duplex.model.seanet import SeanetCodec, SeanetConfig, SeanetState
from duplex.model.vocoder import DecodeState, FrameDecoder

ENCODER_WINDOW_SAMPLES = 2 * CODEC_FRAME_SAMPLES  # the frame itself and the one before
LONG_WINDOW_SAMPLES = (
    4 * CODEC_FRAME_SAMPLES
)  # tells harmonics apart; the short ones tell when a sound begins
WINDOWS_AND_BANDS = {
    LONG_WINDOW_SAMPLES: 80,
    ENCODER_WINDOW_SAMPLES: 64,
    CODEC_FRAME_SAMPLES: 40,
    CODEC_FRAME_SAMPLES // 2: 24,
}
LOWEST_BAND_HZ = 30.0
PAST_SAMPLES = LONG_WINDOW_SAMPLES - CODEC_FRAME_SAMPLES
CODEBOOK_AVERAGES = (
    "cluster_size",
    "embed_avg",
    "inited",
)  # the package's buffers needed only in training


@dataclass(frozen=True)
class CodecConfig:
    codebooks: int = 8
    codebook_size: int = 1024
    latent_width: int = 128
    encoder_width: int = 256
    encoder_blocks: int = 6
    decoder_width: int = 384
    decoder_blocks: int = 6
    kernel_frames: int = 7


@dataclass
class EncodeState:
    """Rows are slots. `samples` [B, PAST_SAMPLES]: the last frames heard."""

    samples: Tensor
    histories: list[Tensor]  # one [B, kernel - 1, C] per convolution


def reset(state: EncodeState | DecodeState | SeanetState, slots: list[int]) -> None:
    """Put these rows back to the initial state, in place: all of it is zeros."""
    for field in fields(state):
        value = getattr(state, field.name)
        for tensor in value if isinstance(value, list) else [value]:
            tensor[slots] = 0


def rows(state: DecodeState | SeanetState, slots: list[int]) -> DecodeState | SeanetState:
    """A state of these rows alone, copied."""
    parts = ((name.name, getattr(state, name.name)) for name in fields(state))
    return type(state)(
        **{
            name: [t[slots] for t in part] if isinstance(part, list) else part[slots]
            for name, part in parts
        }
    )


def put(
    state: DecodeState | SeanetState, slots: list[int], part: DecodeState | SeanetState
) -> None:
    """Set these rows, in place."""
    for name in (field.name for field in fields(state)):
        whole, new = getattr(state, name), getattr(part, name)
        for to, value in (
            zip(whole, new, strict=True) if isinstance(whole, list) else [(whole, new)]
        ):
            to[slots] = value


class FrameEncoder(nn.Module):
    """Samples -> one latent vector per frame, from the samples, their log magnitude spectrum and the levels of mel bands.

    Bins' logarithms tell a band's level badly, and it is the bands' levels that words are told by (EXPERIMENTS.md): hence both.
    """

    def __init__(self, config: CodecConfig):
        super().__init__()
        width = config.encoder_width
        self.from_samples = nn.Linear(ENCODER_WINDOW_SAMPLES, width)
        self.from_spectrum = nn.Linear(ENCODER_WINDOW_SAMPLES // 2 + 1, width)
        self.from_bands = nn.Linear(
            sum(number * windows_looking(samples) for samples, number in WINDOWS_AND_BANDS.items()),
            width,
        )
        for fine in (
            self.from_samples,
            self.from_spectrum,
        ):  # their many numbers would drown the bands': what is of use is learned
            nn.init.zeros_(fine.weight)
        self.blocks = nn.ModuleList(
            Block(width, config.kernel_frames) for _ in range(config.encoder_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.to_latent = nn.Linear(width, config.latent_width)
        for samples, number in WINDOWS_AND_BANDS.items():
            self.register_buffer(f"hann{samples}", torch.hann_window(samples), persistent=False)
            bank = melscale_fbanks(
                samples // 2 + 1, LOWEST_BAND_HZ, SAMPLE_RATE / 2, number, SAMPLE_RATE
            )
            self.register_buffer(
                f"bank{samples}", bank / bank.sum(0).clamp(min=1e-3), persistent=False
            )
        self.history_shape = (config.kernel_frames - 1, width)

    def initial_state(self, batch: int) -> EncodeState:
        zeros = self.to_latent.weight.new_zeros
        return EncodeState(
            zeros(batch, PAST_SAMPLES), [zeros(batch, *self.history_shape) for _ in self.blocks]
        )

    def step(self, wave: Tensor, state: EncodeState) -> tuple[Tensor, EncodeState]:
        """wave [B, T * CODEC_FRAME_SAMPLES] -> latent [B, T, D], state."""
        samples = torch.cat([state.samples, wave], dim=1)
        longs = samples.unfold(1, LONG_WINDOW_SAMPLES, CODEC_FRAME_SAMPLES)  # [B, T, window]
        windows = longs[..., -ENCODER_WINDOW_SAMPLES:]
        spectra, bands = {}, []
        for size in WINDOWS_AND_BANDS:
            looking = longs[..., -max(size, ENCODER_WINDOW_SAMPLES) :].unfold(
                2, size, size // 2
            )  # [B, T, windows, size]
            spectra[size] = torch.fft.rfft(looking * getattr(self, f"hann{size}")).abs()
            bands.append(
                log_scaled(
                    (spectra[size].square() @ getattr(self, f"bank{size}") + 1e-8).sqrt()
                ).flatten(2)
            )
        x = self.from_samples(windows) + self.from_spectrum(
            log_scaled(spectra[ENCODER_WINDOW_SAMPLES][:, :, 0])
        )
        x = x + self.from_bands(torch.cat(bands, -1))
        histories = []
        for block, history in zip(self.blocks, state.histories, strict=True):
            x, history = block.step(x, history)
            histories.append(history)
        return self.to_latent(self.norm(x)), EncodeState(
            samples[:, -PAST_SAMPLES:].clone(), histories
        )


def windows_looking(samples: int) -> int:
    """How many windows of so many samples, each half over the next, look at a frame and the one before."""
    return max(1, 2 * ENCODER_WINDOW_SAMPLES // samples - 1)


def log_scaled(magnitude: Tensor) -> Tensor:
    """Logarithm, scaled for a network."""
    return 0.25 * torch.log(magnitude + 1e-4)


class Codec(nn.Module):
    """Encoder, residual vector quantizer, decoder; float32, except as `lighten_decoder` says."""

    decoder_delay_samples = 2 * CODEC_FRAME_SAMPLES

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config = config
        self.encoder = FrameEncoder(config)
        self.quantizer = ResidualVectorQuantizer(
            config.latent_width, config.codebooks, config.codebook_size, kmeans_init=False
        )
        self.decoder = FrameDecoder(
            config.latent_width, config.decoder_width, config.decoder_blocks, config.kernel_frames
        )

    def initial_encode_state(self, batch: int) -> EncodeState:
        return self.encoder.initial_state(batch)

    def initial_decode_state(self, batch: int) -> DecodeState:
        return self.decoder.initial_state(batch)

    def encode_latent(self, wave: Tensor) -> Tensor:
        """wave [B, 1, N] -> latent before the quantizer [B, T, D]; the last frame is filled up with zeros."""
        wave = F.pad(wave[:, 0], (0, -wave.shape[-1] % CODEC_FRAME_SAMPLES))
        return self.encoder.step(wave, self.initial_encode_state(wave.shape[0]))[0]

    def quantize(self, latent: Tensor, codebooks: int | None = None) -> Tensor:
        """latent [B, T, D] -> codes [B, K, T]."""
        codes = self.quantizer.vq.encode(latent.transpose(1, 2), n_q=codebooks)
        return codes.transpose(0, 1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """codes [B, K, T] -> latent [B, T, D]; K may be smaller than the number of codebooks."""
        assert codes.shape[1] <= self.config.codebooks, (
            f"{codes.shape[1]} codebooks, have {self.config.codebooks}"
        )
        return self.quantizer.decode(codes.transpose(0, 1)).transpose(1, 2)

    @torch.no_grad()
    def encode(self, wave: Tensor, codebooks: int | None = None) -> Tensor:
        """wave [B, 1, N] -> codes [B, K, T], all codebooks or the first few."""
        return self.quantize(self.encode_latent(wave), codebooks)

    @torch.no_grad()
    def encode_step(
        self, wave: Tensor, state: EncodeState, codebooks: int | None = None
    ) -> tuple[Tensor, EncodeState]:
        """wave [B, 1, T * CODEC_FRAME_SAMPLES] -> codes [B, K, T], state."""
        assert wave.shape[-1] % CODEC_FRAME_SAMPLES == 0, (
            f"{wave.shape[-1]} samples are no whole number of frames"
        )
        latent, state = self.encoder.step(wave[:, 0], state)
        return self.quantize(latent, codebooks), state

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, T] -> wave [B, T * CODEC_FRAME_SAMPLES], `decoder_delay_samples` late."""
        return self.decode_step(codes, self.initial_decode_state(codes.shape[0]))[0]

    @torch.no_grad()
    def decode_step(self, codes: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """codes [B, K, T] -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        return self.decoder.step(self.dequantize(codes), state)

    def silence_codes(self) -> Tensor:
        """The codes of a frame of lasting silence [K]."""
        frames = 1 + self.config.encoder_blocks * (
            self.config.kernel_frames - 1
        )  # until zeros are all it remembers
        silence = self.encoder.to_latent.weight.new_zeros(
            1, 1, frames * CODEC_FRAME_SAMPLES + PAST_SAMPLES
        )
        return self.encode(silence)[0, :, -1]


def save_codec(codec: Codec | SeanetCodec, folder: Path, dtype: torch.dtype | None = None) -> None:
    tensors = {
        name: value
        for name, value in codec.state_dict().items()
        if not name.endswith(CODEBOOK_AVERAGES)
    }
    checkpoint.save(tensors, codec.config, folder, dtype)


def load_codec(source: Path | str) -> Codec | SeanetCodec:
    """The codec of a folder, ours or SEANet as its config.json says, or `encodec_24khz`: Meta's weights, fetched.

    OSError: they could not be fetched, or there is no such folder.
    """
    if str(source) == seanet.NAME:
        return seanet.fetch()
    folder = Path(source)
    if "filters" in json.loads((folder / "config.json").read_text()):
        codec = SeanetCodec(checkpoint.load_config(SeanetConfig, folder))
    else:
        codec = Codec(checkpoint.load_config(CodecConfig, folder))
    missing, unexpected = codec.load_state_dict(checkpoint.load_tensors(folder), strict=False)
    wrong = unexpected + [name for name in missing if not name.endswith(CODEBOOK_AVERAGES)]
    assert not wrong, f"{folder} does not fit: {wrong}"
    return codec.eval()
