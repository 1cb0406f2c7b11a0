"""Write the text corpus: short spoken-style dialogues that the default agent learns from.

    python -m duplex.training.corpus --data DATA --out CORPUS     # dialogues, two pools of texts
    python -m duplex.training.answers --out CORPUS                # optional: answers of the base LM
    python -m duplex.training.corpus --data DATA --out CORPUS     # again: now with these answers

CORPUS receives dialogues.jsonl, one dialogue a line: {"turns": [{"role": "user"|"agent", "text":
str}, ...], "kind": str, "split": "train"|"valid", "source": str, "licence": str}, and
user_texts.txt and agent_texts.txt, each different text once. A user turn with "aside": true is said
to somebody else and has no answer; one with "slow": true tells something, phrase by phrase, and is
not over at its first pause. "speaker": n is said by the n-th of several people, "far": true by a
television (duplex.training.text.company). "note" is text that the agent has read before
(duplex.training.text.context).

DATA holds the folder text/ with countries.json (samayo/country-json, MIT), tatoeba-en-fr.tsv.gz
(CC-BY 2.0 FR) and chitchat.jsonl.gz (BYU, MIT). All the rest is written here and in texts/
(texts/webquestions.txt after WebQuestions, CC-BY 4.0).
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from duplex.training.scenes.scene import ASSENT
from duplex.training.text.company import TELEVISION
from duplex.training.text.context import context_exchange, read_matters
from duplex.training.text.exchanges import Exchange, Writer, split_of


def draw_different(make: Callable[[int], Exchange | None], count: int) -> list[Exchange]:
    """About `count` different dialogues of make(number), which may be None."""
    found: dict[tuple, Exchange] = {}
    for number in range(20 * count):
        dialogue = make(number)
        if dialogue is not None:
            found.setdefault((dialogue.note, *dialogue.turns), dialogue)
        if len(found) == count:
            break
    return list(found.values())


def write_dialogues(writer: Writer, count: int) -> list[Exchange]:
    """About `count` different dialogues.

    No user text of the validation split is in training as a whole dialogue.
    """
    found = draw_different(writer.dialogue, count)
    train_first = {dialogue.turns[0][0] for dialogue in found if dialogue.split == "train"}
    return [d for d in found if d.split == "train" or d.turns[0][0] not in train_first]


def write_context(count: int, seed: int) -> list[Exchange]:
    """`count` different dialogues about what was told before; held out are values of a matter."""
    matters = read_matters()

    def make(number: int) -> Exchange | None:
        told, _, note, turns = context_exchange(matters, random.Random(f"{seed} context {number}"))
        splits = {split_of(one.matter.note.replace("$v", one.value)) for one in told}
        if len(splits) > 1:
            return None
        return Exchange(tuple(turns), "context", "".join(splits) or "train", note=note)

    return draw_different(make, count)


def as_json(dialogue: Exchange) -> str:
    """The dialogue's line in dialogues.jsonl."""
    turns = []
    speakers = dialogue.speakers or (1,) * len(dialogue.turns)
    for (user, agent), speaker in zip(dialogue.turns, speakers, strict=True):
        turn = {"role": "user", "text": user}
        if speaker == TELEVISION:
            turn["far"] = True
        if speaker > 1:
            turn["speaker"] = speaker
        if agent is None:
            turn["aside"] = True
        if user in dialogue.slow:
            turn["slow"] = True
        turns.append(turn)
        if agent:
            turns.append({"role": "agent", "text": agent})
    left_out = ("turns", "slow", "speakers")
    fields = {k: v for k, v in vars(dialogue).items() if k not in left_out and v}
    return json.dumps({"turns": turns, **fields}, ensure_ascii=False)


def report(dialogues: list[Exchange]) -> None:
    """Print what has been written."""
    kinds = Counter(kind for dialogue in dialogues for kind in dialogue.kind.split("+"))
    splits = Counter(dialogue.split for dialogue in dialogues)
    several = sum(len(dialogue.turns) > 1 for dialogue in dialogues) / len(dialogues)
    words = [len(agent.split()) for dialogue in dialogues for _, agent in dialogue.turns if agent]
    print(f"{len(dialogues)} dialogues {dict(splits)}, {several:.0%} with several exchanges")
    print(f"exchanges by kind {dict(kinds.most_common())}")
    print(f"agent words: mean {sum(words) / len(words):.1f}, most {max(words)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder, with text/ in it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--count",
        type=int,
        default=28_000,
        help="dialogues; a tenth more are about what was told before, 15 %% more have several "
        "people (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (args.data / "text" / "countries.json").is_file():
        parser.error(f"{args.data} has no text/countries.json")
    args.out.mkdir(parents=True, exist_ok=True)
    writer = Writer(args.data, args.out / "answers.jsonl", args.seed)
    dialogues = write_dialogues(writer, args.count)
    dialogues += write_context(round(0.1 * args.count), args.seed)
    dialogues += draw_different(writer.company, round(0.15 * args.count))
    pairs = [pair for dialogue in dialogues for pair in dialogue.turns]
    texts = {
        "dialogues.jsonl": [as_json(dialogue) for dialogue in dialogues],
        "user_texts.txt": dict.fromkeys([*ASSENT, *(user for user, _ in pairs)]),
        "agent_texts.txt": dict.fromkeys(agent for _, agent in pairs if agent),
    }
    for name, lines in texts.items():
        temporary = args.out / (name + ".part")
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        temporary.replace(args.out / name)
        print(f"{name}: {len(lines)} lines")
    report(dialogues)


if __name__ == "__main__":
    main()
