"""The GPT-Live dialect on a real server, and other people's clients of it."""

import asyncio
import base64
import json
from collections.abc import Callable

import numpy as np
import pytest
from websockets.asyncio.client import connect

from duplex.audio import TICK_SAMPLES
from duplex.serving.gpt_live import live
from duplex.serving.limits import EngineLimits, ServerLimits
from duplex.serving.native import messages as native
from tests.helpers import drive_server, rest_raw, tone
from tests.serving.openai.client import base64_of
from tests.serving.openai.pipecat_bot import pipecat_bot
from tests.tiny_agent import TinyAgent

QUESTION = np.concatenate([tone(5), np.zeros(8 * TICK_SAMPLES, np.float32)])


class Talk:
    """One connection that keeps all events but the audio, which it decodes."""

    def __init__(self, connection):
        self.connection = connection
        self.events: list[dict] = []
        self.sound: list[np.ndarray] = []

    async def send(self, kind: str, **fields) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str, count: int = 1) -> dict:
        """Read on until so many events of this type have come."""
        while count:
            event = json.loads(await self.connection.recv())
            if event["type"] == live.AUDIO:
                pcm = base64.b64decode(event["delta"])
                self.sound.append(native.decode_audio(pcm))
            else:
                self.events.append(event)
            count -= event["type"] == kind
        return event


def talk(test, limits: EngineLimits | None = None) -> TinyAgent:
    """Run an async test with a Talk whose session has begun; returns the agent."""
    agent = TinyAgent(1)

    async def run(url, engine):
        async with connect(url.replace(native.PATH, live.PATH)) as connection:
            talk = Talk(connection)
            await talk.send("session.start", session={"model": "m", "instructions": "hi"})
            assert (await talk.until("session.started"))["session"]["instructions"] == "hi"
            await test(talk)

    server = ServerLimits(grace_s=0, bytes_per_s=1 << 30)
    drive_server(run, agent, limits=server, engine_limits=limits)
    return agent


def test_live_conversation_needs_no_word_about_turns():
    async def test(talk):
        await talk.send("session.input_audio.append", audio=base64_of(QUESTION))
        await talk.until(live.AUDIO, 20)
        await talk.send("session.close", event_id="bye")
        closed = await talk.until("session.closed")
        assert closed["reason"] == "close_requested" and closed["client_event_id"] == "bye"
        assert closed["usage"]["seconds"] >= 1.6
        assert await rest_raw(talk.connection) == []
        assert talk.connection.close_code == 1000
        deltas = [event["delta"] for event in talk.events if "transcript" in event["type"]]
        assert "".join(deltas) == " word0 word1 echo0 echo1"
        # The answer is the question, with silence before and after it.
        sound = np.concatenate(talk.sound)
        loud = np.flatnonzero(sound)
        assert loud[0] > 0 and loud[-1] < len(sound) - TICK_SAMPLES
        assert 4 * TICK_SAMPLES < loud[-1] - loud[0] <= 5 * TICK_SAMPLES

    agent = talk(test)
    assert agent.opened[-1][2] == "hi"


def test_live_burst_is_kept_and_what_is_too_much_is_refused_at_the_append():
    async def test(talk):
        await talk.send("session.input_audio.append", audio=base64_of(QUESTION), event_id="first")
        for _ in range(6):
            await talk.send("session.input_audio.append", audio=base64_of(tone(900)))
        error = (await talk.until("error"))["error"]
        assert error["code"] == "input_audio_buffer_full"
        if not any("output_transcript" in event["type"] for event in talk.events):
            await talk.until("session.output_transcript.delta")

    talk(test)


def test_commentary_is_spoken_of_once_nobody_speaks():
    async def test(talk):
        append = {"delegation_id": None, "content": "It rains."}
        await talk.send("session.commentary.append", event_id="c", **append)
        assert (await talk.until("session.commentary.appended"))["client_event_id"] == "c"
        await talk.until("session.output_transcript.delta")
        # While the agent speaks, what comes waits for the end of its turn.
        await talk.send("session.input_audio.append", audio=base64_of(QUESTION))
        await talk.until("session.output_transcript.delta")
        await talk.send("session.commentary.append", **append)
        await talk.until("session.output_transcript.delta", 2)

    calls = talk(test).calls
    assert [call[0] for call in calls if call[0] in ("write", "answer")] == ["write", "answer"] * 2


def test_end_of_the_session_is_told_before_the_connection_closes():
    async def test(talk):
        assert (await talk.until("error"))["error"]["code"] == "session_expired"
        assert (await talk.until("session.closed"))["reason"] == "expired"
        assert await rest_raw(talk.connection) == []

    talk(test, limits=EngineLimits(idle_s=0.1, max_session_s=0.5))


def test_late_start_holds_no_place_and_bad_ones_may_be_mended():
    async def run(url, engine):
        path = url.replace(native.PATH, live.PATH) + "/?model=m"
        async with connect(path) as connection:
            late = Talk(connection)
            await asyncio.sleep(0.3)
            assert not engine.stats()["sessions"]
            await late.send("session.input_audio.append", audio="")
            assert (await late.until("error"))["error"]["code"] == "session_not_started"
            await late.send("session.start", session={})
            assert (await late.until("error"))["error"]["param"] == "session.model"
            await late.connection.send("{")
            assert (await late.until("error"))["error"]["code"] == "bad_message"
            await late.send("session.start", session={"model": "m"})
            await late.until("session.started")

    limits = ServerLimits(grace_s=0, first_message_s=0.1, late_start_s=60)
    drive_server(run, TinyAgent(1), limits=limits)


def test_full_server_says_so():
    async def run(url, engine):
        path = url.replace(native.PATH, live.PATH)
        async with connect(path) as first, connect(path) as second:
            for connection in (first, second):
                start = {"type": "session.start", "session": {"model": "m"}}
                await connection.send(json.dumps(start))
            await Talk(first).until("session.started")
            error = (await Talk(second).until("error"))["error"]
            assert error["code"] == "session_limit_exceeded"
            await second.wait_closed()
            assert second.close_code == native.CloseCode.FULL

    drive_server(run, TinyAgent(1))


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(1_000):
        if is_so():
            return
        await asyncio.sleep(0.02)


@pytest.mark.clients
def test_official_sdk_talks_live():
    import openai
    from openai.types.live.server_event import ServerEvent
    from pydantic import TypeAdapter

    async def run(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        client = openai.AsyncOpenAI(base_url=base, api_key="none")
        adapter = TypeAdapter(ServerEvent)
        async with client.live.connect() as connection:
            await connection.session.start(session={"model": "duplex", "instructions": "hello"})
            await connection.session.input_audio.append(audio=base64_of(QUESTION))
            await connection.session.input_audio.mute()
            kinds = set()
            async for event in connection:
                adapter.validate_python(event.to_dict())
                kinds.add(event.type)
                if event.type == "session.output_transcript.delta" and event.delta == " echo1":
                    await connection.session.close()
        assert {"session.started", live.AUDIO, "session.closed"} <= kinds
        assert "session.input_audio.muted" in kinds and "error" not in kinds

    agent = TinyAgent(1)
    drive_server(run, agent)
    assert agent.opened[-1][2] == "hello"


@pytest.mark.clients
def test_pipecat_talks_live():
    from pipecat.frames.frames import (
        InputAudioRawFrame,
        LLMContextFrame,
        TranscriptionFrame,
        TTSTextFrame,
    )
    from pipecat.frames.frames import SpeechOutputAudioRawFrame as Speech
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.services.openai.live.llm import OpenAILiveLLMService

    async def run(url, engine):
        service = OpenAILiveLLMService(api_key="x", base_url=url.replace(native.PATH, live.PATH))
        async with pipecat_bot(service) as (put, found):
            context = LLMContext([{"role": "system", "content": "hello"}])
            await put(LLMContextFrame(context))
            await until(lambda: found(Speech))
            for tick in QUESTION.reshape(-1, TICK_SAMPLES):
                pcm = native.encode_audio(tick)
                await put(InputAudioRawFrame(pcm, 24_000, 1))
            await until(lambda: found(TranscriptionFrame) and len(found(TTSTextFrame)) == 2)
        assert "".join(frame.text for frame in found(TTSTextFrame)) == " echo0 echo1"
        assert found(TranscriptionFrame)[0].text == " word0 word1"

    agent = TinyAgent(1)
    drive_server(run, agent)
    assert agent.opened[-1][2] == "hello"


@pytest.mark.clients
def test_livekit_talks_live():
    import aiohttp
    from livekit import rtc
    from livekit.agents.llm import ChatContext
    from livekit.plugins.openai.realtime import GPTLiveModel

    async def run(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        async with aiohttp.ClientSession() as http:
            model = GPTLiveModel(base_url=base, api_key="x", http_session=http)
            session = model.session()
            events = []
            for kind in ("error", "transcript_delta", "input_audio_transcription_completed"):
                session.on(kind, lambda event, kind=kind: events.append((kind, event)))
            await session._update_session(
                instructions="hello", chat_ctx=ChatContext.empty(), tools=[]
            )
            frames = aiter(session.audio_stream)
            assert (await anext(frames)).frame.samples_per_channel == TICK_SAMPLES
            for tick in QUESTION.reshape(-1, TICK_SAMPLES):
                session.push_audio(
                    rtc.AudioFrame(native.encode_audio(tick), 24_000, 1, TICK_SAMPLES)
                )
            said = []
            while len(said) < 2:
                await anext(frames)
                said = [event.text for kind, event in events if kind == "transcript_delta"]
            await session.aclose()
        kinds = [kind for kind, _ in events]
        assert said == [" echo0", " echo1"] and "error" not in kinds
        assert "input_audio_transcription_completed" in kinds

    agent = TinyAgent(1)
    drive_server(run, agent)
    assert agent.opened[-1][2] == "hello"
