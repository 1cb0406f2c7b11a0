"""What a session of the agent knows of its conversation, and the rules by which it takes, keeps and leaves the turn.

The LM's scores decide; what could not be meant is masked, and a few scores are shifted before a symbol is drawn.
"""

from dataclasses import dataclass, field

import torch

from duplex import voices
from duplex.agent import speech_activity as hearing
from duplex.agent.speech_activity import Hearing
from duplex.echo import EchoCanceller
from duplex.model.beam_search import BeamState
from duplex.model.g2p import PronounceState
from duplex.model.sampling import sample
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    END,
    FIRST_TEXT_ID,
    LEAD_SECONDS,
    NEXT,
    STOP,
    USER,
    USER_END,
    Grammar,
    allowed,
)

QUIET_TICKS = (
    3  # without speech, before a turn may end: its last pieces are heard only after their end
)
HASTY_TICKS = 14  # of quiet, before which the LM must be surer that a turn has ended
ASSENT_WORDS = 2  # of a turn at most may be mere assent
FORESEEN = 3  # symbols at most that were heard
SOUNDING_WORDS, ECHO_TICKS = (
    3,
    15,
)  # words begun or about to be; how long after its end a word may come back and be heard
LATE_TICKS = 15  # after the end of its sound a word is written at the latest
REPLY_TICKS = 125  # after its voice, in which what is said may be a reply to it
Row = tuple[
    torch.Tensor, list[int]
]  # inputs of the LM [n, D] for one slot, and which of them are ticks


@dataclass
class Settings:
    """How symbols are drawn, and how a draft guesses them: see draft.propose."""

    symbols_per_tick: int = 1  # at least, while the voice is heard; see `most_symbols`
    fusion: float = 6.0  # added to the score of what was surely heard
    next_penalty: float = 1.0  # taken off the score of <next>: the best single tick for a symbol is rarely surer than waiting
    answer_least: float = (
        hearing.SURELY_HEARD
    )  # how sure one word of a turn must be for an answer: noise is heard as "a" and "oh"
    answer_least_first: float = (
        0.9  # the same for what is no reply to something that the agent has just said
    )
    answer_least_noise: float = (
        0.985  # the same where no loud sound, or one that goes on, can have been those words
    )
    far_penalty: float = (
        6.0  # taken off yielding to, and answering, a voice that is farther than the user's was
    )
    stop_penalty: float = 2.5  # taken off yielding to so few words as a "right" or "oh, okay" has: that is no interruption
    hasty_penalty: float = 3.2  # taken off any end of a turn before HASTY_TICKS of quiet: who pauses for thought goes on
    temperature: float = 0.0
    top_k: int = 30
    patience_ticks: int = (
        20  # a user who has said nothing for so long has finished, whatever the LM waits for
    )
    hold_ticks: int = (
        12  # for which the voice waits at most, once a turn, while somebody near talks over it
    )
    turn_tokens: int = (
        64  # a turn of the agent's is no longer: a small model may never find its end
    )
    draft_least: float = 0.4  # how likely a guess must be to be worth a position
    cancel_echo: bool = (
        True  # take the agent's own voice out of what is heard, whether the client does or not
    )
    review: bool = True  # let the LM choose, when a turn may be over, among the ways in which all of it may be read
    guess: bool = True  # False: plain decoding, a call of the LM for every symbol; to compare with


@dataclass
class Said:
    """A word of the agent's turn: which text positions of the LM it came from, and whether its voice has begun."""

    text: str
    begin: int  # character of the turn's text


@dataclass
class Session:
    generator: torch.Generator
    grammar: Grammar = field(default_factory=Grammar)
    tick: int = 0
    pending: list[int] = field(default_factory=list)  # symbols the LM has not been fed yet
    put_off: list[Row] = field(
        default_factory=list
    )  # what comes before them and has not been fed either
    front: PronounceState = field(default_factory=PronounceState)
    turn_text: str = ""  # what the agent decided to say in this turn
    tokens: list[tuple[int, int]] = field(
        default_factory=list
    )  # (LM position, first character) of the turn's tokens
    words: dict[int, Said] = field(
        default_factory=dict
    )  # by word id: queued in the talker, not yet spoken
    read: int = 0  # characters of turn_text that have become words
    next_word: int = 0
    ending: bool = False  # the text is complete, its voice is not
    seed: int = 0
    temperature: float | None = None  # None: what the settings say
    prompt: list[int] = field(
        default_factory=list
    )  # instructions still to be read; until then there are no ticks
    text: list[int] = field(
        default_factory=list
    )  # text of the client still to be read; until then nothing is decided
    asked: int = 0  # symbols of this tick
    most: int = 1  # how many it may have
    foreseen: list[int] = field(
        default_factory=list
    )  # the first of them, all but certain before the LM is asked
    answer: list[int] = field(
        default_factory=list
    )  # how the agent would begin if the user's turn were over now
    heard_tick: int = 0  # when the user last said something
    words_heard: BeamState = field(default_factory=BeamState)
    written: list[tuple[int, int]] = field(
        default_factory=list
    )  # (LM position, symbol) of the user's turn
    reviewed: bool = False  # since the last word was heard
    ticks: list[torch.Tensor] = field(default_factory=list)  # vectors of the last ones
    pure: bool = True  # all that was heard in this turn is the user's
    hearing: Hearing = field(default_factory=Hearing)
    held: int = 0  # ticks of this turn for which its voice has waited
    awaiting: bool = False  # the user has said something to the agent that it has not answered
    voice: str = voices.DEFAULT
    speed: float = 1.0
    wish: int | None = (
        None  # STOP or AGENT: what the client asks for goes before what the model wants
    )
    heard_ms: int | None = None  # how far the user has heard the agent's voice, if the client tells
    lately: list[tuple[str, int]] = field(
        default_factory=list
    )  # its last words and the ticks in which they ended
    echo: EchoCanceller | None = None
    voiced: list[tuple[int, int]] = field(
        default_factory=list
    )  # (first character, end in ms) of the turn's spoken words


def audible_words(session: Session) -> list[str]:
    """What the agent says now, or said so lately that its echo may still be heard."""
    now = [said.text for _, said in sorted(session.words.items())[:SOUNDING_WORDS]]
    return now + [text for text, tick in session.lately if tick > session.tick - ECHO_TICKS]


def foresee(session: Session) -> list[int]:
    """The symbols that the LM will hardly fail to say now: what was surely heard, and the end of a turn in silence.

    They are the cheapest draft there is; the LM decides on each as it does on any guess.
    """
    surely = hearing.sure(session.hearing)
    if surely:
        return [*([] if session.grammar.stream == USER else [USER]), *surely][:FORESEEN]
    over = session.grammar.stream == USER and session.hearing.quiet_ticks >= QUIET_TICKS
    return [USER_END, AGENT, *session.answer] if over and not session.grammar.agent_open else []


def choices(session: Session, vocabulary: int, queued_s: float) -> torch.Tensor:
    """bool [vocabulary]: what a session may say next, as far as it depends on what was heard and on the voice, of which so many
    seconds are still to come."""
    mask = allowed(session.grammar, vocabulary, queued_s <= LEAD_SECONDS, queued_s > 0)
    if not hearing.pressing(
        session.hearing
    ):  # an LM alone goes on writing what sounds likely, though nobody says it
        mask[USER] = False
        mask[FIRST_TEXT_ID:] &= session.grammar.stream != USER
    mask[AGENT] &= (
        session.grammar.agent_open or session.awaiting
    )  # the agent answers; it does not begin by itself
    return mask


def narrowed(session: Session, settings: Settings, mask: torch.Tensor) -> torch.Tensor:
    """What is left of the choices by the agent's own rules, which do not bind a client's wish."""
    mask[STOP] &= session.grammar.user_open  # there is nobody to yield to
    waited = session.tick - session.heard_tick
    spoke_on = (
        session.hearing.stretch_ticks < waited
        and session.hearing.quiet_ticks <= hearing.STRETCH_TICKS
    )
    patient = waited <= settings.patience_ticks * (2 if spoke_on else 1)  # there are words to come
    if patient and (hearing.sure(session.hearing) or session.hearing.quiet_ticks < QUIET_TICKS):
        mask[USER_END] = mask[ASIDE] = False
    if session.grammar.user_open and mask[USER_END] and not patient:  # it is over; for whom was it?
        mask = torch.isin(torch.arange(len(mask)), torch.tensor([USER_END, ASIDE]))
    if (session.hearing.surest or 0.0) < answer_least(session, settings):
        mask[USER_END] = False  # it may have been no speech at all
    return mask


def answer_least(session: Session, settings: Settings) -> float:
    """How sure the surest word of the open turn must be, if the turn is to be answered."""
    quiet = session.hearing.quiet_ticks
    if quiet < QUIET_TICKS or quiet - (session.tick - session.heard_tick) > LATE_TICKS:
        return settings.answer_least_noise
    replies = any(tick > session.tick - REPLY_TICKS for _, tick in session.lately[-1:])
    return settings.answer_least if replies else settings.answer_least_first


def draw(
    session: Session, settings: Settings, scores: torch.Tensor, mask: torch.Tensor, words: int
) -> int:
    """The next symbol; scores [V], or those of the control tokens alone, and mask [V] of the choices are changed.

    words: of the user's open turn that are written down.
    """
    mask = narrowed(session, settings, mask)
    if (
        session.grammar.stream == AGENT
        and len(session.tokens) >= settings.turn_tokens
        and mask[END]
    ):
        return END
    heard = hearing.pressing(session.hearing)
    if session.grammar.stream == USER:  # nothing else is written, however likely it sounds
        pressing = [piece for piece in heard if mask[piece]]
        mask[FIRST_TEXT_ID:] = False
        mask[pressing] = True
    surely = {piece: p for piece, p in heard.items() if p >= hearing.SURELY_HEARD}
    scores[NEXT] -= settings.next_penalty
    if (
        session.grammar.agent_open and mask[USER_END]
    ):  # what is said to the agent while it speaks interrupts it
        scores[STOP] = torch.logaddexp(scores[STOP], scores[USER_END])
        mask[STOP], mask[USER_END] = True, False
    if words <= ASSENT_WORDS:
        scores[STOP] -= settings.stop_penalty
    if hearing.far(session.hearing):
        scores[[STOP, USER_END]] -= settings.far_penalty
    if (
        session.hearing.quiet_ticks < HASTY_TICKS and not session.grammar.agent_open
    ):  # a "yeah" beside its voice is over at once
        scores[[USER_END, ASIDE]] -= settings.hasty_penalty
    for piece, p in surely.items():  # for what was heard, and against passing over it
        scores[NEXT] -= settings.fusion * p
        piece = piece if session.grammar.stream == USER else USER
        if piece < len(scores):
            scores[piece] += settings.fusion * p
    temperature = settings.temperature if session.temperature is None else session.temperature
    temperature = temperature if session.grammar.stream == AGENT else 0.0
    return sample(scores, mask[: len(scores)], temperature, settings.top_k, session.generator)


def wished(session: Session, mask: torch.Tensor) -> int | None:
    """The symbol that brings about what the client asked for; None when there is nothing (more) to do."""
    wish, session.wish = session.wish, None
    if wish == STOP and mask[STOP]:
        return STOP
    if wish == AGENT and not session.grammar.agent_open:
        if mask[AGENT]:
            return AGENT
        session.wish = AGENT  # not before the user's turn is over and the voice has room
        return USER_END if mask[USER_END] else NEXT
    return None
