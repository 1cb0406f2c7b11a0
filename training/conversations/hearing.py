"""What somebody says in a channel, by the agent's own ears: both passes, with times."""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from duplex.agent.config import SecondPassConfig
from duplex.agent.hearing.second_pass import Task, TurnReading, read
from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.model.asr import features
from duplex.model.asr.whisper import Whisper
from duplex.training.conversations.sound import Channel
from duplex.training.conversations.timing import LATE_S, Side, mean_fit
from duplex.training.data.forced_alignment import align_words
from duplex.training.scenes.recognition import Search, decode_words


@dataclass
class Ears:
    """The first pass's beam search, and Whisper for the second, if there is one."""

    search: Search
    whisper: Whisper | None = None
    config: SecondPassConfig = field(default_factory=SecondPassConfig)


def heard_side(ears: Ears, channel: Channel) -> Side:
    """All words that are heard in a channel, those that Whisper does not believe as first heard."""
    by_tick = decode_words(ears.search, channel.log_probs)
    found = [(tick, word) for tick, words in enumerate(by_tick) for word, _ in words]
    side = Side(is_heard=True)
    read_words = 0
    nats = 0.0
    before = 0.0
    for turn in heard_turns(found):
        # A word is written down after its end.
        start = max(before, turn[0][0] * TICK_S - 1.0)
        end = min(channel.seconds, turn[-1][0] * TICK_S + 0.2)
        reading = second_reading(ears, channel, start, end)
        read_words += len(reading.words)
        nats += len(reading.words) * reading.log_prob
        text = reading.text if reading.is_believed else " ".join(word for _, word in turn)
        side.words += words_in(channel, text, start, end)
        before = end
    if read_words:
        side.log_prob = nats / read_words
    side.fit = mean_fit(side.words, channel)
    return side


def heard_turns(
    found: list[tuple[int, str]], gap_ticks: int = 12, longest_ticks: int = 300
) -> list[list[tuple[int, str]]]:
    """(tick, word) parted where nothing was written for gap_ticks, at the latest after longest."""
    turns: list[list[tuple[int, str]]] = []
    for tick, word in found:
        going_on = turns and tick - turns[-1][-1][0] <= gap_ticks
        if going_on and tick - turns[-1][0][0] < longest_ticks:
            turns[-1].append((tick, word))
        else:
            turns.append([(tick, word)])
    return turns


def second_reading(ears: Ears, channel: Channel, start: float, end: float) -> TurnReading:
    """What Whisper reads between two times; nothing where there is none."""
    if ears.whisper is None:
        return TurnReading()
    wave = torch.from_numpy(channel.wave(start, end))
    wave = F.pad(wave, (features.TAIL_SAMPLES, -len(wave) % TICK_SAMPLES))
    power = features.log_power(wave[None])[0]
    return read(ears.whisper, Task([ticks.numpy() for ticks in power.split(8)]), ears.config)


def words_in(channel: Channel, text: str, start: float, end: float) -> list[list]:
    """The words of a text that is said between two times; none where it does not fit."""
    frames = channel.frames(start, end + LATE_S)
    try:
        found = align_words(frames, text, end - start)
    except ValueError:
        return []
    return [[word, round(start + a, 3), round(start + b, 3)] for word, a, b in found]


def share_of_sound(channel: Channel, spans: list[tuple[float, float]]) -> float:
    """Share of a channel's sound, by power, that lies inside these spans in seconds."""
    inside = total = 1e-9
    step = 60.0
    at = 0.0
    while at < channel.seconds:
        wave = channel.wave(at, at + step)
        power = wave**2
        total += float(power.sum())
        for start, end in spans:
            begin = int(max(0.0, start - at) * SAMPLE_RATE)
            last = int(max(0.0, min(end, at + step) - at) * SAMPLE_RATE)
            inside += float(power[begin:last].sum())
        at += step
    return inside / total
