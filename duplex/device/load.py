"""From a folder of weights to an agent whose networks are all on one device."""

from pathlib import Path

import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy, loader
from duplex.device import DeviceConfig, agent_config, check, place
from duplex.mind import load as mind
from duplex.weights import DEFAULT_AGENT

# Slots of an agent on a GPU: its functions are captured for one of these numbers.
SIZES = (8, 32, 128, 256, 512)


def rounded_up(slots: int) -> int:
    """The least of SIZES that has room for so many, or their number where none has."""
    return next((size for size in SIZES if size >= slots), slots)


def load_agent(
    folder: Path | None,
    slots: int,
    config: AgentConfig,
    device: DeviceConfig,
    policy: TurnPolicy | None = None,
    **options,
) -> Agent:
    """The agent in `folder`, ready to step on a device, with at least so many slots.

    options: fields of agent.loader.LoadOptions. Raises UsageError where there is no such device,
    and what agent.load_agent raises.
    """
    check(device.device)
    folder = folder or DEFAULT_AGENT
    given = {"device": "cpu", "dtype": "float32", "second_pass": "off"}
    wanted = loader.LoadOptions(**options | given)
    thinker = mind.load_thinker(wanted.mind, wanted.offline)
    config = agent_config(loader.with_instructions(config, folder))
    placed = place(loader.load_parts(folder, wanted), device, config)
    is_gpu = torch.device(device.device).type == "cuda"
    agent = Agent(placed, rounded_up(slots) if is_gpu else slots, config, policy, thinker)
    loader.warm_up(agent)
    return agent


def dtype_of(name: str | None, device: str) -> torch.dtype:
    """The LM's number format by its name; the default is bfloat16, on a CPU float32."""
    usual = "float32" if device == "cpu" else "bfloat16"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name or usual]
