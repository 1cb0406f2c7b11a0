"""Clients of duplex: they know devices, files and the wire, and nothing of the model."""
