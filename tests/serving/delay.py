"""How much later an answer comes in another dialect than in the native one.

    python -m tests.serving.delay 200

A scripted agent has a place for one client of each dialect. All say the same sound at once and
answer together, so that each answer is compared with the native one of the same tick. Moshi's
clients send 80 ms at a time, the others 20 ms: the native client that it is compared with does so
too. A second native client, the last to send, is the control: on a busy machine some of what is
sent at once is heard in two ticks.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.bench.serving.dialects import MoshiClient, RealtimeClient
from duplex.serving import twilio
from duplex.serving.commands import Start
from duplex.serving.engine import Engine
from duplex.serving.gpt_live import live
from duplex.serving.http.listener import bind
from duplex.serving.limits import ServerLimits
from duplex.serving.native import messages as native
from duplex.serving.server import Serving, address
from duplex.serving.sound import g711
from tests.helpers import tone
from tests.tiny_agent import TinyAgent

# Samples of a client's message: 20 ms.
FRAME = SAMPLE_RATE // 50
# Ticks of a tone that a client says, and of silence around it, until the answer is over.
LOUD_TICKS = 3
QUIET_TICKS = 12
# A sample above this has the answer in it.
LOUD = 0.03


@dataclass
class Side:
    """One client: its first messages, samples to a message, a message to samples."""

    name: str
    path: str
    first: list
    encode: Callable[[np.ndarray], bytes | str]
    decode: Callable[[bytes | str], np.ndarray]
    # Samples a second that it decodes.
    rate: int = SAMPLE_RATE
    # Frames in a message that it sends.
    frames: int = 1
    # Milliseconds of the clock when each answer began.
    heard_ms: list[float] = field(default_factory=list)


def at_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    """A client's own samples: it records at its rate, so nothing is resampled and late."""
    places = np.arange(len(samples) * rate // SAMPLE_RATE) * SAMPLE_RATE / rate
    return np.interp(places, np.arange(len(samples)), samples)


def native_side(name: str, rate: int = SAMPLE_RATE, frames: int = 1) -> Side:
    """The native dialect with PCM16 at a rate."""

    def decode(message):
        return np.zeros(0) if isinstance(message, str) else native.decode_audio(message)

    def encode(samples):
        return native.encode_audio(at_rate(samples, rate))

    first = [native.encode_start(Start(rate=rate))]
    return Side(name, native.PATH, first, encode, decode, rate, frames)


def bench_side(name: str, client: RealtimeClient | MoshiClient, first: list) -> Side:
    """A dialect that the bench speaks."""

    def decode(message):
        found = [item for item in client.received(message) if not isinstance(item, dict)]
        return np.concatenate([np.zeros(0), *found])

    # The pages of Moshi's clients have whole ticks.
    frames = TICK_SAMPLES // FRAME if client.path == MoshiClient.path else 1
    return Side(name, client.path, first, client.audio, decode, frames=frames)


def json_side(name: str, path: str, first: list[dict], law: str | None, audio: str) -> Side:
    """A dialect of JSON objects. audio: the name of the events that carry the agent's voice."""
    rate = g711.TELEPHONE_RATE if law else SAMPLE_RATE

    def encode(samples):
        samples = at_rate(samples, rate)
        data = g711.compress(samples, law) if law else native.encode_audio(samples)
        text = base64.b64encode(data).decode()
        if path == twilio.PATH:
            return json.dumps({"event": "media", "streamSid": "MZ", "media": {"payload": text}})
        is_live = path == live.PATH
        kind = "session.input_audio.append" if is_live else "input_audio_buffer.append"
        return json.dumps({"type": kind, "audio": text})

    def decode(message):
        fields = json.loads(message)
        if fields.get("type", fields.get("event")) != audio:
            return np.zeros(0)
        data = base64.b64decode(fields.get("delta") or fields["media"]["payload"])
        return g711.expand(data, law) if law else native.decode_audio(data)

    return Side(name, path, [json.dumps(message) for message in first], encode, decode, rate)


def sides() -> list[Side]:
    """All clients; the native one first."""
    mu_law = {"format": {"type": "audio/pcmu"}}
    telephone = {"type": "realtime", "audio": {"input": mu_law, "output": mu_law}}
    update = {"type": "session.update", "session": telephone}
    begin = {"type": "session.start", "session": {"model": "m", "instructions": "hi"}}
    call = {"event": "start", "streamSid": "MZ", "start": {}}
    realtime = RealtimeClient()
    return [
        native_side("native"),
        native_side("native, 80 ms at a time", frames=TICK_SAMPLES // FRAME),
        native_side("native, 8 kHz", 8_000),
        native_side("native, 16 kHz", 16_000),
        bench_side("realtime", realtime, realtime.first()),
        json_side(
            "realtime, mu-law", realtime.path, [update], "audio/pcmu", "response.output_audio.delta"
        ),
        json_side("GPT-Live", live.PATH, [begin], None, live.AUDIO),
        json_side("Twilio", twilio.PATH, [call], "audio/pcmu", "media"),
        bench_side("Moshi", MoshiClient(), []),
        native_side("native again"),
    ]


def sound_of(answers: int) -> np.ndarray:
    """What clients say: where in a tick people end is as chance has it."""
    chance = np.random.default_rng(0)
    pieces = []
    for _ in range(answers):
        before = int(chance.integers(TICK_SAMPLES))
        after = QUIET_TICKS * TICK_SAMPLES - before
        pieces += [np.zeros(before), tone(LOUD_TICKS), np.zeros(after)]
    return np.concatenate(pieces).astype(np.float32)


async def say(connections: list[ClientConnection], clients: list[Side], answers: int) -> None:
    """All say the sound together, in real time, over and over."""
    began = time.monotonic()
    sound = sound_of(answers)
    for place in range(0, len(sound), FRAME):
        due = began + place / SAMPLE_RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        for connection, client in zip(connections, clients, strict=True):
            if (place // FRAME + 1) % client.frames == 0:
                begin = place - (client.frames - 1) * FRAME
                await connection.send(client.encode(sound[begin : place + FRAME]))


async def listen(connection: ClientConnection, client: Side, pause_ms: float = 400.0) -> None:
    """Note when each answer begins, after a pause: where in a message it does, if that is played
    as it comes."""
    loud_ms = 0.0
    async for message in connection:
        now_ms = time.monotonic() * 1000
        loud = np.flatnonzero(np.abs(client.decode(message)) > LOUD)
        if len(loud):
            if now_ms - loud_ms > pause_ms:
                client.heard_ms.append(now_ms + 1000 * loud[0] / client.rate)
            loud_ms = now_ms


async def measure(url: str, clients: list[Side], answers: int) -> None:
    """Hold all conversations at once."""
    base = url.removesuffix(native.PATH)
    connections = [await connect(base + client.path, max_size=None) for client in clients]
    for connection, client in zip(connections, clients, strict=True):
        for message in client.first:
            await connection.send(message)
    await asyncio.sleep(1)
    pairs = zip(connections, clients, strict=True)
    listening = [asyncio.create_task(listen(*pair)) for pair in pairs]
    await say(connections, clients, answers)
    await asyncio.sleep(1)
    for connection in connections:
        await connection.close()
    await asyncio.wait(listening)


def report(clients: list[Side]) -> None:
    """Print a row for each dialect: milliseconds after the native answer of the same tick.

    That is the one of the first native client whose messages are as long.
    """
    print("| dialect | answers | a tick later | median ms | p95 ms |\n|---|---|---|---|---|")
    for client in clients[1:]:
        heard = np.array(client.heard_ms)
        alike = next(other for other in clients if other.frames == client.frames)
        reference = np.array((clients[0] if client is alike else alike).heard_ms)
        nearest = np.abs(heard[:, None] - reference[None, :]).argmin(axis=1)
        late = heard - reference[nearest]
        median, p95 = np.percentile(late, [50, 95])
        ticks = (late > TICK_MS / 2).sum()
        print(f"| {client.name} | {len(late)} | {ticks} | {median:.1f} | {p95:.1f} |")


async def serve_and_measure(clients: list[Side], answers: int) -> None:
    """The same with a server in this process."""
    engine = Engine(TinyAgent(len(clients)), len(clients))
    await asyncio.to_thread(engine.start)
    listeners = bind("127.0.0.1", 0)
    async with Serving(engine, listeners, limits=ServerLimits(grace_s=0)) as server:
        await measure(address(server), clients, answers)
    await asyncio.to_thread(engine.stop)


def main() -> None:
    """Measure and print."""
    answers = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    clients = sides()
    asyncio.run(serve_and_measure(clients, answers))
    report(clients)


if __name__ == "__main__":
    main()
