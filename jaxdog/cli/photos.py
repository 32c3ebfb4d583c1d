"""`jaxdog clean` and `jaxdog label`: which crops to train on."""

import argparse
import pathlib
from typing import Any

from jaxdog.cleaning import filter_options
from jaxdog.cli import options
from jaxdog.config import library

SETTINGS = filter_options.Settings()
METAVARS = {bool: "true|false", int: "N", float: "X", str: "TEXT"}


def add_filters(parser: options.Parser, prefix: str) -> None:
    """An option for each field of `filter_options.Settings`; `prefix` is "--" or "--clean."."""
    for name, value in SETTINGS._asdict().items():
        parser.add_argument(
            f"{prefix}{name}".replace("_", "-"),
            dest=f"{prefix[2:]}{name}",
            type=options.boolean if isinstance(value, bool) else type(value),
            default=value,
            metavar=METAVARS[type(value)],
            choices=filter_options.METHODS if name == "method" else None,
            help=f"{filter_options.MEANINGS[name]}; default: {str(value).lower() or 'none'}",
        )


def filters_of(args: argparse.Namespace, prefix: str) -> filter_options.Settings:
    """The `filter_options.Settings` of parsed options."""
    return SETTINGS._replace(**{name: getattr(args, f"{prefix}{name}") for name in SETTINGS._fields})


def _add_clean(parser: options.Parser) -> None:
    _add_source(parser)
    add_filters(parser, "--")


def _add_label(parser: options.Parser) -> None:
    _add_source(parser)
    parser.add_argument(
        "--port", type=options.integer(0, 65535), default=0, help="of the page; 0: any free port"
    )


def _add_source(parser: options.Parser) -> None:
    options.add_config(parser, required=True)
    parser.add_argument("--workdir", help="folder to write to; default: runs/NAME_OF_THE_CONFIG")


def _run(args: argparse.Namespace, mode: str, **more: Any) -> None:
    """Runs a mode on a config, or on a run's folder, whose config it reads."""
    from jaxdog import commands
    from jaxdog.config import saved

    if (pathlib.Path(args.config) / "config.json").is_file():
        config = saved.load(pathlib.Path(args.config))
        config = library.change(config, args.overrides, args.data, args.resolution)
        workdir = args.workdir or args.config
    else:
        config = library.load(
            args.config, overrides=args.overrides, data=args.data, resolution=args.resolution
        )
        workdir = args.workdir
    commands.run_mode(mode, config, workdir, **more)


COMMANDS = (
    options.Command(
        "clean",
        "select the crops to train on: filters, duplicates and clusters",
        """
  jaxdog clean biggan --data photos/ --min-side 48     writes runs/biggan_photos/clean.csv and contact sheets
  jaxdog clean biggan --method segments --num-clusters 4
""",
        _add_clean,
        lambda args: _run(args, "clean", settings=filters_of(args, "")),
        takes_overrides=True,
    ),
    options.Command(
        "label",
        "label crops by hand on a page in the browser",
        """
  jaxdog label biggan --data photos/                   writes runs/biggan_photos/labels.csv
  jaxdog label biggan --port 8000
""",
        _add_label,
        lambda args: _run(args, "label", port=args.port),
        takes_overrides=True,
    ),
)
