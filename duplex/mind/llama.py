"""A text model in this process, by llama.cpp (the package xllamacpp, extra `mind`)."""

import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from duplex.errors import MindError
from duplex.mind.thinker import NO_TOOLS, Call, Message, Tools
from duplex.mind.told import (
    UNTOLD,
    asks_what_was_told,
    is_told,
    repeats,
    told_words,
    with_check,
)
from duplex.mind.tool_text import call_bias, call_grammar, read_calls, with_tools

# Positions that the model can hold: 4096 of conversation, instructions, functions, its answer.
CONTEXT = 8192
# Memory for the beginnings of conversations that are not under way, MiB.
CACHE_MIB = 512
# Tokens that one answer may have.
MAX_TOKENS = 600
# Tokens that are read at a time; between them reading can be broken off. On a CPU each costs about
# as much as one that is thought, however many there are.
READ_TOKENS = 8
# Tokens that must be the same, at another place, to be moved there instead of read again: so the
# rest of a conversation whose oldest turns are dropped costs nothing.
MOVED_TOKENS = 16
# Nats for Yes. Of 31 questions about who it is and of general kind, Qwen2.5-Coder-1.5B finds Yes
# likelier than No by 2.7 to 4.8 nats where that is right, and by up to 2.5 where it is not.
YES_NATS = -2.5
# What a request for one token has, whose likeliest are told.
TOP_TOKENS = {"logprobs": True, "top_logprobs": 40}
# Before a grammar in the language of llguidance, which llama.cpp has beside its own.
GRAMMAR_MARK = "%llguidance {}\n"
# Steps of politeness below the ticks, as the second pass of recognition has. With 10, beside a
# training on both cores, all of six spoken questions were answered only when the wait was over.
NICENESS = 5


class Llama:
    """A GGUF file; the beginning that a conversation shares with the last one is not read again.

    It is loaded by the first thread that reads or thinks, whose priority llama.cpp's own threads
    inherit. llama.cpp is a server as well, whether one likes it or not: its socket is in a folder
    that is gone when it has begun, where nobody finds it.
    """

    def __init__(self, find: Callable[[], Path], threads: int = 1, llama=None):
        """find: gives the file, and may take long; llama: stands for the package xllamacpp."""
        self.llama = llama or find_llama()
        self.find = find
        self.threads = threads
        self.server = None

    def read(self, messages: list[Message], tools: Tools, is_cancelled: Callable[[], bool]) -> None:
        """Have the messages in the cache."""
        self._load()
        if messages:
            told = with_tools(messages, tools)
            # llama.cpp takes a second for its first grammar: it has that before anybody waits.
            more = {"add_generation_prompt": False, **_bounds(messages, tools)}
            wanted = request(told, 0, more)
            self.server.handle_chat_completions(wanted, lambda chunk: is_cancelled())

    def _load(self) -> None:
        """Load the file, which takes seconds, once."""
        if self.server is not None:
            return
        params = self.llama.CommonParams()
        params.model.path = str(self.find())
        params.n_ctx = CONTEXT
        params.n_batch = READ_TOKENS
        params.n_ubatch = READ_TOKENS
        params.n_cache_reuse = MOVED_TOKENS
        params.cpuparams.n_threads = self.threads
        params.cpuparams_batch.n_threads = self.threads
        params.n_parallel = 1
        params.n_threads_http = 1
        params.cache_ram_mib = CACHE_MIB
        params.verbosity = -1
        with tempfile.TemporaryDirectory(prefix="duplex-") as folder:
            if sys.platform != "win32":
                params.hostnames = [f"{folder}/llama.sock"]
            self.server = self.llama.Server(params)

    def stream(
        self, messages: list[Message], tools: Tools, is_cancelled: Callable[[], bool]
    ) -> Iterator[str | Call]:
        """Pieces of the answer as they come, and calls. Raises MindError."""
        self._load()
        answer = self._pieces(_answer(messages, tools), is_cancelled)
        # With functions at hand one of them may know.
        if asks_what_was_told(messages) and not tools.functions:
            yield from self._not_made_up(messages, answer, is_cancelled)
        else:
            yield from read_calls(answer, tools)

    def _not_made_up(
        self, messages: list[Message], answer: Iterator[str], is_cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        """The answer, held until a word of it was told; without one, whether it was is asked."""
        told = told_words(messages)
        held = ""
        for piece in answer:
            held += piece
            if repeats(told, held[: held.rfind(" ") + 1]):
                yield held
                yield from answer
                return
        if repeats(told, held) or self._is_told(messages, is_cancelled):
            yield held
            return
        yield UNTOLD
        begun = [*messages, {"role": "assistant", "content": UNTOLD}]
        yield from self._pieces(_answer(begun, NO_TOOLS), is_cancelled)

    def _is_told(self, messages: list[Message], is_cancelled: Callable[[], bool]) -> bool:
        """Whether the answer to the last question stands before it; costs what 20 tokens cost."""
        wanted = request(with_tools(with_check(messages), NO_TOOLS), 1, TOP_TOKENS)
        for chunk in self._chunks(wanted, is_cancelled):
            for choice in chunk.get("choices", [])[:1]:
                if found := choice.get("logprobs"):
                    likeliest = found["content"][0]["top_logprobs"]
                    return is_told({one["token"]: one["logprob"] for one in likeliest})
        return True

    def _pieces(self, wanted: dict, is_cancelled: Callable[[], bool]) -> Iterator[str]:
        """Pieces of the text that the model writes."""
        for chunk in self._chunks(wanted, is_cancelled):
            if "choices" not in chunk:
                raise MindError(str(chunk)[:300])
            for choice in chunk["choices"][:1]:
                text = (choice.get("delta") or {}).get("content")
                if text:
                    yield text

    def _chunks(self, wanted: dict, is_cancelled: Callable[[], bool]) -> Iterator[dict]:
        """llama.cpp calls back; a second thread makes a stream of that."""
        chunks: queue.SimpleQueue = queue.SimpleQueue()

        def take(chunk: dict) -> bool:
            """Whether it shall stop."""
            chunks.put(chunk)
            return is_cancelled()

        def run() -> None:
            try:
                self.server.handle_chat_completions(wanted, take)
            except Exception as error:
                chunks.put(error)
            chunks.put(None)

        threading.Thread(target=run, name="llama", daemon=True).start()
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def request(messages: list[Message], max_tokens: int, more: dict) -> dict:
    """What llama.cpp is asked: the likeliest answer, in pieces; more: other fields."""
    return more | {
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "cache_prompt": True,
        "stream": True,
        # llama.cpp calls back after each READ_TOKENS too, and can be stopped then.
        "return_progress": True,
    }


def _answer(messages: list[Message], tools: Tools) -> dict:
    """What llama.cpp is asked for an answer, or for the rest of one that is begun."""
    return request(with_tools(messages, tools), MAX_TOKENS, _bounds(messages, tools))


def _bounds(messages: list[Message], tools: Tools) -> dict:
    """What the answer may be, and what is made likelier in it."""
    bounds: dict = {"logit_bias": [["Yes", YES_NATS], *call_bias(tools)]}
    if grammar := call_grammar(messages, tools):
        bounds["grammar"] = GRAMMAR_MARK + grammar
    return bounds


def find_llama():
    """The package xllamacpp. Raises MindError."""
    try:
        import xllamacpp
    except ImportError as error:
        raise MindError("the large mind needs llama.cpp: pip install 'duplex[mind]'") from error
    return xllamacpp


def be_polite() -> None:
    """Let the ticks go before this thread and those that it will start."""
    if sys.platform == "linux":  # Where a thread has a priority of its own.
        thread = os.PRIO_PROCESS, threading.get_native_id()
        os.setpriority(*thread, os.getpriority(*thread) + NICENESS)
