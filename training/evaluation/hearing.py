"""Measure hearing: word error rates of encoder and lexicon beside those of the offline teacher.

    python -m duplex.training.evaluate hearing --pool pools/real --pool pools/many --noise DATA \\
        --out runs/evaluation
    python -m duplex.training.evaluate hearing --encoder runs/encoder --pool ...    another encoder
    python -m duplex.training.evaluate hearing --plot runs/encoder/log.jsonl        a learning curve

Every clip is one that no training heard (a pool's `valid` split: other speakers, other sentences).
The teacher is Whisper tiny.en, offline, on the same disturbed clip; what it heard stays in
OUT/teacher.jsonl. Also: what the agent's LM writes down of the clean clips, words invented in noise
and silence and in the agent's own voice that leaks back, the tick's time, memory, and error rate
over an hour. With another encoder the LM is left out. Started again with the same arguments it goes
on where it stopped.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from duplex import weights
from duplex.agent import load_agent
from duplex.agent.loader import compiled
from duplex.audio import ENCODER_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.bench.recognizer import Whisper
from duplex.events import Transcript
from duplex.model import features
from duplex.model.beam_search import BeamState, decode, n_best
from duplex.model.parts import Parts
from duplex.training.data.augment import load_noise
from duplex.training.data.pool import Pool
from duplex.training.evaluation.disturbances import disturbances, wordless, words_per_minute
from duplex.training.evaluation.error_rate import error_rate
from duplex.training.evaluation.play import Script, Tick, in_ticks, play, tick_at
from duplex.training.evaluation.voice import speak
from duplex.training.scenes.recognition import SpeechRecognizer, join_words, load_recognizer
from duplex.training.text.templates import read_lines

# Ticks of silence after a clip, in which its last words are recognised.
AFTER_TICKS = 10


def open_recognizer(agent: Path, encoder: Path | None) -> SpeechRecognizer:
    """The recogniser of an agent folder, or another encoder with the agent's lexicon."""
    return load_recognizer(encoder or agent / "encoder", agent / "lexicon")


def as_served(recognizer: SpeechRecognizer) -> SpeechRecognizer:
    """The same recogniser, with the encoder compiled for this processor."""
    return replace(recognizer, encoder=compiled(Parts(encoder=recognizer.encoder)).encoder)


def with_silence(wave: np.ndarray) -> torch.Tensor:
    """wave, float32 [N] -> [1, N'], whole ticks with AFTER_TICKS of silence at the end."""
    sound = torch.from_numpy(wave.astype(np.float32))
    return F.pad(sound, (0, TICK_SAMPLES * AFTER_TICKS + -len(sound) % TICK_SAMPLES))[None]


@torch.inference_mode()
def transcribe(recognizer: SpeechRecognizer, wave: np.ndarray, is_turn: bool = True) -> str:
    """What is heard of a clip, float32 [N].

    The best hypothesis of it as one turn, or else the words as they were committed.
    """
    mel, _ = features.log_mel(with_silence(wave), features.initial_state(1))
    beam = BeamState()
    committed = [
        decode(recognizer.lexicon, beam, tick.numpy())
        for tick in recognizer.encoder(mel)[1][0].split(ENCODER_FRAMES_PER_TICK)
    ]
    return " ".join(n_best(recognizer.lexicon, beam, 1)[0][0]) if is_turn else join_words(committed)


class Teacher:
    """A recogniser of whole clips, and a file that keeps what it heard: it hears no sound twice."""

    def __init__(self, path: Path, recognise: Callable[[np.ndarray], str]):
        """recognise: wave float32 [N] at 24 kHz -> its text."""
        self.path = path
        self.recognise = recognise
        lines = path.read_text().splitlines() if path.exists() else []
        self.heard: dict[str, str] = dict(json.loads(line) for line in lines)

    def transcribe(self, wave: np.ndarray) -> str:
        """The text of wave, float32 [N] at 24 kHz."""
        key = hashlib.sha256(wave.tobytes()).hexdigest()[:16]
        if key not in self.heard:
            self.heard[key] = self.recognise(wave)
            with open(self.path, "a") as file:
                file.write(json.dumps([key, self.heard[key]]) + "\n")
        return self.heard[key]


def agent_transcripts(
    agent, waves: list[np.ndarray], lead_ticks: int = 6, settle_ticks: int = 25
) -> list[str]:
    """What the agent's LM writes down of each clip, each in a session of its own.

    lead_ticks: silence before a clip, as in any room; settle_ticks: after the longest of the clips
    that are heard side by side, in which the LM may still write.
    """

    def script(wave: np.ndarray, ticks: int) -> Script:
        sound = in_ticks(np.pad(wave, (lead_ticks * TICK_SAMPLES, 0)))

        def listen(slot: int) -> Generator[np.ndarray, Tick, str]:
            transcript = Transcript()
            for tick in range(ticks):
                for event in (yield tick_at(sound, tick)).events:
                    transcript.read(event)
            return transcript.user_text

        return listen

    order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
    scripts = []
    for begin in range(0, len(waves), agent.slots):
        group = order[begin : begin + agent.slots]  # of like lengths
        ticks = lead_ticks + len(in_ticks(waves[group[-1]])) + settle_ticks
        scripts += [script(waves[i], ticks) for i in group]
    texts = dict(zip(order, play(agent, scripts), strict=True))
    return [texts[i] for i in range(len(waves))]


@torch.inference_mode()
def tick_times(agent, ticks: int = 300, warm_up_ticks: int = 50) -> list[float]:
    """Times of a tick's features, encoder and lexicon as they are served, in ms.

    All slots hear noise. The median, the 99th percentile, and the median of the processor's time,
    which other programs lengthen less.
    """
    mel_state = features.initial_state(agent.slots)
    state = agent.parts.encoder.initial_state(agent.slots)
    times = []
    beams = [BeamState() for _ in range(agent.slots)]
    for _ in range(ticks):
        wave = 0.05 * torch.randn(agent.slots, TICK_SAMPLES)
        begun = time.perf_counter(), time.process_time()
        mel, mel_state = features.log_mel(wave, mel_state)
        (_, phones), state = agent.parts.encoder.step(mel, state)
        for beam, log_probs in zip(beams, phones.numpy(), strict=True):
            decode(agent.parts.lexicon, beam, log_probs)
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    wall, processor = 1000 * np.array(times[warm_up_ticks:]).T
    return np.round([np.median(wall), np.quantile(wall, 0.99), np.median(processor)], 1).tolist()


def valid_clips(folder: Path, count: int, max_s: float = 12) -> tuple[list[str], list[np.ndarray]]:
    """Texts and waves of at most `count` clips that no training heard, evenly over the pool.

    They have three words or more and are shorter than max_s.
    """
    pool = Pool(folder, split="valid")
    fit = [
        i
        for i, entry in enumerate(pool.entries)
        if len(entry["text"].split()) >= 3 and entry["samples"] < max_s * SAMPLE_RATE
    ]
    fit = fit[:: max(1, len(fit) // count)][:count]
    return [pool.entries[i]["text"] for i in fit], [pool.wave(i) for i in fit]


@torch.inference_mode()
def long_run(
    recognizer: SpeechRecognizer, seconds: float, clips: tuple[list[str], list[np.ndarray]]
) -> dict:
    """Clips over and over through one stream: WER of its first and of its last clips, memory."""
    texts, waves = clips
    mel_state = features.initial_state(1)
    state = recognizer.encoder.initial_state(1)
    state_before = state_bytes(state)
    memory_before = resident_megabytes()
    beam = BeamState()
    heard: list[tuple[str, str]] = []
    played_s = 0.0
    while played_s < seconds:
        number = len(heard) % len(waves)
        wave = with_silence(waves[number])
        words = []
        for tick in wave.view(-1, 1, TICK_SAMPLES):
            mel, mel_state = features.log_mel(tick, mel_state)
            (_, log_probs), state = recognizer.encoder.step(mel, state)
            words.append(decode(recognizer.lexicon, beam, log_probs[0].numpy()))
        heard.append((texts[number], join_words(words)))
        played_s += wave.shape[1] / SAMPLE_RATE
    ends = (heard[: len(texts)], heard[-len(texts) :])
    rates = [error_rate([a for a, _ in part], [b for _, b in part]) for part in ends]
    return {
        "minutes": round(played_s / 60, 1),
        "WER of the first and of the last clips": [round(rate, 3) for rate in rates],
        "bytes of the state, before and after": [state_before, state_bytes(state)],
        "MB of the process, before and after": [memory_before, resident_megabytes()],
    }


def state_bytes(state) -> int:
    """Size of an encoder's stream state."""
    tensors = (state.keys, state.values, state.mel_tail, state.conv_tail)
    return sum(t.numel() * t.element_size() for t in tensors)


def resident_megabytes() -> int:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def pool_table(
    args: argparse.Namespace,
    recognizer: SpeechRecognizer,
    teacher: Teacher,
    noises: list[np.ndarray],
    folder: Path,
) -> dict:
    """{disturbance: [our WER, the teacher's, how many times the teacher's ours is]}"""
    texts, waves = valid_clips(folder, args.clips)
    table = {}
    for name, disturb in disturbances(noises).items():
        disturbed = [
            disturb(wave, np.random.default_rng([args.seed, i])) for i, wave in enumerate(waves)
        ]
        ours = [transcribe(recognizer, wave) for wave in disturbed]
        theirs = [teacher.transcribe(wave) for wave in disturbed]
        our_rate = error_rate(texts, ours)
        their_rate = error_rate(texts, theirs)
        table[name] = [
            round(our_rate, 3),
            round(their_rate, 3),
            round(our_rate / max(their_rate, 1e-3), 2),
        ]
        print(folder.name, name, table[name], flush=True)
        if name == "clean":
            lines = [" | ".join(line) + "\n" for line in zip(texts, ours, theirs, strict=True)]
            (args.out / f"{args.result.stem}-{folder.name}.txt").write_text("".join(lines))
    return table


def digest(folder: Path) -> str:
    """Of all weights in a folder."""
    files = sorted(folder.rglob("model.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


class Results:
    """Named measures in a file; those that an interrupted run has done are not done again."""

    def __init__(self, path: Path, setting: dict):
        """setting: what the measures hang on; those of another setting are forgotten."""
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self.found = found if found.get("setting") == setting else {"setting": setting}

    def measure(self, name: str, work: Callable, *what) -> None:
        """Do work(*what), unless that has been done, and keep what it gives."""
        if name not in self.found:
            self.found[name] = work(*what)
            self.path.write_text(json.dumps(self.found, indent=1) + "\n")
            print(name, self.found[name], flush=True)


def evaluate_hearing(args: argparse.Namespace, slots: int = 8, leak_db: int = -20) -> dict:
    """`evaluate hearing`; `slots`: of the larger agent, leak_db: how loud its own voice is."""
    assert args.pool and args.noise, "hearing needs --pool and --noise"
    folder = args.agent or weights.DEFAULT_AGENT
    noises = load_noise(args.noise)
    recognizer = open_recognizer(folder, args.encoder)
    teacher = Teacher(
        args.out / "teacher.jsonl", Whisper(weights.whisper_tiny(), args.threads).text
    )
    setting = {key: getattr(args, key) for key in ("clips", "minutes", "hour", "seed")}
    setting["weights"] = digest(args.encoder or folder)
    results = Results(args.result, setting)

    def invented(waves: list[np.ndarray]) -> float:
        return words_per_minute(
            [transcribe(recognizer, wave, is_turn=False) for wave in waves], waves
        )

    for pool in args.pool:
        name = f"WER on {pool.name}: ours, teacher's, ratio"
        results.measure(name, pool_table, args, recognizer, teacher, noises, pool)
    noise = wordless(noises, args.minutes, np.random.default_rng(args.seed))
    results.measure("words a minute in noise, tones and silence", invented, noise)
    clips = valid_clips(args.pool[0], 12)
    served = as_served(recognizer)
    results.measure("one long stream", long_run, served, 60 * args.hour, clips)
    for count in (1, slots):
        agent = load_agent(args.agent, slots=count)
        name = f"ms a tick of features, encoder and lexicon, batch {count}: median, p99, CPU"
        results.measure(name, tick_times, agent)
    leak = [wave * 10 ** (leak_db / 20) for wave in speak(agent, read_lines("heldout")[:30])]
    results.measure(f"words a minute in the agent's voice at {leak_db} dB", invented, leak)
    if args.encoder is None:  # the agent's LM knows only the agent's encoder
        sounds = {"noise, tones and silence": noise, f"the agent's voice at {leak_db} dB": leak}
        measure_transcripts(args, results, agent, sounds)
    return results.found


def measure_transcripts(
    args: argparse.Namespace, results: Results, agent, sounds: dict[str, list[np.ndarray]]
) -> None:
    """What the agent's LM writes down of clips, and of sounds that have no words for it."""

    def clip_error_rate(pool: Path) -> float:
        texts, waves = valid_clips(pool, args.clips)
        return round(error_rate(texts, agent_transcripts(agent, waves)), 3)

    def invented(waves: list[np.ndarray]) -> float:
        return words_per_minute(agent_transcripts(agent, waves), waves)

    for pool in args.pool:
        results.measure(f"LM's transcript: WER on {pool.name}, clean", clip_error_rate, pool)
    for name, waves in sounds.items():
        results.measure(f"LM's transcript: words a minute in {name}", invented, waves)
