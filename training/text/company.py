"""Dialogues with several people: they talk to each other, ask in turn, and a television runs.

What people say to each other is of BYU's chitchat set (MIT), what a television says of Tatoeba
(CC-BY 2.0 FR). Neither is answered. A talk begins with a name or one of texts/asides.txt: who reads
only the words could not tell otherwise for whom they are.
"""

import gzip
import json
import random
import re
from pathlib import Path

NAMES = (
    "Anna|Tom|Maria|Jack|Lisa|Ben|Sarah|David|Emma|Mike|Julia|Chris|Laura|Max|Nina|Oliver|Sophie"
    "|Paul|Kate|Leo"
).split("|")
# The number of the television among the people of a dialogue.
TELEVISION = 9
# What calls the agent after people have talked to each other.
CALLS = ["Duplex, ", "Hey Duplex, ", "Okay Duplex, ", "Hello Duplex, "]

Line = tuple[str, int]  # What is said, and by whom.


def read_chats(data: Path) -> list[list[str]]:
    """Runs of at least two short clean utterances, two people by turns, of DATA/text."""
    path = data / "text" / "chitchat.jsonl.gz"
    runs = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            run = []
            for _, text in json.loads(line)["turns"]:
                said = as_sentence(text)
                if said:
                    run.append(said)
                    continue
                runs.append(run)
                run = []
            runs.append(run)
    return [run for run in runs if len(run) >= 2]


def as_sentence(typed: str) -> str | None:
    """A typed utterance as a sentence of two to twelve plain words; None: it cannot be said so."""
    text = " ".join(typed.split())
    words = text.split()
    is_plain = re.fullmatch(r"[A-Za-z',.?! ]+", text) is not None
    is_rude = re.search(r"(?i)\b(sex\w*|fuck\w*|shit\w*|damn|hell|ass|kill\w*|drunk|dead)\b", text)
    if not 2 <= len(words) <= 12 or not is_plain or is_rude:
        return None
    text = re.sub(r"\b(i)\b", "I", text)
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else text + "."


def side_talk(
    chats: list[list[str]], asides: list[str], people: list[int], rng: random.Random
) -> list[Line]:
    """One to four lines that two of the people say to each other. asides: ready texts."""
    first, second = rng.sample(people, 2)
    if rng.random() < 0.4:
        lines = [rng.choice(asides)]
        run = rng.choice(chats)
    else:
        run = rng.choice(chats)
        name = rng.choice(NAMES)
        opening = run[0] if run[0].startswith(("I ", "I'")) else run[0][0].lower() + run[0][1:]
        lines = [f"{name}, {opening}"]
    lines += run[1 : rng.randint(1, 4)]
    return [(line, (first, second)[i % 2]) for i, line in enumerate(lines)]


def television(sentences: list[str], rng: random.Random) -> list[Line]:
    """Two to five sentences of nobody in the room."""
    return [(rng.choice(sentences), TELEVISION) for _ in range(rng.randint(2, 5))]


def company_turns(
    exchanges: list[tuple[tuple[str, str | None], ...]],
    talk: list[list[Line]],
    people: list[int],
    rng: random.Random,
) -> tuple[list[tuple[str, str | None]], list[int]]:
    """Exchanges with the agent, and what is not for it before, between and behind them.

    exchanges: pairs (user, agent) each, asked by one person each. talk: runs of lines. Returns the
    pairs, an agent's text of None where nobody is to answer, and who says each.
    """
    pairs: list[tuple[str, str | None]] = []
    speakers: list[int] = []
    parts = [*exchanges, *talk]
    rng.shuffle(parts)
    partner = people[0]
    for part in parts:
        if part in talk:
            pairs += [(text, None) for text, _ in part]
            speakers += [who for _, who in part]
            continue
        # Who asked first asks most.
        asker = partner if rng.random() < 0.6 else rng.choice(people)
        is_after_talk = bool(pairs) and pairs[-1][1] is None and speakers[-1] != TELEVISION
        for user, agent in part:
            if is_after_talk and agent and rng.random() < 0.5:
                user = rng.choice(CALLS) + user
            is_after_talk = False
            pairs.append((user, agent))
            speakers.append(asker)
    return pairs, speakers
