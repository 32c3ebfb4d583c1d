"""The last layers of a discriminator: the real-or-generated logit and the auxiliary class head."""

from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.models import layers, norms
from jaxdog.utils import errors

Array = jax.Array

ClassHead = Literal["none", "linear", "multi_hinge", "cosine"]
CLASS_HEADS = get_args(ClassHead)


def discriminator_head(
    h: Array,
    label: Array,
    train: bool,
    *,
    class_head: str,
    classes: int,
    linear: layers.MakeLayer,
    embed: layers.MakeLayer | None = None,
    class_scale: Array | float = 1.0,
    logit_name: str = "linear",
) -> types.DiscriminatorOutput:
    """The output of a discriminator from its last features. Call it in the compact `__call__`.

    Args:
      h: the last features, [b, ..., k].
      label: the conditioning labels, [b] int32 in [0, classes).
      class_head: what `DiscriminatorOutput.class_logits` holds:
        none         None
        linear       a logit per class (Odena et al. 2017)
        multi_hinge  a logit per class and, last, one for "generated"; the real-or-generated logit is that of
                     the label minus the last one (Kavalerov et al. 2021)
        cosine       cosine similarities between the image's embedding and one proxy per class; the embedding
                     is `DiscriminatorOutput.embedding` (Kang et al. 2021)
      linear: (features, name=...) -> a linear layer for h.
      embed: (classes, k, name=...) -> the class embedding of the projection <embed(label), h>, which is added
        to the logit (Miyato & Koyama 2018, eq. 3); h must be [b, k]. None: no projection.
      class_scale: [] in [0, 1], multiplies the projection.
      logit_name: the name of the logit's layer.

    Raises:
      UserError: an unknown class_head.
    """
    if class_head not in CLASS_HEADS:
        raise errors.UserError(f"class_head is {class_head!r}; choices: {', '.join(CLASS_HEADS)}")

    def project(features: int, name: str) -> Array:
        return linear(features, name=name)(h, train).reshape(-1, features)

    if class_head == "multi_hinge":
        logits = project(classes + 1, "class_logits")
        label_logit = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
        return types.DiscriminatorOutput(label_logit - logits[:, -1], logits)
    logit, width = project(1, logit_name)[:, 0], h.shape[-1]
    if embed is not None:
        logit = logit + class_scale * jnp.sum(embed(classes, width, name="embed")(label, train) * h, -1)
    if class_head == "none":
        return types.DiscriminatorOutput(logit)
    if class_head == "linear":
        return types.DiscriminatorOutput(logit, project(classes, "class_logits"))
    embedding = norms.l2_normalize(project(width, "embedding"))
    proxies = layers.Embed(classes, width, False, nn.initializers.normal(1.0), name="proxies")
    directions = norms.l2_normalize(proxies(jnp.arange(classes), train))
    return types.DiscriminatorOutput(logit, jnp.einsum("bk,ck->bc", embedding, directions), embedding)
