"""Sampling sweeps: the combinations, the state that each samples from, and the choice of the best."""

import json
import logging
import pathlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import runs, sampling_sweep, sharding
from jaxdog import types as types
from jaxdog.config import build, library, schema
from jaxdog.data import dataset_info
from jaxdog.optim import ema
from jaxdog.training import checkpoint, writers
from jaxdog.utils import errors

CLASSES = 3


def config(**changes: Any) -> schema.Experiment:
    given = library.load("biggan:test")
    given.update_from_flattened_dict({"ema.extra_ema_decays": (0.0, 0.9), **changes})
    return build.check(given)


class FakeEvaluator:
    """Scores a state by how far its EMA is from a target; records the systems that it was called with."""

    def __init__(self, target: float):
        self.target, self.systems, self.keys = target, [], []

    def score_system(self, system: Any, state: Any, key: Any, label: Any, batch_size: int) -> dict[str, Any]:
        self.systems.append(system)
        self.keys.append(np.asarray(jax.random.key_data(key)))
        mean = float(jax.tree.leaves(state.ema.params)[0].ravel()[0])
        return {"weights_kind": "random", "random_fid768": abs(mean - self.target)}


@pytest.fixture(scope="module")
def state() -> Any:
    """The parameters of the EMA are 0, those of the extra EMAs 1 and 2."""
    system = build.phases(config(), CLASSES)[0].system
    n = 8
    zeros = jnp.zeros(n, jnp.int32)
    batch = types.Batch(jnp.zeros((n, 32, 32, 3)), zeros, jnp.full((n, 2), 32), zeros, jnp.zeros(n))
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)

    def filled(tree: Any, value: float) -> Any:
        return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), tree)

    emas = [ema.EMA(filled(shapes.ema.params, i), filled(shapes.ema.model_state, 1)) for i in range(3)]
    return shapes.replace(ema=emas[0], extra_emas=tuple(emas[1:]))


def make_run(folder: pathlib.Path, fake: FakeEvaluator, **changes: Any) -> runs.Run:
    checked = config(**changes)
    dataset = dataset_info.DatasetInfo(("x", "y", "z"), (2, 1, 1), 4, 4, "source", "recipe", (32, 32, 3))
    phases, evaluator = build.phases(checked, CLASSES), lambda: fake
    nothing: Any = None
    mesh, kept = sharding.make_mesh(), SimpleNamespace(path=lambda step: folder / "checkpoints" / str(step))
    return runs.Run(checked, folder, mesh, dataset, phases, evaluator, nothing, nothing, kept)  # type: ignore


def option_of(run: runs.Run, state: Any) -> runs.SamplingOption:
    return runs.SamplingOption(run.config.sample, run.phases[0], state)


def test_settings_are_all_combinations_and_the_ema_varies_fastest() -> None:
    settings = sampling_sweep.combinations({"ema_index": (0, 1), "truncation": (0.0, 0.5)})
    assert [(x["truncation"], x["ema_index"]) for x in settings] == [(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1)]


@pytest.mark.long
@pytest.mark.parametrize(("target", "index"), [(0.1, 0), (0.9, 1), (3.0, 2)])
def test_the_best_ema_is_sampled_from(tmp_path: pathlib.Path, state: Any, target: float, index: int) -> None:
    fake = FakeEvaluator(target)
    run = make_run(tmp_path, fake, **{"sample.sweep": {"ema_index": (0, 1, 2), "truncation": (0.0, 0.7)}})
    option = option_of(run, state)
    setting = sampling_sweep.find_best(run, option, step=40)
    assert setting == sampling_sweep.load_best(run, 40) == {"truncation": 0.0, "ema_index": index}
    best = sampling_sweep.select(run, option, setting)
    assert float(jax.tree.leaves(best.state.ema.params)[0].ravel()[0]) == index
    assert best.sample.truncation == 0.0
    table = json.loads((tmp_path / writers.SWEEP).read_text())
    assert table["best"] == {"truncation": 0.0, "ema_index": index} and len(table["options"]) == 6
    assert table["metric"] == "random_fid768" and table["step"] == 40
    assert len({id(x.sample) for x in fake.systems}) == 2  # one for each truncation
    assert len({x.tobytes() for x in fake.keys}) == 1
    assert sampling_sweep.load_best(run, 50) is None  # of another checkpoint
    other = make_run(tmp_path, fake, **{"sample.sweep": {"ema_index": (0, 1)}})
    assert sampling_sweep.load_best(other, 40) is None


def test_a_sweep_of_other_scores_or_of_another_checkpoint_is_made_again(
    tmp_path: pathlib.Path, state: Any
) -> None:
    run = make_run(tmp_path, FakeEvaluator(0.0), **{"sample.sweep": {"ema_index": (0, 1)}})
    record = tmp_path / "checkpoints" / "8" / checkpoint.RECORD
    record.parent.mkdir(parents=True)
    record.write_text("one")
    random, published = run._replace(protocol="random weights"), run._replace(protocol="published weights")
    best = sampling_sweep.find_best(random, option_of(run, state), step=8)
    assert best == sampling_sweep.load_best(random, 8) == {"ema_index": 0}
    assert sampling_sweep.load_best(published, 8) is None
    assert sampling_sweep.load_best(run, 8) == best  # to sample, without a feature network
    scoring = run.config.eval._replace(best="mifid")
    assert sampling_sweep.load_best(run._replace(config=run.config._replace(eval=scoring)), 8) is None
    record.write_text("another")
    assert sampling_sweep.load_best(random, 8) is sampling_sweep.load_best(run, 8) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None])
def test_a_score_that_is_undefined_is_not_the_best(
    tmp_path: pathlib.Path, state: Any, monkeypatch: pytest.MonkeyPatch, bad: float | None
) -> None:
    fake, scores = FakeEvaluator(0.0), iter([bad, 3.0, 2.0])
    score = lambda *_, **__: {"weights_kind": "random", "random_fid768": next(scores)}  # noqa: E731
    monkeypatch.setattr(fake, "score_system", score)
    run = make_run(tmp_path, fake, **{"sample.sweep": {"ema_index": (0, 1, 2)}})
    assert sampling_sweep.find_best(run, option_of(run, state), step=8) == {"ema_index": 2}
    table = json.loads((tmp_path / writers.SWEEP).read_text(), parse_constant=pytest.fail)
    assert table["options"][0]["random_fid768"] is None


ONE = b'{"step": 8, "options": [{"setting": {"ema_index": 0}}], "best": '


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"step": 8', b"\xff\x00", b"[]", b'{"step": 8, "options": [1]}', b"[" * 10**5),
        *(ONE + b"null}", ONE + b'{"ema_index": 7}}', ONE[:-10] + b"}"),
    ],
    ids=["empty", "cut", "bytes", "list", "numbers", "deep", "no best", "unknown best", "without best"],
)
def test_a_damaged_sweep_is_not_used(
    tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("jaxdog"), "propagate", True)
    (tmp_path / writers.SWEEP).write_bytes(content)
    run = make_run(tmp_path, FakeEvaluator(0.0), **{"sample.sweep": {"ema_index": (0,)}})
    assert sampling_sweep.load_best(run, 8) is None
    assert "sweep.json is damaged and not used" in caplog.text


def test_images_may_be_postprocessed_in_several_ways(tmp_path: pathlib.Path, state: Any) -> None:
    smooth = {"non_local_means": {"luminance": 2.65, "color": 1.0, "template": 7, "search": 11}}
    run = make_run(tmp_path, FakeEvaluator(0.0), **{"sample.sweep": {"postprocess": ({}, smooth)}})
    option = option_of(run, state)
    best = sampling_sweep.find_best(run, option, step=8)
    assert best == sampling_sweep.load_best(run, 8) == {"postprocess": {}}
    assert sampling_sweep.select(run, option, {"postprocess": smooth}).sample.postprocess == smooth


def test_a_setting_changes_what_it_names_and_nothing_else(tmp_path: pathlib.Path, state: Any) -> None:
    run = make_run(tmp_path, FakeEvaluator(0.0))
    selected = sampling_sweep.select(run, option_of(run, state), {"truncation": 0.4, "batch_stats": "batch"})
    assert selected.sample == run.config.sample._replace(truncation=0.4, batch_stats="batch")
    assert selected.state is state and selected.phase._replace(system=None) == run.phases[0]._replace(
        system=None
    )
    assert selected.phase.system.sample is not run.phases[0].system.sample


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"batch_size": (1,)},
            "batch_size is 'batch_size'; choices: batch_stats, ema_index, labels, method, postprocess, tr",
        ),
        (
            {"postprocess": ({}, {"blur": {}})},
            "config.sample.postprocess.blur is not a field of .*; fields: non_local_means",
        ),
        ({"truncation": ()}, r"sweep.truncation is \(\), and must be a tuple of values"),
        ({"truncation": ("much",)}, "sweep.truncation is 'much'"),
        (
            {"batch_stats": ("running", "none")},
            "sweep.batch_stats is 'none'; choices: batch, running, standing",
        ),
        (
            {"ema_index": (0, 3)},
            r"sweep.ema_index has 3; 0 is the average, and 1 to 2 those of config.ema.extra_ema_decays",
        ),
    ],
)
def test_invalid_values_are_refused(given: Any, message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        config(**{"sample.sweep": given})
