"""The server as an ASGI application, called as Ray's replicas and uvicorn call it."""

import asyncio
import json

import pytest

from duplex.serving.engine import Engine
from duplex.serving.http.auth import Access
from duplex.serving.limits import ClientTerms, ServerLimits
from duplex.serving.native import messages as native
from duplex.serving.scale.asgi import application
from duplex.serving.server import Serving
from tests.helpers import PATIENCE_S, start
from tests.tiny_agent import TinyAgent


class Client:
    """One request or websocket: what comes in is put in a queue, what goes out is kept."""

    def __init__(self, app, kind: str, path: str, **fields):
        scope = {"type": kind, "path": path, "headers": [(b"host", b"localhost")], **fields}
        self.inbox: asyncio.Queue[dict] = asyncio.Queue()
        self.sent: asyncio.Queue[dict] = asyncio.Queue()
        self.task = asyncio.create_task(app(scope, self.inbox.get, self.sent.put))

    async def next(self, kind: str) -> dict:
        while (message := await self.sent.get())["type"] != kind:
            pass
        return message

    async def next_event(self, kind: str) -> dict:
        while True:
            text = (await self.next("websocket.send")).get("text")
            if text and json.loads(text)["type"] == kind:
                return json.loads(text)


def drive(test, agent, access: Access | None = None) -> Engine:
    """Run an async test with the application of a started engine."""
    engine = Engine(agent, agent.slots)

    async def run():
        start(engine)
        try:
            async with asyncio.timeout(PATIENCE_S):
                serving = Serving(engine, [], access, ServerLimits(grace_s=0))
                await test(application(serving))
                await serving.close()
        finally:
            await asyncio.to_thread(engine.stop)

    asyncio.run(run())
    return engine


def test_a_session_from_its_start_to_its_end():
    async def test(app):
        client = Client(app, "websocket", native.PATH, subprotocols=["duplex"])
        client.inbox.put_nowait({"type": "websocket.connect"})
        assert (await client.next("websocket.accept"))["subprotocol"] == "duplex"
        client.inbox.put_nowait({"type": "websocket.receive", "text": native.encode_start()})
        await client.next_event("session.created")
        loud = native.encode_audio([0.2] * 1920)
        client.inbox.put_nowait({"type": "websocket.receive", "bytes": loud, "text": None})
        await client.next_event("user_started")
        client.inbox.put_nowait({"type": "websocket.receive", "text": native.encode_end()})
        await client.next_event("session.ended")
        assert (await client.next("websocket.close"))["code"] == native.CloseCode.ENDED
        await client.task

    engine = drive(test, TinyAgent(1))
    assert engine.stats()["ends"]["client"] == 1


@pytest.mark.parametrize(("how", "end"), [({"code": 1000}, "client"), ({"code": 1006}, "lost")])
def test_a_client_that_leaves_frees_its_place(how, end):
    """One that was cut could come back, so its session waits: until the server closes."""

    async def test(app):
        client = Client(app, "websocket", native.PATH)
        client.inbox.put_nowait({"type": "websocket.connect"})
        client.inbox.put_nowait({"type": "websocket.receive", "text": native.encode_start()})
        await client.next_event("session.created")
        client.inbox.put_nowait({"type": "websocket.disconnect", **how})
        await client.task

    ends = drive(test, TinyAgent(1)).stats()["ends"]
    assert ends["client" if end == "client" else "stopped"] == 1


def test_a_message_too_large_and_a_full_server_are_told_by_their_codes():
    async def test(app):
        clients = [Client(app, "websocket", native.PATH) for _ in range(2)]
        for client in clients:
            client.inbox.put_nowait({"type": "websocket.connect"})
            client.inbox.put_nowait({"type": "websocket.receive", "text": native.encode_start()})
            await client.next("websocket.send")
        assert (await clients[1].next("websocket.close"))["code"] == native.CloseCode.FULL
        large = b"\0" * (ClientTerms.max_message_bytes + 2)
        clients[0].inbox.put_nowait({"type": "websocket.receive", "bytes": large})
        assert (await clients[0].next("websocket.close"))["code"] == 1009

    drive(test, TinyAgent(1))


def test_requests_and_refusals():
    async def test(app):
        for path, status in (("/readyz", 200), ("/v1/stats", 401), ("/nowhere", 404)):
            client = Client(app, "http", path, method="GET")
            client.inbox.put_nowait({"type": "http.request", "body": b""})
            assert (await client.next("http.response.start"))["status"] == status
        for extensions in ({"websocket.http.response": {}}, {}):
            client = Client(app, "websocket", native.PATH, extensions=extensions)
            client.inbox.put_nowait({"type": "websocket.connect"})
            if extensions:
                found = await client.next("websocket.http.response.start")
                assert found["status"] == 401
            else:
                found = await client.next("websocket.close")
                assert "key is missing" in found["reason"]

    drive(test, TinyAgent(1), Access(api_key="the-key"))
