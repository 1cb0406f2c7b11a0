"""Moshi's bytes: golden messages, and a Moshi client's conversation with a real server."""

import asyncio

import numpy as np
import pytest
from websockets.asyncio.client import connect

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error, Event
from duplex.serving import moshi, native, opus
from tests.helpers import drive_server, rest_raw, tone
from tests.tiny_agent import TinyAgent


def test_bytes_are_golden():
    dialect = moshi.Moshi({})
    assert dialect.opened("0123") == [b"\x00"]
    audio, *text = dialect.tick(
        np.zeros(TICK_SAMPLES, np.float32), [Event("said", 3, " café"), Event("heard", 3, " no")]
    )
    assert audio[:5] == b"\x01OggS" and b"OpusHead" in audio and b"OpusTags" in audio
    assert text == [b"\x02 caf\xc3\xa9"]
    assert dialect.tick(np.zeros(TICK_SAMPLES, np.float32), [])[0][:5] == b"\x01OggS"
    assert dialect.refused(Error("full", "no place")) == [b"\x05no place"]


@pytest.mark.parametrize("message", [b"", b"\x03\x00", b"\x06", b"\x04{}", b"\xff\xff", b"\x01"])
def test_unknown_kinds_are_ignored(message):
    commands, replies = moshi.Moshi({}).receive(message)
    assert not replies and all(len(command.samples) == 0 for command in commands)


def test_garbage_is_one_sentence():
    for message in ("text", b"\x01garbage" * 9, b"\x01" + bytes(opus.MAX_BYTES + 1)):
        with pytest.raises(ProtocolError):
            moshi.Moshi({}).receive(message)


def test_only_the_seed_of_the_query_counts():
    assert moshi.Moshi({"text_seed": "7", "text_temperature": "0.7"}).start.seed == 7
    for seed in ("", "-1", "x", "²", "9" * 5000):
        assert moshi.Moshi({"text_seed": seed}).start.seed is None


@pytest.mark.slow
def test_client_holds_a_conversation():
    async def test(url, engine):
        encoder, decoder = opus.Encoder(), opus.Decoder()
        async with connect(
            url.replace(native.PATH, moshi.PATH) + "?text_seed=3&text_temperature=0.7"
        ) as connection:
            assert await connection.recv() == b"\x00"
            for tick in np.concatenate([tone(8), np.zeros(16 * TICK_SAMPLES, np.float32)]).reshape(
                -1, TICK_SAMPLES
            ):
                await connection.send(b"\x01" + encoder.encode(tick))
                await asyncio.sleep(TICK_S)
            engine.close_all("enough")
            messages = await rest_raw(connection)
        sound = np.concatenate([decoder.decode(m[1:]) for m in messages if m[:1] == b"\x01"])
        text = b"".join(m[1:] for m in messages if m[:1] == b"\x02").decode()
        assert text.startswith(" echo0 echo1") and {m[:1] for m in messages} == {b"\x01", b"\x02"}
        assert np.abs(sound).max() > 0.1 and len(sound) >= 15 * TICK_SAMPLES

    agent = TinyAgent(1)
    drive_server(test, agent)
    assert agent.opened[1][1] == 3
