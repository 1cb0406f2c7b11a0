"""Measure the voice: the codec alone, and the talker on sentences that no training saw.

    python -m duplex.training.evaluate voice --pool pools/real --out runs/evaluation

- The codec: an outside recogniser (Whisper base) and DNSMOS before and after it, on the agent's voice (Hibari says the
  sentences of texts/heldout.txt) and on recorded speakers of a pool kept aside.
- The talker: WER on texts/heldout.txt and texts/hard.txt, spoken tick by tick on the path that serves sessions; also by sound,
  and beside it the same of Hibari, whose voice it learned.
- Times of a tick with one session and with eight, and a page of spectrograms.
"""

import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from duplex.training.data.pool import Pool
from duplex.training.evaluation.error_rate import (
    MIN_LOST_WORDS,
    error_rate,
    has_lost_words,
    sound_error_rate,
)

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.bench.recognizer import RECOGNIZER_RATE, Whisper

TEXTS = Path(__file__).parents[1] / "texts"
SLOTS = 8
TAIL_TICKS = 8


def sentences(name: str) -> list[str]:
    lines = (TEXTS / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def speak(agent, texts: list[str]) -> list[np.ndarray]:
    """Each text as one turn of the agent's own talker and codec, as many side by side as the agent has slots."""
    waves = []
    for begin in range(0, len(texts), agent.slots):
        group = texts[begin : begin + agent.slots]
        state, decoding = (
            agent.response.synthesizer.initial_state(agent.slots),
            agent.parts.codec.initial_decode_state(agent.slots),
        )
        agent.response.synthesizer.reset(state, [*range(agent.slots)], seed=begin)
        for slot, text in enumerate(group):
            words, front = agent.parts.g2p.push(text, agent.parts.g2p.initial_state())
            for number, (_, phones) in enumerate(words + agent.parts.g2p.finish(front)[0]):
                agent.response.synthesizer.push(state, slot, number, phones)
            agent.response.synthesizer.finish(state, slot)
        seconds = [agent.response.synthesizer.queued_seconds(state, slot) for slot in range(len(group))]
        ticks = [int(s * SAMPLE_RATE / TICK_SAMPLES) + TAIL_TICKS for s in seconds]
        parts = []
        for _ in range(max(ticks)):
            codes, state, _ = agent.response.synthesizer.step(state)
            wave, decoding = agent.parts.codec.decode_step(codes, decoding)
            parts.append(wave)
        sound = torch.cat(parts, 1).float().numpy()
        waves += [sound[slot, : n * TICK_SAMPLES] for slot, n in enumerate(ticks)]
    return waves


def quality(waves: list[np.ndarray]) -> float:
    """Mean overall DNSMOS (P.835), 1 to 5."""
    from speechmos import dnsmos

    def score(wave):
        sound = soxr.resample(wave, SAMPLE_RATE, RECOGNIZER_RATE).clip(-1, 1)
        return dnsmos.run(sound, RECOGNIZER_RATE)["ovrl_mos"]

    return float(np.mean([score(wave) for wave in waves]))


@torch.inference_mode()
def through(codec, waves: list[np.ndarray], codebooks: int | None = None) -> list[np.ndarray]:
    def pass_one(wave):
        return (
            codec.decode(codec.encode(torch.from_numpy(wave)[None, None], codebooks))[0]
            .float()
            .numpy()
        )

    return [pass_one(wave)[codec.decoder_delay_samples :][: len(wave)] for wave in waves]


def spoken_by_heart(texts: list[str]) -> list[np.ndarray]:
    from duplex.training.data.synthesizers import HibariVoice

    voice = HibariVoice()
    return [
        voice.say(text, np.random.default_rng(i))[0].astype(np.float32)
        for i, text in enumerate(texts)
    ]


def recorded(folder: Path, count: int) -> tuple[list[str], list[np.ndarray]]:
    """Clips of at least three words by speakers kept aside, evenly over the pool."""
    pool = Pool(folder, split="valid")
    long = [i for i, entry in enumerate(pool.entries) if len(entry["text"].split()) >= 3]
    chosen = long[:: max(1, len(long) // count)][:count]
    return [pool.entries[i]["text"] for i in chosen], [pool.wave(i) for i in chosen]


def tick_times(agent_folder: Path | None = None, ticks: int = 60) -> dict[str, list[float]]:
    """Median ms of a tick's talker and codec with one session and with SLOTS, all speaking, with the helper a server has.

    Ticks of either kind by turns: what else the machine does is the same for both.
    """
    from duplex.agent import load_agent

    kinds, times = [], {"talker": [[], []], "codec": [[], []]}
    for slots in (1, SLOTS):
        agent = load_agent(agent_folder, slots=slots)
        state, decoding = (
            agent.response.synthesizer.initial_state(slots),
            agent.parts.codec.initial_decode_state(slots),
        )
        for slot in range(slots):
            words, _ = agent.parts.g2p.push(
                " ".join(sentences("heldout")[slot : slot + 12]), agent.parts.g2p.initial_state()
            )
            for number, (_, phones) in enumerate(words):
                agent.response.synthesizer.push(state, slot, number, phones)
        kinds.append([agent, state, decoding])
    for _ in range(ticks):
        for kind, (agent, state, decoding) in enumerate(kinds):
            with agent.parts.helper_thread():
                begun = time.perf_counter()
                codes, state, _ = agent.response.synthesizer.step(state)
                between = time.perf_counter()
                kinds[kind][1:] = state, agent.parts.codec.decode_step(codes, decoding)[1]
            times["codec"][kind].append(time.perf_counter() - between)
            times["talker"][kind].append(between - begun)
            assert all(agent.response.synthesizer.sounding(state, slot) for slot in range(agent.slots))
    return {
        part: [1000 * float(np.median(of_kind)) for of_kind in both] for part, both in times.items()
    }


def page(rows: dict[str, list[np.ndarray]], titles: list[str], path: Path) -> None:
    """Spectrograms: a row of the picture for every kind of sound, a column for every sentence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(rows), len(titles), figsize=(6 * len(titles), 3 * len(rows)), squeeze=False
    )
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
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def evaluate_voice(args) -> dict:
    from duplex import weights
    from duplex.agent import load_agent

    args.out.mkdir(parents=True, exist_ok=True)
    whisper = Whisper(weights.whisper_base(), args.threads)

    def recognise(waves: list[np.ndarray]) -> list[str]:
        return [whisper.text(wave) for wave in waves]

    agent = load_agent(args.agent, slots=SLOTS)
    codec = agent.parts.codec
    heldout, hard = sentences("heldout"), sentences("hard")
    result = {}
    spoken = speak(agent, heldout + hard)
    texts = recognise(spoken)
    for name, wanted, heard in (
        ("held-out", heldout, texts[: len(heldout)]),
        ("hard", hard, texts[len(heldout) :]),
    ):
        row = f"{name} ({len(wanted)} sentences)"
        result[f"talker WER, {row}"] = round(error_rate(wanted, heard), 4)
        result[f"talker WER by sound, {row}"] = round(sound_error_rate(wanted, heard), 4)
        original = recognise(spoken_by_heart(wanted))
        result[f"the voice it learned from, the same, WER and by sound, {row}"] = [
            round(rate(wanted, original), 4) for rate in (error_rate, sound_error_rate)
        ]
        broken = [f"{a} | {b}" for a, b in zip(wanted, heard, strict=True) if has_lost_words(a, b)]
        result[f"talker, {name}: sentences with {MIN_LOST_WORDS} words in a row lost or added"] = (
            broken
        )
    (args.out / "spoken.txt").write_text(
        "".join(f"{a} | {b}\n" for a, b in zip(heldout + hard, texts, strict=True))
    )
    kinds = {"agent's voice": (heldout[: args.clips], spoken_by_heart(heldout[: args.clips]))}
    for folder in args.pool:
        kinds[f"speakers of {folder.name}"] = recorded(folder, args.clips)
    for name, (wanted, waves) in kinds.items():
        before, clean = error_rate(wanted, recognise(waves)), quality(waves)
        for codebooks in (8, 4, 2):
            after = through(codec, waves, codebooks)
            row = f"codec, {codebooks} codebooks, {name} ({len(wanted)} clips)"
            heard = error_rate(wanted, recognise(after))
            result[f"{row}: WER before, after"] = [round(before, 4), round(heard, 4)]
            result[f"{row}: DNSMOS before, after"] = [round(clean, 2), round(quality(after), 2)]
            print(
                row,
                result[f"{row}: WER before, after"],
                result[f"{row}: DNSMOS before, after"],
                flush=True,
            )
    result["talker: DNSMOS"] = round(quality(spoken[: args.clips]), 2)
    times = tick_times(args.agent)
    result |= {
        f"{part}: ms a tick, 1 and {SLOTS} sessions": [round(ms, 1) for ms in both]
        for part, both in times.items()
    }
    waves = kinds["agent's voice"][1][:3]
    page(
        {"original": waves, "codec": through(codec, waves), "talker": spoken[:3]},
        heldout[:3],
        args.out / "voice.png",
    )
    soundfile.write(args.out / "voice.wav", np.concatenate(spoken[:10]), SAMPLE_RATE)
    return result
