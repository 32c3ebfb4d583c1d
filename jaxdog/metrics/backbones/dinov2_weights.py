"""Weights of DINOv2: the published safetensors, or random. Kinds are those of `inception_weights`.

The published position embeddings are those of 37 x 37 patches. They are interpolated to 16 x 16 once, when a
file is loaded, and in the way of the original code, which the code of FD-DINOv2 runs: bicubic (a = -0.75)
without antialiasing, at a scale of 16.1 / 37. The 0.1 guards that code against rounding, and moves all
samples; transformers scales by 16 / 37, which gives other features.
"""

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import traverse_util

from jaxdog.metrics.backbones import dinov2, downloads, inception_weights, weight_files
from jaxdog.utils import errors

OFFSET = 0.1  # patches, added to the number of patches before the scale is computed
MAX_HEADER = 1 << 20  # bytes of the file besides its tensors; the published ones have less than 50,000


def _remote(name: str, revision: str, size: int, sha256: str) -> downloads.Remote:
    url = f"https://huggingface.co/facebook/{name}/resolve/{revision}/model.safetensors"
    return downloads.Remote(url, f"{name}.safetensors", size, sha256, "config.eval.dinov2_weights")


PUBLISHED = {  # the commits, sizes and hashes of the files on the Hugging Face Hub
    dinov2.SMALL: _remote(
        "dinov2-small",
        "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        88_249_960,
        "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
    ),
    dinov2.BASE: _remote(
        "dinov2-base",
        "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        346_345_912,
        "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
    ),
    dinov2.LARGE: _remote(
        "dinov2-large",
        "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        1_217_522_888,
        "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    ),
}
_LAYER_NORM = {"scale": "weight", "bias": "bias"}


def accepted(plan: dinov2.Plan) -> str:
    """The files that `load` accepts, in a sentence."""
    known = PUBLISHED.get(plan)
    name = f"the published {known.name} (sha256 {known.sha256}) and " if known else ""
    return (
        f"Accepted are {name}safetensors of the same layout, as transformers writes them, with tensors such "
        f"as 'embeddings.position_embeddings' {published_shapes(plan)['embeddings.position_embeddings']} and "
        f"'encoder.layer.{plan.depth - 1}.norm1.weight' ({plan.width},)."
    )


def published_shapes(plan: dinov2.Plan) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of a published file that are used."""
    d, hidden = plan.width, dinov2.MLP_RATIO * plan.width
    dense = {f"attention.attention.{name}": (d, d) for name in ("query", "key", "value")}
    dense |= {"attention.output.dense": (d, d), "mlp.fc1": (hidden, d), "mlp.fc2": (d, hidden)}
    block = {f"{name}.weight": shape for name, shape in dense.items()}
    block |= {f"{name}.bias": shape[:1] for name, shape in dense.items()}
    block |= {f"layer_scale{i}.lambda1": (d,) for i in (1, 2)}
    block |= {f"norm{i}.{leaf}": (d,) for i in (1, 2) for leaf in _LAYER_NORM.values()}
    return {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.patch_embeddings.projection.weight": (d, 3, dinov2.PATCH, dinov2.PATCH),
        "embeddings.patch_embeddings.projection.bias": (d,),
        "embeddings.position_embeddings": (1, dinov2.TRAINED_GRID**2 + 1, d),
        **{f"encoder.layer.{i}.{name}": shape for i in range(plan.depth) for name, shape in block.items()},
        **{f"layernorm.{leaf}": (d,) for leaf in _LAYER_NORM.values()},
    }


def load(path: str | pathlib.Path, plan: dinov2.Plan = dinov2.LARGE) -> inception_weights.Weights:
    """Loads a file of safetensors in the layout of the published ones.

    Raises UserError naming the missing file, or the first missing or wrong tensor, and what is accepted.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingFileError(f"No DINOv2 weights at {path}: there is no such file. {accepted(plan)}")
    wanted = published_shapes(plan)
    mask_token = plan.width  # the only tensor that is not used
    limit = MAX_HEADER + 4 * (mask_token + sum(int(np.prod(shape)) for shape in wanted.values()))
    try:
        tensors = weight_files.read_safetensors(path, limit)
        params = _params(tensors, plan)
    except weight_files.ArchiveError as error:
        raise errors.UserError(
            f"{path} cannot be used as DINOv2 weights: {error}. {accepted(plan)}"
        ) from error
    sha256, known = downloads.file_sha256(path), PUBLISHED.get(plan)
    kind = "published" if known is not None and sha256 == known.sha256 else "other"
    return inception_weights.Weights(params, kind, sha256, str(path))


def random(plan: dinov2.Plan = dinov2.LARGE, seed: int = 20230414) -> inception_weights.Weights:
    """The same random network everywhere: normal kernels and embeddings from numpy's PCG64, biases 0."""
    generator = np.random.Generator(np.random.PCG64(seed))
    digest, flat = hashlib.sha256(), {}
    for name, shape in dinov2.shapes(plan).items():
        leaf = name.rsplit("/", 1)[-1]
        if leaf == "bias":
            flat[name] = np.zeros(shape, np.float32)
        elif leaf == "scale" or leaf.startswith("layer_scale"):
            flat[name] = np.ones(shape, np.float32)
        else:
            scale = np.sqrt(1 / shape[-2], dtype=np.float32) if leaf == "kernel" else np.float32(0.02)
            flat[name] = generator.standard_normal(shape, np.float32) * scale
        digest.update(flat[name].tobytes())
    return inception_weights.Weights(_nest(flat), "random", digest.hexdigest(), f"random DINOv2, seed {seed}")


def _params(tensors: weight_files.Tensors, plan: dinov2.Plan) -> dict[str, Any]:
    """The parameters from a file's tensors, which are removed one by one, as both are large."""
    wanted = published_shapes(plan)

    def take(name: str) -> np.ndarray:
        tensor = inception_weights.get_tensor(tensors, name, wanted[name]).astype(np.float32)
        del tensors[name]
        return tensor

    patch = take("embeddings.patch_embeddings.projection.weight").transpose(2, 3, 1, 0)
    flat = {
        "patch/kernel": patch.reshape(-1, plan.width),
        "patch/bias": take("embeddings.patch_embeddings.projection.bias"),
        "class_token": take("embeddings.cls_token")[0, 0],
        "position": interpolate(take("embeddings.position_embeddings")[0]),
        **{f"norm/{ours}": take(f"layernorm.{theirs}") for ours, theirs in _LAYER_NORM.items()},
    }
    stacked = {
        name: np.empty(shape, np.float32)
        for name, shape in dinov2.shapes(plan).items()
        if name.startswith("blocks/")
    }
    for i in range(plan.depth):
        for name, tensor in _block(lambda name, i=i: take(f"encoder.layer.{i}.{name}")).items():
            stacked[f"blocks/{name}"][i] = tensor
    return _nest(flat | stacked)


def _block(take: Callable[[str], np.ndarray]) -> weight_files.Tensors:
    """The parameters of one block; PyTorch's kernels are [out, in]."""
    qkv = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    dense = {"attention_out": "attention.output.dense", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    return {
        "qkv/kernel": np.concatenate([take(f"{name}.weight").T for name in qkv], axis=1),
        "qkv/bias": np.concatenate([take(f"{name}.bias") for name in qkv]),
        **{f"{ours}/kernel": take(f"{theirs}.weight").T for ours, theirs in dense.items()},
        **{f"{ours}/bias": take(f"{theirs}.bias") for ours, theirs in dense.items()},
        **{
            f"norm{i}/{ours}": take(f"norm{i}.{theirs}")
            for i in (1, 2)
            for ours, theirs in _LAYER_NORM.items()
        },
        **{f"layer_scale{i}": take(f"layer_scale{i}.lambda1") for i in (1, 2)},
    }


def interpolate(position: np.ndarray, offset: float = OFFSET) -> np.ndarray:
    """Position embeddings [1 + 37 * 37, d], the class token's first -> [1 + 16 * 16, d]."""
    n, size = dinov2.TRAINED_GRID, dinov2.GRID
    at = (np.arange(size) + 0.5) * n / (size + offset) - 0.5
    taps = np.floor(at)[:, None] + np.arange(-1, 3)[None, :]
    rows = np.arange(size)[:, None]
    weight = np.zeros((size, n))
    np.add.at(weight, (rows, np.clip(taps, 0, n - 1).astype(int)), dinov2.cubic(at[:, None] - taps, -0.75))
    grid = position[1:].reshape(n, n, -1)
    resized = np.einsum("ih,jw,hwd->ijd", weight, weight, grid.astype(np.float64), optimize=True)
    return np.concatenate([position[:1], resized.reshape(size * size, -1).astype(np.float32)])


def _nest(flat: weight_files.Tensors) -> dict[str, Any]:
    return traverse_util.unflatten_dict(flat, sep="/")
