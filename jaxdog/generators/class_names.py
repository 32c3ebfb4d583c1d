"""Classes by name or index, with suggestions for misspelled names."""

import difflib
import operator
import re
from collections.abc import Sequence

import numpy as np

from jaxdog.utils import errors

Classes = str | int | Sequence[str | int] | np.ndarray | None
WORDNET_ID = re.compile(r"n\d{8}[-_](.+)")
MAX_LISTED = 24  # names in an error message


def short(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names without WordNet's ids, "beagle" for "n02088364-beagle", if they stay distinct."""
    matches = [WORDNET_ID.fullmatch(name) for name in class_names]
    names = tuple(match[1] if match else name for match, name in zip(matches, class_names, strict=True))
    return names if len(set(map(_plain, names))) == len(names) else tuple(class_names)


def index(given: str | int, class_names: Sequence[str], classes: Sequence[str]) -> int:
    """The index of a class.

    Args:
      given: an index; or a name, in any case and with spaces, hyphens or underscores.
      class_names: all names in full.
      classes: all names, see `short`.

    Raises UserError for an unknown name, with similar ones, or an index that is out of range.
    """
    if isinstance(given, str):
        return _index_of_name(given, class_names, classes)
    try:
        number = operator.index(given)
    except TypeError as error:
        raise errors.UserError(f"the class {given!r} is neither a name nor an index") from error
    if isinstance(given, bool | np.bool_) or not 0 <= number < len(classes):
        raise errors.UserError(f"the class {given!r} does not exist; indices: 0 to {len(classes) - 1}")
    return number


def indices(given: Classes, class_names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The indices of one class, or of a sequence of them; raises UserError as `index`, or if it is empty."""
    if isinstance(given, str) or np.ndim(given) == 0:  # pyright: ignore
        return [index(given, class_names, classes)]  # pyright: ignore
    found = [index(one, class_names, classes) for one in given]  # pyright: ignore
    if not found:
        raise errors.UserError("classes is empty; leave it out for all classes")
    return found


def _index_of_name(given: str, class_names: Sequence[str], classes: Sequence[str]) -> int:
    for names in (class_names, classes):
        if given in names:
            return names.index(given)
    plain = [_plain(name) for name in classes]
    if plain.count(_plain(given)) == 1:
        return plain.index(_plain(given))
    near = difflib.get_close_matches(_plain(given), plain, n=3, cutoff=0.6)
    near += [name for name in plain if _plain(given) and _plain(given) in name and name not in near][:3]
    similar = [classes[plain.index(name)] for name in near]
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    raise errors.UserError(f"no class is called {given!r}; {hint}Classes: {errors.some(classes, MAX_LISTED)}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
