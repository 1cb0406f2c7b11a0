"""The dialect of the wire: golden messages, and what happens to everything that is not in the table."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplex.errors import ProtocolError
from duplex.events import Ended, Ending, Error, Event, Lag
from duplex.serving import native as protocol
from duplex.serving.commands import Answer, Resume, SetPlaybackPosition, Start, Stop, Write

GOLDEN = json.loads((Path(__file__).parents[1] / "wire.json").read_text(encoding="utf-8"))

SERVER_TEXT = {
    "created": lambda: protocol.encode_object(protocol.created("0123456789ab")),
    "user_started": lambda: protocol.encode_event(Event("user_started", 12)),
    "heard": lambda: protocol.encode_event(Event("heard", 17, " café")),
    "corrected": lambda: protocol.encode_event(Event("corrected", 29, " the café")),
    "user_ended": lambda: protocol.encode_event(Event("user_ended", 30)),
    "agent_started": lambda: protocol.encode_event(Event("agent_started", 33)),
    "said": lambda: protocol.encode_event(Event("said", 33, "The")),
    "spoken": lambda: protocol.encode_event(Event("spoken", 34, "The", 2720, 2880)),
    "agent_ended": lambda: protocol.encode_event(Event("agent_ended", 60)),
    "agent_stopped": lambda: protocol.encode_event(Event("agent_stopped", 50, " is Paris.")),
    "lag": lambda: protocol.encode_event(
        Lag(61, silence_ms=160, dropped_ms=0, late_ticks=1, unread_ticks=0)
    ),
    "error": lambda: protocol.encode_event(Error("full", "all 4 places are taken")),
    "created_to_resume": lambda: protocol.encode_object(protocol.created("0123456789ab", "abc")),
    "resumed": lambda: protocol.Native().resumed("0123456789ab", 0)[0].replace("0}", "2}"),
    "ending": lambda: protocol.encode_event(Ending("the server is shutting down", 10_000)),
    "ended": lambda: protocol.encode_event(Ended("closed by the client", 99, 160, 0, 1, 0)),
}
CLIENT_TEXT = {
    "start": lambda: protocol.encode_start(),
    "start_with_options": lambda: protocol.encode_start(Start("Be brief.", 7)),
    "start_opus": lambda: protocol.encode_start(Start(temperature=0.7, audio="opus")),
    "resume": lambda: protocol.encode_resume("abc", 17),
    "playback": lambda: protocol.encode_playback(2400),
    "stop": lambda: protocol.encode_object({"type": "agent.stop"}),
    "answer": lambda: protocol.encode_object({"type": "agent.answer"}),
    "text": lambda: protocol.encode_object({"type": "text", "text": "What time is it?"}),
    "end": lambda: protocol.encode_end(),
}


def test_golden_audio():
    for entry in GOLDEN["audio"]:
        samples = np.array(entry["samples"], np.float32)
        assert protocol.encode_audio(samples).hex() == entry["hex"], entry
    assert protocol.encode_audio(np.array([np.nan, np.inf, -np.inf])).hex() == "0000ff7f0080"


@pytest.mark.parametrize("name", SERVER_TEXT)
def test_golden_server_text(name):
    assert SERVER_TEXT[name]() == GOLDEN["server"][name]
    assert protocol.decode_server(GOLDEN["server"][name]) == json.loads(GOLDEN["server"][name])


@pytest.mark.parametrize("name", CLIENT_TEXT)
def test_golden_client_text(name):
    assert CLIENT_TEXT[name]() == GOLDEN["client"][name]


def test_every_golden_message_is_tested():
    assert set(GOLDEN["server"]) == set(SERVER_TEXT) and set(GOLDEN["client"]) == set(CLIENT_TEXT)


def test_client_messages_are_read_back():
    assert protocol.decode_client(protocol.encode_start(Start("Be brief.", 7))) == Start(
        "Be brief.", 7
    )
    assert protocol.decode_client(protocol.encode_start()) == Start()
    assert protocol.decode_client(protocol.encode_start(Start(voice="oak", speed=1.2))) == Start(
        voice="oak", speed=1.2
    )
    assert protocol.decode_client(protocol.encode_end()) == protocol.End()
    for name, command in {
        "start_opus": Start(temperature=0.7, audio="opus"),
        "resume": Resume("abc", 17),
        "playback": SetPlaybackPosition(2400),
        "stop": Stop(),
        "answer": Answer(),
        "text": Write("user", "What time is it?"),
    }.items():
        assert protocol.decode_client(GOLDEN["client"][name]) == command


def test_a_client_that_comes_back_gets_what_it_missed():
    kept = 50
    native = protocol.Native(max_missed_events=kept)
    native.receive(protocol.encode_start())
    sent = []
    for tick in range(5):
        sent += native.tick(np.zeros(4, np.float32), [Event("heard", tick, f" w{tick}")])[1:]
    for received in range(6):
        answer, *missed = native.resumed("0123456789ab", received)
        assert json.loads(answer) == {
            "type": "session.resumed",
            "id": "0123456789ab",
            "missed": 5 - received,
        }
        assert missed == sent[received:]
    assert native.resumed("0123456789ab", 6) is None
    for tick in range(kept):
        native.tick(np.zeros(0, np.float32), [Event("heard", tick, "x")])
    assert native.resumed("0123456789ab", 4) is None
    assert len(native.resumed("0123456789ab", 5)) == kept + 1


def test_order_of_native_messages():
    native = protocol.Native()
    for early in ("playback", "stop", "answer", "text"):
        with pytest.raises(ProtocolError, match="not open yet"):
            native.receive(GOLDEN["client"][early])
    native.receive(GOLDEN["client"]["start"])
    for late in ("start", "resume"):
        with pytest.raises(ProtocolError, match="once"):
            native.receive(GOLDEN["client"][late])


def test_opus_both_ways():
    server, times = protocol.Native(), np.arange(24_000) / 24_000
    server.receive(GOLDEN["client"]["start_opus"])
    sound = (
        (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[: 12 * 1920].reshape(-1, 1920)
    )
    pages = [server.tick(tick, [])[0] for tick in sound]
    assert (
        pages[0].startswith(b"OggS") and sum(map(len, pages)) < sound.size
    )  # PCM16 would be twice that
    heard = [server.receive(page)[0][0].samples for page in pages]
    heard = np.concatenate(heard)
    assert (
        0.8 < np.corrcoef(heard[9600:19200], np.roll(heard, 600)[9600:19200])[0, 1]
        and 0.15 < heard[9600:].std() < 0.25
    )
    with pytest.raises(ProtocolError, match="no Ogg-Opus"):
        server.receive(b"noise" * 40)


@given(st.lists(st.integers(-32768, 32767)))
def test_every_sample_survives_the_way(values):
    message = np.array(values, "<i2").tobytes()
    assert protocol.encode_audio(protocol.decode_audio(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        b"\x00",
        "",
        "hello",
        "[1, 2]",
        "17",
        "[" * 100_000,
        "{}",
        '{"type": null}',
        '{"type": ["session.start"]}',
        '{"type": "session.begin"}',
        '{"type": "session.start", "seed": true}',
        '{"type": "session.start", "seed": -1}',
        '{"type": "session.start", "seed": 1e3}',
        '{"type": "session.start", "instructions": 3}',
        '{"type": "session.start", "volume": 3}',
        '{"type": "session.start", "voice": "nobody"}',
        '{"type": "session.start", "speed": 9}',
        '{"type": "session.start", "temperature": "hot"}',
        '{"type": "session.start", "temperature": NaN}',
        '{"type": "session.start", "audio": "mp3"}',
        '{"type": "session.resume", "token": "abc"}',
        '{"type": "session.resume", "token": 3, "received": 0}',
        '{"type": "playback", "played_ms": -1}',
        '{"type": "playback", "played_ms": 1e400}',
        '{"type": "text", "text": ""}',
        '{"type": "text", "text": "hi", "role": "assistant"}',
        json.dumps({"type": "session.start", "instructions": "x" * 4001}),
    ],
)
def test_garbage_is_one_sentence(message):
    with pytest.raises(ProtocolError) as caught:
        protocol.decode_client(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@given(st.text() | st.binary())
def test_no_message_breaks_the_decoder(message):
    try:
        protocol.decode_client(message)
    except ProtocolError:
        pass
