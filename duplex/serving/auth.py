"""Who may come in, and how fast: keys, origins, the address bound to, message rates. No I/O."""

import hmac
import ipaddress
from urllib.parse import urlsplit

KEY_SUBPROTOCOLS = (
    "bearer.",
    "openai-insecure-api-key.",
)  # browsers cannot set headers on a websocket
BYTES_PER_S, BYTES_BURST = (
    1 << 20,
    4 << 20,
)  # twenty times the pace of PCM16; base64 and a lively sender fit
MESSAGES_PER_S, MESSAGES_BURST = 500, 2_000


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def knows_key(api_key: str | None, headers, subprotocols: list[str]) -> bool:
    """Whether the key, if there is one, came as a bearer token or inside a subprotocol."""
    if not api_key:
        return True
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    offered = [token.strip()] if scheme.lower() == "bearer" else []
    offered += [
        name.removeprefix(prefix)
        for name in subprotocols
        for prefix in KEY_SUBPROTOCOLS
        if name.startswith(prefix)
    ]
    return any([hmac.compare_digest(key.encode(), api_key.encode()) for key in offered])


def may_connect(origin: str | None, host: str, allowed: tuple[str, ...], has_key: bool) -> bool:
    """Whether a page of this `Origin` may open a websocket here. Other programs send none.

    Pages of this server may. Without a key its name must be this machine's own: a page elsewhere could otherwise have its
    name resolved to this machine (DNS rebinding).
    """
    if origin is None or origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and parts.netloc == host
        and (has_key or is_loopback(name))
    )


class Allowance:
    """Bytes and messages of one connection: so many a second, with a burst."""

    def __init__(self, now: float):
        self._at, self._bytes, self._messages = now, float(BYTES_BURST), float(MESSAGES_BURST)

    def take(self, size: int, now: float) -> bool:
        """One message of `size` bytes; False when it is too much."""
        passed, self._at = now - self._at, now
        self._bytes = min(BYTES_BURST, self._bytes + passed * BYTES_PER_S) - size
        self._messages = min(MESSAGES_BURST, self._messages + passed * MESSAGES_PER_S) - 1
        return self._bytes >= 0 and self._messages >= 0
