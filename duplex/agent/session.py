"""All that the agent remembers of one conversation, in records by who writes to them."""

from dataclasses import dataclass, field

import torch

from duplex import voices
from duplex.agent import pending_words, speech_activity
from duplex.agent.pending_words import PendingWords
from duplex.agent.speech_activity import SpeechActivity
from duplex.agent.turn_policy import LONG_AGO, NOBODY, Observation, TurnPolicy
from duplex.echo import EchoCanceller
from duplex.model.beam_search import BeamState
from duplex.model.g2p import PronounceState
from duplex.model.tokens import Grammar


@dataclass
class LMInput:
    """Positions to be fed to the LM for one slot."""

    vectors: torch.Tensor  # [n, D]
    ticks: list[int]  # which of the n are a tick's features; the others are text


@dataclass
class InputQueue:
    """What the LM is still to be fed, in this order: prompt, deferred, pending, text."""

    prompt: list[int] = field(
        default_factory=list
    )  # instructions; until they are read there are no ticks
    deferred: list[LMInput] = field(
        default_factory=list
    )  # inputs of ticks in which nothing was decided
    pending: list[int] = field(default_factory=list)  # symbols drawn last
    text: list[int] = field(
        default_factory=list
    )  # the client's; until it is read nothing is decided
    recent_ticks: list[torch.Tensor] = field(default_factory=list)  # [D] each, to be replayed


@dataclass
class UserTurn:
    """What the user says: recognised, pending, transcribed."""

    beam: BeamState = field(default_factory=BeamState)
    activity: SpeechActivity = field(default_factory=SpeechActivity)
    pending: PendingWords = field(default_factory=PendingWords)
    transcribed: list[tuple[int, int]] = field(
        default_factory=list
    )  # (LM position, token), this turn
    word_count: int = 0  # words of `transcribed`
    last_token_tick: int = 0
    is_rescored: bool = False  # since the last word was recognised
    is_user_only: bool = True  # nothing that the agent said itself was recognised in this turn


@dataclass
class QueuedWord:
    """A word of the agent's turn that waits for its voice."""

    text: str
    begin: int  # its first character in the turn's text


@dataclass
class AgentTurn:
    """What the agent says, on its way from text to voice."""

    g2p: PronounceState = field(default_factory=PronounceState)
    text: str = ""
    tokens: list[tuple[int, int]] = field(default_factory=list)  # (LM position, first character)
    queued_chars: int = 0  # characters of `text` that have become words
    queued_words: dict[int, QueuedWord] = field(default_factory=dict)  # by id, not yet spoken
    next_word_id: int = 0
    is_text_complete: bool = False  # but its voice is not
    spoken: list[tuple[int, int]] = field(
        default_factory=list
    )  # (first character, end in ms) a word
    recent_words: list[tuple[str, int]] = field(
        default_factory=list
    )  # and the ticks in which they ended
    paused_ticks: int = 0  # for which its voice has waited


@dataclass
class TickBudget:
    """Symbols of the current tick, and what is proposed for it ahead of the LM."""

    drawn: int = 0
    limit: int = 1
    proposals: list[int] = field(default_factory=list)  # first symbols, all but certain
    draft_response: list[int] = field(default_factory=list)  # how a response would begin now


@dataclass
class ClientState:
    """What the client asks for and tells."""

    request: int | None = None  # STOP or AGENT; goes before what the LM wants
    playback_ms: int | None = None  # how far the user has heard the agent's voice
    voice: str = voices.DEFAULT
    speed: float = 1.0
    echo: EchoCanceller | None = None


@dataclass
class Session:
    """One conversation, in one slot."""

    generator: torch.Generator
    seed: int = 0
    temperature: float | None = None  # None: the agent's
    tick: int = 0
    grammar: Grammar = field(default_factory=Grammar)
    answer_due: bool = False  # the user said something to the agent that it has not answered
    inputs: InputQueue = field(default_factory=InputQueue)
    user: UserTurn = field(default_factory=UserTurn)
    reply: AgentTurn = field(default_factory=AgentTurn)
    budget: TickBudget = field(default_factory=TickBudget)
    client: ClientState = field(default_factory=ClientState)


def observe(session: Session, queued_s: float, policy: TurnPolicy) -> Observation:
    """What the rules may know of a session. queued_s: seconds of its voice still to come."""
    grammar = session.grammar
    activity = session.user.activity
    last_word = session.reply.recent_words[-1:]
    return Observation(
        stream=grammar.stream or NOBODY,
        user_open=grammar.user_open,
        agent_open=grammar.agent_open,
        answer_due=session.answer_due,
        queued_s=queued_s,
        agent_tokens=len(session.reply.tokens),
        ticks_since_agent_word=session.tick - last_word[0][1] if last_word else LONG_AGO,
        silence_ticks=activity.silence_ticks,
        segment_ticks=activity.segment_ticks,
        near_ticks=activity.near_ticks,
        far_ticks=activity.far_ticks,
        is_far=speech_activity.is_far(activity, policy),
        ticks_since_user_token=session.tick - session.user.last_token_tick,
        transcribed_words=session.user.word_count,
        max_confidence=session.user.pending.max_confidence or 0.0,
        has_pending=bool(session.user.pending.tokens),
        certain_confidence=pending_words.certain_confidence(session.user.pending, policy),
    )


def audible_words(session: Session, policy: TurnPolicy) -> list[str]:
    """Words that the agent says now, or said so lately that their echo may still be heard."""
    queued = sorted(session.reply.queued_words.items())[: policy.echo_queue_words]
    oldest = session.tick - policy.echo_word_ticks
    recent = [text for text, tick in session.reply.recent_words if tick > oldest]
    return [word.text for _, word in queued] + recent
