"""The sound of the user's open turn, kept tick by tick for the second pass of recognition."""

import numpy as np

from duplex.agent.config import SecondPassConfig
from duplex.agent.session import SecondPassState, Session, UserTurn
from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import BeamState


def keep_tick(session: Session, power: np.ndarray, config: SecondPassConfig) -> None:
    """Append a tick's frames, log10 power [8, 80]; forget those from before the turn."""
    user = session.user
    turn = user.second
    turn.sound.append(power.copy())
    turn.ticks_unread += 1
    if not session.grammar.user_open and not user.pending.tokens:
        turn.is_open = False
        turn.ticks_unread = 0
        del turn.sound[: -config.memory_ticks]
    elif not turn.is_open:
        # The first word is there: what was heard before it began is of no use.
        turn.is_open = True
        segment = user.activity.segment_ticks + 1
        del turn.sound[: -max(segment, config.word_ticks) - config.lead_ticks]
    elif len(turn.sound) > config.max_sound_ticks:
        turn.is_sound_lost = True
        del turn.sound[: -config.max_sound_ticks]


def end_turn(user: UserTurn) -> None:
    """The turn is over: nobody waits for its reading, and the next one begins behind its words."""
    withdraw(user.second)
    user.second = SecondPassState(sound=_since_last_word(user))


def finish_part(user: UserTurn) -> None:
    """What was read of a long turn stays; the next readings are of what follows."""
    turn = user.second
    turn.final_tokens = len(user.transcribed)
    turn.final_text = user.shown_text
    turn.draft = []
    turn.latest = []
    turn.agreed = []
    turn.sound = _since_last_word(user)


def withdraw(turn: SecondPassState) -> None:
    """Nobody waits for the reading that was asked for any more."""
    if turn.submission is not None:
        turn.submission.job.cancel()
        turn.submission = None


def quiet_ticks(user: UserTurn) -> int:
    """Ticks for which nobody speaks, as the level or the first pass has it."""
    return max(user.activity.silence_ticks, user.beam.silent_frames // ENCODER_FRAMES_PER_TICK)


def has_new_words(user: UserTurn) -> bool:
    """Whether the first pass has words that no final reading covers."""
    return len(user.transcribed) > user.second.final_tokens or bool(user.pending.tokens)


def is_covered(beam: BeamState, frame: int) -> bool:
    """Whether all committed words ended before this frame, or so soon after it that the first pass,
    which is late, speaks of what was heard before it."""
    return beam.committed_frame <= frame + beam_search.DEFAULT.commit_all_frames


def _since_last_word(user: UserTurn) -> list[np.ndarray]:
    """The sound since the last committed word ended."""
    ticks = (user.beam.frame - user.beam.committed_frame) // ENCODER_FRAMES_PER_TICK
    return user.second.sound[-ticks:] if ticks else []
