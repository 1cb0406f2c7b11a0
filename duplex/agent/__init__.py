"""One conversation a slot: `Agent` steps all of them together, `load_agent` makes one from a folder of weights."""

from duplex.agent.agent import Agent, load_agent

__all__ = ["Agent", "load_agent"]
