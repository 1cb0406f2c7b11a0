"""One conversation a slot: `Agent` steps them together, `load_agent` makes one from a folder."""

from duplex.agent.agent import Agent
from duplex.agent.config import AgentConfig
from duplex.agent.loader import load_agent
from duplex.agent.turn_policy import TurnPolicy

__all__ = ["Agent", "AgentConfig", "TurnPolicy", "load_agent"]
