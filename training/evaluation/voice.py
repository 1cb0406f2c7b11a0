"""Measure the voice: the codec alone, and the talker on sentences that no training saw.

    python -m duplex.training.evaluate voice --pool pools/real --out runs/evaluation

- The codec: an outside recogniser (Whisper base) and DNSMOS before and after it, on the agent's
  voice (Hibari says the sentences of texts/heldout.txt) and on recorded speakers of a pool kept
  aside.
- The talker: WER on texts/heldout.txt and texts/hard.txt, spoken tick by tick on the path that
  serves sessions; also by sound, and beside it the same of Hibari, whose voice it learned.
- Times of a tick with one session and with eight, and a page of spectrograms.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from duplex import weights
from duplex.agent import load_agent
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.bench.recognizer import RECOGNIZER_RATE, Whisper
from duplex.training.data.pool import Pool
from duplex.training.data.synthesizers import HibariVoice
from duplex.training.evaluation.hearing.error_rate import (
    MIN_LOST_WORDS,
    error_rate,
    has_lost_words,
    sound_error_rate,
)
from duplex.training.text.templates import read_lines

# Sessions of the larger of the agents that are measured.
SLOTS = 8


class Speaker:
    """An agent's talker and codec by themselves, on the path that serves sessions."""

    def __init__(self, agent):
        self.slots = agent.slots
        self.g2p = agent.parts.g2p
        self.codec = agent.parts.codec
        self.helper_thread = agent.parts.helper_thread
        self.synthesizer = agent.response.synthesizer
        self.synthesis_state = self.synthesizer.initial_state(self.slots)
        self.codec_state = self.codec.initial_decode_state(self.slots)

    def push(self, slot: int, text: str, is_whole: bool = True) -> float:
        """Queue a text, with its end if it is whole -> seconds of voice that are to come."""
        words, state = self.g2p.push(text, self.g2p.initial_state())
        if is_whole:
            words = words + self.g2p.finish(state)[0]
        for number, (_, phones) in enumerate(words):
            self.synthesizer.push(self.synthesis_state, slot, number, phones)
        if is_whole:
            self.synthesizer.finish(self.synthesis_state, slot)
        return self.synthesizer.queued_seconds(self.synthesis_state, slot)

    def step(self) -> tuple[torch.Tensor, float, float]:
        """A tick's voice [B, TICK_SAMPLES], and the seconds of the talker and of the codec."""
        begun = time.perf_counter()
        (codes, _), self.synthesis_state = self.synthesizer.step(self.synthesis_state)
        between = time.perf_counter()
        wave, self.codec_state = self.codec.decode_step(codes, self.codec_state)
        return wave, between - begun, time.perf_counter() - between


def speak(agent, texts: list[str], tail_ticks: int = 8) -> list[np.ndarray]:
    """Each text as a turn of the agent's talker and codec, as many at once as it has slots."""
    waves = []
    for begin in range(0, len(texts), agent.slots):
        speaker = Speaker(agent)
        speaker.synthesis_state.reset([*range(agent.slots)], seed=begin)
        ticks = []
        for slot, text in enumerate(texts[begin : begin + agent.slots]):
            queued_s = speaker.push(slot, text)
            ticks.append(int(queued_s * SAMPLE_RATE / TICK_SAMPLES) + tail_ticks)
        parts = [speaker.step()[0] for _ in range(max(ticks))]
        sound = torch.cat(parts, 1).float().numpy()
        waves += [sound[slot, : count * TICK_SAMPLES] for slot, count in enumerate(ticks)]
    return waves


def quality(waves: list[np.ndarray]) -> float:
    """Mean overall DNSMOS (P.835), 1 to 5."""
    from speechmos import dnsmos

    scores = []
    for wave in waves:
        sound = soxr.resample(wave, SAMPLE_RATE, RECOGNIZER_RATE).clip(-1, 1)
        scores.append(dnsmos.run(sound, RECOGNIZER_RATE)["ovrl_mos"])
    return float(np.mean(scores))


@torch.inference_mode()
def through_codec(codec, waves: list[np.ndarray], codebooks: int | None = None) -> list[np.ndarray]:
    """Waves [N] encoded and decoded, with the delay of the decoder taken off."""
    decoded = []
    for wave in waves:
        codes = codec.encode(torch.from_numpy(wave)[None, None], codebooks)
        sound = codec.decode(codes)[0].float().numpy()
        decoded.append(sound[codec.decoder_delay_samples :][: len(wave)])
    return decoded


def said_by_hibari(texts: list[str]) -> list[np.ndarray]:
    """The texts in the voice that the talker learned from, float32 [N] each."""
    voice = HibariVoice()
    return [
        voice.say(text, np.random.default_rng(number))[0].astype(np.float32)
        for number, text in enumerate(texts)
    ]


def recorded(folder: Path, count: int) -> tuple[list[str], list[np.ndarray]]:
    """Clips of at least three words by speakers kept aside, evenly over the pool."""
    pool = Pool(folder, split="valid")
    long = [i for i, entry in enumerate(pool.entries) if len(entry["text"].split()) >= 3]
    chosen = long[:: max(1, len(long) // count)][:count]
    return [pool.entries[i]["text"] for i in chosen], [pool.wave(i) for i in chosen]


def tick_times(agent_folder: Path | None = None, ticks: int = 60) -> dict[str, list[float]]:
    """Median ms of a tick's talker and codec with one session and with SLOTS, all speaking.

    Ticks of either kind by turns, with the helper thread that a server has: what else the machine
    does is the same for both.
    """
    sentences = read_lines("heldout")
    speakers = [Speaker(load_agent(agent_folder, slots=slots)) for slots in (1, SLOTS)]
    for speaker in speakers:
        for slot in range(speaker.slots):
            speaker.push(slot, " ".join(sentences[slot : slot + 12]), is_whole=False)
    times: dict[str, list[list[float]]] = {"talker": [[], []], "codec": [[], []]}
    for _ in range(ticks):
        for number, speaker in enumerate(speakers):
            with speaker.helper_thread():
                _, talker_s, codec_s = speaker.step()
            times["talker"][number].append(talker_s)
            times["codec"][number].append(codec_s)
            for slot in range(speaker.slots):
                assert speaker.synthesizer.is_speaking(speaker.synthesis_state, slot)
    return {
        part: [1000 * float(np.median(seconds)) for seconds in both] for part, both in times.items()
    }


def plot_spectrograms(rows: dict[str, list[np.ndarray]], titles: list[str], path: Path) -> None:
    """A row of the picture for every kind of sound, a column for every sentence."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(titles), 3 * len(rows)), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (name, waves) in zip(axes, rows.items(), strict=True):
        for axis, wave, title in zip(line, waves, titles, strict=True):
            axis.specgram(
                wave + 1e-6,
                NFFT=1024,
                noverlap=768,
                Fs=SAMPLE_RATE,
                vmin=-140,
                vmax=-40,
                cmap="magma",
            )
            axis.set_ylim(0, 8000)
            axis.set_title(f"{name}: {title}", fontsize=8)
    figure.savefig(path, dpi=70)


def talker_figures(
    name: str, wanted: list[str], heard: list[str], recognise: Callable
) -> dict[str, object]:
    """How well sentences were understood that the talker said, beside the voice it learned from."""
    row = f"{name} ({len(wanted)} sentences)"
    learned = recognise(said_by_hibari(wanted))
    rates = [round(rate(wanted, learned), 4) for rate in (error_rate, sound_error_rate)]
    broken = [f"{a} | {b}" for a, b in zip(wanted, heard, strict=True) if has_lost_words(a, b)]
    return {
        f"talker WER, {row}": round(error_rate(wanted, heard), 4),
        f"talker WER by sound, {row}": round(sound_error_rate(wanted, heard), 4),
        f"the voice it learned from, the same, WER and by sound, {row}": rates,
        f"talker, {name}: sentences with {MIN_LOST_WORDS} words in a row lost or added": broken,
    }


def codec_figures(
    codec, name: str, wanted: list[str], waves: list[np.ndarray], recognise: Callable
) -> dict[str, list[float]]:
    """What the codec costs in words and in DNSMOS, with all codebooks and with fewer."""
    found = {}
    words_before = error_rate(wanted, recognise(waves))
    quality_before = quality(waves)
    for codebooks in (8, 4, 2):
        decoded = through_codec(codec, waves, codebooks)
        row = f"codec, {codebooks} codebooks, {name} ({len(wanted)} clips)"
        words = [round(words_before, 4), round(error_rate(wanted, recognise(decoded)), 4)]
        mos = [round(quality_before, 2), round(quality(decoded), 2)]
        found[f"{row}: WER before, after"] = words
        found[f"{row}: DNSMOS before, after"] = mos
        print(row, words, mos, flush=True)
    return found


def evaluate_voice(args: argparse.Namespace) -> dict:
    """`evaluate voice`."""
    whisper = Whisper(weights.whisper_base(), args.threads)
    agent = load_agent(args.agent, slots=SLOTS)
    codec = agent.parts.codec
    heldout = read_lines("heldout")
    hard = read_lines("hard")

    def recognise(waves: list[np.ndarray]) -> list[str]:
        return [whisper.text(wave) for wave in waves]

    spoken = speak(agent, heldout + hard)
    texts = recognise(spoken)
    result = talker_figures("held-out", heldout, texts[: len(heldout)], recognise)
    result |= talker_figures("hard", hard, texts[len(heldout) :], recognise)
    lines = [f"{a} | {b}\n" for a, b in zip(heldout + hard, texts, strict=True)]
    (args.out / "spoken.txt").write_text("".join(lines))

    originals = said_by_hibari(heldout[: args.clips])
    kinds = {"agent's voice": (heldout[: args.clips], originals)}
    for folder in args.pool:
        kinds[f"speakers of {folder.name}"] = recorded(folder, args.clips)
    for name, (wanted, waves) in kinds.items():
        result |= codec_figures(codec, name, wanted, waves, recognise)

    result["talker: DNSMOS"] = round(quality(spoken[: args.clips]), 2)
    for part, both in tick_times(args.agent).items():
        name = f"{part}: ms a tick, 1 and {SLOTS} sessions"
        result[name] = [round(ms, 1) for ms in both]
    shown = originals[:3]
    rows = {"original": shown, "codec": through_codec(codec, shown), "talker": spoken[:3]}
    plot_spectrograms(rows, heldout[:3], args.out / "voice.png")
    soundfile.write(args.out / "voice.wav", np.concatenate(spoken[:10]), SAMPLE_RATE)
    return result
