"""Autoregressive priors over the codes of a VQ-VAE: likelihood and ancestral sampling.

A prior is a Flax module with

  lengths: tuple[int, ...]: number of codes of each level; n is their sum.
  __call__(code [b, n] int32, label [b], train) -> logits [b, n, codebook_size] float32; the logits at a
    position depend on the label and the codes before that position only.
  init_cache(b) -> cache: the decoding cache of b empty sequences.
  step(cache, previous [b], label [b], position []) -> (logits [b, codebook_size], cache): the logits at one
    position, given the code before it. Positions come in order from 0, where `previous` is ignored.

The levels form one sequence: the top map row by row, then the bottom map. A single network models both
p(top | class) and p(bottom | top, class).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog import types

Array = jax.Array


def nll(logits: Array, code: Array) -> Array:
    """Negative log-likelihood in nats of code [b, n] under logits [b, n, codebook_size]: [b, n] float32."""
    chosen = jnp.take_along_axis(logits, code[..., None], -1)[..., 0]
    return nn.logsumexp(logits, -1) - chosen


def sample_codes(prior: Any, params: types.PyTree, key: Array, label: Array, temperature: float) -> Array:
    """Samples codes one position at a time.

    Args:
      prior: a module with the interface above.
      params: of the prior.
      key: [b], one per sequence.
      label: [b] int32.
      temperature: divides the logits; values below 1 favor likely codes.

    Returns:
      [b, n] int32.
    """
    b = label.shape[0]
    categorical = jax.vmap(
        lambda key, position, logits: jax.random.categorical(jax.random.fold_in(key, position), logits)
    )

    def one(carry: tuple[Any, Array], position: Array) -> tuple[tuple[Any, Array], Array]:
        cache, previous = carry
        output: Any = prior.apply({"params": params}, cache, previous, label, position, method="step")
        logits, cache = output
        code = categorical(key, jnp.broadcast_to(position, (b,)), logits / temperature).astype(jnp.int32)
        return (cache, code), code

    begin = prior.init_cache(b), jnp.zeros(b, jnp.int32)
    _, codes = lax.scan(one, begin, jnp.arange(sum(prior.lengths)))
    return codes.T
