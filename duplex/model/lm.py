"""The language model: a Llama-family decoder over one interleaved sequence of ticks and text.

Attention runs over a cache of cells, see duplex.model.kv_cache; without one, over the inputs.

Letters in shapes: B slots or rows, L positions of a call, N of them in use, C cells, S those looked
at, D width, H heads, W width of a head, G heads that share a key head, V vocabulary.
"""

import math
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from duplex.model.tokens import FIRST_TEXT_ID


@dataclass(frozen=True)
class LMConfig:
    """A Llama or Qwen2 backbone, its low-rank adapters, and the projector of encoder features."""

    width: int = 576
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    hidden: int = 1536
    vocabulary: int = 49_152
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5
    # Whether q, k and v have biases, as in Qwen2.
    qkv_bias: bool = False
    # Whether the output layer is the embedding.
    tied: bool = True
    # Ids that change places in the vocabulary, so that its first ones are free for control tokens.
    moved: tuple[tuple[int, int], ...] = ()
    lora_rank: int = 16
    lora_scale: float = 2.0
    # Width of the encoder's vector of a tick.
    feature_width: int = 1536
    # People whom it knows apart by a vector added to their ticks; 0: it does not.
    speakers: int = 0
    # Ticks that can be looked back at: 3.2 s. What was heard before stands in the text.
    tick_window: int = 40
    # Positions of text that can be looked back at, beside the system prompt.
    text_window: int = 384

    @property
    def head_width(self) -> int:
        """Width of one head of attention."""
        return self.width // self.heads


class AdaptedLinear(nn.Module):
    """y = x W' + b + scale (x A') B', W and b frozen (LoRA, Hu et al., 2021)."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        nn.init.normal_(self.weight, std=inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False) if bias else None
        self.scale = scale
        self.lora_a = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs)) if rank else None
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank)) if rank else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., inputs] -> [..., outputs]."""
        y = F.linear(x, self.weight, self.bias)
        if self.lora_a is None:
            return y
        return y + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the adapter into W, for inference."""
        if self.lora_a is None:
            return
        update = self.lora_b.float() @ self.lora_a.float() * self.scale
        self.weight += update.to(self.weight.dtype)
        self.lora_a = None
        self.lora_b = None


class CacheCells(NamedTuple):
    """The cells of a cache, and where the N positions of a call go."""

    keys: torch.Tensor  # [layers, B, kv_heads, C, W]
    values: torch.Tensor  # [layers, B, kv_heads, C, W]
    slots: torch.Tensor  # [N] the slot of each position
    cells: torch.Tensor  # [N] the cell to write its key and value to
    place: torch.Tensor  # [N] which of the B L queries it is
    # [B] whose cells the queries of a row look at; None: all slots in their order.
    rows: torch.Tensor | None = None


def rope_table(config: LMConfig, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [..., 1, W] float32 of the rotary angles at `positions` [...].

    RoFormer, Su et al., 2021.
    """
    half = torch.arange(0, config.head_width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None, None].float() * config.rope_theta ** (-half / config.head_width)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn heads x [..., H, W] by the angles of a `rope_table`."""
    low, high = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-high, low], dim=-1) * sin).to(x.dtype)


class Block(nn.Module):
    """Pre-norm attention and gated MLP. Fused q, k, v and gate, up: fewer calls a tick on a CPU."""

    def __init__(self, config: LMConfig):
        super().__init__()
        rank, scale, c = config.lora_rank, config.lora_scale, config
        self.config = config
        self.attention_norm = nn.Parameter(torch.ones(c.width), requires_grad=False)
        heads = c.heads + 2 * c.kv_heads
        self.qkv = AdaptedLinear(c.width, heads * c.head_width, rank, scale, c.qkv_bias)
        self.out = AdaptedLinear(c.heads * c.head_width, c.width, rank, scale)
        self.mlp_norm = nn.Parameter(torch.ones(c.width), requires_grad=False)
        self.gate_up = AdaptedLinear(c.width, 2 * c.hidden, rank, scale)
        self.down = AdaptedLinear(c.hidden, c.width, rank, scale)

    def forward(self, x, rope, mask, cache: CacheCells | None = None) -> torch.Tensor:
        """x [B, L, D] -> [B, L, D], or with a cache x [N, D] -> [N, D].

        Args:
            rope: see rope_table.
            mask: [B, 1, G L, S] added to the scores.
            cache: keys and values are those of this layer, [B, kv_heads, C, W].
        """
        c = self.config
        x = x + self.out(self._attend(x, rope, mask, cache))
        gate_up = self.gate_up(F.rms_norm(x, (c.width,), self.mlp_norm, c.norm_eps))
        gate, up = gate_up.chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def _attend(self, x, rope, mask, cache: CacheCells | None) -> torch.Tensor:
        """What attention finds for x, before the output layer; arguments as in `forward`."""
        c = self.config
        batch = mask.shape[0]
        qkv = self.qkv(F.rms_norm(x, (c.width,), self.attention_norm, c.norm_eps))
        qkv = qkv.unflatten(-1, (c.heads + 2 * c.kv_heads, c.head_width))
        qk, v = qkv.split([c.heads + c.kv_heads, c.kv_heads], dim=-2)
        q, k = rotate(qk, *rope).split([c.heads, c.kv_heads], dim=-2)
        if cache is None:
            k = k.transpose(1, 2)
            v = v.transpose(1, 2)
        else:
            written = cache.slots, cache.cells
            cache.keys.transpose(1, 2).index_put_(written, k)
            cache.values.transpose(1, 2).index_put_(written, v)
            k, v = cache.keys, cache.values
            if cache.rows is not None:
                k = k[cache.rows]
                v = v[cache.rows]
            k = k[:, :, : mask.shape[-1]]
            v = v[:, :, : mask.shape[-1]]
            queries = batch * mask.shape[2] * c.kv_heads // c.heads  # B L
            q = q.new_zeros(queries, c.heads, c.head_width).index_copy_(0, cache.place, q)
            q = q.view(batch, -1, c.heads, c.head_width)
        # Queries that share a key head are laid side by side: [B, kv_heads, G L, W].
        q = q.transpose(1, 2).reshape(batch, c.kv_heads, -1, c.head_width)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.view(batch, c.heads, -1, c.head_width).transpose(1, 2).flatten(2)  # [B, L, H W]
        return y if cache is None else y.flatten(0, 1)[cache.place]


class LM(nn.Module):
    """The decoder with its embedding, rows of its own for control tokens, and a projector."""

    def __init__(self, config: LMConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(
            torch.randn(config.vocabulary, config.width) * 0.02, requires_grad=False
        )
        # The output layer, where that is not the embedding.
        self.output = (
            None if config.tied else nn.Parameter(self.embedding.clone(), requires_grad=False)
        )
        self.control_in = nn.Parameter(torch.randn(FIRST_TEXT_ID, config.width) * 0.02)
        self.control_out = nn.Parameter(torch.randn(FIRST_TEXT_ID, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.Parameter(torch.ones(config.width), requires_grad=False)
        # What a tick without a new word looks like.
        self.blank = nn.Parameter(torch.randn(config.width) * 0.02)
        self.residual = nn.Linear(config.feature_width, config.width)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)
        # At first nobody is told from anybody.
        self.speaker = nn.Parameter(torch.zeros(config.speakers, config.width))

    @property
    def dtype(self) -> torch.dtype:
        """The type of its inputs and hidden states."""
        return self.norm.dtype

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.norm.device

    @property
    def input_width(self) -> int:
        """Numbers of an input."""
        return self.config.width

    # Slots, and cells of each slot, of its cache beside those of sessions.
    spare = (0, 0)

    @property
    def cache_device(self) -> torch.device:
        """Where its keys and values are kept."""
        return self.norm.device

    @property
    def cache_dtype(self) -> torch.dtype:
        """The type in which its keys and values are kept."""
        return self.norm.dtype

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids [...] -> [..., D]. Control tokens have trained rows of their own."""
        base = F.embedding(tokens, self.embedding)
        control = F.embedding(tokens.clamp(max=FIRST_TEXT_ID - 1), self.control_in)
        return torch.where(tokens[..., None] < FIRST_TEXT_ID, control.to(base.dtype), base)

    def project(
        self,
        features: torch.Tensor | None,
        recognised: list[list[tuple[int, float]]],
        speakers: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The input of N ticks: the embeddings of the words recognised, plus a residual.

        A tick's tokens are mixed, and with the blank as far as they are uncertain; after LegoSLM
        (arXiv 2505.11352).

        Args:
            features: [N, feature_width]; None: the residual is left out.
            recognised: for each tick its tokens with their confidence.
            speakers: int [N], who speaks, from 1 to `config.speakers`; 0: not known, or nobody.

        Returns [N, D].
        """
        mixed = self.blank.to(self.embedding.dtype).expand(len(recognised), -1)
        if any(recognised):
            tokens, shares = padded_pieces(recognised, max(map(len, recognised)))
            mixed = self.mix(tokens.to(self.device), shares.to(self.device))
        if speakers is not None:
            mixed = self.with_speakers(mixed, speakers.to(mixed.device))
        return mixed if features is None else self.with_features(mixed, features)

    def with_speakers(self, mixed: torch.Tensor, speakers: torch.Tensor) -> torch.Tensor:
        """What `mix` gives [N, D] with who speaks, int [N]."""
        if not self.config.speakers:
            return mixed
        voices = F.pad(self.speaker, (0, 0, 1, 0))[speakers]
        return mixed + voices.to(mixed.dtype)

    def with_features(self, mixed: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """What `mix` gives [N, D] with the residual of features [N, feature_width]."""
        residual = self.residual(features.to(self.residual.weight.dtype))
        return mixed + residual.to(mixed.dtype)

    def mix(self, tokens: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The blank, drawn towards the words that were recognised: int64 and float [N, P] ->
        [N, D], see `padded_pieces`."""
        blank = self.blank.to(self.embedding.dtype)
        towards = self.embedding[tokens] - blank
        return blank + (shares[..., None].to(blank.dtype) * towards).sum(1)

    def forward(self, x, positions, visible, cache: CacheCells | None = None) -> torch.Tensor:
        """Inputs x [B, L, D] -> hidden states [B, L, D] after the last norm.

        With a cache x is [N, D], positions are [N], and so are the hidden states: only the
        positions in use, N of the B L. The S are the cache's first cells.

        Args:
            positions: [B, L].
            visible: bool [B, L, S].
        """
        c = self.config
        mask = torch.zeros(visible.shape, dtype=x.dtype, device=x.device)
        mask = mask.masked_fill_(~visible, float("-inf"))
        mask = mask[:, None].repeat(1, 1, c.heads // c.kv_heads, 1)  # [B, 1, G L, S]
        rope = rope_table(c, positions)
        own = cache
        for i, block in enumerate(self.blocks):
            if cache is not None:
                own = cache._replace(keys=cache.keys[i], values=cache.values[i])
            x = block(x, rope, mask, own)
        return F.rms_norm(x, (c.width,), self.norm, c.norm_eps)

    def logits(self, hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
        """Hidden states [..., D] -> scores [..., V] float32.

        Without `text` only those of the control tokens, [..., FIRST_TEXT_ID].
        """
        controls = F.linear(hidden, self.control_out.to(hidden.dtype))
        table = self.embedding if self.output is None else self.output
        return join_logits(controls, F.linear(hidden, table) if text else None)

    def likeliest_texts(self, hidden: list[torch.Tensor]) -> list[list[int]]:
        """Hidden states [N, D] of some slots -> the text token that each of them wants most."""
        scores = self.logits(torch.cat(hidden)).cpu().numpy()
        # One row after the other, which numpy need not copy: in a fifth of torch's time.
        best = (FIRST_TEXT_ID + int(row[FIRST_TEXT_ID:].argmax()) for row in scores)
        return [[*islice(best, len(states))] for states in hidden]

    def merge(self) -> "LM":
        """Fold the adapters into the backbone, for inference."""
        for block in self.blocks:
            for linear in (block.qkv, block.out, block.gate_up, block.down):
                linear.merge()
        return self


def padded_pieces(
    recognised: list[list[tuple[int, float]]], pieces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each tick's tokens with their confidence as int64 tokens and float32 shares [N, pieces]; a
    share is 0 where there is no token. Of more tokens than `pieces` the first ones count."""
    tokens = []
    shares = []
    for found in recognised:
        none = pieces - len(found[:pieces])
        tokens.append([token for token, _ in found[:pieces]] + [0] * none)
        shares.append([confidence / len(found) for _, confidence in found[:pieces]] + [0.0] * none)
    shape = len(recognised), pieces
    return torch.tensor(tokens, dtype=torch.int64).view(shape), torch.tensor(shares).view(shape)


def join_logits(controls: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
    """Scores of the control tokens [..., FIRST_TEXT_ID] and of the whole embedding [..., V] (None:
    without text) -> those of all tokens in float32."""
    if text is None:
        return controls.float()
    return torch.cat([controls.float(), text.float()[..., FIRST_TEXT_ID:]], dim=-1)
