"""Who speaks in a scene, as the agent will know it; and how people listen in meetings."""

import gzip
import json

import numpy as np

from duplex.audio import TICK_S
from duplex.model import tokens
from duplex.training.scenes import people
from duplex.training.scenes.listening import read_long_turns
from duplex.training.scenes.people import LABEL_DELAY_TICKS, label_speakers
from duplex.training.scenes.scene import Scene, UserTurn, Word, scene_from_turns
from duplex.training.scenes.sequence import user_symbols
from tests.training.helpers import spell


def turn(speaker: int, start: float, end: float) -> UserTurn:
    """A turn of one long word."""
    return UserTurn([Word("hello", start, end)], speaker=speaker)


def test_a_voice_is_known_some_time_after_it_began(monkeypatch):
    """People are numbered by who was heard first; silence belongs to nobody."""
    monkeypatch.setattr(people, "UNLABELLED_SHARE", 0.0)
    monkeypatch.setattr(people, "WRONG_SHARE", 0.0)
    scene = Scene(12.0, [turn(3, 1.0, 4.0), turn(1, 6.0, 9.0), turn(3, 10.0, 10.2)])
    for seed in range(10):
        labels = label_speakers(scene, np.random.default_rng(seed))
        assert len(labels) == int(12.0 / TICK_S)
        for label, start, end in [(1, 1.0, 4.0), (2, 6.0, 9.0)]:
            first = int(start / TICK_S)
            delay = int(np.argmax(labels[first:] > 0))
            assert LABEL_DELAY_TICKS[0] <= delay < LABEL_DELAY_TICKS[1]
            assert set(labels[first + delay : int(end / TICK_S)]) == {label}
        assert labels[int(10.2 / TICK_S)] == 1, "a short turn is known at its end"
        assert not labels[: int(1.0 / TICK_S)].any()
        assert not labels[int(4.2 / TICK_S) : int(6.0 / TICK_S)].any()


def test_in_some_scenes_nobody_is_told_apart():
    scene = Scene(5.0, [turn(1, 1.0, 4.0)])
    known = [label_speakers(scene, np.random.default_rng(seed)).any() for seed in range(200)]
    assert 0.6 < np.mean(known) < 0.8


def test_the_agent_goes_on_while_people_talk_to_each_other():
    """An aside may lie over the agent's voice; only what is for the agent interrupts it."""
    turns = [
        {"role": "user", "text": "tell me about the sun"},
        {"role": "agent", "text": "The sun is a giant ball of hot gas far away from here."},
        {"role": "user", "text": "tom did you see that", "aside": True},
        {"role": "user", "text": "no what was it", "aside": True, "speaker": 2},
    ]
    overlaps = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)

        def times(text: str) -> list[Word]:
            return [Word(word, 0.3 * i, 0.3 * i + 0.3) for i, word in enumerate(text.split())]

        scene = scene_from_turns(turns, times, rng)
        agent = scene.agent[0]
        assert agent.stopped_by is None
        assert [one.answered for one in scene.user if len(one.words) > 3][:1] == [True]
        overlaps += scene.user[1].words[0].start < agent.start + 3.0
        assert {1, 2} == {one.speaker for one in scene.user}
    assert 10 < overlaps < 40


def test_backchannels_stand_between_the_words_of_a_turn():
    long = UserTurn([Word("so", 1.0, 1.2), Word("then", 2.0, 2.4)], backchannels=[0.1, 1.6])
    ticks = [tick for word, tick in (("so", 15), ("then", 30)) for _ in spell(word)]
    symbols = user_symbols(Scene(4.0, [long]), [ticks], spell)
    backs = [(i, tick) for i, (tick, symbol) in enumerate(symbols) if symbol == tokens.BACK]
    assert [tick for _, tick in backs] == [15, 20], "none before the turn is open"
    assert symbols[0][1] != tokens.BACK and symbols[-1][1] == tokens.USER_END
    assert [tick for tick, _ in symbols] == sorted(tick for tick, _ in symbols)


def test_long_turns_of_a_meeting_with_what_listeners_said(tmp_path):
    """A turn goes on over assent and short pauses, and ends where somebody else has the floor."""

    def said(speaker: str, act: str, text: str, start: float, end: float) -> dict:
        names = text.split()
        step = (end - start) / len(names)
        words = [[start + i * step, start + (i + 1) * step, name] for i, name in enumerate(names)]
        return {"s": start, "e": end, "spk": speaker, "act": act, "words": words}

    meeting = {
        "id": "Bed001",
        "turns": [
            said("a", "s", "we went to the w- to the shop", 1.0, 4.0),
            said("b", "b", "uhhuh", 4.1, 4.4),
            said("a", "s", "and it was closed", 4.6, 6.5),
            said("c", "s", "really", 6.8, 7.2),
            said("a", "s", "short", 8.0, 8.4),
        ],
    }
    path = tmp_path / "meetings.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(meeting) + "\n")
    found = read_long_turns(path, "train") + read_long_turns(path, "valid")
    assert len(found) == 1
    words = " ".join(word.text for word in found[0].words)
    assert words == "we went to the to the shop and it was closed"
    assert found[0].words[0].start == 0.0
    assert [round(at, 2) for at in found[0].backchannels] == [3.1]
