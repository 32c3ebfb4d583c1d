"""Adam against torch; transformations against closed forms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from jaxdog.optim import optimizers, schedules


@struct.dataclass
class Training:
    """A state that can be rolled back."""

    step: int
    opt: Any


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.adam_per_leaf])
def test_a_rollback_sets_back_the_moments_and_no_schedule(make: Callable[..., Any]) -> None:
    """With gradients of 1, then 2, the second moment is 1, then b2 + 4 (1 - b2)."""
    optimizer = make(schedules.constant(0, 0.1), 0.0, (0.0, 0.8), steps=10)
    params = {"x": jnp.ones(1)}
    opt, states = optimizer.init(params), []
    for i in range(9):
        states.append(Training(i, opt))
        _, opt = optimizer.update({"x": jnp.ones(1)}, opt, params)
    rolled = optimizers.rollback_state(states[2], states[8], 0.5)
    updates, after = optimizer.update({"x": jnp.full(1, 2.0)}, rolled.opt, params)
    kinds = (optax.ScaleByAdamState, schedules.LearningRateState)
    leaves = jax.tree.leaves(after, is_leaf=lambda x: isinstance(x, kinds))
    adam, rate = (next(x for x in leaves if isinstance(x, kind)) for kind in kinds)
    b2 = 0.8 - 0.8 * 0.5 * (1 + np.cos(np.pi * 0.8))
    assert rolled.step == 8 and int(rate.count) == 9 and int(adam.count) == 3
    second = b2 + 4 * (1 - b2)
    np.testing.assert_allclose(jax.tree.leaves(adam.nu)[0], second, rtol=1e-5)
    corrected = second / (1 - b2**3)
    np.testing.assert_allclose(updates["x"], -0.5 * 0.1 * 2 / np.sqrt(corrected), rtol=1e-5)


def test_b2_of_an_array_added_later_is_that_of_the_others() -> None:
    optimizer = optimizers.adam_per_leaf(schedules.constant(0, 0.1), 0.0, (0.0, 0.8), steps=10)
    old, both = {"old": jnp.ones(1)}, {"old": jnp.ones(1), "new": jnp.ones(1)}
    opt = optimizer.init(old)
    for _ in range(10):
        _, opt = optimizer.update(old, opt, old)
    grown = [
        {**leaf, "new": optimizer.init(both)[i]["new"]} if isinstance(leaf, dict) else leaf
        for i, leaf in enumerate(opt)
    ]
    _, after = optimizer.update(both, tuple(grown), both)
    moments = next(leaf for leaf in after if isinstance(leaf, dict))
    np.testing.assert_allclose(moments["new"].nu, 1 - 0.8, rtol=1e-5)


def test_adam_passes_the_hours_to_its_schedule() -> None:
    optimizer = optimizers.adam(schedules.wallclock_cosine(0, 1.0, 2.0, 0.0, 0), 0.0, 0.9, 1e-8, 0.0, 0)
    params = jnp.ones(1)
    updates, _ = optimizer.update(jnp.ones(1), optimizer.init(params), params, hours=1.0)
    np.testing.assert_allclose(updates, -0.5, rtol=1e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.oracle
def test_adam_equals_torch(weight_decay: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    start = np.random.default_rng(0).normal(size=5).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.0, 0.99), eps=1e-8, weight_decay=weight_decay)
    ours = jnp.asarray(start)
    optimizer = optimizers.adam(schedules.constant(0, 0.01), 0.0, 0.99, 1e-8, weight_decay, 0)
    state = optimizer.init(ours)
    for i in range(20):
        reference.zero_grad()
        (theirs**3 * (i + 1)).sum().backward()
        reference.step()
        updates, state = optimizer.update(3 * ours**2 * (i + 1), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_only_rows_of_named_parameters_are_clipped() -> None:
    params = {"embed": {"kernel": jnp.array([[0.6, 0.0], [0.0, 0.9]])}, "other": jnp.array([[3.0, 4.0]])}
    optimizer = optimizers.clip_row_norms({"embed": 1.0})
    steps = {"embed": {"kernel": jnp.array([[0.3, 0.0], [1.2, 0.7]])}, "other": jnp.ones((1, 2))}
    updates, _ = optimizer.update(steps, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["embed"]["kernel"], [[0.9, 0.0], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(after["other"], [[4.0, 5.0]])
    with pytest.raises(ValueError, match="max_row_norms names 'embd'; there are embed, kernel, other"):
        optimizers.clip_row_norms({"embd": 1.0}).init(params)


def test_per_leaf_counts_the_updates_of_each_array() -> None:
    """An array added later makes its first Adam step while another makes its tenth."""
    optimizer = optimizers.per_leaf(optax.scale_by_adam(b1=0.5, b2=0.9))
    params = {"old": jnp.zeros(1)}
    state = optimizer.init(params)
    for _ in range(9):
        _, state = optimizer.update({"old": jnp.ones(1)}, state)
    both = {"old": state["old"], **optimizer.init({"new": jnp.zeros(1)})}
    updates, both = optimizer.update({"old": jnp.zeros(1), "new": jnp.full(1, -7.0)}, both)
    assert int(both["old"].count) == 10 and int(both["new"].count) == 1
    np.testing.assert_allclose(updates["new"], -1.0, rtol=1e-5)
    mu, nu = 0.5 - 0.5**10, 0.9 - 0.9**10
    expected = mu / (1 - 0.5**10) / np.sqrt(nu / (1 - 0.9**10))
    np.testing.assert_allclose(updates["old"], expected, rtol=1e-5)


@pytest.mark.oracle
def test_changing_b2_equals_torch_with_betas_set_before_each_step() -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    theirs = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.0, 0.9), eps=1e-8)
    optimizer = optimizers.adam(schedules.constant(0, 0.01), 0.0, (0.9, 0.99), 1e-8, 0.0, 10)
    ours = jnp.array([1.0, -2.0])
    state = optimizer.init(ours)
    for i in range(15):
        b2 = 0.99 - 0.09 * 0.5 * (1 + np.cos(np.pi * min(i / 10, 1.0)))
        reference.param_groups[0]["betas"] = (0.0, b2)
        reference.zero_grad()
        (theirs**3 * (i + 1)).sum().backward()
        reference.step()
        updates, state = optimizer.update(3 * ours**2 * (i + 1), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4)
