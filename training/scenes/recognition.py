"""What the agent recognises of a sound: the features of its ticks, and the words given in each.

A scene is laid on its time line with the words that were said. `align_turns_to_recognition` puts
those in their place that are recognised, for they are what the LM meets and writes down.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from duplex.audio import ENCODER_FRAMES_PER_TICK, TICK_S
from duplex.checkpoint import load_config, load_tensors
from duplex.cpu.beam_search import CompiledBeamSearch
from duplex.model.asr import features
from duplex.model.asr.beam_search import BeamState
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.asr.lexicon import Lexicon, load_lexicon
from duplex.model.asr.spoken_form import spoken_form
from duplex.training.common.precision import mixed
from duplex.training.scenes.scene import VOICE_DELAY_S, Scene, UserTurn, Word, voice_seconds
from duplex.training.scenes.sequence import Spell

# beam_search.decode with one lexicon: the words that a tick's frames [4, 1 + phones] commit.
Search = Callable[[BeamState, np.ndarray], list[tuple[str, float]]]
# Words with their confidence, by tick.
WordsByTick = list[list[tuple[str, float]]]
# Token ids with their confidence, by tick, as LM.project takes them.
TokensByTick = list[list[tuple[int, float]]]


@dataclass
class SpeechRecognizer:
    """The agent's own: its encoder, and the lexicon that turns phones into words."""

    encoder: Encoder
    lexicon: Lexicon
    search: Search


def load_recognizer(encoder: Path, lexicon: Path) -> SpeechRecognizer:
    """The parts in these two folders."""
    network = Encoder(load_config(EncoderConfig, encoder)).eval()
    network.load_state_dict(load_tensors(encoder))
    words = load_lexicon(lexicon)
    return SpeechRecognizer(network, words, CompiledBeamSearch(words))


def load_search(lexicon: Path) -> Search:
    """The search with the lexicon in this folder, compiled as the agent's."""
    return CompiledBeamSearch(load_lexicon(lexicon))


def decode_words(search: Search, log_probs: torch.Tensor) -> WordsByTick:
    """The words of one stream, from its log-probabilities [4 T, 1 + phones]."""
    beam = BeamState()
    ticks = log_probs.split(ENCODER_FRAMES_PER_TICK)
    return [search(beam, tick.float().numpy()) for tick in ticks]


def join_words(words: WordsByTick) -> str:
    """All words as one text."""
    return " ".join(word for tick in words for word, _ in tick)


@torch.no_grad()
def recognize(
    recognizer: SpeechRecognizer, channel: np.ndarray
) -> tuple[torch.Tensor, WordsByTick]:
    """channel float32 [T * TICK_SAMPLES]: its features [T, W], and its words."""
    device = recognizer.encoder.norm.weight.device
    mel, _ = features.log_mel(torch.from_numpy(channel)[None], features.initial_state(1))
    with mixed(device.type):
        vectors, log_probs = recognizer.encoder(mel.to(device))
    words = decode_words(recognizer.search, log_probs[0].cpu())
    return vectors[0].float().cpu(), words


def align_turns_to_recognition(
    scene: Scene, words: WordsByTick, spell: Spell
) -> list[list[int]] | None:
    """Give every user turn the words that were recognised in its time.

    Returns for every turn the ticks of its tokens, in order. A turn of which nothing was recognised
    is left out of the scene; returns None where an answer or an interruption hangs on it.
    """
    due = []
    kept = []
    needed = {id(speech.answers) for speech in scene.agent}
    needed |= {id(speech.stopped_by) for speech in scene.agent}
    for turn, following in zip(scene.user, [*scene.user[1:], None], strict=True):
        until = recognised_until(turn, following)
        ticks = range(int(turn.words[0].start / TICK_S), min(len(words), int(until / TICK_S) + 1))
        found = [(tick, word) for tick in ticks for word, _ in words[tick]]
        if found:
            turn.words = [Word(word, tick * TICK_S, tick * TICK_S) for tick, word in found]
            due.append([tick for tick, word in found for _ in spell(word)])
            kept.append(turn)
        elif id(turn) in needed:
            return None
    scene.user = kept
    return due


def recognised_until(turn: UserTurn, following: UserTurn | None) -> float:
    """The second up to which words belong to a turn: its last ones may come a second late."""
    end = turn.words[-1].end
    if following is None:
        return end + 1.0
    return min(end + 1.0, max(following.words[0].start, end))


def to_token_ids(words: WordsByTick, spell: Spell) -> TokensByTick:
    """The words as tokens; each has the confidence of its word."""
    return [
        [(token, confidence) for word, confidence in tick for token in spell(word)]
        for tick in words
    ]


def simulate_recognition(scene: Scene, rng: np.random.Generator) -> WordsByTick:
    """The words of a scene without sound, as an encoder and a lexicon might give them.

    3 % of the words are missed, a third of what is far. In 12 % of the scenes the agent hears
    itself.
    """
    words: WordsByTick = [[] for _ in range(int(scene.seconds / TICK_S))]
    last = 0
    for turn in scene.user:
        for word in turn.words:
            due = min(int((word.end + rng.uniform(0.05, 0.4)) / TICK_S), len(words) - 1)
            last = max(last, due)
            if rng.uniform() >= (0.03 if turn.gain == 1.0 else 0.33):
                words[last].append((word.text, float(rng.uniform(0.5, 1.0))))
    if rng.uniform() < 0.12:
        add_echo_words(scene, words, rng)
    return words


def add_echo_words(scene: Scene, words: WordsByTick, rng: np.random.Generator) -> None:
    """Parts of the agent's voice come back from the loudspeaker and are recognised.

    It is not the user who speaks.
    """
    delay = float(rng.uniform(0.2, 0.7))
    share = float(rng.uniform(0.2, 1.0))
    for speech in scene.agent:
        end = speech.stopped_by.words[0].start if speech.stopped_by else scene.seconds
        end = min(end, (len(words) - 1) * TICK_S)
        now = speech.start + VOICE_DELAY_S + delay
        for raw in speech.text.split():
            now += voice_seconds(raw)
            if rng.uniform() < share and now < end and (word := spoken_form(raw)):
                words[int(now / TICK_S)].append((word, float(rng.uniform(0.2, 1.0))))
