"""Other people's clients of the Realtime API, unmodified, on a real server."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime
from tests.helpers import drive_server, tone
from tests.serving.openai.pipecat_bot import pipecat_bot
from tests.tiny_agent import TinyAgent

pytestmark = pytest.mark.clients
QUESTION = np.concatenate([tone(5), np.zeros(8 * TICK_SAMPLES, np.float32)])
TICKS = [native.encode_audio(tick) for tick in QUESTION.reshape(-1, TICK_SAMPLES)]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(1_000):
        if is_so():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


def test_agents_of_openai():
    from agents import function_tool
    from agents.realtime import RealtimeAgent, RealtimeRunner

    @function_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return "sunny"

    async def run(url, engine):
        place = url.replace(native.PATH, realtime.PATH) + "?model=duplex"
        runner = RealtimeRunner(RealtimeAgent("A", instructions="hello", tools=[weather]))
        session = await runner.run(model_config={"url": place, "api_key": "x"})
        kinds = []
        async with session:
            for tick in TICKS:
                await session.send_audio(tick)
            async for event in session:
                kinds.append(event.type)
                if event.type in ("agent_end", "error"):
                    break
            await session.send_message("Hello.")
            async for event in session:
                if event.type in ("agent_end", "error"):
                    break
        assert "audio" in kinds and "error" not in kinds and event.type == "agent_end"

    agent = TinyAgent(1)
    drive_server(run, agent)
    assert agent.opened[-1][2] == "hello"
    assert ("write", 0, "user", "Hello.") in agent.calls


def test_pipecat():
    from pipecat.frames import frames as pipecat_frames
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.services.openai.realtime import events as openai_events
    from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService

    async def run(url, engine):
        tool = {"type": "function", "name": "f", "description": "d", "parameters": {}}
        session = openai_events.SessionProperties(instructions="hello", tools=[tool])
        service = OpenAIRealtimeLLMService(
            api_key="x",
            base_url=url.replace(native.PATH, realtime.PATH),
            settings=OpenAIRealtimeLLMService.Settings(session_properties=session),
        )
        async with pipecat_bot(service) as (put, found):
            context = LLMContext([{"role": "user", "content": "Say hello!"}])
            await put(pipecat_frames.LLMContextFrame(context))
            await until(lambda: found(pipecat_frames.TTSStoppedFrame))
            for tick in TICKS:
                await put(pipecat_frames.InputAudioRawFrame(tick, 24_000, 1))
            await until(lambda: len(found(pipecat_frames.TTSStoppedFrame)) >= 2)
        assert not found(pipecat_frames.ErrorFrame)
        assert found(pipecat_frames.TranscriptionFrame)[-1].text == "word0 word1"

    agent = TinyAgent(1)
    drive_server(run, agent)
    assert agent.opened[-1][2] == "hello"
    assert ("write", 0, "user", "Say hello!") in agent.calls


def test_livekit():
    import aiohttp
    from livekit import rtc
    from livekit.plugins.openai.realtime import RealtimeModel

    async def run(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        async with aiohttp.ClientSession() as http:
            model = RealtimeModel(base_url=base, api_key="x", http_session=http)
            session = model.session()
            events = []
            for kind in ("error", "input_audio_transcription_completed", "generation_created"):
                session.on(kind, lambda event, kind=kind: events.append((kind, event)))
            await session.update_instructions("hello")
            await session.generate_reply(instructions="Greet the user.")
            for tick in TICKS:
                session.push_audio(rtc.AudioFrame(tick, 24_000, 1, TICK_SAMPLES))

            def transcripts() -> list[str]:
                kind = "input_audio_transcription_completed"
                return [event.transcript for found, event in events if found == kind]

            await until(lambda: "word0 word1" in transcripts() and len(events) >= 3)
            session.interrupt()
            await session.aclose()
        kinds = [kind for kind, _ in events]
        assert "error" not in kinds and kinds.count("generation_created") == 2

    agent = TinyAgent(1)
    drive_server(run, agent)
    assert agent.opened[-1][2] == "hello"
    assert any(call[0] == "instruct" and "Greet the user." in call[2] for call in agent.calls)


def test_conversation_of_livekit():
    """Its copy has the server's order after items came in the middle, and after some went."""
    import aiohttp
    from livekit.agents import llm
    from livekit.plugins.openai.realtime import RealtimeModel

    async def run(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        async with aiohttp.ClientSession() as http:
            session = RealtimeModel(base_url=base, api_key="x", http_session=http).session()
            errors = []
            session.on("error", errors.append)
            wanted = llm.ChatContext()
            for role, text in (("system", "be kind"), ("user", "one"), ("assistant", "two")):
                wanted.add_message(role=role, content=text)
            await session.update_chat_ctx(wanted)
            wanted = wanted.copy()
            wanted.items.insert(1, llm.ChatMessage(role="user", content=["between"]))
            wanted.items.insert(0, llm.ChatMessage(role="user", content=["first"]))
            await session.update_chat_ctx(wanted)
            found = [item.text_content for item in session.chat_ctx.items]
            assert found == ["first", "be kind", "between", "one", "two"]
            wanted = wanted.copy()
            del wanted.items[1]
            await session.update_chat_ctx(wanted)
            assert [item.text_content for item in session.chat_ctx.items] == [
                "first",
                "between",
                "one",
                "two",
            ]
            await session.aclose()
        assert not errors

    drive_server(run, TinyAgent(1))


@pytest.mark.parametrize(("options", "commits"), [({}, True), ({"turn_detection": None}, False)])
def test_transcription_of_pipecat(options, commits):
    """With turns that its own detector ends, and with those that the agent hears."""
    from pipecat.frames import frames as pipecat_frames
    from pipecat.services.openai.stt import OpenAIRealtimeSTTService

    async def run(url, engine):
        base = url.replace(native.PATH, realtime.PATH)
        service = OpenAIRealtimeSTTService(api_key="x", base_url=base, **options)
        async with pipecat_bot(service) as (put, found):
            for tick in TICKS:
                await put(pipecat_frames.InputAudioRawFrame(tick, 24_000, 1))
                await asyncio.sleep(TICK_S)
            if commits:
                await put(pipecat_frames.VADUserStoppedSpeakingFrame())
            await until(lambda: found(pipecat_frames.TranscriptionFrame))
        assert not found(pipecat_frames.ErrorFrame)
        assert [f.text for f in found(pipecat_frames.TranscriptionFrame)] == ["word0 word1"]

    drive_server(run, TinyAgent(1))


def test_transcription_of_livekit():
    from livekit import rtc
    from livekit.agents import utils
    from livekit.agents.stt import SpeechEventType
    from livekit.plugins import openai as livekit_openai

    async def run(url, engine):
        base = url.replace("ws://", "http://").replace(native.PATH, "/v1")
        async with utils.http_context.open():
            stream = livekit_openai.STT(base_url=base, api_key="x", use_realtime=True).stream()
            for tick in TICKS:
                stream.push_frame(rtc.AudioFrame(tick, 24_000, 1, TICK_SAMPLES))
            async with asyncio.timeout(20):
                async for event in stream:
                    if event.type == SpeechEventType.FINAL_TRANSCRIPT:
                        break
            assert event.alternatives[0].text == "word0 word1"
            await stream.aclose()

    drive_server(run, TinyAgent(1))
