"""Times on the session's clock as the API counts them: in the audio that the client appended."""

from collections import deque

from duplex.serving.sound.input_buffer import milliseconds


class InputClock:
    """Where in the appended audio the agent was at a time of the session.

    The audio of an append is heard from then on, or behind what still waited.
    """

    def __init__(self, max_appends: int = 512):
        """max_appends: that are remembered; a time before them is that of the oldest."""
        self._samples = 0
        # (ms of the session, ms of the audio that is heard from then on), while nothing waits.
        self._begins: deque[tuple[int, int]] = deque(maxlen=max_appends)

    def append(self, samples: int, session_ms: int) -> None:
        """So many samples are appended at a time of the session."""
        appended_ms = milliseconds(self._samples)
        if not self._begins or self._heard_ms(session_ms) >= appended_ms:
            self._begins.append((session_ms, appended_ms))
        self._samples += samples

    def audio_ms(self, session_ms: int) -> int:
        """A time of the session as ms of the appended audio."""
        return max(0, min(self._heard_ms(session_ms), milliseconds(self._samples)))

    def _heard_ms(self, session_ms: int) -> int:
        """As `audio_ms`, as if the last audio went on for ever."""
        if not self._begins:
            return 0
        earlier = [begin for begin in self._begins if begin[0] <= session_ms]
        begin_ms, audio_ms = earlier[-1] if earlier else self._begins[0]
        return audio_ms + session_ms - begin_ms
