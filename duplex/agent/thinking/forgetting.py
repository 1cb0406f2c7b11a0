"""What is taken out of the conversation again: turns, clients' texts, what nobody shall answer."""

from duplex.agent import memory
from duplex.agent.hearing import turn_sound
from duplex.agent.lm_context import LMContext
from duplex.agent.memory import Key
from duplex.agent.session import Session, UserTurn
from duplex.model import kv_cache


def forget(context: LMContext, slot: int, session: Session, key: Key) -> None:
    """The LM and the mind forget a turn, or a text that may not even be read yet.

    Raises ValueError where it is not complete.
    """
    kind, name = key
    grammar = session.grammar
    is_open = {"user": grammar.user_open, "agent": grammar.agent_open, "text": False}[kind]
    if is_open and key == memory.last(session.memory, kind):
        raise ValueError("what is not said to its end cannot be forgotten")
    queue = session.inputs
    if kind == "text":
        kept = [
            entry for entry in zip(queue.text, queue.text_names, strict=True) if entry[1] != name
        ]
        queue.text = [token for token, _ in kept]
        queue.text_names = [name for _, name in kept]
    session.mind.conversation.forget(key)
    positions = memory.take(session.memory, key)
    if positions:
        context.flush(slot, queue)
        kv_cache.drop(context.cache, slot, positions)


def abandon_turn(context: LMContext, slot: int, session: Session) -> None:
    """What the user has said since the last turn ended is forgotten; how loud it was is kept."""
    old = session.user
    turn_sound.withdraw(old.second)
    context.flush(slot, session.inputs)
    kv_cache.drop(context.cache, slot, [position for position, _ in old.transcribed])
    session.user = UserTurn(activity=old.activity, last_token_tick=old.last_token_tick)
    session.budget.draft_response = []
