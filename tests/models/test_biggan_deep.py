"""BigGAN-deep against a plain PyTorch one with the same weights, its sizes, and what its blocks are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import biggan_deep, layers, norms, spectral_norm
from jaxdog.ops import resample2x
from tests.models import networks, test_biggan

KEY = jax.random.key(0)
LATENT, EMBED, CLASSES = 12, 8, 7
STATE = [spectral_norm.SPECTRAL, norms.BATCH_STATS]
CONV = functools.partial(layers.Conv, spectral=False)


def generator(**fields) -> biggan_deep.Generator:
    given = dict(channels=2, latent_dim=LATENT, shared_dim=EMBED, classes=CLASSES, attention=(32,))
    return biggan_deep.Generator(**{**given, **fields})


def discriminator(**fields) -> biggan_deep.Discriminator:
    given = dict(channels=4, classes=CLASSES, attention=(32,))
    return biggan_deep.Discriminator(**{**given, **fields})


def inputs(b: int = 3, size: int = 64) -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (b, LATENT))
    image = jax.random.uniform(jax.random.key(2), (b, size, size, 3), minval=-1.0)
    return z, image, jnp.arange(b) % CLASSES


# Sizes ------------------------------------------------------------------------------------------------------


def g_count(channels: int, latent: int, embed: int, classes: int) -> int:
    """The generator's numbers by its description, at 64x64 with attention at 32x32."""
    condition, c = latent + embed, channels
    count = classes * embed + (condition + 1) * 16 * 16 * c
    for before, after in ((16, 16), (16, 8), (8, 4), (4, 2)):
        n, narrow = before * c, before * c // 4
        for out in (n, after * c):
            count += 2 * condition * (n + 3 * narrow)  # four norms' gains and biases
            count += n * narrow + 2 * 9 * narrow**2 + narrow * out + 3 * narrow + out
    attended = 4 * c
    count += attended**2 // 8 * 2 + attended**2 // 2 * 2 + 1
    return count + 2 * 2 * c + 9 * 2 * c * 3 + 3


def d_count(channels: int, classes: int) -> int:
    c, count = channels, 0
    for before, after in ((1, 2), (2, 4), (4, 8), (8, 16)):
        n, out, narrow = before * c, after * c, after * c // 4
        count += n * (out - n) + out - n  # of the first block's shortcut
        for inner in (n, out):
            count += inner * narrow + 2 * 9 * narrow**2 + narrow * out + 3 * narrow + out
    attended = 2 * c
    count += 9 * 3 * c + c + attended**2 // 8 * 2 + attended**2 // 2 * 2 + 1
    return count + 16 * c + 1 + classes * 16 * c


def test_parameter_counts():
    _, image, label = inputs()
    g = biggan_deep.Generator(32, 128, 128, 120, attention=(32,))
    d = biggan_deep.Discriminator(64, 120, attention=(32,))
    found_g = test_biggan.total(test_biggan.shapes(g, jnp.zeros((3, 128)), label))
    found_d = test_biggan.total(test_biggan.shapes(d, image, label))
    assert found_g == g_count(32, 128, 128, 120) == 6_597_828
    assert found_d == d_count(64, 120) == 4_854_018
    doc = biggan_deep.__doc__ or ""
    assert f"{found_g:,}" in doc and f"{found_d:,}" in doc


@pytest.mark.parametrize(
    "size", [pytest.param(n, marks=() if n == 32 else pytest.mark.long) for n in biggan_deep.SHAPES]
)
def test_every_size_fits_together(size):
    z, _, label = inputs(2)
    g, d = (make(size=size, attention=(16,)) for make in (generator, discriminator))
    image = jax.eval_shape(lambda key: g.init_with_output(key, z, label, True)[0], KEY)
    assert image.shape == (2, size, size, 3) and image.dtype == jnp.float32
    score = jax.eval_shape(lambda key: d.init_with_output(key, jnp.zeros(image.shape), label, True)[0], KEY)
    assert score.logit.shape == (2,) and score.logit.dtype == jnp.float32


# The twin ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin():
    pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import biggan_deep as twin_biggan_deep

    return twin_biggan_deep


@pytest.mark.oracle
def test_generator_and_its_gradients_are_those_of_torch(twin):
    import torch

    _, _, label = inputs()
    z = jax.random.normal(jax.random.key(2), (len(label), LATENT))  # key 1 puts a ReLU within rounding of 0
    net = generator(rgb_width=8)  # of which 3 are shown
    variables = networks.drawn(net, z, label)
    g = twin.Generator(2, LATENT, EMBED, CLASSES, 8, rgb_width=8)
    test_biggan.copy_generator(g, variables)
    target = jax.random.normal(jax.random.key(4), (3, 64, 64, 3))

    @jax.jit
    def ours(params):
        def loss(params):
            image, new = net.apply({**variables, "params": params}, z, label, True, mutable=STATE)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    torch_z, torch_label = torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long()
    expected = g(torch_z, torch_label)
    np.testing.assert_allclose(image.transpose(0, 3, 1, 2), expected.detach().numpy(), atol=1e-4)
    (expected * test_biggan.first(target)).sum().backward()
    # A bias before a norm has no gradient, and four norms to a block leave more rounding in its place.
    test_biggan.close_gradients(
        g, gradients, lambda net, params: test_biggan.copy_generator(net, {"params": params}), least=1e-2
    )
    mean = g.get_submodule("to64_2.norm3.norm").running_mean.numpy()
    np.testing.assert_allclose(new["batch_stats"]["to64_2"]["norm3"]["mean"], mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(new["spectral"]["rgb"]["u"], g.rgb.spectral.u.numpy(), atol=1e-4)
    u = g.get_submodule("to16_2.norm4.gain").spectral.u.numpy()
    np.testing.assert_allclose(new["spectral"]["to16_2"]["norm4"]["gain"]["u"], u, atol=1e-4)


@pytest.mark.oracle
def test_discriminator_and_its_gradients_are_those_of_torch(twin):
    import torch

    _, image, label = inputs()
    net = discriminator()
    variables = networks.drawn(net, image, label)
    d = twin.Discriminator(4, CLASSES, 8)
    test_biggan.copy_into(d, variables["params"], variables["spectral"], {})

    @jax.jit
    def ours(params, image):
        def loss(params, image):
            given = {**variables, "params": params}
            verdict, new = net.apply(given, image, label, True, mutable=[spectral_norm.SPECTRAL])
            return jnp.sum(jnp.sin(verdict.logit)), (verdict.logit, new)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), (score, new) = ours(variables["params"], image)
    picture = test_biggan.first(image).requires_grad_()
    expected = d(picture, torch.tensor(np.asarray(label)).long())
    np.testing.assert_allclose(score, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    expected.sin().sum().backward()
    test_biggan.close_gradients(d, gradients, lambda net, params: test_biggan.copy_into(net, params, {}, {}))
    difference = np.abs(pull.transpose(0, 3, 1, 2) - picture.grad.numpy()).max()
    assert difference < 1e-3 * float(jnp.abs(pull).max())
    u = d.get_submodule("pair3_1.shortcut").spectral.u.numpy()
    np.testing.assert_allclose(new["spectral"]["pair3_1"]["shortcut"]["u"], u, atol=1e-4)


# What the blocks are for ------------------------------------------------------------------------------------


def silent(block, *arguments):
    """A block whose last convolution is 0: what its shortcut lets through."""
    variables = networks.init(block, *arguments, True)
    variables["params"]["conv4"] = jax.tree.map(jnp.zeros_like, variables["params"]["conv4"])
    return networks.apply(block, variables, *arguments, True), variables


@pytest.mark.long
def test_generator_shortcuts_drop_channels_and_have_no_weights():
    x = jax.random.normal(KEY, (2, 4, 4, 8))
    block = biggan_deep.GeneratorBlock(4, CONV, norms.ConditionalBatchNorm, upsample=True)
    out, variables = silent(block, x, jnp.ones((2, 3)))
    assert "shortcut" not in variables["params"]
    np.testing.assert_array_equal(out, resample2x.upsample_nearest(x[..., :4]))


def test_discriminator_shortcuts_keep_what_is_there_and_add_channels():
    x = jax.random.normal(KEY, (2, 4, 4, 8))
    out, _ = silent(biggan_deep.DiscriminatorBlock(12, CONV, downsample=True), x)
    np.testing.assert_allclose(out[..., :8], resample2x.avg_pool(x), atol=1e-6)
    assert out.shape == (2, 2, 2, 12) and float(jnp.abs(out[..., 8:]).min()) > 0
    same, variables = silent(biggan_deep.DiscriminatorBlock(8, CONV, downsample=False), x)
    assert "shortcut" not in variables["params"]
    np.testing.assert_array_equal(same, x)


@pytest.mark.long
def test_latent_and_label_reach_the_first_layer_and_every_norm():
    z, _, label = inputs(2, 32)
    net = generator(size=32, attention=())
    shapes = test_biggan.shapes(net, z, label)
    gains = [shape for name, shape in shapes.items() if name.endswith("gain/kernel")]
    assert len(gains) == 3 * 2 * 4 and {shape[0] for shape in gains} == {LATENT + EMBED}
    assert shapes["linear/kernel"][0] == LATENT + EMBED
    variables = networks.drawn(net, z, label)
    draw = jax.jit(lambda z, label: net.apply(variables, z, label, False))
    image = draw(z, label)
    assert float(jnp.abs(draw(-z, label) - image).max()) > 1e-3
    assert float(jnp.abs(draw(z, label + 1) - image).max()) > 1e-3


@pytest.mark.long
def test_bfloat16_is_finite_near_and_leaves_parameters_alone():
    z, image, label = inputs(2, 32)
    for kind, argument in ((generator, z), (discriminator, image)):
        sharp, blunt = (kind(size=32, attention=(16,), dtype=t) for t in (jnp.float32, jnp.bfloat16))
        variables = networks.drawn(blunt, argument, label)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}

        def applied(net, variables=variables, x=argument):
            out, _ = jax.jit(lambda v: net.apply(v, x, label, True, mutable=STATE))(variables)
            return jax.tree.leaves(out)[0]

        exact, rough = applied(sharp), applied(blunt)
        assert rough.dtype == jnp.float32
        assert 0 < float(jnp.abs(rough - exact).mean()) < 0.1 * float(jnp.abs(exact).mean())


def test_wrong_settings_name_their_choices():
    z, image, label = inputs(2)
    with pytest.raises(ValueError, match=r"BigGAN-deep at 96x96 is unknown; sizes: 32, 64, 128, 256"):
        generator(size=96).init(KEY, z, label, True)
    with pytest.raises(ValueError, match=r"no feature map has attention height 12; heights: 8, 16, 32, 64"):
        generator(attention=(12,)).init(KEY, z, label, True)
    with pytest.raises(ValueError, match=r"no feature map has attention height 64; heights: 32, 16, 8, 4"):
        discriminator(attention=(64,)).init(KEY, image, label, True)
