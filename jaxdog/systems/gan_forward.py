"""Forward passes of a GAN's networks in training."""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdog import types
from jaxdog.losses import regularizers
from jaxdog.models import layers
from jaxdog.ops import batch_layout
from jaxdog.systems import gan_spec
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree
GANSpec = gan_spec.GANSpec

REAL, FAKE = regularizers.REAL, regularizers.FAKE


def apply_network(
    spec: GANSpec,
    network: nn.Module,
    params: PyTree,
    model_state: PyTree,
    *inputs: Array,
    update_state: bool,
    **options: Any,
) -> tuple[Any, PyTree]:
    """Applies a network in training mode.

    Args:
      spec: of the GAN.
      network: the generator or discriminator of `spec`.
      params, model_state: of the network.
      *inputs: of the network, [b, ...].
      update_state: whether the pass updates batch statistics and spectral-norm vectors.
      **options: further arguments of `network.apply`.

    Returns:
      The output, and the model state after the pass.
    """
    mutable: Any = list(model_state) if update_state else False
    apply: Any = partial(network.apply, train=True, mutable=mutable, **options)
    if spec.remat:
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(layers.BLOCK))
    output: Any = apply({"params": params, **model_state}, *inputs)
    return output if update_state else (output, model_state)


class Fakes(NamedTuple):
    """Generated images."""

    image: Array  # [b, h, w, c] in [-1, 1]
    label: Array  # [b] int32
    model_state: PyTree  # of the generator, after its forward pass


class Generate(Protocol):
    """(params, key, real_label [b]) -> b generated images; see `generate`."""

    def __call__(self, params: PyTree, key: Key, real_label: Array, *, update_state: bool) -> Fakes: ...


def sample_latents(spec: GANSpec, key: Key, real_label: Array) -> tuple[Array, Array, Array]:
    """Inputs of the generator: z [b, latent_dim], label [b], key [b]."""
    z_key, label_key, noise_key = jax.random.split(key, 3)
    b = real_label.shape[0]
    z = jax.random.normal(z_key, (b, spec.latent_dim))
    label = jax.random.randint(label_key, (b,), 0, spec.classes)
    label = real_label if spec.fake_label_source == "real" else label
    return batch_layout.shard_batch((z, label, jax.random.split(noise_key, b)))


def generate(
    spec: GANSpec, g: types.PlayerState, params: PyTree, key: Key, real_label: Array, *, update_state: bool
) -> Fakes:
    """Generates images from random latents; with `spec` and `g` bound, this is a `Generate`."""
    z, label, keys = sample_latents(spec, key, real_label)
    image, model_state = apply_network(
        spec, spec.generator, params, g.model_state, z, label, update_state=update_state, key=keys
    )
    return Fakes(image, label, model_state)


def generate_with_vjp(spec: GANSpec, g: types.PlayerState, key: Key, real_label: Array) -> Generate:
    """Runs the generator once for both players.

    The returned function ignores its arguments: it returns the images of the forward pass made here, and the
    gradient with respect to `params` is computed through that pass.
    """

    def forward(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        fakes = generate(spec, g, params, key, real_label, update_state=True)
        return fakes.image, (fakes.label, fakes.model_state)

    image, vjp, (label, model_state) = jax.vjp(forward, g.params, has_aux=True)
    cached_image = jax.custom_vjp(lambda params: image)
    cached_image.defvjp(lambda params: (image, None), lambda _, gradient: vjp(gradient))
    return lambda params, key, real_label, *, update_state: Fakes(cached_image(params), label, model_state)


def g_regularizer_inputs(
    spec: GANSpec, g: types.PlayerState, params: PyTree, key: Key, real_label: Array
) -> regularizers.GRegularizerInputs:
    """The latents of `generate` (z, or w of a style-based generator), and images as a function of them."""
    z, label, keys = sample_latents(spec, key, real_label)
    apply = partial(apply_network, spec, spec.generator, params, g.model_state, update_state=False, key=keys)
    if not isinstance(spec.generator, types.StyleBased):
        return regularizers.GRegularizerInputs(lambda z: apply(z, label)[0], z, params)
    w, _ = apply(z, label, method="map_latents")
    return regularizers.GRegularizerInputs(lambda w: apply(w, method="synthesize")[0], w, params)


def apply_discriminator(
    spec: GANSpec,
    params: PyTree,
    model_state: PyTree,
    images: regularizers.Images,
    dropout_key: Key,
    *,
    update_state: bool,
) -> tuple[types.DiscriminatorOutput, PyTree]:
    """D's output in training mode, and its model state after the pass."""
    (image, label), rngs = images, {"dropout": dropout_key}
    return apply_network(
        spec, spec.discriminator, params, model_state, image, label, update_state=update_state, rngs=rngs
    )


def discriminate(
    spec: GANSpec,
    params: PyTree,
    model_state: PyTree,
    real: regularizers.Images,
    fake: regularizers.Images,
    dropout_key: Key,
) -> tuple[types.DiscriminatorOutput, types.DiscriminatorOutput, PyTree]:
    """D's outputs for real and for generated images, and its model state after both."""
    apply = partial(apply_discriminator, spec, params, update_state=True)
    if spec.split_d:
        real_key, fake_key = jax.random.split(dropout_key)
        real_output, model_state = apply(model_state, real, real_key)
        fake_output, model_state = apply(model_state, fake, fake_key)
        return real_output, fake_output, model_state
    # One pass for both: one power iteration of spectral norm per D step, and joint batch statistics.
    both = jax.tree.map(batch_layout.interleave, real, fake)
    output, model_state = apply(model_state, both, dropout_key)
    real_output = jax.tree.map(lambda x: batch_layout.deinterleave(x)[REAL], output)
    fake_output = jax.tree.map(lambda x: batch_layout.deinterleave(x)[FAKE], output)
    return real_output, fake_output, model_state


def discriminate_frozen(
    spec: GANSpec, d: types.PlayerState, images: regularizers.Images, dropout_key: Key
) -> types.DiscriminatorOutput:
    """D's output in the G step, which leaves D as it is."""
    apply = partial(apply_discriminator, spec, d.params, d.model_state, update_state=False)
    groups = spec.g_step_groups
    if groups == 1:
        return apply(images, dropout_key)[0]
    b = images[1].shape[0]
    if b % groups:
        raise errors.UserError(
            f"system.g_step_groups is {groups}, and must divide the {b} images that pass D at a time"
        )
    # Row i is in group i % groups, so that rows that are sharded over devices stay there.
    split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, groups, *x.shape[1:]), 1, 0), images)
    output, _ = jax.vmap(apply)(split, jax.random.split(dropout_key, groups))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, *x.shape[2:]), output)


def apply_diffaugment(
    spec: GANSpec, d: types.PlayerState, key: Key, step: Array, kind: int, image: Array
) -> Array:
    """Augments inputs of the discriminator (DiffAugment: Zhao et al. 2020); `kind` is REAL or FAKE."""
    p = spec.augment_p_controller.p(step, d.regularizer_state["augment_p"])
    for i, augment in enumerate(spec.diffaugment):
        image = augment(jax.random.fold_in(key, 2 * i + kind), image, p)
    return image
