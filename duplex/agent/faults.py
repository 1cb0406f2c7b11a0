"""One session's error ends one session."""

import logging
from collections.abc import Callable

from duplex.events import Error, Event

log = logging.getLogger(__name__)


def isolate_fault(events: list[Event], work: Callable, *arguments):
    """Do one session's part of a tick.

    Where it raises, the session gets an Error event and the result is None; the other sessions'
    tick goes on.
    """
    try:
        return work(*arguments)
    except Exception as error:
        log.exception("one session's part of a tick")
        reason = f"{type(error).__name__}: {error}"
        events.append(Error("model", f"the model failed ({reason}); this session is over"))
        return None
