"""Which mind thinks, by its name on the command line."""

import sys
from pathlib import Path

from duplex import weights
from duplex.errors import MindError
from duplex.mind.chat_url import ChatURL
from duplex.mind.llama import Llama, be_polite, find_llama
from duplex.mind.thinker import Thinker


def load_thinker(name: str, offline: bool = False) -> Thinker | None:
    """The thinker of this name; None for "small", which is the agent's own LM.

    name: "small", "medium", "large", a GGUF file, or the URL of an OpenAI-compatible server.
    Raises MindError, WeightsError.
    """
    if name == "small":
        return None
    if name.startswith(("http://", "https://")):
        source = ChatURL(name)
        print(source.notice, file=sys.stderr, flush=True)
        asked_at_once = 8
        return Thinker(source, asked_at_once)
    known = {"medium": weights.qwen_half, "large": weights.qwen_large}
    if name not in known and not Path(name).is_file():
        raise MindError(f"there is no mind {name!r}; give small, medium, large, a GGUF file or URL")
    # Nothing is fetched where it could not be used.
    llama = find_llama()
    path = _gguf(known[name](offline)) if name in known else Path(name)
    thinker = Thinker(Llama(path, llama=llama), begin=be_polite)
    # It reads the file meanwhile.
    thinker.read([])
    return thinker


def _gguf(folder: Path) -> Path:
    return next(folder.glob("*.gguf"))
