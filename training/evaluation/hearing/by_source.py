"""Measure hearing by source: what the agent has read of clips, beside Whisper tiny.en offline.

    python -m duplex.training.evaluate hearing --data DATA --kokoro package/voices \\
        --out runs/evaluation
    python -m duplex.training.evaluate hearing --data DATA --encoder runs/encoder   its recogniser
    python -m duplex.training.evaluate hearing --plot runs/encoder/log.jsonl          a curve

A measure of hearing is taken on sources, not only on speakers, that no training has seen. Which
sources the weights were trained on, the encoder's folder tells (duplex.training.data.provenance),
or `--known SOURCE`, a part of a source's name, repeatable. Of those the test speakers are measured,
in a table of their own.

Columns are whole systems on the same sound:

- `first pass`: what the agent's LM has read at the end of the turn, without a second pass; with
  --encoder the best hypothesis of recogniser and lexicon, since the LM knows one encoder only,
- `second pass (NAME)`: the same agent when Whisper NAME reads turns again (--second-pass),
- `whole clips (NAME)`: what the second pass by itself reads of the whole clip,
- `tiny.en`: Whisper tiny.en, offline, of the whole clip; what it heard stays in OUT/tiny.en.jsonl.

All that is compared goes through normal_form.py beside this. In brackets is what 95 % of draws of
as many clips give (bootstrap). OUT/hearing.json has the tables, OUT/hearing-clips.json what was
heard of every clip. Started again with the same arguments it goes on where it stopped.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from duplex import weights
from duplex.agent import load_agent
from duplex.agent.loader import LoadOptions, load_second_pass
from duplex.bench.recognizer import Whisper
from duplex.training.data.normalize import word_errors
from duplex.training.data.provenance import trained_on
from duplex.training.evaluation.hearing import clip_sets
from duplex.training.evaluation.hearing.clip_sets import ClipSet
from duplex.training.evaluation.hearing.listeners import (
    Listener,
    Remembered,
    agent_listener,
    clip_listener,
    read_clip,
    transcribe,
)
from duplex.training.evaluation.hearing.normal_form import characters, normal_form, recalled
from duplex.training.evaluation.hearing.spoken_items import spoken_sets
from duplex.training.evaluation.hearing.stream import as_served, long_run, tick_times
from duplex.training.evaluation.intervals import Score, interval, rate
from duplex.training.scenes.recognition import SpeechRecognizer, load_recognizer

# Sessions of the agent side by side.
SLOTS = 8


@dataclass(frozen=True)
class Entry:
    """One clip and what one listener made of it, as it is kept."""

    text: str
    seconds: float
    heard: str
    is_answered: bool | None  # None: whoever heard it answers nobody


@dataclass(frozen=True)
class Measure:
    """What is counted of a clip, and how its rate is shown: times `scale`, with `unit`."""

    unit: str
    score: Callable[[Entry], Score | None]
    scale: float = 100.0


def count_errors(entry: Entry) -> Score:
    """Word errors, and words."""
    wanted = normal_form(entry.text)
    return word_errors(wanted, normal_form(entry.heard)), len(wanted.split())


def count_right(entry: Entry) -> Score:
    """Whether all words are right."""
    return normal_form(entry.text) == normal_form(entry.heard), 1


def count_spelled(entry: Entry) -> Score:
    """Whether all letters and digits are right."""
    return characters(entry.text) == characters(entry.heard), 1


def count_characters(entry: Entry) -> Score:
    """Letters and digits that are right: those wanted less the errors, at least none."""
    wanted, heard = (" ".join(characters(text)) for text in (entry.text, entry.heard))
    length = len(wanted.split())
    return max(0, length - word_errors(wanted, heard)), length


def count_first_word(entry: Entry) -> Score:
    """Whether the first word is right."""
    wanted, heard = (normal_form(text).split()[:1] for text in (entry.text, entry.heard))
    return wanted == heard, 1


def count_invented(entry: Entry) -> Score:
    """Words, and minutes."""
    return len(normal_form(entry.heard).split()), entry.seconds / 60


def count_answered(entry: Entry) -> Score | None:
    """Whether the agent began to speak."""
    return None if entry.is_answered is None else (entry.is_answered, 1)


WER = Measure("WER, %", count_errors)
RIGHT = Measure("right, %", count_right)
INVENTED = [
    Measure("words a minute", count_invented, 1.0),
    Measure("stretches answered, %", count_answered),
]
# By the last words of a set's name; all others are measured by word error rate.
MEASURES = {
    "orders": [Measure("words recalled, %", lambda entry: recalled(entry.text, entry.heard))],
    "digits": [
        Measure("strings right, %", count_spelled),
        Measure("digits right, %", count_characters),
    ],
    "spelled": [
        Measure("right, %", count_spelled),
        Measure("letters right, %", count_characters),
    ],
    "e-mail addresses": [Measure("right, %", count_spelled)],
    "single words": [RIGHT],
    "questions, far field": [RIGHT, WER],
    "questions, 100 ms lost a second": [RIGHT, WER],
    "questions from the first sample on": [
        RIGHT,
        WER,
        Measure("first words right, %", count_first_word),
    ],
    "noise, tones, music, silence": INVENTED,
    "mu-law read as 16-bit samples": INVENTED,
    "television, 15 dB below a talker": INVENTED,
}
TINY = "tiny.en"
GROUPS = {
    "unseen": "Sources that no training has seen",
    "known": "Known sources, speakers and voices that no training has heard",
    "nobody": "Nobody speaks to it",
}


def measures_of(name: str) -> list[Measure]:
    """What is counted of the clips of a set."""
    return next((found for end, found in MEASURES.items() if name.endswith(end)), [WER])


def cell(measure: Measure, entries: list[Entry]) -> list[float] | None:
    """The rate of some clips and the ends of its interval, as they are shown; None: not counted."""
    scores = [score for entry in entries if (score := measure.score(entry)) is not None]
    if not scores:
        return None
    return [round(measure.scale * value, 2) for value in (rate(scores), *interval(scores))]


def group_of(source: str, known: list[str]) -> str:
    """The table that a source stands in."""
    if source == "noise":
        return "nobody"
    return "known" if clip_sets.is_known(source, known) else "unseen"


def rows_of(name: str, heard: dict[str, list[Entry]], group: str) -> list[dict]:
    """The rows of one set, from what was heard of it by column: a row for each of its measures."""
    return [
        {
            "group": group,
            "source": name,
            "measure": measure.unit,
            "clips": len(next(iter(heard.values()))),
            "figures": {column: cell(measure, entries) for column, entries in heard.items()},
        }
        for measure in measures_of(name)
    ]


def markdown(rows: list[dict]) -> str:
    """The rows as one table a group, intervals in brackets."""
    columns = list(dict.fromkeys(column for row in rows for column in row["figures"]))
    lines = []
    for group, heading in GROUPS.items():
        if not (found := [row for row in rows if row["group"] == group]):
            continue
        lines += ["", f"| {heading} | | clips | {' | '.join(columns)} |"]
        lines.append("|---" * (3 + len(columns)) + "|")
        for row in found:
            cells = [shown(row["figures"][column]) for column in columns]
            head = f"| {row['source']} | {row['measure']} | {row['clips']} |"
            lines.append(f"{head} {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def shown(figures: list[float] | None) -> str:
    """ "12.3 (9.1 to 15.7)"; a dash where there is no figure."""
    if figures is None:
        return "–"
    value, low, high = figures
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


class Results:
    """Named measures in a file; those that an interrupted run has done are not done again."""

    def __init__(self, path: Path, setting: dict):
        """setting: what the measures hang on; those of another setting are forgotten."""
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self.found = found if found.get("setting") == setting else {"setting": setting}

    def measure(self, name: str, work: Callable, *what) -> None:
        """Do work(*what), unless that has been done, and keep what it gives."""
        if name not in self.found:
            self.found[name] = work(*what)
            self.path.write_text(json.dumps(self.found, indent=1) + "\n")
            print(name, flush=True)


def digest(folder: Path) -> str:
    """Of all weights in a folder."""
    files = sorted(folder.rglob("model.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def known_sources(encoder: Path, named: list[str]) -> list[str]:
    """The sources trained on: those that the encoder's folder tells, and those named besides.

    Raises SystemExit where there are none: a measure that calls all sources unseen may be wrong.
    """
    found = [*(trained_on(encoder) or []), *named]
    if not found:
        raise SystemExit(f"{encoder} does not tell what it was trained on: name it with --known")
    return found


def all_sets(args: argparse.Namespace, known: list[str]) -> list[ClipSet]:
    """What is measured; with --row only the sets whose names are like one of these patterns."""
    sets = [
        *clip_sets.recorded_sets(args.data, known, args.clips),
        *clip_sets.order_sets(args.data, args.clips),
        *spoken_sets(args.out / "spoken", args.kokoro, args.clips, args.seed),
        *clip_sets.disturbed_sets(args.data, known, args.clips, args.seed),
        *clip_sets.wordless_sets(args.data, known, args.minutes, args.seed),
    ]
    return [
        one for one in sets if not args.row or any(fnmatch(one.name, like) for like in args.row)
    ]


def open_columns(
    args: argparse.Namespace, recognizer: SpeechRecognizer
) -> dict[str, Callable[[], Listener]]:
    """The listeners by their columns, each opened when it is needed."""

    def agent(**options) -> Listener:
        return agent_listener(load_agent(args.agent, slots=SLOTS, **options))

    def tiny() -> Listener:
        whisper = Whisper(weights.whisper_tiny(), args.threads)
        return clip_listener(Remembered(args.out / f"{TINY}.jsonl", whisper.text).transcribe)

    def whole_clips() -> Listener:
        whisper = load_second_pass(LoadOptions(second_pass=args.second_pass))
        return clip_listener(partial(read_clip, whisper))

    if args.encoder:
        alone = {"first pass": lambda: clip_listener(partial(transcribe, recognizer))}
        columns = alone | {TINY: tiny}
    else:
        columns = {
            "first pass": partial(agent, second_pass="off"),
            f"second pass ({args.second_pass})": partial(agent, second_pass=args.second_pass),
            f"whole clips ({args.second_pass})": whole_clips,
            TINY: tiny,
        }
    return {
        name: found
        for name, found in columns.items()
        if not args.column or any(fnmatch(name, like) for like in args.column)
    }


def hear(listener: Listener, one: ClipSet) -> list[dict]:
    """What a listener hears of a set, as Entry's fields."""
    clips = one.load()
    found = listener([clip.wave for clip in clips], one.lead_ticks)
    return [
        asdict(Entry(clip.text, round(clip_sets.seconds(clip), 2), heard.text, heard.is_answered))
        for clip, heard in zip(clips, found, strict=True)
    ]


def evaluate_hearing(args: argparse.Namespace) -> dict:
    """`evaluate hearing`."""
    if not args.data:
        raise SystemExit("hearing needs --data, the folder of recordings")
    folder = args.agent or weights.DEFAULT_AGENT
    encoder = args.encoder or folder / "encoder"
    known = known_sources(encoder, args.known)
    recognizer = load_recognizer(encoder, folder / "lexicon")
    sets = all_sets(args, known)
    setting = {key: getattr(args, key) for key in ("clips", "minutes", "seed")}
    setting |= {"weights": digest(args.encoder or folder), "known": known}
    setting["voices"] = "all" if args.kokoro else "Japanese"
    results = Results(args.out / f"{args.result.stem}-clips.json", setting)

    columns = open_columns(args, recognizer)
    listeners: dict[str, Listener] = {}
    rows = []
    for one in sets:
        for column in columns:
            if f"{one.name} | {column}" not in results.found:
                if column not in listeners:
                    listeners[column] = columns[column]()
                results.measure(f"{one.name} | {column}", hear, listeners[column], one)
        heard = {
            column: [Entry(**entry) for entry in results.found[f"{one.name} | {column}"]]
            for column in columns
        }
        rows += rows_of(one.name, heard, group_of(one.source, known))
    print(markdown(rows), flush=True)
    return {"setting": setting, "rows": rows, "stream": stream(args, results, recognizer)}


def stream(args: argparse.Namespace, results: Results, recognizer: SpeechRecognizer) -> dict:
    """What the recogniser costs as it is served, and whether it holds out; not with --row."""
    if args.row:
        return {}
    served = as_served(recognizer)
    names = []
    for slots in (1, SLOTS):
        names.append(f"ms a tick of features, encoder and lexicon, batch {slots}: median, p99, CPU")
        results.measure(names[-1], tick_times, served, slots)
    recorded = clip_sets.recorded_sets(args.data, results.found["setting"]["known"], 12)
    if recorded and args.hour:
        clips = recorded[-1].load()
        names.append("one long stream")
        given = [clip.text for clip in clips], [clip.wave for clip in clips]
        results.measure(names[-1], long_run, served, args.hour, *given)
    return {name: results.found[name] for name in names}
