"""Regularizers against closed forms on discriminators with known gradients, and in a GAN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.losses import regularizers
from jaxdog.systems import gan
from tests.systems import test_gan

KEY = jax.random.key(0)


def square(image: jax.Array, label: jax.Array) -> jax.Array:
    """Half the squared norm, times the label: the gradient is label * image."""
    return label * 0.5 * jnp.sum(jnp.square(image), (1, 2, 3))


def d_inputs(
    real: np.ndarray, fake: np.ndarray, logit=square, label: int = 1
) -> regularizers.DRegularizerInputs:  # noqa: ANN001
    labels = jnp.full(real.shape[0], label)
    pair = [(jnp.asarray(x, jnp.float32), labels) for x in (real, fake)]
    raw = pair[0][0], pair[1][0]
    unchanged = lambda kind, image: image  # noqa: E731
    return regularizers.DRegularizerInputs(logit, *pair, logit(*pair[0]), logit(*pair[1]), {}, raw, unchanged)


def value(
    regularizer: regularizers.Regularizer,
    inputs: regularizers.DRegularizerInputs | regularizers.GRegularizerInputs,
) -> float:
    return float(regularizer.value(KEY, inputs, regularizer.init_state)[0])


def images(seed: int, b: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (b, 4, 3, 2))


def test_r1_and_r2_are_half_the_squared_gradient_norm() -> None:
    real, fake = images(0), images(1)
    inputs = d_inputs(real, fake, label=3)
    for regularizer, at in ((regularizers.r1(1.0, 1), real), (regularizers.r2(1.0, 1), fake)):
        expected = 0.5 * np.mean(np.sum((3 * at) ** 2, (1, 2, 3)))
        np.testing.assert_allclose(value(regularizer, inputs), expected, rtol=1e-5)


def test_r1_and_r2_are_of_images_before_diffaugment() -> None:
    """With T(x) = c x, the gradient of |T(x)|^2 / 2 is c^2 x."""
    real, fake, factors = images(0), images(1), (2.0, 3.0)
    inputs = d_inputs(real, fake)._replace(augment=lambda kind, image: factors[kind] * image)
    for regularizer, at, c in (
        (regularizers.r1(1.0, 1), real, 2.0),
        (regularizers.r2(1.0, 1), fake, 3.0),
    ):
        expected = 0.5 * np.mean(np.sum((c**2 * at) ** 2, (1, 2, 3)))
        np.testing.assert_allclose(value(regularizer, inputs), expected, rtol=1e-5)


@pytest.mark.oracle
def test_gradients_of_r1_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is an oracle (make oracles)")
    weight = np.random.default_rng(2).normal(size=(24, 5))
    real = images(3)

    def ours(weight: jax.Array) -> jax.Array:
        def logit(image: jax.Array, label: jax.Array) -> jax.Array:
            return jnp.sum(jnp.tanh(image.reshape(image.shape[0], -1) @ weight), 1)

        inputs = d_inputs(real, real, logit)
        return regularizers.r1(1.0, 1).value(KEY, inputs, ())[0]

    w = torch.tensor(weight, requires_grad=True)
    x = torch.tensor(real.reshape(6, -1), requires_grad=True)
    (gradient,) = torch.autograd.grad(torch.tanh(x @ w).sum(), x, create_graph=True)
    (0.5 * (gradient**2).sum(1).mean()).backward()
    np.testing.assert_allclose(jax.grad(ours)(jnp.asarray(weight)), w.grad.numpy(), rtol=1e-3, atol=1e-5)


def test_gradient_penalty_is_uniform_between_real_and_fake() -> None:
    """Constant images: the gradient's norm at a share s is sqrt(n) (r + s (f - r)), n numbers."""
    r, f, n, target = 0.2, 1.0, 12, 1.5
    inputs = d_inputs(np.full((8192, 2, 2, 3), r), np.full((8192, 2, 2, 3), f))
    norm = np.sqrt(n) * np.linspace(r, f, 100_001)
    expected = np.mean((norm - target) ** 2)
    np.testing.assert_allclose(
        value(regularizers.gradient_penalty(1.0, 1, target), inputs), expected, rtol=0.05
    )
    flat = d_inputs(np.full((8, 2, 2, 3), r), np.full((8, 2, 2, 3), r))  # nothing between them
    expected = (np.sqrt(n) * r - target) ** 2
    np.testing.assert_allclose(
        value(regularizers.gradient_penalty(1.0, 1, target), flat), expected, rtol=1e-4
    )


def test_dragan_perturbs_real_images() -> None:
    """With target 0, E ||x + v noise||^2 has moments of two uniforms; std is that of the whole batch."""
    real = np.random.default_rng(4).uniform(-1, 1, (4096, 2, 2, 3))
    noise_scale, std = 2.0, real.std()
    moments = real**2 + 2 * real * 0.5 * noise_scale * std / 2 + (noise_scale * std) ** 2 / 9
    inputs = d_inputs(real, images(0, 4096)[:, :2, :2])
    whole = value(regularizers.dragan(1.0, 1, noise_scale, 0.0, False), inputs)
    np.testing.assert_allclose(whole, moments.sum((1, 2, 3)).mean(), rtol=0.03)
    pixels = value(regularizers.dragan(1.0, 1, noise_scale, 0.0, True), inputs)
    np.testing.assert_allclose(pixels, moments.sum(3).mean(), rtol=0.03)


def test_dragan_norms_are_of_images_or_of_pixels() -> None:
    slope = np.random.default_rng(5).normal(size=(2, 2, 3))
    real = np.random.default_rng(4).uniform(-1, 1, (5, 2, 2, 3))
    inputs = d_inputs(real, real, lambda image, label: jnp.sum(image * slope[None], (1, 2, 3)))
    whole = value(regularizers.dragan(1.0, 1, 0.5, 1.0, False), inputs)
    np.testing.assert_allclose(whole, (np.linalg.norm(slope) - 1) ** 2, rtol=1e-4)
    pixels = value(regularizers.dragan(1.0, 1, 0.5, 1.0, True), inputs)
    np.testing.assert_allclose(pixels, np.mean((np.linalg.norm(slope, axis=2) - 1) ** 2), rtol=1e-4)


def test_consistency_flips_and_shifts() -> None:
    real, shift = images(6, 200), 1
    moved = np.asarray(regularizers._flip_and_shift(KEY, jnp.asarray(real), shift))
    inputs = set()
    for i, image in enumerate(real):
        for mirrored in (0, 1):
            wide = np.pad(image[:, :: 1 - 2 * mirrored], ((1, 1), (1, 1), (0, 0)), mode="reflect")
            for y in range(3):
                for x in range(3):
                    if np.allclose(wide[y : y + 4, x : x + 3], moved[i], atol=1e-6):
                        inputs.add((mirrored, y, x))
                        break
    assert len(inputs) == 18  # and so each was found, and each kind of move occurs


def test_consistency_is_the_squared_difference_of_logits() -> None:
    """Of a discriminator that sees left against right: a mirror changes its sign, no mirror nothing."""
    side = np.array([-1.0, 0.0, 1.0])[None, None, :, None]
    real, fake = images(6, 4096), images(7, 4096)
    inputs = d_inputs(real, fake, lambda image, label: jnp.sum(image * side, (1, 2, 3)))
    of_real, of_fake = (
        np.mean(0.5 * (2 * np.asarray(x)) ** 2) for x in (inputs.real_logit, inputs.fake_logit)
    )
    np.testing.assert_allclose(value(regularizers.consistency(1.0, 1, 0, 0.0), inputs), of_real, rtol=0.1)
    both = value(regularizers.consistency(1.0, 1, 0, 2.0), inputs)
    np.testing.assert_allclose(both, of_real + 2 * of_fake, rtol=0.1)


def test_lecam_equals_a_loop() -> None:
    regularizer, decay = regularizers.lecam(1.0, 1, 0.9), 0.9
    state, real_mean, fake_mean = regularizer.init_state, 0.0, 0.0
    for step in range(4):
        real, fake = (np.random.default_rng([step, i]).normal(i, 1, 5) for i in (1, 2))
        inputs = d_inputs(images(0, 5), images(1, 5))._replace(
            real_logit=jnp.asarray(real), fake_logit=jnp.asarray(fake)
        )
        got, state = regularizer.value(KEY, inputs, state)
        real_mean = decay * real_mean + (1 - decay) * real.mean()
        fake_mean = decay * fake_mean + (1 - decay) * fake.mean()
        expected = np.mean((real - fake_mean) ** 2) + np.mean((fake - real_mean) ** 2)
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert state["real"] == pytest.approx(real_mean, rel=1e-4)


def test_orthogonal_ignores_the_diagonal() -> None:
    rng = np.random.default_rng(8)
    kernel, bias = rng.normal(size=(3, 3, 2, 4)), rng.normal(size=4)
    params = {"a": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    gram = kernel.reshape(18, 4).T @ kernel.reshape(18, 4)
    expected = np.sum((gram - np.diag(np.diag(gram))) ** 2)
    inputs = regularizers.GRegularizerInputs(lambda z: z, jnp.zeros((1, 1)), params)
    np.testing.assert_allclose(value(regularizers.orthogonal(1.0, 1), inputs), expected, rtol=1e-4)
    columns = {"a": {"kernel": 3.0 * jnp.linalg.qr(jnp.asarray(rng.normal(size=(6, 4))))[0]}}
    assert value(regularizers.orthogonal(1.0, 1), inputs._replace(params=columns)) < 1e-6


def test_path_length_of_a_scaled_identity() -> None:
    """|| c y || with 4096 numbers of N(0, 1) / 64 is c, give or take 1 %."""
    inputs = regularizers.GRegularizerInputs(
        lambda latent: 3.0 * latent.reshape(-1, 64, 64, 1), jax.random.normal(KEY, (4, 4096)), {}
    )
    regularizer = regularizers.path_length(1.0, 1, 0.75, 0.5)
    got, mean = regularizer.value(KEY, inputs, jnp.asarray(2.0))
    assert mean == pytest.approx(0.75 * 2.0 + 0.25 * 3.0, rel=0.02)
    assert got == pytest.approx((3.0 - float(mean)) ** 2, rel=0.15)


def test_lazy_regularization_is_rare_and_weighs_more() -> None:
    inputs = d_inputs(images(0), images(1))
    table = {"r1": regularizers.r1(10.0, 3), "lecam": regularizers.lecam(2.0, 2, 0.5)}
    state = regularizers.init_state(table)
    plain = value(table["r1"], inputs)
    for step in range(6):
        total, after, scalars = regularizers.apply_regularizers(table, KEY, jnp.asarray(step), inputs, state)
        due = {"r1": step % 3 == 0, "lecam": step % 2 == 0}
        assert scalars["regularizer/r1"] == pytest.approx(3 * plain * due["r1"], rel=1e-5)
        assert (float(after["lecam"]["real"]) != float(state["lecam"]["real"])) == due["lecam"]
        np.testing.assert_allclose(
            total, 10 * scalars["regularizer/r1"] + 2 * scalars["regularizer/lecam"], rtol=1e-5
        )
        state = after
    with pytest.raises(ValueError, match="r1.interval is 0"):
        regularizers.apply_regularizers(
            {"r1": regularizers.r1(1.0, 0)}, KEY, jnp.asarray(0), inputs, {"r1": ()}
        )


@pytest.mark.long
def test_a_gan_adds_its_regularizers_to_its_losses() -> None:
    """All at once: the losses are their parts' sum, states change, and accumulation is one large batch."""
    of_d = {
        "gradient_penalty": regularizers.gradient_penalty(1.0, 1, 1.0),
        "dragan": regularizers.dragan(1.0, 1, 0.5, 1.0, False),
        "r1": regularizers.r1(0.5, 1),
        "r2": regularizers.r2(0.5, 2),
        "consistency": regularizers.consistency(1.0, 1, 1, 1.0),
        "lecam": regularizers.lecam(0.1, 1, 0.9),
        "orthogonal": regularizers.orthogonal(0.01, 1),
    }
    assert set(of_d) == set(regularizers.D_REGULARIZERS)
    of_g = {
        "orthogonal": regularizers.orthogonal(0.01, 1),
        "path_length": regularizers.path_length(2.0, 1, 0.9, 0.5),
    }
    assert set(of_g) == set(regularizers.G_REGULARIZERS)
    rules = test_gan.spec(d_regularizers=of_d, g_regularizers=of_g)
    step = jax.jit(gan.gan(rules).step)
    state = test_gan.init(gan.gan(rules))
    after, scalars = step(state, test_gan.batch(8), KEY)
    terms = sum(of_d[name].weight * scalars[f"regularizer/{name}/d"] for name in of_d)
    assert all(scalars[f"regularizer/{name}/d"] > 0 for name in of_d)
    np.testing.assert_allclose(
        scalars["loss/d"], scalars["loss/d_real"] + scalars["loss/d_fake"] + terms, rtol=1e-5
    )
    assert (
        after.d.regularizer_state["regularizers"]["lecam"]["fake"] != 0
        and after.g.regularizer_state["regularizers"]["path_length"] > 0
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    free = jax.jit(gan.gan(test_gan.spec()).step)(
        test_gan.init(gan.gan(test_gan.spec())), test_gan.batch(8), KEY
    )
    moved = jax.tree.map(lambda a, b: not np.allclose(a, b), after.d.params, free[0].d.params)
    assert all(jax.tree.leaves(moved))
    twice = gan.gan(rules._replace(grad_accumulation_steps=2))
    after, _ = jax.jit(twice.step)(test_gan.init(twice), test_gan.batch(16), KEY)
    assert np.isfinite(jax.flatten_util.ravel_pytree(after.d.params)[0]).all()


def test_a_weight_that_changes_is_that_of_the_share_done() -> None:
    inputs = d_inputs(images(0), images(1))
    table = {"r1": regularizers.r1((2.0, 0.2), 1)}
    one = value(table["r1"], inputs)
    for done, weight in ((0.0, 2.0), (0.5, 1.1), (1.0, 0.2)):
        total, _, scalars = regularizers.apply_regularizers(
            table, KEY, jnp.asarray(3), inputs, {"r1": ()}, done
        )
        np.testing.assert_allclose(total, weight * one, rtol=1e-5)
        np.testing.assert_allclose(scalars["regularizer/r1"], one, rtol=1e-5)
