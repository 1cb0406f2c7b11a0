"""The symbols of all slots, chosen on the device: one wait for each call of the LM.

After a proposal the rules see another session, which is known only once the proposal holds. What
they will see is foreseen and asked with the rest; where they see something else in the end, the
symbol is not taken, and the LM is asked again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from duplex.agent import slot_decisions
from duplex.agent.decoding import Decoder
from duplex.agent.faults import isolate_fault
from duplex.agent.hearing import pending_words
from duplex.agent.hearing.pending_words import PendingWords
from duplex.agent.session import Question, Session
from duplex.agent.slot_decisions import Asked
from duplex.agent.turn_policy import Observation, TurnPolicy, allowed, bias
from duplex.device.foresight import foresee
from duplex.device.link import Graph, Link
from duplex.device.lm import DeviceLM
from duplex.events import Event
from duplex.model.tokens import AGENT, FIRST_TEXT_ID


@dataclass
class Place:
    """What was asked after so many proposals of a slot."""

    row: int
    # The question, None where it is the session's own; and what its answer depends on.
    question: Question | None
    key: tuple


class Rows(NamedTuple):
    """The parts of Asked with their rows, and the numbers of those that no slot has."""

    given: list[np.ndarray]
    free: Iterator[int]


class Draws:
    """Stands in for Decoder.draws."""

    def __init__(self, lm: DeviceLM, link: Link, top_k: int, temperature: float, pending: int = 32):
        """
        Args:
            top_k, temperature: of what is said, in sessions that have none of their own.
            pending: tokens that may be transcribed next, of which so many are looked at.
        """
        self.temperature = temperature
        self.lm = lm
        self.link = link
        self.top_k = top_k
        # A row for each slot, and some for what follows proposals.
        self.rows = lm.slots + min(64, 4 * lm.slots)
        numbers = partial(np.zeros, self.rows, np.int64)
        self.blank = [
            numbers(),
            np.tile(slot_decisions.row(Observation(), TurnPolicy()), (self.rows, 1)),
            np.zeros((self.rows, pending), np.int64),
            np.zeros((self.rows, pending)),
            np.zeros(self.rows, np.float32),
            numbers(),
            numbers(),
            numbers(),
        ]
        inputs = [torch.as_tensor(one).to(link.device, copy=True) for one in self.blank]
        self.graph = Graph(link, self.decide, inputs)

    def decide(self, places: Tensor, *asked: Tensor) -> Tensor:
        """Places in the pool [R] and the parts of Asked -> symbols and likeliest text [2, R]."""
        hidden = self.lm.pool.flatten(0, 1).index_select(0, places)
        scores = self.lm.lm.logits(hidden)
        likeliest = FIRST_TEXT_ID + scores[:, FIRST_TEXT_ID:].argmax(1)
        return torch.stack([slot_decisions.decide(scores, Asked(*asked), self.top_k), likeliest])

    def __call__(
        self,
        decoder: Decoder,
        hidden: dict[int, Tensor],
        sessions: dict[int, Session],
        proposals: dict[int, list[int]],
        events: list[list[Event]],
    ) -> dict:
        """See Decoder.draws."""
        count = self.lm.slots + sum(len(proposals[slot]) for slot in hidden)
        given = [np.concatenate([part] * -(-count // self.rows)) for part in self.blank]
        rows = Rows(given, iter(range(self.lm.slots, count)))
        asked: dict[int, list[Place]] = {}
        for slot, states in hidden.items():
            work = decoder, slot, sessions[slot], proposals[slot], states, rows
            found = isolate_fault(events[slot], self._ask, *work)
            if found is not None:
                asked[slot] = found
        if not asked:
            return {}
        # All in one call, nearly always.
        parts = [
            self.graph(*(part[begin : begin + self.rows] for part in given)).clone()
            for begin in range(0, count, self.rows)
        ]
        symbols, likeliest = self.link.fetch(torch.cat(parts, 1)).tolist()
        self.lm.likeliest = {
            int(hidden[slot][number, 0]): likeliest[place.row]
            for slot, places in asked.items()
            for number, place in enumerate(places)
        }
        return {
            slot: partial(self._drawn, decoder, slot, sessions[slot], places, symbols)
            for slot, places in asked.items()
        }

    def _ask(self, decoder: Decoder, slot, session, proposals, states, rows: Rows) -> list[Place]:
        """Fill in the rows of one slot."""
        given, free = rows
        question = decoder.ask(slot, session)
        places = [Place(slot, question, ())]
        self._fill(given, places[0], question, session, session.user.pending, states[0])
        foreseen = foresee(session, question.seen, proposals, decoder.tokenizer)
        for number, (later, pending) in enumerate(foreseen, start=1):
            row = next(free)
            place = Place(row, None, ())
            later = Question(None, later, session.policy, False)
            self._fill(given, place, later, session, pending, states[number])
            given[7][row] = session.budget.drawn + number
            place.key = self.key(session, later, pending, session.budget.drawn + number)
            places.append(place)
        return places

    def _fill(
        self, given, place: Place, question: Question, session, pending: PendingWords, state
    ) -> None:
        row = place.row
        writable = [*pending_words.writable_tokens(pending, question.policy).items()]
        tokens = writable[: given[2].shape[1]]
        given[0][row] = state[0]
        given[1][row] = slot_decisions.row(question.seen, question.policy)
        given[2][row, : len(tokens)] = [token for token, _ in tokens]
        given[3][row, : len(tokens)] = [confidence for _, confidence in tokens]
        own = session.temperature
        given[4][row] = self.temperature if own is None else own
        # Of a seed the bits that count are 64.
        given[5][row] = np.uint64(session.seed % 2**64).astype(np.int64)
        given[6][row] = session.tick
        given[7][row] = session.budget.drawn

    def _drawn(
        self, decoder: Decoder, slot: int, session: Session, places: list[Place], symbols, number
    ) -> int | None:
        """The symbol after so many proposals; None where something else was asked."""
        question = places[0].question if number == 0 else decoder.ask(slot, session)
        if question.symbol is not None:
            return question.symbol
        if number:
            key = self.key(session, question, session.user.pending, session.budget.drawn)
            if key != places[number].key:
                return None
        return decoder.settle(session, question, symbols[places[number].row])

    def key(self, session: Session, question: Question, pending: PendingWords, drawn: int) -> tuple:
        """All that an answer depends on beside the scores."""
        seen, policy = question.seen, question.policy
        tokens = tuple(pending_words.writable_tokens(pending, policy).items())
        speaks = seen.stream == AGENT
        return allowed(seen, policy), tuple(bias(seen, policy)), tokens, speaks, drawn
