"""Two threads at one piece of work of a few microseconds: what they tell each other.

The thread that has work describes it in a few words of memory and opens a ticket. Both threads take
pieces of the work by counting the ticket up, until none is left. A ticket bears the work's number,
so a helper that slept for a while can take nothing of work that is over. The owner never blocks on
a helper that is not there: it takes the remaining pieces itself. The operating system's own means
of waiting take hundreds of times longer than what is waited for, so both threads look again and
again. The second thread is in duplex.cpu.helper_thread.
"""

import ctypes
import os
import sys

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = ir.IntType(64)

# Words of a cache line. What both threads write lies in lines of its own.
LINE = 8

# Places in WORDS. 1 while a thread is the owner of the work.
OWNER = 0 * LINE
# The work's number in the upper half, the next piece in the lower one.
TICKET = 1 * LINE
# How many pieces the helper has done.
DONE = 2 * LINE
# How many threads want help; the helper stops at 0.
NEEDED = 3 * LINE
# How many pieces the work has, its kind, and from WORK on its description.
PIECES = 4 * LINE
KIND = PIECES + 1
WORK = PIECES + 2

# The lower half of a ticket while nothing may be taken.
CLOSED = 2**32 - 1

# Kinds of work.
MATMUL = 0
ATTENTION = 1

WORDS = (ctypes.c_int64 * (PIECES + 3 * LINE))()
# Compiled code finds them by name, for it is kept on disk.
binding.add_symbol("duplex_words", ctypes.addressof(WORDS))


def _word(builder, index):
    """A pointer to one of the WORDS."""
    words_t = ir.ArrayType(I64, len(WORDS))
    words = builder.module.globals.get("duplex_words") or ir.GlobalVariable(
        builder.module, words_t, "duplex_words"
    )
    return builder.gep(words, [I64(0), index])


@intrinsic
def load(typingctx, index):
    """The word at a place."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word(builder, args[0]), "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def store(typingctx, index, value):
    """Write the word at a place."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _word(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def fetch_add(typingctx, index, value):
    """Add to the word at a place. Returns the word before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def compare_exchange(typingctx, index, expected, value):
    """Write the word at a place if it is the expected one. Returns the word before."""

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
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, nothing, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typingctx):
    """Let another process have this core, if one wants it."""

    def codegen(context, builder, signature, args):
        if sys.platform != "win32":
            number = ir.FunctionType(ir.IntType(32), [])
            name = "sched_yield"
            builder.call(cgutils.get_or_insert_function(builder.module, number, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def address_of(typingctx, array):
    """Where an array's numbers are in memory."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, I64)

    return types.int64(array), codegen


@intrinsic
def pointer(typingctx, address):
    """An address as numba.carray takes it."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@njit
def may_share():
    """Whether there is a helper and no other thread has it. Then this thread is its owner."""
    return load(NEEDED) != 0 and compare_exchange(OWNER, 0, 1) == 0


@njit
def announce():
    """Before work is described: nobody may take pieces of the last one. Returns its number."""
    number = (load(TICKET) >> 32) + 1
    store(TICKET, number << 32 | CLOSED)
    store(DONE, 0)
    return number


@njit
def open_ticket(number, pieces, kind):
    """The work is described: pieces may be taken."""
    store(PIECES, pieces)
    store(KIND, kind)
    store(TICKET, number << 32)


@njit
def claim_piece(number, pieces):
    """Take the next of so many pieces of work `number`.

    Returns -1 if none is left, or if another work's turn has come.
    """
    ticket = load(TICKET)
    while ticket >> 32 == number and ticket & CLOSED < pieces:
        found = compare_exchange(TICKET, ticket, ticket + 1)
        if found == ticket:
            return ticket & CLOSED
        ticket = found
    return -1


@njit
def wait_for_helper(pieces):
    """Wait until the helper has done the pieces that it took, and let others have it."""
    while load(DONE) < pieces:
        pause()
    store(OWNER, 0)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
