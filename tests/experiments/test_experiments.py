"""The experiments: their configs are valid, arms share trainings, answers need several seeds."""

import argparse
import json
import os
import pathlib
import sys
import threading

import pytest

from configs import r3gan, toy
from experiments import timing, trial
from experiments.ablations import run as ablations
from experiments.bench import step
from experiments.entries import run as entries
from experiments.record import compare, study
from experiments.record import run as record
from jaxdog.config import build


@pytest.fixture
def args() -> argparse.Namespace:
    return trial.parser("").parse_args(["--minutes", "1", "--narrow"])


def test_lists_in_overrides_are_tuples_as_in_configs():
    args = trial.parser("").parse_args(
        ["--set", 'sample.sweep={"ema_index": [0, 1]}', "ema.extra_ema_decays=[0.9]", "seed=3"]
    )
    assert trial.overrides(args) == {
        "sample.sweep": {"ema_index": (0, 1)},
        "ema.extra_ema_decays": (0.9,),
        "seed": 3,
    }


def test_names_that_only_selects_must_exist(capsys):
    parser = trial.parser("", ("a", "b"))
    assert parser.parse_args([]).only == ("a", "b") and parser.parse_args(["--only", "b"]).only == ("b",)
    with pytest.raises(SystemExit):
        parser.parse_args(["--only", "b,c"])
    assert "'c' is unknown; choices: a, b" in capsys.readouterr().err


def test_a_run_needs_one_budget(capsys):
    parser = trial.parser("")
    for given in ([], ["--minutes", "1", "--kimg", "1"]):
        with pytest.raises(SystemExit):
            trial.check_budget(parser, parser.parse_args(given))
    assert "give either --minutes or --kimg" in capsys.readouterr().err


@pytest.mark.parametrize("name", entries.ENTRIES)
def test_every_entry_is_valid_narrow_and_for_minutes(name, args):
    config, changes = entries.config_of(name, args)
    assert build.check(config).train.max_hours == pytest.approx(1 / 60)
    assert changes["eval.samples"] == args.samples


@pytest.mark.parametrize("name", entries.ENTRIES)
def test_every_entry_is_valid_at_full_width_for_images(name):
    args = trial.parser("").parse_args(["--kimg", "20"])
    config, _ = entries.config_of(name, args)
    checked = build.check(config)
    assert checked.train.steps == pytest.approx(20_000 / config.system.batch_size, abs=50)


ARMS = [(name, arm) for name, asked in ablations.QUESTIONS.items() for arm in asked.arms]


@pytest.mark.parametrize(("name", "arm"), ARMS)
def test_every_arm_is_valid_and_differs_from_the_other(name, arm, args):
    config, changes = ablations.config_of(name, arm, 1, args)
    assert build.check(config).seed == changes["seed"] == 1
    other = next(x for x in ablations.QUESTIONS[name].arms if x != arm)
    assert ablations.config_of(name, other, 1, args)[1] != changes


def test_an_unchanged_config_is_trained_once_for_all_questions():
    of_lsgan = [x for x, asked in ablations.QUESTIONS.items() if asked.config == "lsgan_sn"]
    shared = {
        ablations.name_of(x, arm) for x in of_lsgan for arm, y in ablations.QUESTIONS[x].arms.items() if not y
    }
    assert len(of_lsgan) > 3 and shared == {"lsgan_sn"}
    names = [ablations.name_of(x, arm) for x, arm in ARMS]
    assert len(set(names) - {asked.config for asked in ablations.QUESTIONS.values()}) == len(
        [1 for x, arm in ARMS if ablations.QUESTIONS[x].arms[arm]]
    )


def test_a_row_counts_as_trained_only_with_the_same_budget(args, tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "HERE", tmp_path)
    assert not ablations.is_trained("rate", "2e-4", 0, args)
    changes = ablations.config_of("rate", "2e-4", 0, args)[1]
    trial.write(ablations.row_path("rate", "2e-4", 0), {"changes": changes})
    assert ablations.is_trained("rate", "2e-4", 0, args)
    assert not ablations.is_trained("rate", "2e-4", 1, args)
    args.minutes = 2.0
    assert not ablations.is_trained("rate", "2e-4", 0, args)


def row(fid: float, recall: float) -> dict:
    after = {"fid768": fid, "fid2048_approx": fid, "recall": recall, "precision": 0.5, "coverage": 0.5}
    return {"after": after, "losses": []}


def test_an_arm_is_better_only_if_its_worst_seed_beats_the_best_of_the_other():
    found = ablations.answer("rate", {"2e-4": [row(3, 0.1), row(4, 0.3)], "8e-4": [row(1, 0.2), row(2, 0.4)]})
    fid768, fid2048, recall = found["answer"].split("; ")
    assert fid768 == "fid768 2e-4 3.5, 8e-4 1.5: 8e-4 is better"
    assert fid2048.endswith("8e-4 is better") and recall.endswith("the seeds overlap")
    assert found["scores"]["fid768"]["2e-4"] == [3, 4]


def test_one_seed_is_no_answer():
    found = ablations.answer("rate", {"2e-4": [row(3, 0.1)], "8e-4": [row(1, 0.2)]})
    assert all(x.endswith("one seed says nothing") for x in found["answer"].split("; "))


def test_answers_are_made_of_the_rows_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "HERE", tmp_path)
    monkeypatch.setattr(trial, "loss_curves", lambda *_: None)
    for name, fid in (("lsgan_sn-0", 2.0), ("lsgan_sn-1", 2.5), ("rate-2e-4-0", 3.0), ("rate-2e-4-1", 3.5)):
        trial.write(tmp_path / "rows" / f"{name}.json", row(fid, 0.0))
    ablations.collect()
    (found,) = json.loads((tmp_path / "answers.json").read_text())
    assert found["question"] == "rate" and "8e-4 is better" in found["answer"]
    assert found["scores"]["fid768"] == {"2e-4": [3.0, 3.5], "8e-4": [2.0, 2.5]}


def test_what_an_arm_needs_is_made_first_and_awaited(args, tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "HERE", tmp_path)
    args.runs, args.seeds, args.only = str(tmp_path / "runs"), 2, ("pretraining", "truncation", "framing")
    found = {task.name: list(task.after) for task in ablations.tasks(args)}
    needs = ["needs-vae-0", "needs-framing", "needs-vae-1"]
    assert list(found)[:3] == needs and not any(found[x] for x in needs)
    assert found["pretraining/from a VAE/1"] == ["needs-vae-1"]
    assert found["framing/one/0"] == ["needs-framing"]
    alone = {x for x, after in found.items() if not after} - set(needs)
    assert alone == {f"{x}/{i}" for x in ("pretraining/from scratch", "framing/all") for i in (0, 1)}
    (tmp_path / "runs" / "needs-vae-1" / "checkpoints").mkdir(parents=True)
    assert "needs-vae-1" not in {task.name for task in ablations.tasks(args)}


# Tasks ------------------------------------------------------------------------------------------------------


def test_tasks_wait_for_what_they_need_and_fail_with_it(monkeypatch):
    started = []

    def run_one(file, name):
        started.append(name)
        return name != "bad"

    monkeypatch.setattr(trial, "run_one", run_one)
    after = {"bad": [], "good": [], "a": ["good"], "b": ["good", "bad"]}
    assert trial.run_tasks("", [trial.Task(*x) for x in after.items()], 1) == ["bad", "b"]
    assert started == ["bad", "good", "a"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be assigned on this system")
def test_each_task_has_its_share_of_the_cores(monkeypatch):
    if len(cores := os.sched_getaffinity(0)) < 2:
        pytest.skip("one core cannot be shared")
    both, used = threading.Barrier(2, timeout=20), []

    def run_one(file, name):
        used.append(os.sched_getaffinity(0))
        both.wait()
        return True

    monkeypatch.setattr(trial, "run_one", run_one)
    assert not trial.run_tasks("", [trial.Task("a"), trial.Task("b")], 2)
    assert used[0] | used[1] == cores and not used[0] & used[1]
    assert os.sched_getaffinity(0) == cores
    with pytest.raises(SystemExit, match=f"--jobs is {len(cores) + 1}, and must be from 1 to {len(cores)}"):
        trial.run_tasks("", [], len(cores) + 1)


def test_an_entry_that_starts_from_another_comes_after_it(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(trial, "run_tasks", lambda file, tasks, count: seen.extend(tasks) or [])
    monkeypatch.setattr(entries, "collect", lambda: None)
    monkeypatch.setattr(sys, "argv", ["run.py", "--minutes", "1", "--only", "vae_lsgan,biggan,vae"])
    entries.main()
    assert [(task.name, list(task.after)) for task in seen] == [
        ("biggan", []),
        ("vae", []),
        ("vae_lsgan", ["vae"]),
    ]


# The study, the attempt -------------------------------------------------------------------------------------


@pytest.fixture
def budget(monkeypatch):
    monkeypatch.setattr(timing, "flops", lambda config: 1e9 * config.system.batch_size)
    monkeypatch.setattr(sys, "argv", ["study.py", "--teraflop", "8"])
    return study.parse()


@pytest.mark.parametrize("name", study.OPTIONS)
def test_every_option_is_valid_and_takes_the_same_operations(name, budget):
    config, changes = study.config_of(name, 3, budget)
    checked = build.check(config)
    assert checked.seed == changes["seed"] == 3 and checked.train.max_hours == 0.0
    assert checked.train.steps * checked.system.batch_size == 8000 and not checked.sample.sweep


def test_options_differ_from_the_base(budget):
    texts = [json.dumps(study.config_of(name, 0, budget)[0].to_dict()) for name in study.OPTIONS]
    assert len(set(texts)) == len(texts)


def option(name: str, seed: int, fid: float) -> dict:
    return {"option": name, "seed": seed, "images": 10, "seconds": 5.0, **row(fid, 0.1)}


def test_options_are_ranked_by_their_mean_with_its_standard_error():
    rows = [option("base", 0, 2.0), option("squash", 0, 1.0), option("base", 1, 3.0), option("lecam", 0, 4.0)]
    first, second, third = study.ranking(rows)
    assert [x["option"] for x in (first, second, third)] == ["squash", "base", "lecam"]
    assert second["fid768"] == {"mean": 2.5, "error": pytest.approx(0.5)}
    assert first["fid768"]["error"] is None and second["seeds"] == 2


@pytest.mark.long
def test_operations_are_counted_per_step():
    """Twice the batch is twice the work, but for what does not depend on it."""

    def counted(batch_size: int) -> float:
        config = toy.get_config("test")
        config.system.batch_size = batch_size
        return timing.flops(config)

    assert counted(16) / counted(8) == pytest.approx(2.0, rel=0.1)


@pytest.fixture
def attempt(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "flops", lambda config: 1e9)
    speed = {"images_per_second": 1280.0, "steps_per_second": 10.0}
    monkeypatch.setattr(timing, "train_rate", lambda *given: speed)
    monkeypatch.setattr(sys, "argv", ["run.py", "--minutes", "10", "--runs", str(tmp_path)])
    return record.parse()


def test_a_plan_is_as_long_as_the_minutes_and_holds_for_all_parts(attempt, tmp_path, monkeypatch):
    config = record.config_of(attempt)
    plan = record.make_plan(config, tmp_path, attempt)
    assert plan["steps"] == 5400  # 10 steps a second for nine of ten minutes
    assert plan["flop"] == 5400e9 and plan["images_per_second"] == 1280.0
    monkeypatch.setattr(timing, "train_rate", lambda *given: {"steps_per_second": 1.0})
    assert record.make_plan(config, tmp_path, attempt) == plan
    attempt.minutes = 20.0
    with pytest.raises(SystemExit, match="give the same again, or another --runs"):
        record.make_plan(config, tmp_path, attempt)


def test_schedules_are_scaled_to_the_plan(attempt):
    attempt.weights = "published"
    config = record.scale(record.config_of(attempt), 5400, attempt)
    checked = build.check(config)
    assert checked.train.steps == checked.system.augment_p["steps"] == 5400
    assert checked.eval.every_kimg == 300 * 128 / 1000 and checked.checkpoint.every == 300


def test_an_attempts_scores_have_hours_and_operations(tmp_path):
    config = r3gan.get_config()
    config.system.batch_size, config.sample.sweep = 8, {"truncation": (0.0,)}
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    (tmp_path / "plan.json").write_text(json.dumps({"arm": "r3gan", "flop_per_step": 2e12}))
    lines = [{"step": step, "seconds": 36.0 * step} for step in (100, 200)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = [{"step": 200, "fid768": 2.0, "final": final} for final in (False, True)]
    (tmp_path / "scores.jsonl").write_text(json.dumps(scores[0]) + "\n")
    with pytest.raises(SystemExit, match="no final score"):
        compare.read(tmp_path)
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    made = compare.read(tmp_path)
    assert made["hours"] == made["scores"][-1]["hours"] == 2.0 and made["scores"][-1]["teraflop"] == 400.0
    assert made["changes"] == {
        "system.batch_size": 8,
        "sample.sweep.postprocess": None,
        "sample.sweep.ema_index": None,
        "sample.sweep.truncation": [0.0],
    }


def test_pilots_are_ranked_by_their_first_scores_and_show_their_changes():
    def pilot(folder, fid768, **changes):
        first = {"teraflop": 20.0, "step": 100, "hours": 0.1, "fid2048_approx": 9.0, "val_fid768": 2.0}
        scores = [{**first, "fid768": fid768}, {**first, "fid768": 0.0}]
        return pathlib.Path(folder), {"arm": "r3gan", "changes": {"seed": 1, **changes}, "scores": scores}

    folders, made = zip(pilot("slow/r3gan", 2.0), pilot("fast/r3gan", 1.0, rate=0.5), strict=True)
    compare.add_names(list(made), list(folders))
    assert [x["name"] for x in made] == ["r3gan-slow", "r3gan-fast"]
    head, _, *rows, end = compare.pilot_table(list(made)).split("\n")
    assert head.startswith("| changes") and end == ""
    assert rows == [
        "| `r3gan-fast`: rate 0.5 | 20.0 | 100 | 0.10 | 1.000 | 9.0 | 2.000 |",
        "| `r3gan-slow`:  | 20.0 | 100 | 0.10 | 2.000 | 9.0 | 2.000 |",
    ]


# The benchmark ----------------------------------------------------------------------------------------------


def test_ratios_are_those_of_adjacent_turns() -> None:
    times = {"jaxdog": [2.0, 1.0, 4.0], "jaxdog draws": [1.0, 1.0, 1.0], "torch": [4.0, 3.0, 4.0]}
    times |= {"torch draws": [1.0, 2.0, 3.0], "inputs": [0.2, 0.2, 0.2], "log line": [0.1, 0.1, 0.1]}
    found = step.summary(8, times, 0.5)
    assert found["ratio_of_each_round"]["torch"] == [2.0, 3.0, 1.0] and found["ratio"]["torch"] == 2.0
    assert found["ratio"]["torch draws"] == 2.0 and found["seconds_per_kimg"] == 250.0
    assert found["images_per_second"] == {
        "torch": 2.0,
        "torch draws": 4.0,
        "jaxdog": 4.0,
        "jaxdog draws": 8.0,
    }
    assert found["input_share"] == 0.1 and found["log_share"] == 0.025


def test_a_block_of_a_page_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- t -->\nold\n<!-- end -->\nb\n<!-- u -->\nkept\n<!-- end -->\n")
    trial.replace_block(page, "t", "new\n")
    assert page.read_text() == "a\n<!-- t -->\n\nnew\n\n<!-- end -->\nb\n<!-- u -->\nkept\n<!-- end -->\n"
    with pytest.raises(ValueError, match="no block between <!-- v -->"):
        trial.replace_block(page, "v", "new\n")
