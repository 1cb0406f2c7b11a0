"""Voices told apart: by pairs of clips, and by labels in conversations of several people.

    python -m duplex.training.evaluate speakers --data DATA --out runs/evaluation

Verification: are two clips of 3 s by one speaker? The equal error rate of all pairs of a source, of
the speaker head and beside it of CAM++ and resemblyzer, two packaged speaker encoders.

Labels: conversations put together from clips of a source's speakers; a turn's label is right if it
is the one that stands for its speaker, labels and speakers being matched as well as they can over
the conversation, each label with one speaker.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
import soundfile
import soxr
import torch

from duplex import checkpoint, weights
from duplex.agent.hearing import people as agent_people
from duplex.agent.hearing import speakers, speech_activity
from duplex.agent.hearing.people import People
from duplex.agent.hearing.speakers import SpeakerPolicy
from duplex.agent.hearing.speech_activity import SpeechActivity
from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import (
    ENCODER_FRAMES_PER_TICK,
    MEL_FRAMES_PER_TICK,
    SAMPLE_RATE,
    TICK_S,
    TICK_SAMPLES,
)
from duplex.events import Event
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.asr.features import initial_state, log_mel
from duplex.model.speaker import SpeakerHead, load_speaker_head
from duplex.training.data.augment import active_power
from duplex.training.data.voices import trim
from duplex.training.evaluation.hearing.clip_sets import is_known, read_index, spread
from duplex.training.evaluation.intervals import interval, rate
from duplex.training.evaluation.speakers.encoders import CamPlusPlus, Resemblyzer
from duplex.training.evaluation.speakers.verification import equal_error_rate

# Sources that the shipped head was trained on.
TRAINED_ON = ["speechocean762", "Precise-Community-Data", "wake-word-benchmark", "LJSpeech"]
# Ticks of a clip: 3 s.
CLIP_TICKS = 37
# When a label is asked for: so many ticks of speech after a turn began.
LABEL_TICKS = 19


@dataclass
class Hearer:
    """The encoder and its speaker head."""

    encoder: Encoder
    head: SpeakerHead

    @torch.inference_mode()
    def vectors(self, wave: np.ndarray) -> np.ndarray:
        """wave [N], whole ticks -> a vector for each tick [n, V]."""
        mel, _ = log_mel(torch.from_numpy(wave)[None], initial_state(1))
        # Parts of 8 s, with all that the first block sees before them: attention is quadratic.
        before = self.encoder.config.window // ENCODER_FRAMES_PER_TICK + 1
        found = []
        for start in range(0, mel.shape[1] // MEL_FRAMES_PER_TICK, 100):
            first = max(0, start - before)
            part = mel[:, first * MEL_FRAMES_PER_TICK : (start + 100) * MEL_FRAMES_PER_TICK]
            early = self.encoder.early_clip(part)
            found.append(early[:, (start - first) * ENCODER_FRAMES_PER_TICK :])
        return self.head(torch.cat(found, 1))[0].numpy()


def open_hearer(agent: Path | None, head: Path | None) -> Hearer:
    """The parts in an agent's folder; head: the folder of another head."""
    folder = agent or weights.DEFAULT_AGENT
    encoder = Encoder(checkpoint.load_config(EncoderConfig, folder / "encoder"))
    encoder.load_state_dict(checkpoint.load_tensors(folder / "encoder"))
    return Hearer(encoder.eval(), load_speaker_head(head or folder / "speaker"))


def read_speakers(
    data: Path, source: str, split: str | None, each: int = 20
) -> dict[str, list[np.ndarray]]:
    """Speech of the speakers of a source, at least 3 s a clip, without silence around it."""
    found: dict[str, list[dict]] = {}
    for item in read_index(data, "audio.jsonl"):
        is_wanted = item["kind"] == "speech" and source in item["source"] and item.get("speaker")
        if is_wanted and item["seconds"] >= 3.2 and split in (None, item.get("split")):
            found.setdefault(item["speaker"], []).append(item)
    return {
        speaker: [read_clip(data / item["file"]) for item in spread(items, each)]
        for speaker, items in sorted(found.items())
        if len(items) > 1
    }


def read_clip(path: Path) -> np.ndarray:
    """A recording as float32 [N] at the project's rate, its speech at mean square 1e-2."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = trim(soxr.resample(wave[:, 0], rate, SAMPLE_RATE))
    return (wave * np.sqrt(1e-2 / active_power(wave))).astype(np.float32)


def verify(
    voices: dict[str, list[np.ndarray]], embed: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float | list[float]]:
    """The equal error rate in %, with its interval over speakers drawn anew (95 %)."""
    samples = CLIP_TICKS * TICK_SAMPLES
    clips = {name: [w[:samples] for w in v if len(w) >= samples] for name, v in voices.items()}
    found = {name: np.stack([embed(w) for w in v]) for name, v in clips.items() if len(v) > 1}
    names = list(found)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        drawn = {names[i] for i in rng.integers(len(names), size=len(names))}
        if len(drawn) > 1:
            draws.append(error_among(found, sorted(drawn)))
    low, high = np.quantile(draws, [0.025, 0.975])
    clips_heard = sum(map(len, found.values()))
    percent = 100 * error_among(found, names)
    return {
        "equal_error_%": round(percent, 1),
        "interval_%": [round(100 * low, 1), round(100 * high, 1)],
        "speakers": len(names),
        "clips": clips_heard,
    }


def error_among(found: dict[str, np.ndarray], names: list[str]) -> float:
    """The equal error rate of the clips of these speakers."""
    labels = [name for name in names for _ in found[name]]
    return equal_error_rate(np.concatenate([found[name] for name in names]), labels)


@dataclass
class Conversation:
    """Turns of several people in one stream."""

    wave: np.ndarray  # [N], whole ticks
    # (speaker, first tick, end) of each turn.
    turns: list[tuple[int, int, int]]


def converse(voices: list[list[np.ndarray]], turns: int, rng: np.random.Generator) -> Conversation:
    """Turns of people in any order, after each has had one; each is 1.6 to 4.5 s long."""
    parts = [np.zeros(int(0.5 * SAMPLE_RATE), np.float32)]
    at = len(parts[0])
    places = []
    order = [*range(len(voices)), *rng.integers(len(voices), size=turns)][:turns]
    levels = 10 ** (rng.uniform(-4, 4, len(voices)) / 20)
    for speaker in order:
        clips = voices[speaker]
        wave = clips[rng.integers(len(clips))]
        length = int(rng.uniform(1.6, 4.5) * SAMPLE_RATE)
        start = rng.integers(max(1, len(wave) - length + 1))
        wave = wave[start : start + length] * levels[speaker]
        places.append((int(speaker), at // TICK_SAMPLES, -(-(at + len(wave)) // TICK_SAMPLES)))
        gap = np.zeros(int(rng.uniform(0.3, 1.5) * SAMPLE_RATE), np.float32)
        parts += [wave, gap]
        at += len(wave) + len(gap)
    stream = np.concatenate(parts)
    stream = np.pad(stream, (0, -len(stream) % TICK_SAMPLES))
    stream += 10 ** (-60 / 20) * rng.standard_normal(len(stream), dtype=np.float32)
    return Conversation(stream.astype(np.float32), places)


@dataclass
class TurnLabels:
    """Who was found to speak in a turn."""

    # After 1.5 s of its speech, and by the end of it.
    early: int | None = None
    late: int | None = None
    # Ticks of speech until there was a label, and all of them.
    delay: int | None = None
    spoken: int = 0
    # Whether it was taken for the turn of the one who is heeded: at its end, and at some time.
    is_heeded: bool | None = None
    was_heeded: bool = False


def label_turns(
    conversation: Conversation, vectors: np.ndarray, people: People, policy: SpeakerPolicy
) -> list[TurnLabels]:
    """The labels of a conversation's turns; vectors [n, V] are those of its ticks."""
    activity = SpeechActivity()
    rules = TurnPolicy()
    levels = speech_activity.levels(torch.from_numpy(conversation.wave).view(-1, TICK_SAMPLES))
    found = [TurnLabels() for _ in conversation.turns]
    number = 0
    for tick, (vector, level_db) in enumerate(zip(vectors, levels, strict=True)):
        turn = found[number]
        _, start, end = conversation.turns[number]
        speech_activity.update_levels(activity, level_db, rules)
        is_speech = activity.silence_ticks == 0
        agent_people.hear(people, vector, is_speech, True, policy)
        if start <= tick < end and is_speech:
            turn.spoken += 1
            turn.late = agent_people.now_speaking(people)
            turn.early = turn.late if turn.spoken <= LABEL_TICKS else turn.early
            turn.delay = turn.delay or (turn.spoken if turn.late is not None else None)
            turn.is_heeded = people.is_heeded
            turn.was_heeded |= people.is_heeded is True
        # As the agent ends it: after a silence.
        if tick == end + rules.end_silence_ticks - 1 and number + 1 < len(found):
            agent_people.mark(people, [Event("user_ended", tick)], tick, policy)
            number += 1
    for turn in found:
        turn.late = speakers.current_id(people.speakers, turn.late)
    return found


def right(labels: list[int | None], people: list[int]) -> list[bool]:
    """Whether each label stands for its speaker, matched as well as can be."""
    known = sorted({label for label in labels if label is not None})
    table = np.zeros((len(known), max(people) + 1))
    for label, person in zip(labels, people, strict=True):
        if label is not None:
            table[known.index(label), person] += 1
    rows, columns = scipy.optimize.linear_sum_assignment(-table)
    match = {known[row]: column for row, column in zip(rows, columns, strict=True)}
    return [match.get(label) == person for label, person in zip(labels, people, strict=True)]


def measure_labels(
    hearer: Hearer,
    voices: dict[str, list[np.ndarray]],
    people: int,
    policy: SpeakerPolicy,
    count: int,
) -> dict:
    """Shares of the turns that are labelled rightly, with intervals over conversations."""
    names = list(voices)
    early_scores = []
    final_scores = []
    delays = []
    counted = []
    for number in range(count):
        rng = np.random.default_rng([people, number])
        chosen = [voices[names[i]] for i in rng.choice(len(names), people, replace=False)]
        talk = converse(chosen, 6 * people, rng)
        found = label_turns(talk, hearer.vectors(talk.wave), People(), policy)
        who = [speaker for speaker, _, _ in talk.turns]
        late = [turn.late for turn in found]
        early_scores.append((sum(right([turn.early for turn in found], who)), len(who)))
        final_scores.append((sum(right(late, who)), len(who)))
        delays += [turn.delay * TICK_S for turn in found if turn.delay]
        counted.append(len({label for label in late if label is not None}))
    return {
        "after_1.5_s_%": shown(early_scores),
        "at_the_end_%": shown(final_scores),
        "median_label_delay_s": round(float(np.median(delays)), 2),
        "people_found": round(float(np.mean(counted)), 2),
        "conversations": count,
    }


def measure_heeding(
    hearer: Hearer, voices: dict[str, list[np.ndarray]], policy: SpeakerPolicy, count: int
) -> dict:
    """Conversations of two, one of whom has enrolled with 5 s: whose turns are heeded.

    What counts is for whose a turn is taken at its end: an answer hangs on that. While the agent
    speaks, one that is taken for the enrolled one's for a while may stop it.
    """
    names = list(voices)
    wrongly = []
    ever = []
    missed = []
    samples = policy.enroll_ticks * TICK_SAMPLES
    for number in range(count):
        rng = np.random.default_rng([9, number])
        enrolled, other = (names[i] for i in rng.choice(len(names), 2, replace=False))
        clips = voices[enrolled]
        half = len(clips) // 2
        sample = np.concatenate(clips[:half])[:samples]
        voice = hearer.vectors(sample[: len(sample) // TICK_SAMPLES * TICK_SAMPLES]).sum(0)
        people = People()
        agent_people.heed(people, "enrolled", voice, policy)
        talk = converse([clips[half:], voices[other]], 10, rng)
        found = label_turns(talk, hearer.vectors(talk.wave), people, policy)
        for turn, (speaker, _, _) in zip(found, talk.turns, strict=True):
            if speaker == 0:
                missed.append((turn.is_heeded is not True, 1))
            else:
                wrongly.append((turn.is_heeded is True, 1))
                ever.append((turn.was_heeded, 1))
    return {
        "others_heeded_%": shown(wrongly),
        "others_heeded_for_a_while_%": shown(ever),
        "enrolled_missed_%": shown(missed),
    }


def shown(scores: list[tuple[int, int]]) -> list[float]:
    """A rate in %, and both ends of its interval."""
    return [round(100 * value, 1) for value in (rate(scores), *interval(scores))]


def evaluate_speakers(args: argparse.Namespace) -> dict:
    """See the module's text."""
    hearer = open_hearer(args.agent, args.head)
    embedders = {"head": lambda wave: hearer.vectors(wave).sum(0)}
    if not args.alone:
        teacher = CamPlusPlus()
        other = Resemblyzer()
        embedders["CAM++"] = lambda wave: teacher.embed(torch.from_numpy(wave)).numpy()
        embedders["resemblyzer"] = lambda wave: other.embed(torch.from_numpy(wave)).numpy()
    result = {}
    for source in args.source or ("LibriSpeech", "speechocean762"):
        # Of a source that was trained on only the test speakers say anything.
        split = "test" if is_known(source, TRAINED_ON) else None
        voices = read_speakers(args.data, source, split, args.clips)
        if len(voices) < 4:
            continue
        found = {name: verify(voices, embed) for name, embed in embedders.items()}
        for people in (1, 2, 4) if args.conversations else ():
            found[f"labels, {people} people"] = measure_labels(
                hearer, voices, people, SpeakerPolicy(), args.conversations
            )
        if args.conversations:
            found["enrolled"] = measure_heeding(hearer, voices, SpeakerPolicy(), args.conversations)
        result[source] = found
    return result
