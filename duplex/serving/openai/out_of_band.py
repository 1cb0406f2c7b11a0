"""Responses outside of the conversation: each waits until it is nobody's turn, and is forgotten.

What is asked and answered is in the agent's mind as long as the response lasts, behind the
conversation; nothing of it stands in the conversation's items, and the agent forgets it with the
end.
"""

from collections import deque

from duplex.serving.commands import Forget, Write
from duplex.serving.floor import Floor
from duplex.serving.openai.events import Refused
from duplex.serving.openai.requests import Request


class OutOfBand:
    """Of one session; at most `max_waiting` wait."""

    def __init__(self, max_waiting: int = 16):
        self.floor = Floor()
        self._max_waiting = max_waiting
        self._waiting: deque[Request] = deque()
        # Names of the texts in the agent's mind that belong to the response that is going on.
        self._names: list[str] = []

    def enqueue(self, request: Request) -> None:
        """One more response. Raises Refused where too many wait."""
        if len(self._waiting) >= self._max_waiting:
            text = f"{self._max_waiting} responses outside of the conversation wait already"
            raise Refused("conversation_already_has_active_response", text)
        self._waiting.append(request)

    def next(self) -> Request | None:
        """The response that may begin now."""
        if not self._waiting or not self.floor.is_free:
            return None
        self.floor.claim()
        return self._waiting.popleft()

    def begin(self, request: Request) -> list[Write]:
        """What is put into the agent's mind for a response."""
        self._names = [text.name for text in request.input]
        return list(request.input)

    def end(self, turn: int | None) -> list[Forget]:
        """What the agent is to forget. turn: the number of its own, if it spoke."""
        forgotten = [Forget("text", name) for name in self._names]
        self._names = []
        return forgotten + ([] if turn is None else [Forget("agent", turn)])
