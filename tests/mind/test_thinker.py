"""Thoughts come from another thread; nobody waits for them but who wants to."""

import threading
import time

from duplex.mind.thinker import Thinker

PATIENCE_S = 30


class Words:
    """Gives words, each when it is let; keeps whether it was told to stop."""

    def __init__(self, words: str, fails: bool = False, reads_slowly: bool = False):
        self.reads_slowly = reads_slowly
        self.words = words.split(" ")
        self.fails = fails
        self.may_go_on = threading.Semaphore(0)
        self.was_cancelled = threading.Event()

    def read(self, messages, tools, is_cancelled):
        self.beginning = messages
        while self.reads_slowly and not is_cancelled():
            time.sleep(0.001)

    def stream(self, messages, tools, is_cancelled):
        for word in self.words:
            assert self.may_go_on.acquire(timeout=PATIENCE_S)
            if is_cancelled():
                self.was_cancelled.set()
                return
            yield f"{word} "
        if self.fails:
            raise OSError("no route")


def test_words_come_as_they_are_thought():
    words = Words("one two")
    thinker = Thinker(words)
    thinker.read([{"role": "system", "content": "count"}])
    thought = thinker.think([{"role": "user", "content": "count"}])
    assert thought.text == "" and not thought.is_done
    for _ in words.words:
        words.may_go_on.release()
    assert thought.wait(PATIENCE_S)
    assert words.beginning[0]["role"] == "system"
    assert (thought.text, thought.pieces, thought.error) == ("one two ", 2, None)


def test_what_nobody_wants_is_not_thought_to_its_end():
    words = Words("one two three")
    thinker = Thinker(words)
    thought = thinker.think([])
    queued = thinker.think([])
    queued.cancel()
    thought.cancel()
    words.may_go_on.release()
    assert words.was_cancelled.wait(PATIENCE_S) or thought.is_done
    assert thought.wait(PATIENCE_S) and queued.wait(PATIENCE_S)
    assert thought.text == queued.text == ""


def test_what_is_only_read_makes_way():
    words = Words("one", reads_slowly=True)
    thinker = Thinker(words)
    readings = [thinker.read([]) for _ in range(3)]
    words.may_go_on.release()
    assert thinker.think([]).wait(PATIENCE_S)
    assert all(reading.is_cancelled and reading.wait(PATIENCE_S) for reading in readings)


def test_a_failure_ends_one_thought_and_the_next_is_thought():
    words = Words("one", fails=True)
    thinker = Thinker(words)
    for _ in range(2):
        words.may_go_on.release()
        thought = thinker.think([])
        assert thought.wait(PATIENCE_S)
        assert thought.text == "one " and thought.error == "OSError: no route"
