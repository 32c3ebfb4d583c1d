"""Types shared by all packages: batches, players, systems, phases, and protocols of networks.

A *system* is a generative model and its training procedure as pure functions, which close over modules and
optimizers; its state is a frozen dataclass of arrays. `training` compiles these functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from flax import struct

Array = jax.Array
Key = jax.Array
PyTree = Any
DATA_AXIS = "data"  # name of the mesh axis along which batches are sharded
Scalars = dict[str, Array]  # name -> [] float32


# ------------------------------------------------------------------ batches and players


class Batch(NamedTuple):
    """A batch of real images."""

    image: Array  # [b, s, s, c] float32 in [-1, 1]
    label: Array  # [b] int32, the class
    original_size: Array  # [b, 2] int32, height and width in pixels of the crop before it was resized
    crop_type: Array  # [b] int32, which of the recipe's crop types this is; 0 for recipes with one type
    hours: Array  # [b] float32, training time so far, equal in all rows; updated once per log window


Augment = Callable[[Key, Batch], Batch]  # a random augmentation of real images


class DiscriminatorOutput(NamedTuple):
    """What a discriminator returns."""

    logit: Array  # [b] float32, positive for real
    class_logits: Array | None = None  # [b, n] float32, see `models.heads`; None: no class head
    embedding: Array | None = None  # [b, k] float32 of unit length; None unless the head is "cosine"


@struct.dataclass
class PlayerState:
    """A network in training: a generator, a discriminator, an encoder, ..."""

    params: PyTree  # float32
    model_state: PyTree  # Flax's mutable collections, {name: ...}: batch statistics, spectral-norm vectors
    opt_state: PyTree  # of the optax optimizer
    regularizer_state: PyTree = struct.field(default_factory=dict)  # kept by regularizers and by ADA


# ------------------------------------------------------------------ optional interfaces of networks


@runtime_checkable
class ClassScaled(Protocol):
    """A network whose class conditioning can be scaled: 0 is unconditional, 1 fully conditional."""

    class_scale: Any  # [] float


@runtime_checkable
class StyleBased(Protocol):
    """A generator with an intermediate latent space (Karras et al. 2019): `synthesize(map_latents(...))`."""

    def map_latents(self, z: Array, label: Array, train: bool, key: Array) -> Array:
        """z [b, latent_dim] -> w [b, layers, k]."""
        ...

    def synthesize(self, w: Array, train: bool, key: Array) -> Array:
        """w [b, layers, k] -> image [b, h, w, c]."""
        ...


# ------------------------------------------------------------------ systems and phases


class System(NamedTuple):
    """A generative model and its training procedure, as pure functions."""

    init: Callable[[Key, Batch], Any]  # (key, batch) -> state, with state.step = 0
    step: Callable[[Any, Batch, Key], tuple[Any, Scalars]]  # one training step; increments state.step
    sample: Callable[[Any, Array, Array], Array]  # (state, key [b], label [b]) -> [b, h, w, c] in [-1, 1]
    # (state, key) -> the state to sample from; None: the state itself.
    prepare: Callable[[Any, Key], Any] | None = None
    # Autoencoders only: (state, batch, key) -> (the encoder's inputs, their reconstructions), in [-1, 1].
    reconstruct: Callable[[Any, Batch, Key], tuple[Array, Array]] | None = None
    # Models with a latent vector: key [b] -> z [b, d] float32, and (state, z, label [b], key [b]) -> images.
    # `sample` is the composition of the two. The key is for noise that the generator adds.
    latent: Callable[[Array], Array] | None = None
    decode: Callable[[Any, Array, Array, Array], Array] | None = None
    # StyleBased generators only: (state, z, label [b], key [b]) -> w [b, layers, k], and (state, w, key [b])
    # -> images. `decode` is the composition of the two.
    map_latents: Callable[[Any, Array, Array, Array], Array] | None = None
    synthesize: Callable[[Any, Array, Array], Array] | None = None
    # True: `step` runs under `shard_map` with each device's rows, and averages over DATA_AXIS itself.
    per_device: bool = False


class Phase(NamedTuple):
    """A stage of training with one system. A GAN has one; progressive growing has one per resolution."""

    name: str
    system: System
    steps: int  # of this phase; the step count of the state continues across phases
    batch_size: int  # real images per step
    transition: Callable[[Any], Any] | None = None  # last state of the previous phase -> first state
