"""Strided and transposed convolutions on GPU, written so that each is one of cuDNN's three functions. NHWC.

cuDNN has a convolution and its gradients with respect to input and kernel. XLA recognizes these in the
transposes of a strided convolution, but not in the second derivatives that autodiff makes, which are dilated
on both sides. Here a derivative of any order is one of the three.
"""

import jax

from jaxdog.ops import bilinear, conv_xla

Array = jax.Array


def _input_grad(g: Array, kernel: Array) -> Array:
    """Gradient [b, 2h, 2w, c] of <strided(x, kernel), g> with respect to x.

    g: [b, h, w, k].
    kernel: [4, 4, c, k].
    """
    b, h, w, _ = g.shape
    x = jax.ShapeDtypeStruct((b, 2 * h, 2 * w, kernel.shape[2]), g.dtype)
    return jax.linear_transpose(lambda x: conv_xla.strided(x, kernel), x)(g)[0]


def _weight_grad(x: Array, g: Array) -> Array:
    """Gradient [4, 4, c, k] of <strided(x, kernel), g> with respect to the kernel.

    x: [b, 2h, 2w, c].
    g: [b, h, w, k].
    """
    kernel = jax.ShapeDtypeStruct((4, 4, x.shape[-1], g.shape[-1]), g.dtype)
    return jax.linear_transpose(lambda kernel: conv_xla.strided(x, kernel), kernel)(g)[0]


strided, strided_input_grad, _ = bilinear.conv_with_gradients(conv_xla.strided, _input_grad, _weight_grad)


def transposed(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c], kernel [4, 4, c, k] -> [b, 2h, 2w, k]: the transpose of a strided convolution."""
    return strided_input_grad(x, conv_xla.swap_channels(kernel))
