"""Matrix products: the gradients of any order are those of the plain product, in forms that are fast."""

import re

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxdog.ops import matmul

SHAPES = [((2, 5, 4), (2, 4, 3)), ((2, 3, 4), (2, 4, 9)), ((6, 5), (5, 2)), ((2, 3, 7, 4), (2, 3, 4, 5))]


def pair(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[jax.Array, jax.Array]:
    a, b = shapes
    return jax.random.normal(jax.random.key(0), a), jax.random.normal(jax.random.key(1), b)


@pytest.mark.parametrize("shapes", SHAPES)
def test_products_and_gradients_of_gradients_are_those_of_the_plain_product(shapes) -> None:
    a, b = pair(shapes)

    def slopes(product):
        def loss(a, b):
            return jnp.sum(jnp.sin(product(a, b)))

        def steep(a, b):
            return sum(jnp.sum(jnp.square(x)) for x in jax.grad(loss, argnums=(0, 1))(a, b))

        return jax.jit(lambda a, b: (product(a, b), *(jax.grad(f, (0, 1))(a, b) for f in (loss, steep))))

    chex.assert_trees_all_close(slopes(matmul.matmul)(a, b), slopes(jnp.matmul)(a, b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_no_gradient_sums_over_the_rows_of_both_operands_of_a_batch(turned: bool) -> None:
    """That form, which autodiff of the plain product has, is the slow one on CPU."""
    a, b = pair(((2, 64, 32), (2, 8, 32) if turned else (2, 32, 8)))

    def forms(product) -> list[str]:
        def loss(a, b):
            return jnp.sum(jnp.sin(product(a, matmul.transpose_last(b) if turned else b)))

        program = jax.jit(jax.grad(loss, (0, 1))).lower(a, b).compile().as_text()
        return re.findall(r"lhs_contracting_dims=\{1\}.*?rhs_contracting_dims=\{1\}", program)

    assert forms(jnp.matmul)
    assert not forms(matmul.matmul)
