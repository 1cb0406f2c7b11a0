"""What was heard and said in a conversation: two tracks on one clock, the events, and the files made of them."""

from dataclasses import dataclass, field

import numpy as np
from duplex.client.jitter_buffer import BLOCK_SAMPLES

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_MS
from duplex.events import Transcript, transcribe


@dataclass
class Recording:
    """Both tracks grow tick by tick; the agent's is what the loudspeaker played, one block after it was asked for."""

    user: list[np.ndarray] = field(default_factory=list)
    agent: list[np.ndarray] = field(default_factory=lambda: [np.zeros(BLOCK_SAMPLES, np.int16)])
    events: list[dict] = field(default_factory=list)
    gaps: int = 0
    dropped_ms: int = 0

    def add_tick(self, user: np.ndarray, agent: np.ndarray) -> None:
        """What the microphone heard and what the loudspeaker got, at the end of each block of it, float32 [1920] each."""
        self.user.append(_int16(user))
        self.agent.append(_int16(agent))

    def note(self, now_s: float, event: dict, ahead_ms: float = 0.0) -> None:
        """An event at its time of arrival. Its own times, on the session's clock, are moved onto the recording's."""
        entry = {"time_s": round(now_s, 3), **event}
        for name in ("start_ms", "end_ms"):
            if name in entry:
                entry[name.replace("_ms", "_s")] = round((entry.pop(name) + ahead_ms) / 1000, 3)
        self.events.append(entry)

    @property
    def seconds(self) -> float:
        return len(self.user) * TICK_MS / 1000

    def stereo(self) -> np.ndarray:
        """[N, 2] int16: the user left, the agent right."""
        user = np.concatenate([*self.user, np.zeros(0, np.int16)])
        agent = np.concatenate(self.agent)[: len(user)]
        return np.stack([user, agent], axis=1)

    def transcript(self) -> Transcript:
        """The conversation as text."""
        return transcribe(self.events)

    def response_times(self) -> list[tuple[str, float | None]]:
        """Per question: its name and the seconds from the end of its sound to the agent's first audible sample."""
        agent = np.abs(np.concatenate(self.agent).astype(np.int32)) > AUDIBLE * 32768
        questions = [event for event in self.events if event["type"] == "question"]
        ends = [question["time_s"] + question["sound_s"] for question in questions]
        limits = [question["time_s"] for question in questions[1:]] + [float("inf")]
        answers = []
        for question, end, limit in zip(questions, ends, limits, strict=True):
            first = int(end * SAMPLE_RATE)
            last = len(agent) if limit == float("inf") else int(limit * SAMPLE_RATE)
            sounds = np.flatnonzero(agent[first:last])
            answers.append(
                (question["name"], round(int(sounds[0]) / SAMPLE_RATE, 3) if len(sounds) else None)
            )
        return answers


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
