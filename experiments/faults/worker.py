"""A small run for `run.py`: the real loop, checkpoints, files and command line, around a system of one array.

    python experiments/faults/worker.py FOLDER STEPS CACHE [PLACE]

trains to STEPS, or resumes, and prints a hash of the last state. CACHE is the folder of compiled programs. In
PLACE, one of PLACES, it prints "at PLACE" and stays for a while.
"""

import functools
import hashlib
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import struct  # noqa: E402

from jaxdog import commands, sharding, types  # noqa: E402
from jaxdog.cli import entry  # noqa: E402
from jaxdog.config import build, library, saved, schema  # noqa: E402
from jaxdog.data import batches  # noqa: E402
from jaxdog.evaluation import batching  # noqa: E402
from jaxdog.training import checkpoint, loop, writers  # noqa: E402
from jaxdog.utils import files, interrupts, lock  # noqa: E402

EVERY, EVALUATE_EVERY, SIDE = 4, 12, 256
PLACES = ("start", "compile", "step", "checkpoint", "grid", "evaluation", "final scores", "report")
STAY = 3.0  # seconds for which it stays in a place
CONFIG = build.check(library.load("toy:test"))  # what config.json holds; the system is another
Stay = Callable[[str], Any]


@struct.dataclass
class State:
    """The array changes at random in each step, so that a lost or repeated step shows."""

    step: jax.Array
    walk: jax.Array


def system(stay: Stay) -> types.System:
    """A system whose state walks at random; its samples are gray."""

    def init(key: jax.Array, batch: types.Batch) -> State:
        return State(jnp.int32(0), jax.random.normal(key, (SIDE, SIDE)))

    def step(state: State, batch: types.Batch, key: jax.Array) -> tuple[State, types.Scalars]:
        stay("compile")
        noise = jax.random.normal(jax.random.fold_in(key, state.step), (SIDE, SIDE))
        walk = 0.9 * state.walk + noise + jnp.mean(batch.image)
        return State(state.step + 1, walk), {"loss/d": jnp.mean(walk)}

    def sample(state: State, key: jax.Array, label: jax.Array) -> jax.Array:
        stay("grid")
        return jnp.zeros((label.shape[0], 8, 8, 3))

    return types.System(init, step, sample)


class Writer(writers.Writer):
    """Stays between two steps, at a log line."""

    stay: Stay = staticmethod(lambda place: None)

    def log(self, step: int, scalars: Any) -> None:
        super().log(step, scalars)
        self.stay("step")


class Checkpoints(checkpoint.Checkpoints):
    """Stays while a checkpoint is written."""

    stay: Stay = staticmethod(lambda place: None)

    def save(self, step: int, state: Any, seconds: float) -> None:
        super().save(step, state, seconds)
        self.stay("checkpoint")


def train(folder: pathlib.Path, steps: int, stay: Stay) -> None:
    """Trains to `steps`, or resumes, and prints a hash of the last state."""

    def evaluate(phase: types.Phase, state: State, step: int) -> float:
        stay("evaluation")
        score = float(jnp.abs(jnp.mean(state.walk)))
        writer.scores(step, {"fid768": score})
        return score

    stay("start")
    mesh = sharding.make_mesh()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    data = sharding.put(batches.make_data(images, np.zeros(20, np.int32)), sharding.replicated(mesh))
    checkpoints = Checkpoints(folder / "checkpoints", 2, 1, "fid768")
    checkpoints.stay = stay
    if checkpoints.steps():
        saved.check_same(folder, CONFIG)
    saved.write(folder, CONFIG)
    settings = schema.Train(steps, 0.0, 0.0, 2, 2, 10, 4, 0.0)
    writer = Writer(folder, checkpoints.latest() or 0)
    writer.stay = stay
    with writer:
        setup = loop.TrainSetup(
            [types.Phase("walk", system(stay), steps, batch_size=4)],
            settings, EVERY, 0, 2, data, mesh, writer, checkpoints, evaluate, EVALUATE_EVERY,
        )  # fmt: skip
        print("ready", flush=True)
        result = loop.train(setup)
        checkpoints.close()
        if result.reason != "steps":
            print(f"stopped at step {result.step}", flush=True)
            return
        stay("final scores")
        stay("report")
        digest = hashlib.sha256(np.asarray(result.state.walk).tobytes()).hexdigest()
        files.write_text(folder / "report.html", digest)
        print("state", digest, flush=True)


def main(folder: pathlib.Path, steps: int, cache: pathlib.Path, place: str = "") -> None:
    """As the command line does it: with its lock, its signals, and its errors of one paragraph."""

    @functools.cache
    def stay(where: str) -> None:
        if where == place:
            print("at", where, flush=True)
            if where in ("evaluation", "final scores"):  # which look for signals between two batches
                batching.map_batches(lambda x: time.sleep(STAY / 60) or x, (np.zeros(60),), 1)
            else:
                time.sleep(STAY)

    def run(*_: Any, **__: Any) -> None:
        with lock.hold(folder, "train"):
            train(folder, steps, stay)

    commands.run_mode = run
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    interrupts.watch()
    entry.main(["report", str(folder)])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]), *sys.argv[4:])
