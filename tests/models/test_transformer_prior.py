"""The transformer prior: causality, normalization, sampling, cached decoding, and torch's transformer."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.models import code_prior, transformer_prior

KEY = jax.random.key(0)
CLASSES = 3


def prior(**fields: Any) -> Any:
    given = dict(lengths=(3, 4), codebook_size=4, classes=CLASSES, width=8, layers=2, heads=2, dropout=0.0)
    return transformer_prior.Transformer(**{**given, **fields})


def random_params(net: Any, scale: float = 0.5) -> Any:
    """Parameters so large that every code has an effect."""
    code, label = jnp.zeros((1, sum(net.lengths)), jnp.int32), jnp.zeros(1, jnp.int32)
    params = jax.eval_shape(lambda: net.init(KEY, code, label, False))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([scale * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


@partial(jax.jit, static_argnums=0)
def apply(net: Any, params: Any, code: Any, label: Any) -> Any:
    return net.apply({"params": params}, code, label, False)


sample_codes = jax.jit(code_prior.sample_codes, static_argnums=0)


# Causality -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_each_code_depends_on_all_earlier_ones_and_on_no_other() -> None:
    """Each code occurs once, so the gradient to its row of the table is that to the code in its place."""
    net = prior()
    params = random_params(net)
    code, label = jnp.array([[2, 0, 3, 1, 3, 0, 2]]), jnp.array([1])
    rows = np.array([2, 0, 3, 5, 7, 4, 6])  # of the table: the bottom's codes come below the top's four
    probe = jax.random.normal(jax.random.key(2), (7, 4))

    @jax.jit
    @jax.jacrev
    def depends(table: jax.Array) -> jax.Array:
        changed = {**params, "code": {"kernel": table}}
        return jnp.sum(net.apply({"params": changed}, code, label, False)[0] * probe, -1)  # pyright: ignore

    strength = np.abs(np.asarray(depends(params["code"]["kernel"]))).sum(-1)[:, rows]  # [place, code's place]
    earlier = np.tril(np.ones((7, 7), bool), -1)
    assert (strength[~earlier] == 0.0).all()
    assert (strength[earlier] > 1e-4).all(), strength


def test_every_code_depends_on_the_class() -> None:
    net = prior()
    params, code = random_params(net), jnp.zeros((2, 7), jnp.int32)
    one, other = apply(net, params, code, jnp.array([0, 2]))
    assert (jnp.abs(one - other).max(-1) > 1e-3).all()


def test_each_level_has_its_own_embedding_and_head() -> None:
    net = prior()
    assert net.level_of(jnp.arange(7)).tolist() == [0, 0, 0, 1, 1, 1, 1]
    params = random_params(net)
    code, label = jnp.zeros((1, 7), jnp.int32), jnp.zeros(1, jnp.int32)
    before = apply(net, params, code, label)
    params["head_1"]["bias"] += 1.0
    after = apply(net, params, code, label)
    np.testing.assert_allclose(
        after - before, np.repeat([0.0, 1.0], [3, 4])[None, :, None] * np.ones(4), atol=1e-5
    )


# Probabilities ----------------------------------------------------------------------------------------------


def all_sequences(net: Any) -> np.ndarray:
    """All sequences of codes, [codebook_size^n, n]."""
    return np.array(list(itertools.product(range(net.codebook_size), repeat=sum(net.lengths))), np.int32)


def probabilities(net: Any, params: Any, class_index: int) -> np.ndarray:
    code = all_sequences(net)
    logits = apply(net, params, code, np.full(len(code), class_index))
    return np.exp(-np.asarray(code_prior.nll(logits, jnp.asarray(code)), np.float64).sum(1))


@pytest.mark.long
def test_probabilities_of_all_sequences_add_up_to_one() -> None:
    net = prior(lengths=(1, 3), codebook_size=3)
    params = random_params(net)
    p_of_class = [probabilities(net, params, class_index) for class_index in range(CLASSES)]
    np.testing.assert_allclose(np.sum(p_of_class, 1), 1.0, rtol=1e-5)
    assert np.abs(p_of_class[0] - p_of_class[1]).max() > 0.01


def test_frequencies_of_sampled_sequences_match_their_probabilities() -> None:
    net = prior(lengths=(1, 2), codebook_size=3)
    params, n = random_params(net), 6000
    keys = jax.random.split(KEY, n)
    drawn = sample_codes(net, params, keys, jnp.full(n, 2), 1.0)
    expected = n * probabilities(net, params, 2)
    at = np.asarray(drawn) @ np.array([9, 3, 1])
    assert (all_sequences(net)[at] == drawn).all()
    off = (np.bincount(at, minlength=27) - expected) / np.sqrt(expected + 1)
    assert np.abs(off).max() < 4.0 and np.sum(off**2) < 60  # chi square, 26 degrees of freedom: mean 26, sd 7


@pytest.mark.long
def test_low_temperatures_sample_the_likeliest_codes() -> None:
    net = prior()
    params = random_params(net)
    label = jnp.arange(3)
    drawn = sample_codes(net, params, jax.random.split(KEY, 3), label, 1e-4)
    likeliest = jnp.argmax(apply(net, params, drawn, label), -1)
    np.testing.assert_array_equal(drawn, likeliest)


@pytest.mark.long
def test_a_sampled_sequence_depends_only_on_its_own_key_and_class() -> None:
    net = prior()
    params, keys, label = random_params(net, 0.3), jax.random.split(KEY, 8), jnp.arange(8) % CLASSES
    together = sample_codes(net, params, keys, label, 1.0)
    alone = [sample_codes(net, params, keys[i : i + 1], label[i : i + 1], 1.0)[0] for i in (0, 5)]
    np.testing.assert_array_equal(together[jnp.array([0, 5])], jnp.stack(alone))
    assert len(np.unique(np.asarray(together), axis=0)) > 4


# Cached decoding --------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("lengths", [(3, 4), (2, 1, 1)])
def test_steps_equal_the_whole_sequence(lengths: tuple[int, ...]) -> None:
    net = prior(lengths=lengths)
    params, n = random_params(net), sum(lengths)
    code = jax.random.randint(KEY, (3, n), 0, 4)
    label = jnp.arange(3)
    expected = apply(net, params, code, label)
    cache = net.init_cache(3)
    step = jax.jit(lambda *inputs: net.apply({"params": params}, *inputs, method="step"))
    for i in range(n):
        before = code[:, i - 1] if i else jnp.full(3, 3)  # ignored at the first position
        logits, cache = step(cache, before, label, jnp.int32(i))
        np.testing.assert_allclose(logits, expected[:, i], rtol=1e-4, atol=1e-4)


def test_dropout_applies_in_training_only() -> None:
    net = prior(dropout=0.5)
    params, code, label = random_params(net), jnp.zeros((1, 7), jnp.int32), jnp.zeros(1, jnp.int32)
    still = apply(net, params, code, label)
    np.testing.assert_array_equal(still, apply(prior(), params, code, label))
    dropped = jax.jit(lambda key: net.apply({"params": params}, code, label, True, rngs={"dropout": key}))
    one, other = (dropped(jax.random.key(i)) for i in (0, 1))
    assert np.abs(one - other).max() > 0.1 and np.abs(one - still).max() > 0.1


def test_bfloat16_is_close_and_returns_float32() -> None:
    net, rough = prior(), prior(dtype=jnp.bfloat16)
    params, code, label = random_params(net, 0.3), jnp.zeros((1, 7), jnp.int32), jnp.zeros(1, jnp.int32)
    exact, near = apply(net, params, code, label), apply(rough, params, code, label)
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_errors() -> None:
    with pytest.raises(ValueError, match="width is 9, and must be a multiple of heads = 2"):
        prior(width=9).init(KEY, jnp.zeros((1, 7), jnp.int32), jnp.zeros(1, jnp.int32), False)
    with pytest.raises(ValueError, match=r"sequences of 6 codes, but lengths \(3, 4\) add up to 7"):
        prior().init(KEY, jnp.zeros((1, 6), jnp.int32), jnp.zeros(1, jnp.int32), False)


# torch ------------------------------------------------------------------------------------------------------


def torch_layer(torch: Any, ours: Any) -> Any:
    """torch's own encoder layer with our weights."""
    width = ours["query"]["kernel"].shape[0]
    layer = torch.nn.TransformerEncoderLayer(
        width, 2, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )

    def tensor(x: Any) -> Any:
        return torch.nn.Parameter(torch.tensor(np.asarray(x).copy()))

    parts = ("query", "key", "value")
    attention = layer.self_attn
    attention.in_proj_weight = tensor(np.concatenate([ours[x]["kernel"].T for x in parts]))
    attention.in_proj_bias = tensor(np.concatenate([ours[x]["bias"] for x in parts]))
    dense = {attention.out_proj: "out", layer.linear1: "widen", layer.linear2: "narrow"}
    for module, name in dense.items():
        module.weight, module.bias = tensor(ours[name]["kernel"].T), tensor(ours[name]["bias"])
    for module, name in {layer.norm1: "norm0", layer.norm2: "norm1"}.items():
        module.weight, module.bias = tensor(ours[name]["scale"]), tensor(ours[name]["bias"])
    return layer


@pytest.mark.oracle
def test_logits_and_gradients_equal_torchs_transformer() -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle (make oracles)")
    net = prior()
    params = random_params(net)
    code = jax.random.randint(KEY, (3, 7), 0, 4)
    label = jnp.array([2, 0, 1])

    tables = {
        name: torch.tensor(np.asarray(params[name]["kernel"]).copy(), requires_grad=True)
        for name in ("code", "position", "label")
    }
    level = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    embedded = tables["code"][torch.tensor(np.asarray(code)).long() + 4 * level]
    x = torch.cat([torch.zeros(3, 1, 8), embedded[:, :-1]], 1) + tables["position"]
    x = x + tables["label"][torch.tensor(np.asarray(label)).long()][:, None]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7)
    for i in range(2):
        x = torch_layer(torch, params[f"block_{i}"])(x, src_mask=mask)
    norm = {name: torch.tensor(np.asarray(value)) for name, value in params["norm"].items()}
    x = torch.nn.functional.layer_norm(x, (8,), norm["scale"], norm["bias"])
    heads = [{k: torch.tensor(np.asarray(v)) for k, v in params[f"head_{i}"].items()} for i in range(2)]
    parts = [h @ head["kernel"] + head["bias"] for h, head in zip((x[:, :3], x[:, 3:]), heads, strict=True)]
    expected = torch.cat(parts, 1)
    target = torch.tensor(np.asarray(code)).long()
    nll = torch.nn.functional.cross_entropy(expected.transpose(1, 2), target, reduction="none")
    nll.mean().backward()

    def loss(params: Any) -> Any:
        return jnp.mean(code_prior.nll(net.apply({"params": params}, code, label, False), code))

    logits = apply(net, params, code, label)
    np.testing.assert_allclose(logits, expected.detach(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(code_prior.nll(logits, code), nll.detach(), rtol=1e-4, atol=1e-4)
    pull = jax.jit(jax.grad(loss))(params)
    for name, table in tables.items():
        np.testing.assert_allclose(pull[name]["kernel"], table.grad, rtol=1e-3, atol=1e-5)
