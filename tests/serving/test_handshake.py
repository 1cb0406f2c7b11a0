"""What requests are answered before a websocket opens: behind proxies, and to who operates it."""

import asyncio
import json
import threading
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidStatus

from duplex.serving import twilio
from duplex.serving.commands import Start
from duplex.serving.http.auth import Access
from duplex.serving.http.http_body import BodyConnection
from duplex.serving.limits import EngineLimits
from duplex.serving.native import messages as native
from tests.helpers import drive_server, next_event, until
from tests.tiny_agent import TinyAgent

WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


async def ask(
    url: str, request: str, headers: dict | None = None, body: bytes = b""
) -> tuple[int, str]:
    """Status and body of a request as it is written, with its version."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    lines = {"Host": place.netloc, **(headers or {})}
    if body:
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"{request}\r\n{head}\r\n".encode() + body)
    status = int((await reader.readline()).split()[1])
    answer = b"" if status == 101 else await reader.read()
    writer.close()
    return status, answer.partition(b"\r\n\r\n")[2].decode()


def test_proxy_without_its_upgrade_lines_is_told_them(caplog):
    """nginx by default speaks HTTP/1.0 and passes the key of a websocket, but not its Upgrade."""
    forwarded = {name: WEBSOCKET[name] for name in WEBSOCKET if name.startswith("Sec")}

    async def test(url, engine):
        for version, more in (
            ("1.0", {"Connection": "close"}),
            ("1.1", {"Connection": "close", "Upgrade": "websocket"}),
        ):
            request = f"GET {native.PATH} HTTP/{version}"
            status, text = await ask(url, request, forwarded | more)
            assert status == 426 and "proxy_set_header Upgrade $http_upgrade" in text
        # So is the page, which asks why its handshake failed.
        headers = {"Connection": "close", "Origin": f"http://{urlsplit(url).netloc}"}
        status, text = await ask(url, f"POST {native.PATH} HTTP/1.0", headers)
        assert status == 426 and "proxy_http_version 1.1" in text
        # The pages come through such a proxy as they are.
        for path in ("/", "/healthz"):
            assert (await ask(url, f"GET {path} HTTP/1.0", {"Connection": "close"}))[0] == 200

    drive_server(test, TinyAgent(1))
    told = [record.getMessage() for record in caplog.records if "nginx" in record.getMessage()]
    assert len(told) == 2 and all("proxy_http_version 1.1" in line for line in told)


def test_proxy_that_puts_its_own_host_is_told_the_line(caplog):
    page = {"Origin": "https://voice.example.org", "X-Forwarded-For": "203.0.113.5"}

    async def test(url, engine):
        status, text = await ask(url, f"GET {native.PATH} HTTP/1.1", WEBSOCKET | page)
        assert status == 403 and "--origin https://voice.example.org" in text
        assert "proxy_set_header Host $http_host;" in text
        # A page whose handshake failed asks why: a browser does not tell what was answered.
        assert await ask(url, f"POST {native.PATH} HTTP/1.1", page, b"{}") == (403, text)
        known = page | {"X-Forwarded-Host": "voice.example.org"}
        status, _ = await ask(url, f"GET {native.PATH} HTTP/1.1", WEBSOCKET | known)
        assert status == 101

    drive_server(test, TinyAgent(1), Access(api_key=None, open_to_all=True))
    assert any("proxy_set_header Host" in record.getMessage() for record in caplog.records)


def test_page_of_a_development_server_is_told_the_flag():
    page = {"Origin": "http://localhost:5173", "Host": "localhost:8765"}

    async def test(url, engine):
        status, text = await ask(url, f"GET {native.PATH} HTTP/1.1", WEBSOCKET | page)
        assert status == 403 and "--origin http://localhost:5173" in text

    drive_server(test, TinyAgent(1))


@pytest.mark.parametrize(
    ("request_line", "status", "word"),
    [
        ("GET /healthz", 200, "ok"),
        ("GET /healthz/", 200, "ok"),
        ("HEAD /healthz", 200, ""),
        ("HEAD /", 200, ""),
        ("HEAD /v1/duplex", 426, ""),
        ("HEAD /elsewhere", 404, ""),
        ("GET /readyz/", 200, "ready"),
        ("GET /v1/stats/", 200, "ticks"),
        ("GET /v1/duplex/", 426, "websocket"),
        ("POST /healthz", 405, "GET"),
        ("POST /", 405, "GET"),
        ("DELETE /v1/stats", 405, "GET"),
        ("GET /drain", 405, "POST"),
        ("POST /v1/realtime/calls", 404, "websockets"),
    ],
)
def test_methods_and_slashes(request_line, status, word):
    async def test(url, engine):
        body = b"x" * 70_000 if request_line.startswith("POST") else b""
        found, text = await ask(url, f"{request_line} HTTP/1.1", body=body)
        assert found == status and word in text and (word or not text)

    drive_server(test, TinyAgent(1))


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [({}, b"x" * 300_000, 413), ({"Transfer-Encoding": "chunked"}, b"", 411)],
)
def test_body_that_is_not_read_is_answered_too(headers, body, status):
    async def test(url, engine):
        where = "POST /v1/realtime/client_secrets HTTP/1.1"
        found, text = await ask(url, where, headers, body)
        assert found == status and "Content-Length" in text

    drive_server(test, TinyAgent(1))


def test_readiness_tells_why_there_is_no_place():
    async def test(url, engine):
        assert await ask(url, "GET /readyz HTTP/1.1") == (200, "ready\n")
        async with connect(url) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            status, text = await ask(url, "GET /readyz HTTP/1.1")
            assert status == 503 and "1 places are taken" in text

    drive_server(test, TinyAgent(1))


def test_drained_server_takes_nobody_and_sends_nobody_away():
    key = {"Authorization": "Bearer the-key"}

    async def test(url, engine):
        async with connect(url, additional_headers=key) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            assert (await ask(url, "POST /drain HTTP/1.1"))[0] == 401 and engine.admits
            status, text = await ask(url, "POST /drain HTTP/1.1", key, b"{}")
            assert status == 200 and json.loads(text) == {"draining": True, "sessions": 1}
            status, text = await ask(url, "GET /readyz HTTP/1.1")
            assert status == 503 and "draining" in text and "go on" in text
            async with connect(url, additional_headers=key) as late:
                await late.send(native.encode_start())
                error = await next_event(late, "error")
                assert error["code"] == "full" and "draining" in error["text"]
            # The one that is there goes on, and comes back after a cut.
            await connection.send(native.encode_audio([0.1] * 1920))
            await next_event(connection, "user_started")
        assert json.loads((await ask(url, "DELETE /drain HTTP/1.1", key))[1])["draining"] is False
        assert engine.admits

    drive_server(test, TinyAgent(2), Access(api_key="the-key"))


def test_stopping_and_draining_are_told_apart():
    """SIGTERM ends sessions with their turn, /drain does not; an autoscaler must know which."""

    async def test(url, engine):
        assert json.loads((await ask(url, "POST /drain HTTP/1.1"))[1])["draining"]
        assert json.loads((await ask(url, "GET /v1/stats HTTP/1.1"))[1])["state"] == "draining"
        engine.drain("the server is shutting down", 5)
        status, text = await ask(url, "GET /readyz HTTP/1.1")
        assert status == 503 and "shutting down" in text and "end with their turn" in text
        assert json.loads((await ask(url, "GET /v1/stats HTTP/1.1"))[1])["state"] == "stopping"

    drive_server(test, TinyAgent(1))


def test_places_and_how_sessions_ended_are_figures():
    async def test(url, engine):
        async with connect(url) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            _, text = await ask(url, "GET /metrics HTTP/1.1")
            assert "duplex_places_free 1.0" in text and 'duplex_state{state="ready"} 1.0' in text
            await connection.send(native.encode_end())
            await next_event(connection, "session.ended")
        async with connect(url) as connection:
            await connection.send(native.encode_start())
            await next_event(connection, "session.created")
            engine.close_all("over")
            await next_event(connection, "session.ended")
        _, text = await ask(url, "GET /metrics HTTP/1.1")
        for end, number in (("client", 1), ("stopped", 1), ("lost", 0)):
            assert f'duplex_sessions_ended_total{{end="{end}"}} {number}.0' in text

    drive_server(test, TinyAgent(2))


def test_health_is_that_of_the_models_thread():
    class Stuck(TinyAgent):
        release = threading.Event()

        def step(self, audio, active, voice=True):
            if self.opened[-1][2] == "stuck":
                self.release.wait(20)
            return super().step(audio, active, voice)

    async def test(url, engine):
        async with connect(url) as connection:
            await connection.send(native.encode_start(Start("stuck")))
            await next_event(connection, "session.created")
            await until(engine.ailing)
            status, text = await ask(url, "GET /healthz HTTP/1.1")
            assert status == 503 and "has not made a step" in text
            engine.agent.release.set()
        assert engine.state() != "stopped"

    drive_server(test, Stuck(1), engine_limits=EngineLimits(hung_s=0.3))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"X-Forwarded-For": "203.0.113.5"}, 403),
    ],
)
def test_without_a_key_this_machine_alone_may_drain(headers, status):
    async def test(url, engine):
        assert (await ask(url, "POST /drain HTTP/1.1", headers))[0] == status

    drive_server(test, TinyAgent(1))


def test_key_may_be_the_end_of_a_telephones_path():
    """Twilio can send it in no other way; the server's figures do not show it."""

    async def test(url, engine):
        base = url.removesuffix(native.PATH)
        for path, opens in (("/the-key", True), ("/wrong", False), ("", False)):
            try:
                async with connect(base + twilio.PATH + path):
                    assert opens
            except InvalidStatus as error:
                assert not opens and error.response.status_code == 401
        with pytest.raises(InvalidStatus, match="404"):
            await connect(url + "/the-key")
        _, stats = await ask(url, "GET /v1/stats HTTP/1.1", {"Authorization": "Bearer the-key"})
        assert "the-key" not in stats and twilio.PATH in json.loads(stats)["paths"]["opened"]

    drive_server(test, TinyAgent(1), Access(api_key="the-key"))


def test_library_is_given_a_get_without_a_body(monkeypatch):
    """The SDKs of OpenAI want a version of it that takes nothing else."""
    given = []
    monkeypatch.setattr(ServerConnection, "data_received", lambda self, data: given.append(data))
    connection = BodyConnection.__new__(BodyConnection)
    connection.data_received(b"POST /x HTTP/1.0\r\nHost: a\r\nContent-")
    connection.data_received(b"Length: 2\r\n\r\nhi")
    assert given == [b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"]
    assert (connection.method, connection.body) == ("POST", b"hi")
