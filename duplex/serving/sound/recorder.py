"""Keeps conversations, when the server is asked to.

Of each session a stereo FLAC (the user left) and its events as JSON lines. The model thread only
queues; files are written in a thread of their own, and what that cannot keep up with is dropped and
counted. The oldest recordings are deleted, so that the folder never holds more than `limit_bytes`
of them.
"""

import json
import logging
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import soundfile

from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.serving.native.messages import event_fields

log = logging.getLogger(__name__)

# Begins the name of every recording; only files with such a name are ever deleted.
PREFIX = "session-"


@dataclass
class OpenRecording:
    """The files of a session that goes on."""

    sound: soundfile.SoundFile
    lines: TextIO
    ticks: int = 0


class Recorder:
    """Writes the recordings of all sessions of one server."""

    def __init__(self, folder: Path, limit_bytes: int, max_waiting_ticks: int = 1000):
        """Make the folder.

        max_waiting_ticks: ticks that may wait to be written, by default 20 s of four sessions.

        Raises OSError where the folder cannot be.
        """
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.dropped_ticks = 0
        # By session.
        self._open: dict[str, OpenRecording] = {}
        self._queue: queue.Queue = queue.Queue(max_waiting_ticks)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def tick(self, session_id: str, heard: np.ndarray, played: np.ndarray, events: list) -> None:
        """One tick of both sides, float32 [1920] each."""
        try:
            self._queue.put_nowait((session_id, np.stack([heard, played], axis=1), list(events)))
        except queue.Full:
            self.dropped_ticks += 1

    def end(self, session_id: str) -> None:
        """Nothing more comes of this session."""
        self._queue.put((session_id, None, []))

    def stop(self) -> None:
        """Write what waits and close the files."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            session_id, sound, events = entry
            try:
                if sound is None:
                    self._close(session_id)
                else:
                    self._write(session_id, sound, events)
            except (OSError, soundfile.LibsndfileError):
                # A full disk must not end conversations.
                log.exception("recording %s", session_id)
        for session_id in list(self._open):
            self._close(session_id)

    def _write(self, session_id: str, sound: np.ndarray, events: list) -> None:
        if session_id not in self._open:
            self._delete_oldest()
            self._open[session_id] = self._create(session_id)
        recording = self._open[session_id]
        recording.sound.write(sound)
        time_s = round(recording.ticks * TICK_MS / 1000, 2)
        for event in events:
            fields = {"time_s": time_s, **event_fields(event)}
            recording.lines.write(json.dumps(fields, ensure_ascii=False) + "\n")
        recording.ticks += 1

    def _create(self, session_id: str) -> OpenRecording:
        stem = str(self.folder / f"{PREFIX}{session_id}")
        lines = open(stem + ".jsonl", "w", encoding="utf-8")  # noqa: SIM115, closed in _close
        sound = soundfile.SoundFile(stem + ".flac", "w", SAMPLE_RATE, 2, "PCM_16")
        return OpenRecording(sound, lines)

    def _close(self, session_id: str) -> None:
        recording = self._open.pop(session_id, None)
        if recording is not None:
            recording.sound.close()
            recording.lines.close()
            self._delete_oldest()

    def _delete_oldest(self) -> None:
        """Delete finished recordings, the oldest first, until the rest fits."""
        files = [(path, path.stat()) for path in self.folder.glob(PREFIX + "*")]
        surplus = sum(stat.st_size for _, stat in files) - self.limit_bytes
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
            if surplus <= 0:
                return
            if path.stem.removeprefix(PREFIX) in self._open:
                continue
            surplus -= stat.st_size
            path.unlink(missing_ok=True)
