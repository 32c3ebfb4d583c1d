"""Scores of each class equal those of its rows alone."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdog.metrics import fid, mifid, per_class


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
