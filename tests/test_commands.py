"""Modes of the command line: final scores, errors with and without a traceback, several processes."""

import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from configs import toy
from jaxdog import commands, runs, sharding
from jaxdog.cli import entry
from jaxdog.config import build, library, saved
from jaxdog.evaluation import submission
from jaxdog.metrics.backbones import downloads, weight_files
from jaxdog.report import report
from jaxdog.training import checkpoint, progress, writers
from jaxdog.utils import errors, optional


@pytest.fixture(autouse=True)
def reset_compilation_cache() -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("measured", [{}, {"random_precision": 0.5}, {"random_mifid": None}])
def test_a_run_may_end_without_distances(
    measured: dict[str, float], tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    checked = build.check(toy.get_config("test"))
    nothing: Any = None
    run = runs.Run(checked, tmp_path, sharding.make_mesh(), nothing, build.phases(checked, 4), *4 * [nothing])
    about = {"weights_kind": "random", "weights_sha256": "0" * 64, "samples": 4, "real": 8}
    saved.write(tmp_path, checked)
    with writers.Writer(tmp_path, step=None) as files, caplog.at_level("INFO", logger="jaxdog"):
        scores = {**about, **measured, "warnings": ()}
        runs.record_scores(run, files, 2, scores, checked.sample, final=True)
    assert "no distances requested" in caplog.text
    assert measured.items() <= writers.read_jsonl(tmp_path / "scores.jsonl")[0].items()
    assert report.write(tmp_path).is_file()


FORMS = pytest.mark.parametrize(
    "words", [["report", "x"], ["--mode=report", "--workdir=x"]], ids=["new", "old"]
)


@FORMS
def test_mistakes_of_the_user_are_one_paragraph(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise errors.ConfigError("config.x is 1, and must be 2")

    monkeypatch.setattr(commands, "run_mode", fail)
    with pytest.raises(SystemExit) as stop:
        entry.main(words)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "\njaxdog: config.x is 1, and must be 2\n"


@FORMS
@pytest.mark.parametrize("error", [ValueError, RuntimeError, FileNotFoundError])
def test_other_errors_keep_their_traceback(
    words: list[str], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a custom model shows its location."""

    def model() -> None:
        raise error("shapes (2,) and (3,) do not broadcast")

    monkeypatch.setattr(commands, "run_mode", lambda *_, **__: model())
    with pytest.raises(error, match="do not broadcast") as raised:
        entry.main(words)
    assert raised.traceback[-1].name == "model"


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError,
        checkpoint.CheckpointError,
        progress.TrainingError,
        progress.NotFiniteError,
        submission.SubmissionError,
        optional.MissingExtraError,
        errors.MissingFileError,
        downloads.DownloadError,
        weight_files.ArchiveError,
    ],
)
def test_our_errors_are_user_errors(error: type[Exception]) -> None:
    assert issubclass(error, errors.UserError)


# ------------------------------------------------------------------ several processes

HOLD = """
import pathlib, sys, time
from jaxdog.utils import lock
with lock.hold(pathlib.Path(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def busy(tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, subprocess.Popen]]:
    """The folder of a run in which another process trains."""
    saved.write(tmp_path, build.check(toy.get_config("test")))
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield tmp_path, process
        process.kill()


def make(*_: Any, **__: Any) -> runs.Run:
    raise InterruptedError("the run is made")


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("mode", ["train", "evaluate", "submit", "sample"])
def test_one_process_at_a_time_writes_to_a_run(
    mode: str, checkpoint: bool, busy: tuple[pathlib.Path, subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, process = busy
    monkeypatch.setattr(runs, "make", make)
    if checkpoint:  # the command would resume
        (folder / "checkpoints" / "2").mkdir(parents=True)
    before = sorted(folder.rglob("*"))
    if mode == "sample":  # only reads
        with pytest.raises(InterruptedError, match="the run is made"):
            commands.run_mode(mode, toy.get_config("test"), str(folder))
        return
    with pytest.raises(errors.UserError, match=rf"is in use by jaxdog train \(process {process.pid} on"):
        commands.run_mode(mode, toy.get_config("test"), str(folder))
    assert sorted(folder.rglob("*")) == before
    process.kill()
    process.wait()
    with pytest.raises(InterruptedError, match="the run is made"):  # the lock of a dead process
        commands.run_mode(mode, toy.get_config("test"), str(folder))
    assert not (folder / "lock.json").exists()


@pytest.mark.parametrize("mode", ["train", "evaluate", "submit", "label", "sample"])
@pytest.mark.parametrize("name", ["scores.jsonl", "grids", "tensorboard"])
def test_nothing_is_written_through_a_link_out_of_the_run(
    mode: str, name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it leads nowhere yet; a link within the run does no harm."""
    monkeypatch.setattr(runs, "make", make)
    monkeypatch.setattr(commands.pipeline, "load_crops", lambda *_: (None, None))
    monkeypatch.setattr(commands.label_page, "serve", make)
    saved.write(tmp_path / "run", build.check(toy.get_config("test")))
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.UserError, match=f"run/{name} is a link out of its folder"):
        commands.run_mode(mode, toy.get_config("test"), str(tmp_path / "run"))
    (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / name).symlink_to("inside")
    with pytest.raises(InterruptedError):
        commands.run_mode(mode, toy.get_config("test"), str(tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_sampling_leaves_the_logs_of_a_training_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be appending to them."""
    checked, nothing = build.check(toy.get_config("test")), None
    run: Any = runs.Run(checked, tmp_path, sharding.make_mesh(), nothing, (), *4 * [nothing])
    monkeypatch.setattr(runs, "make", lambda *_, **__: run)
    monkeypatch.setattr(runs, "find_step", lambda *_: 8)
    monkeypatch.setattr(commands, "_best_option", lambda *_, **__: (8, nothing))
    images = np.zeros((5, 32, 32, 3), np.uint8)
    monkeypatch.setattr(commands, "_generate", lambda *_: (images, np.zeros(5, np.int32)))
    for name in (writers.LOG, writers.SCORES):  # an open line, and one that a crash has damaged
        (tmp_path / name).write_text('{"step": 4}\nrubbish\n{"step": 8}\n{"step": 1')
    before = {name: (tmp_path / name).stat() for name in (writers.LOG, writers.SCORES)}
    commands.run_mode("sample", toy.get_config("test"), str(tmp_path), num_samples=5)
    assert {name: (tmp_path / name).stat() for name in before} == before
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert names - before.keys() == {"samples.zip", "grids/samples_00000008.png"}


@pytest.mark.parametrize(
    "given",
    [
        *(
            ("h:1", 2, None),
            ("h:1", None, 0),
            ("h:1", 2, 2),
            ("h:1", 2, -1),
            ("h", 2, 0),
        ),
        *((None, 2, 0), (None, 2, None), (None, None, 0), ("auto", 2, 1)),
    ],
)
def test_several_hosts_need_all_three_words(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *words: started.append(words))
    with pytest.raises(
        errors.UserError, match=f"--coordinator is {given[0]}, .* needs HOST:PORT of process 0"
    ):
        commands.init_distributed(*given)
    assert not started
    commands.init_distributed("h:1", 2, 1)
    commands.init_distributed("auto", None, None)
    commands.init_distributed("h:1", None, None)  # JAX asks the cluster
    assert started == [("h:1", 2, 1), (), ("h:1", None, None)]


def test_numbers_of_processes_that_jax_cannot_find_out_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", unknown)
    with pytest.raises(errors.UserError, match="cannot find out --num-processes .* h:1: Number of"):
        commands.init_distributed("h:1", None, None)


@pytest.mark.parametrize("mode", ["train", "evaluate", "submit", "sample", "report", "clean", "label"])
def test_a_work_folder_that_cannot_be_named_is_refused_before_the_work(
    mode: str, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    with pytest.raises(errors.UserError, match="has bytes that are not UTF-8"):
        commands.run_mode(mode, toy.get_config("test"), str(folder))
    with pytest.raises(errors.UserError, match="has bytes that are not UTF-8"):
        commands.train(toy.get_config("test"), folder)
    assert not any(tmp_path.iterdir())


def test_a_command_that_fails_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """The corrected command works in the same folder."""
    config = library.override(toy.get_config("test"), ["data.source=folder", f"data.path={tmp_path}/photos"])
    with pytest.raises(errors.MissingFileError, match="photos does not exist"):
        commands.train(config, tmp_path / "runs" / "x")
    config = library.override(
        toy.get_config("test"), ["train.memory_gb=1e-9", f"data.cache_dir={tmp_path}/cache"]
    )
    with pytest.raises(errors.UserError, match="the crops alone take .* more than train.memory_gb"):
        commands.train(config, tmp_path / "runs" / "x")
    config = library.override(
        toy.get_config("test"), [f"init_from={tmp_path}/gone", f"data.cache_dir={tmp_path}/cache"]
    )
    with pytest.raises(errors.MissingFileError, match="init_from is .*gone, which cannot be used"):
        commands.train(config, tmp_path / "runs" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(("name", "which"), [("toy", "best"), ("lsgan_sn", "latest")])
def test_entries_of_2019_submit_their_last_checkpoint(
    name: str, which: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(runs, "find_step", lambda run, which: asked.append(which) or 7)
    monkeypatch.setattr(runs, "restore", lambda run, step: step)
    monkeypatch.setattr(commands.sampling_sweep, "best_option", lambda run, option, step, start: option)
    checked, nothing = build.check(library.load(f"{name}:test")), None
    run: Any = runs.Run(checked, tmp_path, sharding.make_mesh(), nothing, (), *4 * [nothing])
    assert commands._best_option(run) == (7, 7) and asked == [which]


@pytest.mark.parametrize("mode", ["report", "clean", "label", "sample"])
def test_the_work_folder_is_checked_before_the_work(mode: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="the work folder is '.*run', and .*file cannot be written to"):
        commands.run_mode(mode, toy.get_config("test"), str(tmp_path / "file" / "run"))


def test_a_report_is_of_a_run(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        errors.MissingFileError, match="config.json does not exist: .* is not the folder of a"
    ):
        commands.run_mode("report", None, str(tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.fixture
def compilation_cache() -> Iterator[None]:
    """JAX's place of compiled programs, which tests may change."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("mode", ["sample", "evaluate", "submit"])
def test_no_config_in_a_folder_names_the_place_of_compiled_programs(
    mode: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, compilation_cache: None
) -> None:
    """Compiled programs are native code, and the folder may be from a stranger."""
    config = toy.get_config("test")
    config.data.cache_dir = str(tmp_path / "run" / "cache")
    saved.write(tmp_path / "run", build.check(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    monkeypatch.setattr(runs, "make", lambda *_, **__: 1 / 0)
    for given, used in ((None, tmp_path / "mine" / "jaxdog" / "xla"), ("chosen", "chosen")):
        jax.config.update("jax_compilation_cache_dir", given)
        with pytest.raises(ZeroDivisionError):
            commands.run_mode(mode, None, str(tmp_path / "run"))
        assert jax.config.values["jax_compilation_cache_dir"] == str(used)


def test_other_networks_score_the_final_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the metrics that they can have, and the memorization distances on their own features."""
    checked = build.check(toy.get_config("test"))
    asked: list[Any] = []

    class Evaluator:
        real = "real features"

        def __init__(self, network: str):
            asked.append(network)

        def features_of(self, *images: Any) -> str:
            return "features of the images"

        def score(self, fake: str, metrics: tuple[str, ...]) -> dict[str, Any]:
            asked.append(metrics)
            return {"fd_dinov2": 2.0, "memorization_distance": 0.5}

    def distances_of(*sides: Any) -> tuple[dict[str, float], None]:
        asked.append(sides[:2])
        return {"memorization_distance": 0.5, "authentic_share": 0.9}, None

    monkeypatch.setattr(commands.copies, "distances_of", distances_of)
    nothing: Any = None
    for final, more in ((("mifid", "isc", "copies"), {"authentic_share": 0.9}), (("isc", "prdc"), {})):
        config = checked._replace(eval=checked.eval._replace(final=final))
        run = runs.Run(
            **{**dict.fromkeys(runs.Run._fields, nothing), "config": config, "evaluator": Evaluator}
        )
        found = commands._score_with(run, "dinov2", np.zeros(0), np.zeros(0))
        assert found == {"fd_dinov2": 2.0, "memorization_distance": 0.5} | more
    expected = ["dinov2", ("mifid", "copies"), ("features of the images", "real features")]
    assert asked == [*expected, "dinov2", ("prdc",)]


ABOUT = {"weights_kind": "random", "weights_sha256": "0" * 64, "samples": 4, "real": 8, "warnings": ()}


def scored_run(
    folder: pathlib.Path, photos: Any, final: tuple[str, ...] = ("copies",)
) -> tuple[runs.Run, runs.SamplingOption]:
    """A run whose images score 1, with a way to read its training photos."""
    checked, nothing = build.check(toy.get_config("test")), None

    class Evaluator:
        real = types.SimpleNamespace(class_names=())
        extractor = None

        def features_of(self, *_: Any) -> None: ...

        def score(self, *_: Any) -> dict[str, Any]:
            return {**ABOUT, "random_mifid": 1.0}

    phase = build.phases(checked, 4)[0]
    config = checked._replace(eval=checked.eval._replace(final=final))
    parts = {"config": config, "folder": folder, "phases": (phase,), "evaluator": Evaluator}
    parts |= {"training_photos": photos, "crops": photos, "mesh": sharding.make_mesh()}
    run = runs.Run(**{**dict.fromkeys(runs.Run._fields, nothing), **parts})  # pyright: ignore
    return run, runs.SamplingOption(config.sample, phase, nothing)


@pytest.mark.parametrize(
    "error", [RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), MemoryError("9 bytes")]
)
def test_a_search_for_copies_that_runs_out_of_memory_costs_no_score(
    error: Exception, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(commands.copies, "find_copies", fail)
    monkeypatch.setattr(commands.sheets, "nearest_photos", fail)
    monkeypatch.setattr(commands.reconstruction, "reconstruct", fail)
    photos = types.SimpleNamespace(image=None, photo=None, label=None, original_size=None, crop_type=None)
    run, option = scored_run(tmp_path, lambda: photos)
    system: Any = types.SimpleNamespace(reconstruct="a function")
    option = option._replace(phase=option.phase._replace(system=system))
    images, label = np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32)
    with writers.Writer(tmp_path, step=None) as writer:
        scores = commands._score(run, writer, 2, option, images, label)
    (record,) = writers.read_jsonl(tmp_path / "scores.jsonl")
    assert record["random_mifid"] == 1.0 and record["final"] and "copies" not in scores
    work = ("search for copies", "sheet of the nearest photos", "reconstructions")
    assert [x.partition(" (")[0] for x in record["warnings"]] == [f"no {x}: too little memory" for x in work]
    assert all("9 bytes)" in x for x in record["warnings"])
    monkeypatch.setattr(commands.copies, "find_copies", lambda *_: 1 / 0)
    with writers.Writer(tmp_path, step=None) as writer, pytest.raises(ZeroDivisionError):
        commands._score(run, writer, 2, option, images, label)


def test_a_verdict_on_copies_outlives_the_photos(tmp_path: pathlib.Path) -> None:
    """That of the same images: of the same step, number and sampling options."""

    def gone() -> None:
        raise errors.MissingFileError("gone/photos does not exist")

    run, option = scored_run(tmp_path, gone)
    config = run.config
    verdict = {
        "verdict": "copies",
        "reasons": ["30 of 100"],
        "copied_share": 0.3,
        "copied_share_of_real": 0.0,
    }
    images, label = np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32)
    with writers.Writer(tmp_path, step=None) as writer:
        for step, known in ((2, verdict), (3, None)):
            runs.record_scores(
                run, writer, step, ABOUT | ({"copies": known} if known else {}), config.sample, True
            )
        assert commands._score(run, writer, 2, option, images, label)["copies"] == verdict
        assert "copies" not in commands._score(run, writer, 3, option, images, label)
        assert "copies" not in commands._score(run, writer, 2, option, images[:3], label[:3])
        other = option._replace(sample=config.sample._replace(truncation=0.25))
        assert "copies" not in commands._score(run, writer, 2, other, images, label)
    records = writers.read_jsonl(tmp_path / "scores.jsonl")
    assert [bool(x.get("copies")) for x in records] == [True, False, True, False, False, False]
    assert records[2]["warnings"][-1] == commands.EARLIER
    assert records[2]["leaderboard"]["text"].startswith("no place on the leaderboard of 2019: ")
    assert "gone/photos does not exist" in records[2]["warnings"][0]
