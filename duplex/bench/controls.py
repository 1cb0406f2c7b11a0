"""Two agents nobody wants, as controls: what a figure says of them shows what it is worth."""

import numpy as np

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.events import Event


class Silent:
    """Never says anything; see duplex.agent_interface.AgentInterface."""

    def __init__(self, slots: int):
        self.slots = slots

    def open(
        self,
        slot: int,
        seed: int = 0,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually: bool = False,
        real_time: bool = False,
    ) -> None:
        """Nothing is remembered of a session."""

    def close(self, slot: int) -> None:
        """Nothing is to be forgotten."""

    def is_prefilling(self, slot: int) -> bool:
        """It reads no instructions."""
        return False

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """It keeps no words that it could take back."""

    def metrics(self) -> dict[str, float]:
        """None."""
        return {}

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """Silence [B, TICK_SAMPLES], and no events."""
        return np.zeros((self.slots, TICK_SAMPLES), np.float32), [[] for _ in range(self.slots)]


class Talking(Silent):
    """Says `speech`, float32 [N], over and over, whatever it hears."""

    def __init__(self, slots: int, speech: np.ndarray):
        super().__init__(slots)
        self.speech = speech
        self.said = [0] * slots  # samples

    def open(self, slot: int, *options, **more) -> None:
        """Begin at the beginning."""
        self.said[slot] = 0

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """The next tick of the speech, [B, TICK_SAMPLES], and no events."""
        sound, events = super().step(audio, active)
        for slot in active:
            places = np.arange(TICK_SAMPLES) + self.said[slot]
            sound[slot] = np.take(self.speech, places, mode="wrap")
            self.said[slot] += TICK_SAMPLES
        return sound, events


def talk() -> np.ndarray:
    """A long answer in the voice the default agent was trained on, float32 [N]."""
    from hibari import Hibari

    text = (
        "Well, that is a good question, and I have a lot to say about it. First of all, it depends "
        "on where you are. Some people like it and some people do not, and I can see why. Then "
        "again, there is always another way."
    )
    return without_pauses(Hibari()(text, seed=0))


def without_pauses(
    wave: np.ndarray, breath_s: float = 0.16, quiet_share: float = 0.02
) -> np.ndarray:
    """wave [N] with `breath_s` left of each pause, [M].

    In a pause between two sentences it would seem to yield. Loud is what is above `quiet_share` of
    the loudest sample.
    """
    near = round(breath_s / 2 * SAMPLE_RATE)
    is_loud = np.abs(wave) > quiet_share * np.abs(wave).max()
    loud_before = np.concatenate([[0], np.cumsum(is_loud)])  # of each sample
    places = np.arange(len(wave))
    first = np.maximum(places - near, 0)
    last = np.minimum(places + near, len(wave))
    return wave[loud_before[last] > loud_before[first]]
