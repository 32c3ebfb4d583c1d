"""Configs for images of another resolution."""

from typing import Any

from jaxdog.config import resolve
from jaxdog.models import biggan
from jaxdog.utils import errors, integers

Config = resolve.Config
MAX_ATTENTION = 64  # height of maps with self-attention; BigGAN has it at 64x64 for 128 and 256 px


def check_resolution(resolution: Any) -> None:
    """Raises errors.UserError unless a resolution is a positive integer, or None."""
    if resolution is not None:
        integers.check(resolution, "the resolution (the side of the images, which are square)", 1)


def with_resolution(config: Config, resolution: int) -> Config:
    """The config for images of resolution x resolution pixels.

    Stored crops, and the heights of maps with self-attention, keep their ratio to it, the latter up to
    MAX_ATTENTION. The latents of a hierarchical BigGAN get the next size that it can split. An R3GAN halves
    its width with each doubling, and a progressive system fewer or more stages. Not every network can have
    every size.

    Raises errors.UserError for a size that is not positive, or that a progressive system does not reach.
    """
    check_resolution(resolution)
    resolution = int(resolution)
    fields: Any = config
    progressive = "resolution" not in fields.system
    before = fields.system.resolutions[-1] if progressive else fields.system.resolution
    changes: dict[str, Any] = (
        _stages(fields, resolution) if progressive else {"system": {"resolution": resolution}}
    )
    if fields.data.stored_resolution:
        stored = max(round(fields.data.stored_resolution * resolution / before), resolution)
        changes["data"] = {"stored_resolution": stored}
    if fields.generator.get("name") == "biggan" and fields.generator.hierarchical:
        slices = len(biggan.shape_of(resolution).g)
        changes["system"]["latent_dim"] = -(-fields.system.latent_dim // slices) * slices
    for player in ("generator", "discriminator"):
        network = fields[player]
        if heights := network.get("attention", ()):
            changes[player] = {"attention": _attention(heights, resolution, before)}
        if network.get("name") == "r3gan":
            changes[player] = {"widths": _r3gan_widths(network.widths, resolution, player == "discriminator")}
    return resolve.derive(config, **changes)


def _attention(heights: tuple[int, ...], resolution: int, before: int) -> tuple[int, ...]:
    """The heights of maps with self-attention for another resolution, each of them once.

    Memory grows with the fourth power of the height.
    """
    limit, scaled = max(MAX_ATTENTION, *heights), []
    for height in heights:
        height = max(height * resolution // before, 1)
        while height > limit:
            height //= 2  # the maps of a network halve
        scaled.append(height)
    return tuple(dict.fromkeys(scaled))


def _stages(fields: Any, resolution: int) -> dict[str, Any]:
    """Changes of a progressive system: its stages up to `resolution`.

    The last stage is as long as the config's last one; those that are added before it are as long as the one
    before them.
    """
    first = fields.system.resolutions[0]
    count = (resolution // first).bit_length()  # stages
    if count < 2 or resolution != first << (count - 1):
        sizes = ", ".join(str(first << i) for i in range(1, 7))
        raise errors.ConfigError(
            f"the resolution is {resolution} px; choices of {fields.name}, which grows from {first} px: "
            f"{sizes}, ..."
        )

    def fit(values: tuple) -> tuple:
        *growing, last = values
        return (*growing[: count - 1], *[growing[-1]] * (count - len(values)), last)

    steps = fit(fields.system.steps)
    return {
        "system": {
            "resolutions": tuple(first << i for i in range(count)),
            "steps": steps,
            "fade": fit(fields.system.fade),
        },
        "ema": {"decay": fit(fields.ema.decay)},
        "train": {"steps": sum(steps)},
    }


def _r3gan_widths(widths: tuple[int, ...], resolution: int, downwards: bool) -> tuple[int, ...]:
    """Widths at 4x4, 8x8, ..., or the reverse, up to `resolution`; an added width is half the last."""
    upwards = widths[::-1] if downwards else widths
    count = (resolution // 4).bit_length()
    added = (max(upwards[-1] >> i, 1) for i in range(1, count - len(upwards) + 1))
    fitted = (*upwards[:count], *added)
    return fitted[::-1] if downwards else fitted
