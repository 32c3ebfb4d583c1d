"""What breeds teach, against loops over the formulas of the papers; the heads it needs."""

from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.losses import class_loss
from jaxdog.models import biggan, biggan_deep, dcgan, heads, layers, resnet, sagan

KEY = jax.random.key(0)
CLASSES, B, K = 4, 7, 5
LABEL = np.array([0, 1, 1, 3, 0, 2, 1])


def heard(
    loss: class_loss.BreedLoss, verdict: types.Verdict, label: np.ndarray = LABEL, fake: bool = False
) -> jax.Array:
    term = loss.fake if fake else loss.real
    assert term is not None
    return term(*loss.heard(verdict, CLASSES), jnp.asarray(label))


def said(beyond: int = 0, seed: int = 0) -> types.Verdict:
    """Random logits of breeds."""
    rng = np.random.default_rng(seed)
    return types.Verdict(jnp.zeros(B), jnp.asarray(rng.normal(size=(B, CLASSES + beyond)), jnp.float32))


def on_a_sphere(seed: int = 0) -> tuple[types.Verdict, np.ndarray, np.ndarray]:
    """A verdict, the pictures' points and the breeds'."""
    rng = np.random.default_rng(seed)
    points, proxies = (x / np.linalg.norm(x, axis=1)[:, None] for x in rng.normal(size=(2, B, K)))
    proxies = proxies[:CLASSES]
    return (
        types.Verdict(jnp.zeros(B), jnp.asarray(points @ proxies.T), jnp.asarray(points)),
        points,
        proxies,
    )


def test_cross_entropy_is_minus_the_log_share_of_the_own_breed() -> None:
    verdict, both = said(), class_loss.cross_entropy(0.3, "both")
    logits = np.asarray(verdict.breeds)
    expected = [-np.log(np.exp(row[y]) / np.exp(row).sum()) for row, y in zip(logits, LABEL, strict=True)]
    assert both.weight == 0.3 and both.fake is not None and class_loss.cross_entropy(1.0).fake is None
    for fake in (False, True):
        np.testing.assert_allclose(heard(both, verdict, fake=fake), expected, rtol=1e-5)


def test_multi_hinge_asks_for_a_margin_over_every_other_logit() -> None:
    loss, verdict = class_loss.multi_hinge(1.0), said(beyond=1)
    logits = np.asarray(verdict.breeds)

    def hinge(row: np.ndarray, own: int) -> float:
        return max(0.0, 1.0 - row[own] + max(x for i, x in enumerate(row) if i != own))

    expected = [hinge(row, y) for row, y in zip(logits, LABEL, strict=True)]
    assert 0.0 < np.mean(expected)
    np.testing.assert_allclose(heard(loss, verdict), expected, rtol=1e-5)
    expected = [hinge(row, CLASSES) for row in logits]
    np.testing.assert_allclose(heard(loss, verdict, fake=True), expected, rtol=1e-5)
    sure = verdict._replace(breeds=3.0 * jax.nn.one_hot(jnp.asarray(LABEL), CLASSES + 1))
    np.testing.assert_array_equal(heard(loss, sure), 0.0)
    np.testing.assert_array_equal(heard(loss, sure, fake=True), 4.0)


@pytest.mark.parametrize(
    ("temperature", "positive", "negative"), [(0.5, 0.98, 0.02), (0.2, 0.4, -0.3), (2.0, 1.0, -1.0)]
)
def test_data_to_data_pulls_to_the_breed_and_pushes_from_others(
    temperature: float, positive: float, negative: float
) -> None:
    loss = class_loss.data_to_data(0.7, temperature, positive, negative)
    verdict, points, proxies = on_a_sphere()
    expected = []
    for i in range(B):
        pull = np.exp(min(points[i] @ proxies[LABEL[i]] - positive, 0.0) / temperature)
        push = sum(
            np.exp(max(points[i] @ points[j] - negative, 0.0) / temperature)
            for j in range(B)
            if LABEL[j] != LABEL[i]
        )
        expected.append(-np.log(pull / (pull + push)))
    np.testing.assert_allclose(heard(loss, verdict), expected, rtol=1e-5)


def test_data_to_data_learns_nothing_beside_one_breed_or_within_the_margins() -> None:
    loss, (verdict, *_) = class_loss.data_to_data(1.0, 0.5, 0.4, 0.3), on_a_sphere()
    np.testing.assert_allclose(heard(loss, verdict, np.zeros(B, np.int32)), 0.0, atol=1e-6)

    def mean(points: jax.Array) -> jax.Array:
        own = types.Verdict(jnp.zeros(4), points @ jnp.eye(4), points)
        return jnp.mean(heard(loss, own, np.arange(4)))

    np.testing.assert_array_equal(jax.grad(mean)(jnp.eye(4)), 0.0)  # near its own, far from all others
    gradient = jax.grad(mean)(jnp.eye(4)[::-1])  # each at another's place
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 0.1


@pytest.mark.parametrize(
    ("loss", "verdict", "message"),
    [
        (
            class_loss.cross_entropy(1.0),
            types.Verdict(jnp.zeros(B)),
            "breed_head='linear' .* gives no logits",
        ),
        (class_loss.cross_entropy(1.0), said(beyond=1), "breed_head='linear' for 4 breeds; this one gives 5"),
        (class_loss.multi_hinge(1.0), said(), "breed_head='linear_and_fake' for 4 breeds; this one gives 4"),
        (class_loss.data_to_data(1.0), said(), "breed_head='cosine' .* no embedding"),
        (class_loss.cross_entropy(1.0), on_a_sphere()[0], "breed_head='linear' .* an embedding"),
    ],
)
def test_a_loss_names_the_head_that_it_needs(
    loss: class_loss.BreedLoss, verdict: types.Verdict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss.heard(verdict, CLASSES)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="of is 'fake'; choices: real, both"):
        class_loss.cross_entropy(1.0, "fake")
    with pytest.raises(ValueError, match="temperature is 0.0, and must be above 0"):
        class_loss.data_to_data(1.0, temperature=0.0)
    with pytest.raises(
        ValueError, match="breed_head is 'conical'; choices: none, linear, linear_and_fake, cos"
    ):
        dcgan.Discriminator(widths=(4, 4), classes=2, size=8, breed_head="conical").init(
            KEY, jnp.zeros((1, 8, 8, 3)), jnp.zeros(1, jnp.int32), True
        )


# Heads ------------------------------------------------------------------------------------------------------

NETWORKS: dict[str, Any] = {
    "biggan": biggan.Discriminator(channels=2, classes=CLASSES, size=32),
    "biggan_deep": biggan_deep.Discriminator(channels=8, classes=CLASSES, size=32),
    "dcgan": dcgan.Discriminator(widths=(4, 6), classes=CLASSES, size=8),
    "resnet": resnet.Discriminator(widths=(4, 6), classes=CLASSES, size=8),
    "sagan": sagan.Discriminator(widths=(4, 6), classes=CLASSES, size=8, halvings=2),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("head", heads.BREED_HEADS)
def test_every_network_has_every_head(name: str, head: str) -> None:
    net = NETWORKS[name].clone(breed_head=head)
    image, label = jnp.zeros((B, net.size, net.size, 3)), jnp.asarray(LABEL, jnp.int32)
    verdict = jax.eval_shape(lambda key: net.init_with_output(key, image, label, False)[0], KEY)
    chex.assert_shape(verdict.logit, (B,))
    told = {"none": None, "linear": CLASSES, "linear_and_fake": CLASSES + 1, "cosine": CLASSES}[head]
    assert verdict.breeds is None if told is None else verdict.breeds.shape == (B, told)
    assert (verdict.embedding is not None) == (head == "cosine")


def test_heads_are_what_they_say() -> None:
    """From the last features and the layers' own numbers."""
    h = jax.random.normal(jax.random.key(1), (B, K))
    label = jnp.asarray(LABEL)

    class Net(nn.Module):
        breed_head: str

        @nn.compact
        def __call__(self, h: jax.Array) -> types.Verdict:
            linear = partial(layers.Dense, bias=False, spectral=False)
            embed = partial(layers.Embed, spectral=False)
            return heads.verdict(
                h, label, True, breed_head=self.breed_head, classes=CLASSES, linear=linear, embed=embed
            )

    def run(head: str) -> tuple[Any, Any]:
        verdict, variables = Net(head).init_with_output(KEY, h)
        return verdict, jax.tree.map(lambda x: np.asarray(x), variables["params"])

    verdict, params = run("linear")
    score = np.asarray(h) @ params["linear"]["kernel"][:, 0]
    shown = score + (params["embed"]["kernel"][LABEL] * np.asarray(h)).sum(1)
    np.testing.assert_allclose(verdict.logit, shown, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(verdict.breeds, h @ params["breeds"]["kernel"], rtol=1e-4, atol=1e-6)
    verdict, params = run("linear_and_fake")
    assert set(params) == {"breeds"}
    logits = np.asarray(h) @ params["breeds"]["kernel"]
    np.testing.assert_allclose(
        verdict.logit, logits[np.arange(B), LABEL] - logits[:, -1], rtol=1e-4, atol=1e-6
    )
    verdict, params = run("cosine")
    points = np.asarray(h) @ params["embedding"]["kernel"]
    for i in range(B):
        for y in range(CLASSES):
            a, b = points[i], params["proxies"]["kernel"][y]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            np.testing.assert_allclose(verdict.breeds[i, y], cosine, rtol=1e-4, atol=1e-5)
