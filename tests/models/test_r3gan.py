"""R3GAN's networks: against torch with the same kernels, their start, their sizes, what breeds do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxdog.models import r3gan
from tests.models import networks

KEY = jax.random.key(0)
LATENT, CLASSES, B = 6, 3, 4
LABEL = jnp.arange(B) % CLASSES


def generator(**fields: Any) -> r3gan.Generator:
    given: dict[str, Any] = dict(
        widths=(8, 8, 4), blocks=2, expansion=2.0, group_size=0, embed_dim=0, latent_dim=LATENT,
        classes=CLASSES, size=16,
    )  # fmt: skip
    return r3gan.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> r3gan.Discriminator:
    given: dict[str, Any] = dict(
        widths=(4, 8, 8), blocks=2, expansion=2.0, group_size=0, embed_dim=0, classes=CLASSES, size=16
    )
    return r3gan.Discriminator(**{**given, **fields})


def latents() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (B, LATENT))


def pictures() -> jax.Array:
    return jax.random.uniform(jax.random.key(2), (B, 16, 16, 3), minval=-1.0)


@pytest.mark.oracle
@pytest.mark.parametrize("group", [0, 2])
def test_a_block_equals_torch(group: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
    block = r3gan.Block(2.0, group, 4, jnp.float32)
    x = jax.random.normal(KEY, (2, 5, 5, 4))
    variables = networks.stirred(block.init(KEY, x), 0.2)
    params: Any = jax.tree.map(lambda x: torch.tensor(np.asarray(x)), variables["params"])

    def conv(x: Any, name: str, groups: int = 1) -> Any:
        kernel = params[name]["kernel"].permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=groups)

    def active(x: Any, name: str) -> Any:
        return torch.nn.functional.leaky_relu(x + params[name]["bias"][None, :, None, None], 0.2)

    theirs = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
    h = active(conv(theirs, "conv1"), "active1")
    h = active(conv(h, "conv2", 8 // group if group else 1), "active2")
    expected = (theirs + conv(h, "conv3")).permute(0, 2, 3, 1)
    np.testing.assert_allclose(block.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="8 and 8 channels cannot be split into groups of 3"):
        r3gan.Block(2.0, 3, 4, jnp.float32).init(KEY, jnp.zeros((1, 4, 4, 4)))


def test_a_block_begins_as_the_identity_and_its_kernels_as_wide_as_fixup_has_them() -> None:
    block, x = r3gan.Block(2.0, 0, 16, jnp.float32), jax.random.normal(KEY, (2, 8, 8, 64))
    variables = block.init(KEY, x)
    np.testing.assert_array_equal(block.apply(variables, x), x)
    gain = np.sqrt(2 / 1.04) * 16**-0.25
    std = jax.tree.map(lambda x: float(jnp.std(x)), variables["params"])
    assert std["conv1"]["kernel"] == pytest.approx(gain / np.sqrt(64), rel=0.05)
    assert std["conv2"]["kernel"] == pytest.approx(gain / np.sqrt(128 * 9), rel=0.05)


def test_heights_change_by_the_filter_1_2_1() -> None:
    """Against scipy: zeros between the pixels, then the filter; or the filter, then every second pixel."""
    x = np.asarray(jax.random.normal(KEY, (2, 4, 6, 3)))
    wide = np.zeros((2, 8, 12, 3), np.float32)
    wide[:, ::2, ::2] = x

    def filtered(x: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            x = ndimage.correlate1d(x, [0.25, 0.5, 0.25], axis, mode="constant")
        return x

    np.testing.assert_allclose(r3gan.upsample(jnp.asarray(x)), 4 * filtered(wide), atol=1e-6)
    np.testing.assert_allclose(r3gan.downsample(jnp.asarray(x)), filtered(x)[:, ::2, ::2], atol=1e-6)
    with pytest.raises(ValueError, match="even height and width, got 3x4"):
        r3gan.downsample(jnp.zeros((1, 3, 4, 1)))


def test_sizes_are_those_of_the_layers() -> None:
    def count(net: Any, *arguments: Any) -> int:
        shapes = jax.eval_shape(lambda key: net.init(key, *arguments, True), KEY)
        return sum(x.size for x in jax.tree.leaves(shapes))

    def block(c: int, hidden: int, group: int) -> int:
        return 2 * c * hidden + 9 * hidden * group + 2 * hidden

    blocks = 4 * block(8, 16, 16) + 2 * block(4, 8, 8)
    g = blocks + LATENT * 8 + 16 * 8 + 8 * 4 + 4 * 3
    assert count(generator(), latents(), LABEL) == g
    assert count(generator(embed_dim=5), latents(), LABEL) == g + 5 * 8 + 5 * CLASSES
    d = blocks + 3 * 4 + 4 * 8 + 16 * 8 + 8
    assert count(discriminator(), pictures(), LABEL) == d
    assert count(discriminator(embed_dim=5), pictures(), LABEL) == d + 4 * 8 + 5 * CLASSES
    grouped = 4 * block(8, 16, 4) + 2 * block(4, 8, 4)
    assert count(discriminator(group_size=4), pictures(), LABEL) == d - blocks + grouped


@pytest.mark.parametrize("make", [generator, discriminator])
def test_size_must_be_what_the_widths_reach(make: Any) -> None:
    argument = latents() if make is generator else pictures()
    with pytest.raises(ValueError, match="3 widths are for resolutions 4 to 16, but size is 32"):
        make(size=32).init(KEY, argument, LABEL, True)


@pytest.mark.long
@pytest.mark.parametrize("embed_dim", [0, 5])
def test_labels_have_an_effect_if_they_are_embedded(embed_dim: int) -> None:
    g, d = generator(embed_dim=embed_dim), discriminator(embed_dim=embed_dim)
    z, image, other = latents(), pictures(), (LABEL + 1) % CLASSES
    of_g, of_d = networks.init(g, z, LABEL, True), networks.init(d, image, LABEL, True)
    draw = jax.jit(lambda label: g.apply(of_g, z, label, True))
    judge: Any = jax.jit(lambda label: d.apply(of_d, image, label, True))
    same_g = np.array_equal(draw(LABEL), draw(other))
    same_d = np.array_equal(judge(LABEL).logit, judge(other).logit)
    assert same_g == same_d == (embed_dim == 0)


def test_samples_are_clipped_and_training_is_not() -> None:
    net, z = generator(), 9.0 * latents()
    variables = networks.init(net, z, LABEL, True)
    both = jax.jit(lambda variables: [net.apply(variables, z, LABEL, train) for train in (True, False)])
    free, drawn = both(variables)
    assert np.abs(free).max() > 1.5
    np.testing.assert_array_equal(drawn, jnp.clip(free, -1.0, 1.0))
