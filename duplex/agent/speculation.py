"""Speculative decoding: symbols proposed ahead of the LM, which verifies them in the tick's call.

Four drafts: what is all but certain; a response is drafted while the end of the user's turn is
awaited; text goes on as it did before (duplex.model.suffix_lookup), or as agents' turns mostly do
(duplex.model.ngram_draft). The LM draws every symbol as it would without them, so proposals save
calls and change nothing.

Of guesses that need not hold it is counted how many did, by how sure they were. A guess is made
where enough of its kind hold: that decides how far ahead is guessed, and where not at all.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field

import torch

from duplex.agent.config import AgentConfig
from duplex.agent.faults import isolate_fault
from duplex.agent.hearing import pending_words
from duplex.agent.lm_context import LMContext
from duplex.agent.session import Guess, LMInput, Session
from duplex.agent.turn_policy import TurnPolicy
from duplex.events import Event
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import BeamState
from duplex.model.ngram_draft import NgramDraft, spoken_words
from duplex.model.suffix_lookup import continuation
from duplex.model.tokens import AGENT, USER, USER_END

# Tokens in which the user's last words are looked for.
LAST_TOKENS = 12


@dataclass
class SpeculationCounts:
    """What was proposed since the start, and what became of it."""

    outcomes: Counter = field(default_factory=Counter)  # (draft, kind, place, was accepted): number
    # Guesses that were right, and all, of those that need not hold.
    shares: dict[Guess, list[int]] = field(default_factory=dict)
    # How often such a guess was not made, as too few held.
    passed: Counter = field(default_factory=Counter)

    def by_kind(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many symbols of each kind were proposed, and accepted."""
        proposed: dict[str, int] = {}
        accepted: dict[str, int] = {}
        for (_, kind, _, was_accepted), number in list(self.outcomes.items()):
            proposed[kind] = proposed.get(kind, 0) + number
            accepted[kind] = accepted.get(kind, 0) + number * was_accepted
        return proposed, accepted

    def metrics(self) -> dict[str, dict[str, int]]:
        """Figures for whoever watches the server."""
        proposed, accepted = self.by_kind()
        return {"guesses": proposed, "guesses_right": accepted}

    def note(self, guess: Guess, was_accepted: bool) -> None:
        """Count what became of a guess."""
        right, asked = self.shares.get(guess, (0, 0))
        self.shares[guess] = [right + was_accepted, asked + 1]

    def share(self, guess: Guess) -> float:
        """How many of such guesses were right; while there are few, as many as expected."""
        right, asked = self.shares.get(guess, (0, 0))
        return (right + 2 * guess.expected) / (asked + 2)

    def is_worth(self, guess: Guess, config: AgentConfig) -> bool:
        """Whether so many such guesses hold that it is made.

        Of the others one in some is made all the same: what is talked about may have changed.
        """
        if self.share(guess) >= config.min_guess_share:
            return True
        self.passed[guess] += 1
        return self.passed[guess] % config.retried_guesses == 0


class Speculation:
    """Proposals for all slots."""

    def __init__(
        self,
        context: LMContext,
        tokenizer,
        ngrams: NgramDraft | None,
        config: AgentConfig,
        policy: TurnPolicy,
    ):
        self.context = context
        self.tokenizer = tokenizer
        self.ngrams = ngrams
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
        if session.client.request == AGENT and not (grammar.user_open or grammar.agent_open):
            return [AGENT]
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
        for slot in inputs:
            budget = sessions[slot].budget
            proposals[slot] = budget.proposals if budget.drawn == 0 else []
            budget.guesses = []
            left = budget.limit - budget.drawn - 1
            if left > 0 and not proposals[slot]:
                proposals[slot] = self.guess(sessions[slot], left)
        return proposals

    def guess(self, session: Session, most: int) -> list[int]:
        """How the LM's own text goes on, by the draft whose first token holds more often."""
        if session.grammar.stream != AGENT or session.mind.is_dictating:
            return []
        said = len(session.reply.tokens)
        text = session.text[: len(session.text) - said]
        turn = session.text[len(text) :]
        drafts = [self.look_up(session, most), self.predict(text, turn, most)]
        best = max(drafts, key=lambda guesses: self.counts.share(guesses[0][1]) if guesses else 0.0)
        session.budget.guesses = [guess for _, guess in best]
        return [token for token, _ in best]

    def look_up(self, session: Session, most: int) -> list[tuple[int, Guess]]:
        """What followed where the session's text last ended so, if such guesses mostly hold."""
        config = self.config
        if not config.lookup_tokens:
            return []
        found, matched = continuation(session.text, min(most, config.lookup_tokens))
        guess = Guess("lookup", matched)
        if not found or not self.counts.is_worth(guess, config):
            return []
        return [(token, guess) for token in found]

    def predict(self, text: list[int], turn: list[int], most: int) -> list[tuple[int, Guess]]:
        """How turns of agents mostly go on that began so, as far as such guesses mostly hold.

        text: tokens before the turn, the user's last. turn: tokens of it so far.
        """
        if self.ngrams is None or not self.config.use_ngrams:
            return []
        words = spoken_words(self.tokenizer.decode(text[-LAST_TOKENS:]))
        found = self.ngrams.continuation([AGENT, *turn], words, most, self.is_worth)
        return [(token, ngram_guess(probability)) for token, probability in found]

    def is_worth(self, probability: float) -> bool:
        """Whether what the n-grams expect with this probability holds often enough."""
        return self.counts.is_worth(ngram_guess(probability), self.config)

    def draft_ahead(
        self,
        hidden: dict[int, torch.Tensor],
        sessions: dict[int, Session],
        ticks: torch.Tensor,
        deadline: float,
        events: list[list[Event]],
    ) -> None:
        """Draft the first tokens of responses before the users' turns have ended.

        hidden: of each slot [1 + tokens, D], after the turn's end, which was proposed and did not
        come yet, and after each token of the draft so far. The end can only come in a later tick,
        and what is likeliest changes with a tick: so the drafts are read after this tick's vectors
        [B, D] once more, where no word is still to come, and as long as there is time (`deadline`
        of perf_counter).
        """
        read = self.read_drafts(hidden, sessions, events)
        waiting = [
            slot
            for slot in read
            if isolate_fault(events[slot], self.has_uncommitted, sessions[slot].user.beam) is False
        ]
        while waiting and time.perf_counter() < deadline:
            turns = {
                slot: (USER_END, AGENT, *sessions[slot].budget.draft_response) for slot in waiting
            }
            found = self.context.score_ahead(turns, ticks, self.config.rescoring.max_tokens)
            states = {slot: after[1:] for slot, after in found.items()}
            before, read = read, self.read_drafts(states, sessions, events)
            most = self.config.draft_response_tokens
            waiting = [s for s, draft in read.items() if len(draft) < most and draft != before[s]]

    def read_drafts(
        self,
        hidden: dict[int, torch.Tensor],
        sessions: dict[int, Session],
        events: list[list[Event]],
    ) -> dict[int, list[int]]:
        """Draft on in all slots; returns what the LM would say. hidden: see `draft_ahead`."""
        if not hidden:
            return {}
        best = self.context.lm.likeliest_texts([*hidden.values()])
        read = {
            slot: isolate_fault(events[slot], self.draft_on, sessions[slot], likeliest)
            for slot, likeliest in zip(hidden, best, strict=True)
        }
        return {slot: draft for slot, draft in read.items() if draft is not None}

    def draft_on(self, session: Session, best: list[int]) -> list[int]:
        """Draft what the LM would say first, and what mostly follows it; returns the former.

        best: what it wants most before the draft so far and after each of its tokens.
        """
        most = self.config.draft_response_tokens
        read = extended(session.budget.draft_response, best)[:most]
        heard = [token for _, token in session.user.transcribed]
        following = self.predict(heard, read, most - len(read))
        session.budget.draft_response = read + [token for token, _ in following]
        return read

    def has_uncommitted(self, beam: BeamState) -> bool:
        """Whether a word is still to come."""
        return beam_search.has_uncommitted_words(beam)


def extended(draft: list[int], best: list[int]) -> list[int]:
    """A draft as far as it is still the likeliest one, and the next token.

    best: the likeliest token before the draft and after each of its tokens.
    """
    agreed = len(os.path.commonprefix([draft, best]))
    return best[: agreed + 1]


def ngram_guess(probability: float) -> Guess:
    """A guess of the n-grams that is as sure as this, in tenths."""
    return Guess("ngrams", int(10 * probability))
