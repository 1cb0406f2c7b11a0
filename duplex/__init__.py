"""duplex: a full-duplex speech agent that listens, thinks and speaks in ticks of 80 ms."""

from pathlib import Path

__version__ = "0.1.0"

# In a clone, client/ and training/ stand beside this folder; in a wheel they lie in it. Both ways
# they are duplex.client and duplex.training, and those of the clone that duplex came from.
_clone = Path(__file__).resolve().parents[1]
if (_clone / "pyproject.toml").is_file():
    __path__.append(str(_clone))
