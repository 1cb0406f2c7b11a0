"""Telephone calls: Twilio's frames as its documentation has them, and a call on a real server."""

import asyncio
import base64
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from duplex.audio import TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error, Event
from duplex.serving import twilio
from duplex.serving.commands import (
    Configure,
    End,
    Hint,
    SetPlaybackPosition,
    SetVoice,
    Write,
)
from duplex.serving.native import messages as native
from duplex.serving.sound import g711
from tests.helpers import QUIET, drive_server, tone
from tests.tiny_agent import TinyAgent

FRAMES = {
    frame["event"]: frame
    for frame in json.loads((Path(__file__).parent / "twilio.json").read_text(encoding="utf-8"))
}
STREAM = FRAMES["start"]["streamSid"]
# Bytes of one frame: 20 ms.
FRAME_BYTES = 160


def media(codes: bytes) -> dict:
    """A frame of the caller's voice."""
    payload = base64.b64encode(codes).decode()
    return FRAMES["media"] | {"media": FRAMES["media"]["media"] | {"payload": payload}}


class Line:
    """A call that has begun; objects in, objects out."""

    def __init__(self):
        self.dialect = twilio.Twilio()
        self.receive(FRAMES["connected"])
        self.begun = self.receive(FRAMES["start"])

    def receive(self, frame: dict) -> list:
        commands, replies = self.dialect.receive(json.dumps(frame))
        assert not replies
        return commands

    def press(self, key: str) -> list:
        return self.receive(FRAMES["dtmf"] | {"dtmf": {"digit": key}})

    def mark(self, name: str) -> list:
        return self.receive(FRAMES["mark"] | {"mark": {"name": name}})

    def tick(self, *events, audio=QUIET) -> list[dict]:
        messages = [json.loads(message) for message in self.dialect.tick(audio, list(events))]
        assert all(message["streamSid"] == STREAM for message in messages)
        return messages


def test_parameters_set_the_session():
    assert Line().begun == [
        Configure("You answer for the bakery."),
        SetVoice("heart", 1.2),
        Hint(("rye bread", "Zorblax")),
    ]


def test_the_callers_voice_is_heard():
    line = Line()
    sound = tone(2)[::3]
    codes = g711.compress(sound, "audio/pcmu")
    heard = [
        command.samples
        for k in range(0, len(codes), FRAME_BYTES)
        for command in line.receive(media(codes[k : k + FRAME_BYTES]))
    ]
    assert sum(map(len, heard)) == 2 * TICK_SAMPLES
    assert np.abs(np.concatenate(heard)).max() == pytest.approx(0.3, abs=0.02)
    outbound = media(codes)
    outbound["media"]["track"] = "outbound"
    assert line.receive(outbound) == []


def test_voice_is_sent_while_there_is_one():
    """80 ms a message with its mark; silence between the turns lets the telephone catch up."""
    line = Line()
    assert line.tick() == []
    begun = line.tick(Event("agent_started", 1), audio=tone(1))
    assert [message["event"] for message in begun] == ["media", "mark"]
    assert len(base64.b64decode(begun[0]["media"]["payload"])) == 4 * FRAME_BYTES
    assert begun[1]["mark"]["name"] == "160"
    # A pause inside the turn goes, and so does the end of the last word.
    assert len(line.tick()) == 2
    assert len(line.tick(Event("agent_ended", 3), audio=tone(1))) == 2
    assert len(line.tick()) == 2
    assert line.tick() == []


def test_marks_tell_what_was_played_but_not_what_was_cleared():
    line = Line()
    line.tick(Event("agent_started", 0), audio=tone(1))
    line.tick(audio=tone(1))
    assert line.mark("80") == [SetPlaybackPosition(80)]
    cleared = line.tick(Event("agent_stopped", 2, " rest"))
    assert cleared[0] == {"event": "clear", "streamSid": STREAM}
    # Twilio answers the marks of what it threw away.
    assert line.mark("160") == []
    line.tick(Event("agent_started", 3), audio=tone(1))
    assert line.mark("320") == [SetPlaybackPosition(320)]
    for name in ("", "hello", "²", "-80", "9" * 5000):
        assert line.mark(name) == []


def test_keys_become_a_text():
    line = Line()
    assert [line.press(key) for key in "12"] == [[], []]
    assert line.press("#") == [Write("user", "1 2")]
    line.press("7")
    for _ in range(24):
        line.tick()
        assert line.dialect.take_due() == []
    line.tick()
    assert line.dialect.take_due() == [Write("user", "7")]
    assert line.dialect.take_due() == []


def test_the_end_of_the_call_ends_the_session():
    assert Line().receive(FRAMES["stop"]) == [End()]


def test_errors_are_told_in_the_log(caplog):
    """Twilio ends a call at a message that it does not know."""
    line = Line()
    with caplog.at_level(logging.WARNING):
        assert line.dialect.refused(Error("full", "no place")) == []
        assert line.tick(Event("said", 3, " hi"), Error("model", "it is broken")) == []
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "no place",
        "it is broken",
    ]


def test_parameters_that_cannot_be_leave_the_rest_in_force(caplog):
    parameters = {"voice": "nobody", "speed": "fast", "hints": 3, "instructions": "hello"}
    call = json.dumps({"event": "start", "start": {"customParameters": parameters}})
    commands, _ = twilio.Twilio().receive(call)
    assert commands == [Configure("hello")]
    for name in ("voice", "speed", "hints"):
        assert f"parameter {name} is passed over" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        b"\x00",
        "",
        "[]",
        '{"event": "media"}',
        '{"event": "media", "media": {"payload": "%%%"}}',
        '{"event": "media", "media": {"payload": 3}}',
        '{"event": "start", "start": {"mediaFormat": {"encoding": "audio/mp3"}}}',
        '{"event": "start", "start": {"customParameters": 3}}',
        '{"event": "dtmf", "dtmf": {"digit": "10"}}',
        '{"event": "dtmf", "dtmf": {}}',
        '{"event": "mark", "mark": 3}',
    ],
)
def test_garbage_is_one_sentence(message):
    with pytest.raises(ProtocolError) as caught:
        twilio.Twilio().receive(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.slow
def test_a_call_on_a_server():
    """Frames of 20 ms in bursts of five; the caller interrupts, and the telephone is cleared."""
    loud = g711.compress(tone(6)[::3], "audio/pcmu")
    quiet = g711.compress(np.zeros(8_000), "audio/pcmu")
    sound = loud + quiet[:3200] + loud + quiet

    async def speak(connection):
        for k in range(0, len(sound), 5 * FRAME_BYTES):
            for place in range(k, k + 5 * FRAME_BYTES, FRAME_BYTES):
                await connection.send(json.dumps(media(sound[place : place + FRAME_BYTES])))
            await asyncio.sleep(0.1)
        await connection.send(json.dumps(FRAMES["stop"]))

    async def test(url, engine):
        found = []
        async with connect(url.replace(native.PATH, twilio.PATH)) as connection:
            for name in ("connected", "start"):
                await connection.send(json.dumps(FRAMES[name]))
            speaking = asyncio.create_task(speak(connection))
            try:
                while True:
                    message = json.loads(await connection.recv())
                    found.append(message)
                    if message["event"] == "mark":
                        await connection.send(json.dumps(FRAMES["mark"] | message))
            except ConnectionClosed:
                pass
            await speaking
        assert connection.close_code == native.CloseCode.ENDED
        names = [message["event"] for message in found]
        assert names.count("clear") == 1 and names[-1] == "mark"
        voice = b"".join(
            base64.b64decode(message["media"]["payload"])
            for message in found
            if message["event"] == "media"
        )
        assert np.abs(g711.expand(voice, "audio/pcmu")).max() == pytest.approx(0.15, abs=0.02)

    agent = TinyAgent(1)
    drive_server(test, agent)
    assert agent.opened[-1][2] == "You answer for the bakery."
    played = [call[2] for call in agent.calls if call[0] == "set_playback_position"]
    assert played and played == sorted(played)
