import functools
import io
import itertools
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxdog.data import cropped_boxes, cropping, multicrop, photos, toy


def encode(picture: Image.Image, kind: str, **settings) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **settings)
    return out.getvalue()


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)


# ------------------------------------------------------------------ decoding


def test_rgb_png_comes_back_exactly():
    np.testing.assert_array_equal(photos.decode(encode(Image.fromarray(pixels()), "PNG")), pixels())
    assert photos.size(encode(Image.fromarray(pixels()), "JPEG")) == (20, 30)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "WEBP"),
    ],
)
def test_every_colour_mode_becomes_rgb(mode, kind):
    red = Image.new("RGB", (16, 16), (200, 40, 40)).convert(mode)
    got = photos.decode(encode(red, kind))
    assert got.shape == (16, 16, 3) and got.dtype == np.uint8
    want = np.asarray(red.convert("RGB"))
    assert np.abs(got.astype(int) - want).max() <= 4  # JPEG and WebP lose a little


def test_transparency_lies_over_white():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (10, 20, 30, 255)
    got = photos.decode(encode(Image.fromarray(rgba), "PNG"))
    np.testing.assert_array_equal(got[:, :4], np.broadcast_to(np.uint8([10, 20, 30]), (8, 4, 3)))
    assert (got[:, 4:] == 255).all()
    palette = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (8, 1)), "P")
    palette.putpalette([40, 40, 40] * 8)
    clear = photos.decode(encode(palette, "PNG", transparency=bytes([0] + [255] * 7)))
    assert (clear[:, 0] == 255).all() and (clear[:, 1:] == 40).all()


def test_sixteen_bit_grey_is_scaled_to_eight():
    grey = np.array([[0, 256 * 100, 65535]], np.uint16)
    got = photos.decode(encode(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(got[0], [[0] * 3, [100] * 3, [255] * 3])


def test_upright_turns_as_exif_says_and_is_off_otherwise():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    data = encode(Image.fromarray(pixels()), "JPEG", exif=exif, quality=95)
    assert photos.decode(data).shape == (20, 30, 3)
    np.testing.assert_array_equal(photos.decode(data, upright=True), np.rot90(photos.decode(data), -1))


def test_broken_bytes_say_why():
    whole = encode(Image.fromarray(pixels()), "JPEG")
    png = encode(Image.fromarray(pixels()), "PNG")
    for data in (b"", b"no picture", whole[:2], whole[: len(whole) // 2], png[: len(png) // 2], png[:40]):
        with pytest.raises(photos.BrokenPhoto, match=r"^\w+: ."):
            photos.decode(data)
    with pytest.raises(photos.BrokenPhoto, match="cannot identify"):
        photos.size(b"no picture")


# ------------------------------------------------------------------ crops and their cache


def corner(photo: np.ndarray, boxes, *, size: int = 8) -> list[np.ndarray]:
    """A recipe: one crop per box."""
    return [np.ascontiguousarray(photo[y : y + size, x : x + size]) for x, y, _, _ in boxes]


def listed(n: int, broken: tuple[int, ...] = (), key: str = "listed") -> photos.Source:
    """n photos with one or two boxes, some of which cannot be read."""

    def photo(i: int) -> photos.Photo:
        def read() -> np.ndarray:
            if i in broken:
                raise photos.BrokenPhoto(f"photo number {i} is torn")
            return pixels(i)

        return photos.Photo(f"{i}.jpg", i % 3, ((1, 2, 9, 9), (3, 4, 9, 9))[: 1 + i % 2], read)

    return photos.Source(key, ("a", "b", "c"), [photo(i) for i in range(n)])


def same(a: photos.Crops, b: photos.Crops) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in photos.ARRAYS]
    arrays = all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)
    return arrays and (a.names, a.breeds, a.broken) == (b.names, b.breeds, b.broken)


def test_crops_are_in_the_order_of_photos_and_boxes(tmp_path):
    made = photos.crops(listed(7), corner, "corner", tmp_path, workers=4)
    assert made.image.shape == (10, 8, 8, 3) and made.image.dtype == np.uint8
    np.testing.assert_array_equal(made.photo, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6])
    np.testing.assert_array_equal(made.label, made.photo % 3)
    assert made.label.dtype == made.photo.dtype == np.int32
    np.testing.assert_array_equal(made.image[2], pixels(1)[4:12, 3:11])
    assert made.names == tuple(f"{i}.jpg" for i in range(7)) and made.breeds == ("a", "b", "c")
    assert same(made, photos.crops(listed(7), corner, "corner", tmp_path / "other", workers=1))


def test_the_second_time_comes_from_the_cache_alone(tmp_path):
    made = photos.crops(listed(7), corner, "corner", tmp_path)
    blind = photos.Source("listed", ("a", "b", "c"), [])
    assert same(made, photos.crops(blind, corner, "corner", tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_another_source_or_recipe_has_another_cache(tmp_path):
    paths = {photos.cache_path(s, r, tmp_path) for s, r in itertools.product("ab", "cd")}
    assert len(paths) == 4
    photos.crops(listed(3), corner, "corner(8)", tmp_path)
    small = photos.crops(listed(3), functools.partial(corner, size=4), "corner(4)", tmp_path)
    assert small.image.shape == (4, 4, 4, 3)


def test_a_cache_of_something_else_under_our_name_is_not_used(tmp_path, caplog):
    photos.crops(listed(3), corner, "one", tmp_path)
    other = photos.cache_path("listed", "two", tmp_path)
    os.replace(photos.cache_path("listed", "one", tmp_path), other)
    made = photos.crops(listed(5), corner, "two", tmp_path)
    assert len(made.names) == 5 and "made again" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_cache_is_made_again_with_a_message(tmp_path, caplog, damage):
    made = photos.crops(listed(9), corner, "corner", tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # inside the pictures
    path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b"", "text": b"hello"}[damage])
    assert same(made, photos.crops(listed(9), corner, "corner", tmp_path))
    assert "damaged" in caplog.text and str(path) in caplog.text
    caplog.clear()
    assert same(made, photos.crops(listed(9), corner, "corner", tmp_path)) and not caplog.text


def test_a_broken_photo_is_skipped_listed_and_remembered(tmp_path, caplog):
    made = photos.crops(listed(100, broken=(41,)), corner, "corner", tmp_path)
    assert made.broken == ("41.jpg: photo number 41 is torn",)
    assert 41 not in made.photo and len(made.image) == 148 and made.names[41] == "41.jpg"
    assert "41.jpg: photo number 41 is torn" in caplog.text
    assert photos.crops(listed(0), corner, "corner", tmp_path).broken == made.broken


def test_more_than_one_percent_broken_is_an_error_with_the_first_few(tmp_path):
    with pytest.raises(
        ValueError, match=r"2 of the 150 photos of listed are broken, more than 1%; the first: 7.jpg: photo"
    ):
        photos.crops(listed(150, broken=(7, 90)), corner, "corner", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_recipe_is_not_a_broken_photo(tmp_path):
    with pytest.raises(TypeError):
        photos.crops(listed(100), lambda photo: [photo], "wrong", tmp_path)


def test_a_recipe_that_keeps_nothing_says_so(tmp_path):
    with pytest.raises(ValueError, match="no crop of any of the 4 photos of listed.*Loosen"):
        photos.crops(listed(4), lambda photo, boxes: [], "nothing", tmp_path)
    with pytest.raises(ValueError, match="listed has no photos"):
        photos.crops(listed(0), corner, "corner", tmp_path)


def test_a_full_disk_costs_the_cache_only(tmp_path, caplog, monkeypatch):
    def full(file, **_):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    made = photos.crops(listed(4), corner, "corner", tmp_path)
    assert len(made.image) == 6
    assert "could not be cached" in caplog.text and "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    def stop(photo, boxes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        photos.crops(listed(50), stop, "stop", tmp_path)
    assert not list(tmp_path.iterdir())


RUN = textwrap.dedent("""
    import os, signal, sys, time, zipfile
    import numpy as np
    from jaxdog.data import crop, photos, toy

    how, folder = sys.argv[1:]
    if how == "decoding":
        def recipe(photo, boxes):
            print("at work", flush=True)
            time.sleep(30)
    else:
        recipe = lambda photo, boxes: crop.squash(photo, size=16)
    if how == "writing":  # dies with the file half written
        whole = np.savez
        def half(file, **arrays):
            whole(file, **arrays)
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        np.savez = half
    made = photos.crops(toy.dogs(40, 0, (32, 40)), recipe, "squash", folder)
    print(len(made.image), made.image.sum())
""")


def start(how: str, folder) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", RUN, how, str(folder)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["decoding", "writing"])
def test_killed_in_the_middle_leaves_no_half_cache(tmp_path, how):
    with start(how, tmp_path) as process:
        if how == "decoding":
            assert process.stdout is not None and "at work" in process.stdout.readline()
            process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert not list(tmp_path.glob("*.npz"))
    assert len(list(tmp_path.iterdir())) == (how == "writing")  # the temporary file
    for left in tmp_path.iterdir():
        os.utime(left, (0, time.time() - 2 * photos.STALE_SECONDS))
    made = photos.crops(toy.dogs(40, 0, (32, 40)), lambda p, b: [p[:16, :16].copy()], "squash", tmp_path)
    assert len(made.image) == 40
    (path,) = tmp_path.iterdir()  # complete, and the old temporary file is gone
    assert zipfile.ZipFile(path).testzip() is None


def test_two_processes_at_once_do_no_harm(tmp_path):
    with start("plain", tmp_path) as a, start("plain", tmp_path) as b:
        said = [process.communicate(timeout=60)[0] for process in (a, b)]
    assert said[0] == said[1] and said[0].startswith("40 ")
    (path,) = tmp_path.iterdir()
    assert zipfile.ZipFile(path).testzip() is None


def test_names_of_caches_can_be_read(tmp_path):
    name = photos.cache_path("tfds-stanford_dogs-0.2.0-train+test-5b07", "squash-v1(size=64)", tmp_path).name
    assert name.startswith("tfds-stanford_dogs-0-2-0-squash-v1-") and name.endswith(".npz")


def test_logs_are_the_librarys(caplog, tmp_path):
    with caplog.at_level(logging.WARNING, logger="jaxdog"):
        photos.crops(listed(100, broken=(3,)), corner, "corner", tmp_path)
    assert [record.name for record in caplog.records] == ["jaxdog.data.photos"]


def test_a_recipe_can_say_how_large_a_squashed_crop_was_and_of_which_kind(tmp_path):
    def recipe(photo, boxes):
        square = photo[:8, :8]
        return [square, photos.Kept(square, (30, 70), 2)]

    for _ in range(2):  # made, and then from the cache
        made = photos.crops(listed(2), recipe, "two", tmp_path)
        np.testing.assert_array_equal(made.extent, [[8, 8], [30, 70]] * 2)
        np.testing.assert_array_equal(made.kind, [0, 2] * 2)


# ------------------------------------------------------------------ which box a crop is of


def numbered(n: int) -> np.ndarray:
    """A photo in which every pixel differs from every other."""
    return np.random.default_rng(n).integers(0, 256, (60, 80, 3), np.uint8)


BOXES = ((2, 3, 30, 40), (5, 6, 70, 50), (10, 10, 20, 26))


@pytest.mark.parametrize(
    ("recipe", "places"),
    [
        (functools.partial(cropping.box_square, size=8), [0, 1, 2]),
        (functools.partial(cropping.box_square, size=8, which="first"), [0]),
        (functools.partial(cropping.box_square, size=8, which="last"), [2]),
        (functools.partial(cropping.box_square, size=8, min_side=20), [0, 1]),
        (functools.partial(cropping.box_square, size=8, max_aspect=1.0), [1]),
        (functools.partial(cropping.top_left_square, size=8), [0, 1, 2]),
        (functools.partial(cropped_boxes.box, size=8, max_aspect=1.4), [0, 1]),
        (functools.partial(cropped_boxes.box_and_photo, size=8), [0, 0, 1, 1, 2, 2]),
        (functools.partial(cropping.squash, size=8), [0]),
        (functools.partial(multicrop.multicrop, size=16), None),
    ],
)
def test_a_crop_knows_its_box_whatever_the_recipe(recipe, places):
    photo = numbered(0)
    source = photos.Source("one", ("a",), [photos.Photo("a.png", 0, BOXES, lambda: photo)])
    made = photos.crops(source, recipe, "r", None)
    if places is None:  # several of each box, some of a loosened one
        alone = [len(recipe(photo, [box])) for box in BOXES]
        places = np.repeat(range(3), alone).tolist()
    assert made.box is not None and made.box.dtype == np.int32
    assert list(map(tuple, made.box.tolist())) == [BOXES[i] for i in places]


def test_without_boxes_the_photo_is_the_box_and_what_is_of_no_box_too():
    made = photos.crops(
        listed(1)._replace(photos=[listed(1).photos[0]._replace(boxes=())]), crop_all, "r", None
    )
    assert made.box is not None and made.box.tolist() == [[0, 0, 30, 20]]
    photo, kept = pixels(), photos.Kept(pixels(1), (1, 1))
    two = [(0, 0, 9, 9), (3, 3, 9, 9)]
    mine = photos.Kept(photo[3:9, 3:9], (6, 6))
    got = photos.owners(lambda p, b: [p[y:9, x:9] for x, y, _, _ in b], photo, two, [kept, mine])
    assert got == [(0, 0, 30, 20), two[1]]


def crop_all(photo: np.ndarray, boxes) -> list[np.ndarray]:
    return [photo]


def test_some_crops_are_chosen_with_all_that_is_known_of_them():
    made = photos.crops(listed(7), corner, "corner", None)
    rows = np.array([4, 0, 9])
    got = photos.chosen(made, rows)
    for name in photos.ARRAYS:
        np.testing.assert_array_equal(getattr(got, name), getattr(made, name)[rows])
    assert got.names == made.names and got.breeds == made.breeds
    assert photos.chosen(made._replace(box=None), made.label == 0).box is None
