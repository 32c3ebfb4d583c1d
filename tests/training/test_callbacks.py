"""Callbacks get every event in order, from process 0 only; one that fails ends the run after a checkpoint."""

import json
import logging
import math
import pathlib
import struct
import sys
import time
from typing import Any

import numpy as np
import pytest

from jaxdog.training import callbacks, loop, writers
from jaxdog.utils import errors, optional
from tests.training import test_loop

close = test_loop.close  # the fixture that closes what `make` opens


class Recorder:
    """Keeps all events; not a subclass of Callback. `fail`: raises in this event, the n-th time."""

    def __init__(self, fail: str = "", nth: int = 1):
        self.events: list[tuple[Any, ...]] = []
        self._fail, self._left = fail, nth

    def _add(self, event: str, *args: Any) -> None:
        self.events.append((event, *args))
        if event == self._fail:
            self._left -= 1
            if self._left == 0:
                raise ZeroDivisionError(f"in {event}")

    def on_start(self, folder: pathlib.Path, config: Any) -> None:
        self._add("start", folder, config)

    def on_log(self, step: int, scalars: Any) -> None:
        self._add("log", step, scalars)

    def on_scores(self, step: int, scores: Any) -> None:
        self._add("scores", step, scores)

    def on_image(self, name: str, step: int, image: np.ndarray) -> None:
        self._add("image", step, name, image)

    def on_checkpoint(self, step: int, path: pathlib.Path) -> None:
        assert path.name == str(step) and (path / "state").is_dir() and (path / "record").is_dir()
        self._add("checkpoint", step, path)

    def on_end(self) -> None:
        self._add("end")

    @property
    def steps(self) -> list[tuple[Any, ...]]:
        """The events with their steps."""
        return [event[:2] if event[0] not in ("start", "end") else event[:1] for event in self.events]


def make(folder: pathlib.Path, *listeners: object, **changes: Any) -> loop.TrainSetup:
    """The setup of test_loop with callbacks, which also writes the score of an evaluation."""
    setup = test_loop.make(folder)
    setup.writer.close()
    latest = setup.checkpoints.latest() or 0
    writer = writers.Writer(folder, latest, listeners=listeners, config={"train": {"steps": 12}})

    def evaluate(phase: Any, state: Any, step: int) -> float:
        writer.scores(step, {"fid768": 1.0 / step, "final": False})
        return 1.0 / step

    setup = setup._replace(writer=writer, evaluate=evaluate, evaluate_every=6, **changes)
    test_loop.OPEN[-1] = setup
    return setup


# ------------------------------------------------------------------ events


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, Recorder, pathlib.Path]:
    """A run of 12 steps: logs and checkpoints every 4, grids and evaluations every 6."""
    first, second, folder = Recorder(), Recorder(), tmp_path_factory.mktemp("whole")
    setup = make(folder, first, second)
    with setup.writer:
        loop.train(setup)
    setup.checkpoints.close()
    return first, second, folder


def test_events_come_in_order(whole: tuple[Recorder, Recorder, pathlib.Path]) -> None:
    first, second, _ = whole
    others = [event for event in first.steps if event[0] != "checkpoint"]
    assert others == [
        ("start",), ("log", 4), ("image", 6), ("scores", 6), ("log", 8), ("log", 12), ("image", 12),
        ("scores", 12), ("end",),
    ]  # fmt: skip
    assert second.steps == first.steps


def test_a_checkpoint_is_an_event_once_it_is_complete(
    whole: tuple[Recorder, Recorder, pathlib.Path],
) -> None:
    """See Recorder.on_checkpoint; it comes at the latest before the next checkpoint is written."""
    events = whole[0].steps
    assert [step for event, *step in events if event == "checkpoint"] == [[4], [6], [8], [12]]
    after = {step: events.index(("checkpoint", step)) for step in (4, 6, 8, 12)}
    assert after[4] > events.index(("log", 4)) and after[12] > events.index(("scores", 12))
    assert after[4] < events.index(("log", 12)) and after[6] < events.index(("image", 12))


def test_a_checkpoint_is_an_event_as_soon_as_it_is_complete(tmp_path: pathlib.Path) -> None:
    """Not only before the next one."""

    class Wait(Recorder):
        def on_log(self, step: int, scalars: Any) -> None:
            super().on_log(step, scalars)
            end = time.monotonic() + 60.0
            while step == 6 and not setup.checkpoints.is_complete(4) and time.monotonic() < end:
                time.sleep(0.01)

    wait = Wait()
    setup = make(tmp_path, wait, settings=test_loop.LOOP._replace(log_every=2, grid_every=0))
    setup = setup._replace(evaluate=None)
    loop.train(setup)
    assert wait.steps.index(("checkpoint", 4)) < wait.steps.index(("log", 8))


def test_events_hold_what_the_files_hold(whole: tuple[Recorder, Recorder, pathlib.Path]) -> None:
    recorder, _, folder = whole
    for event, name in (("log", "log.jsonl"), ("scores", "scores.jsonl")):
        rows = [{"step": args[0], **args[1]} for kind, *args in recorder.events if kind == event]
        assert rows and rows == writers.read_jsonl(folder / name)
    image = next(event[3] for event in recorder.events if event[0] == "image")
    assert image.dtype == np.uint8 and image.shape == (8, 80, 3)
    assert recorder.events[0][1:] == (folder, {"train": {"steps": 12}})


def test_numbers_are_plain_and_finite(tmp_path: pathlib.Path) -> None:
    recorder = Recorder()
    with writers.Writer(tmp_path, listeners=[recorder]) as writer:
        writer.log(1, {"a": np.float32(1.5), "b": math.nan, "c": np.arange(2)})
    assert recorder.events[1] == ("log", 1, {"a": 1.5, "b": None, "c": [0, 1]})


def test_any_of_the_methods_is_enough(tmp_path: pathlib.Path) -> None:
    class Log:
        steps: list[int] = []

        def on_log(self, step: int, scalars: Any) -> None:
            self.steps.append(step)

    with writers.Writer(tmp_path, listeners=[Log(), callbacks.Callback()]) as writer:
        writer.log(1, {})
        writer.scores(1, {})
        writer.image("x", 1, np.zeros((2, 2, 3), np.uint8))
        writer.checkpoint(1, tmp_path)
    assert Log.steps == [1]


def test_other_processes_call_nothing(tmp_path: pathlib.Path) -> None:
    recorder = Recorder()
    with writers.Writer(tmp_path, enabled=False, listeners=[recorder]) as writer:
        writer.log(1, {})
    assert recorder.events == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([object()], "<object object at .*> has none of the methods of a callback: on_start, on_log,"),
        ([print], "print> has none of the methods"),
        ([Recorder], "the callback Recorder is a class; give an object of it"),
        (Recorder(), "callbacks is <.*Recorder.*>, and must be a list"),
    ],
)
def test_what_is_no_callback_is_refused(given: Any, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match=message):
        writers.Writer(tmp_path / "run", listeners=given)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("event", "nth", "step"),
    [("log", 1, 6), ("scores", 1, 8), ("image", 1, 8), ("checkpoint", 1, None), ("scores", 2, 12)],
)
def test_a_failure_ends_the_run_once_it_has_a_checkpoint(
    event: str, nth: int, step: int | None, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`step`: the last step. Of the failing callback, only `on_end` is called again."""
    bad, good = Recorder(event, nth), Recorder()
    setup = make(tmp_path, bad, good)
    with caplog.at_level(logging.ERROR), pytest.raises(ZeroDivisionError, match=f"in {event}") as raised:
        with setup.writer:
            loop.train(setup)
    assert raised.traceback[-1].name == "_add"  # where it was raised
    assert f"Recorder.on_{event} failed; training stops" in caplog.text
    assert bad.events[-2][0] == event and bad.events[-1] == good.events[-1] == ("end",)
    last = [args[0] for name, *args in good.events if name == "checkpoint"][-1]
    assert setup.checkpoints.latest() == last and (step is None or last == step)


def test_after_a_failure_the_run_resumes(
    whole: tuple[Recorder, Recorder, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    setup = make(tmp_path, Recorder("log"))
    with pytest.raises(ZeroDivisionError):
        loop.train(setup)
    setup.writer.close()
    setup.checkpoints.close()
    again = make(tmp_path)
    result = loop.train(again)
    assert (result.step, result.reason) == (12, "steps")
    logs = [
        [x["loss/d"] for x in writers.read_jsonl(folder / "log.jsonl")] for folder in (tmp_path, whole[2])
    ]
    assert logs[0][-1] == logs[1][-1]


def test_a_failing_start_ends_before_training(tmp_path: pathlib.Path) -> None:
    good = Recorder()
    with pytest.raises(ZeroDivisionError, match="in start"):
        writers.Writer(tmp_path, listeners=[good, Recorder("start")])
    assert good.steps == [("start",), ("end",)]


def test_another_error_is_not_hidden_by_a_failure(tmp_path: pathlib.Path) -> None:
    with (
        pytest.raises(KeyError, match="mine"),
        writers.Writer(tmp_path, listeners=[Recorder("log")]) as writer,
    ):
        writer.log(1, {})
        raise KeyError("mine")


def test_a_full_disk_is_an_error_of_the_run(tmp_path: pathlib.Path) -> None:
    """The files are listeners, too."""
    with pytest.raises(OSError, match="No space"), writers.Writer(tmp_path) as writer:
        files: Any = writer._listeners[0]
        files._log.close()
        files._log = open("/dev/full", "w")
        writer.log(1, {})


# ------------------------------------------------------------------ Weights & Biases


def test_a_missing_wandb_is_named_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        optional.MissingExtraError, match=r"WandB needs wandb, .* pip install 'jaxdog\[wandb\]'"
    ):
        callbacks.WandB(project="dogs")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_offline_writes_a_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file has the config, the scalars by step, the scores and the image; the id survives a restart."""
    wandb = pytest.importorskip("wandb", reason="wandb is an oracle (make oracles)")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    config = {"name": "toy", "system": {"resolution": 32}}
    for step in (10, 20):
        tracker = callbacks.WandB("dogs", mode="offline", dir=str(tmp_path))
        with writers.Writer(tmp_path / "toy", step=step - 10, listeners=[tracker], config=config) as writer:
            writer.log(step, {"loss/d": 1.5 * step})
            writer.scores(step, {"fid768": 2.5, "final": True, "sampling": {"truncation": 0.5}})
            writer.image("grid", step, np.zeros((4, 4, 3), np.uint8))
    wandb.teardown()  # ends its process
    records = read_wandb(tmp_path / "wandb")
    assert {record.run.run_id for record in records if record.HasField("run")} == {
        (tmp_path / "toy" / callbacks.WANDB_ID).read_text().strip()
    }
    (run, *_) = (record.run for record in records if record.HasField("run"))
    assert (run.project, run.display_name) == ("dogs", "toy")
    assert {x.key: json.loads(x.value_json) for x in run.config.update}["system"] == {"resolution": 32}
    rows = [history(record) for record in records if record.HasField("history")]
    assert [(row["step"], row["loss/d"]) for row in rows if "loss/d" in row] == [(10, 15.0), (20, 30.0)]
    assert [row["scores/fid768"] for row in rows if "scores/fid768" in row] == [2.5, 2.5]
    assert [row["grid/_type"] for row in rows if "grid/_type" in row] == ["image-file"] * 2


def read_wandb(folder: pathlib.Path) -> list[Any]:
    """The records of all offline runs in the folder: a header, then the log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    records = []
    for path in sorted(folder.glob("offline-run-*/run-*.wandb")):
        data, at, whole = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if at % 32768 > 32768 - 7:  # no header begins at the end of a block
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            whole += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # a whole record, or the last part of one
                records.append(wandb_internal_pb2.Record.FromString(whole))
                whole = b""
    return records


def history(record: Any) -> dict[str, Any]:
    """The values of one call of wandb.log."""
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
    }
