"""A live conversation without a sound card: what is sent, kept, shown, and how it ends."""

import asyncio
import io
import time

import numpy as np
import pytest
from rich.console import Console

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.client import sounding
from duplex.client.call_state import CallFacts
from duplex.client.local import LockstepSession
from duplex.client.recording import Recording
from duplex.client.sound.jitter_buffer import Playback
from duplex.client.sound.sound_card import SoundCard, SoundDevices
from duplex.client.terminal import live as terminal
from duplex.client.terminal.device_menu import DeviceMenu
from duplex.client.terminal.display import Display
from duplex.client.terminal.keys import Typing
from duplex.client.terminal.live import Live, live
from duplex.client.terminal.screen import Screen
from duplex.client.terminal.status import Status
from duplex.serving.commands import Stop, Write
from tests.client.port_audio import PortAudio
from tests.helpers import MS, tone, until
from tests.tiny_agent import TinyAgent


class Room:
    """Stands for a sound card: a microphone that hears a sound, a loudspeaker that plays."""

    name = "room"
    dropped_ticks = 0
    dropped_ms = 0
    played_ms = 0
    waiting_ticks = 0
    is_lost = False

    def __init__(self, sound: np.ndarray, stop: asyncio.Event):
        self.playback = Playback()
        self.ticks = list(sound.reshape(-1, TICK_SAMPLES))
        self.stop = stop

    def take(self):
        if self.is_lost:
            return None
        if not self.ticks:
            self.stop.set()
            return None
        return self.ticks.pop(0), self.playback.pull(TICK_SAMPLES)

    async def wait(self):
        await asyncio.sleep(MS)

    async def mend(self):
        pass


class Watched(Display):
    """Keeps the names of the states that it was shown."""

    def __init__(self):
        super().__init__(io.StringIO(), io.StringIO())
        self.names = []

    def update(self, status):
        super().update(status)
        if self.names[-1:] != [status.name]:
            self.names.append(status.name)


class Slow(LockstepSession):
    """Gives the loop a turn after each push, as a network does."""

    def __init__(self):
        super().__init__(TinyAgent(1))
        self.sent = []

    async def push(self, samples):
        await super().push(samples)
        await asyncio.sleep(2 * MS)

    async def send(self, command):
        self.sent.append(command)


def hold(sound: np.ndarray, act=None, session=None, **options) -> tuple[Live, Watched]:
    """A conversation with this in the microphone; `act(room, live)` goes on beside it."""

    async def run():
        stop = asyncio.Event()
        state = Live(Recording(), stop, **options)
        room = Room(sound, stop)
        view = Watched()
        beside = asyncio.ensure_future(act(room, state)) if act else None
        async with asyncio.timeout(20_000 * MS):
            await live(session or Slow(), room, view, state)
        if beside:
            await beside
        view.finish()
        return state, view

    return asyncio.run(run())


QUESTION = np.concatenate([tone(6), np.zeros(20 * TICK_SAMPLES, np.float32)])


def test_live_conversation():
    state, view = hold(QUESTION)
    recording = state.recording
    kinds = [event["type"] for event in recording.events]
    assert kinds[:2] == ["user_started", "heard"] and kinds[-1] == "agent_ended"
    stereo = recording.stereo()
    assert 26 <= len(stereo) / TICK_SAMPLES <= 27 and np.abs(stereo).max(axis=0).min() > 4000
    assert {"you", "agent", "listening"} <= set(view.names)
    assert view._out.getvalue() == "you>  Word0 word1\nagent> Echo0 echo1\n"
    assert len(state.answers_s) == 1 and 0 < state.answers_s[0] < 1


def test_words_and_turns_are_where_their_sound_is():
    """Recording, transcript and events agree within a tick, also when ticks were dropped."""

    async def drop(room, state):
        await until(lambda: len(state.recording.user) >= 3)
        # The card has played meanwhile.
        room.playback.pull(10 * TICK_SAMPLES)
        room.dropped_ticks += 10

    lead = np.zeros(10 * TICK_SAMPLES, np.float32)
    state, _ = hold(np.concatenate([lead, QUESTION]), drop)
    recording = state.recording
    sounding.place(recording)
    you, agent = recording.transcript().turns()
    sound = recording.stereo().astype(np.float32) / 32768
    first_s = [np.flatnonzero(np.abs(side) > 0.01)[0] / SAMPLE_RATE for side in sound.T]
    last_s = [np.flatnonzero(np.abs(side) > 0.01)[-1] / SAMPLE_RATE for side in sound.T]
    for turn, begins, ends in zip((you, agent), first_s, last_s, strict=True):
        assert turn.start_s == pytest.approx(begins, abs=TICK_S)
        assert turn.end_s == pytest.approx(ends, abs=TICK_S)
    assert first_s[0] == pytest.approx(20 * TICK_S, abs=TICK_S)
    word = next(event for event in recording.events if event["type"] == "spoken")
    assert word["start_s"] == pytest.approx(first_s[1], abs=TICK_S)


def test_a_lost_card_is_told_and_the_session_goes_on():
    async def lose(room, state):
        await until(lambda: len(state.recording.user) >= 12)
        room.is_lost = True
        await until(lambda: len(state.recording.user) >= 16)
        room.is_lost = False

    state, view = hold(QUESTION, lose)
    assert "lost" in view.names and view.names[-1] != "lost"
    notes = view._errors.getvalue()
    assert "the sound device is gone; plug it in again" in notes and "it goes on" in notes
    # The silence of the time without a card is kept as well.
    assert len(state.recording.user) > len(QUESTION) / TICK_SAMPLES


def test_a_stuck_connection_does_not_hold_up_the_end():
    """Ctrl-C ends the conversation within a second, whatever the other side does."""

    class Stuck(Slow):
        is_cut = True
        dropped = False

        async def push(self, samples):
            await asyncio.Event().wait()

        async def get(self):
            await asyncio.Event().wait()

        async def close(self):
            await asyncio.Event().wait()

        def drop(self):
            self.dropped = True

    session = Stuck()
    began = time.monotonic()
    state, view = hold(tone(3), session=session)
    assert time.monotonic() - began < 2 and session.dropped
    assert view.names[:1] == ["cut"] and state.unsent_ticks > 0
    assert len(state.recording.user) == 3


def test_muted_microphone_is_silence_for_the_agent_and_in_the_recording():
    state, view = hold(QUESTION, muted=True)
    assert set(view.names) == {"muted"} and not np.concatenate(state.recording.user).any()


def test_the_screen_scrolls_whole_turns_under_live_lines():
    """Turns leave the live lines once, in order, corrected; each figure stands below them."""
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen = Screen(console, settle_s=0.0)
    facts = CallFacts(sound="on", socket="open", agent=True)
    with screen:
        for event in (
            {"type": "user_started"},
            {"type": "heard", "text": " what is is"},
            {"type": "corrected", "text": " What is it?"},
            {"type": "user_ended", "to": "agent"},
            {"type": "agent_started"},
            {"type": "said", "text": " It is late."},
            {"type": "agent_stopped", "text": " late."},
        ):
            screen.show({"tick": 0, **event})
            screen.update(Status(facts, 7.0, answer_s=0.5, gaps=2))
            console.print(screen._render())
        screen.finish()
    shown = console.file.getvalue()
    assert "● the agent speaks   00:07 · answer 0.50 s · buffer 0/0 ms · 2 gaps" in shown
    assert "m mute" in shown
    whole = [line.rstrip() for line in shown.splitlines() if line.startswith("00:0")]
    written = [line for line in whole if not line.endswith("▌")]
    assert written[-2:] == ["00:00  you    What is it?", "00:07  agent  It is late."]


def test_a_turn_never_stands_twice():
    """It leaves the live lines before it is written above them, which draws both."""

    class Watched(Console):
        drawn = ()

        def print(self, *what, **options):
            if what and getattr(what[0], "plain", ""):
                below = Console(file=io.StringIO(), width=90)
                below.print(screen._live.renderable)
                self.drawn = (*self.drawn, what[0].plain + below.file.getvalue())
            super().print(*what, **options)

    console = Watched(file=io.StringIO(), force_terminal=True, width=90)
    with Screen(console, settle_s=0) as screen:
        for seconds, kind in enumerate(("user_started", "heard", "user_ended")):
            screen.show({"type": kind, "text": " once", "tick": 0})
            screen.update(Status(CallFacts("on", "open"), seconds))
    [drawn] = console.drawn
    assert drawn.count("Once") == 1


def press_all(keys: str, is_cut: bool = False) -> tuple[Live, list]:
    async def run():
        session = Slow()
        session.is_cut = is_cut
        state = Live(Recording(), asyncio.Event())
        room = Room(tone(1), state.stop)
        for key in keys:
            await terminal.press(session, room, Watched(), state, key)
        return state, session.sent

    return asyncio.run(run())


def test_keys():
    state, sent = press_all("m\x1b\rhello q\x7fm\r")
    assert state.muted and not state.stop.is_set()
    assert sent == [Stop(), Write("user", "hello m")]
    assert state.recording.transcript().turns()[0].text == " hello m"
    state, _ = press_all(" ")
    assert state.push and state.held
    state, _ = press_all("  ")
    assert state.push and not state.held
    state, _ = press_all("  p")
    assert not state.push
    state, _ = press_all("r")
    assert state.stop.is_set() and state.wants_restart
    state, _ = press_all("q")
    assert state.stop.is_set() and not state.wants_restart


def test_what_cannot_be_sent_is_not_shown_as_said():
    """While the connection is cut a typed line stays in its field."""
    state, sent = press_all("\rhello\r", is_cut=True)
    assert not sent and not state.recording.transcript().turns()
    assert state.typing == Typing("hello")


def test_a_long_line_is_cut_to_what_the_wire_takes():
    _, [sent] = press_all("\r" + "é" * 10_000 + "\r")
    assert sent == Write("user", "é" * 1000)


DEVICES = (("0", "Built-in"), ("3", "USB headset")), (("1", "Speakers"), ("3", "USB headset"))


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ("22", SoundDevices("3", "3")),
        ("1\r", SoundDevices("0", "1")),
        ("\r2", SoundDevices("0", "3")),
        ("9x21", SoundDevices("3", "1")),
        ("2\x1b", None),
        ("d", None),
    ],
)
def test_devices_are_chosen_by_a_key_each(keys, chosen):
    menu = DeviceMenu(*DEVICES, SoundDevices("0", "1"))
    assert "* 1  Built-in" in menu.lines() and "  2  USB headset" in menu.lines()
    for key in keys:
        menu, found = menu.press(key)
    assert menu is None and found == chosen


def test_devices_are_changed_while_the_conversation_goes_on():
    """And those before go on where the new ones cannot be used."""
    library = PortAudio(broken=(3,))

    async def run():
        with SoundCard(library=library) as card:
            view = Watched()
            state = Live(Recording(), asyncio.Event())
            await terminal.press(Slow(), card, view, state, "d")
            assert state.menu.lines()[1] == "* 1  stub"
            for key in "11":
                await terminal.press(Slow(), card, view, state, key)
            assert card.chosen == SoundDevices("0", "0") and not card.is_lost
            card.listed = lambda: DEVICES
            for key in "d22":
                await terminal.press(Slow(), card, view, state, key)
            assert card.chosen == SoundDevices("0", "0") and not card.is_lost
            return view._errors.getvalue()

    notes = asyncio.run(run())
    assert "now: stub / stub, 48000 Hz" in notes and "the devices before go on" in notes


def test_typing_can_be_given_up():
    typing = Typing()
    for key in "\rabc\x1b":
        typing, wanted = typing.press(key)
    assert typing == Typing() and wanted is None
