"""The address that a server is reached at: bound before the model is loaded, told afterwards."""

import contextlib
import os
import socket

from duplex.errors import ServerError
from duplex.serving.http.auth import is_address
from duplex.serving.native import messages as native


def bind(host: str, port: int) -> list[socket.socket]:
    """Bound sockets that do not listen yet, one for each address of the host.

    A name such as localhost may have two, 127.0.0.1 and ::1, and clients take either. port: 0 takes
    any that is free.

    Raises ServerError.
    """
    if not 0 <= port <= 65_535:
        raise ServerError(f"there is no port {port}; give --port a number from 1 to 65535")
    bound: list[socket.socket] = []
    failures: list[OSError] = []
    try:
        for family, kind, number, _, address in _addresses(host, port):
            # Both addresses of a name have the same port.
            chosen = bound[0].getsockname()[1] if bound else port
            try:
                bound.append(_bind((family, kind, number), (address[0], chosen, *address[2:])))
            except OSError as error:
                failures.append(error)
                # Somebody else's port is a mistake; a machine without IPv6 is not.
                if "in use" in str(error):
                    raise
        if not bound:
            raise failures[0]
    except OSError as error:
        for listener in bound:
            listener.close()
        reason = error.strerror or error
        raise ServerError(
            f"cannot serve on {host} port {port} ({reason}); choose another with --port"
        ) from error
    return bound


def _addresses(host: str, port: int) -> list[tuple]:
    """What a host resolves to: one address, but both of localhost, whatever the system knows."""
    found = socket.getaddrinfo(
        "127.0.0.1" if host.lower() == "localhost" else host, port, type=socket.SOCK_STREAM
    )[:1]
    if host.lower() == "localhost":
        # A system may know nothing of IPv6.
        with contextlib.suppress(OSError):
            found += socket.getaddrinfo("::1", port, type=socket.SOCK_STREAM)[:1]
    return found


def _bind(kind: tuple, address: tuple) -> socket.socket:
    listener = socket.socket(*kind)
    try:
        # On Windows the option would let two programs have one port.
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind[0] == socket.AF_INET6 and address[0] != "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def web_url(listener: socket.socket, host: str, is_tls: bool) -> str:
    """The address of the page, as somebody types it in a browser.

    host: what was asked for. Where that is every address of the machine, one that others reach.
    """
    name, port = listener.getsockname()[:2]
    if name in ("0.0.0.0", "::"):
        name = _outward_address() or socket.gethostname()
    elif host and not is_address(host):
        name = host
    name = f"[{name}]" if ":" in name else name
    return f"{'https' if is_tls else 'http'}://{name}:{port}"


def websocket_url(web: str) -> str:
    """Where a server with this page speaks the native dialect."""
    return "ws" + web.removeprefix("http") + native.PATH


def _outward_address() -> str | None:
    """This machine's address on the way to others; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # An address for documentation, which nobody has.
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return None
