"""Recorded questions: reading them, and when each is asked."""

import asyncio
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE, TICK_S
from duplex.client.local import LockstepSession
from duplex.client.recorded import Lockstep, Pauses, Script, converse
from duplex.client.sound.sound_file import Question, read_wave
from duplex.client.terminal.display import Display
from duplex.errors import ClientError
from tests.helpers import tone, write_wave
from tests.tiny_agent import TinyAgent

PAUSES = Pauses()


def test_wave_of_another_form_is_converted_with_a_notice(tmp_path, capsys):
    times = np.arange(44_100) / 44_100
    left = 0.4 * np.sin(2 * np.pi * 440 * times)
    path = write_wave(tmp_path / "cd.wav", np.stack([left, np.zeros_like(left)], axis=1), 44_100)
    question = read_wave(Path(path))
    notice = capsys.readouterr().err
    assert "2 channels" in notice and "44100 Hz" in notice and str(SAMPLE_RATE) in notice
    assert len(question.samples) == SAMPLE_RATE and question.samples.dtype == np.float32
    expected = 0.2 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    np.testing.assert_allclose(question.samples[500:-500], expected[500:-500], atol=1e-3)


def test_a_long_file_is_read_in_blocks_without_a_seam(tmp_path):
    times = np.arange(round(3.3 * 44_100)) / 44_100
    sound = (0.4 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    found = read_wave(Path(write_wave(tmp_path / "long.wav", sound, 44_100))).samples
    expected = 0.4 * np.sin(2 * np.pi * 440 * np.arange(len(found)) / SAMPLE_RATE)
    assert len(found) == round(3.3 * SAMPLE_RATE)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=1e-3)


def sine() -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("riff_size", [0, 36, None])
def test_a_file_whose_sizes_were_never_filled_in_is_read_to_its_end(riff_size, tmp_path):
    """As a recorder leaves it that was stopped, and ffmpeg on a pipe."""
    path = tmp_path / "unfinished.wav"
    soundfile.write(path, sine(), SAMPLE_RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = bytes(4)
    if riff_size is not None:
        data[4:8] = riff_size.to_bytes(4, "little")
    path.write_bytes(data)
    np.testing.assert_allclose(read_wave(path).samples, sine(), atol=1e-4)


def test_channels_that_cancel_each_other_are_not_lost(tmp_path, capsys):
    path = write_wave(tmp_path / "phase.wav", np.stack([0.5 * sine(), -sine()], axis=1))
    loudest = write_wave(tmp_path / "opposite.wav", np.stack([sine(), -sine()], axis=1))
    np.testing.assert_allclose(read_wave(Path(loudest)).samples, sine(), atol=1e-4)
    assert "cancel each other; channel 1" in capsys.readouterr().err
    assert np.abs(read_wave(Path(path)).samples).max() == pytest.approx(0.1, abs=0.01)


def test_what_phones_record_is_read_with_ffmpeg_or_the_way_is_told(tmp_path, monkeypatch):
    path = tmp_path / "phone.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(400))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ClientError, match="convert it: ffmpeg -i .*phone.m4a phone.wav"):
        read_wave(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
@pytest.mark.parametrize("name", ["phone.m4a", "browser.webm"])
def test_ffmpeg_reads_what_libsndfile_does_not(name, tmp_path):
    wave = write_wave(tmp_path / "q.wav", sine())
    path = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "error", "-i", wave, str(path)], check=True)
    sound = read_wave(path).samples
    assert abs(len(sound) - SAMPLE_RATE) < SAMPLE_RATE / 8
    assert np.sqrt(np.square(sound).mean()) == pytest.approx(0.28, abs=0.04)


def test_a_folder_is_no_sound(tmp_path):
    with pytest.raises(ClientError, match="it is a folder"):
        read_wave(tmp_path)


def say(script: Script, ticks: int, start: int = 0) -> list:
    return [script.next_tick((start + tick) * TICK_S) for tick in range(ticks)]


def test_script_waits_for_an_answer_and_not_for_ever():
    script = Script([Question("a", tone(5)), Question("b", tone(5))])
    begins = []
    for tick in range(400):
        step = script.next_tick(tick * TICK_S)
        if step is None:
            break
        if step[1] is not None:
            begins.append(tick * TICK_S)
    assert begins[0] == pytest.approx(PAUSES.lead_in_s, abs=TICK_S)
    assert begins[1] - begins[0] == pytest.approx(5 * TICK_S + PAUSES.no_answer_s, abs=2 * TICK_S)


def test_script_does_not_take_a_false_start_for_the_answer():
    script = Script([Question("a", tone(20)), Question("b", tone(5))])
    first = int(PAUSES.lead_in_s / TICK_S) + 1
    say(script, first + 5)
    script.notice({"type": "agent_started"}, (first + 5) * TICK_S)
    # It yields, as the question goes on.
    script.notice({"type": "agent_stopped"}, (first + 6) * TICK_S)
    steps = say(script, 40, first + 5)
    assert all(step is not None and step[1] is None for step in steps)


def test_script_speaks_into_an_answer():
    """Once the agent has been heard for so long since the question; else as after no answer."""
    into = Question("yeah", tone(2), into_answer_s=0.4)
    script = Script([Question("a", tone(5)), into])
    asked = []
    for tick in range(60):
        now_s = tick * TICK_S
        if step := script.next_tick(now_s):
            asked += [(tick, step[1].name)] if step[1] else []
        if tick == 25:
            script.notice({"type": "agent_started"}, now_s)
        script.notice_sound(tone(1, level=0.3 * (tick >= 26)), now_s)
    first, second = asked
    assert second[1] == "yeah" and 30 <= second[0] <= 32


def test_script_with_a_gap_talks_into_the_answer():
    script = Script([Question("a", tone(5)), Question("b", tone(5))], gap_s=0.4)
    script.notice({"type": "agent_started"}, 0.5)
    begins = [number for number, step in enumerate(say(script, 40)) if step[1] is not None]
    assert begins[1] - begins[0] == 5 + 5


def test_a_conversation_that_is_stopped_keeps_what_there_is():
    """Ctrl-C in the middle of a question."""

    async def run():
        stop = asyncio.Event()
        heard = []

        def on_played(samples: np.ndarray) -> None:
            heard.append(samples)
            if len(heard) == 20:
                stop.set()

        script = Script([Question("a", tone(40))])
        session = LockstepSession(TinyAgent(1))
        display = Display(io.StringIO())
        return await converse(session, script, Lockstep(), display, stop, on_played)

    recording = asyncio.run(run())
    assert len(recording.user) == 20 and recording.transcript().turns()[0].text.startswith(" word0")
