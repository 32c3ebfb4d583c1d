"""Where the configs that come with jaxdog are."""

import pathlib


def folder() -> pathlib.Path:
    """The folder of the configs that come with jaxdog: in the package, or beside it in a clone."""
    package = pathlib.Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
