"""Who gets the next place when all are taken: a line, an estimate, a refusal. No sockets, no clock.

Whoever waits holds a ticket and asks again with it. Places go to those who came first; a ticket
that nobody asks with is given up.
"""

import secrets
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class LineConfig:
    """Bounds of the line."""

    # Who may wait at once; one more is refused.
    max_waiting: int = 100
    # Seconds that one waits at most.
    patience_s: float = 120.0
    # Seconds after which one who waits is to ask again.
    retry_s: float = 2.0
    # Seconds without asking after which a ticket is given up.
    absence_s: float = 10.0
    # Seconds of the past from which waits are estimated.
    memory_s: float = 600.0


@dataclass(frozen=True)
class Waits:
    """A place in the line, from 1; seconds until its turn, None where nothing tells."""

    ticket: str
    place: int
    wait_s: int | None


@dataclass
class Ticket:
    """Of one who waits: when it came and when it last asked."""

    came_at: float
    asked_at: float


class Line:
    """Those who wait, first come first."""

    def __init__(self, config: LineConfig | None = None, now: float = 0.0):
        """now: seconds since some beginning, as in all calls."""
        self.config = config or LineConfig()
        self.refused = 0
        self._tickets: dict[str, Ticket] = {}
        self._began_at = now
        # When sessions ended anywhere.
        self._ends: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def note_ends(self, number: int, now: float) -> None:
        """So many sessions have ended since the last call."""
        self._ends.extend([now] * number)
        while self._ends and self._ends[0] < now - self.config.memory_s:
            self._ends.popleft()

    def ask(self, ticket: str, room: int, now: float) -> Waits | str | None:
        """None: there is a place, take it; or where one waits; or why one is refused.

        ticket: empty for who comes anew. room: places that are free everywhere.
        """
        self._forget(now)
        waiting = self._tickets.get(ticket)
        ahead = list(self._tickets).index(ticket) if waiting else len(self._tickets)
        if ahead < room:
            self._tickets.pop(ticket, None)
            return None
        if waiting is None and ahead >= self.config.max_waiting:
            self.refused += 1
            others = f" and {ahead} wait already" if ahead else ""
            return f"all places are taken{others}; try again later"
        if waiting and now - waiting.came_at > self.config.patience_s:
            del self._tickets[ticket]
            self.refused += 1
            return f"no place came free within {self.config.patience_s:g} s; try again later"
        if waiting is None:
            ticket = secrets.token_urlsafe(12)
            waiting = self._tickets.setdefault(ticket, Ticket(now, now))
        waiting.asked_at = now
        return Waits(ticket, ahead + 1, self._wait_s(ahead + 1 - room, now))

    def give_back(self, ticket: str, now: float) -> None:
        """The place that `ask` promised is none: stand in front again."""
        self._tickets = {ticket: Ticket(now, now), **self._tickets}

    def _wait_s(self, needed: int, now: float) -> int | None:
        """Seconds until so many places come free, if sessions end as they did."""
        if not self._ends:
            return None
        seen_s = min(max(now - self._began_at, 1.0), self.config.memory_s)
        return round(needed * seen_s / len(self._ends))

    def _forget(self, now: float) -> None:
        oldest = now - self.config.absence_s
        self._tickets = {k: v for k, v in self._tickets.items() if v.asked_at >= oldest}
