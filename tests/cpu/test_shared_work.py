"""Two threads at one product or at one call's attention: the same bits as from one."""

import threading

import numpy as np
import pytest
import torch
from numba import njit
from torch.nn import functional as F

from duplex.cpu import attention, helper_thread, kernels
from duplex.cpu import shared_work as sharing

SHAPES = [(1, 576, 960), (3, 256, 1024), (8, 1536, 576), (11, 576, 3072)]


@pytest.fixture(autouse=True)
def compiled():
    helper_thread.worker_loop()  # nobody needs it, so it returns


@pytest.fixture(params=SHAPES, ids=str)
def product(request):
    """Activations [N, I], weights, what one thread makes of them."""
    rows, inputs, outputs = request.param
    torch.manual_seed(0)
    x, w = (
        torch.randn(rows, inputs).numpy(),
        kernels.pack(torch.randn(outputs, inputs), torch.randn(outputs)),
    )
    assert w.weight.size >= kernels.SHARED_BYTES, "too small to be shared"
    return x, w, kernels.product(x, w)


def cells_and_queries(dtype: torch.dtype):
    """Five rows of two slots over 40 cells, of which each row sees others -> arguments of attend_cells, torch's result."""
    torch.manual_seed(0)
    slots, (batch, kv_heads, width, cells, seen) = np.array([0, 0, 2, 2, 2]), (3, 2, 16, 48, 40)
    qkv = torch.randn(5, 6 + 2 * kv_heads, width)
    keys, values = (torch.randn(batch, kv_heads, cells, width).to(dtype) for _ in range(2))
    visible = torch.rand(5, seen) < 0.5
    visible[:, 0] = True
    whole = [part[slots, :, :seen].float().repeat_interleave(3, 1) for part in (keys, values)]
    y = F.scaled_dot_product_attention(qkv[:, :6, None], *whole, attn_mask=visible[:, None, None])[
        :, :, 0
    ]
    hidden = torch.zeros(5, seen).masked_fill(~visible, -torch.inf)
    there = [
        part.view(torch.uint16) if dtype == torch.bfloat16 else part
        for part in (keys.transpose(2, 3).contiguous(), values)
    ]
    return [
        qkv.numpy(),
        *(part.numpy() for part in there),
        slots,
        hidden.numpy(),
        np.empty(cells, np.float32),
    ], y.numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_that_of_torch(dtype):
    given, expected = cells_and_queries(dtype)
    y = np.empty_like(expected)
    attention.attend_cells(*given, y)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_sixteen_bits_are_those_of_bfloat16():
    x = torch.cat(
        [torch.randn(1000) * 100, torch.tensor([0.0, 1.00390625, 1.01171875, -3e38, 1e-30])]
    )  # two are half-way
    y = np.array([round_trip(value) for value in x.numpy()])
    assert np.array_equal(y, x.bfloat16().float().numpy())


@njit
def round_trip(x):
    return kernels.wide(kernels.kept(x, np.uint16(0)))


@pytest.mark.skipif(sharing.cores() < 2, reason="the other thread needs a core")
def test_two_threads_make_the_same_product(product):
    x, w, alone = product
    taken = 0
    with helper_thread.running():
        for _ in range(3000):
            assert np.array_equal(kernels.product(x, w), alone)
            taken += sharing.WORDS[sharing.DONE]
    assert taken > 0, "the helper has made nothing of it"


@pytest.mark.skipif(sharing.cores() < 2, reason="the other thread needs a core")
def test_two_threads_attend_the_same():
    given, expected = cells_and_queries(torch.bfloat16)
    alone, taken = np.empty_like(expected), 0
    attention.attend_cells(*given, alone)
    with helper_thread.running():
        for _ in range(3000):
            y = np.empty_like(expected)
            attention.attend_cells(*given, y)
            assert np.array_equal(y, alone)
            taken += sharing.WORDS[sharing.DONE]
    assert taken > 0, "the helper has done nothing of it"


def test_of_two_who_want_help_one_gets_it(product):
    """And both get their own product, whatever the helper does."""
    x, w, alone = product
    found = []

    def work():
        with helper_thread.running():
            found.append(all(np.array_equal(kernels.product(x, w), alone) for _ in range(300)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3
    assert not sharing.WORDS[sharing.NEEDED] and not sharing.WORDS[sharing.OWNER]


def test_who_is_not_needed_stops_looking():
    with helper_thread.running():
        assert sharing.WORDS[sharing.NEEDED]
    helper = threading.Thread(target=helper_thread.worker_loop)
    helper.start()
    helper.join(10)
    assert not helper.is_alive()
