"""llama.cpp as the thinker, with a stand-in for its package: nothing is fetched."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from duplex.errors import MindError
from duplex.mind.llama import CONTEXT, MAX_TOKENS, Llama
from duplex.mind.thinker import NO_TOOLS, Thinker, Tools

PATIENCE_S = 30
MESSAGES = [{"role": "user", "content": "hi"}]


def never() -> bool:
    return False


class Params(SimpleNamespace):
    """Of llama.cpp, as far as they are set."""

    def __init__(self):
        super().__init__(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )


class Server:
    """Calls back with each piece, as llama.cpp does; keeps what it was asked."""

    made = 0
    pieces = ("Hel", "lo", " there.")

    def __init__(self, params):
        type(self).made += 1
        self.params = params
        self.asked = []
        self.given = 0

    def handle_chat_completions(self, request, take):
        self.asked.append(request)
        deltas = [{"role": "assistant", "content": None}, *({"content": p} for p in self.pieces)]
        for delta in deltas[: 1 + request["max_tokens"]]:
            self.given += 1
            if take({"choices": [{"index": 0, "delta": delta}]}):
                return


class Broken(Server):
    """Says what is wrong."""

    def handle_chat_completions(self, request, take):
        take({"error": {"message": "too long"}})


def llama_of(server) -> Llama:
    package = SimpleNamespace(CommonParams=Params, Server=server)
    return Llama(lambda: Path("mind.gguf"), llama=package)


def test_words_are_streamed_and_the_file_is_read_once():
    llama = llama_of(Server)
    before = Server.made
    llama.read([], NO_TOOLS, never)
    for _ in range(2):
        assert list(llama.stream(MESSAGES, NO_TOOLS, lambda: False)) == list(Server.pieces)
    assert Server.made == before + 1
    params = llama.server.params
    assert (params.model.path, params.n_ctx, params.cpuparams.n_threads) == (
        "mind.gguf",
        CONTEXT,
        1,
    )
    asked = llama.server.asked[-1]
    assert asked["messages"] == MESSAGES and asked["max_tokens"] == MAX_TOKENS


def test_a_beginning_is_read_without_an_answer():
    llama = llama_of(Server)
    llama.read(MESSAGES, NO_TOOLS, never)
    [asked] = llama.server.asked
    assert asked["max_tokens"] == 0 and not asked["add_generation_prompt"]


def test_reading_is_broken_off():
    llama = llama_of(Server)
    llama.read(MESSAGES, NO_TOOLS, lambda: True)
    assert llama.server.given == 1 and llama.server.params.n_batch <= 16


def test_nobody_can_connect_to_it():
    llama = llama_of(Server)
    llama.read([], NO_TOOLS, never)
    [socket] = llama.server.params.hostnames
    assert socket.endswith(".sock") and not Path(socket).parent.exists()


def test_llama_stops_when_it_is_cancelled():
    llama = llama_of(Server)
    assert list(llama.stream(MESSAGES, NO_TOOLS, lambda: True)) == []
    assert llama.server.given == 1


def test_what_is_wrong_is_told():
    thought = Thinker(llama_of(Broken)).think(MESSAGES)
    assert thought.wait(PATIENCE_S) and "too long" in thought.error
    with pytest.raises(MindError):
        list(llama_of(Broken).stream(MESSAGES, NO_TOOLS, lambda: False))


def test_functions_come_with_a_grammar():
    source = llama_of(Server)
    for tools in (NO_TOOLS, Tools(({"name": "get_time"},))):
        list(source.stream(MESSAGES, tools, never))
    source.read(MESSAGES, tools, never)
    without, bound, read = source.server.asked
    assert "grammar" not in without
    assert bound["grammar"].startswith("%llguidance") and "get_time" in bound["grammar"]
    assert read["grammar"] == bound["grammar"]


def test_yes_is_made_as_likely_as_it_is_right():
    source = llama_of(Server)
    list(source.stream(MESSAGES, NO_TOOLS, never))
    [[text, nats]] = source.server.asked[-1]["logit_bias"]
    assert text == "Yes" and nats < 0


class Forgetful(Server):
    """Finds that nobody told what it is asked for."""

    def handle_chat_completions(self, request, take):
        if "logprobs" not in request:
            super().handle_chat_completions(request, take)
            return
        self.asked.append(request)
        likeliest = [{"token": "No", "logprob": -0.2}, {"token": "Yes", "logprob": -1.8}]
        first = {"logprobs": {"content": [{"top_logprobs": likeliest}]}}
        take({"choices": [{"delta": {"content": "No"}, **first}]})


def test_what_nobody_told_is_not_made_up():
    source = llama_of(Forgetful)
    asked = [{"role": "user", "content": "Where do I live"}]
    begin, *rest = source.stream(asked, NO_TOOLS, never)
    assert begin == "You haven't told me" and rest == list(Server.pieces)
    made_up, check, answer = (request["messages"] for request in source.server.asked)
    assert made_up == asked and check[-1]["role"] == "user"
    assert answer == [*asked, {"role": "assistant", "content": begin}]
    tools = Tools(({"name": "find_home"},))
    assert list(source.stream(asked, tools, never)) == list(Server.pieces)


def test_what_was_told_is_answered_as_soon_as_a_word_shows_it():
    source = llama_of(Forgetful)
    told = [{"role": "user", "content": text} for text in ("Be kind.", "Hello is my street")]
    asked = [*told, {"role": "user", "content": "Where do I live"}]
    assert list(source.stream(asked, NO_TOOLS, never)) == ["Hello there."]
    assert len(source.server.asked) == 1


def test_what_was_told_in_other_words_is_answered():
    source = llama_of(Server)
    asked = [{"role": "user", "content": "Where do I live"}]
    assert list(source.stream(asked, NO_TOOLS, never)) == ["Hello there."]
    assert len(source.server.asked) == 2
