"""DiffAugment and ADA: what they change, how often, and how p is controlled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.augment import diffaugment
from jaxdog.systems import gan
from tests.systems import test_gan

KEY = jax.random.key(0)
SETTINGS = {
    "blit": dict(shift=0.125),
    "geometric": dict(scale=0.2, turn=1.0, shift=0.125),
    "color": dict(brightness=1.0, saturation=1.0, contrast=0.5),
    "translation": dict(ratio=0.125),
    "cutout": dict(ratio=0.5),
}


def images(b: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (b, side, side, 3)).astype(np.float32)


def run(name: str, image: np.ndarray, p: float = 1.0, **changes: float) -> np.ndarray:
    transform = diffaugment.TRANSFORMS[name]
    return np.asarray(transform(KEY, jnp.asarray(image), p, **{**SETTINGS[name], **changes}))


@pytest.mark.parametrize("name", diffaugment.TRANSFORMS)
def test_each_image_is_changed_with_probability_p(name: str) -> None:
    image = images(400)
    np.testing.assert_array_equal(run(name, image, 0.0), image)
    changed = np.any(run(name, image, 0.5) != image, (1, 2, 3)).mean()
    draws = {"blit": 3, "geometric": 4, "color": 3}.get(name, 1)
    assert 0.25 < changed < 1 - 0.5**draws + 0.1
    assert np.any(run(name, image) != image, (1, 2, 3)).mean() > 0.8


@pytest.mark.parametrize("name", diffaugment.TRANSFORMS)
def test_the_gradient_flows(name: str) -> None:
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(4, 8, 8, 3)))
    slope = jax.grad(lambda x: jnp.sum(weight * diffaugment.TRANSFORMS[name](KEY, x, 1.0, **SETTINGS[name])))
    assert float(jnp.abs(slope(jnp.asarray(images(4)))).mean()) > 0.05


def test_translation_shifts_and_pads_with_zeros() -> None:
    image = images(300)
    shifted, seen = run("translation", image, ratio=0.25), set()
    for before, after in zip(image, shifted, strict=True):
        wide = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        offsets = [
            (y, x) for y in range(5) for x in range(5) if np.array_equal(wide[y : y + 8, x : x + 8], after)
        ]
        assert len(offsets) == 1
        seen.add(offsets[0])
    assert len(seen) == 25


@pytest.mark.parametrize("side", [8, 7])
def test_cutout_zeros_a_square_centered_anywhere(side: int) -> None:
    image, hole = images(800, side), round(side * 0.5)
    zero = (run("cutout", image) == 0.0).all(3)
    np.testing.assert_array_equal(np.where(zero[..., None], image, run("cutout", image)), image)
    rows, columns = zero.any(2), zero.any(1)
    np.testing.assert_array_equal(zero, rows[:, :, None] & columns[:, None, :])
    assert rows.sum(1).max() == hole and rows.sum(1).min() == hole // 2
    places = {tuple(row) for row in rows}
    assert len(places) == side + 1 - hole % 2


def test_color_transforms_keep_their_invariants() -> None:
    image, none = images(200), dict(brightness=0.0, saturation=0.0, contrast=0.0)
    step = run("color", image, **{**none, "brightness": 1.0}) - image
    assert np.ptp(step, (1, 2, 3)).max() < 1e-5 and -0.5 <= step.min() < -0.45 and 0.45 < step.max() <= 0.5
    gray = run("color", image, **{**none, "saturation": 1.0})
    np.testing.assert_allclose(gray.mean(3), image.mean(3), atol=1e-5)
    ratio = (gray - gray.mean(3, keepdims=True)).std((1, 2, 3)) / (image - image.mean(3, keepdims=True)).std(
        (1, 2, 3)
    )
    assert ratio.min() < 0.1 and 1.9 < ratio.max() <= 2.0 + 1e-5
    flat = run("color", image, **{**none, "contrast": 0.5})
    np.testing.assert_allclose(flat.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-5)
    ratio = flat.std((1, 2, 3)) / image.std((1, 2, 3))
    assert 0.5 <= ratio.min() < 0.55 and 1.45 < ratio.max() <= 1.5 + 1e-5


def test_blit_rotates_and_flips() -> None:
    image = images(200)
    seen = set()
    for before, after in zip(image, run("blit", image, shift=0.0), strict=True):
        views = [np.rot90(x, i) for x in (before, before[:, ::-1]) for i in range(4)]
        seen.add(next(i for i, view in enumerate(views) if np.array_equal(view, after)))
    assert len(seen) == 8


def maps(**changes: float) -> np.ndarray:
    """The affine maps [b, 2, 3] that were drawn, measured on two ramps: channel 0 is x, channel 1 is y."""
    side = 33
    x = np.linspace(-1, 1, side)
    ramps = np.stack([np.tile(x[None], (side, 1)), np.tile(x[:, None], (1, side)), np.zeros((side, side))], 2)
    settings = {**dict(scale=0.0, turn=0.0, shift=0.0), **changes}
    out = run("geometric", np.tile(ramps[None], (300, 1, 1, 1)).astype(np.float32), **settings)
    near = slice(side // 2 - 3, side // 2 + 4)
    place = np.stack([ramps[near, near, 0].ravel(), ramps[near, near, 1].ravel(), np.ones(49)], 1)
    return np.stack([np.linalg.lstsq(place, o[near, near, :2].reshape(49, 2), rcond=None)[0].T for o in out])


def test_geometric_draws_similarities_about_the_center() -> None:
    rotation = maps(turn=1.0)
    gram = np.einsum("bij,bkj->bik", rotation[:, :, :2], rotation[:, :, :2])
    np.testing.assert_allclose(gram, np.tile(np.eye(2), (300, 1, 1)), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(rotation[:, :, :2]), 1.0, atol=1e-4)
    np.testing.assert_allclose(rotation[:, :, 2], 0.0, atol=1e-4)
    angle = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    assert angle.min() < -3.0 and angle.max() > 3.0
    scaled = maps(scale=0.2)
    np.testing.assert_allclose(scaled[:, 0, 1], 0.0, atol=1e-4)
    log = -np.log2(scaled[:, [0, 1], [0, 1]])  # zoom + stretch, zoom - stretch
    np.testing.assert_allclose(log.std(0), 0.2 * 2**0.5, rtol=0.15)
    assert abs(np.corrcoef(log.T)[0, 1]) < 0.2
    translation = maps(shift=0.05)  # of the side, which is 2 and a pixel of the ramp
    np.testing.assert_allclose(translation[:, :, 2].std(0), 0.05 * 2 * 33 / 32, rtol=0.15)


def test_controllers_compute_p() -> None:
    assert diffaugment.fixed(0.3).p(jnp.asarray(9), ()) == pytest.approx(0.3)
    ramp = diffaugment.ramp(0.1, 0.5, 4)
    at = [float(ramp.p(jnp.asarray(step), ())) for step in (0, 2, 4, 9)]
    np.testing.assert_allclose(at, [0.1, 0.3, 0.5, 0.5], rtol=1e-5)
    ada, p = diffaugment.ada(0.6, 0.1, 0.2), 0.0
    state = ada.init_state
    rng = np.random.default_rng(3)
    for i in range(40):
        logit = rng.normal(2.0 if i < 30 else -2.0, 1.0, 4)
        state = ada.update(state, jnp.mean(jnp.sign(jnp.asarray(logit))), len(logit))
        p = min(max(p + np.sign(np.sign(logit).mean() - 0.6) * 4 / 100, 0.0), 0.2)
        assert float(ada.p(jnp.asarray(i), state)) == pytest.approx(p, abs=1e-6)
    assert p < 0.2
    with pytest.raises(ValueError, match=r"p is 1.5, and must lie in \[0, 1\]"):
        diffaugment.fixed(1.5)


@pytest.mark.long
def test_a_gan_augments_real_and_generated_images() -> None:
    """An augmentation that sets every pixel to 0: no gradient reaches the generator where p is 1."""

    def black(key: jax.Array, image: jax.Array, p: jax.Array) -> jax.Array:
        return image * (1.0 - p)

    for controller, learns in ((diffaugment.fixed(1.0), False), (diffaugment.ramp(0.0, 1.0, 100), True)):
        spec = test_gan.spec(
            discriminator=test_gan.LinearDiscriminator(),
            diffaugment=(black,),
            augment_p_controller=controller,
        )
        system = gan.gan(spec)
        state = test_gan.init(system)
        after, scalars = jax.jit(system.step)(state, test_gan.batch(8), KEY)
        assert (float(scalars["grad_norm/g"]) > 0) == learns
        assert scalars["augment_p"] == controller.p(jnp.asarray(0), ())


@pytest.mark.long
def test_ada_controls_p_of_a_gan() -> None:
    spec = test_gan.spec(
        diffaugment=(partial(diffaugment.cutout, ratio=0.5),),
        augment_p_controller=diffaugment.ada(-0.99, 0.1, 1.0),
    )
    system = gan.gan(spec)
    state, step = test_gan.init(system), jax.jit(system.step)
    for i in range(3):
        state, scalars = step(state, test_gan.batch(8), KEY)
        grown = np.sign(float(scalars["logit/real"]))  # the mean suffices for so low a target
        assert float(state.d.regularizer_state["augment_p"]) == pytest.approx(0.08 * (i + 1)) or grown < 0
