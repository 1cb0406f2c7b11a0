"""Which mind thinks, by its name on the command line."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from duplex import weights
from duplex.errors import MindError
from duplex.mind.chat_url import ChatURL
from duplex.mind.llama import CACHE_MIB, Llama, be_polite, find_llama
from duplex.mind.thinker import NO_TOOLS, Thinker
from duplex.weights import Weights

# Tokens a second that a mind must read: a word costs one or two, and people speak three words a
# second.
MIN_RATE = 8.0
# What it reads to find out.
TRIAL = "The quick brown fox jumps over the lazy dog. " * 4


@dataclass(frozen=True)
class Mind:
    """A text model that can be fetched."""

    name: str
    title: str
    weights: Weights

    @property
    def memory_mb(self) -> float:
        """What it takes: the file, a conversation, and what is kept of others."""
        return 1.2 * self.weights.megabytes + CACHE_MIB


# The largest first.
MINDS = (
    Mind("large", "Qwen2.5-Coder 1.5B", weights.QWEN_LARGE),
    Mind("medium", "Qwen2.5-Coder 0.5B", weights.QWEN_HALF),
)


def load_thinker(name: str, offline: bool = False) -> Thinker | None:
    """The thinker of this name, at once; None for "small", which is the agent's own LM.

    name: "small", "medium", "large", "auto", a GGUF file, or the URL of an OpenAI-compatible
    server. A model in this process is fetched and loaded in the thinker's thread: until then it is
    not ready, and the agent talks as it can. Raises MindError, WeightsError.
    """
    if name == "small":
        return None
    if name.startswith(("http://", "https://")):
        source = ChatURL(name)
        _tell(source.notice)
        asked_at_once = 8
        return Thinker(source, asked_at_once)
    if name == "auto":
        minds, why = choose(psutil.virtual_memory().available / 1e6, psutil.cpu_count() or 1)
        _tell(why)
        return _begin(minds, offline) if minds else None
    known = [mind for mind in MINDS if mind.name == name]
    if not known and not Path(name).is_file():
        names = "small, medium, large, auto, a GGUF file or URL"
        raise MindError(f"there is no mind {name!r}; give {names}")
    if known:
        return _begin(known, offline)
    source = Llama(lambda: Path(name))
    thinker = Thinker(source, begin=be_polite)
    thinker.prepare(lambda: source.read([], NO_TOOLS, lambda: False))
    return thinker


def choose(free_mb: float, cores: int) -> tuple[list[Mind], str]:
    """The minds that a machine may hold, the largest first, and a sentence that says why."""
    machine = f"{free_mb / 1000:.1f} GB are free and there are {cores} cores"
    if cores < 2:
        return [], f"mind: small, for {machine}: the ticks need one of their own"
    fitting = [mind for mind in MINDS if mind.memory_mb <= free_mb]
    if not fitting:
        return [], f"mind: small, for {machine}: medium takes {MINDS[-1].memory_mb / 1000:.1f} GB"
    first = fitting[0]
    takes = f"{first.title} takes {first.memory_mb / 1000:.1f} GB"
    return fitting, f"mind: {first.name}, for {machine}; {takes}, if it is fast enough here"


def _begin(minds: list[Mind], offline: bool) -> Thinker:
    """A thinker with the first of these minds, or with the next where that one is too slow."""
    # Nothing is fetched where it could not be used.
    llama = find_llama()
    for mind in minds[:1]:
        # What cannot be had is told before anything begins.
        if offline:
            weights.folder(mind.weights, offline)
        elif not weights.place(mind.weights).is_dir():
            _tell(f"mind: the small one talks until {mind.title} is here")
    thinker = Thinker(None, begin=be_polite)
    thinker.prepare(lambda: _settle(thinker, minds, offline, llama))
    return thinker


def _settle(thinker: Thinker, minds: list[Mind], offline: bool, llama) -> None:
    """Fetch, load and try minds until one is fast enough; the last is taken as it is."""
    for mind in minds:
        source = Llama(lambda mind=mind: _gguf(mind, offline), llama=llama)
        rate = reading_rate(source)
        if rate >= MIN_RATE or mind is minds[-1]:
            break
        _tell(f"mind: {mind.name} reads {rate:.0f} tokens a second here, too few; a smaller one")
    thinker.source = source
    slow = "" if rate >= MIN_RATE else ", slower than people speak: its answers will be late"
    _tell(f"mind: {mind.name} ({mind.title}) thinks from now on; {rate:.0f} tokens a second{slow}")


def reading_rate(source: Llama, now: Callable[[], float] = time.perf_counter) -> float:
    """Tokens a second that it reads, once it is loaded."""
    source.read([], NO_TOOLS, lambda: False)
    begun = now()
    source.read([{"role": "user", "content": TRIAL}], NO_TOOLS, lambda: False)
    # A word of the trial is a token of all the models here, and so are its stops.
    return (len(TRIAL.split()) + TRIAL.count(".")) / (now() - begun)


def _gguf(mind: Mind, offline: bool) -> Path:
    return next(weights.folder(mind.weights, offline).glob("*.gguf"))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
