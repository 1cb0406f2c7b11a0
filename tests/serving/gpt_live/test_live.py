"""The GPT-Live dialect without a socket: what its events mean, and what it tells."""

import base64
import json

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Ended, Error, Event
from duplex.serving.commands import End, Start, Write
from duplex.serving.gpt_live.live import USAGE_TICKS, GPTLive
from duplex.serving.native import messages as native
from tests.helpers import tone

QUIET = np.zeros(TICK_SAMPLES, np.float32)
SERVER_EVENTS = """
    session.started session.updated session.usage.updated session.closed error info
    session.input_audio.muted session.input_audio.unmuted session.output_audio.delta
    session.input_transcript.delta session.output_transcript.delta
    session.instructions.appended session.thinking.appended session.commentary.appended
""".split()


class Client:
    """Sends objects to a dialect and reads its events back as objects.

    Every event must be of a type of the API and have an id.
    """

    def __init__(self, max_session_s: float = 0.0, **session):
        """session: fields of session.start, beside the model."""
        self.dialect = GPTLive(max_instruction_tokens=200, max_session_s=max_session_s)
        start = {"model": "gpt-live-1", **session}
        self.commands, self.answer = self.send("session.start", session=start, event_id="begin")
        if self.commands:
            [self.started, *self.more] = self.read(self.dialect.opened("0123"))

    def send(self, kind: str, **fields) -> tuple[list, list[dict]]:
        """Its commands and the events that answer it."""
        commands, replies = self.dialect.receive(json.dumps({"type": kind, **fields}))
        return commands, self.read(replies)

    def tick(self, *events, audio=QUIET) -> list[dict]:
        """What a tick of the session tells."""
        return self.read(self.dialect.tick(audio, list(events)))

    @staticmethod
    def read(messages) -> list[dict]:
        """Messages as objects."""
        events = [json.loads(message) for message in messages]
        assert all(event["type"] in SERVER_EVENTS and event["event_id"] for event in events)
        return events

    def refused(self, kind: str, **fields) -> tuple[str, str | None]:
        """The code and the param of the one error that answers."""
        commands, [event] = self.send(kind, event_id="mine", **fields)
        return self.error_of(commands, event, "mine")

    @staticmethod
    def error_of(commands, event, client_event_id) -> tuple[str, str | None]:
        error = event["error"]
        assert not commands and error["client_event_id"] == client_event_id
        assert error["message"] and "\n" not in error["message"]
        return error["code"], error["param"]

    def append(self, kind: str, content: str = "hello") -> tuple[list, list[dict]]:
        """Append a text to the conversation."""
        return self.send(f"session.{kind}.append", delegation_id=None, content=content)


def base64_of(sound: np.ndarray) -> str:
    return base64.b64encode(native.encode_audio(sound)).decode()


def test_session_begins_with_all_that_is_asked_for():
    history = [
        {"type": "message", "role": role, "content": [{"type": "input_text", "text": role}]}
        for role in ("developer", "user", "assistant")
    ]
    voice = {"output": {"voice": "cedar"}}
    client = Client(instructions="Be kind.", audio=voice, input=history, store=True)
    [start, *texts] = client.commands
    assert start == Start(instructions="Be kind.", voice="oak")
    roles = ("system", "developer"), ("user", "user"), ("assistant", "assistant")
    assert texts == [Write(role, text, is_answered=False) for role, text in roles]
    assert client.started["client_event_id"] == "begin" and not client.more
    session = client.started["session"]
    assert session["id"] == "sess_0123" and session["status"] == "active"
    assert session["model"] == "gpt-live-1" and session["instructions"] == "Be kind."
    assert session["audio"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "output": {"voice": "oak"},
    }
    # What is not in force is not reported as if it were.
    assert session["store"] is False and session["delegation"] is None
    assert session["input"] == history


def test_session_says_when_it_expires():
    day_s = 24 * 3600
    short, long = (Client(max_session_s=s).started["session"]["expires_at"] for s in (day_s, 0))
    assert type(short) is int and short + 100 * day_s < long


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "session.model"),
        ({"voice": "marin"}, "unknown_parameter", "session.voice"),
        ({"instructions": 7}, "invalid_value", "session.instructions"),
        ({"instructions": "word " * 201}, "invalid_value", "session.instructions"),
        ({"audio": {"input": {}}}, "unknown_parameter", "session.audio.input"),
        ({"audio": {"output": {"speed": 2}}}, "unknown_parameter", "session.audio.output.speed"),
        ({"audio": {"format": {"type": "mp3"}}}, "invalid_value", "session.audio.format"),
        ({"audio": {"format": {"type": []}}}, "invalid_value", "session.audio.format"),
        (
            {"audio": {"format": {"type": "audio/pcmu", "rate": 9}}},
            "invalid_value",
            "session.audio.format",
        ),
        ({"delegation": {"type": "magic"}}, "invalid_value", "session.delegation.type"),
        ({"delegation": "client"}, "invalid_value", "delegation"),
        ({"input": [{}] * 129}, "invalid_value", "session.input"),
        ({"input": [{"role": "system"}]}, "invalid_value", "session.input[0].role"),
        ({"input": [{"role": []}]}, "invalid_value", "session.input[0].role"),
        ({"input": [{"role": "user", "content": []}]}, "invalid_value", "session.input[0].content"),
    ],
)
def test_session_that_cannot_be_is_refused_by_name_and_may_begin_anew(session, code, param):
    client = Client(**session)
    assert client.error_of(client.commands, client.answer[0], "begin") == (code, param)
    commands, replies = client.send("session.start", session={"model": "m"})
    assert isinstance(commands[0], Start) and not replies


def test_first_event_is_the_start_and_there_is_one():
    silent = GPTLive()
    message = json.dumps({"type": "session.input_audio.append", "audio": ""})
    commands, [reply] = silent.receive(message)
    assert not commands and json.loads(reply)["error"]["code"] == "session_not_started"
    assert Client().refused("session.start", session={"model": "m"})[0] == (
        "session_already_started"
    )


def test_audio_goes_both_ways_all_the_time():
    client = Client()
    sound = tone(1)
    [heard], [] = client.send("session.input_audio.append", audio=base64_of(sound))
    np.testing.assert_allclose(heard.samples, sound, atol=1e-4)
    for audio in (QUIET, sound):
        [delta] = client.tick(audio=audio)
        assert delta["type"] == "session.output_audio.delta"
        assert base64.b64decode(delta["delta"]) == native.encode_audio(audio)
    assert client.refused("session.input_audio.append", audio="?") == ("invalid_value", "audio")


def test_session_at_16_khz():
    client = Client(audio={"format": {"type": "audio/pcm", "rate": 16_000}})
    assert client.started["session"]["audio"]["format"]["rate"] == 16_000
    sound = base64_of(tone(1, hertz=660)[: TICK_SAMPLES * 2 // 3])
    pieces = [
        client.send("session.input_audio.append", audio=sound)[0][0].samples for _ in range(9)
    ]
    assert 7 * TICK_SAMPLES < sum(map(len, pieces)) <= 9 * TICK_SAMPLES
    told = [event for _ in range(9) for event in client.tick()]
    assert 7 * 2560 < sum(len(base64.b64decode(event["delta"])) for event in told) <= 9 * 2560


def test_session_with_a_telephone():
    client = Client(audio={"format": {"type": "audio/pcma", "rate": 8000}})
    frame = base64.b64encode(bytes(160)).decode()
    samples = [
        client.send("session.input_audio.append", audio=frame)[0][0].samples for _ in range(50)
    ]
    assert 20 * TICK_SAMPLES / 80 * 45 < sum(map(len, samples)) <= 24_000
    told = [event for _ in range(20) for event in client.tick()]
    assert sum(len(base64.b64decode(event["delta"])) for event in told) > 18 * 640


def test_muted_microphone_is_silence():
    client = Client()
    for kind, is_silent in (("mute", True), ("unmute", False)):
        commands, [told] = client.send(f"session.input_audio.{kind}", event_id="x")
        assert not commands and told["type"] == f"session.input_audio.{kind}d"
        assert told["client_event_id"] == "x"
        [heard], [] = client.send("session.input_audio.append", audio=base64_of(tone(1)))
        assert len(heard.samples) == TICK_SAMPLES and (not heard.samples.any()) == is_silent


def transcribed(told: list[dict]) -> list[tuple]:
    """Whose words, which, and when, of transcripts."""
    return [
        (event["type"].split("_")[0], event["delta"], event["start_ms"], event["end_ms"])
        for event in told
        if "transcript" in event["type"]
    ]


def test_words_of_both_sides_have_times():
    told = Client().tick(
        Event("user_started", 3),
        Event("heard", 4, " wha"),
        Event("heard", 4, "t is"),
        Event("user_ended", 6),
        Event("agent_started", 8),
        Event("said", 8, "It is."),
        Event("spoken", 12, "It", 700, 900),
        Event("spoken", 14, "is.", 900, 1100),
    )
    assert transcribed(told) == [
        ("session.input", " what is", 240, 560),
        ("session.output", " It", 700, 900),
        ("session.output", " is.", 900, 1100),
    ]


def test_words_of_the_user_are_told_as_they_are_in_the_end():
    client = Client()
    turn = [Event("user_started", 3), Event("heard", 4, " wart"), Event("partial", 5, " What")]
    assert not transcribed(client.tick(*turn))
    assert not transcribed(client.tick(Event("corrected", 6, " What is it?")))
    told = transcribed(client.tick(Event("user_ended", 9, end_ms=500)))
    assert told == [("session.input", " What is it?", 240, 500)]
    # A noise was taken for a word.
    noise = [Event("user_started", 10), Event("heard", 11, " a"), Event("corrected", 12, "")]
    assert not transcribed(client.tick(*noise, Event("user_ended", 13)))


def test_words_of_a_long_turn_are_told_once_two_readings_agree():
    client = Client()
    client.tick(Event("user_started", 0), Event("partial", 60, " one two"))
    assert not transcribed(client.tick(Event("partial", 70, " one two free")))
    told = transcribed(client.tick(Event("partial", 110, " One, two three")))
    assert told == [("session.input", " One, two", 0, 8880)]
    told = transcribed(client.tick(Event("user_ended", 120), Event("user_started", 130)))
    assert not told
    told = client.tick(Event("heard", 131, " four"), ended("closed by the client"))
    assert transcribed(told)[0][1] == " four" and told[-1]["type"] == "session.closed"


def test_what_an_interruption_leaves_unsaid_is_in_no_transcript():
    client = Client()
    told = client.tick(
        Event("agent_started", 8),
        Event("said", 8, "One two."),
        Event("spoken", 9, "One", 640, 800),
        Event("agent_stopped", 10, " two."),
    )
    assert [event["delta"] for event in told[1:]] == [" One"]


@pytest.mark.parametrize("kind", ["instructions", "thinking"])
def test_what_is_appended_is_known_and_not_answered(kind):
    commands, [told] = Client().append(kind, "It rains.")
    assert commands == [Write("system", "It rains.", is_answered=False)]
    assert told["type"] == f"session.{kind}.appended" and told["start_ms"] <= told["end_ms"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"content": "x", "delegation_id": "d"}, "delegation_not_found", "delegation_id"),
        ({"content": " "}, "invalid_value", "content"),
        ({"content": None}, "invalid_value", "content"),
        ({"content": "word " * 501}, "invalid_value", "content"),
        ({"content": "x", "role": "user"}, "unknown_parameter", "the event.role"),
    ],
)
def test_what_cannot_be_appended_is_refused_by_name(fields, code, param):
    assert Client().refused("session.commentary.append", **fields) == (code, param)


@pytest.mark.parametrize("kind", ["client", "responses", "decisions"])
def test_nothing_is_delegated_and_the_client_is_told_so(kind):
    client = Client(delegation={"type": kind, "responses": {"model": "m", "tools": []}})
    counts_on_it = kind != "client"
    assert [event["code"] for event in client.more] == ["delegation_unsupported"] * counts_on_it
    _, [updated, *more] = client.send("session.update", session={"delegation": {"type": kind}})
    assert updated["session"]["delegation"] is None and len(more) == counts_on_it
    assert client.refused("session.update", session={"instructions": "x"}) == (
        "immutable_parameter",
        "session.instructions",
    )
    for event in ("response.create", "response.item.create", "decision.create"):
        assert client.refused(event)[0] == "unsupported"


def test_end_is_told_with_its_reason():
    client = Client()
    client.tick()
    commands, [] = client.send("session.close", event_id="bye")
    assert commands == [End()]
    [closed] = client.tick(ended("closed by the client"), audio=QUIET[:0])
    assert closed["reason"] == "close_requested" and closed["client_event_id"] == "bye"
    assert closed["usage"] == {"seconds": 0.08} and closed["session"]["id"] == "sess_0123"


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("a session lasts at most 5 s", "session_expired", "expired"),
        ("the server is shutting down", "server_shutting_down", "connection_lost"),
    ],
)
def test_end_that_nobody_asked_for(text, code, reason):
    error, closed = Client().tick(ended(text), audio=QUIET[:0])
    assert error["error"]["code"] == code and error["error"]["client_event_id"] is None
    assert closed["reason"] == reason


def ended(text: str) -> Ended:
    return Ended(text, 9, 0, 0, 0, 0)


def test_usage_is_reported():
    client = Client()
    told = [event for _ in range(2 * USAGE_TICKS) for event in client.tick()]
    seconds = [e["usage"]["seconds"] for e in told if e["type"] == "session.usage.updated"]
    assert seconds == [10.0, 20.0]


@pytest.mark.parametrize("message", ["{", "[]", b"\xff"])
def test_garbage_is_one_sentence(message):
    with pytest.raises(ProtocolError):
        GPTLive().receive(message)


@pytest.mark.parametrize("kind", ["nothing", None, [], "session.started"])
def test_unknown_events_are_refused(kind):
    assert Client().refused(kind) == ("unknown_event", "type")


def test_errors_of_the_server():
    client = Client()
    [told] = client.tick(Error("model", "it broke"), audio=QUIET[:0])
    assert told["error"]["code"] == "server_error" and told["error"]["type"] == "server_error"
    [told] = client.read(client.dialect.refused(Error("full", "no place")))
    assert told["error"]["code"] == "session_limit_exceeded"
