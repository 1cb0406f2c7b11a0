"""Samples in line, against one long array."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duplex.serving.sound.sample_queue import SampleQueue

calls = st.lists(
    st.tuples(st.sampled_from(["push", "take", "put_back", "truncate"]), st.integers(0, 9))
)


@given(calls)
def test_queue_is_one_long_array(made):
    queue = SampleQueue()
    expected = np.zeros(0, np.float32)
    for number, (call, count) in enumerate(made):
        samples = np.arange(count, dtype=np.float32) + 100 * number
        match call:
            case "push":
                queue.push(samples)
                expected = np.concatenate([expected, samples])
            case "put_back":
                queue.put_back(samples)
                expected = np.concatenate([samples, expected])
            case "take":
                np.testing.assert_array_equal(queue.take(count), expected[:count])
                expected = expected[count:]
            case "truncate":
                queue.truncate(count)
                expected = expected[:count]
        assert len(queue) == len(expected)
    np.testing.assert_array_equal(queue.take(len(queue)), expected)
