"""One client of the native dialect, whose messages stand in messages.py beside this. No I/O."""

from collections import deque

import numpy as np

from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving.commands import Audio, Resume, Start
from duplex.serving.limits import ClientTerms
from duplex.serving.native import commands as native_commands
from duplex.serving.native import messages as native
from duplex.serving.sound import audio_forms


class Native:
    """One client of this dialect; see dialect.Dialect."""

    start = None
    terms = ClientTerms(is_resumable=True)

    def __init__(self, max_missed_events: int = 2_000):
        """max_missed_events: so many of the last ones are kept for a client that comes back."""
        # With it the client may come back.
        self.token = ""
        self._has_started = False
        self._start = Start()
        self._form = audio_forms.make(self._start.audio)
        # The last events sent, or to be sent, and the number of all of them.
        self._events: deque[str] = deque(maxlen=max_missed_events)
        self._sent = 0

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The command in a message; nothing is ever answered. Raises ProtocolError."""
        if isinstance(message, bytes):
            self._has_started = True
            return [Audio(self._form.decode(message))], []
        command = native_commands.decode_client(message)
        if isinstance(command, Start | Resume) and self._has_started:
            raise ProtocolError(
                "session.start and session.resume come once, before everything else"
            )
        if isinstance(command, native_commands.ForSession) and not self._has_started:
            raise ProtocolError("the session is not open yet; session.start opens it")
        self._has_started = True
        if isinstance(command, Start):
            self._start = command
            self._form = audio_forms.make(command.audio, command.rate)
        return [command], []

    def opened(self, session_id: str) -> list:
        """session.created."""
        created = native.created(session_id, self.token, self._start.rate)
        return [native.encode_object(created)]

    def resumed(self, session_id: str, received: int) -> list | None:
        """What a client that comes back has missed; None when too much of it is gone."""
        missed = self._sent - received
        if not 0 <= missed <= len(self._events):
            return None
        # A stream begins anew, with its headers.
        self._form = audio_forms.make(self._start.audio, self._start.rate)
        answer = native.encode_object(
            {"type": "session.resumed", "id": session_id, "missed": missed}
        )
        return [answer, *list(self._events)[len(self._events) - missed :]]

    def tick(self, audio: np.ndarray, events: list) -> list:
        """The tick's audio, then its events."""
        messages = [native.encode_event(event) for event in events]
        self._events += messages
        self._sent += len(messages)
        if not len(audio):
            return messages
        return [*self._form.encode(audio), *messages]

    def take_due(self) -> list:
        """Nothing: a tick brings nothing about here."""
        return []

    def refused(self, error: Error) -> list:
        """An error."""
        return [native.encode_event(error)]
