"""When the agent listens, answers, yields and waits: every rule of turn-taking as a pure function.

The LM's scores decide which symbol comes next. The rules look at one flat `Observation` and say
what is possible and what is favoured:

    grammatical(seen, policy)   what the grammar and the recogniser permit, even to clients
    allowed(seen, policy)       the same, less what the agent's own turn-taking forbids
    bias(seen, policy)          nats added to the scores of what is left
    pause_voice(seen, policy)   whether the voice waits while somebody talks over it
    symbol_budget(...)          symbols that one tick may have, at run time and in training

Control symbols are bits of an integer (`1 << symbol`), text is one of three cases, biases are an
array: one function runs here in tests and, compiled, for all slots. TURN_TAKING.md has a row for
each constant: its unit, its reason, and the command that chose it.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from duplex.model import tokens
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    BACK,
    END,
    FIRST_TEXT_ID,
    NEXT,
    OVER,
    STOP,
    USER,
    USER_END,
    Grammar,
)

NOBODY = 0  # The stream of a text token while neither side speaks.
LONG_AGO = 1 << 30  # Ticks since something that never happened.
NEVER = 1000.0  # Nats that nothing has.
PENDING_TEXT = (
    FIRST_TEXT_ID  # Place of the pending token in an array of biases, behind the controls.
)


@dataclass(frozen=True)
class TurnPolicy:
    """Every constant of conversation; TURN_TAKING.md says where each was measured."""

    # The end of the user's turn.
    end_silence_ticks: int = 3
    early_end_ticks: int = 14
    early_end_penalty: float = 3.2
    over_at_once: float = 0.5
    end_timeout_ticks: int = 20
    end_timeout_factor_while_speaking: int = 2
    speech_gap_ticks: int = 6
    max_second_pass_ticks: int = 7

    # Whether it is answered.
    min_confidence_reply: float = 0.5
    min_confidence_first: float = 0.9
    min_confidence_noise: float = 0.985
    reply_window_ticks: int = 125
    max_word_delay_ticks: int = 15
    far_penalty: float = 6.0
    far_below_user_db: float = 6.0
    user_level_decay_db: float = 1.0

    # Yielding to an interruption.
    max_backchannel_words: int = 2
    backchannel_stop_penalty: float = 2.5
    passes_over_backchannels: bool = True
    max_voice_pause_ticks: int = 12
    near_onset_ticks: int = 2
    near_release_ticks: int = 2

    # The agent's own voice, coming back.
    echo_word_ticks: int = 15
    echo_queue_words: int = 3
    min_echo_letters: int = 4

    # Transcribing what was recognised.
    certain_confidence: float = 0.5
    pending_bonus: float = 6.0
    wait_penalty: float = 1.0
    refused_ticks: int = 4
    forget_ticks: int = 12

    # Levels: what is speech and what is noise.
    speech_above_noise_db: float = 9.0
    speech_below_peak_db: float = 18.0
    noise_rise_db: float = 0.3
    peak_decay_db: float = 0.15

    # Rhythm: symbols a tick, and the lead of the text over the voice.
    symbols_per_tick: int = 1
    onset_symbols: int = 6
    silent_symbols: int = 2
    lead_s: float = 1.2
    max_turn_tokens: int = 64
    max_dictated_tokens: int = 800
    max_idle_turn_ticks: int = 25

    # Saying "mhm" itself, in the pauses of a long turn.
    gives_backchannels: bool = False
    backchannel_bonus: float = 0.0
    backchannel_pause_ticks: int = 2
    backchannel_gap_ticks: int = 37
    min_words_for_backchannel: int = 4

    # What one client may want otherwise, see client_policy.py.
    ends_turns: bool = True
    answers_unasked: bool = True
    yields: bool = True
    low_eagerness_factor: float = 2.0
    high_eagerness_factor: float = 0.5
    max_hearing_out_ticks: int = 15


# Not frozen: one is made for each decision, which would take fourteen times as long.
@dataclass
class Observation:
    """All that a rule may look at, for one session before one symbol. Nobody changes it."""

    # The grammar.
    stream: int = NOBODY  # or USER, AGENT: the stream that a text token would belong to
    user_open: bool = False
    agent_open: bool = False
    answer_due: bool = False  # the user said something to the agent that it has not answered

    # The agent's voice.
    queued_s: float = 0.0  # seconds of decided text that are still to be heard
    agent_tokens: int = 0  # of the open turn
    ticks_since_agent_token: int = 0  # of the open turn, or since it began
    ticks_since_agent_word: int = LONG_AGO
    ticks_since_own_backchannel: int = LONG_AGO
    is_speaking: bool = False  # its voice sounded in the last tick
    is_paused: bool = False
    paused_ticks: int = 0  # of this turn

    # What the microphone's level says.
    silence_ticks: int = 0  # since somebody spoke
    segment_ticks: int = 0  # since the last segment of speech began
    near_ticks: int = 0  # in a row of somebody about as loud as the user
    far_ticks: int = 0  # in a row of nobody so loud
    is_far: bool = False  # who spoke last is farther away than the user was

    # Whose voice it is, if one alone is heeded.
    is_unheeded: bool = False  # this turn is somebody else's
    awaits_speaker: bool = False  # who speaks is not known yet

    # What was recognised.
    ticks_since_user_token: int = 0
    transcribed_words: int = 0  # of the user's open turn
    is_backchannel: bool = False  # whether they are nothing but assent
    max_confidence: float = 0.0  # of a word in the user's open turn
    has_pending: bool = False  # a recognised word may be transcribed
    certain_confidence: float = 0.0  # of the pending token that must be; 0: there is none
    has_uncommitted: bool = False  # the recogniser is in the middle of a word
    second_pass_ticks: int = 0  # since the second pass was asked; 0: no reading is awaited

    # What a large mind thinks, if there is one.
    awaits_thought: bool = False  # it thinks of an answer, and no word is ready
    has_thought: bool = False  # its words are ready, or the duplex model is to answer by itself
    is_dictated: bool = False  # the agent's open turn is spoken in its words

    # What its client asked for.
    hearing_out_ticks: int = LONG_AGO  # since it asked for something once all is heard


class Text(IntEnum):
    """Which text token may come next."""

    NONE = 0
    PENDING = 1  # one that was recognised and is not transcribed yet
    ANY = 2


class Allowed(NamedTuple):
    """What may come next: control symbols as bits, and text."""

    controls: int
    text: Text
    end_stops: bool = False  # <stop> is chosen by the scores of <stop> and </user> together
    ends_aside: bool = False  # <aside> is chosen by the scores of <aside> and </user> together

    def has(self, symbol: int) -> bool:
        """Whether a control symbol is among them."""
        return bool(self.controls >> symbol & 1)

    @property
    def is_only_waiting(self) -> bool:
        """Whether nothing but <next> is left, whatever the LM says."""
        return self.controls == bits(NEXT) and self.text == Text.NONE


def bits(*symbols: int) -> int:
    """Control symbols as bits of one integer."""
    found = 0
    for symbol in symbols:
        found |= 1 << symbol
    return found


def grammatical(seen: Observation, policy: TurnPolicy) -> Allowed:
    """What the grammar, the recogniser and the voice's lag permit; it binds a client's request too.

    Nothing is transcribed that was not recognised: an LM alone goes on writing what sounds likely.
    The agent begins to speak only to answer.
    """
    grammar = Grammar(seen.stream, seen.user_open, seen.agent_open)
    can_speak = seen.queued_s <= policy.lead_s
    controls, has_text = tokens.allowed(grammar, can_speak, is_audible=seen.queued_s > 0)
    if not seen.has_pending:
        controls &= ~bits(USER)
    if not (seen.agent_open or seen.answer_due):
        controls &= ~bits(AGENT)
    if not may_give_backchannel(seen, policy):
        controls &= ~bits(BACK)
    text = Text.ANY if has_text else Text.NONE
    if has_text and seen.stream == USER:
        text = Text.PENDING if seen.has_pending else Text.NONE
    return Allowed(controls, text)


def allowed(seen: Observation, policy: TurnPolicy) -> Allowed:
    """What the agent may say next of its own accord."""
    controls, text, *_ = grammatical(seen, policy)
    if (
        seen.stream == AGENT
        and seen.agent_tokens >= max_tokens(seen, policy)
        and controls & bits(END)
    ):
        return Allowed(bits(END), Text.NONE)  # a small model may never find the end of its turn
    if is_idle_turn(seen, policy) and controls & bits(END):
        return Allowed(bits(END), Text.NONE)
    if not (seen.user_open and policy.yields) or seen.is_unheeded or seen.awaits_speaker:
        controls &= ~bits(STOP)  # there is nobody to yield to
    if not (seen.agent_open or policy.answers_unasked):
        controls &= ~bits(AGENT)
    if not policy.ends_turns:
        controls &= ~bits(USER_END, ASIDE)
    if seen.awaits_thought and not seen.agent_open:
        controls &= ~bits(AGENT)
    if seen.awaits_thought and seen.is_dictated and seen.stream == AGENT:
        controls &= ~bits(END)
        text = Text.NONE
    if begins_now(seen, policy) and controls & bits(AGENT):
        controls &= ~bits(NEXT)

    # The user's turn does not end while somebody speaks or a word is to come, until time is up.
    timed_out = is_timed_out(seen, policy)
    is_going_on = seen.certain_confidence > 0 or seen.silence_ticks < policy.end_silence_ticks
    if is_going_on and not timed_out or awaits_reading(seen, policy):
        controls &= ~bits(USER_END, ASIDE)
    if timed_out and seen.user_open and controls & bits(USER_END):
        controls = bits(USER_END, ASIDE)  # it is over; for whom was it?
        text = Text.NONE
    if seen.max_confidence < min_answer_confidence(seen, policy):
        controls &= ~bits(USER_END)  # it may have been no speech at all
    ends_aside = seen.is_unheeded and bool(controls & bits(USER_END))
    if seen.is_unheeded:
        controls &= ~bits(USER_END)  # it was for the agent, perhaps, but not by whom it heeds

    if is_passed_over(seen, policy):
        # Over at once: later the agent would have ended, and it would be for the agent.
        return Allowed(bits(ASIDE) if controls & bits(ASIDE) else controls & ~bits(STOP), text)

    # What is said to the agent while it speaks interrupts it: <stop> takes the place of </user>.
    end_stops = seen.agent_open and policy.yields and bool(controls & bits(USER_END))
    if end_stops:
        controls = controls & ~bits(USER_END) | bits(STOP)
    return Allowed(controls, text, end_stops, ends_aside)


def may_give_backchannel(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the user has said much, pauses, and has had no "mhm" for a while.

    The LM is asked in pauses alone: elsewhere its ticks may wait, see Agent.
    """
    is_in_turn = seen.user_open and seen.transcribed_words >= policy.min_words_for_backchannel
    is_due = seen.ticks_since_own_backchannel >= policy.backchannel_gap_ticks
    is_pause = seen.silence_ticks >= policy.backchannel_pause_ticks and not seen.has_pending
    is_wanted = policy.gives_backchannels and not (seen.is_unheeded or seen.answer_due)
    return is_wanted and is_in_turn and is_due and is_pause and seen.queued_s == 0


def is_passed_over(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the user only lets the agent go on, which speaks and has more to say."""
    has_more = seen.agent_open or seen.queued_s > 0
    return policy.passes_over_backchannels and seen.is_backchannel and has_more


def max_tokens(seen: Observation, policy: TurnPolicy) -> int:
    """Tokens that the agent's open turn may have."""
    return policy.max_dictated_tokens if seen.is_dictated else policy.max_turn_tokens


def is_idle_turn(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the agent's open turn has neither grown nor sounded for too long."""
    # The last word is not said before it is known to be whole, so it may be queued for ever.
    is_silent = seen.queued_s == 0 or seen.ticks_since_agent_word >= policy.max_idle_turn_ticks
    may_end = seen.stream == AGENT and not seen.awaits_thought
    return may_end and is_silent and seen.ticks_since_agent_token >= policy.max_idle_turn_ticks


def begins_now(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the user has waited for an answer that is there now, and nobody speaks.

    The duplex model has learned to answer at the end of a turn, not in a silence.
    """
    is_quiet = seen.silence_ticks >= policy.end_silence_ticks
    return seen.has_thought and seen.answer_due and not seen.agent_open and is_quiet


def awaits_reading(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the user's turn is about to be read again, and its end waits for that.

    Who talks over the agent is yielded to at once.
    """
    return 0 < seen.second_pass_ticks <= policy.max_second_pass_ticks and not seen.agent_open


def is_timed_out(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the user's turn is over though the LM would wait; later while words are to come."""
    waited = seen.ticks_since_user_token
    has_spoken_since = seen.segment_ticks < waited and seen.silence_ticks <= policy.speech_gap_ticks
    factor = policy.end_timeout_factor_while_speaking if has_spoken_since else 1
    return waited > policy.end_timeout_ticks * factor


def min_answer_confidence(seen: Observation, policy: TurnPolicy) -> float:
    """How confident the best word of the open turn must be for an answer.

    Noise is recognised as "a" and "oh". A reply to the agent needs least; what opens a conversation
    more; most what cannot belong to the loud sound that was there, or that goes on.
    """
    silence = seen.silence_ticks
    is_out_of_place = silence - seen.ticks_since_user_token > policy.max_word_delay_ticks
    if silence < policy.end_silence_ticks or is_out_of_place:
        return policy.min_confidence_noise
    is_reply = seen.ticks_since_agent_word < policy.reply_window_ticks
    return policy.min_confidence_reply if is_reply else policy.min_confidence_first


def bias(seen: Observation, policy: TurnPolicy) -> list[float]:
    """Nats added to scores: of each control symbol by its id, last of the certain token."""
    added = [0.0] * (PENDING_TEXT + 1)
    # Waiting costs a little: the best single tick for a symbol is rarely surer than waiting.
    added[NEXT] -= policy.wait_penalty
    if seen.transcribed_words <= policy.max_backchannel_words:
        added[STOP] -= policy.backchannel_stop_penalty
    added[BACK] += policy.backchannel_bonus
    if seen.is_far:
        added[STOP] -= policy.far_penalty
        added[USER_END] -= policy.far_penalty
    if seen.silence_ticks < policy.early_end_ticks and not seen.agent_open:
        added[USER_END] -= policy.early_end_penalty  # who pauses for thought goes on
        added[ASIDE] -= policy.early_end_penalty
    added[OVER] -= surely_over(seen, policy)
    heard = policy.pending_bonus * seen.certain_confidence
    added[NEXT] -= heard
    added[PENDING_TEXT if seen.stream == USER else USER] += heard
    return added


def surely_over(seen: Observation, policy: TurnPolicy) -> float:
    """How sure, in nats, it must be that the user has said all, for the turn to end whatever the LM
    wants: less with each tick of silence, for most pauses are shorter.

    Beside the agent's voice it never is: what is said into it is mostly no question.
    """
    if seen.queued_s > 0:
        return NEVER
    early = policy.early_end_ticks - policy.end_silence_ticks
    return policy.over_at_once * max(policy.early_end_ticks - seen.silence_ticks, 0) / max(early, 1)


def next_for_request(
    request: int | None, seen: Observation, policy: TurnPolicy
) -> tuple[int | None, int | None]:
    """What a client's request demands next, and what of the request remains.

    request: STOP; AGENT, an answer; USER_END, the end of the user's turn; ASIDE, the same where
    nobody shall answer it. Returns (symbol, request): no symbol where there is nothing (more) to do
    or the turn is heard out first.
    """
    permitted = grammatical(seen, policy)
    if request == STOP and permitted.has(STOP):
        return STOP, None
    if request in (AGENT, USER_END) and not seen.agent_open and hears_out(seen, policy):
        return None, request
    if request in (USER_END, ASIDE):
        if not seen.user_open:
            return None, None
        return (request, None) if permitted.has(request) else (None, request)
    if request == AGENT and not seen.agent_open:
        if permitted.has(AGENT):
            return AGENT, None
        # It waits until the user's turn is over and the voice has room.
        return USER_END if permitted.has(USER_END) else NEXT, AGENT
    return None, None


def hears_out(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether something that was said before a client's request is still to be recognised."""
    if seen.hearing_out_ticks >= policy.max_hearing_out_ticks:
        return False
    is_going_on = seen.certain_confidence > 0 or seen.silence_ticks < policy.end_silence_ticks
    return is_going_on or seen.has_uncommitted or awaits_reading(seen, policy)


def pause_voice(seen: Observation, policy: TurnPolicy) -> bool:
    """Whether the voice waits in this tick, since somebody near talks over it.

    Words are recognised late, so the LM cannot decide sooner whether to yield. The voice waits once
    a turn, and goes on when nobody near speaks any more and no word is left to be recognised. Where
    one person alone is heeded it waits for nobody else.
    """
    if seen.is_unheeded or seen.awaits_speaker:
        return False
    if not seen.is_paused:
        may_pause = seen.paused_ticks < min(1, policy.max_voice_pause_ticks)
        return may_pause and seen.is_speaking and seen.near_ticks >= policy.near_onset_ticks
    is_over = seen.far_ticks >= policy.near_release_ticks and not seen.has_uncommitted
    return seen.paused_ticks < policy.max_voice_pause_ticks and not is_over


def symbol_budget(agent_open: bool, is_speaking: bool, policy: TurnPolicy) -> int:
    """Symbols that one tick may have at most: the beginning of an answer waits for nobody."""
    if is_speaking:
        return policy.symbols_per_tick
    return max(
        policy.symbols_per_tick, policy.silent_symbols if agent_open else policy.onset_symbols
    )
