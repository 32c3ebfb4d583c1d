"""Boxes and pixels are checked on photos whose pixels say where they are: photo[y, x] = (x, y, 7)."""

import functools

import numpy as np
import pytest
from PIL import Image

from jaxdog.data import cropping


def coordinates(h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8)


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def xs(image: np.ndarray) -> list[int]:
    return image[0, :, 0].tolist()


def ys(image: np.ndarray) -> list[int]:
    return image[:, 0, 1].tolist()


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
        (got,) = cropping.box_square(photo, [(30, 20, 62, 52)], size=32, mode=mode, pad_mode=pad_mode)
        np.testing.assert_array_equal(got, photo[20:52, 30:62])


def test_grow_takes_what_the_photo_has_evenly():
    (got,) = cropping.box_square(coordinates(100, 100), [(40, 30, 50, 50)], size=20, mode="grow")
    assert xs(got) == list(range(35, 55))
    assert ys(got) == list(range(30, 50))
    (got,) = cropping.box_square(coordinates(100, 100), [(30, 40, 50, 51)], size=20, mode="grow")
    assert ys(got) == list(range(35, 55))  # 9 rows to add: the odd one above


def test_grow_shifts_at_the_border():
    (low,) = cropping.box_square(coordinates(100, 100), [(2, 30, 12, 50)], size=20, mode="grow")
    assert xs(low) == list(range(0, 20))
    (high,) = cropping.box_square(coordinates(100, 100), [(30, 88, 50, 98)], size=20, mode="grow")
    assert ys(high) == list(range(80, 100))


def test_what_cannot_grow_is_squashed_or_padded():
    photo, box = coordinates(40, 16), (5, 4, 11, 36)  # 32 high in a photo 16 wide
    (squashed,) = cropping.box_square(photo, [box], size=32, mode="grow", pad_mode="none", resampler="box")
    np.testing.assert_array_equal(squashed, cropping.resize(photo[4:36], 32, 32, "box"))
    (padded,) = cropping.box_square(photo, [box], size=32, mode="grow", pad_mode="reflect")
    mirrored = np.pad(photo[4:36], ((0, 0), (8, 8), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(padded, mirrored)
    (black,) = cropping.box_square(photo, [box], size=32, mode="grow", pad_mode="black")
    np.testing.assert_array_equal(black, np.pad(photo[4:36], ((0, 0), (8, 8), (0, 0))))


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("grow", [(27, 47), (0, 20), (80, 100), (27, 48)]),
        ("grow_high", [(28, 48), (0, 20), (83, 100), (27, 48)]),
        ("grow_evenly", [(28, 47), (0, 15), (85, 100), (27, 48)]),
    ],
)
def test_three_ways_to_grow_differ_by_an_odd_pixel_and_at_the_borders(mode, rows):
    """9 pixels missing: in the middle, at the top, at the bottom; 8 missing in the middle."""
    wide = [(30, 32, 50, 43), (30, 2, 50, 13), (30, 87, 50, 98), (30, 31, 51, 44)]
    got = [cropping.grow(box, 100, 100, mode) for box in wide]
    assert [(box[1], box[3]) for box in got] == rows
    tall = [cropping.grow((ymin, xmin, ymax, xmax), 100, 100, mode) for xmin, ymin, xmax, ymax in wide]
    assert [(box[0], box[2]) for box in tall] == rows


def test_pad_is_centred_on_the_box_and_may_leave_the_photo():
    photo, box = coordinates(60, 60), (2, 10, 12, 50)  # the square is x from -13 to 27
    (black,) = cropping.box_square(photo, [box], size=40, mode="pad", pad_mode="black")
    np.testing.assert_array_equal(black[:, 13:], photo[10:50, 0:27])
    assert not black[:, :13].any()
    (mirrored,) = cropping.box_square(photo, [box], size=40, mode="pad", pad_mode="reflect")
    assert xs(mirrored) == [abs(x) for x in range(-13, 27)]
    # Pillow's own crop pads with black in the same way (the deck's LSGAN recipe).
    theirs = np.asarray(Image.fromarray(photo).crop((-13, 10, 27, 50)))
    np.testing.assert_array_equal(black, theirs)


def test_reflection_of_a_photo_much_smaller_than_the_square():
    photo = coordinates(40, 3)
    (got,) = cropping.box_square(photo, [(0, 0, 3, 40)], size=40, mode="pad", pad_mode="reflect")
    np.testing.assert_array_equal(got, np.pad(photo, ((0, 0), (19, 18), (0, 0)), mode="reflect"))
    (thin,) = cropping.box_square(photo[:, :1], [(0, 0, 1, 40)], size=40, mode="pad", pad_mode="reflect")
    assert xs(thin) == [0] * 40


def test_clip_squashes_the_plain_box():
    photo = noise(50, 50)
    (got,) = cropping.box_square(photo, [(10, 5, 20, 45)], size=16, mode="clip")
    np.testing.assert_array_equal(got, cropping.resize(photo[5:45, 10:20], 16, 16, "lanczos"))


def test_center_keeps_the_middle_of_the_long_side():
    photo = coordinates(100, 100)
    (got,) = cropping.box_square(photo, [(20, 10, 40, 70)], size=20, mode="center")
    assert xs(got) == list(range(20, 40))
    assert ys(got) == list(range(30, 50))


def test_boxes_beyond_the_photo_are_clipped_and_those_outside_dropped():
    photo = coordinates(40, 40)
    boxes = [(-5, -9, 20, 20), (30, 30, 55, 60), (50, 50, 60, 60), (10, 10, 10, 30)]
    got = cropping.box_square(photo, boxes, size=20, mode="grow", pad_mode="none")
    assert len(got) == 2
    np.testing.assert_array_equal(got[0], photo[:20, :20])


@pytest.mark.parametrize(("which", "first"), [("all", [0, 20, 40]), ("first", [0]), ("last", [40])])
def test_which_boxes(which, first):
    boxes = [(x, 0, x + 10, 10) for x in (0, 20, 40)]
    got = cropping.box_square(coordinates(60, 60), boxes, size=10, which=which)
    assert [image[0, 0, 0] for image in got] == first


def test_no_box_means_the_whole_photo():
    photo = noise(32, 32)
    (got,) = cropping.box_square(photo, [], size=32)
    np.testing.assert_array_equal(got, photo)


def test_margin_in_pixels_and_as_a_fraction():
    photo = coordinates(100, 100)
    (pixels,) = cropping.box_square(photo, [(20, 30, 40, 50)], size=28, mode="clip", margin=4)
    assert (xs(pixels), ys(pixels)) == (list(range(16, 44)), list(range(26, 54)))
    (share,) = cropping.box_square(photo, [(20, 30, 40, 50)], size=24, mode="clip", margin=0.1)
    assert xs(share) == list(range(18, 42))
    (edge,) = cropping.box_square(photo, [(1, 30, 41, 70)], size=8, mode="clip", margin=10, resampler="box")
    np.testing.assert_array_equal(edge, cropping.resize(photo[20:80, 0:51], 8, 8, "box"))


def test_filters_see_the_box_without_its_margin():
    photo = noise(100, 100)
    boxes = [(0, 0, 30, 30), (0, 0, 31, 31), (0, 0, 40, 90)]
    keep = functools.partial(cropping.box_square, photo, boxes, size=8, margin=10)
    assert len(keep(min_side=31)) == 2
    assert len(keep(min_aspect=0.8, max_aspect=1.25)) == 2
    assert len(keep(max_aspect=2.25)) == 3
    assert len(keep(min_side=41)) == 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (dict(mode="grwo"), "mode is 'grwo'; it can be 'grow', 'grow_high', 'grow_evenly', 'pad'"),
        (dict(mode="pad"), "pad_mode is 'none'; it can be 'reflect', 'black'"),
        (dict(mode="clip", pad_mode="black"), "pad_mode is 'black'; it can be 'none'"),
        (dict(which="second"), "which is 'second'; it can be 'all', 'first', 'last'"),
        (dict(resampler="cubic"), "resampler is 'cubic'; it can be 'box', 'bilinear'"),
    ],
)
def test_wrong_choices_are_named(settings, match):
    with pytest.raises(ValueError, match=match):
        cropping.box_square(noise(9, 9), [(0, 0, 5, 5)], size=4, **settings)


def test_take_refuses_to_leave_the_photo_unpadded():
    with pytest.raises(ValueError, match=r"box \(-1, 0, 5, 5\) leaves the photo of 9 x 8"):
        cropping.take(noise(8, 9), (-1, 0, 5, 5))


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
    (got,) = cropping.squash(photo, [(0, 0, 5, 5)], size=64, resampler=ours)
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(photo).resize((64, 64), theirs)))


def test_short_side_center():
    (got,) = cropping.short_side_center(coordinates(20, 51), size=20)
    assert xs(got) == list(range(16, 36))  # 15.5 rounds to the even 16
    (small,) = cropping.short_side_center(noise(200, 90), size=64)
    assert small.shape == (64, 64, 3)


# ------------------------------------------------------------------ the crops of 2019's memorizers


def pillow(photo: np.ndarray, *sizes: tuple[int, int]) -> Image.Image:
    """The photo resized to each (w, h) in turn, as the cheats did it."""
    image = Image.fromarray(photo)
    for size in sizes:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image


@pytest.mark.parametrize(
    ("h", "w", "sizes"),
    [
        (100, 80, [(73, 91)]),  # 73 / 80 * 100 = 91.25
        (100, 74, [(400, 300), (73, 54)]),  # on the border of 0.74: squashed
        (200, 90, [(400, 300), (73, 54)]),
        (80, 100, [(91, 73)]),
        (90, 90, [(73, 73)]),
        (74, 100, [(300, 400), (54, 73)]),
        (375, 500, [(97, 73)]),  # the usual photo: 73 / 375 * 500 = 97.3
        (333, 500, [(300, 400), (54, 73)]),
    ],
)
def test_corner_is_the_top_left_mirrored(h, w, sizes):
    (got,) = cropping.corner(noise(h, w), [(0, 0, 3, 3)], size=64)
    want = pillow(noise(h, w), *sizes).crop((0, 0, 64, 64)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(got, np.asarray(want))


def test_corner_leaves_a_black_strip_of_ten_below_or_beside():
    white = np.full((300, 300, 3), 255, np.uint8)
    (tall,), (wide,) = cropping.corner(white[:, :200], size=64), cropping.corner(white[:200], size=64)
    assert not tall[54:].any() and (tall[:54] == 255).all()
    assert not wide[:, :10].any() and (wide[:, 10:] == 255).all()  # on the left, since it is mirrored


def test_top_left_square_of_each_box():
    photo = coordinates(90, 90)
    first, second = cropping.top_left_square(
        photo, [(10, 20, 42, 80), (-4, 5, 60, 37), (95, 0, 99, 9)], size=32
    )
    np.testing.assert_array_equal(first, photo[20:52, 10:42])
    np.testing.assert_array_equal(second, photo[5:37, 0:32])
    (whole,) = cropping.top_left_square(noise(40, 70), [], size=40)
    np.testing.assert_array_equal(whole, noise(40, 70)[:, :40])


def four_boxes(h: int, w: int, box: cropping.Box) -> list[tuple[float, float, float, float]]:
    """What the program of 2019 cut, one case after the other."""
    x0, y0, x1, y1 = box
    short = min(x1 - x0, y1 - y0)
    cuts: list = [(x0, y0, x0 + short, y0 + short), (x1 - short, y0, x1, y0 + short)]
    half = abs((x1 - x0) - (y1 - y0)) // 2
    if x1 - x0 >= y1 - y0:
        cuts.append((x0, max(y0 - half, 0), x1, min(y1 + half, h - 1)))
    else:
        cuts.append((max(x0 - half, 0), y0, min(x1 + half, w - 1), y1))
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    reach = min(w - x, h - y, x, y)
    left, top, right, bottom = x - reach, y - reach, x + reach, y + reach
    if left == 0:
        m = int(0.28 * min(w - right, h - bottom, top))
        cuts.append((left, top - m, right + 2 * m, bottom + m))
    elif right == w:
        m = int(0.28 * min(left, h - bottom, top))
        cuts.append((left - 2 * m, top - m, right, bottom + m))
    elif top == 0:
        m = int(0.28 * min(left, w - right, h - bottom))
        cuts.append((left - m, top, right + m, bottom + 2 * m))
    else:
        m = int(0.28 * min(left, w - right, top))
        cuts.append((left - m, top - 2 * m, right + m, bottom))
    return cuts


@pytest.mark.parametrize(
    "box",
    [(10, 20, 62, 50), (70, 5, 88, 75), (3, 2, 9, 79), (40, 3, 60, 9), (30, 50, 71, 80), (0, 0, 90, 80)],
)
def test_four_squares_of_each_box(box):
    photo = noise(80, 90)
    got = cropping.four_squares(photo, [box], size=24)
    cuts = four_boxes(80, 90, box)
    assert len(got) == len(cuts) == 4
    for image, cut in zip(got, cuts, strict=True):
        expected = Image.fromarray(photo).crop(cut).resize((24, 24), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_four_squares_leave_out_what_is_empty():
    photo = noise(80, 90)
    assert len(cropping.four_squares(photo, [], size=8)) == 4  # the whole photo
    assert cropping.four_squares(photo, [(95, 3, 99, 9)], size=8) == []  # beyond it
    assert len(cropping.four_squares(photo, [(0, 0, 1, 20), (5, 5, 30, 40)], size=8)) >= 4 + 3


def test_upper_middle_of_a_photo_100_wide():
    photo = noise(75, 100)
    (got,) = cropping.upper_middle(photo, size=64)
    np.testing.assert_array_equal(got, photo[:64, 18:82])
    (wide,) = cropping.upper_middle(noise(101, 200), size=64)  # int(101 / 2) = 50 high
    np.testing.assert_array_equal(wide, np.asarray(pillow(noise(101, 200), (100, 50)).crop((18, 0, 82, 64))))
    assert not wide[50:].any()


def test_every_recipe_makes_squares_of_uint8():
    for name, recipe in cropping.RECIPES.items():
        for resampler in cropping.RESAMPLERS:
            got = recipe(noise(23, 57), [(3, 1, 20, 22)], size=16, resampler=resampler)
            assert len(got) == (4 if name == "four_squares" else 1), (name, resampler)
            for image in got:
                assert image.shape == (16, 16, 3) and image.dtype == np.uint8, (name, resampler)


# ------------------------------------------------------------------ resamplers


def legacy_pixel(image: np.ndarray, y: int, x: int, h: int, w: int) -> np.ndarray:
    """One output pixel of TensorFlow 1's ResizeBilinear, written out."""
    f = np.float32
    sy, sx = f(y) * f(image.shape[0] / h), f(x) * f(image.shape[1] / w)
    top, left = int(np.floor(sy)), int(np.floor(sx))
    bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
    dy, dx = f(sy - f(top)), f(sx - f(left))
    p = image.astype(np.float32)
    upper = p[top, left] + (p[top, right] - p[top, left]) * dx
    lower = p[bottom, left] + (p[bottom, right] - p[bottom, left]) * dx
    return upper + (lower - upper) * dy


@pytest.mark.parametrize(("h", "w"), [(37, 50), (9, 90), (16, 16)])
def test_tf1_bilinear_against_a_loop_over_pixels(h, w):
    image = noise(h, w)
    loop = np.array([[legacy_pixel(image, y, x, 16, 16) for x in range(16)] for y in range(16)])
    np.testing.assert_array_equal(
        cropping.resize(image, 16, 16, "tf1-bilinear"), np.rint(loop).astype(np.uint8)
    )


def test_tf1_bilinear_against_another_implementation(real_data):
    check = np.load(real_data / "inception" / "port_check.npz")
    resized = check["resized"][0] * 128 + 128  # [299, 299, 3], of images[0], not rounded
    got = cropping.resize(check["images"][0], 299, 299, "tf1-bilinear")
    assert np.abs(got - resized).max() <= 0.5 + 1e-3


def test_tf1_bilinear_does_not_look_at_what_lies_between():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, 1::4] = 255  # 64 -> 16 reads columns 0, 4, 8, ... only
    assert not cropping.resize(stripes, 8, 16, "tf1-bilinear").any()
    assert cropping.resize(stripes, 8, 16, "bilinear").any()


def test_area_is_the_mean_over_each_pixels_area():
    image = noise(12, 20)
    blocks = image.reshape(4, 3, 5, 4, 3).astype(np.float64).mean((1, 3))
    assert np.abs(cropping.resize(image, 4, 5, "area") - blocks).max() <= 0.5 + 1e-4
    row = np.array([[[0], [90], [60]]], np.uint8).repeat(3, 2)  # 3 pixels into 2: weights 1, 1/2
    np.testing.assert_array_equal(cropping.resize(row, 1, 2, "area")[0, :, 0], [30, 70])
    flat = np.full((13, 29, 3), 201, np.uint8)
    np.testing.assert_array_equal(cropping.resize(flat, 16, 16, "area"), 201)


def test_area_is_opencvs_inter_area_when_shrinking():
    cv2 = pytest.importorskip("cv2", reason="opencv is not installed")
    image = noise(123, 211)
    theirs = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(cropping.resize(image, 64, 64, "area").astype(int) - theirs.astype(int)).max() <= 1


# ------------------------------------------------------------------ keys


def test_key_names_every_setting_and_defaults_as_if_given():
    plain = functools.partial(cropping.box_square, size=64)
    assert cropping.key(plain) == cropping.key(functools.partial(cropping.box_square, mode="grow", size=64))
    assert cropping.key(plain).startswith("box_square-v1(margin=0,")
    others = [
        dict(size=32),
        dict(size=64, margin=0.1),
        dict(size=64, which="last"),
        dict(size=64, min_side=2),
    ]
    keys = {cropping.key(functools.partial(cropping.box_square, **other)) for other in others} | {
        cropping.key(plain)
    }
    assert len(keys) == 5
    assert (
        cropping.key(functools.partial(cropping.squash, size=64)) == "squash-v1(resampler='lanczos',size=64)"
    )
