"""The command `duplex`: serve the agent to others, or talk with it.

duplex talk                                    microphone and loudspeaker, or recorded questions without them
duplex talk --input question.wav --output answer.wav
duplex serve --port 8765                       then: duplex talk --server ws://localhost:8765
duplex bench all                               does it converse, how fast, with how many at once
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from duplex import __version__, voices
from duplex.errors import ClientError, DuplexError, EchoUnavailable, UsageError
from duplex.weights import DEFAULT_AGENT

KEY_VARIABLE = "DUPLEX_API_KEY"
FAILED = 2  # exit code when the sentence on stderr says all


def main(arguments: list[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(name)s: %(message)s"
    )
    try:
        args.run(args)
    except DuplexError as error:
        print(f"duplex: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    from duplex.bench.run import add_arguments as add_bench_arguments

    parser = argparse.ArgumentParser(
        prog="duplex", description="A speech agent that listens and speaks at once."
    )
    parser.add_argument("--version", action="version", version=f"duplex {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the agent over websockets")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default %(default)s: this machine)",
    )
    serve.add_argument(
        "--port", type=int, default=8765, help="port to listen on (default %(default)s)"
    )
    serve.add_argument(
        "--max-sessions",
        "--slots",
        dest="slots",
        type=int,
        help="(default: what a test at the start finds)",
    )
    serve.add_argument(
        "--api-key",
        default=os.environ.get(KEY_VARIABLE),
        help=f"clients must know it (default: ${KEY_VARIABLE})",
    )
    serve.add_argument(
        "--open", action="store_true", help="serve others than this machine without a key"
    )
    serve.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="web pages from elsewhere that may connect",
    )
    serve.add_argument("--tls-cert", metavar="PEM", help="certificate, for wss:// and https://")
    serve.add_argument("--tls-key", metavar="PEM", help="its private key, if it is in another file")
    serve.add_argument(
        "--idle",
        type=float,
        default=60,
        metavar="S",
        help="end sessions silent so long (default %(default)s)",
    )
    serve.add_argument(
        "--longest",
        type=float,
        default=3600,
        metavar="S",
        help="end sessions after this (default %(default)s)",
    )
    serve.add_argument(
        "--grace",
        type=float,
        default=10,
        metavar="S",
        help="to finish turns at the end (default %(default)s)",
    )
    serve.add_argument(
        "--record", type=Path, metavar="FOLDER", help="keep sound and words of all sessions there"
    )
    serve.add_argument(
        "--record-limit",
        type=float,
        default=1000,
        metavar="MB",
        help="then the oldest go (default %(default)s)",
    )
    serve.set_defaults(run=_serve)
    talk = commands.add_parser("talk", help="talk with the agent")
    talk.add_argument(
        "--server",
        metavar="URL",
        help="ws://HOST:PORT of a server; default: the agent in this process",
    )
    talk.add_argument(
        "--api-key",
        default=os.environ.get(KEY_VARIABLE),
        help=f"of the server (default: ${KEY_VARIABLE})",
    )
    talk.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="WAV",
        help="questions to ask, instead of a microphone",
    )
    talk.add_argument(
        "--recorded",
        action="store_true",
        help="use the recorded questions that come with the project",
    )
    talk.add_argument(
        "--output",
        type=_wave_path,
        metavar="WAV",
        help="stereo recording; text and time line go beside it",
    )
    talk.add_argument(
        "--gap",
        type=float,
        metavar="S",
        help="ask each question S seconds after the last, come what may",
    )
    talk.add_argument(
        "--fast", action="store_true", help="questions as fast as the machine can, not in real time"
    )
    talk.add_argument("--device", help="sound device, by number or part of its name")
    talk.add_argument(
        "--no-echo-cancellation",
        dest="cancel_echo",
        action="store_false",
        help="with headphones: the microphone as it is",
    )
    talk.add_argument("--list-devices", action="store_true", help="show the sound devices and stop")
    talk.add_argument("--instructions", help="what the agent shall keep in mind")
    talk.add_argument(
        "--voice", choices=list(voices.VOICES), help=f"who speaks (default {voices.DEFAULT})"
    )
    talk.add_argument(
        "--speed", type=float, metavar="X", help="times the usual speaking rate, 0.5 to 1.5"
    )
    talk.add_argument("--seed", type=int, help="seed of the agent's sampling")
    talk.set_defaults(run=_talk)
    bench = commands.add_parser("bench", help="measure how an agent converses")
    add_bench_arguments(bench, KEY_VARIABLE)
    bench.set_defaults(run=_bench)
    for command in (serve, talk, bench):
        command.add_argument(
            "--agent",
            type=Path,
            default=DEFAULT_AGENT,
            help="folder of the agent (default: the one shipped)",
        )
        command.add_argument(
            "--backbone",
            type=Path,
            help="GGUF file or folder of its LM, if not the one that is fetched",
        )
        command.add_argument(
            "--compute", default="cpu", help="torch device of the model (default %(default)s)"
        )
        formats = "number format (default: int8 on a CPU, where alone it works, bfloat16 elsewhere)"
        command.add_argument("--dtype", choices=["int8", "bfloat16", "float32"], help=formats)
        threads = "of the model (default: 2 where there are two cores and the format is int8)"
        command.add_argument("--threads", type=int, help=threads)
        command.add_argument("--offline", action="store_true", help="never fetch weights")
        command.add_argument("--verbose", action="store_true", help="tell more on stderr")
    return parser


def _load(args: argparse.Namespace, slots: int, cancel_echo: bool = True):
    """The agent, ready to step; it need not take its own voice out of what it hears where somebody else does."""
    if not args.agent.is_dir():
        raise UsageError(
            f"there is no agent in {args.agent}; --agent names a folder with config.json and weights"
        )
    if args.dtype == "int8" and args.compute != "cpu":
        raise UsageError(
            "--dtype int8 is for a CPU; on another device leave it out or take bfloat16"
        )
    print("loading the agent …", file=sys.stderr, flush=True)
    import torch

    from duplex.agent import AgentConfig, load_agent

    in_8_bits = (
        args.dtype or "int8"
    ) == "int8" and args.compute == "cpu"  # its threads are our own, see duplex/cpu/shared_work.py
    torch.set_num_threads(1 if in_8_bits else args.threads or 1)
    options = {
        "device": args.compute,
        "dtype": args.dtype,
        "offline": args.offline,
        "backbone": args.backbone,
    }
    options["threads"] = args.threads
    try:
        config = AgentConfig(cancel_echo=cancel_echo)
        agent = load_agent(args.agent, slots, config, **options)
    except FileNotFoundError as error:
        raise UsageError(
            f"the agent in {args.agent} is not complete: {error.filename or error} is missing"
        ) from error
    return agent


def _serve(args: argparse.Namespace) -> None:
    from duplex.serving import server

    if args.slots is not None and args.slots < 1:
        raise UsageError(
            f"--max-sessions {args.slots} leaves no place for anybody; give at least 1"
        )
    if args.tls_key and not args.tls_cert:
        raise UsageError("--tls-key needs the certificate too; give --tls-cert")
    access = server.Access(args.api_key, tuple(args.origin), args.tls_cert, args.tls_key, args.open)
    access.check(args.host)
    server.run(
        lambda slots: _load(args, slots),
        args.host,
        args.port,
        args.slots,
        access,
        args.grace,
        idle_s=args.idle,
        longest_s=args.longest,
        recorder=_recorder(args),
    )


def _recorder(args: argparse.Namespace):
    from duplex.serving.recorder import Recorder

    if args.record is None:
        return None
    try:
        return Recorder(args.record, round(args.record_limit * 1e6))
    except OSError as error:
        raise UsageError(f"cannot record in {args.record} ({error.strerror or error})") from error


def _talk(args: argparse.Namespace) -> None:
    from duplex.client import terminal, wav

    if args.list_devices:
        print(terminal.devices())
        return
    if args.fast and args.server:
        raise UsageError(
            "--fast needs the agent in this process; a server keeps real time, so leave --server out"
        )
    paths = args.input or (_recorded_questions() if args.recorded else None)
    if paths is None and args.device is None and not terminal.has_sound():
        print("note: no sound card found; playing the recorded questions", file=sys.stderr)
        paths = _recorded_questions()
    if paths:
        questions = [wav.read_wave(path) for path in paths]
        asyncio.run(_talk_recorded(args, questions))
    else:
        if args.fast:
            raise UsageError("--fast is for recorded questions; give --input or --recorded")
        asyncio.run(_talk_live(args))


def _bench(args: argparse.Namespace) -> None:
    from duplex.bench import run as bench

    if not bench.run(args, lambda slots: _load(args, slots)):
        sys.exit(1)


def _recorded_questions() -> list[Path]:
    from duplex import client

    folder = Path(client.__file__).parent / "questions"
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise UsageError(f"there are no recorded questions in {folder}; give your own with --input")
    return paths


async def _open(args: argparse.Namespace):
    voices.find(args.voice or voices.DEFAULT, 1.0 if args.speed is None else args.speed)
    options = {
        "seed": args.seed,
        "instructions": args.instructions,
        "voice": args.voice,
        "speed": args.speed,
    }
    if args.server:
        from duplex.client.remote import RemoteSession

        return await RemoteSession.open(args.server, **options, api_key=args.api_key)
    from duplex.client.local import LocalSession, LockstepSession

    agent = _load(
        args, slots=1, cancel_echo=False
    )  # the client does it at the sound card; a recording has none
    return (
        LockstepSession(agent, **options)
        if args.fast
        else await LocalSession.open(agent, **options)
    )


async def _talk_recorded(args: argparse.Namespace, questions: list) -> None:
    from duplex.client import wav
    from duplex.client.display import Display

    session = await _open(args)
    display = Display()
    pace = wav.Lockstep() if args.fast else wav.RealTime()
    recording = await wav.converse(session, wav.Script(questions, args.gap), pace, display)
    display.finish()
    for name, seconds in recording.response_times():
        print(
            f"{name}: " + ("no answer" if seconds is None else f"answered after {seconds:.2f} s"),
            file=sys.stderr,
        )
    _save(
        recording,
        args.output or Path("talk/conversation.wav"),
        named_for_wave=args.output is not None,
    )
    _tell_stats(session)
    if any(event["type"] == "error" for event in recording.events):
        raise ClientError("the conversation ended early; the note above says why")


def _echo_canceller(args: argparse.Namespace):
    """The canceller, or nothing where it is not wanted or not to be had; the note says why."""
    from duplex.echo import EchoCanceller

    if not args.cancel_echo:
        return None
    try:
        return EchoCanceller()
    except EchoUnavailable as error:
        print(f"note: {error}", file=sys.stderr)
        return None


async def _talk_live(args: argparse.Namespace) -> None:
    from duplex.client import terminal
    from duplex.client.display import Display

    card = terminal.SoundCard(args.device)
    session = await _open(args)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # not loop.add_signal_handler: its pipe is the one through which the sound card's thread wakes the loop
    signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(stop.set))
    display = Display()
    echo = _echo_canceller(args)
    print("speak; Ctrl-C ends the conversation", file=sys.stderr)
    with card:
        recording = await terminal.live(
            session, card, display, stop, keep=args.output is not None, echo=echo
        )
    display.finish()
    if recording.gaps or recording.dropped_ms:
        print(
            f"note: {recording.gaps} gaps in the sound, {recording.dropped_ms} ms dropped",
            file=sys.stderr,
        )
    if args.output is not None:
        _save(recording, args.output, named_for_wave=True)


def _wave_path(text: str) -> Path:
    """Where a conversation is written, found wrong before it is held and not after it."""
    path = Path(text)
    if path.suffix.lower() not in (".wav", ".flac") or path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a recording; give one that ends in .wav or .flac"
        )
    return path


def _save(recording, wave: Path, named_for_wave: bool) -> None:
    from duplex.client.talk import save

    transcript = wave.with_suffix("") if named_for_wave else wave.parent / "transcript"
    picture = wave.with_suffix(".png") if named_for_wave else wave.parent / "timeline.png"
    try:
        save(recording, wave, transcript, picture)
    except OSError as error:
        raise UsageError(f"cannot write {wave} ({error.strerror or error})") from error
    print(f"wrote {wave}, {transcript}.jsonl, {transcript}.txt, {picture}", file=sys.stderr)


def _tell_stats(session) -> None:
    if hasattr(session, "stats"):
        stats = session.stats()
        tick = stats["tick_ms"]
        print(
            f"ticks {stats['ticks']}, late {stats['late_ticks']}; a tick was done after {tick['p50']} ms (median), "
            f"{tick['p99']} ms (p99)",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
