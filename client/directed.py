"""Asking a director which server has a place; see duplex/serving/scale/director.py."""

import asyncio
import json
import logging
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from duplex.client import address
from duplex.errors import ClientError
from duplex.serving.native.messages import SESSIONS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placed:
    """Where a director has put a session."""

    # The websocket of its server.
    url: str
    # Names that server to the director.
    token: str
    # The websocket's address at which the director was asked.
    director: str


async def place(director: str, headers: dict) -> Placed:
    """Ask for a server, and wait in the director's line where all are full. Raises ClientError.

    director: its address as that of a websocket. headers: of every request, with the key.
    """
    fields = {"path": urlsplit(director).path}
    told = None
    while True:
        status, answer = await asyncio.to_thread(_post, director, headers, fields)
        if status == 200:
            return Placed(urljoin(director, answer["url"]), answer["token"], director)
        if status != 202:
            reason = answer.get("error") or f"HTTP {status}"
            raise ClientError(f"the director at {director} places no session: {reason}")
        if answer["place"] != told:
            told = answer["place"]
            wait_s = answer["wait_s"]
            estimate = "" if wait_s is None else f", about {wait_s} s"
            log.warning("all places are taken; number %d in the line%s", told, estimate)
        fields["ticket"] = answer["ticket"]
        await asyncio.sleep(answer["retry_s"])


async def is_gone(placed: Placed, headers: dict) -> bool:
    """Whether the server of a session is gone for good, as far as the director knows."""
    try:
        status, _ = await asyncio.to_thread(
            _post, placed.director, headers, {"token": placed.token}
        )
    except ClientError:
        # Nor does the director answer: the fault may be on this side.
        return False
    return status == 410


def _post(director: str, headers: dict, fields: dict, patience_s: float = 10) -> tuple[int, dict]:
    """Status and fields of the director's answer. Raises ClientError where there is none."""
    parts = urlsplit(director)
    url = f"http{parts.scheme.removeprefix('ws')}://{parts.netloc}{SESSIONS}"
    request = urllib.request.Request(url, json.dumps(fields).encode(), headers)
    proxy = address.proxy_to(director)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({parts.scheme.replace("ws", "http"): proxy} if proxy else {})
    )
    try:
        with opener.open(request, timeout=patience_s) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, _fields(error.read())
    except (OSError, ValueError) as error:
        raise ClientError(f"the director at {url} does not answer ({error})") from error


def _fields(body: bytes) -> dict:
    """What a refusal says, in JSON or as a sentence."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    return {"error": body.decode(errors="replace").strip()[:300]}
