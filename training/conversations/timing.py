"""When each word of one speaker is said: its own times, mended, or those of forced alignment."""

import difflib
from dataclasses import dataclass, field

from duplex.model.asr.spoken_form import spoken_form
from duplex.training.conversations.labels import Item, Unusable
from duplex.training.conversations.sound import Channel
from duplex.training.data.forced_alignment import align_words, fit

# Seconds by which the encoder's spikes may come after the sound.
LATE_S = 0.5
# Seconds of sound that are aligned in one piece: the table grows with the square.
LONGEST_S = 240.0


@dataclass
class Side:
    """What one speaker says: words [[word, start, end], ...] in order, and how sure that is."""

    words: list[list] = field(default_factory=list)
    # Nats a phone by which the words fit their channel; None: nothing is said.
    fit: float | None = None
    notes: list[str] = field(default_factory=list)
    # Whether the words are those that the agent's ears hear: nobody has told them.
    is_heard: bool = False
    # Of those: by how many nats a token Whisper is sure of them; None: it has not read them.
    log_prob: float | None = None


def timed_side(items: list[Item], channel: Channel, hear=None) -> Side:
    """The words of the items with their times.

    hear(channel) -> words as the agent hears them: those of a long recording whose labels have no
    times are found by them. Raises Unusable where the labels cannot be of this recording.
    """
    if any(times is None for _, times, _ in items):
        text = " ".join(text for text, _, _ in items)
        return untimed_side(text, channel, hear)
    side = Side()
    kept = mend_times(items, channel.seconds, side)
    too_much = 0
    for text, (start, end), _ in kept:
        if len(text.split()) == 1:
            side.words.append([text, start, end])
            continue
        frames = channel.frames(start, end + LATE_S)
        try:
            found = align_words(frames, text, end - start)
        except ValueError:
            too_much += 1
            continue
        side.words += [
            [word, round(start + first, 3), round(start + last, 3)] for word, first, last in found
        ]
    if 5 * too_much > len(kept):
        raise Unusable(f"{too_much} of {len(kept)} turns do not fit into their times")
    if too_much:
        side.notes.append(f"{too_much} turns do not fit into their times and are left out")
    side.words.sort(key=lambda word: word[1])
    side.fit = mean_fit(side.words, channel)
    return side


def mend_times(items: list[Item], seconds: float, side: Side) -> list[Item]:
    """The items in order, inside the recording; what was mended is noted. Raises Unusable."""
    inside = [item for item in items if item[1][0] < seconds and item[1][1] <= seconds + 1.0]
    beyond = len(items) - len(inside)
    if 5 * beyond > len(items):
        text, times, _ = next(item for item in items if item not in inside)
        raise Unusable(
            f'"{text}" ends at {times[1]:.2f} s, beyond the end of the recording at '
            f"{seconds:.2f} s, as do {beyond - 1} others: is it whole, are times in seconds?"
        )
    if beyond:
        side.notes.append(f"{beyond} words beyond the end are left out")
    ordered = sorted(inside, key=lambda item: item[1][0])
    moved = sum(a is not b for a, b in zip(inside, ordered, strict=True))
    if moved:
        side.notes.append(f"{moved} words were out of order")
    found = []
    before = 0.0
    for text, (start, end), speaker in ordered:
        start = max(0.0, before if before - 0.3 < start < before else start)
        end = min(max(end, start + 0.02), seconds)
        found.append((text, [start, end], speaker))
        before = end if len(text.split()) == 1 else start
    return found


def untimed_side(text: str, channel: Channel, hear=None) -> Side:
    """The words of a text with the times of forced alignment. Raises Unusable."""
    side = Side()
    parts = [(text, 0.0, channel.seconds)]
    if channel.seconds > LONGEST_S:
        if hear is None:
            raise Unusable(
                f"is {channel.seconds:.0f} s long; beyond {LONGEST_S:.0f} s every turn needs its "
                "[start, end]"
            )
        parts = parts_between_anchors(text.split(), hear(channel), channel.seconds)
    for part, start, end in parts:
        try:
            found = align_words(channel.frames(start, end + LATE_S), part, end - start)
        except ValueError as error:
            raise Unusable(f"the text is not of this recording: {error}") from None
        side.words += [[w, round(start + a, 3), round(start + b, 3)] for w, a, b in found]
    side.fit = mean_fit(side.words, channel)
    return side


def parts_between_anchors(
    words: list[str], heard: list[list], seconds: float, apart_s: float = 60.0
) -> list[tuple[str, float, float]]:
    """A long text in parts (text, start, end), cut where it was heard as it is written.

    heard: [[word, start, end], ...]. Between two cuts lie about apart_s. Raises Unusable where too
    little of the text was heard to find them.
    """
    own = [spoken_form(word) for word in words]
    others = [spoken_form(word) for word, _, _ in heard]
    matcher = difflib.SequenceMatcher(None, own, others, autojunk=False)
    parts = []
    first = 0
    begin = 0.0
    for own_at, other_at, size in matcher.get_matching_blocks():
        for k in range(1, size):
            # Between two neighbours that were both heard.
            end_s = heard[other_at + k - 1][2]
            cut_s = (end_s + heard[other_at + k][1]) / 2
            if size >= 3 and cut_s - begin > apart_s and own_at + k > first:
                parts.append((" ".join(words[first : own_at + k]), begin, cut_s))
                first = own_at + k
                begin = cut_s
    if words[first:]:
        parts.append((" ".join(words[first:]), begin, seconds))
    if any(end - start > LONGEST_S and text for text, start, end in parts):
        raise Unusable("the text was not heard in this recording: is it another one's?")
    return parts


def mean_fit(words: list[list], channel: Channel, gap_s: float = 1.0) -> float | None:
    """Nats a phone by which the words fit the channel where they are; None without words."""
    stretches: list[list[list]] = []
    for word in words:
        if stretches and word[1] - stretches[-1][-1][2] <= gap_s and len(stretches[-1]) < 30:
            stretches[-1].append(word)
        else:
            stretches.append([word])
    total = 0.0
    count = 0
    for stretch in stretches:
        text = " ".join(word for word, _, _ in stretch)
        letters = sum(map(str.isalnum, text))
        frames = channel.frames(stretch[0][1] - 0.1, stretch[-1][2] + LATE_S + 0.1)
        # What is too long for its time fits as badly as can be.
        total += letters * max(fit(frames, text), -12.0)
        count += letters
    return round(total / count, 2) if count else None
