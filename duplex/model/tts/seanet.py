"""Meta's EnCodec at 24 kHz behind the interface of `codec.Codec`: SEANet, streaming.

The layers are those of the `encodec` package. Its convolutions are causal, and every layer's past
is explicit here: inputs that a convolution will look at again, output sums that a transposed one
has begun, the LSTM's memory. Only the beginning differs from the package, which pads there by
reflecting what is still to come: a stream cannot know it and begins after silence (zeros), so the
package's own decoder is met as soon as its first frames are forgotten. "High Fidelity Neural Audio
Compression" (arXiv 2210.13438).

The weights are fetched by the package; they are not ours to ship.
`duplex.training.talker --codec encodec_24khz` learns their codes.

Letters in shapes: B slots or clips, N samples, T steps of a layer, K codebooks, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from encodec import EncodecModel
from encodec.modules import SLSTM, SConv1d, SConvTranspose1d, SEANetDecoder, SEANetEncoder
from encodec.modules.seanet import SEANetResnetBlock
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.errors import VoiceError
from duplex.voices import Voice

# The name of the published weights.
NAME = "encodec_24khz"


@dataclass(frozen=True)
class SeanetConfig:
    """Sizes of the codec."""

    # Channels at the sample rate; they are doubled at each of four steps.
    filters: int = 32
    codebooks: int = 8
    codebook_size: int = 1024
    latent_width: int = 128


@dataclass
class SeanetState:
    """What one direction remembers, layer by layer.

    Rows are slots, all of it is zeros at the beginning.
    """

    layers: list[Tensor]

    def reset(self, slots: list[int]) -> None:
        """Put these slots back to the beginning, in place."""
        for tensor in self.layers:
            tensor[slots] = 0

    def select(self, slots: list[int]) -> "SeanetState":
        """A state of these slots alone, copied."""
        return SeanetState([tensor[slots] for tensor in self.layers])

    def assign(self, slots: list[int], part: "SeanetState") -> None:
        """Set these slots to what `select` gave and a step has changed, in place."""
        for tensor, value in zip(self.layers, part.layers, strict=True):
            tensor[slots] = value

    def set_voice(self, slot: int, voice: Voice) -> None:
        """Raises VoiceError if it is not the learned voice: SEANet makes no sound from a pitch."""
        if voice != Voice():
            raise VoiceError("this agent's codec, SEANet, has no voice but the one it learned")


def initial_layers(layer: nn.Module, batch: int) -> list[Tensor]:
    """The states of all layers in a module, in the order in which `run` meets them."""
    match layer:
        case SConv1d():
            conv = layer.conv.conv
            return [conv.bias.new_zeros(batch, conv.in_channels, conv_past(layer))]
        case SConvTranspose1d():
            conv = layer.convtr.convtr
            tail = conv.kernel_size[0] - conv.stride[0]
            return [conv.bias.new_zeros(batch, conv.out_channels, tail)]
        case SLSTM():
            lstm = layer.lstm
            shape = (batch, lstm.num_layers, lstm.hidden_size)
            return [lstm.bias_ih_l0.new_zeros(shape) for _ in ("hidden", "cell")]
        case SEANetResnetBlock():
            return initial_layers(layer.block, batch) + initial_layers(layer.shortcut, batch)
        case nn.Sequential():
            return [state for part in layer for state in initial_layers(part, batch)]
    return []


def conv_past(layer: SConv1d) -> int:
    """Inputs before the present ones that a causal convolution looks at."""
    conv = layer.conv.conv
    return (conv.kernel_size[0] - 1) * conv.dilation[0] - (conv.stride[0] - 1)


def run(layer: nn.Module, x: Tensor, before: Iterator[Tensor], after: list[Tensor]) -> Tensor:
    """x [B, C, T] through a layer.

    Args:
        before: the layer's states are next in it.
        after: its new states are added.
    """
    match layer:
        case nn.Sequential():
            for part in layer:
                x = run(part, x, before, after)
            return x
        case SEANetResnetBlock():
            deep = run(layer.block, x, before, after)
            return run(layer.shortcut, x, before, after) + deep
        case SConv1d():
            x = torch.cat([next(before), x], 2)
            after.append(x[:, :, x.shape[2] - conv_past(layer) :].clone())
            return layer.conv(x)
        case SConvTranspose1d():
            tail = next(before)
            conv = layer.convtr.convtr
            y = layer.convtr(x)  # [B, C, T * stride + tail], the bias everywhere in it
            ready = x.shape[2] * conv.stride[0]
            after.append(y[:, :, ready:] - conv.bias[:, None])
            return y[:, :, :ready] + F.pad(tail, (0, ready - tail.shape[2]))
        case SLSTM():
            x = x.permute(2, 0, 1)
            memory = [next(before).transpose(0, 1).contiguous() for _ in ("hidden", "cell")]
            y, memory = layer.lstm(x, tuple(memory))
            after.extend(part.transpose(0, 1).contiguous() for part in memory)
            return (y + x if layer.skip else y).permute(1, 2, 0)
    return layer(x)  # an activation or the identity


class SeanetCodec(nn.Module):
    """SEANet encoder and decoder around the package's residual vector quantizer; float32.

    See `duplex.model.tts.codec.Codec`.
    """

    decoder_delay_samples = 0

    def __init__(self, config: SeanetConfig):
        super().__init__()
        self.config = config
        sizes = {
            "n_filters": config.filters,
            "dimension": config.latent_width,
            "norm": "weight_norm",
            "causal": True,
        }
        self.encoder = SEANetEncoder(**sizes)
        self.decoder = SEANetDecoder(**sizes)
        self.quantizer = ResidualVectorQuantizer(
            config.latent_width, config.codebooks, config.codebook_size, kmeans_init=False
        )

    def initial_encode_state(self, batch: int) -> SeanetState:
        """A state before the first sample."""
        return SeanetState(initial_layers(self.encoder.model, batch))

    def initial_decode_state(self, batch: int) -> SeanetState:
        """A state before the first frame."""
        return SeanetState(initial_layers(self.decoder.model, batch))

    @torch.no_grad()
    def encode(self, wave: Tensor, codebooks: int | None = None) -> Tensor:
        """wave [B, 1, N] -> codes [B, K, T]; the last frame is filled up with zeros."""
        wave = F.pad(wave, (0, -wave.shape[-1] % CODEC_FRAME_SAMPLES))
        return self.encode_step(wave, self.initial_encode_state(wave.shape[0]), codebooks)[0]

    @torch.no_grad()
    def encode_step(
        self, wave: Tensor, state: SeanetState, codebooks: int | None = None
    ) -> tuple[Tensor, SeanetState]:
        """wave [B, 1, T * CODEC_FRAME_SAMPLES] -> codes [B, K, T], state."""
        assert wave.shape[-1] % CODEC_FRAME_SAMPLES == 0, (
            f"{wave.shape[-1]} samples are no whole number of frames"
        )
        after: list[Tensor] = []
        latent = run(self.encoder.model, wave, iter(state.layers), after)
        return self.quantizer.vq.encode(latent, n_q=codebooks).transpose(0, 1), SeanetState(after)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, T] -> wave [B, T * CODEC_FRAME_SAMPLES]."""
        return self.decode_step(codes, self.initial_decode_state(codes.shape[0]))[0]

    @torch.no_grad()
    def decode_step(self, codes: Tensor, state: SeanetState) -> tuple[Tensor, SeanetState]:
        """codes [B, K, T] -> wave [B, T * CODEC_FRAME_SAMPLES], state."""
        assert codes.shape[1] <= self.config.codebooks, (
            f"{codes.shape[1]} codebooks, have {self.config.codebooks}"
        )
        after: list[Tensor] = []
        latent = self.quantizer.decode(codes.transpose(0, 1))
        wave = run(self.decoder.model, latent, iter(state.layers), after)
        return wave[:, 0], SeanetState(after)

    def silence_codes(self) -> Tensor:
        """The codes of a frame of lasting silence [K]."""
        second = CODEC_FRAME_SAMPLES * 75  # The LSTM has come to rest by then.
        return self.encode(next(self.parameters()).new_zeros(1, 1, second))[0, :, -1]


def fetch(config: SeanetConfig | None = None) -> SeanetCodec:
    """The published weights with the first codebooks of the quantizer.

    Raises OSError if they could not be fetched.
    """
    config = config or SeanetConfig()
    codec = SeanetCodec(config)
    wanted = codec.state_dict()
    published = EncodecModel.encodec_model_24khz().state_dict()
    codec.load_state_dict({name: published[name] for name in wanted})
    return codec.eval()
