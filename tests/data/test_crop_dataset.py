import errno
import functools
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

from jaxdog.data import crop_dataset, crop_recipes, crop_recipes_2019, multicrop, photos, sources, toy
from jaxdog.utils import errors, files
from tests.data.drawn_photos import noise


def pixels(seed: int = 0) -> np.ndarray:
    return noise(20, 30, seed)


def corner(photo: np.ndarray, boxes, *, size: int = 8) -> list[photos.Crop]:
    """A recipe: one crop per box."""
    return [
        photos.Crop(np.ascontiguousarray(photo[box[1] : box[1] + size, box[0] : box[0] + size]), box=box)
        for box in boxes
    ]


def listed(n: int, broken: tuple[int, ...] = (), key: str = "listed") -> photos.Source:
    """n photos with one or two boxes, some of which cannot be read."""

    def photo(i: int) -> photos.Photo:
        def read() -> np.ndarray:
            if i in broken:
                raise photos.BrokenPhotoError(f"photo number {i} is torn")
            return pixels(i)

        return photos.Photo(f"{i}.jpg", i % 3, ((1, 2, 9, 9), (3, 4, 9, 9))[: 1 + i % 2], read)

    return photos.Source(key, ("a", "b", "c"), [photo(i) for i in range(n)])


def same(a: crop_dataset.CropDataset, b: crop_dataset.CropDataset) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in crop_dataset.ARRAYS]
    arrays = all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)
    return arrays and (a.names, a.class_names, a.broken) == (b.names, b.class_names, b.broken)


def test_crops_are_in_the_order_of_photos_and_boxes(tmp_path):
    made = crop_dataset.load(listed(7), corner, "corner", tmp_path, workers=4)
    assert made.image.shape == (10, 8, 8, 3) and made.image.dtype == np.uint8
    np.testing.assert_array_equal(made.photo, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6])
    np.testing.assert_array_equal(made.label, made.photo % 3)
    assert made.label.dtype == made.photo.dtype == np.int32
    np.testing.assert_array_equal(made.image[2], pixels(1)[4:12, 3:11])
    assert made.names == tuple(f"{i}.jpg" for i in range(7)) and made.class_names == ("a", "b", "c")
    assert same(made, crop_dataset.load(listed(7), corner, "corner", tmp_path / "other", workers=1))


def test_a_stream_has_the_same_images_in_batches():
    made = crop_dataset.load(listed(7, broken=(3,)), corner, "corner", None)
    batches = list(crop_dataset.stream(listed(7, broken=(3,)), corner, 3))
    assert [len(batch.image) for batch in batches] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in batches]), made.image)
    np.testing.assert_array_equal(np.concatenate([batch.label for batch in batches]), made.label)
    with pytest.raises(ValueError, match="At least 4 of the 7 photos of listed are broken"):
        list(crop_dataset.stream(listed(7, broken=(0, 2, 4, 6)), corner, 3))


def test_a_stream_reads_few_photos_ahead(monkeypatch):
    """Whatever the source's size: the rest is read when it is asked for."""
    monkeypatch.setattr(photos, "AHEAD", 2)
    monkeypatch.setattr(photos.os, "cpu_count", lambda: 3)
    seen: list[int] = []

    def photo(i: int) -> photos.Photo:
        seen.append(i)
        return listed(40).photos[i]

    source = listed(40)._replace(photos=sources.Lazy(40, photo))
    stream = crop_dataset.stream(source, corner, 4)
    for batch in range(1, 4):
        next(stream)
        assert 4 * batch // 2 <= len(seen) <= 4 * batch + 2 * 3 + 1
    stream.close()
    assert len(seen) < 40


def test_a_stream_of_two_sizes_is_refused_where_it_comes_to_them():
    stream = crop_dataset.stream(listed(7), lambda image, boxes: [photos.Crop(image[len(boxes) :])], 1)
    with pytest.raises(ValueError, match="have different sizes, such as"):
        list(stream)


def test_the_second_load_only_reads_the_cache(tmp_path):
    made = crop_dataset.load(listed(7), corner, "corner", tmp_path)
    blind = photos.Source("listed", ("a", "b", "c"), [])
    assert same(made, crop_dataset.load(blind, corner, "corner", tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_cache_of_another_version_is_made_again(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as old:
        old.setattr(crop_dataset, "FORMAT", crop_dataset.FORMAT - 1)
        made = crop_dataset.load(listed(3), corner, "corner", tmp_path)
    assert same(made, crop_dataset.load(listed(3), corner, "corner", tmp_path))
    assert "another version wrote it" in caplog.text and "damaged" not in caplog.text


def test_another_source_or_recipe_has_another_cache(tmp_path):
    paths = {crop_dataset.cache_path(s, r, tmp_path) for s, r in itertools.product("ab", "cd")}
    assert len(paths) == 4
    crop_dataset.load(listed(3), corner, "corner(8)", tmp_path)
    small = crop_dataset.load(listed(3), functools.partial(corner, size=4), "corner(4)", tmp_path)
    assert small.image.shape == (4, 4, 4, 3)


def test_a_cache_of_something_else_under_our_name_is_not_used(tmp_path, caplog):
    crop_dataset.load(listed(3), corner, "one", tmp_path)
    other = crop_dataset.cache_path("listed", "two", tmp_path)
    os.replace(crop_dataset.cache_path("listed", "one", tmp_path), other)
    made = crop_dataset.load(listed(5), corner, "two", tmp_path)
    assert len(made.names) == 5 and "recreated" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "compression", "encryption", "list"])
def test_a_damaged_cache_is_made_again_with_a_message(tmp_path, caplog, damage):
    made = crop_dataset.load(listed(9), corner, "corner", tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1  # inside the images
    directory = data.rindex(b"PK\x01\x02")  # of the last array
    if damage == "compression":
        data[directory + 10] ^= 64
    if damage == "encryption":
        data[directory + 8] ^= 1
    changed = {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello"}.get(damage, data)
    path.write_bytes(changed)
    if damage == "list":
        with path.open("wb") as file:
            np.savez(file, metadata=np.frombuffer(b"[1]", np.uint8))
    assert same(made, crop_dataset.load(listed(9), corner, "corner", tmp_path))
    assert "will be recreated" in caplog.text and str(path) in caplog.text
    caplog.clear()
    assert same(made, crop_dataset.load(listed(9), corner, "corner", tmp_path)) and not caplog.text


def test_a_broken_photo_is_skipped_listed_and_remembered(tmp_path, caplog):
    made = crop_dataset.load(listed(100, broken=(41,)), corner, "corner", tmp_path)
    assert made.broken == ("41.jpg: photo number 41 is torn",)
    assert 41 not in made.photo and len(made.image) == 148 and made.names[41] == "41.jpg"
    assert "41.jpg: photo number 41 is torn" in caplog.text
    assert crop_dataset.load(listed(0), corner, "corner", tmp_path).broken == made.broken


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_a_photo_that_cannot_be_read_now_is_not_left_out_for_ever(tmp_path, code):
    def read():
        raise OSError(code, os.strerror(code))

    source = listed(100)
    whole, source.photos[41] = source.photos[41], source.photos[41]._replace(read=read)
    with pytest.raises(errors.UserError, match=f"the photo 41.jpg cannot be read: {os.strerror(code)}"):
        crop_dataset.load(source, corner, "corner", tmp_path)
    source.photos[41] = whole
    assert not crop_dataset.load(source, corner, "corner", tmp_path).broken


def test_a_photo_of_which_no_crop_can_be_made_is_left_out_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(photos, "MAX_PIXELS", 1000)
    source = listed(7)
    source.photos[3] = source.photos[3]._replace(read=lambda: np.zeros((200, 1, 3), np.uint8))
    recipe = functools.partial(crop_recipes.short_side_center, size=8)
    made = crop_dataset.load(source, recipe, "center", tmp_path)
    assert made.photo.tolist() == [0, 1, 2, 4, 5, 6]
    (line,) = made.broken
    assert line.startswith("3.jpg: its long side is 200 times its short side")


def test_few_broken_photos_are_left_out_of_small_and_of_large_sets():
    counts = {1: 0, 2: 0, 3: 1, 10: 4, 11: 5, 38: 5, 500: 5, 600: 6, 20_580: 205, 38_000: 380}
    assert {n: crop_dataset.max_broken(n) for n in counts} == counts


def test_more_broken_photos_are_an_error_with_the_first_few(tmp_path):
    assert len(crop_dataset.load(listed(38, broken=(3, 5, 7, 9, 11)), corner, "corner", None).broken) == 5
    message = r"6 of the 38 photos of listed are broken, more than the 5 that are skipped: 3.jpg: ph"
    with pytest.raises(ValueError, match=message):
        crop_dataset.load(listed(38, broken=(3, 5, 7, 9, 11, 30)), corner, "corner", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_left_out_of_a_photo_is_named_also_from_the_cache(tmp_path, caplog):
    source = listed(7)
    noted = [photo._replace(notes=("left out: box (9, 9, 3, 3)",)) for photo in source.photos[:2]]

    def only_of_noise_1(photo, boxes):
        return corner(photo, boxes) if len(boxes) == 2 else []

    for photos_ in ([*noted, *source.photos[2:]], []):
        caplog.clear()
        made = crop_dataset.load(source._replace(photos=photos_), only_of_noise_1, "some", tmp_path)
        assert made.notes == (
            "0.jpg: left out: box (9, 9, 3, 3)",
            "1.jpg: left out: box (9, 9, 3, 3)",
            "the recipe makes no crop of 4 photos, such as 0.jpg",
        )
        assert all(note in caplog.text for note in made.notes)


def test_pixels_out_of_proportion_to_the_bytes_are_not_decoded(monkeypatch):
    monkeypatch.setattr(crop_dataset, "FREE_PIXELS", 3000)  # a photo has 600
    assert len(crop_dataset.load(listed(7), corner, "corner", None).image) == 10  # not files
    assert len(crop_dataset.load(listed(7)._replace(num_bytes=30), corner, "corner", None).image) == 10
    with pytest.raises(ValueError, match="have more than 3,000 pixels, but only 10 bytes"):
        crop_dataset.load(listed(7)._replace(num_bytes=10), corner, "corner", None)


def test_a_mistake_in_a_recipe_is_not_a_broken_photo(tmp_path):
    with pytest.raises(TypeError):
        crop_dataset.load(listed(100), lambda photo: [photo], "wrong", tmp_path)


def test_a_recipe_without_crops_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no crops of the 4 photos of listed.*Loosen"):
        crop_dataset.load(listed(4), lambda photo, boxes: [], "nothing", tmp_path)
    with pytest.raises(ValueError, match="listed has no photos"):
        crop_dataset.load(listed(0), corner, "corner", tmp_path)


def test_a_full_disk_only_prevents_caching(tmp_path, caplog, monkeypatch):
    def full(file, **_):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    made = crop_dataset.load(listed(4), corner, "corner", tmp_path)
    assert len(made.image) == 6
    assert "could not be cached" in caplog.text and "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    def stop(photo, boxes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_dataset.load(listed(50), stop, "stop", tmp_path)
    assert not list(tmp_path.iterdir())


RUN = textwrap.dedent("""
    import os, signal, sys, time, zipfile
    import numpy as np
    from jaxdog.data import crop_dataset, crop_recipes, toy

    how, folder = sys.argv[1:]
    if how == "decoding":
        def recipe(photo, boxes):
            print("at work", flush=True)
            time.sleep(30)
    else:
        recipe = lambda photo, boxes: crop_recipes.squash(photo, size=16)
    if how == "writing":  # dies with the file half written
        whole = np.savez
        def half(file, **arrays):
            whole(file, **arrays)
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        np.savez = half
    made = crop_dataset.load(toy.dogs(40, 0, (32, 40)), recipe, "squash", folder)
    print(len(made.image), made.image.sum())
""")


def start(how: str, folder) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", RUN, how, str(folder)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["decoding", "writing"])
def test_a_killed_process_leaves_no_partial_cache(tmp_path, how):
    with start(how, tmp_path) as process:
        if how == "decoding":
            assert process.stdout is not None and "at work" in process.stdout.readline()
            process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert not list(tmp_path.glob("*.npz"))
    assert len(list(tmp_path.iterdir())) == (how == "writing")  # the temporary file
    for left in tmp_path.iterdir():
        os.utime(left, (0, time.time() - 2 * files.STALE_SECONDS))
    made = crop_dataset.load(toy.dogs(40, 0, (32, 40)), first_pixels, "squash", tmp_path)
    assert len(made.image) == 40
    (path,) = tmp_path.iterdir()  # complete, and the old temporary file is gone
    assert zipfile.ZipFile(path).testzip() is None


def first_pixels(photo: np.ndarray, boxes) -> list[photos.Crop]:
    return [photos.Crop(photo[:16, :16].copy())]


def test_two_processes_can_make_the_cache_at_once(tmp_path):
    with start("plain", tmp_path) as a, start("plain", tmp_path) as b:
        outputs = [process.communicate(timeout=60)[0] for process in (a, b)]
    assert outputs[0] == outputs[1] and outputs[0].startswith("40 ")
    (path,) = tmp_path.iterdir()
    assert zipfile.ZipFile(path).testzip() is None


def test_cache_names_are_readable(tmp_path):
    name = crop_dataset.cache_path(
        "tfds-stanford_dogs-0.2.0-train+test-5b07", "squash-v1(size=64)", tmp_path
    ).name
    assert name.startswith("tfds-stanford_dogs-0-2-0-squash-v1-") and name.endswith(".npz")


def test_warnings_use_the_librarys_logger(caplog, tmp_path):
    with caplog.at_level(logging.WARNING, logger="jaxdog"):
        crop_dataset.load(listed(100, broken=(3,)), corner, "corner", tmp_path)
    assert [record.name for record in caplog.records] == ["jaxdog.data.crop_dataset"]


def test_a_recipe_can_say_how_large_a_squashed_crop_was_and_of_which_type(tmp_path):
    def recipe(photo, boxes):
        square = photo[:8, :8]
        return [photos.Crop(square), photos.Crop(square, (30, 70), 2)]

    for _ in range(2):  # made, and then from the cache
        made = crop_dataset.load(listed(2), recipe, "two", tmp_path)
        np.testing.assert_array_equal(made.original_size, [[8, 8], [30, 70]] * 2)
        np.testing.assert_array_equal(made.crop_type, [0, 2] * 2)


# ------------------------------------------------------------------ which box a crop is of


def numbered(n: int) -> np.ndarray:
    """A photo in which every pixel differs from every other."""
    return noise(60, 80, n)


BOXES = ((2, 3, 30, 40), (5, 6, 70, 50), (10, 10, 20, 26))


@pytest.mark.parametrize(
    ("recipe", "places"),
    [
        (functools.partial(crop_recipes.box_square, size=8), [0, 1, 2]),
        (functools.partial(crop_recipes.box_square, size=8, which="first"), [0]),
        (functools.partial(crop_recipes.box_square, size=8, which="last"), [2]),
        (functools.partial(crop_recipes.box_square, size=8, min_side=20), [0, 1]),
        (functools.partial(crop_recipes.box_square, size=8, max_aspect=1.0), [1]),
        (functools.partial(crop_recipes_2019.top_left_square, size=8), [0, 1, 2]),
        (functools.partial(crop_recipes.box, size=8, max_aspect=1.4), [0, 1]),
        (functools.partial(crop_recipes.box_and_photo, size=8), [0, 0, 1, 1, 2, 2]),
        (functools.partial(crop_recipes.around, size=8), [0, 1, 2]),
        (functools.partial(crop_recipes.squash, size=8), [0]),
        (functools.partial(crop_recipes.short_side_center, size=8), [0]),
        (functools.partial(crop_recipes.whole_and_boxes, size=8), [0, 0, 1, 2]),
        (functools.partial(crop_recipes_2019.corner, size=8), [0]),
        (functools.partial(crop_recipes_2019.four_squares, size=8), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (functools.partial(crop_recipes_2019.upper_middle_and_center, size=8), [0, 0]),
        (functools.partial(multicrop.multicrop, size=16), None),
    ],
)
def test_a_crop_knows_its_box_whatever_the_recipe(recipe, places):
    photo = numbered(0)
    source = photos.Source("one", ("a",), [photos.Photo("a.png", 0, BOXES, lambda: photo)])
    made = crop_dataset.load(source, recipe, "r", None)
    if places is None:  # several of each box, some of a loosened one
        alone = [len(recipe(photo, [box])) for box in BOXES]
        places = np.repeat(range(3), alone).tolist()
    assert made.box is not None and made.box.dtype == np.int32
    assert list(map(tuple, made.box.tolist())) == [BOXES[i] for i in places]


def test_a_crop_of_no_box_is_of_the_first_one_or_of_the_whole_photo():
    def crop_all(photo: np.ndarray, boxes) -> list[photos.Crop]:
        return [photos.Crop(photo)]

    with_box = listed(1)
    without = with_box._replace(photos=[with_box.photos[0]._replace(boxes=())])
    for source, box in ((with_box, [1, 2, 9, 9]), (without, [0, 0, 30, 20])):
        made = crop_dataset.load(source, crop_all, "r", None)
        assert made.box is not None and made.box.tolist() == [box]


def test_subset_selects_all_fields():
    made = crop_dataset.load(listed(7), corner, "corner", None)
    rows = np.array([4, 0, 9])
    got = crop_dataset.subset(made, rows)
    for name in crop_dataset.ARRAYS:
        np.testing.assert_array_equal(getattr(got, name), getattr(made, name)[rows])
    assert got.names == made.names and got.class_names == made.class_names
    assert crop_dataset.subset(made._replace(box=None), made.label == 0).box is None
