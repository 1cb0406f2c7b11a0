"""The commands `duplex serve` and `duplex direct`: their options, and what becomes of them."""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from duplex.errors import UsageError
from duplex.serving.limits import EngineLimits, ServerLimits


def add_serve_arguments(parser: argparse.ArgumentParser, key_variable: str) -> None:
    """The options of `duplex serve`, without those that choose the agent.

    key_variable: name of the environment variable with a server's key.
    """
    add = parser.add_argument
    _add_access_arguments(parser, key_variable, usual_port=8765)
    add("--max-sessions", type=int, help="(default: what a test at the start finds)")
    add(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="web pages from elsewhere that may connect",
    )
    seconds = partial(add, type=float, metavar="S")
    seconds("--idle", default=60, help="end sessions silent so long (default %(default)s)")
    seconds("--longest", default=3600, help="end sessions after this (default %(default)s)")
    seconds("--grace", default=10, help="to finish turns at the end (default %(default)s)")
    add("--record", type=Path, metavar="FOLDER", help="keep sound and words of all sessions there")
    add(
        "--record-limit",
        type=float,
        default=1000,
        metavar="MB",
        help="then the oldest go (default %(default)s)",
    )


def add_direct_arguments(parser: argparse.ArgumentParser, key_variable: str) -> None:
    """The options of `duplex direct`."""
    _add_access_arguments(parser, key_variable, usual_port=8764)
    add = parser.add_argument
    add(
        "--replicas",
        required=True,
        metavar="URL,URL",
        help="the servers, as clients reach them: http://HOST:PORT, or dns:HOST:PORT for each "
        "address that a name has; they have the same key, and --origin of this director",
    )
    add("--waiting", type=int, default=100, help="who may wait in line (default %(default)s)")
    add(
        "--patience",
        type=float,
        default=120,
        metavar="S",
        help="then who waits is refused (default %(default)s)",
    )
    add("--verbose", action="store_true", help="tell more on stderr")


def _add_access_arguments(
    parser: argparse.ArgumentParser, key_variable: str, usual_port: int
) -> None:
    """Where a server listens, and who may come in."""
    add = parser.add_argument
    add(
        "--host",
        default="localhost",
        help="address to listen on (default %(default)s: this machine)",
    )
    add("--port", type=int, default=usual_port, help="port to listen on (default %(default)s)")
    add(
        "--api-key",
        default=os.environ.get(key_variable),
        help=f"clients must know it (default: ${key_variable})",
    )
    add("--open", action="store_true", help="serve others than this machine without a key")
    add("--tls-cert", metavar="PEM", help="certificate, for wss:// and https://")
    add("--tls-key", metavar="PEM", help="its private key, if it is in another file")


def serve(args: argparse.Namespace, load: Callable) -> None:
    """Run `duplex serve`. Raises UsageError, ServerError."""
    from duplex.serving.run import run

    run(load, server_config(args))


def server_config(args: argparse.Namespace):
    """What the options of `duplex serve` ask for. Raises UsageError, ServerError."""
    from duplex.serving.run import ServerConfig

    if args.max_sessions is not None and args.max_sessions < 1:
        raise UsageError(
            f"--max-sessions {args.max_sessions} leaves no place for anybody; give at least 1"
        )
    access = _access(args, tuple(args.origin))
    return ServerConfig(
        args.host,
        args.port,
        args.max_sessions,
        access,
        EngineLimits(idle_s=args.idle, max_session_s=args.longest),
        ServerLimits(grace_s=args.grace),
        # A GPU's functions are captured for these numbers, see duplex.device.load.
        (8, 4, 3, 2) if args.compute == "cpu" else (512, 256, 128, 32, 8),
        _recorder(args),
    )


def direct(args: argparse.Namespace, load: Callable) -> None:
    """Run `duplex direct`. Raises UsageError, ServerError."""
    from duplex.serving.scale.director import DirectorConfig, run
    from duplex.serving.scale.waiting import LineConfig

    if args.waiting < 0:
        raise UsageError(f"--waiting {args.waiting} is no number of people; give 0 or more")
    replicas = tuple(entry.strip() for entry in args.replicas.split(",") if entry.strip())
    if not replicas:
        raise UsageError("--replicas names no server; give http://HOST:PORT,http://HOST:PORT")
    line = LineConfig(max_waiting=args.waiting, patience_s=args.patience)
    run(DirectorConfig(replicas, args.host, args.port, _access(args), line))


def _access(args: argparse.Namespace, origins: tuple[str, ...] = ()):
    """Who may come in. Raises UsageError, ServerError."""
    from duplex.serving.http.auth import Access

    if args.tls_key and not args.tls_cert:
        raise UsageError("--tls-key needs the certificate too; give --tls-cert")
    access = Access(args.api_key, origins, args.tls_cert, args.tls_key, args.open)
    access.check(args.host)
    return access


def _recorder(args: argparse.Namespace):
    """What keeps the sessions, where it is asked for."""
    from duplex.serving.sound.recorder import Recorder

    if args.record is None:
        return None
    try:
        return Recorder(args.record, round(args.record_limit * 1e6))
    except OSError as error:
        raise UsageError(f"cannot record in {args.record} ({error.strerror or error})") from error
