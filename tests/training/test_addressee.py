"""The addressee head's training: texts, scenes, states, the fit."""

import argparse
import gzip
import json
import random

import numpy as np
import pytest
import torch

from duplex.agent import addressee as agent_addressee
from duplex.model.addressee import AddresseeConfig, AddresseeHead
from duplex.model.tokens import ASIDE, USER_END
from duplex.training import addressee
from duplex.training.addressee import States
from duplex.training.scenes.addressed import draw, part_of, with_overlaps
from duplex.training.scenes.example import ExampleMaker, Tokenizer
from duplex.training.text.overlaps import interrupt, read_overlaps
from tests.training.helpers import tiny_lm

TURNS = [
    {"role": "user", "text": "How do fish breathe?", "speaker": 1},
    {"role": "agent", "text": "Fish breathe with gills, which take what they need from water."},
    {"role": "user", "text": "Anna, come here.", "speaker": 2, "aside": True},
    {"role": "user", "text": "And how do birds fly?", "speaker": 1},
    {"role": "agent", "text": "Birds fly with their wings."},
]


def act(kind: str, text: str) -> dict:
    return {"act": kind, "words": [[0.0, 0.1, word] for word in text.split()]}


@pytest.fixture
def meetings(tmp_path):
    turns = [act("b", "uh-huh"), act("s^bk", "oh o_k"), act("s^ba", "interesting"), act("b", "so-")]
    turns += [act("s^co", "wait a minute"), act("qw", "why is that"), act("s", "we met there")]
    (tmp_path / "text").mkdir()
    with gzip.open(tmp_path / "text" / "icsi_mrda.jsonl.gz", "wt") as file:
        file.write(json.dumps({"id": "a", "turns": turns}))
    return tmp_path


def test_what_only_measures_is_in_no_text_of_training(meetings):
    assent, floor = read_overlaps(meetings)
    assert {"Uh huh.", "Oh okay."} <= set(assent)
    assert floor == ["Wait a minute."]  # "why is that" is in texts/interruptions.txt
    assert not any("nteresting" in text for text in assent)  # and that in texts/assent.txt


def test_interruptions_are_short_or_questions():
    said = {interrupt("I like it.", ["Wait a minute."], random.Random(n)) for n in range(60)}
    assert {"Wait a minute.", "I like it.", "No, I like it."} <= said


def test_a_part_of_a_dialogue_begins_and_ends_with_whole_exchanges():
    for seed in range(9):
        part = part_of(TURNS, random.Random(seed), most=2)
        assert part in (TURNS[:3], TURNS[2:])
    assert part_of(TURNS, random.Random(0)) == TURNS


def test_into_answers_comes_what_is_not_for_the_agent():
    rng = random.Random(1)
    found = [with_overlaps(TURNS, ["Mm."], ["Wait."], rng) for _ in range(40)]
    added = [turn for turns in found for turn in turns if turn["text"] == "Mm."]
    assert added and all(turn["aside"] for turn in added)
    assert {turn["speaker"] for turn in added} == {1, 2}
    assert all(turns[0] == TURNS[0] for turns in found)  # nothing is interrupted yet


def maker(parts) -> ExampleMaker:
    return ExampleMaker(Tokenizer(parts / "tokenizer"), None, [], residual=False)


def test_decisions_are_of_the_turns_of_a_scene(parts):
    kinds = set()
    for seed in range(12):
        drawn = draw(TURNS, maker(parts), np.random.default_rng(seed))
        if drawn is None:
            continue
        example, decisions = drawn
        ends = [token for token in example.sequence.token if token in (USER_END, ASIDE)]
        for decision in decisions:
            if decision.turn < len(ends):  # the last one may go on
                assert decision.is_for_agent == (ends[decision.turn] == USER_END)
            assert decision.seen.user_open and decision.seen.transcribed_words > 0
            assert decision.seen.queued_s >= 0
            kinds.add((decision.is_for_agent, decision.seen.agent_open))
        likenesses = {}
        for decision in decisions:
            if decision.seen.partner_likeness:
                likenesses.setdefault(decision.turn, set()).add(decision.seen.partner_likeness)
        assert 0 not in likenesses  # nobody had spoken to the agent yet
        assert all(len(found) == 1 for found in likenesses.values())
    assert {(True, False), (False, False)} <= kinds


def test_states_are_those_of_the_decisions(parts):
    scenes = [draw(TURNS, maker(parts), np.random.default_rng(seed)) for seed in range(5)]
    scenes = [scene for scene in scenes if scene is not None]
    lm = tiny_lm().merge().eval()
    states = addressee.read_states(lm, iter(scenes))
    count = sum(len(decisions) for _, decisions in scenes)
    assert states.hidden.shape == (count, lm.config.width)
    assert states.known.shape == (count, len(agent_addressee.KNOWN))
    # Alone a scene gives the same.
    first = addressee.read_batch(lm, scenes[:1], 0)[0]
    rows = [i for i in range(count) if torch.equal(states.known[i], first.known[0])]
    assert any(torch.allclose(states.hidden[i], first.hidden[0], atol=1e-3) for i in rows)


def test_the_fit_finds_what_tells_and_is_calibrated():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, 12, generator=generator)
    likeness = torch.rand(4000, 1, generator=generator)
    tells = torch.nn.functional.layer_norm(hidden, (12,))[:, 0]
    chance = torch.sigmoid(2 * tells + 6 * likeness[:, 0] - 3)
    labels = torch.rand(4000, generator=generator) < chance
    states = States(hidden.half(), likeness, labels, torch.zeros(4000), torch.arange(4000))
    head = AddresseeHead(AddresseeConfig(12, 1, 8))
    options = argparse.Namespace(seed=1, lr=1e-2, decay=0.01, epochs=40, batch=128, dropout=0.0)
    addressee.fit(head, states, options)
    found = torch.sigmoid(head(hidden, likeness))
    assert (found - chance).abs().mean() < 0.08
