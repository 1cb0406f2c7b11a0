"""A small shop, to see what tuning on ten dialogues teaches: a bakery that somebody invented.

    python -m duplex.training.evaluation.minds.shop make --out shop
    duplex tune shop/data.jsonl --facts shop/facts.txt --out my-agent
    python -m duplex.training.evaluation.minds.shop ask --shop shop --agent my-agent
    python -m duplex.training.evaluation.minds.shop read --lm my-agent/tuning/run

texts/shop.json has 15 facts, ten dialogues that tell each of them three to five times, and 15
questions in other words. `make` has the agent's side said by the shipped voice and the user's by
flite and espeak-ng; half of the dialogues name the agent's words alone, as annotate.py of
moshi-finetune does, the other half the turns of both without times. `ask` asks the questions by a
voice that is not in the dialogues; `read` gives them to the LM as text. A fact is right where an
accepted word is in the answer; the manner is shown where the words of `manner` are.
"""

import argparse
import json
from functools import reduce
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from duplex.audio import SAMPLE_RATE
from duplex.model.asr.spoken_form import spoken_form
from duplex.model.tokens import AGENT, FIRST_TEXT_ID, USER, USER_END, Grammar, advance
from duplex.training.common.greedy import greedy
from duplex.training.data.synthesizers import heart_speaker, say_program
from duplex.training.evaluation.minds.facts import answers_spoken, comparable, is_right
from duplex.training.scenes.example import Tokenizer
from duplex.training.scenes.scene import INSTRUCTIONS
from duplex.training.scenes.setup import add_model_arguments, build_lm
from duplex.training.text.templates import TEXTS

# Programs that say the user's side of dialogue n, one after another; the text is put in.
CALLERS = (
    ["flite", "-voice", "rms", "-t", "TEXT", "-o"],
    ["flite", "-voice", "awb", "-t", "TEXT", "-o"],
    ["flite", "-voice", "kal16", "-t", "TEXT", "-o"],
    ["espeak-ng", "-v", "en-us+f3", "-s", "150", "TEXT", "-w"],
)
# Who asks in the end.
STRANGER = ["flite", "-voice", "slt", "-t", "TEXT", "-o"]


def read_shop() -> dict:
    """texts/shop.json."""
    return json.loads((TEXTS / "shop.json").read_text(encoding="utf-8"))


def say(command: list[str], text: str) -> np.ndarray:
    """A text in the voice of a program, float32 [N]."""
    wave, rate = say_program([text if part == "TEXT" else part for part in command])
    wave = soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32)
    return wave * np.float32(0.3 / max(1e-6, np.abs(wave).max()))


def lay_out(dialogue: list, caller: list[str], speak, rng: np.random.Generator) -> tuple:
    """A dialogue as sound [N, 2], the agent left; and [text, [start, end], is_agent] of its turns.

    Between two turns are 0.4 to 0.9 s.
    """
    channels: tuple[list, list] = ([], [])
    turns = []
    now = int(0.8 * SAMPLE_RATE)
    for exchange in dialogue:
        for is_agent, text in zip((False, True), exchange, strict=True):
            wave = speak(text, rng)[0] if is_agent else say(caller, text)
            turns.append([text, [now / SAMPLE_RATE, (now + len(wave)) / SAMPLE_RATE], is_agent])
            channels[0 if is_agent else 1].append((now, wave))
            now += len(wave) + int(rng.uniform(0.4, 0.9) * SAMPLE_RATE)
    sound = np.zeros((now + SAMPLE_RATE, 2), np.float32)
    for side, parts in enumerate(channels):
        for begin, wave in parts:
            sound[begin : begin + len(wave), side] += wave
    sound += 3e-4 * rng.standard_normal(sound.shape).astype(np.float32)
    return sound, turns


def labels(turns: list, has_both: bool) -> list:
    """The turns as a .json names them."""
    if has_both:
        return [[text, None, "SPEAKER_MAIN" if mine else "USER"] for text, _, mine in turns]
    return [[text, times, "SPEAKER_MAIN"] for text, times, mine in turns if mine]


def make(out: Path) -> None:
    """Write the recordings, data.jsonl, facts.txt and the questions' sounds."""
    shop = read_shop()
    out.mkdir(parents=True, exist_ok=True)
    speak = heart_speaker()
    rng = np.random.default_rng(0)
    lines = []
    for n, dialogue in enumerate(shop["dialogues"]):
        sound, turns = lay_out(dialogue, CALLERS[n % len(CALLERS)], speak, rng)
        name = f"call{n:02}"
        soundfile.write(out / f"{name}.wav", sound, SAMPLE_RATE)
        told = {"alignments": labels(turns, has_both=n % 2 == 1)}
        (out / f"{name}.json").write_text(json.dumps(told) + "\n")
        lines.append(json.dumps({"path": f"{name}.wav"}) + "\n")
    (out / "data.jsonl").write_text("".join(lines))
    (out / "facts.txt").write_text("\n".join(shop["facts"]) + "\n")
    for n, row in enumerate(shop["questions"]):
        soundfile.write(out / f"question{n:02}.wav", say(STRANGER, row["question"]), SAMPLE_RATE)


def ask(args: argparse.Namespace) -> dict:
    """The questions to an agent: what was heard, said, right, and in the manner."""
    from duplex.training.evaluation.minds.by_voice import load_minded

    shop = read_shop()
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)
    files = [args.shop / f"question{n:02}.wav" for n in range(len(shop["questions"]))]
    waves = [np.concatenate([silence, soundfile.read(file, dtype="float32")[0]]) for file in files]
    agent = load_minded(args.mind, args.slots, args.agent)
    answers = answers_spoken(agent, waves, seed=0)
    return summed(
        [verdict(shop, row, found) for row, found in zip(shop["questions"], answers, strict=True)]
    )


@torch.no_grad()
def read(args: argparse.Namespace) -> dict:
    """The questions as text to an LM, which answers greedily: what it learned, without hearing."""
    shop = read_shop()
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    settings = parser.parse_args(["--start", str(args.lm)] if args.lm else [])
    settings.compute = "cpu"
    lm = build_lm(settings)
    tokenizer = Tokenizer(settings.tokenizer)
    rows = []
    for row in shop["questions"]:
        words = spoken_form(row["question"]).split()
        said = [token for word in words for token in tokenizer.spell(word)]
        asked = [USER, *said, USER_END, AGENT]
        grammar = reduce(advance, asked, Grammar())
        begun = [*tokenizer.prompt(INSTRUCTIONS[0]), *asked]
        [found] = greedy(lm, [lm.embed(torch.tensor(begun))], [], grammar, 30)
        text = tokenizer.lm.decode([token for token in found if token >= FIRST_TEXT_ID]).strip()
        rows.append(verdict(shop, row, {"said": text}))
    return summed(rows)


def verdict(shop: dict, row: dict, found: dict) -> dict:
    """A question with what was said, and whether that is right and in the manner; it is printed."""
    right = is_right(row["answers"], found["said"])
    manner = comparable(shop["manner"]) in comparable(found["said"])
    told = {**row, **found, "right": right, "manner": manner}
    print(json.dumps(told), flush=True)
    return told


def summed(rows: list[dict]) -> dict:
    """How many are right, and in the manner; it is printed."""
    counts = {name: sum(row[name] for row in rows) for name in ("right", "manner")}
    print(f"right {counts['right']} of {len(rows)}, in the manner {counts['manner']}", flush=True)
    return {**counts, "of": len(rows), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("make").add_argument("--out", type=Path, required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("--shop", type=Path, required=True, help="what `make` has made")
    asking.add_argument("--agent", type=Path, help="folder of the agent (default: the shipped one)")
    asking.add_argument("--mind", default="small", help="as in duplex talk (default %(default)s)")
    asking.add_argument("--slots", type=int, default=3)
    reading = commands.add_parser("read")
    reading.add_argument("--lm", type=Path, help="run of an LM (default: the shipped one)")
    for parts in (asking, reading):
        parts.add_argument("--result", type=Path, help="file for what was said")
    args = parser.parse_args()
    if args.command == "make":
        make(args.out)
        return
    torch.set_num_threads(1)
    result = ask(args) if args.command == "ask" else read(args)
    if args.result:
        args.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
