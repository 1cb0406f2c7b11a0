"""What session.update takes, refuses and reports in the OpenAI Realtime dialect."""

import base64
from functools import partial

import pytest

from duplex.audio import TICK_SAMPLES
from duplex.events import Event, TurnTaking
from duplex.serving.commands import Audio, Configure, Hint, SetVoice, TakeTurns
from duplex.serving.openai.turn_detection import SEMANTIC, SERVER
from tests.helpers import tone
from tests.serving.openai.client import Client

# What the agent is asked for: all of its voice belongs to a response.
taking = partial(TurnTaking, backchannels=False)
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


def detection(**fields) -> dict:
    return {"audio": {"input": {"turn_detection": fields}}}


def test_session_is_updated():
    commands, session = Client().update(type="realtime", instructions="Be brief.")
    assert commands == [Configure("Be brief.")]
    assert session["instructions"] == "Be brief."
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["audio"]["input"]["turn_detection"] == SEMANTIC
    assert session["tools"] == [] and session["output_modalities"] == ["audio"]


def test_tools_leave_the_rest_in_force():
    commands, session = Client().update(
        instructions="Answer only with the word banana.",
        tools=[TOOL],
        tool_choice="auto",
        audio={"output": {"voice": "cedar"}},
    )
    assert commands == [Configure("Answer only with the word banana."), SetVoice("oak", 1.0)]
    assert session["tools"] == [] and session["audio"]["output"]["voice"] == "oak"


def test_unknown_fields_are_passed_over():
    commands, session = Client().update(
        instructions="hi",
        tracing="auto",
        truncation="disabled",
        include=["item.input_audio_transcription.logprobs"],
        reasoning={"effort": "low"},
        audio={"input": {"noise_reduction": {"type": "near_field"}}, "output": {"shape": 3}},
    )
    assert commands == [Configure("hi")]
    assert session["tracing"] is None and session["audio"]["input"]["noise_reduction"] is None


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "chat"}, "session.type"),
        ({"instructions": 3}, "session.instructions"),
        ({"instructions": "word " * 201}, "session.instructions"),
        ({"instructions": "x" * 20_000}, "session.instructions"),
        ({"output_modalities": ["smell"]}, "session.output_modalities"),
        ({"output_modalities": ["audio", "text"]}, "session.output_modalities"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"max_output_tokens": True}, "session.max_output_tokens"),
        ({"prompt": {"id": "pmpt_1"}}, "session.prompt"),
        ({"audio": []}, "audio"),
        ({"audio": {"output": {"voice": 3}}}, "session.audio.output.voice"),
        ({"audio": {"output": {"speed": 9}}}, "session.audio.output.speed"),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            "session.audio.input.format",
        ),
        ({"input_audio_format": "mp3"}, "session.input_audio_format"),
        (detection(type="lip_reading"), "session.audio.input.turn_detection.type"),
        (
            detection(type="semantic_vad", eagerness="so-so"),
            "session.audio.input.turn_detection.eagerness",
        ),
        (
            detection(type="server_vad", silence_duration_ms=-1),
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        (
            detection(type="server_vad", create_response="no"),
            "session.audio.input.turn_detection.create_response",
        ),
        (None, "session"),
    ],
)
def test_session_that_cannot_be_is_refused_by_name_and_changes_nothing(session, param):
    client = Client()
    before = client.created["session"]
    if session is not None:
        session = {"speed": 1.2, **session}
    code, named = client.refused("session.update", session=session)
    assert code in ("invalid_value", "unsupported") and named == param
    assert client.update()[1] == before


@pytest.mark.parametrize(
    ("wanted", "reported", "taking"),
    [
        (
            detection(type="semantic_vad", eagerness="low"),
            {**SEMANTIC, "eagerness": "low"},
            taking(eagerness="low"),
        ),
        (
            detection(type="semantic_vad", eagerness="high", interrupt_response=False),
            {**SEMANTIC, "eagerness": "high", "interrupt_response": False},
            taking(eagerness="high", yields=False),
        ),
        (
            detection(type="server_vad", threshold=0.5, prefix_padding_ms=300),
            SERVER,
            taking(silence_ms=500),
        ),
        (
            detection(type="server_vad", silence_duration_ms=900, create_response=False),
            {**SERVER, "silence_duration_ms": 900, "create_response": False},
            taking(silence_ms=900, answers=False),
        ),
        (
            {"audio": {"input": {"turn_detection": None}}},
            None,
            taking(ends_turns=False, answers=False, yields=False),
        ),
        ({"turn_detection": None}, None, taking(False, answers=False, yields=False)),
        ({"output_modalities": ["text"]}, SEMANTIC, taking(speaks=False)),
        ({"max_output_tokens": 20}, SEMANTIC, taking(max_tokens=20)),
    ],
)
def test_turns_are_taken_as_reported(wanted, reported, taking):
    commands, session = Client().update(**wanted)
    assert session["audio"]["input"]["turn_detection"] == reported
    assert commands == [TakeTurns(taking)]


def test_kind_none_is_push_to_talk():
    client = Client()
    _, session = client.update(turn_detection={"type": "none"})
    assert session["audio"]["input"]["turn_detection"] is None


def test_silence_is_never_shorter_than_the_agents_own():
    _, session = Client().update(**detection(type="server_vad", silence_duration_ms=0))
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 240


def test_fields_of_the_beta_are_in_force():
    _, session = Client().update(
        modalities=["text", "audio"],
        voice="ash",
        input_audio_format="g711_ulaw",
        output_audio_format="g711_alaw",
        turn_detection={"type": "server_vad", "silence_duration_ms": 700},
        max_response_output_tokens=30,
        temperature=0.8,
    )
    assert session["modalities"] == ["audio", "text"]
    assert session["max_response_output_tokens"] == 30 and session["voice"] == "oak"
    assert session["input_audio_format"] == "g711_ulaw"
    assert session["output_audio_format"] == "g711_alaw"
    assert session["turn_detection"]["silence_duration_ms"] == 700


def test_session_speaks_with_a_telephone():
    client = Client()
    telephone = {"format": {"type": "audio/pcmu"}}
    commands, session = client.update(audio={"input": telephone, "output": telephone})
    assert commands == []
    assert session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    silence = base64.b64encode(b"\xff" * 800).decode()
    [audio], _ = client.send("input_audio_buffer.append", audio=silence)
    assert isinstance(audio, Audio) and not audio.samples.any()
    delta = client.tick(Event("agent_started", 0), audio=tone(1))[-1]
    assert len(base64.b64decode(delta["delta"])) <= TICK_SAMPLES // 3 + 1


def test_voice_may_be_an_object():
    _, session = Client().update(audio={"output": {"voice": {"id": "oak"}}})
    assert session["audio"]["output"]["voice"] == "oak"


def test_words_of_a_transcription_prompt_are_favoured():
    """A list of words; the session shows what was asked for, and sentences favour nothing."""
    client = Client()
    prompt = "Zorblax, smart mirror; Ann\nExpect words that have to do with technology."
    hearing = {"transcription": {"model": "whisper-1", "prompt": prompt}}
    commands, session = client.update(audio={"input": hearing})
    assert commands == [Hint(("Zorblax", "smart mirror", "Ann"))]
    assert session["audio"]["input"]["transcription"]["prompt"] == prompt
    commands, _ = client.update(audio={"input": {"transcription": {"prompt": None}}})
    assert commands == [Hint(())]
    wrong = {"audio": {"input": {"transcription": {"prompt": 7}}}}
    assert client.refused("session.update", session=wrong)[0] == "invalid_value"


@pytest.mark.parametrize("way", ["query", "update"])
def test_transcription_session_only_listens(way):
    if way == "query":
        client = Client({"intent": "transcription"})
        session = client.created["session"]
        commands = client.dialect.take_due()
    else:
        client = Client()
        hearing = {"transcription": {"model": "whisper-1"}}
        commands, session = client.update(type="transcription", audio={"input": hearing})
    assert commands == [TakeTurns(taking(answers=False))]
    assert session["type"] == "transcription" and "output" not in session["audio"]
    assert session["audio"]["input"]["transcription"] == {"model": "duplex", "language": "en"}
    assert client.refused("response.create")[0] == "unsupported"


def test_transcription_session_of_the_beta():
    client = Client()
    session = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1", "prompt": "Zorro"},
    }
    commands, [told] = client.send("transcription_session.update", session=session)
    assert told["type"] == "transcription_session.updated"
    assert told["session"]["input_audio_format"] == "g711_ulaw"
    assert told["session"]["input_audio_transcription"]["prompt"] == "Zorro"
    assert Hint(("Zorro",)) in commands and client.dialect.is_beta
