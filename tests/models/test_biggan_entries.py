"""The BigGANs of 2019's entries: sizes from their configs, PyTorch twins of the same weights, options."""

import math
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.config import build, library, registry
from jaxdog.models import biggan, norms, spectral_norm
from tests.models import networks

KEY = jax.random.key(0)
LATENT, CLASSES = 20, 7
STATE = [spectral_norm.SPECTRAL, norms.BATCH_STATS]
RALS_G = dict(
    channels=2, shared_dim=8, attention=(32,), condition_joint=True, conv_bias=False, linear_bias=False
)  # fmt: skip
RALS_D = dict(
    channels=8, attention=(32,), last_width=8, mbstd_group_size=4, mbstd_centered=True, head_bias=False,
    class_head="linear", conv_bias=False,
)  # fmt: skip
LEAKY_G = dict(
    channels=3, shared_dim=0, attention=(32,), shared_embedding=False, gain_offset=0.0,
    condition_spectral=False, condition_joint=True, condition_bias=True, condition_init="sliced",
    final_norm=False, activation="leaky_relu", slope=0.01, conv_bias=False,
)  # fmt: skip
LEAKY_D = dict(
    channels=9, attention=(32,), preactivate_first=True, embed_spectral=False, activation="leaky_relu",
    conv_bias=False,
)  # fmt: skip
STYLE_G = dict(
    channels=3, shared_dim=0, hierarchical=False, shared_embedding=False, condition_spectral=False,
    style_layers=2, blur=True, size=32,
)  # fmt: skip


def generator(**fields: Any) -> biggan.Generator:
    return biggan.Generator(**{**dict(latent_dim=LATENT, classes=CLASSES), **fields})


def discriminator(**fields: Any) -> biggan.Discriminator:
    return biggan.Discriminator(**{**dict(classes=CLASSES), **fields})


def inputs(b: int, size: int = 64) -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (b, LATENT))
    image = jax.random.uniform(jax.random.key(2), (b, size, size, 3), minval=-1.0)
    return z, image, jnp.arange(b) % CLASSES


def shapes(net: Any, *arguments: Any) -> Any:
    return jax.eval_shape(lambda key: net.init(key, *arguments, True), KEY)


# Sizes ------------------------------------------------------------------------------------------------------


def full_twins(name: str) -> Any:
    pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import biggan_entries as twin

    return {
        "rals_ac_biggan": lambda: (
            twin.RalsGenerator(64, 120, 32, 120),
            twin.RalsDiscriminator(64, 120),
        ),
        "leaky_biggan": lambda: (
            twin.LeakyGenerator(36, 120, 120),
            twin.PlainDiscriminator(42, 120, leaky=True),
        ),
        "biggan96_style": lambda: (
            twin.StyleGenerator(6, (384, 384, 192, 96, 48), 128, 120, 6),
            twin.PlainDiscriminator(24, 120, leaky=False),
        ),
    }[name]()


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "g_count", "d_count"),
    [
        ("rals_ac_biggan", 7_963_201, 9_970_049),  # published as 7.96 and 9.97 million
        ("leaky_biggan", 10_491_625, 8_497_274),  # as 10 and 8 million
        ("biggan96_style", 6_975_171, 2_796_361),
    ],
)
def test_parameter_counts_of_the_entries(name, g_count, d_count):
    import torch

    config = build.check(library.load(name))
    g, d = registry.generator(config, 120), registry.discriminator(config, 120)
    side = config.system.resolution
    label = jnp.zeros(4, jnp.int32)
    ours = (
        shapes(g, jnp.zeros((4, config.system.latent_dim)), label),
        shapes(d, jnp.zeros((4, side, side, 3)), label),
    )
    counts = tuple(sum(math.prod(x.shape) for x in jax.tree.leaves(net["params"])) for net in ours)
    with torch.device("meta"):
        twins = full_twins(name)
    assert counts == tuple(sum(p.numel() for p in twin.parameters()) for twin in twins)
    assert counts == (g_count, d_count)


# The twins --------------------------------------------------------------------------------------------------


def check_generator(net: Any, twin: Any, b: int, **named: Any) -> None:
    """Same weights: same images, gradients and statistics in training mode, same images outside it.

    `named` is handed on to the net in training mode.
    """
    import torch

    from tests.twins import transfer

    z, _, label = inputs(b)
    variables = networks.drawn(net, z, label)
    transfer.load(twin, variables)
    target = jax.random.normal(jax.random.key(4), (b, net.size, net.size, 3))

    @jax.jit
    def ours(params):
        def loss(params):
            given = {**variables, "params": params}
            image, new = net.apply(given, z, label, True, mutable=STATE, **named)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    their_z, their_label = torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long()
    expected = twin(their_z, their_label)
    assert float(jnp.std(image)) > 0.05
    np.testing.assert_allclose(image, transfer.last(expected), atol=1e-4)
    (expected * transfer.first(target)).sum().backward()
    transfer.close(gradients, transfer.gradients(twin), rtol=2e-4)
    check_vectors(new, twin)
    twin.eval()
    image = jax.jit(lambda given: net.apply(given, z, label, False))({**variables, **new})
    np.testing.assert_allclose(image, transfer.last(twin(their_z, their_label)), atol=2e-4)


def check_vectors(new: Any, twin: Any) -> None:
    """u of every spectral norm after one iteration."""
    from tests.twins import transfer

    found = transfer.spectral_vectors(twin)
    flat = jax.tree_util.tree_leaves_with_path(new["spectral"])
    ours = {
        jax.tree_util.keystr(path[:-1], simple=True, separator="."): u
        for path, u in flat
        if path[-1].key == "u"
    }
    assert found and set(found) == set(ours)
    for name, u in ours.items():
        np.testing.assert_allclose(u, found[name], atol=1e-5, err_msg=name)


def check_discriminator(net: Any, twin: Any, b: int, **named: Any) -> None:
    """Same weights, same verdicts, gradients of weights and images, spectral norms; `named` as above."""
    import torch

    from tests.twins import transfer

    _, image, label = inputs(b, net.size)
    variables = networks.drawn(net, image, label)
    transfer.load(twin, variables)

    @jax.jit
    def ours(params, image):
        def loss(params, image):
            given = {**variables, "params": params}
            verdict, new = net.apply(given, image, label, True, mutable=[spectral_norm.SPECTRAL], **named)
            total = jnp.sum(jnp.sin(verdict.logit))
            total += 0.0 if verdict.class_logits is None else jnp.sum(jnp.cos(verdict.class_logits))
            return total, (verdict, new)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), (verdict, new) = ours(variables["params"], image)
    picture = transfer.first(image).requires_grad_()
    said = twin(picture, torch.tensor(np.asarray(label)).long())
    logit, breeds = (said, torch.zeros(0)) if verdict.class_logits is None else said
    (logit.sin().sum() + breeds.cos().sum()).backward()
    assert picture.grad is not None and float(jnp.std(verdict.logit)) > 0.01
    np.testing.assert_allclose(verdict.logit, logit.detach().numpy(), rtol=1e-4, atol=1e-4)
    if verdict.class_logits is not None:
        np.testing.assert_allclose(verdict.class_logits, breeds.detach().numpy(), rtol=1e-4, atol=1e-4)
    transfer.close(gradients, transfer.gradients(twin), rtol=2e-4)
    transfer.close(pull, transfer.last(picture.grad), rtol=2e-4)
    check_vectors(new, twin)


@pytest.fixture(scope="module")
def twin():
    pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import biggan_entries as twin_biggan

    return twin_biggan


@pytest.mark.oracle
def test_generator_with_one_spectral_normed_layer_per_norm(twin):
    check_generator(generator(**RALS_G), twin.RalsGenerator(4, LATENT, 8, CLASSES), 4)


@pytest.mark.oracle
def test_discriminator_with_class_logits_and_centered_minibatch_std(twin):
    check_discriminator(discriminator(**RALS_D), twin.RalsDiscriminator(8, CLASSES), 8)


@pytest.mark.oracle
def test_leaky_generator(twin):
    check_generator(generator(**LEAKY_G), twin.LeakyGenerator(3, LATENT, CLASSES), 4)


@pytest.mark.oracle
def test_leaky_discriminator(twin):
    check_discriminator(discriminator(**LEAKY_D), twin.PlainDiscriminator(9, CLASSES, leaky=True), 3)


@pytest.mark.oracle
def test_generator_with_style_and_blur(twin):
    g = twin.StyleGenerator(4, (12, 12, 12, 12), LATENT, CLASSES, 2)
    check_generator(generator(**STYLE_G), g, 4)


@pytest.mark.oracle
def test_narrow_discriminator_at_96(twin):
    check_discriminator(
        discriminator(channels=2, size=96), twin.PlainDiscriminator(2, CLASSES, leaky=False), 2
    )


# Options ----------------------------------------------------------------------------------------------------


def test_sliced_start_cuts_along_the_conditions():
    for k, c in ((5, 8), (8, 8), (11, 4)):
        kernel = np.asarray(biggan.sliced_orthogonal(KEY, (k, 2 * c)))
        used = min(k, c)
        np.testing.assert_allclose(kernel[:used] @ kernel[:used].T, np.eye(used), atol=1e-5)
        assert kernel.shape == (k, 2 * c) and not kernel[used:].any()


@pytest.mark.long
def test_classes_beyond_the_width_have_no_effect_at_initialization():
    """4 numbers of z, 7 breeds: those from the third on are beyond the 6 channels of the last norm."""
    z, _, label = inputs(2)
    net = generator(**{**LEAKY_G, "attention": ()})
    params = networks.init(net, z, label, True)["params"]
    last = params["block64"]["norm2"]["gain_and_bias"]
    assert last["kernel"].shape == (LATENT // 5 + CLASSES, 12)
    assert not last["kernel"][6:].any() and last["kernel"][:6].any(1).all()
    assert params["block8"]["norm1"]["gain_and_bias"]["kernel"].any(1).all()
    bound = 1 / math.sqrt(LATENT // 5 + CLASSES)
    assert 0.5 * bound < float(jnp.abs(last["bias"]).max()) <= bound
    conditions: Any = net.apply({}, z, label, True, method="conditions")
    _, second, *_ = conditions[1]
    np.testing.assert_array_equal(second[:, :4], z[:, 8:12])
    np.testing.assert_array_equal(second[:, 4:], jax.nn.one_hot(label, CLASSES))


@pytest.mark.long
def test_style_starts_with_gains_around_1_and_biases_around_0():
    z, _, label = inputs(2)
    variables = networks.init(generator(**STYLE_G), z, label, True)
    style = variables["params"]["block16"]["norm1"]["style"]
    np.testing.assert_array_equal(style["bias"], np.repeat([1.0, 0.0], 12))
    assert style["kernel"].shape == (LATENT, 24) and "style" in variables["spectral"]["block16"]["norm1"]
    assert set(variables["params"]["block16"]["norm1"]["class_norm"]["gain"]) == {"kernel"}


@pytest.mark.long
def test_spread_is_of_groups_and_of_smaller_batches_as_a_whole():
    small = {**RALS_D, "size": 32, "attention": ()}
    net, whole = discriminator(**small), discriminator(**{**small, "mbstd_centered": False})
    _, image, _ = inputs(8, 32)
    variables = networks.drawn(net, image, jnp.zeros(8, jnp.int32))

    @partial(jax.jit, static_argnums=0)
    def judge(net, x):
        label = jnp.zeros(len(x), jnp.int32)
        return net.apply(variables, x, label, True, mutable=[spectral_norm.SPECTRAL])[0].logit

    plain = judge(net, image)
    moved = np.abs(judge(net, image.at[0].multiply(-1.0)) - plain) > 1e-4
    np.testing.assert_array_equal(moved, [True, False] * 4)  # item 0 is in a group with 2, 4 and 6
    assert float(jnp.abs(plain - judge(whole, image)).max()) > 1e-3
    pair = judge(net, image[:2])  # a group of two
    np.testing.assert_allclose(judge(net, jnp.repeat(image[:2], 2, 0)), jnp.repeat(pair, 2), rtol=1e-4)
    with pytest.raises(ValueError, match="a batch of 6 cannot be split into groups of 4"):
        judge(net, image[:6])


def test_only_those_that_classify_name_breeds():
    _, image, label = inputs(2, 32)
    plain = jax.eval_shape(
        lambda: discriminator(channels=4, size=32).init_with_output(KEY, image, label, True)[0]
    )
    assert plain.class_logits is None
    net = discriminator(channels=4, size=32, class_head="linear")
    said = jax.eval_shape(lambda: net.init_with_output(KEY, image, label, True)[0])
    chex.assert_shape(said.class_logits, (2, CLASSES))


def test_wrong_starts_name_their_choices():
    z, _, label = inputs(2)
    with pytest.raises(ValueError, match="condition_init is 'orthogon'; choices: orthogonal, sliced"):
        shapes(generator(channels=2, shared_dim=4, condition_init="orthogon"), z, label)
    with pytest.raises(ValueError, match="'sliced' needs condition_joint, which is False"):
        shapes(generator(channels=2, shared_dim=4, condition_init="sliced"), z, label)
