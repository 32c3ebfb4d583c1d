"""The version of the package."""

from importlib import metadata


def version() -> str:
    """The installed version; "unknown" for a clone that is not installed."""
    try:
        return metadata.version("jaxdog")
    except metadata.PackageNotFoundError:
        return "unknown"
