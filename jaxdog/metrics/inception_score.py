"""The Inception Score (Salimans et al. 2016, arXiv:1606.03498): are the classes sharp, and are there many?

exp(mean KL(p(y|x) || p(y))) over the network's 1,008 classes. The original took the logits without their
bias ("logits_no_bias"), 10 splits of neighbouring pictures, and the population's standard deviation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Score(NamedTuple):
    """Over the splits."""

    mean: Array  # [] float32
    std: Array  # [] float32, of the population (ddof 0); 0 with one split


def inception_score(logits: Array, splits: int = 10) -> Score:
    """Logits [n, c] of n pictures -> their score; split i holds those from i n // splits on.

    The order of the pictures decides who shares a split: shuffle pictures that are sorted by class.
    Raises ValueError when there are fewer pictures than splits.
    """
    n, _ = logits.shape
    if not 1 <= splits <= n:
        raise ValueError(
            f"splits is {splits}, but {n} pictures can be split into 1 to {n} parts; with few pictures take "
            "fewer splits"
        )
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        marginal = jax.nn.logsumexp(part, axis=0) - jnp.log(len(part))
        divergence = jnp.sum(jnp.exp(part) * (part - marginal[None, :]), axis=1)
        scores.append(jnp.exp(jnp.mean(divergence)))
    found = jnp.stack(scores)
    return Score(jnp.mean(found), jnp.std(found))
