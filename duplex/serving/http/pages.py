"""The files of the web client. No sockets here."""

import http
from functools import cache
from importlib.resources import files

# Headers of every answer.
SAFE = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; media-src blob:; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


# Content types by the ends of the page's files.
KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


@cache
def _names() -> frozenset[str]:
    """The only files that are ever served."""
    return frozenset(file.name for file in files("duplex.client").joinpath("web").iterdir())


@cache
def _file(name: str) -> bytes:
    return files("duplex.client").joinpath("web", name).read_bytes()


def answer(path: str) -> tuple[http.HTTPStatus, str, bytes] | None:
    """Status, content type and body of a path; None where there is no such page."""
    name = "index.html" if path == "/" else path.removeprefix("/")
    if name not in _names():
        return None
    return http.HTTPStatus.OK, KINDS[name.rpartition(".")[2]], _file(name)
