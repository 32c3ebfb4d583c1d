"""The convolutional prior over codes: who sees whom, probabilities that add up, drawing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import pixelcnn
from tests.models import test_transformer_prior

KEY, CLASSES = test_transformer_prior.KEY, test_transformer_prior.CLASSES


def prior(**fields: Any) -> Any:
    given: dict[str, Any] = dict(
        lengths=(4, 16), codes=5, classes=CLASSES, width=6, layers=4, heads=2, attention=(0,), dropout=0.0
    )
    return pixelcnn.PixelCNN(**{**given, **fields})


made, full = test_transformer_prior.made, test_transformer_prior.full


@pytest.mark.parametrize("attention", [(0,), (0, 1)])
def test_each_code_depends_on_all_earlier_ones_and_on_no_other(attention: tuple[int, ...]) -> None:
    """A code in each place is changed in turn: exactly the logits after it move."""
    net = prior(attention=attention)
    params = made(net)
    n = sum(net.lengths)
    code = np.asarray(jax.random.randint(KEY, (1, n), 0, net.codes))
    others = np.repeat(code, n, 0)
    others[np.arange(n), np.arange(n)] = (others[np.arange(n), np.arange(n)] + 1) % net.codes
    label = jnp.full(n + 1, 1)
    logits = np.asarray(full(net, params, np.concatenate([code, others]), label))
    moved = np.abs(logits[1:] - logits[:1]).max(-1)  # [changed place, place]
    later = np.triu(np.ones((n, n), bool), 1)
    assert (moved[~later] == 0.0).all()
    assert (moved[later] > 1e-6).all(), np.argwhere(later & (moved <= 1e-6))


def test_the_breed_is_told_to_every_code() -> None:
    net = prior()
    code = jnp.zeros((2, sum(net.lengths)), jnp.int32)
    one, other = full(net, made(net), code, jnp.array([0, 2]))
    assert (jnp.abs(one - other).max(-1) > 1e-4).all()


def test_probabilities_of_all_sequences_add_up_to_one_and_codes_are_drawn_by_them() -> None:
    net = prior(lengths=(1, 4), codes=3)
    params, n = made(net), 4000
    found = [test_transformer_prior.probabilities(net, params, breed) for breed in range(CLASSES)]
    np.testing.assert_allclose(np.sum(found, 1), 1.0, rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.001
    drawn = test_transformer_prior.draw(net, params, jax.random.split(KEY, n), jnp.full(n, 2), 1.0)
    code, p = test_transformer_prior.everything(net), found[2]
    at = np.asarray(drawn) @ 3 ** np.arange(4, -1, -1)
    assert (code[at] == drawn).all()
    for place in range(5):  # how often each code stands at each place
        expected = n * np.array([p[code[:, place] == c].sum() for c in range(3)])
        seen = np.bincount(np.asarray(drawn)[:, place], minlength=3)
        assert (np.abs(seen - expected) < 4.5 * np.sqrt(expected + 1)).all()


@pytest.mark.parametrize("attention", [(), (0, 1)])
def test_steps_say_what_the_whole_says(attention: tuple[int, ...]) -> None:
    """Also where a step computes the rows that reach its place only: 6 of the second level's 8."""
    net = prior(lengths=(4, 64), attention=attention)
    params, n = made(net), sum(net.lengths)
    code, label = jax.random.randint(KEY, (3, n), 0, 5), jnp.arange(3)
    expected = full(net, params, code, label)
    past = net.past(3)
    step = jax.jit(lambda *told: net.apply({"params": params}, *told, method="step"))
    for i in range(n):
        before = code[:, i - 1] if i else jnp.full(3, 3)  # what stands before the first is not looked at
        logits, past = step(past, before, label, jnp.int32(i))
        np.testing.assert_allclose(logits, expected[:, i], rtol=1e-4, atol=1e-5)


def test_wrong_settings_are_refused() -> None:
    code, label = jnp.zeros((1, 20), jnp.int32), jnp.zeros(1, jnp.int32)
    with pytest.raises(ValueError, match=r"lengths \(4, 15\) are not all squares"):
        prior(lengths=(4, 15)).init(KEY, code, label, False)
    with pytest.raises(ValueError, match="width 6 cannot be dealt out to 4 heads"):
        prior(heads=4).init(KEY, code, label, False)
    with pytest.raises(ValueError, match=r"sequences of 3 codes, but lengths \(4, 16\) add up to 20"):
        prior().init(KEY, code[:, :3], label, False)
