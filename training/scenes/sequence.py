"""From a dialogue's times to the one sequence the LM learns: ticks, symbols, what is to be predicted, what is forgotten.

A scene is a time line: pieces of the user's speech with the tick each is due, and the agent's turns. `lay_out` plays
the runtime's rules over it (hearing before speaking, at most `cap` symbols a tick, the text's bounded lead over the voice,
unsaid text dropped at <stop>), so the LM is trained on exactly what it will meet.
"""

import json
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from duplex.training.data.normalize import heard_form

from duplex.agent.turn_policy import TurnPolicy, symbol_budget
from duplex.audio import TICK_S
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    END,
    NEXT,
    STOP,
    USER,
    USER_END,
    Grammar,
    advance,
)

POLICY = TurnPolicy()  # The rules at run time, by which scenes are laid out.
IGNORE = -100
NEVER = 1 << 30
END_OF_TURN_TICKS = POLICY.end_silence_ticks  # from the last piece heard to </user>: counted from what the model sees, so that it can be sure
LATE_SHARE, LATEST_TICKS = (
    0.15,
    16,
)  # of the turns end later, or a missed end would never be made good
SLOW_TICKS = 6  # more after what is no question: who tells something may go on
PHRASE_PAUSE_S = (0.2, 1.1)  # in what is told, where it has commas
END_OF_TURN_SECONDS = (
    0.37  # the same from the end of the last word, about, where the pieces' ticks are not known yet
)
VOICE_DELAY_SECONDS = 0.15  # from <agent> to the first sound

BACK_CHANNELS = ["Mhm.", "Yeah.", "Uh huh.", "Right.", "Okay.", "I see.", "Oh."]
TOKENS_OF_ASSENT = {word for phrase in BACK_CHANNELS for word in heard_form(phrase).split()}
INSTRUCTIONS = [
    "You are Duplex, a friendly voice assistant. Answer in one short sentence.",
    "You are a friendly voice assistant. Keep it short.",
    "You are a helpful voice assistant called Duplex. Talk like a friend, in short spoken sentences.",
]


@dataclass
class Word:
    text: str
    start: float  # seconds on the scene's clock
    end: float
    sound: tuple | None = (
        None  # (wave, first sample, last sample): the word's part of its utterance, up to the next word
    )
    comma: bool = False  # after it


@dataclass
class UserTurn:
    words: list[Word]
    answered: bool = (
        True  # False: a back-channel, or said to somebody else; nobody waits for an answer
    )
    end_ticks: int = END_OF_TURN_TICKS  # from its last piece to </user>


@dataclass
class AgentTurn:
    text: str
    start: float  # when <agent> is due
    answers: UserTurn | None = None
    stopped_by: UserTurn | None = None  # who interrupts it
    stop: float | None = None  # when the agent is to yield
    cut: bool = False  # of a recording: the text ends where the agent was interrupted, nobody knows how it would have gone on


@dataclass
class Scene:
    seconds: float
    user: list[UserTurn] = field(default_factory=list)
    agent: list[AgentTurn] = field(default_factory=list)
    instructions: str = INSTRUCTIONS[0]


@dataclass
class Sequence:
    """One row of a batch, all arrays [L]. `token` -1 stands for a tick's features."""

    token: np.ndarray
    tick: np.ndarray  # the tick a position belongs to
    label: np.ndarray  # symbol to predict after the position, IGNORE where the runtime does not ask
    dropped_at: np.ndarray  # index from which on the position is forgotten


def voice_seconds(text: str) -> float:
    """A guess at how long a piece of text takes to say."""
    return 0.06 * len(text) + 0.02


def end_of_turn(turn: UserTurn) -> float:
    return turn.words[-1].end + END_OF_TURN_SECONDS + TICK_S * (turn.end_ticks - END_OF_TURN_TICKS)


def converse(turns: list[dict], times, rng: np.random.Generator) -> Scene:
    """Lay a dialogue's turns on a time line. `times(text)` -> words with times from 0."""
    now = float(rng.uniform(0.2, 1.2) if rng.uniform() > 0.05 else rng.uniform(4, 10))
    scene = Scene(
        0.0,
        instructions=INSTRUCTIONS[0] if rng.uniform() < 0.8 else str(rng.choice(INSTRUCTIONS[1:])),
    )
    question, interrupted = None, False
    for turn, following in zip(turns, [*turns[1:], {}], strict=True):
        if turn["role"] == "user":
            words, slow = at_time(times(turn["text"]), now), turn.get("slow", False)
            pause_after_phrases(words, rng) if slow else pause_in_mid_sentence(words, rng)
            late = int(rng.integers(1, LATEST_TICKS + 1)) if rng.uniform() < LATE_SHARE else 0
            question = UserTurn(
                words, not turn.get("aside"), END_OF_TURN_TICKS + SLOW_TICKS * slow + late
            )
            scene.user.append(question)
            if interrupted:
                scene.agent[-1].stopped_by, interrupted = question, False
            now = end_of_turn(question) + (
                0.0 if question.answered else float(rng.uniform(0.3, 3.0))
            )
            continue
        speech = AgentTurn(turn["text"], now, question)
        scene.agent.append(speech)
        voice = VOICE_DELAY_SECONDS + voice_seconds(turn["text"])
        chance = rng.uniform()
        if (
            chance < 0.4 and following and not following.get("aside")
        ):  # the next question interrupts
            now += VOICE_DELAY_SECONDS + float(rng.uniform(0.1, 0.8)) * voice
            interrupted = True
            continue
        if chance > 0.8 and voice > 1.5:
            at = now + VOICE_DELAY_SECONDS + float(rng.uniform(0.2, 0.7)) * voice
            scene.user.append(
                UserTurn(at_time(times(str(rng.choice(BACK_CHANNELS))), at), answered=False)
            )
        now += voice + float(rng.uniform(0.2, 1.6) if rng.uniform() < 0.85 else rng.uniform(2, 6))
    scene.seconds = now + 0.4
    return scene


def at_time(words: list[Word], seconds: float) -> list[Word]:
    return [replace(word, start=word.start + seconds, end=word.end + seconds) for word in words]


def pause_in_mid_sentence(words: list[Word], rng: np.random.Generator) -> None:
    """Sometimes hesitate before a later word, longer than the end of a turn would be."""
    if len(words) < 4 or rng.uniform() > 0.3:
        return
    first = int(rng.integers(2, len(words)))
    pause = float(rng.uniform(0.4, 1.5))
    for word in words[first:]:
        word.start, word.end = word.start + pause, word.end + pause


def pause_after_phrases(words: list[Word], rng: np.random.Generator) -> None:
    """Most commas of a story are pauses, some as long as the end of a turn."""
    pause = 0.0
    for before, word in pairwise(words):
        pause += float(rng.uniform(*PHRASE_PAUSE_S)) * (before.comma and rng.uniform() < 0.8)
        word.start, word.end = word.start + pause, word.end + pause


def guess_times(text: str, rng: np.random.Generator) -> list[Word]:
    """Word times as a speaker might have them, for scenes without audio."""
    rate, now, words = float(rng.uniform(0.045, 0.085)), 0.0, []
    for raw in text.split():
        if word := heard_form(raw):
            length = rate * (len(word) + 1) * float(rng.uniform(0.8, 1.25))
            words.append(Word(word, now, now + length, comma=raw.endswith(",")))
            now += length
    return words


def lay_out(
    scene: Scene, heard: list[tuple[int, int]], prompt: list[int], encode, cap: int
) -> Sequence:
    """The scene as one sequence.

    heard: (due tick, symbol) of every piece the user says and of every </user> or <aside>, in order. prompt: token ids.
    encode: text -> list of (token id, its text). cap: symbols a tick at most, while the agent's voice is heard.
    """
    rows = [[token, -1, IGNORE, NEVER] for token in prompt]
    grammar, heard, turns, voice = Grammar(), deque(heard), deque(scene.agent), None
    for tick in range(int(scene.seconds / TICK_S)):
        rows.append([-1, tick, IGNORE, NEVER])
        if turns and turns[0].start <= tick * TICK_S and (voice is None or voice.complete):
            voice = Voice(turns.popleft(), encode, tick)
        for _ in range(most_symbols(grammar, voice, tick, cap)):
            symbol = next_symbol(grammar, heard, voice, tick)
            rows[-1][2] = IGNORE if symbol == IGNORE else symbol
            if symbol in (NEXT, IGNORE):
                break
            if symbol == STOP:
                for row in voice.unsaid(tick):
                    row[3] = len(rows)
                voice = None
            rows.append([symbol, tick, IGNORE, NEVER])
            if voice and grammar.stream == AGENT and symbol not in (USER, END):
                voice.rows.append(rows[-1])
            grammar = advance(grammar, symbol)
    return Sequence(*np.array(rows, np.int64).T)


def lay_out_text(turns: list[dict], prompt: list[int], encode, spell) -> Sequence:
    """A conversation whose ticks are all forgotten: what the agent says is learned, from a tenth of the positions.

    turns: of several dialogues, in a row, each after its note (role "system"), if it has one. encode: text -> list of (token
    id, its text). spell: word -> token ids.
    """
    rows = [(token, IGNORE) for token in prompt]
    for turn in turns:
        if turn["role"] == "system":
            rows += [(token, IGNORE) for token, _ in encode(system_text(turn["text"]))]
        elif turn["role"] == "user":
            said = [p for word in turn["text"].split() for p in spell(word)]
            rows += [
                (token, IGNORE) for token in (USER, *said, ASIDE if turn.get("aside") else USER_END)
            ]
        else:
            said = [token for token, _ in encode(turn["text"])]
            rows += zip((AGENT, *said), (*said, END), strict=True)
            rows.append((END, IGNORE))
    token, label = np.array(rows, np.int64).T
    return Sequence(token, np.zeros_like(token), label, np.full_like(token, NEVER))


def most_symbols(grammar: Grammar, voice, tick: int, cap: int) -> int:
    """How many symbols a tick may have: see `turn_policy.symbol_budget`."""
    if grammar.agent_open:
        is_speaking = tick * TICK_S >= voice.begin
    else:
        is_speaking = voice is not None and voice.lead(tick) > 0
    return symbol_budget(grammar.agent_open, is_speaking, replace(POLICY, symbols_per_tick=cap))


class Voice:
    """The agent's turn being spoken: which tokens are decided, and how much of them has sounded."""

    def __init__(self, turn: AgentTurn, encode, tick: int):
        self.pieces = deque(encode(turn.text))
        self.seconds = [voice_seconds(text) for _, text in self.pieces]
        self.stop, self.cut, self.begin = turn.stop, turn.cut, tick * TICK_S + VOICE_DELAY_SECONDS
        self.rows, self.ended = [], False

    @property
    def complete(self) -> bool:
        return self.ended

    def lead(self, tick: int) -> float:
        """Seconds of decided text that have not sounded yet."""
        return sum(self.seconds[: len(self.rows)]) - max(0.0, tick * TICK_S - self.begin)

    def unsaid(self, tick: int) -> list:
        """Rows of the tokens whose sound had not begun. What was cut out of a recording has sounded, all of it."""
        if self.cut:
            return []
        starts = np.cumsum([0.0, *self.seconds])[: len(self.rows)]
        return [
            row
            for row, start in zip(self.rows, starts, strict=True)
            if start > tick * TICK_S - self.begin
        ]


def next_symbol(grammar: Grammar, heard: deque, voice: Voice | None, tick: int) -> int:
    """What the runtime would want next: hearing first, then yielding, then speaking. IGNORE: it would not ask."""
    if heard and heard[0][0] <= tick:
        return heard.popleft()[1] if grammar.stream == USER else USER
    if voice is None or (voice.ended and voice.stop is None):
        return NEXT
    if voice.stop is not None and tick * TICK_S >= voice.stop:
        if grammar.agent_open or voice.lead(tick) > 0:
            return STOP
        voice.ended = True  # if it had not even begun
        return NEXT
    if voice.ended:
        return NEXT
    if (
        grammar.stream == USER and not grammar.agent_open
    ):  # a turn cannot begin while another speaks
        voice.begin = (tick + 1) * TICK_S + VOICE_DELAY_SECONDS
        return NEXT
    if voice.cut and not voice.pieces:
        return IGNORE
    if voice.lead(tick) > POLICY.lead_s:
        return IGNORE
    if grammar.stream != AGENT:
        return AGENT
    if voice.pieces:
        return voice.pieces.popleft()[0]
    voice.ended = True
    return END


def system_text(text: str) -> str:
    """Instructions or a note, as the agent reads them."""
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def read_dialogues(path: Path, split: str) -> list[dict]:
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [d for d in lines if d["split"] == split]


def heard_symbols(scene: Scene, due: list[list[int]], spell) -> list[tuple[int, int]]:
    """(tick, symbol) of all hearing: `due[i]` the ticks of the pieces of user turn i, spell(word) its token ids."""
    symbols = []
    for turn, ticks in zip(scene.user, due, strict=True):
        pieces = [p for word in turn.words for p in spell(word.text)]
        symbols += zip(ticks, pieces, strict=True)
        symbols.append((ticks[-1] + turn.end_ticks, USER_END if turn.answered else ASIDE))
    return symbols


def follow(scene: Scene, due: list[list[int]], spell) -> None:
    """Move the agent's turns to what is heard: one begins with </user> and yields after the first word that is no back-channel."""
    ticks = {id(turn): found for turn, found in zip(scene.user, due, strict=True)}
    for speech in scene.agent:
        speech.start = (ticks[id(speech.answers)][-1] + speech.answers.end_ticks) * TICK_S
        if speech.stopped_by:
            speech.stop = time_to_yield(speech.stopped_by, ticks[id(speech.stopped_by)], spell)


def time_to_yield(turn: UserTurn, ticks: list[int], spell) -> float:
    """Second in which the first word of an interruption that is no back-channel has been heard; `ticks` are those of its pieces."""
    words = [w.text for w in turn.words for _ in spell(w.text)]
    first = next((word for word in words if word not in TOKENS_OF_ASSENT), words[-1])
    return ticks[words.index(first) + len(spell(first)) - 1] * TICK_S
