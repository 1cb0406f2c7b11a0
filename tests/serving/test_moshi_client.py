"""Moshi's own command-line client, with a sound card that is none."""

import argparse
import asyncio
import importlib.util
import sys
import threading
import time
import types

import numpy as np
import pytest

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.serving.native import messages as native
from tests.helpers import drive_server, tone
from tests.tiny_agent import TinyAgent

QUESTION = np.concatenate([tone(8), np.zeros(40 * TICK_SAMPLES, np.float32)])


class Stream:
    """A stream of a sound card that calls back every 80 ms, in a thread of its own."""

    def __init__(self, callback, blocksize: int, **_):
        self._callback = callback
        self._blocksize = blocksize
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            due += TICK_S
            time.sleep(max(0.0, due - time.monotonic()))
            self.block()


class Microphone(Stream):
    """Says the question once."""

    _at = 0

    def block(self) -> None:
        block = QUESTION[self._at : self._at + self._blocksize]
        self._at += self._blocksize
        block = np.pad(block, (0, self._blocksize - len(block)))
        self._callback(block[:, None], self._blocksize, None, None)


class Loudspeaker(Stream):
    """Keeps how loud each block is."""

    heard: list[float] = []

    def block(self) -> None:
        block = np.zeros((self._blocksize, 1), np.float32)
        self._callback(block, self._blocksize, None, None)
        self.heard.append(float(np.abs(block).max()))


@pytest.fixture
def client(monkeypatch):
    """The module moshi.client alone: the package around it loads its models' code."""
    spec = importlib.util.find_spec("moshi")
    package = types.ModuleType("moshi")
    package.__path__ = list(spec.submodule_search_locations)
    card = types.ModuleType("sounddevice")
    card.InputStream = Microphone
    card.OutputStream = Loudspeaker
    monkeypatch.setitem(sys.modules, "moshi", package)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    return importlib.import_module("moshi.client")


@pytest.mark.clients
def test_moshi_client_holds_a_conversation(client):
    words = []

    class Printer(client.RawPrinter):
        """Keeps the words."""

        def print_token(self, token: str) -> None:
            words.append(token)

    async def test(url, engine):
        http = url.replace("ws:", "http:").removesuffix(native.PATH)
        args = argparse.Namespace(url=http, host="", port=0, https=False)
        talking = asyncio.create_task(client.run(Printer(), args))
        await asyncio.sleep(len(QUESTION) / TICK_SAMPLES * TICK_S)
        engine.close_all("enough")
        await asyncio.wait([talking], timeout=5)
        talking.cancel()

    drive_server(test, TinyAgent(1))
    assert "".join(words).startswith(" echo0 echo1")
    assert max(Loudspeaker.heard) > 0.1
