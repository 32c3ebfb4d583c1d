"""The arrays that sampling reads: by tracing a system by hand, and of every config."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import types
from jaxdog.config import build, library
from jaxdog.evaluation import sampling_state
from jaxdog.render import decoding
from jaxdog.training import train_step

QUICK = ("vae", "vqvae2", "memorizer", "progan")  # traced in every run of the tests


def nothing(*_: Any) -> Any:
    return None


def test_an_array_is_read_if_an_output_depends_on_it() -> None:
    def sample(state, key, label):
        unused = jnp.sin(state["d"])
        scanned, _ = jax.lax.scan(lambda x, _: (x * state["scale"], None), state["g"], None, 2)
        return scanned + 0.0 * label[0] + jnp.where(True, 0.0, 1.0) * unused.shape[0]

    state = {"g": jnp.ones(3), "scale": jnp.ones(3), "d": jnp.ones(3), "opt": (jnp.ones(4), jnp.ones(()))}
    system = types.System(nothing, nothing, sample)
    assert sampling_state.read_names(system, state) == {"g", "scale"}
    with_latents = system._replace(
        latent=lambda key: jnp.zeros((2, 4)), decode=lambda s, z, *_: z @ s["opt"][0]
    )
    assert sampling_state.read_names(with_latents, state) == {"g", "scale", "opt/0"}
    prepared = system._replace(prepare=lambda state, key: {**state, "g": state["opt"][1] * state["g"]})
    assert sampling_state.read_names(prepared, state) == {"g", "scale", "opt/1"}
    encoder = system._replace(reconstruct=lambda state, batch, key: (batch.image, state["d"]))
    assert sampling_state.read_names(encoder, state) == {"g", "scale"}
    assert sampling_state.read_names(encoder, state, reconstruct=(8, 8, 3)) == {"g", "scale", "d"}


def test_a_state_is_filled_with_zeros_that_take_no_memory() -> None:
    shapes = {
        "a": jax.ShapeDtypeStruct((2,), jnp.float32),
        "b": jax.ShapeDtypeStruct((2**20, 2**20), jnp.int32),
    }
    state = sampling_state.fill(shapes, {"a": jnp.ones(2)})
    assert state["b"].shape == (2**20, 2**20) and state["b"].dtype == np.int32 and not any(state["b"].strides)
    assert sampling_state.read_arrays(state, {"a"}).keys() == {"a"}
    # Nor do they where they are passed to a compiled function that does not read them.
    np.testing.assert_array_equal(jax.jit(lambda state: state["a"] + 1.0)(state), [2.0, 2.0])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in library.names()],
)
def test_configs_sample_from_their_generator_only(name: str) -> None:
    config = build.check(library.load(name, "test"))
    config = config._replace(sample=decoding.fixed_statistics(config.sample))
    phase, side = build.phases(config, 3)[-1], config.data.stored_resolution
    shapes = train_step.init_shapes(phase, (side, side, 3))
    read = sampling_state.read_names(phase.system, shapes)
    every = set(jax.tree.leaves(sampling_state.names(shapes)))
    generator = next(
        prefix for prefix in ("ema/", "g/", "net/params/", "prior/params/") if has(every, prefix)
    )
    unread = {name for name in every if "opt_state" in name or "regularizer_state" in name}
    unread |= {"net/params/seen"}  # of imitation: which images have been stored
    assert {name for name in every - unread if name.startswith(generator)} <= read, "all of the generator"
    rest = read - {name for name in read if name.startswith(generator)} - {"step"}
    allowed = ("params/decode_bottom", "params/widen_top", "codebooks/") if name == "vqvae2" else ()
    assert all(name.startswith(allowed) for name in rest) and bool(rest) == bool(allowed), rest


def has(names: set[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
