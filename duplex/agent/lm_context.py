"""What the LM is fed, and when: its cache, inputs that wait, trees of text that are only scored."""

import itertools
import time
from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import torch

from duplex.agent.session import InputQueue, LMInput, Session
from duplex.model import kv_cache
from duplex.model.tokens import AGENT, CHAT_START, FIRST_TEXT_ID, USER


@dataclass
class LMCounts:
    """Calls of the LM since the start, and the seconds they took."""

    calls: int = 0
    seconds: float = 0.0


class LMContext:
    """The LM with the cache of all slots. Letters in shapes: B slots, D width, V vocabulary."""

    def __init__(self, lm, slots: int, prompt_cells: int):
        self.lm = lm
        self.slots = slots
        self.width = lm.input_width
        self.dtype = lm.dtype
        self.device = lm.device
        # Where every session's prompt ends, and its conversation begins.
        self.prompt_end = prompt_cells
        cache = {"device": lm.cache_device, "dtype": lm.cache_dtype, "spare": lm.spare}
        # A new prompt is read while the old one is in force.
        self.cache = kv_cache.initial_state(lm.config, slots, 2 * prompt_cells, **cache)
        self.counts = LMCounts()

    def embed(self, tokens: list[int], tick: torch.Tensor | None = None) -> LMInput:
        """Tokens, and then a tick's vector [D] if there is one, as inputs."""
        return self.embed_all([(tokens, None if tick is None else tick[None].to(self.dtype))])[0]

    def embed_all(self, given: list[tuple[list[int], torch.Tensor | None]]) -> list[LMInput]:
        """The same of many, all tokens at once; a tick's vector is [1, D] and of the LM's type."""
        every = [token for tokens, _ in given for token in tokens]
        if every:
            text = self.lm.embed(torch.tensor(every, device=self.device)).to(self.dtype)
        inputs = []
        end = 0
        for tokens, tick in given:
            if not tokens:
                inputs.append(LMInput(tick, [0]))
                continue
            begin, end = end, end + len(tokens)
            own = text[begin:end]
            if tick is None:
                inputs.append(LMInput(own, []))
            else:
                inputs.append(LMInput(torch.cat([own, tick]), [len(tokens)]))
        return inputs

    def project(
        self,
        features: torch.Tensor,
        recognised: list[list[tuple[int, float]]],
        speakers: list[int],
    ) -> torch.Tensor:
        """A tick's vectors [B, D] of the encoder's features [B, W], each slot's pieces, and who
        speaks in it, counted from 1; 0: nobody, or it is not known."""
        most = self.lm.config.speakers
        known = torch.tensor([speaker if speaker <= most else 0 for speaker in speakers])
        return self.lm.project(features.to(self.device), recognised, known)

    def prefill(self, slot: int, prompt: list[int]) -> None:
        """Feed a session's instructions at once, never to be evicted. The list is emptied."""
        while prompt:
            self.forward({slot: self.embed(prompt[: kv_cache.CALL_CELLS])}, pin=True)
            del prompt[: kv_cache.CALL_CELLS]

    def begin_prompt(self, slot: int, length: int) -> None:
        """The next positions are a prompt's of this length."""
        self.cache.next_position[slot] = self.prompt_end - length

    def pin_all(self, slot: int) -> None:
        """What the slot has been fed so far is never evicted."""
        self.cache.pinned[slot] = self.cache.position[slot] >= 0

    def forward(
        self,
        inputs: dict[int, LMInput],
        proposals: dict[int, list[int]] | None = None,
        pin: bool = False,
        asked: Container[int] | None = None,
    ) -> dict[int, torch.Tensor]:
        """One call of the LM: feed each slot its inputs, then its proposals of what comes next.

        Returns hidden states [1 + proposals, D], from the last input on, of the slots that are
        asked, by default all.
        """
        proposals = {slot: found for slot, found in (proposals or {}).items() if found}
        vectors = {slot: [inputs[slot].vectors] for slot in sorted(inputs)}
        proposed = self.embed_all([(tokens, None) for tokens in proposals.values()])
        for slot, more in zip(proposals, proposed, strict=True):
            vectors[slot].append(more.vectors)
        counts = [0] * self.slots
        ticks: list[int] = []
        rows: list[int] = []  # by turns those that are not asked, and those of one that is
        begin = end = 0
        for slot in vectors:
            given = inputs[slot]
            fed = given.vectors.shape[0]
            more = len(proposals.get(slot, ()))
            ticks += [begin + place for place in given.ticks]
            counts[slot] = fed + more
            if asked is None or slot in asked:
                rows += [begin + fed - 1 - end, 1 + more]
                end = begin + fed + more
            begin += fed + more
        rows.append(begin - end)
        is_tick = np.zeros(begin, bool)
        is_tick[ticks] = True
        x = torch.cat([part for parts in vectors.values() for part in parts])
        begun = time.perf_counter()
        hidden, self.cache = kv_cache.step(self.lm, x, counts, is_tick, self.cache, pin)
        self._count(begun)
        slots = [slot for slot in vectors if asked is None or slot in asked]
        return dict(zip(slots, hidden.split(rows)[1::2], strict=True))

    def reset(self, slot: int) -> None:
        """The slot was fed nothing."""
        self.cache.reset([slot])

    def undo(self, slot: int, count: int) -> None:
        """Forget the slot's last `count` positions."""
        kv_cache.rollback(self.cache, slot, count)

    def flush(self, slot: int, queue: InputQueue) -> None:
        """Feed what was deferred and what is pending; then all of it is in the cache."""
        if queue.pending:
            queue.deferred.append(self.embed(queue.pending))
            queue.pending = []
        while queue.deferred:
            self.forward({slot: take_deferred(queue, kv_cache.CALL_CELLS)})

    @torch.inference_mode()
    def log_likelihoods(self, slot: int, texts: list[list[int]], max_tokens: int) -> list[float]:
        """Log-probability of each text [tokens] as a user's turn right after the instructions.

        Fewer than there are texts where not all of them fit into one call.
        """
        turns = [(USER, *text) for text in texts]
        places, hidden = self.score_tree(slot, [turn[:-1] for turn in turns], max_tokens)
        if not places:
            return []
        scores = self.lm.logits(hidden)[:, FIRST_TEXT_ID:].log_softmax(-1).cpu()
        fitting = itertools.takewhile(lambda turn: turn[:-1] in places or len(turn) == 1, turns)
        return [
            sum(
                float(scores[places[turn[:i]], turn[i] - FIRST_TEXT_ID])
                for i in range(1, len(turn))
            )
            for turn in fitting
        ]

    def score_tree(
        self, slot: int, texts: list[tuple[int, ...]], max_tokens: int
    ) -> tuple[dict[tuple[int, ...], int], torch.Tensor]:
        """One call that reads what may follow the instructions, and leaves the cache as it was.

        The first texts are read, as many as fit; a beginning that several of them share is read
        once (tree attention).

        Returns {beginning of a text: its place} and hidden states [N, D]; both are empty where not
        even the first text fits.
        """
        room = min(max_tokens, kv_cache.free_cells(self.cache, slot))
        places: dict[tuple[int, ...], int] = {}
        for text in texts:
            beginnings = [text[:end] for end in range(1, len(text) + 1)]
            new = [part for part in beginnings if part not in places]
            if len(places) + len(new) > room:
                break
            places |= {part: len(places) + i for i, part in enumerate(new)}
        if not places:
            return {}, torch.zeros(0, self.width, dtype=self.dtype, device=self.device)
        x = self.embed([part[-1] for part in places]).vectors
        parents = [places.get(part[:-1], -1) for part in places]
        return places, self._forward_trees(x, {slot: parents}, "prompt")

    def score_ahead(
        self, turns: dict[int, tuple[int, ...]], ticks: torch.Tensor, max_tokens: int
    ) -> dict[int, torch.Tensor]:
        """One call that reads what may follow a tick in some slots, and leaves the cache as it was.

        ticks: [B, D]. Returns hidden states [tokens, D] of those whose tokens fit.
        """
        turns = {
            slot: turn
            for slot, turn in turns.items()
            if len(turn) < min(max_tokens, kv_cache.free_cells(self.cache, slot))
        }
        if not turns:
            return {}
        texts = self.embed_all([(turn, None) for turn in turns.values()])
        vectors = ticks[[*turns]].to(self.dtype).split(1)
        pairs = zip(vectors, texts, strict=True)
        x = torch.cat([part for tick, text in pairs for part in (tick, text.vectors)])
        chains = {slot: range(-1, len(turn)) for slot, turn in turns.items()}
        hidden = self._forward_trees(x, chains, "all")
        rows = [count for turn in turns.values() for count in (1, len(turn))]
        return dict(zip(turns, hidden.split(rows)[1::2], strict=True))

    def _forward_trees(self, x, trees, after: str) -> torch.Tensor:
        """See kv_cache.forward_trees."""
        begun = time.perf_counter()
        hidden = kv_cache.forward_trees(self.lm, x, trees, self.cache, after)
        self._count(begun)
        return hidden

    def _count(self, begun: float) -> None:
        self.counts.calls += 1
        self.counts.seconds += time.perf_counter() - begun


def unheld_tokens(session: Session, most: int) -> int:
    """How many tokens of the client's texts are read now, at most so many.

    While the user speaks no text begins; one that was begun is read to its end.
    """
    queue = session.inputs
    if not queue.text:
        queue.is_text_held = False
        return 0
    user = session.user
    is_spoken_to = session.grammar.user_open or bool(user.pending.tokens)
    queue.is_text_held = False
    if not is_spoken_to:
        return min(most, len(queue.text))
    begins = [i for i, token in enumerate(queue.text[:most]) if token in (CHAT_START, USER, AGENT)]
    # A text that begins with this tick's first token waits; so does one behind the end of another.
    count = min([most, len(queue.text), *begins])
    queue.is_text_held = count < len(queue.text) and count in begins
    return count


def take_deferred(queue: InputQueue, max_positions: int) -> LMInput:
    """What was deferred as one input, as much of it as fits, but at least the first.

    The queue keeps what did not fit.
    """
    if len(queue.deferred) == 1:
        return queue.deferred.pop()
    ticks = []
    vectors = []
    length = 0
    while queue.deferred:
        given = queue.deferred[0]
        if vectors and length + len(given.vectors) > max_positions:
            break
        del queue.deferred[0]
        ticks += [length + place for place in given.ticks]
        vectors.append(given.vectors)
        length += len(given.vectors)
    return LMInput(torch.cat(vectors), ticks)
