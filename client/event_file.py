"""Events for the agent to speak of, in a file: one JSON object a line.

{"time_s": 12.5, "text": "Goal for Norway, two to one."}
"""

import json
from dataclasses import dataclass
from pathlib import Path

from duplex.errors import ClientError


@dataclass(frozen=True)
class TimedText:
    """What happens so many seconds after the conversation has begun."""

    time_s: float
    text: str


def load_events(path: Path) -> list[TimedText]:
    """The events of a file, by time. Raises ClientError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"cannot read {path} ({error})") from error
    return sorted(
        (_event(path, number, line) for number, line in enumerate(lines, 1) if line.strip()),
        key=lambda event: event.time_s,
    )


def _event(path: Path, number: int, line: str) -> TimedText:
    try:
        fields = json.loads(line)
        event = TimedText(float(fields["time_s"]), fields["text"])
        if event.time_s >= 0 and isinstance(event.text, str) and event.text.strip():
            return event
    except (ValueError, KeyError, TypeError):
        pass
    raise ClientError(f'{path}, line {number}: an event is {{"time_s": SECONDS, "text": "..."}}')
