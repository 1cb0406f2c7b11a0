"""Who may come in, and how fast: keys, origins, the address bound to, rates of messages."""

import hmac
import ipaddress
import re
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from duplex.errors import ServerError


@dataclass(frozen=True)
class Access:
    """The rules of one server."""

    api_key: str | None = None
    # Origins of web pages that may connect, beside this server's own.
    origins: tuple[str, ...] = ()
    # PEM files of the certificate and its key, for wss:// and https://.
    certificate: str | None = None
    private_key: str | None = None
    # Whether to serve beyond this machine without a key.
    open_to_all: bool = False

    def check(self, host: str) -> None:
        """Raises ServerError where it would be open to everybody by mistake."""
        # A browser can only offer a key in the name of a subprotocol (RFC 9110, token).
        if self.api_key and not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", self.api_key, re.ASCII):
            raise ServerError(
                "browsers cannot carry this key; give --api-key letters, digits and -._~ alone, "
                "for example what `openssl rand -hex 24` prints"
            )
        for origin in self.origins:
            if origin != "*" and not _canonical(origin):
                raise ServerError(
                    f"{origin} is no origin of a page; give --origin https://HOST or http://HOST:PORT"
                )
        if not (is_loopback(host) or self.api_key or self.open_to_all):
            raise ServerError(
                f"{host} can be reached by others; "
                "give --api-key, or --open if everybody may come in"
            )

    def tls(self) -> ssl.SSLContext | None:
        """What the certificate makes; None without one. Raises ServerError."""
        if not self.certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ServerError(
                f"cannot use the certificate {self.certificate} ({reason})"
            ) from error
        return context

    def is_valid(self, offered: list[str]) -> bool:
        """Whether the key, if there is one, is among those that a request offers."""
        if not self.api_key:
            return True
        # All are compared, so that the time taken says nothing.
        valid = [hmac.compare_digest(key.encode(), self.api_key.encode()) for key in offered]
        return any(valid)

    def is_allowed_origin(self, origin: str | None, host: str) -> bool:
        """Whether a page of this `Origin` may open a websocket here. Other programs send none.

        Pages of this server may, those that are asked for at its `host`. Without a key its name
        must be this machine's own, unless everybody may come in: a page elsewhere could otherwise
        have its name resolved to this machine (DNS rebinding).
        """
        if origin is None or "*" in self.origins or _canonical(origin) in self._canonical_origins():
            return True
        own = [_canonical(f"{scheme}://{host}") for scheme in ("http", "https")]
        found = _canonical(origin)
        if not found or found not in own:
            return False
        name = urlsplit(found).hostname or ""
        # An address that is no name cannot be resolved to another.
        is_safe = bool(self.api_key) or self.open_to_all or is_loopback(name) or is_address(name)
        return is_safe

    def _canonical_origins(self) -> list[str]:
        return [_canonical(origin) for origin in self.origins]


def _canonical(origin: str) -> str:
    """An origin as browsers send it: small letters, no usual port or slash; empty if it is none."""
    origin = origin.strip().lower()
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return ""
    # Pages of a file have the origin null, those of apps a scheme of their own.
    if origin == "null":
        return origin
    if not parts.hostname or parts.scheme in ("", "ws", "wss"):
        return ""
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_usual = port in (None, {"http": 80, "https": 443}.get(parts.scheme))
    return f"{parts.scheme}://{name}" + ("" if is_usual else f":{port}")


def offered_keys(headers, subprotocols: list[str]) -> list[str]:
    """The keys that a request brings."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    offered = [token.strip()] if scheme.lower() == "bearer" else []
    # Browsers cannot set headers on a websocket.
    prefixes = ("bearer.", "openai-insecure-api-key.")
    return offered + [
        name.removeprefix(prefix)
        for name in subprotocols
        for prefix in prefixes
        if name.startswith(prefix)
    ]


def is_address(host: str) -> bool:
    """Whether it is an address in numbers, not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class TokenBucket:
    """So much a second, with a burst."""

    def __init__(self, per_s: float, burst: float, now: float):
        self._per_s = per_s
        self._burst = burst
        self._left = float(burst)
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take so much; False when it is more than there is."""
        refilled = self._left + (now - self._at) * self._per_s
        self._at = now
        self._left = min(self._burst, refilled) - amount
        return self._left >= 0

    def wait_s(self) -> float:
        """Seconds until what was taken too much is made up for."""
        return max(0.0, -self._left / self._per_s)
