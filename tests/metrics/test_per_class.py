"""Scores of each class equal those of its rows alone."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.metrics import features, fid, mifid, per_class


def test_each_class_scores_as_if_it_were_all():
    generator = np.random.default_rng(0)
    real, fake = np.abs(generator.normal(size=(60, 12))), np.abs(generator.normal(size=(50, 12)) + 0.2)
    real_label, fake_label = generator.integers(0, 3, 60), generator.integers(0, 3, 50)
    groups = per_class.groups(real_label, 5), per_class.groups(fake_label, 5)
    found = jax.jit(per_class.per_class)(real, fake, *groups)
    for c in range(3):
        r, f = real[real_label == c], fake[fake_label == c]
        np.testing.assert_allclose(found.fid[c], fid.frechet_exact(r, f), rtol=1e-4)
        near = mifid.memorization_distance(jnp.asarray(f), jnp.asarray(r))
        np.testing.assert_allclose(found.memorization_distance[c], near, rtol=1e-4)
    assert np.isnan(found.fid[3:]).all() and np.isnan(found.memorization_distance[3:]).all()


def test_groups_hold_every_row_once():
    label = np.array([2, 0, 2, 2, 0])
    found = per_class.groups(label, 4)
    assert found.rows.shape == (4, 3)
    members = [sorted(r[w > 0].tolist()) for r, w in zip(found.rows, found.weight, strict=True)]
    assert members == [[1, 4], [], [0, 2, 3], []]


def test_rounding_and_undefined_distances_are_as_in_the_scores_of_all_images() -> None:
    """A FID, or a distance, that rounding makes negative is not; without a distance there is no MiFID."""
    made = per_class.PerClass(jnp.array([-1e-5, 4.0, 4.0]), jnp.array([-1e-7, 0.05, jnp.nan]))
    label, layers = np.arange(3, dtype=np.int32), {"pool_3": np.zeros((3, 4), np.float32)}
    side = SimpleNamespace(label=label, layers=layers, class_names=("copies", "near", "black"))
    compared: Any = SimpleNamespace(
        network=features.NETWORKS["inception"],
        real=side,
        fake=side,
        solver=SimpleNamespace(replicate=lambda x: x, jitted=lambda _: lambda *_: made),
        metric_name=lambda base, layer="": base,
        eps=0.1,
    )
    found = per_class.scores(compared)
    names = ("fid2048", "memorization_distance", "mifid")
    rows = {name: [row[x] for x in names] for name, row in found.items()}
    assert rows["copies"] == [0.0, 0.0, pytest.approx(mifid.MIN_FID / mifid.TINY)]
    assert rows["near"] == [4.0, pytest.approx(0.05), pytest.approx(80.0)]
    assert rows["black"] == [4.0, None, None]
