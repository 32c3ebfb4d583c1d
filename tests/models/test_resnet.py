"""The residual networks of WGAN-GP and SNGAN against torch, with the same weights; sizes, starts, options."""

import math
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import norms, resnet, spectral_norm
from tests.models import networks

torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
twins = pytest.importorskip("tests.twins.transfer")

pytestmark = pytest.mark.oracle

KEY = jax.random.key(0)
LATENT, CLASSES, B, SIZE = 6, 3, 4, 16
STATE = [spectral_norm.SPECTRAL, norms.BATCH_STATS]
G_WIDTHS, D_WIDTHS = (7, 5, 4), (4, 5, 6)

# The two pairs: what differs from the defaults.
WGAN_G: dict[str, Any] = dict(conditional=False, inner_bias=False, rgb_gain=math.sqrt(2.0))
WGAN_D: dict[str, Any] = dict(
    stem="conv",
    norm="layer",
    spectral=False,
    inner_bias=False,
    head="flat",
    head_bias=False,
    projection=False,
)
SNGAN_G: dict[str, Any] = dict(epsilon=2e-5)
SNGAN_D: dict[str, Any] = dict()


def generator(**fields: Any) -> Any:
    given = dict(widths=G_WIDTHS, latent_dim=LATENT, classes=CLASSES, size=SIZE)
    return resnet.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> Any:
    return resnet.Discriminator(**{**dict(widths=D_WIDTHS, classes=CLASSES, size=SIZE), **fields})


def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (B, LATENT))
    image = jax.random.uniform(jax.random.key(2), (B, SIZE, SIZE, 3), minval=-1.0)
    return z, image, jnp.arange(B) % CLASSES


# Sizes and starts -------------------------------------------------------------------------------------------


def count(net: Any, *arguments: jax.Array) -> int:
    variables = jax.eval_shape(lambda key: net.init(key, *arguments, True), KEY)
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def conv(size: int, a: int, b: int, bias: bool = True) -> int:
    return size**2 * a * b + bias * b


def block(a: int, hidden: int, b: int, gains: int, inner_bias: bool) -> int:
    """A block's numbers, with so many gains and as many biases for each channel that is normed."""
    norms = 2 * gains * (a + hidden)
    return conv(3, a, hidden, inner_bias) + conv(3, hidden, b) + conv(1, a, b) + norms


def test_parameter_counts_are_those_of_the_two_papers() -> None:
    """Layer by layer, at 64x64 and, for SNGAN, 120 breeds."""
    z, image, label = jnp.zeros((2, 128)), jnp.zeros((2, 64, 64, 3)), jnp.zeros(2, jnp.int32)
    full: dict[str, Any] = dict(latent_dim=128, classes=120, size=64)

    widths = (512, 512, 256, 128, 64)
    pairs = list(zip(widths, widths[1:], strict=False))
    blocks = sum(block(a, b, b, 1, False) for a, b in pairs)
    expected = 129 * 512 * 16 + blocks + 2 * 64 + conv(3, 64, 3)
    assert count(generator(**full, **{**WGAN_G, "widths": widths}), z, label) == expected

    widths = (64, 128, 256, 512, 512)
    pairs = list(zip(widths, widths[1:], strict=False))
    blocks = sum(block(a, a, b, 1, False) for a, b in pairs)
    expected = conv(3, 3, 64) + blocks - 2 * 512 + 512 * 16  # no bias after the last activation
    net = discriminator(classes=120, size=64, **{**WGAN_D, "widths": widths})
    assert count(net, image, label) == expected

    widths = (1024, 512, 256, 128, 64)
    pairs = list(zip(widths, widths[1:], strict=False))
    blocks = sum(block(a, b, b, 120, True) for a, b in pairs)
    expected = 129 * 1024 * 16 + blocks + 2 * 64 + conv(3, 64, 3)
    assert count(generator(**full, **{**SNGAN_G, "widths": widths}), z, label) == expected

    widths = (64, 128, 256, 512, 1024)
    pairs = list(zip(widths, widths[1:], strict=False))
    blocks = block(3, 64, 64, 0, True) + sum(block(a, a, b, 0, True) for a, b in pairs)
    expected = blocks + 1025 + 120 * 1024
    net = discriminator(classes=120, size=64, **{**SNGAN_D, "widths": widths})
    assert count(net, image, label) == expected


def test_weights_start_as_glorot_and_bengio_have_them() -> None:
    """Uniform within gain sqrt(6 / (fan_in + fan_out)); sqrt(2) for the blocks' 3x3 convolutions only."""
    z, image, label = inputs()
    wide = dict(widths=(48, 32, 24))
    for net, argument, rgb in (
        (generator(**wide), z, 1.0),
        (generator(**wide, **WGAN_G), z, math.sqrt(2.0)),
        (discriminator(**wide), image, 0.0),
        (discriminator(**wide, **WGAN_D), image, 0.0),
    ):
        params = networks.init(net, argument, label, True)["params"]
        checked = 0
        for path, x in jax.tree_util.tree_leaves_with_path(params):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if not name.endswith("kernel"):
                assert float(jnp.ptp(x)) == 0 and float(x[0]) == name.endswith(("gain", "scale")), name
            elif "norm" in name:  # a breed's gain less 1, and its bias
                assert not np.any(x), name
            else:
                gain = math.sqrt(2.0) if "/conv" in name else rgb if name.startswith("rgb") else 1.0
                area = math.prod(x.shape[:-2])
                bound = gain * math.sqrt(6.0 / (area * (x.shape[-2] + x.shape[-1])))
                assert 0.9 * bound < float(jnp.abs(x).max()) <= bound, name
                assert abs(float(x.std()) * math.sqrt(3.0) / bound - 1.0) < 0.15, name
                checked += 1
        assert checked >= 8


# The twins --------------------------------------------------------------------------------------------------


def sn(module: Any, spectral: bool) -> Any:
    return torch.nn.utils.spectral_norm(module) if spectral else module


class BreedNorm(torch.nn.Module):
    """A batch norm without affine, then a gain and a bias looked up by breed; the gain's table is less 1."""

    def __init__(self, c: int):
        super().__init__()
        self.plain = torch.nn.BatchNorm2d(c, eps=2e-5, affine=False)
        self.gain = torch.nn.Embedding(CLASSES, c)
        self.bias = torch.nn.Embedding(CLASSES, c)

    def forward(self, x: Any, label: Any) -> Any:
        gain, bias = 1.0 + self.gain(label), self.bias(label)
        return self.plain(x) * gain[:, :, None, None] + bias[:, :, None, None]


class TorchBlock(torch.nn.Module):
    def __init__(
        self, a: int, hidden: int, b: int, norm: Any, up: bool, spectral: bool, bias: bool, last: bool = True
    ):
        super().__init__()
        self.up = up
        self.norm1, self.norm2 = norm(a), norm(hidden)
        self.conv1 = sn(torch.nn.Conv2d(a, hidden, 3, 1, 1, bias=bias), spectral)
        self.conv2 = sn(torch.nn.Conv2d(hidden, b, 3, 1, 1, bias=last), spectral)
        self.shortcut = sn(torch.nn.Conv2d(a, b, 1, bias=last), spectral)

    def forward(self, x: Any, label: Any = None, bare: bool = False) -> Any:
        functional = torch.nn.functional
        h = x if bare else self.normed(self.norm1, x, label).relu()
        if self.up:
            double = lambda x: functional.interpolate(x, scale_factor=2, mode="nearest")  # noqa: E731
            h = self.normed(self.norm2, self.conv1(double(h)), label).relu()
            return self.conv2(h) + self.shortcut(double(x))
        h = self.normed(self.norm2, self.conv1(h), label).relu()
        return functional.avg_pool2d(self.conv2(h), 2) + functional.avg_pool2d(self.shortcut(x), 2)

    @staticmethod
    def normed(norm: Any, x: Any, label: Any) -> Any:
        return norm(x, label) if isinstance(norm, BreedNorm) else norm(x)


class TorchGenerator(torch.nn.Module):
    def __init__(self, sngan: bool):
        super().__init__()
        self.linear = torch.nn.Linear(LATENT, 16 * G_WIDTHS[0])
        norm = BreedNorm if sngan else torch.nn.BatchNorm2d
        for i, (a, b) in enumerate(zip(G_WIDTHS, G_WIDTHS[1:], strict=False), 1):
            self.add_module(f"block{i}", TorchBlock(a, b, b, norm, True, False, sngan))
        self.norm = torch.nn.BatchNorm2d(G_WIDTHS[-1], eps=2e-5 if sngan else 1e-5)
        self.rgb = torch.nn.Conv2d(G_WIDTHS[-1], 3, 3, 1, 1)

    def forward(self, z: Any, label: Any) -> Any:
        h = self.linear(z).view(-1, 4, 4, G_WIDTHS[0]).permute(0, 3, 1, 2)  # ours has channels last
        for i in range(1, len(G_WIDTHS)):
            h = getattr(self, f"block{i}")(h, label)
        return self.rgb(self.norm(h).relu()).tanh()


class TorchDiscriminator(torch.nn.Module):
    def __init__(self, sngan: bool):
        super().__init__()
        self.sngan = sngan
        norm = (lambda c: torch.nn.Identity()) if sngan else (lambda c: torch.nn.GroupNorm(1, c))
        first = D_WIDTHS[0]
        stem = TorchBlock(3, first, first, norm, False, True, True)
        self.stem = stem if sngan else torch.nn.Conv2d(3, first, 3, 1, 1)
        for i, (a, b) in enumerate(zip(D_WIDTHS, D_WIDTHS[1:], strict=False), 1):
            last = sngan or i + 1 < len(D_WIDTHS)
            self.add_module(f"block{i}", TorchBlock(a, a, b, norm, False, sngan, sngan, last))
        side = SIZE // 2 ** (len(D_WIDTHS) - 1)
        last = D_WIDTHS[-1] if sngan else D_WIDTHS[-1] * side**2
        self.linear = sn(torch.nn.Linear(last, 1, bias=sngan), sngan)
        if sngan:
            self.embed = sn(torch.nn.Embedding(CLASSES, last), True)

    def forward(self, x: Any, label: Any) -> Any:
        h = self.stem(x, None, True) if self.sngan else self.stem(x)
        for i in range(1, len(D_WIDTHS)):
            h = getattr(self, f"block{i}")(h)
        if not self.sngan:
            return self.linear(h.permute(0, 2, 3, 1).flatten(1))[:, 0]
        h = h.relu().sum((2, 3))
        return self.linear(h)[:, 0] + (self.embed(label) * h).sum(1)


G_PAPERS = [pytest.param(WGAN_G, False, id="wgan_gp"), pytest.param(SNGAN_G, True, id="sngan")]
D_PAPERS = [pytest.param(WGAN_D, False, id="wgan_gp"), pytest.param(SNGAN_D, True, id="sngan")]


@pytest.mark.parametrize(("fields", "sngan"), G_PAPERS)
def test_generator_and_its_gradients_are_those_of_torch(fields: dict[str, Any], sngan: bool) -> None:
    z, target, label = inputs()
    net, twin = generator(**fields), TorchGenerator(sngan)
    variables = networks.init(net, z, label, True)
    variables["params"] = networks.stirred(variables["params"], 0.2)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            image, new = net.apply({**variables, "params": params}, z, label, True, mutable=STATE)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    arguments = torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long()
    expected = twin(*arguments)
    np.testing.assert_allclose(image, twins.last(expected), rtol=1e-4, atol=1e-4)
    (expected * twins.first(target)).sum().backward()
    twins.close(gradients, twins.gradients(twin))

    image = jax.jit(partial(net.apply, train=False))({**variables, **new}, z, label)  # running statistics
    np.testing.assert_allclose(image, twins.last(twin.eval()(*arguments)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fields", "sngan"), D_PAPERS)
def test_discriminator_and_its_gradients_are_those_of_torch(fields: dict[str, Any], sngan: bool) -> None:
    _, image, label = inputs()
    net, twin = discriminator(**fields), TorchDiscriminator(sngan)
    variables = networks.init(net, image, label, True)
    variables["params"] = networks.stirred(variables["params"], 0.2)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any, image: jax.Array) -> Any:
        def loss(params: Any, image: jax.Array) -> Any:
            verdict, new = net.apply({**variables, "params": params}, image, label, True, mutable=STATE)
            return jnp.sum(jnp.sin(3.0 * verdict.logit)), (verdict.logit, new)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), (logit, new) = ours(variables["params"], image)
    picture = twins.first(image).requires_grad_()
    expected = twin(picture, torch.tensor(np.asarray(label)).long())
    np.testing.assert_allclose(logit, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    (3.0 * expected).sin().sum().backward()
    twins.close(gradients, twins.gradients(twin))
    twins.close(pull, twins.last(picture.grad))
    vectors = twins.spectral_vectors(twin)
    assert len(vectors) == (3 * len(D_WIDTHS) + 2) * sngan
    for name, u in vectors.items():
        found = new["spectral"]
        for part in name.split("."):
            found = found[part]
        np.testing.assert_allclose(found["u"], u, atol=1e-5)


# Options ----------------------------------------------------------------------------------------------------


def test_a_logit_depends_only_on_its_own_image() -> None:
    """What a penalty on each image's gradient needs: the layer norm looks at no other images."""
    _, image, label = inputs()
    net = discriminator(**WGAN_D)
    variables = networks.init(net, image, label, True)
    variables["params"] = networks.stirred(variables["params"], 0.2)
    judged = jax.jit(partial(net.apply, train=True))
    whole = judged(variables, image, label).logit
    mixed = judged(variables, image.at[:2].multiply(-0.5), label).logit
    np.testing.assert_allclose(mixed[2:], whole[2:], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(mixed[:2] - whole[:2]).min()) > 1e-3


def test_labels_have_an_effect_in_one_pair_of_networks_only() -> None:
    z, image, label = inputs()
    keys = jax.random.split(KEY, B)
    for net, argument, counts in (
        (generator(**WGAN_G), z, False),
        (generator(**SNGAN_G), z, True),
        (discriminator(**WGAN_D), image, False),
        (discriminator(**SNGAN_D), image, True),
    ):
        variables = networks.init(net, argument, label, True)
        variables["params"] = networks.stirred(variables["params"], 0.2)
        run = jax.jit(partial(net.apply, train=False))
        one, other = (jax.tree.leaves(run(variables, argument, x))[0] for x in (label, (label + 1) % CLASSES))
        assert (float(jnp.abs(one - other).max()) > 1e-3) == counts
        if argument is z:  # no noise of its own
            chex.assert_trees_all_equal(one, run(variables, z, label, key=keys))


def test_bfloat16_is_near_and_gives_float32() -> None:
    z, image, label = inputs()
    for kind, fields, argument in ((generator, SNGAN_G, z), (discriminator, WGAN_D, image)):
        variables = networks.init(kind(**fields), argument, label, True)
        exact, rough = (
            jax.tree.leaves(jax.jit(partial(net.apply, train=True))(variables, argument, label))[0]
            for net in (kind(**fields, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
        )
        assert rough.dtype == jnp.float32
        assert 0 < float(jnp.abs(rough - exact).max()) < 0.1 * float(jnp.abs(exact).max())


def test_wrong_settings_name_their_choices() -> None:
    z, image, label = inputs()
    with pytest.raises(ValueError, match="size 18 is not a multiple of 4, which 2 doublings"):
        generator(size=18).init(KEY, z, label, True)
    for field, choices in (("stem", "conv, block"), ("norm", "none, layer"), ("head", "sum, flat")):
        with pytest.raises(ValueError, match=f"{field} is 'x'; choices: {choices}"):
            discriminator(**{field: "x"}).init(KEY, image, label, True)
