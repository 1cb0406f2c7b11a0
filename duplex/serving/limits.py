"""All that a server bounds, and by how much; handed in, so that anybody may choose."""

from dataclasses import dataclass

from duplex.audio import TICK_S, TICKS_PER_SECOND


@dataclass(frozen=True)
class EngineLimits:
    """Bounds of the engine and of each session in it."""

    # Ticks that anything may fall behind the clock: 640 ms of user audio, or of the engine itself.
    max_buffered_ticks: int = 8
    # Ticks behind (2.4 s) from which on the engine lets the time go: users have begun again.
    stalled_ticks: int = 30
    # Ticks of a pause (1.2 s) that are heard in a recording that was sent at once: turns end there.
    kept_pause_ticks: int = 15
    # In so many ticks (two seconds) it shows whether audio waits for nothing, which then goes.
    surplus_window_ticks: int = 25
    # How many times as loud as the quietest of them a pause may be, and how loud at most (-30 dB).
    quiet_factor: float = 1.5
    max_quiet: float = 0.03
    # Ticks of output that wait for a client which does not fetch them: two seconds.
    max_unread_ticks: int = 25
    # Seconds that a session's first audio waits: a beat that wavers by less is never late.
    cushion_s: float = TICK_S / 2
    # Whole ticks that wait when somebody speaks in real time; more of them are a recording.
    max_live_ticks: int = 2
    # Ticks between two Lag events of a session at least: one a second.
    lag_interval_ticks: int = round(TICKS_PER_SECOND)
    # Commands of one client that may wait: a conversation may be written at once.
    max_pending_commands: int = 1_000
    # Among so many last ticks (two seconds) late ones tell whether the engine is overloaded.
    overload_window_ticks: int = 25
    # It takes no new session while more of them than this were late.
    overload_late_ticks: int = 10
    # Seconds without a step, while somebody talks, from which on the process counts as dead.
    hung_s: float = 30.0
    # Seconds without anything from the client that end a session; 0 is for ever.
    idle_s: float = 0.0
    # Seconds that a session may last; 0 is for ever.
    max_session_s: float = 0.0


@dataclass(frozen=True)
class ClientTerms:
    """What a dialect grants its clients."""

    # Ticks of audio that may wait to be heard; None: what the engine usually lets wait.
    early_ticks: int | None = None
    # Whether a client whose connection was lost may come back; then its dialect has all of Native.
    is_resumable: bool = False
    # Whether a client may send nothing for as long as its connection answers pings, and whether one
    # that sends faster than it may is read more slowly, not sent away.
    may_be_idle: bool = False
    # Bytes of one message: 21 s of audio, far more than one needs.
    max_message_bytes: int = 1 << 20


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the server and of each connection to it."""

    # Connections at once, with or without a session.
    max_connections: int = 256
    # Seconds in which the first message must come: a connection without it holds no place.
    first_message_s: float = 10.0
    # The same where clients connect before anybody talks, and may be idle.
    late_start_s: float = 300.0
    # Seconds between pings, and for each answer: a client that gives none is gone.
    ping_s: float = 20.0
    # Seconds that a session waits for a client whose connection was lost.
    resume_s: float = 30.0
    # Seconds that sessions have to finish their turns when the server shuts down.
    grace_s: float = 0.0
    # Seconds that clients have then to take the news.
    farewell_s: float = 3.0
    # Bytes a second from one client: twenty times PCM16, so base64 and a lively sender fit.
    bytes_per_s: int = 1 << 20
    # Bytes that may come at once.
    bytes_burst: int = 4 << 20
    # Bad messages from one client that close its connection as abuse, and those that are forgiven
    # in a second.
    max_bad_messages: int = 20
    bad_messages_per_s: float = 0.1
    # Messages a second from one client.
    messages_per_s: int = 500
    # Messages that may come at once.
    messages_burst: int = 2_000
