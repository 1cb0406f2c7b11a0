"""Scenes out of recorded conversations: words become turns, conversations windows to learn from.

`duplex.training.prepare` makes the folder. A recording has only what was really said, which differs
from a written dialogue in two ways. An agent turn that the user broke off has no unsaid rest: it is
marked `cut`, its text ends at its `stop` and nothing is dropped there. And where the agent's words
are not known at all ("agent" is null), only hearing is learned.
"""

from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from duplex.agent.backchannels import BACKCHANNEL_WORDS
from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.model.asr.spoken_form import spoken_form
from duplex.model.tokens import NEXT, Grammar, advance
from duplex.training.data.pool import Pool
from duplex.training.scenes.scene import (
    VOICE_DELAY_S,
    AgentTurn,
    Scene,
    UserTurn,
    Word,
    end_of_turn,
    late_ticks,
)
from duplex.training.scenes.sequence import IGNORE, Sequence, Spell, time_to_yield

# Seconds of a window at most.
WINDOW_S = 20.0
# Seconds of silence at least before the turn that a window begins with.
MIN_SILENCE_S = 0.2


@dataclass
class Conversation:
    """Times on the recording's clock.

    An agent turn's `start` is when <agent> is due, a little before its first sound.
    """

    seconds: float
    user: list[UserTurn] = field(default_factory=list)
    agent: list[AgentTurn] = field(default_factory=list)
    # From first to last sound of every turn of both speakers, by start.
    spans: list[tuple[float, float]] = field(default_factory=list)


def split_turns(words: list[Word], gap_s: float = 1.0) -> list[list[Word]]:
    """The words of one speaker, parted where two have a silence longer than gap_s between them."""
    turns: list[list[Word]] = []
    for word in words:
        if turns and word.start - turns[-1][-1].end <= gap_s:
            turns[-1].append(word)
        else:
            turns.append([word])
    return turns


def parse_conversation(entry: dict) -> Conversation:
    """Who said what, in answer to what, and who was interrupted; from a prepared index line."""
    heard = [Word(spoken_form(text), start, end) for text, start, end in entry["words"]]
    unknown = entry["agent"] is None  # Whether anybody answered.
    user_words = split_turns([word for word in heard if word.text])
    user = [UserTurn(words, answered=unknown) for words in user_words]
    spoken = split_turns([Word(*word) for word in entry["agent"] or []])
    asking = [turn for turn in user if not is_backchannel(turn, spoken)]
    agent = [parse_agent_turn(words, asking) for words in spoken]
    spans = [(turn.words[0].start, turn.words[-1].end) for turn in user]
    spans += [(words[0].start, words[-1].end) for words in spoken]
    return Conversation(entry["samples"] / SAMPLE_RATE, user, agent, sorted(spans))


def parse_agent_turn(words: list[Word], asking: list[UserTurn]) -> AgentTurn:
    """An agent turn and what it answers: the last question before it, if that has no answer yet.

    asking: the user's turns that are no backchannels. The one answered is marked so.
    """
    turn = AgentTurn(" ".join(word.text for word in words), words[0].start - VOICE_DELAY_S)
    before = [question for question in asking if question.words[0].start < words[0].start]
    if before and not before[-1].answered:
        turn.answers = before[-1]
        turn.answers.answered = True
    turn.stopped_by = next((other for other in asking if is_interruption(other, words)), None)
    if turn.stopped_by:
        turn.stop = words[-1].end
        turn.cut = True
    return turn


def is_backchannel(turn: UserTurn, spoken: list[list[Word]]) -> bool:
    """Nothing but assent while the agent speaks: nobody waits for an answer.

    In a silence "yeah" is an answer of its own.
    """
    begin = turn.words[0].start
    said = {token for word in turn.words for token in word.text.split()}
    over_agent = any(words[0].start < begin < words[-1].end for words in spoken)
    return said <= BACKCHANNEL_WORDS and over_agent


def is_interruption(turn: UserTurn, spoken: list[Word]) -> bool:
    """The user comes in, goes on, and the agent falls silent in mid sentence.

    It does so 0.2 to 1.5 s after the user came in: neither at once nor much later.
    """
    begin = turn.words[0].start
    end = spoken[-1].end
    complete = spoken[-1].text.endswith((".", "?", "!", '."', '?"', '!"'))
    in_mid_sentence = spoken[0].start < begin and not complete
    return in_mid_sentence and 0.2 <= end - begin <= 1.5 and turn.words[-1].end > end


def window_end(conversation: Conversation, start: float, max_end_s: float = 0.9) -> float:
    """The end of the longest window from `start` that holds no part of a user turn.

    What the agent says may go on beyond it, and silence may follow the recording.

    max_end_s: from a turn's last word to its </user> at the latest; less than the gap between two
    turns, so none waits for the one before.
    """
    end = min(start + WINDOW_S, conversation.seconds + max_end_s + TICK_S)
    for turn in reversed(conversation.user):
        if turn.words[0].start < end < turn.words[-1].end + max_end_s:
            end = turn.words[0].start
    return end


def window_starts(conversation: Conversation) -> list[tuple[float, float]]:
    """(earliest, latest) starts of windows that hold a whole user turn.

    They lie in the silence before a user turn, at most a second long, or before the recording's
    first words. A window that began before an answer would teach to speak unasked.
    """
    first = conversation.spans[0][0] if conversation.spans else None
    begins = {turn.words[0].start for turn in conversation.user}
    if first is not None:
        begins.add(first)
    starts = []
    for begin in sorted(begins):
        ends = [end for start, end in conversation.spans if start < begin]
        silent_since = max(ends, default=0.0)
        if begin - silent_since < MIN_SILENCE_S and begin != first:
            continue
        earliest = max(silent_since, begin - 1.0)
        end = window_end(conversation, earliest)
        if any(earliest <= turn.words[0].start < end for turn in conversation.user):
            starts.append((earliest, max(earliest, begin - MIN_SILENCE_S)))
    return starts


def window_scene(conversation: Conversation, start: float) -> Scene:
    """The scene that begins at `start`, on its own clock.

    It holds whole user turns, and the agent turns that sound in it.
    """
    end = window_end(conversation, start)
    user = {
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
            answers=user.get(id(turn.answers)),
            stopped_by=user.get(id(turn.stopped_by)),
            stop=None if turn.stop is None else turn.stop - start,
        )
        for turn in conversation.agent
        if turn.start + VOICE_DELAY_S >= start and turn.start < end
    ]
    return Scene(end - start, list(user.values()), agent)


def end_some_late(scene: Scene, rng: np.random.Generator) -> None:
    """Let some turns end later, as those of dialogues do, but before anything else is said."""
    for turn, following in zip_longest(scene.user, scene.user[1:]):
        limit = following.words[0].start if following else scene.seconds
        room = int((limit - end_of_turn(turn)) / TICK_S) - 1
        turn.end_ticks += max(0, min(room, late_ticks(rng)))


def time_agent_turns_as_recorded(scene: Scene, due: list[list[int]], spell: Spell) -> None:
    """Let the agent begin and yield when it really did, but never before it can have heard why.

    due: for every user turn the ticks of its tokens.
    """
    ticks = {id(turn): found for turn, found in zip(scene.user, due, strict=True)}
    for speech in scene.agent:
        if speech.answers:
            end = (ticks[id(speech.answers)][-1] + speech.answers.end_ticks) * TICK_S
            speech.start = max(speech.start, end)
        if speech.stopped_by:
            heard = time_to_yield(speech.stopped_by, ticks[id(speech.stopped_by)], spell)
            speech.stop = max(speech.stop, heard)


def mask_agent_side(sequence: Sequence) -> Sequence:
    """The sequence where the agent's side is not known.

    A silence outside of the user's turns may have been its answer: nothing is asked there.
    """
    label = sequence.label.copy()
    grammar = Grammar()
    for i, token in enumerate(sequence.token):
        if token >= 0 and sequence.tick[i] >= 0:  # The prompt has tick -1.
            grammar = advance(grammar, int(token))
        if label[i] == NEXT and not grammar.user_open:
            label[i] = IGNORE
    return replace(sequence, label=label)


class Recordings:
    """Windows of the conversations in a prepared folder; `len` is how many places they begin at."""

    def __init__(self, folder: str | Path, split: str):
        self.pool = Pool(folder, split)
        self.conversations = [parse_conversation(entry) for entry in self.pool.entries]
        self.starts = [
            (i, earliest, latest)
            for i, conversation in enumerate(self.conversations)
            for earliest, latest in window_starts(conversation)
        ]

    def __len__(self) -> int:
        return len(self.starts)

    def sample_window(self, rng: np.random.Generator) -> tuple[Scene, np.ndarray, bool]:
        """A random window.

        Returns its scene; the user's channel float32 [T * TICK_SAMPLES]; whether the agent's side
        is known.
        """
        i, earliest, latest = self.starts[rng.integers(len(self.starts))]
        start = float(rng.uniform(earliest, latest))
        scene = window_scene(self.conversations[i], start)
        end_some_late(scene, rng)
        samples = int(scene.seconds / TICK_S) * TICK_SAMPLES
        wave = self.pool.wave(i, int(start * SAMPLE_RATE), samples)
        channel = np.pad(wave, (0, samples - len(wave)))
        return scene, channel, self.pool.entries[i]["agent"] is not None
