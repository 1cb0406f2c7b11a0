"""Clients of duplex: they know devices, files and the wire, and nothing of the model."""

from duplex.client.call import Call as Call
from duplex.client.call import connect as connect
