"""Matrix products whose gradients are asked for in the forms that XLA computes fast.

The gradient of a product's second operand sums over the rows of two matrices. With a batch of matrices, that
form falls out of the fast kernels of XLA's CPU backend. A product with the smaller one turned does not, where
XLA is kept from turning it back.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Bilinear = Callable[..., Array]


def with_gradients(function: Bilinear, first: Bilinear, second: Bilinear, static: int = 0) -> Bilinear:
    """function(a, b, *static) with first(b, g, *static) as the gradient of a, second(a, g, *static) of b."""
    made = jax.custom_vjp(function, nondiff_argnums=tuple(range(2, 2 + static)))

    def forward(a: Array, b: Array, *rest: Any) -> tuple[Array, tuple[Array, Array]]:
        return made(a, b, *rest), (a, b)  # not `function`: a gradient of this one needs the rule, too

    def backward(*arguments: Any) -> tuple[Array, Array]:
        *rest, (a, b), g = arguments
        return first(b, g, *rest), second(a, g, *rest)

    made.defvjp(forward, backward)
    return cast(Bilinear, made)


def in_parts(function: Bilinear, x: Array, y: Array, parts: int) -> Array:
    """function(x, y), a sum over the first axis of both, in a loop over so many equal parts of that axis."""
    if parts == 1:
        return function(x, y)
    cut = tuple(a.reshape(parts, -1, *a.shape[1:]) for a in (x, y))
    nothing = jnp.zeros_like(jax.eval_shape(function, cut[0][0], cut[1][0]))
    return lax.scan(lambda total, more: (total + function(*more), None), nothing, cut)[0]


def matmul(a: Array, b: Array) -> Array:
    """[..., n, k] times [..., k, m] -> [..., n, m], of the same leading sizes.

    Any number of reverse-mode derivatives may be taken; forward mode is not there on CPU.
    """
    return (_matmul_cpu if jax.default_backend() == "cpu" else jnp.matmul)(a, b)


def turned(x: Array) -> Array:
    """[..., n, m] -> [..., m, n]."""
    return x.swapaxes(-1, -2)


def _of_second(a: Array, g: Array) -> Array:
    """Gradient [..., k, m] of <a b, g>, a [..., n, k], g [..., n, m]; the smaller of the two is turned."""
    kept = lax.optimization_barrier
    if a.size <= g.size:
        return kept(_matmul_cpu(kept(turned(a)), g))
    return turned(kept(_matmul_cpu(kept(turned(g)), a)))


_matmul_cpu = with_gradients(jnp.matmul, lambda b, g: _matmul_cpu(g, turned(b)), _of_second)
