"""Clients that were written for the beta of the Realtime API hear the names that they know."""

import json

import pytest
from websockets.asyncio.client import connect

from duplex.events import Event
from duplex.serving.commands import SetVoice, TakeTurns
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime as openai_realtime
from duplex.serving.openai.realtime import OpenAIRealtime
from tests.helpers import QUIET, drive_server, tone
from tests.tiny_agent import TinyAgent

TELEPHONE = {
    "input_audio_format": "g711_ulaw",
    "output_audio_format": "g711_ulaw",
    "modalities": ["text", "audio"],
    "voice": "ash",
    "turn_detection": None,
    "max_response_output_tokens": 50,
}


def sent(dialect: OpenAIRealtime, **fields) -> tuple[list, list[dict]]:
    """The commands in an event, and the events that answer."""
    commands, replies = dialect.receive(json.dumps(fields))
    return commands, [json.loads(reply) for reply in replies]


def ticked(dialect: OpenAIRealtime, *events, audio=QUIET) -> list[dict]:
    """What a tick tells."""
    return [json.loads(message) for message in dialect.tick(audio, list(events))]


def test_session_is_in_force_and_reported_as_it_was_written():
    dialect = OpenAIRealtime()
    commands, [updated] = sent(dialect, type="session.update", session=TELEPHONE)
    assert SetVoice("oak", 1.0) in commands
    assert any(isinstance(command, TakeTurns) for command in commands)
    session = updated["session"]
    wanted = {**TELEPHONE, "modalities": ["audio", "text"], "voice": "oak"}
    assert {name: session[name] for name in TELEPHONE} == wanted
    assert "audio" not in session and "output_modalities" not in session


def test_answer_has_the_names_of_then():
    dialect = OpenAIRealtime()
    sent(dialect, type="session.update", session=TELEPHONE)
    said = [Event("agent_started", 1), Event("said", 1, "Hi.")]
    events = ticked(dialect, *said, audio=tone(1)) + ticked(dialect, Event("agent_ended", 2))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.created",
        "response.content_part.added",
        "response.audio_transcript.delta",
        "response.audio.delta",
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    response = events[-1]["response"]
    assert response["modalities"] == ["audio", "text"] and "output_modalities" not in response
    assert response["output"][0]["content"] == [{"type": "audio", "transcript": "Hi."}]
    assert events[0]["response"]["max_output_tokens"] == 50


def test_response_in_text_alone():
    dialect = OpenAIRealtime()
    sent(dialect, type="session.update", session=TELEPHONE)
    _, [created] = sent(dialect, type="response.create", response={"modalities": ["text"]})
    assert created["response"]["modalities"] == ["text"]
    events = ticked(dialect, Event("agent_started", 1), Event("said", 1, "Hi."))
    assert "response.text.delta" in [event["type"] for event in events]


def test_format_that_there_never_was_is_refused_by_name():
    session = {"input_audio_format": "mp3"}
    _, [error] = sent(OpenAIRealtime(), type="session.update", session=session)
    assert error["error"]["param"] == "session.input_audio_format"


@pytest.mark.parametrize("session", [{"type": "realtime"}, {"instructions": "x"}, {"voice": "ash"}])
def test_sessions_of_now_have_the_names_of_now(session):
    dialect = OpenAIRealtime()
    _, [updated] = sent(dialect, type="session.update", session=session)
    assert "audio" in updated["session"] and not dialect.is_beta


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {"OpenAI-Beta": "realtime=v1"}},
        {"subprotocols": ["realtime", "openai-insecure-api-key.x", "openai-beta.realtime-v1"]},
        {},
    ],
)
def test_header_and_subprotocol_ask_for_it(options):
    async def run(url, engine):
        async with connect(url.replace(native.PATH, openai_realtime.PATH), **options) as talk:
            session = json.loads(await talk.recv())["session"]
            assert ("input_audio_format" in session) == bool(options)

    drive_server(run, TinyAgent(1))
