"""Training from pictures that do not fit on a device: a mapped file of many GB, against a set that does.

    python experiments/bench/streamed.py --gigabytes 10 --at /a/disk --set game.batch_size=32

The file (random pictures of 64x64) is made, mapped, and read ahead by grain (`stream.dispatches`) while
narrow BigGAN trains from it; the same steps from 4,096 pictures on the device take turns with it. What is
told: seconds of a step both ways, peak memory of the process (pages of the file among it), and whether a run
that goes on at a later step sees the same pictures. streamed.json is left beside this file.
"""

import itertools
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from experiments.bench import step as bench  # noqa: E402

SIDE, CHUNK, K = 64, 10_000, 4


def mapped(path: pathlib.Path, gigabytes: float) -> Any:
    """A file of random pictures, as large as that, mapped for reading: [n, 64, 64, 3] uint8."""
    import numpy as np

    n = int(gigabytes * 1e9 / (SIDE * SIDE * 3))
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (n, SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    for start in range(0, n, CHUNK):
        rows = made[start : start + CHUNK]
        rows[:] = np.frombuffer(rng.bytes(rows.size), np.uint8).reshape(rows.shape)
    made.flush()
    del made
    return np.load(path, mmap_mode="r")


def turns(data: Any, config: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn of K steps, streamed and resident alternating."""
    import jax

    from jaxdog import sharding
    from jaxdog.config import build
    from jaxdog.data import host_loader
    from jaxdog.training import train_step

    over, phase = sharding.mesh(), build.phases(build.check(config), bench.CLASSES)[-1]
    few = bench.pictures(SIDE, 4096)
    key = train_step.key_for(0, train_step.DATA)
    ahead = host_loader.dispatches(data, key, range((rounds + 1) * K), K, phase.batch_size, over)
    sides: dict[str, Any] = {"streamed": ahead, "resident": itertools.repeat(few)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    made = {name: train_step.compiled(phase, 0, K, over, False, name == "streamed") for name in sides}
    states = {name: made["resident"].init(few) for name in sides}
    for i in range(rounds + 1):  # the first one compiles
        for name, source in sides.items():
            mark = time.perf_counter()
            states[name], _ = made[name].dispatch(states[name], next(source), 0.0)
            jax.block_until_ready(states[name])
            if i:
                times[name].append(time.perf_counter() - mark)
    return times


def goes_on(data: Any, batch_size: int) -> bool:
    """Whether the pictures of step 100 are the same in a run that begins there."""
    import numpy as np

    from jaxdog import sharding
    from jaxdog.data import host_loader
    from jaxdog.training import train_step

    key, over = train_step.key_for(0, train_step.DATA), sharding.mesh()
    seen = [
        next(
            itertools.islice(
                host_loader.dispatches(data, key, range(at, 100 + K), K, batch_size, over), i, None
            )
        )
        for at, i in ((0, 100 // K), (100, 0))
    ]
    return all(np.array_equal(a, b) for a, b in zip(*seen, strict=True))


def main() -> None:
    """Measures, prints, keeps."""
    parser = trial.parser(__doc__)
    parser.set_defaults(kimg=1.0, narrow=True)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--at", type=pathlib.Path, help="a folder for the file; default: the temporary one")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--settle", type=float, default=50.0, help="seconds in which the file is written")
    args = parser.parse_args()
    import jax
    import numpy as np

    from jaxdog.data import batches
    from jaxdog.training import loop

    config = bench.config_of("biggan", args)
    with tempfile.TemporaryDirectory(dir=args.at) as place:
        image = mapped(pathlib.Path(place) / "image.npy", args.gigabytes)
        label = np.random.default_rng(1).integers(0, bench.CLASSES, len(image), np.int32)
        data = batches.resident(image, label)
        time.sleep(args.settle)  # a system goes on writing to its disk, on these cores
        times = turns(data, config, args.rounds)
        same = goes_on(data, config.game.batch_size)
    medians = {name: statistics.median(t) / K for name, t in times.items()}
    found = {
        "gigabytes": image.nbytes / 1e9,
        "pictures": len(image),
        "batch_size": config.game.batch_size,
        "seconds_per_step": medians,
        "streamed_over_resident": medians["streamed"] / medians["resident"],
        "peak_memory_gb": loop.memory_gb(),
        "goes_on_with_the_same_pictures": same,
        "device": jax.devices()[0].device_kind,
    }
    trial.write(HERE / "streamed.json", found)
    print(found)


if __name__ == "__main__":
    main()
