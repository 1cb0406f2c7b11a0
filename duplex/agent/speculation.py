"""Speculative decoding: symbols proposed ahead of the LM, which verifies them in the tick's call.

Four drafts, in this order: what is all but certain costs nothing; a response is drafted while the
end of the user's turn is awaited; text goes on as it did before (duplex.model.suffix_lookup); a
small network may draft text (duplex.model.draft). The LM draws every symbol as it would without
them, so proposals save calls and change nothing.
"""

import logging
import os
import time
from collections import Counter
from dataclasses import dataclass, field

import torch

from duplex.agent.config import AgentConfig
from duplex.agent.hearing import pending_words
from duplex.agent.lm_context import LMContext
from duplex.agent.response import Response
from duplex.agent.session import LMInput, Session
from duplex.agent.turn_policy import TurnPolicy
from duplex.model import draft as draft_network
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import BeamState
from duplex.model.draft import DraftInput
from duplex.model.suffix_lookup import continuation
from duplex.model.tokens import AGENT, USER, USER_END

log = logging.getLogger(__name__)


@dataclass
class SpeculationCounts:
    """What was proposed since the start, and what became of it."""

    outcomes: Counter = field(default_factory=Counter)  # (draft, kind, place, was accepted): number
    drafted: int = 0  # symbols proposed by the network
    accepted: int = 0  # of those
    calls_saved: int = 0  # of the LM, by the network
    draft_seconds: float = 0.0
    is_draft_off: bool = False
    # Of what was looked up, by the length of the match: guesses that were right, and all.
    lookups: dict[int, list[int]] = field(default_factory=dict)

    def by_kind(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many symbols of each kind were proposed, and accepted."""
        proposed: dict[str, int] = {}
        accepted: dict[str, int] = {}
        for (_, kind, _, was_accepted), number in list(self.outcomes.items()):
            proposed[kind] = proposed.get(kind, 0) + number
            accepted[kind] = accepted.get(kind, 0) + number * was_accepted
        return proposed, accepted

    def metrics(self) -> dict[str, float | dict[str, int]]:
        """Figures for whoever watches the server."""
        proposed, accepted = self.by_kind()
        return {
            "calls_saved": self.calls_saved,
            "draft_seconds": self.draft_seconds,
            "guesses": proposed,
            "guesses_right": accepted,
        }


class Speculation:
    """Proposals for all slots."""

    def __init__(
        self,
        context: LMContext,
        response: Response,
        network: draft_network.Draft | None,
        config: AgentConfig,
        policy: TurnPolicy,
    ):
        self.context = context
        self.response = response
        self.network = network
        self.config = config
        self.policy = policy
        self.counts = SpeculationCounts()

    def propose_certain(self, session: Session, max_certain: int = 3) -> list[int]:
        """The symbols that the LM will hardly fail to say now: certain words, or the end of a turn.

        The end of a turn brings the response that was drafted with it.

        max_certain: symbols of recognised words that are proposed for one tick.
        """
        grammar = session.grammar
        certain = pending_words.certain_tokens(session.user.pending, self.policy)
        if certain:
            tag = [] if grammar.stream == USER else [USER]
            return [*tag, *certain][:max_certain]
        if grammar.stream == AGENT and session.mind.is_dictating:
            # What is said last in a tick is fed with the next one anyway.
            return session.mind.tokens[: session.policy.silent_symbols - 1]
        is_silent = session.user.activity.silence_ticks >= session.policy.end_silence_ticks
        if grammar.stream == USER and is_silent and not grammar.agent_open:
            thought = session.mind.tokens[: self.config.draft_response_tokens]
            return [USER_END, AGENT, *(thought or session.budget.draft_response)]
        return []

    def propose(
        self, inputs: dict[int, LMInput], sessions: dict[int, Session]
    ) -> dict[int, list[int]]:
        """What each slot is expected to say after its inputs.

        A session's last symbol in a tick is not proposed: it is fed with the next tick anyway.
        """
        if not self.config.speculate:
            return {slot: [] for slot in inputs}
        proposals = {}
        left = {}
        for slot in inputs:
            budget = sessions[slot].budget
            proposals[slot] = budget.proposals if budget.drawn == 0 else []
            left[slot] = budget.limit - budget.drawn - 1
            budget.matched = 0
            if left[slot] > 0 and not proposals[slot]:
                proposals[slot] = self.look_up(sessions[slot], left[slot])
        if self.network is None or self.counts.is_draft_off:
            return proposals
        wanted = [slot for slot in inputs if left[slot] > 0 and not proposals[slot]]
        if not wanted:
            return proposals
        return proposals | self._draft(
            {slot: self.draft_input(slot, sessions[slot], inputs[slot]) for slot in wanted}, left
        )

    def look_up(self, session: Session, most: int) -> list[int]:
        """What followed where the session's text last ended so, if such guesses mostly hold."""
        config = self.config
        is_own_text = session.grammar.stream == AGENT and not session.mind.is_dictating
        if not is_own_text or not config.lookup_tokens:
            return []
        found, matched = continuation(session.text, min(most, config.lookup_tokens))
        right, asked = self.counts.lookups.get(matched, (0, 0))
        if (right + 1) / (asked + 2) < config.min_lookup_share:
            return []
        session.budget.matched = matched if found else 0
        return found

    def draft_input(self, slot: int, session: Session, given: LMInput) -> DraftInput:
        """What the draft network must know of a session."""
        queued_s = self.response.queued_s(slot, session)
        return DraftInput(
            self.context.hidden[slot],
            given.vectors,
            session.grammar,
            queued_s <= self.policy.lead_s,
            queued_s > 0,
        )

    def _draft(self, wanted: dict[int, DraftInput], left: dict[int, int]) -> dict[int, list[int]]:
        """Proposals of the network; nothing where it fails, for they only save time."""
        begun = time.perf_counter()
        try:
            drafted = draft_network.propose(
                self.network,
                self.context.lm,
                wanted,
                max(left.values()),
                self.policy.wait_penalty,
                self.config.min_draft_probability,
            )
        except Exception:
            log.exception("the draft failed; it is off from now on")
            self.counts.is_draft_off = True
            return {}
        drafted = {slot: found[: left[slot]] for slot, found in drafted.items()}
        self.counts.drafted += sum(len(found) for found in drafted.values())
        self.counts.draft_seconds += time.perf_counter() - begun
        return drafted

    def check_draft(self, ticks: int) -> None:
        """Turn the network off if the calls it saved by now took less time than its drafting."""
        if self.network is None or ticks % self.config.draft_trial_ticks:
            return
        lm = self.context.counts
        saved_s = self.counts.calls_saved * lm.seconds / max(1, lm.calls)
        if saved_s <= self.counts.draft_seconds:
            self.counts.is_draft_off = True

    def draft_response_ahead(
        self,
        slot: int,
        session: Session,
        hidden: torch.Tensor,
        tick: torch.Tensor,
        deadline: float,
    ) -> None:
        """Draft the first tokens of a response before the user's turn has ended.

        hidden: [1 + tokens, D], after the turn's end, which was proposed and did not come yet, and
        after each token of the draft so far. The end can only come in a later tick, and what is
        likeliest changes with a tick: so the draft is read after this tick's vector [D] once more,
        if no word is still to come, and as long as there is time (`deadline` of perf_counter).
        """
        budget = session.budget
        budget.draft_response = self.extend_draft(budget.draft_response, hidden)
        beam = session.user.beam
        while not self.has_uncommitted(beam) and time.perf_counter() < deadline:
            turn = (USER_END, AGENT, *budget.draft_response)
            max_tokens = self.config.rescoring.max_tokens
            _, states = self.context.score_tree(slot, [turn], max_tokens, tick)
            if not len(states):
                return
            budget.draft_response = self.extend_draft(budget.draft_response, states[2:])
            if len(budget.draft_response) == self.config.draft_response_tokens:
                return

    def has_uncommitted(self, beam: BeamState) -> bool:
        """Whether a word is still to come."""
        return beam_search.has_uncommitted_words(beam)

    def extend_draft(self, draft: list[int], hidden: torch.Tensor) -> list[int]:
        """The draft as far as it is still the likeliest one, and the next token.

        hidden: [1 + tokens, D], before the draft and after each of its tokens.
        """
        best = self.context.lm.likeliest_text(hidden)
        agreed = len(os.path.commonprefix([draft, best]))
        return best[: agreed + 1][: self.config.draft_response_tokens]
