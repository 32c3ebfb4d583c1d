"""What a config costs: counted by hand, growing with the batch, within what a device has."""

from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jax.sharding import Mesh

from jaxdog import cost, sharding, types
from jaxdog.config import build, schema
from jaxdog.ops import conv
from tests.config import test_build


@pytest.fixture(scope="module")
def config() -> schema.Checked:
    given = test_build.load(test_build.ROOT / "configs" / "dragan.py").get_config("test")
    return build.check(given)


@pytest.fixture(scope="module")
def found(config: schema.Checked) -> list[Any]:
    """The costs of three batch sizes; the third is the first that does not fit."""
    over, of_step, known = sharding.mesh(), cost.of_step, {}

    def once(config: schema.Checked, phase: types.Phase, over: Mesh) -> cost.Cost:
        if phase.batch_size not in known:
            known[phase.batch_size] = of_step(config, phase, over)
        return known[phase.batch_size]

    def first(limit: float, count: int) -> Iterator[Any]:
        for row, _ in zip(cost.batch_sizes(config, over, limit), range(count), strict=False):
            yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "of_step", once)
        rows = list(first(float("inf"), 2))
        second = rows[-1][1]
        again = list(first(second.state + second.working, 5))
    assert again[:2] == rows
    return again


def test_sizes_double_up_to_the_first_that_does_not_fit(found: list[Any]) -> None:
    assert [size for size, _ in found] == [4, 8, 16]
    working = [cost.working for _, cost in found]
    assert working == sorted(working) and working[0] < working[2]


def test_operations_grow_with_the_batch_and_the_state_does_not(found: list[Any]) -> None:
    (_, small), *_, (_, large) = found
    assert 2.0 < large.flops / small.flops <= 4.0
    assert large.state == small.state and large.parameters == small.parameters
    # Parameters, Adam's two moments, and the generator's average; statistics and counts are a little more.
    least = 4 * (3 * sum(small.parameters.values()) + small.parameters["g"])
    assert least < large.state < 1.5 * least


def test_fit_names_the_largest(
    config: schema.Checked, found: list[Any], monkeypatch: Any, capsys: Any
) -> None:
    limit = found[1][1].state + found[1][1].working
    share = config.devices._replace(data_share=0.5)
    monkeypatch.setattr(sharding, "memory", lambda: 2 * limit)
    monkeypatch.setattr(cost, "batch_sizes", lambda *_: iter([*found, (32, None)]))
    assert cost.fit(config._replace(devices=share)) == 8
    text = capsys.readouterr().out
    assert "largest that fits: 8" in text and text.count("too much") == 1 and "needs more than" in text


def test_loops_and_saved_products_change_no_count(config: schema.Checked, monkeypatch: Any) -> None:
    phase, side = build.phases(config, 3)[-1], config.data.store_size
    expected = cost.flops(phase, side)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for name in ("AT_ONCE", "MANY", "SEVERAL"):
        monkeypatch.setattr(conv, name, 1)
    assert cost.flops(phase, side) == expected
