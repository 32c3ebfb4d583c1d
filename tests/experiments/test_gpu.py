"""Measuring on a rented GPU: which processes compile when, and which jobs are run."""

import argparse
import json
import pathlib
from typing import Any

import pytest

from experiments.gpu import speed, worker

ARGS = argparse.Namespace(beside=2, compiling=1, ready=20.0, out=None)


class Scripted:
    """A worker that answers at the second question; jaxdog's wait for their turn to compile first."""

    made: list["Scripted"] = []
    compiling: list[str] = []
    order: list[str] = []

    def __init__(self, job: dict[str, Any], out: Any):
        del out
        self.job, self.ready, self.failed, self.waiting = job, {}, "", False
        self.script: list[Any] = [speed.LATE] * (1 + job.get("slow", 0))
        self.script += [{"waiting": True}] if job["kind"] == "jaxdog" else [job.get("answer", {"done": 1})]
        Scripted.made.append(self)

    def tell(self, what: str) -> None:
        assert what == "compile" and len(Scripted.compiling) < ARGS.compiling, "too many compile at a time"
        Scripted.compiling.append(self.job["name"])
        Scripted.order.append(self.job["name"])
        self.script += [*4 * [speed.LATE], {"compiled": 1}]

    def answer(self, until: float) -> Any:
        del until
        unready = [process for process in Scripted.made if not process.ready and not process.failed]
        assert len(unready) <= ARGS.beside
        got = self.script.pop(0) if self.script else speed.LATE
        if "compiled" in got:
            Scripted.compiling.remove(self.job["name"])
        return got


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted.made, Scripted.compiling, Scripted.order = [], [], []
    monkeypatch.setattr(speed, "Process", Scripted)


def test_one_process_at_a_time_has_the_gpu_while_it_compiles(capsys: pytest.CaptureFixture) -> None:
    kinds = ("jaxdog", "jaxdog", "torch", "jaxdog", "torch")
    jobs = [{"kind": kind, "name": f"{kind} {i}"} for i, kind in enumerate(kinds)]
    made = speed.prepare(jobs, ARGS, speed.time.monotonic())
    assert [process.job for process in made] == jobs
    assert [process.ready for process in made] == [
        {"compiled": 1} if kind == "jaxdog" else {"done": 1} for kind in kinds
    ]
    assert "jaxdog 3 {'compiled': 1}" in capsys.readouterr().out


def test_the_first_of_a_list_compile_first_and_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("compiling", 2), ("beside", 4)):
        monkeypatch.setattr(ARGS, name, count)
    jobs = [{"kind": "jaxdog", "name": name, "slow": slow} for name, slow in (("a", 6), ("b", 3), ("c", 0))]
    made = speed.prepare([*jobs, {"kind": "torch", "name": "d"}], ARGS, speed.time.monotonic())
    assert Scripted.order == ["a", "b", "c"] and all(process.ready for process in made)


def test_a_failure_is_recorded_and_costs_no_other_job() -> None:
    jobs = [
        {"kind": "torch", "name": "a", "answer": {"failed": "ended: no memory"}},
        {"kind": "jaxdog", "name": "b"},
    ]
    bad, good = speed.prepare(jobs, ARGS, speed.time.monotonic())
    assert bad.failed == "ended: no memory" and not good.failed and good.ready == {"compiled": 1}


def test_late_jobs_are_left_out() -> None:
    jobs = [{"kind": "torch", "name": "slow", "answer": speed.LATE}]
    late = argparse.Namespace(**{**vars(ARGS), "ready": 0.2})
    (process,) = speed.prepare(jobs, late, speed.time.monotonic())
    assert process.failed == speed.LATE["failed"]


@pytest.mark.parametrize("name", ["table", "few", "float32", "bfloat16"])
def test_jobs_of_a_list_have_unique_names(name: str) -> None:
    names = [job["name"] for job in speed.listed(name)]
    assert len(names) == len(set(names)) > 1


def test_jobs_that_were_not_started_are_listed_as_late(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(speed, "machine", dict)
    args = argparse.Namespace(out=tmp_path, rounds=1, budget=0.0)
    speed.measure([], [{"name": "a"}], args, speed.time.monotonic())
    assert (
        json.loads((tmp_path / "speed.json").read_text())["measured"]["a"]["failed"] == speed.LATE["failed"]
    )


def test_what_was_measured_is_not_measured_again(tmp_path: pathlib.Path) -> None:
    (path := tmp_path / "done.json").write_text('{"measured": {"a": {"per_second": {"train": 1}}, "b": {}}}')
    jobs = [{"kind": kind, "name": name} for kind, name in (("limits", "a"), ("torch", "a"), ("torch", "b"))]
    assert speed.remaining(jobs, path) == [jobs[0], jobs[2]]
    assert speed.remaining(jobs, None) == jobs


def test_an_initial_state_is_named_after_what_it_depends_on() -> None:
    names = {job["name"]: speed.first_state(job) for job in speed.listed("table") if job["kind"] == "jaxdog"}
    assert names["biggan bfloat16"] == names["biggan, 256 float32"] == "biggan.init"
    assert names["biggan, ch 64, 128 float32"] == "biggan-64.init"


def test_torch_compile_has_fallbacks() -> None:
    wide = "channels_last", "contiguous_format"
    assert worker.attempts("eager", "gd") == [("contiguous_format", "")]
    assert worker.attempts("compile channels_last", "g") == [(layout, "g") for layout in wide]
    assert worker.attempts("compile channels_last", "gd")[:2] == [(layout, "gd") for layout in wide]


def test_an_unknown_list_is_an_error() -> None:
    with pytest.raises(
        SystemExit, match="'fast' is unknown; choices: float32, bfloat16, table, few, or a file"
    ):
        speed.listed("fast")
