"""StyleGAN and StyleGAN2 against plain PyTorch with the same weights, and against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdog import types
from jaxdog.config import build, registry
from jaxdog.losses import regularizers
from jaxdog.models import layers, stylegan
from jaxdog.ops import conv
from jaxdog.optim import ema
from jaxdog.systems import gan, progressive
from tests.config import test_build
from tests.systems import test_gan

KEY = jax.random.key(0)
LATENT, CLASSES, STYLE, B = 5, 3, 6, 8
LABEL = jnp.arange(B) % CLASSES
KEYS = jax.random.split(jax.random.key(7), B)
MODULATIONS = list(stylegan.MODULATIONS)


def generator(**fields: Any) -> stylegan.Generator:
    given: dict[str, Any] = dict(
        channels=6, latent_dim=LATENT, classes=CLASSES, style_dim=STYLE, mapping_layers=2, mapping_rate=0.01,
        embed_dim=0, modulation="adain", wide_to=4, mixing=0.0, psi=0.7, psi_to=4, mean_decay=0.9, size=8,
    )  # fmt: skip
    return stylegan.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> stylegan.Discriminator:
    given: dict[str, Any] = dict(
        channels=6, classes=CLASSES, residual=False, projection=False, stddev_group=4, wide_to=4, size=8
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


def call(net: Any, variables: Any, *arguments: Any, **named: Any) -> Any:
    return jax.jit(lambda variables: net.apply(variables, *arguments, **named))(variables)


# Sizes ------------------------------------------------------------------------------------------------------


def counts(name: str) -> list[int]:
    config = build.check(test_build.load(test_build.ROOT / "configs" / f"{name}.py").get_config())
    g, d = registry.networks(config, 120)
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


def test_widths_halve_above_a_height() -> None:
    assert stylegan.widths(512, 64, 32) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}
    assert list(stylegan.widths(512, 64, 64).values()) == [512] * 5
    with pytest.raises(ValueError, match="2 channels are too few for 16x16"):
        stylegan.widths(2, 16, 4)
    with pytest.raises(ValueError, match="of 48x48 is unknown; sizes: 4, 8, 16"):
        stylegan.widths(512, 48, 32)


# The twins --------------------------------------------------------------------------------------------------


def noise_maps(size: int) -> list[jax.Array]:
    """The map of each place, as the layer draws it; 2019 and 2020 count their places differently."""
    heights = [4 << (i // 2) for i in range(2 * len(stylegan.widths(6, size, size)))]
    return [noise_map(place, height) for place, height in enumerate(heights)]


def noise_map(place: int, height: int) -> jax.Array:
    layer: Any = layers.Noise(place)
    return layer.apply({"params": {"weight": jnp.ones(1)}}, jnp.zeros((B, height, height, 1)), KEYS)


G_CASES = [
    dict(modulation="adain", embed_dim=4),
    dict(modulation="adain", size=16, wide_to=8, alpha=0.3),
    dict(modulation="demodulated", embed_dim=4, size=16, wide_to=8),
]


@pytest.mark.parametrize("fields", G_CASES)
def test_generator_and_its_gradients_are_those_of_torch(fields: dict[str, Any]) -> None:
    """Each layer has a w of its own: that of z, and another number added."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests import torch_twins, twin_stylegan

    net, z = generator(**fields), latents()
    variables = started(net, z, LABEL, False, KEYS)
    target = pictures(net.size)
    layer_count = 2 * len(stylegan.widths(6, net.size, net.size))
    shift = jax.random.normal(jax.random.key(4), (1, layer_count, STYLE))

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            moved = {**variables, "params": params}
            w = net.apply(moved, z, LABEL, True, KEYS, method="styles") + shift
            image = net.apply(moved, w, True, KEYS, method="paint")
            return jnp.sum(image * target), image

        return jax.grad(loss, has_aux=True)(params)

    gradients, image = ours(variables["params"])
    theirs = twin_stylegan.tensors(variables["params"])
    label = torch.tensor(np.asarray(LABEL)).long()
    w = twin_stylegan.mapping(theirs, torch.tensor(np.asarray(z)), label, 0.01)
    w = w[:, None] + torch.tensor(np.asarray(shift))
    if net.modulation == "adain":
        noise = [torch_twins.first(x) for x in noise_maps(net.size)]
        expected = twin_stylegan.paint_2019(theirs, w, noise, net.alpha)
    else:
        heights = [4 << ((i + 1) // 2) for i in range(layer_count - 1)]
        noise = [torch_twins.first(noise_map(place, height)) for place, height in enumerate(heights)]
        expected = twin_stylegan.paint_2020(theirs, w, noise)
    np.testing.assert_allclose(image, torch_twins.last(expected), rtol=1e-4, atol=1e-4)
    (expected * torch_twins.first(target)).sum().backward()
    torch_twins.close(gradients, twin_stylegan.gradients(variables["params"], theirs), rtol=2e-4)


D_CASES = [
    dict(),
    dict(size=16, wide_to=8, alpha=0.3, projection=True),
    dict(residual=True, size=16, wide_to=8, projection=True),
]


@pytest.mark.parametrize("fields", D_CASES)
def test_discriminator_and_its_gradients_are_those_of_torch(fields: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests import torch_twins, twin_stylegan

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
    picture = torch_twins.first(image).requires_grad_()
    expected = twin_stylegan.judge(theirs, picture, torch.tensor(np.asarray(LABEL)).long(), 4, net.alpha)
    np.testing.assert_allclose(logit, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    (3.0 * expected).sin().sum().backward()
    torch_twins.close(gradients, twin_stylegan.gradients(params, theirs), rtol=2e-4)
    torch_twins.close(pull, torch_twins.last(picture.grad), rtol=2e-4)


def test_resampled_convolutions_are_those_of_2020_inside() -> None:
    """2020: transposed of stride 2, then (1, 3, 3, 1); or (1, 3, 3, 1), then stride 2."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from tests import torch_twins

    functional = torch.nn.functional
    x, kernel = jax.random.normal(KEY, (2, 8, 8, 3)), jax.random.normal(KEY, (3, 3, 3, 4))
    theirs, weight = torch_twins.first(x), torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1).copy())
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8

    def smoothed(y: Any, gain: float) -> Any:
        c = y.shape[1]
        return functional.conv2d(y, gain * torch.outer(line, line).expand(c, 1, 4, 4), groups=c, padding=1)

    turned = weight.flip(2, 3).transpose(0, 1)
    expected = torch_twins.last(smoothed(functional.conv_transpose2d(theirs, turned, stride=2), 4.0))
    got = layers.blur(conv.conv2d(x, kernel, "up"))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-4)

    # One more zero on each side of the picture: a 3x3 kernel, stride 2, on what four taps make of it.
    wide = functional.pad(theirs, (1, 1, 1, 1))
    expected = torch_twins.last(functional.conv2d(smoothed(wide, 1.0), weight, stride=2))
    got = conv.conv2d(layers.blur(x), kernel, "down")
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
    y = np.asarray(call(layer, variables, x, w, True))
    np.testing.assert_allclose(y.std((1, 2)), np.abs(1 + line[:, :4]), atol=1e-4)
    np.testing.assert_allclose(y.mean((1, 2)), line[:, 4:], atol=1e-4)


def kernel_of(layer: Any, variables: Any, c: int, w: jax.Array) -> np.ndarray:
    """The kernel [3, 3, c, features] that a layer uses under w [k], seen by points in each channel."""
    points = jnp.zeros((c, 5, 5, c)).at[jnp.arange(c), 2, 2, jnp.arange(c)].set(1.0)
    y = call(layer, variables, points, jnp.broadcast_to(w, (c, *w.shape)), True)
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
        layer: Any = layers.Dense(4, spectral=False, equalised=True, rate=rate, kernel_init=init)
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


# Mixing and truncation --------------------------------------------------------------------------------------


def unmapped(**fields: Any) -> Any:
    """A generator whose w is z, brought to a mean square of 1."""
    return generator(**{**dict(mapping_layers=0, latent_dim=STYLE, size=16), **fields})


def unit(z: jax.Array) -> np.ndarray:
    return np.asarray(z / jnp.sqrt(jnp.square(z).mean(-1, keepdims=True) + 1e-8))


def test_styles_of_two_latents_meet_at_a_layer_that_is_drawn_for_each_picture() -> None:
    n = 2000
    z, keys = jax.random.normal(KEY, (n, STYLE)), jax.random.split(jax.random.key(3), n)
    label = jnp.zeros(n, jnp.int32)
    net = unmapped(mixing=0.9)
    variables = {stylegan.AVERAGES: {"w": jnp.zeros(STYLE)}, "params": {}}
    w = np.asarray(call(net, variables, z, label, True, keys, method="styles"))
    assert w.shape == (n, 6, STYLE)
    own = np.abs(w - unit(z)[:, None]).max(2) < 1e-5
    assert own[:, 0].all()
    first = own.sum(1)
    np.testing.assert_array_equal(own, np.arange(6) < first[:, None])  # one crossing, no way back
    shares = np.bincount(first, minlength=7)[1:] / n
    np.testing.assert_allclose(shares, [0.18] * 5 + [0.1], atol=0.035)
    mixed = w[first < 6]
    second = mixed[:, -1]
    for i, picture in zip(first[first < 6], mixed, strict=True):
        np.testing.assert_array_equal(picture[i:], np.broadcast_to(picture[-1], (6 - i, STYLE)))
    # Another latent of the same kind, not the first one again.
    np.testing.assert_allclose(np.square(second).mean(1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(second.mean(0), 0.0, atol=0.12)
    assert abs(np.corrcoef(second.ravel(), mixed[:, 0].ravel())[0, 1]) < 0.05


def test_mixing_is_of_a_pictures_own_key_and_of_training_only() -> None:
    z = latents(STYLE)
    net = unmapped(mixing=1.0, psi=1.0)
    variables = {stylegan.AVERAGES: {"w": jnp.zeros(STYLE)}, "params": {}}
    w = np.asarray(call(net, variables, z, LABEL, True, KEYS, method="styles"))
    alone = call(net, variables, z[3:4], LABEL[3:4], True, KEYS[3:4], method="styles")
    np.testing.assert_allclose(alone[0], w[3], atol=1e-6)
    assert (np.abs(w[:, -1] - w[:, 0]).max(1) > 1e-2).all()
    still = call(net, variables, z, LABEL, False, KEYS, method="styles")
    np.testing.assert_allclose(still, np.repeat(unit(z)[:, None], 6, 1), atol=1e-6)
    none = call(unmapped(mixing=0.0), variables, z, LABEL, True, KEYS, method="styles")
    np.testing.assert_allclose(none, still, atol=1e-6)


def test_both_styles_of_a_mixed_picture_reach_it() -> None:
    """Coarse layers see the first latent, fine ones the second."""
    net = generator(mixing=1.0)
    variables = started(net, latents(), LABEL, False, KEYS)
    w = call(net, variables, latents(), LABEL, True, KEYS, method="styles")

    def pull(w: jax.Array) -> jax.Array:
        return jax.grad(lambda w: jnp.square(net.apply(variables, w, True, KEYS, method="paint")).sum())(w)

    assert (np.abs(jax.jit(pull)(w)).max((0, 2)) > 1e-4).all()


def test_psi_leads_from_the_mean_picture_to_the_picture_itself() -> None:
    net, z = generator(modulation="demodulated", psi_to=8, embed_dim=3), latents()
    variables = started(net, z, LABEL, False, KEYS)
    same = jnp.broadcast_to(KEYS[:1], KEYS.shape)  # of noise
    drawn = jax.jit(lambda psi, keys: net.clone(psi=psi).apply(variables, z, LABEL, False, keys))
    mean, whole = drawn(0.0, same), drawn(1.0, KEYS)
    np.testing.assert_allclose(mean, np.broadcast_to(mean[:1], mean.shape), atol=1e-6)

    @jax.jit
    def pictures() -> tuple[jax.Array, jax.Array]:
        w = jnp.broadcast_to(variables[stylegan.AVERAGES]["w"], (B, 4, STYLE))
        painted = net.apply(variables, w, False, same, method="paint")
        return painted, net.apply(variables, z, LABEL, True, KEYS)

    of_mean, trained = map(np.asarray, pictures())
    np.testing.assert_allclose(mean, of_mean.clip(-1, 1), atol=1e-5)
    np.testing.assert_allclose(whole, trained.clip(-1, 1), atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 0.01


def test_psi_works_up_to_a_height() -> None:
    net, z = unmapped(psi=0.7, psi_to=8), latents(STYLE)
    mean = jnp.arange(STYLE) / STYLE
    w = call(net, {stylegan.AVERAGES: {"w": mean}, "params": {}}, z, LABEL, False, KEYS, method="styles")
    pulled = 0.3 * np.asarray(mean) + 0.7 * unit(z)
    np.testing.assert_allclose(w[:, :4], np.repeat(pulled[:, None], 4, 1), atol=1e-6)
    np.testing.assert_allclose(w[:, 4:], np.repeat(unit(z)[:, None], 2, 1), atol=1e-6)


def test_the_mean_moves_in_training_passes_that_may_move_it() -> None:
    net, z = unmapped(mixing=1.0, size=4), latents(STYLE)
    variables = started(net, z, LABEL, True, KEYS)
    old = jnp.arange(STYLE) / STYLE
    for train in (True, False):
        _, new = jax.jit(
            lambda old, train=train: net.apply(
                {**variables, stylegan.AVERAGES: {"w": old}}, z, LABEL, train, KEYS,
                method="styles", mutable=[stylegan.AVERAGES],
            )
        )(old)  # fmt: skip
        expected = 0.9 * np.asarray(old) + 0.1 * unit(z).mean(0) if train else old
        np.testing.assert_allclose(new[stylegan.AVERAGES]["w"], expected, atol=1e-6)


def test_the_mean_goes_with_the_generators_state_and_into_its_average() -> None:
    """One step of the game: moved once, by the generator's pass; the average has the network's own."""
    g = generator(size=4)
    rules = test_gan.game(generator=g, latent_dim=LATENT, average=ema.Rule(0.5, stats="copy"))
    played, batch = gan.gan(rules), test_gan.batch(B)
    state = jax.jit(played.init)(KEY, batch)
    after, _ = jax.jit(played.step)(state, batch, KEY)
    mean = np.asarray(after.g.stats[stylegan.AVERAGES]["w"])
    # By hand: the latents of the generator's step.
    g_key = jax.random.split(jax.random.fold_in(KEY, 0))[1]
    noise = jax.random.split(jax.random.split(g_key, 5)[1], 1)[0]
    z = jax.random.normal(jax.random.split(noise, 3)[0], (B, LATENT))
    w = call(g, {"params": state.g.params, **state.g.stats}, z, LABEL, True, KEYS, method="styles")
    np.testing.assert_allclose(mean, 0.1 * np.asarray(w)[:, 0].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(after.ema.stats[stylegan.AVERAGES]["w"], mean)


# Pictures ---------------------------------------------------------------------------------------------------


def test_pictures_are_cut_to_range_when_sampled_only() -> None:
    net, z = generator(psi=1.0, size=4), latents()
    variables = started(net, z, LABEL, False, KEYS)
    loud = jax.tree_util.tree_map_with_path(
        lambda path, x: 50.0 * x if "rgb4" in jax.tree_util.keystr(path) else x, variables
    )
    both = jax.jit(lambda: [net.apply(loud, z, LABEL, train, KEYS) for train in (True, False)])
    trained, sampled = map(np.asarray, both())
    assert np.abs(trained).max() > 2 and np.abs(sampled).max() == 1
    np.testing.assert_allclose(sampled, trained.clip(-1, 1), atol=1e-4)


def test_a_picture_depends_on_its_own_key() -> None:
    net, z = generator(modulation="demodulated"), latents()
    variables = started(net, z, LABEL, False, KEYS)
    draw = jax.jit(lambda z, label, keys: net.apply(variables, z, label, False, keys))
    base, other = (np.asarray(draw(z, LABEL, keys)) for keys in (KEYS, KEYS.at[1].set(jax.random.key(99))))
    alone = draw(z[2:3], LABEL[2:3], KEYS[2:3])
    moved = np.abs(other - base).max((1, 2, 3))
    assert moved[1] > 1e-2 and not moved[[0, *range(2, B)]].any()
    np.testing.assert_allclose(alone[0], base[2], atol=1e-5)


def test_breeds_are_looked_at_where_there_is_a_vector_for_them() -> None:
    other = (LABEL + 1) % CLASSES
    for embed_dim in (0, 4):
        net = generator(embed_dim=embed_dim, size=4)
        variables = started(net, latents(), LABEL, False, KEYS)
        both = jax.jit(
            lambda x, net=net, v=variables: net.apply(v, latents(), x, True, KEYS, method="styles")
        )
        assert (np.abs(both(LABEL) - both(other)).max() > 1e-3) == (embed_dim > 0)
    for projection in (False, True):
        judge = discriminator(projection=projection, size=4)
        variables = started(judge, pictures(4), LABEL, False)
        both = jax.jit(lambda x, net=judge, v=variables: net.apply(v, pictures(4), x, False).logit)
        assert (np.abs(both(LABEL) - both(other)).max() > 1e-3) == projection


def test_path_lengths_are_of_the_derivatives_by_w() -> None:
    """Karras et al. 2020, eq. 4, on what the game hands to the penalty; slopes against differences."""
    net = generator(modulation="demodulated", mixing=0.9, size=4)
    rules = test_gan.game(generator=net, latent_dim=LATENT)
    variables = started(net, latents(), LABEL, False, KEYS)
    g = types.Net(variables["params"], {stylegan.AVERAGES: variables[stylegan.AVERAGES]}, ())

    def looked_at(params: Any) -> regularizers.Made:
        return gan._made(rules, g, params, KEY, test_gan.batch(B))

    made = looked_at(g.params)
    image = jax.jit(lambda: gan._fakes(rules, g, g.params, KEY, test_gan.batch(B), update=False)[0])()
    assert made.latent.shape == (B, 2, STYLE)
    np.testing.assert_allclose(made.render(made.latent), image, atol=1e-5)

    noise = np.asarray(jax.random.normal(KEY, image.shape)) / 4
    render, w = jax.jit(made.render), np.asarray(made.latent)
    squares = np.zeros(B)
    for i in np.ndindex(2, STYLE):
        step = np.zeros_like(w)
        step[:, *i] = 1e-2
        rise = np.asarray(render(w + step)) - np.asarray(render(w - step))
        squares += (np.sum(rise * noise, (1, 2, 3)) / 2e-2) ** 2 / 2  # the mean of two layers
    penalty = regularizers.path_length(1.0, 1, 0.0, 1.0)
    value, mean = jax.jit(lambda: penalty.value(KEY, made, jnp.zeros(())))()
    np.testing.assert_allclose(mean, np.sqrt(squares).mean(), rtol=1e-2)
    np.testing.assert_allclose(value, np.sqrt(squares).var(), rtol=5e-2)

    def paid(params: Any) -> jax.Array:
        return penalty.value(KEY, looked_at(params), jnp.zeros(()))[0]

    gradient = jax.jit(jax.grad(paid))(g.params)
    for part in ("mapping", "synthesis"):
        largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient[part]))
        assert np.isfinite(largest) and largest > 1e-6


# Growing ----------------------------------------------------------------------------------------------------


def test_generator_fades_from_the_enlarged_smaller_picture_to_its_own() -> None:
    z, low = latents(), generator(size=4)
    variables = started(low, z, LABEL, False, KEYS)
    fresh = started(generator(alpha=0.5), z, LABEL, False, KEYS)
    grown = progressive.carried(variables, fresh)
    np.testing.assert_array_equal(grown[stylegan.AVERAGES]["w"], variables[stylegan.AVERAGES]["w"])

    @jax.jit
    def faded(alpha: jax.Array) -> jax.Array:
        return generator(alpha=alpha).apply(grown, z, LABEL, True, KEYS)

    def whole() -> jax.Array:
        kept = {name: x for name, x in grown["params"]["synthesis"].items() if name != "rgb4"}
        params = {**grown["params"], "synthesis": kept}
        return call(generator(), {**grown, "params": params}, z, LABEL, True, KEYS)

    before = call(low, variables, z, LABEL, True, KEYS)
    np.testing.assert_allclose(faded(0.0), progressive.enlarged(before, 8), atol=1e-4)
    np.testing.assert_allclose(faded(1.0), whole(), atol=1e-4)
    np.testing.assert_allclose(faded(0.25), 0.25 * faded(1.0) + 0.75 * faded(0.0), atol=1e-4)
    assert np.abs(faded(1.0) - faded(0.0)).max() > 0.01
    plain = jax.eval_shape(lambda: generator().init(KEY, z, LABEL, False, KEYS))
    assert "rgb4" not in plain["params"]["synthesis"]


def test_discriminator_fades_from_the_smaller_one_to_its_own() -> None:
    image, low = pictures(), discriminator(size=4)
    small = progressive.pooled(image, 4)
    params = started(low, small, LABEL, True)["params"]
    fresh = started(discriminator(alpha=0.5), image, LABEL, True)["params"]
    grown = progressive.carried(params, fresh)

    @jax.jit
    def faded(alpha: jax.Array) -> jax.Array:
        return discriminator(alpha=alpha).apply({"params": grown}, image, LABEL, True).logit

    expected = call(low, {"params": params}, small, LABEL, True).logit
    np.testing.assert_allclose(faded(0.0), expected, rtol=1e-5, atol=1e-5)
    kept = {name: x for name, x in grown.items() if name != "rgb4"}
    whole = call(discriminator(), {"params": kept}, image, LABEL, True).logit
    np.testing.assert_allclose(faded(1.0), whole, rtol=1e-5, atol=1e-5)
    assert np.abs(faded(0.5) - faded(0.0)).max() > 1e-3


# Starts and settings ----------------------------------------------------------------------------------------


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


def test_bfloat16_is_near_and_gives_float32() -> None:
    rows: list[tuple[Any, tuple[Any, ...]]] = [
        (generator(modulation=modulation, size=4), (latents(), LABEL, True, KEYS))
        for modulation in MODULATIONS
    ]
    for net, arguments in [*rows, (discriminator(residual=True), (pictures(), LABEL, True))]:
        variables = started(net, *arguments)
        exact, rough = (
            jax.tree.leaves(call(net.clone(dtype=dtype), variables, *arguments))[0]
            for dtype in (jnp.float32, jnp.bfloat16)
        )
        assert rough.dtype == jnp.float32
        assert 0 < float(jnp.abs(rough - exact).mean()) < 0.05 * float(jnp.abs(exact).mean())


def test_wrong_settings_name_the_choices() -> None:
    z = latents()
    with pytest.raises(ValueError, match="modulation is 'film'; choices: adain, demodulated"):
        generator(modulation="film").init(KEY, z, LABEL, False, KEYS)
    with pytest.raises(
        ValueError, match="'demodulated' does not fade in: set game.fade to zeros, or take adain"
    ):
        generator(modulation="demodulated", alpha=0.5).init(KEY, z, LABEL, False, KEYS)
    with pytest.raises(ValueError, match="noise maps: it needs a key for each picture"):
        generator().init(KEY, z, LABEL, False)
    with pytest.raises(ValueError, match="a batch of 6 cannot be cut into groups of 4"):
        discriminator().init(KEY, pictures()[:6], LABEL[:6], False)
