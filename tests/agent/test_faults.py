"""Faults stay inside the session that has them: a bystander gets what an undisturbed run gives."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from duplex.agent import AgentConfig, TurnPolicy
from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.client.remote import RemoteSession
from duplex.errors import ProtocolError
from duplex.serving.commands import Start
from duplex.serving.dialect import DIALECTS
from duplex.serving.limits import ServerLimits
from duplex.serving.native import messages as native
from duplex.serving.sound import opus
from tests.helpers import PATIENCE_S, HandClock, beat, drive_engine, next_event, rest, tone
from tests.helpers import drive_server as drive
from tests.tiny_agent import TinyAgent
from tests.tiny_speech_agent import tiny_agent

PATHS = tuple(DIALECTS)
ROOT = Path(__file__).parents[2]
# Seconds that both ends wait for a farewell from one who reads no more.
FAREWELL_S = 0.2
LIMITS = ServerLimits(grace_s=0, farewell_s=FAREWELL_S)
QUIET = native.encode_audio(np.zeros(TICK_SAMPLES, np.float32))


async def bystander(url: str) -> None:
    """Asks, and hears the whole answer: four ticks of its own voice, unbroken."""
    async with connect(url) as connection:
        await connection.send(native.encode_start())
        await next_event(connection, "session.created")
        await connection.send(native.encode_audio(tone(4)) + 4 * QUIET)  # no more than may wait
        sound, speaking = [], False
        while True:
            message = native.decode_server(await connection.recv())
            if isinstance(message, dict):
                speaking |= message["type"] == "agent_started"
                if message["type"] == "agent_ended":
                    break
            elif np.abs(message).max() > 0:
                sound.append(message)
    # the answer is the question: loud ticks at half the level, one after the other
    np.testing.assert_allclose(np.concatenate(sound), 0.5 * tone(4), atol=1e-4)


async def settled(engine) -> None:
    """Until nobody is left."""
    for _ in range(10_000):
        if not engine.stats()["sessions"]:
            return
        await asyncio.sleep(TICK_S)


async def ended(tasks: int) -> None:
    """Until no more tasks are left than these; raises AssertionError if some never end."""
    for _ in range(1000):
        if len(asyncio.all_tasks()) <= tasks:
            return
        await asyncio.sleep(TICK_S)
    raise AssertionError(f"{len(asyncio.all_tasks())} tasks, {tasks} before")


@settings(max_examples=5)
@given(st.lists(st.binary(max_size=200) | st.text(max_size=100), min_size=100, max_size=120))
def test_random_messages_on_every_path(messages):
    """Hundreds of messages a path; each is answered or closed, and the next client is served."""

    async def test(url, engine):
        for path in PATHS:
            with contextlib.suppress(ConnectionClosed):
                place = url.replace(native.PATH, path)
                async with connect(place, close_timeout=FAREWELL_S) as connection:
                    for prefix, message in zip(
                        (b"", b"\x01", b"\x01OggS") * 40, messages, strict=False
                    ):
                        await connection.send(
                            prefix + message if isinstance(message, bytes) else message
                        )
            await settled(engine)
        assert engine.stats()["model_errors"] == 0

    drive(test, TinyAgent(1), limits=LIMITS)


@given(
    st.lists(st.binary(max_size=300), max_size=20),
    st.integers(0, 2000),
    st.binary(min_size=1, max_size=8),
)
def test_no_bytes_break_the_opus_decoder(pieces, at, noise):
    decoder, encoder = opus.Decoder(), opus.Encoder()
    good = encoder.encode(tone(1)) + encoder.encode(tone(1))
    bad = good[: at % len(good)] + noise + good[at % len(good) + len(noise) :]
    for piece in [bad, *pieces, good]:
        try:
            assert np.isfinite(decoder.decode(piece)).all()
        except ProtocolError as error:
            assert "\n" not in str(error)


def test_bystanders_hear_on_while_others_misbehave():
    """One never reads, one sends ten times too fast, some are half open, some vanish."""

    async def never_reads(url):
        connection = await connect(url, max_queue=1)
        connection.transport.pause_reading()
        await connection.send(native.encode_start())
        return connection

    async def too_fast(url):
        async with connect(url, close_timeout=FAREWELL_S) as connection:
            await connection.send(native.encode_start())
            for _ in range(20):
                await connection.send(native.encode_audio(tone(10)))
                await asyncio.sleep(TICK_S)

    async def vanishes(url):
        host, port = re.match(r"ws://(.+):(\d+)/", url).groups()
        for start in (b"", b"GET /v1/duplex HTTP/1.1\r\nHost: x\r\n"):
            _, writer = await asyncio.open_connection(host, port)
            writer.write(start)
            await writer.drain()
            writer.transport.abort()
        for path in PATHS:
            for messages in ([], [QUIET], [native.encode_start(), QUIET]):
                connection = await connect(url.replace(native.PATH, path))
                for message in messages:
                    await connection.send(message)
                connection.transport.abort()
                await asyncio.sleep(TICK_S)

    async def test(url, engine):
        silent = [await never_reads(url)]
        fast = asyncio.create_task(too_fast(url))
        gone = asyncio.create_task(vanishes(url))
        await asyncio.gather(bystander(url), bystander(url))
        await gone
        await fast
        assert engine.stats()["dropped_ms"] > 0 and engine.stats()["model_errors"] == 0
        for connection in silent:
            connection.transport.abort()

    drive(test, TinyAgent(16), limits=LIMITS)


def test_200_clients_come_and_go_and_leave_nothing():
    async def test(url, engine):
        tasks = len(asyncio.all_tasks())
        for number in range(200):
            async with connect(url.replace(native.PATH, PATHS[number % len(PATHS)])) as connection:
                if number % 2:
                    await connection.send(native.encode_start())
                if number % 3 == 0:
                    await connection.send(native.encode_end())
        await ended(tasks)  # one that has gone may still be about to be let in
        await settled(engine)
        await bystander(url)
        await settled(engine)
        await ended(tasks)
        assert engine.stats()["model_errors"] == 0

    threads = threading.active_count()
    drive(test, TinyAgent(4))
    assert threading.active_count() <= threads


def test_too_much_in_too_short_a_time_is_closed():
    async def test(url, engine):
        async with connect(url) as connection:
            await connection.send(native.encode_start())
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await connection.send(bytes(1 << 20))
            assert connection.close_code == native.CloseCode.ABUSE
        await settled(engine)

    drive(test, TinyAgent(1))


def test_a_lost_connection_is_taken_up_again_without_losing_an_event():
    async def test(url, engine):
        session = await RemoteSession.open(url)
        await session.push(tone(8))
        got = []
        while not got or got[-1]["type"] != "heard":
            got += (await session.get())[1]
        session._connection.transport.abort()  # the cable is pulled
        while got[-1]["type"] != "agent_ended":
            got += (await session.get())[1]
            await session.push(np.zeros(TICK_SAMPLES, np.float32))
        kinds = [event["type"] for event in got if event["type"] != "lag"]
        assert kinds == [
            "user_started",
            "heard",
            "heard",
            "user_ended",
            "agent_started",
            *["said", "spoken"] * 2,
            "agent_ended",
        ]
        await session.close()
        while await session.get():
            pass
        assert engine.stats()["sessions_opened"] == 1
        again = await connect(url)
        await again.send(native.encode_resume(session._token, 3))  # the session is over
        assert (await rest(again))[0]["code"] == "gone"

    drive(test, TinyAgent(1))


@pytest.mark.slow
def test_sigterm_lets_an_answer_finish():
    program = (
        "from duplex.serving import run; from tests.tiny_agent import TinyAgent;"
        "run.run(TinyAgent, run.ServerConfig(port=0, max_sessions=2,"
        "server=run.ServerLimits(grace_s=60)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )

    async def talk(url) -> list:
        async with asyncio.timeout(PATIENCE_S), connect(url) as connection:
            await connection.send(native.encode_audio(tone(4)) + 4 * QUIET)
            await next_event(connection, "agent_started")
            os.kill(process.pid, signal.SIGTERM)
            return await rest(connection)

    try:
        url = re.search(r"ws://\S+", process.stderr.readline())[0]
        messages = asyncio.run(talk(url))
        kinds = [message["type"] for message in messages if isinstance(message, dict)]
        assert "session.ending" in kinds and kinds[-2:] == ["agent_ended", "session.ended"]
        loud = [
            message
            for message in messages
            if not isinstance(message, dict) and np.abs(message).max() > 0.01
        ]
        assert len(loud) == 3  # what was left of the answer, whole
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.stderr.close()


@pytest.mark.parametrize("fault", ["decision", "input"])
def test_a_part_of_the_real_agent_that_raises_ends_one_session_and_moves_no_sample_of_the_others(
    fault,
):
    """In one of two runs slot 1 cannot decide, or be fed what it decided, from its tick 12 on."""
    noise = np.random.default_rng(0).normal(0, 0.2, (30, TICK_SAMPLES)).astype(np.float32)
    runs = []

    def run(broken: bool) -> None:
        config = AgentConfig(cancel_echo=False, temperature=1.0)
        agent = tiny_agent(2, TurnPolicy(symbols_per_tick=2), config)
        got = []
        verify = agent.decoder.verify

        def fails(slot, session, *given):
            again = verify(slot, session, *given)
            if broken and slot == 1 and session.tick >= 12:
                if fault == "decision":
                    raise RuntimeError("no more memory")
                session.inputs.pending = [10**9]  # no such symbol
            return again

        agent.decoder.verify = fails

        async def test(engine):
            first, second = await engine.open(Start(seed=1)), await engine.open(Start(seed=2))
            while engine.agent.is_prefilling(1):
                first.push(0 * noise[0])
                await beat(engine.clock, first)
            for tick in noise:
                first.push(tick)
                second.push(tick[::-1])
                got.extend(await beat(engine.clock, first))
            if broken:
                told = []
                while (tick := await second.get()) is not None:
                    told += tick[1]
                assert [event.kind for event in told][-2:] == ["error", "session.ended"]
                assert engine.stats()["model_errors"] == 1

        drive_engine(test, agent, HandClock())
        runs.append(got)

    run(False)
    run(True)
    for (audio, events), (audio_too, events_too) in zip(*runs, strict=True):
        np.testing.assert_array_equal(audio, audio_too)
        assert events == events_too
