"""Optional packages: imported when needed, with errors that name the extra to install."""

import importlib
from typing import Any

from jaxdog.utils import errors

PACKAGES = {  # module -> (package, extra of jaxdog)
    "cv2": ("opencv-python-headless", "clean"),
    "grain": ("grain", "stream"),
    "h5py": ("h5py", "nasnet"),
    "huggingface_hub": ("huggingface_hub", "hub"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "video"),
    "sklearn.cluster": ("scikit-learn", "clean"),
    "sklearn.decomposition": ("scikit-learn", "clean"),
    "tensorflow_datasets": ("tensorflow-datasets", "tfds"),
    "wandb": ("wandb", "wandb"),
}


class MissingExtraError(errors.UserError, ImportError):
    """An optional package is not installed."""


def load(module: str, work: str) -> Any:
    """Imports a module of PACKAGES; raises MissingExtraError naming the package, the extra and the work."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, extra = PACKAGES[module]
        raise MissingExtraError(
            f"{work} needs {package}, which cannot be imported ({error}): pip install 'jaxdog[{extra}]'"
        ) from error
