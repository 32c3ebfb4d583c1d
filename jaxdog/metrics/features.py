"""Pictures to the features that scores are made of, and the cache of the real side's features."""

from typing import Any

import jax

from jaxdog.metrics import inception

Array = jax.Array


def features(params: dict[str, Any], image: Array) -> dict[str, Array]:
    """[b, h, w, 3] in 0..255 (uint8 or whole floats) -> "mixed_7" [b, 768], "mixed_8" [b, 1280], "pool_3" [b, 2048].

    With the softmax head among `params` also "logits" and "logits_no_bias" [b, 1008]. Pure: jit it outside.
    """
    net = inception.Inception(head="softmax" in params)
    return net.apply({"params": params}, inception.preprocess(image))  # pyright: ignore[reportReturnType]
