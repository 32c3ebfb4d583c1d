"""What experiments share: the command line, tasks in processes of their own, one short run on photos.

A `Trial` is a training run that is scored before and after. Widths can be divided so that two cores train
in minutes.
"""

import argparse
import concurrent.futures
import importlib
import itertools
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIN_WIDTH = {"widths": 16, "channels": 8}  # after narrowing: of a layer, and of BigGAN's base width
PHASE_SHARES = (0.05, 0.1, 0.15, 0.2, 0.5)  # of a progressive run's steps, at 4, 8, 16, 32 and 64 pixels
K = 5  # steps per execution
CURVES = "loss", "logit", "bits", "perplexity", "used"  # prefixes of the scalars that a record keeps


# Command line -----------------------------------------------------------------------------------------------


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it is."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def parser(doc: str | None, only: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The options of all experiments that train; `only` are the names that --only may select."""
    made = command_line(doc)
    made.add_argument("--minutes", type=float, default=0.0, help="of each training; 0: see --kimg")
    made.add_argument("--kimg", type=float, default=0.0, help="thousand real images of each training")
    made.add_argument("--narrow", action="store_true", help="widths and batches for a CPU")
    made.add_argument("--phased_steps", type=int, default=1500, help="of systems with phases, with --minutes")
    made.add_argument("--samples", type=int, default=1000, help="images of each score")
    made.add_argument("--batch", type=int, default=8, help="images in Inception at a time")
    made.add_argument("--weights", default="published", help="eval.weights")
    made.add_argument("--archives", default="", help="data.archives")
    made.add_argument("--runs", default="runs/experiments", help="where work directories are")
    made.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON", help="changes of every config")
    made.add_argument("--jobs", type=int, default=1, help="trainings at a time, each with its share of cores")
    made.add_argument("--one", help=argparse.SUPPRESS)
    if only := tuple(only):
        made.add_argument("--only", type=selection(only), default=only, help=f"some of {', '.join(only)}")
    return made


def selection(choices: Sequence[str]) -> Any:
    """An argparse type: names of `choices`, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; choices: {', '.join(choices)}")
        return names

    return parse


def check_budget(made: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program unless it was given either minutes or images."""
    if bool(args.minutes) == bool(args.kimg):
        made.error("give either --minutes or --kimg")


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """--set as fields and values."""
    from jaxdog.config import saved

    fields = (x.partition("=") for x in args.set)
    return {field: saved.lists_to_tuples(json.loads(value)) for field, _, value in fields}


# Tasks ------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """One record of an experiment, as --one names it."""

    name: str
    after: Sequence[str] = ()  # tasks earlier in the list that it needs


def run_one(file: str, name: str) -> bool:
    """The same command for one task, in a process with memory of its own; whether it succeeded."""
    return subprocess.run([sys.executable, file, *sys.argv[1:], "--one", name], check=False).returncode == 0


def run_tasks(file: str, tasks: Sequence[Task], count: int) -> list[str]:
    """Runs `count` tasks at a time, each on its share of the cores; returns those that failed.

    Small networks do not keep two cores busy: two tasks of a core each see more images than one of two.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if count < 1 or (cores and count > len(cores)):
        sys.exit(f"--jobs is {count}, and must be from 1 to {max(len(cores), 1)}, the number of cores")
    number, done = itertools.count(), {}

    def pin() -> None:  # child processes stay on the cores of the thread that starts them
        if cores:
            os.sched_setaffinity(0, cores[next(number) :: count])

    def run(task: Task) -> bool:
        start = time.monotonic()
        good = all(done[name].result() for name in task.after) and run_one(file, task.name)
        print(f"{task.name}: {'done' if good else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
        return good

    with concurrent.futures.ThreadPoolExecutor(count, initializer=pin) as pool:
        for task in tasks:
            done[task.name] = pool.submit(run, task)
    return [name for name, good in done.items() if not good.result()]


# Records ----------------------------------------------------------------------------------------------------


def write(path: pathlib.Path, value: Any) -> None:
    """Readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, default=float) + "\n")


def read_rows(folder: pathlib.Path) -> dict[str, Any]:
    """Name -> record, of all in a folder."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def is_done(path: pathlib.Path, changes: dict[str, Any]) -> bool:
    """Whether a record is there and was made with the same changes."""
    return path.exists() and json.loads(path.read_text())["changes"] == json.loads(json.dumps(changes))


def score_of(row: Mapping[str, Any], prefix: str) -> float:
    """The first final score whose name starts so: fid2048 may be called fid2048_approx."""
    return next(value for name, value in row["after"].items() if name.startswith(prefix))


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table."""
    head, *lines = ("| " + " | ".join(map(str, line)) + " |\n" for line in (header, *rows))
    return head + "|---" * len(header) + "|\n" + "".join(lines)


def replace_block(path: pathlib.Path, name: str, text: str) -> None:
    """Replaces the lines of a page between `<!-- NAME -->` and `<!-- end -->`."""
    before, start, rest = path.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not end:
        raise ValueError(f"{path} has no block between <!-- {name} --> and <!-- end -->")
    path.write_text(f"{before}{start}\n{text}\n{end}{after}")


def loss_curves(losses: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    """Every loss of every run over its steps: title -> lines of its log."""
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(losses) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * max(rows, 1)), layout="constrained")
    for i, (title, lines) in enumerate(losses.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for name in ("loss/d", "loss/g", "loss/vae", "loss/autoencoder", "loss/prior"):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6)
    figure.savefig(path, dpi=100)


# Configs ----------------------------------------------------------------------------------------------------


def load_config(name: str, variant: str = "full") -> Any:
    """configs/NAME.py."""
    return importlib.import_module(f"configs.{name}").get_config(variant)


def narrow(config: Any, divisor: int) -> dict[str, Any]:
    """Fields of both networks (and a VAE's encoder) with their widths divided."""
    changes = {}
    encoder = config.system.get("encoder", {})
    sections = {
        "generator": config.generator,
        "discriminator": config.discriminator,
        "system.encoder": encoder,
    }
    for path, section in sections.items():
        for field in MIN_WIDTH.keys() & set(section):
            value = section[field]
            widths = value if isinstance(value, tuple) else (value,)
            widths = tuple(max(MIN_WIDTH[field], x // divisor) for x in widths)
            changes[f"{path}.{field}"] = widths if isinstance(value, tuple) else widths[0]
    return changes


def shorten(config: Any, args: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """Changes `config` to a run within the budget, without checkpoints, and returns all changes.

    changes: fields and values that take precedence over those here; --set takes precedence over both.
    """
    changes = {
        "train.max_hours": args.minutes / 60.0,
        "train.grid_every": 0,
        "train.log_every": 2 * K,
        "train.steps_per_execution": K,
        "checkpoint.every": 1_000_000,
        "eval.every_kimg": 0.0,
        "eval.samples": args.samples,
        "eval.batch_size": args.batch,
        **changes,
        **overrides(args),
    }
    local = {"data.archives": args.archives, "eval.weights": args.weights}  # of this machine: not recorded
    config.update_from_flattened_dict({**changes, **local})
    system = config.system
    steps = config.train.steps // (2 * K) * 2 * K
    if system.name in ("progressive", "vqvae"):
        steps = args.phased_steps
    if args.kimg:
        steps = max(round(args.kimg * 1000 / system.batch_size / 100), 1) * 100
    more: dict[str, Any] = {"train.steps": steps}
    if system.name == "progressive":
        shares = PHASE_SHARES[-len(system.resolutions) :]
        phases = [round(x / sum(shares) * steps / K) * K for x in shares]
        more["system.steps"] = (*phases[:-1], steps - sum(phases[:-1]))
    if system.name == "vqvae":
        more["system.autoencoder_steps"] = round(0.5 * steps / K) * K
    for player in config.optimizer:
        schedule = config.optimizer[player].get("schedule", {})
        if schedule.get("name") == "wallclock_cosine" and args.minutes:  # 10 h in a run of 8.95 h in 2019
            more[f"optimizer.{player}.schedule.hours"] = args.minutes / 60.0 * 10.0 / 8.95
    config.update_from_flattened_dict(more)
    return {**changes, **more}


# Training ---------------------------------------------------------------------------------------------------


class CpuTime:
    """A callback that notes the processor time of all threads at each log line."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, float]] = []  # (step, seconds)

    def on_log(self, step: int, scalars: Mapping[str, Any]) -> None:
        """See jaxdog.training.callbacks."""
        del scalars
        self.lines.append((step, time.process_time()))


class Trial:
    """A run in `folder`: `init` or `train` it, then `score` its state."""

    def __init__(self, config: Any, folder: pathlib.Path):
        import jax

        from jaxdog import runs
        from jaxdog.config import build
        from jaxdog.training import writers

        checked = build.check(config)
        cache = pathlib.Path(checked.data.cache_dir).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.seed = folder, checked.seed
        self.run = runs.start(runs.make(checked, folder, cache, training=True, scoring=True))
        self.cpu_time = CpuTime()
        self.writer = writers.Writer(folder, step=0, listeners=[self.cpu_time])
        self.setup = runs.train_setup(self.run, runs.place_data(self.run), self.writer)
        self.phase, self.state = self.run.phases[0], None

    def init(self) -> None:
        """The state before the first step; `train` makes its own."""
        from jaxdog.training import train_step

        functions = train_step.CompiledPhase(self.phase, self.seed, 1, self.run.mesh)
        self.state = functions.init(self.setup.data)
        if self.setup.warm_start:
            self.state = self.setup.warm_start(self.state)

    def train(self) -> dict[str, Any]:
        """Trains to the end of the budget; the record of the run."""
        import jax
        import numpy as np

        from jaxdog import types
        from jaxdog.training import loop, progress, train_step, writers

        self.state = None  # free its memory: the run makes its own
        result = loop.train(self.setup)
        self.writer.close()
        self.phase = self.run.phases[train_step.phase_at(self.run.phases, result.step)]
        self.state = result.state
        lines = writers.read_jsonl(self.folder / writers.LOG)
        return {
            "seconds": result.seconds,
            "steps": result.step,
            "images": train_step.images_at(self.run.phases, result.step),
            "images_per_second": float(np.median([line["images_per_second"] for line in lines])),
            "cpu_seconds_per_kimg": self._cpu_seconds_per_kimg(),
            "memory_gb": progress.peak_memory_gb(),
            "losses": [
                {k: v for k, v in line.items() if k == "step" or k.startswith(CURVES)} for line in lines
            ],
            "parameters": {
                player: sum(x.size for x in jax.tree.leaves(net.params))
                for player, net in vars(result.state).items()
                if isinstance(net, types.PlayerState)
            },
            "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
            "jax": jax.__version__,
            "python": platform.python_version(),
        }

    def _cpu_seconds_per_kimg(self) -> float:
        """Processor time of a thousand images, after the first log line, with which compilation ends."""
        from jaxdog.training import train_step

        (first, start), *_, (last, end) = [*self.cpu_time.lines, *self.cpu_time.lines[-1:]]
        seen = [train_step.images_at(self.run.phases, step) for step in (first, last)]
        return 1000.0 * (end - start) / (seen[1] - seen[0]) if seen[1] > seen[0] else float("nan")

    def _draws(self, count: int, phase: Any) -> tuple[Any, Any, int]:
        """(the key of evaluations, labels of so many samples, at least a batch, and the batch size)."""
        from jaxdog import runs
        from jaxdog.training import train_step

        sample = self.run.config.sample
        size = runs.batch_size(self.run, sample)
        option = runs.SamplingOption(sample, phase, self.state)
        label = runs.labels(self.run, option, max(count, size), train_step.EVALUATE)
        return train_step.key_for(self.seed, train_step.EVALUATE), label, size

    def score(self, samples: int, phase: Any = None) -> dict[str, Any]:
        """MiFID, FID, precision and recall of so many samples; `phase`: drawn as another config would."""
        phase = phase or self.phase
        key, label, size = self._draws(samples, phase)
        evaluator = self.run.evaluator()
        return evaluator.score_system(phase.system, self.state, key, label[:samples], ("mifid", "prdc"), size)

    def reconstruct(self, samples: int) -> dict[str, Any]:
        """Scores of an autoencoder's reconstructions; {} for other systems."""
        from jaxdog import runs
        from jaxdog.evaluation import reconstruction
        from jaxdog.training import train_step

        system = self.phase.system
        if system.reconstruct is None:
            return {}
        extractor, key = self.run.evaluator().extractor, train_step.key_for(self.seed, train_step.RECONSTRUCT)
        crops = runs.host_data(self.run.crops())
        return reconstruction.reconstruct(extractor, system, self.state, key, crops, samples).scores

    def grid(self, path: pathlib.Path, count: int = 36) -> None:
        """A grid of samples as a PNG."""
        import PIL.Image

        from jaxdog.evaluation import generation
        from jaxdog.utils import plots

        key, label, size = self._draws(count, self.phase)
        images = generation.generate(self.phase.system, self.state, key, label, self.run.mesh, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(plots.grid(images[:count], columns=12)).save(path)
