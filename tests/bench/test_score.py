"""The bench's scoring, on timings made by hand whose figures can be worked out on paper."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from duplex.bench import fdb
from duplex.bench.recognizer import Heard, joined
from duplex.bench.report.figures import discernment, summary
from duplex.bench.scenes import Annotation, Word
from duplex.bench.score import ScoredScene, score, takes_over


def words(*times: float, length: float = 0.3) -> list[Word]:
    return [Word("word", start, start + length) for start in times]


def heard(*voice: tuple[float, float]) -> Heard:
    """Voice with a word every 0.4 s of it."""
    spoken = [
        Word("word", float(t), float(t) + 0.3)
        for s, e in voice
        for t in np.arange(s, e - 0.25, 0.4)
    ]
    return Heard(list(voice), spoken)


def take(kind: str, marks: list[tuple[str, float, float]], agent: Heard, **more) -> ScoredScene:
    return ScoredScene(
        kind,
        [Annotation(role, f"{role} at {start}", start, end) for role, start, end in marks],
        agent,
        20.0,
        **more,
    )


QUESTION = ("question", 1.0, 3.0)
SILENT = heard()
TALKING = heard((0.0, 20.0))


def test_take_over_counts_more_than_a_word_or_two():
    """v1: no turn is under a second AND at most three words."""
    assert not takes_over([])
    assert not takes_over(words(5.0, 5.3, 5.6))  # three words, 0.9 s
    assert takes_over(words(5.0, 5.2, 5.4, 5.6))  # four words, 0.9 s
    assert takes_over(words(5.0, 5.8))  # two words, 1.1 s


def test_joined_closes_small_gaps_and_no_larger_ones():
    assert joined([(3.0, 4.0), (0.0, 1.0), (1.5, 2.0)], 0.5) == [(0.0, 2.0), (3.0, 4.0)]
    assert joined([(0.0, 5.0), (1.0, 2.0)], 0.5) == [(0.0, 5.0)]


def test_turn_taken_after_the_question_is_handled():
    assert score(take("turn", [QUESTION], heard((3.6, 6.0)))) == {
        "take_over": 1.0,
        "latency_clipped_s": 0.6,
        "latency_s": 0.6,
        "handled": 1.0,
    }


def test_turn_taken_a_little_early_is_signed_here_and_clipped_there():
    found = score(take("turn", [QUESTION], heard((2.7, 6.0))))
    assert (found["latency_clipped_s"], found["latency_s"], found["handled"]) == (0.0, -0.3, 1.0)


def test_answer_after_the_patience_of_a_person_is_none():
    found = score(take("turn", [QUESTION], heard((7.2, 9.0))))
    assert found == {"take_over": 1.0, "latency_clipped_s": 4.2, "latency_s": None, "handled": 0.0}


def test_one_that_never_stops_takes_every_turn_by_v1_and_none_here():
    found = score(take("turn", [QUESTION], TALKING))
    assert found == {"take_over": 1.0, "latency_clipped_s": 0.0, "latency_s": None, "handled": 0.0}


def test_back_channel_in_the_question_does_not_spoil_the_answer():
    found = score(take("turn", [QUESTION], heard((1.9, 2.2), (3.4, 6.0))))
    assert (
        found["latency_s"] == 0.4 and found["latency_clipped_s"] == 0.0
    )  # v1 takes the first word whatever it is


PAUSED = [("part", 1.0, 2.0), ("question", 3.2, 4.5)]


@pytest.mark.parametrize(
    ("agent", "take_over", "cut_in", "handled"),
    [
        (heard((5.0, 7.0)), 0.0, 0.0, 1.0),  # waits
        (heard((2.4, 3.9)), 1.0, 1.0, 0.0),  # answers the half sentence
        (heard((2.3, 2.6), (5.0, 7.0)), 0.0, 0.0, 1.0),  # mhm in the pause
        (SILENT, 0.0, 0.0, 0.0),  # perfect by v1
        (TALKING, 1.0, 1.0, 0.0),
    ],
)
def test_pause_is_waited_for(agent, take_over, cut_in, handled):
    found = score(take("pause", PAUSED, agent))
    assert (found["take_over"], found["cut_in"], found["handled"]) == (take_over, cut_in, handled)


INTERRUPTED = [QUESTION, ("interruption", 5.0, 6.5)]


def test_interruption_that_is_yielded_to_and_answered():
    found = score(
        take(
            "interruption",
            INTERRUPTED,
            heard((3.5, 5.4), (7.0, 9.0)),
            ended_s=[9.0],
            stopped_s=[5.4],
        )
    )
    assert found == {
        "take_over": 1.0,
        "latency_clipped_s": 0.5,
        "overlap_s": 0.4,
        "response_s": 0.5,
        "yielded": 1.0,
        "stop_s": 0.4,
        "latency_s": 0.5,
        "handled": 1.0,
    }


def test_interruption_talked_over_is_not_yielded_to():
    """By v1 the take-over is perfect and at once, though the words belong to the answer before."""
    found = score(take("interruption", INTERRUPTED, heard((3.5, 9.0))))
    assert (found["take_over"], found["latency_clipped_s"]) == (1.0, pytest.approx(0.2, abs=0.2))
    assert (found["overlap_s"], found["yielded"], found["stop_s"], found["handled"]) == (
        1.5,
        0.0,
        None,
        0.0,
    )


def test_breath_during_the_interruption_is_no_yielding():
    found = score(take("interruption", INTERRUPTED, heard((3.5, 5.2), (5.8, 9.0))))
    assert (found["yielded"], found["stop_s"], found["handled"]) == (0.0, None, 0.0)
    found = score(
        take("interruption", INTERRUPTED, heard((3.5, 5.2), (6.2, 9.0)))
    )  # a little early, but an answer
    assert (found["yielded"], found["stop_s"], found["latency_s"]) == (1.0, 0.2, -0.3)


def test_answer_that_was_over_anyway_is_no_yielding():
    """The agent says itself that it had finished: nothing is learned about yielding."""
    found = score(take("interruption", INTERRUPTED, heard((3.5, 5.4), (7.0, 9.0)), ended_s=[5.3]))
    assert (found["yielded"], found["stop_s"], found["handled"]) == (None, None, None)
    assert (
        score(take("interruption", INTERRUPTED, SILENT))["handled"] == 0.0
    )  # never answered: not excused


MHM = [QUESTION, ("back_channel", 5.0, 5.4)]


@pytest.mark.parametrize(
    ("agent", "more", "resumed", "handled"),
    [
        (heard((3.5, 8.0)), {}, 1.0, 1.0),
        (heard((3.5, 5.1), (5.5, 8.0)), {}, 1.0, 1.0),  # a breath
        (heard((3.5, 5.3)), {}, 0.0, 0.0),
        (heard((3.5, 5.3), (6.5, 8.0)), {}, 0.0, 0.0),  # stops and begins anew
        (heard((3.5, 5.3)), {"ended_s": [5.2]}, None, None),  # had finished
        (SILENT, {}, None, 0.0),
        (TALKING, {}, 1.0, 0.0),  # goes on, and went on over the question
    ],
)
def test_back_channel_is_talked_on_over(agent, more, resumed, handled):
    found = score(take("back_channel", MHM, agent, **more))
    assert (found["resumed"], found["handled"]) == (resumed, handled)


@pytest.mark.parametrize(
    ("agent", "resumed", "responded", "handled"),
    [
        (heard((3.5, 8.0)), 1.0, 0.0, 1.0),
        (heard((3.5, 8.0), (14.5, 17.0)), 1.0, 1.0, 0.0),  # answers what was said to somebody else
        (heard((3.5, 5.2)), 0.0, 0.0, 0.0),
        (SILENT, None, 0.0, 0.0),
        (TALKING, 1.0, None, 0.0),
    ],
)
@pytest.mark.parametrize(("kind", "role"), [("side_talk", "side"), ("background", "television")])
def test_talk_to_others_is_not_answered(kind, role, agent, resumed, responded, handled):
    found = score(take(kind, [QUESTION, (role, 5.0, 6.5), (role, 12.0, 14.0)], agent))
    assert found == {"resumed": resumed, "responded": responded, "handled": handled}


@pytest.mark.parametrize(
    ("agent", "take_over", "cut_in", "handled"),
    [
        (heard((9.6, 12.0)), 0, 0, 1),
        (heard((3.0, 5.0), (9.6, 12.0)), 1, 1, 0),
        (SILENT, 0, 0, 0),
        (TALKING, 1, 1, 0),
    ],
)
def test_noise_is_not_answered(agent, take_over, cut_in, handled):
    found = score(take("noise", [("noise", 0.5, 6.0), ("question", 7.0, 9.0)], agent))
    assert found == {"take_over": take_over, "cut_in": cut_in, "handled": handled}


@pytest.mark.parametrize(
    ("agent", "more", "stopped", "answered", "handled"),
    [
        (heard((3.5, 7.0)), {}, 0.0, 0.0, 1.0),
        (heard((3.5, 4.2)), {"stopped_s": [4.2]}, 1.0, 0.0, 0.0),
        (heard((3.5, 7.0), (8.0, 10.0), (11.0, 13.0)), {}, 0.0, 1.0, 0.0),
        (SILENT, {}, None, None, 0.0),
    ],
)
def test_own_echo_is_not_answered(agent, more, stopped, answered, handled):
    found = score(take("echo", [QUESTION], agent, **more))
    assert (found["self_stopped"], found["self_answered"], found["handled"]) == (
        stopped,
        answered,
        handled,
    )


STORY = [("part", 1.0, 3.0), ("part", 4.0, 6.0), ("question", 7.0, 9.0)]


def test_back_channels_of_the_agent_where_a_person_would_say_them():
    found = score(take("listening", STORY, heard((3.0, 3.8), (6.0, 6.8), (9.5, 12.0))))
    assert found["take_over"] == 0.0 and found["handled"] == 1.0
    assert found["back_channels_per_s"] == 0.25  # two in the eight seconds of the story
    there = found["js_distance"]
    elsewhere = score(take("listening", STORY, heard((1.2, 1.9), (4.4, 5.1), (9.5, 12.0))))[
        "js_distance"
    ]
    assert there < 0.4 and elsewhere == pytest.approx(1.0, abs=0.01)


def test_back_channels_are_measured_against_a_recorded_person():
    agent = heard((1.2, 1.9), (4.4, 5.1), (9.5, 12.0))
    assert (
        score(take("listening", STORY, agent, human=[(1.2, 1.9), (4.4, 5.1)]))["js_distance"] == 0.0
    )


def test_listening_controls_handle_nothing():
    assert score(take("listening", STORY, SILENT))["js_distance"] == 1.0
    assert score(take("listening", STORY, SILENT))["handled"] == 0.0
    talking = score(take("listening", STORY, TALKING))
    assert (talking["take_over"], talking["back_channels_per_s"], talking["handled"]) == (
        1.0,
        0.0,
        0.0,
    )


def test_js_distance_is_scipys():
    rng = np.random.default_rng(0)
    p, q = rng.uniform(size=30), rng.uniform(size=30)
    assert fdb.js_distance(p, q) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-6)
    assert fdb.js_distance(p, p) == 0.0
    assert fdb.js_distance(np.eye(2)[0], np.eye(2)[1]) == pytest.approx(1.0, abs=1e-4)


def test_histogram_shares_a_segment_among_its_bins():
    assert fdb.histogram([(0.1, 0.5)], 1.0) == pytest.approx([0.5, 1.0, 0.5, 0.0, 0.0])


def test_summary_leaves_out_scenes_that_could_not_tell():
    rows = [
        ("turn", {"latency_s": 0.4, "handled": 1.0}),
        ("turn", {"latency_s": None, "handled": 0.0}),
        ("echo", {"handled": None}),
    ]
    assert summary(rows) == {
        "turn": {"latency_s": {"mean": 0.4, "of": 1}, "handled": {"mean": 0.5, "of": 2}},
        "echo": {"handled": {"mean": None, "of": 0}},
    }


@pytest.mark.parametrize(
    ("yields", "resumes", "expected"),
    [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 1.0), (None, 1.0, None)],
)
def test_discernment_tells_interruptions_from_back_channels(yields, resumes, expected):
    table = {
        "interruption": {"yielded": {"mean": yields, "of": 3}},
        "back_channel": {"resumed": {"mean": resumes, "of": 3}},
    }
    assert discernment(table) == expected
    assert discernment({}) is None
