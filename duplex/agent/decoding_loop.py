"""What the LM is fed in a tick and what is decided, as often as a symbol was not proposed.

    collect -> begin_budgets -> flush_deferred -> decide, decide ... -> what is left: the next tick

Who can only wait is found before the call: such a session is fed, and asked nothing.
"""

from collections.abc import Callable
from functools import partial

import torch

from duplex.agent import memory
from duplex.agent.decoding import Decoder
from duplex.agent.faults import isolate_fault
from duplex.agent.lm_context import take_deferred, unheld_tokens
from duplex.agent.session import LMInput, Session
from duplex.agent.turn_policy import symbol_budget
from duplex.events import Event
from duplex.model.tokens import USER_END


class DecodingLoop:
    """Feeds the LM and decides, for all slots."""

    def __init__(
        self,
        decoder: Decoder,
        sessions: dict[int, Session],
        draws: Callable | None = None,
    ):
        """
        Args:
            sessions: by slot, those that there are at any time.
            draws: stands in for Decoder.draws, with the decoder before its arguments.
        """
        self.context = decoder.context
        self.response = decoder.response
        self.config = decoder.config
        self.decoder = decoder
        self.speculation = decoder.speculation
        self.sessions = sessions
        self.draws = decoder.draws if draws is None else partial(draws, decoder)

    def run(
        self,
        active: list[int],
        prefilling: list[int],
        vectors: torch.Tensor,
        deadline: float,
        events: list[list[Event]],
    ) -> None:
        """A tick of the slots whose clock runs and of those that read their instructions.

        vectors: [B, D] of the tick. deadline: of perf_counter, after which nothing is drafted.
        """
        inputs = self.collect(active, prefilling, vectors, events)
        queues = {slot: self.sessions[slot].inputs for slot in active}
        deciding = {slot for slot, queue in queues.items() if not queue.text or queue.is_text_held}
        self.begin_budgets(deciding)
        batch = self.flush_deferred(inputs, deciding, events)
        calls = 0
        while batch and calls < self.config.max_calls:
            calls += 1
            batch = self.decide(batch, deciding, vectors, deadline, events)
        for slot, given in batch.items():  # what there was no call for is fed with the next tick
            self.sessions[slot].inputs.deferred.insert(0, given)

    def collect(self, active, prefilling, vectors, events) -> dict[int, LMInput]:
        """What each slot feeds to the LM: symbols drawn last, the client's text, features."""
        tokens_per_tick = self.text_tokens_per_tick()
        ticks = vectors.to(self.context.dtype).split(1)
        given = {
            slot: (self.sessions[slot].inputs.prompt[:tokens_per_tick], None) for slot in prefilling
        }
        for slot in active:
            queue = self.sessions[slot].inputs
            count = unheld_tokens(self.sessions[slot], tokens_per_tick)
            if count:
                self.remember_text(slot, queue.text_names[:count])
            given[slot] = (queue.pending + queue.text[:count], ticks[slot])
            kept = queue.recent_ticks[1 - self.config.rescoring.replay_ticks :]
            queue.recent_ticks = [*kept, ticks[slot]]
            queue.pending = []
            del queue.text[:count]
            del queue.text_names[:count]
        return self.embed(given, events)

    def text_tokens_per_tick(self) -> int:
        """Tokens of a client's text that each session is fed in a tick."""
        is_alone = len(self.sessions) == 1
        config = self.config
        return config.prefill_tokens_alone if is_alone else config.prefill_tokens_per_tick

    def remember_text(self, slot: int, names: list[str | None]) -> None:
        """Where the client's text will stand whose tokens are fed now, behind what is pending."""
        session = self.sessions[slot]
        queue = session.inputs
        position = int(self.context.cache.next_position[slot]) + len(queue.pending)
        position += sum(len(given.vectors) for given in queue.deferred)
        for place, name in enumerate(names):
            if name is not None:
                memory.add(session.memory, ("text", name), [position + place])

    def embed(self, given: dict[int, tuple], events: list[list[Event]]) -> dict[int, LMInput]:
        """Inputs of the slots whose tokens can be embedded.

        given: tokens, and a tick's vector or None, of each.
        """
        try:
            return dict(zip(given, self.context.embed_all([*given.values()]), strict=True))
        except Exception:
            # One of them cannot be: each alone tells which.
            found = {
                slot: isolate_fault(events[slot], self.context.embed_all, [arguments])
                for slot, arguments in given.items()
            }
            return {slot: inputs[0] for slot, inputs in found.items() if inputs is not None}

    def begin_budgets(self, deciding: set[int]) -> None:
        """How many symbols each session may draw in this tick, and which are proposed."""
        for slot in deciding:
            session = self.sessions[slot]
            budget = session.budget
            budget.drawn = 0
            budget.proposals = self.speculation.propose_certain(session)
            is_speaking = self.response.is_speaking(slot, session)
            limit = symbol_budget(session.grammar.agent_open, is_speaking, session.policy)
            budget.limit = max(limit, 1 + len(budget.proposals))

    def flush_deferred(self, inputs, deciding, events) -> dict[int, LMInput]:
        """What to feed in this tick: for each slot all that was deferred, this tick's inputs last.

        Nothing as long as nobody has anything to decide: a call for one is nearly one for all. Of a
        long turn that is read again a part is fed; until the rest is, the slot decides nothing.
        """
        waits = {}
        for slot, given in inputs.items():
            self.sessions[slot].inputs.deferred.append(given)
        for slot in inputs:
            work = slot, self.sessions[slot]
            waits[slot] = False
            if slot in deciding:
                waits[slot] = isolate_fault(events[slot], self.decoder.can_only_wait, *work)
                self.sessions[slot].budget.is_waiting = waits[slot] is True
        deferred = sum(len(self.sessions[slot].inputs.deferred) for slot in inputs)
        if all(waits.values()) and deferred < self.config.max_deferred_inputs:
            return {}
        sound = [slot for slot, wait in waits.items() if wait is not None]
        batch = {}
        for slot in sound:
            queue = self.sessions[slot].inputs
            batch[slot] = take_deferred(queue, self.config.max_call_positions)
            if queue.deferred:
                deciding.discard(slot)
        return batch

    def decide(self, batch, deciding, vectors, deadline, events) -> dict[int, LMInput]:
        """One call of the LM: propose, feed, verify. Returns what is to be fed in the next one."""
        sessions = self.sessions
        wanted = {slot: given for slot, given in batch.items() if slot in deciding}
        proposals = self.speculation.propose(wanted, sessions)
        # Who only waits, and has nothing to take back, is not asked.
        asked = {s for s in wanted if proposals[s] or not sessions[s].budget.is_waiting}
        hidden = self.context.forward(batch, proposals, asked=asked)
        draws = self.draws(hidden, sessions, proposals, events)
        going_on = {}
        for slot in draws:
            step = slot, sessions[slot], draws[slot], proposals[slot], events[slot]
            if isolate_fault(events[slot], self.decoder.verify, *step):
                going_on[slot] = (sessions[slot].inputs.pending, None)
        following = self.embed(going_on, events)
        for slot in going_on:
            sessions[slot].inputs.pending = []

        # A turn was expected to end and did not: draft the response for the tick in which it will.
        ahead = {
            slot: hidden[slot][2:]
            for slot in draws
            if sessions[slot].mind.thought is None
            and proposals[slot][:1] == [USER_END]
            and not sessions[slot].budget.drawn
        }
        self.speculation.draft_ahead(ahead, sessions, vectors, deadline, events)
        return following
