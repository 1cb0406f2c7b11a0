"""Scenes of the bench: reading them from a folder, and playing the user's side when it is due."""

import json

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.bench import scenes as bench_scenes
from duplex.bench.recognizer import Heard
from duplex.bench.scenes import KINDS, Piece, Player, Scene, Word
from duplex.bench.score import ScoredScene, score
from duplex.errors import SceneError


def piece(role: str, seconds: float, level: float = 0.3, **due) -> Piece:
    return Piece(
        role,
        role,
        np.full(round(seconds * SAMPLE_RATE), level, np.float32),
        [Word("one", 0.1, 0.3)],
        **due,
    )


def perform(scene: Scene, voice) -> tuple[Player, np.ndarray]:
    """The player and the user's channel of a scene where the agent plays `voice(k)` in tick k."""
    player, line = Player(scene), []
    while (step := player.next_tick(len(line) * TICK_S)) is not None:
        line.append(step[0])
        player.notice_sound(
            np.full(TICK_SAMPLES, voice(len(line) - 1), np.float32), (len(line) - 1) * TICK_S
        )
    return player, np.concatenate(line)


def test_pieces_follow_each_other():
    scene = Scene(
        "s",
        "pause",
        [piece("part", 0.8, after_s=0.4), piece("question", 0.4, after_s=0.24)],
        listen_s=0.4,
    )
    player, line = perform(scene, lambda tick: 0.0)
    assert [(m.role, round(m.start_s, 2), round(m.end_s, 2)) for m in player.annotations] == [
        ("part", 0.4, 1.2),
        ("question", 1.44, 1.84),
    ]
    assert player.annotations[1].words[0].start_s == pytest.approx(1.54)
    heard = np.flatnonzero(line) / SAMPLE_RATE
    assert heard[0] == pytest.approx(0.4) and len(heard) == round(1.2 * SAMPLE_RATE)
    assert len(line) / SAMPLE_RATE == pytest.approx(1.84 + 0.4, abs=TICK_S)


def test_interruption_waits_for_the_agent_to_speak():
    pieces = [
        piece("question", 0.8, after_s=0.0),
        piece("interruption", 0.4, after_voice_s=0.4, latest_s=3.0),
    ]
    player, _ = perform(Scene("s", "interruption", pieces), lambda tick: 0.1 * (tick >= 20))
    assert player.annotations[1].start_s == pytest.approx(20 * TICK_S + 0.4)
    player, _ = perform(Scene("s", "interruption", pieces), lambda tick: 0.0)
    assert player.annotations[1].start_s == pytest.approx(0.8 + 3.0, abs=TICK_S)


def test_voice_during_the_question_is_not_the_answer():
    """An agent that talked over the question and fell silent is not interrupted in nothing."""
    pieces = [
        piece("question", 0.8, after_s=0.0),
        piece("interruption", 0.4, after_voice_s=0.4, latest_s=3.0),
    ]
    player, _ = perform(Scene("s", "interruption", pieces), lambda tick: 0.1 * (tick < 5))
    assert player.annotations[1].start_s == pytest.approx(0.8 + 3.0, abs=TICK_S)


def test_noise_lies_under_the_rest():
    pieces = [piece("noise", 1.0, level=0.1, at_s=0.04), piece("question", 0.4, after_s=0.4)]
    _, line = perform(Scene("s", "noise", pieces, listen_s=0.0), lambda tick: 0.0)
    assert line[round(0.04 * SAMPLE_RATE) - 1] == 0.0 and line[
        round(0.04 * SAMPLE_RATE)
    ] == np.float32(0.1)
    assert line[round(0.5 * SAMPLE_RATE)] == pytest.approx(0.4)
    assert np.count_nonzero(line) == SAMPLE_RATE


def test_echo_is_the_loudspeaker_again():
    scene = Scene(
        "s",
        "echo",
        [piece("question", 0.4, after_s=0.0)],
        listen_s=2.0,
        echo_delay_s=0.16,
        echo_gain=0.5,
    )
    _, line = perform(scene, lambda tick: 0.2 * (tick == 10))
    again = np.flatnonzero(line[SAMPLE_RATE // 2 :]) + SAMPLE_RATE // 2
    assert line[again] == pytest.approx(0.1)
    # Played in tick 10, the room hears it while the user's tick 11 is taken, and 0.16 s later.
    assert (again[0], len(again)) == (11 * TICK_SAMPLES + round(0.16 * SAMPLE_RATE), TICK_SAMPLES)


def test_shipped_scenes_can_be_played():
    scenes = bench_scenes.load()
    assert {scene.kind for scene in scenes} == set(KINDS)
    assert len({scene.name for scene in scenes}) == len(scenes)
    assert sum(path.stat().st_size for path in bench_scenes.SHIPPED.iterdir()) < 3 << 20
    for scene in scenes:
        player, line = perform(scene, lambda tick: 0.0)
        assert len(player.annotations) == len(scene.pieces) and len(line) < 40 * SAMPLE_RATE
        for one in scene.pieces:
            assert 0.003 < np.sqrt(np.square(one.samples).mean()) < 0.2, (scene.name, one.role)
        assert (
            score(ScoredScene(scene.kind, player.annotations, Heard(), len(line) / SAMPLE_RATE))[
                "handled"
            ]
            == 0.0
        )  # silence handles nothing


def folder(tmp_path, scene: dict, rate: int = SAMPLE_RATE) -> list[Scene]:
    left, right = np.full(2 * rate, 0.1, np.float32), np.full(2 * rate, 0.2, np.float32)
    soundfile.write(tmp_path / "own.wav", np.stack([left, right], axis=1), rate)
    (tmp_path / "scenes.json").write_text(json.dumps([scene]))
    return bench_scenes.load(tmp_path)


OWN = {
    "name": "own",
    "kind": "listening",
    "file": "own.wav",
    "pieces": [
        {
            "role": "question",
            "begin_s": 0.5,
            "end_s": 1.5,
            "text": "so?",
            "words": [["so", 0.7, 1.0]],
        }
    ],
}


def test_own_scenes_are_played_where_they_lie(tmp_path):
    """The user left, a person in the agent's place right; a piece without a time where it lies."""
    [scene] = folder(tmp_path, OWN, rate=16_000)
    assert len(scene.partner) == 2 * SAMPLE_RATE and scene.partner.mean() == pytest.approx(
        0.2, abs=0.01
    )
    player, line = perform(scene, lambda tick: 0.0)
    [annotation] = player.annotations
    assert (annotation.start_s, annotation.end_s) == (0.5, 1.5) and annotation.words[
        0
    ].start_s == pytest.approx(0.7)
    assert (
        line[round(1.0 * SAMPLE_RATE)] == pytest.approx(0.1, abs=0.01)
        and line[round(0.4 * SAMPLE_RATE)] == 0.0
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "opera"}, "its kind 'opera' is none of pause"),
        (
            {"kind": "noise", "pieces": [{"role": "soprano", "begin_s": 0, "end_s": 1}]},
            "the role 'soprano' is none of question",
        ),
        ({"kind": "interruption"}, "kind 'interruption' needs a piece of role 'interruption'"),
        ({"file": "missing.wav"}, "missing.wav"),
        ({"pieces": [{"role": "question"}]}, "begin_s"),
    ],
)
def test_fault_of_a_folder_is_told_in_a_sentence(tmp_path, change, reason):
    with pytest.raises(SceneError, match=reason) as caught:
        folder(tmp_path, {**OWN, **change})
    assert "\n" not in str(caught.value)


def test_folder_without_scenes_is_told(tmp_path):
    with pytest.raises(SceneError, match="there are no scenes in .*No such file"):
        bench_scenes.load(tmp_path)
