"""One symbol from scores, as the rules allow and favour it: slot by slot, the reference.

slot_decisions.py does the same for all slots at once.
"""

from functools import cache

import numpy as np
import torch

from duplex.agent.config import AgentConfig
from duplex.agent.hearing import pending_words
from duplex.agent.session import Session
from duplex.agent.turn_policy import (
    PENDING_TEXT,
    Allowed,
    Observation,
    Text,
    TurnPolicy,
    bias,
    bits,
)
from duplex.model.sampling import draw, sample
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    BACK,
    END,
    FIRST_TEXT_ID,
    NEXT,
    OVER,
    STOP,
    USER_END,
)

ONLY_END = Allowed(bits(END), Text.NONE)


def choose(
    session: Session,
    scores: torch.Tensor,
    seen: Observation,
    policy: TurnPolicy,
    choice: Allowed,
    config: AgentConfig,
) -> int:
    """The best symbol, or one that is drawn, of those that are allowed; scores [V], or of the
    controls alone, are changed."""
    if choice == ONLY_END:
        return END
    pending = pending_words.writable_tokens(session.user.pending, policy)
    is_speech = session.grammar.stream == AGENT
    favour(scores, choice, bias(seen, policy), pending, policy)
    if not is_speech:  # nothing is written but what was recognised, and always the best
        values = scores.numpy()
        if choice.text != Text.PENDING:
            return int(values[:FIRST_TEXT_ID].argmax())
        candidates = [*range(FIRST_TEXT_ID)]
        candidates += sorted(token for token in pending if token < len(scores))
        return candidates[int(values[candidates].argmax())]
    if choice.text == Text.NONE:
        scores[FIRST_TEXT_ID:] = float("-inf")
    own = session.temperature
    temperature = config.temperature if own is None else own
    uniform = 0.0
    if temperature > 0:
        uniform = draw(session.seed, session.tick, session.budget.drawn)
    return sample(scores, temperature, config.top_k, uniform)


def favour(
    scores: torch.Tensor,
    choice: Allowed,
    added: list[float],
    pending: dict[int, float],
    policy: TurnPolicy,
) -> None:
    """Shift the scores [V], or of the controls alone, by what the rules add; mask control symbols.

    The bonus of pending text goes to the token of which the recogniser is certain. Where it is sure
    enough that the user has said all, the turn ends; the LM says for whom it was.
    """
    if choice.end_stops:
        scores[STOP] = torch.logaddexp(scores[STOP], scores[USER_END])
    if choice.ends_aside:
        scores[ASIDE] = torch.logaddexp(scores[ASIDE], scores[USER_END])
    values = scores.numpy()  # the same memory; of so few numbers numpy makes less ado
    values[:FIRST_TEXT_ID] += np.array(added[:FIRST_TEXT_ID], np.float32)
    may_end = choice.controls & bits(USER_END) and choice.text == Text.NONE
    if may_end and values[OVER] > 0:
        values[[NEXT, BACK]] = -np.inf
    values[forbidden(choice.controls)] = -np.inf
    if added[PENDING_TEXT]:
        for token, confidence in pending.items():
            if confidence >= policy.certain_confidence and token < len(scores):
                values[token] += np.float32(added[PENDING_TEXT])


@cache
def forbidden(controls: int) -> np.ndarray:
    """The control symbols [n] that are not among those given as bits."""
    return np.array([s for s in range(FIRST_TEXT_ID) if not controls >> s & 1], np.int64)
