"""Odd files through every way in which photos are read: no traceback, and nothing is left out silently."""

import os
import pathlib
import re

import numpy as np
import pytest

from jaxdog.cleaning import filters
from jaxdog.data import crop_dataset, crop_recipes, image_files, photos, tables
from jaxdog.evaluation import score_files, score_inputs, score_sides
from jaxdog.utils import errors
from tests.data import odd_files

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Pillow warns of damage that it can mend
    pytest.mark.skipif(os.name == "nt", reason="Windows does not allow such names"),
]
COUNT = re.compile(r"^left out as .*?: ([\d,]+) \(", re.DOTALL)


def read(photo: photos.Photo) -> tuple[str, object]:
    """The name of a photo, and its pixels or why it cannot be read."""
    try:
        image = photo.read()
    except OSError as error:
        return photo.name, str(error)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return photo.name, (image.shape, image.tobytes())


def squash(photo: np.ndarray, boxes, *, size: int = 8) -> list[photos.Crop]:
    return crop_recipes.squash(photo, boxes, size=size)


@pytest.fixture(scope="module", params=[140, pytest.param(1000, marks=pytest.mark.long)])
def odd(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, odd_files.Files]:
    """A folder with the odd files in dogs/ and in dogs.zip."""
    folder, made = tmp_path_factory.mktemp("odd"), odd_files.make(request.param)
    odd_files.write_folder(folder / "dogs", made)
    odd_files.write_zip(folder / "dogs.zip", made)
    return folder, made


def test_a_folder_and_a_zip_give_the_same(odd):
    folder, made = odd
    sources = [image_files.source(folder / name) for name in ("dogs", "dogs.zip")]
    of_folder, of_zip = ([read(photo) for photo in source.photos] for source in sources)
    assert of_folder == of_zip
    for one, other in zip(sources[0].photos, sources[1].photos, strict=True):
        assert (one.label, one.num_bytes) == (other.label, other.num_bytes)
    assert sources[0].class_names == sources[1].class_names == ("class 0", "class 1", "class 2")
    assert sources[0].notes == sources[1].notes
    counts = [COUNT.match(note) for note in sources[0].notes]
    left_out = sum(int(count[1].replace(",", "")) for count in counts if count)
    assert all(counts) and len(of_folder) + left_out == len(made)
    broken = [reason for _, reason in of_folder if isinstance(reason, str)]
    assert len(made) / 4 < len(broken) < len(made) / 2
    assert all(re.match(r"^(\w+: |it has |its pixels )", reason) for reason in broken), broken
    with pytest.raises(errors.UserError, match="of the .* photos of .*dogs.* are broken, more than the [58]"):
        crop_dataset.load(sources[0], squash, "squash", None)


@pytest.fixture(scope="module")
def mostly_good(odd) -> tuple[pathlib.Path, list[str], list[str]]:
    """A folder with few.zip and few/: the photos that can be read and five that cannot; both as names."""
    folder, made = odd
    source = image_files.source(folder / "dogs")
    results = [(name, isinstance(found, str)) for name, found in map(read, source.photos)]
    good, bad = ([name for name, is_bad in results if is_bad == want] for want in (False, True))
    escaped = {name.replace("\n", "\\n").replace("\t", "\\t"): name for name in made}
    files = {escaped[name]: made[escaped[name]] for name in (*good, *bad[:5])}
    odd_files.write_folder(folder / "few", files)
    odd_files.write_zip(folder / "few.zip", files)
    return folder, good, bad[:5]


@pytest.mark.parametrize("name", ["few", "few.zip"])
def test_training_and_clean_read_them(mostly_good, tmp_path, name):
    folder, good, bad = mostly_good
    source = image_files.source(folder / name)
    crops = crop_dataset.load(source, squash, "squash", tmp_path)
    assert sorted(line.split(": ")[0] for line in crops.broken) == sorted(bad)
    assert [crops.names[i] for i in crops.photo] == [x for x in crops.names if x not in bad]
    assert len(crops.image) == len(good) and crops.notes == ()
    facts = filters.measure(source, crops)
    assert (facts.photo_size > 0).all() and (facts.num_bytes > 0).all()
    reasons = filters.find_reasons(crops, facts, filters.Settings())
    table = filters.to_table(crops, facts, reasons, np.full(len(good), tables.NONE))
    tables.write(tmp_path / "clean.csv", table)
    assert tables.read(tmp_path / "clean.csv").file == table.file
    np.testing.assert_array_equal(
        tables.match_rows(tables.read(tmp_path / "clean.csv"), crops), range(len(good))
    )


def test_score_reads_the_same_from_both(mostly_good):
    folder, good, bad = mostly_good
    found = []
    for name in ("few", "few.zip"):
        side = score_sides.open_side(folder / name)
        assert side.source is not None
        data = np.concatenate(list(score_files._images(side.source, 8, score_files.Options())))
        assert len(data) == len(good)
        assert score_files.omissions("real", side.source, len(data)) == [
            f"real images left out as broken: {len(bad)} of {len(good) + len(bad)} (see the log)"
        ]
        some = score_inputs.open_images(folder / name, 10, "real")
        assert isinstance(some, photos.Source) and len(some.photos) == 10
        found.append((data.tobytes(), [photo.name for photo in some.photos]))
    assert found[0] == found[1]
