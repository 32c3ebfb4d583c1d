"""Pools of 3x3 windows against their definition: the pixels of each window, one by one."""

import jax
import numpy as np
import pytest

from jaxdog.ops import pooling


@pytest.mark.parametrize("side", ((7, 8), (8, 5), (3, 3)))
@pytest.mark.parametrize("padding", ("SAME", "VALID"))
@pytest.mark.parametrize("stride", (1, 2))
def test_windows_count_what_is_in_the_picture(side: tuple[int, int], padding: str, stride: int) -> None:
    """All of the image below zero: a zero from the border would be seen by both pools."""
    x = np.random.default_rng(0).uniform(-2, -1, (2, *side, 3)).astype(np.float32)
    corners = []
    for n in side:
        out = -(-n // stride) if padding == "SAME" else (n - 3) // stride + 1
        before = max((out - 1) * stride + 3 - n, 0) // 2 if padding == "SAME" else 0
        corners.append([(max(i * stride - before, 0), i * stride - before + 3) for i in range(out)])
    for pool, of in ((pooling.max_pool, np.max), (pooling.avg_pool, np.mean)):
        rows = [[of(x[:, a:b, c:d], (1, 2)) for c, d in corners[1]] for a, b in corners[0]]
        expected = np.array(rows).transpose(2, 0, 1, 3)
        found = jax.jit(pool, static_argnums=(1, 2))(x, stride, padding)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("pool", (pooling.max_pool, pooling.avg_pool))
@pytest.mark.parametrize("padding", ("SAME", "VALID"))
def test_both_ways_are_the_same(pool, padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CPUs compute and what other devices do."""
    x = np.random.default_rng(1).normal(size=(2, 9, 6, 4)).astype(np.float32)
    here = pool(x, 2, padding)
    monkeypatch.setattr(pooling.lax, "platform_dependent", lambda x, cpu, default: default(x))
    np.testing.assert_allclose(pool(x, 2, padding), here, rtol=1e-5, atol=1e-6)
