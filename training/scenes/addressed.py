"""Scenes in which it is known for whom each turn is, and what the agent knows while it is said.

They are dialogues without sound (duplex.training.scenes.scene), with assent and interruptions said
into the agent's voice. For every position at which the addressee head may be asked `draw` tells
what an Observation holds; where only sound would say, it is made up as it is measured.
"""

import random
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from duplex.agent.hearing.speakers import SpeakerPolicy
from duplex.agent.turn_policy import LONG_AGO, Observation
from duplex.audio import TICK_S
from duplex.model import tokens
from duplex.model.tokens import AGENT, ASIDE, FIRST_TEXT_ID, STOP, USER, USER_END, Grammar
from duplex.training.scenes import recognition
from duplex.training.scenes.example import Example, ExampleMaker
from duplex.training.scenes.scene import (
    VOICE_DELAY_S,
    Scene,
    UserTurn,
    guess_times,
    scene_from_turns,
    voice_seconds,
)
from duplex.training.scenes.sequence import Spell, time_agent_turns
from duplex.training.text.overlaps import interrupt

# Cosines of the voice of a turn and that of who spoke to the agent last: mean, deviation.
SAME_VOICE = 0.62, 0.13
OTHER_VOICE = 0.05, 0.13
# Ticks of a voice before it is compared.
VOICE_TICKS = SpeakerPolicy().label_ticks
# Share of the scenes in which no voice is compared.
UNLABELLED_SHARE = 0.15
# Seconds by which the agent may yield too late.
LATE_S = 1.0


@dataclass
class Decision:
    """A position at which it is asked for whom the user's open turn is."""

    position: int
    seen: Observation
    is_for_agent: bool
    # The number of the user's turn in its scene.
    turn: int


def part_of(turns: list[dict], rng: random.Random, most: int = 4) -> list[dict]:
    """At most so many turns of the user in a row, with what the agent answers."""
    begins = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    first = rng.randrange(max(1, len(begins) - most + 1))
    ends = [*begins, len(turns)]
    return turns[begins[first] : ends[min(first + most, len(begins))]]


def with_overlaps(
    turns: list[dict], assent: list[str], floor: list[str], rng: random.Random
) -> list[dict]:
    """A dialogue's turns in which most of what follows an answer is put as interruptions are, and
    more than half of the answers are assented to, mostly by who asked."""
    found: list[dict] = []
    asker = 1
    for turn in turns:
        is_user = turn["role"] == "user"
        is_asked = is_user and not turn.get("aside")
        if is_asked and found and found[-1]["role"] == "agent" and rng.random() < 0.6:
            turn = {**turn, "text": interrupt(turn["text"], floor, rng)}
        found.append(turn)
        if is_asked:
            asker = turn.get("speaker", 1)
        elif turn["role"] == "agent" and rng.random() < 0.6:
            who = asker if rng.random() < 0.8 else asker % 4 + 1
            said = {"role": "user", "text": rng.choice(assent), "aside": True, "speaker": who}
            found.append(said)
    return found


def draw(
    turns: list[dict], maker: ExampleMaker, rng: np.random.Generator
) -> tuple[Example, list[Decision]] | None:
    """A scene of these turns without sound, and its decisions. None where nothing is recognised."""
    scene = scene_from_turns(turns, partial(guess_times, rng=rng), rng)
    said = [(turn, turn.words[0].start, turn.words[-1].end) for turn in scene.user if turn.words]
    silence = silence_ticks(scene)
    words = recognition.simulate_recognition(scene, rng)
    example = maker.make(scene, None, words, rng, partial(time_agent_late, rng))
    if example is None:
        return None
    listener = Listener(scene, said, silence, rng)
    return example, listener.decisions(example, maker.tokenizer.lm.decode)


def time_agent_late(
    rng: np.random.Generator, scene: Scene, due: list[list[int]], spell: Spell
) -> None:
    """The agent's turns as in all scenes, but half of the time it yields late: what it should
    learn then is that it should have."""
    time_agent_turns(scene, due, spell)
    for speech in scene.agent:
        if speech.stop is not None and rng.uniform() < 0.5:
            speech.stop += float(rng.uniform(0, LATE_S))


def silence_ticks(scene: Scene) -> list[int]:
    """Ticks since somebody spoke, for each tick."""
    speaks = np.zeros(int(scene.seconds / TICK_S) + 1, bool)
    for turn in scene.user:
        for word in turn.words:
            speaks[int(word.start / TICK_S) : int(word.end / TICK_S) + 1] = True
    found = []
    ticks = LONG_AGO
    for is_speech in speaks:
        ticks = 0 if is_speech else ticks + 1
        found.append(ticks)
    return found


@dataclass
class Listener:
    """What the agent knows while a scene's sequence goes on."""

    scene: Scene
    # Each turn, and the seconds in which it is said.
    said: list[tuple[UserTurn, float, float]]
    silence: list[int]
    rng: np.random.Generator
    seen: Observation = field(default_factory=Observation)
    turn: int = 0
    # Who spoke to the agent last, and how like theirs each turn's voice is.
    partner: int | None = None
    likeness: dict[int, float] = field(default_factory=dict)
    # Seconds of the agent's open turn, when it began to sound, and the tick in which it last did.
    voice_s: float = 0.0
    voice_begin: float = 0.0
    voice_tick: int = -LONG_AGO

    def decisions(self, example: Example, decode) -> list[Decision]:
        """Those of the scene's sequence."""
        is_labelled = self.rng.uniform() >= UNLABELLED_SHARE
        grammar = Grammar()
        found = []
        sequence = example.sequence
        rows = zip(sequence.token.tolist(), sequence.tick.tolist(), strict=True)
        for position, (token, tick) in enumerate(rows):
            if tick < 0:
                continue
            if token >= 0:
                self.take(token, tick, grammar, decode)
                grammar = tokens.advance(grammar, token)
            queued_s = max(0.0, self.voice_s - max(0.0, tick * TICK_S - self.voice_begin))
            if queued_s > 0 and tick * TICK_S > self.voice_begin:
                self.voice_tick = tick
            if not (grammar.user_open and self.seen.transcribed_words):
                continue
            turn = self.scene.user[self.turn]
            seen = replace(
                self.seen,
                user_open=True,
                agent_open=grammar.agent_open,
                queued_s=queued_s,
                ticks_since_agent_word=tick - self.voice_tick,
                silence_ticks=self.silence[min(tick, len(self.silence) - 1)],
                is_far=turn.gain < 1.0 and self.partner is not None,
                partner_likeness=self.likeness_at(tick) if is_labelled else 0.0,
            )
            found.append(Decision(position, seen, turn.answered, self.turn))
        return found

    def take(self, token: int, tick: int, before: Grammar, decode) -> None:
        """Take in a symbol of the sequence."""
        if token == AGENT and not before.agent_open:
            self.voice_begin = tick * TICK_S + VOICE_DELAY_S
            self.voice_s = 0.0
        elif token == STOP:
            self.voice_s = 0.0
        elif token in (USER_END, ASIDE):
            if token == USER_END:
                self.partner = self.scene.user[self.turn].speaker
            self.turn += 1
            self.seen = replace(self.seen, transcribed_words=0)
        elif token >= FIRST_TEXT_ID and before.stream == AGENT:
            self.voice_s += voice_seconds(decode([token]))
        elif token >= FIRST_TEXT_ID and before.stream == USER:
            count = self.seen.transcribed_words
            count += count == 0 or decode([token]).startswith(" ")
            self.seen = replace(self.seen, transcribed_words=count)

    def likeness_at(self, tick: int) -> float:
        """How like the voice of who spoke to the agent last that of the open turn is by now."""
        turn = self.scene.user[self.turn]
        begin, end = next((begin, end) for one, begin, end in self.said if one is turn)
        heard_ticks = (min(tick * TICK_S, end) - begin) / TICK_S
        if self.partner is None or heard_ticks < VOICE_TICKS:
            return 0.0
        if self.turn not in self.likeness:
            mean, deviation = SAME_VOICE if turn.speaker == self.partner else OTHER_VOICE
            self.likeness[self.turn] = float(self.rng.normal(mean, deviation))
        return self.likeness[self.turn]
