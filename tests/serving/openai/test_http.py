"""Models and client secrets of OpenAI's API, alone and on a real server."""

import asyncio
import http
import json
import urllib.error
import urllib.request

import pytest
from websockets.asyncio.client import connect

from duplex.serving.http.auth import Access
from duplex.serving.native import messages as native
from duplex.serving.openai import realtime as openai_realtime
from duplex.serving.openai.http import CLIENT_SECRETS, ClientSecrets, answer
from tests.helpers import drive_server
from tests.tiny_agent import TinyAgent


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"expires_after":{"seconds":1}}', "invalid_value"),
        (b'{"session":{"instructions":3}}', "invalid_value"),
    ],
)
def test_secret_that_cannot_be_is_refused(body, code):
    status, answer = ClientSecrets(lambda: 0.0).create(body)
    assert status == http.HTTPStatus.BAD_REQUEST and answer["error"]["code"] == code


def test_secret_expires_and_the_oldest_go():
    now = [100.0]
    secrets = ClientSecrets(lambda: now[0], max_secrets=2)
    values = [secrets.create(b'{"expires_after":{"seconds":60}}')[1]["value"] for _ in range(3)]
    assert secrets.find(values[:1]) is None
    assert secrets.find(["none", values[2]]).expires_at == 160.0
    now[0] = 161.0
    assert secrets.find(values) is None


@pytest.mark.parametrize("kind", ["sessions", "transcription_sessions"])
def test_secret_of_the_beta(kind):
    secrets = ClientSecrets(lambda: 100.0)
    path = f"/v1/realtime/{kind}"
    status, told = answer("POST", path, b'{"model":"m","voice":"ash"}', secrets)
    assert status == http.HTTPStatus.OK and told["client_secret"]["expires_at"] == 700
    session = secrets.find([told["client_secret"]["value"]]).session
    assert session["type"] == ("realtime" if kind == "sessions" else "transcription")
    assert told.get("voice") == ("oak" if kind == "sessions" else None)
    status, told = answer("POST", path, b'{"instructions":3}', secrets)
    assert status == http.HTTPStatus.BAD_REQUEST and "instructions" in told["error"]["message"]
    assert answer("POST", path, b"[]", secrets)[0] == http.HTTPStatus.BAD_REQUEST
    assert answer("GET", path, b"", secrets)[0] == http.HTTPStatus.METHOD_NOT_ALLOWED


def fetch(url: str, method: str = "GET", body: bytes | None = None, key: str = "the-key"):
    """Status and body of an answer."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_browser_gets_a_secret_and_a_session_as_it_was_made_for():
    async def test(url, engine):
        base = url.replace("ws:", "http:").removesuffix(native.PATH)
        body = json.dumps({"session": {"type": "realtime", "instructions": "hello"}}).encode()
        where = base + CLIENT_SECRETS
        status, answer = await asyncio.to_thread(fetch, where, "POST", body)
        secret = json.loads(answer)
        assert status == 200 and secret["session"]["instructions"] == "hello"
        assert (await asyncio.to_thread(fetch, where, "POST", body, "wrong"))[0] == 401
        assert (await asyncio.to_thread(fetch, where))[0] == 405
        path = url.replace(native.PATH, openai_realtime.PATH)
        names = ["realtime", f"openai-insecure-api-key.{secret['value']}"]
        async with connect(path, subprotocols=names) as connection:
            created = json.loads(await connection.recv())
            assert created["session"]["instructions"] == "hello"
            await connection.send('{"type":"response.create"}')
            while json.loads(await connection.recv())["type"] != "response.done":
                pass
            assert engine.agent.opened[-1][2] == "hello"
        # It opens no other door.
        assert (await asyncio.to_thread(fetch, base + "/v1/stats", key=secret["value"]))[0] == 401

    drive_server(test, TinyAgent(1), Access("the-key"))


def test_paths_of_the_api():
    async def test(url, engine):
        base = url.replace("ws:", "http:").removesuffix(native.PATH)

        async def get(path, method="GET", body=None):
            return await asyncio.to_thread(fetch, base + path, method, body)

        status, body = await get("/v1/models")
        assert status == 200 and json.loads(body)["data"][0]["id"] == "duplex"
        assert json.loads((await get("/v1/models/duplex"))[1])["object"] == "model"
        status, body = await get("/v1/live/sess_1/fork", "POST", b"{}")
        assert status == 404 and b"/v1/live/sessions" in body
        status, body = await get("/v1/realtime/calls", "POST", b"v=0")
        assert status == 404 and json.loads(body)["error"]["code"] == "unsupported"
        # A telephone call that somebody else has answered is none of ours.
        status, body = await get("/v1/realtime?call_id=rtc_1")
        assert status == 404 and b"of no call" in body
        assert (await get("/v1/realtime"))[0] == 426
        assert await get("/healthz", "HEAD") == (200, b"")
        assert (await get("/healthz", "POST", b"x" * 5_000))[0] == 405
        assert (await get("/healthz"))[0] == 200

    drive_server(test, TinyAgent(1), Access("the-key"))
