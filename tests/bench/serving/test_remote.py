"""The bench against servers of other dialects: our own over loopback, and ones that misbehave."""

import asyncio
import base64
import json
import time

import numpy as np
import pytest
from websockets.asyncio.server import serve

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.bench.play import play_remote
from duplex.bench.scenes import Piece, Scene
from duplex.bench.serving.dialects import MoshiClient, RealtimeClient
from duplex.bench.serving.latency import measure_remote
from duplex.bench.serving.remote import PacedSession, address, open_session
from duplex.errors import ClientError
from duplex.serving.native import messages as native
from tests.helpers import rest_raw, tone

CREATED = json.dumps({"type": "session.created", "session": {"id": "sess_1"}})


def scene() -> Scene:
    return Scene(
        "turn-1", "turn", [Piece("question", "so?", tone(8), [], after_s=0.4)], listen_s=2.0
    )


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["realtime", "moshi"])
def test_scene_and_its_latency(server_url, dialect):
    url = server_url.removesuffix(native.PATH)
    played = asyncio.run(play_remote(url, scene(), 0, dialect))
    sound = np.flatnonzero(np.abs(played.channel("agent")) > 0.05) / SAMPLE_RATE
    end_s = played.annotations[0].end_s
    assert (
        end_s + 0.1 < sound[0] < end_s + 1.5 and len(sound) / SAMPLE_RATE > 0.4
    )  # half of 0.64 s of a tone lies above
    if dialect == "realtime":
        kinds = [event["type"] for event in played.recording.events]
        assert kinds == [
            "user_started",
            "heard",
            "heard",
            "user_ended",
            "agent_started",
            "said",
            "said",
            "agent_ended",
        ]
    assert "".join(e["text"] for e in played.recording.events if e["type"] == "said").startswith(
        " echo0 echo1"
    )
    found = asyncio.run(measure_remote(url, [scene()], 0, dialect))
    assert found["first_sample"]["count"] == found["asked"] == 1 and found["engine"] is not None


def test_path_is_the_dialects_own_unless_one_is_given():
    assert address("ws://host:1", "moshi") == "ws://host:1/api/chat"
    assert address("wss://host/?model=m", "realtime") == "wss://host/v1/realtime?model=m"
    assert address("ws://host/own", "duplex") == "ws://host/own"


async def against(server, test) -> None:
    """`server(connection)` answers on a loopback socket while `test(url)` runs."""
    async with asyncio.timeout(20), serve(server, "127.0.0.1", 0) as listening:
        await test(f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}")


def event(kind: str, **fields) -> str:
    return json.dumps({"type": kind, **fields})


def delta(ticks: int) -> str:
    audio = base64.b64encode(native.encode_audio(tone(ticks))).decode()
    return event("response.output_audio.delta", delta=audio)


def session(messages: list) -> list:
    """(seconds, item) of all that a session hands out when its server says these at once."""
    found = []

    async def server(connection):
        for message in [CREATED, *messages]:
            if isinstance(message, float):
                await asyncio.sleep(message)
            else:
                await connection.send(message)
        await rest_raw(connection)

    async def test(url):
        one = await PacedSession.open(url, RealtimeClient())
        begun = time.monotonic()

        async def close() -> None:
            await asyncio.sleep(1.2)
            await one.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(close(), name="close")
            while (item := await one.get()) is not None:
                found.append((time.monotonic() - begun, item))

    asyncio.run(against(server, test))
    return found


def test_sound_that_comes_at_once_is_played_in_real_time():
    found = session(
        [
            event("response.created"),
            delta(10),
            event("response.done", response={"status": "completed"}),
        ]
    )
    times = [seconds for seconds, (audio, _) in found if len(audio)]
    assert len(times) == 10 and times[-1] - times[0] > 7 * TICK_S  # one tick may be made up for
    kinds = [one["type"] for _, (_, events) in found for one in events]
    assert (
        kinds == ["agent_started", "agent_ended"] and found[-1][0] >= times[-1]
    )  # ended when it has been played


@pytest.mark.parametrize("done", [True, False])
def test_interruption_drops_what_was_not_played(done):
    """The server had sent all of it, so only the client can stop it, or cancels it itself."""
    whole, cut = (
        event("response.done", response={"status": "completed"}),
        event("response.done", response={"status": "cancelled"}),
    )
    started = event("input_audio_buffer.speech_started")
    messages = [whole, 0.3, started] if done else [0.3, started, cut]
    found = session([event("response.created"), delta(100), *messages])
    audio = sum(len(audio) for _, (audio, _) in found)
    assert 2 * TICK_SAMPLES <= audio <= 9 * TICK_SAMPLES
    assert [one["type"] for _, (_, events) in found for one in events] == [
        "agent_started",
        "user_started",
        "agent_stopped",
    ]


def test_back_channel_does_not_cut_an_answer_the_server_goes_on_with():
    found = session(
        [event("response.created"), delta(6), event("input_audio_buffer.speech_started")]
    )
    assert sum(len(audio) for _, (audio, _) in found) == 6 * TICK_SAMPLES


@pytest.mark.parametrize(
    "message",
    [
        b"\x00\x01",
        "no json",
        "[]",
        event("response.output_audio.delta", delta="A"),
        event("response.output_audio.delta", delta=7),
        event("error", error={"type": "x", "message": "no\nway"}),
        event("response.done", response={"status": "failed"}),
    ],
)
def test_garbage_ends_a_scene_with_a_sentence(message):
    async def server(connection):
        await connection.send(CREATED)
        await connection.send(message)
        await rest_raw(connection)

    async def test(url):
        with pytest.raises(ClientError, match="scene turn-1 ended early: ") as caught:
            await play_remote(url, scene(), 0, "realtime")
        assert "\n" not in str(caught.value)

    asyncio.run(against(server, test))


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("realtime", b"\x00"),
        ("realtime", "{"),
        ("realtime", "{}"),
        ("realtime", event("error", error={"message": "full"})),
        ("moshi", "text"),
        ("moshi", b"\x05full"),
        ("moshi", b"\x01OggS"),
        ("moshi", None),
    ],
)
def test_server_that_opens_nothing(dialect, message):
    async def server(connection):
        if message is not None:
            await connection.send(message)

    async def test(url):
        with pytest.raises(ClientError, match="did not open a session: .") as caught:
            await open_session(url, dialect, 0, None)
        assert "\n" not in str(caught.value)

    asyncio.run(against(server, test))


@pytest.mark.parametrize("message", ["text", b"\x01garbage" * 9, b"\x02\xff", b"\x05gone"])
def test_moshi_client_refuses_what_is_not_moshis(message):
    try:
        [item] = MoshiClient().received(message)
        assert item["type"] == "error" and item["text"] == "gone"
    except ValueError as error:
        assert str(error)


def test_server_that_is_not_there_is_told():
    with pytest.raises(ClientError, match="no such server answers at ws://127.0.0.1:9/v1/realtime"):
        asyncio.run(open_session("ws://127.0.0.1:9", "realtime", 0, None, open_s=1))
