"""Measure the ears: word error rates of what the encoder and the lexicon hear beside those of the offline teacher.

    python -m duplex.training.evaluate ears --pool pools/real --pool pools/many --noise DATA --out runs/evaluation
    python -m duplex.training.evaluate ears --encoder runs/encoder --pool ...    another encoder, without the agent's LM
    python -m duplex.training.evaluate ears --plot runs/encoder/log.jsonl        error rates over a training's time, as a picture

Every clip is one that no training heard (a pool's `valid` split: other speakers, other sentences). The teacher is Whisper
tiny.en, offline, on the same disturbed clip; what it heard stays in OUT/teacher.jsonl. Also: what the agent's LM writes down
of the clean clips, words invented in noise and silence and in the agent's own voice that leaks back, the tick's time, memory
and error rate over an hour. Started again with the same arguments it goes on where it stopped.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.signal
import soxr
import torch
from duplex.training.data.augment import active_power, load_noise, noise_stretch, room_response
from duplex.training.data.normalize import heard_form
from duplex.training.data.pool import Pool
from duplex.training.evaluation.error_rate import error_rate
from duplex.training.evaluation.voice import sentences, speak
from duplex.training.scenes.recognition import SpeechRecognizer, join_words, load_recognizer
from torch.nn import functional as F

from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.bench.recognizer import Whisper
from duplex.cpu.encoder import compile_encoder
from duplex.events import Transcript
from duplex.model import features
from duplex.model.beam_search import BeamState, decode, n_best

AFTER_TICKS = 10  # the last words come late
LEAD_TICKS = 6  # of silence before a clip that the agent hears, as in any room
SETTLE_TICKS = 25  # after a clip, in which its LM may still write
SLOTS = 8
LEAK_DB = -20.0
HARD = {"SNR 20 dB": 20.0, "SNR 10 dB": 10.0, "SNR 5 dB": 5.0, "SNR 0 dB": 0.0}


def disturbances(noises: list[np.ndarray]) -> dict:
    """{name: function (wave, its own random numbers) -> wave}"""

    def noisy(decibel):
        def add(wave, rng):
            return wave + np.sqrt(active_power(wave) * 10 ** (-decibel / 10)) * noise_stretch(
                len(wave), noises, rng
            )

        return add

    def room(wave, rng):
        return scipy.signal.fftconvolve(wave, room_response(rng))[: len(wave)].astype(np.float32)

    def telephone(wave, rng):
        narrow = soxr.resample(soxr.resample(wave, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)
        return np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)].astype(np.float32)

    def level(decibel):
        return lambda wave, rng: (
            (wave * 10 ** (decibel / 20) / (np.abs(wave).max() + 1e-9))
            .clip(-1, 1)
            .astype(np.float32)
        )

    table = {
        "clean": lambda wave, rng: wave,
        **{name: noisy(decibel) for name, decibel in HARD.items()},
    }
    return table | {
        "room": room,
        "telephone": telephone,
        "peak -40 dB": level(-40),
        "clipped by 12 dB": level(12),
    }


def open_ears(agent: Path, encoder: Path | None) -> SpeechRecognizer:
    """The ears of an agent folder, or another encoder with the agent's lexicon."""
    return load_recognizer(encoder or agent / "encoder", agent / "lexicon")


@torch.inference_mode()
def transcribe(ears: SpeechRecognizer, wave: np.ndarray, turn: bool = True) -> str:
    """What is heard of a clip [samples]: the likeliest reading of it as one turn, or else the words as they were given."""
    wave = torch.from_numpy(wave.astype(np.float32))
    wave = F.pad(wave, (0, TICK_SAMPLES * AFTER_TICKS + -len(wave) % TICK_SAMPLES))[None]
    mel, _ = features.log_mel(wave, features.initial_state(1))
    reading = BeamState()
    given = [
        decode(ears.lexicon, reading, tick.numpy())
        for tick in ears.encoder(mel)[1][0].split(ENCODER_FRAMES_PER_TICK)
    ]
    return " ".join(n_best(ears.lexicon, reading, 1)[0][0]) if turn else join_words(given)


class Offline:
    """A recogniser of whole clips, and a file that keeps what it heard: it hears no sound twice."""

    def __init__(self, path: Path, recognise: Callable[[np.ndarray], str]):
        """recognise: wave float32 [N] at 24 kHz -> its text."""
        self.path = path
        self.recognise = recognise
        self.heard = (
            dict(json.loads(line) for line in path.read_text().splitlines())
            if path.exists()
            else {}
        )

    def transcribe(self, wave: np.ndarray) -> str:
        key = hashlib.sha256(wave.tobytes()).hexdigest()[:16]
        if key not in self.heard:
            self.heard[key] = self.recognise(wave)
            with open(self.path, "a") as file:
                file.write(json.dumps([key, self.heard[key]]) + "\n")
        return self.heard[key]


def written(agent, waves: list[np.ndarray]) -> list[str]:
    """What the agent's LM writes down of each clip, each in a new session, as many side by side as there are slots."""
    texts, order = (
        [Transcript() for _ in waves],
        sorted(range(len(waves)), key=lambda i: len(waves[i])),
    )
    for begin in range(0, len(waves), agent.slots):
        group = order[begin : begin + agent.slots]  # of like lengths
        ticks = LEAD_TICKS + -(-len(waves[group[-1]]) // TICK_SAMPLES) + SETTLE_TICKS
        sound = np.zeros((agent.slots, ticks * TICK_SAMPLES), np.float32)
        for slot, i in enumerate(group):
            agent.open(slot, seed=0)
            sound[slot, LEAD_TICKS * TICK_SAMPLES :][: len(waves[i])] = waves[i]
        for tick in np.split(sound, ticks, axis=1):
            _, events = agent.step(tick, [*range(len(group))])
            for slot, i in enumerate(group):
                for event in events[slot]:
                    texts[i].read(event)
        for slot in range(len(group)):
            agent.close(slot)
    return [transcript.user_text for transcript in texts]


@torch.inference_mode()
def tick_times(agent) -> list[float]:
    """ms a tick takes for features, encoder and lexicon, as they are served, with all slots hearing noise: median, 99th percentile.

    Third the median of the processor's time, which other programs lengthen less.
    """
    mel_state, state, times = (
        features.initial_state(agent.slots),
        agent.parts.encoder.initial_state(agent.slots),
        [],
    )
    readings = [BeamState() for _ in range(agent.slots)]
    for _ in range(300):
        wave = 0.05 * torch.randn(agent.slots, TICK_SAMPLES)
        begun = time.perf_counter(), time.process_time()
        mel, mel_state = features.log_mel(wave, mel_state)
        (_, phones), state = agent.parts.encoder.step(mel, state)
        for reading, log_probs in zip(readings, phones.numpy(), strict=True):
            decode(agent.parts.lexicon, reading, log_probs)
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    wall, processor = 1000 * np.array(times[50:]).T
    return np.round([np.median(wall), np.quantile(wall, 0.99), np.median(processor)], 1).tolist()


def chosen(folder: Path, count: int) -> tuple[list[str], list[np.ndarray]]:
    pool = Pool(folder, split="valid")
    fit = [
        i
        for i, e in enumerate(pool.entries)
        if len(e["text"].split()) >= 3 and e["samples"] < 12 * SAMPLE_RATE
    ]
    fit = fit[:: max(1, len(fit) // count)][:count]
    return [pool.entries[i]["text"] for i in fit], [pool.wave(i) for i in fit]


@torch.inference_mode()
def long_run(
    ears: SpeechRecognizer, seconds: float, clips: tuple[list[str], list[np.ndarray]]
) -> dict:
    """Clips over and over through one stream: WER of its first and of its last clips, memory before and after."""
    texts, waves = clips
    mel_state, state = features.initial_state(1), ears.encoder.initial_state(1)
    size, memory = state_bytes(state), resident_megabytes()
    reading, heard, played, n = BeamState(), [], 0.0, 0
    while played < seconds:
        wave = torch.from_numpy(waves[n % len(waves)])
        wave = F.pad(wave, (0, TICK_SAMPLES * AFTER_TICKS + -len(wave) % TICK_SAMPLES))
        words = []
        for tick in wave.view(-1, 1, TICK_SAMPLES):
            mel, mel_state = features.log_mel(tick, mel_state)
            (_, log_probs), state = ears.encoder.step(mel, state)
            words.append(decode(ears.lexicon, reading, log_probs[0].numpy()))
        heard.append((texts[n % len(texts)], join_words(words)))
        played, n = played + len(wave) / SAMPLE_RATE, n + 1
    ends = (heard[: len(texts)], heard[-len(texts) :])
    first, last = (error_rate([a for a, _ in part], [b for _, b in part]) for part in ends)
    return {
        "minutes": round(played / 60, 1),
        "WER of the first and of the last clips": [round(first, 3), round(last, 3)],
        "bytes of the state, before and after": [size, state_bytes(state)],
        "MB of the process, before and after": [memory, resident_megabytes()],
    }


def state_bytes(state) -> int:
    return sum(
        t.numel() * t.element_size()
        for t in (state.keys, state.values, state.mel_tail, state.conv_tail)
    )


def resident_megabytes() -> int:
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(line.split()[1]) // 1024


def wordless(
    noises: list[np.ndarray], minutes: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Stretches of 20 s of noises at many levels, tones and silence."""
    waves, samples = [], SAMPLE_RATE * 20
    for i in range(max(1, round(minutes * 3))):
        level = 10 ** (rng.uniform(-60, -15) / 20)
        if i % 5 == 0:
            wave = np.zeros(samples, np.float32)
        elif i % 5 == 1:  # tones that come and go, as music does
            steps = np.repeat(220 * 2 ** (rng.integers(0, 25, samples // 6000 + 1) / 12), 6000)[
                :samples
            ]
            wave = level * np.sin(2 * np.pi * np.cumsum(steps) / SAMPLE_RATE)
        else:
            wave = level * noise_stretch(samples, noises, rng)
        waves.append(wave.astype(np.float32))
    return waves


def words_a_minute(texts: list[str], waves: list[np.ndarray]) -> float:
    return round(
        sum(len(heard_form(text).split()) for text in texts)
        / (sum(map(len, waves)) / SAMPLE_RATE / 60),
        2,
    )


def pool_table(
    args, ears: SpeechRecognizer, teacher: Offline, noises: list[np.ndarray], folder: Path
) -> dict:
    """{disturbance: [our WER, the teacher's, how many times the teacher's ours is]}"""
    texts, waves = chosen(folder, args.clips)
    table = {}
    for name, disturb in disturbances(noises).items():
        heard = [
            disturb(wave, np.random.default_rng([args.seed, i])) for i, wave in enumerate(waves)
        ]
        ours, theirs = (
            [transcribe(ears, wave) for wave in heard],
            [teacher.transcribe(wave) for wave in heard],
        )
        rates = error_rate(texts, ours), error_rate(texts, theirs)
        table[name] = [
            round(rates[0], 3),
            round(rates[1], 3),
            round(rates[0] / max(rates[1], 1e-3), 2),
        ]
        print(folder.name, name, table[name], flush=True)
        if name == "clean":
            lines = [" | ".join(line) + "\n" for line in zip(texts, ours, theirs, strict=True)]
            (args.out / f"{args.result.stem}-{folder.name}.txt").write_text("".join(lines))
    return table


def digest(*folders: Path) -> str:
    """Of all weights in these folders."""
    files = sorted(path for folder in folders for path in folder.rglob("model.safetensors"))
    return hashlib.sha256(
        b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)
    ).hexdigest()[:12]


def evaluate_ears(args) -> dict:
    from duplex import weights
    from duplex.agent import load_agent

    assert args.pool and args.noise, "ears need --pool and --noise"
    folder = args.agent or weights.DEFAULT_AGENT
    ears, noises = open_ears(folder, args.encoder), load_noise(args.noise)
    compile_encoder(ears.encoder)  # as it serves
    whisper = Whisper(weights.whisper_tiny(), args.threads)
    teacher = Offline(args.out / "teacher.jsonl", whisper.text)
    setting = {key: getattr(args, key) for key in ("clips", "minutes", "hour", "seed")}
    setting["weights"] = digest(args.encoder or folder)
    result = json.loads(args.result.read_text()) if args.result.exists() else {}
    result = result if result.get("setting") == setting else {"setting": setting}

    def measure(name: str, work: Callable):
        """Unless an interrupted run has done so."""
        if name not in result:
            result[name] = work()
            args.result.write_text(json.dumps(result, indent=1) + "\n")
            print(name, result[name], flush=True)

    for pool in args.pool:
        measure(
            f"WER on {pool.name}: ours, teacher's, ratio",
            lambda pool=pool: pool_table(args, ears, teacher, noises, pool),
        )
    quiet = wordless(noises, args.minutes, np.random.default_rng(args.seed))
    measure(
        "words a minute in noise, tones and silence",
        lambda: words_a_minute([transcribe(ears, wave, turn=False) for wave in quiet], quiet),
    )
    measure("one long stream", lambda: long_run(ears, 60 * args.hour, chosen(args.pool[0], 12)))
    for slots in (1, SLOTS):
        agent = load_agent(args.agent, slots=slots)
        measure(
            f"ms a tick of features, encoder and lexicon, batch {slots}: median, p99, CPU",
            lambda agent=agent: tick_times(agent),
        )
    leak = [wave * 10 ** (LEAK_DB / 20) for wave in speak(agent, sentences("heldout")[:30])]
    measure(
        f"words a minute in the agent's voice at {LEAK_DB:.0f} dB",
        lambda: words_a_minute([transcribe(ears, wave, turn=False) for wave in leak], leak),
    )
    if args.encoder is None:  # the agent's LM knows only the agent's encoder
        for pool in args.pool:
            texts, waves = chosen(pool, args.clips)
            name = f"LM's transcript: WER on {pool.name}, clean"
            measure(name, lambda t=texts, w=waves: round(error_rate(t, written(agent, w)), 3))
        for name, waves in (
            ("noise, tones and silence", quiet),
            (f"the agent's voice at {LEAK_DB:.0f} dB", leak),
        ):
            measure(
                f"LM's transcript: words a minute in {name}",
                lambda w=waves: words_a_minute(written(agent, w), w),
            )
    return result


def plot_training(args) -> dict:
    """The error rates in a training's log over its minutes, a line for each pool -> the last of each.

    Of words if they were measured (duplex.training.encoder --lexicon), else of phones.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logged = [json.loads(line) for line in args.plot.read_text().splitlines()]
    key, what = (
        ("wer", "words") if any("wer" in line for line in logged) else ("phone_errors", "phones")
    )
    lines = [line for line in logged if key in line]
    figure, axis = pyplot.subplots(figsize=(8, 4.5))
    for pool in dict.fromkeys(line["pool"] for line in lines):
        points = [(line["minutes"], 100 * line[key]) for line in lines if line["pool"] == pool]
        axis.plot(
            *zip(*points, strict=True),
            label=f"{pool}: {points[-1][1]:.1f} %",
            marker=".",
            markersize=3,
        )
    axis.set(
        xlabel="minutes of training",
        ylabel=f"wrong {what}, %",
        ylim=(0, 100),
        title="Clips kept aside",
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(args.result.with_suffix(".png"), dpi=100)
    return {line["pool"]: [line["minutes"], line[key]] for line in lines}
