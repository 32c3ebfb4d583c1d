"""Bounds of seeds and other integers; evenly spaced indices."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.utils import errors, integers


def test_seeds_are_integers_of_32_or_64_bits() -> None:
    for seed in (0, 2**32 - 1, np.uint32(3)):
        assert integers.check_seed(seed) == int(seed)
    assert integers.check_seed(2**64 - 1, "seed", integers.MAX_IMAGE_SEED) == 2**64 - 1
    for seed in (-1, 2**32, 1.0, True, None, "1"):
        with pytest.raises(errors.UserError, match=r"config.seed is .* integer from 0 to 4294967295$"):
            integers.check_seed(seed, "config.seed")
    with pytest.raises(errors.UserError, match="seed is 18446744073709551616, .* to 18446744073709551615$"):
        integers.check_seed(2**64, "seed", integers.MAX_IMAGE_SEED)


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), jnp.array(3)])
def test_integers_of_other_libraries_are_integers(value: object) -> None:
    checked = integers.check(value, "n", 3)
    assert checked == 3 and type(checked) is int


@pytest.mark.parametrize("value", [2, 3.0, True, np.True_, None, "3", np.array([3]), float("nan")])
def test_others_are_refused(value: object) -> None:
    with pytest.raises(errors.UserError, match="n is .*, and must be an integer of at least 3"):
        integers.check(value, "n", 3)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 7, 100, 20_579])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 100])
def test_evenly_spaced_indices_are_those_of_numpy(n: int, count: int) -> None:
    expected = np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int))
    assert integers.evenly_spaced(n, count) == expected.tolist()
