"""Where a server listens, and what it says of that."""

import socket

import pytest

from duplex.errors import ServerError
from duplex.serving.http.listener import bind, web_url, websocket_url


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_localhost_is_both_addresses_with_one_port():
    listeners = bind("localhost", 0)
    names = [listener.getsockname()[:2] for listener in listeners]
    assert {name for name, _ in names} == {"127.0.0.1", "::1"}
    assert len({port for _, port in names}) == 1
    assert web_url(listeners[0], "localhost", False) == f"http://localhost:{names[0][1]}"
    close(listeners)


def test_a_machine_without_one_of_them_serves_the_other(monkeypatch):
    """Here ::1 is an address that nobody has."""
    found = socket.getaddrinfo

    def without_ipv6(name, port, **kind):
        return found("192.0.2.1" if name == "::1" else name, port, **kind)

    monkeypatch.setattr(socket, "getaddrinfo", without_ipv6)
    listeners = bind("localhost", 0)
    assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.1"]
    close(listeners)


def test_all_addresses_are_told_as_one_that_can_be_typed():
    listeners = bind("0.0.0.0", 0)
    url = web_url(listeners[0], "0.0.0.0", True)
    assert url.startswith("https://") and "0.0.0.0" not in url
    assert websocket_url(url) == url.replace("https", "wss") + "/v1/duplex"
    close(listeners)


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_port_that_is_none_is_one_sentence(port):
    with pytest.raises(ServerError, match="1 to 65535"):
        bind("127.0.0.1", port)


def test_port_in_use_is_one_sentence():
    [taken] = bind("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(ServerError, match="already in use.*--port"):
        bind("127.0.0.1", taken.getsockname()[1])
    taken.close()
    with pytest.raises(ServerError, match="cannot serve on no.such.host"):
        bind("no.such.host", 80)
