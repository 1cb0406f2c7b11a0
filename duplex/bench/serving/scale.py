"""A simulated day of many servers: how many run, who waits, who is refused, what it costs.

    python -m duplex.bench.serving.scale --places 12 --price 0.10

places: sessions that one server holds, as `duplex bench load` measured it. price: of its hour.
Nothing is measured here: users come by chance (Poisson), ten times as often in the busiest hour as
in the quietest, and, in the rows with a rush, ten times as often as that again for ten minutes.
Servers are chosen, waited for, added and drained by the rules of duplex.serving.scale and of its
manifest for Kubernetes.
"""

import argparse
import heapq
import math
import random
from dataclasses import dataclass, field

import numpy as np

DAY_S = 86_400


@dataclass(frozen=True)
class Day:
    """Who comes, and how servers are added."""

    minutes: float  # talked, all together, if all find a place and nobody rushes
    places: int  # of a server
    rush: float = 1.0  # times as many come in the ten minutes after noon
    mean_s: float = 300.0  # of a talk
    longest_s: float = 3600.0
    swing: float = 10.0  # the busiest hour's arrivals in those of the quietest
    # The autoscaler, as in kubernetes.yaml.
    taken_share: float = 0.75
    least: int = 2
    most: int = 10_000
    look_s: float = 15.0
    quiet_s: float = 600.0
    start_s: float = 120.0
    # The line, as in duplex.serving.scale.waiting.
    patience_s: float = 120.0
    max_waiting: int = 100
    seed: int = 0


@dataclass
class Server:
    """One that runs; it takes sessions from ready_at until it drains."""

    ready_at: float
    taken: int = 0
    is_draining: bool = False


@dataclass
class Found:
    """What came of a day."""

    came: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)
    talked_s: float = 0.0
    server_s: float = 0.0
    most_servers: int = 0


def rate(day: Day, at: float) -> float:
    """Arrivals a second: a sine over the day, quietest at three in the night."""
    low = 2 / (1 + day.swing)  # of the mean
    wave = 1 - (1 - low) * math.cos(2 * math.pi * (at / DAY_S - 0.125))
    is_rush = 0.5 <= at / DAY_S < 0.5 + 600 / DAY_S
    return day.minutes * 60 / day.mean_s / DAY_S * wave * (day.rush if is_rush else 1.0)


def arrivals(day: Day, chance: random.Random) -> list[tuple[float, float]]:
    """When each comes, and how long it would talk."""
    highest = max(rate(day, at) for at in range(0, DAY_S, 60))
    found = []
    at = 0.0
    while (at := at + chance.expovariate(highest)) < DAY_S:
        if chance.random() * highest < rate(day, at):
            length = chance.lognormvariate(math.log(day.mean_s) - 0.5, 1.0)
            found.append((at, min(length, day.longest_s)))
    return found


class Fleet:
    """All servers of a day, moved on from event to event."""

    def __init__(self, day: Day):
        self.day = day
        self.found = Found()
        first = rate(day, 0.0) * day.mean_s / day.places / day.taken_share
        self.servers = [Server(0.0) for _ in range(max(day.least, math.ceil(first)))]
        self._line: list[tuple[float, float]] = []  # when each came, and how long it would talk
        self._wanted: list[tuple[float, int]] = []

    def come(self, now: float, length: float, ends: list) -> None:
        """Somebody comes: a place, the line or a refusal."""
        self.found.came += 1
        if not self._line and self._place(now, now, length, ends):
            return
        if len(self._line) < self.day.max_waiting:
            self._line.append((now, length))
        else:
            self.found.refused += 1

    def serve_line(self, now: float, ends: list) -> None:
        """Places to those who came first; who has waited too long is refused."""
        while self._line:
            came, length = self._line[0]
            is_over = now - came > self.day.patience_s
            if not is_over and not self._place(now, came, length, ends):
                return
            self.found.refused += is_over
            self._line.pop(0)

    def end(self, server: Server) -> None:
        """A session is over."""
        server.taken -= 1

    def look(self, now: float) -> None:
        """What the autoscaler does: up at once, down by one a minute after quiet_s."""
        day = self.day
        kept = [server for server in self.servers if not server.is_draining]
        talking = sum(server.taken for server in kept) + len(self._line)
        wanted = math.ceil(talking / (day.taken_share * day.places))
        self._wanted.append((now, min(max(wanted, day.least), day.most)))
        while self._wanted[0][0] < now - day.quiet_s:
            self._wanted.pop(0)
        wanted = max(number for _, number in self._wanted)
        for _ in range(wanted - len(kept)):
            self.servers.append(Server(now + day.start_s))
        if wanted < len(kept) and now % 60 < day.look_s:
            min(kept, key=lambda server: server.taken).is_draining = True
        self.servers = [s for s in self.servers if s.taken or not s.is_draining]
        self.found.server_s += len(self.servers) * day.look_s
        self.found.most_servers = max(self.found.most_servers, len(self.servers))

    def _place(self, now: float, came: float, length: float, ends: list) -> bool:
        ready = (s for s in self.servers if s.ready_at <= now and not s.is_draining)
        server = min(ready, key=lambda server: server.taken, default=None)
        if server is None or server.taken >= self.day.places:
            return False
        server.taken += 1
        self.found.waits.append(now - came)
        self.found.talked_s += length
        heapq.heappush(ends, (now + length, id(server), server))
        return True


def simulate(day: Day) -> Found:
    """The day from midnight to midnight, and on until nobody talks."""
    fleet = Fleet(day)
    ends: list[tuple[float, int, Server]] = []
    coming = arrivals(day, random.Random(day.seed))[::-1]
    look_at = 0.0
    while coming or ends or look_at < DAY_S:
        come_at = coming[-1][0] if coming else math.inf
        end_at = ends[0][0] if ends else math.inf
        now = min(come_at, end_at, look_at)
        if now == end_at:
            fleet.end(heapq.heappop(ends)[2])
        elif now == come_at:
            fleet.come(*coming.pop(), ends)
        else:
            fleet.look(now)
            look_at += day.look_s
        fleet.serve_line(now, ends)
    return fleet.found


def row(day: Day, found: Found, price: float) -> str:
    """A line of the table."""
    waits = np.array(found.waits or [0.0])
    minutes = found.talked_s / 60
    hours = found.server_s / 3600
    cells = [
        f"{day.minutes:,.0f}".replace(",", " ") + (f", rush {day.rush:g}" if day.rush > 1 else ""),
        f"{found.came:,}".replace(",", " "),
        f"{hours / 24:.1f}; {found.most_servers}",
        f"{minutes / (hours * 60 * day.places):.2f}",
        f"{100 * np.mean(waits > 0):.2f} %; {np.quantile(waits, 0.99):.0f} s; {waits.max():.0f} s",
        f"{100 * found.refused / max(1, found.came):.2f} %",
        f"{price * hours:,.0f}".replace(",", " ") + f"; {1000 * price * hours / minutes:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--places", type=int, default=12, help="sessions of a server (default %(default)s)")
    add("--price", type=float, default=0.10, help="of a server's hour (default %(default)s)")
    add("--minutes", type=float, nargs="+", default=[10_000, 1_000_000], help="talked a day")
    add("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    titles = ("minutes", "came", "servers, mean; most", "places taken", "waited; p99; longest")
    print(f"| {' | '.join((*titles, 'refused', 'price; of 1000 minutes'))} |")
    print("|---" * 7 + "|")
    for minutes in args.minutes:
        for rush in (1.0, 10.0):
            day = Day(minutes, args.places, rush, seed=args.seed)
            print(row(day, simulate(day), args.price), flush=True)


if __name__ == "__main__":
    main()
