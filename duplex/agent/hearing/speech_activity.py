"""Is somebody speaking, and how near? An energy detector beside the recogniser.

It decides nothing alone: turn_policy uses it to hold back the end of a turn while somebody speaks,
to tell the user from a voice far away, and to pause the agent's voice.
"""

from dataclasses import dataclass

import torch

from duplex.agent.turn_policy import TurnPolicy

SILENT_DB = -65.0  # Level of digital silence, dB of full scale; nothing counts as quieter.


@dataclass
class SpeechActivity:
    """Levels (dB of full scale) and ticks since speech, of one session."""

    noise_db: float = 0.0  # follows the quietest ticks
    peak_db: float = SILENT_DB  # follows the loudest ticks
    user_db: float | None = None  # how loud the user's turns were; None: there was none
    segment_db: float = SILENT_DB  # the loudest tick of the current or last segment of speech
    segment_ticks: int = 0  # since that segment began
    silence_ticks: int = 0  # since the last tick of speech
    near_ticks: int = 0  # in a row, of somebody near
    far_ticks: int = 0  # in a row, of nobody near


def levels(audio: torch.Tensor) -> list[float]:
    """Level of each slot, dB of full scale. audio: [B, N]."""
    return level_db(audio).tolist()


def level_db(audio: torch.Tensor) -> torch.Tensor:
    """The same as a tensor [B]."""
    power = audio.square().mean(1).clamp(min=1e-9)
    return (10 * power.log10()).clamp(min=SILENT_DB)


def update_levels(activity: SpeechActivity, level_db: float, policy: TurnPolicy) -> None:
    """Take in one tick: it is speech if it is well above the noise and not far below the peak."""
    activity.noise_db = min(level_db, activity.noise_db + policy.noise_rise_db)
    activity.peak_db = max(level_db, activity.peak_db - policy.peak_decay_db)
    threshold_db = max(
        activity.noise_db + policy.speech_above_noise_db,
        activity.peak_db - policy.speech_below_peak_db,
    )
    is_speech = level_db > threshold_db

    begins = is_speech and activity.silence_ticks > policy.speech_gap_ticks
    activity.silence_ticks = 0 if is_speech else activity.silence_ticks + 1
    activity.segment_db = level_db if begins else max(level_db, activity.segment_db)
    activity.segment_ticks = 0 if begins else activity.segment_ticks + 1

    is_near = (
        is_speech
        and activity.user_db is not None
        and level_db > activity.user_db - policy.far_below_user_db
    )
    activity.near_ticks = activity.near_ticks + 1 if is_near else 0
    activity.far_ticks = 0 if is_near else activity.far_ticks + 1


def end_turn(activity: SpeechActivity, is_for_agent: bool, policy: TurnPolicy) -> None:
    """Learn from a turn how loud the user is: from those said to the agent.

    The level moves half of the way, so that one loud turn does not make all others far. Who goes on
    talking from afar is taken for the user in the end.
    """
    if is_for_agent:
        before_db = activity.segment_db if activity.user_db is None else activity.user_db
        activity.user_db = (before_db + activity.segment_db) / 2
    elif is_far(activity, policy):
        activity.user_db -= policy.user_level_decay_db


def is_far(activity: SpeechActivity, policy: TurnPolicy) -> bool:
    """Whether who speaks, or spoke last, is farther away than the user was."""
    if activity.user_db is None:
        return False
    return activity.segment_db <= activity.user_db - policy.far_below_user_db
