"""Weights of NASNet-A-Large: from the published frozen graph, from Keras' file, or random.

Kinds are those of `inception_weights` except for "fitted". A file is "published" if its md5 is one that Keras
checks its downloads against. No hash of the frozen graph was published, so it is of kind "other".
"""

import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxdog.metrics.backbones import downloads, inception_weights, nasnet, weight_files
from jaxdog.utils import errors, optional

# From keras/src/applications/nasnet.py, Keras 3.15: NASNet-large-no-top.h5 and NASNet-large.h5 below
# https://storage.googleapis.com/tensorflow/keras-applications/nasnet/. According to their author, they were
# converted from TF-slim's checkpoint (titu1994/Keras-NASNet, weight_translation; keras pull request 10209).
PUBLISHED_MD5 = {
    "d81d89dc07e6e56530c4e77faddd61b5": "NASNet-large-no-top.h5",
    "11577c9a518f0070763c2b964a382f17": "NASNet-large.h5",
}

ACCEPTED = (
    "Accepted are the frozen TF-slim graph of NASNet-A-Large (.pb, with constants such as 'conv0/weights' "
    "(3, 3, 3, 96) and 'conv0_bn/gamma' (96,)) and Keras' weights of NASNetLarge in HDF5: the published "
    + " and ".join(f"{name} (md5 {md5})" for md5, name in PUBLISHED_MD5.items())
    + ", or one written by model.save('net.h5') or model.save_weights('net.weights.h5'). The classifier is "
    "ignored."
)

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")
KERAS_LEAVES = {
    "weights": "kernel",
    "depthwise_weights": "depthwise_kernel",
    "pointwise_weights": "pointwise_kernel",
}
# Tensors in .weights.h5 files are numbered; their number per layer identifies the type of the layer.
KERAS_NUMBERED = {1: ("kernel",), 2: ("depthwise_kernel", "pointwise_kernel"), 4: NORM_LEAVES}
# Part of a cell -> its layer in Keras, where "{}" is "normal" or "reduction".
KERAS_PARTS = {
    "1x1": "{}_conv_1",
    "beginning_bn": "{}_bn_1",
    "prev_1x1": "adjust_conv_projection",
    "prev_bn": "adjust_bn",
    "path1_conv": "adjust_conv_1",
    "path2_conv": "adjust_conv_2",
    "final_path_bn": "adjust_bn",
}


def load(path: str | pathlib.Path, plan: nasnet.Plan = nasnet.LARGE) -> inception_weights.Weights:
    """Loads a frozen graph or Keras' HDF5 file, detected from the content, and folds batch norm in.

    Raises ImportError for HDF5 without h5py, or UserError naming the missing file, or the first missing or
    wrong tensor, and what is accepted.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingFileError(f"No NASNet weights at {path}: there is no such file. {ACCEPTED}")
    with path.open("rb") as file:
        hdf5 = file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
        file.seek(0)
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)) if hdf5 else None
    try:
        weight_files.check_size(path)
        params = _fold(_read_keras(path, plan) if hdf5 else weight_files.read_graph(path), plan)
    except weight_files.ArchiveError as error:
        raise errors.UserError(f"{path} cannot be used as NASNet weights: {error}. {ACCEPTED}") from error
    kind = "published" if md5 is not None and md5.hexdigest() in PUBLISHED_MD5 else "other"
    return inception_weights.Weights(params, kind, downloads.file_sha256(path), str(path))


def random(seed: int = 20171004, plan: nasnet.Plan = nasnet.LARGE) -> inception_weights.Weights:
    """The same random network everywhere: normal kernels from numpy's PCG64, biases 0.

    Variances are those of He et al. (2015) after a ReLU and half of that otherwise, where two branches are
    summed, so that features neither vanish nor explode.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    digest, flat = hashlib.sha256(), {}
    for name, shape in nasnet.shapes(plan).items():
        leaf = name.rsplit("/", 1)[1]
        flat[name] = np.zeros(shape, np.float32)
        if leaf != "biases":
            fan = np.prod(shape[:2]) if leaf == "depthwise_weights" else np.prod(shape[:3])
            scale = np.sqrt((1 if leaf == "pointwise_weights" else 2) / fan, dtype=np.float32)
            flat[name] = generator.standard_normal(shape, np.float32) * scale
        digest.update(flat[name].tobytes())
    return inception_weights.Weights(
        inception_weights.nest(flat), "random", digest.hexdigest(), f"random NASNet, seed {seed}"
    )


def _normed(plan: nasnet.Plan) -> Iterator[tuple[str, int, list[nasnet.Unit]]]:
    """(name of a batch norm, channels, the convolutions concatenated before it), in the graph's order."""
    for norm, group in itertools.groupby(nasnet.units(plan), key=lambda unit: unit.norm):
        units = list(group)
        yield norm, sum(unit.c_out for unit in units), units


def _fold(tensors: weight_files.Tensors, plan: nasnet.Plan) -> dict[str, Any]:
    """The graph's constants -> the parameters, with batch norm folded in."""
    flat: weight_files.Tensors = {}
    for norm, c, units in _normed(plan):
        scale, bias = inception_weights.batch_norm(tensors, norm, c)
        at = 0
        for unit in units:
            part = slice(at, at := at + unit.c_out)
            for leaf, shape in unit.shapes().items():
                name = f"{unit.name}/{leaf}"
                if leaf == "biases":
                    flat[name] = bias[part].astype(np.float32)
                    continue
                kernel = inception_weights.get_tensor(tensors, name, shape)
                scaled = kernel if leaf == "depthwise_weights" else kernel * scale[part]
                flat[name] = scaled.astype(np.float32)
    return inception_weights.nest(flat)


# --- Keras -----------------------------------------------------------------------------------------------


def keras_layer(name: str, plan: nasnet.Plan = nasnet.LARGE) -> str:
    """Keras' name for a convolution or a batch norm of the graph."""
    if "/" not in name:
        return {"conv0": "stem_conv1", "conv0_bn": "stem_bn1"}[name]
    cell, part = name.split("/", 1)
    stem, number = cell.rsplit("_", 1)
    kind = "normal" if stem == "cell" else "reduction"
    block = {
        "cell_stem": f"stem_{int(number) + 1}",
        "reduction_cell": f"reduce_{plan.cells * (int(number) + 1)}",
        "cell": str(int(number) + (int(number) >= plan.cells)),  # the first reduction also takes a number
    }[stem]
    if part in KERAS_PARTS:
        return f"{KERAS_PARTS[part].format(kind)}_{block}"
    combination, side, operation = part.split("/")
    row = int(combination.removeprefix("comb_iter_")) + 1
    row = 4 if (kind, row) == ("reduction", 5) else row  # Keras numbers both 4
    bn = "bn_" if operation.startswith("bn_") else ""
    return f"separable_conv_{operation[-1]}_{bn}{kind}_{side}{row}_{block}"


def _read_keras(path: pathlib.Path, plan: nasnet.Plan) -> weight_files.Tensors:
    """The tensors of Keras' file with the graph's names."""
    h5py = optional.load("h5py", f"reading {path}, an HDF5 file,")
    try:
        with h5py.File(path, "r") as file:
            return _from_keras(_datasets(file, h5py.Dataset), plan)
    except weight_files.ArchiveError:
        raise
    except Exception as error:  # a damaged file makes h5py raise almost anything
        raise weight_files.ArchiveError(
            f"its HDF5 is damaged or truncated ({type(error).__name__}: {error})"
        ) from error


def _datasets(file: Any, dataset: type) -> dict[str, Any]:
    """ "layer/tensor" -> its HDF5 dataset, for all float32 tensors; no data is read.

    `visititems` follows no links to other files. Datasets stored in other files or in chunks are left out,
    which Keras does not write.
    """
    datasets: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, dataset) or item.dtype != np.float32 or item.is_virtual or item.external:
            return
        if item.chunks is not None:  # only these can be compressed, and unpack to any size
            return
        parts = name.removeprefix("model_weights/").split("/")
        if parts[0] != "layers":
            datasets[f"{parts[0]}/{parts[-1].split(':')[0]}"] = item
            return
        leaves = KERAS_NUMBERED.get(len(item.parent), ())
        if parts[-1].isdigit() and int(parts[-1]) < len(leaves) and "name" in item.parent.attrs:
            datasets[f"{item.parent.attrs['name']}/{leaves[int(parts[-1])]}"] = item

    file.visititems(visit)
    return datasets


def _from_keras(stored: Mapping[str, Any], plan: nasnet.Plan) -> weight_files.Tensors:
    """Keras' datasets -> tensors with the graph's names."""
    tensors: weight_files.Tensors = {}
    for norm, c, units in _normed(plan):
        for unit in units:
            for leaf, shape in unit.shapes().items():
                if leaf in KERAS_LEAVES:
                    theirs = f"{keras_layer(unit.name, plan)}/{KERAS_LEAVES[leaf]}"
                    tensors[f"{unit.name}/{leaf}"] = inception_weights.get_tensor(stored, theirs, shape)
        for leaf in NORM_LEAVES:
            tensors[f"{norm}/{leaf}"] = inception_weights.get_tensor(
                stored, f"{keras_layer(norm, plan)}/{leaf}", (c,)
            )
    return tensors
