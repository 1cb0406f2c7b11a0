"""When each side could be heard, from the tracks of a recording: turns and words get those times.

The events say when something was decided; a transcript and a picture say when it sounded.
"""

from dataclasses import dataclass

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE
from duplex.client.recording import Recording

# Samples of a frame whose loudness is looked at: 20 ms.
FRAME = SAMPLE_RATE // 50


@dataclass(frozen=True)
class SoundingConfig:
    """What counts as a voice."""

    # Times the level of the quietest tenth of the track, and the least level (-46 dB).
    over_noise: float = 4.0
    least: float = AUDIBLE
    # Seconds of silence inside a stretch of voice.
    pause_s: float = 0.4
    # A turn that was decided began at most so long before, a voice ends at most so long after.
    most_before_s: float = 8.0
    most_after_s: float = 1.0
    # Seconds of a word.
    word_s: float = 0.3


@dataclass(frozen=True)
class Stretch:
    """A voice without a pause, in seconds."""

    start_s: float
    end_s: float


def stretches(track: list[np.ndarray], config: SoundingConfig | None = None) -> list[Stretch]:
    """Where a track, pieces of int16, has a voice."""
    config = config or SoundingConfig()
    samples = np.concatenate([*track, np.zeros(0, np.int16)])
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    levels = np.sqrt(np.square(frames / 32768).mean(axis=1))
    noise = float(np.quantile(levels, 0.1)) if len(levels) else 0.0
    loud = np.flatnonzero(levels > max(config.least, config.over_noise * noise))
    found: list[Stretch] = []
    for frame in loud:
        start_s = int(frame) * FRAME / SAMPLE_RATE
        end_s = start_s + FRAME / SAMPLE_RATE
        if found and start_s - found[-1].end_s < config.pause_s:
            found[-1] = Stretch(found[-1].start_s, end_s)
        else:
            found.append(Stretch(start_s, end_s))
    return found


def place(recording: Recording, config: SoundingConfig | None = None) -> None:
    """Give the turns' events `start_s` and `end_s`, the user's words `start_s`: when they sounded.

    What has such times already keeps them.
    """
    config = config or SoundingConfig()
    user = stretches(recording.user, config)
    agent = stretches(recording.agent, config)
    turns = _turns(recording.events, "user_started", ("user_ended",))
    last_end_s = 0.0
    for started, inside, ended in turns:
        time_s = started["time_s"]
        until_s = ended["time_s"] if ended else recording.seconds
        heard = [it for it in user if it.end_s > last_end_s and it.start_s < until_s]
        heard = [it for it in heard if it.end_s > time_s - config.most_before_s]
        if not heard:
            continue
        # Silence of a second or more lies between what it belongs to and what came before.
        run = _run_up_to(heard, time_s, config)
        start_s = max(run.start_s, last_end_s)
        end_s = min(heard[-1].end_s, until_s)
        started.setdefault("start_s", round(start_s, 3))
        if ended:
            ended.setdefault("end_s", round(max(start_s, end_s), 3))
            last_end_s = max(start_s, end_s)
        _place_words(inside, start_s, end_s - config.word_s)
    turns = _turns(recording.events, "agent_started", ("agent_ended", "agent_stopped"))
    nexts_s = [turn[0]["time_s"] for turn in turns[1:]] + [recording.seconds + config.most_after_s]
    for (started, _, ended), next_s in zip(turns, nexts_s, strict=False):
        until_s = (ended["time_s"] if ended else recording.seconds) + config.most_after_s
        until_s = min(until_s, next_s)
        sounds = [it for it in agent if started["time_s"] - 0.1 <= it.start_s < until_s]
        if sounds:
            started.setdefault("start_s", round(sounds[0].start_s, 3))
            if ended:
                ended.setdefault("end_s", round(sounds[-1].end_s, 3))


def _turns(events: list[dict], begins: str, ends: tuple[str, ...]):
    """The events of each turn: its first, those inside, its last or None."""
    found = []
    for event in events:
        kind = event["type"]
        if kind == begins:
            found.append((event, [], None))
        elif found and kind in ends and found[-1][2] is None:
            found[-1] = (*found[-1][:2], event)
        elif found:
            found[-1][1].append(event)
    return found


def _run_up_to(heard: list[Stretch], time_s: float, config: SoundingConfig) -> Stretch:
    """The voice that made the turn begin: what lies nearest before, with no long pause inside."""
    before = [it for it in heard if it.start_s <= time_s] or heard[:1]
    run = before[-1]
    for earlier in reversed(before[:-1]):
        if run.start_s - earlier.end_s > 2 * config.pause_s:
            break
        run = Stretch(earlier.start_s, run.end_s)
    return run


def _place_words(inside: list[dict], start_s: float, last_s: float) -> None:
    """Words are written down some time after they sound; the last one began at `last_s`."""
    words = [event for event in inside if event["type"] == "heard"]
    if not words:
        return
    lag_s = max(0.0, words[-1]["time_s"] - last_s)
    for word in words:
        word.setdefault("start_s", round(max(start_s, word["time_s"] - lag_s), 3))
