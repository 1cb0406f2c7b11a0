"""The ears: Whisper's encoder made causal, and a CTC head that hears phones.

mel [B, 8n, 80] -> convolutions (10 ms -> 20 ms) -> transformer over 20 ms frames -> 4 frames stacked per tick: features
                                                                                   -> phones of each frame (CTC)

Phones are in every word, so a word need not have been said in the training to be heard: duplex.model.lexicon looks it up.

Convolutions look left only. A frame attends to itself and the `window - 1` frames before it; where a key lies is known
only by its distance, through a learned bias per head, so a stream never runs out of positions. `step` keeps keys and
values in a ring; `forward` does the same sums for a whole clip at once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from duplex.audio import ENCODER_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK
from duplex.model.features import BANDS

PHONES = " AIOWYbdfhijklmnpstuvwzæðŋɑɔəɛɜɡɪɹʃʊʌʒʤʧθ"  # Hibari's, without stress; phone i has index i + 1 in their CTC
BLANK = 0  # index of the CTC blank
WORD_END = PHONES.index(" ") + 1
CONV1_HISTORY = 2  # mel frames before the present one
CONV2_HISTORY = (
    1  # output t sees inputs 2t-1, 2t, 2t+1: the newer two are both there at the end of their 20 ms
)


@dataclass(frozen=True)
class EncoderConfig:
    width: int = 384
    layers: int = 4
    heads: int = 6
    window: int = 256  # frames of 20 ms a frame can attend to: 5.1 s

    def __post_init__(self) -> None:
        assert self.window % ENCODER_FRAMES_PER_TICK == 0, (
            f"window {self.window} must be whole ticks"
        )

    @property
    def features(self) -> int:
        """Width of a tick's feature vector."""
        return self.width * ENCODER_FRAMES_PER_TICK

    @property
    def ring(self) -> int:
        """Frames kept: a tick more than the window, because it is written before its first frame has looked back."""
        return self.window + ENCODER_FRAMES_PER_TICK


@dataclass
class EncoderState:
    mel_tail: torch.Tensor  # [B, 2, 80]
    conv_tail: torch.Tensor  # [B, 1, width]
    keys: torch.Tensor  # [layers, B, heads, ring, head_dim]
    values: torch.Tensor  # like keys
    filled: torch.Tensor  # [B] frames heard so far, at most `window`
    cursor: int  # ring position of the next frame, the same for all slots


def reset(state: EncoderState, slots: list[int]) -> None:
    """Put these slots back to the beginning."""
    state.mel_tail[slots] = 0.0
    state.conv_tail[slots] = 0.0
    state.filled[slots] = 0  # old keys stay in the ring and are masked


def convolve(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """x [B, T, C] -> [B, T', C'] without padding; as one matrix product, because a tick is too short for conv1d."""
    patches = x.unfold(1, conv.kernel_size[0], conv.stride[0]).flatten(2)  # [B, T', C * 3]
    return F.linear(patches, conv.weight.flatten(1), conv.bias)


class Block(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)
        slopes = 2.0 ** -torch.arange(1, config.heads + 1)
        self.distance_bias = nn.Parameter(
            -slopes[:, None] * torch.arange(config.window)
        )  # [heads, window]

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x [B, T, C] -> queries, keys, values, each [B, heads, T, head_dim]."""
        qkv = self.qkv(self.norm1(x)).unflatten(
            -1, (3, self.heads, -1)
        )  # [B, T, 3, heads, head_dim]
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, x: torch.Tensor, q, k, v, bias: torch.Tensor) -> torch.Tensor:
        """x [B, T, C], bias [B or 1, heads, T, S] (-inf: a hidden key) -> x after attention and MLP [B, T, C]."""
        with torch.autocast(
            x.device.type, enabled=False
        ):  # or the softmax would run, and be kept, in float32
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias.to(q.dtype)
            mixed = (
                logits.softmax(-1) @ v
            )  # on a CPU twice as fast as the fused attention with its gradient
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def clip_bias(self, frames: int) -> torch.Tensor:
        """The band of `window` distances for a whole clip [1, heads, T, T]."""
        near = self.distance_bias[:, :frames]
        hidden = near.new_full((self.heads, frames), -torch.inf)
        # line[k] is the bias at distance T-1-k; row i of the matrix is the line's stretch that begins at T-1-i
        line = torch.cat(
            [hidden[:, near.shape[1] :], near.flip(1), hidden[:, 1:]], 1
        )  # [heads, 2T-1]
        return line.unfold(1, frames, 1).flip(1)[None]

    def ring_bias(self, distance: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """distance [T, ring] of each ring position, hidden [B, T, ring] -> [B, heads, T, ring]."""
        bias = self.distance_bias[
            :, distance.clamp(max=self.distance_bias.shape[1] - 1)
        ]  # [heads, T, ring]
        return bias[None].masked_fill(hidden[:, None], -torch.inf)


class Encoder(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(BANDS, config.width, 3)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2)
        self.offset = nn.Parameter(
            torch.zeros(config.width)
        )  # all that is left of Whisper's positions: their mean
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.phones = nn.Linear(config.width, len(PHONES) + 1)

    def initial_state(self, batch: int, ring: int | None = None) -> EncoderState:
        """A state before the first sound; a whole clip needs no ring."""
        config, weight = self.config, self.conv1.weight
        ring_frames = config.ring if ring is None else ring
        shape = (config.layers, batch, config.heads, ring_frames, config.width // config.heads)
        return EncoderState(
            mel_tail=weight.new_zeros(batch, CONV1_HISTORY, BANDS),
            conv_tail=weight.new_zeros(batch, CONV2_HISTORY, config.width),
            keys=weight.new_zeros(shape),
            values=weight.new_zeros(shape),
            filled=torch.zeros(batch, dtype=torch.long, device=weight.device),
            cursor=0,
        )

    def _convolve(self, mel_tail: torch.Tensor, mel: torch.Tensor, conv_tail: torch.Tensor):
        """mel [B, 2T, 80] after its tails -> frames [B, T, C], new tails."""
        mel = torch.cat([mel_tail, mel.to(mel_tail.dtype)], 1)
        middle = F.gelu(convolve(self.conv1, mel))
        middle = torch.cat([conv_tail.to(middle.dtype), middle], 1)
        frames = F.gelu(convolve(self.conv2, middle)) + self.offset
        return frames, mel[:, -CONV1_HISTORY:], middle[:, -CONV2_HISTORY:]

    def _stack(self, frames: torch.Tensor) -> torch.Tensor:
        """frames [B, 4n, C] -> features [B, n, 4C]."""
        return self.norm(frames).unflatten(1, (-1, ENCODER_FRAMES_PER_TICK)).flatten(2)

    def listen(self, mel: torch.Tensor) -> torch.Tensor:
        """Whole clips, mel [B, 8n, 80] -> features [B, n, 4C]."""
        assert mel.shape[1] % MEL_FRAMES_PER_TICK == 0, (
            f"mel must be whole ticks, got {list(mel.shape)}"
        )
        start = self.initial_state(mel.shape[0], ring=0)
        x, _, _ = self._convolve(start.mel_tail, mel, start.conv_tail)
        for block in self.blocks:
            x = block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))
        return self._stack(x)

    def phone(self, features: torch.Tensor) -> torch.Tensor:
        """features [B, n, 4C] -> CTC log-probabilities of phones, a frame each 20 ms [B, 4n, 1 + phones]."""
        frames = features.unflatten(2, (ENCODER_FRAMES_PER_TICK, -1)).flatten(1, 2)
        return self.phones(frames).float().log_softmax(-1)

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole clips, mel [B, 8n, 80] -> features [B, n, 4C], CTC log-probabilities of phones [B, 4n, 1 + phones]."""
        features = self.listen(mel)
        return features, self.phone(features)

    def step(self, mel: torch.Tensor, state: EncoderState):
        """mel [B, 8n, 80] -> (features [B, n, 4C], CTC log-probabilities [B, 4n, 1 + phones]), state (updated in place)."""
        assert mel.shape[1] % MEL_FRAMES_PER_TICK == 0, (
            f"mel must be whole ticks, got {list(mel.shape)}"
        )
        frames = [self._tick(tick, state) for tick in mel.split(MEL_FRAMES_PER_TICK, 1)]
        features = self._stack(torch.cat(frames, 1))
        return (features, self.phone(features)), state

    def _tick(self, mel: torch.Tensor, state: EncoderState) -> torch.Tensor:
        """One tick, mel [B, 8, 80] -> frames [B, 4, C] before the last norm."""
        cursor = torch.tensor(state.cursor, device=mel.device)
        x, state.mel_tail, state.conv_tail, state.filled = self.tick(
            mel, state.mel_tail, state.conv_tail, state.keys, state.values, state.filled, cursor
        )
        state.cursor = (state.cursor + x.shape[1]) % self.config.ring
        return x

    def tick(self, mel, mel_tail, conv_tail, keys, values, filled, cursor):
        """The sums of `_tick`, compiled on a CPU (encoder_cpu.py); keys and values change in place."""
        config, device = self.config, mel.device
        x, mel_tail, conv_tail = self._convolve(mel_tail, mel, conv_tail)
        row = torch.arange(x.shape[1], device=device)
        distance = (
            cursor + row[:, None] - torch.arange(config.ring, device=device)
        ) % config.ring  # [4, ring]
        reach = (filled[:, None] + row + 1).clamp(
            max=config.window
        )  # [B, 4] frames each may look at
        hidden = (
            distance >= reach[..., None]
        )  # [B, 4, ring]; frames still to come are the farthest in the ring
        here = cursor + row  # never wraps: the ring is whole ticks
        for i, block in enumerate(self.blocks):
            q, k, v = block.project(x)
            keys[i].index_copy_(2, here, k)
            values[i].index_copy_(2, here, v)
            x = block.attend(x, q, keys[i], values[i], block.ring_bias(distance, hidden))
        return x, mel_tail, conv_tail, (filled + x.shape[1]).clamp(max=config.window)
