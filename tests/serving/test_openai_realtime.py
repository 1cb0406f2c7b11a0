"""The OpenAI Realtime dialect: the golden order and fields of events, errors, and the official SDK on a real server."""

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
from duplex.serving import g711
from duplex.serving import native as protocol
from duplex.serving import openai_realtime as realtime
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
from tests.helpers import drive_server as drive
from tests.helpers import tone
from tests.tiny_agent import TinyAgent

QUIET = np.zeros(TICK_SAMPLES, np.float32)
GA_SERVER_EVENTS = """error session.created session.updated conversation.item.added conversation.item.done
conversation.item.retrieved conversation.item.truncated conversation.item.input_audio_transcription.delta
conversation.item.input_audio_transcription.completed input_audio_buffer.committed input_audio_buffer.cleared
input_audio_buffer.speech_started input_audio_buffer.speech_stopped response.created response.done
response.output_item.added response.output_item.done response.content_part.added response.content_part.done
response.output_text.delta response.output_text.done response.output_audio.delta response.output_audio.done
response.output_audio_transcript.delta response.output_audio_transcript.done""".split()


class Client:
    """Sends objects to a dialect and reads its events back as objects; every one is of a GA type and has an id."""

    def __init__(self):
        self.dialect = realtime.OpenAIRealtime()
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
        commands, [event] = self.send(kind, event_id="mine", **fields)
        assert not commands and event["type"] == "error" and event["error"]["event_id"] == "mine"
        assert event["error"]["message"] and "\n" not in event["error"]["message"]
        return event["error"]["code"]


def types(events: list[dict]) -> list[str]:
    return [event["type"] for event in events]


def test_a_corrected_turn_is_complete_with_the_words_it_has_now():
    client = Client()
    client.tick(Event("user_started", 2), Event("heard", 3, " hallow"))
    assert client.tick(Event("corrected", 4, " hello")) == []
    ended = client.tick(Event("user_ended", 5))
    assert [event["transcript"] for event in ended if "transcript" in event] == ["hello"]


def test_golden_turns():
    client = Client()
    [started] = client.tick(Event("user_started", 2))
    assert started.pop("event_id") and started == {
        "type": "input_audio_buffer.speech_started", "audio_start_ms": 160, "item_id": started["item_id"]}  # fmt: skip
    user = started["item_id"]
    [delta] = client.tick(Event("heard", 3, " hello"))
    assert delta.pop("event_id") and delta == {
        "type": "conversation.item.input_audio_transcription.delta", "item_id": user, "content_index": 0,
        "delta": " hello"}  # fmt: skip
    ended = client.tick(Event("user_ended", 4), Event("agent_started", 4), audio=tone(1))
    assert types(ended) == [
        "input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done",
        "conversation.item.input_audio_transcription.completed", "response.created", "response.output_item.added",
        "conversation.item.added", "response.content_part.added", "response.output_audio.delta",
    ]  # fmt: skip
    assert (
        ended[0]["audio_end_ms"] == 320
        and ended[4]["transcript"] == "hello"
        and ended[1]["previous_item_id"] is None
    )
    item = {
        "id": user,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
    }
    assert ended[2]["item"] == item | {"content": [{"type": "input_audio", "transcript": " hello"}]}
    response = ended[5]["response"]
    assert (response["object"], response["status"], response["status_details"], response["output"]) == (
        "realtime.response", "in_progress", None, [])  # fmt: skip
    assert ended[7]["previous_item_id"] == user
    where = {
        "response_id": response["id"],
        "item_id": ended[7]["item"]["id"],
        "output_index": 0,
        "content_index": 0,
    }
    assert where.items() <= ended[9].items() and base64.b64decode(
        ended[9]["delta"]
    ) == protocol.encode_audio(tone(1))
    assert ended[8]["part"] == {"type": "audio", "transcript": ""}
    said = client.tick(Event("said", 5, "Good"), Event("said", 5, " day."), Lag(5, 80, 0, 0, 0))
    assert types(said) == ["response.output_audio_transcript.delta"] * 2 + [
        "response.output_audio.delta"
    ]
    done = client.tick(Event("agent_ended", 6))
    assert types(done) == [
        "response.output_audio.delta", "response.output_audio.done", "response.output_audio_transcript.done",
        "response.content_part.done", "response.output_item.done", "conversation.item.done", "response.done",
    ]  # fmt: skip
    assert done[2]["transcript"] == "Good day." and done[6]["response"]["status"] == "completed"
    assert done[6]["response"]["output"][0]["content"] == [
        {"type": "output_audio", "transcript": "Good day."}
    ]
    assert client.tick() == []  # silence between answers is not sent


def test_an_interrupted_answer_is_cancelled_and_keeps_what_was_said():
    client = Client()
    client.tick(Event("agent_started", 0), Event("said", 0, "One two"))
    events = client.tick(Event("user_started", 1), Event("agent_stopped", 1, " two"))
    assert types(events)[0] == "input_audio_buffer.speech_started"
    done = events[-1]["response"]
    assert done["status"] == "cancelled" and done["status_details"] == {
        "type": "cancelled",
        "reason": "turn_detected",
    }
    assert (
        done["output"][0]["status"] == "incomplete"
        and done["output"][0]["content"][0]["transcript"] == "One"
    )


def test_cancel_and_create():
    client = Client()
    assert client.refused("response.cancel") == "response_cancel_not_active"
    assert client.send("response.create") == ([Answer()], [])
    assert client.send("response.create", response={"instructions": "Sing."})[0] == [
        Write("system", "Sing."),
        Answer(),
    ]
    client.tick(Event("agent_started", 0))
    assert client.refused("response.create") == "conversation_already_has_active_response"
    assert client.refused("response.cancel", response_id="other") == "response_cancel_not_active"
    assert client.send("response.cancel") == ([Stop()], [])
    assert (
        client.tick(Event("agent_stopped", 1))[-1]["response"]["status_details"]["reason"]
        == "client_cancelled"
    )


def test_truncate():
    client = Client()
    for _ in range(3):
        client.tick()
    item = client.tick(Event("agent_started", 3))[2]["item"]["id"]
    client.tick()
    cut = {"item_id": item, "content_index": 0, "audio_end_ms": 100}
    commands, [truncated] = client.send("conversation.item.truncate", **cut)
    assert commands == [SetPlaybackPosition(240 + 100), Stop()]
    assert truncated.pop("event_id") and truncated == {"type": "conversation.item.truncated", **cut}
    client.tick(Event("agent_ended", 5))
    assert client.send("conversation.item.truncate", **cut)[0] == [Truncate(340)]
    assert (
        client.refused("conversation.item.truncate", **{**cut, "audio_end_ms": 241})
        == "invalid_value"
    )
    assert (
        client.refused("conversation.item.truncate", **{**cut, "item_id": "none"})
        == "item_not_found"
    )
    assert (
        client.refused("conversation.item.truncate", **{**cut, "item_id": []}) == "item_not_found"
    )


def test_items_and_buffer():
    client = Client()
    message = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
        "id": "a",
    }
    commands, events = client.send("conversation.item.create", item=message)
    assert commands == [Write("user", "hi")] and types(events) == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert (
        client.refused("conversation.item.create", item=message) == "invalid_value"
    )  # the id is taken
    assert (
        client.send("conversation.item.retrieve", item_id="a")[1][0]["item"]["content"]
        == message["content"]
    )
    assert client.refused("conversation.item.delete", item_id="a") == "unsupported"
    for bad in (
        {},
        {"type": "function_call_output"},
        {**message, "content": [{}]},
        {**message, "content": [3]},
    ):
        assert client.refused("conversation.item.create", item=bad) in (
            "unsupported",
            "invalid_value",
        )
    assert client.refused("input_audio_buffer.commit") == "input_audio_buffer_commit_empty"
    [audio], [] = client.send(
        "input_audio_buffer.append", audio=base64.b64encode(protocol.encode_audio(tone(1))).decode()
    )
    np.testing.assert_allclose(audio.samples, tone(1), atol=1e-4)
    committed = client.send("input_audio_buffer.commit")[1]
    assert types(committed) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    ended = client.tick(Event("user_started", 0), Event("user_ended", 1))
    assert types(ended)[-1].endswith("completed") and "input_audio_buffer.committed" not in types(
        ended
    )
    commands, [cleared] = client.send("input_audio_buffer.clear")
    assert commands == [Clear()] and cleared["type"] == "input_audio_buffer.cleared"
    for bad in ("no base64!", 3, None, "AAA=" * 3 + "AA"):
        assert client.refused("input_audio_buffer.append", audio=bad) == "invalid_value"
    assert client.refused("transcription_session.update") == "unknown_event"


def test_session_update():
    client = Client()
    commands, [updated] = client.send(
        "session.update", session={"type": "realtime", "instructions": "Be brief."}
    )
    assert (
        commands == [Configure("Be brief.")] and updated["session"]["instructions"] == "Be brief."
    )
    assert updated["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    telephone = {"format": {"type": "audio/pcmu"}}
    commands, [updated] = client.send(
        "session.update", session={"audio": {"input": telephone, "output": telephone}}
    )
    assert commands == [] and updated["session"]["audio"]["output"]["format"] == {
        "type": "audio/pcmu"
    }
    commands, _ = client.send(
        "input_audio_buffer.append", audio=base64.b64encode(b"\xff" * 800).decode()
    )
    assert isinstance(commands[0], Audio) and not commands[0].samples.any()
    delta = client.tick(Event("agent_started", 0), audio=tone(1))[-1]
    assert len(base64.b64decode(delta["delta"])) <= TICK_SAMPLES // 3 + 1 and g711.LEVELS
    for bad in (
        {"type": "transcription"}, {"tools": [{"type": "function"}]}, {"instructions": 3}, {"output_modalities": ["smell"]},
        {"audio": []}, {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, {"instructions": "x" * 5000},
    ):  # fmt: skip
        assert client.refused("session.update", session=bad) in ("invalid_value", "unsupported")
    assert client.refused("session.update") == "invalid_value"


def test_text_only():
    client = Client()
    client.send("session.update", session={"output_modalities": ["text"]})
    events = client.tick(
        Event("agent_started", 0), Event("said", 0, "Hi."), audio=tone(1)
    ) + client.tick(Event("agent_ended", 1))
    assert "response.output_text.delta" in types(events) and not any(
        "audio" in kind for kind in types(events)
    )
    assert events[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "Hi."}
    ]


def test_the_models_failure_and_a_full_server_are_told():
    client = Client()
    assert client.tick(Error("model", "it broke"))[0]["error"]["type"] == "server_error"
    assert (
        json.loads(client.dialect.refused(Error("full", "no place"))[0])["error"]["code"]
        == "session_limit_exceeded"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)
field_names = st.sampled_from(
    ["session", "audio", "item", "item_id", "audio_end_ms", "response", "response_id", "event_id"]
)
kinds = st.sampled_from(["session.update", *(f"input_audio_buffer.{verb}" for verb in ("append", "commit", "clear")),
                         *(f"conversation.item.{verb}" for verb in ("create", "retrieve", "delete", "truncate")),
                         "response.create", "response.cancel"])  # fmt: skip


@given(st.lists(st.tuples(kinds, st.dictionaries(field_names, json_values))))
def test_no_field_breaks_the_dialect(messages):
    client = Client()
    client.tick(Event("user_started", 0), Event("agent_started", 0))
    for kind, fields in messages:
        client.send(kind, **fields)
    client.tick(Event("agent_ended", 1))


@pytest.mark.clients
def test_the_official_sdk_holds_a_conversation():
    import openai

    async def test(url, engine):
        base = url.replace("ws://", "http://").replace(protocol.PATH, "/v1")
        client = openai.AsyncOpenAI(
            base_url=base, api_key="none", websocket_base_url=base.replace("http", "ws")
        )
        async with client.realtime.connect(model="duplex") as connection:

            async def until(*kinds) -> list:
                events = [await connection.recv()]
                while events[-1].type not in kinds:
                    events.append(await connection.recv())
                return events

            async def say(sound) -> None:
                for tick in sound.reshape(-1, TICK_SAMPLES):
                    await connection.input_audio_buffer.append(
                        audio=base64.b64encode(protocol.encode_audio(tick)).decode()
                    )
                    await asyncio.sleep(TICK_S)

            assert (await connection.recv()).session.id.startswith("sess_")
            await connection.session.update(session={"type": "realtime", "instructions": "hello"})
            assert (await connection.recv()).session.instructions == "hello"
            await connection.response.cancel()  # as push_to_talk_app.py does at first
            assert (await connection.recv()).error.code == "response_cancel_not_active"
            speaking = asyncio.create_task(
                say(np.concatenate([tone(8), np.zeros(60 * TICK_SAMPLES, np.float32)]))
            )
            heard = await until("conversation.item.input_audio_transcription.completed")
            assert heard[-1].transcript == "word0 word1"
            answer = await until("response.done")
            said = "".join(
                event.delta
                for event in answer
                if event.type == "response.output_audio_transcript.delta"
            )
            sound = b"".join(
                base64.b64decode(event.delta)
                for event in answer
                if event.type == "response.output_audio.delta"
            )
            assert said == " hello echo0 echo1" and len(sound) >= 2 * 8 * TICK_SAMPLES
            assert np.abs(protocol.decode_audio(sound)).max() == pytest.approx(0.15, abs=0.01)
            item = answer[-1].response.output[0]
            await connection.conversation.item.truncate(
                item_id=item.id, content_index=0, audio_end_ms=160
            )
            assert (await until("conversation.item.truncated"))[-1].audio_end_ms == 160
            await connection.response.create()
            await until("response.created")
            await connection.response.cancel()
            assert (await until("response.done"))[-1].response.status in ("cancelled", "completed")
            speaking.cancel()
        assert ("truncate", 0) == engine.agent.calls[0][:2]

    agent = TinyAgent(1)
    drive(test, agent)
    assert agent.opened[-1][2] == "hello"


def test_a_full_server_says_so_in_the_dialect():
    async def test(url, engine):
        path = url.replace(protocol.PATH, realtime.PATH)
        async with connect(path) as first, connect(path, subprotocols=["realtime"]) as second:
            assert json.loads(await first.recv())["type"] == "session.created"
            assert json.loads(await second.recv())["error"]["code"] == "session_limit_exceeded"
            await second.wait_closed()
            assert second.close_code == protocol.CLOSE_FULL and second.subprotocol == "realtime"

    drive(test, TinyAgent(1))
