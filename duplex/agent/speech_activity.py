"""What a session has heard and not yet written down, and whether somebody is speaking right now.

The LM decides what is written, but it may only write the words that were heard, and must not pass over one that is sure.
"""

from dataclasses import dataclass, field

import torch

SURELY_HEARD = 0.5  # share of the hypotheses' probability (duplex.model.lexicon) from which on a word must be written
REFUSED_TICKS = 4  # what waits longer the LM does not believe
FORGOTTEN_TICKS = 12  # what the LM has not written down by then it never will
# A tick is loud when it is well above the noise and not far below the speaker, both followed with a slow return (dB a tick).
QUIETEST_DB, ABOVE_NOISE_DB, BELOW_SPEECH_DB, NOISE_RISES_DB, SPEECH_FALLS_DB = (
    -65.0,
    9.0,
    18.0,
    0.3,
    0.15,
)
# Somebody is near who is about as loud as the user was: no television, nobody at the room's other end. Who goes on talking from
# afar is taken for the user in the end (dB a turn).
BELOW_USER_DB, FAR_FALLS_DB = 6.0, 1.0
STRETCH_TICKS = 6  # of quiet end a stretch of speech
ECHO_LETTERS = 4  # of the beginning of an own word are taken for the word


@dataclass
class Hearing:
    unwritten: list[tuple[int, int, float]] = field(
        default_factory=list
    )  # (tick, token, how sure), oldest first
    surest: float | None = None  # piece of the open turn that was written down
    noise_db: float = 0.0  # what the quietest ticks are like, and the loudest
    speech_db: float = QUIETEST_DB
    quiet_ticks: int = 0  # since the level was last that of speech
    user_db: float | None = None  # how loud the user's turns were
    near_ticks: int = 0  # in a row, of somebody near
    far_ticks: int = 0  # in a row, of nobody near
    stretch_db: float = QUIETEST_DB  # the loudest of what is being said, or was said last
    stretch_ticks: int = 0  # since it began


def levels(audio: torch.Tensor) -> list[float]:
    """audio [B, N] -> level of each slot in dB of full scale."""
    return (10 * audio.square().mean(1).clamp(min=1e-9).log10()).clamp(min=QUIETEST_DB).tolist()


def weigh(hearing: Hearing, level_db: float) -> None:
    """Whether somebody speaks in a tick of this level, and how near: a word is heard only after its end."""
    hearing.noise_db = min(level_db, hearing.noise_db + NOISE_RISES_DB)
    hearing.speech_db = max(level_db, hearing.speech_db - SPEECH_FALLS_DB)
    loud = level_db > max(hearing.noise_db + ABOVE_NOISE_DB, hearing.speech_db - BELOW_SPEECH_DB)
    quiet = hearing.quiet_ticks
    hearing.quiet_ticks = 0 if loud else hearing.quiet_ticks + 1
    begins = loud and quiet > STRETCH_TICKS
    hearing.stretch_db = level_db if begins else max(level_db, hearing.stretch_db)
    hearing.stretch_ticks = 0 if begins else hearing.stretch_ticks + 1
    near = loud and hearing.user_db is not None and level_db > hearing.user_db - BELOW_USER_DB
    hearing.near_ticks, hearing.far_ticks = (
        (hearing.near_ticks + 1, 0) if near else (0, hearing.far_ticks + 1)
    )


def turn_ended(hearing: Hearing, for_the_agent: bool) -> None:
    """What was said to the agent tells how loud the user is."""
    hearing.surest = None
    if for_the_agent:
        before = hearing.stretch_db if hearing.user_db is None else hearing.user_db
        hearing.user_db = (
            before + hearing.stretch_db
        ) / 2  # one loud turn does not make all others far
    elif far(hearing):
        hearing.user_db -= FAR_FALLS_DB


def far(hearing: Hearing) -> bool:
    """Whether who speaks, or spoke last, is farther than the user was."""
    return hearing.user_db is not None and hearing.stretch_db <= hearing.user_db - BELOW_USER_DB


def expect(hearing: Hearing, tick: int, heard: list[tuple[int, float]]) -> None:
    """The pieces (token, how sure) of the words that were settled in a tick wait to be written."""
    waiting = [piece for piece in hearing.unwritten if piece[0] > tick - FORGOTTEN_TICKS]
    hearing.unwritten = waiting + [(tick, token, sure) for token, sure in heard]


def of_its_own(heard: str, words: list[str]) -> bool:
    """Whether a word is one of those that the agent has just said or is saying: its voice, back from a loudspeaker."""
    heard = _letters(heard)
    own = [word for word in map(_letters, words) if word]
    return (
        heard in own or len(heard) >= ECHO_LETTERS and any(word.startswith(heard) for word in own)
    )


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter == "'")


def pressing(hearing: Hearing) -> dict[int, float]:
    """What may be written down next, and how sure it is: what is not sure may be passed over, a sure piece may not."""
    found: dict[int, float] = {}
    for _, token, share in hearing.unwritten:
        found[token] = max(share, found.get(token, 0.0))
        if share >= SURELY_HEARD:
            break
    return found


def sure(hearing: Hearing) -> list[int]:
    """The pieces that wait to be written and were surely heard, in order."""
    return [token for _, token, share in hearing.unwritten if share >= SURELY_HEARD]


def awaits(hearing: Hearing, tick: int) -> bool:
    """Whether a piece was surely heard so lately that the LM will yet write it down."""
    return any(
        share >= SURELY_HEARD and heard > tick - REFUSED_TICKS
        for heard, _, share in hearing.unwritten
    )


def written(hearing: Hearing, symbol: int) -> None:
    """What was heard up to this symbol is settled; a symbol that was not heard stands for the oldest."""
    place = next((i for i, (_, token, _) in enumerate(hearing.unwritten) if token == symbol), 0)
    settle(hearing, hearing.unwritten[place : place + 1])
    del hearing.unwritten[: place + 1]


def read_anew(hearing: Hearing) -> None:
    """What waits to be written is in the turn now, no surer than it was."""
    settle(hearing, hearing.unwritten)
    hearing.unwritten = []


def settle(hearing: Hearing, pieces: list[tuple[int, int, float]]) -> None:
    """These pieces are in the turn, which is as sure as its surest."""
    for _, _, share in pieces:
        hearing.surest = max(share, hearing.surest or 0.0)
