"""StyleGAN and StyleGAN2 against plain PyTorch with the same weights, and against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdog.config import build, library, registry
from jaxdog.models import layers, resolutions, stylegan
from jaxdog.ops import conv, resample2x
from jaxdog.systems import progressive
from tests.models import networks

KEY = jax.random.key(0)
LATENT, CLASSES, STYLE, B = 5, 3, 6, 8
LABEL = jnp.arange(B) % CLASSES
KEYS = jax.random.split(jax.random.key(7), B)
MODULATIONS = list(stylegan.MODULATIONS)


def generator(**fields: Any) -> stylegan.Generator:
    given: dict[str, Any] = dict(
        channels=6, latent_dim=LATENT, classes=CLASSES, w_dim=STYLE, mapping_layers=2,
        mapping_lr_multiplier=0.01, embed_dim=0, modulation="adain", full_width_resolution=4,
        style_mixing_prob=0.0, truncation_psi=0.7, truncation_cutoff=4, w_avg_beta=0.9, size=8,
    )  # fmt: skip
    return stylegan.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> stylegan.Discriminator:
    given: dict[str, Any] = dict(
        channels=6,
        classes=CLASSES,
        residual=False,
        projection=False,
        mbstd_group_size=4,
        full_width_resolution=4,
        size=8,
    )
    return stylegan.Discriminator(**{**given, **fields})


def latents(dim: int = LATENT) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (B, dim))


def pictures(size: int = 8) -> jax.Array:
    return jax.random.uniform(jax.random.key(2), (B, size, size, 3), minval=-1.0)


def started(net: Any, *arguments: Any) -> Any:
    """Variables of the network's shapes, all of them drawn, each as large as it may well become."""
    rng = np.random.default_rng(0)

    def draw(path: Any, x: Any) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        scale = (1.0 if name.endswith("kernel") else 0.3) * (100.0 if "mapping/dense" in name else 1.0)
        return jnp.asarray(scale * rng.normal(size=x.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(lambda key: net.init(key, *arguments), KEY))


# Sizes ------------------------------------------------------------------------------------------------------


def counts(name: str) -> list[int]:
    config = build.check(library.load(name))
    g, d = registry.generator(config, 120), registry.discriminator(config, 120)
    z, label, keys = jnp.zeros((2, 512)), jnp.zeros(2, jnp.int32), KEYS[:2]
    nets = (
        jax.eval_shape(lambda: g.init(KEY, z, label, False, keys)),
        jax.eval_shape(lambda: d.init(KEY, jnp.zeros((2, 64, 64, 3)), label, False)),
    )
    return [sum(x.size for x in jax.tree.leaves(net["params"])) for net in nets]


def test_parameter_counts_at_64() -> None:
    """Sums of all kernels, biases and noise weights, layer by layer."""
    w = 512
    mapping, square = 8 * (w**2 + w), 9 * w**2
    end = 9 * (w + 1) * w + w + 16 * w**2 + w + w + 1

    g = 16 * w + 7 * square + 9 * w * 256 + 9 * 256**2 + 3 * 256 + 3
    g += sum(c + c + 2 * c * w + 2 * c for c in 8 * [w] + 2 * [256])  # noise, bias, style
    d = 3 * 256 + 256 + 9 * 256**2 + 256 + 9 * 256 * w + w + 6 * (square + w)
    assert counts("stylegan") == [mapping + g, d + end] == [25_131_779, 22_489_857]

    g = 16 * w + 9 * (square + w**2 + w + w + 1) + 5 * (3 * w + 3 + w**2 + w)
    d = 3 * w + w + 4 * (2 * (square + w) + w**2)
    assert counts("stylegan2") == [mapping + g, d + end] == [27_032_600, 26_488_833]


# The twins --------------------------------------------------------------------------------------------------


def noise_maps(size: int) -> list[jax.Array]:
    """The map of each place, as the layer draws it; 2019 and 2020 count their places differently."""
    heights = [4 << (i // 2) for i in range(2 * len(resolutions.up_to(size)))]
    return [noise_map(place, height) for place, height in enumerate(heights)]


def noise_map(place: int, height: int) -> jax.Array:
    layer: Any = layers.Noise(place)
    return layer.apply({"params": {"weight": jnp.ones(1)}}, jnp.zeros((B, height, height, 1)), KEYS)


G_CASES = [
    dict(modulation="adain", embed_dim=4),
    dict(modulation="adain", size=16, full_width_resolution=8, alpha=0.3),
    dict(modulation="demodulated", embed_dim=4, size=16, full_width_resolution=8),
]


@pytest.mark.oracle
@pytest.mark.parametrize("fields", G_CASES)
def test_generator_and_its_gradients_are_those_of_torch(fields: dict[str, Any]) -> None:
    """Each layer has a w of its own: that of z, and another number added."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import stylegan as twin_stylegan
    from tests.twins import transfer

    net, z = generator(**fields), latents()
    variables = started(net, z, LABEL, False, KEYS)
    target = pictures(net.size)
    layer_count = 2 * len(resolutions.up_to(net.size))
    shift = jax.random.normal(jax.random.key(4), (1, layer_count, STYLE))

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            moved = {**variables, "params": params}
            w = net.apply(moved, z, LABEL, True, KEYS, method="map_latents") + shift
            image = net.apply(moved, w, True, KEYS, method="synthesize")
            return jnp.sum(image * target), image

        return jax.grad(loss, has_aux=True)(params)

    gradients, image = ours(variables["params"])
    theirs = twin_stylegan.tensors(variables["params"])
    label = torch.tensor(np.asarray(LABEL)).long()
    w = twin_stylegan.mapping(theirs, torch.tensor(np.asarray(z)), label, 0.01)
    w = w[:, None] + torch.tensor(np.asarray(shift))
    if net.modulation == "adain":
        noise = [transfer.first(x) for x in noise_maps(net.size)]
        expected = twin_stylegan.paint_2019(theirs, w, noise, net.alpha)
    else:
        heights = [4 << ((i + 1) // 2) for i in range(layer_count - 1)]
        noise = [transfer.first(noise_map(place, height)) for place, height in enumerate(heights)]
        expected = twin_stylegan.paint_2020(theirs, w, noise)
    np.testing.assert_allclose(image, transfer.last(expected), rtol=1e-4, atol=1e-4)
    (expected * transfer.first(target)).sum().backward()
    transfer.close(gradients, twin_stylegan.gradients(variables["params"], theirs), rtol=2e-4)


D_CASES = [
    dict(),
    dict(size=16, full_width_resolution=8, alpha=0.3, projection=True),
    dict(residual=True, size=16, full_width_resolution=8, projection=True),
]


@pytest.mark.oracle
@pytest.mark.parametrize("fields", D_CASES)
def test_discriminator_and_its_gradients_are_those_of_torch(fields: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import stylegan as twin_stylegan
    from tests.twins import transfer

    net = discriminator(**fields)
    image = pictures(net.size)
    params = started(net, image, LABEL, True)["params"]

    @jax.jit
    def ours(params: Any, image: jax.Array) -> Any:
        def loss(params: Any, image: jax.Array) -> Any:
            logit = net.apply({"params": params}, image, LABEL, True).logit
            return jnp.sum(jnp.sin(3.0 * logit)), logit

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), logit = ours(params, image)
    theirs = twin_stylegan.tensors(params)
    picture = transfer.first(image).requires_grad_()
    expected = twin_stylegan.judge(theirs, picture, torch.tensor(np.asarray(LABEL)).long(), 4, net.alpha)
    np.testing.assert_allclose(logit, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    (3.0 * expected).sin().sum().backward()
    transfer.close(gradients, twin_stylegan.gradients(params, theirs), rtol=2e-4)
    transfer.close(pull, transfer.last(picture.grad), rtol=2e-4)


@pytest.mark.oracle
def test_resampled_convolutions_are_those_of_2020_inside() -> None:
    """2020: transposed of stride 2, then (1, 3, 3, 1); or (1, 3, 3, 1), then stride 2."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import transfer

    functional = torch.nn.functional
    x, kernel = jax.random.normal(KEY, (2, 8, 8, 3)), jax.random.normal(KEY, (3, 3, 3, 4))
    theirs, weight = transfer.first(x), torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1).copy())
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8

    def smoothed(y: Any, gain: float) -> Any:
        c = y.shape[1]
        return functional.conv2d(y, gain * torch.outer(line, line).expand(c, 1, 4, 4), groups=c, padding=1)

    turned = weight.flip(2, 3).transpose(0, 1)
    expected = transfer.last(smoothed(functional.conv_transpose2d(theirs, turned, stride=2), 4.0))
    got = resample2x.blur(conv.conv2d(x, kernel, "up"))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-4)

    # One more zero on each side of the image: a 3x3 kernel, stride 2, on what four taps make of it.
    wide = functional.pad(theirs, (1, 1, 1, 1))
    expected = transfer.last(functional.conv2d(smoothed(wide, 1.0), weight, stride=2))
    got = conv.conv2d(resample2x.blur(x), kernel, "down")
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4)


# Styles -----------------------------------------------------------------------------------------------------


def test_adain_gives_each_channel_the_mean_and_deviation_of_its_style() -> None:
    x = 5.0 + 3.0 * jax.random.normal(KEY, (B, 8, 8, 4))
    w = jax.random.normal(jax.random.key(1), (B, STYLE))
    layer: Any = stylegan.AdaIN()
    variables = started(layer, x, w, True)
    style = variables["params"]["style"]
    line = np.asarray(w) @ np.asarray(style["kernel"]) / np.sqrt(STYLE) + np.asarray(style["bias"])
    y = np.asarray(networks.apply(layer, variables, x, w, True))
    np.testing.assert_allclose(y.std((1, 2)), np.abs(1 + line[:, :4]), atol=1e-4)
    np.testing.assert_allclose(y.mean((1, 2)), line[:, 4:], atol=1e-4)


def kernel_of(layer: Any, variables: Any, c: int, w: jax.Array) -> np.ndarray:
    """The kernel [3, 3, c, features] that a layer uses under w [k], seen by points in each channel."""
    points = jnp.zeros((c, 5, 5, c)).at[jnp.arange(c), 2, 2, jnp.arange(c)].set(1.0)
    y = networks.apply(layer, variables, points, jnp.broadcast_to(w, (c, *w.shape)), True)
    assert not np.asarray(y).sum((0, 3))[[0, 4]].any()
    return np.asarray(y)[:, 3:0:-1, 3:0:-1].transpose(1, 2, 0, 3)


def test_demodulated_kernels_have_norm_1_and_others_are_scaled_by_the_style() -> None:
    c, w = 4, jax.random.normal(KEY, (STYLE,))
    layer: Any = stylegan.ModulatedConv(7)
    variables = started(layer, jnp.zeros((1, 5, 5, c)), w[None], True)
    params = variables["params"]
    kernel = kernel_of(layer, variables, c, w)
    np.testing.assert_allclose(np.square(kernel).sum((0, 1, 2)), np.ones(7), rtol=1e-5)

    style = np.asarray(w @ params["style"]["kernel"]) / np.sqrt(STYLE) + np.asarray(params["style"]["bias"])
    scaled = np.asarray(params["kernel"]) / np.sqrt(9 * c) * (1 + style)[:, None]
    plain = kernel_of(layer.clone(demodulate=False), variables, c, w)
    np.testing.assert_allclose(plain, scaled, atol=1e-5)
    np.testing.assert_allclose(kernel, scaled / np.sqrt(np.square(scaled).sum((0, 1, 2))), atol=1e-5)
    assert not np.allclose(np.square(plain).sum((0, 1, 2)), 1, atol=0.05)


def test_mapping_learns_at_its_share_of_the_rate() -> None:
    """Adam's first step is of one length; the kernel in use moves by a hundredth of that."""
    x = latents()

    def moved(rate: float) -> tuple[jax.Array, jax.Array, jax.Array]:
        init = nn.initializers.normal(1.0 / rate)
        layer: Any = layers.Dense(4, spectral=False, equalized_lr=True, lr_multiplier=rate, kernel_init=init)
        params = layer.init(KEY, x, True)["params"]

        def function(params: Any) -> tuple[jax.Array, jax.Array]:
            zero = layer.apply({"params": params}, jnp.zeros((1, LATENT)), True)
            return layer.apply({"params": params}, jnp.eye(LATENT), True) - zero, zero[0]

        gradient = jax.grad(lambda p: jnp.sum(jnp.sin(layer.apply({"params": p}, x, True))))(params)
        updates, _ = optax.adam(0.5, eps=0.0).update(gradient, optax.adam(0.5).init(params))
        start, after = function(params), function(optax.apply_updates(params, updates))
        return start[0], after[0] - start[0], after[1] - start[1]

    (one, kernel, bias), (same, slow_kernel, slow_bias) = jax.jit(lambda: (moved(1.0), moved(0.01)))()
    np.testing.assert_allclose(same, one, rtol=1e-5)  # the same function at first
    np.testing.assert_allclose(np.abs(kernel), 0.5 * np.sqrt(2 / LATENT), rtol=1e-4)
    np.testing.assert_allclose(slow_kernel, 0.01 * kernel, rtol=1e-3)
    np.testing.assert_allclose(slow_bias, 0.01 * bias, rtol=1e-3)


# Growing ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_generator_fades_from_the_upscaled_smaller_image_to_its_own() -> None:
    z, low = latents(), generator(size=4)
    variables = started(low, z, LABEL, False, KEYS)
    fresh = started(generator(alpha=0.5), z, LABEL, False, KEYS)
    grown = progressive.merge(variables, fresh)
    np.testing.assert_array_equal(grown[stylegan.AVERAGES]["w"], variables[stylegan.AVERAGES]["w"])

    @jax.jit
    def faded(alpha: jax.Array) -> jax.Array:
        return generator(alpha=alpha).apply(grown, z, LABEL, True, KEYS)

    def whole() -> jax.Array:
        kept = {name: x for name, x in grown["params"]["synthesis"].items() if name != "rgb4"}
        params = {**grown["params"], "synthesis": kept}
        return networks.apply(generator(), {**grown, "params": params}, z, LABEL, True, KEYS)

    before = networks.apply(low, variables, z, LABEL, True, KEYS)
    np.testing.assert_allclose(faded(0.0), progressive.upscale(before, 8), atol=1e-4)
    np.testing.assert_allclose(faded(1.0), whole(), atol=1e-4)
    np.testing.assert_allclose(faded(0.25), 0.25 * faded(1.0) + 0.75 * faded(0.0), atol=1e-4)
    assert np.abs(faded(1.0) - faded(0.0)).max() > 0.01
    plain = jax.eval_shape(lambda: generator().init(KEY, z, LABEL, False, KEYS))
    assert "rgb4" not in plain["params"]["synthesis"]


def test_discriminator_fades_from_the_smaller_one_to_its_own() -> None:
    image, low = pictures(), discriminator(size=4)
    small = progressive.downscale(image, 4)
    params = started(low, small, LABEL, True)["params"]
    fresh = started(discriminator(alpha=0.5), image, LABEL, True)["params"]
    grown = progressive.merge(params, fresh)

    @jax.jit
    def faded(alpha: jax.Array) -> jax.Array:
        return discriminator(alpha=alpha).apply({"params": grown}, image, LABEL, True).logit

    expected = networks.apply(low, {"params": params}, small, LABEL, True).logit
    np.testing.assert_allclose(faded(0.0), expected, rtol=1e-5, atol=1e-5)
    kept = {name: x for name, x in grown.items() if name != "rgb4"}
    whole = networks.apply(discriminator(), {"params": kept}, image, LABEL, True).logit
    np.testing.assert_allclose(faded(1.0), whole, rtol=1e-5, atol=1e-5)
    assert np.abs(faded(0.5) - faded(0.0)).max() > 1e-3


# Starts and settings ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_starts_of_both_papers() -> None:
    for modulation in MODULATIONS:
        net = generator(modulation=modulation, channels=16)
        init = jax.jit(lambda key, net=net: net.init(key, latents(), LABEL, False, KEYS))
        variables = init(KEY)
        assert not np.asarray(variables[stylegan.AVERAGES]["w"]).any()
        mapping, params = variables["params"]["mapping"], variables["params"]["synthesis"]
        assert (
            60 < np.std(mapping["dense1"]["kernel"]) < 140 and not np.asarray(mapping["dense1"]["bias"]).any()
        )
        constant = np.asarray(params["constant"])
        assert (constant == 1).all() if modulation == "adain" else 0.8 < constant.std() < 1.2
        shape = (16,) if modulation == "adain" else (1,)
        weights = [np.asarray(x["noise"]["weight"]) for name, x in params.items() if name.startswith("layer")]
        assert len(weights) == (4 if modulation == "adain" else 3)
        assert weights[0].shape == shape and not any(x.any() for x in weights)
        assert 0.9 < np.std(params["layer1"]["conv"]["kernel"]) < 1.1


@pytest.mark.long
def test_bfloat16_is_near_and_gives_float32() -> None:
    rows: list[tuple[Any, tuple[Any, ...]]] = [
        (generator(modulation=modulation, size=4), (latents(), LABEL, True, KEYS))
        for modulation in MODULATIONS
    ]
    for net, arguments in [*rows, (discriminator(residual=True), (pictures(), LABEL, True))]:
        variables = started(net, *arguments)
        exact, rough = (
            jax.tree.leaves(networks.apply(net.clone(dtype=dtype), variables, *arguments))[0]
            for dtype in (jnp.float32, jnp.bfloat16)
        )
        assert rough.dtype == jnp.float32
        assert 0 < float(jnp.abs(rough - exact).mean()) < 0.05 * float(jnp.abs(exact).mean())


def test_wrong_settings_name_the_choices() -> None:
    z = latents()
    with pytest.raises(ValueError, match="modulation is 'film'; choices: adain, demodulated"):
        generator(modulation="film").init(KEY, z, LABEL, False, KEYS)
    with pytest.raises(
        ValueError, match="'demodulated' does not fade in: set system.fade to zeros, or use adain"
    ):
        generator(modulation="demodulated", alpha=0.5).init(KEY, z, LABEL, False, KEYS)
    with pytest.raises(ValueError, match="noise maps and needs `key`, a random key per image"):
        generator().init(KEY, z, LABEL, False)
    with pytest.raises(ValueError, match="a batch of 6 cannot be split into groups of 4"):
        discriminator().init(KEY, pictures()[:6], LABEL[:6], False)
