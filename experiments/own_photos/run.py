"""Every family of networks on a small folder of photos, at several resolutions.

    python experiments/own_photos/run.py --archives FOLDER --jobs 2
    python experiments/own_photos/run.py --archives FOLDER --chosen --minutes 12 --weights FOLDER --jobs 2

The folder holds 50 photos of each of six breeds, taken from Stanford Dogs. The first command trains a config
of each family, narrow, for a few steps at 32, 64, 128 and 256 px: sizes.json. With --chosen, configs are
those that `jaxdog train --data` chooses, and their runs are scored: chosen.json and grids/. `--only`
selects resolutions. The tables are written into docs/photos.md.
"""

import argparse
import pathlib
import statistics
import sys
import tarfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "photos.md"
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

BREEDS = ("beagle", "pug", "Samoyed", "chow", "Siberian_husky", "Rottweiler")
PHOTOS = 50  # of each breed
SIZES = ("32", "64", "128", "256")
BATCH_SIZE = {32: 8, 64: 8, 128: 8, 256: 4}  # of the first command, by resolution
SMALLER = {("vqvae2", 256): 1}  # the prior's attention among 5,120 codes takes 31.5 GB for 4 images
STEPS = {32: 40, 64: 40, 128: 20, 256: 20}
LONG = ("copies", "per_class", "sampling")  # left out of chosen.json
FAMILIES = {  # config -> what divides its widths
    "lsgan_sn": 4,  # a DCGAN
    "sngan": 16,  # a ResNet
    "sagan": 16,
    "csagan": 8,
    "biggan": 4,
    "biggan_deep": 4,
    "biggan96_style": 3,
    "progan": 8,
    "stylegan": 8,
    "stylegan2": 8,
    "r3gan": 8,
    "vae": 4,
    "vqvae2": 4,
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__, SIZES)
    parser.set_defaults(samples=300, batch=16)
    parser.add_argument("--chosen", action="store_true", help="only the configs that jaxdog chooses")
    args = parser.parse_args()
    if args.chosen:
        trial.check_budget(parser, args)
    return args


def folder(args: argparse.Namespace) -> pathlib.Path:
    """A folder of photos per breed, made of the archives if it is not there."""
    target = pathlib.Path(args.runs) / "photos"
    if target.is_dir():
        return target
    counts = dict.fromkeys(BREEDS, 0)
    with tarfile.open(pathlib.Path(args.archives) / "images.tar") as archive:
        for member in archive:
            *_, place, name = pathlib.PurePosixPath(member.name).parts or ("",)
            breed = place.partition("-")[2]
            if member.isfile() and counts.get(breed, PHOTOS) < PHOTOS:
                counts[breed] += 1
                path = target / breed.lower() / name
                path.parent.mkdir(parents=True, exist_ok=True)
                file = archive.extractfile(member)
                assert file is not None
                path.write_bytes(file.read())
    return target


# Each family -----------------------------------------------------------------------------------------------


def measure(family: str, size: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains a narrow config of a family at a size; its row, or the reason why it cannot."""
    from jaxdog.config import library
    from jaxdog.utils import errors

    try:
        config: Any = library.load(family, data=folder(args), resolution=size)
        batch_size = SMALLER.get((family, size), BATCH_SIZE[size])
        changes = {**trial.narrow(config, FAMILIES[family]), "system.batch_size": batch_size}
        changes |= {"data.cache_dir": str(pathlib.Path(args.runs) / "cache")}
        if family == "vqvae2":
            changes |= {"system.prior.width": 96, "system.prior.layers": 4}
        trial.shorten(config, args, **changes)
        config.update_from_flattened_dict(few_steps(config, STEPS[size]))
        trained = trial.Trial(config, pathlib.Path(args.runs) / f"{family}_{size}")
    except errors.UserError as error:
        return {"family": family, "size": size, "refused": str(error)}
    row = trained.train()
    return {"family": family, "size": size, **{name: x for name, x in row.items() if name != "losses"}}


def few_steps(config: Any, steps: int) -> dict[str, Any]:
    """Changes for so many steps; a progressive system only has its last stage."""
    changes: dict[str, Any] = {"train.steps": steps}
    if config.system.name == "progressive":
        changes |= {
            "system.resolutions": config.system.resolutions[-1:],
            "system.steps": (steps,),
            "system.fade": (0.0,),
            "ema.decay": config.ema.decay[-1:],
        }
    if config.system.name == "vqvae":
        changes["system.autoencoder_steps"] = steps // 2
    return changes


def sizes_table(rows: list[dict[str, Any]]) -> str:
    """Processor time and memory of each family at each size, as Markdown."""
    found = {(row["family"], row["size"]): row for row in rows}
    sizes = [size for size in SIZES if any(row["size"] == int(size) for row in rows)]
    header = ["family", "parameters at 64 px", *(f"{size} px: s, GB" for size in sizes)]
    lines = []
    for family in FAMILIES:
        cells = []
        for size in sizes:
            row = found.get((family, int(size)), {})
            cost = f"{row['cpu_seconds_per_kimg']:.0f}, {row['memory_gb']:.1f}" if "seconds" in row else ""
            cells.append("no" if "refused" in row else cost)
        parameters = found.get((family, 64), {}).get("parameters", {})
        lines.append([f"`{family}`", f"{sum(parameters.values()) / 1e6:.2f} M", *cells])
    reasons = [
        f"- `{row['family']}` at {row['size']} px: {row['refused']}\n" for row in rows if "refused" in row
    ]
    return trial.markdown(header, lines) + "\n" + "".join(reasons)


# What is chosen ---------------------------------------------------------------------------------------------


def choose(size: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains what `jaxdog train --data` chooses at a size; its row."""
    import jax
    import PIL.Image

    import jaxdog
    from jaxdog.advice import own_photos
    from jaxdog.training import progress, writers
    from jaxdog.utils import plots

    place = pathlib.Path(args.runs) / f"chosen_{size}"
    config, text = own_photos.choose(folder(args), size)
    print(text, flush=True)
    changes = {
        "train.max_hours": args.minutes / 60.0,
        "data.cache_dir": str(pathlib.Path(args.runs) / "cache"),
        "eval.weights": args.weights,
        "eval.every_kimg": 0.0,
        "eval.batch_size": args.batch,
        "submit.images": args.samples,
        **trial.overrides(args),
    }
    trained = jaxdog.train(config, workdir=place, overrides=changes)
    log = writers.read_jsonl(place / writers.LOG)
    images = trained.generator().sample(24, classes=[breed.lower() for breed in BREEDS], seed=0)
    grid = HERE / "grids" / f"{size}.png"
    grid.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(plots.grid(images, len(BREEDS))).save(grid)  # a column per class
    return {
        "size": size,
        "config": config.name,
        "chosen": text.replace(str(folder(args)), "photos").splitlines(),
        "steps": trained.step,
        "images": 1000 * log[-1]["kimg"],
        "minutes": args.minutes,
        "images_per_second": statistics.median(line["images_per_second"] for line in log),
        "memory_gb": progress.peak_memory_gb(),
        "scores": writers.to_json({name: x for name, x in trained.scores.items() if name not in LONG}),
        "device": f"{jax.devices()[0].device_kind}, {args.jobs} trainings at a time",
        "jax": jax.__version__,
    }


def chosen_table(rows: list[dict[str, Any]]) -> str:
    """The runs of chosen configs, as Markdown."""
    header = ["px", "config", "minutes", "thousand images", "images/s", "GB", "fid768", "samples"]
    lines = []
    for row in sorted(rows, key=lambda row: row["size"]):
        fid = next(value for name, value in row["scores"].items() if name.endswith("fid768"))
        numbers = (row["minutes"], row["images"] / 1000, row["images_per_second"], row["memory_gb"])
        cells = [row["size"], f"`{row['config'].removesuffix('_photos')}`", *(f"{x:.1f}" for x in numbers)]
        lines.append([*cells, f"{fid:.2f}", f"![samples](../experiments/own_photos/grids/{row['size']}.png)"])
    return trial.markdown(header, lines)


# The command ------------------------------------------------------------------------------------------------


def main() -> None:
    """Trains, and makes the tables of all rows that are there."""
    args = parse()
    kind = "chosen" if args.chosen else "sizes"
    rows = pathlib.Path(args.runs) / kind
    if args.one:
        family, _, size = args.one.rpartition("_")
        row = choose(int(size), args) if args.chosen else measure(family, int(size), args)
        trial.write(rows / f"{args.one}.json", row)
        return
    folder(args)
    names = [f"chosen_{size}" for size in args.only]
    if not args.chosen:
        names = [f"{family}_{size}" for size in args.only for family in FAMILIES]
    tasks = [trial.Task(name) for name in names if not (rows / f"{name}.json").exists()]
    failed = trial.run_tasks(__file__, tasks, args.jobs)
    found = list(trial.read_rows(rows).values())
    trial.write(HERE / f"{kind}.json", found)
    trial.replace_block(PAGE, f"own photos, {kind}", (chosen_table if args.chosen else sizes_table)(found))
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
