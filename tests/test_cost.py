"""Costs of a config against closed forms, for growing batches, and within the memory of a device."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jax.sharding import Mesh

from jaxdog import cost, sharding, types
from jaxdog.config import build, library, schema
from jaxdog.ops import conv_cpu
from jaxdog.utils import errors


@pytest.fixture(scope="module")
def config() -> schema.Experiment:
    given = library.load("acgan:test")
    return build.check(given)


@pytest.fixture(scope="module")
def found(config: schema.Experiment) -> list[Any]:
    """The costs of three batch sizes; the third is the first that does not fit."""
    mesh, step_cost, known = sharding.make_mesh(), cost.step_cost, {}

    def once(config: schema.Experiment, phase: types.Phase, mesh: Mesh) -> cost.Cost:
        if phase.batch_size not in known:
            known[phase.batch_size] = step_cost(config, phase, mesh)
        return known[phase.batch_size]

    def first(limit: float, count: int) -> Iterator[Any]:
        for row, _ in zip(cost.costs_by_batch_size(config, mesh, limit), range(count), strict=False):
            yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "step_cost", once)
        rows = list(first(float("inf"), 2))
        second = rows[-1][1]
        again = list(first(second.state_bytes + second.temp_bytes, 5))
    assert again[:2] == rows
    return again


@pytest.mark.long
def test_sizes_double_up_to_the_first_that_does_not_fit(found: list[Any]) -> None:
    assert [size for size, _ in found] == [4, 8, 16]
    working = [cost.temp_bytes for _, cost in found]
    assert working == sorted(working) and working[0] < working[2]


@pytest.mark.long
def test_operations_of_compiled_steps_grow_with_the_batch_and_the_state_does_not(found: list[Any]) -> None:
    (_, small), *_, (_, large) = found
    assert 2.0 < large.flops / small.flops <= 4.0
    assert large.state_bytes == small.state_bytes and large.parameters == small.parameters


@pytest.mark.long
def test_operations_grow_with_the_batch_and_the_state_does_not(config: schema.Experiment) -> None:
    sizes = [dataclasses.replace(config.system, batch_size=size) for size in (4, 16)]
    phases = [build.phases(config._replace(system=system), 3)[-1] for system in sizes]
    side = config.data.stored_resolution
    (small, step), (large, larger) = [cost._lower_on_cpu(phase, side) for phase in phases]
    assert 2.0 < larger.cost_analysis()["flops"] / step.cost_analysis()["flops"] <= 4.0
    parameters = cost._parameters(small)
    assert cost._parameters(large) == parameters
    assert cost._state_bytes(large) == cost._state_bytes(small)
    # Parameters, Adam's two moments, and the generator's EMA; batch statistics and counts are small.
    least = 4 * (3 * sum(parameters.values()) + parameters["g"])
    assert least < cost._state_bytes(small) < 1.5 * least


def test_sizes_that_a_config_cannot_have_are_left_out(config: schema.Experiment, monkeypatch: Any) -> None:
    """Groups of images have to divide a batch."""

    def step_cost(config: schema.Experiment, phase: types.Phase, mesh: Mesh) -> cost.Cost:
        if phase.batch_size % 16:
            raise errors.UserError(f"16 does not divide {phase.batch_size}")
        return cost.Cost({"g": 1}, 1.0, 1.0, 1.0 * phase.batch_size)

    monkeypatch.setattr(cost, "step_cost", step_cost)
    mesh = sharding.make_mesh()
    assert [size for size, _ in cost.costs_by_batch_size(config, mesh, 40.0)] == [16, 32, 64]
    monkeypatch.setattr(cost, "MAX_BATCH_SIZE", 8)
    with pytest.raises(errors.UserError, match="16 does not divide 8"):
        list(cost.costs_by_batch_size(config, mesh, 40.0))
    groups = dataclasses.replace(config.system, g_step_groups=2, batch_size=8)
    assert cost.least_bytes(config._replace(system=groups), mesh) > 0


def test_find_batch_size_returns_the_largest_that_fits(
    config: schema.Experiment, monkeypatch: Any, capsys: Any
) -> None:
    rows = [(n, cost.Cost({"g": 10}, flops=1e9 * n, state_bytes=1e6, temp_bytes=1e6 * n)) for n in (4, 8, 16)]
    share = config.parallel._replace(device_memory_fraction=0.5)
    monkeypatch.setattr(sharding, "device_memory", lambda: 2 * rows[1][1].total_bytes)
    monkeypatch.setattr(cost, "costs_by_batch_size", lambda *_: iter([*rows, (32, None)]))
    assert cost.find_batch_size(config._replace(parallel=share)) == 8
    text = capsys.readouterr().out
    assert "largest that fits: 8" in text and text.count("too large") == 1 and "out of memory" in text
    assert "State and gradients take about" in text.splitlines()[1] and text.count(" about 8\n") == 1


def test_a_state_that_does_not_fit_is_not_compiled(
    config: schema.Experiment, monkeypatch: Any, capsys: Any
) -> None:
    least = cost.least_bytes(config, sharding.make_mesh())
    state, _ = cost._lower_on_cpu(build.phases(config, 2)[-1], config.data.stored_resolution)
    parameters = 4 * sum(cost._parameters(state).values())
    assert 4 * parameters < least < 7 * parameters  # with gradients, Adam's moments, and the EMA
    monkeypatch.setattr(sharding, "device_memory", lambda: least / 2)
    monkeypatch.setattr(cost, "costs_by_batch_size", lambda *_: pytest.fail("a compilation"))
    assert cost.find_batch_size(config) == 0
    assert "none fits" in capsys.readouterr().out


def test_flops_without_a_cpu_are_an_error(config: schema.Experiment, monkeypatch: Any) -> None:
    monkeypatch.setattr(sharding, "host_cpu", lambda: None)
    with pytest.raises(
        errors.UserError, match="JAX_PLATFORMS excludes: add it, as in JAX_PLATFORMS=cuda,cpu"
    ):
        cost.print_costs(config)


def test_a_dry_run_compiles_nothing(config: schema.Experiment, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_: pytest.fail("a compilation"))
    cost.print_costs(config)
    text = capsys.readouterr().out
    phase = build.phases(config, build.classes(config.data))[-1]
    state, step = cost._lower_on_cpu(phase, config.data.stored_resolution)
    for name, count in cost._parameters(state).items():
        assert f"  {name}: {count:,} parameters" in text
    flops = step.cost_analysis()["flops"] / jax.device_count() / 1e9
    assert f"a step: {flops:,.1f} GFLOP on each of {jax.device_count()} devices" in text and " MB" in text


@pytest.mark.long
def test_loops_and_winograd_do_not_change_the_count(config: schema.Experiment, monkeypatch: Any) -> None:
    phase, side = build.phases(config, 3)[-1], config.data.stored_resolution
    expected = cost.count_flops(phase, side)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for name in ("WEIGHT_GRAD_CHUNK", "WINOGRAD_MIN_CHANNELS", "WINOGRAD_MIN_OUTPUTS"):
        monkeypatch.setattr(conv_cpu, name, 1)
    assert cost.count_flops(phase, side) == expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("name", library.names())
def test_every_config_has_networks_of_common_sizes(name: str, size: int, tmp_path: pathlib.Path) -> None:
    config = library.load(name, data=tmp_path, resolution=size, overrides=["data.classes=6"])
    checked = build.check(config)
    cost.check_networks(checked)
    assert checked.system.resolution == size
