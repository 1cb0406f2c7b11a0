"""The networks compiled for this processor, in 8 bits; `compile` is the only door."""

import logging
from dataclasses import replace

from duplex.model.codec import Codec
from duplex.model.parts import Parts

log = logging.getLogger(__name__)


def compile(parts: Parts, threads: int | None = None) -> Parts:
    """The same parts, compiled. threads: 2 share each product where there are two cores (default)."""
    from duplex.cpu import helper_thread, kernels, shared_work
    from duplex.cpu.encoder import compile_encoder
    from duplex.cpu.lm import compile_draft, compile_lm
    from duplex.cpu.talker import compile_talker
    from duplex.cpu.vocoder import compile_vocoder

    if not any(kernels.COMPILED.rglob("*.nbi")):
        log.warning("compiling the model for this processor: about a minute, this once")
    if parts.lm:
        compile_lm(parts.lm)
    if parts.encoder:
        compile_encoder(parts.encoder)
    if parts.talker:
        compile_talker(parts.talker)
    if parts.draft:
        compile_draft(parts.draft)
    if isinstance(parts.codec, Codec):
        compile_vocoder(parts.codec.decoder)
    if (threads or shared_work.cores()) < 2:
        return parts
    helper_thread.worker_loop()  # compiled here, not when its help is needed
    return replace(parts, helper_thread=helper_thread.running)
