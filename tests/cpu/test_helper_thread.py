"""Two threads at one product or at one call's attention: the same bits as from one."""

import threading

import numpy as np
import pytest
import torch

from duplex.cpu import attention, helper_thread, products
from duplex.cpu.shared_work import DONE, NEEDED, OWNER, WORDS, usable_cores
from tests.cpu.reference import cells_and_queries

# All that they call is compiled first.
pytestmark = pytest.mark.slow

SHAPES = [(1, 576, 960), (3, 256, 1024), (8, 1536, 576), (11, 576, 3072)]
needs_two_cores = pytest.mark.skipif(usable_cores() < 2, reason="the other thread needs a core")


@pytest.fixture(autouse=True)
def compiled():
    helper_thread.worker_loop()  # Nobody needs it, so it returns.


@pytest.fixture(params=SHAPES, ids=str)
def product(request):
    """Activations [N, I], weights, and what one thread makes of them."""
    rows, inputs, outputs = request.param
    torch.manual_seed(0)
    x = torch.randn(rows, inputs).numpy()
    w = products.pack(torch.randn(outputs, inputs), torch.randn(outputs))
    assert w.weight.size >= products.MIN_SHARED_BYTES, "too small to be shared"
    return x, w, products.int8_matmul(x, w)


@needs_two_cores
def test_two_threads_make_the_same_product(product):
    x, w, alone = product
    done = 0
    with helper_thread.running():
        for _ in range(3000):
            assert np.array_equal(products.int8_matmul(x, w), alone)
            done += WORDS[DONE]
    assert done > 0, "the helper has made nothing of it"


@needs_two_cores
def test_two_threads_attend_the_same():
    given, expected = cells_and_queries(torch.bfloat16)
    alone = np.empty_like(expected)
    attention.attend_cells(*given, alone)
    done = 0
    with helper_thread.running():
        for _ in range(3000):
            y = np.empty_like(expected)
            attention.attend_cells(*given, y)
            assert np.array_equal(y, alone)
            done += WORDS[DONE]
    assert done > 0, "the helper has done nothing of it"


def test_only_one_of_several_threads_is_helped(product):
    """All get their own product, whatever the helper does."""
    x, w, alone = product
    found = []

    def work():
        with helper_thread.running():
            made = (products.int8_matmul(x, w) for _ in range(300))
            found.append(all(np.array_equal(one, alone) for one in made))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3
    assert not WORDS[NEEDED]
    assert not WORDS[OWNER]


def test_helper_that_is_not_needed_stops_looking():
    with helper_thread.running():
        assert WORDS[NEEDED]
    helper = threading.Thread(target=helper_thread.worker_loop)
    helper.start()
    helper.join(10)
    assert not helper.is_alive()
