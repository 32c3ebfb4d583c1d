"""Bounds of seeds."""

import numpy as np
import pytest

from jaxdog.utils import errors, seeds


def test_seeds_are_integers_of_32_or_64_bits() -> None:
    for seed in (0, 2**32 - 1, np.uint32(3)):
        assert seeds.check(seed) == int(seed)
    assert seeds.check(2**64 - 1, "seed", seeds.MOST_OF_IMAGES) == 2**64 - 1
    for seed in (-1, 2**32, 1.0, True, None, "1"):
        with pytest.raises(errors.UserError, match=r"config.seed is .* integer from 0 to 4294967295 "):
            seeds.check(seed, "config.seed")
    with pytest.raises(errors.UserError, match=r"seed is 18446744073709551616, .* \(2\^64 - 1\)"):
        seeds.check(2**64, "seed", seeds.MOST_OF_IMAGES)
