"""What a hop before a server costs: questions and answers over websockets, by turns.

    python -m duplex.bench.serving.hop ws://127.0.0.1:8765 ws://127.0.0.1:8000

The first URL is the server itself, the others lead to it by way of something. A question is a
session.update of OpenAI's dialect, which the server answers at once, without the model; there and
back, what is in between is passed twice.
"""

import argparse
import asyncio
import json
import time

import numpy as np
from websockets.asyncio.client import connect

from duplex.serving.openai.realtime import PATH

QUESTION = json.dumps({"type": "session.update", "session": {"type": "realtime"}})


async def ask(connection) -> float:
    """Milliseconds from a question to its answer."""
    began = time.perf_counter()
    await connection.send(QUESTION)
    while json.loads(await connection.recv())["type"] != "session.updated":
        pass
    return 1000 * (time.perf_counter() - began)


async def measure(urls: list[str], rounds: int, pause_s: float) -> np.ndarray:
    """Milliseconds [rounds, ways]: each round asks every way, one after the other."""
    connections = [await connect(url + PATH, compression=None) for url in urls]
    times = np.zeros((rounds, len(urls)))
    for number in range(rounds):
        for way, connection in enumerate(connections):
            times[number, way] = await ask(connection)
            await asyncio.sleep(pause_s)
    for connection in connections:
        await connection.close()
    return times


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--rounds", type=int, default=1000, help="(default %(default)s)")
    parser.add_argument(
        "--pause", type=float, default=0.01, help="seconds after each answer (default %(default)s)"
    )
    args = parser.parse_args(arguments)
    times = asyncio.run(measure(args.urls, args.rounds, args.pause))
    print("ms there and back: p50, p90, p99, and p50 of the difference to the first")
    for way, url in enumerate(args.urls):
        quantiles = np.quantile(times[:, way], [0.5, 0.9, 0.99])
        more = np.median(times[:, way] - times[:, 0])
        print(f"{url}: {', '.join(f'{value:.2f}' for value in quantiles)}; {more:+.2f}")


if __name__ == "__main__":
    main()
