"""The rules by which `jaxdog train --data photos/` chooses a config.

The rules are for photos without boxes, and start from two configs: `record_biggan` (class-conditional, 32 to
128 px) and `r3gan` (any power of two). `docs` shows `table()`.
"""

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdog.utils import errors

BIGGAN_SIZES = (32, 64, 96, 128)
R3GAN_SIZES = (256, 512)
R3GAN_WIDTHS = {4: 512, 8: 512, 16: 384, 32: 256, 64: 128, 128: 64, 256: 32, 512: 16}
SLOW = {"train.log_every": 20, "train.grid_every": 500, "checkpoint.every": 500}  # a step takes seconds
MANY_CLASSES_PHOTOS = 10  # with fewer photos per class, a class is hardly learned


class Situation(NamedTuple):
    """What the advice depends on."""

    photos: int
    classes: int
    photo_side: int  # median of the photos' short sides, px
    memory_gb: float  # of a device; on CPUs, of the machine
    accelerator: bool  # False: CPUs
    resolution: int | None = None  # of the generated images, px; None: to be chosen
    gray: bool = False  # whether all photos are gray


class Advice(NamedTuple):
    """A config and its changes, with reasons."""

    config: str  # name in `library.names()`
    resolution: int  # px
    changes: Mapping[str, Any]  # field, such as "train.steps" -> value
    reasons: tuple[str, ...]  # sentences, in the order of the choices

    def overrides(self) -> list[str]:
        """The changes for `library.load`, such as "train.steps=500"."""
        return [f"{field}={value}" for field, value in self.changes.items()]

    def command(self, data: str) -> str:
        """The command that trains the same config."""
        words = ["jaxdog", "train", self.config, "--data", data, "--resolution", str(self.resolution)]
        return shlex.join([*words, *(f"--config.{word}" for word in self.overrides())])


class _Size(NamedTuple):
    """How large networks and batches are, and how many images are trained on."""

    reason: str
    part: int  # 1 / part of the config's widths
    batch_size: int
    kimg: tuple[int, int, int]  # thousand images for < 1,000, < 10,000 and more photos
    samples: int  # images of an evaluation and of images.zip


def _size(situation: Situation) -> _Size:
    memory = f"{situation.memory_gb:.0f} GB"
    if not situation.accelerator:
        reason = "no GPU or TPU: a sixth of the width, and small batches, which train narrow networks faster"
        return _Size(reason, 6, 8, (300, 300, 400), 1_000)  # experiments/record compares batches of 8 and 16
    if situation.memory_gb < 6:
        return _Size(f"{memory} of device memory: a sixth of the width", 6, 32, (1_000, 2_000, 4_000), 2_000)
    if situation.memory_gb < 14:
        return _Size(f"{memory} of device memory: half the width", 2, 64, (1_500, 4_000, 7_000), 5_000)
    return _Size(f"{memory} of device memory: the full width", 1, 64, (1_500, 4_000, 7_000), 5_000)


def choose(situation: Situation) -> Advice:
    """The config for photos and a device; raises errors.UserError for a resolution that none has."""
    if situation.photos < 1 or situation.classes < 1:
        raise errors.UserError(f"{situation.photos} photos of {situation.classes} classes cannot be learned")
    resolution, why_resolution = _resolution(situation)
    size = _size(situation)
    index = (situation.photos >= 1_000) + (situation.photos >= 10_000)
    kimg = size.kimg[index]
    epochs = 1_000 * kimg / situation.photos
    biggan = resolution in BIGGAN_SIZES
    name = "record_biggan" if biggan else "r3gan"
    batch = size.batch_size if resolution <= 128 else max(size.batch_size // 2, 8)
    steps = max(100 * round(10 * kimg / batch), 100)
    first, last, why_augment = _augment(epochs)
    changes = {
        **(_biggan(size.part) if biggan else _r3gan(size.part, resolution, situation.classes)),
        **({"dtype": "bfloat16"} if situation.accelerator else SLOW),
        "system.batch_size": batch,
        "system.augment_p.first": first,
        "system.augment_p.last": last,
        "system.augment_p.steps": steps,
        "train.steps": steps,
        "train.max_hours": 0.0,
        "eval.every_kimg": kimg / 20,
        "eval.samples": size.samples,
        "submit.images": size.samples if size.samples < 5_000 else 10_000,
        "sample.sweep": {},  # of options that were chosen for the competition's metric
    }
    reasons = [
        why_resolution,
        "record_biggan is class-conditional, and the best measured config up to 128 px"
        if biggan
        else "r3gan is the config for more than 128 px",
        size.reason,
        f"{kimg:,} thousand images for D ({epochs:,.0f} epochs), as there are {situation.photos:,} photos"
        + ("; G takes as many, and the log counts both" if biggan else ""),
        why_augment,
    ]
    if index == 0:
        changes["data.select"] = {}
        reasons.append("no photos are held out, as there are few")
    if situation.gray:
        reasons.append("note: the photos are gray; generated images are RGB, in nearly gray colors")
    if situation.photos < MANY_CLASSES_PHOTOS * situation.classes:
        reasons.append(
            f"note: {situation.photos / situation.classes:.1f} photos per class are few; put all photos into "
            "one folder to train without classes"
        )
    return Advice(name, resolution, changes, tuple(reasons))


def _resolution(situation: Situation) -> tuple[int, str]:
    asked, side = situation.resolution, situation.photo_side
    if asked is not None:
        sizes = (*BIGGAN_SIZES, *R3GAN_SIZES)
        if asked not in sizes:
            raise errors.UserError(
                f"the resolution is {asked} px; choices: {', '.join(map(str, sizes))}, or give a config"
            )
        return asked, f"{asked} px, as asked" + (
            f"; most photos are smaller ({side} px)" if side < asked else ""
        )
    large = situation.accelerator and situation.memory_gb >= 6
    limit = 128 if large else 64
    chosen = max(n for n in (32, 64, 128) if n <= max(min(side, limit), 32))
    why = f"photos of about {side} px" if side < limit else "a good start for this device"
    return chosen, f"{chosen} px: {why}; --resolution sets another one"


def _augment(epochs: float) -> tuple[float, float, str]:
    """First and last probability of DiffAugment, and why."""
    if epochs >= 500:
        return 0.6, 0.6, "DiffAugment with probability 0.6: with so many epochs, D would memorize the photos"
    if epochs >= 50:
        return 0.0, 0.5, "DiffAugment with a probability that grows to 0.5, against memorization by D"
    return 0.0, 0.0, "no DiffAugment: with so few epochs, D does not memorize the photos"


def _biggan(part: int) -> dict[str, Any]:
    """Widths, and learning rates: a step's relative size grows with the root of the width."""
    if part == 1:
        return {}
    rate = round(2e-4 * {2: 1.4, 6: 2.0}[part], 5)  # a sixth of the width was trained with twice the rates
    return {
        "generator.channels": 48 // part,
        "discriminator.channels": 96 // part,
        "optimizer.g.learning_rate": rate,
        "optimizer.d.learning_rate": 2 * rate,
    }


def _r3gan(part: int, resolution: int, classes: int) -> dict[str, Any]:
    widths = tuple(max(width // part // 4 * 4, 4) for n, width in R3GAN_WIDTHS.items() if n <= resolution)
    changes: dict[str, Any] = {"generator.widths": widths, "discriminator.widths": widths[::-1]}
    if classes > 1:
        changes |= {"generator.embed_dim": 64, "discriminator.embed_dim": 64}
    return changes


# ------------------------------------------------------------------ documentation


def table() -> str:
    """The choices for common situations, as a Markdown table."""
    lines = [
        "| photos | device | resolution | config | widths G, D | batch | kimg for D | DiffAugment |",
        "|---|---|---|---|---|---|---|---|",
    ]
    devices = (("CPU", 16.0, False), ("4 GB", 4.0, True), ("8 GB", 8.0, True), ("16 GB or more", 16.0, True))
    for photos in (300, 5_000, 20_000):
        for name, memory, accelerator in devices:
            advice = choose(Situation(photos, 6, 512, memory, accelerator))
            lines.append(_row(f"{photos:,}", name, advice))
    lines.append(_row("300", "16 GB or more", choose(Situation(300, 6, 512, 16.0, True, 256))))
    return "\n".join(lines)


def _row(photos: str, device: str, advice: Advice) -> str:
    changes = advice.changes
    widths = [
        changes.get(f"{player}.channels", x) for player, x in (("generator", 48), ("discriminator", 96))
    ]
    g = changes.get("generator.widths")
    kimg = changes["train.steps"] * changes["system.batch_size"] / 1_000
    p = [changes[f"system.augment_p.{name}"] for name in ("first", "last")]
    cells = (
        photos,
        device,
        str(advice.resolution),
        f"`{advice.config}`",
        f"{g[0]} to {g[-1]}" if g else ", ".join(map(str, widths)),
        str(changes["system.batch_size"]),
        f"{kimg:,.0f}",
        "off" if not any(p) else f"{p[0]:g}" if p[0] == p[1] else f"{p[0]:g} to {p[1]:g}",
    )
    return f"| {' | '.join(cells)} |"
