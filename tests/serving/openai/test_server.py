"""The OpenAI Realtime dialect on a real server: order against the audio, limits, ends."""

import asyncio
import json

import numpy as np
from websockets.asyncio.client import connect

from duplex.audio import TICK_SAMPLES
from duplex.events import TurnTaking
from duplex.serving.limits import EngineLimits, ServerLimits
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime as openai_realtime
from tests.helpers import drive_server, rest_raw, tone
from tests.serving.openai.client import base64_of
from tests.tiny_agent import TinyAgent

PUSH_TO_TALK = {"audio": {"input": {"turn_detection": None}}}


class Talk:
    """One connection that keeps all events."""

    def __init__(self, connection):
        self.connection = connection
        self.events: list[dict] = []

    async def send(self, kind: str, **fields) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str) -> dict:
        """Read on until an event of this type."""
        while True:
            self.events.append(json.loads(await self.connection.recv()))
            if self.events[-1]["type"] == kind:
                return self.events[-1]

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


def talk(test, agent=None, query="", limits: EngineLimits | None = None) -> TinyAgent:
    """Run an async test with a Talk; returns the agent."""
    agent = agent or TinyAgent(1)

    async def run(url, engine):
        path = url.replace(native.PATH, openai_realtime.PATH) + query
        async with connect(path, max_size=None) as connection:
            talk = Talk(connection)
            await talk.until("session.created")
            await test(talk)

    server = ServerLimits(grace_s=0, bytes_per_s=1 << 30)
    drive_server(run, agent, limits=server, engine_limits=limits)
    return agent


def test_push_to_talk_with_a_whole_file_is_answered_once():
    async def test(talk):
        await talk.send("session.update", session=PUSH_TO_TALK)
        sound = np.concatenate([tone(5), np.zeros(12 * TICK_SAMPLES, np.float32), tone(5)])
        for at in range(0, len(sound), 4001):
            piece = base64_of(sound[at : at + 4001])
            await talk.send("input_audio_buffer.append", audio=piece)
        await talk.send("input_audio_buffer.commit")
        await talk.send("response.create")
        done = await talk.until("response.done")
        assert done["response"]["status"] == "completed"
        kinds = talk.kinds()
        assert kinds.count("response.created") == 1
        assert not any("speech_st" in kind for kind in kinds)
        completed = kinds.index("conversation.item.input_audio_transcription.completed")
        assert completed < kinds.index("response.output_item.added")
        assert talk.events[completed]["transcript"] == "word0 word1 word2"

    agent = talk(test)
    assert ("end_turn", 0) in agent.calls and ("answer", 0) in agent.calls


def test_nothing_is_answered_where_the_client_decides():
    async def test(talk):
        vad = {"type": "server_vad", "create_response": False}
        await talk.send("session.update", session={"turn_detection": vad})
        sound = np.concatenate([tone(5), np.zeros(8 * TICK_SAMPLES, np.float32)])
        await talk.send("input_audio_buffer.append", audio=base64_of(sound))
        await talk.until("conversation.item.input_audio_transcription.completed")
        assert "input_audio_buffer.speech_stopped" in talk.kinds()
        assert "response.created" not in talk.kinds()
        await talk.send("response.create", response={"metadata": {"a": "b"}})
        done = await talk.until("response.done")
        assert done["response"]["metadata"] == {"a": "b"}

    talk(test)


def test_cleared_audio_is_never_heard():
    async def test(talk):
        await talk.send("session.update", session=PUSH_TO_TALK)
        await talk.send("input_audio_buffer.append", audio=base64_of(tone(40)))
        await talk.send("input_audio_buffer.clear")
        await talk.send("input_audio_buffer.append", audio=base64_of(tone(4)))
        await talk.send("input_audio_buffer.commit")
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        assert len(completed["transcript"].split()) <= 2

    talk(test)


def test_json_in_binary_frames_is_read():
    async def test(talk):
        message = {"type": "session.update", "session": {"instructions": "hi"}}
        await talk.connection.send(json.dumps(message).encode())
        assert (await talk.until("session.updated"))["session"]["instructions"] == "hi"
        await talk.connection.send(b"\xff\xfe")
        assert (await talk.until("error"))["error"]["code"] == "bad_message"

    talk(test)


def test_burst_is_kept_and_what_is_too_much_is_refused_at_the_append():
    async def test(talk):
        pause = np.zeros(20 * TICK_SAMPLES, np.float32)
        question = np.concatenate([tone(4), pause])
        # Most of what may wait: a message of more than 20 MB.
        ticks = openai_realtime.TERMS.early_ticks - 400
        whole = np.concatenate([question, tone(ticks - len(question) // TICK_SAMPLES)])
        await talk.send("input_audio_buffer.append", audio=base64_of(whole))
        more = base64_of(tone(700))
        await talk.send("input_audio_buffer.append", audio=more, event_id="mine")
        assert (await talk.until("response.done"))["response"]["status"] == "completed"
        [error] = [event["error"] for event in talk.events if event["type"] == "error"]
        assert error["code"] == "input_audio_buffer_full" and error["event_id"] == "mine"

    talk(test)


def test_idle_session_stays_and_the_end_is_told():
    async def test(talk):
        error = (await talk.until("error"))["error"]
        assert error["code"] == "session_expired" and "lasts at most" in error["message"]
        assert await rest_raw(talk.connection) == []
        assert "lasts at most" in talk.connection.close_reason

    talk(test, limits=EngineLimits(idle_s=0.2, max_session_s=1.5))


def test_transcription_session_is_never_answered():
    async def test(talk):
        assert talk.events[0]["session"]["type"] == "transcription"
        sound = np.concatenate([tone(5), np.zeros(12 * TICK_SAMPLES, np.float32)])
        await talk.send("input_audio_buffer.append", audio=base64_of(sound))
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "word0 word1"
        assert "response.created" not in talk.kinds()

    agent = talk(test, query="?intent=transcription")
    assert ("take_turns", 0, TurnTaking(answers=False, backchannels=False)) in agent.calls


def test_new_instructions_keep_how_turns_are_taken():
    async def test(talk):
        await talk.send("session.update", session=PUSH_TO_TALK)
        await talk.until("session.updated")
        await asyncio.sleep(0.2)
        await talk.send("session.update", session={"instructions": "hello"})
        await talk.send("response.create")
        await talk.until("response.done")

    agent = talk(test)
    assert agent.opened[-1][2] == "hello"
    assert not agent.states[0].wanted.ends_turns


def test_trailing_slash_leads_to_the_same_place():
    async def run(url, engine):
        path = url.replace(native.PATH, openai_realtime.PATH) + "/?model=duplex"
        async with connect(path) as connection:
            assert json.loads(await connection.recv())["type"] == "session.created"

    drive_server(run, TinyAgent(1))


def test_many_errors_one_after_the_other_are_no_abuse():
    async def test(talk):
        for number in range(60):
            await talk.send("conversation.item.delete", item_id="none", event_id=str(number))
            assert (await talk.until("error"))["error"]["event_id"] == str(number)
        await talk.send("session.update", session={})
        await talk.until("session.updated")

    talk(test)
