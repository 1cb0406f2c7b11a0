"""The people of a session as its client sees them: whose turn it is, their names, whom to heed.

The field `speaker` of an event is a person's id, counted from 1 in the order in which they were
heard. It is left out as long as one voice alone was heard, so for one person nothing changes; a
turn without it was the first person's. What is said in a turn has the label of who speaks then;
the turn itself has that of who spoke longest in it.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from duplex import voice_print
from duplex.agent.hearing import speakers
from duplex.agent.hearing.speakers import SpeakerPolicy, Speakers
from duplex.events import Event

OF_USER = ("user_started", "heard", "corrected", "user_ended")
# "I'm" may also be followed by where somebody is from.
INTRODUCTION = re.compile(
    r"\b(?:[Mm]y name is|[Mm]y name's|[Cc]all me|I'm called|"
    r"(?:I'm|I am)(?! [A-Z]\w*(?:ish|ese|nch|man|ican|alian|ussian|dian)\b))"
    r" ([A-Z][a-z]+)\b"
)


@dataclass
class People:
    """Who is heard in one session, and in which turn."""

    speakers: Speakers = field(default_factory=Speakers)
    # Whom the agent heeds: "anyone", "first" or "enrolled".
    heeds: str = "anyone"
    # Ticks of speech by person since the user's last turn ended, but those of the open segment.
    spoken: dict[int | None, int] = field(default_factory=dict)
    # The sum of what was said since then [V], ticks of it, and of silence since.
    said: np.ndarray | float = 0.0
    said_ticks: int = 0
    silence_ticks: int = 0
    # Whether that is the one who is heeded, if that can be told.
    is_heeded: bool | None = None
    # Whose each turn of the user was, as far as was told; None: it was not.
    turns: list[int | None] = field(default_factory=list)
    # How many people had been joined to others when the turns were last looked at.
    joined: int = 0
    is_turn_open: bool = False
    names: dict[int, str] = field(default_factory=dict)
    # The id of the enrolled one.
    enrolled: int | None = None
    # The sum of the voice that is being enrolled [V], and ticks of it.
    enrolling: np.ndarray | float | None = None
    enrolling_ticks: int = 0


def hear(
    people: People, vector: np.ndarray, is_speech: bool, has_words: bool, policy: SpeakerPolicy
) -> None:
    """Take in a tick: see speakers.hear."""
    ended = speakers.hear(people.speakers, vector, is_speech, has_words, policy)
    if ended is not None:
        people.spoken[ended.person] = people.spoken.get(ended.person, 0) + ended.ticks
    people.silence_ticks = 0 if is_speech else people.silence_ticks + 1
    if people.silence_ticks > policy.forget_voice_ticks and not people.is_turn_open:
        forget_voice(people)
    if is_speech:
        people.said = people.said + vector
        people.said_ticks += 1
        people.is_heeded = recognise(people, policy)
    if people.enrolling is not None and is_speech:
        people.enrolling = people.enrolling + vector
        people.enrolling_ticks += 1


def forget_voice(people: People) -> None:
    """What is said from now on belongs to another turn."""
    people.said = 0.0
    people.said_ticks = 0
    people.is_heeded = None


def recognise(people: People, policy: SpeakerPolicy) -> bool | None:
    """Whether this turn's voice is that of the one who is heeded; None: too early to tell.

    Of who is heeded because he speaks first there is nothing to hold his first words against.
    """
    person = speakers.find(people.speakers, heeded(people))
    if person is None or not person.ticks or people.said_ticks < policy.heed_ticks:
        return None
    return speakers.cosine(person.voice, people.said) >= policy.heed_cosine


def speaking(people: People) -> int | None:
    """Who speaks in this tick; None in silence, and where it is not known."""
    segment = people.speakers.segment
    is_silent = segment.silence_ticks or not segment.ticks
    return None if is_silent else speakers.current_id(people.speakers, segment.person)


def now_speaking(people: People) -> int | None:
    """Who speaks, or spoke last in this turn; None where that is not known."""
    person = people.speakers.segment.person
    return turn_speaker(people) if person is None else person


def turn_speaker(people: People) -> int | None:
    """Who has spoken longest since the last turn ended."""
    segment = people.speakers.segment
    ticks: dict[int, int] = {}
    for person, count in [*people.spoken.items(), (segment.person, segment.ticks)]:
        person = speakers.current_id(people.speakers, person)
        if person is not None:
            ticks[person] = ticks.get(person, 0) + count
    return max(ticks, key=ticks.get) if ticks else None


def are_several(people: People) -> bool:
    """Whether more than one voice was heard."""
    return len(people.speakers.people) > 1


def tell(people: People, events: list[Event], tick: int, policy: SpeakerPolicy) -> None:
    """Say in a tick's events whose voice it is, and who is enrolled by now."""
    mark(people, events, tick, policy)
    events += finish_enrolling(people, tick, policy)


def mark(people: People, events: list[Event], tick: int, policy: SpeakerPolicy) -> None:
    """Say in the user's events of a tick who it is; add those that correct what was said before."""
    for event in list(events):
        if not isinstance(event, Event) or event.kind not in OF_USER:
            continue
        if event.kind == "user_started":
            people.turns.append(None)
            people.is_turn_open = True
        if are_several(people):
            is_piece = event.kind == "heard"
            event.speaker = now_speaking(people) if is_piece else turn_speaker(people)
        if event.kind == "user_ended":
            events += correct(people, tick)
            people.is_turn_open = False
            people.spoken = {}
            forget_voice(people)
            if people.speakers.segment.silence_ticks:  # it was of this turn, all of it
                speakers.end_segment(people.speakers, policy)
    events += correct(people, tick)


def correct(people: People, tick: int) -> list[Event]:
    """Events for the turns that turn out to be somebody else's than was told."""
    found = []
    # Of turns that are over nothing changes unless people turn out to be one.
    joined = len(people.speakers.joined)
    first = 0 if joined != people.joined else max(0, len(people.turns) - 1)
    people.joined = joined
    for turn, told in enumerate(people.turns[first:], first):
        is_open = people.is_turn_open and turn == len(people.turns) - 1
        now = turn_speaker(people) if is_open else speakers.current_id(people.speakers, told)
        if now == told or now is None:
            continue
        people.turns[turn] = now
        # Without a label a turn is the first person's.
        if told is not None:
            found.append(Event("speaker_corrected", tick, speaker=now, turn=turn))
    return found


def introduced_name(text: str) -> str | None:
    """The name that somebody says is his own."""
    found = INTRODUCTION.search(text)
    return found[1] if found else None


def learn_name(people: People, text: str, tick: int) -> list[Event]:
    """Whoever has just said what his name is has it from now on."""
    name = introduced_name(text)
    person = turn_speaker(people)
    if name is None or person is None or people.names.get(person) == name:
        return []
    people.names[person] = name
    return [Event("speaker_named", tick, name, speaker=person)]


def attributed(people: People, text: str) -> str:
    """A turn's words as a large mind reads them: of several people, each is named."""
    person = turn_speaker(people)
    if not text or person is None or not are_several(people):
        return text
    return f"{people.names.get(person, f'Speaker {person}')}: {text}"


def give_name(people: People, speaker: int, name: str) -> None:
    """The client's name for a speaker. Raises ValueError where there is no such speaker."""
    if not 1 <= speaker <= people.speakers.count:
        raise ValueError(f"nobody was heard as speaker {speaker}")
    people.names[speakers.current_id(people.speakers, speaker)] = name


def heed(people: People, whom: str, voice: np.ndarray | None, policy: SpeakerPolicy) -> None:
    """Heed "anyone", the "first" who speaks, or the "enrolled" one, whose voice [V] may be given.

    Raises ValueError where nobody is enrolled.
    """
    if voice is not None:
        people.enrolled = speakers.introduce(people.speakers, voice, policy)
    if whom == "enrolled" and people.enrolled is None:
        raise ValueError("nobody is enrolled; give a voice_print, or let somebody enroll first")
    people.heeds = whom


def read_print(text: str, width: int) -> np.ndarray:
    """The voice [V] of a voice print. Raises ValueError where it is none of this agent's."""
    voice = voice_print.decode(text)
    if len(voice) != width:
        raise ValueError("this voice print was made by another agent; enroll once more")
    return voice


def enroll(people: People) -> None:
    """Listen to the voice of who is to be enrolled."""
    people.enrolling = 0.0
    people.enrolling_ticks = 0


def finish_enrolling(people: People, tick: int, policy: SpeakerPolicy) -> list[Event]:
    """The event with the voice print, once enough was said."""
    if people.enrolling is None or people.enrolling_ticks < policy.enroll_ticks:
        return []
    voice = speakers.direction(people.enrolling)
    people.enrolling = None
    people.enrolled = speakers.introduce(people.speakers, voice, policy)
    return [Event("speaker_enrolled", tick, voice_print.encode(voice), speaker=people.enrolled)]


def heeded(people: People) -> int | None:
    """The person whom alone the agent heeds; None: anyone, or nobody has spoken yet."""
    if people.heeds == "anyone" or not people.speakers.people:
        return None
    chosen = people.speakers.people[0].id if people.heeds == "first" else people.enrolled
    return speakers.current_id(people.speakers, chosen)


def awaits_speaker(people: People) -> bool:
    """Whether it matters who speaks now, and is not known yet."""
    if people.heeds == "anyone":
        return False
    person = speakers.find(people.speakers, heeded(people))
    return person is not None and person.ticks > 0 and people.is_heeded is None


def is_unheeded(people: People) -> bool:
    """Whether who speaks is somebody whom the agent does not heed."""
    return people.is_heeded is False
