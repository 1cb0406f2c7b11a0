"""Measure when the agent speaks: pauses it must not speak into, words said into its answers, and noise.

    python -m duplex.training.evaluate turns --pool pools/user --noise DATA --out runs/evaluation

- Pauses: texts of a pool whose word times are known (duplex.training.speech), each with one pause of half a second to a second and a half
  put between two words of its middle. Spoken into, or how long after the last word it answers.
- The scenes' questions (`duplex.bench.scenes`), and into the voice of their answers, 0.4 or 1 s after it began, the scenes'
  back-channels, which must not stop it, and their interruptions, to which it must yield. An answer whose words had all been written
  is not stopped: its last words are said.
- Stretches of noise, tones and silence, in which nobody speaks to it.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from duplex.training.data.pool import Pool
from duplex.training.evaluation.hearing import wordless, words_a_minute
from duplex.training.evaluation.play import LEAD_IN_SAMPLES

from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_SAMPLES
from duplex.bench import scenes as bench_scenes
from duplex.events import Transcript

PAUSES_S, WORDS = (0.5, 1.5), (5, 16)
VOICES = ("kokoro", "hibari")  # of a pool's, whose word times are the synthesiser's own
FADE_SAMPLES = SAMPLE_RATE // 100
INTO_VOICE_S = (0.4, 1.0)
INTO_KINDS = {
    "back_channel": "back-channels that stop it",
    "interruption": "interruptions it yields to",
}
WAIT_TICKS = 38  # 3 s for an answer
WATCH_TICKS = 25  # 2 s after what was said into it


@dataclass
class Talk:
    """What is played in a session of its own, and what came of it. Places are samples from its beginning."""

    sound: np.ndarray
    second: np.ndarray | None = None  # said into the answer's voice
    after_s: float = 0.0  # since it began
    voice_at: int | None = None
    second_at: int | None = None
    into_voice: bool = False  # whether there was a voice to speak into
    stopped: bool = False
    wrote_on: bool = False  # the answer, after the second sound had begun
    answered_again: bool = False
    tick: int = 0

    def audio(self) -> np.ndarray:
        """This tick's sound [TICK_SAMPLES]."""
        both = np.zeros(TICK_SAMPLES, np.float32)
        for sound, begin in ((self.sound, 0), (self.second, self.second_at)):
            if begin is not None:
                place = self.tick * TICK_SAMPLES - begin
                part = sound[place : place + TICK_SAMPLES]
                both[: len(part)] += part
        return both

    def note(self, voice: np.ndarray, events: list) -> None:
        """What the agent made of it; the second sound begins with a tick."""
        begin, loud = self.tick * TICK_SAMPLES, np.flatnonzero(np.abs(voice) > SPEECH_LEVEL)
        if self.voice_at is None and len(loud):
            self.voice_at = begin + int(loud[0])
        for event in events if self.second_at is not None else ():
            self.answered_again |= event.kind == "agent_started"
            if not self.answered_again:
                self.stopped |= event.kind == "agent_stopped"
                self.wrote_on |= event.kind == "said"
        self.tick += 1
        due = self.second is not None and self.second_at is None and self.voice_at is not None
        if due and begin + TICK_SAMPLES >= self.voice_at + self.after_s * SAMPLE_RATE:
            self.second_at, self.into_voice = begin + TICK_SAMPLES, len(loud) > 0

    def over(self) -> bool:
        now = self.tick * TICK_SAMPLES
        if self.second_at is not None:
            return now > self.second_at + len(self.second) + WATCH_TICKS * TICK_SAMPLES
        done = self.second is None and self.voice_at is not None and now > len(self.sound)
        return done or now > len(self.sound) + WAIT_TICKS * TICK_SAMPLES


def hold(agent, talks: list[Talk], seed: int) -> list[Talk]:
    """All of them, each in a new session, in all of the agent's slots at once."""
    waiting, holding = list(talks), {}
    while waiting or holding:
        for slot in range(agent.slots):
            if slot not in holding and waiting:
                agent.open(slot, seed=seed)
                holding[slot] = waiting.pop(0)
        audio = np.zeros((agent.slots, TICK_SAMPLES), np.float32)
        for slot, talk in holding.items():
            audio[slot] = talk.audio()
        voice, events = agent.step(audio, list(holding))
        for slot, talk in list(holding.items()):
            talk.note(voice[slot], events[slot])
            if talk.over():
                agent.close(slot)
                del holding[slot]
    return talks


def with_pause(wave: np.ndarray, words: list, place: int, pause_s: float) -> tuple[np.ndarray, int]:
    """wave [N] with silence before the word at `place`; words: (word, begin, end) in seconds -> sound, where its last word ends."""
    cut, pause = (
        round((words[place - 1][2] + words[place][1]) / 2 * SAMPLE_RATE),
        round(pause_s * SAMPLE_RATE),
    )
    before, after = wave[:cut].astype(np.float32), wave[cut:].astype(np.float32)
    before[-FADE_SAMPLES:] *= np.linspace(1, 0, FADE_SAMPLES, dtype=np.float32)
    after[:FADE_SAMPLES] *= np.linspace(0, 1, FADE_SAMPLES, dtype=np.float32)
    sound = np.concatenate(
        [np.zeros(LEAD_IN_SAMPLES, np.float32), before, np.zeros(pause, np.float32), after]
    )
    return sound, LEAD_IN_SAMPLES + pause + round(words[-1][2] * SAMPLE_RATE)


def pauses(agent, pool: Pool, count: int, seed: int) -> dict:
    rng, talks, ends = np.random.default_rng(seed), [], []
    for i in rng.permutation(len(pool)):
        words = pool.entries[i]["words"]
        if (
            len(talks) < count
            and WORDS[0] <= len(words) <= WORDS[1]
            and pool.entries[i]["voice"].startswith(VOICES)
        ):
            sound, end = with_pause(
                pool.wave(i), words, int(rng.integers(2, len(words) - 1)), rng.uniform(*PAUSES_S)
            )
            talks.append(Talk(sound))
            ends.append(end)
    pairs = zip(hold(agent, talks, seed), ends, strict=True)
    after = (
        np.array([talk.voice_at - end for talk, end in pairs if talk.voice_at is not None])
        / SAMPLE_RATE
    )
    delays = after[after >= 0]
    return {
        "spoken into": f"{len(after) - len(delays)} of {len(talks)}",
        "not answered": len(talks) - len(after),
        "answered after, s: median, nine in ten within": np.quantile(delays, (0.5, 0.9))
        .round(2)
        .tolist()
        if len(delays)
        else None,
    }


def said_into(agent, count: int, seed: int) -> dict:
    scenes, rng = bench_scenes.load(), np.random.default_rng(seed)
    kinds = ("turn", *INTO_KINDS)
    questions = [
        piece.samples
        for scene in scenes
        if scene.kind in kinds
        for piece in scene.pieces
        if piece.role == "question"
    ]
    result = {}
    for kind, row in INTO_KINDS.items():
        seconds = [
            piece.samples
            for scene in scenes
            if scene.kind == kind
            for piece in scene.pieces
            if piece.role == kind
        ]
        pairs = [(q, s, after_s) for q in questions for s in seconds for after_s in INTO_VOICE_S]
        chosen = [pairs[i] for i in rng.permutation(len(pairs))[:count]]
        talks = hold(
            agent,
            [Talk(np.pad(q, (LEAD_IN_SAMPLES, 0)), s, after_s) for q, s, after_s in chosen],
            seed,
        )
        talks = [talk for talk in talks if talk.into_voice]
        going_on = [talk for talk in talks if not talk.stopped]
        result[row] = f"{sum(talk.stopped for talk in talks)} of {len(talks)}"
        result[f"{row}: of the others, all words had been written before"] = sum(
            not talk.wrote_on for talk in going_on
        )
    return result


def in_noise(agent, noises: list[np.ndarray], minutes: float, seed: int) -> dict:
    waves = wordless(noises, minutes, np.random.default_rng(seed))
    rows = [np.concatenate(waves[slot :: agent.slots]) for slot in range(agent.slots)]
    ticks = min(map(len, rows)) // TICK_SAMPLES
    rows, slots = [row[: ticks * TICK_SAMPLES] for row in rows], [*range(agent.slots)]
    heard, kinds = [Transcript() for _ in rows], Counter()
    for slot in slots:
        agent.open(slot, seed=slot)
    for tick in range(ticks):
        _, events = agent.step(
            np.stack([row[tick * TICK_SAMPLES : (tick + 1) * TICK_SAMPLES] for row in rows]), slots
        )
        for transcript, of_slot in zip(heard, events, strict=True):
            for event in of_slot:
                transcript.read(event)
                kinds[event.kind] += 1
    for slot in slots:
        agent.close(slot)
    return {
        "minutes": round(sum(map(len, rows)) / SAMPLE_RATE / 60, 1),
        "words written a minute": words_a_minute(
            [transcript.user_text for transcript in heard], rows
        ),
        "times it spoke": kinds["agent_started"],
    }


def evaluate_turns(args) -> dict:
    from duplex.training.data.augment import load_noise

    from duplex.agent import load_agent

    agent, result = load_agent(args.agent, slots=args.slots), {}
    for folder in args.pool:
        result[f"pauses within texts of {folder.name}"] = pauses(
            agent, Pool(folder, "valid"), args.clips, args.seed
        )
    result |= said_into(agent, args.clips, args.seed)
    if args.noise:
        result["noise"] = in_noise(agent, load_noise(args.noise), args.minutes, args.seed)
    return result
