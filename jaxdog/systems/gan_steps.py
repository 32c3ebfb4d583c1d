"""The losses and optimizer steps of a GAN's players, which `gan` combines.

In order: batches and their random keys, the class loss, the discriminator, the generator.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.losses import regularizers
from jaxdog.optim import optimizers
from jaxdog.systems import gan_forward, gan_spec
from jaxdog.utils import errors

Array = types.Array
Key = types.Key
PyTree = types.PyTree
GANSpec = gan_spec.GANSpec

# ------------------------------------------------------------------ batches and their randomness


class BatchKeys(NamedTuple):
    """Random keys of one batch."""

    augment: Key
    latent: Key
    diffaugment: Key
    dropout: Key  # of the discriminator
    loss: Key
    regularizer: Key


def batch_keys(spec: GANSpec, key: Key) -> BatchKeys:
    """Keys [grad_accumulation_steps] of each kind."""
    keys = jax.random.split(key, len(BatchKeys._fields))
    return BatchKeys(*(jax.random.split(key, spec.grad_accumulation_steps) for key in keys))


def split_microbatches(spec: GANSpec, batch: types.Batch) -> list[types.Batch]:
    """Batch [n * grad_accumulation_steps * b, ...] -> n batches [grad_accumulation_steps, b, ...].

    Neighboring rows go to different batches: rows that are sharded over devices stay sharded along b.

    Raises:
      UserError: the rows cannot be split evenly.
    """
    steps = spec.grad_accumulation_steps
    n = gan_spec.num_real_microbatches(spec) // steps
    if batch.label.shape[0] % (n * steps):
        raise errors.UserError(
            f"each device has {batch.label.shape[0]} images of a step, which cannot be split into {n} x "
            f"{steps} equal batches; make system.batch_size a multiple of the devices"
        )

    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(-1, n, steps, *x.shape[1:]), 0, 2)

    batches = jax.tree.map(split, batch)
    return [jax.tree.map(lambda x, i=i: x[i], batches) for i in range(n)]


def generator_pass(
    spec: GANSpec, g: types.PlayerState, real: types.Batch, keys: BatchKeys, last_d_step: bool
) -> gan_forward.Generate:
    """The function that generates the images of a D step, and of the G step after the last D step.

    With reused latents, one forward pass serves the last D step and the G step, and its activations are kept
    in between. With `remat`, which saves memory, or with several microbatches there are two passes.
    """
    if spec.reuse_latents and last_d_step and spec.grad_accumulation_steps == 1 and not spec.remat:
        return gan_forward.generate_with_vjp(spec, g, keys.latent[0], real.label[0])
    return partial(gan_forward.generate, spec, g)


def g_step_keys(spec: GANSpec, key: Key, d_keys: BatchKeys) -> BatchKeys:
    """Keys of the G step.

    It shares the loss key with the last D step, and the latent key if latents are reused.
    """
    keys = batch_keys(spec, key)._replace(loss=d_keys.loss)
    return keys._replace(latent=d_keys.latent) if spec.reuse_latents else keys


# ------------------------------------------------------------------ the class loss


def class_term(
    spec: GANSpec, output: types.DiscriminatorOutput, label: Array, name: str
) -> tuple[Array | float, types.Scalars]:
    """Weighted class loss of D on real images, or of G on generated ones, and its scalars; 0 without one."""
    if spec.class_loss is None:
        return 0.0, {}
    spec.class_loss.check(output, spec.classes)
    logits: Any = output.class_logits
    loss = jnp.mean(spec.class_loss.real(output, label))
    accuracy = jnp.mean(jnp.argmax(logits[:, : spec.classes], -1) == label)
    return spec.class_loss.weight * loss, {f"loss/class_{name}": loss, f"accuracy/class_{name}": accuracy}


def d_class_loss(
    spec: GANSpec,
    real: types.DiscriminatorOutput,
    real_label: Array,
    fake: types.DiscriminatorOutput,
    fake_label: Array,
) -> tuple[Array | float, types.Scalars]:
    """Weighted class loss of D on real images, and on generated ones if the loss has a term for them."""
    loss, scalars = class_term(spec, real, real_label, "real")
    if spec.class_loss is not None and spec.class_loss.fake is not None:
        spec.class_loss.check(fake, spec.classes)
        loss += spec.class_loss.weight * jnp.mean(spec.class_loss.fake(fake, fake_label))
    return loss, scalars


# ------------------------------------------------------------------ the discriminator


def d_loss(
    spec: GANSpec,
    d: types.PlayerState,
    g: types.PlayerState,
    generate: gan_forward.Generate,
    step: Array,
    i: int,
    params: PyTree,
    inputs: tuple[types.Batch, BatchKeys],
) -> tuple[Array, optimizers.Aux]:
    """D's loss in update i of a training step: adversarial loss, class loss and regularizers such as R1.

    A function of D's `params` and of `inputs`, a real microbatch [b, ...] and its keys. The regularizers are
    those of `spec.d_regularizers`, see `losses.regularizers`.
    """
    batch, keys = inputs
    batch = transforms.apply_augments(spec.augment, keys.augment, batch)
    fakes = generate(g.params, keys.latent, batch.label, update_state=spec.reuse_latents)
    augment = partial(gan_forward.apply_diffaugment, spec, d, keys.diffaugment, step)
    raw = batch.image, jax.lax.stop_gradient(fakes.image)
    real = augment(gan_forward.REAL, raw[0]), batch.label
    fake = augment(gan_forward.FAKE, raw[1]), fakes.label
    real_output, fake_output, model_state = gan_forward.discriminate(
        spec, params, d.model_state, real, fake, keys.dropout
    )
    real_logit, fake_logit = real_output.logit, fake_output.logit

    def logit(image: Array, label: Array) -> Array:
        # fold_in(key, 0) and fold_in(key, 1) equal the keys of split(key), which `split_d` uses.
        key = jax.random.fold_in(keys.dropout, 2)
        output, _ = gan_forward.apply_discriminator(
            spec, params, model_state, (image, label), key, update_state=False
        )
        return output.logit

    regularizer = regularizers.apply_regularizers(
        spec.d_regularizers,
        keys.regularizer,
        step * spec.num_d_steps + i,
        regularizers.DRegularizerInputs(logit, real, fake, real_logit, fake_logit, params, raw, augment),
        d.regularizer_state["regularizers"],
        step / spec.num_steps,
    )
    real_terms, fake_terms = spec.loss.d(keys.loss, real_logit, fake_logit)
    real_loss, fake_loss = jnp.mean(real_terms), jnp.mean(fake_terms)
    class_loss, class_scalars = d_class_loss(spec, real_output, batch.label, fake_output, fakes.label)
    loss = real_loss + fake_loss + class_loss + regularizer.loss

    scalars = {
        "loss/d": loss,
        "loss/d_real": real_loss,
        "loss/d_fake": fake_loss,
        "logit/real": jnp.mean(real_logit),
        "logit/fake": jnp.mean(fake_logit),
        **class_scalars,
        **regularizer.scalars,
        "augment_r_t": jnp.mean(jnp.sign(jax.lax.stop_gradient(real_logit))),  # Karras et al. 2020, eq. 1
    }
    return loss, (model_state, {**d.regularizer_state, "regularizers": regularizer.state}, scalars)


def d_step(
    spec: GANSpec,
    d: types.PlayerState,
    g: types.PlayerState,
    generate: gan_forward.Generate,
    batch: types.Batch,
    keys: BatchKeys,
    step: Array,
    i: int,
) -> tuple[types.PlayerState, types.Scalars]:
    """Update i of D in a training step, on real images [grad_accumulation_steps, b, ...]."""
    loss = partial(d_loss, spec, d, g, generate, step, i)
    updated, scalars = _update(spec, d, spec.d_optimizer, loss, batch, keys, "d")
    images = batch.label.size * (1 if spec.axis is None else jax.lax.psum(1, spec.axis))
    controller, r_t = spec.augment_p_controller, scalars.pop("augment_r_t")
    augment_p = controller.update(d.regularizer_state["augment_p"], r_t, images)
    if spec.diffaugment:
        scalars |= {"augment_p": controller.p(step, augment_p), "augment_r_t": r_t}
    state = {**updated.regularizer_state, "augment_p": augment_p}
    return dataclasses.replace(updated, regularizer_state=state), scalars


# ------------------------------------------------------------------ the generator


def g_loss(
    spec: GANSpec,
    g: types.PlayerState,
    d: types.PlayerState,
    generate: gan_forward.Generate,
    step: Array,
    params: PyTree,
    inputs: tuple[types.Batch, BatchKeys],
) -> tuple[Array, optimizers.Aux]:
    """G's loss: adversarial loss, class loss of generated images, and regularizers such as path length.

    A function of G's `params` and of `inputs`, a real microbatch [b, ...] and its keys. D is not updated.
    """
    batch, keys = inputs

    def frozen_d(kind: int, image: Array, label: Array) -> types.DiscriminatorOutput:
        images = gan_forward.apply_diffaugment(spec, d, keys.diffaugment, step, kind, image), label
        key = jax.random.fold_in(keys.dropout, kind)
        return gan_forward.discriminate_frozen(spec, d, images, key)

    fakes = generate(params, keys.latent, batch.label, update_state=True)
    output = frozen_d(gan_forward.FAKE, fakes.image, fakes.label)
    real_logit = output.logit
    if spec.loss.needs_real_logits:
        real = transforms.apply_augments(spec.augment, keys.augment, batch)
        real_logit = frozen_d(gan_forward.REAL, real.image, real.label).logit

    adversarial_loss = jnp.mean(spec.loss.g(keys.loss, real_logit, output.logit))
    class_loss, class_scalars = class_term(spec, output, fakes.label, "fake")
    regularizer = regularizers.apply_regularizers(
        spec.g_regularizers,
        keys.regularizer,
        step,
        gan_forward.g_regularizer_inputs(spec, g, params, keys.latent, batch.label),
        g.regularizer_state["regularizers"],
        step / spec.num_steps,
    )
    loss = adversarial_loss + class_loss + regularizer.loss
    scalars = {"loss/g": loss, **class_scalars, **regularizer.scalars}
    return loss, (fakes.model_state, {"regularizers": regularizer.state}, scalars)


def g_step(
    spec: GANSpec,
    g: types.PlayerState,
    d: types.PlayerState,
    generate: gan_forward.Generate,
    batch: types.Batch,
    keys: BatchKeys,
    step: Array,
) -> tuple[types.PlayerState, types.Scalars]:
    """The update of G in a training step; `batch` has the real images [grad_accumulation_steps, b, ...]."""
    loss = partial(g_loss, spec, g, d, generate, step)
    return _update(spec, g, spec.g_optimizer, loss, batch, keys, "g")


def _update(
    spec: GANSpec,
    player: types.PlayerState,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: optimizers.Loss,
    batch: types.Batch,
    keys: BatchKeys,
    name: str,
) -> tuple[types.PlayerState, types.Scalars]:
    """One optimizer step on `loss` over batch [grad_accumulation_steps, b, ...].

    The player's name is appended to the scalars that both players have.
    """
    hours = jnp.max(batch.hours)
    player, scalars = optimizers.accumulate_and_apply(
        player, optimizer, loss, (batch, keys), spec.grad_accumulation_steps, hours, spec.axis
    )
    shared = ("grad_norm", "regularizer/")
    return player, {f"{key}/{name}" if key.startswith(shared) else key: x for key, x in scalars.items()}
