"""Checks of integers that users give, and evenly spaced indices."""

import operator
from typing import Any

from jaxdog.utils import errors

MAX_SEED = 2**32 - 1  # of a run; JAX would keep only these bits of a larger one
MAX_IMAGE_SEED = 2**64 - 1  # of generated images


def check(value: Any, name: str, least: int, most: int | None = None) -> int:
    """The value as an int; one of NumPy or JAX is an integer, too.

    Raises errors.UserError, which calls it `name`, unless it is an integer from `least` to `most` (None: no
    limit).
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise errors.UserError(f"{name} is {value!r}, and must be an integer {limits}")
    return number


def check_seed(seed: Any, name: str = "seed", most: int = MAX_SEED) -> int:
    """A seed as an int; raises errors.UserError, which calls it `name`, unless it is one from 0 to `most`."""
    return check(seed, name, 0, most)


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` of the indices 0 to n - 1, evenly spaced, with the first and, of several, the last."""
    count = min(n, count)
    step = (n - 1) / max(count - 1, 1)
    return list(dict.fromkeys(round(i * step) for i in range(count)))
