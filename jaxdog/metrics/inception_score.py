"""The Inception Score (Salimans et al. 2016, arXiv:1606.03498): confident and diverse class predictions.

exp(mean KL(p(y|x) || p(y))) over the network's 1,008 classes. As in the original code, logits are without
bias ("logits_no_bias"), images are split into 10 consecutive parts, and the standard deviation is that of the
population.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.metrics import comparison, features
from jaxdog.utils import errors

Array = jax.Array

SPLITS = 10
FEW = 100  # images of a split, below which its score is biased downwards: it is at most their number


class Score(NamedTuple):
    """Statistics over the splits. Scores are between 1 and the number of classes."""

    mean: Array  # [] float32
    std: Array  # [] float32, ddof 0


def inception_score(logits: Array, splits: int = SPLITS) -> Score:
    """The score of n images from their logits [n, c]; split i starts at row i * n // splits.

    Images sorted by class must be shuffled first, as each split needs all classes; `scores` does so.
    Raises UserError if there are fewer images than splits.
    """
    n, _ = logits.shape
    if not 1 <= splits <= n:
        raise errors.UserError(f"splits is {splits}, and must be from 1 to the number of images, {n}")
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        marginal = jax.nn.logsumexp(part, axis=0) - jnp.log(len(part))
        divergence = jnp.sum(jnp.exp(part) * (part - marginal[None, :]), axis=1)
        scores.append(jnp.exp(jnp.mean(divergence)))
    stacked = jnp.stack(scores)
    return Score(jnp.mean(stacked), jnp.std(stacked))


def scores(compared: comparison.Comparison) -> comparison.Scores:
    """Row "isc" of the table of metrics."""
    count = compared.fake.count
    splits = min(SPLITS, count)
    each = count // splits
    if splits < SPLITS:
        compared.warn(f"the Inception Score uses {splits} splits of one image each instead of {SPLITS}")
    elif each < FEW:
        compared.warn(
            f"the Inception Score is biased downwards: it is at most {count / splits:g}, the number of "
            f"images in each of its {splits} splits"
        )
    logits, label = compared.fake.layers[features.LOGITS], compared.fake.label
    if label is not None and _is_sorted(np.asarray(label)):
        logits = np.asarray(logits)[np.random.RandomState(0).permutation(len(logits))]
    score = compared.devices.jitted(inception_score, 1)(logits, splits)
    names = compared.metric_name("inception_score"), compared.metric_name("inception_score_std")
    std = float(score.std) if each > 1 else None  # of one image, the score is 1
    return dict(zip(names, (float(score.mean), std), strict=True))


def _is_sorted(label: np.ndarray) -> bool:
    """Whether images are sorted by class, as those in one folder per class are."""
    return len(label) > len(np.unique(label)) > 1 and bool((np.diff(label) >= 0).all())
