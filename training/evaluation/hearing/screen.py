"""What stands on the screen while somebody speaks, a second after each word.

    python -m duplex.training.evaluate screen --data DATA --clips 20 --out runs/evaluation

Clips are those of the largest source that no training has seen; when each word ends is known by
forced alignment. A second later the words up to it are compared with what is shown by then; newer
words, which may be shown as well, are not counted. Columns, of one run of the agent:

- `first pass`: the words as they were recognised one by one,
- `shown`: with the readings of the turn so far, and of all of it, in their place,
- `agreed`: what two readings in a row agree on, which a large mind may read in advance.
"""

import argparse
from collections.abc import Generator

import numpy as np

from duplex import weights
from duplex.agent import load_agent
from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.training.data.forced_alignment import forced_align
from duplex.training.data.normalize import word_errors
from duplex.training.evaluation.hearing import clip_sets
from duplex.training.evaluation.hearing.clip_sets import LEAD_TICKS, Clip, ClipSet
from duplex.training.evaluation.hearing.normal_form import normal_form
from duplex.training.evaluation.intervals import Score, interval, rate
from duplex.training.evaluation.play import Tick, in_ticks, play, tick_at
from duplex.training.scenes.recognition import load_recognizer
from duplex.transcript import Transcript

COLUMNS = ("first pass", "shown", "agreed")


def watch(agent, slot: int, wave: np.ndarray, after_ticks: int) -> Generator:
    """A script: plays a clip, float32 [N], and returns what each column shows after each tick."""
    sound = in_ticks(np.pad(wave, (LEAD_TICKS * TICK_SAMPLES, 0)))
    transcript = Transcript()
    heard = ""
    ended = ""
    found = []
    for tick in range(len(sound) + after_ticks):
        done: Tick = yield tick_at(sound, tick)
        for event in done.events:
            transcript.read(event)
            heard += event.text if event.kind == "heard" else ""
            if event.kind == "user_ended":
                ended = transcript.user_text
        turns = transcript.turns("user")
        shown = [turn.partial or turn.text for turn in turns]
        agreed = f"{ended} {agent.sessions[slot].user.second.agreed_text}"
        found.append((heard, " ".join(shown), agreed))
    return found


def prefix_errors(wanted: str, shown: str) -> int:
    """Word errors of the best beginning of what is shown."""
    words = shown.split()
    longest = 2 * len(wanted.split()) + 2
    ends = range(min(len(words), longest) + 1)
    return min(word_errors(wanted, " ".join(words[:end])) for end in ends)


def score(clip: Clip, ends_s: list[float], shown: list[str], delay_s: float) -> Score:
    """Word errors and words, summed over the moments delay_s after the end of each word.

    shown: after each tick of the clip, which begins LEAD_TICKS late.
    """
    words = clip.text.split()
    errors = 0
    count = 0
    for number, end_s in enumerate(ends_s, 1):
        wanted = normal_form(" ".join(words[:number]))
        tick = LEAD_TICKS + round((end_s + delay_s) / TICK_S)
        text = shown[min(tick, len(shown)) - 1]
        errors += prefix_errors(wanted, normal_form(text))
        count += len(wanted.split())
    return errors, count


def unseen_set(args: argparse.Namespace) -> ClipSet:
    """Clips of the largest source that was not trained on."""
    from duplex.training.evaluation.hearing.by_source import known_sources

    known = known_sources((args.agent or weights.DEFAULT_AGENT) / "encoder", [])
    sets = clip_sets.recorded_sets(args.data, known, args.clips)
    return next(one for one in sets if not clip_sets.is_known(one.source, known))


def evaluate_screen(args: argparse.Namespace, delay_s: float = 1.0) -> dict:
    """`evaluate screen`."""
    folder = args.agent or weights.DEFAULT_AGENT
    recognizer = load_recognizer(folder / "encoder", folder / "lexicon")
    one = unseen_set(args)
    clips = one.load()
    agent = load_agent(args.agent, slots=4)
    after_ticks = round(delay_s / TICK_S) + 1
    scripts = [lambda slot, clip=clip: watch(agent, slot, clip.wave, after_ticks) for clip in clips]
    scores: dict[str, list[Score]] = {name: [] for name in COLUMNS}
    for clip, shown in zip(clips, play(agent, scripts), strict=True):
        aligned = forced_align(clip.wave, clip.text, recognizer.encoder)
        ends_s = [end for _, _, end in aligned]
        for name, texts in zip(COLUMNS, zip(*shown, strict=True), strict=True):
            scores[name].append(score(clip, ends_s, texts, delay_s))
    return {
        "source": one.name,
        "clips": len(clips),
        "WER, %": {
            name: [round(100 * value, 1) for value in (rate(found), *interval(found))]
            for name, found in scores.items()
        },
    }
