"""Augmentations of both kinds: what they may change, how often, and what steers them."""

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
    "colour": dict(brightness=1.0, saturation=1.0, contrast=0.5),
    "translation": dict(ratio=0.125),
    "cutout": dict(ratio=0.5),
}


def pictures(b: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (b, side, side, 3)).astype(np.float32)


def run(name: str, image: np.ndarray, p: float = 1.0, **changes: float) -> np.ndarray:
    return np.asarray(diffaugment.STEPS[name](KEY, jnp.asarray(image), p, **{**SETTINGS[name], **changes}))


@pytest.mark.parametrize("name", diffaugment.STEPS)
def test_each_picture_is_changed_with_probability_p(name: str) -> None:
    image = pictures(400)
    np.testing.assert_array_equal(run(name, image, 0.0), image)
    changed = np.any(run(name, image, 0.5) != image, (1, 2, 3)).mean()
    draws = {"blit": 3, "geometric": 4, "colour": 3}.get(name, 1)
    assert 0.25 < changed < 1 - 0.5**draws + 0.1
    assert np.any(run(name, image) != image, (1, 2, 3)).mean() > 0.8


@pytest.mark.parametrize("name", diffaugment.STEPS)
def test_the_gradient_flows(name: str) -> None:
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(4, 8, 8, 3)))
    slope = jax.grad(lambda x: jnp.sum(weight * diffaugment.STEPS[name](KEY, x, 1.0, **SETTINGS[name])))
    assert float(jnp.abs(slope(jnp.asarray(pictures(4)))).mean()) > 0.05


def test_translation_moves_and_lets_zeros_in() -> None:
    image = pictures(300)
    moved, seen = run("translation", image, ratio=0.25), set()
    for before, after in zip(image, moved, strict=True):
        wide = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        found = [
            (y, x) for y in range(5) for x in range(5) if np.array_equal(wide[y : y + 8, x : x + 8], after)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 25


@pytest.mark.parametrize("side", [8, 7])
def test_cutout_takes_a_square_whose_centre_lies_anywhere(side: int) -> None:
    image, hole = pictures(800, side), round(side * 0.5)
    zero = (run("cutout", image) == 0.0).all(3)
    np.testing.assert_array_equal(np.where(zero[..., None], image, run("cutout", image)), image)
    rows, columns = zero.any(2), zero.any(1)
    np.testing.assert_array_equal(zero, rows[:, :, None] & columns[:, None, :])
    assert rows.sum(1).max() == hole and rows.sum(1).min() == hole // 2
    places = {tuple(row) for row in rows}
    assert len(places) == side + 1 - hole % 2


def test_colours_keep_what_they_should() -> None:
    image, none = pictures(200), dict(brightness=0.0, saturation=0.0, contrast=0.0)
    step = run("colour", image, **{**none, "brightness": 1.0}) - image
    assert np.ptp(step, (1, 2, 3)).max() < 1e-5 and -0.5 <= step.min() < -0.45 and 0.45 < step.max() <= 0.5
    grey = run("colour", image, **{**none, "saturation": 1.0})
    np.testing.assert_allclose(grey.mean(3), image.mean(3), atol=1e-5)
    ratio = (grey - grey.mean(3, keepdims=True)).std((1, 2, 3)) / (image - image.mean(3, keepdims=True)).std(
        (1, 2, 3)
    )
    assert ratio.min() < 0.1 and 1.9 < ratio.max() <= 2.0 + 1e-5
    flat = run("colour", image, **{**none, "contrast": 0.5})
    np.testing.assert_allclose(flat.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-5)
    ratio = flat.std((1, 2, 3)) / image.std((1, 2, 3))
    assert 0.5 <= ratio.min() < 0.55 and 1.45 < ratio.max() <= 1.5 + 1e-5


def test_blit_turns_and_mirrors() -> None:
    image = pictures(200)
    seen = set()
    for before, after in zip(image, run("blit", image, shift=0.0), strict=True):
        views = [np.rot90(x, i) for x in (before, before[:, ::-1]) for i in range(4)]
        seen.add(next(i for i, view in enumerate(views) if np.array_equal(view, after)))
    assert len(seen) == 8


def maps(**changes: float) -> np.ndarray:
    """The affine maps [b, 2, 3] that were drawn, read off two ramps: channel 0 holds x, channel 1 y."""
    side = 33
    x = np.linspace(-1, 1, side)
    ramps = np.stack([np.tile(x[None], (side, 1)), np.tile(x[:, None], (1, side)), np.zeros((side, side))], 2)
    settings = {**dict(scale=0.0, turn=0.0, shift=0.0), **changes}
    out = run("geometric", np.tile(ramps[None], (300, 1, 1, 1)).astype(np.float32), **settings)
    near = slice(side // 2 - 3, side // 2 + 4)
    place = np.stack([ramps[near, near, 0].ravel(), ramps[near, near, 1].ravel(), np.ones(49)], 1)
    return np.stack([np.linalg.lstsq(place, o[near, near, :2].reshape(49, 2), rcond=None)[0].T for o in out])


def test_geometric_draws_similar_maps_about_the_centre() -> None:
    turned = maps(turn=1.0)
    gram = np.einsum("bij,bkj->bik", turned[:, :, :2], turned[:, :, :2])
    np.testing.assert_allclose(gram, np.tile(np.eye(2), (300, 1, 1)), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(turned[:, :, :2]), 1.0, atol=1e-4)
    np.testing.assert_allclose(turned[:, :, 2], 0.0, atol=1e-4)
    angle = np.arctan2(turned[:, 1, 0], turned[:, 0, 0])
    assert angle.min() < -3.0 and angle.max() > 3.0
    scaled = maps(scale=0.2)
    np.testing.assert_allclose(scaled[:, 0, 1], 0.0, atol=1e-4)
    log = -np.log2(scaled[:, [0, 1], [0, 1]])  # zoom + stretch, zoom - stretch
    np.testing.assert_allclose(log.std(0), 0.2 * 2**0.5, rtol=0.15)
    assert abs(np.corrcoef(log.T)[0, 1]) < 0.2
    moved = maps(shift=0.05)  # of the side, which is 2 and a pixel of the ramp
    np.testing.assert_allclose(moved[:, :, 2].std(0), 0.05 * 2 * 33 / 32, rtol=0.15)


def test_what_p_is() -> None:
    assert diffaugment.fixed(0.3).p(jnp.asarray(9), ()) == pytest.approx(0.3)
    ramp = diffaugment.ramp(0.1, 0.5, 4)
    at = [float(ramp.p(jnp.asarray(step), ())) for step in (0, 2, 4, 9)]
    np.testing.assert_allclose(at, [0.1, 0.3, 0.5, 0.5], rtol=1e-5)
    ada, p = diffaugment.ada(0.6, 0.1, 0.2), 0.0
    memory = ada.memory
    rng = np.random.default_rng(3)
    for i in range(40):
        logit = rng.normal(2.0 if i < 30 else -2.0, 1.0, 4)
        memory = ada.after(memory, jnp.asarray(logit))
        p = min(max(p + np.sign(np.sign(logit).mean() - 0.6) * 4 / 100, 0.0), 0.2)
        assert float(ada.p(jnp.asarray(i), memory)) == pytest.approx(p, abs=1e-6)
    assert p < 0.2
    with pytest.raises(ValueError, match=r"p is 1.5, and must lie in \[0, 1\]"):
        diffaugment.fixed(1.5)


def test_a_game_shows_both_kinds_changed() -> None:
    """A change that blackens: the discriminator cannot tell any more, and nothing reaches the generator."""

    def black(key: jax.Array, image: jax.Array, p: jax.Array) -> jax.Array:
        return image * (1.0 - p)

    for control, told in ((diffaugment.fixed(1.0), False), (diffaugment.ramp(0.0, 1.0, 100), True)):
        game = test_gan.game(discriminator=test_gan.Reader(), changes=(black,), control=control)
        played = gan.gan(game)
        state = test_gan.start(played)
        after, scalars = jax.jit(played.step)(state, test_gan.batch(8), KEY)
        assert (float(scalars["grad_norm/g"]) > 0) == told
        assert scalars["augment_p"] == control.p(jnp.asarray(0), ())


def test_ada_steers_a_game() -> None:
    game = test_gan.game(
        changes=(partial(diffaugment.cutout, ratio=0.5),), control=diffaugment.ada(-0.99, 0.1, 1.0)
    )
    played = gan.gan(game)
    state, step = test_gan.start(played), jax.jit(played.step)
    for i in range(3):
        state, scalars = step(state, test_gan.batch(8), KEY)
        grown = np.sign(float(scalars["logit/real"]))  # of all, as their mean tells for so low a target
        assert float(state.d.memory["p"]) == pytest.approx(0.08 * (i + 1)) or grown < 0
