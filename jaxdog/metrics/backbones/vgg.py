"""VGG16's convolutions, features to cluster by (Simonyan and Zisserman 2015, arXiv:1409.1556, column D).

They are no score's: a network that knows dogs already may help to look at photos, never to train on them.
"""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.metrics.backbones import inception, inception_weights, weight_files

Array = jax.Array

SIZE = 224
WIDTH = 512
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # a 2x2 maximum after each
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the published weights' inputs in [0, 1]
ACCEPTED = (
    "Accepted is a state dict in torchvision's layout, the published vgg16-397923af.pth or another with "
    "'features.0.weight' (64, 3, 3, 3) to 'features.28.bias' (512,); the classifier is ignored."
)


def units() -> list[tuple[str, int, int, int]]:
    """(name, place in torchvision's list of layers, channels in, channels out) of each convolution."""
    found, c, place = [], 3, 0
    for i, block in enumerate(BLOCKS):
        for j, features in enumerate(block):
            found.append((f"conv{i + 1}_{j + 1}", place, c, features))
            c, place = features, place + 2  # a relu after each
        place += 1  # the maximum
    return found


class VGG16(nn.Module):
    """[b, h, w, 3], normalised as the weights ask for -> [b, 512], the last maxima's means over space."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, block in enumerate(BLOCKS):
            for j, features in enumerate(block):
                unit = inception.Unit("", "conv", (3, 3), features, 1, "SAME", False)
                x = inception.Conv(unit, name=f"conv{i + 1}_{j + 1}")(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        return jnp.mean(x, axis=(1, 2))


def preprocess(image: Array, size: int = SIZE) -> Array:
    """[b, h, w, 3] in 0..255 -> the network's input [b, size, size, 3]: bilinear, about 0, of deviation 1."""
    scaled = inception.legacy_resize(image, size) / 255.0
    mean, std = (jnp.asarray(x, jnp.float32)[None, None, None, :] for x in (MEAN, STD))
    return (scaled - mean) / std


def features(params: dict[str, Any], image: Array) -> Array:
    """[b, h, w, 3] in 0..255 -> [b, 512]. Pure: jit it outside."""
    return VGG16().apply({"params": params}, preprocess(image))  # pyright: ignore[reportReturnType]


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """The parameters from a state dict in torchvision's layout; nothing is unpickled.

    Raises FileNotFoundError, or ValueError naming the first missing or wrong tensor.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"No VGG16 weights at {path}: there is no such file. {ACCEPTED}")
    flat: weight_files.Tensors = {}
    try:
        found = weight_files.read_torch(path)
        for name, place, c_in, c_out in units():
            kernel = inception_weights.checked(found, f"features.{place}.weight", (c_out, c_in, 3, 3))
            flat[f"{name}/kernel"] = kernel.transpose(2, 3, 1, 0).astype(np.float32)
            flat[f"{name}/bias"] = inception_weights.checked(
                found, f"features.{place}.bias", (c_out,)
            ).astype(np.float32)
    except weight_files.ArchiveError as error:
        raise ValueError(f"{path} cannot be used as VGG16 weights: {error}. {ACCEPTED}") from error
    return inception_weights.nested(flat)
