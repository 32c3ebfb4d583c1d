"""Ways to draw: which there are, what they draw from, and that the best is taken."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import runs, sampling_sweep, sharding
from jaxdog import types as types
from jaxdog.config import build, schema
from jaxdog.data import photos
from jaxdog.optim import ema
from jaxdog.training import writers
from tests.config import test_build

PATH = next(path for path in test_build.CONFIGS if path.stem == "biggan")
CLASSES = 3


def config(**changes: Any) -> schema.Checked:
    given = test_build.load(PATH).get_config("test")
    given.update_from_flattened_dict({"ema.tracks": (0.0, 0.9), **changes})
    return build.check(given)


class Judge:
    """Scores pictures by how far their mean is from a wanted one; counts the systems that it saw."""

    def __init__(self, wanted: float):
        self.wanted, self.systems, self.keys = wanted, [], []

    def score_system(self, drawn: Any, state: Any, key: Any, label: Any, batch_size: int) -> dict[str, Any]:
        self.systems.append(drawn)
        self.keys.append(np.asarray(jax.random.key_data(key)))
        mean = float(jax.tree.leaves(state.ema.params)[0].ravel()[0])
        return {"weights_kind": "random", "rfid768": abs(mean - self.wanted)}


@pytest.fixture(scope="module")
def state() -> Any:
    """The average's parameters are 0, its tracks' are 1 and 2."""
    system = build.phases(config(), CLASSES)[0].system
    n = 8
    zeros = jnp.zeros(n, jnp.int32)
    batch = types.Batch(jnp.zeros((n, 32, 32, 3)), zeros, jnp.full((n, 2), 32), zeros, jnp.zeros(n))
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)

    def filled(tree: Any, value: float) -> Any:
        return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), tree)

    made = [ema.Average(filled(shapes.ema.params, i), filled(shapes.ema.stats, 1)) for i in range(3)]
    return shapes.replace(ema=made[0], tracks=tuple(made[1:]))


def work(folder: pathlib.Path, judge: Judge, **changes: Any) -> runs.Job:
    checked = config(**changes)
    zeros = np.zeros(4, np.int32)
    image = np.zeros((4, 32, 32, 3), np.uint8)
    crops = photos.Crops(image, zeros, zeros, np.zeros((4, 2)), zeros, ("a",), ("x", "y", "z"), ())
    phases = build.phases(checked, CLASSES)
    nothing: Any = None
    return runs.Job(checked, folder, sharding.mesh(), crops, phases, lambda: judge, nothing, nothing)  # type: ignore


def test_ways_are_all_combinations_with_averages_side_by_side() -> None:
    found = sampling_sweep.ways({"track": (0, 1), "truncation": (0.0, 0.5)})
    assert [(x["truncation"], x["track"]) for x in found] == [(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1)]


@pytest.mark.parametrize(("wanted", "track"), [(0.1, 0), (0.9, 1), (3.0, 2)])
def test_the_best_average_is_drawn_from(
    tmp_path: pathlib.Path, state: Any, wanted: float, track: int
) -> None:
    judge = Judge(wanted)
    made = work(tmp_path, judge, **{"sample.sweep": {"track": (0, 1, 2), "truncation": (0.0, 0.7)}})
    setting = sampling_sweep.best(made, 0, state, step=40)
    assert setting == sampling_sweep.found(made, 40) == {"truncation": 0.0, "track": track}
    way = sampling_sweep.drawn(made, state, setting)
    assert float(jax.tree.leaves(way.state.ema.params)[0].ravel()[0]) == track
    assert way.job.config.sample.truncation == 0.0
    table = json.loads((tmp_path / writers.SWEEP).read_text())
    assert table["best"] == {"truncation": 0.0, "track": track} and len(table["ways"]) == 6
    assert table["metric"] == "rfid768" and table["step"] == 40
    assert len({id(x.sample) for x in judge.systems}) == 2  # one for each truncation
    assert len({x.tobytes() for x in judge.keys}) == 1
    assert sampling_sweep.found(made, 50) is None  # of another checkpoint
    assert sampling_sweep.found(work(tmp_path, judge, **{"sample.sweep": {"track": (0, 1)}}), 40) is None


def test_pictures_may_be_finished_in_several_ways(tmp_path: pathlib.Path, state: Any) -> None:
    smooth = {"non_local_means": {"luminance": 2.65, "colour": 1.0, "template": 7, "search": 11}}
    made = work(tmp_path, Judge(0.0), **{"sample.sweep": {"finish": ({}, smooth)}})
    assert sampling_sweep.best(made, 0, state, step=8) == sampling_sweep.found(made, 8) == {"finish": {}}
    assert sampling_sweep.drawn(made, state, {"finish": smooth}).job.config.sample.finish == smooth


def test_a_way_changes_what_it_names_and_nothing_else(tmp_path: pathlib.Path, state: Any) -> None:
    made = work(tmp_path, Judge(0.0))
    way = sampling_sweep.drawn(made, state, {"truncation": 0.4, "norm": "batch"})
    assert way.job.config.sample == made.config.sample._replace(truncation=0.4, norm="batch")
    assert way.state is state and way.job.config.game == made.config.game


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": (1,)}, "sweep.batch_size is 'batch_size'; choices: finish, labels, method, norm, tr"),
        ({"finish": ({}, {"blur": {}})}, "config.sample.finish.blur is 'blur'; choices: .*non_local_means"),
        ({"truncation": ()}, r"sweep.truncation is \(\), and must be a tuple of values"),
        ({"truncation": ("much",)}, "sweep.truncation is 'much'"),
        ({"norm": ("running", "none")}, "sweep.norm is 'none'; choices: batch, refreshed, running"),
        ({"track": (0, 3)}, r"sweep.track has 3; 0 is the average, and 1 to 2 those of config.ema.tracks"),
    ],
)
def test_values_that_could_not_stand_are_refused(given: Any, message: str) -> None:
    with pytest.raises(schema.ConfigError, match=message):
        config(**{"sample.sweep": given})
