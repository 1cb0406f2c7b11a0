"""Sums of products of 8 bits, the innermost loop of a matrix product, written in LLVM's language.

numba itself multiplies no numbers of 8 bits many at once. With AVX-512 VNNI one instruction makes
64 products and adds them to 16 sums.
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


def make_dot_products(rows: int, has_instruction: bool):
    """The intrinsic dot_products(x, at, w, block, totals) for so many rows of x.

    totals[r] int32 [LANES] = row r of x times each row of w[block], whose weights are taken as 0 to
    255. The rows of x begin at byte `at`, GROUP columns of each by turns.

    Args:
        has_instruction: use the processor's own for sums of four such products. Otherwise LLVM
            finds that for sums of two, if there is one.
    """

    @intrinsic
    def dot_products(typingctx, x, at, w, block, totals):
        def codegen(context, builder, signature, args):
            def pointer(place):
                return context.make_array(signature.args[place])(context, builder, args[place]).data

            shape = context.make_array(signature.args[2])(context, builder, args[2]).shape
            groups = builder.extract_value(shape, 1)
            size = groups.type
            step = ir.Constant(size, LANES * GROUP)
            own = builder.gep(pointer(2), [builder.mul(args[3], builder.mul(groups, step))])
            given = builder.gep(pointer(0), [args[1]])
            zeros = ir.Constant(_vector(32, LANES if has_instruction else LANES * GROUP // 2), None)
            found = [cgutils.alloca_once_value(builder, zeros) for _ in range(rows)]
            with cgutils.for_range(builder, groups) as loop:
                here = builder.gep(own, [builder.mul(loop.index, step)])
                # 4 KiB of weights are fetched before they are used.
                _prefetch(builder, builder.gep(here, [ir.Constant(size, 4096)]))
                weights = _load(builder, here, _vector(8, LANES * GROUP))
                row_bytes = ir.Constant(size, rows * GROUP)
                digits = builder.gep(given, [builder.mul(loop.index, row_bytes)])
                for r, total in enumerate(found):
                    at = builder.gep(digits, [ir.Constant(size, r * GROUP)])
                    group = _load(builder, at, _vector(8, GROUP))
                    before = builder.load(total)
                    added = _add_products(builder, before, weights, group, has_instruction)
                    builder.store(added, total)
            for r, total in enumerate(found):
                to = builder.gep(pointer(4), [ir.Constant(size, r * LANES)])
                sums = builder.load(total)
                if not has_instruction:
                    sums = _sum_pairs(builder, sums, LANES)
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


def _sum_pairs(builder, vector, count):
    """[2 count] -> the sums of neighbours [count]."""
    even, odd = (
        ir.Constant(_vector(32, count), [2 * n + side for n in range(count)]) for side in (0, 1)
    )
    return builder.add(
        builder.shuffle_vector(vector, vector, even), builder.shuffle_vector(vector, vector, odd)
    )


def _add_products(builder, total, weights, group, has_instruction: bool):
    """Add the products of LANES times GROUP weights and a group of a row of x to the totals."""
    if has_instruction:
        i32, lanes = ir.IntType(32), _vector(32, LANES)
        undefined = ir.Constant(lanes, ir.Undefined)
        one = builder.insert_element(undefined, builder.bitcast(group, i32), i32(0))
        every = builder.shuffle_vector(one, one, ir.Constant(lanes, [0] * LANES))
        add = _function(builder, lanes, [lanes] * 3, "llvm.x86.avx512.vpdpbusd.512")
        return builder.call(add, [total, builder.bitcast(weights, lanes), every])
    wide = _vector(32, LANES * GROUP)
    turns = ir.Constant(wide, [n % GROUP for n in range(LANES * GROUP)])
    every = builder.sext(builder.shuffle_vector(group, group, turns), wide)
    products = builder.mul(builder.zext(weights, wide), every)
    return builder.add(total, _sum_pairs(builder, products, LANES * GROUP // 2))


# For one, four and eight rows of activations, each in coarse and in fine digits.
dot_products_2 = make_dot_products(2, HAS_VNNI)
dot_products_8 = make_dot_products(8, HAS_VNNI)
dot_products_16 = make_dot_products(16, HAS_VNNI)
