"""Measure when the agent speaks: pauses, words said into its answers, and noise.

    python -m duplex.training.evaluate turns --pool pools/user --noise DATA --out runs/evaluation

- Pauses: texts of a pool whose word times are known (duplex.training.speech), each with one pause
  of half a second to a second and a half put between two words of its middle. Spoken into, or how
  long after the last word it answers.
- The scenes' questions (`duplex.bench.scenes`), and into the voice of their answers, 0.4 or 1 s
  after it began, the scenes' back-channels, which must not stop it, and their interruptions, to
  which it must yield. An answer whose words had all been written is not stopped: its last words
  are said.
- With --kokoro, the same with phrases of assent and with interruptions by voices that no training
  has heard.
- Stretches of noise, tones and silence, in which nobody speaks to it.
"""

import argparse
import itertools
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplex.agent import load_agent
from duplex.agent.backchannels import BACKCHANNELS
from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_SAMPLES
from duplex.bench import scenes as bench_scenes
from duplex.events import Event
from duplex.training.data.augment import load_noise
from duplex.training.data.pool import Pool
from duplex.training.evaluation.hearing.disturbances import wordless, words_per_minute
from duplex.training.evaluation.hearing.spoken_items import open_held_out, say
from duplex.training.evaluation.play import LEAD_IN_SAMPLES, Tick, in_ticks, play
from duplex.training.evaluation.spoken import SpokenTexts
from duplex.training.text.templates import read_lines
from duplex.transcript import Transcript

# Kinds of scenes whose pieces are said into an answer, and what is counted of each.
INTO_KINDS = {
    "back_channel": "back-channels that stop it",
    "interruption": "interruptions it yields to",
    "assent": "assent in other words that stops it",
}


@dataclass
class Talk:
    """What is played in a session, and what comes of it; its places are samples from the start."""

    sound: np.ndarray  # float32 [N]
    second: np.ndarray | None = None  # said into the answer's voice, float32 [M]
    after_s: float = 0.0  # how long after the voice began
    voice_at: int | None = None
    second_at: int | None = None
    is_into_voice: bool = False  # whether there was a voice to speak into
    is_stopped: bool = False
    wrote_on: bool = False  # whether more of the answer came after the second sound had begun
    answered_again: bool = False
    tick: int = 0
    wait_ticks: int = 38  # that an answer is waited for: 3 s
    watch_ticks: int = 25  # for which it is watched after the second sound: 2 s

    def script(self, slot: int) -> Generator[np.ndarray, Tick, "Talk"]:
        """The session; it returns the talk itself."""
        while not self.is_over():
            tick = yield self.audio()
            self.note(tick.voice, tick.events)
        return self

    def audio(self) -> np.ndarray:
        """This tick's sound, [TICK_SAMPLES]."""
        both = np.zeros(TICK_SAMPLES, np.float32)
        for sound, begin in ((self.sound, 0), (self.second, self.second_at)):
            if begin is not None:
                place = self.tick * TICK_SAMPLES - begin
                part = sound[place : place + TICK_SAMPLES]
                both[: len(part)] += part
        return both

    def note(self, voice: np.ndarray, events: list[Event]) -> None:
        """Take in what the agent made of the tick; the second sound begins with the next one."""
        begin = self.tick * TICK_SAMPLES
        end = begin + TICK_SAMPLES
        loud = np.flatnonzero(np.abs(voice) > SPEECH_LEVEL)
        self.tick += 1
        if self.voice_at is None and len(loud):
            self.voice_at = begin + int(loud[0])
        if self.second_at is not None:
            self._note_reaction(events)
        elif self.second is not None and self.voice_at is not None:
            if end >= self.voice_at + self.after_s * SAMPLE_RATE:
                self.second_at = end
                self.is_into_voice = len(loud) > 0

    def _note_reaction(self, events: list[Event]) -> None:
        for event in events:
            self.answered_again |= event.kind == "agent_started"
            if not self.answered_again:
                self.is_stopped |= event.kind == "agent_stopped"
                self.wrote_on |= event.kind == "said"

    def is_over(self) -> bool:
        """Whether nothing more is to be learned."""
        now = self.tick * TICK_SAMPLES
        if self.second_at is not None:
            return now > self.second_at + len(self.second) + self.watch_ticks * TICK_SAMPLES
        has_voice = self.second is None and self.voice_at is not None and now > len(self.sound)
        return has_voice or now > len(self.sound) + self.wait_ticks * TICK_SAMPLES


def with_pause(
    wave: np.ndarray, words: list, place: int, pause_s: float, fade_s: float = 0.01
) -> tuple[np.ndarray, int]:
    """wave, float32 [N], with silence before the word at `place`, and the sample of its end.

    words: (word, begin_s, end_s) of each; the end is that of the last one.
    """
    cut = round((words[place - 1][2] + words[place][1]) / 2 * SAMPLE_RATE)
    pause = round(pause_s * SAMPLE_RATE)
    fade = round(fade_s * SAMPLE_RATE)
    before = wave[:cut].astype(np.float32)
    after = wave[cut:].astype(np.float32)
    before[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    after[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
    lead_in = np.zeros(LEAD_IN_SAMPLES, np.float32)
    sound = np.concatenate([lead_in, before, np.zeros(pause, np.float32), after])
    return sound, LEAD_IN_SAMPLES + pause + round(words[-1][2] * SAMPLE_RATE)


def paused_talks(pool: Pool, count: int, seed: int) -> list[tuple[Talk, int]]:
    """`count` texts of a pool with a pause in each, and the sample where its last word ends."""
    rng = np.random.default_rng(seed)
    found: list[tuple[Talk, int]] = []
    for i in rng.permutation(len(pool)):
        words = pool.entries[i]["words"]
        # The word times of these voices are the synthesiser's own.
        has_times = pool.entries[i]["voice"].startswith(("kokoro", "hibari"))
        if len(found) < count and 5 <= len(words) <= 16 and has_times:
            place = int(rng.integers(2, len(words) - 1))
            sound, end = with_pause(pool.wave(i), words, place, rng.uniform(0.5, 1.5))
            found.append((Talk(sound), end))
    return found


def pauses(agent, pool: Pool, count: int, seed: int) -> dict:
    """How many pauses are spoken into, and how soon after its last word a text is answered."""
    talks = paused_talks(pool, count, seed)
    play(agent, [talk.script for talk, _ in talks], itertools.repeat(seed))
    after = [talk.voice_at - end for talk, end in talks if talk.voice_at is not None]
    after_s = np.array(after) / SAMPLE_RATE
    delays = after_s[after_s >= 0]
    quantiles = np.quantile(delays, (0.5, 0.9)).round(2).tolist() if len(delays) else None
    return {
        "spoken into": f"{len(after_s) - len(delays)} of {len(talks)}",
        "not answered": len(talks) - len(after_s),
        "answered after, s: median, nine in ten within": quantiles,
    }


def pieces(scenes: list[bench_scenes.Scene], kinds: tuple[str, ...], role: str) -> list[np.ndarray]:
    """The sounds that have this role in the scenes of these kinds, float32 [N] each."""
    return [
        piece.samples
        for scene in scenes
        if scene.kind in kinds
        for piece in scene.pieces
        if piece.role == role
    ]


def said_into(
    agent, seconds: dict[str, list[np.ndarray]], delays_s: tuple, count: int, seed: int
) -> dict:
    """How often the agent stops for what is said into its answers.

    seconds: of kinds of INTO_KINDS the sounds, said `delays_s` after the voice began.
    """
    scenes = bench_scenes.load()
    rng = np.random.default_rng(seed)
    questions = pieces(scenes, ("turn", *INTO_KINDS), "question")
    result = {}
    for kind, sounds in seconds.items():
        row = INTO_KINDS[kind]
        choices = list(itertools.product(questions, sounds, delays_s))
        talks = []
        for i in rng.permutation(len(choices))[:count]:
            question, second, after_s = choices[i]
            talks.append(Talk(np.pad(question, (LEAD_IN_SAMPLES, 0)), second, after_s))
        play(agent, [talk.script for talk in talks], itertools.repeat(seed))
        talks = [talk for talk in talks if talk.is_into_voice]
        others = [talk for talk in talks if not talk.is_stopped]
        result[row] = f"{sum(talk.is_stopped for talk in talks)} of {len(talks)}"
        result[f"{row}: of the others, all words had been written before"] = sum(
            not talk.wrote_on for talk in others
        )
        result[f"{row}: answered"] = sum(talk.answered_again for talk in talks)
    return result


def scene_sounds() -> dict[str, list[np.ndarray]]:
    """What is said into answers in the bench's scenes."""
    scenes = bench_scenes.load()
    return {kind: pieces(scenes, (kind,), kind) for kind in ("back_channel", "interruption")}


def spoken_sounds(folder: Path, vectors: Path) -> dict[str, list[np.ndarray]]:
    """Assent and interruptions, each text by two of the voices that only measure.

    folder: where the sounds are kept; vectors: Kokoro's voices.
    """
    spoken = SpokenTexts(folder, lambda: open_held_out(vectors))
    texts = {
        "back_channel": BACKCHANNELS,
        "interruption": read_lines("interruptions"),
        "assent": read_lines("assent"),
    }
    return {
        kind: [
            say(spoken, f"{kind}-{voice}", number + 2 * voice, text).wave
            for number, text in enumerate(said)
            for voice in range(2)
        ]
        for kind, said in texts.items()
    }


def in_noise(agent, noises: list[np.ndarray], minutes: float, seed: int) -> dict:
    """What the agent writes and says while nobody speaks to it; each slot hears its own share."""
    waves = wordless(noises, minutes, np.random.default_rng(seed))
    rows = [np.concatenate(waves[slot :: agent.slots]) for slot in range(agent.slots)]
    ticks = min(map(len, rows)) // TICK_SAMPLES
    rows = [row[: ticks * TICK_SAMPLES] for row in rows]

    def script(slot: int) -> Generator[np.ndarray, Tick, tuple[str, int]]:
        transcript = Transcript()
        answers = 0
        for sound in in_ticks(rows[slot]):
            for event in (yield sound).events:
                transcript.read(event)
                answers += event.kind == "agent_started"
        return transcript.user_text, answers

    found = play(agent, [script] * agent.slots, range(agent.slots))
    return {
        "minutes": round(sum(map(len, rows)) / SAMPLE_RATE / 60, 1),
        "words written a minute": words_per_minute([text for text, _ in found], rows),
        "times it spoke": sum(answers for _, answers in found),
    }


def evaluate_turns(args: argparse.Namespace) -> dict:
    """`evaluate turns`."""
    agent = load_agent(args.agent, slots=args.slots)
    result = {}
    for folder in args.pool:
        name = f"pauses within texts of {folder.name}"
        result[name] = pauses(agent, Pool(folder, "valid"), args.clips, args.seed)
    result |= said_into(agent, scene_sounds(), (0.4, 1.0), args.clips, args.seed)
    if args.kokoro:
        sounds = spoken_sounds(args.out / "said_into", args.kokoro)
        result["unseen voices"] = said_into(agent, sounds, (0.4, 0.8), args.clips, args.seed)
    if args.noise:
        result["noise"] = in_noise(agent, load_noise(args.noise), args.minutes, args.seed)
    return result
