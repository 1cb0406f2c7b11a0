"""Who gets the next place, and how long it takes: the line without a clock."""

import asyncio
import http.server
import threading

import pytest

from duplex.serving.scale.replicas import Replica, Replicas, with_most_room
from duplex.serving.scale.waiting import Line, LineConfig, Waits


def test_places_go_to_who_came_first():
    line = Line()
    first = line.ask("", room=0, now=0)
    second = line.ask("", room=0, now=1)
    assert (first.place, second.place) == (1, 2)
    # One place is free: neither who comes now nor the second in line may have it.
    assert line.ask("", room=1, now=2).place == 3
    assert line.ask(second.ticket, room=1, now=2) == Waits(second.ticket, 2, None)
    assert line.ask(first.ticket, room=1, now=2) is None
    assert line.ask(second.ticket, room=1, now=3) is None


def test_who_goes_away_is_forgotten():
    line = Line(LineConfig(absence_s=10))
    gone = line.ask("", room=0, now=0)
    stays = line.ask("", room=0, now=5)
    assert line.ask(stays.ticket, room=0, now=11).place == 1
    # The old ticket begins at the end.
    assert line.ask(gone.ticket, room=0, now=12).place == 2


def test_a_full_line_and_a_long_wait_are_refused_in_a_sentence():
    line = Line(LineConfig(max_waiting=1, patience_s=8))
    waits = line.ask("", room=0, now=0)
    assert line.ask("", 0, 1) == "all places are taken and 1 wait already; try again later"
    assert line.ask(waits.ticket, 0, 8).place == 1
    assert line.ask(waits.ticket, 0, 9) == "no place came free within 8 s; try again later"
    assert line.refused == 2 and len(line) == 0
    nobody = Line(LineConfig(max_waiting=0))
    assert nobody.ask("", 0, 0) == "all places are taken; try again later"


def test_the_estimate_is_by_how_often_sessions_ended():
    line = Line(now=0)
    assert line.ask("", 0, 0).wait_s is None
    line.note_ends(3, now=60)
    # Three ended in 60 s: the second in line waits for two.
    assert line.ask("", 0, 60).wait_s == 20
    line.note_ends(0, now=10_000)
    assert line.ask("", 0, 10_000).wait_s is None


def test_a_place_that_was_lost_meanwhile_costs_nobody_the_turn():
    line = Line()
    first = line.ask("", 0, 0)
    line.ask("", 0, 0)
    assert line.ask(first.ticket, 1, 1) is None
    line.give_back(first.ticket, 1)
    assert line.ask(first.ticket, 0, 1).place == 1


def test_the_server_with_most_room_is_chosen():
    replicas = [
        Replica("http://a:1", "ready", 8, 3),
        Replica("http://b:1", "ready", 8, 5),
        Replica("http://c:1", "draining", 8, 8),
        Replica("http://d:1", "down", 8, 8),
    ]
    assert with_most_room(replicas, now=0).url == "http://b:1"
    # Places that were promised count as taken, until the promise lapses.
    replicas[1].promised.extend([5.0, 5.0, 5.0])
    assert with_most_room(replicas, now=1).url == "http://a:1"
    assert with_most_room(replicas, now=6).url == "http://b:1"
    assert with_most_room(replicas[2:], now=0) is None


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n[1]"])
def test_what_is_no_server_of_ours_is_down_and_told_once(answer, caplog):
    """Whatever it answers: the watch must go on."""

    class Other(http.server.BaseHTTPRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(answer)

    async def look(url):
        replicas = Replicas([url], None, lambda: 7.0)
        for _ in range(2):
            await replicas.ask_all()
        [replica] = replicas.all
        assert (replica.state, replica.down_since) == ("down", 7.0) and not replicas.room()
        assert await replicas.take() is None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever).start()
        asyncio.run(look(f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert caplog.text.count("does not answer") == 1
