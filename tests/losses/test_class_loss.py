"""Class losses against loops over the formulas of the papers, and the class heads they need."""

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


def values(
    loss: class_loss.ClassLoss,
    output: types.DiscriminatorOutput,
    label: np.ndarray = LABEL,
    fake: bool = False,
) -> jax.Array:
    term = loss.fake if fake else loss.real
    assert term is not None
    loss.check(output, CLASSES)
    return term(output, jnp.asarray(label))


def random_logits(extra: int = 0, seed: int = 0) -> types.DiscriminatorOutput:
    """Random class logits."""
    rng = np.random.default_rng(seed)
    return types.DiscriminatorOutput(
        jnp.zeros(B), jnp.asarray(rng.normal(size=(B, CLASSES + extra)), jnp.float32)
    )


def random_embeddings(seed: int = 0) -> tuple[types.DiscriminatorOutput, np.ndarray, np.ndarray]:
    """An output of the cosine head, the images' embeddings and the classes' proxies."""
    rng = np.random.default_rng(seed)
    embeddings, proxies = (x / np.linalg.norm(x, axis=1)[:, None] for x in rng.normal(size=(2, B, K)))
    proxies = proxies[:CLASSES]
    return (
        types.DiscriminatorOutput(jnp.zeros(B), jnp.asarray(embeddings @ proxies.T), jnp.asarray(embeddings)),
        embeddings,
        proxies,
    )


def test_cross_entropy_is_minus_log_softmax_of_the_label() -> None:
    output, both = random_logits(), class_loss.cross_entropy(0.3, "both")
    logits = np.asarray(output.class_logits)
    expected = [-np.log(np.exp(row[y]) / np.exp(row).sum()) for row, y in zip(logits, LABEL, strict=True)]
    assert both.weight == 0.3 and both.fake is not None and class_loss.cross_entropy(1.0).fake is None
    for fake in (False, True):
        np.testing.assert_allclose(values(both, output, fake=fake), expected, rtol=1e-5)


def test_multi_hinge_has_a_margin_over_every_other_logit() -> None:
    loss, output = class_loss.multi_hinge(1.0), random_logits(extra=1)
    logits = np.asarray(output.class_logits)

    def hinge(row: np.ndarray, own: int) -> float:
        return max(0.0, 1.0 - row[own] + max(x for i, x in enumerate(row) if i != own))

    expected = [hinge(row, y) for row, y in zip(logits, LABEL, strict=True)]
    assert 0.0 < np.mean(expected)
    np.testing.assert_allclose(values(loss, output), expected, rtol=1e-5)
    expected = [hinge(row, CLASSES) for row in logits]
    np.testing.assert_allclose(values(loss, output, fake=True), expected, rtol=1e-5)
    sure = output._replace(class_logits=3.0 * jax.nn.one_hot(jnp.asarray(LABEL), CLASSES + 1))
    np.testing.assert_array_equal(values(loss, sure), 0.0)
    np.testing.assert_array_equal(values(loss, sure, fake=True), 4.0)


@pytest.mark.parametrize(
    ("temperature", "positive", "negative"), [(0.5, 0.98, 0.02), (0.2, 0.4, -0.3), (2.0, 1.0, -1.0)]
)
def test_d2d_ce_attracts_to_the_proxy_and_repels_other_classes(
    temperature: float, positive: float, negative: float
) -> None:
    loss = class_loss.d2d_ce(0.7, temperature, positive, negative)
    output, embeddings, proxies = random_embeddings()
    expected = []
    for i in range(B):
        pull = np.exp(min(embeddings[i] @ proxies[LABEL[i]] - positive, 0.0) / temperature)
        push = sum(
            np.exp(max(embeddings[i] @ embeddings[j] - negative, 0.0) / temperature)
            for j in range(B)
            if LABEL[j] != LABEL[i]
        )
        expected.append(-np.log(pull / (pull + push)))
    np.testing.assert_allclose(values(loss, output), expected, rtol=1e-5)


def test_d2d_ce_has_no_gradient_within_one_class_or_within_the_margins() -> None:
    loss, (output, *_) = class_loss.d2d_ce(1.0, 0.5, 0.4, 0.3), random_embeddings()
    np.testing.assert_allclose(values(loss, output, np.zeros(B, np.int32)), 0.0, atol=1e-6)

    def mean(embeddings: jax.Array) -> jax.Array:
        own = types.DiscriminatorOutput(jnp.zeros(4), embeddings @ jnp.eye(4), embeddings)
        return jnp.mean(values(loss, own, np.arange(4)))

    np.testing.assert_array_equal(jax.grad(mean)(jnp.eye(4)), 0.0)  # near its own, far from all others
    gradient = jax.grad(mean)(jnp.eye(4)[::-1])  # each at another's place
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 0.1


@pytest.mark.parametrize(
    ("loss", "output", "message"),
    [
        (
            class_loss.cross_entropy(1.0),
            types.DiscriminatorOutput(jnp.zeros(B)),
            "class_head='linear' .* gives no class logits",
        ),
        (
            class_loss.cross_entropy(1.0),
            random_logits(extra=1),
            "class_head='linear' for 4 classes; this one gives 5 class",
        ),
        (
            class_loss.multi_hinge(1.0),
            random_logits(),
            "class_head='multi_hinge' for 4 classes; this one gives 4 class",
        ),
        (class_loss.d2d_ce(1.0), random_logits(), "class_head='cosine' .* no embedding"),
        (class_loss.cross_entropy(1.0), random_embeddings()[0], "class_head='linear' .* an embedding"),
    ],
)
def test_a_loss_names_the_class_head_that_it_needs(
    loss: class_loss.ClassLoss, output: types.DiscriminatorOutput, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss.check(output, CLASSES)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="apply_to is 'fake'; choices: real, both"):
        class_loss.cross_entropy(1.0, "fake")
    with pytest.raises(ValueError, match="temperature is 0.0, and must be above 0"):
        class_loss.d2d_ce(1.0, temperature=0.0)
    with pytest.raises(ValueError, match="class_head is 'conical'; choices: none, linear, multi_hinge, cos"):
        dcgan.Discriminator(widths=(4, 4), classes=2, size=8, class_head="conical").init(
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
@pytest.mark.parametrize("head", heads.CLASS_HEADS)
def test_every_network_has_every_head(name: str, head: str) -> None:
    net = NETWORKS[name].clone(class_head=head)
    image, label = jnp.zeros((B, net.size, net.size, 3)), jnp.asarray(LABEL, jnp.int32)
    output = jax.eval_shape(lambda key: net.init_with_output(key, image, label, False)[0], KEY)
    chex.assert_shape(output.logit, (B,))
    width = {"none": None, "linear": CLASSES, "multi_hinge": CLASSES + 1, "cosine": CLASSES}[head]
    assert output.class_logits is None if width is None else output.class_logits.shape == (B, width)
    assert (output.embedding is not None) == (head == "cosine")


def test_class_heads_equal_their_definitions() -> None:
    """From the last features and the layers' parameters."""
    h = jax.random.normal(jax.random.key(1), (B, K))
    label = jnp.asarray(LABEL)

    class Net(nn.Module):
        class_head: str

        @nn.compact
        def __call__(self, h: jax.Array) -> types.DiscriminatorOutput:
            linear = partial(layers.Dense, use_bias=False, spectral=False)
            embed = partial(layers.Embed, spectral=False)
            return heads.discriminator_head(
                h, label, True, class_head=self.class_head, classes=CLASSES, linear=linear, embed=embed
            )

    def run(head: str) -> tuple[Any, Any]:
        output, variables = Net(head).init_with_output(KEY, h)
        return output, jax.tree.map(lambda x: np.asarray(x), variables["params"])

    output, params = run("linear")
    score = np.asarray(h) @ params["linear"]["kernel"][:, 0]
    shown = score + (params["embed"]["kernel"][LABEL] * np.asarray(h)).sum(1)
    np.testing.assert_allclose(output.logit, shown, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        output.class_logits, h @ params["class_logits"]["kernel"], rtol=1e-4, atol=1e-6
    )
    output, params = run("multi_hinge")
    assert set(params) == {"class_logits"}
    logits = np.asarray(h) @ params["class_logits"]["kernel"]
    np.testing.assert_allclose(
        output.logit, logits[np.arange(B), LABEL] - logits[:, -1], rtol=1e-4, atol=1e-6
    )
    output, params = run("cosine")
    embeddings = np.asarray(h) @ params["embedding"]["kernel"]
    for i in range(B):
        for y in range(CLASSES):
            a, b = embeddings[i], params["proxies"]["kernel"][y]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            np.testing.assert_allclose(output.class_logits[i, y], cosine, rtol=1e-4, atol=1e-5)
