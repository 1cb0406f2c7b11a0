"""The turn policy of one session, as its client wants it."""

from dataclasses import replace

from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import TICK_MS
from duplex.events import TurnTaking


def for_client(policy: TurnPolicy, wanted: TurnTaking) -> TurnPolicy:
    """The policy of a session whose client wants turns to be taken so."""
    factors = {
        "low": policy.low_eagerness_factor,
        "auto": 1.0,
        "high": policy.high_eagerness_factor,
    }
    factor = factors[wanted.eagerness]
    silence_ticks = max(policy.end_silence_ticks, -(-wanted.silence_ms // TICK_MS))
    return replace(
        policy,
        ends_turns=wanted.ends_turns,
        answers_unasked=wanted.answers,
        yields=wanted.yields,
        gives_backchannels=policy.gives_backchannels and wanted.backchannels,
        end_silence_ticks=silence_ticks,
        early_end_ticks=round(policy.early_end_ticks * factor),
        early_end_penalty=policy.early_end_penalty * factor,
        over_at_once=policy.over_at_once * factor,
        end_timeout_ticks=max(silence_ticks, round(policy.end_timeout_ticks * factor)),
        max_voice_pause_ticks=policy.max_voice_pause_ticks if wanted.yields else 0,
        # Words that are only written wait for no voice.
        silent_symbols=policy.silent_symbols if wanted.speaks else policy.onset_symbols,
        max_turn_tokens=min(policy.max_turn_tokens, wanted.max_tokens or policy.max_turn_tokens),
        max_dictated_tokens=min(
            policy.max_dictated_tokens, wanted.max_tokens or policy.max_dictated_tokens
        ),
    )
