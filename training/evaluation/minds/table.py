"""What minds say to the same questions, side by side.

    python -m duplex.training.evaluate minds --mind small large --out runs/evaluation

The sets are those of minds.py, in text; with `--questions-audio FOLDER` by voice, see
by_voice.py. OUT receives minds.json and, with every answer, minds.jsonl.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from duplex import weights
from duplex.agent.thinking.wording import SPOKEN
from duplex.mind.chat_url import ChatURL
from duplex.mind.llama import Llama
from duplex.mind.load import MINDS
from duplex.mind.thinker import Source
from duplex.training.evaluation.intervals import interval
from duplex.training.evaluation.minds.by_voice import load_minded, measure_spoken, speak
from duplex.training.evaluation.minds.questions import measure, read_set
from duplex.training.evaluation.sounds import held_sounds
from duplex.training.evaluation.spoken import SpokenTexts


def summary(rows: list[dict]) -> dict:
    """Share of right answers of one mind and set, and of each kind of row that the set has."""
    result = _share(rows)
    if rows and "tool" in rows[0]:
        undue = [row for row in rows if row["tool"] is None]
        result["due"] = _share([row for row in rows if row["tool"] is not None])
        result |= {"undue_calls": sum(bool(row["calls"]) for row in undue), "undue": len(undue)}
    if rows and "mode" in rows[0]:
        modes = dict.fromkeys(row["mode"] for row in rows)
        result |= {mode: _share([row for row in rows if row["mode"] == mode]) for mode in modes}
    return result


def _share(rows: list[dict]) -> dict:
    """How many are right, and the 95 % interval of their share."""
    low, high = interval([(float(row["right"]), 1.0) for row in rows])
    return {"right": sum(row["right"] for row in rows), "of": len(rows), "interval": [low, high]}


def find_source(name: str) -> Source:
    """A mind by its name: small, medium, large, a GGUF file or a URL."""
    if name.startswith(("http://", "https://")):
        return ChatURL(name)
    if name == "small":
        return Llama(lambda: next(weights.smollm2().glob("*.gguf")))
    known = {mind.name: mind.weights for mind in MINDS}
    if name in known:
        return Llama(lambda: next(weights.folder(known[name]).glob("*.gguf")))
    return Llama(lambda: Path(name))


def evaluate_minds(
    args: argparse.Namespace, find: Callable[[str], Source] = find_source
) -> dict[str, dict]:
    """Every mind on every set, printed with what was wrong; {mind: {set: summary}}."""
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    with open(args.out / "minds.jsonl", "w", encoding="utf-8") as file:
        for mind in args.mind:
            results[mind] = {}
            ask = _asker(args, mind, find)
            for name in args.sets:
                if name == "calls" and mind == "small":
                    continue
                rows = []
                for row in ask(name, read_set(name)[: args.count]):
                    rows.append(row)
                    file.write(json.dumps({"mind": mind, **row}, ensure_ascii=False) + "\n")
                    # Whoever breaks off a long run has what was answered until then.
                    file.flush()
                    if not row["right"]:
                        asked = row.get("id", row.get("text"))
                        print("  WRONG", asked, row["said"], row["calls"], flush=True)
                results[mind][rows[0]["set"]] = summary(rows)
                print(mind, rows[0]["set"], summary(rows), flush=True)
    return results


def _asker(args, mind: str, find) -> Callable[[str, list[dict]], Iterable[dict]]:
    """What asks a mind the rows of a set, in text or by voice."""
    if args.questions_audio is None:
        source = find(mind)
        rules = "" if mind == "small" else SPOKEN
        return lambda name, rows: measure(source, name, rows, rules)
    spoken = SpokenTexts(args.questions_audio)
    agent = load_minded(mind, args.slots, args.agent)
    noises = held_sounds(args.noise) if args.noise else {}

    def ask(name: str, rows: list[dict]) -> Iterable[dict]:
        speak(rows, spoken)
        if name == "noises" and not noises:
            raise SystemExit("The set noises by voice needs its recordings: give --noise DATA.")
        return measure_spoken(agent, name, rows, spoken, args.seed, noises)

    return ask
