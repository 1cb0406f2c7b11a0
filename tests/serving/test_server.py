"""The server on a loopback socket with a tiny agent: order, garbage, disconnects, shutdown."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.serving.commands import Start
from duplex.serving.connection import first_commands
from duplex.serving.engine import Engine
from duplex.serving.http.listener import bind
from duplex.serving.http.operation import STATS
from duplex.serving.limits import ClientTerms, ServerLimits
from duplex.serving.native import dialect as native_dialect
from duplex.serving.native import messages as native
from duplex.serving.server import Serving, address
from tests.helpers import PATIENCE_S, Failing, drive_server, next_event, rest, tone
from tests.tiny_agent import TinyAgent

ROOT = Path(__file__).parents[2]
TICK = native.encode_audio(tone(1))
QUIET = native.encode_audio(np.zeros(TICK_SAMPLES, np.float32))


async def send_ticks(connection, messages: list[bytes]) -> None:
    for message in messages:
        await connection.send(message)
        await asyncio.sleep(TICK_S)


def test_conversation_goes_in_order():
    async def test(url, engine):
        async with connect(url) as connection:
            await connection.send(native.encode_start(Start("hello", 3)))
            created = native.decode_server(await connection.recv())
            assert created["type"] == "session.created" and created["tick_ms"] == 80
            sending = asyncio.create_task(send_ticks(connection, [TICK * 6] + [QUIET] * 14))
            ended = await next_event(connection, "agent_ended")
            await sending
            await connection.send(native.encode_end())
            messages = await rest(connection)
        assert messages[-1]["type"] == "session.ended" and messages[-1]["ticks"] > ended["tick"]
        assert connection.close_code == native.CloseCode.ENDED
        return created

    agent = TinyAgent(1)
    drive_server(test, agent)
    assert agent.opened[1:] == [(0, 3, "hello")] and agent.closed[1:] == [0]


def test_audio_comes_every_tick_and_events_keep_their_order():
    async def test(url, engine):
        async with connect(url) as connection:
            await send_ticks(connection, [TICK * 5] + [QUIET] * 17)
            await connection.send(native.encode_end())
            messages = await rest(connection)
        kinds = [
            message["type"]
            for message in messages
            if isinstance(message, dict) and message["type"] != "lag"
        ]
        heard, said = ["user_started", "heard", "heard", "user_ended"], ["said", "spoken"] * 2
        assert kinds == [
            "session.created",
            *heard,
            "agent_started",
            *said,
            "agent_ended",
            "session.ended",
        ]
        audio = [message for message in messages if not isinstance(message, dict)]
        assert all(len(samples) == TICK_SAMPLES for samples in audio)
        assert len(audio) == messages[-1]["ticks"] >= 18
        assert max(np.abs(samples).max() for samples in audio) == pytest.approx(0.15, abs=0.01)

    drive_server(test, TinyAgent(1))


def test_audio_in_odd_pieces_is_one_stream():
    """Messages of any length: the agent hears the same samples as from whole ticks."""

    async def test(url, engine):
        sound = native.encode_audio(tone(5))
        async with connect(url) as connection:
            cuts = [0, 1, 2, 701, 702, 5003, 9998, len(sound)]
            for first, last in zip(cuts, cuts[1:], strict=False):
                await connection.send(sound[first:last])
            await connection.send(QUIET * 3)
            await next_event(connection, "user_ended")
            heard = engine.agent.memory[0, :5].reshape(-1)
            np.testing.assert_array_equal(heard, native.decode_audio(sound))

    drive_server(test, TinyAgent(1))


def test_full_server_has_room_after_a_disconnect():
    async def test(url, engine):
        async with connect(url) as first:
            await first.send(native.encode_start())
            await next_event(first, "session.created")
            async with connect(url) as second:
                await second.send(native.encode_start())
                [error] = await rest(second)
                assert error["code"] == "full" and second.close_code == native.CloseCode.FULL
            await first.send(TICK)
            first.transport.abort()  # the cable is pulled
        for _ in range(1000):
            if not engine.stats()["sessions"]:
                break
            await asyncio.sleep(TICK_S)
        async with connect(url) as third:
            await third.send(QUIET)
            await next_event(third, "session.created")

    drive_server(test, TinyAgent(1), limits=ServerLimits(resume_s=0.2, grace_s=0))


def test_garbage_is_answered_and_the_session_goes_on():
    async def test(url, engine):
        async with connect(url) as connection:
            for garbage in ("hello", '{"type":"session.update"}'):
                await connection.send(garbage)
                assert (await next_event(connection, "error"))["code"] == "bad_message"
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            for garbage in ("{", "[]", native.encode_start()):
                await connection.send(garbage)
                assert (await next_event(connection, "error"))["code"] == "bad_message"
            await connection.send(TICK)
            await next_event(connection, "heard")

    drive_server(test, TinyAgent(1))


class Mute(native_dialect.Native):
    """A dialect in which no message asks for anything."""

    def receive(self, message):
        return [], []


def test_first_message_without_a_command_is_refused_with_a_sentence():
    found = []

    async def handle(connection):
        found.append(await first_commands(connection, Mute(), ServerLimits()))

    async def test():
        async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0) as server:
            async with connect(address(server)) as connection:
                await connection.send("hello")
                [error] = await rest(connection)
                assert error["code"] == "refused"
                assert "begin with a start or audio" in error["text"]
                assert connection.close_code == native.CloseCode.ABUSE
                assert connection.close_reason == error["text"]

    asyncio.run(test())
    assert found == [[]]


def test_abuse_closes_its_connection():
    async def test(url, engine):
        for first in ([], [native.encode_start()]):
            async with connect(url) as connection:
                for message in first + ["garbage"] * ServerLimits().max_bad_messages:
                    await connection.send(message)
                await rest(connection)
                assert connection.close_code == native.CloseCode.ABUSE
        async with connect(url) as connection:
            await connection.send(bytes(ClientTerms.max_message_bytes + 2))
            await rest(connection)
            assert connection.close_code == 1009
        async with connect(url) as connection:  # nobody is left behind
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")

    drive_server(test, TinyAgent(1))


def test_failing_model_is_told():
    agent = Failing(1)

    async def test(url, engine):
        async with connect(url) as connection:
            await connection.send(native.encode_start(Start("impossible")))
            [error] = await rest(connection)
            assert (
                "do not fit" in error["text"] and connection.close_code == native.CloseCode.FAILED
            )
        async with connect(url) as connection:
            await connection.send(TICK)
            await next_event(connection, "session.created")
            agent.broken = "raise"
            messages = [message for message in await rest(connection) if isinstance(message, dict)]
            assert [message["type"] for message in messages][-2:] == ["error", "session.ended"]
            assert (
                messages[-2]["code"] == "model" and connection.close_code == native.CloseCode.FAILED
            )

    drive_server(test, agent)


def test_other_paths_are_pages_or_404():
    async def test(url, engine):
        plain = url.replace("ws://", "http://").removesuffix(native.PATH)
        stats = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(plain + STATS)))
        assert stats["ticks"] == 0 and stats["tick_ms"]["p99"] == 0
        with pytest.raises(InvalidStatus, match="404"):
            await connect(url + "/elsewhere")

    drive_server(test, TinyAgent(1))


def test_shutdown_tells_the_sessions():
    async def run():
        engine = Engine(TinyAgent(1), 1)
        engine.start()
        async with asyncio.timeout(PATIENCE_S):
            async with Serving(engine, bind("127.0.0.1", 0)) as server:
                connection = await connect(address(server))
                await connection.send(native.encode_start())
                await next_event(connection, "session.created")
            messages = [message for message in await rest(connection) if isinstance(message, dict)]
        assert messages[-1]["type"] == "session.ended" and "shutting down" in messages[-1]["text"]
        assert connection.close_code == native.CloseCode.GOING_AWAY
        await asyncio.to_thread(engine.stop)

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_process_cleanly(number):
    program = (
        "from duplex.serving import run; from tests.tiny_agent import TinyAgent;"
        "run.run(TinyAgent, run.ServerConfig(port=0, max_sessions=2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )

    async def talk(url) -> tuple[list, int]:
        async with asyncio.timeout(PATIENCE_S), connect(url) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            os.kill(process.pid, number)
            return await rest(connection), connection.close_code

    try:
        url = re.search(r"ws://\S+", process.stderr.readline())[0]
        messages, code = asyncio.run(talk(url))
        assert messages[-1]["type"] == "session.ended" and code == native.CloseCode.GOING_AWAY
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()


@pytest.mark.parametrize(("code", "is_kept"), [(1001, True), (1012, True), (1000, False)])
def test_session_outlives_a_proxy_that_closes_for_its_own_sake(code, is_kept):
    """Only a client that has finished closes with 1000."""

    async def test(url, engine):
        async with connect(url) as connection:
            await connection.send(native.encode_start())
            token = (await next_event(connection, "session.created"))["resume"]
            await connection.close(code)
        async with connect(url) as again:
            await again.send(native.encode_resume(token, 0))
            first = native.decode_server(await again.recv())
            assert first["type"] == ("session.resumed" if is_kept else "error")

    drive_server(test, TinyAgent(1))
