"""How much later an answer comes in each dialect than in the native one: python -m tests.wire_delay

A server with the smallest agent, in a process of its own, and one client a dialect, who all ask the
same at the same time, again and again, in pieces of 20 ms. An answer's delay runs from the end of
the question's sound, as it was sent, to the first loud sample, as it would be played.
"""

import argparse
import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.client import connect

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.serving import g711, moshi, native, opus, twilio
from duplex.serving.gpt_live import live
from duplex.serving.openai import realtime
from tests.helpers import tone

# Ticks of a question, and from one to the next.
QUESTION_TICKS = 4
ROUND_TICKS = 16
PIECE = SAMPLE_RATE // 50
LOUD = 0.05
PROGRAM = (
    "from duplex.serving import run; from tests.tiny_agent import TinyAgent;"
    "run.run(TinyAgent, run.ServerConfig(port=0, max_sessions=16))"
)


@dataclass
class Client:
    """One dialect's client: how it begins, sends and hears."""

    name: str
    path: str
    encode: Callable[[np.ndarray], bytes | str]
    # The samples at 24 kHz in a message, or None.
    decode: Callable[[bytes | str], np.ndarray | None]
    first: list[str] = field(default_factory=list)
    # When the question of this round was over, and the delay of each answer, in seconds.
    asked_at: float | None = None
    delays: list[float] = field(default_factory=list)


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
    async for message in connection:
        samples = client.decode(message)
        if samples is None or client.asked_at is None:
            continue
        loud = np.flatnonzero(np.abs(samples) > LOUD)
        if len(loud):
            client.delays.append(now() + loud[0] / SAMPLE_RATE - client.asked_at)
            client.asked_at = None


async def ask(client: Client, connection, rounds: int, begin: float) -> None:
    """Ask so many times, together with the others, each time somewhere else in a tick."""
    question = tone(QUESTION_TICKS)
    random = np.random.default_rng(0)
    now = asyncio.get_running_loop().time
    for number in range(rounds):
        first = random.integers(TICK_SAMPLES)
        sound = np.zeros(ROUND_TICKS * TICK_SAMPLES, np.float32)
        sound[first : first + len(question)] = question
        at = begin + number * ROUND_TICKS * TICK_S
        for place in range(0, len(sound), PIECE):
            await asyncio.sleep(max(0.0, at + (place + PIECE) / SAMPLE_RATE - now()))
            await connection.send(client.encode(sound[place : place + PIECE]))
            if place <= first + len(question) < place + PIECE:
                client.asked_at = at + (first + len(question)) / SAMPLE_RATE


async def talk(client: Client, url: str, rounds: int, begin: float) -> None:
    """One client from its beginning to its end."""
    async with connect(url.replace(native.PATH, client.path), max_size=None) as connection:
        for message in client.first:
            await connection.send(message)
        hearing = asyncio.create_task(hear(client, connection))
        await ask(client, connection, rounds, begin)
        hearing.cancel()


async def measure(url: str, rounds: int) -> list[Client]:
    """All of them at once."""
    found = clients()
    begin = asyncio.get_running_loop().time() + 2
    await asyncio.gather(*(talk(client, url, rounds, begin) for client in found))
    return found


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
    print(f"{'dialect':<16} answers  p50 ms  p95 ms  more than native: p50   p95")
    usual = np.percentile(found[0].delays, [50, 95]) * 1000
    for client in found:
        figures = np.percentile(client.delays, [50, 95]) * 1000
        more = figures - usual
        shown = f"{figures[0]:7.1f} {figures[1]:7.1f} {more[0]:22.1f} {more[1]:5.1f}"
        print(f"{client.name:<16} {len(client.delays):>7} {shown}")


if __name__ == "__main__":
    main()
