"""Padded batches: every row once, in order, at one batch size."""

import numpy as np
import pytest

from jaxdog.evaluation import batching


def test_batches_have_one_size_and_hold_all_rows():
    rows = list(batching.padded_batches(7, 3))
    assert [x.tolist() for x in rows] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_padding_is_not_returned(batch_size):
    a, b, sizes = np.arange(7), np.arange(14).reshape(7, 2), []

    def function(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(x))
        return {"sum": x[:, None] + y, "x": x}

    found = batching.map_batches(function, (a, b), batch_size)
    np.testing.assert_array_equal(found["sum"], a[:, None] + b)
    np.testing.assert_array_equal(found["x"], a)
    assert set(sizes) == {batch_size}
