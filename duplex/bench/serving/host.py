"""What a tick costs the host beside the networks, by part: beams, policy, events, and so on.

    duplex bench host --out runs/bench

Sessions hear the recorded questions, each a little after the one before, as fast as it goes; what
their ticks take outside the networks is the work of one thread, and of one session after the other.
So it is counted in seconds of that thread's processor, whatever else the machine does, and told for
256 sessions. The beams are also searched for 256 streams by 1, 2 and more threads, in seconds of
the wall. Leaves host.json in the folder --out.
"""

import gc
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from duplex.audio import TICK_SAMPLES
from duplex.bench.speculation import user_line
from duplex.model import kv_cache
from duplex.model.asr.beam_search import BeamState

NETWORKS = "networks"


class ThreadTimer:
    """Seconds of this thread's processor in each part, without the parts inside of it."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.inside: list[list] = []  # [part, when it went on]
        self.calls = 0  # that were counted
        self.replaced: list[tuple[object, str, object]] = []

    def wrap(self, owner: object, name: str, part: str) -> None:
        """Count what a function of an object takes."""
        function = getattr(owner, name)

        def counted(*args, **options):
            self.switch(part)
            try:
                return function(*args, **options)
            finally:
                self.switch(None)

        self.replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, counted)

    def switch(self, part: str | None) -> None:
        """Go into a part, or out of the innermost one."""
        now = time.thread_time()
        self.calls += part is not None
        if self.inside:
            before, since = self.inside[-1]
            self.seconds[before] = self.seconds.get(before, 0.0) + now - since
        if part is None:
            self.inside.pop()
            if self.inside:
                self.inside[-1][1] = now
        else:
            self.inside.append([part, now])

    def unwrap(self) -> None:
        """Have all functions as they were."""
        for owner, name, before in reversed(self.replaced):
            delattr(owner, name) if before is None else setattr(owner, name, before)


class Nothing:
    """Has a function that does nothing."""

    def work(self) -> None:
        pass


def clock_seconds(calls: int, times: int = 20_000) -> float:
    """What a ThreadTimer itself takes of so many calls that it counts."""
    owner = Nothing()

    def seconds() -> float:
        begun = time.thread_time()
        for _ in range(times):
            owner.work()
        return time.thread_time() - begun

    plain = seconds()
    ThreadTimer().wrap(owner, "work", "work")
    return calls * (seconds() - plain) / times


def parts_of(agent) -> list[tuple[object, str, str]]:
    """(owner, function, part) of a duplex.agent.Agent; what is in none of them is the rest."""
    parts = agent.parts
    found = [
        (agent, "step", "rest"),
        (agent.recognition, "cancel_echo", NETWORKS),
        (agent.recognition, "hear", NETWORKS),
        (agent.recognition, "decode_all", "beams"),
        (agent.recognition, "recognise", "words"),
        (agent.recognition, "know_speaker", "words"),
        (agent, "_read_again", "second readings"),
        (agent.loop, "collect", "inputs"),
        (agent.loop, "begin_budgets", "policy"),
        (agent.loop, "flush_deferred", "policy"),
        (agent.context, "forward", "cells"),
        (agent.context, "score_tree", "cells"),
        (agent.context, "score_ahead", "cells"),
        (kv_cache, "_call", NETWORKS),
        (parts.lm, "project", NETWORKS),
        (parts.lm, "logits", NETWORKS),
        (agent.loop, "draws", "policy"),
        (agent.decoder, "verify", "policy"),
        (agent.decoder, "apply_symbol", "events"),
        (agent.response, "update_pause", "policy"),
        (agent.response, "step", "voice"),
        (agent.response, "report_spoken_words", "events"),
        (agent.response.synthesizer, "plan_tick", "plans"),
        (agent.response.synthesizer.talker.phone_encoder, "forward", NETWORKS),
        (agent.response.synthesizer, "sample", NETWORKS),
        (agent.response.codec_state, "select", "codec's state"),
        (agent.response.codec_state, "assign", "codec's state"),
        (parts.codec, "decode_step", NETWORKS),
    ]
    return [entry for entry in found if hasattr(entry[0], entry[1])]


def run(load: Callable[[int], object], questions: list[np.ndarray], file: Path) -> None:
    """The command; load(slots) makes the agent."""
    agent = load(16)
    found = measure(agent, questions)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(agent, questions: list[np.ndarray], told_for: int = 256, apart_ticks: int = 7) -> dict:
    """The figures of an agent whose slots all talk: ms a tick of `told_for` sessions, by part."""
    slots = agent.slots
    lines = [user_line(questions[slot % 3 :][:2]) for slot in range(slots)]
    for slot in range(slots):
        agent.open(slot, seed=slot)
    frames = kept_frames(agent)
    gc.collect()
    gc.freeze()  # as the engine does, see Engine.start
    timer = ThreadTimer()
    for owner, name, part in parts_of(agent):
        timer.wrap(owner, name, part)
    ticks = min(map(len, lines))
    for tick in range(ticks):
        places = [(tick + apart_ticks * slot) % ticks for slot in range(slots)]
        sound = np.stack([line[place] for line, place in zip(lines, places, strict=True)])
        agent.step(sound.reshape(slots, TICK_SAMPLES), [*range(slots)])
    timer.unwrap()
    gc.unfreeze()
    del agent.recognition.decode_all
    scale = 1000 * told_for / slots / ticks
    by_part = {part: round(seconds * scale, 1) for part, seconds in timer.seconds.items()}
    by_part.pop(NETWORKS, None)
    clocks = scale * clock_seconds(timer.calls)
    return {
        "sessions, ticks played": [slots, ticks],
        f"host ms a tick of {told_for} sessions": round(sum(by_part.values()) - clocks, 1),
        "by part, with the clocks": dict(sorted(by_part.items(), key=lambda one: -one[1])),
        "of these the clocks": round(clocks, 1),
        "beams, ms of the wall by threads": beams(agent.recognition.search, frames, told_for),
    }


def kept_frames(agent) -> list[np.ndarray]:
    """A list to which the agent's recognition adds each tick's frames [B, 4, 1 + phones]."""
    frames: list[np.ndarray] = []
    decode_all = agent.recognition.decode_all

    def keep(sessions, log_probs, events):
        frames.append(np.array(log_probs))
        return decode_all(sessions, log_probs, events)

    agent.recognition.decode_all = keep
    return frames


def beams(search: Callable, frames: list[np.ndarray], streams: int) -> dict[int, float]:
    """Milliseconds a tick of so many streams, by the threads that search: the median tick."""
    found = {}
    ticks = frames[len(frames) // 4 :][:40]
    for threads in (1, 2, 4, 8):
        states = [BeamState() for _ in range(streams)]
        took = []
        with ThreadPoolExecutor(threads) as pool:
            for log_probs in ticks:
                begun = time.perf_counter()
                [*pool.map(search_some, *shared(search, states, log_probs, threads))]
                took.append(time.perf_counter() - begun)
        found[threads] = round(1000 * float(np.median(took)), 1)
    return found


def shared(search: Callable, states: list, log_probs: np.ndarray, threads: int) -> tuple:
    """What each thread gets: the search, its streams, and the frames of each."""
    streams = [states[part::threads] for part in range(threads)]
    numbers = [np.arange(part, len(states), threads) for part in range(threads)]
    frames = [log_probs[some % len(log_probs)] for some in numbers]
    return [search] * threads, streams, frames


def search_some(search: Callable, states: list, frames: np.ndarray) -> None:
    """A tick of some streams."""
    for commit in search.read_all(states, frames):
        if commit is not None:
            commit()
