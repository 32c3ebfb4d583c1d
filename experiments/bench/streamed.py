"""Training from a memory-mapped file of many GB, compared with data that is resident on the device.

    python experiments/bench/streamed.py --gigabytes 10 --at /a/disk --set system.batch_size=32

Random images of 64x64 are written to the file, mapped, and prefetched by grain while narrow BigGAN trains
on them; the same steps on 4,096 resident images take turns with it. streamed.json: seconds of a step both
ways, the peak memory of the process (pages of the file included), and whether a resumed run sees the same
images.
"""

import itertools
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import timing, trial  # noqa: E402
from experiments.bench import step  # noqa: E402
from jaxdog import sharding  # noqa: E402
from jaxdog.data import batches, host_loader  # noqa: E402
from jaxdog.training import progress, train_step  # noqa: E402

SIDE, CHUNK, K = 64, 10_000, 4


def mapped(path: pathlib.Path, gigabytes: float) -> np.ndarray:
    """A file of random images, mapped for reading: [n, 64, 64, 3] uint8."""
    n = int(gigabytes * 1e9 / (SIDE * SIDE * 3))
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (n, SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    for start in range(0, n, CHUNK):
        rows = image[start : start + CHUNK]
        rows[:] = np.frombuffer(rng.bytes(rows.size), np.uint8).reshape(rows.shape)
    image.flush()
    del image
    return np.load(path, mmap_mode="r")


def prefetched(data: batches.Data, batch_size: int, steps: range) -> Any:
    """The images of these steps, K steps at a time."""
    key = train_step.key_for(0, train_step.DATA)
    return host_loader.prefetch(data, key, steps, K, batch_size, sharding.make_mesh())


def measure(data: batches.Data, config: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn of K steps, streamed and resident in turns."""
    mesh, phase, resident = sharding.make_mesh(), timing.last_phase(config), timing.random_data(SIDE, 4096)
    streamed = prefetched(data, phase.batch_size, range((rounds + 1) * K))
    sides: dict[str, Any] = {"streamed": streamed, "resident": itertools.repeat(resident)}
    functions = {
        name: train_step.CompiledPhase(phase, 0, K, mesh, False, name == "streamed") for name in sides
    }
    states = {name: functions["resident"].init(resident) for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, source in sides.items():
            start = time.perf_counter()
            states[name], _ = functions[name].train_steps(states[name], next(source), 0.0)
            jax.block_until_ready(states[name])
            times[name].append(time.perf_counter() - start)
    return {name: t[1:] for name, t in times.items()}  # the first turn compiles


def resumes(data: batches.Data, batch_size: int) -> bool:
    """Whether the images of step 100 are the same in a run that starts there."""
    whole = next(itertools.islice(prefetched(data, batch_size, range(100 + K)), 100 // K, None))
    resumed = next(prefetched(data, batch_size, range(100, 100 + K)))
    return all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))


def main() -> None:
    """Measures; writes streamed.json."""
    parser = trial.parser(__doc__)
    parser.set_defaults(kimg=1.0, narrow=True)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--at", type=pathlib.Path, help="a folder for the file; default: the temporary one")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--settle", type=float, default=50.0, help="seconds to wait until the file is on disk"
    )
    args = parser.parse_args()
    config = step.config_of("biggan", args)
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        image = mapped(pathlib.Path(folder) / "image.npy", args.gigabytes)
        label = np.random.default_rng(1).integers(0, timing.CLASSES, len(image), np.int32)
        data = batches.make_data(image, label)
        time.sleep(args.settle)
        times = measure(data, config, args.rounds)
        same = resumes(data, config.system.batch_size)
    medians = {name: statistics.median(t) / K for name, t in times.items()}
    result = {
        "gigabytes": image.nbytes / 1e9,
        "pictures": len(image),
        "batch_size": config.system.batch_size,
        "seconds_per_step": medians,
        "streamed_over_resident": medians["streamed"] / medians["resident"],
        "peak_memory_gb": progress.peak_memory_gb(),
        "resumes_with_the_same_images": same,
        "device": jax.devices()[0].device_kind,
        **timing.versions(),
    }
    trial.write(HERE / "streamed.json", result)
    print(result)


if __name__ == "__main__":
    main()
