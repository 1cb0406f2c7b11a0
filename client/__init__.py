"""Clients of duplex: they know devices, files and the wire, and nothing of the model."""

from duplex.client.call import Call, CallEvent, Voice, connect
from duplex.errors import ClientError
from duplex.events import Ended, Ending, Error, Event, Lag, ToolCall

__all__ = [
    "Call",
    "CallEvent",
    "ClientError",
    "Ended",
    "Ending",
    "Error",
    "Event",
    "Lag",
    "ToolCall",
    "Voice",
    "connect",
]
