"""Two threads at one piece of work of a few microseconds: what they tell each other (the second: duplex.cpu.helper_thread).

The thread that has a work to do describes it in a few words of memory and opens a ticket; both take pieces of the work by
counting the ticket up, until none is left. A ticket bears the work's number, so a helper that slept for a while can take
nothing of a work that is over. Nobody waits for a helper that is not there: who wants the work does what is left. The
operating system's own means to wait are hundreds of times slower than what is waited for; so both look, and look again.
"""

import ctypes
import os
import sys

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = ir.IntType(64)
LINE = 8  # words of a cache line: what both threads write lies apart
OWNER, TICKET, DONE, NEEDED, PIECES = (LINE * n for n in range(5))
KIND, WORK = PIECES + 1, PIECES + 2  # WORK and on: what is to be done
CLOSED = 2**32 - 1  # the lower half of a ticket while nothing may be taken
WORDS = (ctypes.c_int64 * (PIECES + 3 * LINE))()
binding.add_symbol(
    "duplex_words", ctypes.addressof(WORDS)
)  # by name: compiled code is kept on disk


def _word(builder, index):
    """A pointer to one of the WORDS."""
    words_t = ir.ArrayType(I64, len(WORDS))
    words = builder.module.globals.get("duplex_words") or ir.GlobalVariable(
        builder.module, words_t, "duplex_words"
    )
    return builder.gep(words, [I64(0), index])


@intrinsic
def load(typingctx, index):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word(builder, args[0]), "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def store(typingctx, index, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _word(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def add(typingctx, index, value):
    """-> the word before"""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def replace(typingctx, index, expected, value):
    """Write the word if it is the expected one -> the word before."""

    def codegen(context, builder, signature, args):
        found = builder.cmpxchg(_word(builder, args[0]), args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(found, 0)

    return types.int64(types.intp, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):
    """A moment in which the other thread of this core, if it has one, gets on."""

    def codegen(context, builder, signature, args):
        if binding.get_process_triple().startswith("x86_64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(
                cgutils.get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause"), []
            )
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def give_way(typingctx):
    """Let another process have this core, if one wants it."""

    def codegen(context, builder, signature, args):
        if sys.platform != "win32":
            builder.call(
                cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield"
                ),
                [],
            )
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def address_of(typingctx, array):
    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, I64)

    return types.int64(array), codegen


@intrinsic
def pointer(typingctx, address):
    """What numba.carray wants."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@njit
def announce():
    """Before a work is described: nobody may take pieces of the last one. -> its number"""
    number = (load(TICKET) >> 32) + 1
    store(TICKET, number << 32 | CLOSED)
    store(DONE, 0)
    return number


@njit
def offer(number, pieces, kind):
    """The work is described."""
    store(PIECES, pieces)
    store(KIND, kind)
    store(TICKET, number << 32)


@njit
def claim(number, pieces):
    """The next of so many pieces of work `number`; -1: none is left, or another work's turn has come."""
    ticket = load(TICKET)
    while ticket >> 32 == number and ticket & CLOSED < pieces:
        found = replace(TICKET, ticket, ticket + 1)
        if found == ticket:
            return ticket & CLOSED
        ticket = found
    return -1


@njit
def finish(others):
    """Wait for the pieces that the helper has taken."""
    while load(DONE) < others:
        pause()
    store(OWNER, 0)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
