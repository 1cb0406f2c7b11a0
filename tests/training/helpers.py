"""What several tests of training need: tiny parts in folders, a pool, recordings, spellings."""

import json

import numpy as np
import soundfile
import torch
from safetensors.numpy import save_file

from duplex import checkpoint
from duplex.audio import SAMPLE_RATE
from duplex.model.lm import LM, LMConfig
from duplex.training.prepare import main
from tests.tiny_speech_agent import tiny_encoder, tiny_tokenizer, tiny_words

POOL_WORDS = ["so", "we", "go", "up", "a", "hill", "and", "it's", "far", "now", "then", "rain"]
USER_WORDS = [["hi", 0.5, 0.9], ["you", 1.0, 1.6], ["and", 5.0, 5.6], ["now", 5.7, 6.5]]
AGENT_WORDS = [
    ["Hello.", 2.2, 2.7],
    ["Good", 2.8, 3.1],
    ["day.", 3.2, 3.6],
    ["Now", 7.0, 7.4],
    ["then.", 7.5, 7.9],
]


def spell(word: str) -> list[int]:
    """A token for every third letter."""
    return [100 + ord(letter) for letter in word[::3]]


def encode(text: str) -> list[tuple[int, str]]:
    """A token for every word."""
    return [(300 + len(word), " " + word) for word in text.split()]


def write_parts(folder) -> None:
    """A tiny encoder with random weights, a tiny lexicon, a tokenizer whose tokens are bytes."""
    torch.manual_seed(0)
    encoder = tiny_encoder()
    checkpoint.save(encoder.state_dict(), encoder.config, folder / "encoder")
    (folder / "tokenizer").mkdir()
    (folder / "lexicon").mkdir()
    save_file(tiny_words(), folder / "lexicon" / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))


def tiny_lm() -> LM:
    """A language model of one layer, the same each time."""
    torch.manual_seed(1)
    config = LMConfig(
        width=32,
        layers=1,
        heads=4,
        kv_heads=2,
        hidden=48,
        vocabulary=tiny_tokenizer().get_vocab_size(),
        lora_rank=2,
        feature_width=96,
    )
    return LM(config)


def part_options(parts) -> list:
    """The options of a training that hears."""
    names = ("encoder", "lexicon", "tokenizer")
    return [option for name in names for option in (f"--{name}", parts / name)]


def strings(*options) -> list[str]:
    return [str(option) for option in options]


def write_tone_pool(folder, count: int) -> None:
    """A pool of utterances of two words, a tone each; every fourth is set aside."""
    folder.mkdir()
    waves = []
    lines = []
    for n in range(count):
        text = f"{POOL_WORDS[n % 12].capitalize()} {POOL_WORDS[n // 12 + n % 5]}."
        wave = np.zeros(int(1.6 * SAMPLE_RATE), np.int16)
        words = [[word, 0.3 + 0.5 * i, 0.7 + 0.5 * i] for i, word in enumerate(text.split())]
        for i, (_, start, end) in enumerate(words):
            times = np.arange(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
            wave[times] = 8000 * np.sin(times * (0.03 + 0.01 * ((n + 5 * i) % 12)))
        place = {"offset": n * len(wave), "samples": len(wave)}
        split = "train" if n % 4 else "valid"
        lines.append(json.dumps({**place, "text": text, "words": words, "split": split}))
        waves.append(wave)
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    np.concatenate(waves).tofile(folder / "audio.i16")


def spoken(words: list, seconds: float, rate: int, hertz: float) -> np.ndarray:
    """A tone wherever there is a word, a faint hiss elsewhere."""
    times = np.arange(int(seconds * rate)) / rate
    wave = 0.001 * np.random.default_rng(0).standard_normal(len(times))
    tone = 0.3 * np.sin(2 * np.pi * hertz * times)
    for _, start, end in words:
        wave += np.where((times >= start) & (times < end), tone, 0.0)
    return wave


def alignments(user=USER_WORDS, agent=AGENT_WORDS) -> list:
    """As moshi-finetune writes them."""
    told = [[word, [start, end], "USER"] for word, start, end in user]
    told += [[word, [start, end], "SPEAKER_MAIN"] for word, start, end in agent]
    return sorted(told, key=lambda item: item[1][0])


def record(
    folder,
    name: str,
    labels: dict | None,
    rate: int = SAMPLE_RATE,
    channels: int = 2,
    seconds: float = 9.0,
    is_mixed: bool = False,
) -> str:
    """One conversation in the layout of moshi-finetune. Returns its line of data.jsonl."""
    agent = spoken(AGENT_WORDS, seconds, rate, 300.0)
    user = spoken(USER_WORDS, seconds, rate, 500.0)
    if is_mixed:
        agent = user = agent + user
    soundfile.write(folder / f"{name}.wav", np.stack([agent, user], 1)[:, :channels], rate)
    if labels is not None:
        (folder / f"{name}.json").write_text(json.dumps(labels))
    return json.dumps({"path": f"{name}.wav", "duration": seconds})


def prepare(parts, folder, lines: list[str], *options: str, data=None, out=None) -> int:
    """Run duplex.training.prepare on these lines. Returns its exit status."""
    if data is None:
        data = folder / "data.jsonl"
        data.write_text("\n".join(lines) + "\n")
    told = ["--data", data, "--encoder", parts / "encoder", "--lexicon", parts / "lexicon"]
    # The random encoder fits nothing.
    told += ["--second-pass", "off", "--min-fit", -99, *options]
    return main(strings(*told, "--out", out or folder / "prepared"))
