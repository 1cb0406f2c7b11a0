"""Two agents nobody wants, as controls: what a figure says of them shows what the figure is worth."""

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.events import Event

TALK = (
    "Well, that is a good question, and I have a lot to say about it. First of all, it depends on where you are. "
    "Some people like it and some people do not, and I can see why. Then again, there is always another way."
)


BREATH_S = 0.16  # of silence left of each pause


class Silent:
    """Never says anything."""

    def __init__(self, slots: int):
        self.slots = slots

    def open(
        self, slot: int, seed=0, instructions: str | None = None, temperature=None, gradually=False
    ) -> None:
        pass

    def close(self, slot: int) -> None:
        pass

    def is_prefilling(self, slot: int) -> bool:
        return False

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """It keeps no words that it could take back."""

    def metrics(self) -> dict[str, float]:
        return {}

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """[B, 1920] in, [B, 1920] and no events out."""
        return np.zeros((self.slots, TICK_SAMPLES), np.float32), [[] for _ in range(self.slots)]


class Talking(Silent):
    """Says `speech`, float32 [N], over and over, whatever it hears."""

    def __init__(self, slots: int, speech: np.ndarray):
        super().__init__(slots)
        self.speech = speech
        self.said = [0] * slots  # samples

    def open(
        self, slot: int, seed=0, instructions: str | None = None, temperature=None, gradually=False
    ) -> None:
        self.said[slot] = 0

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        played, events = super().step(audio, active)
        for slot in active:
            played[slot] = np.take(
                self.speech, np.arange(TICK_SAMPLES) + self.said[slot], mode="wrap"
            )
            self.said[slot] += TICK_SAMPLES
        return played, events


def talk() -> np.ndarray:
    """TALK in the voice the default agent was trained on, float32 [N]."""
    from hibari import Hibari

    return without_pauses(Hibari()(TALK, seed=0))


def without_pauses(wave: np.ndarray, quiet_share: float = 0.02) -> np.ndarray:
    """Only what is near a loud sample, [M] of [N]: in a pause between two sentences it would seem to
    yield. Loud is what is above `quiet_share` of the loudest sample."""
    near = round(BREATH_S / 2 * SAMPLE_RATE)
    loud = np.concatenate(
        [[0], np.cumsum(np.abs(wave) > quiet_share * np.abs(wave).max())]
    )  # how many before each sample
    at = np.arange(len(wave))
    return wave[loud[np.minimum(at + near, len(wave))] > loud[np.maximum(at - near, 0)]]
