"""A server's address as people type it, and proxies of the environment."""

import asyncio

import pytest

from duplex.client.address import proxy_to, server_url
from duplex.client.remote import RemoteSession
from duplex.errors import ClientError

AGENT = "/v1/duplex"


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("ws://host:9000", f"ws://host:9000{AGENT}"),
        ("ws://host:9000/", f"ws://host:9000{AGENT}"),
        ("ws://host:9000/v1/duplex/", f"ws://host:9000{AGENT}"),
        ("http://localhost:8765", f"ws://localhost:8765{AGENT}"),
        ("HTTPS://voice.example.org/", f"wss://voice.example.org{AGENT}"),
        ("https://example.org/agent", f"wss://example.org/agent{AGENT}"),
        ("localhost:8765", f"ws://localhost:8765{AGENT}"),
        ("localhost", f"ws://localhost:8765{AGENT}"),
        ("192.168.1.20", f"ws://192.168.1.20:8765{AGENT}"),
        ("[::1]:9000", f"ws://[::1]:9000{AGENT}"),
        ("  ws://host:1?a=b ", f"ws://host:1{AGENT}?a=b"),
        ("ws://host/v1/realtime", "ws://host/v1/realtime"),
    ],
)
def test_address_is_taken_as_it_is_typed(typed, url):
    assert server_url(typed) == url


@pytest.mark.parametrize(
    "typed", ["", "ws://", "ftp://host", "ws://host:99999", "ws://host:x", "my server", "ws://[::"]
)
def test_address_that_is_none_is_one_sentence(typed):
    with pytest.raises(ClientError, match="ws://HOST:PORT"):
        server_url(typed)


@pytest.fixture
def environment(monkeypatch):
    """No proxies but those that a test sets."""
    for name in ("http", "https", "ws", "wss", "all", "no"):
        for variable in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"http_proxy": "http://p:3128"}, "ws://voice.example.org/", "http://p:3128"),
        ({"http_proxy": "p:3128"}, "ws://voice.example.org/", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "wss://voice.example.org/", None),
        ({"https_proxy": "socks5h://p:1080"}, "wss://voice.example.org/", "socks5h://p:1080"),
        ({"all_proxy": "http://p:1"}, "wss://voice.example.org/", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "ws://localhost:9000/", None),
        ({"https_proxy": "http://p:1"}, "ws://127.0.0.1:9000/", None),
        ({"https_proxy": "http://p:1"}, "ws://[::1]:9000/", None),
        (
            {"https_proxy": "http://p:1", "no_proxy": "example.org"},
            "wss://voice.example.org/",
            None,
        ),
        ({}, "wss://voice.example.org/", None),
    ],
)
def test_proxy_is_used_but_not_on_the_way_to_this_machine(environment, variables, url, proxy):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxy_to(url) == proxy


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:3", "127.0.0.1:3", "socks5h://127.0.0.1:3", "gopher://p:1"]
)
def test_proxy_at_fault_is_named(environment, proxy):
    environment.setenv("http_proxy", proxy)
    with pytest.raises(ClientError, match="proxy .* http_proxy .* no_proxy"):
        asyncio.run(RemoteSession.open("ws://voice.example.org"))


def test_refusal_is_told_in_the_words_of_the_server(request):
    running = request.getfixturevalue("server_url")
    with pytest.raises(ClientError, match=r"HTTP 404: .* the agent is at .*/v1/duplex"):
        asyncio.run(RemoteSession.open(running.replace("/v1/duplex", "/v1/elsewhere")))


def test_no_server_is_told_how_to_start_one(environment):
    with pytest.raises(ClientError, match="start one with: duplex serve"):
        asyncio.run(RemoteSession.open("localhost:1"))
