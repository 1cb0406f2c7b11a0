"""The talker's network: phones being said -> codes of the agent's voice, a few codec frames a step.

Phones are encoded by short convolutions that look at most LOOKAHEAD phones ahead, and each gets a
duration in codec frames. A causal transformer then walks over *patches* of codec frames (two by
default: half the steps, and the head sees the frame before in any case); its input is the codes of
the previous patch and, for each frame, which phone is being said and how far it has come. A small
head samples a frame's codes, codebook after codebook. `synthesis.py` runs it tick by tick
for many slots; here is the arithmetic, the same for whole utterances in training.

Letters in shapes: B slots or utterances, P phones, F frames, T patches of p frames, K codebooks,
C width of codes, W width of the transformer, H heads of width D.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad, rms_norm, scaled_dot_product_attention, silu

from duplex.model.sampling import sample_codes

# Phones to the right of one that its frames may depend on, its neighbour's encoding included.
LOOKAHEAD = 4

# Numbers that say where a frame is within its phone, see position_features.
POSITION_FEATURES = 4


@dataclass(frozen=True)
class TalkerConfig:
    """Sizes of the talker, and how it samples."""

    # Hibari's alphabet.
    phones: int = 178
    voices: int = 1
    phone_width: int = 256
    width: int = 320
    layers: int = 5
    heads: int = 5
    hidden: int = 832
    # Width of the codes' embeddings and of the head.
    code_width: int = 256
    codebooks: int = 8
    codebook_size: int = 1024
    # Codebooks at run time. The codec decodes any leading subset, and fewer are faster.
    drawn_codebooks: int = 4
    patch_frames: int = 2
    # Frames of history: 2.56 s.
    window_frames: int = 192
    # Frames of silence before the first phone of a turn.
    lead_frames: int = 4
    # Encoded phones wanted before a turn starts, so that it does not falter at once.
    start_phones: int = 3
    # Temperatures of the first codebook and of the others.
    temperature_first: float = 0.5
    temperature_rest: float = 0.5
    top_k: int = 30

    @property
    def window(self) -> int:
        """Patches of history."""
        return self.window_frames // self.patch_frames

    @property
    def drawn(self) -> int:
        """Codebooks that are sampled."""
        return min(self.drawn_codebooks, self.codebooks)

    def temperature(self, codebook: int) -> float:
        """The temperature of a codebook; 0: its likeliest code is taken."""
        return self.temperature_first if codebook == 0 else self.temperature_rest


def position_features(frame: int, start: int, end: int) -> tuple[float, ...]:
    """Where codec frame `frame` stands in a phone that lasts from `start` to `end`."""
    return _position_features(frame - start, max(1, end - start))


@cache
def _position_features(done: int, frames: int) -> tuple[float, ...]:
    return (
        (done + 0.5) / frames,
        math.log(frames) / 2,
        min(done, 20) / 10,
        min(frames - done, 20) / 10,
    )


def rotary_table(head_width: int, period: int = 4096) -> Tensor:
    """[period, D] cosines, then sines; frequencies are about geometrically spaced.

    period: patches in which each of them turns a whole number of times, so positions may wrap.
    """
    half = head_width // 2
    spaced = period / 6.3 * 400 ** -(torch.arange(half) / half)
    turns = torch.unique(spaced.round().clamp(min=1))
    turns = torch.cat([turns, turns[-1:].expand(half - len(turns))])
    angles = 2 * math.pi * torch.outer(torch.arange(period), turns) / period
    return torch.cat([angles.cos(), angles.sin()], 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn x [B, H, T, D] by the rows of table [T, D]."""
    cosine, sine = table.chunk(2, -1)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention [B, H, T, D] written out.

    Its backward pass is several times faster than that of the fused one at these lengths on a CPU.
    """
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=scores.dtype) @ v


class PatchCache(NamedTuple):
    """The ring of keys and values, and the place in it of the patch that comes next."""

    keys: Tensor  # [layers, B, H, ring, D]
    values: Tensor  # [layers, B, H, ring, D]
    visible: Tensor  # [B, 1, 1, ring] bool: what each slot may see, the new patch included
    place: Tensor  # [1] where the new patch goes
    rotary: Tensor  # [1, D] the row of the rotary table for it


class PhoneEncoder(nn.Module):
    """Phone ids -> what frames need of each phone, and its duration."""

    # All but the last look one phone ahead.
    LAYERS = 4
    LEFT_CONTEXT = 3 * 3 + 4

    def __init__(self, config: TalkerConfig):
        super().__init__()
        width = config.phone_width
        self.embedding = nn.Embedding(config.phones, width)
        self.voice = nn.Embedding(config.voices, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 5) for _ in range(self.LAYERS))
        self.mixers = nn.ModuleList(nn.Linear(width, width) for _ in range(self.LAYERS))
        self.now = nn.Linear(width, config.code_width)
        self.next = nn.Linear(width, config.code_width, bias=False)
        self.duration = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, phones: Tensor, lengths: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        """phones [B, P], lengths [B], voice [B] -> conditions [B, P, C], log of the duration in
        frames [B, P]."""
        places = torch.arange(phones.shape[1], device=phones.device)
        inside = (places < lengths[:, None])[..., None]  # [B, P, 1]
        x = (self.embedding(phones) + self.voice(voice)[:, None]) * inside
        for i, (convolution, mixer) in enumerate(zip(self.convolutions, self.mixers, strict=True)):
            sides = (3, 1) if i < self.LAYERS - 1 else (4, 0)
            y = convolution(pad(rms_norm(x, x.shape[-1:]).transpose(1, 2), sides)).transpose(1, 2)
            x = (x + mixer(silu(y))) * inside
        following = pad(self.next(x)[:, 1:], (0, 0, 0, 1))
        return self.now(x) + following, self.duration(x)[..., 0]


class Block(nn.Module):
    """Pre-norm attention with rotary positions, and gated MLP; its norms have no weights."""

    def __init__(self, config: TalkerConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)

    def forward(
        self, x: Tensor, table: Tensor, mask: Tensor, cache: PatchCache | None = None
    ) -> Tensor:
        """x [B, T, W] -> [B, T, W].

        Args:
            table: rotary rows [T, D].
            mask: [T, T] bool, or [B, 1, T, ring] with a cache.
            cache: keys and values are those of this layer, [B, H, ring, D].
        """
        B, T, W = x.shape
        qkv = self.qkv(rms_norm(x, (W,))).view(B, T, 3 * self.heads, -1).transpose(1, 2)
        qk, v = qkv.split([2 * self.heads, self.heads], 1)  # [B, 2 H, T, D], [B, H, T, D]
        q, k = rotate(qk, table).chunk(2, 1)
        if cache is None:
            y = attend(q, k, v, mask)
        else:
            k = cache.keys.index_copy_(2, cache.place, k)
            v = cache.values.index_copy_(2, cache.place, v)
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, W))
        gate, up = self.gate_up(rms_norm(x, (W,))).chunk(2, -1)
        return x + self.down(silu(gate) * up)


class CodeHead(nn.Module):
    """Logits of a frame's codes, each given the codes before it in the frame.

    There is one network of two layers for each codebook.
    """

    def __init__(self, config: TalkerConfig):
        super().__init__()
        K, C, N = config.codebooks, config.code_width, config.codebook_size
        self.inner = nn.Parameter(torch.randn(K, C, C) * C**-0.5)
        self.outer = nn.Parameter(torch.randn(K, C, N) * C**-0.5)
        self.bias = nn.Parameter(torch.zeros(K, 1, N))

    def forward(self, x: Tensor, codebooks: slice = slice(None)) -> Tensor:
        """x [K, N, C] (frame and prefix summed) of these codebooks -> logits [K, N, codes]."""
        y = silu(torch.bmm(rms_norm(x, x.shape[-1:]), self.inner[codebooks]))
        return torch.bmm(y, self.outer[codebooks]) + self.bias[codebooks]

    def one(self, x: Tensor, codebook: int) -> Tensor:
        """The same for one codebook: x [B, C] -> logits [B, codes]."""
        x = rms_norm(x, x.shape[-1:])
        y = silu(x @ self.inner[codebook])
        return torch.addmm(self.bias[codebook], y, self.outer[codebook])


class Talker(nn.Module):
    """Phone encoder, transformer over patches, and head."""

    def __init__(self, config: TalkerConfig):
        super().__init__()
        self.config = config
        p, C, W = config.patch_frames, config.code_width, config.width
        self.phone_encoder = PhoneEncoder(config)
        self.codes = nn.Parameter(torch.randn(config.codebooks * config.codebook_size, C) * 0.3)
        self.position = nn.Linear(POSITION_FEATURES, C, bias=False)
        self.history_in = nn.Linear(p * C, W, bias=False)
        self.condition_in = nn.Linear(p * C, W, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head_in = nn.Linear(W, p * C)
        self.head_condition = nn.Linear(C, C, bias=False)
        self.head_previous = nn.Linear(C, C, bias=False)
        self.head = CodeHead(config)
        for block in self.blocks:
            nn.init.normal_(block.out.weight, std=0.02 / math.sqrt(2 * config.layers))
            nn.init.normal_(block.down.weight, std=0.02 / math.sqrt(2 * config.layers))
        self.register_buffer("silence_codes", torch.zeros(config.codebooks, dtype=torch.long))
        offsets = torch.arange(config.codebooks) * config.codebook_size
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("rotary", rotary_table(W // config.heads), persistent=False)

    @property
    def cache_dtype(self) -> torch.dtype:
        """The type in which keys and values are kept."""
        return self.codes.dtype

    def embed(self, codes: Tensor) -> Tensor:
        """codes [..., K] -> one embedding for each codebook, [..., K, C]."""
        return embedding(codes + self.offsets[: codes.shape[-1]], self.codes)

    def silence_sum(self) -> Tensor:
        """The summed embeddings of a frame of silence [C], of the codebooks in use."""
        return self.embed(self.silence_codes)[: self.config.drawn].sum(0)

    def condition(self, phones: Tensor, positions: Tensor) -> Tensor:
        """The encoded phone of each frame [..., C] and the frame's place in it [..., 4] ->
        conditions [..., C]."""
        return silu(phones + self.position(positions))

    def patch_input(self, history: Tensor, conditions: Tensor) -> Tensor:
        """Summed code embeddings of the patch before, and conditions of this one, both
        [..., p * C] -> [..., W]."""
        return self.history_in(history) + self.condition_in(conditions)

    def forward(self, codes: Tensor, shown: Tensor, conditions: Tensor) -> Tensor:
        """Teacher forcing: codes, shown [B, F, K], conditions [B, F, C] -> logits
        [K, B F, codes]."""
        return self.head(self.head_inputs(codes, shown, conditions).transpose(0, 1).contiguous())

    def head_inputs(self, codes: Tensor, shown: Tensor, conditions: Tensor) -> Tensor:
        """What the head is given for every code of whole utterances.

        Args:
            codes: [B, F, K], F a whole number of patches.
            shown: the same with noise, as the network's history; a code below 0 is one that was
                never drawn.
            conditions: [B, F, C].

        Returns [B F, K, C].
        """
        B, F, K = codes.shape
        p, T = self.config.patch_frames, F // self.config.patch_frames
        sums = (self.embed(shown.clamp(min=0)) * (shown >= 0)[..., None]).sum(2)  # [B, F, C]
        silence = self.silence_sum().expand(B, p, -1)
        history = torch.cat([silence, sums[:, :-p]], 1).reshape(B, T, -1)
        x = self.patch_input(history, conditions.reshape(B, T, -1))
        age = torch.arange(T)[:, None] - torch.arange(T)
        mask = (age >= 0) & (age < self.config.window)
        for block in self.blocks:
            x = block(x, self.rotary[:T], mask)
        # The frame before, where it is of the same patch.
        has_before = (torch.arange(F) % p > 0)[:, None]
        before = pad(sums, (0, 0, 1, 0))[:, :-1] * has_before
        inputs = [self.head_base(x, conditions, before)]  # [B, F, C]
        for own in self.embed(codes).unbind(2)[:-1]:
            inputs.append(inputs[-1] + own)
        return torch.stack(inputs, 2).flatten(0, 1)

    def head_base(self, x: Tensor, conditions: Tensor, before: Tensor) -> Tensor:
        """What the head knows of each frame before its own codes, [B, F, C].

        Args:
            x: [B, T, W]; the others are [B, F, C].
        """
        hidden = self.head_in(rms_norm(x, x.shape[-1:])).reshape(conditions.shape)
        return hidden + self.head_condition(conditions) + self.head_previous(before)

    def patch_state(
        self, history: Tensor, conditions: Tensor, forced: Tensor, cache: PatchCache
    ) -> Tensor:
        """The transformer over the next patch of every slot.

        Args:
            history: [B, p * C] summed embeddings of the patch before.
            conditions: [B, p, C].
            forced: [B, p] bool, frames of forced silence. The compiled form leaves out the slots
                of nothing else.

        Returns [B, W].
        """
        x = self.patch_input(history, conditions.flatten(1))[:, None]
        for keys, values, block in zip(cache.keys, cache.values, self.blocks, strict=True):
            x = block(x, cache.rotary, cache.visible, cache._replace(keys=keys, values=values))
        return x[:, 0]

    def sample_patch(
        self, x: Tensor, conditions: Tensor, uniform: Tensor, forced: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sample the codes of one patch.

        Args:
            x: [B, W] see `patch_state`.
            conditions: [B, p, C].
            uniform: [B, p, K] random numbers from 0 to 1.
            forced: [B, p] bool, frames of forced silence.

        Returns codes [B, p, K] of the codebooks drawn, and the sums [B, p * C] of their embeddings,
        the next patch's history.
        """
        config = self.config
        hidden = self.head_in(rms_norm(x, x.shape[-1:])).view(conditions.shape)
        hidden = hidden + self.head_condition(conditions)
        codes, sums = [], []
        for frame in range(config.patch_frames):
            y = hidden[:, frame] + self.head_previous(sums[-1]) if sums else hidden[:, frame]
            drawn = []
            for k in range(config.drawn):
                share = uniform[:, frame, k : k + 1]
                logits = self.head.one(y, k)
                code = sample_codes(logits, config.temperature(k), config.top_k, share)
                drawn.append(code)
                y = y + embedding(code[:, 0] + k * config.codebook_size, self.codes)
            code = torch.cat(drawn, 1)
            code = torch.where(forced[:, frame, None], self.silence_codes[: config.drawn], code)
            codes.append(code)
            sums.append(self.embed(code).sum(1))
        return torch.stack(codes, 1), torch.cat(sums, 1)
