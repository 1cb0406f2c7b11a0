"""Speech against text: facts answered right by voice, for each that the base LM knows in text.

    python -m duplex.training.evaluate facts --questions-audio facts --out runs/evaluation

The questions are texts/questions.jsonl (WebQuestions' test part), asked in three ways:

- `text`: the base LM (SmolLM2-135M-Instruct) reads the question after the agent's own instructions
  and answers greedily,
- `typed`: the agent's LM reads it in a session, as text in the form in which it would have heard
  it,
- `voice`: the agent hears it, a new session for each question, several side by side.

text to typed is what training for conversations has cost, typed to voice what hearing costs. An
answer is right if one of the accepted ones is in it, word for word. OUT receives facts.json and,
with every answer, facts.jsonl.

--questions-audio holds QUESTION_ID.wav; what is missing there is spoken first, by Kokoro's voices
(duplex.training.data.synthesizers), which no training has heard. That takes some seconds a
question; to have it done beforehand, going on where an earlier run was ended:

    python -m duplex.training.evaluation.minds.facts --questions-audio facts
"""

import argparse
import itertools
import json
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from duplex import weights
from duplex.agent import TurnPolicy, load_agent
from duplex.agent.agent import INSTRUCTIONS
from duplex.model.asr import lexicon
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.answers import batches, chat, load
from duplex.training.evaluation.hearing.error_rate import error_rate
from duplex.training.evaluation.play import (
    PATIENCE_TICKS,
    Script,
    Tick,
    in_ticks,
    play,
    tick_at,
)
from duplex.training.evaluation.spoken import SpokenTexts
from duplex.training.text.templates import TEXTS
from duplex.transcript import Transcript

# The ways of asking, each a column of the result.
WAYS = ("text", "typed", "voice")
# Ticks after an answer in which the agent may begin again.
MORE_TICKS = 12


def questions(count: int) -> list[dict]:
    """The first `count` questions: {"question", "answers", "topic", "id"}."""
    lines = (TEXTS / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if not line.startswith("#")][:count]


def comparable(text: str) -> str:
    """'Germany's capital.' -> " germany 's capital ": words with a space on both sides."""
    return f" {spoken_form(text)} ".replace("'s ", " 's ")


def is_right(answers: list[str], said: str) -> bool:
    """Whether one of the accepted answers is in what was said."""
    return any(comparable(answer) in comparable(said) for answer in answers)


def speak_missing(rows: list[dict], spoken: SpokenTexts) -> None:
    """Make the wavs that are not there yet; question n is spoken by voice n."""
    missing = [(n, row) for n, row in enumerate(rows) if not spoken.path(row["id"]).exists()]
    begun = time.time()
    for done, (n, row) in enumerate(missing, 1):
        spoken.speak(row["id"], row["question"], n)
        print(f"{done} of {len(missing)} spoken, {time.time() - begun:.0f} s", flush=True)


@torch.inference_mode()
def base_answers(texts: list[str]) -> list[str]:
    """The base LM's greedy answer to each text by itself, no longer than an agent's turn may be."""
    model, tokenizer = load(next(weights.smollm2().glob("*.gguf")))
    prefix = tokenizer.encode(chat([("system", INSTRUCTIONS)]), add_special_tokens=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    found = {}
    for group in batches(texts, tokenizer):
        # [B, T]: the questions of a group are equally long.
        ids = torch.tensor([prefix + asked for _, asked in group])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=TurnPolicy().max_turn_tokens,
            eos_token_id=end,
            pad_token_id=end,
        )
        for (text, _), row in zip(group, out[:, ids.shape[1] :], strict=True):
            found[text] = tokenizer.decode(row, skip_special_tokens=True).strip()
    return [found[text] for text in texts]


def ask(wave: np.ndarray) -> Generator[np.ndarray, Tick, dict]:
    """Play a question, float32 [N], and wait for the answer's end -> {"heard", "said"}.

    A part of a script. All that the agent says in the session is its answer: one that began too
    early counts as well as what comes after it.
    """
    sound = in_ticks(wave)
    transcript = Transcript()
    is_answered = False
    has_failed = False
    tick = 0
    waited = 0  # ticks after the sound without a turn of the agent's
    max_wait = PATIENCE_TICKS
    while not has_failed and waited < max_wait:
        events = (yield tick_at(sound, tick)).events
        tick += 1
        for event in events:
            transcript.read(event)
            if event.kind == "user_started":
                is_answered = False  # the rest of a question that was answered too early
            elif event.kind == "agent_ended":
                is_answered = True
            has_failed |= event.kind == "error"
        is_waiting = tick >= len(sound) and not transcript.is_open("agent")
        waited = waited + 1 if is_waiting else 0
        is_over = is_answered and not transcript.is_open("user")
        max_wait = MORE_TICKS if is_over else PATIENCE_TICKS
    # One answer may have been broken off within a word, so turns are told apart.
    said = " ".join(turn.text for turn in transcript.turns("agent"))
    texts = {"heard": transcript.user_text, "said": said}
    return {name: " ".join(text.split()) for name, text in texts.items()}


def with_count(scripts: list[Script]) -> list[Script]:
    """The same scripts, which print how many of them are done."""
    done = 0

    def counted(script: Script) -> Script:
        def run(slot: int) -> Generator:
            nonlocal done
            result = yield from script(slot)
            done += 1
            end = "" if done < len(scripts) else "\n"
            print(f"\r{done} of {len(scripts)} asked", end=end, flush=True)
            return result

        return run

    return [counted(script) for script in scripts]


def answers_typed(agent, texts: list[str], seed: int) -> list[str]:
    """The agent's answers to texts, written into sessions in the form in which it hears."""
    spelling = lexicon.surface_forms(agent.parts.lexicon)

    def script(text: str) -> Script:
        def run(slot: int) -> Generator:
            words = spoken_form(text).split()
            agent.write(slot, "user", " ".join(spelling.get(word, word) for word in words))
            agent.answer(slot)
            return ask(np.zeros(0, np.float32))

        return run

    scripts = with_count([script(text) for text in texts])
    return [row["said"] for row in play(agent, scripts, itertools.repeat(seed))]


def answers_spoken(agent, waves: list[np.ndarray], seed: int) -> list[dict]:
    """{"heard", "said"} of each wave, float32 [N], in a session of its own."""
    scripts = with_count([lambda slot, wave=wave: ask(wave) for wave in waves])
    return play(agent, scripts, itertools.repeat(seed))


def ratio(above: np.ndarray, below: np.ndarray) -> float | None:
    """How many of the questions in `above` come to each in `below`, bool [questions] both."""
    return round(float(above.mean() / below.mean()), 3) if below.any() else None


def interval(above: np.ndarray, below: np.ndarray, draws: int = 2000) -> list[float]:
    """Where 95 of 100 ratios lie if the questions are drawn again from these (bootstrap)."""
    drawn = np.random.default_rng(0).integers(len(above), size=(draws, len(above)))
    over = above[drawn].mean(1)
    under = below[drawn].mean(1)
    found = over[under > 0] / under[under > 0]
    return [round(float(np.quantile(found, q)), 2) for q in (0.025, 0.975)] if len(found) else []


def by_chance(records: list[dict], way: str) -> float | None:
    """The share of answers that would be right for another question on the same topic.

    What a share of right answers means that is not above it. None where no topic has two questions.
    """
    said = [comparable(record[way]) for record in records]
    accepted = [[comparable(answer) for answer in record["answers"]] for record in records]
    verdicts = [
        any(answer in said[n] for answer in accepted[other])
        for n, record in enumerate(records)
        for other in range(len(records))
        if n != other and record["topic"] == records[other]["topic"]
    ]
    return round(float(np.mean(verdicts)), 3) if verdicts else None


def score(records: list[dict]) -> dict:
    """The measure, in parts. Records: "topic", "question", "answers", "heard", and each of WAYS."""
    verdict = {
        way: np.array([is_right(record["answers"], record[way]) for record in records])
        for way in WAYS
    }
    heard = [record["heard"] for record in records]
    wanted = [record["question"] for record in records]
    return {
        "voice / text": ratio(verdict["voice"], verdict["text"]),
        "95 % of draws": interval(verdict["voice"], verdict["text"]),
        "bar": 0.85,  # voice over text, wanted at least
        "typed / text": ratio(verdict["typed"], verdict["text"]),
        "voice / typed": ratio(verdict["voice"], verdict["typed"]),
        "of the right in text, right by voice": ratio(
            verdict["voice"] & verdict["text"], verdict["text"]
        ),
        "transcript WER": round(error_rate(wanted, heard), 3),
        "right by chance": {way: by_chance(records, way) for way in WAYS},
        "no answer by voice": sum(not record["voice"] for record in records),
        "right": shares(verdict, np.array([record["topic"] for record in records])),
    }


def shares(verdict: dict[str, np.ndarray], topics: np.ndarray) -> dict[str, dict]:
    """Right answers, bool [questions] for each way, counted over all topics and for each one."""
    found = {}
    for name in ("all", *sorted(set(topics))):
        part = {way: right[(topics == name) | (name == "all")] for way, right in verdict.items()}
        found[name] = {
            "questions": len(part["text"]),
            **{way: int(right.sum()) for way, right in part.items()},
            "voice / text": ratio(part["voice"], part["text"]),
        }
    return found


def table(shares: dict[str, dict]) -> str:
    """The counts of right answers, a line for each topic."""
    columns = ("questions", *WAYS, "voice / text")
    lines = [f"{'right':12}" + "".join(f"{column:>14}" for column in columns)]
    for name, row in shares.items():
        cells = ["-" if row[column] is None else row[column] for column in columns]
        lines.append(f"{name:12}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def evaluate_facts(args: argparse.Namespace) -> dict:
    """`evaluate facts`."""
    if not args.questions_audio:
        raise SystemExit(
            "Name the folder of the spoken questions with --questions-audio; "
            "what is missing there is made."
        )
    rows = questions(args.count)
    spoken_texts = SpokenTexts(args.questions_audio)
    speak_missing(rows, spoken_texts)
    texts = [row["question"] for row in rows]
    waves = [spoken_texts.read(row["id"]) for row in rows]
    by_text = base_answers(texts)
    agent = load_agent(args.agent, slots=args.slots)
    typed = answers_typed(agent, texts, args.seed)
    spoken = answers_spoken(agent, waves, args.seed)
    records = []
    for row, text, written, voice in zip(rows, by_text, typed, spoken, strict=True):
        said = {"text": text, "typed": written, "voice": voice["said"]}
        right = [way for way in WAYS if is_right(row["answers"], said[way])]
        records.append({**row, "heard": voice["heard"], **said, "right": right})
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "facts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    result = score(records)
    print(table(result["right"]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Have the questions spoken.")
    parser.add_argument(
        "--questions-audio",
        type=Path,
        required=True,
        help="folder for the wavs; those in it are kept",
    )
    parser.add_argument("--count", type=int, default=300)
    args = parser.parse_args()
    speak_missing(questions(args.count), SpokenTexts(args.questions_audio))


if __name__ == "__main__":
    main()
