"""The PixelCNN prior: causality, normalization, sampling, decoding step by step."""

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
        lengths=(4, 16),
        codebook_size=5,
        classes=CLASSES,
        width=6,
        layers=4,
        heads=2,
        attention=(0,),
        dropout=0.0,
    )
    return pixelcnn.PixelCNN(**{**given, **fields})


random_params, apply = test_transformer_prior.random_params, test_transformer_prior.apply


@pytest.mark.long
@pytest.mark.parametrize("attention", [(0,), (0, 1)])
def test_each_code_depends_on_all_earlier_ones_and_on_no_other(attention: tuple[int, ...]) -> None:
    """The code at each position is changed in turn: exactly the logits after it change."""
    net = prior(attention=attention)
    params = random_params(net)
    n = sum(net.lengths)
    code = np.asarray(jax.random.randint(KEY, (1, n), 0, net.codebook_size))
    others = np.repeat(code, n, 0)
    others[np.arange(n), np.arange(n)] = (others[np.arange(n), np.arange(n)] + 1) % net.codebook_size
    label = jnp.full(n + 1, 1)
    logits = np.asarray(apply(net, params, np.concatenate([code, others]), label))
    change = np.abs(logits[1:] - logits[:1]).max(-1)  # [changed position, position]
    later = np.triu(np.ones((n, n), bool), 1)
    assert (change[~later] == 0.0).all()
    assert (change[later] > 1e-6).all(), np.argwhere(later & (change <= 1e-6))


@pytest.mark.long
def test_every_code_depends_on_the_class() -> None:
    net = prior()
    code = jnp.zeros((2, sum(net.lengths)), jnp.int32)
    one, other = apply(net, random_params(net), code, jnp.array([0, 2]))
    assert (jnp.abs(one - other).max(-1) > 1e-4).all()


@pytest.mark.long
def test_probabilities_of_all_sequences_add_up_to_one_and_samples_follow_them() -> None:
    net = prior(lengths=(1, 4), codebook_size=3)
    params, n = random_params(net), 4000
    p_of_class = [test_transformer_prior.probabilities(net, params, label) for label in range(CLASSES)]
    np.testing.assert_allclose(np.sum(p_of_class, 1), 1.0, rtol=1e-5)
    assert np.abs(p_of_class[0] - p_of_class[1]).max() > 0.001
    drawn = test_transformer_prior.sample_codes(net, params, jax.random.split(KEY, n), jnp.full(n, 2), 1.0)
    code, p = test_transformer_prior.all_sequences(net), p_of_class[2]
    at = np.asarray(drawn) @ 3 ** np.arange(4, -1, -1)
    assert (code[at] == drawn).all()
    for place in range(5):  # frequency of each code at each position
        expected = n * np.array([p[code[:, place] == c].sum() for c in range(3)])
        seen = np.bincount(np.asarray(drawn)[:, place], minlength=3)
        assert (np.abs(seen - expected) < 4.5 * np.sqrt(expected + 1)).all()


@pytest.mark.long
@pytest.mark.parametrize("attention", [(), (0, 1)])
def test_steps_equal_the_whole_sequence(attention: tuple[int, ...]) -> None:
    """Also where a step computes only the rows of its receptive field: 6 of the second level's 8."""
    net = prior(lengths=(4, 64), attention=attention)
    params, n = random_params(net), sum(net.lengths)
    code, label = jax.random.randint(KEY, (3, n), 0, 5), jnp.arange(3)
    expected = apply(net, params, code, label)
    cache = net.init_cache(3)
    step = jax.jit(lambda *inputs: net.apply({"params": params}, *inputs, method="step"))
    for i in range(n):
        before = code[:, i - 1] if i else jnp.full(3, 3)  # ignored at the first position
        logits, cache = step(cache, before, label, jnp.int32(i))
        np.testing.assert_allclose(logits, expected[:, i], rtol=1e-4, atol=1e-5)


def test_errors() -> None:
    code, label = jnp.zeros((1, 20), jnp.int32), jnp.zeros(1, jnp.int32)
    with pytest.raises(ValueError, match=r"lengths \(4, 15\) are not all squares"):
        prior(lengths=(4, 15)).init(KEY, code, label, False)
    with pytest.raises(ValueError, match="width is 6, and must be a multiple of heads = 4"):
        prior(heads=4).init(KEY, code, label, False)
    with pytest.raises(ValueError, match=r"sequences of 3 codes, but lengths \(4, 16\) add up to 20"):
        prior().init(KEY, code[:, :3], label, False)
