"""What is kept of a conversation: stereo sound, transcript and time line, in files."""

import contextlib
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.client import sounding
from duplex.client.recording import Recording
from duplex.client.terminal.display import turn_text
from duplex.client.timeline import draw
from duplex.errors import ClientError


@dataclass(frozen=True)
class Files:
    """Where a conversation goes."""

    wave: Path
    # Without an ending: there is one of events and one of text.
    transcript: Path
    timeline: Path

    def __str__(self) -> str:
        """The folder, and the names in it."""
        name = self.transcript.name
        names = f"{self.wave.name}, {name}.jsonl, {name}.txt, {self.timeline.name}"
        return f"{self.wave.parent}/: {names}"


def named(output: Path | None) -> Files:
    """Files of the name that is asked for, or in a new folder: talk/DATE. Raises ClientError."""
    if output is not None:
        return Files(output, output.with_suffix(""), output.with_suffix(".png"))
    folder = new_folder(Path("talk"), time.strftime("%Y-%m-%d-%H%M%S"))
    return Files(folder / "conversation.wav", folder / "transcript", folder / "timeline.png")


def new_folder(parent: Path, name: str) -> Path:
    """A folder that no other conversation of the same second has taken. Raises ClientError."""
    folder = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
            folder = parent / f"{name}-{number}"
    except OSError as error:
        raise ClientError(f"cannot write {folder} ({error.strerror or error})") from error
    return folder


def prepare(files: Files) -> None:
    """Find out before the conversation whether it can be written after it. Raises ClientError."""
    try:
        files.wave.parent.mkdir(parents=True, exist_ok=True)
        is_new = not files.wave.exists()
        files.wave.open("ab").close()
        if is_new:
            files.wave.unlink()
    except OSError as error:
        raise ClientError(f"cannot write {files.wave} ({error.strerror or error})") from error


def save(recording: Recording, files: Files) -> None:
    """Write sound and words; the picture takes longer: see `picture`. Raises ClientError."""
    sounding.place(recording)
    try:
        files.wave.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(files.wave, recording.stereo(), SAMPLE_RATE, subtype="PCM_16")
        events = [json.dumps(event, ensure_ascii=False) + "\n" for event in recording.events]
        files.transcript.with_suffix(".jsonl").write_text("".join(events), encoding="utf-8")
        files.transcript.with_suffix(".txt").write_text(as_text(recording), encoding="utf-8")
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClientError(f"cannot write {files.wave} ({reason})") from error


def picture(recording: Recording, files: Files) -> None:
    """Draw the time line of a conversation that was saved. Raises ClientError."""
    try:
        draw(recording, files.timeline)
    except OSError as error:
        raise ClientError(f"cannot write {files.timeline} ({error.strerror or error})") from error


def as_text(recording: Recording) -> str:
    """One line for each turn."""
    names = {"user": "you", "agent": "agent"}
    return "".join(
        f"[{_clock(turn.start_s)} - {_clock(turn.end_s)}] {names[turn.who]}: {turn_text(turn)}"
        f"{' …' if turn.unsaid.strip() else ''}\n"
        for turn in recording.transcript().turns()
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{seconds % 60:05.2f}"
