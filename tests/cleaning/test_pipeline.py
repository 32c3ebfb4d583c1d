"""Both modes through the command line on drawn dogs: near duplicates, features, contact sheets."""

import csv
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxdog import runs, sharding, types
from jaxdog.cleaning import clusters, filters, labels, pipeline, segment
from jaxdog.config import build, library
from jaxdog.data import crop_dataset, crop_recipes, cropping, tables, toy
from jaxdog.utils import errors, optional, plots
from tests.cleaning import test_filters
from tests.subprocesses import ROOT, environment

SKLEARN = "scikit-learn comes with the extra clean"


def config(cache: pathlib.Path, **fields):
    given = library.load("toy:test")
    given.data.cache_dir = str(cache)
    given.update_from_flattened_dict(fields)
    return build.check(given)


def run(cache: pathlib.Path, folder: pathlib.Path, fields: dict | None = None, **settings) -> tables.Table:
    wanted = filters.Settings(**{"near_duplicates": 0.0, "num_clusters": 3, "num_components": 8, **settings})
    return pipeline.run(config(cache, **(fields or {})), wanted, folder, cache)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache")


# ------------------------------------------------------------------ near duplicates


def planted() -> crop_dataset.CropDataset:
    """Nine drawn dogs, then copies of 2 and 5, mirrored, cropped and brightened, and one of 7."""
    of = toy.dogs(10, sizes=(96, 96))
    base = [crop_recipes.squash(p.read(), size=64)[0].image for p in of.photos][:9]
    mirrored = base[2][:, ::-1]
    cut = cropping.resize(base[5][4:60, 4:60], 64, 64, "lanczos")
    bright = np.clip(base[5] * 1.1 + 5, 0, 255).astype(np.uint8)
    image = np.stack([*base, mirrored, cut, bright, base[7][:, ::-1]])
    n, zeros = len(image), np.zeros(len(image), np.int32)
    names = tuple(f"{i}.png" for i in range(n))
    number, original_size = np.arange(n, dtype=np.int32), np.full((n, 2), 64, np.int32)
    box = np.tile(np.array([[0, 0, 96, 96]], np.int32), (n, 1))
    return crop_dataset.CropDataset(image, zeros, number, original_size, zeros, names, ("a",), (), box)


@pytest.mark.long
def test_only_modified_copies_are_near_duplicates(monkeypatch):
    """7 is dropped for another reason, so its copy stays."""
    monkeypatch.setattr(pipeline.copies, "BATCH_SIZE", 64)
    crops = planted()
    got = pipeline.near_duplicates(crops, np.arange(13) != 7, 0.75, sharding.make_mesh())
    assert got.tolist() == [*range(9), 2, 5, 5, 12]


def test_crops_of_one_photo_are_not_near_duplicates():
    one = planted()._replace(photo=np.zeros(13, np.int32))
    assert pipeline.near_duplicates(one, np.ones(13, bool), 0.75, sharding.make_mesh()).tolist() == [
        *range(13)
    ]


# ------------------------------------------------------------------ what a run writes


@pytest.mark.oracle
def test_a_run_writes_the_table_the_sheets_and_the_summary(cache, tmp_path):
    pytest.importorskip("sklearn", reason=SKLEARN)
    rows = run(cache, tmp_path, sheet_size=5, min_side=30)
    source, crops = pipeline.load_crops(config(cache), cache)
    facts = filters.measure(source, crops)
    sides = np.minimum(*(facts.box[:, 2:] - facts.box[:, :2]).T)
    np.testing.assert_array_equal(rows.keep, sides >= 30)
    assert 0 < rows.keep.sum() < len(rows.keep) and set(rows.cluster.tolist()) == {0, 1, 2}
    assert rows.reasons[int(np.flatnonzero(sides < 30)[0])].startswith("side ")
    read = tables.read(tmp_path / "clean.csv")
    np.testing.assert_array_equal(read.cluster, rows.cluster)
    summary = json.loads((tmp_path / "clean.json").read_text())
    assert summary["crops"] == len(rows.file) and summary["kept"] == rows.keep.sum()
    assert summary["dropped"] == {"side": int((sides < 30).sum())} and summary["settings"]["min_side"] == 30
    assert 0 < summary["explained_variance"] <= 1
    for row in summary["clusters"]:
        of = rows.cluster == row["cluster"]
        assert (row["crops"], row["kept"]) == (of.sum(), (of & rows.keep).sum())
        assert row["mean_area_fraction"] == pytest.approx(rows.area_fraction[of].mean())
    kept = [row["kept"] for row in summary["clusters"]]
    assert kept == sorted(kept, reverse=True)


def test_old_sheets_stay_until_the_new_ones_are_written_and_others_for_good(tmp_path, monkeypatch):
    crops = planted()
    n = len(crops.image)
    cluster, keep = np.arange(n) % 2, np.ones(n, bool)
    facts = np.zeros(n)
    box, why = np.zeros((n, 4), int), ("",) * n
    table = tables.Table(crops.names, crops.photo, crops.photo, box, facts, keep, cluster, why)
    found = clusters.Clusters(cluster, facts, 0.0)
    old, mine = {"cluster_17.png", "dropped.png"}, {"cluster_of_mine.png", "cluster_2.png"}
    for name in old | mine:
        (tmp_path / name).write_text("old")
    with monkeypatch.context() as full:
        full.setattr(pipeline.png, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pipeline._write_sheets(tmp_path, crops, table, found, 4)
    assert {path.name for path in tmp_path.iterdir()} == old | mine
    pipeline._write_sheets(tmp_path, crops, table, found, 4)
    assert {path.name for path in tmp_path.iterdir()} == mine | {"cluster_00.png", "cluster_01.png"}


@pytest.mark.oracle
def test_sheets_show_members_of_their_cluster_and_old_sheets_are_removed(cache, tmp_path):
    pytest.importorskip("sklearn", reason=SKLEARN)
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "cluster_17.png").write_text("old")
    (tmp_path / "clusters" / "mine.txt").write_text("stays")
    rows = run(cache, tmp_path, sheet_size=4, min_side=30)
    names = {path.name for path in (tmp_path / "clusters").iterdir()}
    assert names == {"cluster_00.png", "cluster_01.png", "cluster_02.png", "dropped.png", "mine.txt"}
    _, crops = pipeline.load_crops(config(cache), cache)
    for name, of in [("cluster_01", rows.keep & (rows.cluster == 1)), ("dropped", ~rows.keep)]:
        sheet = np.asarray(PIL.Image.open(tmp_path / "clusters" / f"{name}.png"))
        members = {image.tobytes() for image in crops.image[of]}
        shown = [sheet[:, 32 * i : 32 * i + 32] for i in range(min(4, int(of.sum())))]
        assert all(np.ascontiguousarray(x).tobytes() in members for x in shown)
        assert not sheet[:, 32 * 4 :].any() and sheet.shape == (32, 32 * pipeline.COLUMNS, 3)
    np.testing.assert_array_equal(plots.grid(crops.image[:1], 2)[:, :32], crops.image[0])


@pytest.mark.oracle
def test_clustering_by_segments_and_by_inception(cache, tmp_path):
    """The drawn dogs' features by a random network: small and finite, in as many clusters as asked."""
    pytest.importorskip("sklearn", reason=SKLEARN)
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    few = {"data.toy_photos": 8}
    for method in ("segments", "features"):
        rows = run(cache, tmp_path / method, few, method=method, num_clusters=2)
        assert set(rows.cluster.tolist()) == {0, 1} and rows.keep.all()
    summary = json.loads((tmp_path / "features" / "clean.json").read_text())
    assert summary["network"] == "inception" and summary["weights_kind"] == "random"


@pytest.mark.oracle
def test_crops_without_a_segmentation_have_no_cluster(cache, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason=SKLEARN)
    pytest.importorskip("cv2", reason="opencv comes with the extra clean")
    mask, seen = segment.object_mask, []

    def every_third_fails(photo, box):
        seen.append(box)
        return np.ones((box[3] - box[1], box[2] - box[0]), bool) if len(seen) % 3 == 1 else mask(photo, box)

    monkeypatch.setattr(segment, "object_mask", every_third_fails)
    rows = run(cache, tmp_path, {"data.toy_photos": 9, "data.workers": 1}, method="segments", num_clusters=2)
    assert set(rows.cluster[::3].tolist()) == {tables.NONE} and rows.keep.all()
    assert set(np.delete(rows.cluster, np.s_[::3]).tolist()) == {0, 1}
    summary = json.loads((tmp_path / "clean.json").read_text())
    assert summary["not_segmented"] == (rows.cluster == tables.NONE).sum() > 0
    assert sum(row["crops"] for row in summary["clusters"]) == len(rows.keep) - summary["not_segmented"]


@pytest.mark.oracle
def test_vgg_clusters_with_the_weights_of_a_file(cache, tmp_path, monkeypatch):
    """With a narrow stand-in, which separates two grays. The real network is tested in test_vgg.py."""
    pytest.importorskip("sklearn", reason=SKLEARN)
    monkeypatch.setattr(pipeline.vgg, "load", lambda path: {"gain": np.float32(2)})
    monkeypatch.setattr(pipeline.vgg, "features", lambda params, x: params["gain"] * x.mean((1, 2)))
    got = pipeline.vgg_features(
        "x", np.arange(35, dtype=np.uint8)[:, None, None, None].repeat(3, 3), sharding.make_mesh()
    )
    np.testing.assert_allclose(got, 2.0 * np.arange(35)[:, None].repeat(3, 1))
    run(cache, tmp_path, method="features", weights="x")
    assert json.loads((tmp_path / "clean.json").read_text())["network"] == "vgg16"


def test_manual_labels_become_clusters(cache, tmp_path):
    _, crops = pipeline.load_crops(config(cache), cache)
    keys, log = labels.crop_keys(crops), labels.LabelLog(tmp_path / "labels.csv")
    for i, word in enumerate(("near", "far", "skip", "far")):
        log.append(keys[i], word)
    log.close()
    rows = run(cache, tmp_path, method="labels")
    assert rows.cluster.tolist() == [0, 1, tables.NONE, 1] + [tables.NONE] * (len(keys) - 4)
    assert rows.keep.all() and (tmp_path / "clusters" / "cluster_01.png").is_file()
    away = crops._replace(names=tuple(f"x{name}" for name in crops.names))
    with pytest.raises(ValueError, match="none of the 4 labels in .* is for one of the"):
        pipeline.clusters_of_labels(away, tmp_path / "labels.csv")


def test_without_clusters_nothing_is_needed(cache, tmp_path, monkeypatch):
    for name in ("sklearn", "sklearn.cluster", "sklearn.decomposition", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    rows = run(cache, tmp_path, method="none")
    assert (rows.cluster == tables.NONE).all() and rows.keep.all()
    for method in ("pixels", "segments"):
        with pytest.raises(
            ImportError, match=rf"clustering by {method} needs .* pip install 'jaxdog\[clean\]'"
        ):
            run(cache, tmp_path, method=method)


def test_the_error_for_no_crops_left_gives_the_reasons(cache, tmp_path):
    with pytest.raises(ValueError, match=r"none of the (\d+) crops is left \(side: \1\): loosen the filters"):
        run(cache, tmp_path, method="none", min_side=1000)
    assert not (tmp_path / "clean.csv").exists()


# ------------------------------------------------------------------ the command line


def command(cache: pathlib.Path, workdir: pathlib.Path, *flags: str) -> list[str]:
    base = [sys.executable, "-m", "jaxdog.main", "--config=configs/toy.py:test", f"--workdir={workdir}"]
    return [*base, f"--config.data.cache_dir={cache}", *flags]


def call(words: list[str], code: int = 0) -> str:
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=1800)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.oracle
def test_clean_and_then_train_on_it(cache, tmp_path):
    """The mask and the clusters of one run, in another with another recipe."""
    pytest.importorskip("sklearn", reason=SKLEARN)
    flags = ("--clean.num_clusters=3", "--clean.min_side=30", "--clean.near_duplicates=0")
    text = call(command(cache, tmp_path, "--mode=clean", *flags))
    rows = tables.read(tmp_path / "clean.csv")
    assert f"kept {rows.keep.sum()} of {len(rows.keep)} crops (" in text and not rows.keep.all()
    given = library.load("toy:test")
    given.data.cache_dir, given.data.crop.mode, given.eval.final = str(cache), "clip", ("mifid",)
    with given.unlocked():
        del given.data.select["hold_out"]
        given.data.select.from_csv = {
            "path": str(tmp_path / "clean.csv"), "keep": True, "clusters": (), "labels": "cluster"
        }  # fmt: skip
    made = runs.make(build.check(given), tmp_path / "run", cache, training=False, scoring=False)
    assert runs.classes(made) == 3 and len(made.crops().image) == rows.keep.sum()
    np.testing.assert_array_equal(made.crops().label, rows.cluster[rows.keep])
    phase = made.phases[0]
    option = runs.SamplingOption(made.config.sample, phase, None)
    assert set(runs.labels(made, option, 6, 0).tolist()) == {0, 1, 2}
    state = jax.eval_shape(phase.system.init, jax.random.key(0), batch(given.system.batch_size))
    assert 3 in {
        x.shape[0] for x in jax.tree.leaves(state.g.params) if x.ndim
    }  # an embedding of each cluster


def batch(n: int) -> types.Batch:
    zeros = jnp.zeros(n, jnp.int32)
    return types.Batch(jnp.zeros((n, 32, 32, 3)), zeros, jnp.full((n, 2), 32), zeros, jnp.zeros(n))


@pytest.mark.long
def test_label_by_http_resumes_and_stops_with_ctrl_c(cache, tmp_path):
    _, crops = pipeline.load_crops(config(cache), cache)
    log = labels.LabelLog(tmp_path / "labels.csv")
    log.append(labels.crop_keys(crops)[0], "near")
    log.close()
    words = command(cache, tmp_path, "--mode=label")
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    found = (re.search(r"open (http://127\.0\.0\.1:\d+/) in a browser", line) for line in process.stderr)
    address = next((match[1] for match in found if match), None)
    assert address is not None, process.wait(60)
    with urllib.request.urlopen(f"{address}question", timeout=60) as reply:
        question = json.load(reply)
    assert question["done"] == 1 and question["total"] == len(crops.image)
    for word in ("far", "skip"):
        body = json.dumps({"crop": question["crop"], "label": word}).encode()
        with urllib.request.urlopen(f"{address}answer", body, timeout=60) as reply:
            question = json.load(reply)
    process.send_signal(signal.SIGINT)
    output = process.stderr.read()
    assert process.wait(60) == 0, output
    process.stderr.close()
    assert f"3 of {question['total']} crops are labeled" in output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "labels.csv").read_text())))
    assert [row["label"] for row in rows] == ["near", "far", "skip"]
    assert len({tuple(row.values())[:6] for row in rows}) == 3


def test_errors_during_a_run_are_user_errors():
    assert issubclass(optional.MissingExtraError, errors.UserError)
    with pytest.raises(errors.UserError, match="method is 'dbscan'; choices: none, pixels"):
        pipeline.run(config(pathlib.Path("x")), filters.Settings(method="dbscan"), ROOT, ROOT)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--mode=clean", "--clean.num_cluster=3"],
            "'--clean.num-cluster' is not an option; similar: --clean.num-clusters",
        ),
        (
            ["--mode=clean", "--clean.num_clusters=three"],
            "argument --clean.num-clusters: invalid int value: 'three'",
        ),
        (["--mode=label", "--port=70000"], "argument --port: 70000 is out of range"),
    ],
)
def test_mistakes_end_in_one_paragraph(cache, tmp_path, flags, message):
    text = call(command(cache, tmp_path / "run", *flags), code=1)
    assert message in text and "Traceback" not in text, text[-3000:]


# ------------------------------------------------------------------ real dogs


@pytest.mark.oracle
@pytest.mark.slow
def test_real_dogs_have_sizes_boxes_and_few_duplicates(real_data, tmp_path):
    """300 Stanford Dogs, one of them twice under another name: it is dropped, and hardly anything else is."""
    pytest.importorskip("sklearn", reason=SKLEARN)
    from jaxdog.data import sources

    whole = sources.tfds(archives=real_data / "stanford_dogs")
    some = [whole.photos[i] for i in np.linspace(0, len(whole.photos) - 1, 300).astype(int)]
    source = whole._replace(photos=[*some, some[7]._replace(name="again.jpg")], key="some")
    crops = crop_dataset.load(source, lambda p, b: crop_recipes.box(p, b, size=64), "r", None)
    facts = filters.measure(source, crops)
    assert (facts.num_bytes > 1000).all() and (filters.area_fractions(facts) > 0).all()
    np.testing.assert_array_equal(crops.original_size, facts.box[:, [3, 2]] - facts.box[:, [1, 0]])
    reasons = filters.find_reasons(crops, facts, filters.Settings())
    assert reasons[-1] == [f"duplicate of {some[7].name}:0"]
    first = pipeline.near_duplicates(crops, filters.is_kept(reasons), 0.75, sharding.make_mesh())
    assert (first != np.arange(len(first))).sum() <= 9
    tables.write(tmp_path / "t.csv", filters.to_table(crops, facts, reasons, np.zeros(len(reasons), int)))
    assert not tables.read(tmp_path / "t.csv").keep[-1]
    assert os.path.getsize(tmp_path / "t.csv") > 0 and test_filters.ALL.min_side == 1
