"""Every system for equal time, or equal images, on the same photos, scored alike.

    python experiments/entries/run.py --weights FOLDER --archives FOLDER --minutes 3 --narrow
    python experiments/entries/run.py --only lsgan_sn,biggan --kimg 100 --weights published

Each runs in a process of its own, is scored before and after training, and leaves rows/NAME.json and
grids/NAME.png; table.json, table.md and figure.png are made of all rows that are there. Work directories
are below --runs.
"""

import argparse
import pathlib
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402


class Entry(NamedTuple):
    """A config in the table."""

    whose: str
    public: float | None = None  # MiFID of 2019, lower is better; None: unknown, or none
    private: float | None = None
    divisor: int = 4  # --narrow divides its widths by this
    changes: dict[str, Any] = {}  # --narrow changes these fields as well


EMA = {"ema.decay": 0.99, "ema.start": 0}  # for a run of a few hundred steps
SMALL_BATCH = {"system.batch_size": 8}  # many updates count more than many images
SLIM = {  # a small w, and half as many channels at each resolution above 8 pixels
    "generator.w_dim": 64,
    **{f"{net}.full_width_resolution": 8 for net in ("generator", "discriminator")},
}
RATE = "optimizer.g.learning_rate"
WARMUP = {f"optimizer.{player}.schedule.first_updates": 10 for player in ("g", "d")}  # short, as the run is
ENTRIES = {
    "lsgan_sn": Entry("hirune924", 38.92, 118.93, changes=WARMUP),
    "happy_gan": Entry("leonshangguan", 38.70, 95.85, 8),
    "sn_dcgan_style": Entry("johannl", 38.26, 96.42, 8),
    "progan": Entry("Theo Viel, 6th", 30.33, 82.78, 8, {"system.batch_size": 32}),
    "rals_ac_biggan": Entry("yabae, 2nd", 15.82, 58.36, changes={**SMALL_BATCH, **EMA}),
    "dog_biggan": Entry("Dmitry Vorobiev, 5th", 14.96, 86.28, changes={**SMALL_BATCH, **EMA}),
    "biggan_deep": Entry("said not to work", changes={**SMALL_BATCH, **EMA}),
    "leaky_biggan": Entry("tikutiku, 1st", 31.10, 55.42, 5, {**SMALL_BATCH, RATE: 1e-3}),
    "biggan96_style": Entry("bestfitting, 4th", 12.46, 77.81, 3, {**SMALL_BATCH, **EMA}),
    "biggan": Entry("ours, plain", changes={**SMALL_BATCH, **EMA}),
    "dragan": Entry("hirune924, a trial", changes={"system.batch_size": 16}),
    "margin_dcgan": Entry("MeisterMorxrc, 16th", divisor=12, changes=EMA),
    "reacgan": Entry("later than 2019", changes={**SMALL_BATCH, **EMA}),
    "multi_hinge": Entry("later than 2019", changes={**SMALL_BATCH, **EMA}),
    "wgan_gp": Entry("hirune924, a trial", divisor=32, changes=SMALL_BATCH),
    "sngan": Entry("not run in 2019", divisor=16, changes=SMALL_BATCH),
    "acgan": Entry("hirune924, a trial", divisor=8, changes={"system.batch_size": 32}),
    "aclsgan": Entry("hirune924, a trial", changes=WARMUP),
    "sagan": Entry("hirune924, a trial", divisor=16, changes=SMALL_BATCH),
    "sagan_residual": Entry("author not known", changes=SMALL_BATCH),
    "csagan": Entry("mpalermo", divisor=8),
    "csagan_ra_hinge": Entry("ykumards, 21st", divisor=8, changes=SMALL_BATCH),
    "stylegan": Entry(
        "said to be too heavy",
        divisor=8,
        changes={**SMALL_BATCH, **SLIM, "ema.decay": (0.99,) * 4, "ema.start": 0},
    ),
    "stylegan2": Entry("later than 2019", divisor=8, changes={**SMALL_BATCH, **SLIM, **EMA}),
    "vae": Entry("hirune924, a trial"),
    "vae_lsgan": Entry("hirune924, a trial", changes=WARMUP),
    "vqvae2": Entry(
        "hirune924, given up",
        changes={**SMALL_BATCH, "system.prior.width": 96, "system.prior.layers": 4},
    ),
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__, ENTRIES)
    args = parser.parse_args()
    trial.check_budget(parser, args)
    return args


def config_of(name: str, args: argparse.Namespace, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """An entry's config for this comparison, and its changes."""
    config, entry = trial.load_config(name), ENTRIES[name]
    if config.init_from:
        changes = {"init_from": str(pathlib.Path(args.runs) / parent(name)), **changes}
    narrow = {**trial.narrow(config, entry.divisor), **entry.changes} if args.narrow else {}
    return config, trial.shorten(config, args, **{**narrow, **changes})


def parent(name: str) -> str:
    """The entry whose networks this one starts from, "" for none."""
    return pathlib.Path(trial.load_config(name).init_from).name


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one entry in this process; its row."""
    config, changes = config_of(name, args)
    trained = trial.Trial(config, pathlib.Path(args.runs) / name)
    trained.init()
    before = trained.score(args.samples)
    row = trained.train()
    after = trained.score(args.samples) | trained.reconstruct(args.samples)
    trained.grid(HERE / "grids" / f"{name}.png")
    return {"name": name, **row, "before": before, "after": after, "changes": changes}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    header = ["system", "whose", "2019 public / private", "images seen", "images/s", "fid768: start, end"]
    header += ["fid2048: start, end", "MiFID, end", "recall", "GB"]
    lines = []
    for row in rows:
        entry, before, after = ENTRIES[row["name"]], row["before"], row["after"]
        then = " / ".join("-" if x is None else f"{x:.2f}" for x in (entry.public, entry.private))
        small, fid, mifid = (
            next(name for name in after if kind in name and not name.startswith(("val_", "reconstruction_")))
            for kind in ("fid768", "fid2048", "mifid")
        )
        recall = next((after[name] for name in after if name.startswith("recall")), float("nan"))
        line = [row["name"], entry.whose, then, f"{row['images']:,}", f"{row['images_per_second']:.1f}"]
        line += [f"{before[small]:.2f}, {after[small]:.2f}", f"{before[fid]:.0f}, {after[fid]:.0f}"]
        lines.append([*line, f"{after[mifid]:.0f}", f"{recall:.3f}", f"{row['memory_gb']:.1f}"])
    return trial.markdown(header, lines)


def collect() -> None:
    """All rows that are there -> table.json, table.md, figure.png."""
    found = trial.read_rows(HERE / "rows")
    rows = [found[name] for name in ENTRIES if name in found]
    trial.write(HERE / "table.json", [{k: v for k, v in row.items() if k != "losses"} for row in rows])
    (HERE / "table.md").write_text(text := table(rows))
    trial.loss_curves({row["name"]: row["losses"] for row in rows}, HERE / "figure.png")
    print(text)


def main() -> None:
    """Trains the entries and makes the table."""
    args = parse()
    if args.one:
        trial.write(HERE / "rows" / f"{args.one}.json", run(args.one, args))
        return
    tasks = [
        trial.Task(name, [x for x in args.only if x == parent(name)])
        for name in sorted(args.only, key=parent)
    ]
    failed = trial.run_tasks(__file__, tasks, args.jobs)
    collect()
    if failed:
        sys.exit(f"these entries failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
