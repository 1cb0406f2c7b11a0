"""What was heard and said in a conversation: two tracks on one clock, and the events."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_MS
from duplex.client.sound.jitter_buffer import BLOCK_MS, BLOCK_SAMPLES
from duplex.transcript import Transcript, transcribe


def _first_block() -> list[np.ndarray]:
    return [np.zeros(BLOCK_SAMPLES, np.int16)]


@dataclass
class Recording:
    """Both tracks grow tick by tick.

    The agent's is what the loudspeaker played, one block after it was asked for.
    """

    user: list[np.ndarray] = field(default_factory=list)
    agent: list[np.ndarray] = field(default_factory=_first_block)
    events: list[dict] = field(default_factory=list)
    # Times that the agent's voice was interrupted, and how much was thrown away.
    gaps: int = 0
    dropped_ms: int = 0
    # Events whose own times are still those of the session.
    _unsettled: list[dict] = field(default_factory=list)

    def add_tick(self, user: np.ndarray, agent: np.ndarray) -> None:
        """What the microphone heard and what the loudspeaker got, float32 [1920] each.

        Both are taken at the end of each block.
        """
        self.user.append(_int16(user))
        self.agent.append(_int16(agent))

    def note(self, now_s: float, event: dict, lost_ms: int = 0) -> None:
        """Keep an event at its time of arrival, on the clock of the tracks.

        lost_ms: of the session's own clock, what of the agent's sound never came. The event's own
        times become the tracks' with `settle`.
        """
        entry = {"time_s": round(now_s, 3), **event}
        for name in ("start_ms", "end_ms"):
            if name in entry:
                entry[name] -= lost_ms
        self.events.append(entry)
        self._unsettled.append(entry)

    def settle(self, played_at_ms: Callable[[float], float]) -> None:
        """Turn the times of the agent's words into those at which the loudspeaker played them.

        played_at_ms: when a moment of the agent's sound was played, see Playback.
        """
        for entry in self._unsettled:
            for name in ("start_ms", "end_ms"):
                if name in entry:
                    at_ms = played_at_ms(entry.pop(name)) + BLOCK_MS
                    entry[name.replace("_ms", "_s")] = round(at_ms / 1000, 3)
        self._unsettled.clear()

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.user) * TICK_MS / 1000

    def stereo(self) -> np.ndarray:
        """Both tracks, int16 [N, 2]: the user left, the agent right."""
        user = np.concatenate([*self.user, np.zeros(0, np.int16)])
        agent = np.concatenate(self.agent)[: len(user)]
        return np.stack([user, agent], axis=1)

    def transcript(self) -> Transcript:
        """The conversation as text."""
        return transcribe(self.events)

    def response_times(self) -> list[tuple[str, float | None]]:
        """For each question its name and how soon it was answered.

        That is the seconds from the end of its sound to the agent's first audible sample, None
        where there is none before the next question, or no turn that began after the question did:
        an answer that goes on is none.
        """
        is_audible = np.abs(np.concatenate(self.agent).astype(np.int32)) > AUDIBLE * 32768
        questions = [event for event in self.events if event["type"] == "question"]
        ends = [question["time_s"] + question["sound_s"] for question in questions]
        limits = [int(question["time_s"] * SAMPLE_RATE) for question in questions[1:]]
        limits.append(len(is_audible))
        begins = [event["time_s"] for event in self.events if event["type"] == "agent_started"]
        answers = []
        for question, end_s, limit in zip(questions, ends, limits, strict=False):
            if not any(question["time_s"] <= at < limit / SAMPLE_RATE for at in begins):
                answers.append((question["name"], None))
                continue
            sounds = np.flatnonzero(is_audible[int(end_s * SAMPLE_RATE) : limit])
            seconds = round(int(sounds[0]) / SAMPLE_RATE, 3) if len(sounds) else None
            answers.append((question["name"], seconds))
        return answers


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
