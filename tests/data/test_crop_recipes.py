"""Crop recipes, on photos whose pixels encode their coordinates: photo[y, x] = (x, y, 7)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.data import crop_recipes, cropping, photos
from tests.data.drawn_photos import coordinates, images, noise, xs, ys


def box_square(*args, **settings) -> list[np.ndarray]:
    return images(crop_recipes.box_square(*args, **settings))


# ------------------------------------------------------------------ box_square, mode by mode


def test_a_square_box_is_cut_out_pixel_for_pixel_in_every_mode():
    photo = noise(80, 100)
    for mode, pad_mode in (
        ("clip", "none"),
        ("grow", "none"),
        ("grow", "black"),
        ("pad", "reflect"),
        ("center", "none"),
    ):
        (got,) = box_square(photo, [(30, 20, 62, 52)], size=32, mode=mode, pad_mode=pad_mode)
        np.testing.assert_array_equal(got, photo[20:52, 30:62])


def test_grow_takes_what_the_photo_has_evenly():
    (got,) = box_square(coordinates(100, 100), [(40, 30, 50, 50)], size=20, mode="grow")
    assert xs(got) == list(range(35, 55))
    assert ys(got) == list(range(30, 50))
    (got,) = box_square(coordinates(100, 100), [(30, 40, 50, 51)], size=20, mode="grow")
    assert ys(got) == list(range(35, 55))  # 9 rows to add: the odd one above


def test_grow_shifts_at_the_border():
    (low,) = box_square(coordinates(100, 100), [(2, 30, 12, 50)], size=20, mode="grow")
    assert xs(low) == list(range(0, 20))
    (high,) = box_square(coordinates(100, 100), [(30, 88, 50, 98)], size=20, mode="grow")
    assert ys(high) == list(range(80, 100))


def test_what_cannot_grow_is_squashed_or_padded():
    photo, box = coordinates(40, 16), (5, 4, 11, 36)  # 32 high in a photo 16 wide
    (squashed,) = box_square(photo, [box], size=32, mode="grow", pad_mode="none", resampler="box")
    np.testing.assert_array_equal(squashed, cropping.resize(photo[4:36], 32, 32, "box"))
    (padded,) = box_square(photo, [box], size=32, mode="grow", pad_mode="reflect")
    mirrored = np.pad(photo[4:36], ((0, 0), (8, 8), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(padded, mirrored)
    (black,) = box_square(photo, [box], size=32, mode="grow", pad_mode="black")
    np.testing.assert_array_equal(black, np.pad(photo[4:36], ((0, 0), (8, 8), (0, 0))))


def test_pad_is_centered_on_the_box_and_may_extend_beyond_the_photo():
    photo, box = coordinates(60, 60), (2, 10, 12, 50)  # the square is x from -13 to 27
    (black,) = box_square(photo, [box], size=40, mode="pad", pad_mode="black")
    np.testing.assert_array_equal(black[:, 13:], photo[10:50, 0:27])
    assert not black[:, :13].any()
    (mirrored,) = box_square(photo, [box], size=40, mode="pad", pad_mode="reflect")
    assert xs(mirrored) == [abs(x) for x in range(-13, 27)]
    # Pillow's own crop pads with black in the same way (the deck's LSGAN recipe).
    theirs = np.asarray(Image.fromarray(photo).crop((-13, 10, 27, 50)))
    np.testing.assert_array_equal(black, theirs)


def test_reflection_of_a_photo_much_smaller_than_the_square():
    photo = coordinates(40, 3)
    (got,) = box_square(photo, [(0, 0, 3, 40)], size=40, mode="pad", pad_mode="reflect")
    np.testing.assert_array_equal(got, np.pad(photo, ((0, 0), (19, 18), (0, 0)), mode="reflect"))
    (thin,) = box_square(photo[:, :1], [(0, 0, 1, 40)], size=40, mode="pad", pad_mode="reflect")
    assert xs(thin) == [0] * 40


def test_clip_squashes_the_plain_box():
    photo = noise(50, 50)
    (got,) = box_square(photo, [(10, 5, 20, 45)], size=16, mode="clip")
    np.testing.assert_array_equal(got, cropping.resize(photo[5:45, 10:20], 16, 16, "lanczos"))


def test_center_keeps_the_middle_of_the_long_side():
    photo = coordinates(100, 100)
    (got,) = box_square(photo, [(20, 10, 40, 70)], size=20, mode="center")
    assert xs(got) == list(range(20, 40))
    assert ys(got) == list(range(30, 50))


def test_boxes_beyond_the_photo_are_clipped_and_those_outside_dropped():
    photo = coordinates(40, 40)
    boxes = [(-5, -9, 20, 20), (30, 30, 55, 60), (50, 50, 60, 60), (10, 10, 10, 30)]
    got = box_square(photo, boxes, size=20, mode="grow", pad_mode="none")
    assert len(got) == 2
    np.testing.assert_array_equal(got[0], photo[:20, :20])


@pytest.mark.parametrize(("which", "first"), [("all", [0, 20, 40]), ("first", [0]), ("last", [40])])
def test_which_boxes(which, first):
    boxes = [(x, 0, x + 10, 10) for x in (0, 20, 40)]
    got = box_square(coordinates(60, 60), boxes, size=10, which=which)
    assert [image[0, 0, 0] for image in got] == first


def test_no_box_means_the_whole_photo():
    photo = noise(32, 32)
    (got,) = box_square(photo, [], size=32)
    np.testing.assert_array_equal(got, photo)


def test_margin_in_pixels_and_as_a_fraction():
    photo = coordinates(100, 100)
    (pixels,) = box_square(photo, [(20, 30, 40, 50)], size=28, mode="clip", margin=4)
    assert (xs(pixels), ys(pixels)) == (list(range(16, 44)), list(range(26, 54)))
    (share,) = box_square(photo, [(20, 30, 40, 50)], size=24, mode="clip", margin=0.1)
    assert xs(share) == list(range(18, 42))
    (edge,) = box_square(photo, [(1, 30, 41, 70)], size=8, mode="clip", margin=10, resampler="box")
    np.testing.assert_array_equal(edge, cropping.resize(photo[20:80, 0:51], 8, 8, "box"))


def test_filters_see_the_box_without_its_margin():
    photo = noise(100, 100)
    boxes = [(0, 0, 30, 30), (0, 0, 31, 31), (0, 0, 40, 90)]
    keep = functools.partial(box_square, photo, boxes, size=8, margin=10)
    assert len(keep(min_side=31)) == 2
    assert len(keep(min_aspect=0.8, max_aspect=1.25)) == 2
    assert len(keep(max_aspect=2.25)) == 3
    assert len(keep(min_side=41)) == 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (dict(mode="grwo"), "mode is 'grwo'; choices: 'grow', 'grow_high', 'grow_evenly', 'pad'"),
        (dict(mode="pad"), "pad_mode is 'none'; choices: 'reflect', 'black'"),
        (dict(mode="clip", pad_mode="black"), "pad_mode is 'black'; choices: 'none'"),
        (dict(which="second"), "which is 'second'; choices: 'all', 'first', 'last'"),
        (dict(resampler="cubic"), "resampler is 'cubic'; choices: 'box', 'bilinear'"),
    ],
)
def test_invalid_choices_are_errors(settings, match):
    with pytest.raises(ValueError, match=match):
        box_square(noise(9, 9), [(0, 0, 5, 5)], size=4, **settings)


# ------------------------------------------------------------------ whole photos


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("lanczos", Image.Resampling.LANCZOS),
        ("bicubic", Image.Resampling.BICUBIC),
        ("box", Image.Resampling.BOX),
    ],
)
def test_squash_is_pillows_resize(ours, theirs):
    photo = noise(61, 97)
    (got,) = images(crop_recipes.squash(photo, [(0, 0, 5, 5)], size=64, resampler=ours))
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(photo).resize((64, 64), theirs)))


def test_short_side_center():
    (got,) = images(crop_recipes.short_side_center(coordinates(20, 51), size=20))
    assert xs(got) == list(range(16, 36))  # 15.5 rounds to the even 16
    (small,) = images(crop_recipes.short_side_center(noise(200, 90), size=64))
    assert small.shape == (64, 64, 3)


# ------------------------------------------------------------------ crops that keep their original size


def original_sizes(boxes: list[tuple[int, int, int, int]], **settings) -> list[tuple[int, int]]:
    return [
        crop.original_size for crop in crop_recipes.box(coordinates(100, 120), boxes, size=16, **settings)
    ]


def test_a_box_is_squashed_and_its_original_size_kept():
    photo = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    (crop,) = crop_recipes.box(photo, [(10, 20, 42, 36)], size=32, resampler="bilinear")
    assert crop.original_size == (16, 32) and crop.crop_type == 0
    expected = Image.fromarray(photo[20:36, 10:42]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop.image, np.asarray(expected))


def test_a_square_box_of_the_right_size_is_cut_out_pixel_for_pixel():
    (crop,) = crop_recipes.box(coordinates(100, 120), [(10, 20, 42, 52)], size=32)
    np.testing.assert_array_equal(crop.image, coordinates(100, 120)[20:52, 10:42])


def test_the_margin_ends_with_the_photo():
    (crop,) = crop_recipes.box(coordinates(100, 120), [(2, 20, 30, 98)], size=16, margin=4)
    assert crop.original_size == (100 - 16, 34)
    assert original_sizes([(-5, -9, 200, 100)], margin=4) == [(100, 120)]
    assert original_sizes([]) == [(100, 120)]  # no box: the whole photo


def test_boxes_are_chosen_before_they_are_filtered():
    wide, square = (0, 0, 80, 40), (10, 10, 60, 60)
    assert original_sizes([wide, square]) == [(40, 80), (50, 50)]
    assert original_sizes([wide, square], which="first", max_aspect=1.25, min_aspect=0.8) == []
    assert original_sizes([square, wide], which="first", max_aspect=1.25, min_aspect=0.8) == [(50, 50)]
    assert original_sizes([wide, square], which="last") == [(50, 50)]
    with pytest.raises(ValueError, match="which is 'biggest'; choices: 'all', 'first', 'last'"):
        original_sizes([wide], which="biggest")


def test_limits_hold_before_the_margin_and_are_themselves_allowed():
    assert original_sizes([(0, 0, 64, 63)], min_side=64, margin=4) == []
    assert original_sizes([(0, 0, 64, 64)], min_side=64) == [(64, 64)]
    assert original_sizes([(50, 50, 50, 60)]) == []  # empty


def test_a_limit_on_the_difference_is_a_pair_of_aspects():
    """|h - w| / min(h, w) <= 0.25, of every small box, is 0.8 <= h / w <= 1.25 to the last bit."""
    for h in range(1, 50):
        for w in range(1, 50):
            crop = original_sizes([(0, 0, w, h)], min_aspect=0.8, max_aspect=1.25)
            assert bool(crop) == (4 * abs(h - w) <= min(h, w)), (h, w)


def test_the_settings_make_the_key():
    recipe = functools.partial(crop_recipes.box, size=32, margin=4)
    assert crop_recipes.cache_key(recipe) == (
        f"box-v{crop_recipes.VERSION}(margin=4,max_aspect=100.0,min_aspect=0.0,min_side=1,resampler='lanczos',"
        "size=32,which='all')"
    )


def test_stored_squashed_and_cut_is_near_to_cut_from_the_photo():
    """Of a smooth photo: the region that is drawn on the original size is found again in the stored crop."""
    y, x = np.mgrid[:300, :400]
    wave = 127 + 100 * np.sin(x / 40) * np.cos(y / 25)
    photo = np.stack([wave, x * 255 / 400, y * 255 / 300], -1).astype(np.uint8)
    left, top, right, bottom = 40, 30, 340, 240
    (crop,) = crop_recipes.box(photo, [(left, top, right, bottom)], size=128)
    assert crop.original_size == (210, 300)
    image = jnp.asarray(crop.image[None], jnp.float32) / 127.5 - 1
    batch = types.Batch(
        image, jnp.zeros(1, int), jnp.array([crop.original_size]), jnp.zeros(1, int), jnp.zeros(1)
    )
    for i in range(3):
        key = jax.random.key(i)
        got = transforms.random_resized_crop(key, batch, 64, 0.8, 1.0).image[0]
        (corner,), (sides,) = transforms.resized_crop_region(
            key, batch.original_size, (0.8, 1.0), (3 / 4, 4 / 3)
        )
        ymin, xmin = int(corner[0]) + top, int(corner[1]) + left
        region = Image.fromarray(photo).crop((xmin, ymin, xmin + int(sides[1]), ymin + int(sides[0])))
        expected = np.asarray(region.resize((64, 64), Image.Resampling.BILINEAR)) / 127.5 - 1
        difference = 127.5 * np.abs(np.asarray(got) - expected)  # in gray levels
        assert difference.mean() < 1.0 and difference.max() < 8.0


def test_each_box_comes_with_its_photo_and_half_of_all_crops_are_photos():
    photo = coordinates(100, 120)
    boxes = [(10, 40, 50, 60), (30, 2, 50, 13)]
    made = crop_recipes.box_and_photo(photo, boxes, size=40)
    assert [crop.crop_type for crop in made] == [crop_recipes.BOX, crop_recipes.PHOTO] * 2
    assert [crop.original_size for crop in made] == [(40, 40), (100, 120), (15, 20), (100, 120)]
    np.testing.assert_array_equal(made[0].image, photo[30:70, 10:50])  # 10 pixels higher, 10 lower
    np.testing.assert_array_equal(made[2].image, cropping.resize(photo[0:15, 30:50], 40, 40, "lanczos"))
    np.testing.assert_array_equal(made[1].image, cropping.resize(photo, 40, 40, "lanczos"))
    np.testing.assert_array_equal(made[1].image, made[3].image)


def test_a_photo_without_boxes_counts_as_one_and_empty_boxes_as_none():
    made = crop_recipes.box_and_photo(coordinates(30, 60), [], size=8)
    assert [(crop.crop_type, crop.original_size) for crop in made] == [(0, (30, 60)), (1, (30, 60))]
    assert crop_recipes.box_and_photo(coordinates(30, 60), [(5, 5, 5, 20)], size=8) == []


def test_squares_about_boxes_end_with_the_photo():
    photo = coordinates(100, 120)
    boxes = [(20, 40, 60, 60), (0, 0, 30, 40)]  # their middles are (40, 50) and (15, 20)
    first, second = crop_recipes.around(photo, boxes, size=40, context=1.0)
    assert first.original_size == (40, 40) and second.original_size == (40, 35)
    np.testing.assert_array_equal(first.image, photo[30:70, 20:60])
    np.testing.assert_array_equal(second.image, cropping.resize(photo[0:40, 0:35], 40, 40, "lanczos"))
    (wide,) = crop_recipes.around(photo, boxes[:1], size=46, context=1.15)
    np.testing.assert_array_equal(wide.image, photo[27:73, 17:63])


def test_squares_about_small_boxes_and_in_small_photos_are_left_out():
    photo = coordinates(100, 120)
    boxes = [(0, 0, 64, 63), (0, 0, 64, 64), (5, 5, 5, 90), (10, 10, 11, 11)]
    assert len(crop_recipes.around(photo, boxes, size=8, min_side=64)) == 1
    assert len(crop_recipes.around(photo, boxes, size=8)) == 2  # one pixel has no half
    assert crop_recipes.around(photo, boxes, size=8, min_photo=101) == []
    assert len(crop_recipes.around(photo, [], size=8, min_photo=100)) == 1


# ------------------------------------------------------------------ all of them


def test_every_recipe_makes_squares_of_uint8():
    counts = {"box_and_photo": 2, "four_squares": 4, "multicrop": 5, "upper_middle_and_center": 2}
    for name, recipe in crop_recipes.RECIPES.items():
        for resampler in cropping.RESAMPLERS:
            got = recipe(noise(23, 57), [(3, 1, 20, 22)], size=16, resampler=resampler)
            assert len(got) == counts.get(name, 1), (name, resampler)
            for image in images(got):
                assert image.shape == (16, 16, 3) and image.dtype == np.uint8, (name, resampler)


def test_key_names_every_setting_and_defaults_as_if_given():
    plain = functools.partial(crop_recipes.box_square, size=64)
    assert crop_recipes.cache_key(plain) == crop_recipes.cache_key(
        functools.partial(crop_recipes.box_square, mode="grow", size=64)
    )
    assert crop_recipes.cache_key(plain).startswith("box_square-v1(margin=0,")
    others = [
        dict(size=32),
        dict(size=64, margin=0.1),
        dict(size=64, which="last"),
        dict(size=64, min_side=2),
    ]
    keys = {
        crop_recipes.cache_key(functools.partial(crop_recipes.box_square, **other)) for other in others
    } | {crop_recipes.cache_key(plain)}
    assert len(keys) == 5
    assert (
        crop_recipes.cache_key(functools.partial(crop_recipes.squash, size=64))
        == "squash-v1(resampler='lanczos',size=64)"
    )


@pytest.mark.parametrize("shape", [(200, 1, 3), (1, 200, 3)], ids=["tall", "wide"])
@pytest.mark.parametrize(
    "recipe",
    [
        functools.partial(crop_recipes.box_square, mode="pad", pad_mode="black", max_aspect=999),
        functools.partial(crop_recipes.box_square, mode="grow", pad_mode="reflect", max_aspect=999),
        functools.partial(crop_recipes.box_square, mode="center", max_aspect=999),
        crop_recipes.short_side_center,
        crop_recipes.squash,
        functools.partial(crop_recipes.squash, resampler="area"),
        crop_recipes.RECIPES["upper_middle_and_center"],
    ],
)
def test_photos_so_long_that_their_crops_would_fill_the_memory_are_broken(shape, recipe, monkeypatch):
    """60,000 x 1 pixels would become a square of 10 GB."""
    monkeypatch.setattr(photos, "MAX_PIXELS", 1500)
    with pytest.raises(photos.BrokenPhotoError, match="its long side is 200 times its short side"):
        recipe(np.zeros(shape, np.uint8), [], size=8)
    monkeypatch.setattr(photos, "MAX_PIXELS", 200 * 200)
    assert recipe(np.zeros(shape, np.uint8), [], size=8)[0].image.shape == (8, 8, 3)
