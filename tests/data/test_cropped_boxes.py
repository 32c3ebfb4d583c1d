"""Crops that keep their extent, on photos whose pixels say where they are: photo[y, x] = (x, y, 7)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.data import cropped_boxes, cropping


def coordinates(h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8)


def extents(boxes: list[tuple[int, int, int, int]], **settings) -> list[tuple[int, int]]:
    return [kept.extent for kept in cropped_boxes.box(coordinates(100, 120), boxes, size=16, **settings)]


def test_a_box_is_squashed_and_its_extent_kept():
    photo = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    (kept,) = cropped_boxes.box(photo, [(10, 20, 42, 36)], size=32, resampler="bilinear")
    assert kept.extent == (16, 32) and kept.kind == 0
    expected = Image.fromarray(photo[20:36, 10:42]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(kept.image, np.asarray(expected))


def test_a_square_box_of_the_right_size_is_cut_out_pixel_for_pixel():
    (kept,) = cropped_boxes.box(coordinates(100, 120), [(10, 20, 42, 52)], size=32)
    np.testing.assert_array_equal(kept.image, coordinates(100, 120)[20:52, 10:42])


def test_the_margin_ends_with_the_photo():
    (kept,) = cropped_boxes.box(coordinates(100, 120), [(2, 20, 30, 98)], size=16, margin=4)
    assert kept.extent == (100 - 16, 34)
    assert extents([(-5, -9, 200, 100)], margin=4) == [(100, 120)]
    assert extents([]) == [(100, 120)]  # no box: the whole photo


def test_boxes_are_chosen_before_they_are_filtered():
    wide, square = (0, 0, 80, 40), (10, 10, 60, 60)
    assert extents([wide, square]) == [(40, 80), (50, 50)]
    assert extents([wide, square], which="first", max_aspect=1.25, min_aspect=0.8) == []
    assert extents([square, wide], which="first", max_aspect=1.25, min_aspect=0.8) == [(50, 50)]
    assert extents([wide, square], which="last") == [(50, 50)]
    with pytest.raises(ValueError, match="which is 'biggest'; it can be 'all', 'first', 'last'"):
        extents([wide], which="biggest")


def test_limits_hold_before_the_margin_and_are_themselves_allowed():
    assert extents([(0, 0, 64, 63)], min_side=64, margin=4) == []
    assert extents([(0, 0, 64, 64)], min_side=64) == [(64, 64)]
    assert extents([(50, 50, 50, 60)]) == []  # empty


def test_a_limit_on_the_difference_is_a_pair_of_aspects():
    """|h - w| / min(h, w) <= 0.25, of every small box, is 0.8 <= h / w <= 1.25 to the last bit."""
    for h in range(1, 50):
        for w in range(1, 50):
            kept = extents([(0, 0, w, h)], min_aspect=0.8, max_aspect=1.25)
            assert bool(kept) == (4 * abs(h - w) <= min(h, w)), (h, w)


def test_the_settings_make_the_key():
    recipe = functools.partial(cropped_boxes.box, size=32, margin=4)
    assert cropping.key(recipe) == (
        f"box-v{cropping.VERSION}(margin=4,max_aspect=inf,min_aspect=0.0,min_side=1,resampler='lanczos',"
        "size=32,which='all')"
    )


def test_stored_squashed_and_cut_is_near_to_cut_from_the_photo():
    """Of a smooth photo: the region that is drawn on the extent is found again in the stored crop."""
    y, x = np.mgrid[:300, :400]
    wave = 127 + 100 * np.sin(x / 40) * np.cos(y / 25)
    photo = np.stack([wave, x * 255 / 400, y * 255 / 300], -1).astype(np.uint8)
    left, top, right, bottom = 40, 30, 340, 240
    (kept,) = cropped_boxes.box(photo, [(left, top, right, bottom)], size=128)
    assert kept.extent == (210, 300)
    image = jnp.asarray(kept.image[None], jnp.float32) / 127.5 - 1
    batch = types.Batch(image, jnp.zeros(1, int), jnp.array([kept.extent]), jnp.zeros(1, int), jnp.zeros(1))
    for i in range(3):
        key = jax.random.key(i)
        got = transforms.random_resized_crop(key, batch, 64, 0.8, 1.0).image[0]
        (corner,), (sides,) = transforms.resized_crop_region(key, batch.extent, (0.8, 1.0), (3 / 4, 4 / 3))
        ymin, xmin = int(corner[0]) + top, int(corner[1]) + left
        region = Image.fromarray(photo).crop((xmin, ymin, xmin + int(sides[1]), ymin + int(sides[0])))
        expected = np.asarray(region.resize((64, 64), Image.Resampling.BILINEAR)) / 127.5 - 1
        difference = 127.5 * np.abs(np.asarray(got) - expected)  # in grey levels
        assert difference.mean() < 1.0 and difference.max() < 8.0


def test_each_box_comes_with_its_photo_and_half_of_all_crops_are_photos():
    photo = coordinates(100, 120)
    boxes = [(10, 40, 50, 60), (30, 2, 50, 13)]
    made = cropped_boxes.box_and_photo(photo, boxes, size=40)
    assert [kept.kind for kept in made] == [cropped_boxes.BOX, cropped_boxes.PHOTO] * 2
    assert [kept.extent for kept in made] == [(40, 40), (100, 120), (15, 20), (100, 120)]
    np.testing.assert_array_equal(made[0].image, photo[30:70, 10:50])  # 10 pixels higher, 10 lower
    np.testing.assert_array_equal(made[2].image, cropping.resize(photo[0:15, 30:50], 40, 40, "lanczos"))
    np.testing.assert_array_equal(made[1].image, cropping.resize(photo, 40, 40, "lanczos"))
    np.testing.assert_array_equal(made[1].image, made[3].image)


def test_a_photo_without_boxes_counts_as_one_and_empty_boxes_as_none():
    made = cropped_boxes.box_and_photo(coordinates(30, 60), [], size=8)
    assert [(kept.kind, kept.extent) for kept in made] == [(0, (30, 60)), (1, (30, 60))]
    assert cropped_boxes.box_and_photo(coordinates(30, 60), [(5, 5, 5, 20)], size=8) == []


def test_squares_about_boxes_end_with_the_photo():
    photo = coordinates(100, 120)
    boxes = [(20, 40, 60, 60), (0, 0, 30, 40)]  # their middles are (40, 50) and (15, 20)
    first, second = cropped_boxes.around(photo, boxes, size=40, context=1.0)
    assert first.extent == (40, 40) and second.extent == (40, 35)
    np.testing.assert_array_equal(first.image, photo[30:70, 20:60])
    np.testing.assert_array_equal(second.image, cropping.resize(photo[0:40, 0:35], 40, 40, "lanczos"))
    (wide,) = cropped_boxes.around(photo, boxes[:1], size=46, context=1.15)
    np.testing.assert_array_equal(wide.image, photo[27:73, 17:63])


def test_squares_about_small_boxes_and_in_small_photos_are_left_out():
    photo = coordinates(100, 120)
    boxes = [(0, 0, 64, 63), (0, 0, 64, 64), (5, 5, 5, 90), (10, 10, 11, 11)]
    assert len(cropped_boxes.around(photo, boxes, size=8, min_side=64)) == 1
    assert len(cropped_boxes.around(photo, boxes, size=8)) == 2  # one pixel has no half
    assert cropped_boxes.around(photo, boxes, size=8, min_photo=101) == []
    assert len(cropped_boxes.around(photo, [], size=8, min_photo=100)) == 1
