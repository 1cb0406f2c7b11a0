"""What is kept of a conversation: stereo sound, transcript and time line, in files."""

import contextlib
import itertools
import json
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.client import sounding
from duplex.client.recording import Recording
from duplex.client.speakers import Speakers
from duplex.client.terminal.display import turn_text
from duplex.client.timeline import draw
from duplex.errors import ClientError

# What is told of events that belong to no turn: who, and the words.
ASIDES = {
    "sound": lambda text: ("sound", text),
    "backchannel": lambda text: ("agent", f"{text} (while you speak)"),
}
# Seconds for which a subtitle of them stands.
ASIDE_S = 1.0


@dataclass(frozen=True)
class Files:
    """Where a conversation goes."""

    wave: Path
    # Without an ending: there is one of events, one of text and one of subtitles.
    transcript: Path
    timeline: Path

    def __str__(self) -> str:
        """The folder, and the names in it."""
        name = self.transcript.name
        names = f"{self.wave.name}, {name}.txt, .vtt, .jsonl, {self.timeline.name}"
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
        for ending, text in ((".txt", as_text(recording)), (".vtt", as_subtitles(recording))):
            files.transcript.with_suffix(ending).write_text(text, encoding="utf-8")
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClientError(f"cannot write {files.wave} ({reason})") from error


def picture(recording: Recording, files: Files) -> None:
    """Draw the time line of a conversation that was saved. Raises ClientError."""
    try:
        draw(recording, files.timeline)
    except OSError as error:
        raise ClientError(f"cannot write {files.timeline} ({error.strerror or error})") from error


@dataclass(frozen=True)
class Line:
    """What a transcript tells at one place, in seconds of the recording."""

    start_s: float
    end_s: float
    # Who it is, for people, and what was said, or heard.
    who: str
    text: str


def lines(recording: Recording) -> list[Line]:
    """The turns of both sides, and between them sounds and the agent's backchannels."""
    speakers = Speakers()
    found = []
    for event in recording.events:
        speakers.read(event)
        if event["type"] in ASIDES:
            at_s = event["time_s"]
            found.append(Line(at_s, at_s + ASIDE_S, *ASIDES[event["type"]](event["text"])))
    for turn in recording.transcript().turns():
        who = speakers.name(turn.speaker) if turn.who == "user" else "agent"
        unsaid = " …" if turn.unsaid.strip() else ""
        # What is typed, or thought by a large mind, may have lines; an empty one would end a cue.
        text = " ".join(turn_text(turn).split())
        found.append(Line(turn.start_s, turn.end_s, who, text + unsaid))
    return sorted(found, key=lambda line: line.start_s)


def as_text(recording: Recording) -> str:
    """One line for each turn."""
    return "".join(
        f"[{_clock(line.start_s)} - {_clock(line.end_s)}] {line.who}: {line.text}\n"
        for line in lines(recording)
    )


def as_subtitles(recording: Recording) -> str:
    """WebVTT, to be shown with the sound."""
    cues = [
        f"{_cue_time(line.start_s)} --> {_cue_time(max(line.end_s, line.start_s + 0.5))}\n"
        f"<v {escape(line.who, quote=False)}>{escape(line.text, quote=False)}\n"
        for line in lines(recording)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _cue_time(seconds: float) -> str:
    hours, rest = divmod(round(1000 * seconds), 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{seconds % 60:05.2f}"
