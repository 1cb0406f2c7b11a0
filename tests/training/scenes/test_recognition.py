"""What is recognised of a scene, and to which turn it belongs."""

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.training.data import forced_alignment
from duplex.training.scenes.recognition import (
    align_turns_to_recognition,
    load_recognizer,
    recognize,
)
from duplex.training.scenes.scene import AgentTurn, Scene, UserTurn, Word
from tests.training.helpers import USER_WORDS, spell, spoken


def turn(*words) -> UserTurn:
    return UserTurn([Word(*word) for word in words])


def test_a_turn_has_the_words_recognised_in_its_time():
    """What was recognised outside of all turns stays outside."""
    question = turn(("hello", 0.5, 0.9), ("you", 1.0, 1.3))
    order = turn(("go", 5.0, 5.4))
    scene = Scene(8.0, [question, turn(("mhm", 3.0, 3.2)), order])
    scene.agent = [AgentTurn("Yes.", 1.7, question)]
    words = [[] for _ in range(100)]
    words[12] = [("yellow", 0.9)]
    words[20] = [("you", 0.8), ("too", 0.4)]
    words[33] = [("noise", 0.9)]
    words[74] = [("no", 0.9)]
    due = align_turns_to_recognition(scene, words, spell)
    assert scene.user == [question, order]
    assert [word.text for word in question.words] == ["yellow", "you", "too"]
    assert due == [[12, 12, 20, 20], [74]]
    assert [word.text for word in order.words] == ["no"]


def test_a_scene_is_given_up_where_nothing_is_recognised_of_what_is_answered():
    question = turn(("hello", 0.5, 0.9))
    scene = Scene(8.0, [question], [AgentTurn("Yes.", 1.7, question)])
    assert align_turns_to_recognition(scene, [[] for _ in range(100)], spell) is None


def test_recognising_a_stream_is_recognising_at_once(parts):
    recognizer = load_recognizer(parts / "encoder", parts / "lexicon")
    wave = spoken(USER_WORDS, 2.0, SAMPLE_RATE, 500.0).astype(np.float32)[: 24 * TICK_SAMPLES]
    found = []
    recognizer.encoder.register_forward_hook(lambda module, inputs, output: found.append(output))
    recognize(recognizer, np.pad(wave, (0, 6 * TICK_SAMPLES)))
    stream = forced_alignment.stream_log_probs(recognizer.encoder, wave)
    # `recognize` may compute in bfloat16.
    assert (stream.exp() - found[0][1][0].exp()).abs().max() < 0.02
