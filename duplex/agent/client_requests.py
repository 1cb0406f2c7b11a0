"""What a client asks of a session's next decisions; turn_policy.next_for_request obeys."""

from duplex.agent.session import Session
from duplex.model.tokens import AGENT, USER_END


def request(session: Session, symbol: int, hears_out: bool = False) -> None:
    """Ask for STOP, AGENT, USER_END or ASIDE, at once or once all that was said is heard."""
    session.client.request = symbol
    session.client.hears_out_since = session.tick if hears_out else None


def answer(session: Session, hears_out: bool) -> None:
    """The user's turn is over and the agent's begins, unless it speaks already."""
    if hears_out and session.grammar.agent_open:
        return
    request(session, AGENT, hears_out)
    session.answer_due = True


def end_turn(session: Session) -> None:
    """The user's turn is over once all that was said so far is heard."""
    if session.client.request != AGENT:
        request(session, USER_END, hears_out=True)
