"""Measure the ears: word error rates of the encoder's greedy CTC transcript beside those of the offline teacher.

    python -m training.evaluate ears --pool pools/real --pool pools/many --noise DATA --out runs/evaluation

Every clip is one that no training heard (a pool's `valid` split: other speakers, other sentences). The teacher is Whisper
tiny.en, offline, on the same disturbed clip. Also: invented words in noise and silence, words heard in the agent's own voice
that leaks back, the tick's time, memory and error rate over an hour.
"""

import time
from pathlib import Path

import numpy as np
import soxr
import torch
from torch.nn import functional as F

from duplex import features
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.checkpoint import load_config, load_tensors
from duplex.encoder import Encoder, EncoderConfig
from duplex.tokens import load_tokenizer
from training.augment import active_power, load_noise, noise_stretch, room_response
from training.evaluate_voice import error_rate, recognise, speak
from training.pool import Pool
from training.transcript import Pieces, heard_form

AFTER_TICKS = 5  # the last words come late
LEAK_DB = -20.0
HARD = {"SNR 20 dB": 20.0, "SNR 10 dB": 10.0, "SNR 5 dB": 5.0, "SNR 0 dB": 0.0}


def disturbances(noises: list[np.ndarray]) -> dict:
    """{name: function (wave, its own random numbers) -> wave}"""

    def noisy(decibel):
        def add(wave, rng):
            return wave + np.sqrt(active_power(wave) * 10 ** (-decibel / 10)) * noise_stretch(len(wave), noises, rng)

        return add

    def room(wave, rng):
        return np.convolve(wave, room_response(rng))[: len(wave)].astype(np.float32)

    def telephone(wave, rng):
        narrow = soxr.resample(soxr.resample(wave, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)
        return np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)].astype(np.float32)

    def level(decibel):
        return lambda wave, rng: (wave * 10 ** (decibel / 20) / (np.abs(wave).max() + 1e-9)).clip(-1, 1).astype(np.float32)

    table = {"clean": lambda wave, rng: wave, **{name: noisy(decibel) for name, decibel in HARD.items()}}
    return table | {"room": room, "telephone": telephone, "peak -40 dB": level(-40), "clipped by 12 dB": level(12)}


class Ears:
    """The encoder of an agent folder, tick by tick, with its greedy transcript."""

    def __init__(self, folder: Path):
        self.encoder = Encoder(load_config(EncoderConfig, folder / "encoder")).eval()
        self.encoder.load_state_dict(load_tensors(folder / "encoder"))
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(folder))
        self.pieces = Pieces(self.encoder.config.ctc_tokens, tokenizer)

    @torch.inference_mode()
    def best(self, wave: np.ndarray) -> list[int]:
        """The likeliest entry of every tick of a clip."""
        wave = torch.from_numpy(wave.astype(np.float32))
        wave = F.pad(wave, (0, TICK_SAMPLES * AFTER_TICKS + -len(wave) % TICK_SAMPLES))[None]
        mel, _ = features.log_mel(wave, features.initial_state(1))
        return self.encoder(mel)[1].argmax(-1)[0].tolist()

    def transcribe(self, wave: np.ndarray) -> str:
        return self.pieces.greedy(self.best(wave))


def chosen(folder: Path, count: int) -> tuple[list[str], list[np.ndarray]]:
    pool = Pool(folder, split="valid")
    fit = [i for i, e in enumerate(pool.entries) if len(e["text"].split()) >= 3 and e["samples"] < 12 * SAMPLE_RATE]
    fit = fit[:: max(1, len(fit) // count)][:count]
    return [pool.entries[i]["text"] for i in fit], [pool.wave(i) for i in fit]


@torch.inference_mode()
def long_run(ears: Ears, seconds: float, clips: tuple[list[str], list[np.ndarray]]) -> dict:
    """Clips over and over through one stream: WER of its first and of its last clips, bytes of its state, ms a tick."""
    texts, waves = clips
    mel_state, state = features.initial_state(1), ears.encoder.initial_state(1)
    size = sum(t.numel() * t.element_size() for t in (state.keys, state.values, state.mel_tail, state.conv_tail))
    heard, times, played, n = [], [], 0.0, 0
    while played < seconds:
        wave = torch.from_numpy(waves[n % len(waves)])
        wave = F.pad(wave, (0, TICK_SAMPLES * AFTER_TICKS + -len(wave) % TICK_SAMPLES))
        best = []
        for tick in wave.view(-1, 1, TICK_SAMPLES):
            begun = time.perf_counter()
            mel, mel_state = features.log_mel(tick, mel_state)
            (_, log_probs), state = ears.encoder.step(mel, state)
            times.append(time.perf_counter() - begun)
            best.append(int(log_probs[0, 0].argmax()))
        heard.append((texts[n % len(texts)], ears.pieces.greedy(best)))
        played, n = played + len(wave) / SAMPLE_RATE, n + 1
    ends = (heard[: len(texts)], heard[-len(texts) :])
    first, last = (error_rate([a for a, _ in part], [b for _, b in part]) for part in ends)
    after = sum(t.numel() * t.element_size() for t in (state.keys, state.values, state.mel_tail, state.conv_tail))
    return {
        "minutes": round(played / 60, 1),
        "WER of the first and of the last clips": [round(first, 3), round(last, 3)],
        "bytes of the state, before and after": [size, after],
        "ms a tick, p50 and p99 (float32)": np.percentile(np.array(times) * 1000, [50, 99]).round(1).tolist(),
    }


def invented(ears: Ears, noises: list[np.ndarray], minutes: float, rng: np.random.Generator) -> float:
    """Words a minute heard in noises at many levels, tones and silence."""
    words, samples = 0, SAMPLE_RATE * 20
    rounds = max(1, round(minutes * 3))
    for i in range(rounds):
        level = 10 ** (rng.uniform(-60, -15) / 20)
        if i % 5 == 0:
            wave = np.zeros(samples, np.float32)
        elif i % 5 == 1:  # tones that come and go, as music does
            steps = np.repeat(220 * 2 ** (rng.integers(0, 25, samples // 6000 + 1) / 12), 6000)[:samples]
            wave = level * np.sin(2 * np.pi * np.cumsum(steps) / SAMPLE_RATE)
        else:
            wave = level * noise_stretch(samples, noises, rng)
        words += len(ears.transcribe(wave.astype(np.float32)).split())
    return words / (rounds * samples / SAMPLE_RATE / 60)


def evaluate_ears(args) -> dict:
    from faster_whisper import WhisperModel

    from duplex import weights
    from duplex.agent import DEFAULT_FOLDER, load_agent

    ears, noises = Ears(args.agent or DEFAULT_FOLDER), load_noise(args.noise)
    teacher = WhisperModel(str(weights.whisper_tiny()), compute_type="int8", cpu_threads=args.threads)
    result: dict = {}
    for folder in args.pool:
        texts, waves = chosen(folder, args.clips)
        table = result[f"WER on {folder.name} ({len(texts)} clips): ours, teacher's"] = {}
        for name, disturb in disturbances(noises).items():
            heard = [disturb(wave, np.random.default_rng([args.seed, i])) for i, wave in enumerate(waves)]
            ours = error_rate(texts, [ears.transcribe(wave) for wave in heard])
            table[name] = [round(ours, 3), round(error_rate(texts, recognise(teacher, heard)), 3)]
            print(name, table[name], flush=True)
    result["invented words a minute in noise, tones and silence"] = round(
        invented(ears, noises, args.minutes, np.random.default_rng(args.seed)), 2
    )
    agent = load_agent(args.agent, slots=1)
    from training.evaluate_voice import sentences

    voice = np.concatenate(speak(agent, sentences("heldout")[:30]))
    leaked = ears.transcribe(voice * 10 ** (LEAK_DB / 20))
    minutes = len(voice) / SAMPLE_RATE / 60
    result[f"words a minute in the agent's own voice at {LEAK_DB:.0f} dB"] = round(len(heard_form(leaked).split()) / minutes, 1)
    result["an hour in one stream"] = long_run(ears, 60 * args.hour, chosen(args.pool[0], 12))
    return result
