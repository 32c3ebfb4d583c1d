"""VGG16 against torchvision's, with the same random weights from the same file."""

import jax
import numpy as np
import pytest

from jaxdog.metrics.backbones import vgg
from tests import oracles


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """torch, torchvision's network with random weights and biases, and the file of its state dict."""
    torch, _ = oracles.torch_fidelity("utils")  # makes torchvision importable, too
    models = pytest.importorskip("torchvision.models", reason="torchvision is an oracle (make oracles)")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.VGG(models.vgg.make_layers(models.vgg.cfgs["D"]), init_weights=True).features.eval()
        for name, x in net.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(x, std=0.1)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({f"features.{name}": x for name, x in net.state_dict().items()}, path)
    return torch, net, path


@pytest.mark.oracle
def test_features_are_torchvisions(theirs):
    torch, net, path = theirs
    x = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    params = vgg.load(path)
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2))).mean((2, 3)).numpy()
    got = jax.jit(lambda params, x: vgg.VGG16().apply({"params": params}, x))(params, x)
    assert expected.shape == (2, 512) and expected.std() > 1e-2
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.oracle
def test_it_has_the_papers_parameters(theirs):
    """13 convolutions, 14,714,688 numbers: the 138,357,544 of column D without its three dense layers."""
    params = vgg.load(theirs[2])
    dense = sum(a * b + b for a, b in [(25088, 4096), (4096, 4096), (4096, 1000)])
    assert len(params) == 13
    assert sum(x.size for x in jax.tree.leaves(params)) == 138_357_544 - dense == 14_714_688


@pytest.mark.oracle
def test_images_are_brought_to_the_range_of_the_weights():
    torch, _ = oracles.torch_fidelity("utils")
    transforms = pytest.importorskip("torchvision.transforms.functional", reason="torchvision is an oracle")
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    expected = transforms.normalize(torch.from_numpy(image.transpose(0, 3, 1, 2)) / 255, vgg.MEAN, vgg.STD)
    got = np.asarray(vgg.preprocess(image, 12))
    np.testing.assert_allclose(got, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)
    assert vgg.preprocess(image).shape == (2, 224, 224, 3)
    flat = vgg.preprocess(np.full((1, 8, 8, 3), 255, np.uint8))
    np.testing.assert_allclose(flat[0, 0, 0], (1 - np.array(vgg.MEAN)) / np.array(vgg.STD), rtol=1e-6)


@pytest.mark.oracle
def test_files_of_something_else_are_refused(theirs, tmp_path):
    torch, net, path = theirs
    with pytest.raises(FileNotFoundError, match="No VGG16 weights at .*vgg16-397923af.pth"):
        vgg.load(tmp_path / "none.pth")
    state = dict(torch.load(path))
    wrong = {
        "features.0.weight": torch.zeros(64, 1, 3, 3),
        "features.28.bias": None,
        "features.5.weight": None,
    }
    for name, value in wrong.items():
        changed = {k: v for k, v in state.items() if k != name} | ({} if value is None else {name: value})
        torch.save(changed, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match=f"cannot be used as VGG16 weights: its? .*{name}"):
            vgg.load(tmp_path / "wrong.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="cannot be used as VGG16 weights"):
        vgg.load(tmp_path / "text.pth")
