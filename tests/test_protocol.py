"""The dialect of the wire: golden messages, and what happens to everything that is not in the table."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplex import protocol
from duplex.events import Ended, Error, Event, Lag

GOLDEN = json.loads((Path(__file__).parent / "wire.json").read_text(encoding="utf-8"))

SERVER_TEXT = {
    "created": lambda: protocol.encode_object(protocol.created("0123456789ab")),
    "user_started": lambda: protocol.encode_event(Event("user_started", 12)),
    "heard": lambda: protocol.encode_event(Event("heard", 17, " café")),
    "user_ended": lambda: protocol.encode_event(Event("user_ended", 30)),
    "agent_started": lambda: protocol.encode_event(Event("agent_started", 33)),
    "said": lambda: protocol.encode_event(Event("said", 33, "The")),
    "spoken": lambda: protocol.encode_event(Event("spoken", 34, "The", 2720, 2880)),
    "agent_ended": lambda: protocol.encode_event(Event("agent_ended", 60)),
    "agent_stopped": lambda: protocol.encode_event(Event("agent_stopped", 50, " is Paris.")),
    "lag": lambda: protocol.encode_event(Lag(61, silence_ms=160, dropped_ms=0, late_ticks=1, unread_ticks=0)),
    "error": lambda: protocol.encode_event(Error("full", "all 4 places are taken")),
    "ended": lambda: protocol.encode_event(Ended("closed by the client", 99, 160, 0, 1, 0)),
}
CLIENT_TEXT = {
    "start": lambda: protocol.encode_start(),
    "start_with_options": lambda: protocol.encode_start("Be brief.", 7),
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
    assert protocol.decode_client(protocol.encode_start("Be brief.", 7)) == protocol.Start("Be brief.", 7)
    assert protocol.decode_client(protocol.encode_start()) == protocol.Start()
    assert protocol.decode_client(protocol.encode_end()) == protocol.End()


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
        '{"type": "session.start", "voice": "heart"}',
        json.dumps({"type": "session.start", "instructions": "x" * 4001}),
    ],
)
def test_garbage_is_one_sentence(message):
    with pytest.raises(protocol.ProtocolError) as caught:
        protocol.decode_client(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@given(st.text() | st.binary())
def test_no_message_breaks_the_decoder(message):
    try:
        protocol.decode_client(message)
    except protocol.ProtocolError:
        pass
