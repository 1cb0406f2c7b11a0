"""A client of the OpenAI Realtime dialect without a socket, for the tests of its files."""

import base64
import json

import numpy as np

from duplex.events import Event
from duplex.serving.native import messages as native
from duplex.serving.openai.realtime import OpenAIRealtime
from tests.helpers import QUIET

MESSAGE = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "hi"}],
    "id": "a",
}

GA_SERVER_EVENTS = """
    error session.created session.updated conversation.item.added conversation.item.done
    conversation.item.retrieved conversation.item.deleted conversation.item.truncated
    conversation.item.input_audio_transcription.delta
    conversation.item.input_audio_transcription.completed
    conversation.item.input_audio_transcription.segment
    transcription_session.updated input_audio_buffer.timeout_triggered
    input_audio_buffer.committed input_audio_buffer.cleared
    input_audio_buffer.speech_started input_audio_buffer.speech_stopped
    response.created response.done response.output_item.added response.output_item.done
    response.function_call_arguments.delta response.function_call_arguments.done
    response.content_part.added response.content_part.done
    response.output_text.delta response.output_text.done
    response.output_audio.delta response.output_audio.done
    response.output_audio_transcript.delta response.output_audio_transcript.done
""".split()


class Client:
    """Sends objects to a dialect and reads its events back as objects.

    Every event must be of a type of the API and have an id.
    """

    def __init__(self, query: dict[str, str] | None = None, **session):
        """session: fields of a first session.update."""
        self.dialect = OpenAIRealtime(query, max_instruction_tokens=200)
        [self.created] = map(json.loads, self.dialect.opened("0123"))
        assert self.created["type"] == "session.created"
        assert self.created["session"]["id"] == "sess_0123"
        if session:
            self.update(**session)

    def send(self, kind: str, **fields) -> tuple[list, list[dict]]:
        """Its commands and the events that answer it."""
        commands, replies = self.dialect.receive(json.dumps({"type": kind, **fields}))
        return commands, self.read(replies)

    def update(self, **session) -> tuple[list, dict]:
        """A session.update that must succeed: its commands, and the session as it is now."""
        commands, [updated] = self.send("session.update", session=session)
        assert updated["type"] == "session.updated", updated
        return commands, updated["session"]

    def tick(self, *events, audio=QUIET) -> list[dict]:
        """What a tick of the session tells."""
        return self.read(self.dialect.tick(audio, list(events)))

    @staticmethod
    def read(messages) -> list[dict]:
        """Messages as objects."""
        events = [json.loads(message) for message in messages]
        assert all(event["type"] in GA_SERVER_EVENTS and event["event_id"] for event in events)
        return events

    def refused(self, kind: str, **fields) -> tuple[str, str | None]:
        """The code and the param of the one error that answers."""
        commands, [event] = self.send(kind, event_id="mine", **fields)
        assert not commands and event["type"] == "error" and event["error"]["event_id"] == "mine"
        assert event["error"]["message"] and "\n" not in event["error"]["message"]
        return event["error"]["code"], event["error"]["param"]

    def append(self, sound: np.ndarray) -> list:
        """Append samples: the commands."""
        commands, [] = self.send("input_audio_buffer.append", audio=base64_of(sound))
        return commands

    def answer(self, *words: str, tick: int = 0) -> list[dict]:
        """An answer of the agent that has begun and says this, but has not ended."""
        said = [Event("said", tick, word) for word in words]
        return self.tick(Event("agent_started", tick), *said)


def base64_of(sound: np.ndarray) -> str:
    """PCM16 of samples as the API sends it."""
    return base64.b64encode(native.encode_audio(sound)).decode()


def types(events: list[dict]) -> list[str]:
    """The types of events."""
    return [event["type"] for event in events]


def only(events: list[dict], kind: str) -> dict:
    """The one event of a type."""
    [found] = [event for event in events if event["type"] == kind]
    return found


def without_id(event: dict) -> dict:
    """An event as it would be in any session."""
    assert event["event_id"]
    return {name: value for name, value in event.items() if name != "event_id"}
