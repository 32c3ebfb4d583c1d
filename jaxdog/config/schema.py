"""A config's sections as typed records, and how a section fills a record or a function's arguments.

A function's own parameters are its section's fields: a new option is a new parameter.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple


class ConfigError(ValueError):
    """A config's field is unknown, missing, of the wrong type, or out of its choices."""


# ------------------------------------------------------------------ sections and signatures


def build(function: Callable[..., Any], section: Mapping[str, Any], path: str, **given: Any) -> Any:
    """Calls `function` with a section's fields and what is `given`, checking names and types first."""
    return bind(function, section, path, (), **given)()


def bind(
    function: Callable[..., Any], section: Mapping[str, Any], path: str, later: tuple[str, ...], **given: Any
) -> Callable[..., Any]:
    """`function` with a section's fields and what is `given` filled in; the `later` arguments stay open."""
    fields = {name: value for name, value in section.items() if name != "name"}
    known = sorted(set(inspect.signature(function).parameters) - {"parent", "name", *later, *given})
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(f"{path}.{unknown[0]} is no field of {path}; fields: {', '.join(known)}")
    missing = sorted(set(known) - set(fields))
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; {path} needs: {', '.join(known)}")
    hints = inspect.get_annotations(function)
    for name, value in fields.items():
        check_type(f"{path}.{name}", value, hints.get(name, Any))
    return partial(function, **fields, **given)


def check_type(path: str, value: Any, hint: Any) -> None:
    """Raises ConfigError unless `value` fits a plain annotation; an int fits a float."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(typing.get_origin(kind) or kind for kind in allowed)
    if not all(kind in (int, float, str, bool, tuple) for kind in plain):
        return
    fits = isinstance(value, plain) or (float in plain and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in plain):
        names = " or ".join(kind.__name__ for kind in plain)
        raise ConfigError(f"{path} is {value!r} ({type(value).__name__}), and must be of type {names}")


def choose(table: Mapping[str, Any], name: str, path: str) -> Any:
    """The row of a table, or a ConfigError that names the rows."""
    if name not in table:
        raise ConfigError(f"{path} is {name!r}; choices: {', '.join(sorted(table))}")
    return table[name]


def named(
    table: Mapping[str, Callable[..., Any]], section: Mapping[str, Any], path: str, **given: Any
) -> Any:
    if "name" not in section:
        raise ConfigError(f"{path}.name is missing; choices: {', '.join(sorted(table))}")
    return build(choose(table, section["name"], f"{path}.name"), section, path, **given)


def steps(
    table: Mapping[str, Callable[..., Any]], section: Mapping[str, Any], path: str, later: tuple[str, ...]
) -> list[Callable[..., Any]]:
    """The functions that a section names, each with its fields, in the order of the table."""
    for name in section:
        choose(table, name, f"{path}.{name}")
    wanted = [name for name in table if name in section]
    return [bind(table[name], section[name], f"{path}.{name}", later) for name in wanted]


# ------------------------------------------------------------------ the sections that stand for themselves


class Data(NamedTuple):
    """config.data: which photos, and which crops of them."""

    source: str  # "tfds" | "kaggle" | "folder" | "toy"
    path: str  # tfds: where the prepared set is or goes ("": its default place); kaggle, folder: the folder
    archives: str  # tfds: a folder with the official images.tar, annotation.tar, lists.tar; "": download
    toy_photos: int  # toy: how many are drawn
    classes: int  # breeds; 0: as many as the source has
    size: int  # of the generated pictures as they are scored and handed in, pixels on a side
    store_size: int  # of the crops as they are kept; more than game.size where augmentations cut or turn them
    crop: Mapping[str, Any]
    curate: Mapping[str, Any]  # what becomes of the set of crops, in order
    cache_dir: str
    workers: int  # threads that decode; 0: one per core


class Game(NamedTuple):
    """config.game: how the two players meet."""

    name: str
    size: int  # of the pictures that the networks see, pixels on a side
    batch_size: int  # real pictures of one discriminator step
    latent_dim: int
    loss: Mapping[str, Any]
    d_steps: int
    accumulate: int
    judge: str  # "jointly" | "apart": real and generated pictures in one call of the discriminator, or in two
    fakes: str  # "fresh" | "reused": the generator's latents are its own, or the discriminator's last ones
    fake_labels: str  # "uniform" | "real": breeds drawn, or those of the real pictures beside them
    g_reals: bool  # a relativistic generator step gets real pictures of its own
    breed_loss: Mapping[str, Any]  # what breeds teach beside that
    d_penalties: Mapping[str, Any]
    g_penalties: Mapping[str, Any]
    diffaugment: Mapping[str, Any]  # what real and generated pictures go through alike
    augment_p: Mapping[str, Any]  # with which probability
    label_ramp: tuple  # shares of the run between which breeds come in; (0, 0): known from the start


class Memorizer(NamedTuple):
    """config.game of a memorizer: what learns the pictures, and for how long."""

    name: str
    size: int  # of the pictures, pixels on a side
    batch_size: int
    d_updates: int  # steps of the discriminator's lesson, before the generator's; 0: it has none
    share: float  # of the picture asked for in a sample; the rest is another one's


class Imitation(NamedTuple):
    """config.game of an imitation: the pictures themselves."""

    name: str
    size: int  # of the pictures, pixels on a side
    batch_size: int  # pictures copied in one step
    share: float  # of the picture asked for in a sample; the rest is another one's


class Progressive(NamedTuple):
    """config.game of pictures that grow: a game, and its sizes one after the other."""

    name: str
    sizes: tuple  # of the pictures that the networks make and see, each twice the one before
    steps: tuple  # of each size
    fade: tuple  # share of each size's steps over which its newest blocks fade in; 0: there at once
    cuts: tuple  # steps of the last size, after each of which 1 - decay of the average is a tenth
    size: int  # of the pictures before they are averaged to the sizes above: the last of these
    batch_size: int  # the rest is as in Game
    latent_dim: int
    loss: Mapping[str, Any]
    d_steps: int
    accumulate: int
    judge: str
    fakes: str
    fake_labels: str
    g_reals: bool
    breed_loss: Mapping[str, Any]
    d_penalties: Mapping[str, Any]
    g_penalties: Mapping[str, Any]
    diffaugment: Mapping[str, Any]
    augment_p: Mapping[str, Any]
    label_ramp: tuple


class VAE(NamedTuple):
    """config.game of a variational autoencoder, whose decoder is config.generator."""

    name: str
    size: int  # of the pictures that the networks see, pixels on a side
    batch_size: int
    latent_dim: int
    likelihood: str  # "squares" | "cross_entropy": what stands for -log p(picture), summed over its pixels
    kl_weight: float  # of the divergence, summed over the latent's coordinates
    encoder: Mapping[str, Any]


class VQVAE(NamedTuple):
    """config.game of codes: an autoencoder, config.generator, then a prior over its codes."""

    name: str
    size: int  # of the pictures that the networks see, pixels on a side
    batch_size: int
    autoencoder_steps: int  # of the first phase; the rest of train.steps is the prior's
    codes: int  # of each codebook
    code_dim: int
    commitment: float  # weight of the encoder's squared distance to its codes
    decay: float  # of the codebooks' moving averages
    restart: float  # a code used less than so many times the mean begins anew; 0: never
    prior: Mapping[str, Any]
    temperature: float  # of drawn codes; 1: as the prior has them


class Average(NamedTuple):
    """config.ema: the averaged generator."""

    decay: float | tuple  # one for each phase, where there are several
    start: int  # steps
    stats: str  # "average" | "copy"
    rampup: float  # the half-life is at most this share of the steps done; 0: as the decay has it
    tracks: tuple  # decays of further averages, which a sweep may draw from


class Sample(NamedTuple):
    """config.sample: how pictures are drawn for evaluation and submission."""

    truncation: float  # 0: none
    method: str  # "threshold" | "resample" | "truncnorm"
    labels: str  # "uniform" | "balanced" | "varied": uniform over breeds whose pictures differ
    without: tuple  # numbers of the breeds that are not drawn
    norm: str  # "running" | "batch" | "refreshed": whose batch statistics
    batch_size: int  # norm "batch", "refreshed": pictures that share statistics
    refresh: int  # norm "refreshed": over so many pictures
    finish: Mapping[str, Any]  # what is done to each picture, in order
    sweep: Mapping[str, Any]  # values of the fields above, and of "track", that are tried in the end


class Checkpoint(NamedTuple):
    """config.checkpoint: what is kept."""

    every: int  # steps
    keep_last: int
    keep_best: int


class Devices(NamedTuple):
    """config.devices: how the memory and the work of a step are shared out."""

    deal_state: bool  # large arrays of the state are dealt out over the devices, not whole on each
    own_statistics: bool  # each device normalises its own pictures; else statistics are the whole batch's
    remat: bool  # backward passes compute the inside of each block again: less memory, more time
    data_share: float  # of a device's memory for the crops; more stay with the host, and are read ahead


class Loop(NamedTuple):
    """config.train: how long, and how often what. Counts are in steps."""

    steps: int
    max_hours: float  # 0: no limit
    memory_gb: float  # a run that takes more stops; 0: no limit
    steps_per_dispatch: int
    log_every: int
    grid_every: int
    grid_images: int
    collapse: float  # a score so many times the best: back to the best, at half the rates; 0: never


class Evaluation(NamedTuple):
    """config.eval: what is measured, when and against what."""

    every_kimg: float  # thousand real pictures between evaluations; 0: only at the end
    samples: int  # pictures of an evaluation during training
    batch_size: int
    weights: str  # "published" | "random" | a file or folder
    resampler: str  # of the real side: "lanczos" | "tf1-bilinear"
    eps: float  # of MiFID
    best: str  # the metric that picks the best checkpoint: "fid768" | "fid2048"
    final: tuple  # what is measured of the pictures of images.zip: rows of features.METRICS


class Submission(NamedTuple):
    """config.submit: the pictures of images.zip."""

    images: int


SECTIONS = {
    "data": Data,
    "ema": Average,
    "sample": Sample,
    "checkpoint": Checkpoint,
    "devices": Devices,
    "train": Loop,
    "eval": Evaluation,
    "submit": Submission,
}


class Checked(NamedTuple):
    """A whole config, every section of it checked."""

    name: str
    seed: int
    dtype: str
    init_from: str  # work folder of a run whose networks this one begins with; "": none
    data: Data
    game: Any  # the record of its kind of game
    ema: Average
    sample: Sample
    devices: Devices
    checkpoint: Checkpoint
    train: Loop
    eval: Evaluation
    submit: Submission
    generator: Mapping[str, Any]
    discriminator: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    augment: Mapping[str, Any]
