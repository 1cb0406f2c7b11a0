"""Synthetic speech with exact word times: texts in, a speech pool out.

    python -m duplex.training.speech --texts texts.txt --out pools/heart --voices heart --hours 6
    python -m duplex.training.speech --texts texts.txt --out pools/many --voices many --hours 12
    python -m duplex.training.speech --texts texts.txt --out pools/kokoro --voices kokoro --kokoro package/voices --hours 3
    python -m duplex.training.speech --real DATA --out pools/real

`heart` is the agent's own voice (Hibari, Apache-2.0). `many` draws a new voice for every utterance: Hibari with
its fundamental frequency scaled and its spectra warped along frequency (another larynx, another tract), and smaller shares
of Piper "joe", of flite's four speakers and of espeak-ng (the last two are system programs). `kokoro` draws one of Kokoro's
voices or a mixture of two (Apache-2.0; the vectors are in the npm package kokoro-js: `npm pack kokoro-js@1.2.1`): American
and British ones, and accents of seven other languages. A pool is `audio.i16` (int16,
24 kHz, end to end) and `index.jsonl`; see `duplex.training.data.pool`.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import soundfile
import soxr
from duplex.training.make_scenes import KOKORO, Kokoro

from duplex import weights
from duplex.audio import CODEC_FRAME_SAMPLES, SAMPLE_RATE

HIBARI_FRAME_SECONDS = (
    600 / SAMPLE_RATE
)  # 25 ms: durations count pairs of the 12.5 ms frames of its spectra
DURATIONS = (
    "/Cast_32_output_0"  # the graph's rounded frames per phone, not among its declared outputs
)
ESPEAK_SHARE, FLITE_SHARE, PIPER_SHARE = 0.03, 0.12, 0.05  # of `many`; Hibari speaks the rest
SPACE = 16  # Hibari's and Kokoro's id of the space between words
KOKORO_DURATIONS = "/encoder/Clip_output_0"  # frames of 25 ms per phone
KEPT = (
    "af_kore",
    "am_liam",
    "bf_lily",
    "bm_lewis",
    "j*",
)  # Kokoro's voices that only measure: no training hears them


def warp(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """Stretch [bins, frames] along frequency by `factor` (> 1: a shorter vocal tract, formants move up)."""
    bins = np.arange(len(spectrum)) / factor
    low = np.minimum(bins.astype(int), len(spectrum) - 2)
    weight = np.clip(bins - low, 0, 1)[:, None].astype(np.float32)
    return spectrum[low] * (1 - weight) + spectrum[low + 1] * weight


class HibariVoice:
    """Hibari with its durations brought out and its voice made variable."""

    def __init__(self):
        import onnx
        import onnxruntime
        from hibari import Hibari

        self.tts = Hibari()
        model = onnx.load(self.tts.model_path)
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(DURATIONS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )

    def spectra(
        self, text: str, speed=1.0, pitch=1.0, tract=1.0
    ) -> tuple[list[np.ndarray], list[int], np.ndarray]:
        """-> what Hibari's signal processing is given (five spectra [601, frames], Hz [frames]), phone ids, frames per phone."""
        phones = self.tts.ids(" ".join(self.tts.phonemize(text)))
        feeds = {"ids": np.asarray([phones], np.int64), "speed": np.asarray([speed], np.float32)}
        *spectra, f0, durations = self.session.run(
            ["lh", "theta", "ln", "lr", "phi", "f0", DURATIONS], feeds
        )
        spectra = [
            spectrum[0] if tract == 1.0 else warp(spectrum[0], tract) for spectrum in spectra
        ]
        return [*spectra, f0[0] * pitch], phones, np.asarray(durations).reshape(-1).astype(int)

    def say(self, text: str, rng: np.random.Generator, speed=1.0, pitch=1.0, tract=1.0):
        """-> wave [samples] float32, phone ids, frames per phone, word times [[word, start, end]] (empty: unsure)."""
        from hibari import dsp

        parts, phones, durations = self.spectra(text, speed, pitch, tract)
        return (
            dsp.synth(*parts, rng),
            phones,
            durations.tolist(),
            word_times(text, phones, durations),
        )


def word_times(text: str, phones: list[int], durations: np.ndarray) -> list:
    """Times of the text's words: spaces in the phones bound them; [] where the counts differ (numbers, symbols)."""
    starts = (np.cumsum(durations) - durations) * HIBARI_FRAME_SECONDS
    before_pause = np.append(
        np.array(phones[1:]) < SPACE, True
    )  # such a phone's duration holds the pause as well
    ends = (
        starts + np.where(before_pause, np.minimum(durations, 2), durations) * HIBARI_FRAME_SECONDS
    )
    groups, group = [], []
    for i, phone in enumerate(phones):
        if phone == SPACE:
            groups, group = [*groups, group], []
        elif phone > SPACE:  # ids below are punctuation and the pads
            group.append(i)
    groups = [g for g in [*groups, group] if g]
    words = [w for w in text.split() if re.search(r"\w", w)]
    if len(groups) != len(words):
        return []
    return [
        [w, round(float(starts[g[0]]), 3), round(float(ends[g[-1]]), 3)]
        for w, g in zip(words, groups, strict=True)
    ]


def draw_voice(rng: np.random.Generator) -> dict:
    """Pitch, tract and speed of a made-up speaker: pitch and tract length go together, loosely."""
    size = rng.normal()  # > 0: a larger body
    pitch = float(np.clip(np.exp(-0.33 * size - 0.12 + 0.15 * rng.normal()), 0.42, 1.5))
    tract = float(np.clip(np.exp(-0.07 * size + 0.04 * rng.normal()), 0.80, 1.22))
    return {"pitch": pitch, "tract": tract, "speed": float(rng.uniform(0.75, 1.3))}


def resize(wave: np.ndarray, rate: int, size: float) -> np.ndarray:
    """A body `size` times as large: pitch and formants move down together, and so does the speed."""
    return soxr.resample(wave, rate, SAMPLE_RATE * size).astype(np.float32)


def say_piper(voice, text: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    from piper import SynthesisConfig

    size = float(rng.uniform(0.8, 1.15))
    config = SynthesisConfig(
        length_scale=float(rng.uniform(0.8, 1.25)) / size, noise_scale=float(rng.uniform(0.4, 0.8))
    )
    chunks = list(voice.synthesize(text, config))
    wave = np.concatenate([c.audio_float_array for c in chunks])
    return resize(wave, chunks[0].sample_rate, size), f"piper:joe,size={size:.2f}"


def kokoro_voices(folder: Path) -> dict[str, np.ndarray]:
    """The vectors [510, 256] of all of a folder's voices (*.bin, float32) but those that are kept for measuring."""
    files = [
        file
        for file in sorted(folder.glob("*.bin"))
        if not any(fnmatch(file.stem, kept) for kept in KEPT)
    ]
    if len(files) < 2:
        raise SystemExit(
            f"{len(files)} voices (*.bin) to speak with in {folder}; `npm pack kokoro-js@1.2.1` brings package/voices"
        )
    return {file.stem: np.fromfile(file, np.float32).reshape(-1, 256) for file in files}


class KokoroVoice:
    """Kokoro with its durations brought out; each utterance is said by one of the voices or by a mixture of two."""

    def __init__(self, folder: Path):
        import onnx

        model = onnx.load(weights.folder(KOKORO) / "model.onnx")
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(KOKORO_DURATIONS))
        self.kokoro = Kokoro(weights.folder(KOKORO), model.SerializeToString())
        self.voices = kokoro_voices(folder)

    def say(self, text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        """-> wave [samples] float32, the entry's fields."""
        first, second = rng.choice(list(self.voices), 2, replace=False)
        share = float(rng.choice([0.0, rng.uniform(0.25, 0.5)]))  # of the second voice
        size = float(rng.uniform(0.88, 1.14))
        voice = (1 - share) * self.voices[first] + share * self.voices[second]
        feeds = self.kokoro.feeds(text, voice, float(rng.uniform(0.8, 1.25)) * size)
        wave, durations = self.kokoro.session.run(None, feeds)
        phones = feeds["tokens"][0].tolist()
        times = word_times(text, phones, durations.ravel().astype(int))
        words = [[word, round(begin * size, 3), round(end * size, 3)] for word, begin, end in times]
        name = f"kokoro:{first}" + (f"+{share:.2f}*{second}" if share else "") + f",size={size:.2f}"
        return resize(wave.ravel(), SAMPLE_RATE, size), {"voice": name, "words": words}


def say_program(command: list[str]) -> tuple[np.ndarray, int]:
    """The sound and the rate of what a system program writes to the file named last on its command line."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, file.name], check=True, stdout=subprocess.DEVNULL)
        return soundfile.read(file.name, dtype="float32")


def say_flite(text: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """One of the four speakers of flite (CMU Arctic's awb, rms and slt, and kal), as they are or as another body."""
    speaker, size = rng.choice(["awb", "rms", "slt", "kal16"]), float(rng.uniform(0.85, 1.15))
    stretch = float(rng.uniform(0.85, 1.25)) / size
    wave, rate = say_program(
        ["flite", "-voice", speaker, "--setf", f"duration_stretch={stretch:.2f}", "-t", text, "-o"]
    )
    return resize(wave, rate, size), f"flite:{speaker},size={size:.2f}"


def say_espeak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """One of espeak-ng's English accents and variants (the system program; the share of it stays small)."""
    accent = rng.choice(["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"])
    voice = f"{accent}+{rng.choice(['m1', 'm3', 'm7', 'f1', 'f2', 'f4'])}"
    words_a_minute, pitch = str(rng.integers(130, 190)), str(rng.integers(25, 75))
    wave, rate = say_program(
        ["espeak-ng", "-v", voice, "-s", words_a_minute, "-p", pitch, text, "-w"]
    )
    return soxr.resample(wave, rate, SAMPLE_RATE), f"espeak:{voice}"


def speaker(voices: str, piper_path: str | None, kokoro: Path | None):
    """-> a function (text, rng) -> (wave, entry fields)."""
    if voices == "kokoro":
        return KokoroVoice(kokoro).say
    hibari, piper = HibariVoice(), None
    if piper_path:
        from piper import PiperVoice

        piper = PiperVoice.load(piper_path)

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        choice = rng.uniform() if voices == "many" else 1.0
        if choice < ESPEAK_SHARE:
            wave, name = say_espeak(text, rng)
            return wave, {"voice": name, "words": []}
        if choice < ESPEAK_SHARE + FLITE_SHARE:
            wave, name = say_flite(text, rng)
            return wave, {"voice": name, "words": []}
        if piper and choice < ESPEAK_SHARE + FLITE_SHARE + PIPER_SHARE:
            wave, name = say_piper(piper, text, rng)
            return wave, {"voice": name, "words": []}
        drawn = draw_voice(rng) if voices == "many" else {"speed": float(rng.uniform(0.92, 1.08))}
        wave, phones, durations, words = hibari.say(text, rng, **drawn)
        name = (
            "hibari:heart"
            if voices == "heart"
            else "hibari:" + ",".join(f"{k}={v:.2f}" for k, v in drawn.items())
        )
        return wave, {"voice": name, "words": words, "phones": phones, "durations": durations}

    return speak


def read_texts(files: list[Path]) -> list[str]:
    """The lines of all files, each different one once."""
    return list(
        dict.fromkeys(
            line.strip() for file in files for line in file.read_text().splitlines() if line.strip()
        )
    )


def real_utterances(data: Path):
    """Recorded speech with its prompts; the test speakers go to `valid` and are never trained on."""
    for line in (data / "audio.jsonl").read_text().splitlines():
        item = json.loads(line)
        if item["kind"] != "speech" or not item.get("text"):
            continue
        wave, rate = soundfile.read(data / item["file"], dtype="float32", always_2d=True)
        if len(wave) / rate > 25:
            continue
        wave = soxr.resample(wave[:, 0], rate, SAMPLE_RATE).astype(np.float32)
        split = "valid" if item.get("split") == "test" else "train"
        fields = {
            "voice": f"real:{item.get('speaker')}",
            "words": [],
            "source": item["source"],
            "split": split,
        }
        yield item["text"], wave, fields


def synthetic_utterances(texts: list[str], speak, seed: int, first: int):
    order = np.random.default_rng(seed).permutation(len(texts))
    for i in range(first, 10**9):
        text = texts[order[i % len(texts)]]
        rng = np.random.default_rng(
            [seed, i]
        )  # of its own, so a resumed run goes on with the same voices
        wave, fields = speak(text, rng)
        split = (
            "valid" if order[i % len(texts)] % 50 == 0 else "train"
        )  # by text: no sentence is in both
        yield text, wave, {**fields, "source": "synthetic", "split": split}


def write_pool(utterances, out: Path, hours: float) -> None:
    """utterances(first) yields text, wave [samples], entry fields; `controls` [codec frames, numbers] among them go into a file
    of their own (duplex.training.controls)."""
    out.mkdir(parents=True, exist_ok=True)
    index, started = out / "index.jsonl", time.time()
    done = [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []
    offset, numbers = done[-1]["offset"] + done[-1]["samples"] if done else 0, None
    with open(out / "audio.i16", "ab") as audio, open(index, "a") as lines, ExitStack() as opened:
        audio.truncate(offset * 2)  # an interrupted run may have written a wave without its line
        for count, (text, wave, fields) in enumerate(utterances(len(done))):
            if offset >= hours * 3600 * SAMPLE_RATE:
                break
            peak = float(np.abs(wave).max(initial=0))
            if peak == 0 or not np.isfinite(peak):
                continue
            samples = (wave * min(1.0, 0.98 / peak) * 32767).astype("<i2")
            audio.write(samples.tobytes())
            if (rows := fields.pop("controls", None)) is not None:
                numbers = numbers or opened.enter_context(open(out / "controls.f16", "ab"))
                rows = rows.astype("<f2")
                numbers.truncate(offset // CODEC_FRAME_SAMPLES * rows[0].nbytes)
                numbers.write(rows.tobytes()), numbers.flush()
            lines.write(
                json.dumps({"offset": offset, "samples": len(samples), "text": text, **fields})
                + "\n"
            )
            offset += len(samples)
            if count % 1000 == 0:
                audio.flush(), lines.flush()
                print(
                    f"{count} utterances, {offset / SAMPLE_RATE / 3600:.2f} h, {time.time() - started:.0f} s",
                    flush=True,
                )
    (out / "READY").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=Path, nargs="*", help="files with one text a line")
    parser.add_argument(
        "--real", type=Path, help="folder of recorded speech with audio.jsonl, instead of --texts"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the pool's folder; a run resumes there"
    )
    parser.add_argument("--voices", choices=["heart", "many", "kokoro"], default="many")
    parser.add_argument("--piper", help="path of a Piper voice (.onnx with its .json beside it)")
    parser.add_argument(
        "--kokoro", type=Path, help="folder of Kokoro's voice vectors (*.bin), for --voices kokoro"
    )
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.real:
        from itertools import islice

        write_pool(
            lambda first: islice(real_utterances(args.real), first, None), args.out, args.hours
        )
        return
    if args.voices == "kokoro" and not args.kokoro:
        parser.error("--voices kokoro needs --kokoro, the folder of its voice vectors")
    texts = read_texts(args.texts)
    speak = speaker(args.voices, args.piper, args.kokoro)
    write_pool(
        lambda first: synthetic_utterances(texts, speak, args.seed, first), args.out, args.hours
    )


if __name__ == "__main__":
    main()
