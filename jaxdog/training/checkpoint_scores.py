"""The scores of a run's checkpoints: which checkpoint is the best, and which are kept for their score.

A score is a number of one metric, computed by one protocol: with certain weights of the feature network, a
number of samples, ways to sample. Only scores of one kind are compared: of one metric, by one protocol.
"""

import logging
import math
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from jaxdog.training import digests
from jaxdog.utils import errors, files

log = logging.getLogger("jaxdog")

METRICS = "metrics/metrics"  # in the folder of a checkpoint
PROTOCOL, EARLIER_PROTOCOL = "protocol", "basis"  # entries of the metrics: how they were computed
MAX_BYTES = 1 << 16  # of the metrics


def protocol_in(values: Mapping[str, Any]) -> str:
    """The protocol in the values of a file, which earlier versions called its basis; "" if it has none."""
    return str(values.get(PROTOCOL, values.get(EARLIER_PROTOCOL, "")))


class Kind(NamedTuple):
    """What must be equal for scores to be compared."""

    metric: str
    protocol: str  # "": unknown, and compared with any

    def __str__(self) -> str:
        return f"{self.metric} by {self.protocol}" if self.protocol else self.metric


class Scores:
    """The scores of the checkpoints in a folder.

    Args:
      folder: that of the checkpoints.
      kind: of the scores that choose the best checkpoint, and of those that are written.
      steps: the steps of the checkpoints.

    Raises UserError if a score cannot be read now, but may be sound. A checkpoint whose score is damaged has
    none (logged), and is kept.
    """

    def __init__(self, folder: pathlib.Path, kind: Kind, steps: Collection[int]):
        self._folder, self._kind = folder, kind
        self._values: dict[int, tuple[Kind, float]] = {}  # by step; values may be NaN
        self._damaged: set[int] = set()  # steps
        for step in steps:
            self._read(step)

    def kept(self, steps: Collection[int], count: int) -> set[int]:
        """Those of `steps` that are kept: of each kind the `count` best, and those with a damaged score.

        With several kinds of one metric also the newest, whose kind is that of `ranked`.
        """
        found = {*self._damaged}
        kinds = {kind for kind, _ in self._values.values()}
        for kind in kinds:
            found |= {*self._best_first(kind, steps)[:count]}
            if count and sum(other.metric == kind.metric for other in kinds) > 1:
                found.add(max(step for step, (x, _) in self._values.items() if x.metric == kind.metric))
        return found

    def ranked(self, steps: Collection[int]) -> list[int]:
        """Those of `steps` with a finite score of the metric by the newest one's protocol, best first."""
        newest = max(
            (step for step, (x, _) in self._values.items() if x.metric == self._kind.metric), default=None
        )
        return [] if newest is None else self._best_first(self._values[newest][0], steps)

    def value(self, step: int) -> float | None:
        """The score of the metric at `step`, which may be NaN; None if there is none."""
        kind, value = self._values.get(step, (None, math.nan))
        return value if kind is not None and kind.metric == self._kind.metric else None

    def write(self, step: int, value: float) -> None:
        """Writes the score of a checkpoint to the disk; `set` makes it known here."""
        sealed = {self._kind.metric: value if math.isfinite(value) else None, PROTOCOL: self._kind.protocol}
        files.write_text(self._folder / str(step) / METRICS, digests.seal(sealed))

    def set(self, step: int, value: float) -> None:
        """The score of a checkpoint. Logs if it is the first of its kind after others."""
        kinds = {kind for kind, _ in self._values.values()}
        before = {str(kind) for kind in kinds if kind.protocol or kind.metric != self._kind.metric}
        if before and self._kind not in kinds:
            log.warning(
                "scores are now %s, and were %s; the best checkpoint is chosen among the new ones, and the "
                "best of each kind is kept", self._kind, "; ".join(sorted(before)),
            )  # fmt: skip
        self._values[step] = self._kind, value
        self._damaged.discard(step)

    def drop(self, step: int) -> None:
        """Forgets the checkpoint of a step, which is none any more."""
        self._values.pop(step, None)
        self._damaged.discard(step)

    def _best_first(self, kind: Kind, steps: Collection[int]) -> list[int]:
        """Those with a finite score of this kind, or by an unknown protocol, best first."""
        protocols = (
            {x.protocol for x, _ in self._values.values()} if not kind.protocol else {"", kind.protocol}
        )
        scored = sorted(
            (value, step)
            for step, (x, value) in self._values.items()
            if x.metric == kind.metric and x.protocol in protocols and math.isfinite(value) and step in steps
        )
        return [step for _, step in scored]

    def _read(self, step: int) -> None:
        path = self._folder / str(step) / METRICS
        try:
            values = digests.unseal(files.read_limited(path, MAX_BYTES))
            numbers = {name: x for name, x in values.items() if x is None or isinstance(x, int | float)}
            ((metric, value),) = numbers.items()
            kind = Kind(metric, protocol_in(values))
            self._values[step] = kind, math.nan if value is None else float(value)
        except FileNotFoundError:
            return  # it was not evaluated
        except (OSError, ValueError, TypeError) as error:
            if reason := errors.of_the_system(error):
                raise errors.UserError(
                    f"{path}, the score of a checkpoint, cannot be read now: {reason}. Run the command again "
                    "when it can be read"
                ) from error
            log.warning(
                "%s is damaged (%s): the checkpoint of step %d has no score, and is kept", path, error, step
            )
            self._damaged.add(step)
