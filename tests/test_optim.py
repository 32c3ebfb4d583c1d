"""Schedules against closed forms, Adam against torch."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdog import optim


def test_linear_end_is_constant_and_then_falls_to_zero() -> None:
    schedule = optim.linear_end(steps=100, learning_rate=0.5, fraction=0.2)
    assert [float(schedule(i)) for i in (0, 50, 80)] == [0.5, 0.5, 0.5]
    np.testing.assert_allclose([schedule(90), schedule(100)], [0.25, 0.0], atol=1e-7)


def test_cosine_is_half_a_wave_down_to_its_final_share() -> None:
    schedule = optim.cosine(steps=100, learning_rate=2.0, final=0.1)
    expected = [2.0 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * i / 100))) for i in (0, 25, 50, 100)]
    np.testing.assert_allclose([schedule(i) for i in (0, 25, 50, 100)], expected, rtol=1e-6)


def test_linear_end_refuses_a_share_outside_0_to_1() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1.5, and must lie in \(0, 1\]"):
        optim.linear_end(steps=10, learning_rate=1.0, fraction=1.5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torch(weight_decay: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    start = np.random.default_rng(0).normal(size=5).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.0, 0.99), eps=1e-8, weight_decay=weight_decay)
    ours = jnp.asarray(start)
    optimizer = optim.adam(optim.constant(0, 0.01), 0.0, 0.99, 1e-8, weight_decay)
    state = optimizer.init(ours)
    for i in range(20):
        reference.zero_grad()
        (theirs**3 * (i + 1)).sum().backward()
        reference.step()
        updates, state = optimizer.update(3 * ours**2 * (i + 1), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)
