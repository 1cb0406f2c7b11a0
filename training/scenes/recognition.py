"""What the agent hears of a sound: the features of its ticks, and the words that were settled in each.

A scene is laid on its time line with the words that were said; `retell` puts those in their place that were heard, for they
are what the LM meets and writes down.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from duplex.training.common.precision import mixed
from duplex.training.scenes.sequence import Scene, Word

from duplex.audio import ENCODER_FRAMES_PER_TICK, TICK_S
from duplex.checkpoint import load_config, load_tensors
from duplex.model import features
from duplex.model.beam_search import BeamState, decode
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.lexicon import Lexicon, load_lexicon

LATEST_S = 1.0  # after its end a turn's last words may be settled
Heard = list[list[tuple[str, float]]]  # by tick: words, and how sure they are


@dataclass
class Ears:
    encoder: Encoder
    lexicon: Lexicon


def load_ears(encoder: Path, lexicon: Path) -> Ears:
    """The parts in these two folders."""
    ears = Ears(Encoder(load_config(EncoderConfig, encoder)).eval(), load_lexicon(lexicon))
    ears.encoder.load_state_dict(load_tensors(encoder))
    return ears


def words_of(lexicon: Lexicon, log_probs: torch.Tensor) -> Heard:
    """log_probs [4T, 1 + phones] of one stream -> its words by tick."""
    reading = BeamState()
    return [
        decode(lexicon, reading, tick.float().numpy())
        for tick in log_probs.split(ENCODER_FRAMES_PER_TICK)
    ]


def text_of(heard: Heard) -> str:
    return " ".join(word for words in heard for word, _ in words)


@torch.no_grad()
def listen(ears: Ears, channel: np.ndarray) -> tuple[torch.Tensor, Heard]:
    """channel float32 [T ticks of samples] -> features [T, W], words by tick."""
    device = ears.encoder.norm.weight.device
    mel, _ = features.log_mel(torch.from_numpy(channel)[None], features.initial_state(1))
    with mixed(device.type):
        vectors, log_probs = ears.encoder(mel.to(device))
    return vectors[0].float().cpu(), words_of(ears.lexicon, log_probs[0].cpu())


def retell(scene: Scene, heard: Heard, spell) -> list[list[int]] | None:
    """Give every user turn the words that were heard in its time -> for every turn the ticks of its pieces, in order.

    spell: word -> token ids. A turn of which nothing was heard is left out; None where an answer or a stop hangs on it.
    """
    due, kept = [], []
    needed = {id(speech.answers) for speech in scene.agent} | {
        id(speech.stopped_by) for speech in scene.agent
    }
    for turn, following in zip(scene.user, [*scene.user[1:], None], strict=True):
        until = turn.words[-1].end + LATEST_S
        if following:
            until = min(until, max(following.words[0].start, turn.words[-1].end))
        ticks = range(int(turn.words[0].start / TICK_S), min(len(heard), int(until / TICK_S) + 1))
        found = [(tick, word) for tick in ticks for word, _ in heard[tick]]
        if found:
            turn.words = [Word(word, tick * TICK_S, tick * TICK_S) for tick, word in found]
            due.append([tick for tick, word in found for _ in spell(word)])
            kept.append(turn)
        elif id(turn) in needed:
            return None
    scene.user = kept
    return due


def pieces(heard: Heard, spell) -> list[list[tuple[int, float]]]:
    """Words by tick -> their token ids by tick, as LM.project takes them."""
    return [[(token, sure) for word, sure in words for token in spell(word)] for words in heard]
