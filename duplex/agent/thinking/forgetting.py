"""What is taken out of the conversation again: turns, clients' texts, what nobody shall answer."""

from duplex.agent import memory
from duplex.agent.hearing import turn_sound
from duplex.agent.lm_context import LMContext
from duplex.agent.memory import Key
from duplex.agent.session import AgentTurn, Session, UserTurn
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


def truncate(
    context: LMContext, slot: int, session: Session, heard_ms: int, turn: int | None
) -> None:
    """The words of a turn of the agent's whose voice ended after this time; None: the last turn."""
    key = memory.last(session.memory, "agent") if turn is None else ("agent", turn)
    first, unheard = take_unheard(session, key[1], heard_ms)
    if first is None:
        return
    session.mind.conversation.cut(key, first)
    context.flush(slot, session.inputs)
    kv_cache.drop(context.cache, slot, unheard)


def take_unheard(session: Session, turn: int, heard_ms: int) -> tuple[int | None, list[int]]:
    """Of a turn of the agent's, by its number, drop the words whose voice ended after this time.

    Returns the first character of those words, None where there are none, and the LM's positions of
    them.
    """
    is_last = turn == session.memory.begun["agent"] - 1
    reply = session.reply if is_last else session.past_replies.get(turn, AgentTurn())
    first = min((begin for begin, end in reply.spoken if end > heard_ms), default=None)
    if first is None:
        return None, []
    unheard = [position for position, begin in reply.tokens if begin >= first]
    reply.tokens = [token for token in reply.tokens if token[1] < first]
    reply.spoken = [word for word in reply.spoken if word[0] < first]
    return first, unheard


def abandon_turn(context: LMContext, slot: int, session: Session) -> None:
    """What the user has said since the last turn ended is forgotten; how loud it was is kept."""
    old = session.user
    turn_sound.withdraw(old.second)
    context.flush(slot, session.inputs)
    kv_cache.drop(context.cache, slot, [position for position, _ in old.transcribed])
    session.user = UserTurn(activity=old.activity, last_token_tick=old.last_token_tick)
    session.budget.draft_response = []
