"""Scenes with sound: written dialogues said by voices of pools, as two-channel recordings.

    python -m duplex.training.dialogues --corpus corpus/dialogues.jsonl --pool pools/user \\
        --noise DATA --count 200 --out dialogues

duplex.training.duplex draws such scenes as it goes; written out they can be listened to, edited,
and read by duplex.training.prepare and by any program that knows moshi-finetune's layout:
data.jsonl, and for each scene a stereo .wav (left the agent, in Hibari's voice, right the user in a
room with noise) with a .json of [word, [start, end], speaker] and of what happens in it.

Times: answers begin about 0.5 s after the last word, as early as an agent can that must be sure of
the end; people leave 0.2 s (Stivers et al. 2009, doi 10.1073/pnas.0903616106; Heldner and Edlund
2010, doi 10.1016/j.wocn.2010.08.002), and take 0.2 to 1.6 s here before they go on. Hesitations
last 0.4 to 1.5 s, two in five answers are interrupted, one in three long ones gets a backchannel.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.training.common.options import add_noise, existing_file, pool_folder
from duplex.training.data.augment import load_noise
from duplex.training.data.synthesizers import HibariVoice
from duplex.training.scenes.render import (
    Say,
    UtteranceIndex,
    interrupted_at,
    render_agent_channel,
    render_user_channel,
)
from duplex.training.scenes.scene import Scene, read_dialogues


def write_scene(
    scene: Scene, say: Say, noises: list[np.ndarray], rng: np.random.Generator, path: Path
) -> float:
    """Write path.wav and path.json. Returns the seconds of the scene."""
    user = render_user_channel(scene, noises, rng)
    agent, said = render_agent_channel(scene, say)
    stereo = np.stack([agent, user], 1)
    soundfile.write(path.with_suffix(".wav"), stereo, SAMPLE_RATE, "PCM_16")
    text = json.dumps(describe_scene(scene, said), ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return len(stereo) / SAMPLE_RATE


def describe_scene(scene: Scene, said: list) -> dict:
    """What a scene's .json holds. said: the agent's words [[word, [start, end]], ...]."""
    words = [[*word, "SPEAKER_MAIN"] for word in said]
    turns = []
    for turn in scene.user:
        for word in turn.words:
            words.append([word.text, [round(word.start, 3), round(word.end, 3)], "USER"])
        start = round(turn.words[0].start, 3)
        end = round(turn.words[-1].end, 3)
        turns.append({"start": start, "end": end, "for_the_agent": turn.answered})
    stops = [round(interrupted_at(speech), 3) for speech in scene.agent if speech.stopped_by]
    words.sort(key=lambda word: word[1])
    return {"alignments": words, "user_turns": turns, "agent_stops": stops}


def hibari() -> Say:
    """The agent's own voice."""
    voice = HibariVoice()

    def say(text: str, speed: float) -> tuple[np.ndarray, list]:
        wave, _, _, words = voice.say(text, np.random.default_rng(0), speed=speed)
        return wave.astype(np.float32), words or [[text, 0.0, len(wave) / SAMPLE_RATE]]

    return say


def run(args: argparse.Namespace, say: Say) -> int:
    """Write scenes as the arguments say.

    Returns how many; fewer than asked for where the pools lack too many of the sentences.
    SystemExit where they have none.
    """
    index = UtteranceIndex(args.pool)
    dialogues = [
        dialogue
        for dialogue in read_dialogues(args.corpus, args.split)
        if all(t["role"] != "user" or t["text"] in index.by_text for t in dialogue["turns"])
    ]
    if not dialogues:
        raise SystemExit(
            f"No dialogue of {args.corpus} can be spoken: the pools have none of its users' "
            "sentences."
        )
    noises = load_noise(args.noise) if args.noise else []
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    lines = []
    for _ in range(20 * args.count):  # A scene may fail: a voice's words without letters.
        if len(lines) == args.count:
            break
        scene = index.scene(dialogues[rng.integers(len(dialogues))]["turns"], rng)
        if scene is None:
            continue
        name = f"scene-{len(lines):05d}"
        seconds = write_scene(scene, say, noises, rng, args.out / name)
        lines.append({"path": f"{name}.wav", "duration": round(seconds, 3)})
    (args.out / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    minutes = sum(line["duration"] for line in lines) / 60
    print(f"{len(lines)} scenes, {minutes:.1f} minutes, in {args.out}")
    return len(lines)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus",
        type=existing_file,
        required=True,
        metavar="FILE",
        help="dialogues.jsonl of duplex.training.corpus",
    )
    parser.add_argument(
        "--split",
        choices=["train", "valid"],
        default="train",
        help="of the corpus (default %(default)s)",
    )
    parser.add_argument(
        "--pool",
        type=pool_folder,
        action="append",
        required=True,
        metavar="FOLDER",
        help="speech pool of its user texts, repeatable",
    )
    add_noise(parser)
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
