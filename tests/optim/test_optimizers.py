"""Schedules against closed forms, Adam against torch."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdog.optim import optimizers


def test_linear_end_is_constant_and_then_falls_to_zero() -> None:
    schedule = optimizers.linear_end(steps=100, learning_rate=0.5, fraction=0.2)
    assert [float(schedule(i, 0.0)) for i in (0, 50, 80)] == [0.5, 0.5, 0.5]
    np.testing.assert_allclose([schedule(90, 0.0), schedule(100, 0.0)], [0.25, 0.0], atol=1e-7)


def test_cosine_is_half_a_wave_down_to_its_final_share() -> None:
    schedule = optimizers.cosine(steps=100, learning_rate=2.0, final=0.1)
    expected = [2.0 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * i / 100))) for i in (0, 25, 50, 100)]
    np.testing.assert_allclose([schedule(i, 0.0) for i in (0, 25, 50, 100)], expected, rtol=1e-6)


def test_cosine_restarts_are_torchs_when_it_is_told_the_epoch() -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.5e-4)
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4, eta_min=1e-5)
    rate = optimizers.cosine_restarts(steps=100, learning_rate=2.5e-4, final=0.04, period=12, every=3)
    for epoch in range(10):
        optimizer.step()
        restarts.step(epoch)
        found = [rate(3 * epoch + i, 0.0) for i in range(3)]
        np.testing.assert_allclose(found, 3 * restarts.get_last_lr(), rtol=1e-5)
    with pytest.raises(ValueError, match="period is 10 updates, and must be a multiple of every = 3"):
        optimizers.cosine_restarts(100, 1e-3, 0.0, 10, 3)


def test_exponential_falls_in_stairs_as_torchs_does() -> None:
    schedule = optimizers.exponential(steps=100, learning_rate=1e-3, decay=0.99, every=5)
    expected = [1e-3 * 0.99 ** (i // 5) for i in range(12)]
    np.testing.assert_allclose([schedule(i, 0.0) for i in range(12)], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="every is 0 updates"):
        optimizers.exponential(10, 1e-3, 0.99, 0)


def test_clock_cosine_follows_the_hours_after_its_first_epoch() -> None:
    rate = optimizers.clock_cosine(
        steps=100, learning_rate=8e-4, hours=10.0, first_rate=2e-4, first_updates=3
    )
    np.testing.assert_allclose([rate(i, 1.0) for i in (0, 2)], [2e-4, 2e-4])
    expected = [0.5 * 8e-4 * (1 + np.cos(np.pi * t / 10)) for t in (0.0, 2.5, 8.95)]
    np.testing.assert_allclose([rate(3, t) for t in (0.0, 2.5, 8.95)], expected, rtol=1e-4)
    np.testing.assert_allclose(rate(3, 12.0), 0.0, atol=1e-10)
    with pytest.raises(ValueError, match="hours is 0"):
        optimizers.clock_cosine(10, 1e-3, 0, 1e-3, 0)


def test_adam_reads_the_clock() -> None:
    optimizer = optimizers.adam(optimizers.clock_cosine(0, 1.0, 2.0, 0.0, 0), 0.0, 0.9, 1e-8, 0.0, 0)
    params = jnp.ones(1)
    updates, _ = optimizer.update(jnp.ones(1), optimizer.init(params), params, hours=1.0)
    np.testing.assert_allclose(updates, -0.5, rtol=1e-5)


def test_linear_end_refuses_a_share_outside_0_to_1() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1.5, and must lie in \(0, 1\]"):
        optimizers.linear_end(steps=10, learning_rate=1.0, fraction=1.5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torch(weight_decay: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    start = np.random.default_rng(0).normal(size=5).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.0, 0.99), eps=1e-8, weight_decay=weight_decay)
    ours = jnp.asarray(start)
    optimizer = optimizers.adam(optimizers.constant(0, 0.01), 0.0, 0.99, 1e-8, weight_decay, 0)
    state = optimizer.init(ours)
    for i in range(20):
        reference.zero_grad()
        (theirs**3 * (i + 1)).sum().backward()
        reference.step()
        updates, state = optimizer.update(3 * ours**2 * (i + 1), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_rows_of_named_parameters_are_shortened_and_no_others() -> None:
    params = {"embed": {"kernel": jnp.array([[0.6, 0.0], [0.0, 0.9]])}, "other": jnp.array([[3.0, 4.0]])}
    optimizer = optimizers.shorten_rows({"embed": 1.0})
    steps = {"embed": {"kernel": jnp.array([[0.3, 0.0], [1.2, 0.7]])}, "other": jnp.ones((1, 2))}
    updates, _ = optimizer.update(steps, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["embed"]["kernel"], [[0.9, 0.0], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(after["other"], [[4.0, 5.0]])
    with pytest.raises(ValueError, match="longest_rows names 'embd'; there are embed, kernel, other"):
        optimizers.shorten_rows({"embd": 1.0}).init(params)


def test_each_array_has_a_count_of_its_own() -> None:
    """An array that joins with a fresh state makes Adam's first step, beside one that makes its tenth."""
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


def test_a_b2_that_changes_equals_torch_told_so_before_each_step() -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    theirs = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.0, 0.9), eps=1e-8)
    optimizer = optimizers.adam(optimizers.constant(0, 0.01), 0.0, (0.9, 0.99), 1e-8, 0.0, 10)
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
