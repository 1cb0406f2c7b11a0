"""The talker's network: phones being said -> codes of the agent's voice, a few codec frames per step.

Phones are encoded by short convolutions that look at most LOOKAHEAD phones ahead, and each gets a duration in codec
frames. A causal transformer then walks over *patches* of codec frames (two by default: half the steps, and the head
sees the frame before in any case); its input is the codes of the previous patch and, for each frame, which phone is
being said and how far it has come. A small head draws a frame's codes, codebook after codebook. `duplex.model.synthesis` runs
it tick by tick for many slots; here is the arithmetic, the same for whole utterances in training.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad, rms_norm, scaled_dot_product_attention, silu

LOOKAHEAD = (
    4  # phones to the right of one that its frames may depend on, its neighbour's encoding included
)
POSITION_FEATURES = 4  # of a frame within its phone
ROTARY_PERIOD = 4096  # patches: every rotary frequency turns a whole number of times in it, so positions may wrap


@dataclass(frozen=True)
class TalkerConfig:
    phones: int = 178  # Hibari's alphabet
    voices: int = 1
    phone_width: int = 256
    width: int = 320
    layers: int = 5
    heads: int = 5
    hidden: int = 832
    code_width: int = 256  # of code embeddings and of the head
    codebooks: int = 8
    codebook_size: int = 1024
    drawn_codebooks: int = (
        4  # at run time; the codec decodes any leading subset, and fewer are faster
    )
    patch_frames: int = 2
    window_frames: int = 192  # 2.56 s of history
    lead_frames: int = 4  # silence before the first phone of a turn
    start_phones: int = (
        3  # encoded phones wanted before a turn starts, so that it does not falter at once
    )
    temperature_first: float = 0.5
    temperature_rest: float = 0.5
    top_k: int = 30

    @property
    def window(self) -> int:
        return self.window_frames // self.patch_frames

    @property
    def drawn(self) -> int:
        return min(self.drawn_codebooks, self.codebooks)

    def temperature(self, codebook: int) -> float:
        return self.temperature_first if codebook == 0 else self.temperature_rest


def position_features(frame: int, start: int, end: int) -> tuple[float, ...]:
    """Where codec frame `frame` stands in a phone that lasts from `start` to `end`."""
    frames, done = max(1, end - start), frame - start
    return (
        (done + 0.5) / frames,
        math.log(frames) / 2,
        min(done, 20) / 10,
        min(frames - done, 20) / 10,
    )


def rotary_table(head_width: int) -> Tensor:
    """[ROTARY_PERIOD, head_width] cosines, then sines; whole turns per period, about geometrically spaced."""
    half = head_width // 2
    turns = torch.unique(
        (ROTARY_PERIOD / 6.3 * 400 ** -(torch.arange(half) / half)).round().clamp(min=1)
    )
    turns = torch.cat([turns, turns[-1:].expand(half - len(turns))])
    angles = 2 * math.pi * torch.outer(torch.arange(ROTARY_PERIOD), turns) / ROTARY_PERIOD
    return torch.cat([angles.cos(), angles.sin()], 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn x [B, H, T, D] by the rows of table [T, D]."""
    cosine, sine = table.chunk(2, -1)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention [B, H, T, D] written out: its backward pass is several times faster at these lengths on a CPU."""
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=scores.dtype) @ v


class PhoneEncoder(nn.Module):
    """Phone ids -> what frames need of each phone, and its duration."""

    LAYERS = 4  # all but the last look one phone ahead
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
        """phones [B, P], lengths [B], voice [B] -> conditions [B, P, C], log of the duration in frames [B, P]."""
        inside = (torch.arange(phones.shape[1]) < lengths[:, None])[..., None]  # [B, P, 1]
        x = (self.embedding(phones) + self.voice(voice)[:, None]) * inside
        for i, (convolution, mixer) in enumerate(zip(self.convolutions, self.mixers, strict=True)):
            sides = (3, 1) if i < self.LAYERS - 1 else (4, 0)
            y = convolution(pad(rms_norm(x, x.shape[-1:]).transpose(1, 2), sides)).transpose(1, 2)
            x = (x + mixer(silu(y))) * inside
        following = pad(self.next(x)[:, 1:], (0, 0, 0, 1))
        return self.now(x) + following, self.duration(x)[..., 0]


class Block(nn.Module):
    def __init__(self, config: TalkerConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor, cache=None) -> Tensor:
        """x [B, T, W], rotary rows [T, D], mask [T, T], or [B, 1, T, ring] with a cache: keys, values, places in the ring [T]."""
        B, T, W = x.shape
        qkv = (
            self.qkv(rms_norm(x, (W,))).view(B, T, 3 * self.heads, -1).transpose(1, 2)
        )  # [B, 3 H, T, D]
        qk, v = qkv.split([2 * self.heads, self.heads], 1)
        q, k = rotate(qk, table).chunk(2, 1)
        if cache is not None:
            keys, values, places = cache  # [B, H, ring, D], [T]
            k, v = keys.index_copy_(2, places, k), values.index_copy_(2, places, v)
        y = (
            scaled_dot_product_attention(q, k, v, attn_mask=mask)
            if cache is not None
            else attend(q, k, v, mask)
        )
        x = x + self.out(y.transpose(1, 2).reshape(B, T, W))
        gate, up = self.gate_up(rms_norm(x, (W,))).chunk(2, -1)
        return x + self.down(silu(gate) * up)


class CodeHead(nn.Module):
    """Logits of a frame's codes, each given the codes before it in the frame: one two-layer network per codebook."""

    def __init__(self, config: TalkerConfig):
        super().__init__()
        K, C, N = config.codebooks, config.code_width, config.codebook_size
        self.inner = nn.Parameter(torch.randn(K, C, C) * C**-0.5)
        self.outer = nn.Parameter(torch.randn(K, C, N) * C**-0.5)
        self.bias = nn.Parameter(torch.zeros(K, 1, N))

    def forward(self, x: Tensor, codebooks: slice = slice(None)) -> Tensor:
        """x [K, N, C] (frame and prefix summed) of these codebooks -> logits [K, N, codebook size]."""
        y = silu(torch.bmm(rms_norm(x, x.shape[-1:]), self.inner[codebooks]))
        return torch.bmm(y, self.outer[codebooks]) + self.bias[codebooks]

    def one(self, x: Tensor, codebook: int) -> Tensor:
        """The same for one codebook: x [B, C] -> logits [B, codebook size]."""
        x = rms_norm(x, x.shape[-1:])
        y = silu(x @ self.inner[codebook])
        return torch.addmm(self.bias[codebook], y, self.outer[codebook])


class Talker(nn.Module):
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
        self.cache_dtype = None  # of a compiled one, see talker_cpu.py
        self.register_buffer("silence_codes", torch.zeros(config.codebooks, dtype=torch.long))
        offsets = torch.arange(config.codebooks) * config.codebook_size
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("rotary", rotary_table(W // config.heads), persistent=False)

    def embed(self, codes: Tensor) -> Tensor:
        """codes [..., K] -> one embedding per codebook [..., K, C]."""
        return embedding(codes + self.offsets[: codes.shape[-1]], self.codes)

    def silence_sum(self) -> Tensor:
        """The summed embeddings of a frame of silence [C], of the codebooks in use."""
        return self.embed(self.silence_codes)[: self.config.drawn].sum(0)

    def condition(self, phones: Tensor, positions: Tensor) -> Tensor:
        """The encoded phone of each frame [..., C] and the frame's place in it [..., 4] -> conditions [..., C]."""
        return silu(phones + self.position(positions))

    def patch_input(self, history: Tensor, conditions: Tensor) -> Tensor:
        """Summed code embeddings of the patch before and conditions of this one, [..., p * C] both -> [..., W]."""
        return self.history_in(history) + self.condition_in(conditions)

    def forward(self, codes: Tensor, shown: Tensor, conditions: Tensor) -> Tensor:
        """Teacher forcing; codes, shown [B, F, K], conditions [B, F, C] -> logits [K, B * F, codebook size]."""
        return self.head(self.head_inputs(codes, shown, conditions).transpose(0, 1).contiguous())

    def head_inputs(self, codes: Tensor, shown: Tensor, conditions: Tensor) -> Tensor:
        """What the head is given for every code of whole utterances -> [B * F, K, C].

        codes [B, F, K] (F a whole number of patches), `shown` the same with noise, as the network's history; a shown
        code below 0 is one that was never drawn.
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
        before = (
            pad(sums, (0, 0, 1, 0))[:, :-1] * (torch.arange(F) % p > 0)[:, None]
        )  # the frame before, of this patch
        base = self.head_base(x, conditions, before)  # [B, F, C]
        inputs = [base]
        for own in self.embed(codes).unbind(2)[:-1]:
            inputs.append(inputs[-1] + own)
        return torch.stack(inputs, 2).flatten(0, 1)

    def head_base(self, x: Tensor, conditions: Tensor, before: Tensor) -> Tensor:
        """What the head knows of each frame before its own codes. x [B, T, W], the rest [B, F, C] -> [B, F, C]."""
        hidden = self.head_in(rms_norm(x, x.shape[-1:])).reshape(conditions.shape)
        return hidden + self.head_condition(conditions) + self.head_previous(before)

    def states(self, history, conditions, forced, table, keys, values, visible, places) -> Tensor:
        """n patches of every slot in one call; compiled on a CPU (talker_cpu.py), where slots of nothing but silence are left out.

        history [B, n, p * C], conditions [B, n, p, C], forced silence [B, n, p], rotary rows [n, D], keys and values
        [layers, B, H, ring, D], what each patch may see of them [B, 1, n, ring], the patches' own places [n] -> [B, n, W].
        """
        x = self.patch_input(history, conditions.flatten(2))
        for i, block in enumerate(self.blocks):
            x = block(x, table, visible, (keys[i], values[i], places))
        return x

    def draw_patch(self, x, conditions, uniform, forced) -> tuple[Tensor, Tensor]:
        """Sample one patch; compiled on a CPU as well. x [B, W], conditions [B, p, C], uniform [B, p, K], forced silence [B, p].

        -> codes [B, p, drawn codebooks]; sums [B, p * C] of their embeddings, the next patch's history.
        """
        config = self.config
        hidden = self.head_in(rms_norm(x, x.shape[-1:])).view(conditions.shape)
        hidden = hidden + self.head_condition(conditions)
        codes, sums = [], []
        for frame in range(config.patch_frames):
            y = hidden[:, frame] + self.head_previous(sums[-1]) if sums else hidden[:, frame]
            drawn = []
            for k in range(config.drawn):
                code = draw(
                    self.head.one(y, k),
                    config.temperature(k),
                    config.top_k,
                    uniform[:, frame, k : k + 1],
                )
                drawn.append(code)
                y = y + embedding(code[:, 0] + k * config.codebook_size, self.codes)
            code = torch.cat(drawn, 1)
            code = torch.where(forced[:, frame, None], self.silence_codes[: config.drawn], code)
            codes.append(code)
            sums.append(self.embed(code).sum(1))
        return torch.stack(codes, 1), torch.cat(sums, 1)


def draw(logits: Tensor, temperature: float, top_k: int, uniform: Tensor) -> Tensor:
    """Sample [B, N] logits among the `top_k` best by inverse distribution of uniform [B, 1]; -> [B, 1]."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    values, indices = logits.topk(min(top_k, logits.shape[-1]))
    cumulative = (values / temperature).softmax(-1, dtype=torch.float32).cumsum(-1)
    place = (cumulative < uniform * cumulative[:, -1:]).sum(-1, keepdim=True)
    return indices.gather(1, place)
