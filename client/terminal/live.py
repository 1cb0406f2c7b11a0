"""Live conversation: a sound card, a session, and somebody who watches and presses keys."""

import asyncio
import time
from dataclasses import dataclass, field, replace

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_MS, TICK_S, TICK_SAMPLES
from duplex.client.call_state import CallFacts, Ear
from duplex.client.recording import Recording
from duplex.client.sound.jitter_buffer import BLOCK_SAMPLES
from duplex.client.terminal.device_menu import DeviceMenu, opened, use
from duplex.client.terminal.keys import Typing
from duplex.client.terminal.status import Status
from duplex.echo import EchoCanceller
from duplex.serving.commands import Stop, Write
from duplex.transcript import Transcript

SILENCE = np.zeros(TICK_SAMPLES, np.float32)


@dataclass(frozen=True)
class LiveConfig:
    """How a live conversation is held."""

    # Ticks of the microphone that may wait to be sent; what is older is kept and not sent.
    max_unsent_ticks: int = 8
    # Seconds without a message after which the server is quiet.
    quiet_s: float = 2.0
    # Seconds that the other side has to say its last.
    farewell_s: float = 0.7
    # An answer that comes later is none.
    longest_answer_s: float = 15.0


@dataclass
class Live:
    """What is known of a conversation that goes on, and what its user wants."""

    recording: Recording
    stop: asyncio.Event
    config: LiveConfig = LiveConfig()
    echo: EchoCanceller | None = None
    place: str = ""
    # What the user wants.
    muted: bool = False
    push: bool = False
    held: bool = False
    wants_restart: bool = False
    typing: Typing = Typing()
    menu: DeviceMenu | None = None
    # What can be heard, and what was last.
    you: Ear = Ear()
    agent: Ear = Ear()
    you_end_s: float | None = None
    answers_s: list[float] = field(default_factory=list)
    # What happened, for the state.
    transcript: Transcript = field(default_factory=Transcript)
    ending: bool = False
    came_at: float = 0.0
    sending: asyncio.Task | None = None
    unsent_ticks: int = 0

    def do(self, wanted: str) -> None:
        """What a key asks of this side."""
        if wanted == "mute":
            self.muted = not self.muted
        elif wanted == "talk":
            self.held = not self.held or not self.push
            self.push = True
        elif wanted == "push":
            self.push = not self.push
        elif wanted in ("quit", "restart"):
            self.wants_restart = wanted == "restart"
            self.stop.set()


async def live(session, card, view, live: Live) -> None:
    """Talk until `live.stop` is set or the session ends; all goes into `live.recording`.

    card: a SoundCard or what has its methods. view: a Display or a Screen.
    """
    mending = asyncio.create_task(card.mend(), name="mend")
    playing = asyncio.create_task(_play(session, card, view, live), name="play")
    dropped_before = card.dropped_ticks
    try:
        while not live.stop.is_set() and not playing.done():
            tick = await _next_tick(card, live.stop)
            if tick is None:
                break
            # Ticks that nobody took are silence: the clock of the recording is the card's.
            for _ in range(card.dropped_ticks - dropped_before):
                live.recording.add_tick(SILENCE, SILENCE)
            dropped_before = card.dropped_ticks
            await _take(session, card, view, live, *tick)
    finally:
        mending.cancel()
        await _farewell(session, playing, live)
    live.recording.settle(card.playback.played_at_ms)
    live.recording.gaps = card.playback.gaps
    live.recording.dropped_ms = card.dropped_ms + live.unsent_ticks * TICK_MS


async def press(session, card, view, live: Live, key: str) -> None:
    """A key of the user's."""
    if live.menu is not None:
        live.menu, chosen = live.menu.press(key)
        if chosen is not None:
            await use(card, view, chosen)
        return
    live.typing, wanted = live.typing.press(key)
    match wanted:
        case ("interrupt", _):
            await session.send(Stop())
        case ("write", text) if getattr(session, "is_cut", False):
            view.note("not sent: the connection is lost; it stays in its line")
            live.typing = Typing(text)
        case ("write", text):
            await session.send(Write("user", text))
            _note_typed(view, live, text)
        case ("devices", _):
            live.menu = opened(card, view)
        case (command, _):
            live.do(command)


def _note_typed(view, live: Live, text: str) -> None:
    """A line that was typed is a turn like one that was heard."""
    now_s = live.recording.seconds
    live.you_end_s = now_s
    for fields in (
        {"type": "user_started"},
        {"type": "heard", "text": f" {text}"},
        {"type": "user_ended", "to": "agent"},
    ):
        event = {**fields, "typed": True}
        live.recording.note(now_s, event)
        view.show(event)


def without_echo(echo: EchoCanceller, heard: np.ndarray, played: np.ndarray) -> np.ndarray:
    """A tick [1920] of the microphone without the loudspeaker.

    A block is given out at the end of one and heard in the next.
    """
    blocks = []
    for at in range(0, len(heard), BLOCK_SAMPLES):
        blocks.append(echo.heard(heard[at : at + BLOCK_SAMPLES]))
        echo.played(played[at : at + BLOCK_SAMPLES])
    return np.concatenate(blocks)


async def _next_tick(card, stop: asyncio.Event) -> tuple[np.ndarray, np.ndarray] | None:
    """The card's next tick, or silence on the beat where the card is lost; None at the stop."""
    began = time.monotonic()
    while not stop.is_set():
        if tick := card.take():
            return tick
        if card.is_lost and time.monotonic() - began >= TICK_S:
            card.playback.pause(TICK_SAMPLES)
            return SILENCE, SILENCE
        waits = [asyncio.ensure_future(card.wait()), asyncio.ensure_future(stop.wait())]
        await asyncio.wait(waits, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    return None


async def _take(session, card, view, live: Live, heard: np.ndarray, played: np.ndarray) -> None:
    """One tick of the card: sent, kept and shown."""
    if live.echo is not None:
        heard = without_echo(live.echo, heard, played)
    if live.muted or (live.push and not live.held):
        heard = SILENCE
    await _send(session, card, live, heard)
    live.recording.add_tick(heard, played)
    _listen(live, heard, played)
    view.update(_status(session, card, live, heard, played))


async def _send(session, card, live: Live, heard: np.ndarray) -> None:
    """A tick to the agent; one that the connection has no room for is left out."""

    async def send() -> None:
        await session.push(heard)
        await session.played(card.played_ms)

    if live.sending is not None:
        await asyncio.wait([live.sending], timeout=TICK_S / 2)
    is_stuck = live.sending is not None and not live.sending.done()
    if is_stuck or card.waiting_ticks > live.config.max_unsent_ticks:
        live.unsent_ticks += 1
        return
    live.sending = asyncio.create_task(send(), name="send")
    await asyncio.sleep(0)


def _listen(live: Live, heard: np.ndarray, played: np.ndarray) -> None:
    """Who can be heard, and how soon the agent answered."""
    start_s = live.recording.seconds - TICK_S
    spoke = live.agent.voice
    live.you = live.you.listen(_level(heard))
    live.agent = live.agent.listen(_level(played))
    loud = np.flatnonzero(np.abs(heard) > 2 * live.you.least)
    if live.you.quiet_ticks == 0 and len(loud):
        live.you_end_s = start_s + int(loud[-1]) / SAMPLE_RATE
    audible = np.flatnonzero(np.abs(played) > AUDIBLE)
    if len(audible) and not spoke and live.you_end_s is not None:
        seconds = start_s + int(audible[0]) / SAMPLE_RATE - live.you_end_s
        if 0 <= seconds < live.config.longest_answer_s:
            live.answers_s.append(round(seconds, 2))
        # One answer to each question.
        live.you_end_s = None


def _status(session, card, live: Live, heard: np.ndarray, played: np.ndarray) -> Status:
    is_quiet = time.monotonic() - live.came_at > live.config.quiet_s
    socket = "cut" if getattr(session, "is_cut", False) else "quiet" if is_quiet else "open"
    facts = CallFacts(
        sound="lost" if card.is_lost else "on",
        socket=socket,
        ending=live.ending,
        muted=live.muted,
        waits_for_key=live.push and not live.held,
        you=live.you.voice,
        agent=live.agent.voice,
        agent_turn=live.transcript.is_open("agent"),
    )
    return Status(
        facts,
        live.recording.seconds,
        _level(heard),
        _level(played),
        live.answers_s[-1] if live.answers_s else None,
        len(live.answers_s),
        card.playback.waiting_ms,
        card.playback.target_ms,
        card.playback.gaps,
        typed=live.typing.line,
        menu=tuple(live.menu.lines()) if live.menu else (),
        devices=card.name,
        place=live.place,
    )


async def _play(session, card, view, live: Live) -> None:
    """What comes from the agent, into the loudspeaker's buffer, onto the screen and kept."""
    live.came_at = time.monotonic()
    # The session's clock begins here in all that the loudspeaker gets.
    begins_ms = card.playback.pushed_ms
    while (message := await session.get()) is not None:
        live.came_at = time.monotonic()
        audio, events = message
        if len(audio):
            card.playback.push(audio)
        lost_ms = getattr(session, "lost_ms", 0) - begins_ms
        for event in events:
            live.transcript.read({"time_s": 0.0, **event})
            live.recording.note(live.recording.seconds, event, lost_ms)
            view.show(event)
    live.stop.set()


async def _farewell(session, playing: asyncio.Task, live: Live) -> None:
    """End the session; the other side may say its last, but not for long."""
    live.ending = True
    if live.sending is not None:
        live.sending.cancel()
    closing = asyncio.create_task(session.close(), name="close")
    _, late = await asyncio.wait([playing, closing], timeout=live.config.farewell_s)
    if late:
        for task in late:
            task.cancel()
        drop = getattr(session, "drop", None)
        if drop is not None:
            drop()
    if playing.done() and not playing.cancelled():
        playing.result()


def _level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


def restarted(live: Live) -> Live:
    """The same conversation with a new session: what is heard goes on, what was asked is done."""
    return replace(
        live, stop=asyncio.Event(), wants_restart=False, transcript=Transcript(), sending=None
    )
