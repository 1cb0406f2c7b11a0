"""The sound of a scene: what the user says, by the voices of speech pools, and what the agent says.

A channel is float32 [ticks * TICK_SAMPLES].
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES, VOICE_RMS
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.data.augment import active_power, augment
from duplex.training.data.pool import Pool
from duplex.training.scenes.scene import (
    VOICE_DELAY_S,
    AgentTurn,
    Scene,
    Word,
    guess_times,
    scene_from_turns,
    voice_seconds,
)

# Seconds of sound before an utterance's first word that belong to it.
ONSET_S = 0.08

# A text and a speed -> wave [N], [[word, start, end], ...] in seconds from its beginning.
Say = Callable[[str, float], tuple[np.ndarray, list]]


class UtteranceIndex:
    """The utterances of speech pools by their text: who can say what."""

    def __init__(self, folders: list[Path]):
        self.by_text: dict[str, list[tuple[Pool, int]]] = {}
        for folder in folders:
            pool = Pool(folder)
            for i, entry in enumerate(pool.entries):
                if entry["words"]:
                    self.by_text.setdefault(entry["text"], []).append((pool, i))

    def scene(self, turns: list[dict], rng: np.random.Generator) -> Scene | None:
        """A dialogue's turns on a time line, the user's words with their sound.

        None where a sentence was never said. A backchannel without a sound is left out.
        """
        if any(turn["role"] == "user" and turn["text"] not in self.by_text for turn in turns):
            return None

        def times(text: str) -> list[Word]:
            if text not in self.by_text:  # A backchannel.
                return guess_times(text, rng)
            pool, i = self.by_text[text][rng.integers(len(self.by_text[text]))]
            return words_with_sound(pool.wave(i), pool.entries[i]["words"])

        scene = scene_from_turns(turns, times, rng)
        scene.user = [turn for turn in scene.user if all(word.sound for word in turn.words)]
        for turn in scene.user:
            turn.words = [word for word in turn.words if word.text]
        return scene if all(turn.words for turn in scene.user) else None


def words_with_sound(wave: np.ndarray, times: list) -> list[Word]:
    """An utterance [N] as words with their parts of it.

    times: [[word, start, end], ...] in seconds. A part goes up to the next word; the first begins
    a little before its word.
    """
    words = []
    for k, (raw, start, end) in enumerate(times):
        begin = max(0.0, start - ONSET_S) if k == 0 else start
        until = len(wave) if k + 1 == len(times) else int(times[k + 1][1] * SAMPLE_RATE)
        part = (wave, int(begin * SAMPLE_RATE), until)
        words.append(Word(spoken_form(raw), start, end, part, raw.endswith(",")))
    return words


def render_user_channel(
    scene: Scene, noises: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Utterances where the scene puts their words, then noise and a room over everything."""
    channel = mix_user_words(scene)
    return augment(channel, active_power(channel), noises, rng)


def mix_user_words(scene: Scene) -> np.ndarray:
    """The user's channel, clean."""
    channel = np.zeros(int(scene.seconds / TICK_S) * TICK_SAMPLES, np.float32)
    for turn in scene.user:
        for i, word in enumerate(turn.words):
            wave, start, end = word.sound
            at = max(0, int((word.start - (ONSET_S if i == 0 else 0.0)) * SAMPLE_RATE))
            part = wave[max(0, start) : end][: len(channel) - at]
            channel[at : at + len(part)] += turn.gain * part
    return channel


def render_agent_channel(scene: Scene, say: Say) -> tuple[np.ndarray, list]:
    """What the agent says, at the level of a voice, faded out where it breaks off.

    It takes as long as the scene was laid out for, at a speed of 0.8 to 1.3. Returns the channel
    and its words [[word, [start, end]], ...].
    """
    channel = np.zeros(int(scene.seconds / TICK_S) * TICK_SAMPLES, np.float32)
    words = []
    for speech in scene.agent:
        wave, times = say(speech.text, 1.0)
        speed = float(np.clip(len(wave) / SAMPLE_RATE / voice_seconds(speech.text), 0.8, 1.3))
        wave, times = say(speech.text, speed)
        begin = speech.start + VOICE_DELAY_S
        end = min(
            begin + len(wave) / SAMPLE_RATE, interrupted_at(speech), len(channel) / SAMPLE_RATE
        )
        at = int(begin * SAMPLE_RATE)
        count = int(max(0.0, end - begin) * SAMPLE_RATE)
        part = wave[:count] * (VOICE_RMS / np.sqrt(active_power(wave)))
        fade = min(count, int(0.02 * SAMPLE_RATE))
        part[count - fade :] *= np.linspace(1.0, 0.0, fade)
        channel[at : at + count] += part
        for word, first, last in times:
            if begin + last <= end:
                words.append([word, [round(begin + first, 3), round(begin + last, 3)]])
    return channel, words


def interrupted_at(speech: AgentTurn) -> float:
    """The second at which an agent's turn breaks off: after the interruption's first word."""
    return speech.stopped_by.words[0].end if speech.stopped_by else float("inf")
