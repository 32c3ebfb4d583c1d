"""Packages that only some work needs: imported when it begins, with a clear word where they are missing."""

import importlib
from typing import Any

NAMES = {
    "cv2": "opencv-python-headless",
    "sklearn.cluster": "scikit-learn",
    "sklearn.decomposition": "scikit-learn",
}


class MissingExtra(ImportError):
    """A package of the extra `clean` is not installed."""


def load(module: str, work: str) -> Any:
    """A module of NAMES; raises MissingExtra naming the package, the work that needs it and the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{work} needs {NAMES[module]}, which cannot be imported ({error}): pip install 'jaxdog[clean]'"
        ) from error
