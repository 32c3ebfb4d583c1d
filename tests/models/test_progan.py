"""The progressive GAN's networks against plain PyTorch with the same weights, their sizes, their fading."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import layers, progan
from jaxdog.systems import progressive
from tests.models import networks

KEY = jax.random.key(0)
LATENT, CLASSES, CHANNELS = 5, 4, 6


def generator(size: int, alpha: float | None = None) -> progan.Generator:
    return progan.Generator(CHANNELS, LATENT, CLASSES, size, alpha)


def discriminator(size: int, alpha: float | None = None) -> progan.Discriminator:
    return progan.Discriminator(CHANNELS, CLASSES, size, alpha)


def inputs(size: int, b: int = 6) -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (b, LATENT))
    image = jax.random.uniform(jax.random.key(2), (b, size, size, 3), minval=-1.0)
    return z, image, jnp.arange(b) % CLASSES


def stirred(params: Any) -> Any:
    """Biases off zero; the breeds' vectors within their length."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    moved = [
        p + 0.1 * jax.random.normal(k, p.shape) if p.ndim == 1 else p
        for p, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


# Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "g_count", "d_count"), [(4, 1_639_683, 1_673_217), (64, 5_622_403, 5_655_937)]
)
def test_parameter_counts_of_the_sixth_place(size: int, g_count: int, d_count: int) -> None:
    """4x4 by hand: 16 * 256^2 + 256, 9 * 256^2 + 256, 3 * 256 + 3 in the generator."""
    label = jnp.zeros(2, jnp.int32)
    g = progan.Generator(256, 136, 120, size)
    d = progan.Discriminator(256, 120, size)
    nets = (
        jax.eval_shape(lambda: g.init(KEY, jnp.zeros((2, 136)), label, True)),
        jax.eval_shape(lambda: d.init(KEY, jnp.zeros((2, size, size, 3)), label, True)),
    )
    assert [set(net) for net in nets] == [{"params"}, {"params"}]
    counts = [sum(int(np.prod(x.shape)) for x in jax.tree.leaves(net)) for net in nets]
    assert counts == [g_count, d_count]


def test_widths_halve_above_32() -> None:
    assert list(progan.widths(256, 128).values()) == [256] * 4 + [128, 64]
    with pytest.raises(ValueError, match="1 channels are too few for 64x64"):
        progan.widths(1, 64)
    with pytest.raises(ValueError, match="size 48 is not among 4, 8, 16"):
        progan.widths(256, 48)


# The twin ---------------------------------------------------------------------------------------------------

FADES = [(4, None), (8, None), (16, None), (8, 0.3)]


def close(ours: Any, theirs: Any) -> None:
    """Each gradient to 2e-5 of the largest entry of its array."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        worst = np.abs(a - b).max()
        assert worst <= 2e-5 * max(np.abs(b).max(), 1e-3), (jax.tree_util.keystr(path), worst)


@pytest.mark.oracle
@pytest.mark.parametrize(("size", "alpha"), FADES)
def test_generator_and_its_gradients_are_those_of_torch(size: int, alpha: float | None) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import progan as twin_progan

    z, target, label = inputs(size)
    net = generator(size, alpha)
    params = stirred(networks.init(net, z, label, True)["params"])

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            image = net.apply({"params": params}, z, label, True)
            return jnp.sum(image * target), image

        return jax.grad(loss, has_aux=True)(params)

    gradients, image = ours(params)
    theirs = twin_progan.tensors(params)
    expected = twin_progan.generate(
        theirs, torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long(), CLASSES, size, alpha
    )
    np.testing.assert_allclose(image.transpose(0, 3, 1, 2), expected.detach().numpy(), atol=2e-5)
    (expected * torch.tensor(np.asarray(target).transpose(0, 3, 1, 2).copy())).sum().backward()
    close(gradients, twin_progan.arrays(params, {name: x.grad for name, x in theirs.items()}))


@pytest.mark.oracle
@pytest.mark.parametrize(("size", "alpha"), FADES)
def test_discriminator_and_its_gradients_are_those_of_torch(size: int, alpha: float | None) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import progan as twin_progan

    _, image, label = inputs(size)
    net = discriminator(size, alpha)
    params = stirred(networks.init(net, image, label, True)["params"])
    params["score"]["bias"] += 0.0 if size == 4 else -3.0  # scores above 0, and below, where the leak is

    @jax.jit
    def ours(params: Any, image: jax.Array) -> Any:
        def loss(params: Any, image: jax.Array) -> Any:
            logit = net.apply({"params": params}, image, label, True).logit
            return jnp.sum(jnp.sin(logit)), logit

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), logit = ours(params, image)
    theirs = twin_progan.tensors(params)
    picture = torch.tensor(np.asarray(image).transpose(0, 3, 1, 2).copy(), requires_grad=True)
    expected = twin_progan.judge(theirs, picture, torch.tensor(np.asarray(label)).long(), size, alpha)
    np.testing.assert_allclose(logit, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    expected.sin().sum().backward()
    close(gradients, twin_progan.arrays(params, {name: x.grad for name, x in theirs.items()}))
    assert picture.grad is not None
    close(pull.transpose(0, 3, 1, 2), picture.grad.numpy())


# Equalised learning rate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resample", "size", "shape", "inputs_of_one"),
    [
        ("none", 3, (8, 8), 9 * 32),
        ("none", 1, (8, 8), 32),
        ("up", 3, (8, 8), 9 * 32),
        ("expand", 4, (1, 1), 32),
        ("collapse", 4, (4, 4), 16 * 32),
    ],
)
def test_equalised_kernels_keep_the_variance(
    resample: str, size: int, shape: tuple[int, int], inputs_of_one: int
) -> None:
    """N(0, 1) kernels and inputs: twice the variance, which a ReLU halves; the kernels stay N(0, 1)."""
    x = jax.random.normal(KEY, (64, *shape, 32))
    fields: dict[str, Any] = dict(
        features=48,
        kernel_size=size,
        resample=resample,
        use_bias=False,
        spectral=False,
        kernel_init=jax.nn.initializers.normal(1.0),
    )
    equalized_lr, plain = layers.Conv(**fields, equalized_lr=True), layers.Conv(**fields)
    variables = networks.init(equalized_lr, x, True, seed=1)
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(np.std(kernel), 1.0, atol=0.05)
    y = np.asarray(equalized_lr.apply(variables, x, True))
    inner = y[:, 2:-2, 2:-2] if resample == "none" and size == 3 else y
    if resample != "up":  # upsampled neighbors are alike
        np.testing.assert_allclose(inner.var(), 2.0, rtol=0.1)
    scaled = {"params": {"kernel": kernel * np.sqrt(2 / inputs_of_one)}}
    np.testing.assert_allclose(y, plain.apply(scaled, x, True), rtol=1e-4, atol=1e-4)


def test_class_embeddings_start_within_norm_1() -> None:
    rows = progan.clipped_normal_rows(KEY, (50, 4))
    raw = jax.random.normal(KEY, (50, 4))
    lengths = np.linalg.norm(raw, axis=1)
    assert lengths.min() < 1 < lengths.max()
    np.testing.assert_allclose(rows, raw / np.maximum(lengths, 1)[:, None], rtol=1e-6)


# Fading -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_generator_fades_from_the_upscaled_smaller_image_to_its_own() -> None:
    z, _, label = inputs(8)
    low, plain = generator(4), generator(8)
    params = networks.init(low, z, label, True)["params"]
    grown = progressive.merge(params, networks.init(generator(8, 0.5), z, label, True, seed=9)["params"])

    def picture(alpha: float | None) -> jax.Array:
        kept = {name: x for name, x in grown.items() if alpha is not None or name != "rgb4"}
        return generator(8, alpha).apply({"params": kept}, z, label, True)

    before = low.apply({"params": params}, z, label, True)
    np.testing.assert_array_equal(picture(0.0), progressive.upscale(before, 8))
    np.testing.assert_array_equal(picture(1.0), picture(None))
    assert "rgb4" not in networks.init(plain, z, label, True)["params"]
    assert np.abs(picture(0.5) - picture(0.0)).max() > 0.01


@pytest.mark.long
def test_discriminator_fades_from_the_smaller_one_to_its_own() -> None:
    _, image, label = inputs(8)
    low = discriminator(4)
    small = progressive.downscale(image, 4)
    params = networks.init(low, small, label, True)["params"]
    fresh = networks.init(discriminator(8, 0.5), image, label, True, seed=9)["params"]
    grown = progressive.merge(params, fresh)

    def logit(alpha: float | None) -> jax.Array:
        kept = {name: x for name, x in grown.items() if alpha is not None or name != "rgb4"}
        return discriminator(8, alpha).apply({"params": kept}, image, label, True).logit

    np.testing.assert_allclose(
        logit(0.0), low.apply({"params": params}, small, label, True).logit, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(logit(1.0), logit(None))
    assert np.abs(logit(0.5) - logit(0.0)).max() > 0.01
