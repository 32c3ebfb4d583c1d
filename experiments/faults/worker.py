"""A small run for `run.py`: the real loop, checkpoints, files and command line, around a system of one array.

    python experiments/faults/worker.py FOLDER STEPS SECONDS CACHE

trains to STEPS with evaluations of SECONDS each, or resumes, and prints a hash of the last state. CACHE is
the folder of compiled programs.
"""

import hashlib
import pathlib
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import struct  # noqa: E402

from jaxdog import commands, sharding, types  # noqa: E402
from jaxdog.cli import entry  # noqa: E402
from jaxdog.config import schema  # noqa: E402
from jaxdog.data import batches  # noqa: E402
from jaxdog.evaluation import batching  # noqa: E402
from jaxdog.training import checkpoint, loop, writers  # noqa: E402
from jaxdog.utils import interrupts  # noqa: E402

EVERY, EVALUATE_EVERY, SIDE = 4, 12, 256


@struct.dataclass
class State:
    """The array changes at random in each step, so that a lost or repeated step shows."""

    step: jax.Array
    walk: jax.Array


def system() -> types.System:
    """A system whose state walks at random; its samples are gray."""

    def init(key: jax.Array, batch: types.Batch) -> State:
        return State(jnp.int32(0), jax.random.normal(key, (SIDE, SIDE)))

    def step(state: State, batch: types.Batch, key: jax.Array) -> tuple[State, types.Scalars]:
        noise = jax.random.normal(jax.random.fold_in(key, state.step), (SIDE, SIDE))
        walk = 0.9 * state.walk + noise + jnp.mean(batch.image)
        return State(state.step + 1, walk), {"loss/d": jnp.mean(walk)}

    def sample(state: State, key: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.zeros((label.shape[0], 8, 8, 3))

    return types.System(init, step, sample)


def train(folder: pathlib.Path, steps: int, seconds: float) -> None:
    """Trains to `steps`, or resumes, and prints a hash of the last state."""

    def evaluate(phase: types.Phase, state: State, step: int) -> float:
        print("evaluating", flush=True)
        batching.map_batches(lambda x: time.sleep(seconds / 20) or x, (np.zeros(20),), 1)
        score = float(jnp.abs(jnp.mean(state.walk)))
        writer.scores(step, {"fid768": score})
        return score

    mesh = sharding.make_mesh()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    data = sharding.put(batches.make_data(images, np.zeros(20, np.int32)), sharding.replicated(mesh))
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", 2, 1, "fid768")
    settings = schema.Train(steps, 0.0, 0.0, 2, 2, 10, 4, 0.0)
    with writers.Writer(folder, checkpoints.latest() or 0) as writer:
        setup = loop.TrainSetup(
            [types.Phase("walk", system(), steps, batch_size=4)],
            settings, EVERY, 0, 2, data, mesh, writer, checkpoints, evaluate, EVALUATE_EVERY,
        )  # fmt: skip
        print("ready", flush=True)
        result = loop.train(setup)
        checkpoints.close()
    if result.reason == "steps":
        print("state", hashlib.sha256(np.asarray(result.state.walk).tobytes()).hexdigest(), flush=True)
    else:
        print(f"stopped at step {result.step}", flush=True)


def main(folder: pathlib.Path, steps: int, seconds: float, cache: pathlib.Path) -> None:
    """As the command line does it: with its signals, and its errors of one paragraph."""

    def run(*_: Any, **__: Any) -> None:
        train(folder, steps, seconds)

    commands.run_mode = run
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    interrupts.watch()
    entry.main(["report", str(folder)])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), pathlib.Path(sys.argv[4]))
