"""Who speaks: the speaker head's vectors of one session, gathered to people as they come.

A segment is what one person says at a stretch: a pause ends it, and so does another voice. Its
vector, the sum of its ticks, is compared with those of the people so far; whoever is like nobody is
somebody new, if words were recognised. A label is given as soon as enough was said, and looked at
again as more is: until the segment ends it may change. When it ends, people who turn out to be one
are joined.

Functions of a state and a policy; nothing here knows of turns, words or the agent's voice.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SpeakerPolicy:
    """Every constant of telling voices apart; TURN_TAKING.md says where each was measured."""

    max_people: int = 4
    label_ticks: int = 6
    new_ticks: int = 14
    same_cosine: float = 0.35
    join_cosine: float = 0.6
    segment_gap_ticks: int = 3
    change_ticks: int = 10
    change_cosine: float = 0.0
    max_segment_ticks: int = 50
    enroll_ticks: int = 62
    heed_cosine: float = 0.42
    heed_ticks: int = 10
    forget_voice_ticks: int = 12


@dataclass
class Person:
    """Somebody of this session."""

    id: int
    # [V] the sum of the segments' directions, each times its ticks.
    voice: np.ndarray | float = 0.0
    # Of speech that the voice is known from; 0 until the first segment has ended.
    ticks: int = 0


@dataclass
class SpeechSegment:
    """What somebody says at a stretch."""

    total: np.ndarray | float = 0.0  # [V]
    ticks: int = 0
    # The vectors of the last ticks of speech.
    recent: list[np.ndarray] = field(default_factory=list)
    silence_ticks: int = 0
    # Who says it, as far as is known.
    person: int | None = None
    # Whether words were recognised in it.
    has_words: bool = False


@dataclass
class Speakers:
    """The people of one session, and the segment that goes on."""

    people: list[Person] = field(default_factory=list)
    segment: SpeechSegment = field(default_factory=SpeechSegment)
    # Who was found to be somebody else: old id -> id.
    joined: dict[int, int] = field(default_factory=dict)
    # The highest id so far.
    count: int = 0


def hear(
    state: Speakers,
    vector: np.ndarray,
    is_speech: bool,
    has_words: bool,
    policy: SpeakerPolicy,
) -> SpeechSegment | None:
    """Take in a tick: its vector [V], whether somebody speaks in it, and whether there are words.

    Returns the segment that it ended, if it ended one.
    """
    segment = state.segment
    segment.has_words |= has_words
    if not is_speech:
        segment.silence_ticks += 1
        is_over = segment.silence_ticks >= policy.segment_gap_ticks
        label(state, policy)
        return end_segment(state, policy) if segment.ticks and is_over else None
    segment.silence_ticks = 0
    segment.total = segment.total + vector
    segment.ticks += 1
    segment.recent = [*segment.recent, vector][-policy.change_ticks :]
    ended = split_segment(state, policy) if is_other_voice(segment, policy) else None
    label(state, policy)
    return ended


def split_segment(state: Speakers, policy: SpeakerPolicy) -> SpeechSegment:
    """Another voice has begun without a pause: the last ticks are a segment of their own."""
    segment = state.segment
    recent = segment.recent
    segment.total = segment.total - sum(recent)
    segment.ticks -= len(recent)
    ended = end_segment(state, policy)
    state.segment = SpeechSegment(sum(recent), len(recent), recent, has_words=ended.has_words)
    return ended


def end_segment(state: Speakers, policy: SpeakerPolicy) -> SpeechSegment:
    """What was said at this stretch is over; who said it is known better from now on."""
    segment = state.segment
    state.segment = SpeechSegment()
    person = find(state, segment.person)
    if person is not None:
        weight = min(segment.ticks, policy.max_segment_ticks)
        person.voice = person.voice + weight * direction(segment.total)
        person.ticks += weight
        join_people(state, policy)
    return segment


def label(state: Speakers, policy: SpeakerPolicy) -> None:
    """Say who speaks in the segment that goes on, as far as can be told."""
    segment = state.segment
    if segment.ticks < policy.label_ticks:
        return
    known = [person for person in state.people if person.ticks]
    likeness = [cosine(person.voice, segment.total) for person in known]
    best = int(np.argmax(likeness)) if known else None
    if best is not None and likeness[best] >= policy.same_cosine:
        choose(state, known[best].id)
    elif not segment.has_words:
        return  # a noise, a television, an echo: nobody
    elif known and len(known) >= policy.max_people:
        choose(state, known[best].id)
    elif segment.ticks >= policy.new_ticks or not known:
        choose(state, None)


def choose(state: Speakers, person: int | None) -> None:
    """The segment is this person's; None: somebody's who was not heard before."""
    fresh = next((somebody for somebody in state.people if not somebody.ticks), None)
    if person is None and fresh is None:
        state.count += 1
        fresh = Person(state.count)
        state.people.append(fresh)
    elif person is not None and fresh is not None:  # who was taken for new is not
        state.people.remove(fresh)
        state.count -= 1
    state.segment.person = fresh.id if person is None else person


def is_other_voice(segment: SpeechSegment, policy: SpeakerPolicy) -> bool:
    """Whether the last ticks are unlike what came before them without a pause."""
    if segment.ticks - len(segment.recent) < policy.change_ticks:
        return False
    recent = sum(segment.recent)
    return cosine(segment.total - recent, recent) < policy.change_cosine


def join_people(state: Speakers, policy: SpeakerPolicy) -> None:
    """Make one of two people whose voices are alike by now: who was heard first."""
    known = [person for person in state.people if person.ticks]
    for i, first in enumerate(known):
        for second in known[i + 1 :]:
            if cosine(first.voice, second.voice) >= policy.join_cosine:
                first.voice = first.voice + second.voice
                first.ticks += second.ticks
                state.people.remove(second)
                state.joined[second.id] = first.id
                return


def introduce(state: Speakers, voice: np.ndarray, policy: SpeakerPolicy) -> int:
    """Make a voice [V] known before it is heard here, or know it better; returns whose it is."""
    known = [person for person in state.people if person.ticks]
    alike = max(known, key=lambda person: cosine(person.voice, voice), default=None)
    if alike is None or cosine(alike.voice, voice) < policy.same_cosine:
        state.count += 1
        alike = Person(state.count)
        state.people.append(alike)
    alike.voice = alike.voice + policy.enroll_ticks * direction(voice)
    alike.ticks += policy.enroll_ticks
    return alike.id


def current_id(state: Speakers, person: int | None) -> int | None:
    """The id that stands now for one that was given before."""
    while person in state.joined:
        person = state.joined[person]
    return person


def find(state: Speakers, person: int | None) -> Person | None:
    """Who has this id."""
    return next((somebody for somebody in state.people if somebody.id == person), None)


def direction(vector: np.ndarray) -> np.ndarray:
    """The vector [V] at length 1."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """How alike two voices are: 1 the same, about 0 different ones."""
    return float(direction(first) @ direction(second))
