"""Custom gradients of functions that are linear in each of two arguments: matrix products and convolutions.

XLA's CPU backend is fast for some memory layouts only, and autodiff produces others. The functions here have
custom gradients, which are bilinear functions with custom gradients themselves: any number of reverse-mode
derivatives can be taken. Forward mode is not supported.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Bilinear = Callable[..., Array]  # (a, b, *static arguments)


def with_gradients(function: Bilinear, grad_a: Bilinear, grad_b: Bilinear, static: int = 0) -> Bilinear:
    """function(a, b, *static) with custom gradients.

    These are grad_a(b, g, *static) with respect to a and grad_b(a, g, *static) with respect to b, where g is
    the cotangent of the output. `static` is the number of static arguments.
    """
    differentiable = jax.custom_vjp(function, nondiff_argnums=tuple(range(2, 2 + static)))

    def forward(a: Array, b: Array, *rest: Any) -> tuple[Array, tuple[Array, Array]]:
        # Not `function`: higher derivatives use the custom gradients, too.
        return differentiable(a, b, *rest), (a, b)

    def backward(*arguments: Any) -> tuple[Array, Array]:
        *rest, (a, b), g = arguments
        return grad_a(b, g, *rest), grad_b(a, g, *rest)

    differentiable.defvjp(forward, backward)
    return cast(Bilinear, differentiable)


def conv_with_gradients(
    conv: Bilinear, input_grad: Bilinear, weight_grad: Bilinear, static: int = 0
) -> tuple[Bilinear, Bilinear, Bilinear]:
    """The three functions, each with the other two as its gradients.

    Args:
      conv: (x, kernel, *static) -> y.
      input_grad: (g, kernel, *static) -> the gradient of <conv(x, kernel), g> with respect to x.
      weight_grad: (x, g, *static) -> the gradient of <conv(x, kernel), g> with respect to the kernel.
      static: the number of static arguments.

    <conv(x, kernel), g> is linear in each of x, kernel and g, and the three functions are its gradients.
    """
    y = with_gradients(conv, lambda k, g, *s: of_x(g, k, *s), lambda x, g, *s: of_kernel(x, g, *s), static)
    of_x = with_gradients(
        input_grad, lambda k, x, *s: y(x, k, *s), lambda g, x, *s: of_kernel(x, g, *s), static
    )
    of_kernel = with_gradients(
        weight_grad, lambda g, k, *s: of_x(g, k, *s), lambda x, k, *s: y(x, k, *s), static
    )
    return y, of_x, of_kernel


def sum_over_chunks(function: Bilinear, x: Array, y: Array, chunks: int) -> Array:
    """function(x, y), which sums over axis 0 of both, accumulated in a scan over `chunks` equal parts."""
    if chunks == 1:
        return function(x, y)
    parts = tuple(a.reshape(chunks, -1, *a.shape[1:]) for a in (x, y))
    zeros = jnp.zeros_like(jax.eval_shape(function, parts[0][0], parts[1][0]))
    return lax.scan(lambda total, part: (total + function(*part), None), zeros, parts)[0]
