"""Dropped crops and reasons, the table clean.csv, and configs that train on it."""

import logging
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxdog.cleaning import filters
from jaxdog.config import build, library
from jaxdog.data import crop_dataset, crop_recipes, image_files, photos, select, sources, tables, toy
from jaxdog.utils import errors

ALL = filters.Settings(min_aspect=0.0, max_aspect=1e9, duplicates=False, near_duplicates=0.0)


def source(boxes: list[tuple[photos.Box, ...]], sizes: list[int] | None = None) -> photos.Source:
    """Photos of 60 x 100 pixels (h x w), each another, with these boxes and file sizes."""

    def photo(i: int) -> photos.Photo:
        def read() -> np.ndarray:
            return np.random.default_rng(i).integers(0, 256, (60, 100, 3), np.uint8)

        return photos.Photo(f"d/{i}.jpg", i % 2, boxes[i], read, 0 if sizes is None else sizes[i])

    return photos.Source("some", ("a", "b"), [photo(i) for i in range(len(boxes))])


def made(of: photos.Source, size: int = 8) -> crop_dataset.CropDataset:
    return crop_dataset.load(of, lambda p, b: crop_recipes.box(p, b, size=size), "box", None)


def reasons(of: photos.Source, settings: filters.Settings) -> list[str]:
    crops = made(of)
    return ["; ".join(why) for why in filters.find_reasons(crops, filters.measure(of, crops), settings)]


# ------------------------------------------------------------------ facts


def test_facts_have_box_photo_size_and_file_size():
    of = source([((10, 10, 60, 40), (0, 0, 100, 60)), ()], [700, 0])
    crops = made(of)

    def look(photo: np.ndarray, box: photos.Box) -> np.ndarray:
        xmin, ymin, xmax, ymax = box
        return photo[ymin:ymax, xmin:xmax].mean((0, 1))

    facts = filters.measure(of, crops, look, workers=2)
    assert facts.box.tolist() == [[10, 10, 60, 40], [0, 0, 100, 60], [0, 0, 100, 60]]
    assert facts.photo_size.tolist() == [[60, 100]] * 3 and facts.num_bytes.tolist() == [700, 700, 0]
    np.testing.assert_allclose(filters.area_fractions(facts), [0.25, 1, 1])
    first = of.photos[0].read()
    np.testing.assert_allclose(facts.view, [first[10:40, 10:60].mean((0, 1)), first.mean((0, 1)),
                                            of.photos[1].read().mean((0, 1))])  # fmt: skip
    assert filters.measure(of, crops).view is None
    with pytest.raises(ValueError, match="the boxes of these crops are unknown"):
        filters.measure(of, crops._replace(box=None))


def test_boxes_beyond_the_photo_are_clipped_and_may_be_empty():
    of = source([((-20, 50, 40, 90),)])
    crops = made(of)
    assert filters.measure(of, crops).box.tolist() == [[0, 50, 40, 60]]
    outside = crops._replace(box=np.array([[200, 10, 300, 20]], np.int32))
    facts = filters.measure(of, outside, lambda photo, box: np.array(box))
    assert np.asarray(facts.view).tolist() == [[0, 0, 100, 60]] and filters.area_fractions(
        facts
    ).tolist() == [0]
    (why,) = filters.find_reasons(outside, facts, ALL)
    assert why == ["side 0 px", "height / width 10"]


@pytest.mark.parametrize("kind", ["folder", "kaggle"])
def test_sources_of_files_know_their_size(tmp_path, kind):
    """Stanford Dogs through tfds is the slow test's."""
    folder = tmp_path / ("all-dogs" if kind == "kaggle" else "pug")
    folder.mkdir()
    for i in range(3):
        toy_photo = toy.dogs(3).photos[i].read()
        Image.fromarray(toy_photo).save(folder / f"n_{i}.jpg", quality=30 * (i + 1))
        (tmp_path / "Annotation" / "n-pug").mkdir(parents=True, exist_ok=True)
        (tmp_path / "Annotation" / "n-pug" / f"n_{i}").write_text("<annotation/>")
    found = sources.kaggle(tmp_path) if kind == "kaggle" else sources.folder(folder)
    assert [p.num_bytes for p in found.photos] == [(folder / f"n_{i}.jpg").stat().st_size for i in range(3)]
    assert (
        toy.dogs(1).photos[0].num_bytes
        == image_files.array("x", np.zeros((1, 2, 2, 3), np.uint8)).photos[0].num_bytes
        == 0
    )


# ------------------------------------------------------------------ filters


def test_sides_and_aspects_within_the_limits_are_kept():
    sides = [(20, 19), (20, 20), (20, 50), (21, 50), (100, 20), (99, 20)]
    of = source([((0, 0, w, h),) for w, h in sides])
    settings = ALL._replace(min_side=20, min_aspect=0.2, max_aspect=2.5)
    assert reasons(of, settings) == ["side 19 px", "", "", "", "", ""]
    settings = ALL._replace(min_aspect=0.202, max_aspect=2.4)
    assert reasons(of, settings) == ["", "", "height / width 2.5", "", "height / width 0.2", ""]
    assert reasons(of, ALL) == [""] * 6


def test_files_above_the_percentile_are_dropped_and_photos_count_once():
    """The median of 1, 2, 3, 9, 9 is 3, for any number of crops of the large files."""
    many = tuple((x, 0, x + 9, 9) for x in range(5))
    of = source([many[:1], many[:1], many[:1], many, many[:1]], [1, 2, 3, 9, 9])
    assert reasons(of, ALL._replace(max_bytes_percentile=50.0)) == [""] * 3 + ["file of 9 bytes"] * 6
    assert reasons(of, ALL) == [""] * 9
    with pytest.raises(ValueError, match="max_bytes_percentile is below 100, but these photos are not files"):
        reasons(source([many]), ALL._replace(max_bytes_percentile=99.0))


def test_the_blocklist_names_photos_or_crops(tmp_path, caplog):
    of = source([((0, 0, 9, 9), (0, 0, 30, 30)), ((0, 0, 9, 9), (0, 0, 30, 30)), ()])
    path = tmp_path / "blocklist.txt"
    path.write_text("# people\n\nd/0.jpg:1\r\n  d/2.jpg \nelse.jpg\n")
    with caplog.at_level(logging.INFO, "jaxdog"):
        assert reasons(of, ALL._replace(blocklist=str(path))) == ["", "blocklist", "", "", "blocklist"]
    assert "1 of the 3 names in" in caplog.text
    path.write_text("0.jpg\n")
    with pytest.raises(
        ValueError, match=r"none of the 1 names .* \('0.jpg', ...\); names look like 'd/0.jpg' or 'd/0"
    ):
        reasons(of, ALL._replace(blocklist=str(path)))
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        reasons(of, ALL._replace(blocklist=str(path)))
    with pytest.raises(FileNotFoundError, match="it should be a blocklist"):
        reasons(of, ALL._replace(blocklist=str(tmp_path / "none")))
    path.write_text("")
    assert reasons(of, ALL._replace(blocklist=str(path))) == [""] * 5


def test_names_on_the_blocklist_may_look_like_comments(tmp_path):
    of = source([((0, 0, 9, 9),)] * 4)
    names = ("#1.jpg", "#class/2.jpg", "a\u2028b.jpg", "3.jpg")
    of = of._replace(photos=[x._replace(name=name) for x, name in zip(of.photos, names, strict=True)])
    path = tmp_path / "blocklist.txt"
    path.write_text("#3.jpg\n#1.jpg\n#class/2.jpg:0\na\u2028b.jpg\n# 2.jpg\n", "utf-8")
    assert reasons(of, ALL._replace(blocklist=str(path))) == ["blocklist"] * 3 + [""]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (photos.BrokenPhotoError("torn"), "d/1.jpg, whose crops are known, cannot be read any more: torn"),
        (PermissionError(13, "Permission denied"), "the photo d/1.jpg cannot be read: Permission denied"),
    ],
)
def test_a_photo_that_broke_after_its_crops_were_made_is_named(error, message):
    of = source([((0, 0, 9, 9),)] * 3)
    crops = made(of)

    def read() -> np.ndarray:
        raise error

    listed = [*of.photos[:1], of.photos[1]._replace(read=read), *of.photos[2:]]
    with pytest.raises(errors.UserError, match=message):
        filters.measure(of._replace(photos=listed), crops)


def test_of_equal_crops_the_first_one_not_dropped_is_kept():
    of = source([((0, 0, 9, 9),), ((0, 0, 9, 9),), ((0, 0, 9, 9), (1, 1, 30, 30)), ((0, 0, 9, 9),)])
    same = of.photos[3]._replace(name="copy.jpg")
    of = of._replace(photos=[of.photos[3], *of.photos[1:3], same, same._replace(name="again.jpg")])
    settings = ALL._replace(duplicates=True)
    assert reasons(of, settings) == ["", "", "", "", "duplicate of d/3.jpg:0", "duplicate of d/3.jpg:0"]
    larger = of._replace(photos=[of.photos[0]._replace(num_bytes=9), *of.photos[1:]])
    expected = ["file of 9 bytes", "", "", "", "", "duplicate of copy.jpg:0"]
    assert reasons(larger, settings._replace(max_bytes_percentile=50.0)) == expected
    assert reasons(of, ALL) == [""] * 6


def test_crops_that_differ_in_one_pixel_are_not_duplicates():
    image = np.zeros((4, 3, 3, 3), np.uint8)
    image[2, 2, 2, 2] = 1
    assert filters.first_equal(image, np.ones(4, bool)).tolist() == [0, 0, 2, 0]
    assert filters.first_equal(image, np.array([False, True, True, True])).tolist() == [0, 1, 2, 1]


def test_groups_are_connected_components():
    assert filters.first_of_group(np.array([1, 0, 1, 0]), np.array([True, True, True, False])).tolist() == [
        0,
        0,
        0,
        3,
    ]
    rng = np.random.default_rng(0)
    for _ in range(20):
        other, alike = rng.integers(0, 30, 30), rng.random(30) < 0.5
        links = np.zeros((30, 30), bool) | np.eye(30, dtype=bool)
        links[np.flatnonzero(alike), other[alike]] = True
        reach = np.linalg.matrix_power((links | links.T).astype(float), 30) > 0
        assert filters.first_of_group(other, alike).tolist() == reach.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("min_side", 0, "min_side is 0, and must be from 1 to inf"),
        ("min_aspect", 5.0, "min_aspect is 5.0, and must be from 0 to 4"),
        ("min_aspect", float("nan"), "min_aspect is nan"),
        ("max_bytes_percentile", 101.0, "max_bytes_percentile is 101.0, and must be from 0 to 100"),
        ("near_duplicates", 1.5, "near_duplicates is 1.5, and must be from 0 to 1"),
        ("num_clusters", 0, "num_clusters is 0"),
        ("seed", -1, "seed is -1"),
        ("method", "dbscan", "method is 'dbscan'; choices: none, pixels, segments, features, labels"),
    ],
)
def test_invalid_settings_are_errors(field, value, message):
    filters.check(filters.Settings())
    with pytest.raises(ValueError, match=message):
        filters.check(filters.Settings()._replace(**{field: value}))


# ------------------------------------------------------------------ the table


@pytest.fixture
def drawn() -> tuple[crop_dataset.CropDataset, tables.Table]:
    """Crops of drawn dogs, some with two boxes; every third is dropped, clusters alternate."""
    of = toy.dogs(20)
    crops = made(of)
    assert len(crops.image) > 20
    why = [["side 3 px", "blocklist"] if i % 3 == 0 else [] for i in range(len(crops.image))]
    cluster = np.arange(len(why)) % 4 - 1
    return crops, filters.to_table(crops, filters.measure(of, crops), why, cluster)


def test_tables_round_trip(tmp_path, drawn):
    crops, rows = drawn
    path = tmp_path / "new" / "clean.csv"
    tables.write(path, rows)
    assert list(path.parent.iterdir()) == [path]
    read = tables.read(path)
    assert read.file == rows.file and read.reasons == rows.reasons
    for name in ("photo", "crop", "box", "keep", "cluster"):
        np.testing.assert_array_equal(getattr(read, name), getattr(rows, name))
    np.testing.assert_allclose(read.area_fraction, rows.area_fraction, atol=5e-5)
    lines = path.read_text().splitlines()
    assert lines[0] == "file,photo,crop,xmin,ymin,xmax,ymax,area_fraction,keep,cluster,reasons"
    box = ",".join(map(str, np.asarray(crops.box)[0].tolist()))
    assert lines[1] == f"toy_00000.png,0,0,{box},{rows.area_fraction[0]:.4f},0,,side 3 px; blocklist"
    np.testing.assert_array_equal(tables.match_rows(read, crops), range(len(crops.image)))


def test_a_table_changed_in_a_spreadsheet_is_read(tmp_path, drawn):
    """Another order of columns, a new one, quotes, a byte order mark, carriage returns."""
    crops, rows = drawn
    path = tmp_path / "clean.csv"
    tables.write(path, rows)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    turned = [",".join(f'"{cell}"' for cell in (line[::-1] + ["note"])) for line in lines]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(turned).encode() + b"\r\n")
    np.testing.assert_array_equal(tables.read(path).keep, rows.keep)


def test_names_with_commas_quotes_and_umlauts_round_trip(tmp_path, drawn):
    crops, rows = drawn
    named = rows._replace(file=tuple(f'a "b", ü{i}.jpg' for i in range(len(rows.file))))
    tables.write(tmp_path / "t.csv", named)
    assert tables.read(tmp_path / "t.csv").file == named.file


HEAD = ",".join(tables.COLUMNS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'file'; it needs: file, photo, crop"),
        (HEAD.replace("keep,", "") + "\n", "has no column 'keep'"),
        (HEAD + "\na.jpg,0,0,0,0,9,9,0.5,yes,,\n", "line 2: keep is 'yes', and must be 0 or 1"),
        (HEAD + "\na.jpg,0,0,0,0,9,9,0.5,1,,\na.jpg,0,0,0,0,9,9,0.5,1,red,\n", "line 3: invalid literal"),
        (HEAD + "\na.jpg,0,0,0,0,9,1" + 19 * "0" + ",0.5,1,,\n", "line 2: 10* is not a 64-bit integer"),
        (HEAD + "\na.jpg,0,0,0,0,9,9,0.5,1,-1" + 19 * "0" + ",\n", "line 2: -10* is not a 64-bit integer"),
        (HEAD + "\na.jpg,0,0,0,0\n", "line 2: its number of cells differs"),
        (HEAD + "\na.jpg,0,0,0,0,9,9,0.5,1,,,,,\n", "line 2: its number of cells differs"),
        (HEAD + '\n"a.jpg,0,0,0,0,9,9,0.5,1,,', "line 2: unexpected end of data"),
    ],
)
def test_errors_of_tables_name_the_line(tmp_path, text, message):
    path = tmp_path / "clean.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"clean.csv.* {message}"):
        tables.read(path)


# ------------------------------------------------------------------ training on it


def from_csv(crops: crop_dataset.CropDataset, path: pathlib.Path, **fields) -> crop_dataset.CropDataset:
    return select.from_csv(
        crops, **{"path": str(path), "keep": False, "clusters": (), "labels": "class", **fields}
    )


@pytest.fixture
def table(tmp_path, drawn) -> pathlib.Path:
    tables.write(tmp_path / "clean.csv", drawn[1])
    return tmp_path / "clean.csv"


def test_selection_by_keep_and_cluster(drawn, table):
    crops, rows = drawn
    for fields, wanted in [
        (dict(), np.ones(len(rows.keep), bool)),
        (dict(keep=True), rows.keep),
        (dict(clusters=(0, 2)), np.isin(rows.cluster, [0, 2])),
        (dict(keep=True, clusters=(1,)), rows.keep & (rows.cluster == 1)),
    ]:
        got = from_csv(crops, table, **fields)
        for name in crop_dataset.ARRAYS:
            np.testing.assert_array_equal(getattr(got, name), getattr(crops, name)[wanted])
        assert got.class_names == crops.class_names and got.names == crops.names


def test_clusters_as_labels_are_numbered_and_named_in_order(drawn, table):
    crops, rows = drawn
    got = from_csv(crops, table, labels="cluster")
    inside = rows.cluster != tables.NONE
    assert got.class_names == ("cluster 0", "cluster 1", "cluster 2") and got.label.dtype == np.int32
    np.testing.assert_array_equal(got.label, rows.cluster[inside])
    np.testing.assert_array_equal(got.image, crops.image[inside])
    got = from_csv(crops, table, labels="cluster", clusters=(2, 0), keep=True)
    assert got.class_names == ("cluster 0", "cluster 2") and set(got.label.tolist()) == {0, 1}
    np.testing.assert_array_equal(got.label, rows.cluster[rows.keep & np.isin(rows.cluster, [0, 2])] // 2)


def test_rows_match_crops_of_another_recipe(drawn, table):
    """By photo and box: other sizes, filters, several crops of a box, another order."""
    crops, rows = drawn
    fate = {(f, tuple(b)): k for f, b, k in zip(rows.file, rows.box.tolist(), rows.keep, strict=True)}

    def check(other: crop_dataset.CropDataset) -> None:
        assert other.box is not None
        places = [(other.names[p], tuple(b)) for p, b in zip(other.photo, other.box.tolist(), strict=True)]
        got = from_csv(other, table, keep=True)
        wanted = np.array([fate[place] for place in places])
        assert 0 < wanted.sum() < len(wanted)
        np.testing.assert_array_equal(got.image, other.image[wanted])

    def crops_by(recipe) -> crop_dataset.CropDataset:
        return crop_dataset.load(toy.dogs(20), recipe, "r", None)

    check(crops_by(lambda p, b: crop_recipes.box_square(p, b, size=16)))
    check(crops_by(lambda p, b: crop_recipes.box_square(p, b, size=16, which="last")))
    check(crops_by(lambda p, b: crop_recipes.box_and_photo(p, b, size=16)))
    check(crop_dataset.subset(crops, np.arange(len(crops.image))[::-1]))
    check(crop_dataset.subset(crops, np.arange(3, 9)))


def test_a_row_for_each_of_several_crops_of_a_box():
    of = source([((0, 0, 50, 50),), ((0, 0, 9, 9),)])
    both = crop_dataset.load(of, lambda p, b: crop_recipes.box_and_photo(p, b, size=8), "r", None)
    rows = filters.to_table(both, filters.measure(of, both), [[], ["blocklist"], [], []], np.zeros(4, int))
    assert tables.match_rows(rows, both).tolist() == [0, 1, 2, 3] and rows.crop.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"it has 2 rows for the 1 crops of box \(0, 0, 50, 50\) of d/0.jpg"):
        tables.match_rows(rows, made(of))


def test_a_table_that_does_not_fit_is_refused(tmp_path, drawn, table):
    crops, rows = drawn
    moved = crops._replace(box=np.asarray(crops.box) + np.array([[0, 0, 0, 1]]))
    n = len(crops.image)
    with pytest.raises(ValueError, match=f"no row for {n} of the {n} crops, such as box .* Run jaxdog clean"):
        from_csv(moved, table)
    with pytest.raises(
        ValueError, match="keeps no crop in cluster 7; its clusters: 0, 1, 2. .* have keep = 1"
    ):
        from_csv(crops, table, clusters=(1, 7))
    with pytest.raises(ValueError, match="labels is 'photo'; choices: class, cluster"):
        from_csv(crops, table, labels="photo")
    with pytest.raises(ValueError, match="the boxes of these crops are unknown"):
        from_csv(crops._replace(box=None), table)
    with pytest.raises(FileNotFoundError, match="written by jaxdog clean"):
        from_csv(crops, tmp_path / "none.csv")
    tables.write(table, rows._replace(keep=np.zeros(n, bool), cluster=np.full(n, tables.NONE)))
    with pytest.raises(ValueError, match="keeps no crop with labels 'class'; its clusters: none. 0 of its"):
        from_csv(crops, table, keep=True)
    with pytest.raises(ValueError, match="keeps no crop with labels 'cluster'"):
        from_csv(crops, table, labels="cluster")


def test_classes_without_crops_stay_classes(drawn, table):
    crops, rows = drawn
    tables.write(table, rows._replace(keep=crops.label > 1))
    got = from_csv(crops, table, keep=True)
    assert len(got.class_names) == 10 and set(got.label.tolist()) == set(range(2, 10))


def config(**fields):
    given = library.load("toy:test")
    with given.unlocked():
        given.data.select.from_csv = {
            "path": "clean.csv", "keep": True, "clusters": (), "labels": "class", **fields
        }  # fmt: skip
    return given


def test_a_config_names_the_table_and_the_classes_follow():
    checked = build.check(config())
    assert build.classes(checked.data) == 10
    given = config(labels="cluster", clusters=(4, 1, 4))
    with pytest.raises(
        errors.ConfigError, match="per_class, but with config.data.select.from_csv each cluster"
    ):
        build.check(given)
    given.eval.final = ("mifid",)
    assert build.classes(build.check(given).data) == 2
    with pytest.raises(errors.ConfigError, match="from_csv.labels is 'photo'; choices: class, cluster"):
        build.check(config(labels="photo"))
    with pytest.raises(errors.ConfigError, match="from_csv.clusters is 3 .int., and must be of type tuple"):
        build.check(config(clusters=3))
    with pytest.raises(errors.ConfigError, match="from_csv.mask is not a field"):
        build.check(config(mask=True))


def test_select_steps_are_applied_in_the_order_of_the_table(drawn, table):
    """Cleaned first, then sampled: a memorizer of kept crops."""
    given = config(path=str(table))
    given.eval.final = ("mifid",)
    with given.unlocked():
        given.data.select.own_class = {"count": 3, "seed": 0, "crop_types": (0,)}
    got = build.select_crops(build.check(given).data)(drawn[0])
    assert len(got.image) == 3 == len(got.class_names)
    kept = {image.tobytes() for image in from_csv(drawn[0], table, keep=True).image}
    assert all(image.tobytes() in kept for image in got.image)


# Photos held out -------------------------------------------------------------------------------------------


def test_every_crop_of_every_nth_photo_is_held_out() -> None:
    photo = np.repeat(np.arange(12, dtype=np.int32), 2)  # two crops of each
    zeros, n = np.zeros(24, np.int32), 24
    image = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple(f"{i:02d}.jpg" for i in range(12))
    crops = crop_dataset.CropDataset(image, zeros, photo, np.zeros((n, 2)), zeros, names, ("dog",), ())
    left = select.hold_out(crops, every=5)
    assert sorted(set(left.photo.tolist())) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
    assert len(left.image) == 20 and np.array_equal(left.image[:, 0, 0, 0] // 2, left.photo)
    assert set(np.flatnonzero(select.is_held_out(np.arange(12), 5)).tolist()) == {4, 9}
    with pytest.raises(ValueError, match="hold_out: every is 1, and must be at least 2"):
        select.hold_out(crops, every=1)
