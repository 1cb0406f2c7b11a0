"""Playback between the network and the loudspeaker: one table for the terminal and the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.client.sound.jitter_buffer import BLOCK_SAMPLES, Playback
from tests.client.page import node
from tests.helpers import tone

CASES = json.loads((Path(__file__).parent / "jitter_buffer.json").read_text(encoding="utf-8"))


def play(steps: list) -> list[dict]:
    """The buffer's figures after each pull of a case."""
    playback = Playback()
    figures = []
    for kind, count, value in steps:
        if kind == "push":
            playback.push(np.full(count, value, np.float32))
            continue
        out = playback.pull(count)
        figures.append(
            {
                "gaps": playback.gaps,
                "passed": playback._passed,
                "waiting": len(playback._waiting),
                "dropped": playback.dropped_ms * TICK_SAMPLES // TICK_MS,
                "target": playback._target(),
                "loud": int((np.abs(out) > 1e-3).sum()),
                "last": float(out[-1]),
            }
        )
    return figures


def network(seed: int, jitter_ms: float, seconds: int = 60) -> list:
    """A voice with pauses over a network: each tick comes up to jitter_ms late, in order."""
    random = np.random.default_rng(seed)
    ticks = seconds * 1000 // TICK_MS
    come = np.maximum.accumulate(np.arange(ticks) * TICK_MS + random.uniform(0, jitter_ms, ticks))
    steps = []
    number = 0
    for now_ms in range(0, seconds * 1000, 5):
        while number < ticks and come[number] <= now_ms:
            is_voice = number % 40 > 10
            steps.append(["push", TICK_SAMPLES, 0.5 * is_voice])
            number += 1
        steps.append(["pull", 120, {}])
    return steps


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_terminal_follows_the_table(case):
    wanted = [expected for kind, _, expected in case["steps"] if kind == "pull"]
    for figures, expected in zip(play(case["steps"]), wanted, strict=True):
        assert {name: figures[name] for name in expected} == pytest.approx(expected)


@node.needs_node
def test_page_follows_the_table_and_the_terminal():
    cases = [*CASES, *({"steps": network(seed, 150.0, 20)} for seed in range(3))]
    for case, page in zip(cases, node.run("playback", cases), strict=True):
        for figures, expected in zip(page, play(case["steps"]), strict=True):
            assert figures == pytest.approx(expected, abs=1e-6), case.get("name")


@pytest.mark.parametrize("seed", range(5))
def test_a_jittery_network_leaves_few_gaps(seed):
    """With 100 ms of jitter there is none after the first seconds, over five minutes."""
    figures = play(network(seed, 100.0, 300))
    assert figures[-1]["gaps"] - figures[2000]["gaps"] == 0
    assert figures[-1]["dropped"] == 0


def test_a_needless_cushion_goes_and_takes_no_voice_with_it():
    """The network calms down: ten seconds later the target is the least one again."""
    restless = network(1, 150.0, 20)
    calm = [["pull", 120, {}] for _ in range(30)] + network(1, 0.0, 30)
    figures = play(restless + calm)
    assert max(entry["target"] for entry in figures[:4000]) > 2 * TICK_SAMPLES
    assert figures[-1]["target"] == TICK_SAMPLES and figures[-1]["waiting"] <= 1.3 * TICK_SAMPLES
    pushed = sum(count for kind, count, value in restless + calm if kind == "push" and value)
    faded = 240 * figures[-1]["gaps"]
    heard = sum(entry["loud"] for entry in figures)
    assert abs(heard - pushed) <= faded + figures[-1]["waiting"]


def test_placements_tell_when_each_sample_was_played():
    """Also after a gap, a wait and silence that was left out."""
    playback = Playback()
    played = [playback.pull(BLOCK_SAMPLES)]
    ramp = np.linspace(0.1, 0.9, 3 * TICK_SAMPLES, dtype=np.float32)
    for piece in ramp.reshape(3, -1):
        playback.push(piece)
        played += [playback.pull(BLOCK_SAMPLES) for _ in range(7)]
    played += [playback.pull(BLOCK_SAMPLES) for _ in range(9)]
    sound = np.concatenate(played)
    for place in (500, 2500, 5000):
        at = playback.played_at_ms(place * TICK_MS / TICK_SAMPLES) * TICK_SAMPLES / TICK_MS
        assert sound[round(at)] == pytest.approx(ramp[place], abs=1e-6)


def test_what_comes_while_the_card_is_gone_is_not_counted_as_dropped():
    playback = Playback()
    for piece in tone(20).reshape(20, -1):
        playback.push(piece)
        playback.pause(TICK_SAMPLES)
    assert playback.dropped_ms == 0 and playback.waiting_ms == 8 * TICK_MS
    assert playback.pull(TICK_SAMPLES).any()


def test_a_voice_on_time_is_played_as_it_is():
    playback = Playback()
    voice = tone(20)
    played = []
    for piece in voice.reshape(20, -1):
        playback.push(piece)
        played += [playback.pull(BLOCK_SAMPLES) for _ in range(4)]
    np.testing.assert_array_equal(np.concatenate(played), voice)
    assert playback.gaps == playback.dropped_ms == 0
