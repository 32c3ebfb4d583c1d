"""Compiles the initial state of a config for an H100 that is not present, to load it on one.

    python experiments/gpu/ahead.py --config biggan --dtype bfloat16 --out .pack/ahead
    python experiments/gpu/ahead.py --config biggan --set generator.channels=64 --out .pack/ahead

Needs jax[cuda13] of the version on the other machine, but neither GPU nor driver. `speed.py --begin` loads
the program in place of compiling it. Training steps have to be compiled on the GPU, where XLA times their
convolutions.
"""

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import serialize_executable  # noqa: E402

from experiments import aot, timing, trial  # noqa: E402
from experiments.gpu import speed, worker  # noqa: E402
from jaxdog import sharding  # noqa: E402
from jaxdog.data import batches  # noqa: E402
from jaxdog.training import train_step  # noqa: E402


def compiled(job: dict[str, Any]) -> bytes:
    """The serialized program that makes the initial state."""
    with aot.target("cuda", 1):
        config, mesh = worker.config_of(job), sharding.make_mesh()
        functions = train_step.CompiledPhase(timing.last_phase(config), 0, job["k"], mesh)
        shape = (timing.NUM_IMAGES, *2 * [timing.stored_resolution(config)], 3)
        data = jax.eval_shape(
            lambda: batches.make_data(jnp.zeros(shape, jnp.uint8), jnp.zeros(shape[0], jnp.int32))
        )
        data = sharding.abstract_state(data, mesh)
        state = jax.eval_shape(functions.init_fn, data)
        shardings = sharding.state_shardings(state, mesh, False)
        program = jax.jit(functions.init_fn, out_shardings=shardings).lower(data).compile()
        return serialize_executable.serialize(program)[0]


def main() -> None:
    """Compiles, writes."""
    parser = trial.command_line(__doc__)
    parser.add_argument("--config", default="biggan")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".pack/ahead"))
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    job = speed.job("jaxdog", args.config, args.config, args.dtype, trial.overrides(args))
    args.out.mkdir(parents=True, exist_ok=True)
    (path := args.out / speed.first_state(job)).write_bytes(compiled(job))
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
