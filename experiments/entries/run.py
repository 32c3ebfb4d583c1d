"""Every entry of 2019 for equal time, or equal pictures, on the same photos, scored alike.

    python experiments/entries/run.py --weights FOLDER --archives FOLDER --minutes 3 --narrow
    python experiments/entries/run.py --only lsgan_sn,biggan --kimg 100 --weights published

Each entry runs in a process of its own (its memory is its own), is scored as it begins and as it ends, and
leaves rows/NAME.json and grids/NAME.png beside this file; table.json, table.md and figure.png are made of all
rows that are there, so that entries can be run one by one. Runs live below --runs.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))


class Entry(NamedTuple):
    """A config in the table."""

    whose: str
    public: float | None = None  # scores of 2019, lower is better; None: not known or none
    private: float | None = None
    narrow: int = 4  # --narrow divides its widths by this
    more: dict[str, Any] = {}  # --narrow changes these fields as well


SHORT = {"ema.decay": 0.99}  # an average that a run of a few hundred steps can have
ENTRIES = {
    "lsgan_sn": Entry("hirune924", 38.92, 118.93, 8),
    "happy_gan": Entry("leonshangguan", 38.70, 95.85, 8),
    "sn_dcgan_style": Entry("johannl", 38.26, 96.42, 8),
    "progan": Entry("Theo Viel, 6th", 30.33, 82.78, 8, {"game.batch_size": 32}),
    "rals_ac_biggan": Entry("yabae, 2nd", 15.82, 58.36, more={"game.batch_size": 32, **SHORT}),
    "dog_biggan": Entry("Dmitry Vorobiev, 5th", 14.96, 86.28),
    "biggan_deep": Entry("said not to work"),
    "leaky_biggan": Entry("tikutiku, 1st", 31.10, 55.42, 3),
    "biggan96_style": Entry("bestfitting, 4th", 12.46, 77.81, 3, {**SHORT, "ema.start": 0}),
    "biggan": Entry("ours, plain"),
    "dragan": Entry("hirune924, a trial", narrow=8),
    "wgan_gp": Entry("hirune924, a trial", narrow=8),
    "sngan": Entry("not run in 2019", narrow=16),
    "acgan": Entry("hirune924, a trial", narrow=8, more={"game.batch_size": 32}),
    "aclsgan": Entry("hirune924, a trial", narrow=8),
    "sagan": Entry("hirune924, a trial", narrow=16, more={"game.batch_size": 32}),
    "sagan_residual": Entry("author not known", narrow=4, more={"game.batch_size": 32}),
    "csagan": Entry("mpalermo", narrow=8),
    "csagan_ra_hinge": Entry("ykumards, 21st", narrow=8, more={"game.batch_size": 32}),
    "stylegan": Entry("said to be too heavy", narrow=16, more={"generator.style_dim": 64}),
    "stylegan2": Entry("later than 2019", narrow=16, more={"generator.style_dim": 64}),
    "vae": Entry("hirune924, a trial", narrow=8),
    "vae_lsgan": Entry("hirune924, a trial", narrow=8),
    "vqvae2": Entry(
        "hirune924, given up",
        narrow=4,
        more={"game.batch_size": 32, "game.prior.width": 96, "game.prior.layers": 4},
    ),
}
SMALLEST = {"widths": 16, "channels": 8}  # that --narrow leaves, of a layer and of a unit of such
GROWING = (0.05, 0.1, 0.15, 0.2, 0.5)  # of the steps of what grows: at 4, 8, 16, 32 and 64 px
K = 5  # steps per dispatch


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(ENTRIES), help="entries, separated by commas")
    parser.add_argument("--minutes", type=float, default=0.0, help="of training for each; 0: see --kimg")
    parser.add_argument("--kimg", type=float, default=0.0, help="thousand real pictures for each")
    parser.add_argument("--narrow", action="store_true", help="widths and batches for a CPU")
    parser.add_argument(
        "--phased_steps", type=int, default=1500, help="of all phases, for those with several and --minutes"
    )
    parser.add_argument("--samples", type=int, default=1000, help="pictures of both scores")
    parser.add_argument("--batch", type=int, default=8, help="pictures in flight through Inception")
    parser.add_argument("--weights", default="published", help="as eval.weights")
    parser.add_argument("--archives", default="", help="as data.archives")
    parser.add_argument("--runs", default="runs/entries", help="where the runs live")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON", help="changes to every config")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if bool(args.minutes) == bool(args.kimg):
        parser.error("give either --minutes or --kimg")
    unknown = sorted(set(args.only.split(",")) - set(ENTRIES))
    if unknown:
        parser.error(f"{unknown[0]} is no entry; entries: {', '.join(ENTRIES)}")
    return args


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


def config_of(name: str, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The entry's config with what this comparison changes, and those changes."""
    config, entry = importlib.import_module(f"configs.{name}").get_config(), ENTRIES[name]
    changes = {
        "data.archives": args.archives,
        "train.max_hours": args.minutes / 60.0,
        "train.grid_every": 0,
        "train.log_every": 2 * K,
        "train.steps_per_dispatch": K,
        "checkpoint.every": 1_000_000,
        "eval.every_kimg": 0.0,
        "eval.samples": args.samples,
        "eval.batch_size": args.batch,
        "eval.weights": args.weights,
        **({**narrowed(config, entry.narrow), **entry.more} if args.narrow else {}),
        **dict((field, json.loads(value)) for field, _, value in (x.partition("=") for x in args.set)),
    }
    if config.init_from:
        changes["init_from"] = str(pathlib.Path(args.runs) / pathlib.Path(config.init_from).name)
    config.update_from_flattened_dict(changes)
    more, phased = {}, config.game.name in ("progressive", "vqvae")
    if args.kimg or phased:
        more["train.steps"] = args.phased_steps
    if args.kimg:
        more["train.steps"] = round(args.kimg * 1000 / config.game.batch_size / 100) * 100
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
    return config, {**changes, **more}


def one(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one entry in this process; its row of the table."""
    import jax
    import numpy as np
    import PIL.Image

    from jaxdog import evaluate, factory, job, plots, system, train, writers

    config, changes = config_of(name, args)
    checked = factory.check(config)
    cache = pathlib.Path(checked.data.cache_dir).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    folder = pathlib.Path(args.runs) / name
    shutil.rmtree(folder, ignore_errors=True)
    made = job.make(checked, folder, cache, training=True, scoring=True)
    key = train.key_for(checked.seed, train.EVALUATE)

    def score(phase: Any, state: Any) -> dict[str, Any]:
        metrics = ("mifid", "prdc")
        label = job.labels(made, args.samples, train.EVALUATE, phase, state)
        return made.evaluator().score_system(phase.system, state, key, label, metrics, job.batch_size(made))

    with writers.Writer(folder, step=0) as writer:
        run = job.training(made, writer)
        first = made.phases[0]
        before = score(first, train.compiled(first, checked.seed, 1, made.over).init(run.data))
        outcome = train.train(run)
    last = made.phases[train.phase_at(made.phases, outcome.step)]
    after = score(last, outcome.state)
    label = job.labels(made, 120, train.EVALUATE, last, outcome.state)
    few = evaluate.generate(last.system, outcome.state, key, label, made.over, job.batch_size(made))
    log = writers.read_jsonl(folder / writers.LOG)
    pictures = HERE / "grids" / f"{name}.png"
    pictures.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(plots.grid(few[:60], columns=12)).save(pictures)
    return {
        "name": name,
        "seconds": outcome.seconds,
        "steps": outcome.step,
        "images": train.images_at(made.phases, outcome.step),
        "images_per_second": float(np.median([line["images_per_second"] for line in log])),
        "memory_gb": train.memory_gb(),
        "before": before,
        "after": after,
        "losses": [
            {k: v for k, v in line.items() if k == "step" or k.startswith(("loss", "logit"))} for line in log
        ],
        "changes": changes,
        "parameters": {
            player: sum(x.size for x in jax.tree.leaves(net.params))
            for player, net in vars(outcome.state).items()
            if isinstance(net, system.Net)
        },
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| system | whose | 2019 public / private | images seen | images/s | fid768: start, end | "
        "fid2048: start, end | MiFID, end | recall | GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        entry = ENTRIES[row["name"]]
        then = " / ".join("-" if x is None else f"{x:.2f}" for x in (entry.public, entry.private))
        before, after = row["before"], row["after"]
        fid = next(name for name in after if name.endswith(("fid2048", "fid2048_approx")))
        mifid = next(name for name in after if "mifid" in name)
        small = next(name for name in after if name.endswith("fid768"))
        recall = next((after[name] for name in after if name.startswith("recall")), float("nan"))
        lines.append(
            f"| {row['name']} | {entry.whose} | {then} | {row['images']:,} | "
            f"{row['images_per_second']:.1f} | {before[small]:.2f}, {after[small]:.2f} | "
            f"{before[fid]:.0f}, {after[fid]:.0f} | "
            f"{after[mifid]:.0f} | {recall:.3f} | {row['memory_gb']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Both players' losses of every entry over its pictures."""
    from matplotlib.figure import Figure

    columns = 5
    deep = -(-len(rows) // columns)
    drawn = Figure(figsize=(3.2 * columns, 2.6 * deep), layout="constrained")
    for i, row in enumerate(rows):
        axes = drawn.add_subplot(deep, columns, i + 1)
        for name in ("loss/d", "loss/g"):
            points = [(line["step"], line[name]) for line in row["losses"] if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
        axes.set_title(row["name"], fontsize=9)
        axes.tick_params(labelsize=7)
        if i == 0:
            axes.legend(fontsize=7)
    drawn.savefig(path, dpi=100)


def collect() -> None:
    """All rows that are there -> table.json, table.md, figure.png."""
    found = {path.stem: json.loads(path.read_text()) for path in (HERE / "rows").glob("*.json")}
    rows = [found[name] for name in ENTRIES if name in found]
    slim = [{k: v for k, v in row.items() if k != "losses"} for row in rows]
    (HERE / "table.json").write_text(json.dumps(slim, indent=1) + "\n")
    (HERE / "table.md").write_text(table(rows))
    figure(rows, HERE / "figure.png")
    print(table(rows))


def main() -> None:
    """Runs the entries one after the other, and makes the table."""
    args = parse()
    if args.one:
        row = one(args.one, args)
        path = HERE / "rows" / f"{args.one}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(row, indent=1, default=float) + "\n")
        return
    failed = []
    for name in args.only.split(","):
        begun = time.monotonic()
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", name], check=False)
        print(f"{name}: {'done' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - begun:.0f} s")
        failed += [name] if done.returncode else []
    collect()
    if failed:
        sys.exit(f"these entries failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
