"""The text that a clip most likely says, found by beam search in Whisper's decoder.

A text is drafted by an earlier reading of the same clip, or of a part of it: the draft is read in
one pass and kept as far as it is sure. Behind it several texts go on side by side, a token each in
one pass. The search is over when so many have ended; the likeliest one a token is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from duplex.model.asr import biasing
from duplex.model.asr.biasing import FavouredWords, Trie

if TYPE_CHECKING:
    from duplex.model.asr.whisper import TextState, Whisper


@dataclass(frozen=True)
class Search:
    """What a search is to find."""

    # The token that ends a text; those behind it are marks.
    end: int
    max_tokens: int
    # Texts side by side; 1: the greedy one.
    beams: int = 1
    favoured: FavouredWords | None = None
    # Log-probability of a drafted token that need not be searched anew among several texts.
    min_kept_log_prob: float = -0.5
    # A token that never begins a transcript.
    lone_space: int = 220


@dataclass(frozen=True)
class Hypothesis:
    """A text as far as it goes."""

    tokens: tuple[int, ...] = ()
    # Of each token, and of the end where it is reached.
    log_probs: tuple[float, ...] = ()
    # Their sum, and what favoured words have gained.
    score: float = 0.0
    # Where in the favoured words' trie the last tokens have led to.
    begun: tuple[Trie, ...] = ()
    loops: bool = False
    is_over: bool = False

    @property
    def mean_score(self) -> float:
        """Nats a token: the likeliest text as such is the shortest."""
        return self.score / max(1, len(self.log_probs))


def search(
    whisper: "Whisper", h: Tensor, wanted: Search, draft: Sequence[int] = ()
) -> tuple[Hypothesis, float]:
    """The likeliest text of the clip h [1, S, W], and the probability that nobody speaks.

    draft: how it may begin. The greedy text is the same without it.
    """
    state = whisper.decoder.initial_state(h, whisper.silent_rest(h.shape[1]))
    draft = [*draft][: wanted.max_tokens - 1]
    rows = _logits(whisper, [[*whisper.prompt, *draft]], state)[0]
    no_speech = float(rows[0].softmax(-1)[whisper.no_speech])
    rows = rows[len(whisper.prompt) - 1 :]
    best = _kept(rows, draft, wanted)
    place = len(best.tokens)
    state.truncate(len(whisper.prompt) + place)
    beam = [best]
    rows = rows[place : place + 1]
    ended: list[Hypothesis] = []
    while True:
        found = _extend(beam, rows, wanted)
        ended += [text for _, text in found if text.is_over]
        going_on = [(source, text) for source, text in found if not text.is_over]
        beam = [text for _, text in going_on]
        is_cut = bool(beam) and len(beam[0].tokens) == wanted.max_tokens
        if len(ended) >= wanted.beams or not beam or is_cut:
            return max(ended or beam, key=lambda text: text.mean_score), no_speech
        state.select([source for source, _ in going_on])
        rows = _logits(whisper, [[text.tokens[-1]] for text in beam], state)[:, 0]


def _kept(rows: Tensor, draft: list[int], wanted: Search) -> Hypothesis:
    """The beginning of a draft that would be found again; rows [N, V]: what follows each token."""
    kept = Hypothesis()
    for row, token in zip(rows, draft, strict=False):
        [(_, following)] = _extend([kept], row[None], replace(wanted, beams=1))
        is_sure = wanted.beams == 1 or following.log_probs[-1] > wanted.min_kept_log_prob
        if following.is_over or following.tokens[-1] != token or not is_sure:
            break
        kept = following
    return kept


def _extend(beam: list[Hypothesis], rows: Tensor, wanted: Search) -> list[tuple[int, Hypothesis]]:
    """The likeliest texts with one more token, best first, each with the place of its beginning.

    rows: logits [B, V] of what follows each text.
    """
    rows[:, wanted.end + 1 :] = -torch.inf
    if not beam[0].tokens:
        rows[:, [wanted.end, wanted.lone_space]] = -torch.inf
    log_probs = rows.log_softmax(-1)
    found = []
    for place, text in enumerate(beam):
        gains = {}
        if wanted.favoured is not None:
            gains = biasing.bonuses(wanted.favoured, text.begun)
        likely = log_probs[place].topk(wanted.beams).indices.tolist()
        tokens = [*dict.fromkeys([*likely, *gains])]
        values = log_probs[place, tokens].tolist()
        for token, value in zip(tokens, values, strict=True):
            score = text.score + value + gains.get(token, 0.0)
            found.append((score, place, token, value))
    best = sorted(found, key=lambda one: -one[0])[: wanted.beams]
    return [
        (place, _followed(beam[place], token, value, score, wanted))
        for score, place, token, value in best
    ]


def _followed(
    text: Hypothesis, token: int, log_prob: float, score: float, wanted: Search
) -> Hypothesis:
    """The text with a token behind it."""
    log_probs = (*text.log_probs, log_prob)
    if token == wanted.end:
        return replace(text, log_probs=log_probs, score=score, is_over=True)
    tokens = (*text.tokens, token)
    loop = repeated_tokens(tokens)
    if loop:
        rest = tokens[:-loop]
        return Hypothesis(rest, log_probs[: len(rest)], score, (), loops=True, is_over=True)
    begun: tuple[Trie, ...] = ()
    if wanted.favoured is not None:
        begun = tuple(biasing.advance(wanted.favoured, [*text.begun], token))
    return Hypothesis(tokens, log_probs, score, begun)


def _logits(whisper: "Whisper", tokens: list[list[int]], state: "TextState") -> Tensor:
    """Logits [B, N, V] after each of the next N tokens of B texts."""
    given = torch.tensor(tokens, device=whisper.device)
    return whisper.decoder.logits(whisper.decoder(given, state))


def repeated_tokens(tokens: Sequence[int], min_tokens: int = 4) -> int:
    """Length of the sequence that stands twice in a row at the end; 0: there is none.

    Shorter ones than `min_tokens` are speech: "no, no", "very, very", "one two one two".
    """
    for length in range(min_tokens, len(tokens) // 2 + 1):
        if tokens[-length:] == tokens[-2 * length : -length]:
            return length
    return 0
