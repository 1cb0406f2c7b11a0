"""Recordings: what is in them, that nothing else is deleted, that a broken disk ends nothing."""

import json

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.events import Event
from duplex.serving.sound.recorder import Recorder
from tests.helpers import HandClock, drive_engine, speak, tone
from tests.tiny_agent import TinyAgent


def test_both_sides_and_the_events_are_kept(tmp_path):
    recorder, sessions = Recorder(tmp_path, 10**9), []

    async def test(engine):
        session = await engine.open()
        sessions.append(
            (
                session.id,
                await speak(engine.clock, session, np.concatenate([tone(8), 0 * tone(16)])),
            )
        )

    drive_engine(test, TinyAgent(1), HandClock(), recorder=recorder)
    [(name, (audio, events))] = sessions
    sound, rate = soundfile.read(tmp_path / f"session-{name}.flac", dtype="float32")
    assert rate == SAMPLE_RATE and sound.shape == (24 * TICK_SAMPLES, 2)
    np.testing.assert_allclose(sound[: 8 * TICK_SAMPLES, 0], tone(8), atol=1e-4)
    np.testing.assert_allclose(sound[:, 1], audio, atol=1e-4)
    lines = [
        json.loads(line) for line in (tmp_path / f"session-{name}.jsonl").read_text().splitlines()
    ]
    assert [line["type"] for line in lines] == [event.kind for event in events]
    assert lines[0]["time_s"] == 0 and lines[-1]["time_s"] > 1 and lines[1]["text"] == " word0"
    assert recorder.dropped_ticks == 0


def test_the_oldest_go_and_nothing_else(tmp_path):
    (tmp_path / "diary.txt").write_text("x" * 100_000)
    recorder = Recorder(tmp_path, 50_000)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, TICK_SAMPLES)).astype(np.float32)
    for number in range(5):
        for _ in range(3):
            recorder.tick(f"{number:012x}", *noise, [Event("heard", 0, "x")])
        recorder.end(f"{number:012x}")
    recorder.stop()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert (
        "diary.txt" in kept
        and f"session-{4:012x}.flac" in kept
        and f"session-{0:012x}.flac" not in kept
    )
    assert sum(path.stat().st_size for path in tmp_path.glob("session-*")) <= 50_000


def test_a_broken_disk_ends_no_conversation(tmp_path):
    recorder = Recorder(tmp_path / "folder", 10**6)
    (tmp_path / "folder").rmdir()

    async def test(engine):
        session = await engine.open()
        audio, _ = await speak(engine.clock, session, tone(3))
        assert len(audio) == 3 * TICK_SAMPLES

    drive_engine(test, TinyAgent(1), HandClock(), recorder=recorder)


def test_a_folder_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Recorder(tmp_path / "file", 10**6)
