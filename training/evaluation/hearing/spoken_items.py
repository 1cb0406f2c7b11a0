"""What must be heard letter by letter, and short: digits, spelled names, addresses, single words.

Said by voices of Kokoro that no training hears (HELD_OUT_KOKORO). Kokoro's other voices are trained
on, so it is a known source with unseen voices.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from duplex import weights
from duplex.training.data.synthesizers import KOKORO, Kokoro, held_out_voices
from duplex.training.evaluation.hearing.clip_sets import LEAD_TICKS, Clip, ClipSet, disturbed
from duplex.training.evaluation.hearing.disturbances import in_far_field, with_gaps
from duplex.training.evaluation.minds.facts import questions
from duplex.training.evaluation.spoken import SpokenTexts

# The name of the source, as in a pool's index.
SOURCE = "kokoro"
DIGIT_WORDS = "oh one two three four five six seven eight nine".split()
NAMES = (
    "Smith Garcia Nguyen Kowalski Patel Johnson Fischer Okafor Tanaka Rossi Murphy Haddad Jensen "
    "Silva Wright Becker Novak Quinn Zimmer Douglas Vaughan Jackson Fox Yates"
).split()
WORDS = (
    "yes no stop hello why what okay wait thanks help please sorry maybe sure right left hi bye "
    "goodbye again more less when where who how never always continue cancel repeat louder "
    "seven ten Monday Friday today tomorrow morning tonight up down open close start pause "
    "next back good great really nothing everything someone music weather"
).split()


def digit_strings(count: int, rng: np.random.Generator) -> list[str]:
    """Phone numbers and codes of 4 to 7 digits, said one by one: "four two oh nine, one".

    The first one is what people ran into, word for word; so it is of names and addresses.
    """
    found = ["oh seven four three two, one two three four five six"]
    while len(found) < count:
        said = [DIGIT_WORDS[digit] for digit in rng.integers(10, size=rng.integers(4, 8))]
        found.append(" ".join(said[:3]) + ", " + " ".join(said[3:]))
    return found[:count]


def spelled(count: int, rng: np.random.Generator) -> list[str]:
    """Names letter by letter, and every third a code of letters and digits."""
    found = ["A, B, as in Bravo, seven, K."]
    while len(found) < count:
        if len(found) % 3:
            letters = NAMES[len(found) * 2 // 3 % len(NAMES)].upper()
        else:
            letters = [chr(65 + letter) for letter in rng.integers(26, size=5)]
            letters[2:4] = [DIGIT_WORDS[digit] for digit in rng.integers(1, 10, size=2)]
        found.append(", ".join(letters) + ".")
    return found[:count]


def addresses(count: int, rng: np.random.Generator) -> list[str]:
    """E-mail addresses as they are said."""
    names = (
        "john mary peter laura james anna david sarah robert linda thomas julia kevin emma martin "
        "alice george helen simon nancy"
    ).split()
    domains = ("example dot com", "example dot org", "gmail dot com", "outlook dot com")
    domains += ("company dot net",)
    found = ["john dot smith at example dot com"]
    while len(found) < count:
        first = names[len(found) % len(names)]
        last = NAMES[rng.integers(len(NAMES))].lower()
        middle = " dot " if len(found) % 3 else " "
        found.append(f"{first}{middle}{last} at {domains[len(found) % len(domains)]}")
    return found[:count]


def spoken_sets(folder: Path, vectors: Path | None, count: int, seed: int) -> list[ClipSet]:
    """A set for each kind of item, at most `count` items of each.

    folder: where the sounds are kept; vectors: Kokoro's voices, see `held_out_voices`.
    """
    rng = np.random.default_rng(seed)
    asked = [row["question"] for row in questions(min(count, 100))]
    texts = {
        "digits": digit_strings(count, rng),
        "spelled": spelled(count, rng),
        "e-mail addresses": addresses(count, rng),
        "single words": [f"{word.capitalize()}." for word in WORDS[:count]],
        "questions": asked,
    }
    spoken = SpokenTexts(folder, lambda: open_held_out(vectors))
    kind = "all" if vectors else "ja"  # not the same voices under the same name

    def load(texts: list[str]) -> Callable[[], list[Clip]]:
        return lambda: [say(spoken, kind, number, text) for number, text in enumerate(texts)]

    sets = [ClipSet(name, SOURCE, load(said), LEAD_TICKS) for name, said in texts.items()]
    rooms = disturbed(load(asked), in_far_field, seed)
    # Nothing before the first word: a session begins with it.
    return [
        *sets[:-1],
        ClipSet("questions, far field", SOURCE, rooms),
        ClipSet("questions, 100 ms lost a second", SOURCE, disturbed(load(asked), with_gaps, seed)),
        ClipSet("questions from the first sample on", SOURCE, load(asked), 0),
    ]


def open_held_out(vectors: Path | None) -> Kokoro:
    """Kokoro with the voices that only measure. Raises weights.WeightsError."""
    kokoro = Kokoro(weights.folder(KOKORO))
    kokoro.voices = held_out_voices(kokoro, vectors)
    return kokoro


def say(spoken: SpokenTexts, kind: str, number: int, text: str) -> Clip:
    """An item in voice `number` modulo the number of voices, made if it is not there."""
    name = f"{kind}-{number}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    spoken.speak(name, text, number)
    return Clip(text, spoken.read(name, lead_in_samples=0))
