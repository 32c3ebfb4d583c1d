"""What measures on a lent GPU: who compiles when, and how kernels are told apart."""

import argparse
import json
import pathlib
from typing import Any

import pytest

from experiments.gpu import kernels, speed, worker

ARGS = argparse.Namespace(beside=2, compiling=1, ready=20.0, out=None)


class Scripted:
    """A worker that answers at the second question; those of XLA's wait for the GPU first."""

    made: list["Scripted"] = []
    compiling: list[str] = []
    order: list[str] = []

    def __init__(self, job: dict[str, Any], out: Any):
        del out
        self.job, self.ready, self.failed, self.told = job, {}, "", False
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
    made = speed.prepared(jobs, ARGS, speed.time.monotonic())
    assert [process.job for process in made] == jobs
    assert [process.ready for process in made] == [
        {"compiled": 1} if kind == "jaxdog" else {"done": 1} for kind in kinds
    ]
    assert "jaxdog 3 {'compiled': 1}" in capsys.readouterr().out


def test_the_first_of_a_list_compile_first_and_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("compiling", 2), ("beside", 4)):
        monkeypatch.setattr(ARGS, name, count)
    jobs = [{"kind": "jaxdog", "name": name, "slow": slow} for name, slow in (("a", 6), ("b", 3), ("c", 0))]
    made = speed.prepared([*jobs, {"kind": "torch", "name": "d"}], ARGS, speed.time.monotonic())
    assert Scripted.order == ["a", "b", "c"] and all(process.ready for process in made)


def test_one_that_fails_is_kept_and_costs_no_other() -> None:
    jobs = [
        {"kind": "torch", "name": "a", "answer": {"failed": "ended: no memory"}},
        {"kind": "jaxdog", "name": "b"},
    ]
    bad, good = speed.prepared(jobs, ARGS, speed.time.monotonic())
    assert bad.failed == "ended: no memory" and not good.failed and good.ready == {"compiled": 1}


def test_those_that_are_late_are_left_out() -> None:
    jobs = [{"kind": "torch", "name": "slow", "answer": speed.LATE}]
    late = argparse.Namespace(**{**vars(ARGS), "ready": 0.2})
    (process,) = speed.prepared(jobs, late, speed.time.monotonic())
    assert process.failed == speed.LATE["failed"]


@pytest.mark.parametrize("name", ["table", "few", "ways", "score"])
def test_jobs_of_a_list_have_names_of_their_own(name: str) -> None:
    names = [job["name"] for job in speed.listed(name)]
    assert len(names) == len(set(names)) > 1


def test_jobs_that_nobody_had_time_for_are_told_of(
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
    assert speed.undone(jobs, path) == [jobs[0], jobs[2]]
    assert speed.undone(jobs, None) == jobs


def test_a_first_state_goes_with_what_it_depends_on() -> None:
    names = {job["name"]: speed.first_state(job) for job in speed.listed("table") if job["kind"] == "jaxdog"}
    assert names["biggan bfloat16"] == names["biggan, 256 float32"] == "biggan.init"
    assert names["biggan, ch 64, 128 float32"] == "biggan-64.init"


def test_pytorchs_compiler_is_asked_again_for_less() -> None:
    wide = "channels_last", "contiguous_format"
    free = argparse.Namespace(game=argparse.Namespace(d_penalties={}))
    bound = argparse.Namespace(game=argparse.Namespace(d_penalties={"r1": 1}))
    assert worker.attempts("eager", free) == [("contiguous_format", "")]
    assert worker.attempts("compile channels_last", bound) == [(layout, "g") for layout in wide]
    assert worker.attempts("compile channels_last", free)[:2] == [(layout, "gd") for layout in wide]


def test_an_unknown_list_is_an_error() -> None:
    with pytest.raises(
        SystemExit, match="'fast' is unknown; choices: float32, bfloat16, table, few, ways, score"
    ):
        speed.listed("fast")


BODY = "jit(dispatch)/while/body"
PROGRAM = f"""
  %fusion.7 = f32[4] fusion(%a), kind=kLoop, metadata={{op_name="{BODY}/eval_jaxpr/jvp(G)/mul"}}
  ROOT %cudnn-conv-bw-filter.2 = (f32[3]) custom-call(%b), metadata={{op_name="{BODY}/D/conv"}}
"""


def test_kernels_are_found_in_the_program() -> None:
    known = kernels.sources(PROGRAM)
    assert known == {"fusion.7": "jvp(G)/mul", "cudnn-conv-bw-filter.2": "D/conv"}
    in_graph = kernels.Kernel("fusion_7", "command_buffer_12", 3.0, 1.0)
    convolution = kernels.Kernel("sm90_wgrad_bf16bf16", "cudnn-conv-bw-filter.2", 9.0, 1.0)
    assert kernels.source(in_graph, known) == "jvp(G)/mul" and kernels.kind(in_graph) == "fusion"
    assert kernels.source(convolution, known) == "D/conv"
    assert kernels.kind(convolution) == "bf16 convolution, kernel's gradient"
    assert kernels.kind(kernels.Kernel("nvjet_sm90", "custom-call.3", 1.0, 1.0)) == "product"
