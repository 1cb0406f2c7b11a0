"""What an agent is made of."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from duplex.model.codec import Codec
from duplex.model.draft import Draft
from duplex.model.encoder import Encoder
from duplex.model.g2p import Pronounce
from duplex.model.lexicon import Lexicon
from duplex.model.lm import LM
from duplex.model.seanet import SeanetCodec
from duplex.model.talker import Talker


@dataclass
class Parts:
    """Networks and data of one agent; several agents and all their sessions may share them."""

    encoder: Encoder
    lexicon: Lexicon
    lm: LM
    tokenizer: object  # tokenizers.Tokenizer
    g2p: Pronounce
    talker: Talker
    codec: Codec | SeanetCodec
    draft: Draft | None = None
    # Lends the second thread for the time of a step, where the networks are compiled.
    helper_thread: Callable[[], AbstractContextManager] = nullcontext
