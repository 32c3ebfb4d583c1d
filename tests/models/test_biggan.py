"""BigGAN against a plain PyTorch one with the same weights, its published sizes, and its options."""

import copy
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import biggan, norms, spectral_norm
from tests.models import networks

KEY = jax.random.key(0)
LATENT, EMBED, CLASSES = 20, 8, 7
STATE = [spectral_norm.SPECTRAL, norms.BATCH_STATS]


def generator(**fields) -> biggan.Generator:
    given = dict(channels=2, latent_dim=LATENT, shared_dim=EMBED, classes=CLASSES)
    return biggan.Generator(**{**given, "attention": (32,), "attention_key_ratio": 4, **fields})


def discriminator(**fields) -> biggan.Discriminator:
    given = dict(channels=4, classes=CLASSES, attention=(32,), attention_key_ratio=4)
    return biggan.Discriminator(**{**given, **fields})


def inputs(b: int = 3, size: int = 64) -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (b, LATENT))
    image = jax.random.uniform(jax.random.key(2), (b, size, size, 3), minval=-1.0)
    return z, image, jnp.arange(b) % CLASSES


# Sizes ------------------------------------------------------------------------------------------------------


def shapes(net, *arguments) -> dict[str, tuple[int, ...]]:
    variables = jax.eval_shape(lambda key: net.init(key, *arguments, True), KEY)
    flat = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in flat}


def total(sizes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in sizes.values())


def test_parameter_counts_of_the_fifth_place():
    """The published counts are of convolutions, dense layers and embeddings only."""
    _, image, label = inputs()
    g = biggan.Generator(32, 100, 128, 120, attention=(32,), attention_key_ratio=4)
    d = biggan.Discriminator(64, 120, attention=(32,), attention_key_ratio=4)
    g_sizes, d_sizes = shapes(g, jnp.zeros((3, 100)), label), shapes(d, image, label)
    outside_g = {"attention32/gain": (), "norm/gain": (64,), "norm/bias": (64,)}
    outside_d = {"attention32/gain": ()}
    assert outside_g.items() <= g_sizes.items() and outside_d.items() <= d_sizes.items()
    assert total(g_sizes) - total(outside_g) == 8_392_707
    assert total(d_sizes) - total(outside_d) == 19_671_745


@pytest.mark.parametrize(
    ("size", "latent_dim", "g_count", "d_count"),
    [
        pytest.param(64, 120, 70_377_348, None, marks=pytest.mark.long),
        (128, 120, 70_433_988, 87_982_370),
        pytest.param(256, 119, 82_108_548, None, marks=pytest.mark.long),
    ],
)
def test_parameter_counts_for_imagenet(size: int, latent_dim: int, g_count: int, d_count: int | None):
    """As the authors' PyTorch code prints for 96 channels and 1,000 classes; D: without a classifier."""
    label, heights = jnp.arange(2), (min(64, size // 2),)
    g = biggan.Generator(96, latent_dim, 128, 1000, size, attention=heights)
    assert total(shapes(g, jnp.zeros((2, latent_dim)), label)) == g_count
    if d_count:
        d = biggan.Discriminator(96, 1000, size, attention=heights)
        assert total(shapes(d, jnp.zeros((2, size, size, 3)), label)) == d_count


@pytest.mark.parametrize(
    "size", [pytest.param(n, marks=() if n in (32, 96) else pytest.mark.long) for n in biggan.SHAPES]
)
def test_every_size_fits_together(size):
    z, label = jnp.zeros((2, 420)), jnp.arange(2)
    g = generator(size=size, attention=(), latent_dim=420)
    d = discriminator(size=size, attention=())
    image = jax.eval_shape(lambda key: g.init_with_output(key, z, label, True)[0], KEY)
    assert image.shape == (2, size, size, 3) and image.dtype == jnp.float32
    score = jax.eval_shape(
        lambda key: d.init_with_output(key, jnp.zeros(image.shape), label, True)[0].logit, KEY
    )
    assert score.shape == (2,) and score.dtype == jnp.float32


# The twin ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin():
    pytest.importorskip("torch", reason="torch is the oracle")
    from tests.twins import biggan as twin_biggan_plain

    return twin_biggan_plain


def copy_into(module, params, state, statistics) -> None:
    """Copies our trees into a torch module whose submodules have our names (blocks are numbered in order)."""
    import torch

    own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    for ours, theirs in {"kernel": "weight", "gain": "gain", "bias": "bias"}.items():
        name = theirs if theirs in own else {"gain": "weight"}.get(ours, theirs)
        if ours in params and not isinstance(params[ours], dict) and name in own:
            value = np.asarray(params[ours])
            order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
            if order and not isinstance(module, torch.nn.Embedding):
                value = value.transpose(order)
            assert own[name].shape == value.shape, (name, own[name].shape, value.shape)
            own[name].data.copy_(torch.tensor(value))
    if hasattr(module, "spectral") and state:
        module.spectral.u.copy_(torch.tensor(np.asarray(state["u"])))
        v = np.asarray(state["v"])
        if params["kernel"].ndim == 4:  # [kh * kw * in] to [in * kh * kw]
            v = v.reshape(params["kernel"].shape[:3]).transpose(2, 0, 1).reshape(-1)
        module.spectral.v.copy_(torch.tensor(v))
    blocks = sorted((name for name in params if name.startswith("block")), key=lambda name: int(name[5:]))
    for name, value in params.items():
        if not isinstance(value, dict):
            continue
        if name in blocks:
            child = module.blocks[blocks.index(name)]
        else:
            child = getattr(module, name.rstrip("0123456789") if name.startswith("attention") else name)
        copy_into(child, value, state.get(name, {}), statistics.get(name, {}))


def copy_generator(module, variables) -> None:
    """As `copy_into`; channels come first in torch's first map: the linear layer's outputs are permuted."""
    copy_into(module, variables["params"], variables.get("spectral", {}), variables.get("batch_stats", {}))
    for x in (module.linear.weight, module.linear.bias, module.linear.spectral.u):
        x.data.copy_(x.data.reshape(16, -1, *x.shape[1:]).transpose(0, 1).reshape(x.shape))


def ours_as(module, gradients, copier) -> dict[str, np.ndarray]:
    """A tree shaped like our parameters, by the names of torch's parameters."""
    carrier = copy.deepcopy(module)
    copier(carrier, gradients)
    return {name: p.detach().numpy() for name, p in carrier.named_parameters()}


def first(x: jax.Array):
    import torch

    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def close_gradients(module, gradients, copier, least: float = 1e-3) -> None:
    """Each parameter's gradient to 1e-3 of its largest entry, or of `least` of the largest of all."""
    expected = {name: p.grad.numpy() for name, p in module.named_parameters()}
    floor = least * max(np.abs(g).max() for g in expected.values())
    for name, got in ours_as(module, gradients, copier).items():
        scale = max(np.abs(expected[name]).max(), floor)
        assert np.abs(got - expected[name]).max() <= 1e-3 * scale, name


@pytest.mark.oracle
def test_generator_and_its_gradients_are_those_of_torch(twin):
    import torch

    z, _, label = inputs()
    net = generator()
    variables = networks.drawn(net, z, label)
    g = twin.Generator(2, LATENT, EMBED, CLASSES, 4)
    copy_generator(g, variables)
    target = jax.random.normal(jax.random.key(4), (3, 64, 64, 3))

    @jax.jit
    def ours(params):
        def loss(params):
            image, new = net.apply({**variables, "params": params}, z, label, True, mutable=STATE)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    expected = g(torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long())
    np.testing.assert_allclose(image.transpose(0, 3, 1, 2), expected.detach().numpy(), atol=1e-4)
    (expected * first(target)).sum().backward()
    close_gradients(g, gradients, lambda net, params: copy_generator(net, {"params": params}))
    mean = g.blocks[3].norm2.norm.running_mean.numpy()
    np.testing.assert_allclose(new["batch_stats"]["block64"]["norm2"]["mean"], mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(new["spectral"]["rgb"]["u"], g.rgb.spectral.u.numpy(), atol=1e-4)

    g.eval()
    image = net.apply({**variables, **new}, z, label, False)
    expected = g(torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long())
    np.testing.assert_allclose(image.transpose(0, 3, 1, 2), expected.detach().numpy(), atol=2e-4)


@pytest.mark.oracle
def test_discriminator_and_its_gradients_are_those_of_torch(twin):
    import torch

    _, image, label = inputs()
    net = discriminator()
    variables = networks.drawn(net, image, label)
    d = twin.Discriminator(4, CLASSES, 4)
    copy_into(d, variables["params"], variables["spectral"], {})

    @jax.jit
    def ours(params, image):
        def loss(params, image):
            given = {**variables, "params": params}
            verdict, _ = net.apply(given, image, label, True, mutable=[spectral_norm.SPECTRAL])
            return jnp.sum(jnp.sin(verdict.logit)), verdict.logit

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), score = ours(variables["params"], image)
    picture = first(image).requires_grad_()
    expected = d(picture, torch.tensor(np.asarray(label)).long())
    np.testing.assert_allclose(score, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    expected.sin().sum().backward()
    close_gradients(d, gradients, lambda net, params: copy_into(net, params, {}, {}))
    difference = np.abs(pull.transpose(0, 3, 1, 2) - picture.grad.numpy()).max()
    assert difference < 1e-3 * float(jnp.abs(pull).max())


# Options ----------------------------------------------------------------------------------------------------


def small_g(**fields):
    """A 32x32 generator applied to fixed inputs: (net, variables, image)."""
    z, _, label = inputs(2)
    net = generator(**{"size": 32, "attention": (), **fields})
    image, variables = jax.jit(lambda key: net.init_with_output(key, z, label, True))(KEY)
    return net, variables, image


@pytest.mark.long
def test_one_hot_conditions_need_no_embedding():
    _, variables, image = small_g(shared_embedding=False, condition_spectral=False, condition_bias=True)
    assert "embed" not in variables["params"]
    norm = variables["params"]["block16"]["norm1"]
    assert norm["gain"]["kernel"].shape == (CLASSES + LATENT // 4, 8) and "bias" in norm["gain"]
    assert "norm1" not in variables["spectral"]["block16"]
    assert bool(jnp.isfinite(image).all()) and float(jnp.abs(image).max()) <= 1


@pytest.mark.long
def test_flat_latent_goes_to_the_first_layer_only():
    _, variables, _ = small_g(hierarchical=False)
    assert variables["params"]["linear"]["kernel"].shape[0] == LATENT
    assert variables["params"]["block8"]["norm1"]["gain"]["kernel"].shape[0] == EMBED


@pytest.mark.long
def test_options_that_change_no_shapes_change_the_image():
    _, variables, image = small_g()
    z, _, label = inputs(2)
    for fields in ({"gain_offset": 0.0}, {"activation": "leaky_relu"}):
        net = generator(size=32, attention=(), **fields)
        other = networks.apply(net, variables, z, label, True)
        assert float(jnp.abs(other - image).max()) > 1e-3, fields
    _, variables, _ = small_g(final_norm=False, conv_bias=False, condition_joint=True)
    assert "norm" not in variables["params"] and set(variables["params"]["rgb"]) == {"kernel"}
    assert set(variables["params"]["block8"]["norm1"]) == {"gain_and_bias"}


@pytest.mark.long
def test_discriminator_options_show_in_state_and_score():
    _, image, label = inputs(2, 32)
    base = discriminator(size=32, attention=())
    variables = networks.drawn(base, image, label)
    moved = [spectral_norm.SPECTRAL]
    verdict, _ = networks.apply(base, variables, image, label, True, mutable=moved)
    assert "embed" in variables["spectral"] and "bias" in variables["params"]["linear"]
    for fields in (
        {"preactivate_first": True, "activation": "leaky_relu"},
        {"last_downsample": True},
        {"embed_spectral": False},
    ):
        net = discriminator(size=32, attention=(), **fields)
        changed = networks.drawn(net, image, label)
        assert ("embed" in changed["spectral"]) == fields.get("embed_spectral", True)
        other, _ = networks.apply(net, changed, image, label, True, mutable=moved)
        assert float(jnp.abs(other.logit - verdict.logit).max()) > 1e-3, fields
    bare = discriminator(size=32, attention=(), head_bias=False, conv_bias=False)
    params = networks.drawn(bare, image, label)["params"]
    assert set(params["linear"]) == {"kernel"} and set(params["block1"]["conv1"]) == {"kernel"}


@pytest.mark.long
def test_projection_is_linear_in_the_embedding():
    _, image, label = inputs(2, 32)
    net = discriminator(size=32, attention=(), embed_spectral=False)
    variables = networks.init(net, image, label, True)
    judge: Any = jax.jit(lambda variables: net.apply(variables, image, label, True))
    with_class = judge(variables).logit
    variables["params"]["embed"]["kernel"] *= 3.0
    tripled = judge(variables).logit
    variables["params"]["embed"]["kernel"] *= 0.0
    without = judge(variables).logit
    chex.assert_trees_all_close(tripled - without, 3 * (with_class - without), rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_images_depend_on_both_latent_and_label():
    net, variables, _ = small_g()
    z, _, label = inputs(2)
    draw = jax.jit(lambda z, label: net.apply(variables, z, label, False))
    image = draw(z, label)
    assert float(jnp.abs(draw(-z, label) - image).max()) > 1e-3
    assert float(jnp.abs(draw(z, label + 1) - image).max()) > 1e-3


@pytest.mark.long
def test_bfloat16_is_finite_near_and_leaves_parameters_alone():
    z, image, label = inputs(2, 32)
    for kind, argument in ((generator, z), (discriminator, image)):
        sharp, blunt = (kind(size=32, attention=(16,), dtype=t) for t in (jnp.float32, jnp.bfloat16))
        variables = networks.init(blunt, argument, label, True)
        variables["params"] = networks.stirred(variables["params"], 0.1)
        chex.assert_trees_all_equal_dtypes(
            variables, jax.tree.map(lambda x: x.astype(jnp.float32), variables)
        )
        exact, rough = (
            jax.tree.leaves(networks.apply(net, variables, argument, label, True))[0]
            for net in (sharp, blunt)
        )
        assert rough.dtype == jnp.float32
        scale = float(jnp.abs(exact).max())
        assert 0 < float(jnp.abs(rough - exact).max()) < 0.1 * scale


def test_wrong_settings_name_their_choices():
    z, image, label = inputs(2)
    with pytest.raises(ValueError, match=r"BigGAN at 48x48 is unknown; sizes: 32, 64, 96, 128, 256"):
        generator(size=48).init(KEY, z, label, True)
    with pytest.raises(ValueError, match=r"latent_dim 21 cannot be split into 5 equal .*a multiple of 5"):
        generator(latent_dim=21).init(KEY, jnp.zeros((2, 21)), label, True)
    with pytest.raises(ValueError, match=r"no feature map has attention height 12; heights: 8, 16, 32, 64"):
        generator(attention=(12,)).init(KEY, z, label, True)
    with pytest.raises(ValueError, match=r"no feature map has attention height 64; heights: 32, 16, 8, 4"):
        discriminator(attention=(64,)).init(KEY, image, label, True)
    with pytest.raises(ValueError, match="activation 'gelu' is unknown"):
        generator(activation="gelu").init(KEY, z, label, True)
