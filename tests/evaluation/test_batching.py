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


@pytest.mark.parametrize("sizes", [[7], [1, 1, 5], [3, 4], [2, 2, 2, 1]])
def test_rebatched_rows_keep_their_order(sizes):
    rows = np.arange(7)
    found = list(batching.rebatch(np.split(rows, np.cumsum(sizes)[:-1]), 3))
    assert [x.tolist() for x in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batching.pad(found[-1], 3).tolist() == [6, 6, 6]


def test_the_next_part_is_started_before_one_is_copied():
    events: list[str] = []

    class Part:
        def __init__(self, i: int):
            events.append(f"start {i}")
            self.i = i

        def __array__(self, dtype=None, copy=None) -> np.ndarray:
            events.append(f"copy {self.i}")
            return np.full(2, self.i)

    found = batching.collect(({"x": Part(i)} for i in range(3)), 5)
    assert found["x"].tolist() == [0, 0, 1, 1, 2]
    assert [x for x in events if x.startswith("start") or x == "copy 0"].index("copy 0") == 2
    assert events.index("copy 1") > events.index("start 2")
