"""The language model of all slots in calls of fixed shapes.

It stands in for an LM as duplex.agent.lm_context uses one. What is on the device is named by whole
numbers: an input is a token, or -1 - p for the tick at place p of its slot's ring; a hidden state
is its place in a pool. Which cells there are and who sees them is kept on the host, as ever.

A slot that is fed one position is fed it in the call of all slots, others in calls of a few slots
and more positions: so the shape in which a session is computed depends on what it does itself.
Rows and positions that are not in use write to a spare cell, and see nothing else.

Letters in shapes: B slots, R rows of a call, L their positions, N positions in use, C cells,
S cells looked at, D width, P pieces of words recognised in a tick.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from duplex.device.link import Graph, Link
from duplex.model import kv_cache
from duplex.model.lm import LM, CacheCells, padded_pieces

# Ticks of each slot whose vectors are kept.
RING_TICKS = 64


@dataclass(frozen=True)
class CallShape:
    """A call of `rows` slots, any but in the first shape, with `positions` each."""

    rows: int
    positions: int


class DeviceLM:
    """See LM; `lm` itself is on the device, merged."""

    # With eight cells more their number is one that attention on a GPU need not pad.
    spare = (1, 8)
    input_width = 1
    dtype = torch.int64
    device = torch.device("cpu")

    def __init__(self, lm: LM, slots: int, link: Link, features: Tensor, pieces: int):
        """
        Args:
            features: buffer [B, W] with the encoder's vectors of the tick.
            pieces: of words recognised in a tick that count.
        """
        self.lm = lm
        self.config = lm.config
        self.slots = slots
        self.link = link
        self.features = features
        self.pieces = pieces
        self.cache_device = lm.device
        self.cache_dtype = lm.dtype
        self.shapes = [
            CallShape(slots, 1),
            CallShape(min(slots, 32), 4),
            CallShape(min(slots, 8), kv_cache.CALL_CELLS),
        ]
        width = (lm.config.width,)
        self.ring = link.buffer(slots + 1, RING_TICKS, *width, dtype=lm.dtype)
        self.pool = link.buffer(slots + 1, kv_cache.CALL_CELLS, *width, dtype=lm.dtype)
        self.ticks = 0
        inputs = [
            link.buffer(slots, pieces, dtype=torch.int64),
            link.buffer(slots, pieces),
            link.buffer(slots, dtype=torch.int64),
            link.buffer(1, dtype=torch.int64),
        ]
        self.hear = Graph(link, self.heard, inputs)
        self.calls: list[Graph] = []
        self.spare_cell = 0
        # The text token that each hidden state wants most, of those asked last.
        self.likeliest: dict[int, int] = {}

    # What LMContext asks for.

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [...] -> inputs [..., 1]."""
        return tokens[..., None]

    def project(
        self, features: Tensor, recognised: list[list[tuple[int, float]]], speakers: Tensor
    ) -> Tensor:
        """The inputs [B, 1] of a tick; its features are on the device already."""
        place = self.ticks % RING_TICKS
        self.ticks += 1
        self.hear(*padded_pieces(recognised, self.pieces), speakers, np.array([place]))
        return torch.full((self.slots, 1), -1 - place)

    def likeliest_texts(self, hidden: list[Tensor]) -> list[list[int]]:
        """See LM: of the first hidden states [N, 1] that were asked, up to one that was not."""
        found = [[self.likeliest.get(place) for place in one[:, 0].tolist()] for one in hidden]
        return [best[: best.index(None)] if None in best else best for best in found]

    def logits(self, hidden: Tensor, text: bool = True) -> Tensor:
        """See LM, in this machine's memory: a wait, and in a shape of its own."""
        states = self.pool.flatten(0, 1)[hidden[:, 0].to(self.pool.device)]
        return torch.from_numpy(self.link.fetch(self.lm.logits(states, text)))

    def __call__(self, x: Tensor, positions: Tensor, visible: Tensor, cache: CacheCells) -> Tensor:
        """x [N, 1], positions [N], visible [B, L, S] -> places of the hidden states [N, 1]."""
        if not self.calls:
            self.calls = [self.call_of(shape, cache) for shape in self.shapes]
            for call in self.calls:
                call.prepare()
        slots = cache.slots.numpy()
        at = cache.place.numpy() % visible.shape[1]
        given = x[:, 0].numpy(), positions.numpy(), cache.cells.numpy()
        seen = visible.numpy()[slots, at]  # [N, S]
        counts = np.bincount(slots, minlength=self.slots)
        least = 0
        for shape, call in zip(self.shapes, self.calls, strict=True):
            fitting = np.flatnonzero((counts > least) & (counts <= shape.positions))
            least = shape.positions
            for begin in range(0, len(fitting), shape.rows):
                part = fitting[begin : begin + shape.rows]
                row = np.full(self.slots, -1)
                row[part] = part if shape.positions == 1 else np.arange(len(part))
                rows = np.arange(self.slots)
                if shape.positions > 1:
                    rows = np.full(shape.rows, self.slots)
                    rows[: len(part)] = part
                mine = np.flatnonzero(row[slots] >= 0)
                where = row[slots[mine]], at[mine]
                call(rows, *self._padded(shape, where, [one[mine] for one in given], seen[mine]))
        assert counts.max(initial=0) <= least, f"{counts.max()} positions do not fit into a call"
        return torch.from_numpy(slots * kv_cache.CALL_CELLS + at)[:, None]

    def _padded(
        self, shape: CallShape, where: tuple, given: list[np.ndarray], seen: np.ndarray
    ) -> list[np.ndarray]:
        """Codes, positions, cells [R, L] and visible cells [R, L, C + 1] of a call; `where` are
        rows and columns of the positions in use."""
        spare = self.spare_cell
        found = []
        for values, unused in zip(given, (0, 0, spare), strict=True):
            padded = np.full((shape.rows, shape.positions), unused)
            padded[where] = values
            found.append(padded)
        visible = np.zeros((shape.rows, shape.positions, spare + 1), bool)
        visible[..., spare] = True
        visible[*where, spare] = False
        visible[*where, : seen.shape[1]] = seen
        return [*found, visible]

    # What runs on the device.

    def call_of(self, shape: CallShape, cache: CacheCells) -> Graph:
        """The call of one shape with this cache."""
        self.spare_cell = spare = cache.keys.shape[3] - 1
        both = shape.rows, shape.positions
        rows = np.arange(self.slots) if shape.positions == 1 else np.full(shape.rows, self.slots)
        visible = self.link.buffer(*both, spare + 1, dtype=torch.bool)
        visible[..., spare] = True
        inputs = [
            torch.as_tensor(rows).to(self.link.device),
            self.link.buffer(*both, dtype=torch.int64),
            self.link.buffer(*both, dtype=torch.int64),
            torch.full(both, spare, device=self.link.device),
            visible,
        ]
        return Graph(self.link, partial(self.feed, cache, shape), inputs)

    def heard(self, tokens: Tensor, shares: Tensor, speakers: Tensor, place: Tensor) -> None:
        """Words of all slots [B, P], see padded_pieces, and who speaks [B] -> the tick's vectors,
        into the ring."""
        mixed = self.lm.with_speakers(self.lm.mix(tokens, shares), speakers)
        vectors = self.lm.with_features(mixed, self.features)
        self.ring[: self.slots].index_copy_(1, place, vectors[:, None])

    def feed(self, cache: CacheCells, shape: CallShape, *given: Tensor) -> None:
        """One call, given rows [R], codes, positions, cells [R, L], visible [R, L, C + 1]; hidden
        states go into the pool."""
        rows, codes, positions, cells, visible = given
        ticks = self.ring[rows[:, None], (-1 - codes).clamp(min=0)]
        x = torch.where((codes < 0)[..., None], ticks, self.lm.embed(codes.clamp(min=0)))
        is_all = shape.positions == 1
        written = CacheCells(
            cache.keys[:, : self.slots] if is_all else cache.keys,
            cache.values[:, : self.slots] if is_all else cache.values,
            rows[:, None].expand_as(codes).flatten(),
            cells.flatten(),
            torch.arange(codes.numel(), device=codes.device),
            None if is_all else rows,
        )
        hidden = self.lm(x.flatten(0, 1), positions.flatten(), visible, written)
        self.pool[:, : shape.positions].index_copy_(0, rows, hidden.view_as(x))
