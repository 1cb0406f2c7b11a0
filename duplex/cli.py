"""The command `duplex`: serve the agent to others, or talk with it.

duplex talk                                    microphone and loudspeaker, or recorded questions
duplex talk --input question.wav --output answer.wav
duplex serve --port 8765                       then: duplex talk --server ws://localhost:8765
duplex direct --replicas gpu1:8765,gpu2:8765   one address for several servers
duplex tune talks/data.jsonl --out my-agent    teach it your own conversations
duplex bench all                               does it converse, how fast, with how many at once
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from duplex import __version__, voices
from duplex.errors import DuplexError, UsageError
from duplex.serving import options as serving
from duplex.weights import DEFAULT_AGENT

# The environment variable with a server's key.
KEY_VARIABLE = "DUPLEX_API_KEY"


def main(arguments: list[str] | None = None, load: Callable | None = None) -> None:
    """Run a command. `load(args, slots, cancel_echo)` makes the agent: load_agent by default."""
    args = _parser().parse_args(arguments)
    args.has_own_load = load is not None
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    try:
        args.run(args, partial(load or load_agent, args))
    except DuplexError as error:
        print(f"duplex: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        # As shells have it after Ctrl-C.
        sys.exit(130)


def server_config(options: list[str], load: Callable | None = None) -> tuple:
    """What the options of `duplex serve` ask for, and load(slots): for other programs that serve.

    Raises UsageError, ServerError; SystemExit where there is no such option.
    """
    args = _parser().parse_args(["serve", *options])
    return serving.server_config(args), partial(load or load_agent, args)


def _parser() -> argparse.ArgumentParser:
    from duplex.bench.run import add_arguments as add_bench_arguments
    from duplex.training.tuning import options as tuning

    parser = argparse.ArgumentParser(
        prog="duplex", description="A speech agent that listens and speaks at once."
    )
    parser.add_argument("--version", action="version", version=f"duplex {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the agent over websockets")
    serving.add_serve_arguments(serve, KEY_VARIABLE)
    serve.set_defaults(run=serving.serve)
    direct = commands.add_parser("direct", help="send clients to one of several servers")
    serving.add_direct_arguments(direct, KEY_VARIABLE)
    direct.set_defaults(run=serving.direct)
    talk = commands.add_parser("talk", help="talk with the agent")
    _add_talk_arguments(talk)
    _add_voice_arguments(talk)
    talk.set_defaults(run=_talk)
    tune = commands.add_parser(
        "tune",
        help="teach the agent your own conversations",
        description=tuning.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tuning.add_arguments(tune)
    tune.add_argument("--verbose", action="store_true", help="tell more on stderr")
    tune.set_defaults(run=_tune)
    bench = commands.add_parser("bench", help="measure how an agent converses")
    add_bench_arguments(bench, KEY_VARIABLE)
    bench.set_defaults(run=_bench)
    for command in (serve, talk, bench):
        _add_agent_arguments(command)
    return parser


def _add_talk_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--server",
        metavar="URL",
        help="address of a server, HOST:PORT for example; own: the agent in this process "
        "(default: a server that runs on this machine, else own)",
    )
    add(
        "--api-key",
        default=os.environ.get(KEY_VARIABLE),
        help=f"of the server (default: ${KEY_VARIABLE})",
    )
    add(
        "--input",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="questions to ask, instead of a microphone; - is raw PCM16, 24 kHz, from stdin",
    )
    add("--recorded", action="store_true", help="use the recorded questions of the project")
    add(
        "--output",
        type=_wave_path,
        metavar="WAV",
        help="stereo recording; text and time line go beside it (default talk/DATE); "
        "- writes the agent's voice as raw PCM16 to stdout",
    )
    add("--no-record", dest="records", action="store_false", help="keep nothing")
    add(
        "--gap",
        type=float,
        metavar="S",
        help="ask each question S seconds after the last, come what may",
    )
    add(
        "--fast",
        action="store_true",
        help="questions as fast as the machine can, not in real time",
    )


def _add_voice_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", help="sound card, by number or part of its name (the model's: --compute)")
    add("--input-device", metavar="DEVICE", help="the microphone, if it is another one")
    add("--output-device", metavar="DEVICE", help="the loudspeaker, if it is another one")
    add(
        "--no-echo-cancellation",
        dest="cancel_echo",
        action="store_false",
        help="with headphones: the microphone as it is",
    )
    add("--list-devices", action="store_true", help="show the sound cards and stop")
    add("--instructions", help="what the agent shall keep in mind")
    add("--voice", choices=list(voices.VOICES), help=f"who speaks (default {voices.DEFAULT})")
    add("--speed", type=float, metavar="X", help="times the usual speaking rate, 0.5 to 1.5")
    add("--hints", nargs="+", default=[], metavar="WORD", help="words that you may well say")
    add(
        "--heed",
        choices=["anyone", "first", "enrolled"],
        help="whom the agent answers and yields to: anyone (default), the first who speaks, or "
        "the enrolled one of --voice-print",
    )
    add(
        "--voice-print",
        type=Path,
        metavar="FILE",
        help="whom to heed; if there is no such file, who speaks first enrolls and it is written",
    )
    add(
        "--tools",
        type=Path,
        metavar="FILE.py",
        help="Python functions that a large mind may call (--mind)",
    )
    add(
        "--events",
        type=Path,
        metavar="FILE.jsonl",
        help='what happens meanwhile, for a large mind to speak of: {"time_s": 9, "text": "..."}',
    )
    add("--seed", type=int, help="seed of the agent's sampling")


def _add_agent_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--agent",
        type=Path,
        default=DEFAULT_AGENT,
        help="folder of the agent (default: the one shipped)",
    )
    add(
        "--backbone",
        type=Path,
        help="GGUF file or folder of its LM, if not the one that is fetched",
    )
    add(
        "--compute",
        default="cpu",
        help="torch device of the model: cpu, cuda (default %(default)s)",
    )
    add(
        "--dtype",
        choices=["int8", "bfloat16", "float32"],
        help="number format (default: int8 on a CPU, where alone it works, bfloat16 elsewhere)",
    )
    add(
        "--threads",
        type=int,
        help="of the model (default: 2 where there are two cores and the format is int8)",
    )
    add(
        "--second-pass",
        metavar="MODEL",
        help="Whisper that reads the user's turns again: tiny, base, off or a folder in "
        "CTranslate2's format (default: tiny if it can be fetched)",
    )
    add(
        "--mind",
        default="small",
        metavar="MIND",
        help="what thinks of the answers: small (the agent's own LM), large (Qwen2.5 1.5B beside "
        "it; needs the extra 'mind'), medium (0.5B), auto (the largest that fits), a "
        "GGUF file, or the URL of an OpenAI-compatible server, http://HOST:PORT/v1#MODEL "
        "(default %(default)s)",
    )
    add("--offline", action="store_true", help="never fetch weights")
    add("--verbose", action="store_true", help="tell more on stderr")


def load_agent(args: argparse.Namespace, slots: int, cancel_echo: bool = True):
    """The agent, ready to step.

    cancel_echo: whether it takes its own voice out of what it hears; a client may do that instead.
    """
    if not args.agent.is_dir():
        raise UsageError(
            f"there is no agent in {args.agent}; "
            "--agent names a folder with config.json and weights"
        )
    if args.dtype == "int8" and args.compute != "cpu":
        raise UsageError(
            "--dtype int8 is for a CPU; on another device leave it out or take bfloat16"
        )
    print("loading the agent …", file=sys.stderr, flush=True)
    import torch

    from duplex import agent

    is_int8 = args.compute == "cpu" and args.dtype in (None, "int8")
    # The threads of int8 are our own, see duplex/cpu/shared_work.py.
    torch.set_num_threads(1 if is_int8 else args.threads or 1)
    config = agent.AgentConfig(cancel_echo=cancel_echo)
    try:
        if args.compute != "cpu":
            return _load_on_device(args, slots, config)
        return agent.load_agent(
            args.agent,
            slots,
            config,
            dtype=args.dtype,
            offline=args.offline,
            backbone=args.backbone,
            threads=args.threads,
            second_pass=args.second_pass,
            mind=args.mind,
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"the agent in {args.agent} is not complete: {error.filename or error} is missing"
        ) from error


def _load_on_device(args: argparse.Namespace, slots: int, config):
    """The agent with all its networks on one device."""
    from duplex.device import DeviceConfig
    from duplex.device.load import dtype_of, load_agent

    if args.second_pass not in (None, "off"):
        raise UsageError(
            f"--second-pass {args.second_pass} does not go with --compute; leave one of them out"
        )
    placement = DeviceConfig(args.compute, dtype_of(args.dtype, args.compute))
    given = {"offline": args.offline, "backbone": args.backbone, "mind": args.mind}
    return load_agent(args.agent, slots, config, placement, **given)


def _talk(args: argparse.Namespace, load: Callable) -> None:
    from duplex.client import talk
    from duplex.client.sound import sound_card
    from duplex.serving.commands import Start

    if args.list_devices:
        print(sound_card.devices())
        return
    if args.fast and args.server not in (None, "own"):
        raise UsageError(
            "--fast needs the agent in this process; a server keeps real time, "
            "so leave --server out"
        )
    voices.find(args.voice or voices.DEFAULT, 1.0 if args.speed is None else args.speed)
    questions = tuple(args.input or ())
    if not questions and args.recorded:
        questions = talk.demonstration()
    devices = sound_card.SoundDevices(
        args.input_device or args.device, args.output_device or args.device
    )
    if not questions and devices == sound_card.SoundDevices():
        questions = talk.questions_without_sound()
    if args.fast and not questions:
        raise UsageError("--fast is for recorded questions; give --input or --recorded")
    config = talk.TalkConfig(
        start=Start(
            args.instructions,
            args.seed,
            voice=args.voice,
            speed=args.speed,
            hints=tuple(args.hints),
            **_heeded(args),
        ),
        voice_print=None if _has_voice_print(args) else args.voice_print,
        server=_server(args),
        api_key=args.api_key,
        questions=questions,
        fast=args.fast,
        gap_s=args.gap,
        devices=devices,
        tools=args.tools,
        events=args.events,
        cancel_echo=args.cancel_echo,
        output=args.output,
        records=args.records,
        verbose=args.verbose,
    )
    # The client cancels the echo at the sound card, and a recording has none.
    talk.talk(config, partial(load, slots=1, cancel_echo=False))


def _has_voice_print(args: argparse.Namespace) -> bool:
    return args.voice_print is not None and args.voice_print.exists()


def _heeded(args: argparse.Namespace) -> dict[str, str]:
    """Whom the agent shall heed, as fields of Start. Raises UsageError."""
    from duplex import voice_print

    if _has_voice_print(args):
        print_text = args.voice_print.read_text(encoding="utf-8", errors="replace").strip()
        try:
            voice_print.decode(print_text)
        except ValueError as error:
            raise UsageError(f"{args.voice_print}: {error}") from error
        return {"heeds": args.heed or "enrolled", "voice_print": print_text}
    if args.heed == "enrolled":
        raise UsageError("--heed enrolled needs a voice print: --voice-print FILE")
    return {"heeds": args.heed or "anyone"}


def _server(args: argparse.Namespace) -> str | None:
    """The server to talk with; None: the agent in this process.

    A server on this machine is ready at once; it is left alone where an agent of one's own is
    asked for, by any option of it.
    """
    if args.server or args.fast or args.has_own_load:
        return None if args.server == "own" else args.server
    from duplex.client import address

    usual = argparse.ArgumentParser()
    _add_agent_arguments(usual)
    wanted = vars(usual.parse_args([])) | {"verbose": args.verbose}
    if any(getattr(args, name) != value for name, value in wanted.items()):
        return None
    found = address.local_server()
    if found:
        print(f"note: talking with the server at {found}; or: --server own", file=sys.stderr)
    return found


def _tune(args: argparse.Namespace, load: Callable) -> None:
    from duplex.training.tune import run

    run(args)


def _bench(args: argparse.Namespace, load: Callable) -> None:
    from duplex.bench.run import run

    if not run(args, load):
        sys.exit(1)


def _wave_path(text: str) -> Path:
    """Where a conversation is written, found wrong before it is held and not after it."""
    path = Path(text)
    if text == "-":
        return path
    if path.suffix.lower() not in (".wav", ".flac") or path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a recording; give one that ends in .wav or .flac"
        )
    return path


if __name__ == "__main__":
    main()
