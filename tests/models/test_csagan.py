"""The conditional SAGAN of 2019 against torch networks with the same weights and dropped features."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.config import build, library, registry
from jaxdog.models import csagan
from tests.models import networks
from tests.models.test_biggan_entries import (
    CLASSES,
    KEY,
    LATENT,
    check_discriminator,
    check_generator,
    inputs,
    shapes,
)

G_WIDTHS, G_DROP = (7, 6, 8), (0.4, 0.3, 0.5)
D_WIDTHS, D_DROP = (8, 6, 5), (0.0, 0.1, 0.5)


def generator(**fields: Any) -> csagan.Generator:
    given = dict(
        widths=G_WIDTHS, latent_dim=LATENT, classes=CLASSES, size=16, dropout=G_DROP, attention=(16,)
    )
    return csagan.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> csagan.Discriminator:
    given = dict(widths=D_WIDTHS, classes=CLASSES, size=32, dropout=D_DROP, attention=(16,))
    return csagan.Discriminator(**{**given, **fields})


@pytest.fixture(scope="module")
def twin() -> Any:
    pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import sagan as twin_sagan

    return twin_sagan


@pytest.mark.oracle
def test_generator_and_its_gradients_are_those_of_torch(twin: Any) -> None:
    import torch

    key = jax.random.split(jax.random.key(6), 5)
    other = twin.ConvGenerator(G_WIDTHS, LATENT, CLASSES)
    kept = [
        csagan.drop_channels(jnp.ones((5, 1, 1, c)), key, i, rate)
        for i, (c, rate) in enumerate(zip(G_WIDTHS, G_DROP, strict=True))
    ]
    assert all(0.0 < np.mean(np.asarray(x) == 0) < 0.8 for x in kept)
    other.kept = [torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy()) for x in kept]
    check_generator(generator(), other, 5, key=key)


@pytest.mark.oracle
def test_discriminator_and_its_gradients_are_those_of_torch(twin: Any) -> None:
    """Which features were dropped is read off the net itself; shares are near those asked for."""
    import torch

    net, (_, image, label) = discriminator(), inputs(6, 32)
    variables, rngs = networks.drawn(net, image, label), {"dropout": jax.random.key(8)}
    _, seen = net.apply(
        variables, image, label, True, rngs=rngs, capture_intermediates=True, mutable=["intermediates"]
    )
    outputs = [seen["intermediates"][f"Dropout_{i}"]["__call__"][0] for i in range(2)]
    for x, rate in zip(outputs, D_DROP[1:], strict=True):
        assert abs(np.mean(np.asarray(x) == 0) - rate) < 0.05
    other = twin.ConvDiscriminator(D_WIDTHS, 32)
    masks = [np.asarray(x != 0) / (1 - rate) for x, rate in zip(outputs, D_DROP[1:], strict=True)]
    other.kept = [None, *(torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32)) for x in masks)]
    other.planes = 0.3 * torch.tensor(np.asarray(variables[csagan.PLANES]["sign"]))
    check_discriminator(net, other, 6, rngs=rngs)


@pytest.mark.oracle
def test_config_has_as_many_parameters_as_torchs_networks(twin: Any) -> None:
    """The numbers are sums over the layers as the entry lists them, done by hand."""
    import torch

    config = build.check(library.load("csagan"))
    g, d = registry.generator(config, 120), registry.discriminator(config, 120)
    label = jnp.zeros(2, jnp.int32)
    ours = (
        jax.eval_shape(lambda key: g.init(key, jnp.zeros((2, 128)), label, False), KEY),
        jax.eval_shape(lambda key: d.init(key, jnp.zeros((2, 64, 64, 3)), label, False), KEY),
    )
    with torch.device("meta"):
        theirs = (
            twin.ConvGenerator(config.generator["widths"], 128, 120),
            twin.ConvDiscriminator(config.discriminator["widths"], 64),
        )
    for net, other, expected in zip(ours, theirs, (15_838_672, 2_771_961), strict=True):
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(net["params"]))
        assert count == sum(p.numel() for p in other.parameters()) == expected


# Starts and options -----------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_weights_are_initialized_as_in_torch_and_class_embeddings_as_normals(twin: Any) -> None:
    transfer = pytest.importorskip("tests.twins.transfer")
    z, image, label = inputs(2, 32)
    net, judge = generator(dropout=()), discriminator(dropout=())
    params = networks.init(net, z, label, False)["params"]
    other = twin.ConvGenerator(G_WIDTHS, LATENT, CLASSES)
    norms = [x for x in params if "norm" in x]
    assert len(norms) == 4 and not any(params[x]["gain_and_bias"]["kernel"].any() for x in norms)
    embed = np.asarray(params.pop("embed")["kernel"])
    assert abs(embed.std() - 1) < 0.2 and np.abs(embed).max() > 1.8
    for name in norms:
        params.pop(name)
    assert transfer.starts_as_torch(params, other) == 3 + 7 + 2
    variables = networks.init(judge, image, label, False)
    other = twin.ConvDiscriminator(D_WIDTHS, 32)
    assert transfer.starts_as_torch(variables["params"], other) == 3 + 7 + 1
    planes = np.asarray(variables[csagan.PLANES]["sign"])
    assert set(np.unique(planes)) == {-1.0, 1.0} and abs(planes.mean()) < 0.05
    assert not np.array_equal(planes[0], planes[1])


def test_dropped_channels_depend_only_on_the_image_and_the_layer() -> None:
    key = jax.random.split(KEY, 300)
    kept = csagan.drop_channels(jnp.ones((300, 2, 2, 40)), key, 1, 0.25)
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float(kept.mean()) - 1.0) < 0.02 and float(jnp.ptp(kept, axis=(1, 2)).max()) == 0.0
    chex.assert_trees_all_equal(csagan.drop_channels(jnp.ones((2, 2, 2, 40)), key[5:7], 1, 0.25), kept[5:7])
    other = csagan.drop_channels(jnp.ones((300, 2, 2, 40)), key, 2, 0.25)
    assert abs(float(jnp.mean((kept == 0) & (other == 0))) - 0.0625) < 0.01


@pytest.mark.long
def test_nothing_is_dropped_outside_training() -> None:
    z, image, label = inputs(3, 32)
    net, plain = generator(), generator(dropout=())
    variables = networks.drawn(plain, z, label)
    chex.assert_trees_all_equal(
        net.apply(variables, z, label, False), plain.apply(variables, z, label, False)
    )
    judge, sober = discriminator(), discriminator(dropout=())
    variables = networks.drawn(sober, image, label)
    chex.assert_trees_all_equal(
        judge.apply(variables, image, label, False), sober.apply(variables, image, label, False)
    )


def test_wrong_settings_are_named() -> None:
    z, image, label = inputs(2, 32)
    with pytest.raises(ValueError, match="size 18 is not a multiple of 4, which 2 doublings"):
        shapes(generator(size=18), z, label)
    with pytest.raises(ValueError, match="dropout has 2 rates for 3 widths; give one each, or none"):
        shapes(generator(dropout=(0.1, 0.2)), z, label)
    with pytest.raises(ValueError, match="no feature map has attention height 64; heights: 4, 8, 16"):
        shapes(generator(attention=(64,)), z, label)
    with pytest.raises(ValueError, match="has dropout and needs `key`, a random key per image"):
        shapes(generator(), z, label)
    with pytest.raises(ValueError, match="dropout has 1 rates for 3 widths; give one each, or none"):
        shapes(discriminator(dropout=(0.1,)), image, label)
    with pytest.raises(ValueError, match="no feature map has attention height 32; heights: 16, 8, 4"):
        shapes(discriminator(attention=(32,)), image, label)
