"""Checkpoints: which are kept, exact round trips, full disks and damaged files."""

import errno
import gc
import json
import logging
import math
import os
import pathlib
import shutil
import subprocess
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from jaxdog import sharding
from jaxdog.training import checkpoint, fallback
from jaxdog.utils import errors, lock


def on_first_device(tree: Any) -> Any:
    """Shardings of a restored tree."""
    return jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), tree)


def state(value: float = 1.0) -> dict[str, jax.Array]:
    return {"w": jnp.full((64, 64), float(value)), "step": jnp.int32(value)}


def open_at(folder: pathlib.Path, keep_last: int = 2, keep_best: int = 1) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(folder, keep_last, keep_best, "fid768")


def shapes() -> dict[str, jax.ShapeDtypeStruct]:
    return jax.eval_shape(state)


def test_round_trip_is_exact_and_includes_the_training_time(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(3, state(0.1), 12.5)
    checkpoints.close()
    restored, seconds = open_at(tmp_path).restore(3, shapes(), on_first_device(shapes()))
    chex.assert_trees_all_equal(restored, state(0.1))
    assert seconds == 12.5


def test_a_part_of_the_arrays_is_read(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    whole = {"g": (state(1.0), state(2.0)), "d": state(3.0)}
    checkpoints.save(3, whole, 0.0)
    checkpoints.wait()
    wrong = jax.eval_shape(lambda: {**whole, "d": {"w": jnp.zeros(3), "step": jnp.zeros(3)}})
    read = checkpoints.restore_arrays(3, wrong, on_first_device(wrong), {"g/0/w", "g/1/step"})
    chex.assert_trees_all_equal(read, {"g/0/w": state(1.0)["w"], "g/1/step": state(2.0)["step"]})
    for names in ({"d/w"}, {"d/step"}):  # which the checkpoint has in another shape
        with pytest.raises(checkpoint.CheckpointError, match="damaged, or belongs to another model"):
            checkpoints.restore_arrays(3, wrong, on_first_device(wrong), names)
    checkpoints.close()


def test_keeps_the_last_few_and_the_best(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    scores = {1: None, 2: 5.0, 3: 9.0, 4: None, 5: 7.0, 6: None, 7: 8.0}
    for step, score in scores.items():
        checkpoints.save(step, state(step), 0.0)
        if score is not None:
            checkpoints.set_score(step, score)
    checkpoints.wait()
    assert checkpoints.best() == 2 and checkpoints.latest() == 7
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [2, 6, 7]
    checkpoints.close()
    again = open_at(tmp_path)
    assert (again.best(), again.latest()) == (2, 7)


@pytest.mark.parametrize("keep_last", [1, 2, 3, 5])
def test_keeps_as_many_as_asked_for(tmp_path: pathlib.Path, keep_last: int) -> None:
    checkpoints = open_at(tmp_path, keep_last=keep_last, keep_best=0)
    for step in range(1, 8):
        checkpoints.save(step, state(step), 0.0)
        checkpoints.wait()
        assert checkpoints.steps() == list(range(max(step - keep_last, 0) + 1, step + 1))


def test_scores_that_were_computed_in_other_ways_are_not_compared(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights, scores are a hundredth of those with the published ones."""
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    sessions = {"published": {1: 70.0, 2: 60.0, 3: 65.0}, "random": {4: 0.3, 5: 0.1, 6: 0.2}}
    for protocol, scores in sessions.items():
        checkpoints = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768", protocol=protocol)
        assert "scores are now" not in caplog.text
        for step, score in scores.items():
            checkpoints.save(step, state(step), 0.0)
            checkpoints.set_score(step, score)
        checkpoints.close()
    assert caplog.text.count("scores are now fid768 by random, and were fid768 by published; the best") == 1
    checkpoints = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768", protocol="published")
    assert checkpoints.steps() == [2, 5, 6]  # the best of each kind
    assert (checkpoints.best(), checkpoints.best_score()) == (5, 0.1)
    checkpoints.save(7, state(7), 0.0)
    checkpoints.set_score(7, 62.0)
    assert (checkpoints.best(), checkpoints.best_score(), checkpoints.ranked()) == (2, 60.0, [2, 7])
    checkpoints.close()
    # An unknown way, of an earlier version, is compared with any; a later one called it the basis.
    path = tmp_path / "5" / checkpoint.METRICS
    for text, ranked in (
        ('{"fid768": 61.0}', [2, 5, 7]),
        ('{"fid768": 0.1, "basis": "random"}', [2, 7]),
        ('{"fid768": 61.0, "basis": "published"}', [2, 5, 7]),
    ):
        path.write_text(text)
        assert checkpoint.Checkpoints(tmp_path, 1, 1, "fid768").ranked() == ranked


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            errors.UserError,
            "cannot be read now: Permission",
        ),
        (ValueError("NOT_FOUND: [OS error 24: Too many open files]"), errors.UserError, "read now: Too many"),
        (ValueError("RESOURCE_EXHAUSTED: [OS error 24: Too many open files]"), errors.UserError, "Too many"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), RuntimeError, "RESOURCE_EXHAUSTED"),
        (MemoryError("no memory"), MemoryError, "no memory"),
        (ValueError("NOT_FOUND: no such array"), checkpoint.CheckpointError, "it is damaged"),
        (FileNotFoundError(errno.ENOENT, "No such file"), checkpoint.CheckpointError, "it is damaged"),
    ],
)
def test_only_damage_sets_a_checkpoint_aside(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    raised: type[Exception],
    message: str,
) -> None:
    checkpoints = open_at(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), 0.0)
    checkpoints.wait()
    whole = checkpoints._manager.restore

    def restore(step: int, args: Any) -> Any:
        if step == 2:
            raise error
        return whole(step, args=args)

    monkeypatch.setattr(checkpoints._manager, "restore", restore)
    read = lambda step: checkpoints.restore(step, shapes(), on_first_device(shapes()))  # noqa: E731
    with pytest.raises(raised, match=message) as found:
        read(2)
    assert type(found.value) is raised
    if raised is checkpoint.CheckpointError:
        assert fallback.restore_first(checkpoints, (2, 1), read)[0] == 1
    else:
        with pytest.raises(raised):
            fallback.restore_first(checkpoints, (2, 1), read)
    assert (tmp_path / "2").is_dir() == (raised is not checkpoint.CheckpointError)


def test_several_processes_use_the_same_checkpoint(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest is damaged for another process only."""
    checkpoints = open_at(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), 0.0)
    checkpoints.wait()
    said: list[bool] = []

    def agree(flag: bool) -> bool:
        said.append(flag)
        return len(said) != 2  # that the other process could read it, too

    read = lambda step: checkpoints.restore(step, shapes(), on_first_device(shapes()))  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(sharding, "all_processes_agree", agree)
        step, (restored, _) = fallback.restore_first(checkpoints, (2, 1), read)
    assert step == 1 and all(said) and (tmp_path / "2.damaged").is_dir()
    chex.assert_trees_all_equal(restored, state(1))
    monkeypatch.setattr(sharding, "all_processes_agree", lambda flag: False)
    with pytest.raises(checkpoint.CheckpointError, match="step 3 could not be .* another process says"):
        checkpoints.save(3, state(3), 0.0)


def test_best_is_the_latest_without_scores(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    assert checkpoints.best() is None and checkpoints.latest() is None
    checkpoints.save(1, state(), 0.0)
    checkpoints.save(2, state(), 0.0)
    checkpoints.wait()
    assert checkpoints.best() == 2


def test_truncated_checkpoint_names_the_one_to_resume_from(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.save(2, state(2), 0.0)
    checkpoints.close()
    files = [path for path in (tmp_path / "2" / "state").rglob("*") if path.is_file()]
    for path in files:
        os.truncate(path, path.stat().st_size // 2)
    damaged = open_at(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match=r"step 2 .* damaged.*Training resumes from step 1;"):
        damaged.restore(2, shapes(), on_first_device(shapes()))
    restored, _ = damaged.restore(1, shapes(), on_first_device(shapes()))
    chex.assert_trees_all_equal(restored, state(1))


def test_a_score_that_is_not_finite_is_never_the_best(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path, keep_last=1)
    for step, score in {1: 5.0, 2: math.nan, 3: math.inf, 4: -math.inf, 5: 7.0}.items():
        checkpoints.save(step, state(step), 0.0)
        checkpoints.set_score(step, score)
    checkpoints.save(6, state(6), 0.0)
    checkpoints.close()
    for kept in (checkpoints, open_at(tmp_path)):
        assert (kept.steps(), kept.best(), kept.best_score()) == ([1, 6], 1, 5.0)


def test_a_score_may_be_nan_or_of_another_metric(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(), 0.0)
    assert checkpoints.score(1) is None
    checkpoints.set_score(1, math.nan)
    checkpoints.close()
    again = open_at(tmp_path)
    assert math.isnan(again.score(1)) and again.best_score() is None and again.best() == 1
    assert checkpoint.Checkpoints(tmp_path, 1, 1, "mifid").score(1) is None


@pytest.mark.parametrize(
    "content", [b"", b'{"fid768"', b"\xff\x00garbage", b"[1]", b'{"fid768": [3]}', b"[" * 10**5]
)
def test_a_damaged_score_of_one_checkpoint_hides_no_other(
    tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = open_at(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), 0.0)
        checkpoints.set_score(step, float(step))
    checkpoints.close()
    (tmp_path / "1" / checkpoint.METRICS).write_bytes(content)
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    again = open_at(tmp_path)
    assert (again.steps(), again.best(), again.best_score()) == ([1, 2], 2, 2.0)
    assert "metrics is damaged" in caplog.text and "the checkpoint of step 1 has no score" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax's threads
def test_every_flipped_bit_of_arrays_record_and_score_is_found(tmp_path: pathlib.Path) -> None:
    """Each byte of the files that hold data, with one bit flipped: the values are right, or an error."""
    checkpoints = open_at(tmp_path)
    whole = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "step": jnp.int32(1)}
    checkpoints.save(1, whole, 12.5)
    checkpoints.set_score(1, 5.0)
    checkpoints.close()
    names, targets = {"w", "step"}, (jax.eval_shape(lambda: whole), on_first_device(whole))
    sizes = {path: path.stat().st_size for path in (tmp_path / "1").rglob("*") if path.is_file()}
    flips = [(path, at) for path, n in sizes.items() for at in range(3, n, max(97, n // 20))]
    readers = {
        "restore": lambda c: c.restore(1, *targets),
        "arrays": lambda c: (c.restore_arrays(1, *targets, names), 12.5),
        "load": lambda c: (c.load_arrays(1), 12.5),
    }
    errors = dict.fromkeys(readers, 0)
    for path, at in flips:
        data = path.read_bytes()
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        damaged = open_at(tmp_path)
        assert damaged.score(1) in (5.0, None)
        for name, read in readers.items():
            try:
                restored, seconds = read(damaged)
            except checkpoint.CheckpointError:
                errors[name] += 1
            else:
                chex.assert_trees_all_equal(restored, whole)
                assert seconds == 12.5
        path.write_bytes(data)
    assert all(errors.values())
    gc.collect()  # so that what Orbax's threads left is reported here


def test_changed_data_are_found_and_the_array_is_named(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.close()
    path = tmp_path / "1" / checkpoint.RECORD
    record = json.loads(path.read_text())
    del record["sha256"]
    record["arrays"]["w"] = "0" * 64
    path.write_text(json.dumps(record))
    damaged = open_at(tmp_path)
    targets = shapes(), on_first_device(shapes())
    for read in (
        lambda: damaged.restore(1, *targets),
        lambda: damaged.load_arrays(1),
        lambda: damaged.restore_arrays(1, *targets, {"w"}),
    ):
        with pytest.raises(
            checkpoint.CheckpointError, match="step 1 .* damaged.*: w is not what was written"
        ):
            read()
    assert set(damaged.restore_arrays(1, *targets, {"step"})) == {"step"}


def test_a_checkpoint_without_digests_is_read(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(1), 2.0)
    checkpoints.close()
    (tmp_path / "1" / checkpoint.RECORD).write_text('{"seconds": 2.0}')
    restored, seconds = open_at(tmp_path).restore(1, shapes(), on_first_device(shapes()))
    chex.assert_trees_all_equal(restored, state(1))
    assert seconds == 2.0


@pytest.mark.parametrize(
    "content",
    [
        *("", "[1]", "null", "3", "{", "[" * 10**5, '{"a": 1}', '{"commit_timestamp_nsecs": "x"}'),
        *('{"commit_timestamp_nsecs": 1e999}', '{"performance_metrics": 3}', '{"custom_metadata": [1]}'),
    ],
)
def test_orbaxs_own_file_about_a_checkpoint_may_be_damaged(tmp_path: pathlib.Path, content: str) -> None:
    checkpoints = open_at(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), 0.0)
    checkpoints.close()
    path = tmp_path / "2" / "_CHECKPOINT_METADATA"
    path.write_text(content)
    assert checkpoint.Checkpoints(tmp_path, 2, 1, "fid768", read_only=True).steps() == [1, 2]
    again = open_at(tmp_path)
    restored, _ = again.restore(2, shapes(), on_first_device(shapes()))
    chex.assert_trees_all_equal(restored, state(2))
    again.save(3, state(3), 0.0)
    again.wait()
    assert again.steps() == [2, 3]
    again.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": null}', '{"seconds": 1, "arrays": 3}'])
def test_a_record_that_is_none_is_damage(tmp_path: pathlib.Path, content: str) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(1), 2.0)
    checkpoints.close()
    (tmp_path / "1" / checkpoint.RECORD).write_text(content)
    damaged, targets = open_at(tmp_path), (shapes(), on_first_device(shapes()))
    for read in (
        lambda: damaged.restore(1, *targets),
        lambda: damaged.restore_arrays(1, *targets, {"w"}),
        lambda: damaged.load_arrays(1),
    ):
        with pytest.raises(checkpoint.CheckpointError, match="the checkpoint of step 1 .* cannot be read"):
            read()


def test_a_damaged_checkpoint_is_set_aside(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), 0.0)
        checkpoints.set_score(step, 3.0 - step)
    for i in ("", "1"):
        assert checkpoints.set_aside(2) == tmp_path / f"2.damaged{i}"
        assert (checkpoints.steps(), checkpoints.best()) == ([1], 1)
        checkpoints.save(2, state(2), 0.0)
        checkpoints.wait()
    checkpoints.close()
    assert open_at(tmp_path).steps() == [1, 2]


def test_a_checkpoint_is_on_disk_before_it_gets_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, synced, whole = open_at(tmp_path), [], os.fsync

    def fsync(handle: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), (tmp_path / "1").exists()))
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.wait()
    temporary = tmp_path / "1.orbax-checkpoint-tmp"
    flushed = {str(pathlib.Path(path).relative_to(temporary)) for path, named in synced if not named}
    assert {"record/metadata", "state/manifest.ocdbt", "state", "."} <= flushed
    data = {str(path.relative_to(tmp_path / "1")) for path in (tmp_path / "1" / "state").rglob("*")}
    assert data <= flushed | {"state/commit_success.txt"}


def test_checkpoint_of_another_model_is_refused(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(), 0.0)
    checkpoints.wait()
    other = {"v": jax.ShapeDtypeStruct((3,), jnp.float32)}
    message = "belongs to another model.*There is no other checkpoint"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoints.restore(1, other, on_first_device(other))


def test_full_disk_is_an_error_before_anything_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(), 0.0)
    checkpoints.wait()
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(checkpoint.CheckpointError, match=r"0.0 MB are free.*step 1 is complete"):
        checkpoints.save(2, state(), 0.0)
    assert checkpoints.latest() == 1


def test_disk_that_fills_up_while_writing_loses_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real, tiny file system: the second checkpoint does not fit and the first one stays complete."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        roomy = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: roomy)  # the check is tested above
        checkpoints = open_at(tmp_path)
        small = {"w": jax.random.normal(jax.random.key(0), (64, 64))}
        large = {"w": jax.random.normal(jax.random.key(0), (512, 512))}
        checkpoints.save(1, small, 0.0)
        checkpoints.wait()
        with pytest.raises(checkpoint.CheckpointError, match="could not be written.*Nothing else is lost"):
            checkpoints.save(2, large, 0.0)
            checkpoints.wait()
        restored, _ = open_at(tmp_path).restore(1, jax.eval_shape(lambda: small), on_first_device(small))
        chex.assert_trees_all_equal(restored, small)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_no_checkpoint_is_written_once_another_process_has_the_folder(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path / "checkpoints")
    with lock.hold(tmp_path, "train"):
        checkpoints.save(1, state(), 0.0)
        checkpoints.wait()
        (tmp_path / lock.NAME).unlink()
        with pytest.raises(errors.UserError, match="was taken over by another process"):
            checkpoints.save(2, state(), 0.0)
        with pytest.raises(errors.UserError, match="was taken over by another process"):
            checkpoints.set_score(1, 2.0)
    checkpoints.close()
    assert open_at(tmp_path / "checkpoints").steps() == [1] and checkpoints.score(1) is None


def test_the_best_is_of_the_last_session_that_scored(tmp_path: pathlib.Path) -> None:
    """Of the same kind as the newest score, although its checkpoint is no longer among the newest."""
    scores = {1: ("a", 70.0), 2: ("a", 60.0), 3: ("b", 0.1), 4: ("b", 0.2), 5: ("a", 65.0), 6: None, 7: None}
    for step, score in scores.items():
        protocol = score[0] if score else "a"
        checkpoints = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768", protocol=protocol)
        checkpoints.save(step, state(step), 0.0)
        if score:
            checkpoints.set_score(step, score[1])
        checkpoints.close()
    assert open_at(tmp_path).ranked() == [2, 5]


def test_the_best_by_another_metric_is_kept(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    sessions = {"fid768": {1: 70.0, 2: 60.0, 3: 65.0}, "mifid": {4: 3.0, 5: 1.0, 6: 2.0, 7: 4.0}}
    for metric, scores in sessions.items():
        checkpoints = checkpoint.Checkpoints(tmp_path, 1, 1, metric, protocol="published")
        for step, score in scores.items():
            checkpoints.save(step, state(step), 0.0)
            checkpoints.set_score(step, score)
        checkpoints.close()
    assert caplog.text.count("scores are now mifid by published, and were fid768 by published") == 1
    for metric, best in {"fid768": 2, "mifid": 5}.items():
        checkpoints = checkpoint.Checkpoints(tmp_path, 1, 1, metric, protocol="published")
        assert (checkpoints.steps(), checkpoints.best()) == ([2, 5, 7], best)
        assert [step for step in checkpoints.steps() if checkpoints.score(step) is not None] == (
            [2] if metric == "fid768" else [5, 7]
        )


def test_a_checkpoint_with_a_damaged_score_is_kept(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path, keep_last=1)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.set_score(1, 5.0)
    checkpoints.close()
    (tmp_path / "1" / checkpoint.METRICS).write_bytes(b"\x00")
    again = open_at(tmp_path, keep_last=1)
    for step in (2, 3, 4):
        again.save(step, state(step), 0.0)
        again.set_score(step, 6.0 + step)
    again.wait()
    assert again.steps() == [1, 2, 4]
    again.set_score(1, 20.0)
    again.save(5, state(5), 0.0)
    again.close()
    assert open_at(tmp_path).steps() == [2, 5]


def test_a_score_that_cannot_be_read_now_is_an_error_and_costs_no_checkpoint(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, whole = open_at(tmp_path), os.open
    checkpoints.save(1, state(1), 0.0)
    checkpoints.set_score(1, 5.0)
    checkpoints.close()

    def refuse(path: Any, *given: Any, **options: Any) -> int:
        if str(path).endswith(checkpoint.METRICS):
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, *given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(
            errors.UserError, match="the score of a checkpoint, cannot be read now: Permission"
        ):
            open_at(tmp_path)
    assert open_at(tmp_path).best_score() == 5.0


@pytest.mark.parametrize(("name", "size"), [(checkpoint.METRICS, 1 << 16), (checkpoint.RECORD, 16 << 20)])
def test_no_more_of_a_file_is_read_than_it_can_have(tmp_path: pathlib.Path, name: str, size: int) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.set_score(1, 5.0)
    checkpoints.close()
    with (tmp_path / "1" / name).open("a") as file:
        file.write(" " * size)
    again = open_at(tmp_path)
    if name == checkpoint.METRICS:
        assert again.score(1) is None
        return
    with pytest.raises(checkpoint.CheckpointError, match="larger than 16,777,216 bytes"):
        again.restore(1, shapes(), on_first_device(shapes()))


def test_a_checkpoint_that_a_training_deletes_is_not_damaged(tmp_path: pathlib.Path) -> None:
    checkpoints = open_at(tmp_path)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.close()
    reader = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768", read_only=True)
    shutil.rmtree(tmp_path / "1")
    for read in (
        lambda: reader.restore(1, shapes(), on_first_device(shapes())),
        lambda: reader.restore_arrays(1, shapes(), on_first_device(shapes()), {"w"}),
        lambda: reader.load_arrays(1),
    ):
        with pytest.raises(errors.UserError, match="step 1 in .* was deleted meanwhile") as found:
            read()
        assert not isinstance(found.value, checkpoint.CheckpointError)


def test_a_folder_that_is_deleted_is_an_error_of_one_paragraph(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    with lock.hold(run, "train"):
        checkpoints = open_at(run / "checkpoints")
        shutil.rmtree(run)
        with pytest.raises(errors.UserError, match="was taken over by another process"):
            checkpoints.save(1, state(), 0.0)
    with pytest.raises(checkpoint.CheckpointError, match="No such file.*there is no earlier one"):
        checkpoints.save(1, state(), 0.0)


def test_a_checkpoint_that_orbax_has_given_up_counts_until_it_is_deleted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax forgets the old one before the new one is complete."""
    checkpoints = open_at(tmp_path, keep_last=1)
    checkpoints.save(1, state(1), 0.0)
    checkpoints.wait()
    monkeypatch.setattr(checkpoints._manager, "latest_step", lambda: None)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(checkpoint.CheckpointError, match="the checkpoint of step 1 is complete"):
        checkpoints.save(2, state(2), 0.0)
