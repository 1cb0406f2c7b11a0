"""Scenes with sound: written dialogues laid on a time line, said by voices of pools, as two-channel recordings with word times.

    python -m duplex.training.dialogues --corpus corpus/dialogues.jsonl --pool pools/user --noise DATA --count 200 --out dialogues

duplex.training.duplex draws such scenes as it goes; written out they can be listened to, edited, and read by duplex.training.prepare and by
any program that knows moshi-finetune's layout: data.jsonl, and for each scene a stereo .wav (left the agent, in Hibari's voice,
right the user in a room with noise) with a .json of [word, [start, end], speaker] and of what happens in it.

Times: answers begin about 0.5 s after the last word, as early as an agent can that must be sure of the end; people leave 0.2 s
(Stivers et al. 2009, doi 10.1073/pnas.0903616106; Heldner and Edlund 2010, doi 10.1016/j.wocn.2010.08.002), and take 0.2 to
1.6 s here before they go on. Hesitations last 0.4 to 1.5 s, two in five answers are interrupted, one in five long ones gets a
back-channel.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from duplex.training.data.augment import active_power, augment, load_noise
from duplex.training.data.normalize import heard_form
from duplex.training.data.pool import Pool
from duplex.training.scenes.sequence import (
    VOICE_DELAY_SECONDS,
    AgentTurn,
    Scene,
    Word,
    converse,
    guess_times,
    read_dialogues,
    voice_seconds,
)

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES, VOICE_RMS

ONSET_SECONDS = 0.08  # of sound before an utterance's first word
SPEEDS = (0.8, 1.3)  # of the agent's voice, to take as long as the scene was laid out for
FADE_SECONDS = 0.02  # where the agent breaks off


class Cast:
    """Who can say what: the utterances of speech pools, by their text."""

    def __init__(self, folders: list[Path]):
        self.by_text: dict[str, list[tuple[Pool, int]]] = {}
        for folder in folders:
            pool = Pool(folder)
            for i, entry in enumerate(pool.entries):
                if entry["words"]:
                    self.by_text.setdefault(entry["text"], []).append((pool, i))

    def scene(self, turns: list[dict], rng: np.random.Generator) -> Scene | None:
        """A dialogue's turns on a time line, the user's words with their sound. None where a sentence was never said."""
        if any(t["role"] == "user" and t["text"] not in self.by_text for t in turns):
            return None

        def times(text: str) -> list[Word]:
            if text not in self.by_text:  # a back-channel; without a sound it is left out below
                return guess_times(text, rng)
            pool, i = self.by_text[text][rng.integers(len(self.by_text[text]))]
            return voiced(pool.wave(i), pool.entries[i]["words"])

        scene = converse(turns, times, rng)
        scene.user = [turn for turn in scene.user if all(w.sound for w in turn.words)]
        for turn in scene.user:
            turn.words = [w for w in turn.words if w.text]
        return scene if all(turn.words for turn in scene.user) else None


def voiced(wave: np.ndarray, times: list) -> list[Word]:
    """An utterance [samples] as words with their parts of it: each up to the next, the first from a little before it."""
    words = []
    for k, (raw, start, end) in enumerate(times):
        begin = max(0.0, start - ONSET_SECONDS) if k == 0 else start
        until = len(wave) if k + 1 == len(times) else int(times[k + 1][1] * SAMPLE_RATE)
        words.append(
            Word(
                heard_form(raw),
                start,
                end,
                (wave, int(begin * SAMPLE_RATE), until),
                raw.endswith(","),
            )
        )
    return words


def perform(scene: Scene, noises, rng) -> np.ndarray:
    """The user's channel [samples]: utterances where the scene puts their words, then noise and a room over everything."""
    total = int(scene.seconds / TICK_S) * TICK_SAMPLES
    channel = np.zeros(total, np.float32)
    for turn in scene.user:
        for i, word in enumerate(turn.words):
            wave, start, end = word.sound
            at = int((word.start - (ONSET_SECONDS if i == 0 else 0.0)) * SAMPLE_RATE)
            part = wave[max(0, start) : end][: total - max(at, 0)]
            channel[max(at, 0) : max(at, 0) + len(part)] += part
    return augment(channel, active_power(channel), noises, rng)


def answer(scene: Scene, say: Callable) -> tuple[np.ndarray, list]:
    """The agent's channel [samples] and its words [[word, [start, end]], ...].

    say(text, speed) -> wave [samples], [[word, start, end], ...] from its beginning.
    """
    channel, words = np.zeros(int(scene.seconds / TICK_S) * TICK_SAMPLES, np.float32), []
    for speech in scene.agent:
        wave, times = say(speech.text, 1.0)
        speed = float(np.clip(len(wave) / SAMPLE_RATE / voice_seconds(speech.text), *SPEEDS))
        wave, times = say(speech.text, speed)
        begin = speech.start + VOICE_DELAY_SECONDS
        end = min(begin + len(wave) / SAMPLE_RATE, falls_silent(speech), len(channel) / SAMPLE_RATE)
        at, count = int(begin * SAMPLE_RATE), int(max(0.0, end - begin) * SAMPLE_RATE)
        part = wave[:count] * (VOICE_RMS / np.sqrt(active_power(wave)))
        fade = min(count, int(FADE_SECONDS * SAMPLE_RATE))
        part[count - fade :] *= np.linspace(1.0, 0.0, fade)
        channel[at : at + count] += part
        words += [
            [word, [round(begin + first, 3), round(begin + last, 3)]]
            for word, first, last in times
            if begin + last <= end
        ]
    return channel, words


def falls_silent(speech: AgentTurn) -> float:
    """Second at which an agent's turn ends early: with the first word of whoever interrupts it."""
    return speech.stopped_by.words[0].end if speech.stopped_by else float("inf")


def write(scene: Scene, say: Callable, noises, rng, path: Path) -> float:
    """path.wav and path.json -> seconds."""
    user, (agent, said) = perform(scene, noises, rng), answer(scene, say)
    heard = [
        [w.text, [round(w.start, 3), round(w.end, 3)], "USER"]
        for turn in scene.user
        for w in turn.words
    ]
    words = sorted([[*word, "SPEAKER_MAIN"] for word in said] + heard, key=lambda word: word[1])
    turns = [
        {
            "start": round(t.words[0].start, 3),
            "end": round(t.words[-1].end, 3),
            "for_the_agent": t.answered,
        }
        for t in scene.user
    ]
    stops = [round(falls_silent(speech), 3) for speech in scene.agent if speech.stopped_by]
    stereo = np.stack([agent, user], 1)
    soundfile.write(path.with_suffix(".wav"), stereo, SAMPLE_RATE, "PCM_16")
    described = {"alignments": words, "user_turns": turns, "agent_stops": stops}
    path.with_suffix(".json").write_text(
        json.dumps(described, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return len(stereo) / SAMPLE_RATE


def hibari() -> Callable:
    from duplex.training.data.synthesizers import HibariVoice

    voice = HibariVoice()

    def say(text: str, speed: float) -> tuple[np.ndarray, list]:
        wave, _, _, words = voice.say(text, np.random.default_rng(0), speed=speed)
        return wave.astype(np.float32), words or [[text, 0.0, len(wave) / SAMPLE_RATE]]

    return say


def run(args, say: Callable) -> int:
    """-> scenes written; less than asked for where the pools lack too many of the sentences."""
    dialogues, cast = read_dialogues(args.corpus, args.split), Cast(args.pool)
    dialogues = [
        d
        for d in dialogues
        if all(t["role"] != "user" or t["text"] in cast.by_text for t in d["turns"])
    ]
    if not dialogues:
        raise SystemExit(
            f"No dialogue of {args.corpus} can be spoken: the pools have none of its users' sentences."
        )
    noises = load_noise(args.noise) if args.noise else []
    args.out.mkdir(parents=True, exist_ok=True)
    lines, rng = [], np.random.default_rng(args.seed)
    for _ in range(20 * args.count):  # a scene may fail: a voice's words without letters
        if len(lines) == args.count:
            break
        scene = cast.scene(dialogues[rng.integers(len(dialogues))]["turns"], rng)
        if scene is None:
            continue
        name = f"scene-{len(lines):05d}"
        lines.append(
            {
                "path": f"{name}.wav",
                "duration": round(write(scene, say, noises, rng, args.out / name), 3),
            }
        )
    (args.out / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(
        f"{len(lines)} scenes, {sum(line['duration'] for line in lines) / 60:.1f} minutes, in {args.out}"
    )
    return len(lines)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--corpus", type=Path, required=True, help="dialogues.jsonl of duplex.training.corpus"
    )
    parser.add_argument(
        "--split",
        choices=["train", "valid"],
        default="train",
        help="of the corpus (default %(default)s)",
    )
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        required=True,
        help="speech pool of its user texts, repeatable",
    )
    parser.add_argument("--noise", type=Path, help="data folder whose audio.jsonl lists noises")
    parser.add_argument(
        "--count", type=int, default=100, help="scenes to write (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for data.jsonl and the scenes"
    )
    return parser.parse_args(arguments)


def main() -> None:
    run(parse_arguments(), hibari())


if __name__ == "__main__":
    main()
