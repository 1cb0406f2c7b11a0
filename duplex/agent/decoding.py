"""From the LM's states to symbols: score, sample, verify proposals, and act on each symbol."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from duplex.agent import memory
from duplex.agent.choosing import choose
from duplex.agent.faults import isolate_fault
from duplex.agent.hearing import pending_words, people
from duplex.agent.hearing.recognition import Recognition
from duplex.agent.response import Response
from duplex.agent.session import (
    MindState,
    Question,
    Session,
    keep_text,
    observe,
    surely_waits,
)
from duplex.agent.speculation import Speculation
from duplex.agent.thinking.dictation import Dictation
from duplex.agent.turn_policy import (
    Observation,
    Text,
    TurnPolicy,
    allowed,
    awaits_reading,
    grammatical,
    next_for_request,
)
from duplex.events import Event
from duplex.model import kv_cache, tokens
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    BACK,
    END,
    NEXT,
    STOP,
    USER,
    USER_END,
)


class Decoder:
    """Draws the symbols of all slots. Letters in shapes: D width, V vocabulary."""

    def __init__(
        self,
        speculation: Speculation,
        recognition: Recognition,
        response: Response,
        dictation: Dictation | None = None,
    ):
        self.speculation = speculation
        self.context = speculation.context
        self.config = speculation.config
        self.recognition = recognition
        self.response = response
        self.dictation = dictation
        self.tokenizer = recognition.tokenizer

    def observe(self, slot: int, session: Session) -> Observation:
        """What the rules may know of a session now."""
        return observe(session, self.response.queued_s(slot, session), session.policy)

    def can_only_wait(self, slot: int, session: Session) -> bool:
        """Whether the session draws <next> now, and what the LM says does not matter."""
        session.budget.question = None
        if session.client.request is not None:
            return False
        queued_s = self.response.queued_s(slot, session)
        if surely_waits(session, queued_s):
            return True
        question = self.question(observe(session, queued_s, session.policy), session.policy)
        session.budget.question = question
        return question.choice.is_only_waiting

    def score(
        self, hidden: dict[int, torch.Tensor], questions: dict[int, Question]
    ) -> dict[int, list[torch.Tensor]]:
        """Scores of what comes first, from hidden states [n, D] of some slots.

        They are [V] where text may come, in one pass over the vocabulary for all such slots, and of
        the control symbols alone elsewhere. In the same pass all n are scored: a slot has several
        where text is proposed that mostly holds.
        """
        slots: tuple[list[int], list[int]] = [], []
        for slot, question in questions.items():
            permitted = grammatical(question.seen, question.policy)
            slots[permitted.text != Text.NONE].append(slot)
        scores = {}
        for with_text, some in enumerate(slots):
            if some:
                states = [hidden[slot] if with_text else hidden[slot][:1] for slot in some]
                found = self.context.lm.logits(torch.cat(states), bool(with_text)).cpu()
                rows = iter(found.unbind())
                counts = map(len, states)
                scores |= {
                    slot: [*islice(rows, count)] for slot, count in zip(some, counts, strict=True)
                }
        return scores

    def verify(
        self,
        slot: int,
        session: Session,
        drawn: Callable[[int], int | None],
        proposals: list[int],
        events: list[Event],
    ) -> bool:
        """Draw symbols as long as they are the ones already fed, and act on each.

        drawn: gives the symbol after so many proposals, or None where that is not known yet. The
        proposals from the first wrong one on are undone. Returns whether the LM is to be asked
        again in this tick.
        """
        budget = session.budget
        counts = self.speculation.counts
        guesses = budget.guesses
        draft = guesses[0].draft if guesses else "certain"
        first = int(self.context.cache.next_position[slot]) - len(proposals)
        for place in range(1 + len(proposals)):
            if budget.drawn == budget.limit:
                return False
            symbol = drawn(place)
            if symbol is None:  # the last one that holds is fed once more
                self.context.undo(slot, len(proposals) - place + 1)
                session.inputs.pending = [proposals[place - 1]]
                return True

            is_accepted = place < len(proposals) and symbol == proposals[place]
            if place < len(proposals):
                kind = tokens.kind(proposals[place], session.grammar)
                counts.outcomes[draft, kind, place, is_accepted] += 1
                if guesses:
                    counts.note(guesses[place], is_accepted)
            if not is_accepted and place < len(proposals):
                self.context.undo(slot, len(proposals) - place)
            if symbol == NEXT:
                return False

            budget.drawn += 1
            self.apply_symbol(slot, session, symbol, first + place, events)
            if not is_accepted:
                session.inputs.pending = [symbol]
                return budget.drawn < budget.limit
        raise AssertionError("the last state has no proposal to be accepted")

    def draws(
        self,
        hidden: dict[int, torch.Tensor],
        sessions: dict[int, Session],
        proposals: dict[int, list[int]],
        events: list[list[Event]],
    ) -> dict[int, Callable[[int], int | None]]:
        """For each slot what `verify` draws its symbols with."""
        questions = {}
        for slot in hidden:
            found = isolate_fault(events[slot], self.ask, slot, sessions[slot])
            if found is not None:
                questions[slot] = found
        first = {
            slot: hidden[slot] if sessions[slot].budget.guesses else hidden[slot][:1]
            for slot in questions
        }
        scores = self.score(first, questions)
        return {
            slot: partial(self._draw, slot, sessions[slot], hidden[slot], scores[slot], question)
            for slot, question in questions.items()
        }

    def _draw(
        self,
        slot: int,
        session: Session,
        hidden: torch.Tensor,
        scores: list[torch.Tensor],
        first: Question,
        place: int,
    ) -> int:
        """The symbol after so many proposals; scores: [V] of the places so far, to be extended."""
        if place == len(scores):  # one pass over the vocabulary for all states that follow
            scores += self.context.lm.logits(hidden[place:]).cpu().unbind()
        return self.sample(slot, session, scores[place], None if place else first)

    def sample(
        self,
        slot: int,
        session: Session,
        scores: torch.Tensor,
        question: Question | None = None,
    ) -> int:
        """The next symbol of a session; scores [V], or of the controls alone, are changed.

        question: what is to be decided, where that was asked already.
        """
        question = question or self.ask(slot, session)
        if question.symbol is not None:
            return question.symbol
        seen, policy = question.seen, question.policy
        chosen = choose(session, scores, seen, policy, question.choice, self.config)
        return self.settle(session, question, chosen)

    def ask(self, slot: int, session: Session) -> Question:
        """What is to be decided now; a client's request that is met is taken as met."""
        known, session.budget.question = session.budget.question, None
        if known is not None:
            return known
        seen = self.observe(slot, session)
        client = session.client
        is_asked = client.request == AGENT
        is_thinking = seen.awaits_thought and not (seen.user_open or seen.agent_open)
        is_waiting = is_asked and (session.instructions.is_reading or is_thinking)
        if not is_waiting and client.request is not None:
            symbol, client.request = next_for_request(client.request, seen, session.policy)
            if symbol is not None:
                return Question(symbol, seen, session.policy, False)
        policy = session.policy
        if client.request == AGENT and not seen.agent_open:
            # The answer is asked for and waits; it does not begin by itself meanwhile.
            policy = replace(policy, answers_unasked=False)
        return self.question(seen, policy)

    def question(self, seen: Observation, policy: TurnPolicy) -> Question:
        """One of what the rules allow, as if no reading of the second pass were awaited."""
        is_held = awaits_reading(seen, policy)
        if is_held:
            seen = replace(seen, second_pass_ticks=0)
        return Question(None, seen, policy, is_held, allowed(seen, policy))

    def settle(self, session: Session, question: Question, symbol: int) -> int:
        """What becomes of the symbol that was chosen."""
        is_dictating = session.mind.is_dictating
        if is_dictating and allowed(question.seen, question.policy).text == Text.ANY:
            return dictated(symbol, session.mind)
        # The turn's end waits for the second pass, but that the LM wants it now is kept in mind.
        if not question.is_held or symbol not in (USER_END, ASIDE):
            return symbol
        turn = session.user.second
        turn.held_tick = session.tick if turn.held_tick is None else turn.held_tick
        return NEXT

    def apply_symbol(
        self, slot: int, session: Session, symbol: int, position: int, events: list[Event]
    ) -> None:
        """What a symbol, drawn at a position of the LM, means: the grammar, events, the voice."""
        before = session.grammar
        session.grammar = tokens.advance(before, symbol)
        if session.grammar.stream == AGENT != before.stream:
            session.reply.grown_tick = session.tick
        if before.agent_open and symbol in (END, STOP) and session.instructions.kept:
            session.instructions.is_turn_over = True
        if symbol == USER or before.stream == USER:
            session.user.last_token_tick = session.tick
        if symbol == STOP:
            text = session.reply.text
            unsaid = self.response.yield_turn(slot, session, events)
            if self.dictation is not None:
                self.dictation.stop(session, text[: len(text) - len(events[-1].text)])
            kv_cache.drop(self.context.cache, slot, unsaid)
        elif symbol == USER:
            if not before.user_open:
                memory.begin(session.memory, "user")
                events.append(Event("user_started", session.tick))
        elif symbol in (USER_END, ASIDE):
            self._end_user_turn(session, symbol == USER_END, events)
        elif symbol == AGENT:
            if not before.agent_open:
                self._begin_agent_turn(session, events)
        elif symbol == BACK:
            self.response.give_backchannel(slot, session, events)
        elif symbol == END:
            self.response.finish_text(slot, session)
            if self.dictation is not None:
                self.dictation.end_answer(session)
        elif before.stream == USER:
            self._transcribe(session, symbol, position, events)
        else:
            piece = self.tokenizer.decode([symbol])
            memory.add(session.memory, memory.last(session.memory, "agent"), [position])
            keep_text(session, [symbol])
            events.append(Event("said", session.tick, piece))
            self.response.push_text(slot, session, position, piece)
            if self.dictation is not None:
                self.dictation.say(session, symbol)

    def _begin_agent_turn(self, session: Session, events: list[Event]) -> None:
        session.answer_due = False
        self.response.keep_turn(session)
        memory.begin(session.memory, "agent")
        if session.reply.is_text_complete:
            # The voice of the turn before still sounds: that turn ends here.
            events.append(Event("agent_ended", session.tick))
        self.response.begin_turn(session)
        if self.dictation is not None:
            self.dictation.begin_answer(session)
        events.append(Event("agent_started", session.tick))

    def _end_user_turn(self, session: Session, is_for_agent: bool, events: list[Event]) -> None:
        positions = [position for position, _ in session.user.transcribed]
        keep_text(session, [token for _, token in session.user.transcribed])
        shown_text = session.user.shown_text
        memory.add(session.memory, memory.last(session.memory, "user"), positions)
        session.answer_due |= is_for_agent
        session.budget.draft_response = []
        if self.dictation is not None:
            self.dictation.end_user_turn(session, is_for_agent)
        self.recognition.end_turn(session.user, is_for_agent)
        events += people.learn_name(session.people, shown_text, session.tick)
        to = "agent" if is_for_agent else "other"
        events.append(Event("user_ended", session.tick, to=to))

    def _transcribe(self, session: Session, token: int, position: int, events: list[Event]) -> None:
        user = session.user
        session.budget.draft_response = []
        user.transcribed.append((position, token))
        self.recognition.count_words(user)
        pending_words.mark_transcribed(user.pending, token)
        piece = self.tokenizer.decode([token])
        user.shown_text += piece
        events.append(Event("heard", session.tick, piece))


def dictated(symbol: int, mind: MindState) -> int:
    """What is said where the LM wants `symbol`: it yields and hears as it likes, but what it says
    are the large mind's words."""
    if symbol in (USER, STOP):
        return symbol
    if mind.tokens:
        return mind.tokens[0]
    return END if mind.is_complete else NEXT
