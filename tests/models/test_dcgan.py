"""The DCGANs of 2019 against torch networks with the same weights; their sizes, starts and options."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import dcgan, norms, spectral_norm
from tests.models import networks

torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
twins = pytest.importorskip("tests.twins.transfer")
dcgans = pytest.importorskip("tests.twins.dcgan")

pytestmark = pytest.mark.oracle

KEY = jax.random.key(0)
LATENT, CLASSES, B = 6, 3, 4
STATE = [spectral_norm.SPECTRAL, norms.BATCH_STATS]
G_WIDTHS, D_WIDTHS = (8, 6, 5, 4), (4, 5, 6, 7)

# The two entries of 2019: what differs from the defaults, and the widths of the original.
SPECTRAL_G: dict[str, Any] = dict(
    norm="pixel", spectral=True, rgb_bias=False, activation="leaky_relu", slope=0.01
)
SPECTRAL_D: dict[str, Any] = dict(batch_norms=(1, 2), spectral=True, pool=True, minibatch_std=True)
PLAIN_G: dict[str, Any] = dict()
PLAIN_D: dict[str, Any] = dict(stem="none", batch_norms=(2, 3))
# MeisterMorxrc's, of transposed and plain convolutions in turn.
TURNS_G: dict[str, Any] = dict(extra_convs=(1, 2))
TURNS_D: dict[str, Any] = dict(batch_norms=(2, 3), extra_convs=(1, 2), head_bias=True)
# As a trial of hirune924's, which he found worse.
NEAREST_G: dict[str, Any] = dict(upsampling="nearest")
# The auxiliary classifier's, which knows breeds; what it drops is tested by itself.
AC_G: dict[str, Any] = dict(embed_dim=2, rgb_upsample=True)
AC_D: dict[str, Any] = dict(batch_norms=(1, 2, 3), class_head="linear")


def generator(**fields: Any) -> Any:
    return dcgan.Generator(**{**dict(widths=G_WIDTHS, latent_dim=LATENT, classes=CLASSES, size=32), **fields})


def discriminator(**fields: Any) -> Any:
    return dcgan.Discriminator(**{**dict(widths=D_WIDTHS, classes=CLASSES, size=32), **fields})


def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    z = jax.random.normal(jax.random.key(1), (B, LATENT))
    image = jax.random.uniform(jax.random.key(2), (B, 32, 32, 3), minval=-1.0)
    return z, image, jnp.arange(B) % CLASSES


def stirred(variables: Any) -> Any:
    """Gains and biases off 1 and 0."""

    def move(path: Any, x: jax.Array) -> jax.Array:
        if path[-1].key == "kernel":
            return x
        return x + 0.3 * jax.random.normal(jax.random.fold_in(KEY, len(str(path))), x.shape)

    return {**variables, "params": jax.tree_util.tree_map_with_path(move, variables["params"])}


# Sizes ------------------------------------------------------------------------------------------------------


def count(net: Any, *arguments: jax.Array) -> int:
    variables = jax.eval_shape(lambda key: net.init(key, *arguments, True), KEY)
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_parameter_counts_of_the_entries() -> None:
    """Sums of kernels, gains and biases, layer by layer; about 8.0 and 2.76 million in the spectral entry."""
    z, image, label = jnp.zeros((2, 128)), jnp.zeros((2, 64, 64, 3)), jnp.zeros(2, jnp.int32)
    net = generator(widths=(512, 512, 256, 128, 64), latent_dim=128, size=64, **SPECTRAL_G)
    widths = (128, 512, 512, 256, 128, 64)
    convs = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    assert count(net, z, label) == convs + 9 * 64 * 3 == 7_997_120
    net = discriminator(widths=(64, 128, 256, 512), size=64, **SPECTRAL_D)
    convs = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    assert count(net, image, label) == convs + 4 * 513 + 2 * (128 + 256) == 2_758_404
    net = generator(widths=(1024, 512, 256, 128, 64), latent_dim=128, size=64)
    widths = (128, 1024, 512, 256, 128, 64)
    convs = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    assert count(net, z, label) == convs + 2 * sum(widths[1:]) + 9 * 64 * 3 + 3 == 13_243_971
    net = discriminator(widths=(64, 128, 256, 512, 1024), size=64, stem="none", batch_norms=(2, 3, 4))
    convs = 9 * 3 * 64 + 16 * (64 * 128 + 128 * 256 + 256 * 512 + 512 * 1024 + 1024)
    assert count(net, image, label) == convs + 2 * (256 + 512 + 1024) == 11_162_816
    net = generator(widths=(1536, 768, 384, 192, 96), latent_dim=256, size=64, extra_convs=(2, 3))
    widths = (256, 1536, 768, 384, 192, 96)
    convs = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False)) + 9 * (384**2 + 192**2)
    norms = 2 * (sum(widths[1:]) + 384 + 192)
    assert count(net, jnp.zeros((2, 256)), label) == convs + norms + 9 * 96 * 3 + 3 == 33_027_555
    net = discriminator(
        widths=(96, 192, 384, 768), size=64, batch_norms=(2, 3), extra_convs=(1, 2), head_bias=True
    )
    convs = 16 * (3 * 96 + 96 * 192 + 192 * 384 + 384 * 768 + 768) + 9 * (192**2 + 384**2)
    assert count(net, image, label) == convs + 2 * (192 + 384 + 384 + 768) + 1 == 7_872_385


# The twins --------------------------------------------------------------------------------------------------


def entries(**fields: dict[str, Any]) -> list[Any]:
    return [pytest.param(given, name, id=name) for name, given in fields.items()]


G_ENTRIES = entries(spectral=SPECTRAL_G, plain=PLAIN_G, classifier=AC_G, turns=TURNS_G, nearest=NEAREST_G)
D_ENTRIES = entries(spectral=SPECTRAL_D, plain=PLAIN_D, classifier=AC_D, turns=TURNS_D)


@pytest.mark.parametrize(("fields", "entry"), G_ENTRIES)
def test_generator_and_its_gradients_are_those_of_torch(fields: dict[str, Any], entry: str) -> None:
    z, target, label = inputs()
    net, twin = generator(**fields), dcgans.Generator(entry, G_WIDTHS, LATENT, CLASSES)
    variables = networks.init(net, z, label, True)
    layers_of_torch = {name: x for name, x in variables["params"].items() if name != "embed"}
    spectral, more = entry == "spectral", 2 * (entry == "turns")
    assert twins.starts_as_torch(layers_of_torch, twin) == len(G_WIDTHS) + 1 + (not spectral) + more
    variables = stirred(variables)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any) -> Any:
        def loss(params: Any) -> Any:
            image, new = net.apply({**variables, "params": params}, z, label, True, mutable=STATE)
            return jnp.sum(image * target), (image, new)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (image, new) = ours(variables["params"])
    arguments = torch.tensor(np.asarray(z)), torch.tensor(np.asarray(label)).long()
    expected = twin(*arguments)
    np.testing.assert_allclose(image, twins.last(expected), rtol=1e-4, atol=1e-4)
    (expected * twins.first(target)).sum().backward()
    twins.close(gradients, twins.gradients(twin))
    vectors = twins.spectral_vectors(twin)
    assert len(vectors) == (len(G_WIDTHS) + 1) * spectral
    for name, u in vectors.items():
        np.testing.assert_allclose(new["spectral"][name]["u"], u, atol=1e-5)

    image = networks.apply(
        net, {**variables, **new}, z, label, False
    )  # running statistics, vectors as stored
    expected = twin.eval()(*arguments)
    np.testing.assert_allclose(image, twins.last(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fields", "entry"), D_ENTRIES)
def test_discriminator_and_its_gradients_are_those_of_torch(fields: dict[str, Any], entry: str) -> None:
    _, image, label = inputs()
    net, twin = discriminator(**fields), dcgans.Discriminator(entry, D_WIDTHS, 32, CLASSES)
    variables = networks.init(net, image, label, True)
    last = 1 + (entry == "classifier") + 3 * (entry == "turns")  # two more before it, and its bias
    assert twins.starts_as_torch(variables["params"], twin) == len(D_WIDTHS) + last
    variables = stirred(variables)
    twins.load(twin, variables)

    @jax.jit
    def ours(params: Any, image: jax.Array) -> Any:
        def loss(params: Any, image: jax.Array) -> Any:
            verdict, new = net.apply({**variables, "params": params}, image, label, True, mutable=STATE)
            logits = [
                verdict.logit[:, None],
                *([] if verdict.class_logits is None else [verdict.class_logits]),
            ]
            return jnp.sum(jnp.sin(3.0 * jnp.concatenate(logits, 1))), (jnp.concatenate(logits, 1), new)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (gradients, pull), (logits, new) = ours(variables["params"], image)
    picture = twins.first(image).requires_grad_()
    expected = twin(picture)
    assert logits.shape == (B, 1 + CLASSES * (entry == "classifier"))
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    (3.0 * expected).sin().sum().backward()
    twins.close(gradients, twins.gradients(twin))
    twins.close(pull, twins.last(picture.grad))
    vectors = twins.spectral_vectors(twin)
    assert len(vectors) == len(D_WIDTHS) * (entry == "spectral")  # all but the first
    for name, u in vectors.items():
        np.testing.assert_allclose(new["spectral"][name]["u"], u, atol=1e-5)


# Options ----------------------------------------------------------------------------------------------------


def test_labels_and_keys_have_no_effect() -> None:
    z, image, label = inputs()
    g, d = generator(), discriminator()
    variables = networks.init(g, z, label, True)
    keys = jax.random.split(KEY, B)
    chex.assert_trees_all_equal(
        g.apply(variables, z, label, False), g.apply(variables, z, label + 1, False, keys)
    )
    variables = networks.init(d, image, label, True)
    one, other = (d.apply(variables, image, x, False) for x in (label, label + 1))
    chex.assert_trees_all_equal(one, other)
    assert one.class_logits is None and one.logit.shape == (B,)


def test_a_conditional_generator_concatenates_the_class_embedding_and_z() -> None:
    z, _, label = inputs()
    net = generator(**AC_G)
    variables = networks.init(net, z, label, True)
    assert variables["params"]["conv0"]["kernel"].shape[2] == LATENT + 2
    draw = jax.jit(lambda variables, label: net.apply(variables, z, label, False))
    images = [draw(variables, x) for x in (label, (label + 1) % CLASSES)]
    assert float(jnp.abs(images[0] - images[1]).max((1, 2, 3)).min()) > 1e-5
    # Without the first kernel's rows of the vector nothing of it is left.
    kernel = variables["params"]["conv0"]["kernel"]
    variables["params"]["conv0"]["kernel"] = kernel.at[:, :, :2].set(0.0)
    chex.assert_trees_all_equal(*[draw(variables, x) for x in (label, (label + 1) % CLASSES)])


def test_weights_may_start_as_the_paper_has_them() -> None:
    """Kernels N(0, 0.02), the last bias 0."""
    z, image, label = inputs()
    wide: dict[str, Any] = dict(widths=(24, 24, 24), initializer="normal")
    for net, argument in ((generator(**wide), z), (discriminator(**wide), image)):
        params = networks.init(net, argument, label, True)["params"]
        kernels = jnp.concatenate([x["kernel"].ravel() for x in params.values() if "kernel" in x])
        assert abs(float(kernels.std()) - 0.02) < 5e-4 and abs(float(kernels.mean())) < 5e-4
        assert 0.06 < float(jnp.abs(kernels).max()) < 0.12  # no bound
        assert all(not np.any(x["bias"]) for name, x in params.items() if name == "rgb")


def test_dropped_features_are_drawn_in_training_only() -> None:
    """Half of the features after each activation are 0, the others double; which ones, the key says."""
    _, image, label = inputs()
    net, plain = discriminator(dropout=0.5), discriminator()
    variables = networks.init(plain, image, label, True)

    @jax.jit
    def judged(key: jax.Array) -> Any:
        watched = dict(mutable=["intermediates"], capture_intermediates=True)
        verdict, seen = net.apply(variables, image, label, True, rngs={"dropout": key}, **watched)
        return verdict.logit, seen["intermediates"]

    (one, seen), (same, _), (other, _) = (judged(jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert float(jnp.abs(one - other).min()) > 1e-6
    for i in range(len(D_WIDTHS)):
        before, after = (seen[f"{name}{i}"]["__call__"][0] for name in ("conv", "dropout"))
        active = jnp.where(before >= 0, before, 0.2 * before)
        np.testing.assert_allclose(after, jnp.where(after == 0, 0.0, 2.0 * active), rtol=1e-6)
        assert abs(float((after == 0).mean()) - 0.5) < 4 * 0.5 / after.size**0.5
    still, never = (x.apply(variables, image, label, False).logit for x in (net, plain))
    np.testing.assert_array_equal(still, never)


def test_bfloat16_is_near_and_gives_float32() -> None:
    z, image, label = inputs()
    for kind, fields, argument in ((generator, SPECTRAL_G, z), (discriminator, SPECTRAL_D, image)):
        variables = networks.init(kind(**fields), argument, label, True)
        exact, rough = (
            jax.tree.leaves(networks.apply(kind(**fields, dtype=dtype), variables, argument, label, True))[0]
            for dtype in (jnp.float32, jnp.bfloat16)
        )
        assert rough.dtype == jnp.float32
        # Pixel norm enlarges what rounding makes of a nearly black pixel: the mean, not the largest.
        assert 0 < float(jnp.abs(rough - exact).mean()) < 0.05 * float(jnp.abs(exact).mean())


def test_wrong_settings_name_their_choices() -> None:
    z, image, label = inputs()
    with pytest.raises(ValueError, match="norm is 'layer'; choices: batch, pixel"):
        generator(norm="layer").init(KEY, z, label, True)
    with pytest.raises(ValueError, match="size 36 is not a multiple of 8, which 3 doublings"):
        generator(size=36).init(KEY, z, label, True)
    for kind, argument in ((generator, z), (discriminator, image)):
        with pytest.raises(ValueError, match="initializer is 'zeros'; choices: normal, torch"):
            kind(initializer="zeros").init(KEY, argument, label, True)
    with pytest.raises(ValueError, match="stem is 'patch'; choices: strided, none"):
        discriminator(stem="patch").init(KEY, image, label, True)
    with pytest.raises(ValueError, match="batch_norms names convolution 4; there are 0 to 3"):
        discriminator(batch_norms=(1, 4)).init(KEY, image, label, True)
