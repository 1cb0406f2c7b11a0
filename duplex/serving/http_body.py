"""A websocket server's connection that also takes an HTTP request with a body.

The library knows only requests without one. Here the body is kept aside and the library is given
the rest, so that one place answers every request.
"""

from websockets.asyncio.server import ServerConnection


class BodyConnection(ServerConnection):
    """See above; `body` is complete when the request is processed."""

    # Bytes of a request's head that are waited for, and of a body.
    max_head_bytes = 1 << 15
    max_body_bytes = 1 << 17
    body = b""
    _received: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._received is None:
            super().data_received(data)
            return
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end and len(self._received) <= self.max_head_bytes:
            return
        length = _body_bytes(head)
        if end and 0 < length <= self.max_body_bytes:
            if len(rest) < length:
                return
            self.body = rest[:length]
            rest = rest[length:]
            lines = head.split(b"\r\n")
            head = b"\r\n".join(line for line in lines if not _is_length(line))
        self._received = None
        super().data_received(head + end + rest)


def _is_length(line: bytes) -> bool:
    return line.lower().startswith(b"content-length:")


def _body_bytes(head: bytes) -> int:
    """What Content-Length says; 0 where there is none, or none that is a number."""
    found = [line.partition(b":")[2].strip() for line in head.split(b"\r\n") if _is_length(line)]
    is_number = len(found) == 1 and found[0].isdigit() and len(found[0]) < 10
    return int(found[0]) if is_number else 0
