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

    def has_valid_key(self, headers, subprotocols: list[str]) -> bool:
        """Whether the key, if there is one, came as a bearer token or inside a subprotocol."""
        if not self.api_key:
            return True
        offered = offered_keys(headers, subprotocols)
        # All are compared, so that the time taken says nothing.
        valid = [hmac.compare_digest(key.encode(), self.api_key.encode()) for key in offered]
        return any(valid)

    def is_allowed_origin(self, origin: str | None, host: str) -> bool:
        """Whether a page of this `Origin` may open a websocket here. Other programs send none.

        Pages of this server may. Without a key its name must be this machine's own: a page
        elsewhere could otherwise have its name resolved to this machine (DNS rebinding).
        """
        if origin is None or origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        is_own = parts.scheme in ("http", "https") and parts.netloc == host
        # An address that is no name cannot be resolved to another.
        return is_own and (bool(self.api_key) or is_loopback(name) or is_address(name))


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
