"""Packages that only some work needs: imported when it begins, with a clear word where they are missing."""

import importlib
from typing import Any

NAMES = {  # module -> package, extra
    "cv2": ("opencv-python-headless", "clean"),
    "grain": ("grain", "stream"),
    "sklearn.cluster": ("scikit-learn", "clean"),
    "sklearn.decomposition": ("scikit-learn", "clean"),
}


class MissingExtra(ImportError):
    """A package of an extra is not installed."""


def load(module: str, work: str) -> Any:
    """A module of NAMES; raises MissingExtra naming the package, the work that needs it and the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, extra = NAMES[module]
        raise MissingExtra(
            f"{work} needs {package}, which cannot be imported ({error}): pip install 'jaxdog[{extra}]'"
        ) from error
