"""How much later an answer comes in each dialect than in the native one: python -m tests.wire_delay

A server, in a process of its own, whose agent answers all its sessions at the same time, by a
script; one client a dialect. A delay is that of the first loud sample of an answer, as it would be
played, behind the same sample in the native dialect.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.client import connect

from duplex.audio import SAMPLE_RATE, TICK_S
from duplex.events import Event
from duplex.serving import g711, moshi, native, opus, run, twilio
from duplex.serving.gpt_live import live
from duplex.serving.openai import realtime
from tests.helpers import tone
from tests.tiny_agent import TinyAgent

# Ticks of an answer, and from one to the next.
ANSWER_TICKS = 4
ROUND_TICKS = 12
# Samples of a client's piece: 20 ms.
PIECE = SAMPLE_RATE // 50
LOUD = 0.05
PROGRAM = "from tests.wire_delay import serve; serve()"


class ScriptedAgent(TinyAgent):
    """Answers everybody in the same ticks, whatever they say."""

    ticks = 0

    def step(self, audio, active, voice=True):
        """See events.AgentInterface."""
        place = self.ticks % ROUND_TICKS
        self.ticks += bool(active)
        played = np.zeros_like(audio)
        events = [[] for _ in range(self.slots)]
        for slot in active:
            tick = self.states[slot].tick = self.states[slot].tick + 1
            if place == 0:
                events[slot] = [Event("agent_started", tick), Event("said", tick, "Hello.")]
            if place < ANSWER_TICKS:
                played[slot] = tone(1)
            if place == ANSWER_TICKS:
                events[slot] = [Event("agent_ended", tick)]
        return played, events


def serve() -> None:
    """Serve the scripted agent until a signal comes."""
    run.run(ScriptedAgent, run.ServerConfig(port=0, max_sessions=16))


@dataclass
class Client:
    """One dialect's client: how it begins, sends and hears."""

    name: str
    path: str
    encode: Callable[[np.ndarray], bytes | str]
    # The samples at 24 kHz in a message, or None.
    decode: Callable[[bytes | str], np.ndarray | None]
    first: list[str] = field(default_factory=list)
    # When each answer began, in seconds.
    answers: list[float] = field(default_factory=list)


def clients() -> list[Client]:
    """One for each form of each dialect; the first is the one to compare with."""
    return [
        Client("native pcm16", native.PATH, native.encode_audio, _pcm, [native.encode_start()]),
        _opus_client("native opus", native.PATH, b"", ['{"type":"session.start","audio":"opus"}']),
        _openai("realtime pcm", None),
        _openai("realtime pcmu", "audio/pcmu"),
        _live("live pcm", "audio/pcm", 24_000),
        _live("live pcm 16 kHz", "audio/pcm", 16_000),
        _live("live pcma", "audio/pcma", 8_000),
        _opus_client("moshi", moshi.PATH, b"\x01", []),
        _telephone(),
    ]


def _pcm(message: bytes | str) -> np.ndarray | None:
    return native.decode_audio(message) if isinstance(message, bytes) else None


def _opus_client(name: str, path: str, kind: bytes, first: list[str]) -> Client:
    encoder, decoder = opus.Encoder(), opus.Decoder()

    def decode(message):
        is_audio = isinstance(message, bytes) and message.startswith(kind + b"OggS")
        return decoder.decode(message[len(kind) :]) if is_audio else None

    return Client(name, path, lambda samples: kind + encoder.encode(samples), decode, first)


def _coder(form: str, rate: int) -> tuple[Callable, Callable]:
    """Samples at 24 kHz to base64 of a form, and back."""
    from duplex.serving.openai.audio import Decoder, Encoder

    encoder, decoder = Encoder(form, rate), Decoder(form, rate)
    return encoder.encode, lambda text: decoder.decode(text, "audio")


def _json_client(name, path, first, kind, form, rate) -> Client:
    """kind: the type of messages that carry audio, from the client and from the server."""
    encode, decode = _coder(form, rate)

    def read(message):
        fields = json.loads(message)
        return decode(fields["delta"]) if fields["type"] == kind[1] else None

    return Client(
        name,
        path,
        lambda samples: json.dumps({"type": kind[0], "audio": encode(samples)}),
        read,
        first,
    )


def _openai(name: str, form: str | None) -> Client:
    sides = {side: {"format": {"type": form}} for side in ("input", "output")}
    session = {"type": "realtime", **({"audio": sides} if form else {})}
    first = [json.dumps({"type": "session.update", "session": session})]
    kinds = "input_audio_buffer.append", "response.output_audio.delta"
    return _json_client(name, realtime.PATH, first, kinds, form or "audio/pcm", SAMPLE_RATE)


def _live(name: str, form: str, rate: int) -> Client:
    session = {"model": "duplex", "audio": {"format": {"type": form, "rate": rate}}}
    first = [json.dumps({"type": "session.start", "session": session})]
    kinds = "session.input_audio.append", live.AUDIO
    return _json_client(name, live.PATH, first, kinds, form, rate if rate != 8_000 else SAMPLE_RATE)


def _telephone() -> Client:
    encoder, decoder = g711.Encoder("audio/pcmu"), g711.Decoder("audio/pcmu")

    def encode(samples):
        payload = base64.b64encode(encoder.encode(samples)).decode()
        return json.dumps({"event": "media", "streamSid": "MZ", "media": {"payload": payload}})

    def decode(message):
        fields = json.loads(message)
        if fields["event"] != "media":
            return None
        return decoder.decode(base64.b64decode(fields["media"]["payload"]))

    start = {"event": "start", "streamSid": "MZ", "start": {"streamSid": "MZ"}}
    return Client("twilio", twilio.PATH, encode, decode, [json.dumps(start)])


async def hear(client: Client, connection) -> None:
    """Note when each answer begins."""
    now = asyncio.get_running_loop().time
    last = 0.0
    async for message in connection:
        samples = client.decode(message)
        loud = [] if samples is None else np.flatnonzero(np.abs(samples) > LOUD)
        if not len(loud):
            continue
        if now() - last > ANSWER_TICKS * TICK_S:
            client.answers.append(now() + loud[0] / SAMPLE_RATE)
        last = now()


async def feed(client: Client, connection) -> None:
    """Say nothing, in real time."""
    now = asyncio.get_running_loop().time
    due = now()
    while True:
        due += PIECE / SAMPLE_RATE
        await asyncio.sleep(max(0.0, due - now()))
        await connection.send(client.encode(np.zeros(PIECE, np.float32)))


async def talk(client: Client, url: str, seconds: float) -> None:
    """One client from its beginning to its end."""
    async with connect(url.replace(native.PATH, client.path), max_size=None) as connection:
        for message in client.first:
            await connection.send(message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(hear(client, connection))
                group.create_task(feed(client, connection))


async def measure(url: str, answers: int) -> list[Client]:
    """All of them at once."""
    found = clients()
    seconds = (answers + 3) * ROUND_TICKS * TICK_S
    await asyncio.gather(*(talk(client, url, seconds) for client in found))
    return found


def delays(client: Client, usual: Client) -> np.ndarray:
    """Seconds of each answer behind the same one of another client."""
    half_s = ROUND_TICKS * TICK_S / 2
    found = []
    # A session may have been opened in the middle of the first answer.
    for began in client.answers[1:]:
        nearest = min(usual.answers, key=lambda other: abs(began - other))
        if abs(began - nearest) < half_s:
            found.append(began - nearest)
    return np.array(found)


def main() -> None:
    """Print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--answers", type=int, default=200)
    args = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True)
    try:
        line = server.stderr.readline()
        found = asyncio.run(measure(re.search(r"ws://\S+", line)[0], args.answers))
    finally:
        server.terminate()
        server.wait(10)
    print(f"{'dialect':<16} answers  more than native: p50   p95 ms")
    for client in found:
        more = delays(client, found[0])[: args.answers]
        p50, p95 = np.percentile(more, [50, 95]) * 1000
        print(f"{client.name:<16} {len(more):>7} {p50:>22.1f} {p95:>5.1f}")


if __name__ == "__main__":
    main()
