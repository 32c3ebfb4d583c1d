"""The resolutions of a network's feature maps, their widths, and fading in a new resolution."""

import jax

from jaxdog.utils import errors

Array = jax.Array

BOTTOM = 4  # height of the smallest feature map of ProGAN, StyleGAN and R3GAN


def bottom_width(size: int, doublings: int) -> int:
    """The height of a generator's smallest map, which becomes `size` after `doublings`."""
    if size % 2**doublings:
        raise errors.UserError(
            f"size {size} is not a multiple of {2**doublings}, which {doublings} doublings of the height need"
        )
    return size >> doublings


def up_to(size: int) -> list[int]:
    """[4, 8, ..., size]; UserError if size is not 4 times a power of two."""
    resolutions = [BOTTOM << i for i in range(max(size // BOTTOM, 1).bit_length())]
    if resolutions[-1] != size:
        raise errors.UserError(f"size {size} is not among 4, 8, 16, ...")
    return resolutions


def widths(channels: int, size: int, full_width_resolution: int) -> dict[int, int]:
    """The channels of the maps of each resolution 4, 8, ..., size (Karras et al. 2018, table 2).

    Maps up to `full_width_resolution` have `channels`; above it, each doubling halves them. UserError if size
    is not among the resolutions or would have no channels.
    """
    table = {n: channels * full_width_resolution // max(n, full_width_resolution) for n in up_to(size)}
    if table[size] < 1:
        raise errors.UserError(f"{channels} channels are too few for {size}x{size}, which would have none")
    return table


def fade_in(new: Array, old: Array, alpha: Array | float) -> Array:
    """alpha * new + (1 - alpha) * old: fades a new resolution in (Karras et al. 2018, fig. 2)."""
    return alpha * new + (1.0 - alpha) * old
