"""A run's files: always valid JSON, no repeated steps after a crash, written by one process only."""

import errno
import json
import logging
import math
import os
import struct
import threading

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event

from jaxdog.training import writers
from jaxdog.utils import errors, lock


def events(workdir) -> list[Event]:
    """All TensorBoard events, in order of file (TFRecord: length, crc, bytes, crc)."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def test_every_line_is_on_disk_at_once(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.log(10, {"kimg": 0.5, "loss/d": np.float32(1.5), "loss/g": jnp.array(2.0)})
        text = (tmp_path / "log.jsonl").read_text()
    assert text == '{"step": 10, "kimg": 0.5, "loss/d": 1.5, "loss/g": 2.0}\n'


def test_nan_and_infinity_become_null(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.log(1, {"a": math.nan, "b": np.inf, "c": jnp.array([1.0, -jnp.inf]), "d": 3, "e": True})
    line = (tmp_path / "log.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 1, "a": None, "b": None, "c": [1.0, None], "d": 3, "e": True,
    }  # fmt: skip


def test_what_is_not_json_is_refused(tmp_path):
    with (
        writers.Writer(tmp_path) as writer,
        pytest.raises(TypeError, match="a set cannot be written as JSON"),
    ):
        writer.scores(1, {"sampling": {"x": {1, 2}}})
    assert (tmp_path / "scores.jsonl").read_text() == ""


def test_scores_keep_nested_records(tmp_path):
    record = {"fid768": 3.5, "sampling": {"truncation": 0.5, "labels": "balanced"}, "final": False}
    with writers.Writer(tmp_path) as writer:
        writer.scores(4, record)
    assert writers.read_jsonl(tmp_path / "scores.jsonl") == [{"step": 4, **record}]


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    with writers.Writer(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.log(step, {"x": step})
            writer.scores(step, {"fid768": step})
    with writers.Writer(tmp_path, step=20) as writer:
        writer.log(30, {"x": -30})
    assert [r["x"] for r in writers.read_jsonl(tmp_path / "log.jsonl")] == [10, 20, -30]
    assert [r["step"] for r in writers.read_jsonl(tmp_path / "scores.jsonl")] == [10, 20]


def test_a_truncated_last_line_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 10, "x": 1}\n{"step": 20, "x')
    assert writers.read_jsonl(path) == [{"step": 10, "x": 1}]
    with writers.Writer(tmp_path, step=20) as writer:
        writer.log(20, {"x": 2})
    assert path.read_text() == '{"step": 10, "x": 1}\n{"step": 20, "x": 2}\n'


def test_a_last_line_truncated_inside_a_character_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n{"name": "\xc3')
    assert writers.read_jsonl(tmp_path / "log.jsonl") == [{"step": 1}]


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}')
    with writers.Writer(tmp_path, step=1) as writer:
        writer.log(2, {})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_damage_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not a JSON object of a step: 'rubbish'. Delete it, or"):
        writers.read_jsonl(tmp_path / "log.jsonl")


def test_damaged_lines_are_removed_at_a_start_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    path = tmp_path / "log.jsonl"
    other = b'{"step": null}\n{"step": "9"}\n{"step": [3]}\n'
    path.write_bytes(b'{"step": 1}\nrubbish\n[1]\n\xff\x00\n' + other + b'{"step": 3}\n')
    with writers.Writer(tmp_path, step=3) as writer:
        writer.log(4, {})
    assert "log.jsonl: 6 damaged lines are removed; the first, line 2: 'rubbish'" in caplog.text
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n{"step": 4}\n'


def test_an_older_start_removes_lines_and_scores(tmp_path):
    with writers.Writer(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.log(step, {})
            writer.scores(step, {})
    with writers.Writer(tmp_path, step=30) as writer:
        writer.rewind(20, scored=19)
        writer.scores(20, {"again": 1})
        writer.log(21, {"x": 1.0})
    assert [r["step"] for r in writers.read_jsonl(tmp_path / "log.jsonl")] == [10, 20, 21]
    assert writers.read_jsonl(tmp_path / "scores.jsonl") == [{"step": 10}, {"step": 20, "again": 1}]
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")][-1] == 21


def test_final_scores_of_a_step_outlive_its_evaluation(tmp_path):
    with writers.Writer(tmp_path) as writer:
        for step, final in ((10, False), (10, True), (20, False), (20, True), (30, True)):
            writer.scores(step, {"final": final})
    with writers.Writer(tmp_path, step=20) as writer:
        writer.rewind(20, scored=19)
    records = [(r["step"], r["final"]) for r in writers.read_jsonl(tmp_path / "scores.jsonl")]
    assert records == [(10, False), (10, True), (20, True)]


def test_lines_without_a_checkpoint_are_removed_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    for step in (0, 10):
        with writers.Writer(tmp_path, step=step) as writer:
            writer.log(10, {"x": 1})
            writer.log(20, {"x": 2})
    assert "lines are removed" not in caplog.text
    with writers.Writer(tmp_path, step=0):
        pass
    assert "log.jsonl: 3 lines are removed, as there is no checkpoint" in caplog.text


def test_no_more_of_a_log_is_read_than_it_can_have(tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    monkeypatch.setattr(writers, "MAX_BYTES", 5, raising=False)
    with pytest.raises(errors.UserError, match="log.jsonl is larger than 5 bytes"):
        writers.read_jsonl(tmp_path / "log.jsonl")


def test_lines_are_flushed_to_the_disk(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_size))
    with writers.Writer(tmp_path) as writer:
        writer.log(1, {})
        writer.scores(1, {"a": 1})
        writer.sync()
    sizes = [(tmp_path / name).stat().st_size for name in ("log.jsonl", "scores.jsonl")]
    assert flushed[:2] == sizes  # then those of TensorBoard


def test_a_missing_file_has_no_records(tmp_path):
    assert writers.read_jsonl(tmp_path / "log.jsonl") == []


def test_without_a_step_everything_stays(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.scores(10, {"a": 1})
        writer.scores(20, {"a": 2})
    with writers.Writer(tmp_path, step=None) as writer:
        writer.scores(10, {"a": 3})
    assert [r["a"] for r in writers.read_jsonl(tmp_path / "scores.jsonl")] == [1, 2, 3]


def test_grids_are_saved_and_wrong_ones_refused(tmp_path):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with writers.Writer(tmp_path) as writer:
        writer.image("samples", 12, image)
        with pytest.raises(ValueError, match=r"grid is \[h, w, 3\] uint8, got \[4, 6\] uint8"):
            writer.image("samples", 13, image[..., 0])
        with pytest.raises(ValueError, match="float64"):
            writer.image("samples", 13, image / 255)
    assert [path.name for path in (tmp_path / "grids").iterdir()] == ["samples_00000012.png"]
    with PIL.Image.open(tmp_path / "grids" / "samples_00000012.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), image)


def test_tensorboard_gets_scalars_scores_and_grids(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.log(5, {"loss/d": 1.5, "bad": math.nan})
        writer.scores(5, {"fid768": 2.5, "resampler": "lanczos", "final": True})
        writer.image("samples", 5, np.zeros((2, 2, 3), np.uint8))
    values = [(event.step, value) for event in events(tmp_path) for value in event.summary.value]
    scalars = {v.tag: (s, v.simple_value) for s, v in values if v.WhichOneof("value") == "simple_value"}
    assert scalars == {"loss/d": (5, 1.5), "scores/fid768": (5, 2.5)}
    assert [v.tag for _, v in values if v.WhichOneof("value") == "image"] == ["samples"]


def test_tensorboard_purges_later_steps_of_a_killed_run(tmp_path):
    with writers.Writer(tmp_path, step=20) as writer:
        writer.log(21, {"x": 1.0})
    starts = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert starts == [21]


def test_sessions_of_the_same_second_have_files_of_their_own(tmp_path):
    for step in (1, 2, 3):
        with writers.Writer(tmp_path, step=None) as writer:
            writer.log(step, {"x": float(step)})
    values = [(event.step, v.simple_value) for event in events(tmp_path) for v in event.summary.value]
    assert values == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_full_disk_under_tensorboard_is_a_failure_and_waits_for_nothing(tmp_path, monkeypatch):
    """However much is logged then."""
    whole, written = record_writer.RecordWriter.write, []

    def write(self, data):
        written.append(data)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, data)

    monkeypatch.setattr(record_writer.RecordWriter, "write", write)
    ended = threading.Event()

    def log():
        with pytest.raises(OSError, match="No space left"), writers.Writer(tmp_path) as writer:
            for step in range(50):
                writer.log(step, {name: 1.0 for name in "abc"})
            assert isinstance(writer.failure, OSError)
        ended.set()

    threading.Thread(target=log, daemon=True).start()
    assert ended.wait(60.0)
    assert len(writers.read_jsonl(tmp_path / "log.jsonl")) == 50


def test_other_processes_write_nothing(tmp_path):
    with writers.Writer(tmp_path / "run", enabled=False) as writer:
        writer.log(1, {"a": 1.0})
        writer.scores(1, {"a": 1.0})
        writer.image("samples", 1, np.zeros((2, 2, 3), np.uint8))
    assert not (tmp_path / "run").exists()


def test_closing_twice_is_harmless(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.close()


def test_one_of_several_processes_that_loses_the_folder_does_not_end_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(errors.UserError, match="was taken over by another process"):
        with lock.hold(tmp_path, "train"), writers.Writer(tmp_path) as writer:
            writer.log(1, {"a": 1.0})
            (tmp_path / lock.NAME).write_text("another lock")
            writer.log(2, {"a": 2.0})
            writer.scores(2, {"fid768": 2.0})
            assert isinstance(writer.failure, errors.UserError)  # by which the training stops
    assert [r["step"] for r in writers.read_jsonl(tmp_path / "log.jsonl")] == [1]


def test_nothing_is_written_once_another_process_has_the_folder(tmp_path):
    with pytest.raises(errors.UserError, match="was taken over by another process"):
        with lock.hold(tmp_path, "train"), writers.Writer(tmp_path) as writer:
            writer.log(1, {"a": 1.0})
            (tmp_path / lock.NAME).write_text("another lock")
            for write in (
                lambda: writer.log(2, {"a": 2.0}),
                lambda: writer.scores(2, {"fid768": 2.0}),
                lambda: writer.image("grid", 2, np.zeros((8, 8, 3), np.uint8)),
                lambda: writer.rewind(0, 0),
            ):
                with pytest.raises(errors.UserError, match="was taken over by another process"):
                    write()
            writer.log(3, {"a": 3.0})
    assert [r["step"] for r in writers.read_jsonl(tmp_path / "log.jsonl")] == [1]
    assert (tmp_path / "scores.jsonl").read_text() == "" and not (tmp_path / "grids").exists()
