"""Sessions on a server: what they are told of the voice that was played."""

import asyncio
import io
import json

import pytest
from websockets.asyncio.server import serve

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.client.recorded import (
    RealTime,
    Script,
    converse,
)
from duplex.client.remote import RemoteSession
from duplex.client.sound.sound_file import Question
from duplex.client.terminal.display import Display
from duplex.errors import ClientError
from tests.helpers import drive_server, tone
from tests.tiny_agent import TinyAgent


@pytest.mark.slow
def test_server_is_told_what_was_played():
    """The model knows, tick by tick, how much of its voice was heard."""

    async def test(url, engine):
        session = await RemoteSession.open(url)
        script = Script([Question("q", tone(8))])
        recording = await converse(session, script, RealTime(), Display(io.StringIO()))
        told = [ms for kind, _, ms in engine.agent.calls if kind == "set_playback_position"]
        sent_ms = recording.events[-1]["ticks"] * TICK_MS
        assert told == sorted(told) and sent_ms / 2 < told[-1] < sent_ms
        assert len(told) > 20

    drive_server(test, TinyAgent(1))


def test_playback_position_counts_audio_lost_on_the_way():
    """After a lost connection the loudspeaker has had less than was sent; events tell how much."""

    class Wire:
        sent = []
        come = [
            b"\0\0" * TICK_SAMPLES,
            '{"type":"said","tick":0,"text":"a"}',
            '{"type":"said","tick":4,"text":"b"}',
        ]

        async def recv(self):
            return self.come.pop(0)

        async def send(self, message):
            self.sent.append(json.loads(message))

    async def run():
        session = RemoteSession(Wire(), "ws://nowhere", {}, None)
        for _ in range(2):
            await session.get()
        await session.played(80)
        # At tick 4 only one tick of audio had come.
        await session.get()
        await session.played(80)

    asyncio.run(run())
    assert [message["played_ms"] for message in Wire.sent] == [80, 80 + 4 * TICK_MS]


@pytest.mark.parametrize("code", [1001, 1012, 1011])
def test_a_proxy_that_is_restarted_does_not_end_the_session(code):
    """With 1001 and 1012 the client comes back with its token; with another code it is told."""
    asked = []

    async def first_closes(connection):
        asked.append(json.loads(await connection.recv()))
        if len(asked) == 1:
            await connection.send('{"type":"session.created","resume":"token"}')
            await connection.close(code)
        else:
            await connection.send('{"type":"session.resumed"}')
            await connection.send('{"type":"said","tick":0,"text":"here again"}')
            await connection.wait_closed()

    async def run():
        async with serve(first_closes, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            session = await RemoteSession.open(f"ws://127.0.0.1:{port}")
            _, events = await session.get()
            session.drop()
            return events

    (event,) = asyncio.run(run())
    comes_back = code != 1011
    assert [message["type"] for message in asked[1:]] == ["session.resume"] * comes_back
    assert event.get("text") == "here again" if comes_back else event["code"] == "lost"


def test_a_server_that_says_nothing_is_left():
    async def silent(connection):
        await connection.wait_closed()

    async def run():
        async with serve(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await RemoteSession.open(f"127.0.0.1:{port}", patience_s=0.05)

    with pytest.raises(ClientError, match="no session within 0.05 s"):
        asyncio.run(run())
