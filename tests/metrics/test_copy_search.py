"""Copy search: crops, mirror images and blends of photos are found, with the matched window."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image

from jaxdog.data import crop_recipes, cropping, toy
from jaxdog.memorizers import baselines
from jaxdog.metrics import copy_search

N = 32
find = functools.partial(jax.jit, static_argnames=("candidates", "block", "batch"))(copy_search.find)


def squashed(source, size: int = 64) -> np.ndarray:
    return np.stack([crop_recipes.squash(photo.read(), size=size)[0].image for photo in source.photos])


@pytest.fixture(scope="module")
def source():
    return toy.dogs(N, 0)


@pytest.fixture(scope="module")
def photos(source) -> np.ndarray:
    """The photos to search: every photo, squashed."""
    return squashed(source)


def ask(image: np.ndarray, photos: np.ndarray, ids=None, own=None) -> copy_search.Match:
    """Always N images and all arguments, so that the tests share one program."""
    filled = np.concatenate([image, image[:1].repeat(N - len(image), 0)])
    ids = np.arange(N, dtype=np.int32) if ids is None else ids
    own = np.full(N, -1, np.int32) if own is None else own
    return jax.tree.map(lambda x: np.asarray(x)[: len(image)], find(filled, photos, ids, own, batch=N))


# ------------------------------------------------------------------ windows


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


@pytest.mark.parametrize("box", [(0, 0, 40, 60), (3, 10, 31, 47), (-6, 20, 38, 71)])  # xmin, ymin, xmax, ymax
def test_a_window_is_its_pixels_area_means_and_black_outside(box):
    photo, (x0, y0, x1, y1) = noise(60, 40), box
    window = np.array([[y0 / 60, x0 / 40, y1 / 60, x1 / 40]], np.float32)
    got = copy_search.render(jnp.asarray(photo)[None], jnp.asarray(window), 8)[0]
    want = cropping.resize(cropping.take(photo, box, "black"), 8, 8, "area")
    assert np.abs(np.asarray(got) - want).max() <= 0.5 + 1e-3
    part = copy_search.matched_crop(photo, tuple(window[0].tolist()), True, 8)
    assert part.dtype == np.uint8 and np.abs(part[:, ::-1].astype(int) - want).max() <= 1


def test_descriptors_are_invariant_to_brightness_contrast_and_size():
    image = np.kron(noise(8, 8), np.ones((8, 8, 1), np.uint8))
    variants = [image, 0.5 * image + 40, cropping.resize(image, 32, 32, "area")]
    rows = [np.asarray(copy_search.descriptor(jnp.asarray(x, jnp.float32)[None], 8))[0] for x in variants]
    np.testing.assert_allclose(rows[0] @ rows[1], 1, atol=1e-4)
    np.testing.assert_allclose(rows[0] @ rows[2], 1, atol=1e-4)
    flat = copy_search.descriptor(jnp.full((1, 64, 64, 3), 200.0), 8)
    np.testing.assert_allclose(flat, 0, atol=1e-2)


# ------------------------------------------------------------------ what is found


@pytest.mark.long
def test_a_photo_itself_is_found_whole(photos):
    found = ask(photos, photos)
    np.testing.assert_array_equal(found.photo, np.arange(N))
    assert not found.mirrored.any() and (found.similarity > 0.999).all()
    np.testing.assert_allclose(found.window, np.broadcast_to([0, 0, 1, 1], (N, 4)), atol=2e-3)


def test_random_crops_are_found_with_their_window(photos):
    """Random windows, not those of the coarse search; every second one mirrored."""
    rng = np.random.default_rng(1)
    size = rng.uniform(0.7, 1, (N, 2))
    start = rng.uniform(0, 1 - size)
    window = np.concatenate([start, start + size], axis=1)
    image = []
    for i, (top, left, bottom, right) in enumerate(64 * window):
        cut = Image.fromarray(photos[i]).resize(
            (64, 64), Image.Resampling.LANCZOS, (left, top, right, bottom)
        )
        image.append(np.asarray(cut)[:, :: 1 - 2 * (i % 2)])
    found = ask(np.stack(image), photos)
    right = found.photo == np.arange(N)
    assert right.mean() > 0.9 and (found.similarity[right] > 0.9).mean() > 0.9
    good = right & (found.similarity > 0.95)
    np.testing.assert_array_equal(found.mirrored[good], np.arange(N)[good] % 2 == 1)
    assert np.abs(found.window - window)[good].max() < 0.03


def compressed(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=15)
    return np.asarray(Image.open(file))


DISGUISES = {
    "jpeg": lambda x: np.stack([compressed(image) for image in x]),
    "noise": lambda x: np.clip(x + np.random.default_rng(2).normal(0, 12, x.shape), 0, 255),
    "dark": lambda x: 0.6 * x,
    "tinted": lambda x: np.clip(x * np.array([1.2, 1.0, 0.8]), 0, 255),
    "blend": lambda x: 0.8 * x + 0.2 * np.roll(x, 1, axis=0),
    "small": lambda x: (
        np.stack([cropping.resize(image, 32, 32, "area") for image in x]).repeat(2, 1).repeat(2, 2)
    ),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_modified_copies_are_found(photos, name):
    found = ask(DISGUISES[name](photos[:, :, ::-1].astype(np.uint8)).astype(np.uint8), photos)
    right = (found.photo == np.arange(N)) & found.mirrored
    assert right.mean() > 0.9 and np.median(found.similarity) > 0.85


@pytest.mark.parametrize("name", baselines.MEMORIZERS)
def test_crops_of_2019_are_found(source, photos, name):
    """Of the whole photos' crops nearly all; the small squares of boxes need the boxes among the photos."""
    cheat = baselines.memorizer(source, name, N)
    found = ask(cheat.image, photos)
    assert (found.similarity > 0.75).mean() > (0.6 if name == "top-left" else 0.85)


def test_crops_to_boxes_may_be_among_the_photos(source, photos):
    few = [source.photos[i] for i in range(N // 2)]
    boxes = [
        crop_recipes.box_square(p.read(), p.boxes, size=64, mode="clip", which="first")[0].image for p in few
    ]
    both = np.concatenate([photos[: N // 2], np.stack(boxes)])
    ids = np.tile(np.arange(N // 2, dtype=np.int32), 2)
    cheat = baselines.memorizer(source._replace(photos=few), "top-left", N // 2)
    found = ask(cheat.image, both, ids)
    assert (ids[found.photo] == cheat.photo).mean() > 0.95 and (found.similarity > 0.75).mean() > 0.95
    alone = ask(both, both, ids, ids)
    assert (ids[alone.photo] != ids).all()  # neither row of the photo itself


def test_other_dogs_are_less_alike(photos):
    others = ask(squashed(toy.dogs(N, 1)), photos)
    assert np.median(others.similarity) < 0.6 and (others.similarity < 0.95).all()


@pytest.mark.oracle
def test_an_excluded_photo_is_not_found_but_its_duplicate_is(photos):
    twins = photos.copy()
    twins[7] = twins[30]
    found = ask(twins, twins, own=np.arange(N, dtype=np.int32))
    assert found.photo[7] == 30 and found.photo[30] == 7 and (found.similarity[[7, 30]] > 0.999).all()
    assert (found.photo != np.arange(N)).all() and (np.delete(found.similarity, [7, 30]) < 0.95).all()


# ------------------------------------------------------------------ numerics


def test_constant_images_and_photos_have_no_similarity(photos):
    flat = photos.copy()
    flat[3], flat[5] = 0, 200
    found = ask(flat, flat)
    assert np.isfinite(found.similarity).all() and np.isfinite(found.window).all()
    assert (found.similarity[[3, 5]] < 0.1).all() and (np.delete(found.similarity, [3, 5]) > 0.999).all()


@pytest.mark.long
def test_blocks_batches_and_devices_change_nothing(photos):
    image = squashed(toy.dogs(N, 3))
    want = ask(image, photos)
    mesh = Mesh(np.array(jax.devices()), "data")
    spread = jax.device_put(image, NamedSharding(mesh, P("data")))
    whole = jax.device_put(photos, NamedSharding(mesh, P()))
    got = find(spread, whole, block=7, batch=20)
    np.testing.assert_array_equal(got.photo, want.photo)
    np.testing.assert_allclose(got.similarity, want.similarity, atol=2e-3)


def test_fewer_photos_than_candidates(photos):
    one = find(photos[:2], photos[:1], own=jnp.arange(2, dtype=jnp.int32), batch=2)
    assert one.similarity[0] == -1 and one.photo[0] == -1  # it is its own only photo
    assert one.photo[1] == 0 and one.similarity[1] > -1


def test_invalid_shapes_are_errors(photos):
    with pytest.raises(ValueError, match=r"\(64, 64, 3\) and photos of \(32, 64, 64, 3\); both must be"):
        copy_search.find(photos[0], photos)
