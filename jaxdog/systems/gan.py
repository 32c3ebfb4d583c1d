"""Generative adversarial networks (Goodfellow et al. 2014) as a system of pure functions.

`_step` is the training algorithm. `gan_spec` has the definition of a GAN, `gan_forward` the networks' forward
passes, `gan_steps` the players' losses and updates, and `gan_sampling` sampling from the EMA.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxdog import types
from jaxdog.augment import transforms
from jaxdog.losses import regularizers
from jaxdog.optim import ema, optimizers
from jaxdog.systems import gan_sampling, gan_spec, gan_steps

Array = types.Array
Key = types.Key
GANSpec = gan_spec.GANSpec
State = gan_spec.State


def gan(spec: GANSpec) -> types.System:
    """The GAN as a system. One `step` takes `gan_spec.num_real_microbatches(spec)` real microbatches.

    Raises:
      UserError: see `gan_spec.check`.
    """
    gan_spec.check(spec)
    standing = spec.sample_batch_stats == "standing"
    style_based = isinstance(spec.generator, types.StyleBased)
    return types.System(
        init=partial(_init, spec),
        step=partial(_step, spec),
        sample=partial(gan_sampling.sample, spec),
        prepare=partial(gan_sampling.compute_standing_stats, spec) if standing else None,
        latent=spec.latent,
        decode=partial(gan_sampling.decode, spec),
        map_latents=partial(gan_sampling.map_latents, spec) if style_based else None,
        synthesize=partial(gan_sampling.synthesize, spec) if style_based else None,
        per_device=spec.axis is not None,
    )


def _step(spec: GANSpec, state: State, batch: types.Batch, key: Key) -> tuple[State, types.Scalars]:
    """One training step: `num_d_steps` updates of D, one update of G, one update of the EMA."""
    spec = gan_spec.at_step(spec, state.step)
    key = key if spec.axis is None else jax.random.fold_in(key, jax.lax.axis_index(spec.axis))
    d_key, g_key = jax.random.split(jax.random.fold_in(key, state.step))
    real = gan_steps.split_microbatches(spec, batch)
    d, g, step = state.d, state.g, state.step

    for i in range(spec.num_d_steps):
        d_keys = gan_steps.batch_keys(spec, jax.random.fold_in(d_key, i))
        generate = gan_steps.generator_pass(spec, g, real[i], d_keys, last_d_step=i == spec.num_d_steps - 1)
        d, d_scalars = gan_steps.d_step(spec, d, g, generate, real[i], d_keys, step, i)

    # G reuses the last D step's generator pass, and its keys, if latents are reused.
    g_keys = gan_steps.g_step_keys(spec, g_key, d_keys)
    g, g_scalars = gan_steps.g_step(spec, g, d, generate, real[-1], g_keys, step)

    averages = (state.ema, *state.extra_emas)
    emas = ema.update_all(averages, g.params, g.model_state, step + 1, _ema_rules(spec))
    return State(step + 1, g, d, ema=emas[0], extra_emas=emas[1:]), {**d_scalars, **g_scalars}


def _ema_rules(spec: GANSpec) -> list[ema.EMARule]:
    return ema.rules(spec.ema_rule, spec.extra_ema_decays)


def _init(spec: GANSpec, key: Key, batch: types.Batch) -> State:
    g_key, d_key, augment_key, image_key = jax.random.split(key, 4)
    two = jax.tree.map(lambda x: x[:2], batch)
    image, label, *_ = transforms.apply_augments(spec.augment, augment_key, two)
    z, keys = jnp.zeros((label.shape[0], spec.latent_dim)), jax.random.split(image_key, label.shape[0])
    g_variables = spec.generator.init(g_key, z, label, train=False, key=keys)
    d_variables = spec.discriminator.init(d_key, image, label, train=False)
    g_state = {"regularizers": regularizers.init_state(spec.g_regularizers)}
    d_state = {
        "regularizers": regularizers.init_state(spec.d_regularizers),
        "augment_p": spec.augment_p_controller.init_state,
    }
    g = optimizers.init_player(g_variables, spec.g_optimizer, g_state)
    d = optimizers.init_player(d_variables, spec.d_optimizer, d_state)
    emas = tuple(ema.init(g.params, g.model_state) for _ in _ema_rules(spec))
    return State(jnp.zeros((), jnp.int32), g, d, ema=emas[0], extra_emas=emas[1:])
