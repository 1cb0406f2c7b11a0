"""Which of the bench's scenes an agent handles, told by its own channel.

`duplex bench behaviour` has outside judges, which need an extra and 133 MB. To see whether tuning
has cost something this is enough: the voice is what is audible in the agent's channel, which is
silent otherwise, and the words are those that it tells.
"""

import asyncio

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.audio import AUDIBLE, SAMPLE_RATE
from duplex.bench import scenes as scene_files
from duplex.bench.play import Played, play_fast
from duplex.bench.recognizer import Heard
from duplex.bench.scenes import Scene, Word
from duplex.bench.score import score
from duplex.training.common.progress import counter

# Samples in which a sound is looked for: 20 ms.
BLOCK_SAMPLES = SAMPLE_RATE // 50


def handled_scenes(
    agent: AgentInterface, scenes: list[Scene] | None = None, seed: int = 0
) -> dict[str, list[int]]:
    """By kind of scene how many are handled, and how many could tell (default: all that ship).

    Scene n is played with seed + n, as the bench does.
    """
    found: dict[str, list[int]] = {}
    for number, scene in enumerate(counter(scenes or scene_files.load(), "scenes")):
        played = asyncio.run(play_fast(agent, scene, seed + number))
        handled = score(played.scored(scene.kind, heard_of(played)))["handled"]
        counts = found.setdefault(scene.kind, [0, 0])
        if handled is not None:
            counts[0] += int(handled)
            counts[1] += 1
    return found


def heard_of(played: Played) -> Heard:
    """The agent's voice and words in a scene that was played."""
    spoken = [event for event in played.recording.events if event["type"] == "spoken"]
    words = [Word(event["text"].strip(), event["start_s"], event["end_s"]) for event in spoken]
    return Heard(voice_of(played.channel("agent")), words)


def voice_of(wave: np.ndarray) -> list[tuple[float, float]]:
    """(start, end) in seconds of what is audible in wave, float32 [N]."""
    blocks = np.pad(np.abs(wave), (0, -len(wave) % BLOCK_SAMPLES)).reshape(-1, BLOCK_SAMPLES)
    is_loud = np.pad(blocks.max(axis=1) > AUDIBLE, 1)
    edges = np.flatnonzero(np.diff(is_loud)) * BLOCK_SAMPLES / SAMPLE_RATE
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
