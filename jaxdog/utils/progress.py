"""Progress bars; where there is no terminal, a log line each minute in place of a bar."""

import logging
import sys
from typing import Any

import tqdm

SECONDS = 60.0  # between log lines, and before the first
LINE = "{desc}: {n_fmt} of {total_fmt}, about {remaining} left"

log = logging.getLogger("jaxdog")


class _Log:
    """A file whose text becomes log lines."""

    def write(self, text: str) -> None:
        line = text.strip()  # of the \r and the spaces that clear a bar
        if line:
            log.info("%s", line)

    def flush(self) -> None:
        pass


def bar(total: int, title: str, unit: str, visible: bool = True, **more: Any) -> tqdm.tqdm:
    """A progress bar that disappears at its end.

    Args:
      total: what it counts up to.
      title: what is being done.
      unit: of what is counted.
      visible: whether it is shown.
      more: other arguments of tqdm, such as `iterable`.
    """
    more |= {"total": total, "desc": title, "unit": unit, "leave": False}
    if not visible or (sys.stderr is not None and sys.stderr.isatty()):
        return tqdm.tqdm(**more, disable=not visible)
    more |= {"mininterval": SECONDS, "maxinterval": SECONDS, "delay": SECONDS, "miniters": 1, "position": 0}
    return tqdm.tqdm(**more, file=_Log(), bar_format=LINE)
