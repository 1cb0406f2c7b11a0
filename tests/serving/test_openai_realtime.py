"""The OpenAI Realtime dialect: golden events, errors, and the official SDK on a real server.

Nothing here asks a network: the SDK talks with a server on a loopback socket.
"""

import asyncio
import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.events import Error, Event, Lag
from duplex.serving import native, openai_realtime
from duplex.serving.commands import (
    Answer,
    Audio,
    Clear,
    Configure,
    SetPlaybackPosition,
    Stop,
    Truncate,
    Write,
)
from tests.helpers import QUIET, drive_server, tone
from tests.tiny_agent import TinyAgent

GA_SERVER_EVENTS = """
    error session.created session.updated conversation.item.added conversation.item.done
    conversation.item.retrieved conversation.item.truncated
    conversation.item.input_audio_transcription.delta
    conversation.item.input_audio_transcription.completed
    input_audio_buffer.committed input_audio_buffer.cleared
    input_audio_buffer.speech_started input_audio_buffer.speech_stopped
    response.created response.done response.output_item.added response.output_item.done
    response.content_part.added response.content_part.done
    response.output_text.delta response.output_text.done
    response.output_audio.delta response.output_audio.done
    response.output_audio_transcript.delta response.output_audio_transcript.done
""".split()
MESSAGE = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "hi"}],
    "id": "a",
}


class Client:
    """Sends objects to a dialect and reads its events back as objects.

    Every event must be of a type of the API and have an id.
    """

    def __init__(self):
        self.dialect = openai_realtime.OpenAIRealtime()
        [created] = map(json.loads, self.dialect.opened("0123"))
        assert created["type"] == "session.created" and created["session"]["id"] == "sess_0123"

    def send(self, kind: str, **fields) -> tuple[list, list[dict]]:
        commands, replies = self.dialect.receive(json.dumps({"type": kind, **fields}))
        return commands, self.read(replies)

    def tick(self, *events, audio=QUIET) -> list[dict]:
        return self.read(self.dialect.tick(audio, list(events)))

    @staticmethod
    def read(messages) -> list[dict]:
        events = [json.loads(message) for message in messages]
        assert all(event["type"] in GA_SERVER_EVENTS and event["event_id"] for event in events)
        return events

    def refused(self, kind: str, **fields) -> str:
        """The code of the one error that answers."""
        commands, [event] = self.send(kind, event_id="mine", **fields)
        assert not commands and event["type"] == "error" and event["error"]["event_id"] == "mine"
        assert event["error"]["message"] and "\n" not in event["error"]["message"]
        return event["error"]["code"]


def base64_of(sound: np.ndarray) -> str:
    return base64.b64encode(native.encode_audio(sound)).decode()


def types(events: list[dict]) -> list[str]:
    return [event["type"] for event in events]


def without_id(event: dict) -> dict:
    assert event["event_id"]
    return {name: value for name, value in event.items() if name != "event_id"}


def test_corrected_turn_is_complete_with_the_words_it_has_now():
    client = Client()
    client.tick(Event("user_started", 2), Event("heard", 3, " hallow"))
    assert client.tick(Event("corrected", 4, " hello")) == []
    ended = client.tick(Event("user_ended", 5))
    assert [event["transcript"] for event in ended if "transcript" in event] == ["hello"]


def test_user_turn_is_told_as_the_api_does():
    client = Client()
    [started] = client.tick(Event("user_started", 2))
    user = started["item_id"]
    assert without_id(started) == {
        "type": "input_audio_buffer.speech_started",
        "audio_start_ms": 160,
        "item_id": user,
    }
    [delta] = client.tick(Event("heard", 3, " hello"))
    assert without_id(delta) == {
        "type": "conversation.item.input_audio_transcription.delta",
        "item_id": user,
        "content_index": 0,
        "delta": " hello",
    }
    ended = client.tick(Event("user_ended", 4))
    assert types(ended) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.completed",
    ]
    stopped, committed, added, _, completed = ended
    assert stopped["audio_end_ms"] == 320 and completed["transcript"] == "hello"
    assert committed["previous_item_id"] is None
    assert added["item"] == {
        "id": user,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": " hello"}],
    }


def test_answer_is_told_as_the_api_does():
    client = Client()
    # Silence between answers is not sent.
    assert client.tick() == []
    begun = client.tick(Event("agent_started", 4), audio=tone(1))
    assert types(begun) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio.delta",
    ]
    created, _, added, part, delta = begun
    response = created["response"]
    assert response["object"] == "realtime.response" and response["status"] == "in_progress"
    assert response["status_details"] is None and response["output"] == []
    assert added["previous_item_id"] is None
    assert part["part"] == {"type": "audio", "transcript": ""}
    assert base64.b64decode(delta["delta"]) == native.encode_audio(tone(1))
    where = {"response_id": response["id"], "item_id": added["item"]["id"]}
    assert {**where, "output_index": 0, "content_index": 0}.items() <= delta.items()

    said = client.tick(Event("said", 5, "Good"), Event("said", 5, " day."), Lag(5, 80, 0, 0, 0))
    words = ["response.output_audio_transcript.delta"] * 2
    assert types(said) == [*words, "response.output_audio.delta"]

    done = client.tick(Event("agent_ended", 6))
    assert types(done) == [
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert done[2]["transcript"] == "Good day."
    response = done[6]["response"]
    assert response["status"] == "completed"
    [item] = response["output"]
    assert item["content"] == [{"type": "output_audio", "transcript": "Good day."}]
    assert client.tick() == []


def test_interrupted_answer_is_cancelled_and_keeps_what_was_said():
    client = Client()
    client.tick(Event("agent_started", 0), Event("said", 0, "One two"))
    events = client.tick(Event("user_started", 1), Event("agent_stopped", 1, " two"))
    assert types(events)[0] == "input_audio_buffer.speech_started"
    response = events[-1]["response"]
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    [item] = response["output"]
    assert item["status"] == "incomplete" and item["content"][0]["transcript"] == "One"


def test_response_is_created_and_cancelled():
    client = Client()
    assert client.refused("response.cancel") == "response_cancel_not_active"
    assert client.send("response.create") == ([Answer()], [])
    commands, _ = client.send("response.create", response={"instructions": "Sing."})
    assert commands == [Write("system", "Sing."), Answer()]
    client.tick(Event("agent_started", 0))
    assert client.refused("response.create") == "conversation_already_has_active_response"
    assert client.refused("response.cancel", response_id="other") == "response_cancel_not_active"
    assert client.send("response.cancel") == ([Stop()], [])
    response = client.tick(Event("agent_stopped", 1))[-1]["response"]
    assert response["status_details"]["reason"] == "client_cancelled"


def test_item_is_truncated():
    client = Client()
    for _ in range(3):
        client.tick()
    item = client.tick(Event("agent_started", 3))[2]["item"]["id"]
    client.tick()
    cut = {"item_id": item, "content_index": 0, "audio_end_ms": 100}
    commands, [truncated] = client.send("conversation.item.truncate", **cut)
    assert commands == [SetPlaybackPosition(240 + 100), Stop()]
    assert without_id(truncated) == {"type": "conversation.item.truncated", **cut}
    client.tick(Event("agent_ended", 5))
    assert client.send("conversation.item.truncate", **cut)[0] == [Truncate(340)]
    for field, value, code in (
        ("audio_end_ms", 241, "invalid_value"),
        ("item_id", "none", "item_not_found"),
        ("item_id", [], "item_not_found"),
    ):
        assert client.refused("conversation.item.truncate", **{**cut, field: value}) == code


def test_item_is_created_and_retrieved():
    client = Client()
    commands, events = client.send("conversation.item.create", item=MESSAGE)
    assert commands == [Write("user", "hi")]
    assert types(events) == ["conversation.item.added", "conversation.item.done"]
    # The id is taken.
    assert client.refused("conversation.item.create", item=MESSAGE) == "invalid_value"
    _, [retrieved] = client.send("conversation.item.retrieve", item_id="a")
    assert retrieved["item"]["content"] == MESSAGE["content"]
    assert client.refused("conversation.item.delete", item_id="a") == "unsupported"


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"type": "function_call_output"},
        {**MESSAGE, "content": [{}]},
        {**MESSAGE, "content": [3]},
    ],
)
def test_item_of_another_kind_is_refused(item):
    code = Client().refused("conversation.item.create", item=item)
    assert code in ("unsupported", "invalid_value")


def test_audio_is_appended_committed_and_cleared():
    client = Client()
    assert client.refused("input_audio_buffer.commit") == "input_audio_buffer_commit_empty"
    [audio], [] = client.send("input_audio_buffer.append", audio=base64_of(tone(1)))
    np.testing.assert_allclose(audio.samples, tone(1), atol=1e-4)
    _, committed = client.send("input_audio_buffer.commit")
    assert types(committed) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    ended = types(client.tick(Event("user_started", 0), Event("user_ended", 1)))
    assert ended[-1].endswith("completed") and "input_audio_buffer.committed" not in ended
    commands, [cleared] = client.send("input_audio_buffer.clear")
    assert commands == [Clear()] and cleared["type"] == "input_audio_buffer.cleared"


@pytest.mark.parametrize("audio", ["no base64!", 3, None, "AAA=" * 3 + "AA"])
def test_audio_that_is_none_is_refused(audio):
    assert Client().refused("input_audio_buffer.append", audio=audio) == "invalid_value"


def test_event_of_another_api_is_refused():
    assert Client().refused("transcription_session.update") == "unknown_event"


def test_session_is_updated():
    client = Client()
    wanted = {"type": "realtime", "instructions": "Be brief."}
    commands, [updated] = client.send("session.update", session=wanted)
    assert commands == [Configure("Be brief.")]
    assert updated["session"]["instructions"] == "Be brief."
    assert updated["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_session_speaks_with_a_telephone():
    client = Client()
    telephone = {"format": {"type": "audio/pcmu"}}
    wanted = {"audio": {"input": telephone, "output": telephone}}
    commands, [updated] = client.send("session.update", session=wanted)
    assert commands == []
    assert updated["session"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    silence = base64.b64encode(b"\xff" * 800).decode()
    [audio], _ = client.send("input_audio_buffer.append", audio=silence)
    assert isinstance(audio, Audio) and not audio.samples.any()
    delta = client.tick(Event("agent_started", 0), audio=tone(1))[-1]
    assert len(base64.b64decode(delta["delta"])) <= TICK_SAMPLES // 3 + 1


@pytest.mark.parametrize(
    "session",
    [
        {"type": "transcription"},
        {"tools": [{"type": "function"}]},
        {"instructions": 3},
        {"instructions": "x" * 5000},
        {"output_modalities": ["smell"]},
        {"audio": []},
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        None,
    ],
)
def test_session_that_cannot_be_is_refused(session):
    code = Client().refused("session.update", session=session)
    assert code in ("invalid_value", "unsupported")


def test_answer_as_text_only():
    client = Client()
    client.send("session.update", session={"output_modalities": ["text"]})
    events = client.tick(Event("agent_started", 0), Event("said", 0, "Hi."), audio=tone(1))
    events += client.tick(Event("agent_ended", 1))
    assert "response.output_text.delta" in types(events)
    assert not any("audio" in kind for kind in types(events))
    [item] = events[-1]["response"]["output"]
    assert item["content"] == [{"type": "output_text", "text": "Hi."}]


def test_failing_model_and_full_server_are_told():
    client = Client()
    [told] = client.tick(Error("model", "it broke"))
    assert told["error"]["type"] == "server_error"
    [told] = client.read(client.dialect.refused(Error("full", "no place")))
    assert told["error"]["code"] == "session_limit_exceeded"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)
field_names = st.sampled_from(
    ["session", "audio", "item", "item_id", "audio_end_ms", "response", "response_id", "event_id"]
)
kinds = st.sampled_from(
    [
        "session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "conversation.item.create",
        "conversation.item.retrieve",
        "conversation.item.delete",
        "conversation.item.truncate",
        "response.create",
        "response.cancel",
    ]
)


@pytest.mark.slow
@given(st.lists(st.tuples(kinds, st.dictionaries(field_names, json_values))))
def test_no_field_breaks_the_dialect(messages):
    client = Client()
    client.tick(Event("user_started", 0), Event("agent_started", 0))
    for kind, fields in messages:
        client.send(kind, **fields)
    client.tick(Event("agent_ended", 1))


async def say(connection, sound: np.ndarray) -> None:
    """The user's side of the official SDK, in real time."""
    for tick in sound.reshape(-1, TICK_SAMPLES):
        await connection.input_audio_buffer.append(audio=base64_of(tick))
        await asyncio.sleep(TICK_S)


async def until(connection, *kinds: str) -> list:
    """The SDK's events, up to the first of these kinds."""
    events = [await connection.recv()]
    while events[-1].type not in kinds:
        events.append(await connection.recv())
    return events


def deltas(events: list, kind: str) -> list[str]:
    return [event.delta for event in events if event.type == kind]


async def converse(connection) -> None:
    """Everything that the SDK's examples do."""
    assert (await connection.recv()).session.id.startswith("sess_")
    await connection.session.update(session={"type": "realtime", "instructions": "hello"})
    assert (await connection.recv()).session.instructions == "hello"
    # As push_to_talk_app.py does at first.
    await connection.response.cancel()
    assert (await connection.recv()).error.code == "response_cancel_not_active"

    sound = np.concatenate([tone(8), np.tile(QUIET, 60)])
    speaking = asyncio.create_task(say(connection, sound))
    heard = await until(connection, "conversation.item.input_audio_transcription.completed")
    assert heard[-1].transcript == "word0 word1"
    answer = await until(connection, "response.done")
    said = "".join(deltas(answer, "response.output_audio_transcript.delta"))
    pcm = b"".join(map(base64.b64decode, deltas(answer, "response.output_audio.delta")))
    assert said == " hello echo0 echo1" and len(pcm) >= 2 * 8 * TICK_SAMPLES
    assert np.abs(native.decode_audio(pcm)).max() == pytest.approx(0.15, abs=0.01)

    [item] = answer[-1].response.output
    cut = {"item_id": item.id, "content_index": 0, "audio_end_ms": 160}
    await connection.conversation.item.truncate(**cut)
    assert (await until(connection, "conversation.item.truncated"))[-1].audio_end_ms == 160
    await connection.response.create()
    await until(connection, "response.created")
    await connection.response.cancel()
    [*_, done] = await until(connection, "response.done")
    assert done.response.status in ("cancelled", "completed")
    speaking.cancel()


@pytest.mark.clients
def test_official_sdk_holds_a_conversation():
    import openai

    async def test(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        socket = base.replace("http", "ws")
        client = openai.AsyncOpenAI(base_url=base, api_key="none", websocket_base_url=socket)
        async with client.realtime.connect(model="duplex") as connection:
            await converse(connection)
        assert ("truncate", 0) == engine.agent.calls[0][:2]

    agent = TinyAgent(1)
    drive_server(test, agent)
    assert agent.opened[-1][2] == "hello"


def test_full_server_says_so_in_the_dialect():
    async def test(url, engine):
        path = url.replace(native.PATH, openai_realtime.PATH)
        async with connect(path) as first, connect(path, subprotocols=["realtime"]) as second:
            assert json.loads(await first.recv())["type"] == "session.created"
            assert json.loads(await second.recv())["error"]["code"] == "session_limit_exceeded"
            await second.wait_closed()
            assert second.close_code == native.CloseCode.FULL and second.subprotocol == "realtime"

    drive_server(test, TinyAgent(1))
