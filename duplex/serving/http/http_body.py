"""A websocket server's connection that also takes other HTTP requests.

The library knows only requests of HTTP/1.1 without a body, and before its version 17 only GET. Here
method and body are kept aside, a proxy that speaks HTTP/1.0 is taken for a later one, and the
library is given the rest as a GET, so that one place answers every request. SDKs of OpenAI want
version 15 or 16 beside them.
"""

import http

from websockets.asyncio.server import ServerConnection


class BodyConnection(ServerConnection):
    """See above; `method` and `body` are complete when the request is processed."""

    # Bytes of a request's head that are waited for, and of a body.
    max_head_bytes = 1 << 15
    max_body_bytes = 1 << 17
    method = "GET"
    body = b""
    # Why its body is not read.
    fault: http.HTTPStatus | None = None
    # The dialect that is spoken, and the path that it was found at, without a key.
    dialect = None
    path = ""
    _received: bytes | None = b""
    # Bytes of a body that is too large.
    _skipped = 0

    def allow_messages(self, size: int) -> None:
        """Messages may have so many bytes."""
        is_old = hasattr(self.protocol, "max_size")  # Before version 16 of the library.
        setattr(self.protocol, "max_size" if is_old else "max_message_size", size)

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._received is None:
            super().data_received(data)
            return
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end and len(self._received) <= self.max_head_bytes:
            return
        lines = head.split(b"\r\n")
        length = _body_bytes(lines)
        if end and length > self.max_body_bytes:
            # It is thrown away as it comes: who still sends does not read an answer.
            self.fault = http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self._skipped += len(rest)
            self._received = head + end
            if self._skipped < length:
                return
        elif end and any(line.lower().startswith(b"transfer-encoding:") for line in lines):
            self.fault = http.HTTPStatus.LENGTH_REQUIRED
        elif end and len(rest) < length:
            return
        if end:
            self.body = b"" if self.fault else rest[:length]
            rest = b"" if self.fault else rest[length:]
            head = b"\r\n".join(line for line in lines if not _tells_of_body(line))
        self._received = None
        line, more, fields = head.partition(b"\r\n")
        if line.endswith(b" HTTP/1.0"):
            line = line.removesuffix(b"0") + b"1"
        method, space, where = line.partition(b" ")
        self.method = method.decode(errors="replace")
        line = b"GET" + space + where if space else line
        super().data_received(line + more + fields + end + rest)


def _tells_of_body(line: bytes) -> bool:
    return line.lower().startswith((b"content-length:", b"transfer-encoding:"))


def _body_bytes(lines: list[bytes]) -> int:
    """What Content-Length says; 0 where there is none, or none that is a number."""
    lengths = [line for line in lines if line.lower().startswith(b"content-length:")]
    found = [line.partition(b":")[2].strip() for line in lengths]
    is_number = len(found) == 1 and found[0].isdigit() and len(found[0]) < 10
    return int(found[0]) if is_number else 0
