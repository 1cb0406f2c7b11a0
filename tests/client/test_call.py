"""Calls from Python: against a scripted session, an agent in this process, and as README has it."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from duplex.audio import TICK_SAMPLES
from duplex.client import connect
from duplex.client.call import Call, Voice
from duplex.client.sound.samples import to_samples
from duplex.errors import ClientError, ProtocolError
from duplex.events import Ended, Error, Event
from duplex.serving.commands import (
    Answer,
    Configure,
    SetPlaybackPosition,
    SetVoice,
    Stop,
    Write,
)
from tests.helpers import drive_server, tone
from tests.tiny_agent import TinyAgent

ROOT = Path(__file__).parents[2]
ENDED = {"type": "session.ended", "text": "over", "ticks": 3, "new_field": 1}
NOTHING = np.zeros(0, np.float32)


class Scripted:
    """A session that says what it is told to, and keeps what is done to it."""

    def __init__(self, *ticks):
        self.ticks = asyncio.Queue()
        for tick in ticks:
            self.ticks.put_nowait(tick)
        self.pushed = []
        self.sent = []
        self.is_dropped = False
        self.came = asyncio.Event()

    async def push(self, samples):
        self.pushed.append(samples)
        self.came.set()

    async def pushes(self, is_enough):
        """Wait until enough has been pushed."""
        while not is_enough(self.pushed):
            self.came.clear()
            await self.came.wait()

    async def send(self, command):
        self.sent.append(command)

    async def get(self):
        return await self.ticks.get()

    async def close(self):
        self.ticks.put_nowait(None)

    def drop(self):
        self.is_dropped = True


def call_with(script, *ticks):
    """Run an async script with a call and its session, and hang up."""

    async def run():
        session = Scripted(*ticks)
        call = Call(session)
        try:
            async with asyncio.timeout(20):
                await script(call, session)
        finally:
            await call.hang_up()
        return session

    return asyncio.run(run())


def test_events_come_as_records_in_order():
    async def script(call, session):
        events = [event async for event in call]
        voice, said, refused, ended = events
        assert isinstance(voice, Voice) and voice.samples.shape == (TICK_SAMPLES,)
        assert said == Event("said", 2, " hello", end_ms=240)
        assert refused == Error("refused", "that cannot be")
        assert ended == Ended("over", 3, 0, 0, 0, 0)
        # Whoever asks once more is told once more, and nothing can be said any longer.
        assert [event async for event in call] == []
        for late in (call.say(tone(1)), call.write("hi"), call.stop()):
            with pytest.raises(ClientError, match=r"the call is over \(over\); connect anew"):
                await late

    said = {"type": "said", "tick": 2, "text": " hello", "end_ms": 240}
    refused = {"type": "error", "code": "refused", "text": "that cannot be"}
    call_with(script, (tone(1), [said]), (NOTHING, [refused, ENDED]), None)


@pytest.mark.parametrize("code", ["lost", "model"])
def test_a_failure_is_raised(code):
    async def script(call, session):
        with pytest.raises(ClientError, match="the cable is cut"):
            async for _ in call:
                pass

    error = {"type": "error", "code": code, "text": "the cable is cut"}
    call_with(script, (NOTHING, [error]), None)


def test_what_is_said_goes_whole_and_silence_around_it():
    sound = tone(2)[:-100]

    async def script(call, session):
        await asyncio.gather(call.say(sound[:3000]), call.say(sound[3000:]))
        await session.pushes(lambda ticks: np.any(ticks) and not np.any(ticks[-1]))

    pushed = call_with(script).pushed
    assert {len(tick) for tick in pushed} == {TICK_SAMPLES}
    heard = np.concatenate(pushed)
    begin = int(np.flatnonzero(heard)[0])
    said = sound[int(np.flatnonzero(sound)[0]) :]
    np.testing.assert_array_equal(heard[begin : begin + len(said)], said)
    assert not heard[:begin].any() and not heard[begin + len(said) :].any()


def test_who_is_cancelled_falls_silent():
    async def script(call, session):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.say(tone(1000)), 0.2)
        before = len(session.pushed)
        await session.pushes(lambda ticks: len(ticks) >= before + 3)
        assert not np.any(session.pushed[before + 1 :])

    call_with(script)


def test_the_other_calls_are_commands():
    async def script(call, session):
        await call.write("Hello")
        await call.write("The shop is closed.", role="system")
        await call.stop()
        await call.answer()
        await call.instruct("Be brief.")
        await call.played(240)
        await call.do(SetVoice("oak", 1.2))

    assert call_with(script).sent == [
        Write("user", "Hello"),
        Write("system", "The shop is closed."),
        Stop(),
        Answer(),
        Configure("Be brief."),
        SetPlaybackPosition(240),
        SetVoice("oak", 1.2),
    ]


def test_a_server_that_says_no_more_is_left():
    async def run():
        session = Scripted()

        async def close():
            """It is asked to end and does not."""

        session.close = close
        await Call(session).hang_up(patience_s=0.01)
        return session

    assert asyncio.run(run()).is_dropped


def test_whoever_reads_late_is_told_the_end():
    """The oldest goes where too much waits."""

    async def run():
        session = Scripted(*[(tone(1), [])] * 3, None)
        call = Call(session, max_unread=3)
        async with asyncio.timeout(20):
            await asyncio.wait([call._receiving])
            events = [event async for event in call]
        await call.hang_up()
        return events

    assert len(asyncio.run(run())) == 2


@pytest.mark.parametrize(
    "wave, expected",
    [
        ([0.5, -0.5], [0.5, -0.5]),
        (np.array([16384, -16384], np.int16), [0.5, -0.5]),
        (b"\x00\x40\x00\xc0", [0.5, -0.5]),
        (np.array([[0.5, 0.0], [1.0, 0.0], [0.0, 0.0]]), [0.25, 0.5, 0.0]),
        (np.array([[0.5, 1.0, 0.0]], np.float32), [0.5, 1.0, 0.0]),
        (torch.tensor([0.5], requires_grad=True), [0.5]),
        (torch.tensor([[0.5, 0.0]], dtype=torch.bfloat16), [0.5, 0.0]),
        (torch.tensor([16384], dtype=torch.int16), [0.5]),
        ([np.nan, 0.5], [0.0, 0.5]),
        ([], []),
        (b"", []),
    ],
)
def test_any_sound_becomes_samples(wave, expected):
    samples = to_samples(wave)
    assert samples.dtype == np.float32 and samples.tolist() == expected


def test_sound_of_another_rate_keeps_its_length():
    assert len(to_samples(np.zeros(8_000), 8_000)) == 24_000


@pytest.mark.parametrize(
    "wave, rate, sentence",
    [
        (np.zeros(5, np.uint8), 24_000, "floats in"),
        (np.zeros((2, 2, 2)), 24_000, r"\[N\]"),
        (np.zeros(5), 0, "samples a second"),
        (np.zeros(5), "high", "samples a second"),
    ],
)
def test_what_is_no_sound_is_one_sentence(wave, rate, sentence):
    with pytest.raises(ClientError, match=sentence):
        to_samples(wave, rate)


@pytest.mark.parametrize("options", [{"speed": 9}, {"voice": "nobody"}, {"volume": 3}])
def test_options_that_cannot_be_are_told_before_anything_is_opened(options):
    async def run():
        async with connect("ws://127.0.0.1:9", **options):
            pass

    with pytest.raises(ProtocolError):
        asyncio.run(run())


async def converse(target) -> list:
    """One exchange: its events."""
    async with connect(target, instructions="Rosie", hints=["Paris"], seed=5) as call:
        await call.write("Hello")
        await call.say(tone(4))
        events = []
        async for event in call:
            events.append(event)
            if event.kind == "agent_ended":
                return events


@pytest.mark.slow
@pytest.mark.parametrize("is_remote", [False, True])
def test_a_call_with_an_agent_here_or_on_a_server(is_remote):
    """The same events both ways."""
    agent = TinyAgent(1)
    found = []
    if is_remote:

        async def test(url, engine):
            found.extend(await converse(url))

        drive_server(test, agent)
    else:
        found.extend(asyncio.run(converse(agent)))
    words = [event.text for event in found if event.kind == "said"]
    voice = np.concatenate([event.samples for event in found if isinstance(event, Voice)])
    assert words == [" Rosie", " echo0"] and 0.1 < np.abs(voice).max() < 0.2
    assert agent.opened[-1] == (0, 5, "Rosie")
    assert [call[0] for call in agent.calls] == ["hint", "write"]


def test_functions_of_a_program_are_offered_in_a_call():
    def now() -> str:
        """The time."""
        return "noon"

    async def talk(agent) -> None:
        async with connect(agent, tools=[now]) as call:
            async for event in call:
                if isinstance(event, Voice) and agent.calls:
                    break

    agent = TinyAgent(1)
    asyncio.run(talk(agent))
    [offered] = [call for call in agent.calls if call[0] == "set_tools"]
    assert offered[2][0]["name"] == "now" and offered[3] == "auto"


@pytest.mark.slow
def test_a_call_goes_on_after_a_cut():
    async def test(url, engine):
        async with connect(url) as call:
            await call.say(tone(4))
            call._session.drop()
            async for event in call:
                if event.kind == "agent_ended":
                    break
            await call.say(tone(4))
            words = []
            async for event in call:
                words += [event.text] if event.kind == "heard" else []
                if event.kind == "agent_ended":
                    break
        assert words == [" word0"] and engine.stats()["sessions_opened"] == 1

    drive_server(test, TinyAgent(1))


@pytest.mark.slow
def test_a_server_without_a_place_says_so():
    async def test(url, engine):
        async with connect(url):
            with pytest.raises(ClientError, match="1 places are taken"):
                async with connect(url):
                    pass

    drive_server(test, TinyAgent(1))


@pytest.mark.slow
def test_readme_is_right(server_url, monkeypatch, capsys):
    """Its lines as they stand there, but for the port."""
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## From Python\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^    (.*)$|^$", section, re.MULTILINE)
    code = "\n".join(lines)
    assert "ws://localhost:8765" in code
    exec(code.replace("ws://localhost:8765", server_url), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "said  Your name is Rosie." in printed and "heard  word0" in printed
