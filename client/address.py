"""Where a server is: its address as people type it, the proxy before it, one on this machine."""

import os
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener, getproxies, proxy_bypass

from duplex.errors import ClientError
from duplex.serving.http.auth import is_loopback
from duplex.serving.native import messages as native


def server_url(typed: str, usual_port: int = 8765) -> str:
    """The websocket's URL of a server.

    typed: ws://HOST:PORT, the address of its page, or HOST alone. usual_port: for a host without a
    scheme and a port. A path of one of the dialects stays as it is.

    Raises ClientError.
    """
    typed = typed.strip()
    has_scheme = "://" in typed
    try:
        parts = urlsplit(typed if has_scheme else f"ws://{typed}")
        port = parts.port
    except ValueError:
        parts = None
    schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
    if parts is None or parts.scheme not in schemes or not parts.hostname or " " in typed:
        raise ClientError(f"{typed!r:.100} is no address of a server; give ws://HOST:PORT")
    place = parts.netloc
    if port is None and not has_scheme:
        place = f"{place.rstrip(':')}:{usual_port}"
    path = parts.path.rstrip("/")
    if not path.endswith(native.PATH) and not path.startswith("/v1/"):
        path += native.PATH
    return f"{schemes[parts.scheme]}://{place}{path}" + (f"?{parts.query}" if parts.query else "")


def proxy_to(url: str) -> str | None:
    """The proxy that the environment names for a websocket's URL; none leads to this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    found = getproxies()
    names = ("wss", "https", "all") if parts.scheme == "wss" else ("ws", "http", "https", "all")
    proxy = next((found[name] for name in names if found.get(name)), None)
    if proxy and "://" not in proxy:
        # curl takes it so, too.
        proxy = f"http://{proxy}"
    return proxy


def proxy_advice(proxy: str) -> str:
    """What somebody may do whose proxy is at fault."""
    named = {n: value for n, value in os.environ.items() if n.lower().endswith("_proxy") and value}
    name = next((n for n, value in named.items() if value in proxy), "")
    where = f" of the environment's {name}" if name else ""
    return f"the proxy {proxy}{where} is on the way; unset it, or name the server in no_proxy"


def local_server(port: int = 8765, patience_s: float = 0.5) -> str | None:
    """The URL of a duplex server on this machine that takes sessions; None where none does."""
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=patience_s) as answer:
            is_ready = answer.read(100) == b"ready\n"
    except (OSError, ValueError):
        return None
    return f"ws://127.0.0.1:{port}{native.PATH}" if is_ready else None
