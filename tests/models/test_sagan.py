"""SAGAN's networks and those of two entries of 2019 against torch's of the same weights; starts, options."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.config import build, library, registry
from jaxdog.models import norms, sagan
from tests.models import networks
from tests.models.test_biggan_entries import (
    CLASSES,
    LATENT,
    check_discriminator,
    check_generator,
    inputs,
    shapes,
)

G_WIDTHS, D_WIDTHS = (10, 9, 8, 6), (8, 9, 10, 10)
RESIDUAL = dict(attention_form="whole", attention_bias=True)
G: dict[str, dict[str, Any]] = {
    "paper": dict(),
    "residual": dict(RESIDUAL, normalize_latent=True),
    "hinge": dict(attention_bias=True, norm_base_affine=True, final_norm=False),
}
D: dict[str, dict[str, Any]] = {
    "paper": dict(halvings=3, attention=(16,)),
    "residual": dict(RESIDUAL, halvings=3, attention=(16,)),
    "hinge": dict(attention_bias=True, single_conv=True, head_bias=False, halvings=3, attention=(8,)),
}


def generator(**fields: Any) -> sagan.Generator:
    given = dict(widths=G_WIDTHS, latent_dim=LATENT, classes=CLASSES, size=32, attention=(16,))
    return sagan.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> sagan.Discriminator:
    return sagan.Discriminator(**{**dict(widths=D_WIDTHS, classes=CLASSES, size=32, halvings=3), **fields})


@pytest.fixture(scope="module")
def twin() -> Any:
    pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import sagan as twin_sagan

    return twin_sagan


@pytest.mark.oracle
@pytest.mark.parametrize("entry", G)
def test_generators_and_their_gradients_are_those_of_torch(entry: str, twin: Any) -> None:
    check_generator(generator(**G[entry]), twin.Generator(entry, G_WIDTHS, LATENT, CLASSES, 16), 4)


@pytest.mark.oracle
@pytest.mark.parametrize("entry", D)
def test_discriminators_and_their_gradients_are_those_of_torch(entry: str, twin: Any) -> None:
    at = D[entry]["attention"][0]
    check_discriminator(discriminator(**D[entry]), twin.Discriminator(entry, D_WIDTHS, 3, CLASSES, 32, at), 3)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "entry", "counts"),
    [
        ("sagan", "paper", (33_242_372, 19_670_722)),
        ("sagan_residual", "residual", (2_688_908, 2_428_294)),
        ("csagan_ra_hinge", "hinge", (9_130_324, 4_859_409)),
    ],
)
def test_configs_have_as_many_parameters_as_torchs_networks(
    name: str, entry: str, counts: tuple[int, int], twin: Any
) -> None:
    """The numbers are sums over the layers as the entries list them, done by hand."""
    import torch

    config = build.check(library.load(name))
    g, d = registry.generator(config, 120), registry.discriminator(config, 120)
    label = jnp.zeros(2, jnp.int32)
    ours = shapes(g, jnp.zeros((2, 128)), label), shapes(d, jnp.zeros((2, 64, 64, 3)), label)
    with torch.device("meta"):
        widths, halvings = config.discriminator["widths"], config.discriminator["halvings"]
        (at,) = config.discriminator["attention"]
        theirs = (
            twin.Generator(entry, config.generator["widths"], 128, 120, 32),
            twin.Discriminator(entry, widths, halvings, 120, 64, at),
        )
    for net, other, expected in zip(ours, theirs, counts, strict=True):
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(net["params"]))
        assert count == sum(p.numel() for p in other.parameters()) == expected


# Starts and options -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_weights_are_initialized_as_glorot_and_classes_equally() -> None:
    """Uniform within sqrt(6 / (fan_in + fan_out)); every gain is 1 and every bias 0."""
    z, image, label = inputs(2, 32)
    net = generator(widths=(32, 32, 32, 32), norm_base_affine=True)
    params = networks.init(net, z, label, True)["params"]
    judge = discriminator(widths=(32, 32, 32, 32), attention=(16,))
    params |= networks.init(judge, image, label, True)["params"]
    fans = {
        "linear": (32, 1),
        "rgb": (9 * 32, 9 * 3),
        "embed": (CLASSES, 32),
    }
    for name, fan in fans.items():
        kernel, bound = np.asarray(params[name]["kernel"]), math.sqrt(6 / sum(fan))
        assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6), name
    for name, fan in {"conv1": 2 * 9 * 32, "shortcut": 2 * 32}.items():
        kernel, bound = np.asarray(params["block16"][name]["kernel"]), math.sqrt(6 / fan)
        assert 0.95 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6), name
        assert abs(kernel.std() * math.sqrt(3) / bound - 1) < 0.1
    norm = params["block16"]["norm1"]
    assert not norm["gain_and_bias"]["kernel"].any() and not norm["base_bias"].any()
    assert (norm["base_gain"] == 1).all() and not params["block16"]["conv1"]["bias"].any()


def test_a_latent_of_length_1_is_a_direction() -> None:
    z, _, label = inputs(3)
    net, plain = generator(normalize_latent=True, attention=()), generator(attention=())
    variables = networks.drawn(net, z, label)

    @jax.jit
    def images(z: jax.Array) -> Any:
        return net.apply(variables, z, label, False), plain.apply(variables, z, label, False)

    (unit, raw), (longer, raw_longer) = images(z), images(3.0 * z)
    np.testing.assert_allclose(unit, longer, atol=1e-5)
    assert float(jnp.abs(raw - raw_longer).max()) > 1e-2
    np.testing.assert_allclose(images(z / jnp.linalg.norm(z, axis=1, keepdims=True))[1], unit, atol=1e-5)
    assert np.isfinite(images(jnp.zeros_like(z))[0]).all()


def test_norms_use_the_given_momentum() -> None:
    z, _, label = inputs(4)
    variables = networks.drawn(generator(attention=()), z, label)

    def moved(momentum: float) -> Any:
        net = generator(attention=(), momentum=momentum)
        return jax.jit(lambda: net.apply(variables, z, label, True, mutable=[norms.BATCH_STATS])[1])()

    trees = moved(0.9), moved(0.99), {norms.BATCH_STATS: variables[norms.BATCH_STATS]}
    for old, new, start in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(0.1 * (old - start), new - start, rtol=1e-3, atol=1e-5)


def test_wrong_settings_are_named() -> None:
    z, image, label = inputs(2, 32)
    with pytest.raises(ValueError, match="attention_form is 'half'; choices: pooled, whole"):
        shapes(generator(attention_form="half"), z, label)
    with pytest.raises(ValueError, match="no feature map has attention height 4; heights: 8, 16, 32"):
        shapes(generator(attention=(4,)), z, label)
    with pytest.raises(ValueError, match="size 30 is not a multiple of 8, which 3 doublings"):
        shapes(generator(size=30), z, label)
    with pytest.raises(ValueError, match="attention over 6 channels with key_ratio 8 needs at least 8"):
        shapes(generator(attention=(32,), attention_form="whole"), z, label)
    with pytest.raises(ValueError, match="no feature map has attention height 32; heights: 16, 8, 4"):
        shapes(discriminator(attention=(32,)), image, label)
    with pytest.raises(ValueError, match="halvings is 5: it must be in 1 to 4, a block per width"):
        shapes(discriminator(halvings=5), image, label)
