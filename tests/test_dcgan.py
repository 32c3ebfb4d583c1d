"""The DCGANs of 2019 against torch networks with the same weights; their sizes, starts and options."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import dcgan, layers

torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
twins = pytest.importorskip("tests.torch_twins")

KEY = jax.random.key(0)
LATENT, CLASSES, B = 6, 3, 4
STATE = [layers.SPECTRAL, layers.BATCH_STATS]
G_WIDTHS, D_WIDTHS = (8, 6, 5, 4), (4, 5, 6, 7)

# The two entries of 2019: what differs from the defaults, and the widths of the original.
SPECTRAL_G: dict[str, Any] = dict(
    norm="pixel", spectral=True, rgb_bias=False, activation="leaky_relu", slope=0.01
)
SPECTRAL_D: dict[str, Any] = dict(normed=(1, 2), spectral=True, pool=True, minibatch_std=True)
PLAIN_G: dict[str, Any] = dict()
PLAIN_D: dict[str, Any] = dict(stem="none", normed=(2, 3))


def generator(**fields: Any) -> Any:
    return dcgan.Generator(**{**dict(widths=G_WIDTHS, latent_dim=LATENT, classes=CLASSES, size=32), **fields})


def discriminator(**fields: Any) -> Any:
    return dcgan.Discriminator(**{**dict(widths=D_WIDTHS, classes=CLASSES, size=32), **fields})


def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (B, LATENT))
    image = jax.random.uniform(jax.random.key(2), (B, 32, 32, 3), minval=-1.0)
    return z, image, jnp.arange(B) % CLASSES


def stirred(variables: Any) -> Any:
    """Gains and biases off 1 and 0."""

    def move(path: Any, x: jax.Array) -> jax.Array:
        if path[-1].key == "kernel":
            return x
        return x + 0.3 * jax.random.normal(jax.random.fold_in(KEY, len(str(path))), x.shape)

    return {**variables, "params": jax.tree_util.tree_map_with_path(move, variables["params"])}


# Sizes ------------------------------------------------------------------------------------------------------


def count(net: Any, *arguments: jax.Array) -> int:
    variables = jax.eval_shape(lambda key: net.init(key, *arguments, True), KEY)
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_parameter_counts_of_the_entries() -> None:
    """Sums of kernels, gains and biases, layer by layer; about 8.0 and 2.76 million in the spectral entry."""
    z, image, label = jnp.zeros((2, 128)), jnp.zeros((2, 64, 64, 3)), jnp.zeros(2, jnp.int32)
    net = generator(widths=(512, 512, 256, 128, 64), latent_dim=128, size=64, **SPECTRAL_G)
    widths = (128, 512, 512, 256, 128, 64)
    convs = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    assert count(net, z, label) == convs + 9 * 64 * 3 == 7_997_120
    net = discriminator(widths=(64, 128, 256, 512), size=64, **SPECTRAL_D)
    convs = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    assert count(net, image, label) == convs + 4 * 513 + 2 * (128 + 256) == 2_758_404
    net = generator(widths=(1024, 512, 256, 128, 64), latent_dim=128, size=64)
    widths = (128, 1024, 512, 256, 128, 64)
    convs = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    assert count(net, z, label) == convs + 2 * sum(widths[1:]) + 9 * 64 * 3 + 3 == 13_243_971
    net = discriminator(widths=(64, 128, 256, 512, 1024), size=64, stem="none", normed=(2, 3, 4))
    convs = 9 * 3 * 64 + 16 * (64 * 128 + 128 * 256 + 256 * 512 + 512 * 1024 + 1024)
    assert count(net, image, label) == convs + 2 * (256 + 512 + 1024) == 11_162_816


# The twins --------------------------------------------------------------------------------------------------


def sn(module: Any, spectral: bool) -> Any:
    return torch.nn.utils.spectral_norm(module) if spectral else module


class Generator(torch.nn.Module):
    """Transposed convolutions only, as the two entries had them."""

    def __init__(self, spectral: bool):
        super().__init__()
        self.spectral = spectral
        transposed = torch.nn.ConvTranspose2d
        self.conv0 = sn(transposed(LATENT, G_WIDTHS[0], 4, 1, 0, bias=False), spectral)
        for i, (a, b) in enumerate(zip(G_WIDTHS, G_WIDTHS[1:], strict=False), 1):
            self.add_module(f"conv{i}", sn(transposed(a, b, 4, 2, 1, bias=False), spectral))
        if not spectral:
            for i, a in enumerate(G_WIDTHS):
                self.add_module(f"norm{i}", torch.nn.BatchNorm2d(a))
        self.rgb = sn(transposed(G_WIDTHS[-1], 3, 3, 1, 1, bias=not spectral), spectral)

    def forward(self, z: Any) -> Any:
        h = z[:, :, None, None]
        for i in range(len(G_WIDTHS)):
            h = getattr(self, f"conv{i}")(h)
            if self.spectral:
                h = torch.nn.functional.leaky_relu(h)
                h = h if i == 0 else h / (h.square().mean(1, keepdim=True) + 1e-8).sqrt()
            else:
                h = getattr(self, f"norm{i}")(h).relu()
        return self.rgb(h).tanh()


class Discriminator(torch.nn.Module):
    """The spectral entry's, or the plain one's."""

    def __init__(self, spectral: bool):
        super().__init__()
        self.spectral = spectral
        first = (4, 2, 1) if spectral else (3, 1, 1)
        self.conv0 = torch.nn.Conv2d(3, D_WIDTHS[0], *first, bias=False)
        for i, (a, b) in enumerate(zip(D_WIDTHS, D_WIDTHS[1:], strict=False), 1):
            self.add_module(f"conv{i}", sn(torch.nn.Conv2d(a, b, 4, 2, 1, bias=False), spectral))
        for i in (1, 2) if spectral else (2, 3):
            self.add_module(f"norm{i}", torch.nn.BatchNorm2d(D_WIDTHS[i]))
        c, side = (D_WIDTHS[-1] + 1, 1) if spectral else (D_WIDTHS[-1], 4)
        self.head = sn(torch.nn.Conv2d(c, 1, side, 1, 0, bias=False), spectral)

    def forward(self, x: Any) -> Any:
        h = x
        for i in range(len(D_WIDTHS)):
            h = getattr(self, f"conv{i}")(h)
            if hasattr(self, f"norm{i}"):
                h = getattr(self, f"norm{i}")(h)
            if self.spectral and i == len(D_WIDTHS) - 1:
                h = torch.nn.functional.max_pool2d(h, 2)
            h = torch.nn.functional.leaky_relu(h, 0.2)
        if self.spectral:
            std = ((h - h.mean(0, keepdim=True)).square().mean(0) + 1e-8).sqrt().mean()
            h = torch.cat([h, std.expand(h.shape[0], 1, *h.shape[2:])], 1)
        return self.head(h).flatten()


G_ENTRIES = [pytest.param(SPECTRAL_G, True, id="spectral"), pytest.param(PLAIN_G, False, id="plain")]
D_ENTRIES = [pytest.param(SPECTRAL_D, True, id="spectral"), pytest.param(PLAIN_D, False, id="plain")]


@pytest.mark.parametrize(("fields", "spectral"), G_ENTRIES)
def test_generator_and_its_gradients_are_those_of_torch(fields: dict[str, Any], spectral: bool) -> None:
    z, target, label = inputs()
    net, twin = generator(**fields), Generator(spectral)
    variables = net.init(KEY, z, label, True)
    checked = twins.starts_as_torch(variables["params"], twin)
    assert checked == len(G_WIDTHS) + 1 + (not spectral)
    variables = stirred(variables)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            image, new = net.apply({**variables, "params": params}, z, label, True, mutable=STATE)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    expected = twin(torch.tensor(np.asarray(z)))
    np.testing.assert_allclose(image, twins.last(expected), rtol=1e-4, atol=1e-4)
    (expected * twins.first(target)).sum().backward()
    twins.close(gradients, twins.gradients(twin))
    vectors = twins.spectral_vectors(twin)
    assert len(vectors) == (len(G_WIDTHS) + 1) * spectral
    for name, u in vectors.items():
        np.testing.assert_allclose(new["spectral"][name]["u"], u, atol=1e-5)

    image = net.apply({**variables, **new}, z, label, False)  # running statistics, vectors as stored
    expected = twin.eval()(torch.tensor(np.asarray(z)))
    np.testing.assert_allclose(image, twins.last(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fields", "spectral"), D_ENTRIES)
def test_discriminator_and_its_gradients_are_those_of_torch(fields: dict[str, Any], spectral: bool) -> None:
    _, image, label = inputs()
    net, twin = discriminator(**fields), Discriminator(spectral)
    variables = net.init(KEY, image, label, True)
    assert twins.starts_as_torch(variables["params"], twin) == len(D_WIDTHS) + 1
    variables = stirred(variables)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any, image: jax.Array) -> Any:
        def loss(params: Any, image: jax.Array) -> Any:
            verdict, new = net.apply({**variables, "params": params}, image, label, True, mutable=STATE)
            return jnp.sum(jnp.sin(3.0 * verdict.logit)), (verdict.logit, new)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), (logit, new) = ours(variables["params"], image)
    picture = twins.first(image).requires_grad_()
    expected = twin(picture)
    np.testing.assert_allclose(logit, expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    (3.0 * expected).sin().sum().backward()
    twins.close(gradients, twins.gradients(twin))
    twins.close(pull, twins.last(picture.grad))
    vectors = twins.spectral_vectors(twin)
    assert len(vectors) == len(D_WIDTHS) * spectral  # all but the first
    for name, u in vectors.items():
        np.testing.assert_allclose(new["spectral"][name]["u"], u, atol=1e-5)


# Options ----------------------------------------------------------------------------------------------------


def test_breeds_and_keys_change_nothing() -> None:
    z, image, label = inputs()
    g, d = generator(), discriminator()
    variables = g.init(KEY, z, label, True)
    keys = jax.random.split(KEY, B)
    chex.assert_trees_all_equal(
        g.apply(variables, z, label, False), g.apply(variables, z, label + 1, False, keys)
    )
    variables = d.init(KEY, image, label, True)
    one, other = (d.apply(variables, image, x, False) for x in (label, label + 1))
    chex.assert_trees_all_equal(one, other)
    assert one.breeds is None and one.logit.shape == (B,)


def test_bfloat16_is_near_and_gives_float32() -> None:
    z, image, label = inputs()
    for kind, fields, argument in ((generator, SPECTRAL_G, z), (discriminator, SPECTRAL_D, image)):
        variables = kind(**fields).init(KEY, argument, label, True)
        exact, rough = (
            jax.tree.leaves(kind(**fields, dtype=dtype).apply(variables, argument, label, True))[0]
            for dtype in (jnp.float32, jnp.bfloat16)
        )
        assert rough.dtype == jnp.float32
        # Pixel norm enlarges what rounding makes of a nearly black pixel: the mean, not the largest.
        assert 0 < float(jnp.abs(rough - exact).mean()) < 0.05 * float(jnp.abs(exact).mean())


def test_wrong_settings_name_their_choices() -> None:
    z, image, label = inputs()
    with pytest.raises(ValueError, match="norm is 'layer'; choices: batch, pixel"):
        generator(norm="layer").init(KEY, z, label, True)
    with pytest.raises(
        ValueError, match="4 widths double the height 3 times, and size 36 is no multiple of 8"
    ):
        generator(size=36).init(KEY, z, label, True)
    with pytest.raises(ValueError, match="stem is 'patch'; choices: strided, none"):
        discriminator(stem="patch").init(KEY, image, label, True)
    with pytest.raises(ValueError, match="normed names convolution 4; there are 0 to 3"):
        discriminator(normed=(1, 4)).init(KEY, image, label, True)
