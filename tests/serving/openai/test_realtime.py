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
from duplex.serving.commands import (
    AfterInput,
    Answer,
    SetPlaybackPosition,
    Stop,
    Truncate,
)
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime as openai_realtime
from tests.helpers import QUIET, drive_server, tone
from tests.serving.openai.client import Client, base64_of, types, without_id
from tests.tiny_agent import TinyAgent


def test_corrected_turn_is_complete_with_the_words_it_has_now():
    client = Client()
    client.tick(Event("user_started", 2), Event("heard", 3, " hallow"))
    assert client.tick(Event("corrected", 4, " hello")) == []
    ended = client.tick(Event("user_ended", 5))
    assert [event["transcript"] for event in ended if "transcript" in event] == ["hello"]


def test_user_turn_is_told_as_the_api_does():
    client = Client()
    client.append(tone(6))
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
        "content": [{"type": "input_audio", "transcript": "hello"}],
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
    assert client.refused("response.cancel")[0] == "response_cancel_not_active"
    commands, [created] = client.send("response.create")
    assert commands[-1] == AfterInput(Answer(hears_out=True))
    assert created["response"]["status"] == "in_progress"
    client.tick(Event("agent_started", 0))
    assert client.refused("response.create")[0] == "conversation_already_has_active_response"
    assert client.refused("response.cancel", response_id="other")[0] == "response_cancel_not_active"
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
    assert client.send("conversation.item.truncate", **cut)[0] == [Truncate(340, turn=0)]
    for field, value, code in (
        ("audio_end_ms", -1, "invalid_value"),
        ("audio_end_ms", "100", "invalid_value"),
        ("item_id", "none", "item_truncate_invalid_item_id"),
        ("item_id", [], "item_truncate_invalid_item_id"),
    ):
        assert client.refused("conversation.item.truncate", **{**cut, field: value})[0] == code


def test_answer_before_the_last_one_is_truncated_as_clients_do_late():
    client = Client()
    told = client.tick(Event("agent_started", 0), Event("said", 0, "One two."))
    first = told[2]["item"]["id"]
    client.tick(Event("spoken", 2, "One", 0, 80), Event("spoken", 3, "two.", 80, 160))
    client.tick(Event("agent_ended", 4))
    client.answer("Three.", tick=5)
    cut = {"item_id": first, "content_index": 0, "audio_end_ms": 100.0}
    # The agent goes on: it was the answer before.
    commands, [truncated] = client.send("conversation.item.truncate", **cut)
    assert commands == [Truncate(100, turn=0)] and truncated["audio_end_ms"] == 100
    _, [retrieved] = client.send("conversation.item.retrieve", item_id=first)
    assert retrieved["item"]["content"][0]["transcript"] == "One"


def test_more_than_was_played_and_nothing_at_all_may_be_cut():
    client = Client()
    item = client.read(client.dialect.tick(tone(1)[:0], [Event("agent_started", 0)]))[2]["item"]
    cut = {"item_id": item["id"], "content_index": 0}
    commands, [truncated] = client.send("conversation.item.truncate", **cut, audio_end_ms=0)
    assert commands == [Stop()] and truncated["audio_end_ms"] == 0
    client.tick()
    client.tick(Event("agent_ended", 2))
    commands, _ = client.send("conversation.item.truncate", **cut, audio_end_ms=9_000)
    assert commands == [Truncate(160, turn=0)]


def test_failing_model_and_full_server_are_told():
    client = Client()
    [told] = client.tick(Error("model", "it broke"))
    assert told["error"]["type"] == "server_error"
    [told] = client.read(client.dialect.refused(Error("full", "no place")))
    assert told["error"]["code"] == "session_limit_exceeded"


# JSON has no others; what is no JSON is refused as a whole.
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
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
    await until(connection, "response.output_item.added")
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
        assert ("truncate", 0) in [call[:2] for call in engine.agent.calls]

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
