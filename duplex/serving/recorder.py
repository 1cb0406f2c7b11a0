"""Keeps conversations, when the server is asked to: per session a stereo FLAC (the user left) and its events as JSON lines.

The model thread only queues; files are written in a thread of their own, and what that cannot keep up with is dropped and
counted. The oldest recordings are deleted so that the folder never holds more than `limit_bytes` of them.
"""

import json
import logging
import queue
import threading
from pathlib import Path

import numpy as np
import soundfile

from duplex.audio import SAMPLE_RATE, TICK_MS
from duplex.serving.native import event_fields

log = logging.getLogger(__name__)

PREFIX = "session-"  # only files with this name are ever deleted
WAITING_TICKS = 1000  # twenty seconds of four sessions


class Recorder:
    def __init__(self, folder: Path, limit_bytes: int):
        """Makes the folder. OSError: it cannot be."""
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.dropped_ticks = 0
        self._open: dict[
            str, tuple[soundfile.SoundFile, object, int]
        ] = {}  # by session: sound, lines, ticks
        self._queue: queue.Queue = queue.Queue(WAITING_TICKS)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def tick(self, session_id: str, heard: np.ndarray, played: np.ndarray, events: list) -> None:
        """One tick of both sides, float32 [1920] each."""
        try:
            self._queue.put_nowait((session_id, np.stack([heard, played], axis=1), list(events)))
        except queue.Full:
            self.dropped_ticks += 1

    def end(self, session_id: str) -> None:
        self._queue.put((session_id, None, []))

    def stop(self) -> None:
        """Writes what waits and closes the files."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            try:
                self._write(*entry)
            except (OSError, soundfile.LibsndfileError):
                log.exception("recording %s", entry[0])  # a full disk must not end conversations
        for session_id in list(self._open):
            self._close(session_id)

    def _write(self, session_id: str, sound: np.ndarray | None, events: list) -> None:
        if sound is None:
            if session_id in self._open:
                self._close(session_id)
            return
        if session_id not in self._open:
            self._delete_oldest()
            stem = str(self.folder / f"{PREFIX}{session_id}")
            lines = open(stem + ".jsonl", "w", encoding="utf-8")  # noqa: SIM115, closed in _close
            self._open[session_id] = (
                soundfile.SoundFile(stem + ".flac", "w", SAMPLE_RATE, 2, "PCM_16"),
                lines,
                0,
            )
        flac, lines, ticks = self._open[session_id]
        flac.write(sound)
        for event in events:
            lines.write(
                json.dumps(
                    {"time_s": round(ticks * TICK_MS / 1000, 2), **event_fields(event)},
                    ensure_ascii=False,
                )
                + "\n"
            )
        self._open[session_id] = (flac, lines, ticks + 1)

    def _close(self, session_id: str) -> None:
        flac, lines, _ = self._open.pop(session_id)
        flac.close()
        lines.close()
        self._delete_oldest()

    def _delete_oldest(self) -> None:
        kept = [
            path
            for path in self.folder.glob(PREFIX + "*")
            if path.stem.removeprefix(PREFIX) not in self._open
        ]
        kept.sort(key=lambda path: path.stat().st_mtime)
        surplus = (
            sum(path.stat().st_size for path in self.folder.glob(PREFIX + "*")) - self.limit_bytes
        )
        for path in kept:
            if surplus <= 0:
                return
            surplus -= path.stat().st_size
            path.unlink(missing_ok=True)
