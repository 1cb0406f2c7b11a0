"""Clients of duplex: they know devices, files and the wire, and nothing of the model."""


class ClientError(Exception):
    """One sentence: what went wrong on this side of the wire and, where it helps, what to do."""
