"""Moshi's bytes: golden messages, and a Moshi client's conversation with a real server."""

import asyncio

import numpy as np
import pytest
from websockets.asyncio.client import connect

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error, Event
from duplex.serving import moshi
from duplex.serving.commands import Write
from duplex.serving.native import messages as native
from duplex.serving.sound import opus
from tests.helpers import drive_server, rest_raw, tone
from tests.tiny_agent import TinyAgent


def test_bytes_are_golden():
    dialect = moshi.Moshi({})
    assert dialect.opened("0123") == [bytes(9)]
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


@pytest.mark.parametrize(
    ("query", "seed"),
    [
        ({"text_seed": "7", "text_temperature": "0.7"}, 7),
        ({"audio_seed": "8"}, 8),
        ({"seed": "9", "text_seed": "7"}, 9),
        ({"seed": "-1", "text_seed": "7"}, 7),
        *[({"text_seed": text}, None) for text in ("", "-1", "x", "²", "9" * 5000)],
    ],
)
def test_seeds_of_the_query(query, seed):
    assert moshi.Moshi(query).start.seed == seed


@pytest.mark.parametrize(
    ("name", "voice"),
    [
        ("NATM1.pt", "oak"),
        ("NATF0.pt", "heart"),
        ("VARM4.pt", "oak"),
        ("voices/VARF2.pt", "heart"),
        ("oak", "oak"),
        ("", None),
        ("MARS.pt", None),
        ("M1", None),
    ],
)
def test_voices_of_personaplex(name, voice):
    assert moshi.Moshi({"voice_prompt": name}).start.voice == voice


@pytest.mark.parametrize(
    ("prompt", "instructions"),
    [
        ("Your name is Tomaz.", "Your name is Tomaz."),
        ("<system> You are kind. <system>", "You are kind."),
        (" ", None),
        ("", None),
    ],
)
def test_text_prompt_is_the_instructions(prompt, instructions):
    assert moshi.Moshi({"text_prompt": prompt}).start.instructions == instructions


def test_typed_turns_are_the_users():
    dialect = moshi.Moshi({})
    assert dialect.receive("\x02Grüße ".encode()) == ([Write("user", "Grüße")], [])
    assert dialect.receive(b"\x02 ") == ([], [])
    with pytest.raises(ProtocolError, match="1000"):
        dialect.receive(b"\x02" + b"x" * 1001)


def test_answers_are_kept_apart():
    dialect = moshi.Moshi({})
    started = Event("agent_started", 1)
    said = [Event("said", 1, "Rome"), Event("said", 1, ".")]
    told = [dialect.tick(np.zeros(0, np.float32), [started, *said]) for _ in range(2)]
    assert told == [[b"\x02 Rome", b"\x02."]] * 2


def test_pages_from_the_middle_of_a_stream_are_skipped_until_a_new_one():
    dialect = moshi.Moshi({})
    old, new = opus.Encoder(), opus.Encoder()
    pages = [old.encode(tone(1)) for _ in range(30)]
    with pytest.raises(ProtocolError, match="header"):
        dialect.receive(b"\x01" + pages[1])
    # It is told once.
    for page in pages[2:]:
        [audio], [] = dialect.receive(b"\x01" + page)
        assert not len(audio.samples)
    heard = [dialect.receive(b"\x01" + new.encode(tone(1)))[0][0].samples for _ in range(5)]
    assert sum(map(len, heard)) >= 4 * TICK_SAMPLES and np.abs(heard[-1]).max() > 0.2


def test_a_new_stream_may_follow_in_the_middle_of_a_message_and_come_in_pieces():
    dialect = moshi.Moshi({})
    first, second = opus.Encoder(), opus.Encoder()
    stream = b"".join(first.encode(tone(1)) for _ in range(4))
    stream += b"".join(second.encode(tone(1)) for _ in range(4))
    for size in (7, 50, len(stream)):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        heard = [dialect.receive(b"\x01" + piece)[0][0].samples for piece in pieces]
        assert sum(map(len, heard)) >= 7 * TICK_SAMPLES


@pytest.mark.slow
def test_client_holds_a_conversation():
    async def test(url, engine):
        encoder, decoder = opus.Encoder(), opus.Decoder()
        async with connect(
            url.replace(native.PATH, moshi.PATH) + "?text_seed=3&text_temperature=0.7"
        ) as connection:
            assert (await connection.recv())[:1] == b"\x00"
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
