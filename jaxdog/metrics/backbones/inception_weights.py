"""Weights of the Inception network: published files, kernels with batch norm folded in, or random.

Scores are named by the kind of the weights (`features.metric_name`):

  "published"  a file with the sha256 of a published one: the official network
  "fitted"     folded kernels, some of them fitted (files with "fitted" in their name): pool_3 is approximate
  "other"      complete, but not a published file: it may or may not be the official network
  "random"     a fixed random network
"""

import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdog.metrics.backbones import downloads, inception, weight_files
from jaxdog.utils import errors, untrusted

BATCH_NORM_EPSILON = 1e-3
GRAPH_NAME = "classify_image_graph_def.pb"
GRAPH_SHA256 = "009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6"


PUBLISHED = downloads.Remote(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "config.eval.weights",
)

ACCEPTED = (
    f"Accepted are the published state dict ({PUBLISHED.name}, sha256 {PUBLISHED.sha256}), the published "
    f"graph ({GRAPH_NAME}, sha256 {GRAPH_SHA256}), others of the same layout, and .npz files of kernels and "
    "biases with batch norm folded in (one, or a folder of them), with entries such as 'conv/kernel' "
    "(3, 3, 3, 32) and 'conv/bias' (32,)."
)

# Names of the units in the state dict, in the order of the graph.
_TORCH_35 = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool"
_TORCH_17 = (
    "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 "
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5 branch_pool"
)
_TORCH_8 = (
    "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b "
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a branch3x3dbl_3b branch_pool"
)
_TORCH_STEM = "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3"
_TORCH_BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _TORCH_35),
    "Mixed_6a": "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _TORCH_17),
    "Mixed_7a": "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), _TORCH_8),
}


class Weights(NamedTuple):
    """A network's parameters and their origin."""

    params: dict[str, Any]  # unit's name in the graph -> {"kernel": [kh, kw, in, out], "bias": [out]} float32
    kind: str  # "published" | "fitted" | "other" | "random"
    sha256: str  # hash of the file; for several files, of their hashes in order of file name
    source: str  # description


def load(path: str | pathlib.Path) -> Weights:
    """Loads a file, or a folder with .npz files or one .pth or .pb; the format is detected from the content.

    A file in the layout of a published one, but with another sha256, is of kind "other".

    Raises UserError naming the missing file, or the first missing or wrong tensor, and what is accepted.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise errors.MissingFileError(
            f"No Inception weights at {path}: there is no such file or folder. {ACCEPTED}"
        )
    paths = _weight_paths(path) if path.is_dir() else [path]
    try:
        params = _params([_read(file) for file in paths])
    except weight_files.ArchiveError as error:
        raise errors.UserError(f"{path} cannot be used as Inception weights: {error}. {ACCEPTED}") from error
    hashes = [downloads.file_sha256(file) for file in paths]
    sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    kind = "published" if sha256 in (PUBLISHED.sha256, GRAPH_SHA256) else "other"
    kind = "fitted" if any("fitted" in file.stem for file in paths if file.suffix == ".npz") else kind
    return Weights(params, kind, sha256, str(path))


def random(seed: int = 20151205) -> Weights:
    """The same random network everywhere: He-normal kernels from numpy's PCG64, biases 0, no head.

    The Frechet distance of its features ranks generators, but it is not FID; its name starts with "random_".
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    digest, flat = hashlib.sha256(), {}
    for name, shape in inception.shapes().items():
        flat[name] = np.zeros(shape, np.float32)
        if name.endswith("/kernel"):
            scale = np.sqrt(2 / np.prod(shape[:-1]), dtype=np.float32)
            flat[name] = generator.standard_normal(shape, np.float32) * scale
        digest.update(flat[name].tobytes())
    return Weights(nest(flat), "random", digest.hexdigest(), f"random network, seed {seed}")


def _weight_paths(folder: pathlib.Path) -> list[pathlib.Path]:
    """The weight files in a folder, which may also hold other .npz files."""
    known = inception.shapes(head=True)
    npz = [
        file for file in sorted(folder.glob("*.npz")) if any(x in known for x in untrusted.npz_names(file))
    ]
    published = sorted([*folder.glob("*.pth"), *folder.glob("*.pb")])
    if not npz and len(published) != 1:
        held = errors.some(sorted(file.name for file in folder.iterdir())) or "nothing"
        problem = f"it should hold .npz files of kernels and biases, or one .pth or .pb, and holds {held}"
        raise errors.UserError(
            f"The folder {folder} cannot be used as Inception weights: {problem}. {ACCEPTED}"
        )
    return npz or published


def _read(path: pathlib.Path) -> weight_files.Tensors:
    """The parameters in one file by name, with batch norm folded in; a .npz file may hold a part of them."""
    weight_files.check_size(path)
    with path.open("rb") as file:
        start = file.read(2)
    if untrusted.npz_names(path):
        return _read_npz(path)
    if start == b"PK" or start[:1] == b"\x80":
        return _fold(_from_torch(weight_files.read_torch(path)))
    return _fold(weight_files.read_graph(path))


def _read_npz(path: pathlib.Path) -> weight_files.Tensors:
    known = inception.shapes(head=True)
    try:
        return untrusted.read_npz(path, known.__contains__, weight_files.MAX_BYTES)
    except (errors.UserError, OSError) as error:
        raise weight_files.ArchiveError(f"{path.name} is a damaged .npz file ({error})") from error


def _units() -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name in the graph, shape of the kernel) of the 94 convolutions, in the graph's order."""
    for name, shape in inception.shapes().items():
        if name.endswith("/kernel"):
            yield name.removesuffix("/kernel"), shape


def torch_names() -> dict[str, str]:
    """A unit's name in the graph -> its prefix in the state dict."""
    prefixes = _TORCH_STEM.split()
    for block, names in _TORCH_BLOCKS.items():
        prefixes += [f"{block}.{name}" for name in names.split()]
    return {unit: prefix for (unit, _), prefix in zip(_units(), prefixes, strict=True)}


def _from_torch(tensors: weight_files.Tensors) -> weight_files.Tensors:
    """A state dict's tensors with the graph's names and layout."""
    leaves = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    kernels = dict(_units())
    named: weight_files.Tensors = {}
    for unit, prefix in torch_names().items():
        kh, kw, c_in, c_out = kernels[unit]
        kernel = get_tensor(tensors, f"{prefix}.conv.weight", (c_out, c_in, kh, kw))
        named[f"{unit}/conv2d_params"] = kernel.transpose(2, 3, 1, 0)
        for leaf, node in leaves.items():
            named[f"{unit}/batchnorm/{node}"] = get_tensor(tensors, f"{prefix}.bn.{leaf}", (c_out,))
    named["softmax/weights"] = get_tensor(
        tensors, "fc.weight", (inception.CLASSES, inception.WIDTH["pool_3"])
    ).T
    named["softmax/biases"] = get_tensor(tensors, "fc.bias", (inception.CLASSES,))
    return named


def _fold(tensors: weight_files.Tensors) -> weight_files.Tensors:
    """The graph's constants -> kernels and biases with batch norm folded in, and the head.

    gamma is always applied, as in both published converters; the graph's `scale_after_normalization` is
    ignored.
    """
    flat: weight_files.Tensors = {}
    for unit, shape in _units():
        kernel = get_tensor(tensors, f"{unit}/conv2d_params", shape)
        scale, bias = batch_norm(tensors, f"{unit}/batchnorm", shape[-1])
        flat[f"{unit}/kernel"] = (kernel * scale[None, None, None, :]).astype(np.float32)
        flat[f"{unit}/bias"] = bias.astype(np.float32)
    for name in ("softmax/weights", "softmax/biases"):
        flat[name] = get_tensor(tensors, name, inception.shapes(head=True)[name]).astype(np.float32)
    return flat


def batch_norm(tensors: weight_files.Tensors, name: str, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale [c] and bias [c], float64, of a batch norm of c channels at inference."""
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (get_tensor(tensors, f"{name}/{leaf}", (c,)) for leaf in leaves)
    if variance.min() < 0:
        raise weight_files.ArchiveError(f"its tensor {f'{name}/moving_variance'!r} has negative variances")
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return scale, beta - mean * scale


def get_tensor(tensors: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor as float64. Raises ArchiveError unless it has this shape and is finite."""
    if name not in tensors:
        raise weight_files.ArchiveError(
            f"it has no tensor {name!r} of shape {shape}, and holds {len(tensors)} tensors"
        )
    if tensors[name].shape != shape:
        raise weight_files.ArchiveError(
            f"its tensor {name!r} has shape {tensors[name].shape}, expected {shape}"
        )
    values = np.asarray(tensors[name])
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise weight_files.ArchiveError(f"its tensor {name!r} has values other than finite floats")
    return values.astype(np.float64)


def _params(parts: list[weight_files.Tensors]) -> dict[str, Any]:
    """The parameters of all files together, checked against the network."""
    tensors = {name: tensor for part in parts for name, tensor in part.items()}
    wanted = inception.shapes(head="softmax/weights" in tensors or "softmax/biases" in tensors)
    return nest({name: get_tensor(tensors, name, shape).astype(np.float32) for name, shape in wanted.items()})


def nest(flat: weight_files.Tensors) -> dict[str, Any]:
    """{"unit/leaf": tensor} -> {"unit": {"leaf": tensor}}."""
    params: dict[str, Any] = {}
    for name, tensor in flat.items():
        unit, leaf = name.rsplit("/", 1)
        params.setdefault(unit, {})[leaf] = tensor
    return params
