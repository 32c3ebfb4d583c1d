"""NASNet's weights from every kind of file, against a frozen graph run by TensorFlow and against Keras."""

import hashlib
import pathlib
import sys
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxdog.metrics.backbones import inception_weights, nasnet, nasnet_weights, weight_files

pytest.importorskip("tensorflow", reason="the twin and the files are TensorFlow's and Keras'")
h5py = pytest.importorskip("h5py", reason="Keras' files are HDF5")
keras_nasnet = pytest.importorskip("keras.src.applications.nasnet", reason="Keras has the other port")

import keras  # noqa: E402

from tests.twins import nasnet as twin_nasnet  # noqa: E402  (imports tensorflow)

# Keras turns its variables into arrays in a way that numpy 2 warns of.
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]

PLAN = nasnet.Plan(cells=2, filters=8, stem=6)
SIZE = 75  # px: then 37, 19, 10, 5, 3: odd and even as Large has them
FILES = ("graph.pb", "net.h5", "net.weights.h5", "two.h5")


def keras_model(plan: nasnet.Plan, size: int) -> "keras.Model":
    return keras_nasnet.NASNet(
        (size, size, 3), 24 * plan.filters, plan.cells, plan.stem, plan.skip, include_top=False, weights=None
    )


def as_keras_2(source: pathlib.Path, target: pathlib.Path) -> None:
    """The layout of the published files: layers at the root, and ":0" after every tensor's name."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                new[f"{name}:0"] = item[()]

        old["model_weights"].visititems(copy)


@pytest.fixture(scope="module")
def twin():
    return twin_nasnet.Twin(PLAN, SIZE, seed=0)


@pytest.fixture(scope="module")
def model(twin, tmp_path_factory):
    """Keras' network with the twin's weights."""
    path = tmp_path_factory.mktemp("twin") / "graph.pb"
    path.write_bytes(twin.frozen())
    constants, made = weight_files.read_graph(path), keras_model(PLAN, SIZE)
    for norm, _, units in nasnet_weights._normed(PLAN):
        for unit in units:
            leaves = (name for name in unit.shapes() if name != "biases")
            made.get_layer(nasnet_weights.keras_layer(unit.name, PLAN)).set_weights(
                [constants[f"{unit.name}/{leaf}"] for leaf in leaves]
            )
        made.get_layer(nasnet_weights.keras_layer(norm, PLAN)).set_weights(
            [constants[f"{norm}/{leaf}"] for leaf in nasnet_weights.NORM_LEAVES]
        )
    return made


@pytest.fixture(scope="module")
def files(twin, model, tmp_path_factory):
    """The same random network in four layouts."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "graph.pb").write_bytes(twin.frozen())
    model.save(folder / "net.h5")
    model.save_weights(folder / "net.weights.h5")
    as_keras_2(folder / "net.h5", folder / "two.h5")
    return folder


@pytest.fixture(scope="module")
def loaded(files):
    return {name: nasnet_weights.load(files / name, PLAN) for name in FILES}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


def ours(plan: nasnet.Plan, include_padding: bool, params, image: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> value of all convolutions and cells, and the features; what shares a batch norm is joined."""
    net = nasnet.NASNet(plan, include_padding)
    out, state = jax.jit(lambda p, x: net.apply({"params": p}, x, capture_intermediates=True))(params, image)
    seen = state["intermediates"]
    found = {"final_mean": np.asarray(out["final_mean"])}
    for norm, _, units in nasnet_weights._normed(plan):
        found[norm] = np.concatenate([seen[unit.name]["__call__"][0] for unit in units], axis=-1)
    return found | {cell.name: np.asarray(seen[cell.name][0]) for cell in nasnet.cells(plan)}


def keras_outputs(plan: nasnet.Plan, model: "keras.Model", image: np.ndarray) -> dict[str, np.ndarray]:
    """The same of Keras' network."""
    layers = {norm: nasnet_weights.keras_layer(norm, plan) for norm, *_ in nasnet_weights._normed(plan)}
    for cell in nasnet.cells(plan):
        layers[cell.name] = layers[f"{cell.name}/beginning_bn"].replace("_bn_1_", "_concat_")
    every = keras.Model(model.inputs[0], [model.get_layer(layer).output for layer in layers.values()])
    found = dict(zip(layers, (np.asarray(x) for x in every(image, training=False)), strict=True))
    return found | {"final_mean": np.maximum(found[nasnet.cells(plan)[-1].name], 0).mean((1, 2))}


def largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Of all layers, as a part of each layer's largest value."""
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert x.shape == expected[name].shape, name
    return max(
        float(np.abs(x - expected[name]).max() / np.abs(expected[name]).max()) for name, x in found.items()
    )


def test_layer_by_layer_against_a_frozen_graph(twin, loaded, image):
    """Every convolution with its batch norm, every cell, the features, as TensorFlow runs the graph."""
    names = {norm: f"{norm}/normed/add_1" for norm, *_ in nasnet_weights._normed(PLAN)}
    names |= {cell.name: f"{cell.name}/cell_output/concat" for cell in nasnet.cells(PLAN)}
    names["final_mean"] = "final_layer/Mean"
    expected = dict(zip(names, twin.run(image, list(names.values())), strict=True))
    found = ours(PLAN, False, loaded["graph.pb"].params, image)
    assert largest_difference(found, expected) < 1e-5


def test_layer_by_layer_against_keras(model, loaded, image):
    """Keras' own network, which includes zero padding in the pools of reductions."""
    expected = keras_outputs(PLAN, model, image)
    assert largest_difference(ours(PLAN, True, loaded["net.h5"].params, image), expected) < 1e-5


@pytest.mark.slow
def test_large_against_keras(tmp_path):
    """NASNet-A-Large at 331 px with random kernels and batch norm, every convolution and every cell."""
    model, generator = keras_model(nasnet.LARGE, nasnet.SIZE), np.random.default_rng(0)
    for norm, c, _ in nasnet_weights._normed(nasnet.LARGE):
        drawn = generator.uniform((0.5, -0.5, -0.5, 0.3), (1.2, 0.5, 0.5, 2), (c, 4)).astype(np.float32)
        model.get_layer(nasnet_weights.keras_layer(norm)).set_weights(list(drawn.T))
    model.save_weights(tmp_path / "net.weights.h5")
    params = nasnet_weights.load(tmp_path / "net.weights.h5").params
    image = generator.uniform(-1, 1, (1, nasnet.SIZE, nasnet.SIZE, 3)).astype(np.float32)
    expected = keras_outputs(nasnet.LARGE, model, image)
    assert expected["final_mean"].shape == (1, 4032)
    assert largest_difference(ours(nasnet.LARGE, True, params, image), expected) < 1e-5


def flat_tensors(params) -> Iterator[tuple[str, np.ndarray]]:
    for unit, leaves in params.items():
        yield from ((f"{unit}/{leaf}", tensor) for leaf, tensor in leaves.items())


def test_all_layouts_give_the_same_network(files, loaded):
    flat = {name: dict(flat_tensors(loaded[name].params)) for name in FILES}
    first = flat["graph.pb"]
    assert {name: x.shape for name, x in first.items()} == nasnet.shapes(PLAN)
    for name in FILES:
        assert loaded[name].kind == "other" and loaded[name].source == str(files / name)
        assert loaded[name].sha256 == hashlib.sha256((files / name).read_bytes()).hexdigest()
        for unit, tensor in flat[name].items():
            assert tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, first[unit], err_msg=f"{name} {unit}")


def test_published_files_are_known_by_their_hash(files, monkeypatch):
    for name in ("two.h5", "graph.pb"):
        md5 = hashlib.md5((files / name).read_bytes()).hexdigest()
        monkeypatch.setitem(nasnet_weights.PUBLISHED_MD5, md5, name)
    assert nasnet_weights.load(files / "two.h5", PLAN).kind == "published"
    assert nasnet_weights.load(files / "graph.pb", PLAN).kind == "other"  # no md5 of Keras' is a graph's


def test_names_of_keras_layers():
    """Some of the published network's, and every one is another."""
    names = {name for unit in nasnet.units() for name in (unit.name, unit.norm)}
    assert len({nasnet_weights.keras_layer(name) for name in names}) == len(names)
    expected = {
        "cell_stem_1/path2_conv": "adjust_conv_2_stem_2",
        "cell_5/1x1": "normal_conv_1_5",
        "reduction_cell_0/prev_bn": "adjust_bn_reduce_6",
        "cell_6/beginning_bn": "normal_bn_1_7",
        "cell_17/comb_iter_4/left/separable_3x3_2": "separable_conv_2_normal_left5_18",
        "reduction_cell_1/comb_iter_4/left/bn_sep_3x3_1": "separable_conv_1_bn_reduction_left4_reduce_12",
    }
    assert {name: nasnet_weights.keras_layer(name) for name in expected} == expected


def test_random_network_is_fixed():
    one, two, other = (nasnet_weights.random(seed, PLAN) for seed in (3, 3, 4))
    assert one.kind == "random" and one.sha256 == two.sha256 != other.sha256
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert {name: x.shape for name, x in flat_tensors(one.params)} == nasnet.shapes(PLAN)
    kernel = one.params["cell_5/1x1"]["weights"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / kernel.shape[2]), rel=0.02)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.99, 0.4, 0.001])
def test_truncated_files(files, tmp_path, name, keep):
    whole = (files / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ValueError, match="cannot be used as NASNet weights.*Accepted are"):
        nasnet_weights.load(tmp_path / name, PLAN)


NOT_WEIGHTS = {
    "empty": b"",
    "text": b"The quick brown fox jumps over the lazy dog\n" * 10,
    "noise": np.random.default_rng(0).bytes(5000),
    "signature": nasnet_weights.HDF5_SIGNATURE + bytes(5000),
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_files_that_are_not_weights(tmp_path, case):
    (tmp_path / "file").write_bytes(NOT_WEIGHTS[case])
    with pytest.raises(ValueError, match="cannot be used as NASNet weights.*Accepted are"):
        nasnet_weights.load(tmp_path / "file", PLAN)


def change(path: pathlib.Path, name: str, value) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        if value is not None:
            file[name] = value


CHANGES = {
    "missing": (None, r"no tensor 'stem_conv1/kernel' of shape \(3, 3, 3, 6\)"),
    "shape": (np.zeros((3, 3, 3, 5), "f4"), r"'stem_conv1/kernel' has shape \(3, 3, 3, 5\), expected"),
    "nan": (np.full((3, 3, 3, 6), np.nan, "f4"), "'stem_conv1/kernel' has values other than finite"),
    "whole numbers": (np.zeros((3, 3, 3, 6), "i4"), "no tensor 'stem_conv1/kernel'"),
    "link": (h5py.ExternalLink("other.h5", "/stem_conv1/kernel"), "no tensor 'stem_conv1/kernel'"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_wrong_keras_files(files, tmp_path, case):
    value, message = CHANGES[case]
    (tmp_path / "w.h5").write_bytes((files / "two.h5").read_bytes())
    (tmp_path / "other.h5").write_bytes((files / "net.h5").read_bytes())
    change(tmp_path / "w.h5", "stem_conv1/stem_conv1/kernel:0", value)
    with pytest.raises(ValueError, match=message) as caught:
        nasnet_weights.load(tmp_path / "w.h5", PLAN)
    assert "Accepted are" in str(caught.value) and "\n" not in str(caught.value)


def test_tensors_that_may_be_compressed_are_not_read(files, tmp_path):
    """A few bytes could unpack to any size."""
    (tmp_path / "w.h5").write_bytes((files / "two.h5").read_bytes())
    with h5py.File(tmp_path / "w.h5", "a") as file:
        group = file["stem_conv1/stem_conv1"]
        kernel = np.asarray(group["kernel:0"])
        del group["kernel:0"]
        group.create_dataset("kernel:0", data=kernel, compression="gzip")
    with pytest.raises(ValueError, match="no tensor 'stem_conv1/kernel'"):
        nasnet_weights.load(tmp_path / "w.h5", PLAN)


def test_tensors_in_other_files_are_not_read(files, tmp_path):
    (tmp_path / "w.h5").write_bytes((files / "two.h5").read_bytes())
    (tmp_path / "secret").write_bytes(bytes(3 * 3 * 3 * 6 * 4))
    with h5py.File(tmp_path / "w.h5", "a") as file:
        group = file["stem_conv1/stem_conv1"]
        del group["kernel:0"]
        outside = [(str(tmp_path / "secret"), 0, 3 * 3 * 3 * 6 * 4)]
        group.create_dataset("kernel:0", (3, 3, 3, 6), "f4", external=outside)
    with pytest.raises(ValueError, match="no tensor 'stem_conv1/kernel'"):
        nasnet_weights.load(tmp_path / "w.h5", PLAN)


def test_a_graph_of_another_size(files, tmp_path):
    with pytest.raises(ValueError, match=r"'conv0_bn/gamma' has shape \(6,\), expected \(96,\)"):
        nasnet_weights.load(files / "graph.pb")
    whole = {name: x.copy() for name, x in weight_files.read_graph(files / "graph.pb").items()}
    whole["conv0_bn/moving_variance"][2] = -1
    with pytest.raises(weight_files.ArchiveError, match="'conv0_bn/moving_variance' has negative variances"):
        inception_weights.batch_norm(whole, "conv0_bn", 6)
    with pytest.raises(FileNotFoundError, match="no such file. Accepted are"):
        nasnet_weights.load(tmp_path, PLAN)


def test_without_h5py(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert nasnet_weights.load(files / "graph.pb", PLAN).kind == "other"
    with pytest.raises(ImportError, match="net.h5, an HDF5 file, needs h5py, .*pip install 'jaxdog.nasnet.'"):
        nasnet_weights.load(files / "net.h5", PLAN)
