"""How tests start the project's commands and examples in processes of their own."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """Fast compilation into one cache for all tests, as the speed of the programs does not matter."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(os.environ["XDG_CACHE_HOME"], "jaxdog", "xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        **more,
    }
