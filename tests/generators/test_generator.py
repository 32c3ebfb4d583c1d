"""Class Generator: seeds, classes, truncation, outputs, latents, pictures, scores."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxdog.generators import class_names, generator, sampler
from jaxdog.render import decoding
from jaxdog.utils import errors
from tests.generators import fresh

BREEDS = ("n02088364-beagle", "n02113023-Pembroke", "n02086240-Shih-Tzu")


@pytest.fixture(scope="module")
def g() -> generator.Generator:
    return fresh.generator("dragan", BREEDS, {"sample.truncation": 0.0, "sample.method": "resample"})


@pytest.fixture(scope="module")
def images(g: generator.Generator) -> np.ndarray:
    """Images 0 to 19 of seed 5."""
    return g.sample(20, classes="beagle", seed=5)


def test_an_image_depends_on_its_seed_and_index_only(g: generator.Generator, images: np.ndarray) -> None:
    assert images.shape == (20, 32, 32, 3) and images.dtype == np.uint8
    for n in (1, 4, 17):
        np.testing.assert_array_equal(g.sample(n, classes="beagle", seed=5), images[:n])
    assert len({image.tobytes() for image in images}) == 20
    assert (g.sample(4, classes="beagle", seed=6) != images[:4]).any()


def test_seeds_have_64_bits(g: generator.Generator) -> None:
    seeds = (0, 1, 2**31, 2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 1, 2**64 - 2**32)
    keys = {np.asarray(jax.random.key_data(sampler.seed_key(seed))).tobytes() for seed in seeds}
    assert len(keys) == len(seeds)
    assert (g.latents(2, 2**40) != g.latents(2, 2**41)).all()
    np.testing.assert_array_equal(g.latents(2, np.uint64(7)), g.latents(2, 7))
    for seed in (-1, 2**64, 1.5, "3", True, None):
        with pytest.raises(errors.UserError, match=r"and must be an integer from 0 to 18446744073709551615"):
            g.latents(1, seed)  # pyright: ignore[reportArgumentType]


def test_outputs(g: generator.Generator, images: np.ndarray) -> None:
    floats = g.sample(3, classes="beagle", seed=5, output="jax")
    assert floats.dtype == jnp.float32 and floats.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(np.round(127.5 * (np.asarray(floats) + 1.0)), images[:3])
    pictures = g.sample(3, classes="beagle", seed=5, output="pil")
    assert all(isinstance(x, PIL.Image.Image) for x in pictures)
    np.testing.assert_array_equal(np.stack([np.asarray(x) for x in pictures]), images[:3])
    with pytest.raises(errors.UserError, match="output is 'png'; choices: 'numpy', 'pil', 'jax'"):
        g.sample(1, output="png")  # pyright: ignore[reportArgumentType]
    for n in (0, -1, 1.0, True):
        with pytest.raises(errors.UserError, match="and must be an integer of at least 1"):
            g.sample(n)  # pyright: ignore[reportArgumentType]


def test_classes_are_names_or_indices(g: generator.Generator, images: np.ndarray) -> None:
    assert g.classes == ("beagle", "Pembroke", "Shih-Tzu") and g.class_names == BREEDS
    for given in ("beagle", "Beagle", "n02088364-beagle", 0, np.int64(0), ["beagle"], np.zeros(2, int)):
        assert g._labels(3, given, 0).tolist() == [0, 0, 0], given
    assert g._labels(5, ["shih tzu", 1], 0).tolist() == [2, 1, 2, 1, 2]
    assert g._labels(5, None, 0).tolist() == [0, 1, 2, 0, 1]  # balanced
    assert g._labels(1, [1, 2], 0).tolist() == [1]
    mixed = g.sample(2, classes=["beagle", "shih_tzu"], seed=5)
    np.testing.assert_array_equal(mixed[0], images[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("beegle", "no class is called 'beegle'; did you mean beagle[?] Classes: beagle, Pembroke, Shih-Tzu"),
        ("tzu", "no class is called 'tzu'; did you mean Shih-Tzu[?]"),
        ("zzz", "no class is called 'zzz'; Classes: beagle"),
        (3, "the class 3 does not exist; indices: 0 to 2"),
        (-1, "the class -1 does not exist"),
        (True, "the class True does not exist"),
        (0.5, "the class 0.5 is neither a name nor an index"),
        ([], "classes is empty"),
    ],
)
def test_wrong_classes_are_refused(g: generator.Generator, given: Any, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        g.sample(2, classes=given)


def test_names_stay_whole_where_they_would_not_be_distinct() -> None:
    assert class_names.short(["n00000001-dog", "n00000002-dog"]) == ("n00000001-dog", "n00000002-dog")
    many = [f"breed {i:03d}" for i in range(120)]
    with pytest.raises(errors.UserError, match=r"breed 023 and 96 more$"):
        class_names.index("cat", many, many)


def test_truncation_overrides_the_config(g: generator.Generator) -> None:
    z = g.latents(50, seed=1)
    assert np.abs(z).max() > 2.0
    small = g.latents(50, seed=1, truncation=0.5)
    assert np.abs(small).max() <= 0.5
    inside = np.abs(z) <= 0.5
    np.testing.assert_array_equal(np.asarray(small)[inside], np.asarray(z)[inside])
    np.testing.assert_array_equal(g.latents(50, seed=1, truncation=0.0), z)
    images = g.sample(3, seed=1, truncation=0.5)
    np.testing.assert_array_equal(images, g.sample(3, seed=1, truncation=0.5))
    assert (images != g.sample(3, seed=1)).any()
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(errors.UserError, match="and must be at least 0"):
            g.sample(1, truncation=value)


def test_latents_decode_to_the_samples_and_have_gradients(g: generator.Generator, images: np.ndarray) -> None:
    z = g.latents(16, seed=5)
    assert z.shape == (16, g.latent_dim) and z.dtype == jnp.float32
    decoded = g.decode(z, "beagle", seed=5)
    np.testing.assert_array_equal(np.round(127.5 * (np.asarray(decoded) + 1.0)), images[:16])

    @jax.jit
    def descend(z: jax.Array) -> jax.Array:
        return jax.grad(lambda z: jnp.mean(g.decode(z, "beagle", seed=5)))(z)

    gradient = descend(z[:2])
    assert gradient.shape == (2, g.latent_dim) and np.isfinite(gradient).all() and np.any(gradient != 0)
    darker = g.decode(z[:2] - 2.0 * gradient / jnp.linalg.norm(gradient), "beagle", seed=5)
    assert darker.mean() < decoded[:2].mean()
    traced = jax.jit(lambda z, label: g.decode(z, label, seed=5))(z[:2], jnp.array([0, 0]))
    np.testing.assert_allclose(traced, decoded[:2], atol=1e-4)
    own = jax.jit(lambda z: g.decode(z, seed=5))(z[:3])  # the classes of `sample`
    np.testing.assert_allclose(own, g.decode(z[:3], seed=5), atol=1e-4)
    with pytest.raises(errors.UserError, match=rf"z has shape \[2, 3\], and must be \[b, {g.latent_dim}\]"):
        g.decode(jnp.zeros((2, 3)))


def test_systems_without_latents_sample_only() -> None:
    g = fresh.generator("imitation", tuple("abcd"))
    assert g.latent_dim is None and g.sample(2, output="jax").shape == (2, 32, 32, 3)
    for call in (lambda: g.latents(1), lambda: g.decode(jnp.zeros((1, 4))), lambda: g.interpolate([0, 1])):
        with pytest.raises(errors.UserError, match="needs a latent vector, which this system does not have"):
            call()
    with pytest.raises(errors.UserError, match="truncation is 0.5, but this model has none"):
        g.sample(1, truncation=0.5)


def test_a_truncation_may_be_of_any_numeric_type(g: generator.Generator) -> None:
    expected = g.latents(2, truncation=0.5)
    for truncation in (np.array(0.5), np.float32(0.5), jnp.float32(0.5)):
        np.testing.assert_array_equal(g.latents(2, truncation=truncation), expected)  # pyright: ignore
    for truncation in ("0.5", [0.5], np.array([0.5]), True, object()):
        with pytest.raises(errors.UserError, match="truncation is .*, and must be a number of at least 0"):
            g.latents(1, truncation=truncation)  # pyright: ignore
    with pytest.raises(errors.UserError, match="truncation is 1e-09, and must be 0 .* or at least 0.01"):
        g.sample(1, truncation=1e-9)


def test_counts_are_integers(g: generator.Generator) -> None:
    with pytest.raises(errors.UserError, match="frames is 60.0, and must be an integer of at least 1"):
        g.interpolate([0, 1], frames=60.0)  # pyright: ignore
    with pytest.raises(errors.UserError, match="steps is 5.0, and must be an integer of at least 1"):
        g.project(np.zeros((32, 32, 3), np.uint8), steps=5.0, classes=0)  # pyright: ignore


def test_interpolations_go_through_the_samples(g: generator.Generator) -> None:
    frames = g.interpolate([5, 2**40], classes="beagle", frames=4)
    assert frames.shape == (4, 32, 32, 3) and frames.dtype == np.uint8
    for i, seed in ((0, 5), (2, 2**40)):  # noise of this generator: none
        np.testing.assert_array_equal(frames[i], g.sample(1, classes="beagle", seed=seed)[0])
    keyframes = g.interpolate([1, 2, 3], frames=3, loop=False)
    for frame, seed in zip(keyframes, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(frame, g.sample(1, seed=seed)[0])
    assert isinstance(g.interpolate([1, 2], frames=2, loop=False, output="pil")[0], PIL.Image.Image)
    for seeds, more, message in (
        ([], {}, r"seeds is \[\]; interpolation needs at least two"),
        ([1], {}, r"seeds is \[1\]; interpolation"),
        ([1, 2, 3], {"frames": 2}, "frames is 2, and must be at least the 3 seeds"),
        ([1, 2], {"classes": ["beagle"] * 3}, "there are 3 classes and 2 seeds"),
        ([1, 2], {"output": "jax"}, "output is 'jax'; choices: 'numpy', 'pil'"),
    ):
        with pytest.raises(errors.UserError, match=message):
            g.interpolate(seeds, **more)


def test_images_are_projected(g: generator.Generator, images: np.ndarray, tmp_path: pathlib.Path) -> None:
    result = g.project(images[0], steps=3, classes="beagle")
    assert result.z is not None and result.z.shape == (g.latent_dim,) and result.label == 0
    np.testing.assert_array_equal(result.image.shape, (32, 32, 3))
    np.testing.assert_array_equal(result.target, images[0])
    wide = np.zeros((32, 48, 3), np.uint8)
    wide[:, 8:40] = images[0]
    PIL.Image.fromarray(wide).save(tmp_path / "wide.png")
    for given in (tmp_path / "wide.png", str(tmp_path / "wide.png"), PIL.Image.fromarray(wide), wide):
        np.testing.assert_array_equal(generator._square(given, 32), images[0])
    with pytest.raises(errors.UserError, match="nothing.png cannot be read"):
        g.project(tmp_path / "nothing.png")
    with pytest.raises(
        errors.UserError, match=r"the image is \[4, 4\] float64, and must be \[h, w, 3\] uint8"
    ):
        g.project(np.zeros((4, 4)))


def test_projection_comes_before_postprocessing(g: generator.Generator) -> None:
    assert g._sampler.differentiable() is g.system
    resized = fresh.generator("biggan96_style", BREEDS)
    assert decoding.image_shape(resized.system, resized.state) == (24, 24, 3)
    assert decoding.image_shape(resized._sampler.differentiable(), resized.state) == (32, 32, 3)


def test_sheets(g: generator.Generator, images: np.ndarray) -> None:
    grid = g.grid(5, columns=3, classes="beagle", seed=5)
    assert grid.shape == (64, 96, 3)
    np.testing.assert_array_equal(grid[32:, 32:64], images[4])
    assert g.class_sheet(columns=2, classes=["beagle", "shih-tzu"]).ndim == 3
    assert g.truncation_sheet(columns=2).ndim == 3


def test_scores_take_options(g: generator.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(generator.score_files, "score", lambda *args: seen.append(args) or {"fid2048": 1.0})
    assert g.score(np.zeros((4, 32, 32, 3), np.uint8), n=3, seed=5, weights="random") == {"fid2048": 1.0}
    _, fake, options = seen[0]
    assert fake.shape == (3, 32, 32, 3) and options.weights == "random"
    g.score(np.zeros((4, 32, 32, 3), np.uint8), n=1, metrics="prdc, kid")
    assert seen[1][2].metrics == ("prdc", "kid")
    with pytest.raises(errors.UserError, match="weight is not an option of score; did you mean weights"):
        g.score(np.zeros((4, 32, 32, 3), np.uint8), n=3, weight="random")
    monkeypatch.setattr(g, "sample", lambda *_, **__: pytest.fail("images are sampled"))
    for options in ({"save_real": "x.txt"}, {"pairs": "x.png"}, {"save_as": "pytorch-fid"}, {"metrics": ()}):
        with pytest.raises(errors.UserError, match=f"{next(iter(options))} is "):
            g.score("photos", **options)


@pytest.mark.long
def test_style_based_generators_are_truncated_in_w() -> None:
    g = fresh.generator("stylegan2", BREEDS)
    mean = g.sample(3, classes="beagle", seed=1, truncation=0.0)
    free = g.sample(3, classes="beagle", seed=1, truncation=1.0)
    own = g.sample(3, classes="beagle", seed=1)
    np.testing.assert_array_equal(own, g.sample(3, classes="beagle", seed=1, truncation=0.7))
    spread = [np.std(x.astype(float), axis=0).mean() for x in (mean, own, free)]
    assert spread[0] < spread[1] < spread[2]
    z = g.latents(3, seed=1)
    decoded = np.asarray(g.decode(z, "beagle", seed=1))
    np.testing.assert_allclose(np.round(127.5 * (decoded + 1.0)), own, atol=1)
    assert g.interpolate([1, 2], classes="beagle", frames=3).shape == (3, 16, 16, 3)
