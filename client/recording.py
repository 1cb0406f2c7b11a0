"""What was heard and said in a conversation: two tracks on one clock, the events, and the files made of them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from duplex.client.jitter_buffer import BLOCK_SAMPLES

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_MS


@dataclass
class Turn:
    """One stretch of speech as text, times in seconds of the recording."""

    who: str  # "you" or "agent"
    start_s: float
    end_s: float
    text: str


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

    def turns(self) -> list[Turn]:
        """The conversation as text, by the time each turn began."""
        turns: list[Turn] = []
        for who, first, piece, last in (
            ("you", ("user_started",), "heard", ("user_ended",)),
            ("agent", ("agent_started",), "said", ("agent_ended", "agent_stopped")),
        ):
            turn = None
            for event in self.events:
                kind, time_s = event["type"], event["time_s"]
                if kind in first or (kind == piece and turn is None):
                    turn = Turn(who, event.get("start_s", time_s), time_s, "")
                    turns.append(turn)
                if kind == piece:
                    turn.text += event.get("text", "")
                    turn.end_s = time_s
                if kind == "corrected" and who == "you" and turn is not None:
                    turn.text = event["text"]
                if kind in last and turn is not None:
                    turn.end_s = event.get("end_s", time_s)
                    if kind == "agent_stopped" and event.get("text"):
                        turn.text = (
                            turn.text.rstrip().removesuffix(event["text"].strip()).rstrip() + " …"
                        )
                    turn = None
        return sorted((turn for turn in turns if turn.text.strip()), key=lambda turn: turn.start_s)

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


def save(recording: Recording, wave: Path, transcript: Path, picture: Path) -> None:
    """The stereo wav, `transcript`.jsonl with every event and `transcript`.txt to read, and the time line."""
    import soundfile
    from duplex.client.timeline import draw

    wave.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(wave, recording.stereo(), SAMPLE_RATE, subtype="PCM_16")
    lines = [json.dumps(event, ensure_ascii=False) for event in recording.events]
    transcript.with_suffix(".jsonl").write_text(
        "".join(line + "\n" for line in lines), encoding="utf-8"
    )
    turns = [
        f"[{_clock(t.start_s)} - {_clock(t.end_s)}] {t.who}: {t.text.strip()}\n"
        for t in recording.turns()
    ]
    transcript.with_suffix(".txt").write_text("".join(turns), encoding="utf-8")
    draw(recording, picture)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{seconds % 60:05.2f}"


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
