"""Playback between the network and the loudspeaker: gaps, the cushion and its bounds."""

import numpy as np
import pytest

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.client.jitter_buffer import (
    BLOCK_MS,
    BLOCK_SAMPLES,
    Playback,
    PlaybackConfig,
)
from tests.helpers import tone

CONFIG = PlaybackConfig()


def test_playback_bridges_a_gap_and_keeps_the_cushion():
    playback = Playback()
    assert not playback.pull(TICK_SAMPLES).any() and playback.gaps == 0
    assert playback.push(tone(1)) == TICK_MS  # will be played one tick after the first pull
    np.testing.assert_array_equal(playback.pull(TICK_SAMPLES), tone(1))
    assert not playback.pull(TICK_SAMPLES).any() and playback.gaps == 1
    playback.push(tone(2)[:TICK_SAMPLES])
    playback.push(tone(2)[TICK_SAMPLES:])
    np.testing.assert_array_equal(np.concatenate([playback.pull(960) for _ in range(4)]), tone(2))
    assert playback.passed_ms == 3 * TICK_MS  # gaps are no part of the agent's voice


def test_playback_counts_no_gap_in_silence():
    playback = Playback()
    playback.push(np.zeros(TICK_SAMPLES, np.float32))
    for _ in range(2):
        assert not playback.pull(TICK_SAMPLES).any()
    assert playback.gaps == 0


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_playback_loses_a_needless_cushion_in_silence(level):
    """Three ticks more than are needed go after a while, but not where there is a voice."""
    playback = Playback()
    tick = np.full(TICK_SAMPLES, level, np.float32)
    playback.push(np.tile(tick, 3))
    for _ in range(CONFIG.lately_samples // TICK_SAMPLES + 2):
        playback.push(tick)
        for _ in range(TICK_SAMPLES // BLOCK_SAMPLES):
            np.testing.assert_array_equal(playback.pull(BLOCK_SAMPLES), tick[:BLOCK_SAMPLES])
    left = playback.push(tick) - playback._pulled * TICK_MS / TICK_SAMPLES
    assert left == (BLOCK_MS if level == 0.0 else 3 * TICK_MS)
    assert playback.gaps == playback.dropped_ms == 0


def test_playback_is_bounded():
    playback = Playback()
    sound = tone(CONFIG.max_waiting_ticks + 3)
    playback.push(sound)
    assert playback.dropped_ms == 3 * TICK_MS
    np.testing.assert_array_equal(
        playback.pull(TICK_SAMPLES), sound[3 * TICK_SAMPLES : 4 * TICK_SAMPLES]
    )
    assert playback.passed_ms == 4 * TICK_MS
