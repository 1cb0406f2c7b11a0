"""The native dialect: golden messages, and what happens to all that is not in the table."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplex.audio import TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Ended, Ending, Error, Event, Lag
from duplex.serving.commands import (
    Answer,
    Configure,
    End,
    Enroll,
    Heed,
    NameSpeaker,
    Resume,
    SetPlaybackPosition,
    SetVoice,
    Start,
    Stop,
    Write,
)
from duplex.serving.native import commands as native_commands
from duplex.serving.native import dialect as native_dialect
from duplex.serving.native import messages as native
from tests.helpers import tone

GOLDEN = json.loads((Path(__file__).parents[1] / "wire.json").read_text(encoding="utf-8"))

# A voice print of four numbers.
PRINT = "fwA/gQ=="
SERVER_TEXT = {
    "created": lambda: native.encode_object(native.created("0123456789ab")),
    "user_started": lambda: native.encode_event(Event("user_started", 12)),
    "heard": lambda: native.encode_event(Event("heard", 17, " café")),
    "partial": lambda: native.encode_event(Event("partial", 25, " the caf")),
    "corrected": lambda: native.encode_event(Event("corrected", 29, " the café")),
    "user_ended": lambda: native.encode_event(Event("user_ended", 30)),
    "heard_from_second": lambda: native.encode_event(Event("heard", 17, " café", speaker=2)),
    "speaker_corrected": lambda: native.encode_event(
        Event("speaker_corrected", 40, speaker=1, turn=0)
    ),
    "speaker_named": lambda: native.encode_event(Event("speaker_named", 41, "Anna", speaker=1)),
    "speaker_enrolled": lambda: native.encode_event(
        Event("speaker_enrolled", 99, PRINT, speaker=1)
    ),
    "agent_started": lambda: native.encode_event(Event("agent_started", 33)),
    "said": lambda: native.encode_event(Event("said", 33, "The")),
    "spoken": lambda: native.encode_event(Event("spoken", 34, "The", 2720, 2880)),
    "agent_ended": lambda: native.encode_event(Event("agent_ended", 60)),
    "agent_stopped": lambda: native.encode_event(Event("agent_stopped", 50, " is Paris.")),
    "lag": lambda: native.encode_event(
        Lag(61, silence_ms=160, dropped_ms=0, late_ticks=1, unread_ticks=0)
    ),
    "error": lambda: native.encode_event(Error("full", "all 4 places are taken")),
    "created_to_resume": lambda: native.encode_object(native.created("0123456789ab", "abc")),
    "resumed": lambda: native_dialect.Native().resumed("0123456789ab", 0)[0].replace("0}", "2}"),
    "ending": lambda: native.encode_event(Ending("the server is shutting down", 10_000)),
    "ended": lambda: native.encode_event(Ended("closed by the client", 99, 160, 0, 1, 0)),
}
CLIENT_TEXT = {
    "start": lambda: native.encode_start(),
    "start_with_options": lambda: native.encode_start(Start("Be brief.", 7)),
    "start_opus": lambda: native.encode_start(Start(temperature=0.7, audio="opus")),
    "resume": lambda: native.encode_resume("abc", 17),
    "playback": lambda: native_commands.encode_command(SetPlaybackPosition(2400)),
    "stop": lambda: native_commands.encode_command(Stop()),
    "answer": lambda: native_commands.encode_command(Answer()),
    "instruct": lambda: native_commands.encode_command(Configure("Be brief.")),
    "voice": lambda: native_commands.encode_command(SetVoice("oak", 1.2)),
    "text": lambda: native_commands.encode_command(Write("user", "What time is it?")),
    "start_first": lambda: native.encode_start(Start(heeds="first")),
    "heed_enrolled": lambda: native_commands.encode_command(Heed("enrolled", PRINT)),
    "heed_first": lambda: native_commands.encode_command(Heed("first")),
    "enroll": lambda: native_commands.encode_command(Enroll()),
    "name": lambda: native_commands.encode_command(NameSpeaker(2, "Anna")),
    "end": lambda: native.encode_end(),
}


def test_audio_is_golden():
    for entry in GOLDEN["audio"]:
        samples = np.array(entry["samples"], np.float32)
        assert native.encode_audio(samples).hex() == entry["hex"], entry
    assert native.encode_audio(np.array([np.nan, np.inf, -np.inf])).hex() == "0000ff7f0080"


@pytest.mark.parametrize("name", SERVER_TEXT)
def test_server_text_is_golden(name):
    assert SERVER_TEXT[name]() == GOLDEN["server"][name]
    assert native.decode_server(GOLDEN["server"][name]) == json.loads(GOLDEN["server"][name])


@pytest.mark.parametrize("name", CLIENT_TEXT)
def test_client_text_is_golden(name):
    assert CLIENT_TEXT[name]() == GOLDEN["client"][name]


def test_wire_json_has_no_other_messages():
    assert set(GOLDEN["server"]) == set(SERVER_TEXT) and set(GOLDEN["client"]) == set(CLIENT_TEXT)


HINTS = ("Zorblax", "smart mirror")


@pytest.mark.parametrize(
    "start",
    [Start(), Start("Be brief.", 7), Start(voice="oak", speed=1.2), Start(hints=HINTS)],
)
def test_start_is_read_back(start):
    assert native_commands.decode_client(native.encode_start(start)) == start


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("end", End()),
        ("start_opus", Start(temperature=0.7, audio="opus")),
        ("resume", Resume("abc", 17)),
        ("playback", SetPlaybackPosition(2400)),
        ("stop", Stop()),
        ("answer", Answer()),
        ("text", Write("user", "What time is it?")),
        ("instruct", Configure("Be brief.")),
        ("voice", SetVoice("oak", 1.2)),
        ("start_first", Start(heeds="first")),
        ("heed_enrolled", Heed("enrolled", PRINT)),
        ("heed_first", Heed("first")),
        ("enroll", Enroll()),
        ("name", NameSpeaker(2, "Anna")),
    ],
)
def test_client_message_means_a_command(name, command):
    assert native_commands.decode_client(GOLDEN["client"][name]) == command


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"type": "speaker.heed"}, "heeds is anyone"),
        ({"type": "speaker.heed", "heeds": "nobody"}, "heeds is anyone"),
        ({"type": "speaker.heed", "heeds": ["first"]}, "heeds is anyone"),
        ({"type": "speaker.heed", "heeds": "enrolled", "voice_print": 7}, "voice_print is"),
        ({"type": "speaker.heed", "heeds": "enrolled", "voice_print": "?"}, "no voice print"),
        ({"type": "session.start", "heeds": "me"}, "heeds is anyone"),
        ({"type": "speaker.name", "speaker": 0, "name": "Anna"}, "speaker from 1 on"),
        ({"type": "speaker.name", "speaker": 1, "name": ""}, "speaker from 1 on"),
        ({"type": "speaker.name", "speaker": True, "name": "Anna"}, "speaker from 1 on"),
    ],
)
def test_what_says_nothing_about_speakers_is_refused(fields, sentence):
    with pytest.raises(ProtocolError, match=sentence):
        native_commands.decode_client(native.encode_object(fields))


@pytest.mark.parametrize("hints", ["Zorblax", [""], [7], ["x" * 61], ["x"] * 51, None])
def test_hints_are_a_few_short_words(hints):
    with pytest.raises(ProtocolError, match="hint"):
        native_commands.to_start({"hints": hints})


def test_client_that_comes_back_gets_what_it_missed():
    kept = 50
    dialect = native_dialect.Native(max_missed_events=kept)
    dialect.receive(native.encode_start())
    sent = []
    for tick in range(5):
        sent += dialect.tick(np.zeros(4, np.float32), [Event("heard", tick, f" w{tick}")])[1:]
    for received in range(6):
        answer, *missed = dialect.resumed("0123456789ab", received)
        assert json.loads(answer) == {
            "type": "session.resumed",
            "id": "0123456789ab",
            "missed": 5 - received,
        }
        assert missed == sent[received:]
    assert dialect.resumed("0123456789ab", 6) is None
    for tick in range(kept):
        dialect.tick(np.zeros(0, np.float32), [Event("heard", tick, "x")])
    assert dialect.resumed("0123456789ab", 4) is None
    assert len(dialect.resumed("0123456789ab", 5)) == kept + 1


def test_messages_out_of_order_are_refused():
    dialect = native_dialect.Native()
    for early in ("playback", "stop", "answer", "text", "instruct", "voice"):
        with pytest.raises(ProtocolError, match="not open yet"):
            dialect.receive(GOLDEN["client"][early])
    dialect.receive(GOLDEN["client"]["start"])
    for late in ("start", "resume"):
        with pytest.raises(ProtocolError, match="once"):
            dialect.receive(GOLDEN["client"][late])


def test_opus_goes_both_ways():
    server = native_dialect.Native()
    server.receive(GOLDEN["client"]["start_opus"])
    sound = tone(12).reshape(-1, TICK_SAMPLES)
    pages = [server.tick(tick, [])[0] for tick in sound]
    assert pages[0].startswith(b"OggS")
    # PCM16 would be twice that.
    assert sum(map(len, pages)) < sound.size
    heard = np.concatenate([server.receive(page)[0][0].samples for page in pages])
    # 600 samples are eleven periods of the tone.
    settled = slice(9600, 19200)
    assert np.corrcoef(heard[settled], np.roll(heard, 600)[settled])[0, 1] > 0.8
    assert 0.15 < heard[9600:].std() < 0.25
    with pytest.raises(ProtocolError, match="no Ogg-Opus"):
        server.receive(b"noise" * 40)


def settled_hertz(sound: np.ndarray) -> float:
    """The strongest frequency in the second half of a second at 24 kHz."""
    half = sound[12_000:24_000]
    return float(np.argmax(np.abs(np.fft.rfft(half * np.hanning(len(half))))) * 2)


@pytest.mark.parametrize("rate", native_commands.RATES)
def test_pcm_goes_both_ways_at_any_rate(rate):
    """A tick is 80 ms at the client's rate, and what it sends is heard at the right pitch."""
    server = native_dialect.Native()
    server.receive(native.encode_start(Start(rate=rate)))
    created = json.loads(server.opened("0123")[0])
    assert created["sample_rate"] == rate
    ticks = [server.tick(tick, [])[0] for tick in tone(13).reshape(-1, TICK_SAMPLES)]
    assert {len(tick) for tick in ticks} == {2 * rate * 80 // 1000}
    # A device may cut its stream anywhere, even inside a sample.
    stream = b"".join(ticks)
    commands = [
        command
        for place in range(0, len(stream), 333)
        for command in server.receive(stream[place : place + 333])[0]
    ]
    heard = np.concatenate([command.samples for command in commands])
    assert len(heard) == 13 * TICK_SAMPLES and settled_hertz(heard) == pytest.approx(440, abs=2)
    assert np.abs(heard[9600:]).max() == pytest.approx(0.3, abs=0.01)


def test_single_packets_of_opus_go_both_ways():
    """Without Ogg around them, two of 40 ms a tick; after a broken one the next is heard."""
    server = native_dialect.Native()
    server.receive(native.encode_start(Start(audio="opus_packets")))
    ticks = [server.tick(tick, []) for tick in tone(13).reshape(-1, TICK_SAMPLES)]
    assert {len(tick) for tick in ticks} == {2}
    packets = [packet for tick in ticks for packet in tick]
    # Configuration, stereo and count of frames as RFC 6716 has them: mono here.
    assert not any(packet.startswith(b"Ogg") or packet[0] & 4 for packet in packets)
    heard = np.concatenate([server.receive(packet)[0][0].samples for packet in packets])
    assert settled_hertz(heard) == pytest.approx(440, abs=2)
    for broken in (b"", b"\xff" * 3, bytes(70_000)):
        with pytest.raises(ProtocolError):
            server.receive(broken)
    again = [server.receive(packet)[0][0].samples for packet in packets]
    assert np.abs(np.concatenate(again)[9600:]).max() > 0.2


@given(st.lists(st.integers(-32768, 32767)))
def test_samples_survive_the_way(values):
    message = np.array(values, "<i2").tobytes()
    assert native.encode_audio(native.decode_audio(message)) == message


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
        '{"type": "session.start", "rate": 44100}',
        '{"type": "session.start", "rate": 8000.0}',
        '{"type": "session.start", "rate": 16000, "audio": "opus"}',
        '{"type": "session.resume", "token": "abc"}',
        '{"type": "session.resume", "token": 3, "received": 0}',
        '{"type": "agent.voice"}',
        '{"type": "agent.voice", "voice": "oak", "speed": 3}',
        '{"type": "agent.instruct"}',
        '{"type": "agent.instruct", "instructions": 3}',
        '{"type": "playback", "played_ms": -1}',
        '{"type": "playback", "played_ms": 1e400}',
        '{"type": "text", "text": ""}',
        '{"type": "text", "text": "hi", "role": "assistant"}',
        json.dumps({"type": "session.start", "instructions": "x" * 4001}),
    ],
)
def test_garbage_is_one_sentence(message):
    with pytest.raises(ProtocolError) as caught:
        native_commands.decode_client(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@given(st.text() | st.binary())
def test_decoder_survives_any_message(message):
    try:
        native_commands.decode_client(message)
    except ProtocolError:
        pass
