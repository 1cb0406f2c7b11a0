"""Words that were recognised and are not transcribed yet.

The LM decides what is transcribed, but only out of the words that were recognised, and it must not
pass over one of which the recogniser is certain.
"""

from dataclasses import dataclass, field

from duplex.agent.turn_policy import TurnPolicy


@dataclass
class PendingToken:
    """A token of a recognised word, with the word's tick and share of the beam's probability."""

    tick: int
    token: int
    confidence: float


@dataclass
class PendingWords:
    """The tokens that wait, oldest first, and how confident the best one of the open turn was."""

    tokens: list[PendingToken] = field(default_factory=list)
    max_confidence: float | None = None  # of what is in the turn; None: nothing is


def push_words(
    pending: PendingWords, tick: int, recognised: list[tuple[int, float]], policy: TurnPolicy
) -> None:
    """Add a tick's (token, confidence) pairs; drop those that have waited too long."""
    if not pending.tokens and not recognised:
        return
    kept = [p for p in pending.tokens if p.tick > tick - policy.forget_ticks]
    pending.tokens = kept + [PendingToken(tick, token, p) for token, p in recognised]


def is_agent_echo(word: str, agent_words: list[str], policy: TurnPolicy) -> bool:
    """Whether a recognised word is the agent's own, back from a loudspeaker."""
    word = _letters(word)
    own = [letters for letters in map(_letters, agent_words) if letters]
    if word in own:
        return True
    return len(word) >= policy.min_echo_letters and any(w.startswith(word) for w in own)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter == "'")


def writable_tokens(pending: PendingWords, policy: TurnPolicy) -> dict[int, float]:
    """Tokens that may be transcribed next, with their confidence, up to the first certain one."""
    found: dict[int, float] = {}
    for piece in pending.tokens:
        found[piece.token] = max(piece.confidence, found.get(piece.token, 0.0))
        if piece.confidence >= policy.certain_confidence:
            break
    return found


def certain_tokens(pending: PendingWords, policy: TurnPolicy) -> list[int]:
    """The waiting tokens that must be transcribed, in order."""
    return [p.token for p in pending.tokens if p.confidence >= policy.certain_confidence]


def certain_confidence(pending: PendingWords, policy: TurnPolicy) -> float:
    """Confidence of the next token that must be transcribed; 0 where there is none."""
    if not pending.tokens:
        return 0.0
    certain = policy.certain_confidence
    return max((p for p in writable_tokens(pending, policy).values() if p >= certain), default=0.0)


def has_fresh_certain(pending: PendingWords, tick: int, policy: TurnPolicy) -> bool:
    """Whether a certain token came so lately that the LM will yet transcribe it."""
    newer = tick - policy.refused_ticks
    return any(p.confidence >= policy.certain_confidence and p.tick > newer for p in pending.tokens)


def mark_transcribed(pending: PendingWords, token: int) -> None:
    """Remove what waited up to this token; a token that did not wait stands for the oldest."""
    place = next((i for i, p in enumerate(pending.tokens) if p.token == token), 0)
    _raise_confidence(pending, pending.tokens[place : place + 1])
    del pending.tokens[: place + 1]


def mark_all_transcribed(pending: PendingWords) -> None:
    """Everything that waited is in the turn now, no more certain than it was."""
    _raise_confidence(pending, pending.tokens)
    pending.tokens = []


def _raise_confidence(pending: PendingWords, pieces: list[PendingToken]) -> None:
    for piece in pieces:
        pending.max_confidence = max(piece.confidence, pending.max_confidence or 0.0)
