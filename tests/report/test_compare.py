"""Many runs on one page: only comparable scores share a table or a figure, and odd folders do no harm."""

import contextlib
import copy
import json
import math
import pathlib
import re

import numpy as np
import pytest

from jaxdog.data import dataset_info
from jaxdog.report import compare
from jaxdog.training import writers
from jaxdog.utils import errors, plots
from tests.report import test_report

HASH = test_report.HASH
CONFIG = {
    "name": "biggan",
    "seed": 0,
    "data": {"cache_dir": "a"},
    "system": {"resolution": 64, "batch_size": 32},
    "eval": {"best": "fid2048"},
    "augment": {"flip": {"p": 0.5}},
}
FACTS = {
    "real": 18547, "network": "inception", "weights_kind": "published", "weights_sha256": HASH,
    "resampler": "lanczos", "sampling": {"truncation": 0.0, "labels": "uniform"}, "final": False,
}  # fmt: skip
WIDE = "wide <i>"  # the name of a folder
INFO = dataset_info.DatasetInfo(("pug",), (4,), 4, 4, "folder-dogs-1", "square", (64, 64, 3))


def make_run(folder, curve, final=None, facts=None, image=True, **changes):
    """A run of as many evaluations as `curve` has scores, at 10 kimg and half an hour each."""
    config = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        (config[section] if section else config)[field] = value
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    dataset_info.write(folder, INFO, "1")
    facts = {**FACTS, **(facts or {})}
    with writers.Writer(folder) as writer:
        for i, score in enumerate(curve, 1):
            writer.log(100 * i, {"kimg": 10.0 * i, "seconds": 1800.0 * i, "images_per_second": 5.5})
            record = {"kimg": 10.0 * i, "samples": 2000, "fid2048": score, "evaluation_seconds": 1.0, **facts}
            writer.scores(100 * i, record)
        if final is not None:
            best = 1 + int(np.argmin(curve))
            scores = {"fid2048": final, "precision": 0.5, "is_ok": True}
            record = {"kimg": 10.0 * best, "samples": 10_000, **scores, **facts, "final": True}
            writer.scores(100 * best, record)
        if image:
            writer.image("grid", 100, np.full((8, 8, 3), 200, np.uint8))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three seeds of a run, a run with another batch size, one with random weights, an unfinished one."""
    root = tmp_path_factory.mktemp("runs")
    wide, unfinished = {"system__batch_size": 64, "name": "<b>wide"}, root / "b" / "seed0"
    random = {"weights_kind": "random", "sampling": {"truncation": 0.5, "labels": "uniform"}}
    return [
        make_run(root / "a" / "seed0", [50.0, 30.0, 40.0], 20.0),
        make_run(root / "a" / "seed1", [50.0, 31.0, 30.5], 22.0, seed=1, data__cache_dir="elsewhere"),
        make_run(root / "a" / "seed2", [50.0, 31.0, 30.5], 27.0, seed=2, name="third"),
        make_run(root / "a" / WIDE, [45.0, 25.0], 19.0, **wide),
        make_run(root / "a" / "random", [5.0, 2.5], 1.5, facts=random),
        make_run(unfinished, [60.0, 35.0, math.nan, 36.0], image=False),
    ]


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "page.html"
    assert compare.write(folders, out) == out
    return test_report.Page(out)


def rows_of(page, first):
    """The rows below the header row that begins with `first`, one list per table."""
    starts = [i for i, row in enumerate(page.rows) if row[: len(first)] == first]
    return [page.rows[i:] for i in starts]


def test_the_page_is_self_contained_and_escapes(page):
    assert not [page.all(tag) for tag in ("script", "link", "iframe", "b", "i") if page.all(tag)]
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert "url(http" not in page.source and "@import" not in page.source and "<b>wide" in page.text
    assert not re.search(r'(?:src|href)="(?!data:|#)', page.source)
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert ids and len(ids) == len(set(ids))


def test_every_run_has_a_row_with_its_line(page):
    _, *rows = rows_of(page, ["", "run", "config", "seed"])[0]
    assert [row[1] for row in rows[:6]] == ["a/seed0", "seed1", "seed2", WIDE, "random", "b/seed0"]
    assert rows[0][2:] == ["biggan", "0", "300", "30.00", "1.500", "5.500"]
    strokes = [path["stroke"] for path in page.all("path") if path.get("d") == "M0 5H44"]
    assert strokes == list(plots.COLORS[:6])


def test_only_comparable_scores_share_a_table(page):
    tables = rows_of(page, ["run", "step", "kimg", "hours"])
    assert [[row[0] for row in table[1 : n + 1]] for table, n in zip(tables, (4, 1, 1), strict=True)] == [
        ["a/seed0", "seed1", "seed2", WIDE],
        ["random"],
        ["b/seed0 (not final)"],
    ]
    assert tables[0][0][4:] == ["fid2048", "precision", "sampling"]
    assert tables[0][1] == ["a/seed0", "200", "20.00", "1.000", "20.00", "0.5000", ""]
    assert tables[2][1][:5] == ["b/seed0 (not final)", "200", "20.00", "1.000", "35.00"]  # its best one
    settings = [
        "10,000 samples, 18,547 real images (folder-dogs-1), inception published c8e26eaa, 64 px, lanczos",
        "10,000 samples, 18,547 real images (folder-dogs-1), inception random c8e26eaa, 64 px, lanczos",
        "2,000 samples, 18,547 real images (folder-dogs-1), inception published c8e26eaa, 64 px, lanczos",
    ]
    assert all(setting in page.text for setting in settings) and compare.INCOMPARABLE in page.text


def test_the_best_score_of_a_table_is_marked(page):
    cells = [(tag, attributes) for tag, attributes in page.found if tag == "td"]
    assert sum(attributes.get("class") == "best" for _, attributes in cells) == 1
    assert '<td class="best">19.00</td>' in page.source


def test_seeds_have_a_mean_and_a_spread(page):
    assert "3 runs that differ only in the seed: a/seed0, seed1, seed2" in page.text
    (table,) = rows_of(page, ["score", "mean"])
    assert table[1] == ["fid2048", "23.00", "3.606", "20.00", "27.00"]  # std of 20, 22, 27, with n - 1
    assert table[2] == ["precision", "0.5000", "0.0000", "0.5000", "0.5000"]


def test_curves_of_equal_settings_share_a_figure(page):
    labels = [svg["aria-label"] for svg in page.all("svg") if not svg["aria-label"].startswith("line of")]
    assert labels == ["fid2048 over kimg", "fid2048 over hours"] * 2


def test_curves_keep_the_points_and_styles_of_their_runs(folders, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots, "draw", lambda curves, *_, x_label, styles, **__: drawn.append((x_label, styles, curves))
    )
    compare.figures(compare.load(folders)[0])
    (axis, styles, curves), (hours, _, timed) = drawn[:2]
    assert (axis, hours, styles) == ("kimg", "hours", [0, 1, 2, 3, 5])
    assert curves[0] == ("a/seed0", [10.0, 20.0, 30.0], [50.0, 30.0, 40.0])
    assert timed[0] == ("a/seed0", [0.5, 1.0, 1.5], [50.0, 30.0, 40.0])
    assert curves[-1] == ("b/seed0", [10.0, 20.0, 40.0], [60.0, 35.0, 36.0])  # without the NaN


def test_grids_and_config_differences(page):
    captions = [image["alt"] for image in page.all("img")]
    assert captions == [
        f"{name}: grid, step 100, 10.00 kimg" for name in ("a/seed0", "seed1", "seed2", WIDE, "random")
    ]
    (table,) = rows_of(page, ["field"])
    assert table[0] == ["field", "a/seed0", "seed1", "seed2", WIDE, "random", "b/seed0"]
    assert table[1:] == [
        ["data.cache_dir", "a", "elsewhere", "a", "a", "a", "a"],
        ["name", "biggan", "biggan", "third", "<b>wide", "biggan", "biggan"],
        ["seed", "0", "1", "2", "0", "0", "0"],
        ["system.batch_size", "32", "32", "32", "64", "32", "32"],
    ]


def test_the_table_has_the_same_groups(folders):
    text = compare.table(folders)
    blocks = text.split("\n\n")
    assert [len(block.splitlines()) for block in blocks] == [7, 3, 3, 1]
    lines = [line.split() for line in blocks[0].splitlines()]
    assert lines[1] == ["run", "step", "kimg", "hours", "fid2048"]
    assert lines[2] == ["a/seed0", "200", "20.00", "1.000", "20.00"]
    assert blocks[0].splitlines()[-1].startswith("mean of 3 seeds: a/seed0, seed1, seed2")
    assert lines[-1][-3:] == ["23.00", "±", "3.606"]
    assert "b/seed0 (not final)" in blocks[2] and blocks[3] == f"note: {compare.INCOMPARABLE}"


def test_sampling_options_show_where_they_differ(tmp_path):
    truncated = {"sampling": {"truncation": 0.7, "labels": "uniform"}}
    pair = [make_run(tmp_path / "x", [3.0], 2.0), make_run(tmp_path / "y", [3.0], 2.0, facts=truncated)]
    found = compare.results(compare.load(pair)[0])
    assert [compare.sampling(x, found) for x in found] == ["truncation 0.0", "truncation 0.7"]


def test_memorizers_are_marked_and_never_best(tmp_path):
    runs = [
        make_run(tmp_path / "copy", [3.0], 0.5, facts={"cheat": True}),
        make_run(tmp_path / "x", [3.0], 2.0),
    ]
    runs.append(make_run(tmp_path / "y", [3.0], 2.5))
    page = test_report.Page(compare.write(runs, tmp_path / "page.html"))
    assert "copy (reproduces training images)" in page.text
    assert '<td class="best">2.000</td>' in page.source and page.source.count('class="best"') == 1


def test_the_best_evaluation_so_far_is_by_the_metric_of_the_config_if_it_was_computed(tmp_path):
    run = make_run(tmp_path / "x", [3.0, 2.0, 4.0])
    other = make_run(tmp_path / "y", [3.0, 2.0, 4.0], eval__best="fid768")
    assert [x.record["step"] for x in compare.results(compare.load([run, other])[0])] == [200, 200]


def test_folders_that_are_no_runs_are_noted(tmp_path):
    run, empty, damaged = make_run(tmp_path / "run", [3.0]), tmp_path / "empty", tmp_path / "damaged"
    empty.mkdir()
    damaged.mkdir()
    (damaged / "scores.jsonl").write_text("rubbish\n{}\n")
    page = test_report.Page(compare.write([empty, run, damaged, str(run), run / "."], tmp_path / "page.html"))
    assert f"{empty} is left out: it is not the folder of a run" in page.text
    assert f"{damaged} is left out" in page.text and "line 1 is not a JSON object" in page.text
    assert "1 run " in page.text and "differ only" not in page.text and "field" not in page.text
    assert "note: " + str(empty) in compare.table([run, empty])


def test_a_run_without_scores_config_or_readable_grid(tmp_path):
    run = make_run(tmp_path / "new", [])
    (run / "config.json").unlink()
    (run / "grids" / "grid_00000100.png").write_bytes(b"not an image")
    page = test_report.Page(compare.write([run], tmp_path / "page.html"))
    assert "No run has been scored yet" in page.text and "the grid of new cannot be read" in page.text
    assert "without config.json, so without config differences: new" in page.text
    assert compare.table([run]) == "note: without scores: new"


def test_without_any_run_there_is_an_error(tmp_path):
    with pytest.raises(errors.MissingFileError, match="nowhere does not exist; compare needs the folders"):
        compare.write([tmp_path / "nowhere"])
    with pytest.raises(errors.UserError, match="it is not the folder of a run"):
        compare.table([tmp_path])
    with pytest.raises(errors.UserError, match="give the folders of the runs"):
        compare.table([])


def test_thirty_runs_have_lines_of_their_own(tmp_path):
    runs = [make_run(tmp_path / f"run{i}", [3.0, 2.0 + i], 2.0 + i, image=False, seed=i) for i in range(30)]
    page = test_report.Page(compare.write(runs, tmp_path / "page.html"))
    lines = [path for path in page.all("path") if path.get("d") == "M0 5H44"]
    assert len({(line["stroke"], line.get("stroke-dasharray")) for line in lines}) == 30
    assert "30 runs that differ only in the seed" in page.text
    assert len(compare.table(runs).splitlines()) == 2 + 30 + 1


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/r/a/x", "/r/b/x", "/r/y"], ["a/x", "b/x", "y"]),
        (["/a/z/x", "/b/z/x"], ["a/z/x", "b/z/x"]),
        (["/x", "/a/x"], ["/x", "a/x"]),
    ],
)
def test_names_are_the_shortest_that_differ(paths, names):
    assert compare.unique_names([pathlib.Path(path) for path in paths]) == names


def test_an_exported_generator_is_compared_by_its_config(tmp_path):
    run, exported = make_run(tmp_path / "run", [3.0]), tmp_path / "exported"
    exported.mkdir()
    config = json.loads((run / "config.json").read_text())
    config["seed"] += 1
    fields = {"format_version": 1, "class_names": ["pug"], "sha256": "0", "config": config}
    (exported / "config.json").write_text(json.dumps(fields))
    page = test_report.Page(compare.write([run, exported], tmp_path / "page.html"))
    assert "seed" in page.text and "sha256" not in page.text and "config.system" not in page.text
    runs, _ = compare.load([run, exported])
    assert {name for name in runs[0].config if runs[0].config[name] != runs[1].config.get(name)} == {"seed"}
    assert runs[0].config.keys() == runs[1].config.keys()


@pytest.mark.parametrize(
    "record", [{"weights_kind": {}}, {"warnings": 3, "real": []}, {"sampling": "x"}, {"step": "a"}]
)
def test_a_stranger_s_scores_of_other_types_are_an_error_that_names_the_folders(tmp_path, record):
    run = make_run(tmp_path / "run", [3.0], final=2.0, image=False)
    lines = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    (run / "scores.jsonl").write_text("".join(json.dumps({**line, **record}) + "\n" for line in lines))
    for read in (lambda: compare.write([run], tmp_path / "page.html"), lambda: compare.table([run])):
        with contextlib.suppress(errors.UserError):
            read()
    if record.keys() & {"weights_kind", "real"}:
        with pytest.raises(errors.UserError, match="run has files that are not those of a run .TypeError"):
            compare.table([run])
