"""Weights from every kind of file, against a twin of the network in torch; hostile and broken files."""

import hashlib
import os
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
from flax import traverse_util

from jaxdog.metrics.backbones import inception, inception_weights, pickles, weight_files

torch = pytest.importorskip("torch", reason="the files and the twin are torch's")

from tests.twins import inception as twin_inception  # noqa: E402  (imports torch)

pytestmark = pytest.mark.oracle

FORMATS = ("zip.pth", "legacy.pth", "graph.pb")


def write_graph(path: pathlib.Path, state: dict[str, np.ndarray]) -> None:
    """A frozen graph with the twin's tensors, written with protocol buffers compiled by others."""
    graph_pb2 = pytest.importorskip("tensorboardX.proto.graph_pb2")
    graph = graph_pb2.GraphDef()
    graph.node.add(name="DecodeJpeg/contents", op="Placeholder").attr["dtype"].type = 7
    node = graph.node.add(name="ExpandDims/dim", op="Const")
    node.attr["value"].tensor.dtype = 3
    node.attr["value"].tensor.int_val.append(0)

    def constant(name: str, value: np.ndarray) -> None:
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = 1
        tensor = node.attr["value"].tensor
        tensor.dtype = 1
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        if name.endswith("beta"):  # small tensors may come as a list of numbers
            tensor.float_val.extend(value.tolist())
        else:
            tensor.tensor_content = np.ascontiguousarray(value).tobytes()
        graph.node.add(name=f"{name}/read", op="Identity", input=[name])

    for unit, prefix in inception_weights.torch_names().items():
        constant(f"{unit}/conv2d_params", state[f"{prefix}.conv.weight"].transpose(2, 3, 1, 0))
        constant(f"{unit}/batchnorm/gamma", state[f"{prefix}.bn.weight"])
        constant(f"{unit}/batchnorm/beta", state[f"{prefix}.bn.bias"])
        constant(f"{unit}/batchnorm/moving_mean", state[f"{prefix}.bn.running_mean"])
        constant(f"{unit}/batchnorm/moving_variance", state[f"{prefix}.bn.running_var"])
    constant("softmax/weights", state["fc.weight"].T)
    constant("softmax/biases", state["fc.bias"])
    path.write_bytes(graph.SerializeToString())


@pytest.fixture(scope="module")
def twin():
    return twin_inception.random_twin(0)


@pytest.fixture(scope="module")
def files(twin, tmp_path_factory):
    """The same random network in the three published layouts."""
    folder = tmp_path_factory.mktemp("published")
    state = twin.state_dict()
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    write_graph(folder / "graph.pb", {name: tensor.numpy() for name, tensor in state.items()})
    return folder


@pytest.fixture(scope="module")
def loaded(files):
    return {name: inception_weights.load(files / name) for name in FORMATS}


@pytest.mark.oracle
def test_layer_by_layer_against_torch(twin, loaded):
    """All 94 convolutions, the pools between them and the head, to 1e-5 of each layer's largest value."""
    size = 139  # passes every layer; the last blocks are 3x3
    image = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    seen = {}
    for name, module in twin.named_modules():
        if isinstance(module, twin_inception.BasicConv):
            module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.numpy()))
    with torch.no_grad():
        means = twin(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))

    net = inception.Inception(head=True)
    apply = jax.jit(lambda params, x: net.apply({"params": params}, x, capture_intermediates=True))
    out, state = apply(loaded["zip.pth"].params, image)

    def close(ours, theirs, name):
        limit = 1e-5 * max(1.0, float(np.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=name)

    names = inception_weights.torch_names()
    assert len(names) == len(seen) == 94
    for unit, prefix in names.items():
        close(state["intermediates"][unit]["__call__"][0], seen[prefix].transpose(0, 2, 3, 1), unit)
    for name, theirs in means.items():
        close(out[name], theirs.numpy(), name)
    close(out["logits"] - out["logits_no_bias"], np.tile(twin.fc.bias.detach().numpy(), (2, 1)), "bias")


@pytest.mark.oracle
def test_all_layouts_give_the_same_network(files, loaded):
    first = traverse_util.flatten_dict(loaded["zip.pth"].params, sep="/")
    assert {name: x.shape for name, x in first.items()} == inception.shapes(head=True)
    for name in FORMATS:
        assert loaded[name].kind == "other"
        assert loaded[name].sha256 == hashlib.sha256((files / name).read_bytes()).hexdigest()
        for unit, tensor in traverse_util.flatten_dict(loaded[name].params, sep="/").items():
            assert tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, first[unit], err_msg=f"{name} {unit}")


@pytest.mark.oracle
def test_published_files_are_known_by_their_hash(files, monkeypatch):
    sha256 = hashlib.sha256((files / "legacy.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(inception_weights, "PUBLISHED", inception_weights.PUBLISHED._replace(sha256=sha256))
    assert inception_weights.load(files / "legacy.pth").kind == "published"
    monkeypatch.setattr(
        inception_weights, "GRAPH_SHA256", hashlib.sha256((files / "graph.pb").read_bytes()).hexdigest()
    )
    assert inception_weights.load(files / "graph.pb").kind == "published"


@pytest.mark.oracle
def test_a_folder_with_one_published_file(files, tmp_path):
    os.link(files / "graph.pb", tmp_path / "graph.pb")
    assert inception_weights.load(tmp_path).kind == "other"
    os.link(files / "zip.pth", tmp_path / "zip.pth")
    with pytest.raises(ValueError, match=r"one .pth or .pb, and holds graph.pb, zip.pth"):
        inception_weights.load(tmp_path)


@pytest.mark.oracle
def test_folded_kernels(tmp_path):
    """Two files and an unrelated one; the name of a file says that its kernels were fitted."""
    made = inception_weights.random()
    flat = traverse_util.flatten_dict(made.params, sep="/")
    names = list(flat)
    np.savez(tmp_path / "net_exact.npz", **{name: flat[name] for name in names[:-1]})
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"has no tensor 'mixed_10/tower_2/conv/bias' of shape \(192,\)"):
        inception_weights.load(tmp_path)
    np.savez(tmp_path / "net_fitted.npz", **{names[-1]: flat[names[-1]]})
    loaded = inception_weights.load(tmp_path)
    assert loaded.kind == "fitted"
    hashes = [
        hashlib.sha256((tmp_path / f"net_{n}.npz").read_bytes()).hexdigest() for n in ("exact", "fitted")
    ]
    assert loaded.sha256 == hashlib.sha256("".join(hashes).encode()).hexdigest()
    jax.tree.map(np.testing.assert_array_equal, loaded.params, made.params)
    np.savez(tmp_path / "whole.npz", **flat)
    assert inception_weights.load(tmp_path / "whole.npz").kind == "other"


def test_random_network_is_fixed():
    one, two, other = inception_weights.random(), inception_weights.random(), inception_weights.random(seed=1)
    assert one.kind == "random" and one.sha256 == two.sha256 != other.sha256
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    kernel = one.params["mixed_9/tower_1/conv_1"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 448)), rel=0.01)


class Bomb:
    """Pickles to a call of os.mkdir, which stands for any command."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("layout", ["zip", "legacy", "plain"])
def test_code_in_a_pickle_is_refused(tmp_path, layout):
    path, proof = tmp_path / "weights.pth", tmp_path / "ran"
    state = {"bomb": Bomb(proof)}
    if layout == "plain":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(ValueError, match="asks for posix.mkdir, which is not a tensor; it was rejected"):
        inception_weights.load(path)
    assert not proof.exists()
    if layout == "plain":  # the bomb is real
        pickle.loads(path.read_bytes())
        assert proof.exists()


def test_only_tensors_are_read():
    for module, name in [
        ("builtins", "eval"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "load"),
        ("os", "system"),
    ]:
        with pytest.raises(weight_files.ArchiveError, match=f"asks for {module}.{name}"):
            pickles.load(f"c{module}\n{name}\n.".encode())


def test_views_of_one_storage(tmp_path):
    """Strides, offsets and shared storages come out as torch sees them; reaching beyond is an error."""
    base = torch.arange(24, dtype=torch.float64)
    state = {
        "t": base.reshape(4, 6).T,
        "part": base[5:9],
        "count": torch.tensor(3),
        "none": torch.zeros(0, 2),
    }
    for zipped in (True, False):
        torch.save(state, tmp_path / "views.pth", _use_new_zipfile_serialization=zipped)
        found = weight_files.read_torch(tmp_path / "views.pth")
        assert set(found) == set(state)
        for name, tensor in state.items():
            np.testing.assert_array_equal(found[name], tensor.numpy())
    storage = pickles.Storage("<f4", "0", 4)
    for shape, stride in [((5,), (1,)), ((2, 2), (3, 1)), ((1000, 1000), (0, 0))]:
        tensor = pickles.Tensor(storage, 0, shape, stride)
        with pytest.raises(weight_files.ArchiveError, match="reaches beyond its 4"):
            weight_files._fill({"x": tensor}, {"0": bytes(16)})


WRONG = {
    "missing": ({"a": torch.zeros(3)}, r"no tensor 'Conv2d_1a_3x3.conv.weight' of shape \(32, 3, 3, 3\)"),
    "shape": (
        {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 5, 5)},
        r"'Conv2d_1a_3x3.conv.weight' has shape \(32, 3, 5, 5\), expected \(32, 3, 3, 3\)",
    ),
    "nan": (
        {"Conv2d_1a_3x3.conv.weight": torch.full((32, 3, 3, 3), torch.nan)},
        "values other than finite floats",
    ),
    "list": ([torch.zeros(3)], "holds a list, not a dictionary of tensors"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrong_state_dicts(tmp_path, case, zipped):
    state, message = WRONG[case]
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=message) as caught:
        inception_weights.load(tmp_path / "w.pth")
    assert "Accepted are" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.oracle
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("keep", [0.999, 0.4, 0.0001])
def test_truncated_files(files, tmp_path, name, keep):
    whole = (files / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ValueError, match="cannot be used as Inception weights.*Accepted are"):
        inception_weights.load(tmp_path / name)


NOT_WEIGHTS = {
    "empty": b"",
    "text": b"The quick brown fox jumps over the lazy dog\n" * 10,
    "pickle": pickle.dumps([1, 2], protocol=2),
    "noise": np.random.default_rng(0).bytes(5000),
    "page": b"<!DOCTYPE html><html><body>404</body></html>",
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_files_that_are_not_weights(tmp_path, case):
    (tmp_path / "file").write_bytes(NOT_WEIGHTS[case])
    with pytest.raises(ValueError, match="cannot be used as Inception weights.*Accepted are"):
        inception_weights.load(tmp_path / "file")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_only_raise_archive_errors(tmp_path, zipped):
    path = tmp_path / "w.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.ones(4, 3)}, path, _use_new_zipfile_serialization=zipped)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[generator.integers(0, len(whole), 3)] = generator.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        with pytest.raises(ValueError, match="Accepted are"):
            inception_weights.load(path)


def test_other_archives_and_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="a zip archive without a state dict"):
        inception_weights.load(tmp_path / "photos.zip")
    np.savez(tmp_path / "wrong.npz", **{"conv/kernel": np.zeros((3, 3, 3, 31), np.float32)})
    with pytest.raises(
        ValueError, match=r"'conv/kernel' has shape \(3, 3, 3, 31\), expected \(3, 3, 3, 32\)"
    ):
        inception_weights.load(tmp_path / "wrong.npz")
    np.savez(tmp_path / "objects.npz", **{"conv/kernel": np.array([None, {}], dtype=object)})
    with pytest.raises(ValueError, match="damaged .npz"):
        inception_weights.load(tmp_path / "objects.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="and holds nothing"):
        inception_weights.load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such file or folder. Accepted are"):
        inception_weights.load(tmp_path / "nowhere.pth")
