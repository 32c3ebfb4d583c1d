"""VGG16 without its classifier, for clustering photos (Simonyan and Zisserman 2015, arXiv:1409.1556, D).

No metric uses it. It is trained on ImageNet, so it may be used for cleaning photos but not for training a
generator.
"""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.metrics.backbones import inception, inception_weights, weight_files
from jaxdog.utils import errors

Array = jax.Array

SIZE = 224
WIDTH = 512
BLOCKS = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)  # a 2x2 max pool after each
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # for input in [0, 1], with the published weights
ACCEPTED = (
    "Accepted is a state dict in torchvision's layout, the published vgg16-397923af.pth or another with "
    "'features.0.weight' (64, 3, 3, 3) to 'features.28.bias' (512,); the classifier is ignored."
)


def units() -> list[tuple[str, int, int, int]]:
    """(name, index in torchvision's `features`, channels in, channels out) of each convolution."""
    convolutions, c, index = [], 3, 0
    for i, block in enumerate(BLOCKS):
        for j, features in enumerate(block):
            convolutions.append((f"conv{i + 1}_{j + 1}", index, c, features))
            c, index = features, index + 2  # a ReLU after each
        index += 1  # the max pool
    return convolutions


class VGG16(nn.Module):
    """[b, h, w, 3], standardized -> [b, 512], spatial means of the last max pool."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, block in enumerate(BLOCKS):
            for j, features in enumerate(block):
                unit = inception.Unit("", "conv", (3, 3), features, 1, "SAME", False)
                x = inception.Conv(unit, name=f"conv{i + 1}_{j + 1}")(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        return jnp.mean(x, axis=(1, 2))


def preprocess(image: Array, size: int = SIZE) -> Array:
    """[b, h, w, 3] in 0..255 -> the input [b, size, size, 3]: bilinear, then (x / 255 - MEAN) / STD."""
    scaled = inception.legacy_resize(image, size) / 255.0
    mean, std = (jnp.asarray(x, jnp.float32)[None, None, None, :] for x in (MEAN, STD))
    return (scaled - mean) / std


def features(params: dict[str, Any], image: Array) -> Array:
    """[b, h, w, 3] in 0..255 -> [b, 512] float32."""
    return VGG16().apply({"params": params}, preprocess(image))  # pyright: ignore[reportReturnType]


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """The parameters from a state dict in torchvision's layout; no code in the file is run.

    Raises UserError naming the missing file, or the first missing or wrong tensor.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise errors.MissingFileError(f"No VGG16 weights at {path}: there is no such file. {ACCEPTED}")
    flat: weight_files.Tensors = {}
    try:
        tensors = weight_files.read_torch(path)
        for name, index, c_in, c_out in units():
            kernel = inception_weights.get_tensor(tensors, f"features.{index}.weight", (c_out, c_in, 3, 3))
            flat[f"{name}/kernel"] = kernel.transpose(2, 3, 1, 0).astype(np.float32)
            flat[f"{name}/bias"] = inception_weights.get_tensor(
                tensors, f"features.{index}.bias", (c_out,)
            ).astype(np.float32)
    except weight_files.ArchiveError as error:
        raise errors.UserError(f"{path} cannot be used as VGG16 weights: {error}. {ACCEPTED}") from error
    return inception_weights.nest(flat)
