"""Events of a file, told at their time."""

import asyncio

import numpy as np
import pytest

from duplex.audio import TICK_SAMPLES
from duplex.client.assisted import AssistedSession
from duplex.client.event_file import TimedText, load_events
from duplex.errors import ClientError
from duplex.serving.commands import Write


def test_events_are_read_by_time(tmp_path):
    path = tmp_path / "game.jsonl"
    path.write_text('{"time_s": 3, "text": "b"}\n\n{"time_s": 0.1, "text": "a"}\n')
    assert load_events(path) == [TimedText(0.1, "a"), TimedText(3.0, "b")]


@pytest.mark.parametrize("line", ["x", "3", '{"text": "a"}', '{"time_s": -1, "text": "a"}'])
def test_line_that_is_no_event_is_named(tmp_path, line):
    path = tmp_path / "game.jsonl"
    path.write_text(f'{{"time_s": 3, "text": "b"}}\n{line}\n')
    with pytest.raises(ClientError, match="line 2"):
        load_events(path)
    with pytest.raises(ClientError, match="cannot read"):
        load_events(tmp_path / "none.jsonl")


def test_events_are_told_when_so_much_was_heard():
    told = []

    class Session:
        async def push(self, samples) -> None:
            told.append(len(samples))

        async def send(self, command) -> None:
            told.append(command)

    async def talk() -> None:
        events = [TimedText(0.1, "a"), TimedText(9.0, "b")]
        session = await AssistedSession.open(Session(), events=events)
        for _ in range(3):
            await session.push(np.zeros(TICK_SAMPLES, np.float32))

    asyncio.run(talk())
    assert told == [TICK_SAMPLES, TICK_SAMPLES, Write("event", "a"), TICK_SAMPLES]
