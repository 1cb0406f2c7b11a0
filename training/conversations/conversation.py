"""One recorded conversation: its two sides with times, and whether they fit its two channels."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from duplex.model.asr.encoder import Encoder
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.conversations.hearing import Ears, heard_side, share_of_sound
from duplex.training.conversations.labels import (
    AGENT_LABELS,
    USER_LABELS,
    Item,
    Told,
    Unusable,
    find_file,
    read_told,
)
from duplex.training.conversations.sound import Channel, convert, is_silent, likeness
from duplex.training.conversations.timing import Side, mean_fit, timed_side

# Correlation from which on two channels are copies of one.
SAME_SOUND = 0.95


@dataclass(frozen=True)
class Listener:
    """What conversations are prepared with."""

    encoder: Encoder
    ears: Ears
    # Nats a phone below which a text is not what is said. English sentences of four sources have
    # -0.1 to -1.4, one of 43 -2.0; German ones with their own text -2.5 to -3.2 (14), said by
    # espeak-ng -2.2; another text, or the other channel, -4.3 to -6.9.
    min_fit: float = -1.8
    # How much better what the first pass alone hears must fit: English -0.3 to -0.9, German -1.6.
    heard_margin: float = 0.6
    # Nats a token below which Whisper has not understood. Its mean over a minute and a half is -0.2
    # to -0.6 of telephone calls, of native readers and of Mandarin accents (6), -0.9 and -1.0 of
    # German; of others -0.1 to -0.4 (6), of German -1.0, of made-up Spanish and French -0.8. How
    # its words fit the sound would not tell: of the calls -1.4 to -2.3, of German -1.9.
    min_log_prob: float = -0.72
    # The agent's label, if it is none of AGENT_LABELS.
    agent_label: str | None = None


@dataclass
class Conversation:
    """A recording that can be learned from."""

    samples: np.ndarray  # int16 [N, 2], mapped: the agent, the user.
    user: Side
    agent: Side | None  # None: what the agent says is not known.
    notes: list[str] = field(default_factory=list)


def read_conversation(path: Path, listener: Listener, scratch: Path) -> Conversation:
    """A recording with its labels. Raises Unusable.

    scratch: a file for its sound, which stays until the conversation is written.
    """
    found = find_file(path)
    if found is None:
        raise Unusable("there is no such file")
    told = read_told(found)
    samples = convert(found, scratch)
    if is_silent(samples[:, 1]):
        raise Unusable("has no sound of the user in its right channel")
    if likeness(samples) > SAME_SOUND:
        raise Unusable(
            "has the same sound in both channels: it needs the agent's alone left, the user's right"
        )
    agent, user = (Channel(samples[:, side], listener.encoder) for side in (0, 1))
    items = by_side(told, agent, user, listener)
    hear = partial(heard_side, listener.ears)
    conversation = Conversation(samples, Side(), None, told.notes)
    try:
        conversation.user = user_side(told, items["user"], user, hear)
        conversation.agent = agent_side(told, items["agent"], agent, hear)
    except Unusable as error:
        check_swapped(told, items, (agent, user), listener.min_fit)
        raise Unusable(f"{told.name}: {error}") from None
    check_heard(conversation, listener)
    check_fit(told, conversation, (agent, user), listener)
    for side in (conversation.user, conversation.agent):
        conversation.notes += side.notes if side else []
    return conversation


def user_side(told: Told, items: list[Item], channel: Channel, hear: Callable) -> Side:
    """What the user says: as labelled, or else as it is heard. Raises Unusable."""
    if not items and told.text:
        items = [(told.text, None, "")]
    if items:
        side = timed_side(items, channel, lambda channel: hear(channel).words)
    else:
        side = hear(channel)
        side.notes.append("the user's words are those that the agent's ears hear")
    if not any(spoken_form(word) for word, _, _ in side.words):
        raise Unusable("no word of the user is found")
    return side


def agent_side(told: Told, items: list[Item], channel: Channel, hear: Callable) -> Side | None:
    """What the agent says; None where only the user's text is told. Raises Unusable."""
    if items:
        return timed_side(items, channel, lambda channel: hear(channel).words)
    if told.text or is_silent(channel.samples):
        return None
    side = hear(channel)
    side.notes.append("the agent's words are those that its ears hear")
    return side if side.words else None


def by_side(told: Told, agent: Channel, user: Channel, listener: Listener) -> dict[str, list[Item]]:
    """The items of both sides. Labels that name no side belong to the channel that they sound in.

    Raises Unusable.
    """
    labels = list(dict.fromkeys(speaker for _, _, speaker in told.items))
    known = {listener.agent_label.lower()} if listener.agent_label else AGENT_LABELS
    is_named = any(label.lower() in known for label in labels)
    if listener.agent_label and labels and not is_named:
        raise Unusable(
            f"{told.name} has no word of {listener.agent_label}: its labels are {', '.join(labels)}"
        )
    found: dict[str, list[Item]] = {"agent": [], "user": []}
    for label in labels:
        items = [item for item in told.items if item[2] == label]
        if label.lower() in known:
            found["agent"] += items
        elif is_named or label.lower() in USER_LABELS:
            found["user"] += items
        elif label:
            side = side_of(items, agent, user)
            found[side] += items
            told.notes.append(f"{label} is the {side}, by its sound")
        else:
            for item in items:
                found[side_of([item], agent, user)].append(item)
            told.notes.append("what has no label is put to the side that it sounds on")
    return found


def side_of(items: list[Item], agent: Channel, user: Channel) -> str:
    """The channel in which a speaker's words sound: "agent" or "user"."""
    spans = [(times[0], times[1]) for _, times, _ in items if times]
    if len(spans) == len(items):
        shares = [share_of_sound(channel, spans) for channel in (agent, user)]
        return "agent" if shares[0] > shares[1] else "user"
    fits = [fit_of(items, channel) for channel in (agent, user)]
    return "agent" if fits[0] > fits[1] else "user"


def fit_of(items: list[Item], channel: Channel) -> float:
    """Nats a phone by which the items fit a channel; -inf where they do not at all."""
    try:
        found = timed_side(items, channel).fit
    except Unusable:
        found = None
    return -float("inf") if found is None else found


def check_heard(found: Conversation, listener: Listener) -> None:
    """Raise Unusable where the ears have not understood what they hear."""
    for name, side in (("agent", found.agent), ("user", found.user)):
        if side is None or not side.is_heard:
            continue
        if side.log_prob is not None:
            if side.log_prob < listener.min_log_prob:
                raise Unusable(
                    f"the agent's ears do not understand the {name} ({side.log_prob:.1f} nats a "
                    f"token, {listener.min_log_prob:.1f} at least), and no text says what is said: "
                    "is it English?"
                )
            continue
        least = listener.min_fit + listener.heard_margin
        if side.fit is not None and side.fit < least:
            raise Unusable(
                f"what the agent's ears hear of the {name} does not fit its sound ({side.fit:.1f} "
                f"nats a phone, {least:.1f} at least): is it English?"
            )


def check_fit(told: Told, found: Conversation, channels: tuple, listener: Listener) -> None:
    """Raise Unusable where a side does not fit its channel, which says what may be wrong.

    What is heard by telephone fits badly, however right: there it counts that Whisper reads it.
    """
    agent, user = channels
    min_fit = listener.min_fit
    sides = [("agent", found.agent, agent, user), ("user", found.user, user, agent)]
    for name, side, own, other in sides:
        if side is None or side.is_heard or side.fit is None or side.fit >= min_fit:
            continue
        if is_read(side, own, listener.ears):
            continue
        place = {"agent": "left", "user": "right"}
        elsewhere = "user" if name == "agent" else "agent"
        fits_other = (mean_fit(side.words, other) or min_fit) > min_fit
        if fits_other or swapped(found, channels, min_fit) or is_read(side, other, listener.ears):
            raise Unusable(
                f"{told.name}: the {name}'s words fit the {place[elsewhere]} channel and not the "
                f"{place[name]} one: are the channels swapped?"
            )
        if is_silent(own.samples):
            raise Unusable(f"{told.name} has words of the {name}, whose channel is silent")
        raise Unusable(
            f"{told.name}: the {name}'s words do not fit what is said in the {place[name]} channel "
            f"({side.fit:.1f} nats a phone, {min_fit:.1f} at least): are the text or its times "
            "another one's, or is it not English?"
        )


def is_read(side: Side, channel: Channel, ears: Ears) -> bool:
    """Whether Whisper, if there is one, reads half of these words in the channel, in order."""
    if ears.whisper is None:
        return False
    told = spoken_form(" ".join(word for word, _, _ in side.words)).split()
    heard = spoken_form(" ".join(word for word, _, _ in heard_side(ears, channel).words)).split()
    blocks = difflib.SequenceMatcher(None, told, heard, autojunk=False).get_matching_blocks()
    return 2 * sum(block.size for block in blocks) >= len(told)


def swapped(found: Conversation, channels: tuple, min_fit: float) -> bool:
    """Whether both sides' words, wherever they were put, fit the other channel."""
    pairs = ((found.agent, channels[1]), (found.user, channels[0]))
    texts = [(side.words, channel) for side, channel in pairs if side and side.words]
    items = [([(" ".join(w for w, _, _ in words), None, "")], channel) for words, channel in texts]
    return all(fit_of(said, channel) > min_fit for said, channel in items)


def check_swapped(told: Told, items: dict, channels: tuple, min_fit: float) -> None:
    """Raise Unusable where the items of both sides fit each other's channel."""
    pairs = [(items["agent"], channels[1]), (items["user"], channels[0])]
    given = [(said, channel) for said, channel in pairs if said]
    if given and all(fit_of(said, channel) > min_fit for said, channel in given):
        raise Unusable(f"{told.name}: each side's words fit the other's channel: are they swapped?")
