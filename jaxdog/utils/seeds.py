"""The seeds that there are."""

import operator
from typing import Any

from jaxdog.utils import errors

MOST = 2**32 - 1  # the largest seed of a run; JAX would keep only these bits of a larger one
MOST_OF_IMAGES = 2**64 - 1  # the largest seed of generated images


def check(seed: Any, name: str = "seed", most: int = MOST) -> int:
    """The seed as an int; raises UserError, calling it `name`, unless it is an integer from 0 to `most`."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= most:
        power = most.bit_length()
        raise errors.UserError(f"{name} is {seed!r}, and must be an integer from 0 to {most} (2^{power} - 1)")
    return number
