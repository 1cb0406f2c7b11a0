"""The networks of duplex.model compiled for this processor, weights in 8 bits.

There is one door, `compile`: it takes the parts of an agent and returns others that are called in
the same way. Two threads share each product, see duplex.cpu.shared_work.
"""

import logging
from dataclasses import replace

from duplex.cpu import helper_thread
from duplex.cpu.beam_search import CompiledBeamSearch
from duplex.cpu.encoder import CompiledEncoder
from duplex.cpu.kernels import COMPILED
from duplex.cpu.lm import CompiledLM
from duplex.cpu.shared_work import usable_cores
from duplex.cpu.talker import CompiledTalker
from duplex.cpu.vocoder import CompiledCodec
from duplex.cpu.whisper import compress
from duplex.model.parts import Parts
from duplex.model.tts.codec import Codec

log = logging.getLogger(__name__)


def compile(parts: Parts, threads: int | None = None) -> Parts:
    """Parts whose networks are compiled, with copies of their weights in 8 bits.

    The LM is used up: the memory of its blocks is freed. Parts that are None remain so, and SEANet
    has no compiled form.

    Args:
        threads: two share each product, which is the default where there are two cores; 1 leaves
            the other core alone.

    Raises ValueError if a network's sizes do not fit.
    """
    if not any(COMPILED.rglob("*.nbi")):
        log.warning("compiling the model for this processor: about a minute, this once")
    compiled = replace(
        compile_search(parts),
        encoder=parts.encoder and CompiledEncoder(parts.encoder),
        lm=parts.lm and CompiledLM(parts.lm),
        talker=parts.talker and CompiledTalker(parts.talker),
        whisper=parts.whisper and compress(parts.whisper),
    )
    if isinstance(parts.codec, Codec):
        compiled = replace(compiled, codec=CompiledCodec(parts.codec))
    if (threads or usable_cores()) > 1:
        # The helper's loop is compiled here, and not when its help is needed.
        helper_thread.worker_loop()
        compiled = replace(compiled, helper_thread=helper_thread.running)
    return compiled


def compile_search(parts: Parts) -> Parts:
    """Parts with their beam search compiled, wherever the networks run."""
    if parts.lexicon is None:
        return parts
    # With two threads at the products, the second looks for work all the time on its own core.
    threads = max(1, usable_cores() - 1)
    return replace(parts, search=CompiledBeamSearch(parts.lexicon), search_threads=threads)
