"""Fixtures: a clock that a test drives, and a server on a real loopback socket."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import HandClock, running_server
from tests.tiny_agent import TinyAgent

# A busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Networks are tiny here: a second thread of torch would take more time than it saves, and much more
# where the machine is busy. Torch reads it when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--clients runs the tests that need other people's client libraries, and no others."""
    parser.addoption("--clients", action="store_true", help="run the tests of client libraries")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what --clients does not ask for."""
    wanted = config.getoption("--clients")
    others = [item for item in items if _is_of_clients(item) != wanted]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if _is_of_clients(item) == wanted]


def _is_of_clients(item: pytest.Item) -> bool:
    """Its keywords would not do: they have the names of folders, too."""
    return item.get_closest_marker("clients") is not None


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Name the tests that are commands of their own."""
    if not config.getoption("--clients"):
        terminalreporter.write_line("not run: those of client libraries (make test-clients)")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Give torch one thread again after a test in which another library asked for more."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server_url() -> Iterator[str]:
    """A server with one place for a tiny agent, in a thread of its own."""
    with running_server(TinyAgent(1)) as url:
        yield url
