"""jaxdog: generative dogs in JAX.

    import jaxdog

    run = jaxdog.train("biggan", data="photos/", resolution=64)
    generator = jaxdog.Generator.from_run(run.folder)
    images = generator.sample(16, classes="beagle", seed=0)        # uint8 [16, 64, 64, 3]
    scores = jaxdog.score("photos/", images)

Importing jaxdog does not import JAX; using one of these names does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdog.api import TrainedRun as TrainedRun
    from jaxdog.api import score as score
    from jaxdog.api import train as train
    from jaxdog.generators.generator import Generator as Generator

    __version__: str

_MODULES = {  # name -> the module that defines it
    "Generator": "jaxdog.generators.generator",
    "TrainedRun": "jaxdog.api",
    "score": "jaxdog.api",
    "train": "jaxdog.api",
}
__all__ = ["Generator", "TrainedRun", "__version__", "score", "train"]


def __getattr__(name: str) -> Any:
    """Imports what is used for the first time."""
    if name == "__version__":
        from jaxdog.utils import version

        value: Any = version.version()
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'jaxdog' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
