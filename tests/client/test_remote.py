"""Sessions on a server: what they are told of the voice that was played."""

import asyncio
import io
import json

import pytest

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.client.display import Display
from duplex.client.remote import RemoteSession
from duplex.client.wav import (
    Question,
    RealTime,
    Script,
    converse,
)
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
