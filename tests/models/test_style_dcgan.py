"""The style DCGAN of 2019 against torch networks with the same weights and noise; its sizes and starts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import layers, norms, spectral_norm, style_dcgan
from tests.models import networks

torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
twins = pytest.importorskip("tests.twins.transfer")

pytestmark = pytest.mark.oracle

KEY = jax.random.key(0)
LATENT, CLASSES, B, SIZE = 12, 3, 4, 16
STATE = [spectral_norm.SPECTRAL, norms.BATCH_STATS]
G_WIDTHS, D_WIDTHS = (8, 6, 5), (5, 6, 7)
PLACES = range(2 * len(G_WIDTHS))
LABEL = jnp.arange(B) % CLASSES
KEYS = jax.random.split(jax.random.key(7), B)


def generator(**fields: Any) -> Any:
    given = dict(widths=G_WIDTHS, latent_dim=LATENT, classes=CLASSES, size=SIZE)
    return style_dcgan.Generator(**{**given, **fields})


def discriminator(**fields: Any) -> Any:
    return style_dcgan.Discriminator(**{**dict(widths=D_WIDTHS, classes=CLASSES, size=SIZE), **fields})


def latents() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (B, LATENT))


def pictures() -> jax.Array:
    return jax.random.uniform(jax.random.key(2), (B, SIZE, SIZE, 3), minval=-1.0)


def noisy(variables: Any) -> Any:
    """The noise's weights off 0, where it is seen."""

    def move(path: Any, x: jax.Array) -> jax.Array:
        return x + 0.3 if path[-1].key == "weight" else x

    return {**variables, "params": jax.tree_util.tree_map_with_path(move, variables["params"])}


# Sizes ------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_entry() -> None:
    """Sums of all kernels, biases and noise weights, layer by layer."""
    z, keys, label = jnp.zeros((2, 512)), jax.random.split(KEY, 2), jnp.zeros(2, jnp.int32)
    g = generator(widths=(512, 256, 128, 64), latent_dim=512, size=64)
    shapes = jax.eval_shape(lambda key: g.init(key, z, label, True, keys), KEY)["params"]
    widths = (512, 256, 128, 64)
    trunk = 512 * 8 * 8 * 512 + sum(9 * c * c for c in widths) + 9 * 64 * 3
    trunk += sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    modulated = 2 * sum(2 * (512 * c + c + c * c) for c in widths)  # two norms per height, two networks each
    noise = 2 * sum(widths)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == trunk + modulated + noise == 26_029_376
    d = discriminator(widths=(64, 128, 256, 512), size=64)
    shapes = jax.eval_shape(lambda key: d.init(key, jnp.zeros((2, 64, 64, 3)), label, True), KEY)["params"]
    widths = (64, 128, 256, 512)
    trunk = 9 * 3 * 64 + sum(9 * c * c for c in widths[1:]) + 8 * 8 * 512
    trunk += sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == trunk == 5_883_584


# The twins --------------------------------------------------------------------------------------------------


def sn(module: Any) -> Any:
    return torch.nn.utils.spectral_norm(module)


class Noise(torch.nn.Module):
    """Adds maps that it is given, times a weight for each channel."""

    def __init__(self, c: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(c))

    def forward(self, x: Any, noise: Any) -> Any:
        return x + self.weight[None, :, None, None] * noise


class Modulated(torch.nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(c, affine=False)
        self.gain_hidden, self.bias_hidden = torch.nn.Linear(LATENT, c), torch.nn.Linear(LATENT, c)
        self.gain, self.bias = torch.nn.Linear(c, c, bias=False), torch.nn.Linear(c, c, bias=False)

    def forward(self, x: Any, z: Any) -> Any:
        gain = self.gain(self.gain_hidden(z).relu())
        bias = self.bias(self.bias_hidden(z).relu())
        return gain[:, :, None, None] * self.norm(x) + bias[:, :, None, None]


class Generator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        bottom = SIZE // 2 ** (len(G_WIDTHS) - 1)
        self.bottom = bottom
        self.linear = sn(torch.nn.Linear(LATENT, bottom**2 * G_WIDTHS[0], bias=False))
        for i, c in enumerate(G_WIDTHS):
            if i:
                up = torch.nn.ConvTranspose2d(G_WIDTHS[i - 1], c, 4, 2, 1, bias=False)
                self.add_module(f"up{i}", sn(up))
            self.add_module(f"conv{i}", sn(torch.nn.Conv2d(c, c, 3, 1, 1, bias=False)))
        for i in PLACES:
            self.add_module(f"noise{i}", Noise(G_WIDTHS[i // 2]))
            self.add_module(f"modulated{i}", Modulated(G_WIDTHS[i // 2]))
        self.rgb = sn(torch.nn.ConvTranspose2d(G_WIDTHS[-1], 3, 3, 1, 1, bias=False))

    def styled(self, h: Any, z: Any, noise: list[Any], i: int) -> Any:
        h = torch.nn.functional.leaky_relu(getattr(self, f"noise{i}")(h, noise[i]), 0.2)
        h = h * torch.rsqrt(h.pow(2).mean(1, keepdim=True) + 1e-8)
        return getattr(self, f"modulated{i}")(h, z)

    def forward(self, z: Any, noise: list[Any]) -> Any:
        # Channels come last in our first map: which output is which pixel makes no difference.
        h = self.linear(z).reshape(-1, self.bottom, self.bottom, G_WIDTHS[0]).permute(0, 3, 1, 2)
        h = self.styled(h, z, noise, 0)
        for i in range(len(G_WIDTHS)):
            if i:
                h = self.styled(getattr(self, f"up{i}")(h), z, noise, 2 * i)
            h = self.styled(getattr(self, f"conv{i}")(h), z, noise, 2 * i + 1)
        return self.rgb(h).tanh()


class Discriminator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv0 = sn(torch.nn.Conv2d(3, D_WIDTHS[0], 3, 1, 1, bias=False))
        for i, (a, b) in enumerate(zip(D_WIDTHS, D_WIDTHS[1:], strict=False), 1):
            self.add_module(f"down{i}", sn(torch.nn.Conv2d(a, b, 4, 2, 1, bias=False)))
            self.add_module(f"conv{i}", sn(torch.nn.Conv2d(b, b, 3, 1, 1, bias=False)))
        side = SIZE // 2 ** (len(D_WIDTHS) - 1)
        self.head = sn(torch.nn.Linear(side**2 * D_WIDTHS[-1], 1, bias=False))

    def forward(self, x: Any) -> Any:
        h = x
        for i in range(len(D_WIDTHS)):
            for name in (f"down{i}", f"conv{i}") if i else ("conv0",):
                h = torch.nn.functional.leaky_relu(getattr(self, name)(h), 0.2)
        return self.head(h.permute(0, 2, 3, 1).flatten(1))[:, 0]


def noise_maps() -> list[jax.Array]:
    """The map of each place, as the layer draws it: with weights of 1 and no image to add it to."""
    maps = []
    for place in PLACES:
        side = SIZE // 2 ** (len(G_WIDTHS) - 1) * 2 ** (place // 2)
        one = {"params": {"weight": jnp.ones(1)}}
        layer: Any = layers.Noise(place)
        maps.append(layer.apply(one, jnp.zeros((B, side, side, 1)), KEYS))
    return maps


def test_generator_and_its_gradients_are_those_of_torch() -> None:
    z, target = latents(), pictures()
    net, twin = generator(), Generator()
    variables = noisy(networks.init(net, z, LABEL, True, KEYS))
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            image, new = net.apply({**variables, "params": params}, z, LABEL, True, KEYS, mutable=STATE)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    noise = [twins.first(x) for x in noise_maps()]
    expected = twin(torch.tensor(np.asarray(z)), noise)
    np.testing.assert_allclose(image, twins.last(expected), rtol=1e-4, atol=1e-4)
    (expected * twins.first(target)).sum().backward()
    twins.close(gradients, twins.gradients(twin), rtol=2e-4)
    vectors = twins.spectral_vectors(twin)
    assert len(vectors) == 2 * len(G_WIDTHS) + 1
    for name, u in vectors.items():
        np.testing.assert_allclose(new["spectral"][name]["u"], u, atol=1e-5)
    moved = new["batch_stats"]["modulated3"]["norm"]
    np.testing.assert_allclose(moved["mean"], twin.modulated3.norm.running_mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(moved["var"], twin.modulated3.norm.running_var.numpy(), rtol=1e-4)


def test_discriminator_and_its_gradients_are_those_of_torch() -> None:
    image = pictures()
    net, twin = discriminator(), Discriminator()
    variables = networks.init(net, image, LABEL, True)
    assert twins.starts_as_torch(variables["params"], twin) == 2 * len(D_WIDTHS)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any, image: jax.Array) -> Any:
        def loss(params: Any, image: jax.Array) -> Any:
            verdict, new = net.apply({**variables, "params": params}, image, LABEL, True, mutable=STATE)
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
    assert len(vectors) == 2 * len(D_WIDTHS)
    for name, u in vectors.items():
        np.testing.assert_allclose(new["spectral"][name]["u"], u, atol=1e-5)


# Starts and options -----------------------------------------------------------------------------------------


def test_the_trunk_starts_as_torch_and_the_modulation_by_kaiming() -> None:
    params = networks.init(generator(), latents(), LABEL, True, KEYS)["params"]
    trunk = {name: tree for name, tree in params.items() if not name.startswith("modulated")}
    assert twins.starts_as_torch(trunk, Generator()) == 2 * len(G_WIDTHS) + 1
    for place in PLACES:
        assert not np.asarray(params[f"noise{place}"]["weight"]).any()
        c, tree = G_WIDTHS[place // 2], params[f"modulated{place}"]
        for name, fan in {"gain_hidden": LATENT, "gain": c, "bias_hidden": LATENT, "bias": c}.items():
            bound = np.sqrt(6 / fan)  # torch's kaiming_uniform_
            assert 0.8 * bound < np.abs(tree[name]["kernel"]).max() <= bound, (place, name)
        assert np.abs(tree["gain_hidden"]["bias"]).max() <= 1 / np.sqrt(LATENT)
        assert "bias" not in tree["gain"] and "bias" not in tree["bias"]


def test_the_gain_is_used_as_it_is() -> None:
    """No 1 is added: without the last layers of the networks the image is flat."""
    x = pictures()
    layer: Any = style_dcgan.SelfModulatedBatchNorm()
    variables = layer.init(KEY, x, latents(), True)
    params = {**variables["params"], "gain": {"kernel": jnp.zeros((3, 3))}}
    y = layer.apply({**variables, "params": params}, x, latents(), True)
    np.testing.assert_allclose(y, jnp.broadcast_to(y[:, :1, :1], y.shape), atol=1e-6)


def test_an_image_depends_on_its_own_key() -> None:
    net = generator()
    variables = noisy(networks.init(net, latents(), LABEL, True, KEYS))
    draw = jax.jit(lambda z, label, keys: net.apply(variables, z, label, False, keys))
    base, other = (draw(latents(), LABEL, keys) for keys in (KEYS, KEYS.at[1].set(jax.random.key(99))))
    moved = np.abs(np.asarray(other - base)).max((1, 2, 3))
    assert moved[1] > 1e-2 and not moved[[0, 2, 3]].any()
    alone = draw(latents()[2:3], LABEL[2:3], KEYS[2:3])
    np.testing.assert_allclose(alone[0], base[2], atol=1e-5)


def test_wrong_settings_name_the_limit() -> None:
    with pytest.raises(ValueError, match="noise maps and needs `key`, a random key per image"):
        generator().init(KEY, latents(), LABEL, True)
    with pytest.raises(ValueError, match="size 18 is not a multiple of 4, which 2 doublings"):
        generator(size=18).init(KEY, latents(), LABEL, True, KEYS)
    with pytest.raises(ValueError, match="size 18 is not a multiple of 4, which 2 doublings"):
        discriminator(size=18).init(KEY, pictures(), LABEL, True)
