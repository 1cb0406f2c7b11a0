"""New instructions in the middle of a conversation, in the place of the old ones.

The LM reads them a few tokens a tick, hidden from all that it does meanwhile; then they stand where
the old ones stood, before everything that was said. Instructions for one turn of the agent only
hide the old ones, which come back with the turn's end: nothing is read twice.

All prompts end at the same position of the LM, where the conversation begins.
"""

import numpy as np

from duplex.agent.lm_context import LMContext
from duplex.agent.session import Instructions
from duplex.model import kv_cache


def begin(
    context: LMContext, slot: int, state: Instructions, tokens: list[int], is_for_turn: bool
) -> Instructions:
    """Begin to read new instructions, instead of any that are being read."""
    _free(context, slot, state.cells)
    if state.kept:
        state = restore(context, slot, state)
    first = context.prompt_end - len(tokens)
    return Instructions(list(tokens), first, is_for_turn=is_for_turn)


def read(context: LMContext, slot: int, state: Instructions, count: int) -> Instructions:
    """Read at most `count` tokens more, in a call of its own; what is complete is in force."""
    cache = context.cache
    tokens = state.unread[:count]
    old = _visible(context, slot)
    next_position = int(cache.next_position[slot])

    # For this call the new ones are all that there is.
    cache.tick[slot, old] = kv_cache.HIDDEN
    cache.tick[slot, state.cells] = kv_cache.TEXT
    cache.next_position[slot] = state.position
    context.forward({slot: context.embed(tokens)}, pin=True)
    cells = _visible(context, slot)
    cache.tick[slot, cells] = kv_cache.HIDDEN
    cache.tick[slot, old] = kv_cache.TEXT
    cache.next_position[slot] = next_position

    unread = state.unread[len(tokens) :]
    position = state.position + len(tokens)
    if unread:
        return Instructions(unread, position, cells, state.is_for_turn)
    cache.tick[slot, cells] = kv_cache.TEXT
    if state.is_for_turn:
        cache.tick[slot, old] = kv_cache.HIDDEN
        return Instructions(kept=old)
    _free(context, slot, old)
    return Instructions()


def go_on(context: LMContext, slot: int, state: Instructions, count: int) -> Instructions:
    """Read at most `count` tokens of new ones, or return to the session's own after a turn."""
    if state.is_reading:
        return read(context, slot, state, count)
    return restore(context, slot, state) if state.is_turn_over else state


def restore(context: LMContext, slot: int, state: Instructions) -> Instructions:
    """The session's own instructions are in force again."""
    _free(context, slot, _visible(context, slot))
    context.cache.tick[slot, state.kept] = kv_cache.TEXT
    return Instructions()


def _visible(context: LMContext, slot: int) -> list[int]:
    """Cells of the instructions that the LM sees."""
    cache = context.cache
    is_prompt = cache.pinned[slot] & (cache.position[slot] >= 0)
    return np.flatnonzero(is_prompt & (cache.tick[slot] == kv_cache.TEXT)).tolist()


def _free(context: LMContext, slot: int, cells: list[int]) -> None:
    context.cache.position[slot, cells] = -1
    context.cache.pinned[slot, cells] = False
