"""Recorded questions: reading them, and when each is asked."""

from pathlib import Path

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE, TICK_S
from duplex.client.sound_file import Question, read_wave
from duplex.client.wav import Pauses, Script
from tests.helpers import tone, write_wave

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


def test_script_with_a_gap_talks_into_the_answer():
    script = Script([Question("a", tone(5)), Question("b", tone(5))], gap_s=0.4)
    script.notice({"type": "agent_started"}, 0.5)
    begins = [number for number, step in enumerate(say(script, 40)) if step[1] is not None]
    assert begins[1] - begins[0] == 5 + 5
