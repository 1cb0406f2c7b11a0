"""What is said of a call in each state: one table for the terminal and the page."""

import json
from pathlib import Path

import numpy as np

from duplex.client.call_state import SENTENCES, CallFacts, Ear, name
from tests.client.page import node

TABLE = json.loads((Path(__file__).parent / "call_states.json").read_text(encoding="utf-8"))
# Ways to be without sound that only a browser knows.
PAGE_ONLY = (
    "opening refused absent busy insecure broken suspended stalled unplugged silenced".split()
)


def test_terminal_follows_the_table():
    names = {"agentTurn": "agent_turn", "waitsForKey": "waits_for_key"}
    for facts, expected in TABLE:
        known = {names.get(key, key): value for key, value in facts.items()}
        assert name(CallFacts(**known)) == expected
    assert {expected for _, expected in TABLE} == SENTENCES.keys() | set(PAGE_ONLY)


def test_each_failure_has_a_way_out():
    for tone, sentence, way_out in SENTENCES.values():
        assert sentence and (way_out or tone != "bad")


@node.needs_node
def test_page_follows_the_table():
    answer = node.run("states", [facts for facts, _ in TABLE])
    assert answer["names"] == [expected for _, expected in TABLE]
    assert set(answer["says"]) == set(answer["names"])
    for tone, sentence, way_out in answer["says"].values():
        assert sentence and (way_out or tone != "bad")


def levels() -> list[float]:
    """A noisy room, a voice in it, and the noise again."""
    random = np.random.default_rng(0)
    noise = random.uniform(0.004, 0.006, 100)
    voice = np.where(np.arange(50) % 5 < 3, 0.08, 0.01)
    return [*noise, *voice, *noise]


def heard(values: list[float]) -> list[bool]:
    ear = Ear()
    found = []
    for level in values:
        ear = ear.listen(level)
        found.append(ear.voice)
    return found


def test_a_voice_is_told_from_the_noise_of_the_room():
    voices = heard(levels())
    assert not any(voices[:100]) and all(voices[100:150]) and not any(voices[156:])


@node.needs_node
def test_page_hears_the_same():
    assert node.run("listen", levels()) == heard(levels())
