"""What `duplex talk` does: a conversation held, shown and written to files."""

import json
from pathlib import Path

import soundfile
from duplex.client.recording import Recording
from duplex.client.timeline import draw

from duplex.audio import SAMPLE_RATE

# Whom the written transcript names.
NAMES = {"user": "you", "agent": "agent"}


def save(recording: Recording, wave: Path, transcript: Path, picture: Path) -> None:
    """Write the stereo sound, the events and the words as `transcript`.jsonl and .txt, the picture."""
    wave.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(wave, recording.stereo(), SAMPLE_RATE, subtype="PCM_16")
    events = [json.dumps(event, ensure_ascii=False) + "\n" for event in recording.events]
    transcript.with_suffix(".jsonl").write_text("".join(events), encoding="utf-8")
    turns = [
        f"[{_clock(turn.start_s)} - {_clock(turn.end_s)}] "
        f"{NAMES[turn.who]}: {turn.spoken_text.strip()}\n"
        for turn in recording.transcript().turns()
    ]
    transcript.with_suffix(".txt").write_text("".join(turns), encoding="utf-8")
    draw(recording, picture)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{seconds % 60:05.2f}"
