"""Sheets show what they say: truncated latents, one class per row, the right photo, grids in order."""

from functools import partial

import jax
import numpy as np
import PIL.Image
import pytest

from jaxdog import sharding
from jaxdog.data import crop_dataset, crop_recipes, toy
from jaxdog.evaluation import copies
from jaxdog.metrics import copy_search
from jaxdog.render import decoding, sheets
from jaxdog.systems import sampling
from jaxdog.utils import errors, files, plots
from tests.render import fakes

KEY = jax.random.key(9)
LABEL = np.array([0, 1, 2, 1], np.int32)
CELL = 48  # 8x8 images are enlarged


def cells(sheet, rows, columns):
    """The images of a sheet, [rows, columns, 8, 8, 3]."""
    assert sheet.shape[0] == rows * CELL
    images = sheet[:, sheet.shape[1] - columns * CELL :].reshape(rows, CELL, columns, CELL, 3)
    return images.swapaxes(1, 2)[:, :, 3::6, 3::6]


def test_rows_of_z_are_samples_with_that_truncation():
    system, values = fakes.z_system(), (0.0, 1.5, 0.5)
    images = cells(sheets.truncation_sheet(system, {}, LABEL, KEY, values), 3, 4)
    keys = sampling.image_keys(KEY, 4)
    for row, truncation in zip(images, values, strict=True):
        z = np.asarray(sampling.latent(keys, fakes.DIM, truncation))
        np.testing.assert_array_equal(row, decoding.decode(system, {}, z, LABEL, keys))
    np.testing.assert_array_equal(images[0], decoding.sample(system, {}, keys, LABEL))
    assert (images[0] != images[2]).any()


def test_rows_of_w_approach_the_mean():
    system = fakes.w_system()
    images = cells(sheets.truncation_sheet(system, {}, LABEL, KEY, (1.0, 0.5, 0.0)), 3, 4).astype(int)
    np.testing.assert_array_equal(images[0], decoding.sample(system, {}, sampling.image_keys(KEY, 4), LABEL))
    assert (images[2] == images[2, :1]).all()  # the mean image
    half = (images[0] + images[2]) / 2  # images are linear in w
    assert np.abs(images[1] - half).max() <= 1
    expected = fakes.linear(np.zeros(1, np.float32), np.full((1, fakes.DIM), 0.5 * LABEL.mean(), np.float32))
    assert np.abs(images[2, 0] - np.asarray(sampling.to_uint8(expected))[0].astype(int)).max() < 8


def test_a_class_sheet_has_the_same_latents_in_every_row():
    system, names = fakes.z_system(), ("pug", "boxer", "collie")
    images = cells(sheets.class_sheet(system, {}, names, KEY, columns=5), 3, 5)
    keys = sampling.image_keys(KEY, 5)
    for i, row in enumerate(images):
        np.testing.assert_array_equal(row, decoding.sample(system, {}, keys, np.full(5, i, np.int32)))
    some = cells(sheets.class_sheet(system, {}, names, KEY, classes=(2, 0), columns=5), 2, 5)
    np.testing.assert_array_equal(some, images[[2, 0]])


def test_systems_without_latents_have_a_class_sheet_only():
    system = fakes.without_latents()
    images = cells(sheets.class_sheet(system, {}, ("a", "b"), KEY, columns=2), 2, 2)
    assert (images[0] == 128).all() and (images[1] == 115).all()
    with pytest.raises(errors.UserError, match="a truncation sheet needs a latent vector"):
        sheets.truncation_sheet(system, {}, LABEL, KEY)


def test_wrong_classes_are_named():
    with pytest.raises(errors.UserError, match=r"classes \[3\] and 8 columns: classes are 0 to 1"):
        sheets.class_sheet(fakes.z_system(), {}, ("a", "b"), KEY, classes=(1, 3))


def test_photos_are_cut_as_they_match(monkeypatch):
    photos = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    windows = np.array([[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.5, 0.5]], np.float32)
    match = copy_search.Match(np.array([3, 1]), windows, np.array([True, False]), np.ones(2))
    monkeypatch.setattr(copies, "CopySearch", lambda *photos: lambda *images: match)
    pairs = sheets.nearest_photos(images, photos, np.arange(5, dtype=np.int32), sharding.make_mesh(), 4)
    np.testing.assert_array_equal(pairs[:, 0], images)
    np.testing.assert_array_equal(pairs[:, 1], [photos[3, :4, 4:][:, ::-1], photos[1, :4, :4]])
    one = sheets.nearest_photos(images, photos, np.arange(5, dtype=np.int32), sharding.make_mesh(), 1)
    np.testing.assert_array_equal(one, pairs[:1])


@pytest.mark.long
def test_the_nearest_photo_of_a_crop_is_its_photo():
    recipe = partial(crop_recipes.whole_and_boxes, size=32)
    training = crop_dataset.load(toy.dogs(12), recipe, crop_recipes.cache_key(recipe), None)
    images = training.image[[3, 8], :, ::-1]  # mirrored
    pairs = sheets.nearest_photos(images, training.image, training.photo, sharding.make_mesh(), 4)
    assert pairs.shape == (2, 2, 32, 32, 3)
    np.testing.assert_array_equal(pairs[:, 0], images)
    assert np.abs(pairs[:, 1].astype(float) - images).mean() < 8


def test_pairs_lie_beside_each_other():
    pairs = np.random.default_rng(0).integers(0, 255, (3, 2, 8, 8, 3), dtype=np.uint8)
    sheet = sheets.pair_sheet(pairs, columns=2, gap=4)
    assert sheet.shape == (20, 36, 3)
    np.testing.assert_array_equal(sheet[12:20, 8:16], pairs[2, 1])
    np.testing.assert_array_equal(sheet[:8, 20:28], pairs[1, 0])
    assert (sheet[8:12] == 255).all() and (sheet[:, 16:20] == 255).all() and (sheet[12:, 20:] == 255).all()
    assert sheets.pair_sheet(pairs[:1], gap=0).shape == (8, 16, 3)


def test_a_timelapse_has_the_grids_in_order(tmp_path, caplog):
    def save(step, size, color):
        grid = plots.grid(np.full((40, size, size, 3), color, np.uint8), 10)
        PIL.Image.fromarray(grid).save(tmp_path / f"grid_{step}.png")

    assert sheets.timelapse(tmp_path) is None
    save(500, 4, 1)
    assert sheets.timelapse(tmp_path) is None
    for i, step in enumerate((1000, 2000, 10_000)):
        save(step, 8, 2 + i)
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "final_10000.png")
    frames = sheets.timelapse(tmp_path, rows=3)
    assert frames.shape == (4, 24, 80, 3) and frames[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert sheets.timelapse(tmp_path, max_frames=2)[:, 0, 0, 0].tolist() == [1, 4]
    (tmp_path / "grid_1000.png").write_bytes(b"\x89PNG")
    assert sheets.timelapse(tmp_path)[:, 0, 0, 0].tolist() == [1, 3, 4]
    assert "grid_1000.png is left out of the timelapse: UnidentifiedImageError" in caplog.text


def test_a_timelapse_has_no_grids_of_other_folders_and_no_giant_ones(tmp_path, monkeypatch, caplog):
    """The report of a stranger's run shows it."""
    grids = tmp_path / "run" / "grids"
    grids.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    for step in (1, 2, 3):
        PIL.Image.fromarray(image if step == 3 else np.zeros_like(image)).save(grids / f"grid_{step}.png")
    PIL.Image.fromarray(image).save(tmp_path / "mine.png")
    (grids / "grid_4.png").symlink_to(tmp_path / "mine.png")
    frames = sheets.timelapse(grids)
    assert frames is not None and len(frames) == 3 and "is a link to a file outside of" in caplog.text
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 1000)
    frames = sheets.timelapse(grids)
    assert frames is not None and len(frames) == 2 and "is larger than 1,000 bytes" in caplog.text
