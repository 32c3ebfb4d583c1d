"""One short run on real photos: trained, scored alike as it begins and as it ends, its row of numbers.

What the experiments of several configs share. Widths can be divided so that two cores train in minutes.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALLEST = {"widths": 16, "channels": 8}  # that narrowing leaves, of a layer and of a unit of such
GROWING = (0.05, 0.1, 0.15, 0.2, 0.5)  # of the steps of what grows: at 4, 8, 16, 32 and 64 px
K = 5  # steps per dispatch
KEPT = "loss", "logit", "bits", "perplexity", "used"  # what the names of the curves begin with


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=0.0, help="of training for each; 0: see --kimg")
    made.add_argument("--kimg", type=float, default=0.0, help="thousand real pictures for each")
    made.add_argument("--narrow", action="store_true", help="widths and batches for a CPU")
    made.add_argument(
        "--phased_steps", type=int, default=1500, help="of all phases, for those with several and --minutes"
    )
    made.add_argument("--samples", type=int, default=1000, help="pictures of each score")
    made.add_argument("--batch", type=int, default=8, help="pictures in flight through Inception")
    made.add_argument("--weights", default="published", help="as eval.weights")
    made.add_argument("--archives", default="", help="as data.archives")
    made.add_argument("--runs", default="runs/experiments", help="where the runs live")
    made.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON", help="changes to every config")
    made.add_argument("--jobs", type=int, default=1, help="at a time, each with its share of the cores")
    made.add_argument("--one", help=argparse.SUPPRESS)
    return made


def check_budget(made: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program unless it was given either minutes or pictures."""
    if bool(args.minutes) == bool(args.kimg):
        made.error("give either --minutes or --kimg")


def told(args: argparse.Namespace) -> dict[str, Any]:
    """What --set says: fields and values."""
    from jaxdog import commands

    return {
        field: commands.tuples(json.loads(value)) for field, _, value in (x.partition("=") for x in args.set)
    }


def again(file: str, one: str) -> bool:
    """The same command for one of its rows, in a process of its own (its memory is its own)."""
    return subprocess.run([sys.executable, file, *sys.argv[1:], "--one", one], check=False).returncode == 0


class Job(NamedTuple):
    """One row of an experiment, as --one names it."""

    one: str
    after: Sequence[str] = ()  # jobs earlier in the list that it needs


def side_by_side(file: str, jobs: Sequence[Job], count: int) -> list[str]:
    """Runs jobs `again`, `count` at a time, each on its share of the cores; those that failed.

    Small networks do not keep two cores busy: two jobs of a core each see more pictures than one of two.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if count < 1 or (cores and count > len(cores)):
        sys.exit(f"--jobs is {count}, and must be from 1 to {max(len(cores), 1)}, the number of cores")
    number, done = itertools.count(), {}

    def settle() -> None:  # what a thread starts stays on the thread's cores
        if cores:
            os.sched_setaffinity(0, cores[next(number) :: count])

    def run(task: Job) -> bool:
        begun = time.monotonic()
        good = all(done[name].result() for name in task.after) and again(file, task.one)
        print(f"{task.one}: {'done' if good else 'FAILED'}, {time.monotonic() - begun:.0f} s", flush=True)
        return good

    with concurrent.futures.ThreadPoolExecutor(count, initializer=settle) as pool:
        for job in jobs:
            done[job.one] = pool.submit(run, job)
    return [name for name, good in done.items() if not good.result()]


def narrowed(config: Any, by: int) -> dict[str, Any]:
    """Fields of both networks (and a VAE's encoder) with their widths divided."""
    found = {}
    for path, section in (
        ("generator", config.generator),
        ("discriminator", config.discriminator),
        ("game.encoder", config.game.get("encoder", {})),
    ):
        for field in {"channels", "widths"} & set(section):
            value = section[field]
            less = [max(SMALLEST[field], x // by) for x in (value if isinstance(value, tuple) else (value,))]
            found[f"{path}.{field}"] = tuple(less) if isinstance(value, tuple) else less[0]
    return found


def shorten(config: Any, args: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """Changes `config` to a run within the budget, without checkpoints, and says what was changed.

    changes: fields and values of the caller's, stronger than those here; --set is stronger still.
    """
    changes = {
        "train.max_hours": args.minutes / 60.0,
        "train.grid_every": 0,
        "train.log_every": 2 * K,
        "train.steps_per_dispatch": K,
        "checkpoint.every": 1_000_000,
        "eval.every_kimg": 0.0,
        "eval.samples": args.samples,
        "eval.batch_size": args.batch,
        **changes,
        **told(args),
    }
    places = {"data.archives": args.archives, "eval.weights": args.weights}  # of this machine: not told
    config.update_from_flattened_dict({**changes, **places})
    more: dict[str, Any] = {"train.steps": config.train.steps // (2 * K) * 2 * K}
    phased = config.game.name in ("progressive", "vqvae")
    if phased:
        more["train.steps"] = args.phased_steps
    if args.kimg:
        more["train.steps"] = max(round(args.kimg * 1000 / config.game.batch_size / 100), 1) * 100
    if config.game.name == "progressive":
        shares = GROWING[-len(config.game.sizes) :]
        steps = [round(x / sum(shares) * more["train.steps"] / K) * K for x in shares]
        more["game.steps"] = (*steps[:-1], more["train.steps"] - sum(steps[:-1]))
    if config.game.name == "vqvae":
        more["game.autoencoder_steps"] = round(0.5 * more["train.steps"] / K) * K
    for player in config.optimizer:
        schedule = config.optimizer[player].get("schedule", {})
        if schedule.get("name") == "clock_cosine" and args.minutes:
            more[f"optimizer.{player}.schedule.hours"] = args.minutes / 60.0 * 10.0 / 8.95  # as then
    config.update_from_flattened_dict(more)
    return {**changes, **more}


def flops(config: Any, number: int = 0) -> float:
    """Floating-point operations of a step of a phase, the first, see `costs.flops`."""
    from jaxdog import cost
    from jaxdog.config import build

    checked = build.check(config)
    phase = build.phases(checked, build.classes(checked.data))[number]
    return cost.flops(phase, checked.data.store_size)


def rate(turn: Callable[[], Any], images: int, seconds: float) -> dict[str, float]:
    """Images/s over turns for `seconds`, after one that compiles: the median, and how long that one took."""
    begun = time.perf_counter()
    turn()
    first = time.perf_counter() - begun
    turn()
    times = []
    while sum(times) < seconds or len(times) < 5:
        begun = time.perf_counter()
        turn()
        times.append(time.perf_counter() - begun)
    return {"images_per_second": images / statistics.median(times), "first_turn_seconds": first}


def speed(config: Any, k: int, seconds: float) -> dict[str, float]:
    """`rate` of a config's last phase at its own widths, on random pictures; k steps a turn."""
    import jax
    import numpy as np

    from jaxdog import sharding
    from jaxdog.config import build
    from jaxdog.data import batches
    from jaxdog.training import train_step

    over, phase = sharding.mesh(), build.phases(build.check(config), 120)[-1]
    rng, side = np.random.default_rng(0), config.data.store_size
    image = rng.integers(0, 256, (4096, side, side, 3), np.uint8)
    extent = rng.integers(64, 400, (4096, 2), np.int32)
    label, kind = rng.integers(0, 120, 4096, np.int32), rng.integers(0, 2, 4096, np.int32)
    data = sharding.put(batches.resident(image, label, extent, kind), sharding.everywhere(over))
    functions = train_step.compiled(phase, 0, k, over)
    state = functions.init(data)

    def turn() -> None:
        nonlocal state
        state, scalars = functions.dispatch(state, data, 0.0)
        jax.block_until_ready(scalars)

    found = rate(turn, k * phase.batch_size, seconds)
    return {**found, "steps_per_second": found["images_per_second"] / phase.batch_size}


def kept(path: pathlib.Path, told: dict[str, Any]) -> bool:
    """Whether a row is there and was made with the same changes."""
    return path.exists() and json.loads(path.read_text())["changes"] == json.loads(json.dumps(told))


def write(path: pathlib.Path, value: Any) -> None:
    """JSON, readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, default=float) + "\n")


class Trial:
    """A run in `folder`; `begin` or `train` it, `score` what it then is."""

    def __init__(self, config: Any, folder: pathlib.Path, scoring: bool = True):
        import jax

        from jaxdog import runs
        from jaxdog.config import build
        from jaxdog.training import writers

        checked = build.check(config)
        cache = pathlib.Path(checked.data.cache_dir).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json_best_effort(indent=2) + "\n")  # for init_from
        self.folder, self.seed = folder, checked.seed
        self.job = runs.make(checked, folder, cache, training=True, scoring=scoring)
        self.writer = writers.Writer(folder, step=0)
        self.run = runs.training(self.job, self.writer)
        self.phase, self.state = self.job.phases[0], None

    def begin(self) -> None:
        """The state before the first step; `train` makes its own."""
        from jaxdog.training import train_step

        self.state = train_step.compiled(self.phase, self.seed, 1, self.job.over).init(self.run.data)
        if self.run.begin:
            self.state = self.run.begin(self.state)

    def score(self, samples: int, phase: Any = None) -> dict[str, Any]:
        """MiFID, precision, recall and their kin of so many pictures; `phase`: as another one draws them."""
        from jaxdog import runs
        from jaxdog.training import train_step

        phase = phase or self.phase
        key = train_step.key_for(self.seed, train_step.EVALUATE)
        label = runs.labels(self.job, samples, train_step.EVALUATE, phase, self.state)
        size = runs.batch_size(self.job)
        evaluator = self.job.evaluator()
        return evaluator.score_system(phase.system, self.state, key, label, ("mifid", "prdc"), size)

    def reconstruct(self, samples: int) -> dict[str, Any]:
        """How well training pictures come back from an autoencoder; of other systems nothing."""
        from jaxdog import runs
        from jaxdog.evaluation import reconstruction
        from jaxdog.training import train_step

        drawn = self.phase.system
        if drawn.reconstruct is None:
            return {}
        extractor, key = self.job.evaluator().extractor, train_step.key_for(self.seed, train_step.RECONSTRUCT)
        crops = runs.resident(self.job.crops)
        return reconstruction.reconstruct(extractor, drawn, self.state, key, crops, samples).scores

    def train(self) -> dict[str, Any]:
        """To the end of the budget; what it was and took."""
        import jax
        import numpy as np

        from jaxdog import types
        from jaxdog.training import loop, train_step, writers

        self.state = None  # the run makes its own
        outcome = loop.train(self.run)
        self.writer.close()
        self.phase = self.job.phases[train_step.phase_at(self.job.phases, outcome.step)]
        self.state = outcome.state
        lines = writers.read_jsonl(self.folder / writers.LOG)
        return {
            "seconds": outcome.seconds,
            "steps": outcome.step,
            "images": train_step.images_at(self.job.phases, outcome.step),
            "images_per_second": float(np.median([line["images_per_second"] for line in lines])),
            "memory_gb": loop.memory_gb(),
            "losses": [
                {k: v for k, v in line.items() if k == "step" or k.startswith(KEPT)} for line in lines
            ],
            "parameters": {
                player: sum(x.size for x in jax.tree.leaves(net.params))
                for player, net in vars(outcome.state).items()
                if isinstance(net, types.Net)
            },
            "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
            "jax": jax.__version__,
            "python": platform.python_version(),
        }

    def grid(self, path: pathlib.Path, images: int = 36) -> None:
        """A sheet of pictures as a PNG."""
        import PIL.Image

        from jaxdog import runs
        from jaxdog.evaluation import evaluate
        from jaxdog.training import train_step
        from jaxdog.utils import plots

        key, size = train_step.key_for(self.seed, train_step.EVALUATE), runs.batch_size(self.job)
        label = runs.labels(self.job, max(images, size), train_step.EVALUATE, self.phase, self.state)
        few = evaluate.generate(self.phase.system, self.state, key, label, self.job.over, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(plots.grid(few[:images], columns=12)).save(path)


def curves(losses: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    """Every loss of every run over its steps: title -> lines of its log."""
    from matplotlib.figure import Figure

    if not losses:
        return
    columns = 5
    deep = -(-len(losses) // columns)
    drawn = Figure(figsize=(3.2 * columns, 2.6 * deep), layout="constrained")
    for i, (title, lines) in enumerate(losses.items()):
        axes = drawn.add_subplot(deep, columns, i + 1)
        for name in ("loss/d", "loss/g", "loss/vae", "loss/autoencoder", "loss/prior"):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6)
    drawn.savefig(path, dpi=100)
