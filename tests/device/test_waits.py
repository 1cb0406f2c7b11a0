"""A tick waits for the device where it is said to, and nowhere else."""

import pytest
import torch

from tests.device.test_agent import device_agent, talk
from tests.device.waits import Device, forbidden_waits


@pytest.mark.slow
@pytest.mark.parametrize("sessions", [1, 8])
def test_a_tick_waits_two_times_once_for_new_phones_and_once_a_call_of_the_lm(
    sessions, monkeypatch
):
    agent = device_agent(sessions)
    link = agent.parts.lm.link
    found = []

    def check(tick: int) -> None:
        found.append((link.waits, agent.context.counts.calls))
        link.waits = 0
        agent.context.counts.calls = 0

    with forbidden_waits(monkeypatch, agent) as device:
        talk(agent, sessions, check=check)
    assert device.operations > 1000
    assert max(waits for waits, _ in found) <= 6 and min(waits for waits, _ in found) <= 3
    assert all(waits <= 3 + calls for waits, calls in found)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
    ],
)
def test_what_reads_the_device_is_found(read, monkeypatch):
    agent = device_agent(1)
    with forbidden_waits(monkeypatch, agent) as device:
        own = torch.ones(3)
        device.claim([own])
        with pytest.raises(AssertionError):
            read(own)
        assert read(torch.ones(3)) is not None


def test_what_is_made_of_the_device_is_on_it():
    with Device() as device:
        own = torch.ones(3)
        device.claim([own])
        assert device.holds(own * 2) and device.holds(own[1:])
        assert not device.holds(torch.zeros(3).copy_(own * 2))
