"""A director and two servers, each a process of its own, and clients that talk through them."""

import asyncio
import time

import pytest

from duplex.client import connect
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError, UsageError
from duplex.serving.scale.replicas import listed
from tests.serving.scale.processes import Talker, director, servers, talk_on, until_true

pytestmark = pytest.mark.slow  # starts other processes


def sessions(server) -> int:
    return server.ask("GET", "/v1/stats")[1]["sessions"]


def known(front) -> list[dict]:
    """The servers as the director knows them."""
    return front.ask("GET", "/v1/stats")[1]["replicas"]


def test_sessions_are_spread_and_found_again():
    """POST gives a server and a token; the token leads back to that server, in any dialect."""
    with servers(2) as replicas, director(replicas) as front:
        given = [front.ask("POST", "/v1/sessions")[1] for _ in range(4)]
        urls = [one["url"] for one in given]
        assert sorted(urls.count(url) for url in set(urls)) == [2, 2]
        again = {"token": given[1]["token"], "path": "/v1/realtime"}
        status, found = front.ask("POST", "/v1/sessions", again)
        assert status == 200 and found["token"] == given[1]["token"]
        assert found["url"] == urls[1].replace("/v1/duplex", "/v1/realtime")
        # All four places are promised: who comes now waits.
        status, waits = front.ask("POST", "/v1/sessions", {})
        assert status == 202 and waits["place"] == 1
        assert front.ask("POST", "/v1/sessions", {"token": "unknown.x"})[0] == 410
        assert front.ask("POST", "/v1/sessions", {"path": "/elsewhere"})[0] == 400
        assert front.ask("GET", "/v1/duplex")[0] == 421
        evil = {"Origin": "https://evil.example"}
        assert front.ask("POST", "/v1/sessions", {}, evil)[0] == 403
        own = {"Origin": front.url}
        assert front.ask("POST", "/v1/sessions", {}, own)[0] == 202
        assert front.ask("GET", "/")[0] == 200
        assert "duplex_director_places 4.0" in front.ask("GET", "/metrics")[1]


def test_a_plain_server_answers_that_it_is_the_one():
    with servers(1, 1) as [server]:
        found = server.ask("POST", "/v1/sessions", {})
        assert found == (200, {"url": "/v1/duplex", "token": ""})


def test_python_clients_need_only_the_directors_address():
    """A cut is taken up again at the same server, whatever the director would choose now."""

    async def run(front, replicas):
        async with connect(front.url) as call:
            await call.write("hello")
            session = call._session
            [here] = [replica for replica in replicas if sessions(replica)]
            session.drop()
            await call.write("again")
            await until_true(lambda: not session.is_cut)
            assert sessions(here) == 1 and sum(map(sessions, replicas)) == 1
            assert session._url.startswith(here.url.replace("http", "ws"))

    with servers(2) as replicas, director(replicas) as front:
        asyncio.run(run(front, replicas))


def test_full_everywhere_is_refused_or_waited_for(caplog):
    async def refused(front):
        held = [await Talker.call(front.url) for _ in range(2)]
        began = time.monotonic()
        with pytest.raises(ClientError, match="all places are taken; try again later"):
            await RemoteSession.open(front.url)
        print(f"refused after {time.monotonic() - began:.2f} s")
        for talker in held:
            await talker.hang_up()

    async def waits(front):
        held = [await Talker.call(front.url) for _ in range(2)]
        waiting = asyncio.create_task(Talker.call(front.url))
        await until_true(lambda: "number 1 in the line" in caplog.text)
        await held[0].hang_up()
        late = await waiting
        await until_true(lambda: late.answers)
        for talker in (late, held[1]):
            await talker.hang_up()

    with servers(1) as replicas:
        with director(replicas, "--waiting", "0") as front:
            asyncio.run(refused(front))
        with director(replicas) as front:
            asyncio.run(waits(front))


def test_draining_one_of_two_cuts_nobody():
    """2 -> 1 -> 2 while ten talk: the drained server keeps its own until they leave."""

    async def run(front, replicas):
        talkers = [await Talker.call(front.url) for _ in range(10)]
        await until_true(lambda: all(talker.answers for talker in talkers))
        first, second = replicas
        assert (sessions(first), sessions(second)) == (5, 5)
        first.ask("POST", "/drain")
        late = [await Talker.call(front.url) for _ in range(2)]
        assert (sessions(first), sessions(second)) == (5, 7)
        await talk_on(talkers + late)
        first.ask("DELETE", "/drain")
        await until_true(lambda: known(front)[0]["state"] == "ready")
        late.append(await Talker.call(front.url))
        assert sessions(first) == 6
        await talk_on(talkers + late)
        gaps = [talker.longest_gap_s for talker in talkers]
        print(f"ten talked on; the longest silence between two messages was {max(gaps):.2f} s")
        for talker in talkers + late:
            await talker.hang_up()

    with servers(8) as replicas, director(replicas) as front:
        asyncio.run(run(front, replicas))


def test_killed_server_takes_only_its_own_sessions_with_it():
    """Those are told soon, the others talk on, and who comes now lands elsewhere."""

    async def run(front, replicas):
        talkers = [await Talker.call(front.url) for _ in range(4)]
        await until_true(lambda: all(talker.answers for talker in talkers))
        killed = replicas[0]
        hit = [t for t in talkers if t.session._url.startswith(killed.url.replace("http", "ws"))]
        assert len(hit) == 2
        killed.kill()
        told_s = await until_true(lambda: all(talker.ended_at for talker in hit))
        new = [await Talker.call(front.url) for _ in range(2)]
        rest = [talker for talker in talkers if talker not in hit]
        await talk_on(rest + new)
        for talker in rest + new:
            await talker.hang_up()
        print(f"told {told_s:.2f} s after the server was killed")

    with servers(4) as replicas, director(replicas) as front:
        asyncio.run(run(front, replicas))


def test_without_any_server_nobody_waits():
    with servers(1, 1) as replicas, director(replicas) as front:
        replicas[0].kill()
        asyncio.run(until_true(lambda: known(front)[0]["state"] == "down"))
        status, told = front.ask("POST", "/v1/sessions", {})
        assert (status, told["error"]) == (503, "none of the servers answers; try again later")
        assert front.ask("GET", "/readyz")[0] == 503


@pytest.mark.parametrize("entry", ["ftp://a:1", "dns:host", "http://"])
def test_what_is_no_replica_is_told(entry):
    with pytest.raises(UsageError, match="no replica"):
        listed([entry])


def test_replicas_as_people_type_them():
    typed = ["gpu1:8765", "http://gpu2:8765/", "wss://gpu3.example.org", "gpu1:8765"]
    found = listed(typed)
    assert found == ["http://gpu1:8765", "http://gpu2:8765", "https://gpu3.example.org"]
    assert listed(["dns:127.0.0.1:80"]) == ["http://127.0.0.1:80"]
