"""What benchmarks share: random training data, a config's step and samples as functions that can be timed."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxdog import cost, sharding
from jaxdog.config import build
from jaxdog.data import batches
from jaxdog.evaluation import generation
from jaxdog.training import train_step

NUM_IMAGES, CLASSES = 22_125, 120  # of Stanford Dogs, cropped to every box
Turn = Callable[[], Any]  # runs something to its end


def without_fades(config: Any) -> Any:
    """A progressive config whose last phase starts with its whole networks; other configs as they are."""
    if "fade" in config.system:
        config.system.fade = (0.0,) * len(config.system.fade)
    return config


def last_phase(config: Any) -> Any:
    """A config's last phase."""
    return build.phases(build.check(config), CLASSES)[-1]


def stored_resolution(config: Any) -> int:
    """The side of a config's crops in pixels."""
    return build.check(config).data.stored_resolution


def flops(config: Any, phase: int = 0) -> float:
    """Floating-point operations of a step of a phase, see `cost.count_flops`."""
    checked = build.check(config)
    phases = build.phases(checked, build.classes(checked.data))
    return cost.count_flops(phases[phase], checked.data.stored_resolution)


def random_data(side: int, n: int = NUM_IMAGES) -> batches.Data:
    """Random images [n, side, side, 3] uint8 with labels, on the devices."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n, side, side, 3), np.uint8)
    label = rng.integers(0, CLASSES, n, np.int32)
    return sharding.put(batches.make_data(image, label), sharding.replicated(sharding.make_mesh()))


def initialized(config: Any, data: batches.Data, k: int) -> tuple[train_step.CompiledPhase, Any]:
    """The jitted functions of a config's last phase, k steps at a time, and its initial state."""
    functions = train_step.CompiledPhase(last_phase(config), 0, k, sharding.make_mesh())
    return functions, functions.init(data)


def initial_params(config: Any) -> dict[str, Any]:
    """Both players' initial parameters, on the host."""
    _, state = initialized(config, random_data(stored_resolution(config), 64), 1)
    return jax.device_get({"g": state.g.params, "d": state.d.params})


def count(tree: Any) -> int:
    """Parameters in a tree."""
    return sum(x.size for x in jax.tree.leaves(tree))


def compile_steps(functions: train_step.CompiledPhase, state: Any, data: Any) -> tuple[Any, dict[str, float]]:
    """`train_steps` compiled for arrays or their shapes, the seconds that took, and its temporary memory."""
    program, spent = timed(functions.train_steps.lower(state, data, 0.0).compile)
    memory = program.memory_analysis().temp_size_in_bytes / 1e9
    return program, {"compile_seconds": spent, "temporary_gb": memory}


def stepper(program: Any, state: Any, data: batches.Data) -> Turn:
    """A turn that runs a compiled `train_steps` once, and keeps the state for the next turn."""

    def turn() -> Any:
        nonlocal state
        state, scalars = program(state, data, 0.0)
        return jax.block_until_ready((state, scalars))[1]

    return turn


def sampler(config: Any, state: Any, k: int) -> Turn:
    """A turn that samples k batches from a state of a config's last phase, to the host."""
    system, mesh, b = last_phase(config).system, sharding.make_mesh(), config.system.batch_size
    label = (np.arange(k * b) % CLASSES).astype(np.int32)
    key = train_step.key_for(0, train_step.SUBMIT)
    copied = jax.tree.map(lambda x: x.copy(), state)  # training donates the original
    ready = jax.block_until_ready(generation.prepare_state(system, copied, key))
    sample = generation.make_sampler(system, sharding.replicated(mesh))

    def turn() -> None:
        for batch in generation.sample_batches(label, b, mesh):
            np.asarray(sample(ready, key, *batch))

    return turn


def timed(turn: Turn) -> tuple[Any, float]:
    """(the result of one turn, its seconds)."""
    start = time.perf_counter()
    result = turn()
    return result, time.perf_counter() - start


def seconds(turn: Turn) -> float:
    """Of one turn."""
    return timed(turn)[1]


def rate(turn: Turn, images: int, duration: float) -> dict[str, float]:
    """Images/s over turns of at least `duration` seconds, after one that compiles: the median."""
    first = seconds(turn)
    turn()
    times: list[float] = []
    while sum(times) < duration or len(times) < 5:
        times.append(seconds(turn))
    return {"images_per_second": images / statistics.median(times), "first_turn_seconds": first}


def train_rate(config: Any, duration: float) -> dict[str, float]:
    """`rate` of a config's last phase as the training loop runs it, and steps/s."""
    k, phase = config.train.steps_per_execution, last_phase(config)
    data = random_data(stored_resolution(config), 4096)
    functions, state = initialized(config, data, k)
    result = rate(stepper(functions.train_steps, state, data), k * phase.batch_size, duration)
    return {**result, "steps_per_second": result["images_per_second"] / phase.batch_size}


def peaks(n: int, maps: tuple[int, int, int], dtype: str = "float32") -> dict[str, tuple[Turn, float]]:
    """A matrix product of n and a 3x3 convolution of maps (images, height, channels), and their FLOPs.

    Products with zeros around the maps do not count, as XLA counts.
    """
    b, h, c = maps
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (n, n), (n, n), (b, h, h, c), (3, 3, c, c)
    one, other, x, kernel = (
        jax.random.normal(key, shape, jnp.dtype(dtype)) for key, shape in zip(keys, shapes, strict=True)
    )
    product = jax.jit(jnp.matmul)

    @jax.jit
    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        order = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=order)

    return {
        "matmul": (lambda: product(one, other), 2.0 * n**3),
        "conv": (lambda: convolution(x, kernel), 2.0 * b * (3 * h - 2) ** 2 * c**2),
    }


def limits(duration: float = 2.0) -> dict[str, float]:
    """GFLOP/s of a matrix product of 1024 and of a 3x3 convolution of 128 channels at 16x16, 32 images."""

    def measure(run: Turn, flop: float) -> float:
        return flop * rate(lambda: jax.block_until_ready(run()), 1, duration)["images_per_second"] / 1e9

    return {f"{name}_gflops": measure(*peak) for name, peak in peaks(1024, (32, 16, 128)).items()}


def versions() -> dict[str, str]:
    """Of the libraries that decide speed."""
    return {package.__name__: package.__version__ for package in (jax, flax)}
