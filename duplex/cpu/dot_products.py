"""Sums of products, the innermost loop of a matrix product, written in LLVM's language.

numba itself multiplies no numbers of 8 bits many at once. With AVX-512 VNNI one instruction makes
64 products of 8 bits and adds them to 16 sums; with AVX2 one makes 16 of 16 bits and adds pairs.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Rows of weights that are multiplied at once.
LANES = 16

# Weights of each of these rows.
GROUP = 4

# Whether the processor has an instruction for sums of four products of 8 bits.
HAS_VNNI = bool(binding.get_host_cpu_features().get("avx512vnni"))

# Weights of a row that lie side by side: as many as one instruction adds the products of.
STEP = GROUP if HAS_VNNI else GROUP // 2


def make_dot_products(rows: int, has_instruction: bool):
    """The intrinsic dot_products(x, at, w, block, totals) for so many rows of x.

    totals[r] int32 [LANES] = row r of x times each row of w[block], whose weights are taken as 0 to
    255. The rows of x begin at byte `at`, GROUP columns of each by turns.

    Args:
        has_instruction: use the processor's own for sums of four products of 8 bits; a row of x is
            two of int8 then, and has two totals. Otherwise a row of x is int16, and LLVM finds the
            instruction for sums of two products, if there is one; totals have their lowest 32 bits.
    """
    step = GROUP if has_instruction else GROUP // 2
    bits = 8 if has_instruction else 16
    totals_of_row = 2 if has_instruction else 1

    @intrinsic
    def dot_products(typingctx, x, at, w, block, totals):
        def codegen(context, builder, signature, args):
            def pointer(place):
                return context.make_array(signature.args[place])(context, builder, args[place]).data

            shape = context.make_array(signature.args[2])(context, builder, args[2]).shape
            groups = builder.extract_value(shape, 1)
            size = groups.type
            group_bytes = ir.Constant(size, LANES * GROUP)
            own = builder.gep(pointer(2), [builder.mul(args[3], builder.mul(groups, group_bytes))])
            given = builder.gep(pointer(0), [args[1]])
            zeros = ir.Constant(_vector(32, LANES), None)
            count = rows * totals_of_row
            found = [cgutils.alloca_once_value(builder, zeros) for _ in range(count)]
            x_bytes = step * bits // 8
            with cgutils.for_range(builder, groups) as loop:
                here = builder.gep(own, [builder.mul(loop.index, group_bytes)])
                # 4 KiB of weights are fetched before they are used.
                _prefetch(builder, builder.gep(here, [ir.Constant(size, 4096)]))
                parts = [
                    _load(
                        builder,
                        builder.gep(here, [ir.Constant(size, part)]),
                        _vector(8, LANES * step),
                    )
                    for part in range(0, LANES * GROUP, LANES * step)
                ]
                row_bytes = ir.Constant(size, rows * 2 * GROUP)
                numbers = builder.gep(given, [builder.mul(loop.index, row_bytes)])
                for r, total in enumerate(found):
                    for part, weights in enumerate(parts):
                        place = ir.Constant(size, (r * len(parts) + part) * x_bytes)
                        few = _load(builder, builder.gep(numbers, [place]), _vector(bits, step))
                        before = builder.load(total)
                        added = _add_products(builder, before, weights, few, has_instruction)
                        builder.store(added, total)
            for r, total in enumerate(found):
                to = builder.gep(pointer(4), [ir.Constant(size, r * LANES)])
                sums = builder.load(total)
                builder.store(sums, builder.bitcast(to, _vector(32, LANES).as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, w, types.intp, totals), codegen

    return dot_products


def _vector(bits: int, count: int) -> ir.VectorType:
    """The type of so many whole numbers."""
    return ir.VectorType(ir.IntType(bits), count)


def _function(builder, result, given, name):
    """A function of LLVM."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, given), name)


def _prefetch(builder, at) -> None:
    """Fetch what is at a pointer for reading, into all caches."""
    i32 = ir.IntType(32)
    given = [ir.IntType(8).as_pointer(), i32, i32, i32]
    prefetch = _function(builder, ir.VoidType(), given, "llvm.prefetch.p0")
    how = [i32(0), i32(3), i32(1)]  # To read, into all levels, data.
    builder.call(prefetch, [at, *how])


def _load(builder, at, type_):
    """A vector from a pointer that need not be aligned."""
    loaded = builder.load(builder.bitcast(at, type_.as_pointer()))
    loaded.align = 1
    return loaded


def _add_products(builder, total, weights, few, has_instruction: bool):
    """Add to LANES totals the products of each one's weights and a few numbers of a row of x."""
    i32, lanes = ir.IntType(32), _vector(32, LANES)
    undefined = ir.Constant(lanes, ir.Undefined)
    one = builder.insert_element(undefined, builder.bitcast(few, i32), i32(0))
    every = builder.shuffle_vector(one, one, ir.Constant(lanes, [0] * LANES))
    if has_instruction:
        add = _function(builder, lanes, [lanes] * 3, "llvm.x86.avx512.vpdpbusd.512")
        return builder.call(add, [total, builder.bitcast(weights, lanes), every])
    wide = _vector(32, 2 * LANES)
    numbers = builder.sext(builder.bitcast(every, _vector(16, 2 * LANES)), wide)
    products = builder.mul(builder.zext(weights, wide), numbers)
    even, odd = (ir.Constant(lanes, [2 * n + side for n in range(LANES)]) for side in (0, 1))
    pairs = builder.add(
        builder.shuffle_vector(products, products, even),
        builder.shuffle_vector(products, products, odd),
    )
    return builder.add(total, pairs)


# For one, four and eight rows of activations.
dot_products_1 = make_dot_products(1, HAS_VNNI)
dot_products_4 = make_dot_products(4, HAS_VNNI)
dot_products_8 = make_dot_products(8, HAS_VNNI)
