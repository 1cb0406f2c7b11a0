"""A scene: a dialogue on a time line, with the user's words and the agent's turns in seconds.

Times are those of speech, not yet of what is recognised of it (duplex.training.scenes.recognition).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from duplex.agent.backchannels import BACKCHANNEL_WORDS, BACKCHANNELS
from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import TICK_S
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.common.distributed import own_files
from duplex.training.text.templates import read_lines

# The rules of the runtime, by which scenes are laid out.
POLICY = TurnPolicy()
# Seconds from <agent> to the first sound.
VOICE_DELAY_S = 0.15
# What is said to let the agent go on.
ASSENT = (*BACKCHANNELS, *read_lines("appreciation"))
ASSENT_BEGUN = {
    " ".join(words[:count])
    for words in (spoken_form(phrase).split() for phrase in ASSENT)
    for count in range(1, len(words) + 1)
}
INSTRUCTIONS = [
    "You are Duplex, a friendly voice assistant. Answer in one short sentence.",
    "You are a friendly voice assistant. Keep it short.",
    "You are a helpful voice assistant called Duplex. Talk like a friend, in short spoken "
    "sentences.",
]


@dataclass
class Word:
    """A word in spoken form and when it is said, in seconds on the scene's clock."""

    text: str
    start: float
    end: float
    # (wave, first sample, last sample): its part of an utterance, up to the next word.
    sound: tuple | None = None
    # Whether a comma follows.
    comma: bool = False


@dataclass
class UserTurn:
    """What the user says in one piece."""

    words: list[Word]
    # False for a backchannel, and for what is said to somebody else: nobody waits for an answer.
    answered: bool = True
    # Ticks from its last word recognised to </user>: counted from what the LM sees, so that it can
    # be sure.
    end_ticks: int = POLICY.end_silence_ticks
    # Who speaks; the people of a scene are numbered.
    speaker: int = 1
    # Of a television: how much softer it is than the people.
    gain: float = 1.0
    # Seconds at which a listener says "mhm" into it.
    backchannels: list[float] = field(default_factory=list)


@dataclass
class AgentTurn:
    """What the agent says in one piece."""

    text: str
    # Second at which <agent> is due.
    start: float
    answers: UserTurn | None = None
    # The turn that interrupts it, and the second at which the agent is to yield.
    stopped_by: UserTurn | None = None
    stop: float | None = None
    # Of a recording: the text ends where the agent was interrupted; its rest is not known.
    cut: bool = False


@dataclass
class Scene:
    """A conversation, or a part of one."""

    seconds: float
    user: list[UserTurn] = field(default_factory=list)
    agent: list[AgentTurn] = field(default_factory=list)
    instructions: str = INSTRUCTIONS[0]


def read_dialogues(path: Path, split: str, part: tuple[int, int] = (0, 1)) -> list[dict]:
    """The dialogues of a split ("train" or "valid") in a corpus, see duplex.training.corpus.

    path: a file, or a folder with several .jsonl. part: (i, n) leaves process i of n its own files.
    """
    files = own_files(sorted(path.glob("*.jsonl")), *part) if path.is_dir() else [path]
    lines = (json.loads(line) for file in files for line in file.read_text().splitlines())
    return [dialogue for dialogue in lines if dialogue["split"] == split]


def voice_seconds(text: str) -> float:
    """A guess at how long the agent takes to say a piece of text."""
    return 0.06 * len(text) + 0.02


def end_of_turn(turn: UserTurn) -> float:
    """The second at which </user> is due, as long as it is not known when words are recognised.

    It is about 0.37 s after the end of the last word, and later as far as the turn says so.
    """
    return turn.words[-1].end + 0.37 + TICK_S * (turn.end_ticks - POLICY.end_silence_ticks)


def may_be_assent(words: list[str]) -> bool:
    """Whether words in spoken form are nothing but backchannels, or the beginning of assent."""
    return " ".join(words) in ASSENT_BEGUN or BACKCHANNEL_WORDS.issuperset(words)


def shift_words(words: list[Word], seconds: float) -> list[Word]:
    """The words, so much later."""
    return [replace(word, start=word.start + seconds, end=word.end + seconds) for word in words]


def scene_from_turns(
    turns: list[dict], times: Callable[[str], list[Word]], rng: np.random.Generator
) -> Scene:
    """Lay a dialogue's turns on a time line.

    times(text) returns the words of a user turn, from second 0. Two in five answers are interrupted
    by the next question, one in three long ones gets a backchannel; every other aside that follows
    one is said while the agent speaks, which goes on.
    """
    now = float(rng.uniform(0.2, 1.2) if rng.uniform() > 0.05 else rng.uniform(4, 10))
    usual = rng.uniform() < 0.8
    scene = Scene(0.0, instructions=INSTRUCTIONS[0] if usual else str(rng.choice(INSTRUCTIONS[1:])))
    question = None
    interrupted = False
    voice_end = 0.0
    for turn, following in zip(turns, [*turns[1:], {}], strict=True):
        if turn["role"] == "user":
            question = sample_user_turn(turn, shift_words(times(turn["text"]), now), rng)
            scene.user.append(question)
            if interrupted:
                scene.agent[-1].stopped_by = question
            interrupted = False
            now = begin_after(question, following, rng)
            if not following.get("aside"):
                now = max(now, voice_end)
            continue
        scene.agent.append(AgentTurn(turn["text"], now, question))
        voice = VOICE_DELAY_S + voice_seconds(turn["text"])
        voice_end = now + voice
        chance = rng.uniform()
        is_aside = following.get("aside", False)
        if chance < 0.4 and following and not is_aside:
            now += VOICE_DELAY_S + float(rng.uniform(0.1, 0.8)) * voice
            voice_end = now
            interrupted = True
            continue
        if chance < 0.5 and is_aside:
            now += VOICE_DELAY_S + float(rng.uniform(0.2, 0.9)) * voice
            continue
        if chance > 0.65 and voice > 1.5:
            at = now + VOICE_DELAY_S + float(rng.uniform(0.2, 0.7)) * voice
            words = shift_words(times(str(rng.choice(ASSENT))), at)
            scene.user.append(UserTurn(words, answered=False, speaker=question.speaker))
        now += voice + float(rng.uniform(0.2, 1.6) if rng.uniform() < 0.85 else rng.uniform(2, 6))
    scene.seconds = max(now, voice_end) + 0.4
    return scene


def begin_after(question: UserTurn, following: dict, rng: np.random.Generator) -> float:
    """The second at which what follows a user's turn begins: people answer each other at once."""
    if question.answered:
        return end_of_turn(question)
    if following.get("speaker", 1) != question.speaker:
        # Between people half of the turns begin before the other's end is sure.
        return question.words[-1].end + float(rng.uniform(0.1, 1.2))
    return end_of_turn(question) + float(rng.uniform(0.3, 3.0))


def sample_user_turn(turn: dict, words: list[Word], rng: np.random.Generator) -> UserTurn:
    """A user turn of a dialogue with its hesitations, and how long its end is waited for.

    After what is no question (`slow`) the user may go on, so its end comes 6 ticks later.
    """
    slow = turn.get("slow", False)
    if slow:
        pause_after_phrases(words, rng)
    else:
        pause_in_mid_sentence(words, rng)
    ticks = POLICY.end_silence_ticks + 6 * slow + late_ticks(rng)
    gain = 10 ** (-float(rng.uniform(6, 20)) / 20) if turn.get("far") else 1.0
    return UserTurn(words, not turn.get("aside"), ticks, turn.get("speaker", 1), gain)


def late_ticks(rng: np.random.Generator) -> int:
    """15 % of the turns end 1 to 16 ticks later, or a missed end would never be made good."""
    return int(rng.integers(1, 17)) if rng.uniform() < 0.15 else 0


def pause_in_mid_sentence(words: list[Word], rng: np.random.Generator) -> None:
    """Sometimes hesitate before a later word, longer than the end of a turn would be."""
    if len(words) < 4 or rng.uniform() > 0.3:
        return
    first = int(rng.integers(2, len(words)))
    pause = float(rng.uniform(0.4, 1.5))
    for word in words[first:]:
        word.start += pause
        word.end += pause


def pause_after_phrases(words: list[Word], rng: np.random.Generator) -> None:
    """Most commas of a story are pauses, some as long as the end of a turn."""
    pause = 0.0
    for before, word in pairwise(words):
        pause += float(rng.uniform(0.2, 1.1)) * (before.comma and rng.uniform() < 0.8)
        word.start += pause
        word.end += pause


def guess_times(text: str, rng: np.random.Generator) -> list[Word]:
    """Word times as a speaker might have them, for scenes without sound."""
    rate = float(rng.uniform(0.045, 0.085))  # Seconds a letter.
    now = 0.0
    words = []
    for raw in text.split():
        if word := spoken_form(raw):
            length = rate * (len(word) + 1) * float(rng.uniform(0.8, 1.25))
            words.append(Word(word, now, now + length, comma=raw.endswith(",")))
            now += length
    return words
