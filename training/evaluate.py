"""Measure the agent as a user meets it: recorded questions in, what it heard, said and sounded like out.

`ears` measures the encoder alone (duplex.training.evaluation.hearing), `voice` codec and talker (duplex.training.evaluation.voice), `align` how speech
and text meet in the LM (duplex.training.evaluation.align), `facts` what is answered right by voice and in text (duplex.training.evaluation.facts),
`context` what hangs on things told before (duplex.training.evaluation.context), `turns` when it speaks (duplex.training.evaluation.turns),
`agent` the whole:

    python -m duplex.training.evaluate agent --agent duplex/pretrained --questions client/questions --out runs/evaluation

Each question is played into one running conversation; the next starts a second after the answer. WER of the user's transcript
is against the questions' texts, WER of the voice is an outside recogniser (Whisper base) against the agent's own text.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import soxr
from duplex.training.evaluation.align import evaluate_align
from duplex.training.evaluation.context import evaluate_context
from duplex.training.evaluation.error_rate import error_rate
from duplex.training.evaluation.facts import evaluate_facts
from duplex.training.evaluation.hearing import (
    chosen,
    evaluate_ears,
    plot_training,
    resident_megabytes,
)
from duplex.training.evaluation.play import play
from duplex.training.evaluation.probe import probe
from duplex.training.evaluation.turns import evaluate_turns
from duplex.training.evaluation.voice import evaluate_voice

from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.bench.recognizer import Whisper


def column(rows: list[dict], name: str) -> list:
    """One entry of every row."""
    return [row[name] for row in rows]


def long_talk(agent, waves: list[np.ndarray], minutes: float) -> dict:
    """The questions over and over in one conversation: how many of its first and of its last it answers, and memory."""
    answered, megabytes, played = [], [], 0
    while played < minutes * 60 * SAMPLE_RATE:
        row = play(agent, waves[len(answered) % len(waves)])
        answered.append(row["delay_s"] is not None)
        megabytes.append(resident_megabytes())
        played += len(row["voice"])
    part = min(len(answered), len(waves))
    return {
        "minutes": round(played / SAMPLE_RATE / 60, 1),
        "answered, of the first and of the last questions": [
            f"{sum(a)} of {part}" for a in (answered[:part], answered[-part:])
        ],
        "answered, of all": f"{sum(answered)} of {len(answered)}",
        "MB of the process, after the first questions and at the end": [
            megabytes[part - 1],
            megabytes[-1],
        ],
    }


def evaluate_agent(args) -> dict:
    from duplex import weights
    from duplex.agent import load_agent

    whisper = Whisper(weights.whisper_base(), args.threads)
    agent = load_agent(args.agent)
    agent.open(0, seed=args.seed)
    texts = json.loads((args.questions / "questions.json").read_text())
    rows, ticks, questions = [], [], []
    for name, text in texts.items():
        wave, rate_hz = soundfile.read(args.questions / name, dtype="float32")
        questions.append(soxr.resample(wave, rate_hz, SAMPLE_RATE).astype(np.float32))
        row = play(agent, questions[-1])
        voice, seconds = row.pop("voice"), row.pop("tick_s")
        ticks += seconds
        args.out.mkdir(parents=True, exist_ok=True)
        soundfile.write(args.out / f"answer-{name}", voice, SAMPLE_RATE)
        rows.append({"question": text, **row, "recogniser": whisper.text(voice)})
        print(json.dumps(rows[-1]), flush=True)
    transcripts = {}
    for folder in args.pool:
        agent.close(0)
        agent.open(0, seed=args.seed)
        texts, waves = chosen(folder, args.clips)
        heard = [play(agent, wave)["heard"] for wave in waves]
        transcripts[f"transcript WER, {folder.name} ({len(texts)} clips)"] = round(
            error_rate(texts, heard), 3
        )
        (args.out / f"transcripts-{folder.name}.txt").write_text(
            "".join(f"{a} | {b}\n" for a, b in zip(texts, heard, strict=True))
        )
    talk = {}
    if args.talk:
        agent.close(0)
        agent.open(0, seed=args.seed)
        talk["long conversation"] = long_talk(agent, questions, args.talk)
    delays = [row["delay_s"] for row in rows if row["delay_s"] is not None]
    return {
        "user transcript WER": round(
            error_rate(column(rows, "question"), column(rows, "heard")), 3
        ),
        **transcripts,
        **talk,
        "voice WER": round(error_rate(column(rows, "said"), column(rows, "recogniser")), 3),
        "answered": f"{len(delays)} of {len(rows)}",
        "delay median, largest s": [round(float(f(delays)), 2) for f in (np.median, np.max)]
        if delays
        else None,
        "tick ms p50, p99": [round(1000 * float(np.quantile(ticks, q)), 1) for q in (0.5, 0.99)],
        "ticks over the budget": float(np.mean(np.array(ticks) * 1000 > TICK_MS)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "what", choices=["agent", "ears", "voice", "align", "facts", "context", "turns"]
    )
    parser.add_argument(
        "--run",
        type=Path,
        action="append",
        default=[],
        help="align: folder of a run, repeatable",
    )
    parser.add_argument("--agent", type=Path, help="agent folder; the one that ships if not given")
    parser.add_argument(
        "--questions", type=Path, default=Path("client/questions"), help="wavs and questions.json"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/evaluation"), help="folder for sounds and results"
    )
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        default=[],
        help="a pool of speech, whose valid part is used",
    )
    parser.add_argument(
        "--noise", type=Path, help="ears, turns: data folder whose audio.jsonl lists noises"
    )
    parser.add_argument(
        "--clips", type=int, default=60, help="clips of each kind; turns: pauses, and so on"
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="ears, turns: of noise, tones and silence"
    )
    parser.add_argument("--hour", type=float, default=60.0, help="ears: minutes of the long stream")
    parser.add_argument(
        "--encoder", type=Path, help="ears: folder of another encoder than the agent's"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="ears: how much past and how many units each layer uses instead",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        help="ears: log.jsonl of an encoder's training, for a picture of its error rates",
    )
    parser.add_argument(
        "--questions-audio",
        type=Path,
        help="facts, context: folder of the spoken questions, made if missing",
    )
    parser.add_argument(
        "--count", type=int, default=300, help="facts: questions; context: conversations"
    )
    parser.add_argument("--slots", type=int, default=6, help="facts, turns: sessions side by side")
    parser.add_argument(
        "--talk",
        type=float,
        default=0.0,
        help="agent: minutes of a long conversation that are added",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the recogniser")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    name = "training" if args.plot else "probe" if args.probe else args.what
    args.result = args.out / f"{name}{f'-{args.encoder.name}' if args.encoder else ''}.json"
    ears = plot_training if args.plot else probe if args.probe else evaluate_ears
    ways = {"agent": evaluate_agent, "ears": ears, "voice": evaluate_voice, "align": evaluate_align}
    ways |= {
        "facts": evaluate_facts,
        "context": evaluate_context,
        "turns": evaluate_turns,
    }
    result = ways[args.what](args)
    print(json.dumps(result, indent=1))
    args.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
