"""The maker of the bench's scenes: every kind, and the same from the same seed."""

import json

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE
from duplex.bench import scenes as bench_scenes
from duplex.bench.recognizer import Heard
from duplex.bench.scenes import KINDS, Word
from duplex.training import make_scenes
from duplex.training.make_scenes import Tape, hiss, knocks, read_scenes


def recognize(wave: np.ndarray) -> Heard:
    """One word, 0.1 s after the silence that is put before what is said."""
    return Heard(words=[Word("one", 0.6, 0.8)])


def say(text: str, voice: int) -> np.ndarray:
    """A voice that hums as long as its text is."""
    return np.full(2400 * len(text), 0.1)


def tapes(seed: int) -> list[Tape]:
    found = []
    for number, scene in enumerate(read_scenes()):
        found.append(Tape(recognize, say))
        make_scenes.fill(found[-1], scene, np.random.default_rng([seed, number]))
    return found


def test_only_noises_hang_on_the_seed():
    kinds = [scene["kind"] for scene in read_scenes()]
    assert set(kinds) == set(KINDS)
    sounds = [[np.concatenate(tape.waves) for tape in tapes(seed)] for seed in (1, 1, 2)]
    once, again, other = sounds
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    changed = {
        kind for kind, a, b in zip(kinds, once, other, strict=True) if not np.array_equal(a, b)
    }
    assert changed == {"noise"}


def test_pieces_are_where_their_sound_is():
    for tape in tapes(1):
        wave = np.concatenate(tape.waves)
        for piece in tape.pieces:
            begin = round(piece["begin_s"] * SAMPLE_RATE)
            end = round(piece["end_s"] * SAMPLE_RATE)
            assert wave[begin + 1] != 0 or piece["role"] == "noise"
            assert not wave[end : end + SAMPLE_RATE // 20].any()
            for word in piece.get("words", []):
                assert word[1] == pytest.approx(piece["begin_s"] + 0.1, abs=0.01)


def test_only_missing_scenes_are_made(tmp_path):
    def say_briefly(text: str, voice: int) -> np.ndarray:
        said.append(text)
        return np.full(2400, 0.1)

    said: list[str] = []
    make_scenes.make_missing(tmp_path, 1, recognize, say_briefly)
    scenes = bench_scenes.load(tmp_path)
    texts = [piece.text for scene in scenes for piece in scene.pieces if piece.text]
    assert said == texts and len(scenes) == len(read_scenes())
    index = tmp_path / "scenes.json"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps(entries[:-1]))
    said.clear()
    make_scenes.make_missing(tmp_path, 1, recognize, say_briefly)
    assert said == [piece["text"] for piece in entries[-1]["pieces"]]
    assert json.loads(index.read_text()) == entries


def test_noises_are_as_loud_as_asked():
    rng = np.random.default_rng(0)
    for wave in (hiss(rng, 3.0, 1.0, 0.02), knocks(rng, 3.0, 0.02)):
        assert len(wave) == 3 * SAMPLE_RATE
        assert np.sqrt(np.square(wave).mean()) == pytest.approx(0.02, rel=1e-3)
    power = np.abs(np.fft.rfft(hiss(rng, 3.0, 2.0, 0.02))) ** 2  # a bin is a third of a hertz
    falls = power[300:600].mean() / power[3000:6000].mean()
    assert falls == pytest.approx(100, rel=0.3)  # brown: 20 dB a decade
