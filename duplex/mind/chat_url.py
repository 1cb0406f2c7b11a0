"""A text model behind any OpenAI-compatible URL: chat completions, streamed."""

import http.client
import json
import os
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from duplex.errors import MindError
from duplex.mind.thinker import Call, Message, Tools

# The environment variable with the key of such a server.
KEY_VARIABLE = "DUPLEX_MIND_KEY"
# Tokens that one answer may have.
MAX_TOKENS = 600


class ChatURL:
    """URL: of the API as clients are given it, `https://host/v1`; `#name` behind it is the model.

    Without a name the server's first model is taken, at the first answer.
    """

    def __init__(self, url: str, key: str | None = None):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise MindError(f"{url!r} is no URL of a mind; give http://HOST:PORT/v1#MODEL")
        self.is_secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port
        self.path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self.model = parts.fragment
        self.key = os.environ.get(KEY_VARIABLE) if key is None else key

    @property
    def notice(self) -> str:
        """What leaves this machine, for whoever starts the agent."""
        how = "encrypted" if self.is_secure else "not encrypted"
        return (
            f"the mind is at {self.host}: the instructions, the words of both sides and what "
            f"functions give are sent there, {how}, no sound"
        )

    def read(self, messages: list[Message], tools: Tools, is_cancelled: Callable[[], bool]) -> None:
        """Nothing is sent before there is a question."""

    def stream(
        self, messages: list[Message], tools: Tools, is_cancelled: Callable[[], bool]
    ) -> Iterator[str | Call]:
        """Pieces of the answer as they come, then the calls. Raises MindError, OSError."""
        body = {
            "model": self._find_model(),
            "messages": messages,
            "stream": True,
            "max_tokens": MAX_TOKENS,
        }
        if tools.functions:
            body["tools"] = [{"type": "function", "function": one} for one in tools.functions]
            body["tool_choice"] = _choice(tools)
        # By their index; they come in pieces.
        calls: dict[int, dict[str, str]] = {}
        connection = self._connect()
        try:
            for line in self._ask(connection, "POST", "/chat/completions", body):
                if is_cancelled():
                    return
                data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
                if data == "[DONE]":
                    break
                if data.startswith("{"):
                    yield from _pieces(json.loads(data), calls)
            for _, call in sorted(calls.items()):
                yield Call(call["id"], call["name"], call["arguments"] or "{}")
        finally:
            connection.close()

    def _find_model(self) -> str:
        if not self.model:
            connection = self._connect()
            try:
                listed = json.load(self._ask(connection, "GET", "/models"))["data"]
                self.model = listed[0]["id"]
            except (KeyError, IndexError, ValueError) as error:
                raise MindError(f"{self.host} names no model; put #MODEL behind its URL") from error
            finally:
                connection.close()
        return self.model

    def _connect(self, timeout_s: float = 20.0) -> http.client.HTTPConnection:
        """timeout_s: so long without a byte ends an answer."""
        kind = http.client.HTTPSConnection if self.is_secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout_s)

    def _ask(self, connection, method: str, path: str, body: dict | None = None):
        """The response, whose status is 200."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        sent = None if body is None else json.dumps(body)
        connection.request(method, self.path + path, sent, headers)
        response = connection.getresponse()
        if response.status != 200:
            text = response.read(300).decode("utf-8", "replace")
            raise MindError(f"{self.host} answered {response.status}: {text}")
        return response


def _choice(tools: Tools) -> str | dict:
    """As the API has it."""
    if tools.choice in ("auto", "none", "required"):
        return tools.choice
    return {"type": "function", "function": {"name": tools.choice}}


def _pieces(chunk: dict, calls: dict[int, dict[str, str]]) -> Iterator[str]:
    """The text in one object of the stream; pieces of calls are added to those that there are."""
    if "error" in chunk:
        raise MindError(str(chunk["error"]))
    for choice in chunk.get("choices", [])[:1]:
        delta = choice.get("delta") or {}
        if delta.get("content"):
            yield delta["content"]
        for place, piece in enumerate(delta.get("tool_calls") or []):
            index = piece.get("index", place)
            call = calls.setdefault(index, {"id": f"call_{index}", "name": "", "arguments": ""})
            call["id"] = piece.get("id") or call["id"]
            function = piece.get("function") or {}
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
