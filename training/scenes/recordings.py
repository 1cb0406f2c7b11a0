"""Scenes out of recorded conversations: a prepared folder's words become turns, and its conversations windows to learn from.

`duplex.training.prepare` makes the folder. A recording has only what was really said, which differs from a written dialogue in
two ways. An agent turn that the user broke off has no unsaid rest: it is marked `cut`, its text ends at its `stop` and nothing
is dropped there. And where the agent's words are not known at all ("agent" is null), only hearing is learned.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from duplex.training.data.normalize import heard_form
from duplex.training.data.pool import Pool
from duplex.training.scenes.sequence import (
    IGNORE,
    TOKENS_OF_ASSENT,
    VOICE_DELAY_SECONDS,
    AgentTurn,
    Scene,
    Sequence,
    UserTurn,
    Word,
    time_to_yield,
)

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.model.tokens import NEXT, Grammar, advance

GAP_S = 1.0  # a longer silence between two words of one speaker parts two turns
END_HEARD_S = 0.9  # from a turn's last word to its </user> at the latest; less than GAP_S, so no turn waits for the one before
WINDOW_S = 20.0
SILENCE_S = 0.2  # at least so much of it before the turn that a window begins with
LEAD_IN_S = 1.0  # at most so much of it
REACTION_S, YIELD_S = (
    0.2,
    1.5,
)  # an agent that falls silent so long after the user came in was interrupted
ENDINGS = (".", "?", "!", '."', '?"', '!"')


@dataclass
class Conversation:
    """Times on the recording's clock. An agent turn's `start` is when <agent> is due, a little before its first sound."""

    seconds: float
    user: list[UserTurn] = field(default_factory=list)
    agent: list[AgentTurn] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(
        default_factory=list
    )  # from first to last sound of every turn of both, by start


def turns(words: list[Word]) -> list[list[Word]]:
    """The words of one speaker, parted at the silences."""
    parted: list[list[Word]] = []
    for word in words:
        if parted and word.start - parted[-1][-1].end <= GAP_S:
            parted[-1].append(word)
        else:
            parted.append([word])
    return parted


def understand(entry: dict) -> Conversation:
    """An index line of a prepared folder -> who said what, in answer to what, and who was interrupted."""
    heard = [Word(heard_form(text), start, end) for text, start, end in entry["words"]]
    unknown = entry["agent"] is None  # whether anybody answered
    user = [UserTurn(words, answered=unknown) for words in turns([w for w in heard if w.text])]
    spoken = turns([Word(*word) for word in entry["agent"] or []])
    asking = [turn for turn in user if not back_channel(turn, spoken)]
    agent = []
    for words in spoken:
        start, end = words[0].start, words[-1].end
        turn = AgentTurn(" ".join(w.text for w in words), start - VOICE_DELAY_SECONDS)
        question = next((q for q in reversed(asking) if q.words[0].start < start), None)
        if question and not question.answered:
            turn.answers, question.answered = question, True
        turn.stopped_by = next((u for u in asking if interrupts(u, words)), None)
        if turn.stopped_by:
            turn.stop, turn.cut = end, True
        agent.append(turn)
    spans = sorted((words[0].start, words[-1].end) for words in [*(u.words for u in user), *spoken])
    return Conversation(entry["samples"] / SAMPLE_RATE, user, agent, spans)


def back_channel(turn: UserTurn, spoken: list[list[Word]]) -> bool:
    """Nothing but assent, while the agent speaks: nobody waits for an answer. (In a silence "yeah" is an answer of its own.)"""
    begin = turn.words[0].start
    assent = {token for w in turn.words for token in w.text.split()} <= TOKENS_OF_ASSENT
    return assent and any(words[0].start < begin < words[-1].end for words in spoken)


def interrupts(turn: UserTurn, spoken: list[Word]) -> bool:
    """The user comes in, goes on, and the agent falls silent in mid sentence, neither at once nor much later."""
    begin, end = turn.words[0].start, spoken[-1].end
    in_mid_sentence = spoken[0].start < begin and not spoken[-1].text.endswith(ENDINGS)
    return in_mid_sentence and REACTION_S <= end - begin <= YIELD_S and turn.words[-1].end > end


def window_end(conversation: Conversation, start: float) -> float:
    """The longest window from `start` that holds no part of a user turn; what the agent says may go on beyond it."""
    end = min(
        start + WINDOW_S, conversation.seconds + END_HEARD_S + TICK_S
    )  # silence may follow the recording
    for turn in reversed(conversation.user):
        if turn.words[0].start < end < turn.words[-1].end + END_HEARD_S:
            end = turn.words[0].start
    return end


def window_starts(conversation: Conversation) -> list[tuple[float, float]]:
    """(earliest, latest) starts of windows: in the silence before a user turn, or before the recording's first words.

    A window that began before an answer would teach to speak unasked. Windows without a whole user turn are left out.
    """
    first = conversation.spans[0][0] if conversation.spans else None
    starts = []
    for begin in sorted({turn.words[0].start for turn in conversation.user} | {first} - {None}):
        quiet_since = max((end for start, end in conversation.spans if start < begin), default=0.0)
        if begin - quiet_since < SILENCE_S and begin != first:
            continue
        earliest = max(quiet_since, begin - LEAD_IN_S)
        end = window_end(conversation, earliest)
        if any(earliest <= turn.words[0].start < end for turn in conversation.user):
            starts.append((earliest, max(earliest, begin - SILENCE_S)))
    return starts


def window(conversation: Conversation, start: float) -> Scene:
    """The scene that begins at `start`: whole user turns, and the agent turns that sound in it, on the window's own clock."""
    end = window_end(conversation, start)
    copies = {
        id(turn): replace(
            turn, words=[Word(w.text, w.start - start, w.end - start) for w in turn.words]
        )
        for turn in conversation.user
        if start <= turn.words[0].start < end
    }
    agent = [
        replace(
            turn,
            start=max(0.0, turn.start - start),
            answers=copies.get(id(turn.answers)),
            stopped_by=copies.get(id(turn.stopped_by)),
            stop=None if turn.stop is None else turn.stop - start,
        )
        for turn in conversation.agent
        if turn.start + VOICE_DELAY_SECONDS >= start and turn.start < end
    ]
    return Scene(end - start, list(copies.values()), agent)


def place(scene: Scene, due: list[list[int]], spell) -> None:
    """Let the agent begin and yield when it really did, but never before it can have heard why."""
    ticks = {id(turn): found for turn, found in zip(scene.user, due, strict=True)}
    for speech in scene.agent:
        if speech.answers:
            speech.start = max(
                speech.start, (ticks[id(speech.answers)][-1] + speech.answers.end_ticks) * TICK_S
            )
        if speech.stopped_by:
            speech.stop = max(
                speech.stop, time_to_yield(speech.stopped_by, ticks[id(speech.stopped_by)], spell)
            )


def hearing_only(sequence: Sequence) -> Sequence:
    """Without the agent's side a silence outside of the user's turns may have been its answer: it is not asked there."""
    label, grammar = sequence.label.copy(), Grammar()
    for i, token in enumerate(sequence.token):
        if token >= 0 and sequence.tick[i] >= 0:  # the prompt has tick -1
            grammar = advance(grammar, int(token))
        if label[i] == NEXT and not grammar.user_open:
            label[i] = IGNORE
    return replace(sequence, label=label)


class Recordings:
    """Windows of the conversations in a prepared folder, drawn at random; `len` is how many places they can begin at."""

    def __init__(self, folder: str | Path, split: str):
        self.pool = Pool(folder, split)
        self.conversations = [understand(entry) for entry in self.pool.entries]
        self.starts = [
            (i, *s)
            for i, conversation in enumerate(self.conversations)
            for s in window_starts(conversation)
        ]

    def __len__(self) -> int:
        return len(self.starts)

    def draw(self, rng: np.random.Generator) -> tuple[Scene, np.ndarray, bool]:
        """-> scene, the user's channel float32 [its samples in whole ticks], whether the agent's side is known."""
        i, earliest, latest = self.starts[rng.integers(len(self.starts))]
        start = float(rng.uniform(earliest, latest))
        scene = window(self.conversations[i], start)
        samples = int(scene.seconds / TICK_S) * TICK_SAMPLES
        wave = self.pool.wave(i, int(start * SAMPLE_RATE), samples)
        return (
            scene,
            np.pad(wave, (0, samples - len(wave))),
            self.pool.entries[i]["agent"] is not None,
        )
