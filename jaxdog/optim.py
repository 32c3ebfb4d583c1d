"""Optimisers and learning-rate schedules: thin names over optax."""

import optax


def constant(steps: int, learning_rate: float) -> optax.Schedule:
    """The same rate for the whole run of `steps` optimiser updates."""
    del steps
    return optax.constant_schedule(learning_rate)


def linear_end(steps: int, learning_rate: float, fraction: float) -> optax.Schedule:
    """Constant, then linear to zero over the last `fraction` (0 to 1) of `steps`."""
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"linear_end: fraction is {fraction}, and must lie in (0, 1]")
    length = max(1, round(steps * fraction))
    return optax.linear_schedule(learning_rate, 0.0, length, transition_begin=steps - length)


def cosine(steps: int, learning_rate: float, final: float) -> optax.Schedule:
    """Half a cosine from `learning_rate` to `final` times it over `steps`."""
    return optax.cosine_decay_schedule(learning_rate, max(1, steps), alpha=final)


def adam(
    schedule: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015); `weight_decay` is L2 added to the gradient, as in torch's Adam."""
    update = optax.adam(schedule, b1=b1, b2=b2, eps=eps)
    if weight_decay == 0.0:
        return update
    return optax.chain(optax.add_decayed_weights(weight_decay), update)
