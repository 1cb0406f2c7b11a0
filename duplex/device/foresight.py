"""What the rules will see of a session if it says what is proposed. A pure function.

It need not be right: what is really seen is compared before a symbol is taken.
"""

from dataclasses import replace

from duplex.agent.backchannels import is_backchannel
from duplex.agent.hearing import pending_words
from duplex.agent.hearing.pending_words import PendingWords
from duplex.agent.session import Session
from duplex.agent.turn_policy import NOBODY, Observation
from duplex.model import tokens
from duplex.model.tokens import AGENT, ASIDE, FIRST_TEXT_ID, USER, USER_END


def foresee(
    session: Session, seen: Observation, proposals: list[int], tokenizer
) -> list[tuple[Observation, PendingWords]]:
    """What is seen, and which words wait, after each of the proposals."""
    pending = PendingWords([*session.user.pending.tokens], session.user.pending.max_confidence)
    grammar = session.grammar
    transcribed = [token for _, token in session.user.transcribed]
    found = []
    for symbol in proposals:
        before = grammar
        grammar = tokens.advance(grammar, symbol)
        changes: dict = {}
        if symbol == USER or before.stream == USER:
            changes["ticks_since_user_token"] = 0
        if grammar.stream == AGENT != before.stream:
            changes["ticks_since_agent_token"] = 0
        if symbol in (USER_END, ASIDE):
            pending.max_confidence = None
            transcribed = []
            changes |= {"answer_due": seen.answer_due or symbol == USER_END}
            changes |= {"transcribed_words": 0, "is_backchannel": False, "second_pass_ticks": 0}
        elif symbol == AGENT and not before.agent_open:
            changes |= {"answer_due": False, "agent_tokens": 0}
        elif symbol >= FIRST_TEXT_ID and before.stream == USER:
            transcribed.append(symbol)
            pending_words.mark_transcribed(pending, symbol)
            words = tokenizer.decode(transcribed).split()
            changes["transcribed_words"] = len(words)
            changes["is_backchannel"] = is_backchannel(words)
        elif symbol >= FIRST_TEXT_ID:
            changes |= {"agent_tokens": seen.agent_tokens + 1, "ticks_since_agent_token": 0}
        seen = replace(
            seen,
            stream=grammar.stream or NOBODY,
            user_open=grammar.user_open,
            agent_open=grammar.agent_open,
            max_confidence=pending.max_confidence or 0.0,
            has_pending=bool(pending.tokens),
            certain_confidence=pending_words.certain_confidence(pending, session.policy),
            **changes,
        )
        found.append((seen, PendingWords([*pending.tokens], pending.max_confidence)))
    return found
