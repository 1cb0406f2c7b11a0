"""Servers of the tiny agent and a director as processes of their own, and users who talk."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.client.remote import RemoteSession
from tests.helpers import PATIENCE_S, QUIET, tone
from tests.tiny_agent import TinyAgent

# DUPLEX_TALK_S=300 has users talk on for five minutes at each step.
TALK_S = float(os.environ.get("DUPLEX_TALK_S", "1"))
ROOT = Path(__file__).parents[3]


class Process:
    """A command of duplex; `url` is where it listens."""

    def __init__(self, *arguments: str):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.serving.scale.processes", *arguments]
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        self.url = ""
        for line in self._process.stderr:
            if "http://" in line:
                self.url = next(w for w in line.split() if w.startswith("http://")).rstrip(",")
                break
        assert self.url, "the process ended before it listened"

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def ask(
        self, method: str, path: str, fields: dict | None = None, headers: dict | None = None
    ) -> tuple[int, dict | str]:
        """Status and answer of a request."""
        body = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text


@contextlib.contextmanager
def servers(places: int, number: int = 2, *more: str) -> Iterator[list[Process]]:
    """So many servers of the tiny agent with so many places each."""
    serve = ("serve", "--host", "127.0.0.1", "--port", "0", "--max-sessions", str(places), *more)
    started = [Process(*serve) for _ in range(number)]
    try:
        yield started
    finally:
        for server in started:
            server.kill()


@contextlib.contextmanager
def director(replicas: list[Process], *more: str) -> Iterator[Process]:
    """A director to them."""
    urls = ",".join(replica.url for replica in replicas)
    direct = ("direct", "--host", "127.0.0.1", "--port", "0", "--replicas", urls, *more)
    started = Process(*direct)
    try:
        yield started
    finally:
        started.kill()


class Talker:
    """A user that talks: five ticks of a tone, then silence, over and over."""

    def __init__(self, session: RemoteSession):
        self.session = session
        # Events with the time when they came; seconds of the longest pause between two messages.
        self.events: list[tuple[float, dict]] = []
        self.longest_gap_s = 0.0
        # When the session was over.
        self.ended_at: float | None = None
        self._tasks = [asyncio.create_task(self._say()), asyncio.create_task(self._hear())]

    @classmethod
    async def call(cls, url: str) -> "Talker":
        return cls(await RemoteSession.open(url))

    @property
    def answers(self) -> int:
        """How often the agent answered."""
        return sum(event["type"] == "agent_ended" for _, event in self.events)

    async def hang_up(self) -> None:
        """Leave, with a goodbye."""
        self._tasks[0].cancel()
        await self.session.close()
        await self._tasks[1]

    async def _say(self) -> None:
        sound = [*tone(5).reshape(-1, TICK_SAMPLES), *[QUIET] * 10]
        due = time.monotonic()
        number = 0
        while self.ended_at is None:
            await self.session.push(np.asarray(sound[number % len(sound)]))
            number += 1
            due += TICK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _hear(self) -> None:
        last = time.monotonic()
        while (found := await self.session.get()) is not None:
            now = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now - last)
            last = now
            self.events += [(now, event) for event in found[1]]
            if any(event.get("code") == "lost" for event in found[1]):
                self.ended_at = now
        self.ended_at = self.ended_at or time.monotonic()


async def talk_on(talkers: list[Talker], seconds: float = TALK_S) -> None:
    """They talk so long, none is cut, and each is answered."""
    before = [talker.answers for talker in talkers]
    await asyncio.sleep(seconds)
    await until_true(lambda: all(t.answers > n for t, n in zip(talkers, before, strict=True)))
    assert all(talker.ended_at is None for talker in talkers)


async def until_true(is_so, within_s: float = 20.0) -> float:
    """Seconds until something is so."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within_s, "it never came to be so"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def load_tiny(args, slots: int, cancel_echo: bool = True) -> TinyAgent:
    """In place of cli.load_agent."""
    return TinyAgent(slots)


if __name__ == "__main__":
    from duplex import cli

    cli.main(sys.argv[1:], load=load_tiny)
