"""Functions that the thinker wants called: told to the client, waited for, and given up.

    thought is complete -> call: ToolCall events; the agent listens
    the client's result -> give_result; it takes too long -> check: a notice, then an error

A result belongs to its call if nothing was said since; otherwise it is a note at the end. Both are
read by the thinker alone.
"""

from dataclasses import replace

from duplex.agent.config import MindConfig
from duplex.agent.session import Session
from duplex.events import Event, ToolCall
from duplex.mind.thinker import NO_TOOLS, Thought, Tools
from duplex.model.tokens import AGENT

# Results where there is none.
LATE = "error: no result came in time"
CUT = " … (the rest is too long)"


def offered(session: Session, config: MindConfig) -> Tools:
    """The functions that the next answer may want called: none after many calls in a row."""
    mind = session.mind
    if mind.call_rounds < config.max_call_rounds:
        return mind.tools
    return replace(mind.tools, choice="none")


def call(session: Session, events: list[Event]) -> bool:
    """Tell the calls of a complete thought, once the user's turn is over and its words are said.

    Returns whether it was nothing but calls, so that the thought is done with.
    """
    mind = session.mind
    thought = mind.thought
    if thought is None or not mind.has_calls or mind.is_guess:
        return False
    is_open = session.grammar.agent_open
    if mind.tokens and not is_open or not (is_open or session.answer_due):
        return False
    mind.are_calls_told = True
    mind.call_rounds += 1
    for wanted in thought.calls:
        mind.conversation.add_call(wanted)
        mind.calls[wanted.id] = session.tick
        told = ToolCall(session.tick, wanted.id, wanted.name, wanted.arguments)
        events.append(told)
    if is_open:
        return False
    session.answer_due = False
    if session.client.request == AGENT:
        session.client.request = None
    return True


def give_result(session: Session, call_id: str, result: str, config: MindConfig) -> None:
    """A call has a result."""
    if len(result) > config.max_result_chars:
        result = result[: config.max_result_chars] + CUT
    session.mind.calls.pop(call_id, None)
    session.mind.conversation.set_result(call_id, result or "done")


def overdue(session: Session, config: MindConfig) -> list[str]:
    """Ids of calls that have taken too long."""
    calls = session.mind.calls.items()
    return [name for name, since in calls if session.tick - since >= config.max_call_ticks]


def notice(session: Session, config: MindConfig) -> Thought | None:
    """What is to be said now of a result that takes long; None: nothing."""
    mind = session.mind
    is_free = not (session.grammar.agent_open or session.grammar.user_open or mind.thought)
    waits = any(session.tick - since == config.notice_ticks for since in mind.calls.values())
    if not (mind.notice and is_free and waits):
        return None
    thought = Thought([], NO_TOOLS)
    thought.add(mind.notice)
    thought.finish()
    return thought
