import functools

import numpy as np
import pytest
from PIL import Image

from jaxdog.data import crop_recipes, photos, toy


@pytest.fixture(scope="module")
def source() -> photos.Source:
    return toy.dogs(300, seed=1, sizes=(64, 80))


@pytest.fixture(scope="module")
def drawn(source) -> list[tuple[photos.Photo, np.ndarray]]:
    return [(photo, photo.read()) for photo in source.photos]


def test_photos_match_their_description(source, drawn):
    assert len(drawn) == len(source.photos) == 300
    for i, (photo, pixels) in enumerate(drawn):
        h, w, c = pixels.shape
        assert pixels.dtype == np.uint8 and c == 3 and 64 <= h <= 80 and 64 <= w <= 80
        assert photo.label == i % 10 and photo.name == f"toy_{i:05d}.png"
        assert 1 <= len(photo.boxes) <= 2
        for xmin, ymin, xmax, ymax in photo.boxes:
            assert 0 <= xmin < xmax <= w and 0 <= ymin < ymax <= h
            assert min(xmax - xmin, ymax - ymin) >= 10
    assert len({pixels.shape for _, pixels in drawn}) > 50


def test_some_photos_have_two_dogs(drawn):
    two = sum(len(photo.boxes) == 2 for photo, _ in drawn)
    assert 0.07 * 300 < two < 0.25 * 300


def test_boxes_are_tight_around_the_dogs(drawn):
    """Outside the boxes the photo equals the place drawn without dogs; inside, it differs."""
    for i, (photo, pixels) in enumerate(drawn[:40]):
        rng = np.random.default_rng((1, i))
        h, w = (int(side) for side in rng.integers(64, 81, 2))
        place, _ = toy._scene(rng, h * toy.SCALE, w * toy.SCALE)
        empty = np.asarray(place.convert("RGB").resize((w, h), Image.Resampling.BOX))
        changed = (pixels != empty).any(-1)
        inside = np.zeros_like(changed)
        for xmin, ymin, xmax, ymax in photo.boxes:
            inside[ymin:ymax, xmin:xmax] = True
            box = changed[ymin:ymax, xmin:xmax]
            if len(photo.boxes) == 1:
                assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
            assert box.mean() > 0.25
        assert not (changed & ~inside).any()


def test_the_same_seed_draws_the_same_and_another_does_not(drawn):
    again, other = toy.dogs(300, 1, (64, 80)), toy.dogs(300, 2, (64, 80))
    np.testing.assert_array_equal(again.photos[123].read(), drawn[123][1])
    assert again.photos[123].boxes == drawn[123][0].boxes
    assert not np.array_equal(other.photos[123].read(), drawn[123][1])
    np.testing.assert_array_equal(toy.dogs(8, 1, (64, 80)).photos[7].read(), drawn[7][1])  # n does not matter


def test_keys_differ_when_the_photos_do():
    keys = {toy.dogs(8).key, toy.dogs(9).key, toy.dogs(8, 1).key, toy.dogs(8, 0, (64, 65)).key}
    assert len(keys) == 4 and toy.dogs(8).key == toy.dogs(8).key


def test_breeds_are_distinguishable(source):
    """A nearest-mean classifier on small crops is far more accurate than chance."""
    recipe = functools.partial(crop_recipes.box_square, size=12, resampler="box")
    made = [(x.image, p.label) for p in source.photos for x in recipe(p.read(), p.boxes)]
    x, y = np.array([a for a, _ in made], np.float64).reshape(len(made), -1), np.array([b for _, b in made])
    half = len(made) // 2
    means = np.stack([x[:half][y[:half] == k].mean(0) for k in range(10)])
    guess = ((x[half:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert (guess == y[half:]).mean() > 0.4


def test_the_reader_returns_its_own_copy(source):
    photo = source.photos[0]
    photo.read()[:] = 0
    assert photo.read().any()


@pytest.mark.parametrize(("n", "sizes"), [(0, (80, 96)), (4, (16, 96)), (4, (96, 80))])
def test_invalid_settings_are_errors(n, sizes):
    with pytest.raises(ValueError, match=f"n is {n} and sizes is "):
        toy.dogs(n, 0, sizes)
