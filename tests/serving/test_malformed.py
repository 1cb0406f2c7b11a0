"""Ten thousand messages that are not as they should be, over all dialects, disturb nobody."""

import asyncio
import contextlib
import json
import logging
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from duplex.audio import TICK_SAMPLES
from duplex.errors import ProtocolError
from duplex.events import Error, Event
from duplex.serving import dialect
from duplex.serving.limits import EngineLimits, ServerLimits
from duplex.serving.native import messages as native
from tests.helpers import drive_server, next_event, tone
from tests.serving import malformed
from tests.tiny_agent import TinyAgent

QUIET = np.zeros(TICK_SAMPLES, np.float32)
EVENTS = [
    Event("user_started", 1),
    Event("heard", 1, " yes"),
    Event("user_ended", 2, to="agent"),
    Event("agent_started", 3),
    Event("said", 3, "Hm"),
    Event("agent_ended", 4),
]


def test_all_dialects_are_here():
    assert malformed.MESSAGES.keys() == dialect.DIALECTS.keys()


@pytest.mark.parametrize("path", dialect.DIALECTS)
@settings(max_examples=20)
@given(random=st.randoms(use_true_random=False))
def test_dialect_takes_or_refuses_each_by_a_sentence(path, random):
    engine = SimpleNamespace(agent=TinyAgent(1), limits=EngineLimits())
    spoken = dialect.find(path, "", engine)
    is_open = spoken.start is not None
    for _ in range(100):
        commands = []
        try:
            commands, replies = spoken.receive(malformed.message(random, path))
        except ProtocolError as error:
            assert str(error) and "\n" not in str(error)
            replies = spoken.refused(Error("bad_message", str(error)))
        if commands and not is_open:
            is_open = True
            replies = replies + spoken.opened("0123")
        if is_open:
            replies = replies + spoken.tick(QUIET, [random.choice(EVENTS)])
            spoken.take_due()
        for reply in replies:
            if isinstance(reply, str):
                assert "Traceback" not in reply and json.loads(reply.encode())


async def ask(url: str) -> None:
    """Ask three times, and hear each whole answer: the question, unbroken, at half the level."""
    question = native.encode_audio(np.concatenate([tone(4), np.tile(QUIET, 4)]))
    async with connect(url) as connection:
        await connection.send(native.encode_start())
        await next_event(connection, "session.created")
        for _ in range(3):
            await connection.send(question)
            sound = []
            while True:
                told = native.decode_server(await connection.recv())
                if isinstance(told, np.ndarray):
                    sound += [told] if told.any() else []
                elif told["type"] == "agent_ended":
                    break
                else:
                    assert told["type"] != "error"
            np.testing.assert_allclose(np.concatenate(sound), 0.5 * tone(4), atol=1e-4)


async def misbehave(url: str, path: str, random: Random, count: int) -> None:
    """Send so many messages, over as many connections as it takes."""
    while count:
        with contextlib.suppress(ConnectionClosed):
            async with connect(url.replace(native.PATH, path), close_timeout=0.2) as connection:
                while count:
                    message = malformed.message(random, path)
                    with contextlib.suppress(UnicodeEncodeError):
                        await connection.send(message)
                    count -= 1
                    await asyncio.sleep(0)


@pytest.mark.slow
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32))
def test_ten_thousand_disturb_no_neighbour(seed):
    """Over all dialects at once; none ends in an exception, and the neighbour hears nothing."""
    faults = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = faults.append

    async def test(url, engine):
        neighbour = asyncio.create_task(ask(url))
        each = 5_000 // len(dialect.DIALECTS)
        bad = (misbehave(url, path, Random(seed), each) for path in dialect.DIALECTS)
        await asyncio.gather(*bad)
        await neighbour
        assert engine.stats()["model_errors"] == 0

    logging.getLogger().addHandler(handler)
    try:
        drive_server(test, TinyAgent(16), limits=ServerLimits(grace_s=0, farewell_s=0.2))
    finally:
        logging.getLogger().removeHandler(handler)
    assert not faults, faults[0].getMessage()
