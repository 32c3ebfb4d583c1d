"""Learning-rate schedules against closed forms and torch."""

import numpy as np
import pytest

from jaxdog.optim import schedules


def test_constant_then_linear_is_constant_and_then_falls_to_zero() -> None:
    schedule = schedules.constant_then_linear(steps=100, learning_rate=0.5, fraction=0.2)
    assert [float(schedule(i, 0.0)) for i in (0, 50, 80)] == [0.5, 0.5, 0.5]
    np.testing.assert_allclose([schedule(90, 0.0), schedule(100, 0.0)], [0.25, 0.0], atol=1e-7)


def test_cosine_is_half_a_wave_down_to_its_final_fraction() -> None:
    schedule = schedules.cosine(steps=100, learning_rate=2.0, final=0.1)
    expected = [2.0 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * i / 100))) for i in (0, 25, 50, 100)]
    np.testing.assert_allclose([schedule(i, 0.0) for i in (0, 25, 50, 100)], expected, rtol=1e-6)


@pytest.mark.oracle
def test_cosine_restarts_equal_torch_stepped_once_per_epoch() -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference; install the oracle extra")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.5e-4)
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4, eta_min=1e-5)
    schedule = schedules.cosine_restarts(steps=100, learning_rate=2.5e-4, final=0.04, period=12, interval=3)
    for epoch in range(10):
        optimizer.step()
        restarts.step(epoch)
        rates = [schedule(3 * epoch + i, 0.0) for i in range(3)]
        np.testing.assert_allclose(rates, 3 * restarts.get_last_lr(), rtol=1e-5)
    with pytest.raises(ValueError, match="period is 10 updates, and must be a multiple of interval = 3"):
        schedules.cosine_restarts(100, 1e-3, 0.0, 10, 3)


def test_exponential_is_a_staircase_as_in_torch() -> None:
    schedule = schedules.exponential(steps=100, learning_rate=1e-3, decay=0.99, interval=5)
    expected = [1e-3 * 0.99 ** (i // 5) for i in range(12)]
    np.testing.assert_allclose([schedule(i, 0.0) for i in range(12)], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="interval is 0 updates"):
        schedules.exponential(10, 1e-3, 0.99, 0)


def test_wallclock_cosine_follows_the_hours_after_its_first_epoch() -> None:
    schedule = schedules.wallclock_cosine(
        steps=100, learning_rate=8e-4, hours=10.0, first_rate=2e-4, first_updates=3
    )
    np.testing.assert_allclose([schedule(i, 1.0) for i in (0, 2)], [2e-4, 2e-4])
    expected = [0.5 * 8e-4 * (1 + np.cos(np.pi * t / 10)) for t in (0.0, 2.5, 8.95)]
    np.testing.assert_allclose([schedule(3, t) for t in (0.0, 2.5, 8.95)], expected, rtol=1e-4)
    np.testing.assert_allclose(schedule(3, 12.0), 0.0, atol=1e-10)
    with pytest.raises(ValueError, match="hours is 0"):
        schedules.wallclock_cosine(10, 1e-3, 0, 1e-3, 0)


def test_constant_then_linear_rejects_a_fraction_outside_0_to_1() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1.5, and must lie in \(0, 1\]"):
        schedules.constant_then_linear(steps=10, learning_rate=1.0, fraction=1.5)
