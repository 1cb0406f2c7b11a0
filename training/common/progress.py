"""A run's bar: it moves from the first second on; in a file it is a line every half minute.

42 %|████▏     | step 130, loss 1.61, 24.1 min left
"""

import sys
import time

from tqdm import tqdm


def counter(items, what: str, total: int | None = None):
    """The items, counted on the standard error while they are gone through."""
    return tqdm(items, what, total, unit="", file=sys.stderr, mininterval=seconds_between())


def seconds_between() -> float:
    """Seconds between two states of a bar."""
    return 0.2 if sys.stderr.isatty() else 30.0


class RunBar:
    """How much of a run is done, its step, its loss and the minutes left."""

    def __init__(self, done: float):
        """done: share of the run that lies behind."""
        form = "{l_bar}{bar}| {postfix}" if sys.stderr.isatty() else "{l_bar} {postfix}"
        self.bar = tqdm(
            total=1.0,
            initial=min(1.0, done),
            bar_format=form,
            file=sys.stderr,
            mininterval=seconds_between(),
        )
        self.bar.set_postfix_str("measuring before the first step")
        self.first_done = done
        self.begun = time.monotonic()
        self.loss: float | None = None

    def show(self, done: float, step: int, loss: float) -> None:
        """A step is done, with this loss."""
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss
        passed = max(1e-9, done - self.first_done)
        left = (time.monotonic() - self.begun) / 60 * max(0.0, 1 - done) / passed
        text = f"step {step}, loss {self.loss:.2f}, {left:.1f} min left"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(min(1.0, done) - self.bar.n)

    def close(self) -> None:
        """The bar stays as it is."""
        self.bar.close()
