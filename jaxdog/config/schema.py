"""The sections of a config as records: type, default and meaning of every field.

Fields without a default define the experiment and must be set. The defaults of other fields are technical
settings, or switch an option off.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxdog.metrics import metric_table

if TYPE_CHECKING:
    Metric = str
else:
    Metric = Literal[tuple(metric_table.METRICS)]  # any of them
DEFAULT_FINAL_METRICS: tuple[Metric, ...] = ("mifid", "isc", "kid", "prdc", "per_class", "copies")
Network = metric_table.Network
Table = Mapping[str, Any]  # a nested section; `config/registry.py` lists its choices


class Data(NamedTuple):
    """config.data: the photos, and the crops taken from them."""

    crop: Table  # the crop recipe
    select: Table  # steps that filter or relabel the crops
    source: Literal["tfds", "kaggle", "folder", "toy"] = "tfds"  # where the photos are from
    path: str = ""  # tfds: the prepared data set, "" for its default place; kaggle, folder: the folder
    archives: str = ""  # tfds: folder with the official tar files images, annotation, lists; "": download
    toy_photos: int = 512  # toy: number of drawn photos
    classes: int = 120  # number of classes; 0: as many as the source has
    stored_resolution: int = 0  # side of the stored crops, px; 0: system.resolution
    cache_dir: str = "~/.cache/jaxdog"  # of crops, features and downloaded weights
    workers: int = 0  # threads that decode photos; 0: one per core


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoPlayer:
    """Fields of config.system that both kinds of GAN have."""

    name: str
    batch_size: int  # images in one microbatch of one discriminator step, on all devices together
    latent_dim: int  # of z
    loss: Table  # the adversarial loss
    num_d_steps: int = 1  # discriminator steps per generator step
    grad_accumulation_steps: int = 1  # microbatches per optimizer update
    split_d: bool = False  # D's forward pass runs on real and on generated images separately
    reuse_latents: bool = False  # the G step reuses the latents of the last D step
    g_step_groups: int = 1  # groups of the G step's batch for which D computes batch statistics separately
    fake_label_source: Literal["uniform", "real"] = "uniform"  # labels of fakes: random, or the real batch's
    g_fresh_reals: bool = False  # relativistic losses: the G step gets another real batch than D
    class_loss: Table  # the auxiliary class loss
    d_regularizers: Table  # regularizers of the discriminator
    g_regularizers: Table  # regularizers of the generator
    diffaugment: Table  # differentiable augmentations of real and generated images
    augment_p: Table  # the probability of diffaugment
    class_transition: tuple = (0.0, 0.0)  # fractions between which labels and class loss fade in


@dataclasses.dataclass(frozen=True, kw_only=True)
class GAN(TwoPlayer):
    """config.system of a GAN."""

    resolution: int  # side of the images that the networks see, px


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progressive(TwoPlayer):
    """config.system of a progressively grown GAN."""

    resolutions: tuple  # one per phase, each twice the one before
    steps: tuple  # of each phase
    fade: tuple  # fraction of each phase during which its newest blocks fade in; 0: no fade-in
    ema_milestones: tuple = ()  # steps of the last phase, after each of which 1 - ema.decay is divided by 10

    @property
    def resolution(self) -> int:
        """The last of `resolutions`."""
        return self.resolutions[-1]


class Memorizer(NamedTuple):
    """config.system of a memorizer, which reproduces its training images."""

    name: str
    resolution: int  # side of the images, px
    batch_size: int  # images of one step
    discriminator_steps: int  # of the first phase, which trains D; 0: no such phase
    blend_weight: float  # of the requested image in a sample; the rest is another image


class Imitation(NamedTuple):
    """config.system of an imitation, whose samples are blended training images."""

    name: str
    resolution: int  # side of the images, px
    batch_size: int  # images copied in one step
    blend_weight: float  # of the requested image in a sample; the rest is another image


class VAE(NamedTuple):
    """config.system of a variational autoencoder, whose decoder is config.generator."""

    name: str
    resolution: int  # side of the images that the networks see, px
    batch_size: int  # images of one step
    latent_dim: int  # of z
    encoder: Table  # the network
    likelihood: Literal["squares", "cross_entropy"]  # -log p(image | z), summed over pixels
    kl_weight: float = 1.0  # of the KL divergence, summed over the latent's coordinates


class VQVAE(NamedTuple):
    """config.system of VQ-VAE-2: an autoencoder, config.generator, then a prior over its codes."""

    name: str
    resolution: int  # side of the images that the networks see, px
    batch_size: int  # images of one step
    autoencoder_steps: int  # of the first phase; the rest of train.steps trains the prior
    codebook_size: int  # codes in each codebook
    code_dim: int  # length of a code
    prior: Table  # the network
    commitment: float = 0.25  # weight of the encoder's squared distance to its codes
    decay: float = 0.99  # of the codebooks' moving averages
    dead_code_threshold: float = 0.0  # codes used less than this times the mean are reinitialized; 0: never
    temperature: float = 1.0  # of sampled codes


class Flow(NamedTuple):
    """config.system of flow matching, whose velocity network is config.generator."""

    name: str
    resolution: int  # side of the images that the network sees, px
    batch_size: int  # images of one step
    time: Literal["uniform", "logit_normal"] = "uniform"  # distribution of the training times
    label_dropout: float = 0.1  # probability that the class of a training image is left out
    guidance: float = 1.0  # weight of classifier-free guidance; 1: none
    solver: Literal["euler", "heun"] = "heun"  # of the differential equation; heun applies the network twice
    solver_steps: int = 25  # from noise to image


class EMA(NamedTuple):
    """config.ema: the exponential moving average of the generator, from which images are sampled."""

    decay: float | tuple = 0.0  # a tuple has one per phase; 0: no average
    start: int = 0  # steps before it starts
    batch_stats: Literal["average", "copy"] = "copy"  # batch-norm statistics: averaged, or the generator's
    rampup: float = 0.0  # the half-life is at most this fraction of the steps done; 0: no limit
    extra_ema_decays: tuple = ()  # of further averages, from which a sweep may sample


class Sample(NamedTuple):
    """config.sample: how images are sampled for evaluation and submission."""

    postprocess: Table  # steps applied to each generated image
    truncation: float = 0.0  # the largest |z|; 0: no truncation
    method: Literal["threshold", "resample", "truncnorm"] = "resample"  # of truncation
    labels: Literal["uniform", "balanced", "skip_collapsed"] = "balanced"  # how labels are drawn
    exclude_classes: tuple = ()  # indices of classes that are not sampled
    batch_stats: Literal["running", "batch", "standing"] = "running"  # which batch-norm statistics
    batch_size: int = 0  # batch_stats "batch" or "standing": images that share statistics
    num_standing_images: int = 0  # batch_stats "standing": images over which they are computed
    sweep: Table = {}  # values of these fields, and of ema_index, to choose from after training


class Checkpoint(NamedTuple):
    """config.checkpoint: what is saved and kept."""

    every: int = 1_000  # steps between checkpoints
    keep_last: int = 2  # newest checkpoints
    keep_best: int = 2  # checkpoints with the best scores


class Parallel(NamedTuple):
    """config.parallel: how a training step uses the devices and their memory."""

    fsdp: bool = False  # fully sharded: large arrays of the state are sharded, not replicated
    sync_batch_norm: bool = True  # batch norm over the global batch; False: over each device's images
    remat: bool = False  # backward passes recompute the inside of each block: less memory, more time
    device_memory_fraction: float = 0.5  # for the crops; a larger set stays on the host and is prefetched


class Train(NamedTuple):
    """config.train: the length of the run, and the intervals of logs and grids."""

    steps: int  # generator steps of the whole run
    max_hours: float = 0.0  # hours with compilation and evaluations, after which training stops; 0: no limit
    memory_gb: float = 0.0  # memory of a device, on CPUs of the process, at which a run stops; 0: no limit
    steps_per_execution: int = 10  # steps in one compiled program
    log_every: int = 100  # steps between log lines
    grid_every: int = 2_000  # steps between sample grids
    grid_images: int = 60  # images in a grid
    rollback_ratio: float = 0.0  # a score this many times the best restores the best checkpoint; 0: never


class Eval(NamedTuple):
    """config.eval: metrics, when they are computed, and against which photos."""

    every_kimg: float  # thousand real images between evaluations; 0: only at the end
    samples: int = 5_000  # generated images of an evaluation during training
    batch_size: int = 128  # images per forward pass of a feature network
    networks: tuple[Network, ...] = ("inception",)  # of the scores; Inception's select the best checkpoint
    weights: str = "published"  # of Inception: "published" (downloaded once), "random", or a path
    nasnet_weights: str = "published"  # of NASNet: a path (they are not downloaded), or "random"
    dinov2_weights: str = "published"  # of DINOv2: as `weights`
    resampler: Literal["lanczos", "tf1-bilinear"] = "lanczos"  # of the real photos
    eps: float = 0.1  # MiFID on Inception: memorization distances below this divide the FID, as in 2019
    best: Literal["fid768", "fid2048"] = "fid2048"  # the metric that selects the best checkpoint
    final: tuple[Metric, ...] = DEFAULT_FINAL_METRICS  # metrics of images.zip


class Submit(NamedTuple):
    """config.submit: images.zip."""

    images: int = 10_000  # number of images
    resolution: int = 0  # side of the submitted and scored images, px; 0: system.resolution
    checkpoint: Literal["best", "latest"] = "best"  # from which images.zip is sampled; best: by eval.best


class LearningRate(NamedTuple):
    """Fields of config.optimizer.PLAYER in addition to the optimizer's own."""

    learning_rate: float  # at the start of the schedule
    schedule: Table  # how it changes


class KerasAdam(NamedTuple):
    """Fields of config.optimizer.PLAYER of a memorizer in addition to its schedule's."""

    adam: Table  # the optimizer


class Experiment(NamedTuple):
    """A whole config."""

    name: str  # of the experiment; the default work folder is runs/NAME
    data: Data
    augment: Table  # augmentations of real images
    generator: Table  # the network that makes images
    discriminator: Table  # the network that classifies images as real or generated
    system: Any  # GAN, Progressive, VAE, VQVAE, Flow, Memorizer or Imitation
    optimizer: Table  # one for each player
    ema: EMA
    sample: Sample
    train: Train
    eval: Eval
    checkpoint: Checkpoint
    parallel: Parallel
    submit: Submit
    seed: int = 0  # of all randomness
    dtype: Literal["float32", "bfloat16"] = "float32"  # of convolutions and matmuls; all else is float32
    init_from: str = ""  # work folder of a run whose networks initialize this one's; "": none
