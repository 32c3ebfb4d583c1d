"""The EMA against its closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.optim import ema


def _run(values: list[float], decay: float, start: int, batch_stats: str) -> ema.EMA:
    average = ema.init({"w": jnp.zeros(2)}, {"mean": jnp.zeros(())})
    for i, value in enumerate(values, start=1):
        params, model_state = {"w": jnp.full(2, value)}, {"mean": jnp.float32(10 * value)}
        average = ema.update(
            average, params, model_state, jnp.int32(i), ema.EMARule(decay, start, batch_stats)
        )
    return average


def test_is_the_geometric_sum_of_its_inputs() -> None:
    values, decay = [1.0, 5.0, 2.0, -3.0], 0.8
    expected = sum(value * 0.2 * decay ** (len(values) - i) for i, value in enumerate(values, start=1))
    average = _run(values, decay, start=0, batch_stats="average")
    np.testing.assert_allclose(average.params["w"], [expected, expected], rtol=1e-6)
    np.testing.assert_allclose(average.model_state["mean"], 10 * expected, rtol=1e-6)


def test_equals_the_network_up_to_its_start() -> None:
    assert _run([0.1, 0.7, 0.3], 0.9, start=3, batch_stats="average").params["w"][0] == jnp.float32(0.3)
    average = _run([1.0, 1.0, 1.0, 2.0], 0.9, start=3, batch_stats="average")
    np.testing.assert_allclose(average.params["w"], [1.1, 1.1], rtol=1e-6)


def test_copy_takes_the_model_state_of_the_network() -> None:
    average = _run([1.0, 4.0], 0.9, start=0, batch_stats="copy")
    assert average.model_state["mean"] == 40.0 and average.params["w"][0] < 1.0


def test_unknown_batch_stats_is_rejected() -> None:
    with pytest.raises(ValueError, match="'mean'; choices: 'average', 'copy'"):
        _run([1.0], 0.9, 0, "mean")


def test_rampup_bounds_the_half_life() -> None:
    """The decay is 0.5 ** (1 / half-life), the half-life at most rampup times the steps done."""
    rule = ema.EMARule(0.5 ** (1 / 100), rampup=0.05)
    for step, half_life in ((1, 0.05), (200, 10.0), (2_000, 100.0), (50_000, 100.0)):
        np.testing.assert_allclose(rule.decay_at(jnp.int32(step)), 0.5 ** (1 / half_life), rtol=1e-5)
    assert ema.EMARule(0.0, rampup=0.05).decay_at(jnp.int32(7)) == 0.0
    assert ema.EMARule(0.9).decay_at(jnp.int32(1)) == 0.9


def test_init_shares_no_buffer_with_the_network() -> None:
    params = {"w": jnp.ones(3)}
    average = ema.init(params, {})
    assert average.params["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()
