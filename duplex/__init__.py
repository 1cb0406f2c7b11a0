"""duplex: a full-duplex speech agent that listens, thinks and speaks in ticks of 80 ms."""

__version__ = "0.1.0"
