"""`jaxdog.train` and `jaxdog.score` from Python, and what `import jaxdog` offers."""

import importlib.metadata
import json
import logging
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import jaxdog
from jaxdog.config import library
from jaxdog.data import cropping
from jaxdog.evaluation import score_files, score_inputs
from jaxdog.training import writers
from jaxdog.utils import errors
from tests.subprocesses import ROOT, environment

# ------------------------------------------------------------------ import jaxdog


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_jaxdog_imports_no_jax() -> None:
    code = "import sys, jaxdog; print('jax' in sys.modules, 'numpy' in sys.modules, *dir(jaxdog))"
    jax_imported, numpy_imported, *names = python(code).split()
    assert (jax_imported, numpy_imported) == ("False", "False")
    assert {"Generator", "TrainedRun", "score", "train", "__version__"} <= set(names)
    assert set(jaxdog.__all__) <= set(dir(jaxdog))


def test_score_stays_the_function() -> None:
    """jaxdog/score.py is for `python -m jaxdog.score`; importing it would replace the function."""
    code = (
        "import sys, jaxdog; from jaxdog import api, commands; from jaxdog.cli import entry, scoring; "
        "print(callable(jaxdog.score), jaxdog.score is api.score, 'jaxdog.score' in sys.modules)"
    )
    assert python(code) == "True True False"


def test_the_version_is_that_of_the_package() -> None:
    assert jaxdog.__version__ == importlib.metadata.version("jaxdog")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'jaxdog' has no attribute 'tran'"):
        _ = jaxdog.tran  # pyright: ignore


# ------------------------------------------------------------------ train


class Recorder:
    """Keeps the names and steps of all events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.threads = set()

    def on_log(self, step: int, scalars: Any) -> None:
        self.events.append(("log", step))
        self.threads.add(threading.current_thread())

    def on_scores(self, step: int, scores: Any) -> None:
        self.events.append(("final scores" if scores["final"] else "scores", step))

    def on_image(self, name: str, step: int, image: np.ndarray) -> None:
        self.events.append((name, step))

    def on_checkpoint(self, step: int, path: pathlib.Path) -> None:
        self.events.append(("checkpoint", step))


OVERRIDES = {"train.steps": 4, "sample.sweep": {}, "eval.final": ("mifid",)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    before = jax.config.jax_compilation_cache_dir
    yield tmp_path_factory.mktemp("cache")
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def trained(
    cache: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[jaxdog.TrainedRun, Recorder]:
    """A run of four steps on drawn dogs, trained outside of the main thread, as some notebooks do."""
    folder, recorder, runs = tmp_path_factory.mktemp("trained") / "run", Recorder(), []

    def train() -> None:
        overrides = {**OVERRIDES, "data.cache_dir": str(cache)}
        runs.append(jaxdog.train("toy:test", workdir=folder, callbacks=[recorder], overrides=overrides))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    return runs[0], recorder


@pytest.mark.long
def test_a_run_is_trained_scored_and_reported(trained: tuple[jaxdog.TrainedRun, Recorder]) -> None:
    run, recorder = trained
    assert (run.step, run.reason) == (4, "steps")
    assert run.scores["samples"] == 16 and run.scores["random_fid768"] > 0
    for name in ("config.json", "images.zip", "report.html", "scores.jsonl", "checkpoints/4"):
        assert (run.folder / name).exists(), name
    saved = json.loads((run.folder / "config.json").read_text())
    assert saved["train"]["steps"] == 4 and saved["eval"]["final"] == ["mifid"]
    assert len(recorder.threads) == 1 and threading.main_thread() not in recorder.threads


@pytest.mark.long
def test_callbacks_get_the_final_scores_too(trained: tuple[jaxdog.TrainedRun, Recorder]) -> None:
    run, recorder = trained
    for event in (("log", 2), ("log", 4), ("grid", 4), ("scores", 4), ("checkpoint", 4)):
        assert event in recorder.events
    best = writers.read_jsonl(run.folder / "scores.jsonl")[-1]["step"]
    assert recorder.events[-2:] == [("final scores", best), ("final", best)]


@pytest.mark.long
def test_training_resumes_and_logs_without_touching_the_logger(
    trained: tuple[jaxdog.TrainedRun, Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    """The same arguments: nothing is left to train, and the scores are the same."""
    first, _ = trained
    config = library.load("toy:test", overrides=OVERRIDES)
    overrides = {
        "data.cache_dir": json.loads((first.folder / "config.json").read_text())["data"]["cache_dir"]
    }
    with caplog.at_level(logging.INFO, logger="jaxdog"):
        run = jaxdog.train(config, workdir=str(first.folder), overrides=overrides)
    assert (run.step, run.reason, run.scores["random_fid768"]) == (4, "steps", first.scores["random_fid768"])
    assert "trained to step 4" in caplog.text and logging.getLogger("jaxdog").handlers == []


@pytest.mark.long
def test_a_trained_run_has_a_generator(trained: tuple[jaxdog.TrainedRun, Recorder]) -> None:
    generator = trained[0].generator(step="latest")
    assert generator.sample(2, seed=0).shape == (2, 32, 32, 3)


def test_mistakes_are_errors_and_not_exits(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match="no config is called 'bigan'; similar: .*biggan"):
        jaxdog.train("bigan", workdir=tmp_path)
    with pytest.raises(errors.ConfigError, match="config.train.step is not a field of config.train"):
        jaxdog.train("toy:test", workdir=tmp_path, overrides={"train.step": 1})
    with pytest.raises(errors.UserError, match="has none of the methods of a callback"):
        jaxdog.train("toy:test", workdir=tmp_path, callbacks=[object()])
    with pytest.raises(errors.MissingFileError, match="nowhere does not exist"):
        jaxdog.train(library.load("toy"), data=tmp_path / "nowhere")
    with pytest.raises(errors.UserError, match="BigGAN at 160x160 is unknown"):
        jaxdog.train("biggan", data=tmp_path, resolution=160, workdir=tmp_path / "run")
    assert not any(tmp_path.iterdir())


# ------------------------------------------------------------------ score: the images


def read(source: Any) -> list[np.ndarray]:
    return [photo.read() for photo in source.photos]


RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)
FLOATS = IMAGES / np.float32(127.5) - 1


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        jnp.asarray(IMAGES),
        IMAGES.astype(np.int64),
        FLOATS,
        jnp.asarray(FLOATS),
        FLOATS.astype(np.float64),
        np.moveaxis(IMAGES, -1, 1),
        list(IMAGES),
        list(FLOATS),
        [PIL.Image.fromarray(image) for image in IMAGES],
        [IMAGES[:4], IMAGES[4:]],
        (batch for batch in (jnp.asarray(FLOATS[:4]), jnp.asarray(FLOATS[4:]))),
        (image for image in IMAGES),
    ],
    ids=lambda images: type(images).__name__,
)
def test_the_same_images_in_many_forms(images: Any) -> None:
    source = score_inputs.open_images(images, None, "fake")
    assert not isinstance(source, pathlib.Path) and source.key.startswith("array-fake-")
    np.testing.assert_array_equal(np.stack(read(source)), IMAGES)


def test_real_images_may_differ_in_size_and_mode() -> None:
    gray = PIL.Image.fromarray(IMAGES[0, ..., 0])
    clear = PIL.Image.new("RGBA", (5, 4), (9, 9, 9, 0))
    source = score_inputs.open_images([gray, clear, IMAGES[1]], None, "real")
    assert not isinstance(source, pathlib.Path) and source.key.startswith("list-real-")
    first, second, third = read(source)
    np.testing.assert_array_equal(first, IMAGES[0, ..., :1].repeat(3, -1))
    assert second.shape == (4, 5, 3) and (second == 255).all() and (third == IMAGES[1]).all()
    other = score_inputs.open_images([gray, clear, IMAGES[2]], None, "real")
    assert not isinstance(other, pathlib.Path) and other.key != source.key


def test_n_takes_the_first_of_an_endless_generator_and_spreads_over_others(tmp_path: pathlib.Path) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield IMAGES[:4]

    def picked(images: Any, n: int) -> list[np.ndarray]:
        return read(score_inputs.open_images(images, n, "fake"))

    np.testing.assert_array_equal(picked(endless(), 6), IMAGES[[0, 1, 2, 3, 0, 1]])
    np.testing.assert_array_equal(picked(IMAGES, 3), IMAGES[[0, 2, 4]])
    for name, images in (("a", IMAGES[:2]), ("b", IMAGES[2:4])):  # one folder per class
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            PIL.Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    np.testing.assert_array_equal(picked(tmp_path, 2), IMAGES[[0, 2]])
    assert score_inputs.open_images(tmp_path, None, "real") == tmp_path


@pytest.mark.parametrize(
    ("images", "n", "message"),
    [
        (
            (FLOATS + 1) / 2,
            None,
            r"fake images are floats from 0 to 1; floats must lie in \[-1, 1\] and reach",
        ),
        (FLOATS * 1.5, None, r"floats from -1.5 to 1.5; .*np.clip\(np.round\(255 \* x\)"),
        (IMAGES.astype(np.float32), None, "floats from 0 to 25[45]"),
        (FLOATS * np.nan, None, "floats from nan to nan"),
        (jnp.full((2, 8, 8, 3), -0.2), None, "floats from -0.2 to -0.2"),
        ([FLOATS[0], IMAGES[0]], None, "some of the fake images are floats and some are not. Acc"),
        (IMAGES[..., :2], None, r"the fake images cannot be read: its array has shape \(6, 8, 8, 2\)"),
        (np.float32(3.0), None, "floats from 3 to 3"),
        ([], None, "there are no fake images. Accepted are a path, an array"),
        (IMAGES[:0], None, "its array has shape"),
        (5, None, "the fake images are a int. Accepted are"),
        (["a.png"], None, "the fake images hold a str. Accepted are"),
        ([IMAGES[0, 0]], None, r"hold an array of shape \(8, 3\)"),
        ([IMAGES[0], FLOATS[1, :4]], None, "some of the fake images are floats"),
        ([IMAGES[0], IMAGES[1, :4, :, :1]], None, r"several sizes, and one is \[4, 8, 1\] uint8"),
        (IMAGES, 7, "n is 7, and there are 6 fake images"),
        (iter(IMAGES), 7, "n is 7, and there are 6 fake images"),
        (IMAGES, 4.0, "n is 4.0, and must be an integer"),
        (IMAGES, True, "n is True, and must be an integer"),
        (IMAGES, 0, "n is 0, and must be an integer of at least 1"),
    ],
)
def test_ambiguous_and_impossible_images_are_refused(images: Any, n: int | None, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        score_inputs.open_images(images, n, "fake")


# ------------------------------------------------------------------ score: the scores


def test_unknown_options_name_the_known_ones() -> None:
    with pytest.raises(errors.UserError, match="metric is not an option of score; did you mean metrics?"):
        jaxdog.score(IMAGES, IMAGES, metric="mifid")
    for options in ({"batch_size": 0}, {"batch_size": 1.5}, {"size": -1}, {"size": True}, {"eps": "x"}):
        with pytest.raises(errors.UserError, match=f"{next(iter(options))} is .*, and must be a"):
            jaxdog.score(IMAGES, IMAGES, **options)
    with pytest.raises(errors.UserError, match="mifi is not a metric; did you mean mifid"):
        jaxdog.score(IMAGES, IMAGES, metrics="mifi")


@pytest.mark.long
def test_scores_are_those_of_score_files(cache: pathlib.Path) -> None:
    """Lists, JAX arrays and generators against the arrays that score_files reads."""
    sized = [np.asarray(PIL.Image.fromarray(image).resize((9 + i, 12))) for i, image in enumerate(IMAGES)]
    options: dict[str, Any] = {"weights": "random", "metrics": ("mifid",), "cache_dir": str(cache)}
    scores = jaxdog.score(
        [PIL.Image.fromarray(image) for image in sized], jnp.asarray(FLOATS), n=4, **options
    )
    squashed = np.stack([cropping.resize(image, 8, 8, "lanczos") for image in sized])
    plain = score_files.score(squashed, IMAGES[[0, 1, 3, 4]], score_files.Options(**options))
    assert (scores["samples"], scores["real"], scores["size"]) == (4, 6, "8x8")
    for name in ("random_fid768", "random_fid2048", "memorization_distance"):
        np.testing.assert_allclose(scores[name], plain[name], rtol=1e-4, atol=2e-6)
    batches = jaxdog.score(squashed, (batch for batch in (FLOATS[:1], FLOATS[1:2], FLOATS[3:5])), **options)
    assert batches["random_fid2048"] == pytest.approx(plain["random_fid2048"], rel=1e-4)


# ------------------------------------------------------------------ docs/training.md


@pytest.mark.oracle
@pytest.mark.long
def test_the_example_of_trackers_runs(cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In a process of its own, on the smoke test of its config."""
    pytest.importorskip("wandb", reason="wandb is an oracle (make oracles)")
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert '"toy", workdir' in block
    fields = {**OVERRIDES, "data.cache_dir": str(cache)}
    code = block.replace('"toy", workdir', f'"toy:test", overrides={fields!r}, workdir')
    home = dict(PYTHONPATH=str(ROOT), HOME=str(tmp_path), WANDB_ERROR_REPORTING="false")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(**home),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "step 4: random_fid2048" in done.stdout and "with 16 samples" in done.stdout
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
