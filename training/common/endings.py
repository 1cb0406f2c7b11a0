"""How a training program ends that cannot go on: with one sentence that says what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError

from duplex.errors import DuplexError


def need_extra(*packages: str) -> None:
    """SystemExit unless these packages of the extra "train" are installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"Training needs {' and '.join(missing)}: pip install -e '.[train]' in the clone."
        )


@contextmanager
def in_a_sentence(out: Path) -> Iterator[None]:
    """Turn what goes wrong outside of the program into SystemExit; `out`: where it writes."""
    try:
        yield
    except DuplexError as error:
        raise SystemExit(f"{str(error).rstrip('.')}.") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        if is_disk_full(error):
            raise SystemExit(
                f"The disk of {out} is full: make room and give the same command again, it goes "
                "on from what was saved."
            ) from error
        raise
    except KeyboardInterrupt:
        raise SystemExit("Stopped; the same command goes on from what was saved.") from None


def is_disk_full(error: Exception) -> bool:
    """Whether a file could not be written because there was no room."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or "No space left on device" in str(error)
