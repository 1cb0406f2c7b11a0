"""Any OpenAI-compatible server, here one that a test runs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from duplex.errors import MindError
from duplex.mind.chat_url import ChatURL
from duplex.mind.load import load_thinker
from duplex.mind.thinker import NO_TOOLS, Call, Thinker, Tools

PATIENCE_S = 30
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]


class Server(BaseHTTPRequestHandler):
    """Answers with the words of `server.words`; keeps what it was asked."""

    def do_GET(self):
        self.reply(200, json.dumps({"data": [{"id": "first"}, {"id": "second"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        if not self.server.words:
            self.reply(429, "too many")
            return
        parts = [{"role": "assistant", "content": None}]
        parts += [{"content": word} for word in self.server.words]
        parts += self.server.deltas
        lines = [json.dumps({"choices": [{"index": 0, "delta": part}]}) for part in parts]
        self.reply(200, "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]))

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.asked = []
    server.deltas = []
    server.words = ["Hel", "lo", " thère."]
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def never() -> bool:
    return False


def test_words_are_streamed(server):
    assert (
        list(ChatURL(f"{server.url}#mine", "k").stream(MESSAGES, NO_TOOLS, never)) == server.words
    )
    [(path, key, body)] = server.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer k")
    assert body["messages"] == MESSAGES and body["stream"] and body["model"] == "mine"


def test_first_model_is_taken_where_none_is_named_and_no_key_is_sent(server):
    list(ChatURL(f"{server.url}/chat/completions", "").stream(MESSAGES, NO_TOOLS, never))
    [(path, key, body)] = server.asked
    assert (path, key, body["model"]) == ("/v1/chat/completions", None, "first")


def test_nothing_more_is_read_once_it_is_cancelled(server):
    pieces = ChatURL(server.url).stream(MESSAGES, NO_TOOLS, never)
    assert next(pieces) == server.words[0]
    pieces.close()
    assert list(ChatURL(server.url).stream(MESSAGES, NO_TOOLS, lambda: True)) == []


def test_a_refusal_is_one_sentence(server):
    server.words = []
    thought = Thinker(ChatURL(f"{server.url}#mine")).think(MESSAGES)
    assert thought.wait(PATIENCE_S)
    assert thought.error == "MindError: 127.0.0.1 answered 429: too many"


def test_what_leaves_the_machine_is_said(server, capsys):
    thinker = load_thinker(server.url)
    said = capsys.readouterr().err
    assert "127.0.0.1" in said and "words of both sides" in said and "not encrypted" in said
    thought = thinker.think(MESSAGES)
    assert thought.wait(PATIENCE_S) and thought.text == "Hello thère."


def test_names_of_minds():
    assert load_thinker("small") is None
    with pytest.raises(MindError, match="no mind 'huge'"):
        load_thinker("huge")
    with pytest.raises(MindError, match="no URL"):
        ChatURL("ftp://somewhere")


def test_calls_come_in_pieces(server):
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 1, "id": "c2", "function": {"name": "get_time", "arguments": ""}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
    ]
    server.deltas = [{"tool_calls": [piece]} for piece in pieces]
    tools = Tools(({"name": "get_weather"}, {"name": "get_time"}), "get_weather")
    found = list(ChatURL(f"{server.url}#mine").stream(MESSAGES, tools, never))
    calls = [part for part in found if isinstance(part, Call)]
    assert [(c.id, c.name, c.arguments) for c in calls] == [
        ("c1", "get_weather", '{"city": "Oslo"}'),
        ("c2", "get_time", "{}"),
    ]
    [(_, _, body)] = server.asked
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "get_time"]
    assert body["tool_choice"]["function"] == {"name": "get_weather"}
