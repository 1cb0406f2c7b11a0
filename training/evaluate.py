"""Measure a part of the agent, or the whole of it:

    python -m duplex.training.evaluate agent --questions client/questions --out runs/evaluation

| NAME     | what is measured                                     | in training/evaluation/ |
|----------|------------------------------------------------------|-------------------------|
| agent    | recorded questions in, what it heard and said out    | conversation.py         |
| hearing  | words heard, by source, beside Whisper tiny.en       | hearing.py              |
| screen   | what is shown a second after each word               | screen.py               |
| voice    | codec and talker, by a recogniser and by DNSMOS      | voice.py                |
| align    | how speech and text meet in the LM                   | align.py                |
| facts    | what is answered right by voice, and in text         | facts.py                |
| context  | answers that hang on what was told before            | context.py              |
| minds    | what minds say to the same questions                 | minds_table.py          |
| turns    | when it speaks: pauses, interruptions, noise         | turns.py                |
| speakers | voices told apart, beside CAM++ and resemblyzer      | speakers.py             |
| sounds   | sounds named, and labels where there is none         | sounds.py               |

Results are printed and left in OUT/NAME.json.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from duplex.training.evaluation.align import evaluate_align
from duplex.training.evaluation.company import evaluate_company
from duplex.training.evaluation.conversation import evaluate_agent
from duplex.training.evaluation.hearing.by_source import evaluate_hearing
from duplex.training.evaluation.hearing.screen import evaluate_screen
from duplex.training.evaluation.learning_curve import plot_training
from duplex.training.evaluation.minds.context import evaluate_context
from duplex.training.evaluation.minds.facts import evaluate_facts
from duplex.training.evaluation.minds.questions import CHOSEN_ON, SETS
from duplex.training.evaluation.minds.table import evaluate_minds
from duplex.training.evaluation.sounds import evaluate_sounds
from duplex.training.evaluation.speakers.labels import evaluate_speakers
from duplex.training.evaluation.turns import evaluate_turns
from duplex.training.evaluation.voice import evaluate_voice


def add_sounds(parser: argparse.ArgumentParser, clips: str = "clips of each pool") -> None:
    """Options of what measures the clips of pools."""
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        default=[],
        help="a pool of speech, whose valid part is used; repeatable",
    )
    parser.add_argument("--clips", type=int, default=60, help=f"{clips} (default %(default)s)")


def add_noise(parser: argparse.ArgumentParser) -> None:
    """Options of what measures sounds without words."""
    parser.add_argument("--noise", type=Path, help="data folder whose audio.jsonl lists noises")
    parser.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        help="of noise, tones and silence (default %(default)s)",
    )


def add_spoken(parser: argparse.ArgumentParser, what: str) -> None:
    """Options of what asks spoken questions."""
    parser.add_argument(
        "--questions-audio", type=Path, help="folder of the spoken questions, made if missing"
    )
    parser.add_argument(
        "--count", type=int, default=300, help=f"number of {what} (default %(default)s)"
    )


def add_slots(parser: argparse.ArgumentParser) -> None:
    """The option of what talks with many at once."""
    parser.add_argument(
        "--slots", type=int, default=6, help="sessions side by side (default %(default)s)"
    )


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate agent`."""
    add_sounds(parser)
    parser.add_argument(
        "--questions",
        type=Path,
        default=Path("client/questions"),
        help="wavs and questions.json (default %(default)s)",
    )
    parser.add_argument(
        "--talk", type=float, default=0.0, help="minutes of a long conversation that are added"
    )


def add_hearing_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate hearing`."""
    parser.add_argument(
        "--data", type=Path, help="data folder with audio.jsonl and perhaps measure.jsonl"
    )
    parser.add_argument(
        "--kokoro",
        type=Path,
        help="folder of Kokoro's voice vectors (*.bin); without it five Japanese voices speak",
    )
    parser.add_argument(
        "--known",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a source, or a part of its name, that the weights were trained on, besides those "
        "that the encoder's folder tells; repeatable",
    )
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help='measure only rows of this name, or like it ("questions*"); repeatable',
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME",
        help='measure only columns of this name, or like it ("second*"); repeatable',
    )
    add_hearing_runs(parser)


def add_hearing_runs(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate hearing`: which networks hear, and how much of each row."""
    parser.add_argument(
        "--second-pass",
        default="tiny",
        help="which Whisper reads turns again: tiny, base or a folder (default %(default)s)",
    )
    parser.add_argument("--clips", type=int, default=60, help="of each row (default %(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        help="of noise, tones, music and silence (default %(default)s)",
    )
    parser.add_argument(
        "--hour",
        type=float,
        default=6.0,
        help="minutes of the long stream; 0: none (default %(default)s)",
    )
    parser.add_argument(
        "--encoder", type=Path, help="folder of another encoder, with the agent's lexicon, no LM"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        help="log.jsonl of an encoder's training, for a picture of its error rates instead",
    )


def add_align_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate align`."""
    parser.add_argument(
        "--run", type=Path, action="append", default=[], help="folder of a run, repeatable"
    )
    parser.add_argument(
        "--clips", type=int, default=60, help="utterances the LM writes down (default %(default)s)"
    )


def add_speakers_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate speakers`."""
    parser.add_argument("--data", type=Path, required=True, help="data folder with audio.jsonl")
    parser.add_argument("--head", type=Path, help="folder of another speaker head")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="without CAM++ and resemblyzer beside it, which are fetched once",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME",
        help="a source of DATA, or a part of its name; repeatable (default: LibriSpeech and "
        "speechocean762)",
    )
    parser.add_argument(
        "--clips", type=int, default=20, help="of a speaker at most (default %(default)s)"
    )
    parser.add_argument(
        "--conversations",
        type=int,
        default=50,
        help="of one, two and four people (default %(default)s)",
    )


def add_turns_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate turns`."""
    add_sounds(parser, "pauses, and sounds said into answers")
    add_noise(parser)
    add_slots(parser)
    parser.add_argument("--kokoro", type=Path, help="folder of Kokoro's voice vectors (*.bin)")


def add_minds_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate minds`."""
    parser.add_argument("--mind", nargs="+", default=["small", "large"], help="names, files, URLs")
    parser.add_argument("--sets", nargs="+", choices=SETS + CHOSEN_ON, default=list(SETS))
    parser.add_argument("--count", type=int, default=100, help="of each set (default %(default)s)")
    parser.add_argument(
        "--questions-audio", type=Path, help="ask by voice; folder of the sounds, made if missing"
    )
    add_slots(parser)
    parser.add_argument(
        "--noise",
        type=Path,
        help="data folder with audio.jsonl; the set `noises` by voice needs it",
    )


def add_company_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate company`."""
    parser.add_argument("--data", type=Path, required=True, help="data folder, with text/ in it")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="dialogues.jsonl; none of its texts is said"
    )
    parser.add_argument("--kokoro", type=Path, help="folder of Kokoro's voice vectors (*.bin)")
    parser.add_argument("--dialogues", type=int, default=40, help="(default %(default)s)")
    add_slots(parser)


def add_named_sounds_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate sounds`."""
    parser.add_argument("--data", type=Path, required=True, help="data folder with audio.jsonl")
    parser.add_argument(
        "--held", type=int, default=4, help="fifth that was held out (default %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of speech, of noise (default %(default)s)"
    )


def common_options() -> argparse.ArgumentParser:
    """What all measures take."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--agent", type=Path, help="agent folder (default: the one that ships)")
    common.add_argument(
        "--out",
        type=Path,
        default=Path("runs/evaluation"),
        help="folder for sounds and results (default %(default)s)",
    )
    common.add_argument("--threads", type=int, default=1, help="of the recogniser, or of torch")
    common.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
    return common


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = parser.add_subparsers(dest="what", required=True, metavar="NAME")
    parents = [common_options()]

    def add(name: str, help: str, aliases: tuple[str, ...] = ()) -> argparse.ArgumentParser:
        return names.add_parser(name, parents=parents, help=help, aliases=aliases)

    add_agent_options(add("agent", "recorded questions in, what it heard and said out"))
    add_hearing_options(
        add("hearing", "words heard, by source, beside Whisper tiny.en", aliases=("ears",))
    )
    screen = add("screen", "what is shown a second after each word")
    screen.add_argument("--data", type=Path, required=True, help="data folder with audio.jsonl")
    screen.add_argument("--clips", type=int, default=20, help="(default %(default)s)")
    add_sounds(add("voice", "codec and talker, by a recogniser and by DNSMOS"))
    add_align_options(add("align", "how speech and text meet in the LM"))
    facts = add("facts", "what is answered right by voice, and in text")
    add_spoken(facts, "questions")
    add_slots(facts)
    add_spoken(add("context", "answers that hang on what was told before"), "conversations")
    add_turns_options(add("turns", "when it speaks: pauses, interruptions, noise"))
    add_minds_options(add("minds", "what minds say to the same questions"))
    add_speakers_options(add("speakers", "voices told apart"))
    add_company_options(add("company", "several people: whom it answers, and whom not"))
    add_named_sounds_options(add("sounds", "sounds named, and labels where there is none"))
    return parser.parse_args(arguments)


def chosen(args: argparse.Namespace) -> tuple[str, Callable[[argparse.Namespace], dict]]:
    """The name of the result, and the function that measures."""
    others = {
        "agent": evaluate_agent,
        "screen": evaluate_screen,
        "voice": evaluate_voice,
        "align": evaluate_align,
        "facts": evaluate_facts,
        "context": evaluate_context,
        "turns": evaluate_turns,
        "minds": evaluate_minds,
        "speakers": evaluate_speakers,
        "sounds": evaluate_sounds,
        "company": evaluate_company,
    }
    if args.what in others:
        return args.what, others[args.what]
    encoder = f"-{args.encoder.name}" if args.encoder else ""
    if args.plot:
        return f"training{encoder}", plot_training
    return f"hearing{encoder}", evaluate_hearing


def main() -> None:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    name, evaluate = chosen(args)
    args.result = args.out / f"{name}.json"
    result = evaluate(args)
    print(json.dumps(result, indent=1))
    args.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
