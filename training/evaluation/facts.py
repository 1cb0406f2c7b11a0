"""Speech against text: short factual questions answered right by voice, for each that the base LM answers right in text.

    python -m duplex.training.evaluate facts --questions-audio facts --out runs/evaluation

The questions are texts/questions.jsonl (WebQuestions' test part), the same for three ways of asking:

- `text`: the base LM (SmolLM2-135M-Instruct) reads the question after the agent's own instructions and answers greedily,
- `typed`: the agent's LM reads it in a session, as text in the form in which it would have heard it,
- `voice`: the agent hears it, a new session for each question, several side by side.

text to typed is what training for conversations has cost, typed to voice what hearing costs. An answer is right if one of the
accepted ones is in it, word for word. OUT receives facts.json and, with every answer, facts.jsonl.

--questions-audio holds QUESTION_ID.wav; what is missing there is spoken first, by Kokoro's voices (duplex.training.data.synthesizers), which no
training has heard. That takes some seconds a question; to have it done beforehand, going on where an earlier run was ended:

    python -m duplex.training.evaluation.facts --questions-audio facts
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from duplex.training.answers import batches, chat, load
from duplex.training.data.normalize import heard_form
from duplex.training.data.synthesizers import KOKORO, Kokoro
from duplex.training.evaluation.error_rate import error_rate
from duplex.training.evaluation.voice import TEXTS

from duplex import weights
from duplex.agent import TurnPolicy, load_agent
from duplex.agent.agent import INSTRUCTIONS
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.events import Transcript
from duplex.model import lexicon

BAR = 0.85  # voice over text, wanted at least
WAYS = ("text", "typed", "voice")
LEAD_IN_SAMPLES = SAMPLE_RATE // 2  # silence before a question, as in any room
PATIENCE_TICKS = 75  # 6 s without an answer ends the wait
MORE_TICKS = 12  # after an answer, in which the agent may begin again
DRAWS = 2000  # of the questions, with replacement, for an interval of the ratio


def questions(count: int) -> list[dict]:
    """The first `count` questions: {"question", "answers", "topic", "id"}."""
    lines = (TEXTS / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if not line.startswith("#")][:count]


def comparable(text: str) -> str:
    """'Germany's capital.' -> " germany 's capital ": words with a space on both sides."""
    return f" {heard_form(text)} ".replace("'s ", " 's ")


def right(answers: list[str], said: str) -> bool:
    """Whether one of the accepted answers is in what was said."""
    return any(comparable(answer) in comparable(said) for answer in answers)


def make_sound(rows: list[dict], folder: Path) -> None:
    """The wavs that are not there yet; question n is spoken by voice n modulo the number of voices."""
    missing = [(n, row) for n, row in enumerate(rows) if not (folder / f"{row['id']}.wav").exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    kokoro, begun = Kokoro(weights.folder(KOKORO)), time.time()
    for done, (n, row) in enumerate(missing, 1):
        part = folder / f"{row['id']}.part"  # whole under its name, or not at all
        soundfile.write(
            part,
            kokoro.say(row["question"], n % len(kokoro.voices)),
            SAMPLE_RATE,
            "PCM_16",
            format="WAV",
        )
        part.rename(folder / f"{row['id']}.wav")
        print(f"{done} of {len(missing)} spoken, {time.time() - begun:.0f} s", flush=True)


def wave_of(path: Path) -> np.ndarray:
    """[samples] float32 at the agent's rate, after the lead-in."""
    wave, rate_hz = soundfile.read(path, dtype="float32")
    return np.pad(
        soxr.resample(wave, rate_hz, SAMPLE_RATE).astype(np.float32), (LEAD_IN_SAMPLES, 0)
    )


@torch.inference_mode()
def base_answers(texts: list[str]) -> list[str]:
    """What the base LM answers, greedily, to each text by itself; no longer than a turn of the agent's may be."""
    model, tokenizer = load(next(weights.smollm2().glob("*.gguf")))
    prefix = tokenizer.encode(chat([("system", INSTRUCTIONS)]), add_special_tokens=False)
    end, found = tokenizer.convert_tokens_to_ids("<|im_end|>"), {}
    for group in batches(texts, tokenizer):
        ids = torch.tensor(
            [prefix + asked for _, asked in group]
        )  # [B, T]: a group's questions are equally long
        options = {
            "max_new_tokens": TurnPolicy().max_turn_tokens,
            "eos_token_id": end,
            "pad_token_id": end,
        }
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)[
            :, ids.shape[1] :
        ]
        found |= {
            text: tokenizer.decode(row, skip_special_tokens=True).strip()
            for (text, _), row in zip(group, out, strict=True)
        }
    return [found[text] for text in texts]


class Asking:
    """One question in one slot: its sound, tick by tick, and what came of it."""

    def __init__(self, number: int, wave: np.ndarray):
        ticks = -(-len(wave) // TICK_SAMPLES)
        self.number, self.sound = (
            number,
            np.pad(wave, (0, ticks * TICK_SAMPLES - len(wave))).reshape(ticks, TICK_SAMPLES),
        )
        self.tick = self.waited = (
            0  # ticks in all, and after the sound without a turn of the agent's
        )
        self.transcript = Transcript()
        self.user_open = self.agent_open = self.answered = self.failed = False

    def sound_now(self) -> np.ndarray:
        return (
            self.sound[self.tick]
            if self.tick < len(self.sound)
            else np.zeros(TICK_SAMPLES, np.float32)
        )

    def note(self, events: list) -> None:
        """A tick has gone by."""
        self.tick += 1
        for event in events:
            self.transcript.read(event)
            if event.kind in ("user_started", "user_ended"):
                self.user_open = event.kind == "user_started"
                self.answered &= (
                    not self.user_open
                )  # the rest of a question that was answered too early
            if event.kind in ("agent_started", "agent_stopped", "agent_ended"):
                self.agent_open = event.kind == "agent_started"
                self.answered |= event.kind == "agent_ended"
            self.failed |= event.kind == "error"
        self.waited = 0 if self.tick < len(self.sound) or self.agent_open else self.waited + 1

    def over(self) -> bool:
        answered = self.answered and not self.user_open
        return self.failed or self.waited >= (MORE_TICKS if answered else PATIENCE_TICKS)


def converse(agent, ask: Callable[[int, int], np.ndarray], count: int, seed: int = 0) -> list[dict]:
    """Put `count` questions to an agent, each in a new session, in all its slots at once -> {"heard", "said"} of each.

    ask(slot, number) puts a question into the slot's new session and gives the sound to play, [samples]. All that the agent said
    in a session is its answer: one that began too early counts as well as what came after it.
    """
    asking: dict[int, Asking] = {}
    found, asked = {}, 0
    while len(found) < count:
        for slot in range(agent.slots):
            if slot not in asking and asked < count:
                agent.open(slot, seed=seed, instructions=None)
                asking[slot], asked = Asking(asked, ask(slot, asked)), asked + 1
        audio = np.zeros((agent.slots, TICK_SAMPLES), np.float32)
        for slot, one in asking.items():
            audio[slot] = one.sound_now()
        _, events = agent.step(audio, list(asking))
        for slot, one in list(asking.items()):
            one.note(events[slot])
            if one.over():
                # One answer may have been broken off within a word, so turns are told apart.
                said = " ".join(turn.text for turn in one.transcript.turns("agent"))
                texts = {"heard": one.transcript.user_text, "said": said}
                found[one.number] = {name: " ".join(text.split()) for name, text in texts.items()}
                agent.close(slot)
                del asking[slot]
                print(
                    f"\r{len(found)} of {count} asked",
                    end="" if len(found) < count else "\n",
                    flush=True,
                )
    return [found[number] for number in range(count)]


def typed(agent, texts: list[str], seed: int) -> list[str]:
    """The agent's answers to texts, written into sessions in the form in which it hears."""
    spelling = lexicon.surface_forms(agent.parts.lexicon)

    def ask(slot: int, number: int) -> np.ndarray:
        agent.write(
            slot,
            "user",
            " ".join(spelling.get(word, word) for word in heard_form(texts[number]).split()),
        )
        agent.answer(slot)
        return np.zeros(0, np.float32)

    return [row["said"] for row in converse(agent, ask, len(texts), seed)]


def spoken(agent, waves: list[np.ndarray], seed: int) -> list[dict]:
    """{"heard", "said"} of each wave [samples]."""
    return converse(agent, lambda slot, number: waves[number], len(waves), seed)


def ratio(above: np.ndarray, below: np.ndarray) -> float | None:
    return round(float(above.mean() / below.mean()), 3) if below.any() else None


def interval(above: np.ndarray, below: np.ndarray) -> list[float]:
    """Where 95 of 100 ratios lie if the questions are drawn again from these; above, below: bool [questions]."""
    drawn = np.random.default_rng(0).integers(len(above), size=(DRAWS, len(above)))
    over, under = above[drawn].mean(1), below[drawn].mean(1)
    found = over[under > 0] / under[under > 0]
    return [round(float(np.quantile(found, q)), 2) for q in (0.025, 0.975)] if len(found) else []


def by_chance(records: list[dict], way: str) -> float | None:
    """The share of answers that would be right for another question on the same topic: what a share means that is not above it."""
    said = [(record["topic"], comparable(record[way])) for record in records]
    accepted = [
        (record["topic"], [comparable(answer) for answer in record["answers"]])
        for record in records
    ]
    pairs = [
        (n, i)
        for n, (topic, _) in enumerate(said)
        for i, (other, _) in enumerate(accepted)
        if n != i and topic == other
    ]
    return (
        round(
            float(
                np.mean([any(answer in said[n][1] for answer in accepted[i][1]) for n, i in pairs])
            ),
            3,
        )
        if pairs
        else None
    )


def score(records: list[dict]) -> dict:
    """records: {"topic", "question", "answers", "heard", and an answer for each of WAYS} -> the measure, in parts."""
    verdict = {
        way: np.array([right(record["answers"], record[way]) for record in records]) for way in WAYS
    }
    topics = np.array([record["topic"] for record in records])
    shares = {}
    for name in ("all", *sorted(set(topics))):
        part = {way: found[(topics == name) | (name == "all")] for way, found in verdict.items()}
        counts = {way: int(found.sum()) for way, found in part.items()}
        shares[name] = {
            "questions": len(part["text"]),
            **counts,
            "voice / text": ratio(part["voice"], part["text"]),
        }
    return {
        "voice / text": ratio(verdict["voice"], verdict["text"]),
        "95 % of draws": interval(verdict["voice"], verdict["text"]),
        "bar": BAR,
        "typed / text": ratio(verdict["typed"], verdict["text"]),
        "voice / typed": ratio(verdict["voice"], verdict["typed"]),
        "of the right in text, right by voice": ratio(
            verdict["voice"] & verdict["text"], verdict["text"]
        ),
        "transcript WER": round(
            error_rate([r["question"] for r in records], [r["heard"] for r in records]), 3
        ),
        "right by chance": {way: by_chance(records, way) for way in WAYS},
        "no answer by voice": sum(not record["voice"] for record in records),
        "right": shares,
    }


def table(shares: dict) -> str:
    """The counts of right answers, a line for each topic."""
    columns = ("questions", *WAYS, "voice / text")
    lines = [f"{'right':12}" + "".join(f"{column:>14}" for column in columns)]
    for name, row in shares.items():
        lines.append(
            f"{name:12}"
            + "".join(f"{'-' if row[column] is None else row[column]:>14}" for column in columns)
        )
    return "\n".join(lines)


def evaluate_facts(args) -> dict:
    if not args.questions_audio:
        raise SystemExit(
            "Name the folder of the spoken questions with --questions-audio; what is missing there is made."
        )
    rows = questions(args.count)
    make_sound(rows, args.questions_audio)
    texts = [row["question"] for row in rows]
    by_text = base_answers(texts)
    agent = load_agent(args.agent, slots=args.slots)
    by_typing = typed(agent, texts, args.seed)
    by_voice = spoken(
        agent, [wave_of(args.questions_audio / f"{row['id']}.wav") for row in rows], args.seed
    )
    records = []
    for row, text, written, voice in zip(rows, by_text, by_typing, by_voice, strict=True):
        said = {"text": text, "typed": written, "voice": voice["said"]}
        correct = [way for way in WAYS if right(row["answers"], said[way])]
        records.append({**row, "heard": voice["heard"], **said, "right": correct})
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
    make_sound(questions(args.count), args.questions_audio)


if __name__ == "__main__":
    main()
