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
import pathlib
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402


class Entry(NamedTuple):
    """A config in the table."""

    whose: str
    public: float | None = None  # scores of 2019, lower is better; None: not known or none
    private: float | None = None
    narrow: int = 4  # --narrow divides its widths by this
    more: dict[str, Any] = {}  # --narrow changes these fields as well


SHORT = {"ema.decay": 0.99, "ema.start": 0}  # an average that a run of a few hundred steps can have
FEW = {"game.batch_size": 8}  # updates count more than pictures where there are few of them
SLIM = {  # a small style, and half as many channels at each height above 8 pixels
    "generator.style_dim": 64,
    **{f"{net}.wide_to": 8 for net in ("generator", "discriminator")},
}
RATE = "optimizer.g.schedule.learning_rate"
SOON = {f"optimizer.{player}.schedule.first_updates": 10 for player in ("g", "d")}  # as short as the run is
ENTRIES = {
    "lsgan_sn": Entry("hirune924", 38.92, 118.93, more=SOON),
    "happy_gan": Entry("leonshangguan", 38.70, 95.85, 8),
    "sn_dcgan_style": Entry("johannl", 38.26, 96.42, 8),
    "progan": Entry("Theo Viel, 6th", 30.33, 82.78, 8, {"game.batch_size": 32}),
    "rals_ac_biggan": Entry("yabae, 2nd", 15.82, 58.36, more={**FEW, **SHORT}),
    "dog_biggan": Entry("Dmitry Vorobiev, 5th", 14.96, 86.28, more={**FEW, **SHORT}),
    "biggan_deep": Entry("said not to work", more={**FEW, **SHORT}),
    "leaky_biggan": Entry("tikutiku, 1st", 31.10, 55.42, 5, {**FEW, RATE: 1e-3}),
    "biggan96_style": Entry("bestfitting, 4th", 12.46, 77.81, 3, {**FEW, **SHORT}),
    "biggan": Entry("ours, plain", more={**FEW, **SHORT}),
    "dragan": Entry("hirune924, a trial", more={"game.batch_size": 16}),
    "margin_dcgan": Entry("MeisterMorxrc, 16th", narrow=12, more=SHORT),
    "reacgan": Entry("later than 2019", more={**FEW, **SHORT}),
    "multi_hinge": Entry("later than 2019", more={**FEW, **SHORT}),
    "wgan_gp": Entry("hirune924, a trial", narrow=32, more=FEW),
    "sngan": Entry("not run in 2019", narrow=16, more=FEW),
    "acgan": Entry("hirune924, a trial", narrow=8, more={"game.batch_size": 32}),
    "aclsgan": Entry("hirune924, a trial", more=SOON),
    "sagan": Entry("hirune924, a trial", narrow=16, more=FEW),
    "sagan_residual": Entry("author not known", narrow=4, more=FEW),
    "csagan": Entry("mpalermo", narrow=8),
    "csagan_ra_hinge": Entry("ykumards, 21st", narrow=8, more=FEW),
    "stylegan": Entry(
        "said to be too heavy",
        narrow=8,
        more={**FEW, **SLIM, "ema.decay": (0.99,) * 4, "ema.start": 0},
    ),
    "stylegan2": Entry("later than 2019", narrow=8, more={**FEW, **SLIM, **SHORT}),
    "vae": Entry("hirune924, a trial"),
    "vae_lsgan": Entry("hirune924, a trial", more=SOON),
    "vqvae2": Entry(
        "hirune924, given up",
        narrow=4,
        more={**FEW, "game.prior.width": 96, "game.prior.layers": 4},
    ),
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.add_argument("--only", default=",".join(ENTRIES), help="entries, separated by commas")
    args = parser.parse_args()
    trial.check_budget(parser, args)
    unknown = sorted(set(args.only.split(",")) - set(ENTRIES))
    if unknown:
        parser.error(f"{unknown[0]} is no entry; entries: {', '.join(ENTRIES)}")
    return args


def config_of(name: str, args: argparse.Namespace, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The entry's config with what a comparison changes, and those changes."""
    config, entry = importlib.import_module(f"configs.{name}").get_config(), ENTRIES[name]
    if config.init_from:
        changes = {"init_from": str(pathlib.Path(args.runs) / pathlib.Path(config.init_from).name), **changes}
    less = {**trial.narrowed(config, entry.narrow), **entry.more} if args.narrow else {}
    return config, trial.shorten(config, args, **{**less, **changes})


def before(name: str) -> str:
    """The entry whose networks this one begins with, "" for none."""
    return pathlib.Path(importlib.import_module(f"configs.{name}").get_config().init_from).name


def one(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one entry in this process; its row of the table."""
    config, changes = config_of(name, args)
    tried = trial.Trial(config, pathlib.Path(args.runs) / name)
    tried.begin()
    before = tried.score(args.samples)
    row = tried.train()
    after = tried.score(args.samples) | tried.reconstruct(args.samples)
    tried.grid(HERE / "grids" / f"{name}.png")
    return {"name": name, **row, "before": before, "after": after, "changes": changes}


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


def collect() -> None:
    """All rows that are there -> table.json, table.md, figure.png."""
    found = {path.stem: json.loads(path.read_text()) for path in (HERE / "rows").glob("*.json")}
    rows = [found[name] for name in ENTRIES if name in found]
    slim = [{k: v for k, v in row.items() if k != "losses"} for row in rows]
    (HERE / "table.json").write_text(json.dumps(slim, indent=1) + "\n")
    (HERE / "table.md").write_text(table(rows))
    trial.curves({row["name"]: row["losses"] for row in rows}, HERE / "figure.png")
    print(table(rows))


def main() -> None:
    """Runs the entries one after the other, and makes the table."""
    args = parse()
    if args.one:
        row = one(args.one, args)
        trial.write(HERE / "rows" / f"{args.one}.json", row)
        return
    names = args.only.split(",")
    jobs = [trial.Job(name, [x for x in names if x == before(name)]) for name in sorted(names, key=before)]
    failed = trial.side_by_side(__file__, jobs, args.jobs)
    collect()
    if failed:
        sys.exit(f"these entries failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
