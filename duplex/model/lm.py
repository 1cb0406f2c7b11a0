"""The language model: a Llama-family decoder over one interleaved sequence of ticks and text, several sessions in a batch.

Attention runs over a cache of cells, see duplex.model.kv_cache. Letters in shapes: B slots, L positions of a call, C cells,
D width, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from duplex.model.tokens import FIRST_TEXT_ID


@dataclass(frozen=True)
class LMConfig:
    """A Llama-family backbone, its low-rank adapters, and the projector from the encoder's features."""

    width: int = 576
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    hidden: int = 1536
    vocabulary: int = 49_152
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5
    lora_rank: int = 16
    lora_scale: float = 2.0
    feature_width: int = 1536
    tick_window: int = 40  # ticks of features kept: 3.2 s; what was heard before stands in the text
    text_window: int = 384  # text positions kept beside the system prompt

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class AdaptedLinear(nn.Module):
    """y = x W' + scale (x A') B', W frozen (Hu et al., 2021, LoRA). `merge` folds the adapter into W."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        nn.init.normal_(self.weight, std=inputs**-0.5)
        self.scale = scale
        self.lora_a = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs)) if rank else None
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank)) if rank else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, self.weight)
        if self.lora_a is None:
            return y
        return y + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        if self.lora_a is not None:
            self.weight += (self.lora_b.float() @ self.lora_a.float() * self.scale).to(
                self.weight.dtype
            )
            self.lora_a = self.lora_b = None


def rope_table(config: LMConfig, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [..., 1, head_width] float32 of the rotary angles at `positions` [...] (Su et al., 2021)."""
    half = torch.arange(0, config.head_width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None, None].float() * config.rope_theta ** (-half / config.head_width)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    low, high = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-high, low], dim=-1) * sin).to(x.dtype)


class Block(nn.Module):
    """Pre-norm attention and gated MLP, with q, k, v and gate, up fused: fewer calls a tick on a CPU."""

    def __init__(self, config: LMConfig):
        super().__init__()
        rank, scale, c = config.lora_rank, config.lora_scale, config
        self.config = config
        self.attention_norm = nn.Parameter(torch.ones(c.width), requires_grad=False)
        self.qkv = AdaptedLinear(c.width, (c.heads + 2 * c.kv_heads) * c.head_width, rank, scale)
        self.out = AdaptedLinear(c.heads * c.head_width, c.width, rank, scale)
        self.mlp_norm = nn.Parameter(torch.ones(c.width), requires_grad=False)
        self.gate_up = AdaptedLinear(c.width, 2 * c.hidden, rank, scale)
        self.down = AdaptedLinear(c.hidden, c.width, rank, scale)

    def forward(self, x, rope, mask, cache=None):
        """x [B, L, D], mask [B, 1, G L, S] additive; or x [N, D], the positions in use of all slots, and a cache:
        keys and values [B, H, C, W], slot and cell [N] to write each position to, and its place [N] among the B L queries."""
        c, batch = self.config, mask.shape[0]
        qkv = self.qkv(F.rms_norm(x, (c.width,), self.attention_norm, c.norm_eps))
        qkv = qkv.unflatten(-1, (c.heads + 2 * c.kv_heads, c.head_width))
        qk, v = qkv.split([c.heads + c.kv_heads, c.kv_heads], dim=-2)
        q, k = rotate(qk, *rope).split([c.heads, c.kv_heads], dim=-2)
        if cache is None:
            k, v = k.transpose(1, 2), v.transpose(1, 2)
        else:
            keys, values, slots, cells, place = cache
            for all_cells, new in ((keys, k), (values, v)):
                all_cells.transpose(1, 2).index_put_((slots, cells), new)
            k, v = keys[:, :, : mask.shape[-1]], values[:, :, : mask.shape[-1]]
            padded = q.new_zeros(
                mask.shape[0] * mask.shape[2] * c.kv_heads // c.heads, c.heads, c.head_width
            )
            q = padded.index_copy_(0, place, q).view(batch, -1, c.heads, c.head_width)
        # the queries that share a key head are laid side by side: [B, kv_heads, group * L, W]
        q = q.transpose(1, 2).reshape(batch, c.kv_heads, -1, c.head_width)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.view(batch, c.heads, -1, c.head_width).transpose(1, 2).flatten(2)
        x = x + self.out(y if cache is None else y.flatten(0, 1)[place])
        gate, up = self.gate_up(F.rms_norm(x, (c.width,), self.mlp_norm, c.norm_eps)).chunk(
            2, dim=-1
        )
        return x + self.down(F.silu(gate) * up)


class LM(nn.Module):
    def __init__(self, config: LMConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(
            torch.randn(config.vocabulary, config.width) * 0.02, requires_grad=False
        )
        self.control_in = nn.Parameter(torch.randn(FIRST_TEXT_ID, config.width) * 0.02)
        self.control_out = nn.Parameter(torch.randn(FIRST_TEXT_ID, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.Parameter(torch.ones(config.width), requires_grad=False)
        self.text_out = self.cache_dtype = (
            None  # of a compiled one: the tied embedding as an output layer, see lm_cpu.py
        )
        self.blank = nn.Parameter(
            torch.randn(config.width) * 0.02
        )  # what a tick without a new word looks like
        self.residual = nn.Linear(config.feature_width, config.width)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids [...] -> [..., D]. Control tokens have trained rows of their own."""
        base = F.embedding(tokens, self.embedding)
        control = F.embedding(tokens.clamp(max=FIRST_TEXT_ID - 1), self.control_in)
        return torch.where(tokens[..., None] < FIRST_TEXT_ID, control.to(base.dtype), base)

    def project(
        self, features: torch.Tensor | None, heard: list[list[tuple[int, float]]]
    ) -> torch.Tensor:
        """The input of N ticks: the LM's own embeddings of the pieces that were heard, plus a residual.

        features [N, feature_width] (None: the residual is left out), the tokens of each tick with how sure they are -> [N, D].
        A tick's pieces are mixed, and with the blank as far as they are unsure: after LegoSLM (arXiv 2505.11352).
        """
        found = [
            (tick, token, sure / len(pieces))
            for tick, pieces in enumerate(heard)
            for token, sure in pieces
        ]
        mixed = self.blank.to(self.embedding.dtype).expand(len(heard), -1)
        if found:
            ticks, tokens, shares = (
                torch.tensor(column, device=mixed.device) for column in zip(*found, strict=True)
            )
            mixed = mixed.index_add(
                0, ticks, shares[:, None].to(mixed.dtype) * (self.embedding[tokens] - mixed[:1])
            )
        return (
            mixed
            if features is None
            else mixed + self.residual(features.to(self.residual.weight.dtype)).to(mixed.dtype)
        )

    def forward(
        self, x, positions, visible, keys=None, values=None, slots=None, cells=None, place=None
    ):
        """Inputs x [B, L, D], positions [B, L], visible bool [B, L, S] -> hidden states [B, L, D] after the last norm.

        With a cache (keys, values: see kv_cache.LMState) x is [N, D] and positions [N]: only the positions in use, N of the B L. The S
        are the first cells, `slots` and `cells` [N] are where to put this call's, `place` [N] which of the B L each is.
        """
        c = self.config
        mask = torch.zeros(visible.shape, dtype=x.dtype, device=x.device).masked_fill_(
            ~visible, float("-inf")
        )
        mask = mask[:, None].repeat(1, 1, c.heads // c.kv_heads, 1)  # [B, 1, G L, S]
        rope = rope_table(c, positions)
        for i, block in enumerate(self.blocks):
            x = block(
                x, rope, mask, None if keys is None else (keys[i], values[i], slots, cells, place)
            )
        return F.rms_norm(x, (c.width,), self.norm, c.norm_eps)

    def logits(self, hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
        """Hidden states [..., D] -> scores [..., V] float32; without `text` only the control tokens' [..., FIRST_TEXT_ID]."""
        controls = F.linear(hidden, self.control_out.to(hidden.dtype)).float()
        if not text:
            return controls
        scores = (
            F.linear(hidden, self.embedding) if self.text_out is None else self.text_out(hidden)
        )
        return torch.cat([controls, scores.float()[..., FIRST_TEXT_ID:]], dim=-1)

    def merge(self) -> "LM":
        """Fold the adapters into the backbone, for inference."""
        for block in self.blocks:
            for linear in (block.qkv, block.out, block.gate_up, block.down):
                linear.merge()
        return self
