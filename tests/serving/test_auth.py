"""Who comes in and who does not: rules alone, then on a real server."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from duplex import cli
from duplex.audio import TICK_SAMPLES
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError, ServerError
from duplex.serving.dialect import DIALECTS
from duplex.serving.http.auth import Access, TokenBucket, is_loopback, offered_keys
from duplex.serving.native import messages as native
from tests.helpers import drive_server, next_event
from tests.tiny_agent import TinyAgent

PATHS = tuple(DIALECTS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_is_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", ""]
)
def test_loopback_is_nothing_else(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("key", "headers", "subprotocols", "valid"),
    [
        (None, {}, [], True),
        ("k", {"Authorization": "Bearer k"}, [], True),
        ("k", {}, ["duplex", "bearer.k"], True),
        ("k", {}, ["realtime", "openai-insecure-api-key.k"], True),
        ("k", {}, [], False),
        ("k", {"Authorization": "Bearer no"}, [], False),
        ("k", {"Authorization": "Basic k"}, [], False),
        ("k", {}, ["bearer."], False),
        ("k", {}, ["k"], False),
        ("k", {"Authorization": "Bearer "}, [], False),
    ],
)
def test_key_is_valid(key, headers, subprotocols, valid):
    assert Access(api_key=key).is_valid(offered_keys(headers, subprotocols)) == valid


@pytest.mark.parametrize(
    ("origin", "host", "access", "allowed"),
    [
        (None, "host:1", Access(), True),
        ("http://localhost:1", "localhost:1", Access(), True),
        ("https://my.site", "host:1", Access(origins=("https://my.site",)), True),
        ("http://evil.example", "localhost:1", Access("k"), False),
        ("http://rebound.example:1", "rebound.example:1", Access(), False),
        ("https://mine.example", "mine.example", Access("k"), True),
        ("http://192.168.1.20:8765", "192.168.1.20:8765", Access(open_to_all=True), True),
        ("http://0.0.0.0:1", "0.0.0.0:1", Access(open_to_all=True), True),
        ("http://nas.local:1", "nas.local:1", Access(open_to_all=True), True),
        ("https://my.site", "host:1", Access(origins=("https://My.site:443/",)), True),
        ("http://localhost:5173", "localhost:8765", Access(origins=("*",)), True),
        ("https://mine.example", "mine.example:443", Access("k"), True),
        ("https://mine.example:8443", "mine.example", Access("k"), False),
        ("http://[::1]:1", "[::1]:1", Access(), True),
        ("null", "localhost:1", Access(origins=("null",)), True),
        ("tauri://localhost", "localhost:1", Access(origins=("tauri://localhost",)), True),
        ("tauri://localhost", "localhost", Access("k"), False),
        ("http://localhost:5173", "localhost:8765", Access(), False),
        ("null", "localhost:1", Access("k"), False),
        ("file://", "localhost:1", Access("k"), False),
        ("http://[", "localhost:1", Access("k"), False),
        ("", "localhost:1", Access("k"), False),
    ],
)
def test_origin_is_allowed(origin, host, access, allowed):
    assert access.is_allowed_origin(origin, host) == allowed


def test_token_bucket_refills_with_time():
    bucket = TokenBucket(per_s=1000, burst=5000, now=0.0)
    assert bucket.take(5000, 0.0) and not bucket.take(1000, 0.0)
    assert bucket.take(1000, 2.0)
    assert not bucket.take(5001, 1000.0)


def test_serving_others_needs_a_key_or_a_word(capsys):
    with pytest.raises(ServerError, match="--api-key.*--open"):
        Access().check("0.0.0.0")
    Access(api_key="k").check("0.0.0.0")
    Access(open_to_all=True).check("0.0.0.0")
    Access().check("127.0.0.1")
    with pytest.raises(SystemExit):
        cli.main(["serve", "--host", "0.0.0.0"])
    assert "--open" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "is_valid"), [("ab-._~9", True), ("ab+/cd==", False), ("ä", False)]
)
def test_key_is_one_that_a_browser_can_carry(key, is_valid):
    if is_valid:
        Access(api_key=key).check("127.0.0.1")
        return
    with pytest.raises(ServerError, match="browsers"):
        Access(api_key=key).check("127.0.0.1")


@pytest.mark.parametrize("origin", ["my.site", "ws://my.site", "https://", "https://my.site:x"])
def test_origin_that_is_none_is_told_at_the_start(origin):
    with pytest.raises(ServerError, match="--origin https://"):
        Access(origins=(origin,)).check("127.0.0.1")


def test_page_from_elsewhere_is_told_in_the_log(caplog):
    async def test(url, engine):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(url, origin="https://voice.example.org")

    drive_server(test, TinyAgent(1))
    [told] = [record.getMessage() for record in caplog.records if "may not connect" in record.msg]
    assert "--origin https://voice.example.org" in told


def test_certificate_that_is_not_there_is_one_sentence():
    with pytest.raises(ServerError, match="certificate"):
        Access(certificate="/none.pem").tls()


def test_paths_want_the_key():
    async def test(url, engine):
        base = url.removesuffix(native.PATH)
        for path in PATHS:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                with pytest.raises(InvalidStatus, match="401"):
                    await connect(base + path, additional_headers=headers)
        async with connect(url, subprotocols=["duplex", "bearer.the-key"]) as connection:
            # The key is not sent back.
            assert connection.subprotocol == "duplex"
        with pytest.raises(ClientError, match="--api-key"):
            await RemoteSession.open(url)
        session = await RemoteSession.open(url, api_key="the-key")
        await session.push(np.zeros(TICK_SAMPLES, np.float32))
        assert await session.get()
        await session.close()
        http = base.replace("ws:", "http:")
        for path, status in (("/healthz", 200), ("/", 200), ("/v1/stats", 401), ("/metrics", 401)):
            assert await asyncio.to_thread(get, http + path) == status

    drive_server(test, TinyAgent(1), Access(api_key="the-key"))


def get(url: str) -> int:
    try:
        return urllib.request.urlopen(url).status
    except urllib.error.HTTPError as error:
        return error.code


def test_page_from_elsewhere_may_not_connect():
    async def test(url, engine):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(url, origin="https://evil.example")
        async with connect(url, origin=http_of(url)) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")

    drive_server(test, TinyAgent(1))


def http_of(url: str) -> str:
    return url.replace("ws:", "http:").removesuffix(native.PATH)


async def fetch(url: str) -> tuple[str, object]:
    """Text and headers of a page."""
    response = await asyncio.to_thread(urllib.request.urlopen, url)
    return response.read().decode(), response.headers


def test_pages_are_served_and_no_other_file():
    async def test(url, engine):
        base = http_of(url)
        page, headers = await fetch(base + "/")
        assert "/app.js" in page and "default-src 'self'" in headers["Content-Security-Policy"]
        for path, word, kind in (
            ("/app.js", "addEventListener", "text/javascript"),
            ("/sound.js", "AudioWorkletNode", "text/javascript"),
            ("/worklet.js", "registerProcessor", "text/javascript"),
            ("/style.css", "color", "text/css"),
            ("/icon.svg", "<svg", "image/svg+xml"),
        ):
            text, headers = await fetch(base + path)
            assert word in text and headers.get_content_type() == kind
        for path in (
            "/app.js/",
            "/../duplex/cli.py",
            "/%2e%2e/pyproject.toml",
            "/client/remote.py",
            "//etc/passwd",
        ):
            assert await asyncio.to_thread(get, base + path) == 404
        assert (await fetch(base + "/readyz"))[0] == "ready\n"
        engine.drain("bye", 1)
        assert await asyncio.to_thread(get, base + "/readyz") == 503

    drive_server(test, TinyAgent(1))


def test_metrics_count_sessions_and_time():
    async def test(url, engine):
        base = http_of(url)
        async with connect(url) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            metrics, _ = await fetch(base + "/metrics")
            stats, _ = await fetch(base + "/v1/stats")
        assert json.loads(stats)["slots"] == 1
        for figure in (
            "duplex_sessions 1.0\n",
            "duplex_sessions_opened_total 1.0\n",
            'duplex_tick_seconds{quantile="0.99"}',
            'duplex_dialect_talking{path="/v1/duplex"} 1.0',
            'duplex_dialect_sessions_total{path="/api/chat"} 0.0',
            "duplex_threads",
            "duplex_tasks",
        ):
            assert figure in metrics
        assert "draft" not in metrics
        assert "process_resident_memory_bytes" in metrics or not sys.platform.startswith("linux")

    drive_server(test, TinyAgent(1))


def test_server_speaks_tls(tmp_path):
    import ssl

    pem = tmp_path / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", pem, "-out", tmp_path / "cert.pem"]
    made = subprocess.run([*command.split(), *files], capture_output=True)
    assert made.returncode == 0, made.stderr
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())

    async def test(url, engine):
        trust = ssl.create_default_context(cafile=str(pem))
        async with connect(url.replace("ws:", "wss:"), ssl=trust) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")

    drive_server(test, TinyAgent(1), Access(certificate=str(pem)))
