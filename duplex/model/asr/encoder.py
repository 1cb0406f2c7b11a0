"""The encoder: Whisper's made causal, and a CTC head over phones.

    mel [B, 8n, 80] -> convolutions (10 ms -> 20 ms) -> transformer over frames of 20 ms
        -> 4 frames stacked to a tick: features [B, n, 4C]
        -> phones of each frame (CTC) [B, 4n, 1 + phones]

Phones are in every word, so a word need not have been said in the training to be recognised:
duplex.model.asr.beam_search finds it.

Convolutions look left only. A frame attends to itself and the `window - 1` frames before it; where
a key lies is known only by its distance, through a learned bias per head, so a stream never runs
out of positions. `step` keeps keys and values in a ring; `forward` does the same sums for a whole
clip at once.

Letters in shapes: B slots, n ticks, T frames, C width, S keys.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from duplex.audio import ENCODER_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK
from duplex.model.asr.features import BANDS

# Hibari's phones without stress. Phone i has index i + 1 in the CTC.
PHONES = " AIOWYbdfhijklmnpstuvwzæðŋɑɔəɛɜɡɪɹʃʊʌʒʤʧθ"

# Index of the CTC's blank, and of the mark of a word's end.
BLANK = 0
WORD_END = PHONES.index(" ") + 1

# Inputs before the present ones that each convolution sees. Output t of the second sees its inputs
# 2t - 1, 2t and 2t + 1: the newer two are both there at the end of their 20 ms.
CONV1_HISTORY = 2
CONV2_HISTORY = 1


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder."""

    width: int = 384
    layers: int = 4
    heads: int = 6
    # Frames of 20 ms that a frame can attend to: 5.1 s.
    window: int = 256

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
        """Frames kept: a tick more than the window, for it is written before its first frame has
        looked back."""
        return self.window + ENCODER_FRAMES_PER_TICK


@dataclass
class EncoderState:
    """What the encoder remembers of each slot."""

    mel_tail: torch.Tensor  # [B, 2, 80]
    conv_tail: torch.Tensor  # [B, 1, C]
    keys: torch.Tensor  # [layers, B, heads, ring, head width]
    values: torch.Tensor  # like keys
    filled: torch.Tensor  # [B] frames so far, at most `window`
    # Place in the ring of the next frame, the same for all slots; a tensor where the shapes of a
    # tick are to be fixed.
    cursor: int | torch.Tensor
    # [B, 4, 2C] of the last tick: the frames after the convolutions, and after the first block.
    # They still know whose voice it is.
    early: torch.Tensor

    def reset(self, slots: list[int]) -> None:
        """Put these slots back to the beginning. Old keys stay in the ring and are hidden."""
        self.mel_tail[slots] = 0.0
        self.conv_tail[slots] = 0.0
        self.filled[slots] = 0


def convolve(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """x [B, T, C] -> [B, T', C'] without padding.

    It is one matrix product, because a tick is too short for conv1d.
    """
    patches = x.unfold(1, conv.kernel_size[0], conv.stride[0]).flatten(2)  # [B, T', C * 3]
    return F.linear(patches, conv.weight.flatten(1), conv.bias)


class Block(nn.Module):
    """Pre-norm attention, with a learned bias for each distance, and MLP."""

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
        # [heads, window]
        self.distance_bias = nn.Parameter(-slopes[:, None] * torch.arange(config.window))

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x [B, T, C] -> queries, keys, values, each [B, heads, T, head width]."""
        qkv = self.qkv(self.norm1(x))
        qkv = qkv.unflatten(-1, (3, self.heads, -1))  # [B, T, 3, heads, head width]
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, x: torch.Tensor, q, k, v, bias: torch.Tensor) -> torch.Tensor:
        """x [B, T, C] after attention and MLP, [B, T, C].

        Args:
            q, k, v: see `project`; k and v may be those of other frames, S of them.
            bias: [B or 1, heads, T, S]; -inf hides a key.
        """
        # Autocast would run the softmax, and keep it, in float32. Shapes alone have none.
        is_shape = x.device.type == "meta"
        with nullcontext() if is_shape else torch.autocast(x.device.type, enabled=False):
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias.to(q.dtype)
            # On a CPU this is twice as fast as the fused attention with its gradient.
            mixed = logits.softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def clip_bias(self, frames: int) -> torch.Tensor:
        """The band of `window` distances for a whole clip, [1, heads, T, T]."""
        near = self.distance_bias[:, :frames]
        hidden = near.new_full((self.heads, frames), -torch.inf)
        # line[k] is the bias at distance T-1-k; row i of the matrix is the stretch of the line that
        # begins at T-1-i.
        line = [hidden[:, near.shape[1] :], near.flip(1), hidden[:, 1:]]  # [heads, 2T-1]
        return torch.cat(line, 1).unfold(1, frames, 1).flip(1)[None]

    def ring_bias(self, distance: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """distance [T, ring] of each place in the ring, hidden [B, T, ring] -> bias
        [B, heads, T, ring]."""
        farthest = self.distance_bias.shape[1] - 1
        bias = self.distance_bias[:, distance.clamp(max=farthest)]  # [heads, T, ring]
        return bias[None].masked_fill(hidden[:, None], -torch.inf)


class Encoder(nn.Module):
    """Log-mel frames -> a vector for each tick, and log-probabilities of phones."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(BANDS, config.width, 3)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2)
        # All that is left of Whisper's positions: their mean.
        self.offset = nn.Parameter(torch.zeros(config.width))
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
            early=weight.new_zeros(batch, ENCODER_FRAMES_PER_TICK, 2 * config.width),
        )

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole clips: mel [B, 8n, 80] -> features [B, n, 4C], CTC log-probabilities of phones
        [B, 4n, 1 + phones]."""
        features = self.encode_clip(mel)
        return features, self.phone_log_probs(features)

    def encode_clip(self, mel: torch.Tensor) -> torch.Tensor:
        """Whole clips: mel [B, 8n, 80] -> features [B, n, 4C]."""
        check_whole_ticks(mel)
        start = self.initial_state(mel.shape[0], ring=0)
        x, _, _ = self._convolve(start.mel_tail, mel, start.conv_tail)
        for block in self.blocks:
            x = block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))
        return self._stack(x)

    def early_clip(self, mel: torch.Tensor) -> torch.Tensor:
        """Whole clips: mel [B, 8n, 80] -> `early` of all their ticks [B, 4n, 2C]."""
        check_whole_ticks(mel)
        start = self.initial_state(mel.shape[0], ring=0)
        x, _, _ = self._convolve(start.mel_tail, mel, start.conv_tail)
        block = self.blocks[0]
        return torch.cat([x, block.attend(x, *block.project(x), block.clip_bias(x.shape[1]))], -1)

    def step(self, mel: torch.Tensor, state: EncoderState):
        """mel [B, 8n, 80] -> (features [B, n, 4C], CTC log-probabilities [B, 4n, 1 + phones]) and
        the state, which is changed in place."""
        return self.heads(advance(self.tick, mel, state)), state

    def tick(self, mel: torch.Tensor, state: EncoderState) -> torch.Tensor:
        """The sums of one tick: mel [B, 8, 80] -> frames [B, 4, C] before the last norm.

        Tails, keys, values and `early` of the state change; `advance` moves it on.
        """
        config, device = self.config, mel.device
        cursor = torch.as_tensor(state.cursor, device=device)
        x, state.mel_tail, state.conv_tail = self._convolve(state.mel_tail, mel, state.conv_tail)
        row = torch.arange(x.shape[1], device=device)
        places = torch.arange(config.ring, device=device)
        distance = (cursor + row[:, None] - places) % config.ring  # [4, ring]
        # [B, 4] frames that each may look at
        reach = (state.filled[:, None] + row + 1).clamp(max=config.window)
        # [B, 4, ring]; frames still to come are the farthest in the ring.
        hidden = distance >= reach[..., None]
        # The ring is whole ticks, so a tick's frames never go round its end.
        here = cursor + row
        early = [x]
        for i, block in enumerate(self.blocks):
            q, k, v = block.project(x)
            keys, values = state.keys[i], state.values[i]
            keys.index_copy_(2, here, k)
            values.index_copy_(2, here, v)
            x = block.attend(x, q, keys, values, block.ring_bias(distance, hidden))
            early.append(x)
        state.early = torch.cat(early[:2], -1)
        return x

    def heads(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """frames [B, 4n, C] before the last norm -> features [B, n, 4C], CTC log-probabilities."""
        features = self._stack(frames)
        return features, self.phone_log_probs(features)

    def phone_log_probs(self, features: torch.Tensor) -> torch.Tensor:
        """features [B, n, 4C] -> CTC log-probabilities of phones, a frame each 20 ms,
        [B, 4n, 1 + phones]."""
        frames = features.unflatten(2, (ENCODER_FRAMES_PER_TICK, -1)).flatten(1, 2)
        return self.phones(frames).float().log_softmax(-1)

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


def advance(tick, mel: torch.Tensor, state: EncoderState) -> torch.Tensor:
    """mel [B, 8n, 80] tick by tick -> frames [B, 4n, C] before the last norm.

    Args:
        tick: Encoder.tick, or the same compiled.
    """
    check_whole_ticks(mel)
    ring = state.keys.shape[3]
    frames = []
    for part in mel.split(MEL_FRAMES_PER_TICK, 1):
        x = tick(part, state)
        state.filled = (state.filled + x.shape[1]).clamp(max=ring - ENCODER_FRAMES_PER_TICK)
        state.cursor = (state.cursor + x.shape[1]) % ring
        frames.append(x)
    return torch.cat(frames, 1)


def check_whole_ticks(mel: torch.Tensor) -> None:
    """AssertionError: mel [B, frames, 80] is not a whole number of ticks."""
    assert mel.shape[1] % MEL_FRAMES_PER_TICK == 0, f"mel must be whole ticks, got {[*mel.shape]}"
