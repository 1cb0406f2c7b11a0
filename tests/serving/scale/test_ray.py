"""The deployment on Ray Serve: two replicas on this machine, users who talk, scaling, a death.

Needs the extra `ray`. DUPLEX_TALK_S=300 has them talk on for five minutes at each step.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from duplex.client.remote import RemoteSession
from duplex.errors import ClientError, UsageError
from duplex.serving.dialect import DIALECTS
from duplex.serving.limits import ClientTerms
from duplex.serving.native import messages as native
from tests.helpers import next_event
from tests.serving.scale.processes import Talker, load_tiny, talk_on, until_true

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'duplex[ray]'")
pytestmark = pytest.mark.slow  # starts other processes

from ray import serve  # noqa: E402

from duplex.serving.scale.ray_serve import RayConfig, app, deployment  # noqa: E402

PORT = 8798
URL = f"ws://127.0.0.1:{PORT}"
PLACES = 6
OPTIONS = ["--max-sessions", str(PLACES), "--longest", "1200", "--grace", "1"]


def run(replicas: int, waits: bool = True) -> None:
    """Have so many replicas. waits: until it is so, also for sessions of one that is to go."""
    config = RayConfig(
        gpus=0,
        cpus=0.5,
        min_replicas=replicas,
        max_replicas=replicas,
        upscale_s=0.5,
        downscale_s=0.5,
    )
    target = serve.RunTarget(deployment(OPTIONS, config, load_tiny))
    serve.run_many([target], wait_for_applications_running=waits)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Ray's processes are nice, and starve beside a training.
    os.environ.update(RAY_worker_niceness="0", RAY_AUTH_MODE="disabled")
    os.environ.update(RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="60", RAY_USAGE_STATS_ENABLED="0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": PORT})
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
def two(cluster) -> None:
    run(2)


def processes() -> list[int]:
    """Process numbers of the replicas that are there, the draining ones included."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end meanwhile
            if "ServeReplica:default:duplex" in " ".join(one.cmdline()):
                found.append(one.pid)
    return found


def get(path: str, headers: dict | None = None, body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def calls(number: int) -> list[Talker]:
    return [await Talker.call(URL) for _ in range(number)]


async def hang_up(talkers: list[Talker]) -> None:
    for talker in talkers:
        await talker.hang_up()


def test_pages_figures_and_every_dialect(two):
    async def dialects():
        for path in DIALECTS:
            async with connect(URL + path) as connection:
                assert connection.response.status_code == 101
        async with connect(URL + "/v1/realtime") as connection:
            assert json.loads(await connection.recv())["type"] == "session.created"
        async with connect(URL + native.PATH) as connection:
            await connection.send("garbage")
            assert (await next_event(connection, "error"))["code"] == "bad_message"
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            await connection.send(b"\0" * (ClientTerms.max_message_bytes + 2))
            with pytest.raises(ConnectionClosed):
                while True:
                    await connection.recv()
        with pytest.raises(InvalidStatus):
            await connect(URL + "/v1/nothing")

    asyncio.run(dialects())
    assert "<html" in get("/")[1]
    assert get("/readyz") == (200, "ready\n")
    assert get("/v1/sessions", body=b"{}")[0] == 200
    assert get("/v1/sessions", body=b"x" * 300_000)[0] == 413
    # Ray's proxy is on this machine, whoever asks: it must not pass for the operator.
    assert get("/drain", body=b"")[0] == 403


def test_full_is_refused_at_once_in_our_words(two):
    async def test():
        talkers = await calls(2 * PLACES)
        began = time.monotonic()
        with pytest.raises(ClientError, match=f"all {PLACES} places are taken; try again later"):
            await RemoteSession.open(URL)
        print(f"refused after {time.monotonic() - began:.2f} s")
        await hang_up(talkers)

    asyncio.run(test())


def test_scaling_cuts_nobody(two):
    """2 -> 1 -> 2 with ten who talk on; a replica that is to go goes after its last session.

    serve.run counts as a new version each time, so on the way back the replica that stayed is
    replaced as well: an upgrade cuts nobody either.
    """

    async def test():
        talkers = await calls(10)
        await talk_on(talkers)
        before = set(processes())
        assert len(before) == 2
        await asyncio.to_thread(run, 1, waits=False)
        await talk_on(talkers)
        # The replica that is to go is still there, for its sessions' sake.
        assert set(processes()) == before
        await asyncio.to_thread(run, 2, waits=False)
        await talk_on(talkers)
        await until_true(lambda: len(set(processes()) - before) == 2, 60)
        assert before < set(processes())
        gaps = [talker.longest_gap_s for talker in talkers]
        print(f"ten talked on; the longest silence between two messages was {max(gaps):.2f} s")
        await hang_up(talkers)
        gone_s = await until_true(lambda: len(processes()) == 2, 60)
        print(f"the drained replicas were gone {gone_s:.1f} s after their last session")
        assert not before & set(processes())

    asyncio.run(test())


def test_killed_replica_takes_only_its_own_sessions_with_it(two):
    async def test():
        talkers = await calls(6)
        await talk_on(talkers, 1)
        victim = processes()[0]
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        await until_true(lambda: any(talker.session.is_cut for talker in talkers))
        cut_s = time.monotonic() - killed_at
        await asyncio.sleep(2)
        hit = [talker for talker in talkers if talker.session.is_cut or talker.ended_at]
        print(f"of 6 sessions {len(hit)} were cut, the first after {cut_s:.2f} s")
        assert 0 < len(hit) < 6
        rest = [talker for talker in talkers if talker not in hit]
        await talk_on(rest, 1)
        new = await calls(2)
        await talk_on(new, 1)
        await until_true(lambda: all(talker.ended_at for talker in hit), 40)
        told_s = max(talker.ended_at for talker in hit) - killed_at
        print(f"the last of them was told after {told_s:.1f} s")
        await hang_up(rest + new)

    asyncio.run(test())


def test_what_sockets_that_live_for_an_hour_need_is_set(monkeypatch):
    monkeypatch.setenv("DUPLEX_API_KEY", "the-key")
    made = app({"options": "--max-sessions 8", "gpus": "0.5"})._bound_deployment
    assert made.max_ongoing_requests == 10
    assert made._deployment_config.graceful_shutdown_timeout_s >= 3600
    assert made.ray_actor_options == {"num_gpus": 0.5, "num_cpus": 2.0}
    # The replicas' own environment may lack the key, and nobody would notice.
    assert made.init_args[0][-2:] == ["--api-key", "the-key"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"options": "--compute cpu"}, "give --max-sessions"),
        ({"options": "--max-sessions 2 --longest 0"}, "give --longest"),
        ({"places": "3"}, "there is no word 'places'"),
    ],
)
def test_what_cannot_be_deployed_is_told(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        app(words)
