"""The command line end to end: killed and resumed runs, all modes, two processes, errors."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from jaxdog.cli import entry
from jaxdog.training import writers
from tests.subprocesses import ROOT, environment

UNSCORED = ("--config.eval.every_kimg=0", "--config.eval.final=()", "--config.sample.sweep={}")
FILES = ("config.json", "log.jsonl", "scores.jsonl", "checkpoints", "grids", "tensorboard", "images.zip")
MEDIA = {
    "classes.png": "Classes",
    "interpolation.gif": "Interpolation",
    "truncation.png": "Truncation",
    "nearest.png": "Nearest photos",
    "timelapse.gif": "Timelapse",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Crops and features that the runs of this file share."""
    return tmp_path_factory.mktemp("cache")


def command(workdir: pathlib.Path | None, cache: pathlib.Path, *flags: str, config: str = "toy") -> list[str]:
    out = [sys.executable, "-m", "jaxdog.main", f"--config=configs/{config}.py:test"]
    out += [f"--config.data.cache_dir={cache}"]
    out += [f"--workdir={workdir}"] if workdir else []
    return [*out, *flags]


# Loaded by every Python that finds it on its path: whoever opens a connection fails.
OFFLINE = """
import socket
def refuse(self, address):
    raise RuntimeError(f"a connection to {address}, in a run that must not use the network")
socket.socket.connect = refuse
"""


def run(*words: str, code: int = 0, **more: str) -> str:
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by name."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore(workdir.absolute() / "checkpoints" / str(step) / "state")
    flat: dict[str, np.ndarray] = {}

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, dict):
            for name, child in node.items():
                walk(f"{prefix}/{name}", child)
        elif isinstance(node, list | tuple):
            for i, child in enumerate(node):
                walk(f"{prefix}/{i}", child)
        elif node is not None:
            flat[prefix] = np.asarray(node)

    walk("", tree)
    assert len(flat) > 20
    return flat


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: pathlib.Path) -> pathlib.Path:
    """An uninterrupted run from drawn dogs to report, without network as in the competition."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    (workdir.parent / "sitecustomize.py").write_text(OFFLINE)
    offline = {"PYTHONPATH": str(workdir.parent)}
    probe = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert "must not use the network" in run(sys.executable, "-c", probe, code=1, **offline)
    run(*command(workdir, cache), **offline)
    return workdir


@pytest.mark.long
def test_a_run_writes_all_files(whole: pathlib.Path) -> None:
    assert all((whole / name).exists() for name in FILES), sorted(os.listdir(whole))
    assert json.loads((whole / "config.json").read_text())["name"] == "toy_test"
    with zipfile.ZipFile(whole / "images.zip") as archive:
        assert len(archive.namelist()) == 16
    report = (whole / "report.html").read_text()
    assert "random_fid768" in report and "data:image" in report
    for path in (whole / "media").iterdir():
        assert f"<h2>{MEDIA[path.name]}</h2>" in report
    assert len(list((whole / "media").iterdir())) == len(MEDIA) and len(report) < 2_000_000
    assert list((whole / "tensorboard").iterdir())


@pytest.mark.long
def test_scores_have_names_by_kind_of_weights(whole: pathlib.Path) -> None:
    scores = writers.read_jsonl(whole / "scores.jsonl")
    assert [(row["step"], row["final"]) for row in scores][:2] == [(4, False), (8, False)]
    assert scores[-1]["final"] and scores[-1]["samples"] == 16
    for row in scores:
        assert {"kimg", "real", "random_fid768", "random_fid2048", "random_mifid", "resampler"} <= set(row)
        assert row["weights_kind"] == "random" and len(row["weights_sha256"]) == 64
        assert not any(name.startswith(("fid", "mifid")) for name in row)


@pytest.mark.long
def test_held_out_photos_are_scored_and_the_best_sampling_option_is_used(whole: pathlib.Path) -> None:
    table = json.loads((whole / "sweep.json").read_text())
    ways = {way["setting"]["ema_index"]: way[table["metric"]] for way in table["options"]}
    assert sorted(ways) == [0, 1] and ways[table["best"]["ema_index"]] == min(ways.values())
    final = writers.read_jsonl(whole / "scores.jsonl")[-1]
    assert {"val_random_fid768", "val_random_fid2048", "val_random_kid"} <= set(final)
    assert final["val_random_fid768"] != final["random_fid768"]


@pytest.mark.long
def test_a_killed_and_resumed_run_is_bit_identical(
    whole: pathlib.Path, tmp_path: pathlib.Path, cache: pathlib.Path
) -> None:
    """SIGKILL as soon as a checkpoint exists, at any step; the same command finishes the run."""
    workdir = tmp_path / "run"
    words = command(workdir, cache, "--config.checkpoint.every=2", *UNSCORED)
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list((workdir / "checkpoints").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (workdir / "images.zip").exists()
    run(*words)
    resumed, straight = arrays(workdir, 8), arrays(whole, 8)
    assert resumed.keys() == straight.keys()
    different = [name for name in straight if not np.array_equal(resumed[name], straight[name])]
    assert not different, different
    steps = [line["step"] for line in writers.read_jsonl(workdir / "log.jsonl")]
    assert steps == [2, 4, 6, 8]


@pytest.mark.long
def test_other_modes_work_without_a_config(whole: pathlib.Path) -> None:
    base = [sys.executable, "-m", "jaxdog.main", f"--workdir={whole}"]
    before = (whole / "images.zip").read_bytes()
    (whole / "images.zip").unlink()
    (whole / "report.html").unlink()
    run(*base, "--mode=submit")
    assert (whole / "images.zip").read_bytes() == before  # the same images, byte for byte
    run(*base, "--mode=sample", "--num_samples=5")
    with zipfile.ZipFile(whole / "samples.zip") as archive:
        assert len(archive.namelist()) == 5
    (whole / "report.html").unlink()
    run(*base, "--mode=report")
    assert (whole / "report.html").exists()


SAMPLE = """
import hashlib, sys
import jaxdog
_, source, target = sys.argv
g = jaxdog.Generator.from_pretrained(source) if target == "-" else jaxdog.Generator.from_run(source)
if target != "-":
    g.save_pretrained(target)
print(hashlib.sha256(g.sample(20, classes=[g.classes[1], 2], seed=2**40).tobytes()).hexdigest())
"""


@pytest.mark.long
def test_a_moved_run_needs_neither_photos_nor_caches(
    whole: pathlib.Path, cache: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Scores are equal to the bit, and so are the images of an export in another process."""
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(whole, moved)
    config = json.loads((moved / "config.json").read_text())
    config["data"] |= {"source": "folder", "path": "gone/photos", "cache_dir": str(tmp_path / "new_cache")}
    (moved / "config.json").write_text(json.dumps(config))
    text = run(sys.executable, "-m", "jaxdog.main", f"--workdir={moved}", "--mode=evaluate")
    assert "no copies: the training photos cannot be read (gone/photos" in text
    before, after = (writers.read_jsonl(folder / "scores.jsonl") for folder in (whole, moved))
    assert after[:-1] == before
    old, new = before[-1], after[-1]
    assert old["final"] and "val_random_fid768" in new and "copies" in old and len(old) > 20
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == {"warnings"}
    exported = tmp_path / "export"
    first = run(sys.executable, "-c", SAMPLE, str(moved), str(exported))
    shutil.rmtree(moved)
    second = run(sys.executable, "-c", SAMPLE, str(exported), "-")
    assert len(first) > 64 and first.splitlines()[-1] == second.splitlines()[-1]


@pytest.mark.long
def test_the_folder_keeps_the_features_of_the_photos(whole: pathlib.Path, cache: pathlib.Path) -> None:
    kept = whole / "real_features.npz"
    assert any(kept.samefile(path) for path in (cache / "features").glob("*.npz"))
    info = json.loads((whole / "dataset.json").read_text())
    assert info["photos"] == 48 and info["held_out"] == [9, 19, 29, 39]
    assert sum(info["class_counts"]) == info["crops"] == 52 and len(info["class_names"]) == 10


@pytest.mark.long
def test_a_run_can_be_initialized_from_another(
    whole: pathlib.Path, cache: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """With learning rate 0, the final networks are the initial ones."""
    still = [f"--config.optimizer.{player}.learning_rate=0.0" for player in "gd"]
    flags = [f"--config.init_from={whole}", "--config.seed=5", "--config.train.steps=4", *still, *UNSCORED]
    output = run(*command(tmp_path / "run", cache, *flags))
    assert "arrays transferred" in output and "is missing there" not in output
    scores = [line for line in writers.read_jsonl(whole / "scores.jsonl") if not line["final"]]
    best = min(scores, key=lambda line: line["random_fid768"])["step"]
    source, after = arrays(whole, best), arrays(tmp_path / "run", 4)
    names = [name for name in source if name.startswith("/g/params/")]
    assert names and all(np.array_equal(source[name], after[name]) for name in names)


@pytest.mark.long
def test_a_folder_of_another_experiment_is_refused(whole: pathlib.Path, cache: pathlib.Path) -> None:
    text = run(*command(whole, cache, "--config.generator.channels=8"), code=1)
    assert "with another config: generator.channels is 8, was 4" in text and "Traceback" not in text


@pytest.mark.long
def test_two_processes_give_the_losses_of_one(
    whole: pathlib.Path, tmp_path: pathlib.Path, cache: pathlib.Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workdir = tmp_path / "run"
    flags = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    started = [
        subprocess.Popen(
            command(workdir, cache, *flags, f"--process_id={i}"),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    output = [process.communicate(timeout=1800)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], output[0][-3000:] + output[1][-3000:]
    ours, theirs = (writers.read_jsonl(folder / "log.jsonl") for folder in (workdir, whole))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one["loss/d"], two["loss/d"], rtol=0.02)
    assert (workdir / "images.zip").exists() and (workdir / "report.html").exists()
    scores = [writers.read_jsonl(folder / "scores.jsonl")[0]["random_fid768"] for folder in (workdir, whole)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.02)


@pytest.mark.long
def test_dry_run_prints_sizes_and_stops(tmp_path: pathlib.Path, cache: pathlib.Path) -> None:
    text = run(*command(tmp_path / "run", cache, "--dry_run"))
    assert "parameters" in text and "GFLOP" in text and "MB" in text and '"steps": 8' in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config.train.stepz=3"],
            "config.train.stepz is not a field of config.train; did you mean steps? fields: grid_every",
        ),
        (["--config.train.steps=many"], "config.train.steps is 'many' (str), and must be of type int"),
        (["--config.system.loss.name=hing"], "config.system.loss.name is 'hing'; choices: cross_entropy"),
        (["--mode=fly"], "choose from 'train', 'evaluate', 'sample', 'submit', 'report', 'clean'"),
        (["--config.data.source=folder", "--config.data.path=/nowhere/dogs"], "/nowhere/dogs"),
        (["--config.eval.weights=README.md"], "README.md cannot be used as Inception weights"),
        (["--mode=evaluate"], "holds no checkpoint"),
        (["extra"], "'extra' is not a flag"),
    ],
)
def test_mistakes_end_in_one_paragraph(
    tmp_path: pathlib.Path,
    cache: pathlib.Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        entry.main(command(tmp_path / "run", cache, *flags)[3:])
    text = capsys.readouterr().err
    assert stop.value.code == 1 and message in text and "Traceback" not in text, text[-3000:]


def test_a_mistake_ends_the_process_without_a_traceback(tmp_path: pathlib.Path, cache: pathlib.Path) -> None:
    text = run(*command(tmp_path / "run", cache, "--config.train.stepz=3"), code=1)
    assert "did you mean steps?" in text and "Traceback" not in text, text[-3000:]
