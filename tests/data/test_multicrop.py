"""Which squares of which boxes, on photos whose pixels encode their coordinates: photo[y, x] = (x, y, 7)."""

import collections
import inspect
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.data import cropping, multicrop, photos
from jaxdog.ops import resample

SIZE, HALF = 32, 16
PLAIN, TURNED, MOVED = multicrop.PLAIN, multicrop.TURNED, multicrop.MOVED


def coordinates(h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8)


def made(photo: np.ndarray, *boxes: photos.Box, size: int = SIZE, **options) -> dict[int, list[photos.Crop]]:
    """The crops of each type, in order, resized by area means."""
    found = multicrop.multicrop(photo, boxes, size=size, **{"resampler": "box", **options})
    assert {kept.image.shape for kept in found} <= {(size, size, 3)}
    return {
        crop_type: [kept for kept in found if kept.crop_type == crop_type]
        for crop_type in (PLAIN, TURNED, MOVED)
    }


def shown(kept: photos.Crop) -> tuple[float, float, float, float]:
    """The part of the photo that a crop of a larger box shows: xmin, ymin, xmax, ymax, to half a pixel."""
    image = kept.image[::2, ::2] if kept.crop_type == PLAIN else kept.image
    first, last = image[0, 0, :2].astype(float), image[-1, -1, :2].astype(float)
    pixel = (last - first) / (image.shape[0] - 1)
    return tuple(np.concatenate([first + 0.5 - pixel / 2, last + 0.5 + pixel / 2]))


def shows(kept: photos.Crop, *region: float, near: float = 1.0) -> None:
    np.testing.assert_allclose(shown(kept), region, atol=near)


def counts(photo: np.ndarray, *boxes: photos.Box, **options) -> tuple[int, int, int]:
    found = made(photo, *boxes, **options)
    return len(found[PLAIN]), len(found[TURNED]), len(found[MOVED])


# ------------------------------------------------------------------ boxes


@pytest.mark.parametrize(
    ("box", "zoom", "grow", "expected"),
    [
        ((50, 60, 90, 100), 0.0, True, (50, 60, 90, 100)),  # square as it is
        ((50, 60, 70, 100), 0.0, True, (40, 60, 80, 100)),  # 20 more: 10 at either end
        ((50, 60, 71, 100), 0.0, True, (40, 60, 80, 100)),  # 19 more: 9.5 each, fractions cut off
        ((5, 60, 25, 100), 0.0, True, (0, 60, 40, 100)),  # 5 to the left, then what still lacks to the right
        ((185, 60, 195, 100), 0.0, True, (160, 60, 200, 100)),
        ((10, 20, 190, 90), 0.0, True, (10, 0, 190, 120)),  # the photo is 120 high
        ((50, 60, 100, 110), 0.08, True, (48, 58, 102, 112)),  # 4 % at each of four sides
        ((50, 60, 75, 110), 0.08, True, (35, 58, 89, 112)),  # 27 x 54, grown by 13.5 each
        ((50, 60, 75, 110), 0.12, False, (48, 57, 76, 113)),  # 1.5 and 3 pixels wider
        ((0, 0, 50, 50), 0.08, True, (0, 0, 52, 52)),  # nothing is left of the photo
    ],
)
def test_boxes_are_widened_then_grown_inside_the_photo(box, zoom, grow, expected):
    assert multicrop.region(box, 120, 200, zoom, grow) == expected


def test_a_large_square_dog_gives_one_crop_of_each_type():
    photo, box = coordinates(200, 200), (40, 60, 104, 124)
    found = made(photo, box)
    assert [len(crops) for crops in found.values()] == [1, 1, 1]
    # 12 % wider it is square as well, and squares are not cut a second time. 64 -> 32: means of 2x2.
    np.testing.assert_array_equal(
        found[TURNED][0].image, cropping.resize(photo[60:124, 40:104], 32, 32, "box")
    )
    plain = found[PLAIN][0].image
    np.testing.assert_array_equal(plain[::2, ::2], cropping.resize(photo[60:124, 40:104], 16, 16, "box"))
    np.testing.assert_array_equal(plain, plain[::2, ::2].repeat(2, 0).repeat(2, 1))
    shows(found[MOVED][0], 37.44, 57.44, 106.56, 126.56)
    assert found[PLAIN][0].original_size == (HALF, HALF)
    assert found[TURNED][0].original_size == found[MOVED][0].original_size == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("side", "expected"),
    [(40, (1, 1, 1)), (29, (1, 0, 1)), (28, (1, 0, 0)), (16, (1, 0, 0)), (15, (0, 0, 0))],
)
def test_small_dogs_have_fewer_crops(side, expected):
    """8 % and cut off fractions make 32 of 29 and 31 of 28; below half the size there is none at all."""
    assert counts(coordinates(200, 200), (50, 50, 50 + side, 50 + side)) == expected


# ------------------------------------------------------------------ shapes
#
# Each photo is its own box and has no room to grow, so the box keeps its shape and all three are the same:
# grown and loose boxes coincide, which leaves one set of PLAIN, one of TURNED and one of MOVED crops.


def whole(h: int, w: int, **options) -> dict[int, list[photos.Crop]]:
    found = made(coordinates(h, w), (0, 0, w, h), **options)
    assert [kept.image.tolist() for kept in found[TURNED]] == [kept.image.tolist() for kept in found[MOVED]]
    return found


def test_slightly_wide_boxes_give_the_middle_and_all_of_it_mirrored():
    photo, found = coordinates(100, 110), whole(100, 110)
    middle, mirrored = found[PLAIN]
    np.testing.assert_array_equal(middle.image[::2, ::2], cropping.resize_center_crop(photo, 16, "box"))
    square = np.pad(photo, ((5, 5), (0, 0), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(mirrored.image[::2, ::2], cropping.resize(square, 16, 16, "box"))
    (large,) = found[TURNED]
    np.testing.assert_array_equal(large.image, cropping.resize_center_crop(photo, 32, "box"))


def test_large_crops_of_wider_boxes_are_mirrored():
    found = whole(100, 120)
    assert len(found[PLAIN]) == 2
    (large,) = found[TURNED]
    square = np.pad(coordinates(100, 120), ((10, 10), (0, 0), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(large.image, cropping.resize(square, 32, 32, "box"))


def test_an_odd_pixel_of_the_mirror_is_above():
    mirrored = whole(101, 110)[PLAIN][1]
    square = np.pad(coordinates(101, 110), ((5, 5), (0, 0), (0, 0)), mode="reflect")[:110]
    np.testing.assert_array_equal(mirrored.image[::2, ::2], cropping.resize(square, 16, 16, "box"))


def test_large_crops_of_yet_wider_boxes_are_their_two_ends():
    found = whole(100, 128)
    assert len(found[PLAIN]) == 2
    left, right = found[TURNED]
    shows(left, 0, 0, 102.4, 100)  # 128 pixels become 40, not 40.96
    shows(right, 25.6, 0, 128, 100)


@pytest.mark.parametrize(("w", "mirrored", "turned"), [(140, 1, 2), (160, 0, 0), (199, 0, 0)])
def test_wide_boxes_give_the_left_end_twice_as_they_did_or_both_ends(w, mirrored, turned):
    found = whole(100, w)
    assert (len(found[PLAIN]), len(found[TURNED])) == (2 + mirrored, turned)
    left, again, *_ = found[PLAIN]
    shows(left, 0, 0, 100, 100, near=3.2)
    np.testing.assert_array_equal(left.image, again.image)
    left, right, *_ = whole(100, w, both_sides=True)[PLAIN]
    shows(left, 0, 0, 100, 100, near=3.2)
    shows(right, w - 100, 0, w, 100, near=6.3)
    shown_large = [shown(kept)[0] for kept in found[TURNED]]
    assert len(shown_large) < 2 or shown_large[1] > shown_large[0] + 30  # large crops always had both


@pytest.mark.parametrize(
    ("h", "plain", "turned"), [(110, 2, 1), (149, 2, 1), (155, 1, 1), (160, 1, 0), (179, 1, 0)]
)
def test_tall_boxes_give_their_top(h, plain, turned):
    found = whole(h, 100)
    assert (len(found[PLAIN]), len(found[TURNED])) == (plain, turned)
    for kept in (found[PLAIN][0], *found[TURNED]):
        shows(kept, 0, 0, 100, 100)
    if plain == 2:
        square = np.pad(
            coordinates(h, 100), ((0, 0), (-(-(h - 100) // 2), (h - 100) // 2), (0, 0)), mode="reflect"
        )
        np.testing.assert_array_equal(found[PLAIN][1].image[::2, ::2], cropping.resize(square, 16, 16, "box"))


@pytest.mark.parametrize(("h", "w"), [(100, 200), (181, 100)])
def test_long_boxes_are_left_out(h, w):
    assert counts(coordinates(h, w), (0, 0, w, h)) == (0, 0, 0)


@pytest.mark.parametrize(("w", "expected"), [(115, (2, 0)), (125, (2, 0)), (130, (3, 2)), (150, (2, 0))])
def test_limits_of_aspect_ratios_are_those_of_the_original(w, expected):
    """At 1.15 and 1.25 no large crop is made; 1.3 and 1.5 belong to the wider shape."""
    found = whole(100, w)
    assert (len(found[PLAIN]), len(found[TURNED])) == expected


# ------------------------------------------------------------------ the box that does not grow


@pytest.mark.parametrize(
    ("w", "h", "plain", "turned"),
    [
        (56, 40, 2, 2),  # 1.4: two ends of both sizes
        (52, 42, 0, 0),  # 1.24: none
        (64, 40, 0, 0),  # 1.6: none
        (40, 42, 0, 0),  # 1 / 1.05: none
        (40, 50, 1, 1),  # 1 / 1.25: its top
        (40, 62, 1, 1),
        (40, 66, 0, 0),  # 1 / 1.65: none
    ],
)
def test_a_loose_box_is_cut_where_it_is_another(w, h, plain, turned):
    photo, box = coordinates(240, 240), (90, 80, 90 + w, 80 + h)
    found = made(photo, box)
    assert (len(found[PLAIN]), len(found[TURNED]), len(found[MOVED])) == (1 + plain, 1 + turned, 1)
    xmin, ymin, xmax, ymax = multicrop.region(box, 240, 240, 0.12, grow=False)
    short = min(xmax - xmin, ymax - ymin)
    if plain:
        shows(found[PLAIN][1], xmin, ymin, xmin + short, ymin + short, near=3.0)
        shows(found[TURNED][-1], xmax - short, ymin, xmax, ymin + short, near=1.6)


def test_a_loose_box_is_twelve_percent_larger_and_its_top_is_kept():
    """40 x 50 becomes 45 x 56: corners 2.4 and 3 pixels out, fractions cut off."""
    photo = coordinates(240, 240)
    found = made(photo, (90, 80, 130, 130))
    top = photo[77 : 77 + 45, 87:132]
    np.testing.assert_array_equal(found[TURNED][1].image, cropping.resize(top, 32, 32, "box"))
    np.testing.assert_array_equal(found[PLAIN][1].image[::2, ::2], cropping.resize(top, 16, 16, "box"))


def test_a_loose_box_must_have_the_full_size():
    """31 become 34 (enough) and 27 become 30; the grown square has 40."""
    assert counts(coordinates(200, 200), (60, 60, 91, 100)) == (2, 2, 1)
    assert counts(coordinates(200, 200), (60, 60, 87, 100)) == (1, 1, 1)


# ------------------------------------------------------------------ the recipe


def test_every_dog_of_a_photo_and_the_whole_photo_without_boxes():
    photo = coordinates(200, 240)
    one, two = (20, 20, 60, 60), (100, 100, 164, 164)
    both = multicrop.multicrop(photo, [one, two], size=SIZE)
    alone = [kept for box in (one, two) for kept in multicrop.multicrop(photo, [box], size=SIZE)]
    assert len(both) == 6
    for kept, other in zip(both, alone, strict=True):
        np.testing.assert_array_equal(kept.image, other.image)
    assert counts(photo) == counts(photo, (0, 0, 240, 200)) == (2, 1, 1)


def test_boxes_beyond_the_photo_are_clipped_and_empty_ones_left_out():
    photo = coordinates(100, 100)
    assert counts(photo, (-20, -20, 50, 50)) == counts(photo, (0, 0, 50, 50))
    assert counts(photo, (120, 20, 160, 60), (30, 30, 30, 70)) == (0, 0, 0)


@pytest.mark.long
def test_plain_crops_are_restored_exactly_and_large_ones_are_rotated():
    """Augmentation of each crop type: PLAIN crops are restored exactly, for any random key."""
    photo = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    found = multicrop.multicrop(photo, [(8, 8, 72, 72)], size=SIZE)
    image = np.stack([kept.image for kept in found]).astype(np.float32) / 127.5 - 1.0
    crop_type = np.array([kept.crop_type for kept in found], np.int32)
    n = len(found)
    ints = np.zeros(n, np.int32)
    batch = types.Batch(image, ints, np.full((n, 2), SIZE, np.int32), crop_type, np.zeros(n, np.float32))
    batch = types.Batch(*map(jnp.asarray, batch))
    out = transforms.shift_scale_rotate(
        jax.random.key(0), batch, HALF, shift=(0.0, 0.0, 0.06), scale_min=(1.0, 0.9, 0.94),
        scale_max=(1.0, 1.1, 1.18), degrees=(0.0, 8.0, 6.0), zoom=1.125, zoom_p=0.0,
    ).image  # fmt: skip
    still = resample.resize(batch.image, HALF, "box")
    apart = np.abs(out - still).max((1, 2, 3))
    assert (apart[crop_type == PLAIN] == 0).all() and (apart[crop_type != PLAIN] > 0.1).all()
    (plain,) = (kept.image for kept in found if kept.crop_type == PLAIN)
    np.testing.assert_array_equal(np.rint((out[crop_type == PLAIN][0] + 1.0) * 127.5), plain[::2, ::2])


def test_crop_types_and_their_sizes_in_the_original():
    keywords = inspect.signature(multicrop.multicrop).parameters
    assert keywords["both_sides"].default is False and keywords["resampler"].default == "lanczos"
    photo = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    found = multicrop.multicrop(photo, [(20, 30, 220, 230)], size=128)
    assert [kept.crop_type for kept in found] == [MOVED, PLAIN, TURNED]
    expected = cropping.resize(photo[30:230, 20:220], 64, 64, "lanczos")
    np.testing.assert_array_equal(found[1].image, multicrop.doubled(expected))


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="size is 33, and must be even"):
        multicrop.multicrop(coordinates(50, 50), (), size=33)


@pytest.mark.slow
def test_real_photos(real_data):
    """Every tenth one. Cut to their dogs they have no room to grow, so the three boxes are one."""
    found, dogs = collections.Counter(), 0
    with tarfile.open(real_data / "stanford_dogs" / "images.tar") as archive:
        for entry in [entry for entry in archive if entry.isfile()][::10]:
            file = archive.extractfile(entry)
            assert file is not None
            photo = photos.decode(file.read())
            box = (0, 0, photo.shape[1], photo.shape[0])
            dogs += 1
            found.update(kept.crop_type for kept in multicrop.multicrop(photo, [box], size=128))
    assert dogs == 1855 and found == {PLAIN: 3290, TURNED: 1356, MOVED: 1356}
