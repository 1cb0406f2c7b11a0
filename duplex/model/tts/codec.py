"""The codec that makes the agent's voice: 24 kHz audio <-> 75 frames of 8 codes a second.

Geometry and quantizer are those of `encodec.EncodecModel.encodec_model_24khz` (24 kHz, 75 Hz, the
package's residual vector quantizer, 8 codebooks of 1024 entries of 128 numbers, any leading subset
of codebooks decodes). Encoder and decoder are not SEANet but work at the frame rate, as Vocos does
(arXiv 2306.00814): a window of samples becomes one vector, ConvNeXt blocks with left context only,
and an inverse Fourier transform with overlap-add turns vectors back into samples
(`vocoder.py`). That runs many times faster on a CPU and gives the same interface; which
of the two an agent has is decided in `load_codec`.

The decoder looks at no later frame. One frame's spectrum is given with the next frame and spans
three frames of output, and the samples that are complete are given out at once, so what leaves is
`decoder_delay_samples` behind what the encoder was given.

Letters in shapes: B slots or clips, N samples, T frames, K codebooks, L width of latent vectors,
C width of the network.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from duplex import checkpoint
from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE
from duplex.model.tts import seanet
from duplex.model.tts.convnext import Block
from duplex.model.tts.seanet import SeanetCodec, SeanetConfig
from duplex.model.tts.vocoder import DecodeState, FrameDecoder

# The encoder's window of samples: the frame itself and the one before.
ENCODER_WINDOW_SAMPLES = 2 * CODEC_FRAME_SAMPLES

# A long window tells harmonics apart; the short ones tell when a sound begins.
LONG_WINDOW_SAMPLES = 4 * CODEC_FRAME_SAMPLES

# How many mel bands are taken from windows of each length.
BANDS_BY_WINDOW = {
    LONG_WINDOW_SAMPLES: 80,
    ENCODER_WINDOW_SAMPLES: 64,
    CODEC_FRAME_SAMPLES: 40,
    CODEC_FRAME_SAMPLES // 2: 24,
}

# Samples before a frame that its windows see.
PAST_SAMPLES = LONG_WINDOW_SAMPLES - CODEC_FRAME_SAMPLES

# Buffers of the package's quantizer that are needed only in training, by the end of their names.
TRAINING_BUFFERS = ("cluster_size", "embed_avg", "inited")


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the codec."""

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
    """What the encoder remembers; rows are slots, all of it is zeros at the beginning."""

    samples: Tensor  # [B, PAST_SAMPLES] the last ones
    histories: list[Tensor]  # one [B, kernel - 1, C] for each convolution

    def reset(self, slots: list[int]) -> None:
        """Put these slots back to the beginning, in place."""
        for tensor in (self.samples, *self.histories):
            tensor[slots] = 0


class FrameEncoder(nn.Module):
    """Samples -> one latent vector a frame, from the samples, their log magnitude spectrum and the
    levels of mel bands.

    Bins' logarithms tell a band's level badly, and words are told apart by the bands' levels: hence
    both.
    """

    def __init__(self, config: CodecConfig):
        super().__init__()
        width = config.encoder_width
        self.from_samples = nn.Linear(ENCODER_WINDOW_SAMPLES, width)
        self.from_spectrum = nn.Linear(ENCODER_WINDOW_SAMPLES // 2 + 1, width)
        bands = sum(number * count_windows(size) for size, number in BANDS_BY_WINDOW.items())
        self.from_bands = nn.Linear(bands, width)
        # Samples and bins are many, and would drown the bands. What is of use is learned.
        nn.init.zeros_(self.from_samples.weight)
        nn.init.zeros_(self.from_spectrum.weight)
        self.blocks = nn.ModuleList(
            Block(width, config.kernel_frames) for _ in range(config.encoder_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.to_latent = nn.Linear(width, config.latent_width)
        for size, number in BANDS_BY_WINDOW.items():
            self.register_buffer(f"hann{size}", torch.hann_window(size), persistent=False)
            bank = melscale_fbanks(size // 2 + 1, 30.0, SAMPLE_RATE / 2, number, SAMPLE_RATE)
            bank = bank / bank.sum(0).clamp(min=1e-3)
            self.register_buffer(f"bank{size}", bank, persistent=False)
        self.history_shape = (config.kernel_frames - 1, width)

    def initial_state(self, batch: int) -> EncodeState:
        """A state before the first sample."""
        zeros = self.to_latent.weight.new_zeros
        histories = [zeros(batch, *self.history_shape) for _ in self.blocks]
        return EncodeState(zeros(batch, PAST_SAMPLES), histories)

    def step(self, wave: Tensor, state: EncodeState) -> tuple[Tensor, EncodeState]:
        """wave [B, T * CODEC_FRAME_SAMPLES] -> latent [B, T, L], state."""
        samples = torch.cat([state.samples, wave], dim=1)
        x = self._look(samples.unfold(1, LONG_WINDOW_SAMPLES, CODEC_FRAME_SAMPLES))
        histories = []
        for block, history in zip(self.blocks, state.histories, strict=True):
            x, history = block.step(x, history)
            histories.append(history)
        state = EncodeState(samples[:, -PAST_SAMPLES:].clone(), histories)
        return self.to_latent(self.norm(x)), state

    def _look(self, longs: Tensor) -> Tensor:
        """The long window of each frame [B, T, LONG_WINDOW_SAMPLES] -> [B, T, C]."""
        spectra, bands = {}, []
        for size in BANDS_BY_WINDOW:
            near = longs[..., -max(size, ENCODER_WINDOW_SAMPLES) :]
            windows = near.unfold(2, size, size // 2)  # [B, T, windows, size]
            spectra[size] = torch.fft.rfft(windows * getattr(self, f"hann{size}")).abs()
            power = spectra[size].square() @ getattr(self, f"bank{size}")
            bands.append(log_scaled((power + 1e-8).sqrt()).flatten(2))
        spectrum = log_scaled(spectra[ENCODER_WINDOW_SAMPLES][:, :, 0])
        x = self.from_samples(longs[..., -ENCODER_WINDOW_SAMPLES:]) + self.from_spectrum(spectrum)
        return x + self.from_bands(torch.cat(bands, -1))


def count_windows(samples: int) -> int:
    """How many windows of so many samples, each half over the next, look at a frame and the one
    before."""
    return max(1, 2 * ENCODER_WINDOW_SAMPLES // samples - 1)


def log_scaled(magnitude: Tensor) -> Tensor:
    """Logarithm, scaled for a network."""
    return 0.25 * torch.log(magnitude + 1e-4)


class Codec(nn.Module):
    """Encoder, residual vector quantizer and decoder; float32."""

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
        """A state before the first sample."""
        return self.encoder.initial_state(batch)

    def initial_decode_state(self, batch: int) -> DecodeState:
        """A state before the first frame."""
        return self.decoder.initial_state(batch)

    def encode_latent(self, wave: Tensor) -> Tensor:
        """wave [B, 1, N] -> latent before the quantizer [B, T, L].

        The last frame is filled up with zeros.
        """
        wave = F.pad(wave[:, 0], (0, -wave.shape[-1] % CODEC_FRAME_SAMPLES))
        return self.encoder.step(wave, self.initial_encode_state(wave.shape[0]))[0]

    def quantize(self, latent: Tensor, codebooks: int | None = None) -> Tensor:
        """latent [B, T, L] -> codes [B, K, T]."""
        codes = self.quantizer.vq.encode(latent.transpose(1, 2), n_q=codebooks)
        return codes.transpose(0, 1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """codes [B, K, T] -> latent [B, T, L]; K may be smaller than the number of codebooks."""
        assert codes.shape[1] <= self.config.codebooks, (
            f"{codes.shape[1]} codebooks, have {self.config.codebooks}"
        )
        # The package's own way makes a number on the device in each call.
        layers = self.quantizer.vq.layers[: codes.shape[1]]
        entries = [F.embedding(codes[:, k], layer.codebook) for k, layer in enumerate(layers)]
        return torch.stack(entries).sum(0)

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
        # Frames until zeros are all that the encoder remembers.
        frames = 1 + self.config.encoder_blocks * (self.config.kernel_frames - 1)
        samples = frames * CODEC_FRAME_SAMPLES + PAST_SAMPLES
        silence = self.encoder.to_latent.weight.new_zeros(1, 1, samples)
        return self.encode(silence)[0, :, -1]


def stored_tensors(codec: Codec | SeanetCodec) -> dict[str, Tensor]:
    """All of a codec's tensors but those that only training needs."""
    tensors = codec.state_dict().items()
    return {name: value for name, value in tensors if not name.endswith(TRAINING_BUFFERS)}


def save_codec(codec: Codec | SeanetCodec, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the codec to a folder, as numbers of `dtype` if it is given."""
    checkpoint.save(stored_tensors(codec), codec.config, folder, dtype)


def load_codec(source: Path | str) -> Codec | SeanetCodec:
    """The codec of a folder, ours or SEANet as its config.json says, or Meta's, fetched.

    Args:
        source: a folder, or "encodec_24khz".

    Raises OSError if the weights could not be fetched, or if there is no such folder.
    """
    if str(source) == seanet.NAME:
        return seanet.fetch()
    folder = Path(source)
    if "filters" in json.loads((folder / "config.json").read_text()):
        codec = SeanetCodec(checkpoint.load_config(SeanetConfig, folder))
    else:
        codec = Codec(checkpoint.load_config(CodecConfig, folder))
    missing, unexpected = codec.load_state_dict(checkpoint.load_tensors(folder), strict=False)
    wrong = unexpected + [name for name in missing if not name.endswith(TRAINING_BUFFERS)]
    assert not wrong, f"{folder} does not fit: {wrong}"
    return codec.eval()
