"""How a discriminator ends: a logit, real or generated, and what it says of breeds."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import layers

Array = jax.Array
Layer = Callable[..., Callable[..., Array]]  # makes a module

BREED_HEADS = ("none", "linear", "linear_and_fake", "cosine")


def verdict(
    h: Array,
    label: Array,
    train: bool,
    *,
    breed_head: str,
    classes: int,
    linear: Layer,
    embed: Layer | None = None,
    told: Array | float = 1.0,
    score: str = "linear",
) -> types.Verdict:
    """The last layers of a discriminator, made in whose `__call__` this is called.

    Args:
      h: the last features, [b, ..., k].
      label: [b] int32 in [0, classes), the breeds that pictures are said to be of.
      breed_head: what is said of breeds in `Verdict.breeds`:
        none             nothing
        linear           a logit of each (Odena, Olah, Shlens 2017)
        linear_and_fake  a logit of each, then one of "generated"; real or generated is by how much the
                         picture's own breed exceeds that (Kavalerov, Czaja, Chellappa 2021)
        cosine           of the angle between a picture's point on a sphere, `Verdict.embedding`, and each
                         breed's (Kang, Shim, Cho, Park 2021)
      linear: (features, name=...) -> a layer of h.
      embed: (classes, k, name=...) -> a vector per breed, whose product with h [b, k] is added to the logit
        (Miyato & Koyama 2018); None: none.
      told: share of that product, 0 to 1 [].
      score: the name of the logit's layer.

    Raises:
      ValueError: a breed_head that is not among the choices.
    """
    if breed_head not in BREED_HEADS:
        raise ValueError(f"breed_head is {breed_head!r}; choices: {', '.join(BREED_HEADS)}")

    def last(features: int, name: str) -> Array:
        return linear(features, name=name)(h, train).reshape(-1, features)

    if breed_head == "linear_and_fake":
        logits = last(classes + 1, "breeds")
        own = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
        return types.Verdict(own - logits[:, -1], logits)
    logit, width = last(1, score)[:, 0], h.shape[-1]
    if embed is not None:
        logit = logit + told * jnp.sum(embed(classes, width, name="embed")(label, train) * h, -1)
    if breed_head == "none":
        return types.Verdict(logit)
    if breed_head == "linear":
        return types.Verdict(logit, last(classes, "breeds"))
    point = unit(last(width, "embedding"))
    proxies = layers.Embed(classes, width, False, nn.initializers.normal(1.0), name="proxies")
    breeds = unit(proxies(jnp.arange(classes), train))
    return types.Verdict(logit, jnp.einsum("bk,ck->bc", point, breeds), point)


def unit(x: Array) -> Array:
    """Rows [n, k] at length 1, but those of 0."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
