"""What an agent is made of."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from duplex.model.asr.encoder import Encoder
from duplex.model.asr.lexicon import Lexicon
from duplex.model.asr.whisper import Whisper
from duplex.model.lm import LM
from duplex.model.ngram_draft import NgramDraft
from duplex.model.sound import SoundHead
from duplex.model.speaker import SpeakerHead
from duplex.model.tts.codec import Codec
from duplex.model.tts.g2p import G2P
from duplex.model.tts.seanet import SeanetCodec
from duplex.model.tts.talker import Talker


@dataclass
class Parts:
    """Networks and data of one agent; several agents and all their sessions may share them.

    The loader returns them, `duplex.cpu.compile` takes and returns them. Compiled networks stand in
    for those of these types, with the same calls at run time. Whoever runs only some of them leaves
    the others None.
    """

    encoder: Encoder | None = None
    lexicon: Lexicon | None = None
    # Stands in for beam_search.decode with this lexicon and reads many streams at once, see
    # duplex.cpu.beam_search; and how many threads may call it at once.
    search: Callable | None = None
    search_threads: int = 1
    lm: LM | None = None
    # A tokenizers.Tokenizer.
    tokenizer: object = None
    g2p: G2P | None = None
    talker: Talker | None = None
    codec: Codec | SeanetCodec | None = None
    # Proposes what the agent says; an agent works without.
    ngrams: NgramDraft | None = None
    # Reads the user's turns a second time; an agent works without.
    whisper: Whisper | None = None
    # Tells voices apart; an agent works without.
    speaker: SpeakerHead | None = None
    # Names sounds; an agent works without.
    sound: SoundHead | None = None
    # Those that run for all slots of an agent in fixed shapes, and what makes them for so many
    # slots, given these parts; see duplex.device.
    ears: object = None
    voice: object = None
    draws: Callable | None = None
    place: Callable[["Parts", int], "Parts"] | None = None
    # Lends the second thread for the time of a step, where the networks are compiled.
    helper_thread: Callable[[], AbstractContextManager] = nullcontext

    def on(self, slots: int) -> "Parts":
        """The parts of one agent with so many slots."""
        return self if self.place is None else self.place(self, slots)
