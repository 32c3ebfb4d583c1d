"""The log of a command on the terminal."""

import logging


def show() -> None:
    """Shows the log lines of jaxdog on stderr, unless they have a handler, and of absl only errors."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # of Orbax
    log = logging.getLogger("jaxdog")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
        log.propagate = False
