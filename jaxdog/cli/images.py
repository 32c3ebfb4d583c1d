"""`jaxdog sample`, `interpolate`, `project` and `export`: what a trained generator is used for."""

import argparse
import contextlib
import pathlib
import sys
from typing import Any

from jaxdog.cli import options
from jaxdog.utils import errors, files, logs, outputs

DTYPES = ("float32", "float16")
SUFFIXES = (".gif", ".webp", ".mp4")


def _open(args: argparse.Namespace) -> Any:
    """The `Generator` of a run's folder, of an exported one, or of a name."""
    from jaxdog.data import dataset_info  # not at the top: they import JAX
    from jaxdog.generators import generator

    logs.show()
    folder = pathlib.Path(args.run).expanduser()
    step = args.step if args.step in ("best", "latest") else _step(args.step)
    if (folder / "checkpoints").is_dir():
        opened = generator.Generator.from_run(folder, step=step)
    elif (folder / dataset_info.NAME).is_file():
        raise errors.MissingFileError(
            f"{folder} is the folder of a run that has no checkpoint yet: wait for the first one, after "
            "config.checkpoint.every steps, or go on with jaxdog train"
        )
    elif step == "best":
        opened = generator.Generator.from_pretrained(args.run)
    else:
        raise errors.UserError(f"--step is for the folder of a run, and {args.run} has no checkpoints")
    for note in opened.notes:
        print(f"note: {note}", file=sys.stderr)
    return opened


def _step(text: str) -> int:
    if not text.isdecimal():
        raise errors.UserError(f"--step is {text!r}; choices: best, latest, or the step of a checkpoint")
    return int(text)


def _classes(args: argparse.Namespace, opened: Any) -> list[str] | None:
    """The names of classes: a text that is not one of them has several, with commas."""
    if args.classes is None:
        return None
    split = ([text] if text in opened.classes else options.words_of(text) for text in args.classes)
    return [name for names in split for name in names]


def _add_images(parser: options.Parser, classes: str) -> None:
    """Options of commands that generate images."""
    options.add_run(parser, exported=True)
    parser.add_argument(
        "--classes",
        metavar="NAME,NAME",
        action="append",
        help=f"{classes}; a name that contains a comma needs a --classes of its own",
    )
    parser.add_argument(
        "--truncation",
        type=float,
        help="less variety, better images, the more the smaller; 0: no truncation, but the mean image of "
        "style-based generators; default: the run's",
    )


# ------------------------------------------------------------------ sample


def _add_sample(parser: options.Parser) -> None:
    _add_images(parser, "names of classes, in turns; default: as the run samples them")
    parser.add_argument("-n", "--num-samples", metavar="N", type=options.integer(1), default=100)
    parser.add_argument("--seed", type=options.seed, default=0, help="default: 0; same seed, same images")
    parser.add_argument(
        "--out",
        metavar="PATH",
        default="samples.png",
        help="a .png for a grid, a .zip or a folder for one PNG file per image; default: samples.png",
    )
    parser.add_argument("--columns", metavar="N", type=options.integer(1), help="of the grid")
    options.add_devices(parser)


def _sample(args: argparse.Namespace) -> None:
    suffix = pathlib.Path(args.out).suffix
    suffix = suffix if suffix[1:2].isalpha() else ""  # images_0.7 is a folder
    if suffix not in (".png", ".zip", ""):
        raise errors.UserError(f"--out is {args.out!r}; it must end in .png or .zip, or be a folder")
    out = outputs.check(args.out, "--out", folder=not suffix, empty=not suffix)
    opened = _open(args)
    classes = _classes(args, opened)
    if classes is not None and len(classes) > args.num_samples:
        left = errors.some(classes[args.num_samples :])
        raise errors.UserError(
            f"--num-samples is {args.num_samples}, so that {left} would have no image: give at least "
            f"{len(classes)}, or fewer --classes"
        )
    images = opened.sample(args.num_samples, classes=classes, seed=args.seed, truncation=args.truncation)
    write_images(out, images, args.columns)
    print(f"{len(images)} images: {out}")


def write_images(out: pathlib.Path, images: Any, columns: int | None = None) -> None:
    """Writes images uint8 [n, h, w, 3] as a grid (.png), as a .zip, or as files in a folder."""
    from jaxdog.evaluation import submission
    from jaxdog.utils import plots, png

    if out.suffix == ".zip":
        submission.write_zip(out, [images], len(images), images.shape[1])
        return
    if out.suffix == ".png":
        named = [(out, plots.grid(images, columns or min(10, max(1, round(len(images) ** 0.5)))))]
    else:
        digits = max(5, len(str(len(images) - 1)))
        named = [(out / f"{i:0{digits}d}.png", image) for i, image in enumerate(images)]
    with contextlib.ExitStack() as undo:  # all files or none
        for path, image in named:
            png.write(path, image, durable=len(named) == 1)  # a flush each takes long
            undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()


# ------------------------------------------------------------------ interpolate


def _add_interpolate(parser: options.Parser) -> None:
    _add_images(parser, "a class for all images, or one for each seed")
    parser.add_argument(
        "--seeds",
        metavar="I,J,K",
        type=options.seeds_of,
        default=[0, 1, 2, 3],
        help="of the images between which frames are interpolated; 0-7 is 0,1,...,7; default: 0-3",
    )
    parser.add_argument(
        "--frames", metavar="N", type=options.integer(1), default=60, help="in all; default: 60"
    )
    parser.add_argument("--fps", type=float, default=24.0, help="frames per second; default: 24")
    parser.add_argument("--no-loop", action="store_true", help="end at the last seed, not at the first again")
    parser.add_argument(
        "--upscale", metavar="N", type=options.integer(1), default=1, help="enlarge each pixel to N x N"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="interpolation.gif",
        help="a .gif, .webp, or .mp4 (needs the extra video); default: interpolation.gif",
    )
    options.add_devices(parser)


def _interpolate(args: argparse.Namespace) -> None:
    out = outputs.check(args.out, "--out", SUFFIXES)
    from jaxdog.render import animation

    animation.check(out, args.fps)
    opened = _open(args)
    frames = opened.interpolate(
        args.seeds,
        classes=_classes(args, opened),
        frames=args.frames,
        loop=not args.no_loop,
        truncation=args.truncation,
    )
    animation.write(out, frames, fps=args.fps, upscale=args.upscale)
    print(f"{len(frames)} frames: {out}")


# ------------------------------------------------------------------ project


def _add_project(parser: options.Parser) -> None:
    options.add_run(parser, exported=True)
    parser.add_argument("image", metavar="IMAGE", help="a photo; its center square is used")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="default: all classes are tried")
    parser.add_argument("--steps", metavar="N", type=options.integer(1), default=500, help="default: 500")
    parser.add_argument("--seed", type=options.seed, default=0, help="default: 0")
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="projection.png",
        help="the photo and its projection side by side, the latent in a .npz file; default: projection.png",
    )
    options.add_devices(parser)


def _project(args: argparse.Namespace) -> None:
    path = pathlib.Path(args.image).expanduser()
    out = outputs.check(args.out, "--out", (".png",), apart={"the photo": path})
    latent = outputs.check(out.with_suffix(".npz"), "the latent's file")
    if not path.is_file():
        raise errors.MissingFileError(f"{path} does not exist, or is no file")
    import numpy as np

    generator = _open(args)
    found = generator.project(path, steps=args.steps, classes=args.class_name, seed=args.seed)
    print(f"class {generator.classes[found.label]}, loss {found.losses[-1]:.4g}")
    write_images(out, np.stack([found.target, found.image]), columns=2)
    with files.atomic_path(latent) as temporary, temporary.open("wb") as file:
        latents = {name: getattr(found, name) for name in ("z", "w")}
        np.savez(
            file,
            label=found.label,
            **{name: x for name, x in latents.items() if x is not None},
            losses=found.losses,
        )
    print(f"{out}, {latent}")


# ------------------------------------------------------------------ export


def _add_export(parser: options.Parser) -> None:
    options.add_run(parser, exported=True)
    parser.add_argument(
        "--out", metavar="FOLDER", default="exported", help="folder to write to; default: exported"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights; default: float32")


def _export(args: argparse.Namespace) -> None:
    out = outputs.check(args.out, "--out", folder=True)
    from jaxdog.generators import pretrained

    pretrained.check_folder(out)
    _open(args).save_pretrained(out, dtype=args.dtype)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"{out}: {size:,.1f} MB; jaxdog sample {out}, or jaxdog.Generator.from_pretrained({str(out)!r})")


COMMANDS = (
    options.Command(
        "sample",
        "generate images with a trained run or an exported generator",
        """
  jaxdog sample runs/toy                                               samples.png, 100 images
  jaxdog sample runs/toy -n 9 --classes beagle --seed 3 --truncation 0.7 --out beagles.png
  jaxdog sample runs/toy -n 1000 --classes beagle,pug --out images.zip
  jaxdog sample exported/ -n 1000 --out images/
""",
        _add_sample,
        _sample,
    ),
    options.Command(
        "interpolate",
        "write a GIF, WebP or MP4 between images of some seeds",
        """
  jaxdog interpolate runs/toy --seeds 1,2,3 --classes beagle --frames 60 --out beagles.gif
  jaxdog interpolate exported/ --seeds 0-7 --frames 240 --upscale 4 --out dogs.mp4
""",
        _add_interpolate,
        _interpolate,
    ),
    options.Command(
        "project",
        "find the latent whose image is closest to a photo",
        """
  jaxdog project runs/toy photo.png --steps 500 --out projection.png
  jaxdog project exported/ photo.jpg --class beagle
""",
        _add_project,
        _project,
    ),
    options.Command(
        "export",
        "write the generator of a run as a folder to load or publish",
        """
  jaxdog export runs/toy --out dogs/
  jaxdog export runs/toy --out dogs/ --dtype float16 --step latest
""",
        _add_export,
        _export,
    ),
)
