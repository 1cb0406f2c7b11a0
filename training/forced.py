"""When what was said: forced alignment of known text to sound, from the log-probabilities of the encoder's CTC head.

The head names a piece about HEARD_AFTER_S after the piece's last sound (training.clips makes its paths so), as one spike.
Scenes need the spikes themselves, for there the model can know; word times are where the spikes point back to.
"""

import numpy as np
import torch
import torchaudio
from torch.nn import functional as F

from duplex import features
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.encoder import BLANK, Encoder
from training.clips import HEARD_AFTER_S
from training.scenes import TICK, UserTurn, Word
from training.transcript import Pieces

SECONDS_A_LETTER = 0.07  # a guess, for the beginning of a word whose first piece's end is known
SHORTEST_WORD_S = 0.02
TAIL_TICKS = 6  # of silence after the sound: the last spikes come late


def spike_ticks(log_probs: torch.Tensor, targets: list[int]) -> list[int] | None:
    """log_probs [T, V+1]: the tick at which each target first stands, by forced alignment; None where it cannot."""
    if len(targets) + sum(a == b for a, b in zip(targets, targets[1:], strict=False)) > len(log_probs):
        return None
    path, _ = torchaudio.functional.forced_align(log_probs[None], torch.tensor([targets], dtype=torch.int32), blank=BLANK)
    path = path[0].tolist()
    return [t for t, p in enumerate(path) if p and (t == 0 or path[t - 1] != p)]


def near_word(tick: int, word: Word) -> int:
    """A spike's tick, held to its word's true time and the half second after, where a weak encoder aligns at random."""
    return min(max(tick, int(word.start / TICK)), int(word.end / TICK) + 6)


def due_ticks(log_probs: torch.Tensor, turns: list[UserTurn], spell) -> list[list[int]] | None:
    """log_probs [T, V+1] -> for every turn the ticks at which its pieces are due; None where the alignment fails.

    spell: word -> CTC indices.
    """
    owners = [[w for w in turn.words for _ in spell(w.text)] for turn in turns]
    ticks = spike_ticks(log_probs, [p for turn in turns for w in turn.words for p in spell(w.text)])
    if ticks is None:
        return None
    found = iter(ticks)
    return [[near_word(next(found), word) for word in words] for words in owners]


def spans(log_probs: torch.Tensor, words: list[list[int]], letters: list[int]) -> list[tuple[float, float]] | None:
    """log_probs [T, V+1], CTC indices of every word, letters of its first piece -> (start, end) in seconds of every word.

    None where there are more pieces than ticks to hear them in.
    """
    ticks = spike_ticks(log_probs, [p for word in words for p in word])
    if ticks is None:
        return None
    said = [max(SHORTEST_WORD_S, (t + 0.5) * TICK - HEARD_AFTER_S) for t in ticks]  # when each piece was over
    found, first, before = [], 0, 0.0
    for word, count in zip(words, letters, strict=True):
        end = max(said[first + len(word) - 1], before + SHORTEST_WORD_S)
        start = min(max(before, said[first] - count * SECONDS_A_LETTER), end - SHORTEST_WORD_S)
        found.append((start, end))
        first, before = first + len(word), end
    return found


@torch.no_grad()
def hear(encoder: Encoder, wave: np.ndarray) -> torch.Tensor:
    """wave float32 [N] -> CTC log-probabilities [T, V+1], as a stream, so however long it is it costs no more memory."""
    padded = F.pad(torch.from_numpy(wave), (0, TAIL_TICKS * TICK_SAMPLES + -len(wave) % TICK_SAMPLES))[None]
    mel, _ = features.log_mel(padded, features.initial_state(1))
    (_, log_probs), _ = encoder.step(mel, encoder.initial_state(1))
    return log_probs[0]


def forced_align(wave: np.ndarray, text: str, encoder: Encoder, pieces: Pieces) -> list[list]:
    """wave float32 [N], and what is said in it -> [[word as written, start, end], ...] in seconds.

    What is not spoken (a dash) belongs to no word and is left out. Raises ValueError where the text cannot be in the sound.
    """
    written = [word for word in text.split() if pieces.said(word)]
    if not written:
        return []
    spelled = [pieces.said(word) for word in written]
    letters = [max(1, len(pieces.texts[word[0] - 1].strip())) for word in spelled]
    found = spans(hear(encoder, wave), spelled, letters)
    if found is None:
        raise ValueError(f"{len(written)} words do not fit into {len(wave) / SAMPLE_RATE:.1f} s of sound")
    length = len(wave) / SAMPLE_RATE
    return [[w, round(min(a, length), 3), round(min(b, length), 3)] for w, (a, b) in zip(written, found, strict=True)]
