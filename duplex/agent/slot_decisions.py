"""The next symbol of all slots at once: the rules of turn_policy.py as tensor operations.

The shapes depend on nothing that happens, and nothing is read back, so a device can do this in one
graph behind the LM. What each rule is for stands in turn_policy.py; the tests hold the two forms
equal, symbol by symbol. Where a plain number is chosen it is filled in: torch.where would copy it
to the device.

Letters in shapes: S slots (or rows: a slot may have several), V vocabulary, P pending tokens.
"""

from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from duplex.agent.turn_policy import NEVER, PENDING_TEXT, Observation, Text, TurnPolicy, bits
from duplex.model.sampling import draw, sample_each
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
)

# Columns of a row: what is seen, then the policy.
COLUMNS = [*fields(Observation), *fields(TurnPolicy)]
SEEN_COLUMNS = len(fields(Observation))


class Asked(NamedTuple):
    """What is asked of each slot, beside the LM's scores."""

    rules: Tensor  # float64 [S, columns] see `row`
    pending: Tensor  # int64 [S, P] tokens that may be transcribed; 0: none
    confidence: Tensor  # float64 [S, P] of them
    temperature: Tensor  # float32 [S] of what the agent says
    seed: Tensor  # int64 [S]
    tick: Tensor  # int64 [S]
    number: Tensor  # int64 [S] which draw of the tick it is


class Choice(NamedTuple):
    """turn_policy.Allowed of all slots."""

    controls: Tensor  # int64 [S], bits
    text: Tensor  # int64 [S], a turn_policy.Text
    end_stops: Tensor  # bool [S]
    ends_aside: Tensor  # bool [S]


def row(seen: Observation, policy: TurnPolicy) -> np.ndarray:
    """What the rules look at, as one row of numbers [columns]."""
    return np.array([*vars(seen).values(), *vars(policy).values()], np.float64)


def unpack(rules: Tensor) -> tuple[Observation, TurnPolicy]:
    """Rows [S, columns] as the records that the rules know, each field a tensor [S]."""
    found = [
        column != 0 if kind.type is bool else column
        for kind, column in zip(COLUMNS, rules.unbind(-1), strict=True)
    ]
    return Observation(*found[:SEEN_COLUMNS]), TurnPolicy(*found[SEEN_COLUMNS:])


def decide(scores: Tensor, asked: Asked, top_k: int) -> Tensor:
    """The symbol of each slot: scores of the LM [S, V] float -> int64 [S]."""
    seen, policy = unpack(asked.rules)
    choice = allowed(seen, policy)
    scores = masked(scores, asked, choice, bias(seen, policy), policy)
    # What is heard is written down as it is best; what is said may be drawn.
    temperature = asked.temperature.masked_fill(seen.stream != AGENT, 0.0)
    draws = draw(asked.seed, asked.tick, asked.number)
    return sample_each(scores, temperature, top_k, draws)


def masked(
    scores: Tensor, asked: Asked, choice: Choice, added: Tensor, policy: TurnPolicy
) -> Tensor:
    """The scores [S, V] with what the rules add, -inf where a symbol may not come."""
    controls = list(scores[:, :FIRST_TEXT_ID].unbind(1))
    user_end = controls[USER_END]
    for symbol, takes in ((STOP, choice.end_stops), (ASIDE, choice.ends_aside)):
        both = torch.logaddexp(controls[symbol], user_end)
        controls[symbol] = torch.where(takes, both, controls[symbol])
    biased = torch.stack(controls, 1) + added[:, :FIRST_TEXT_ID].to(scores.dtype)
    places = torch.arange(FIRST_TEXT_ID, device=scores.device)
    may_end = _has(choice.controls, USER_END) & (choice.text == int(Text.NONE))
    ends = may_end & (biased[:, OVER] > 0)
    may_come = (_without(choice.controls, ends, NEXT, BACK)[:, None] >> places & 1) > 0
    is_pending = asked.pending > 0
    is_certain = is_pending & (asked.confidence >= policy.certain_confidence[:, None])
    bonus = (added[:, PENDING_TEXT, None] * is_certain).to(scores.dtype)
    text = torch.cat([biased, scores[:, FIRST_TEXT_ID:]], 1).scatter_add(1, asked.pending, bonus)
    # Control 0 stands for "none" among the pending tokens; it is decided by `may_come`.
    written = is_pending & (choice.text == int(Text.PENDING))[:, None]
    some = torch.zeros_like(scores, dtype=torch.bool).scatter(1, asked.pending, written)
    free = some[:, FIRST_TEXT_ID:] | (choice.text == int(Text.ANY))[:, None]
    return text.masked_fill(~torch.cat([may_come, free], 1), float("-inf"))


def grammatical(seen: Observation, policy: TurnPolicy) -> tuple[Tensor, Tensor]:
    """turn_policy.grammatical of all slots: control symbols as bits [S], text [S]."""
    can_speak = seen.queued_s <= policy.lead_s
    hears = seen.stream == USER
    speaks = seen.stream == AGENT
    controls = _only(hears, USER_END, ASIDE) | _only(~hears, USER)
    controls = controls | _only(hears & seen.agent_open & can_speak, AGENT)
    controls = controls | _only(hears & ~seen.agent_open, BACK)
    controls = controls | _only(speaks & can_speak, END)
    controls = controls | _only(~hears & ~speaks & can_speak, AGENT)
    controls = controls | _only((seen.queued_s > 0) | seen.agent_open, STOP) | bits(NEXT)
    controls = _without(controls, ~seen.has_pending, USER)
    controls = _without(controls, ~(seen.agent_open | seen.answer_due), AGENT)
    controls = _without(controls, ~may_give_backchannel(seen, policy), BACK)
    text = (hears & seen.has_pending).long() * int(Text.PENDING)
    return controls, text.masked_fill(speaks & can_speak, int(Text.ANY))


def allowed(seen: Observation, policy: TurnPolicy) -> Choice:
    """turn_policy.allowed of all slots."""
    controls, text = grammatical(seen, policy)
    ends = (is_full(seen, policy) | is_idle_turn(seen, policy)) & _has(controls, END)
    unsure = seen.is_unheeded | seen.awaits_speaker
    waits = seen.awaits_thought
    controls = _without(controls, ~(seen.user_open & policy.yields) | unsure, STOP)
    controls = _without(controls, ~(seen.agent_open | policy.answers_unasked), AGENT)
    controls = _without(controls, ~policy.ends_turns, USER_END, ASIDE)
    controls = _without(controls, waits & ~seen.agent_open, AGENT)
    dictates = waits & seen.is_dictated & (seen.stream == AGENT)
    controls = _without(controls, dictates, END)
    text = text.masked_fill(dictates, int(Text.NONE))
    is_quiet = seen.silence_ticks >= policy.end_silence_ticks
    begins = seen.has_thought & seen.answer_due & ~seen.agent_open & is_quiet
    controls = _without(controls, begins & _has(controls, AGENT), NEXT)

    # The end of the user's turn.
    timed_out = is_timed_out(seen, policy)
    is_going_on = (seen.certain_confidence > 0) | ~is_quiet
    is_held = is_going_on & ~timed_out | awaits_reading(seen, policy)
    controls = _without(controls, is_held, USER_END, ASIDE)
    is_over = timed_out & seen.user_open & _has(controls, USER_END)
    controls = controls.masked_fill(is_over, bits(USER_END, ASIDE))
    text = text.masked_fill(is_over, int(Text.NONE))
    is_weak = seen.max_confidence < min_answer_confidence(seen, policy)
    controls = _without(controls, is_weak, USER_END)
    ends_aside = seen.is_unheeded & _has(controls, USER_END)
    controls = _without(controls, seen.is_unheeded, USER_END)

    # Assent, or an interruption.
    passed = is_passed_over(seen, policy) & ~ends
    kept = (controls & ~bits(STOP)).masked_fill(_has(controls, ASIDE), bits(ASIDE))
    end_stops = seen.agent_open & policy.yields & _has(controls, USER_END) & ~passed & ~ends
    stopping = torch.where(end_stops, controls & ~bits(USER_END) | bits(STOP), controls)
    controls = torch.where(passed, kept, stopping).masked_fill(ends, bits(END))
    text = text.masked_fill(ends, int(Text.NONE))
    return Choice(controls, text, end_stops, ends_aside & ~passed & ~ends)


def bias(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.bias of all slots: float64 [S, PENDING_TEXT + 1]."""
    zero = torch.zeros_like(seen.queued_s)
    added = [zero] * (PENDING_TEXT + 1)
    is_short = seen.transcribed_words <= policy.max_backchannel_words
    added[STOP] = zero - torch.where(is_short, policy.backchannel_stop_penalty, zero)
    far = torch.where(seen.is_far, policy.far_penalty, zero)
    added[STOP] = added[STOP] - far
    is_early = (seen.silence_ticks < policy.early_end_ticks) & ~seen.agent_open
    early = torch.where(is_early, policy.early_end_penalty, zero)
    added[USER_END] = zero - far - early
    added[ASIDE] = zero - early
    heard = policy.pending_bonus * seen.certain_confidence
    added[OVER] = zero - surely_over(seen, policy)
    added[BACK] = zero + policy.backchannel_bonus
    added[NEXT] = zero - policy.wait_penalty - heard
    is_transcribed = seen.stream == USER
    added[PENDING_TEXT] = torch.where(is_transcribed, heard, zero)
    added[USER] = torch.where(is_transcribed, zero, heard)
    return torch.stack(added, -1)


def surely_over(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.surely_over of all slots: float64 [S]."""
    early = (policy.early_end_ticks - policy.end_silence_ticks).clamp(min=1)
    bound = policy.over_at_once * (policy.early_end_ticks - seen.silence_ticks).clamp(min=0) / early
    return bound.masked_fill(seen.queued_s > 0, NEVER)


def may_give_backchannel(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.may_give_backchannel of all slots."""
    is_in_turn = seen.user_open & (seen.transcribed_words >= policy.min_words_for_backchannel)
    is_due = seen.ticks_since_own_backchannel >= policy.backchannel_gap_ticks
    is_pause = (seen.silence_ticks >= policy.backchannel_pause_ticks) & ~seen.has_pending
    is_wanted = policy.gives_backchannels & ~(seen.is_unheeded | seen.answer_due)
    return is_wanted & is_in_turn & is_due & is_pause & (seen.queued_s == 0)


def is_full(seen: Observation, policy: TurnPolicy) -> Tensor:
    """Whether the agent's open turn has all tokens that it may have."""
    most = torch.where(seen.is_dictated, policy.max_dictated_tokens, policy.max_turn_tokens)
    return (seen.stream == AGENT) & (seen.agent_tokens >= most)


def is_idle_turn(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.is_idle_turn of all slots."""
    most = policy.max_idle_turn_ticks
    is_silent = (seen.queued_s == 0) | (seen.ticks_since_agent_word >= most)
    may_end = (seen.stream == AGENT) & ~seen.awaits_thought
    return may_end & is_silent & (seen.ticks_since_agent_token >= most)


def is_timed_out(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.is_timed_out of all slots."""
    waited = seen.ticks_since_user_token
    has_spoken_since = seen.segment_ticks < waited
    has_spoken_since = has_spoken_since & (seen.silence_ticks <= policy.speech_gap_ticks)
    factor = policy.end_timeout_factor_while_speaking.masked_fill(~has_spoken_since, 1.0)
    return waited > policy.end_timeout_ticks * factor


def awaits_reading(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.awaits_reading of all slots."""
    ticks = seen.second_pass_ticks
    return (ticks > 0) & (ticks <= policy.max_second_pass_ticks) & ~seen.agent_open


def is_passed_over(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.is_passed_over of all slots."""
    has_more = seen.agent_open | (seen.queued_s > 0)
    return policy.passes_over_backchannels & seen.is_backchannel & has_more


def min_answer_confidence(seen: Observation, policy: TurnPolicy) -> Tensor:
    """turn_policy.min_answer_confidence of all slots."""
    silence = seen.silence_ticks
    is_out_of_place = silence - seen.ticks_since_user_token > policy.max_word_delay_ticks
    is_reply = seen.ticks_since_agent_word < policy.reply_window_ticks
    usual = torch.where(is_reply, policy.min_confidence_reply, policy.min_confidence_first)
    is_noise = (silence < policy.end_silence_ticks) | is_out_of_place
    return torch.where(is_noise, policy.min_confidence_noise, usual)


def _only(condition: Tensor, *symbols: int) -> Tensor:
    """Bits of control symbols where a condition [S] holds, else 0."""
    return condition.long() * bits(*symbols)


def _without(controls: Tensor, condition: Tensor, *symbols: int) -> Tensor:
    """Bits [S] without these symbols where a condition [S] holds."""
    return torch.where(condition, controls & ~bits(*symbols), controls)


def _has(controls: Tensor, symbol: int) -> Tensor:
    """Whether a symbol is among bits [S]."""
    return controls >> symbol & 1 > 0
