"""The command line with flags only, as `python -m jaxdog.main --config FILE --mode MODE`."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from jaxdog.cli import options, photos
from jaxdog.config import library
from jaxdog.utils import errors

MODES = ("train", "evaluate", "sample", "submit", "report", "clean", "label", "find_batch_size")


def two_hyphens(words: Sequence[str]) -> list[str]:
    """-workdir=x -> --workdir=x."""
    return [f"-{word}" if re.match(r"-[a-z]\w", word) else word for word in words]


def add_arguments(parser: options.Parser) -> None:
    """The flags; none of them has a positional argument, so a switch may have a value."""
    parser.add_argument(
        "--config",
        help="the experiment: a config by name or path; NAME:test is its smoke test. Modes other than train "
        "read it from the work folder",
    )
    parser.add_argument("--workdir", help="folder of the run; default: runs/NAME_OF_THE_CONFIG")
    parser.add_argument(
        "--mode",
        default="train",
        choices=MODES,
        help="train runs the whole experiment, or resumes it; clean selects the crops to train on, label "
        "shows crops to label; find_batch_size lists the batch sizes that fit in device memory; others redo "
        "a part of a run",
    )
    _add_switch(
        parser, "--dry-run", "print the resolved config, parameter counts and FLOPs of a step, and stop"
    )
    _add_switch(
        parser,
        "--deterministic",
        "bit-identical reruns on GPUs, with slower operations; CPUs are deterministic without it",
    )
    parser.add_argument(
        "--num-samples", type=options.integer(1), default=100, help="mode sample: number of images"
    )
    parser.add_argument(
        "--port", type=options.integer(0, 65535), default=0, help="mode label: port; 0: any free port"
    )
    options.add_hosts(parser)
    photos.add_filters(parser, "--clean.")
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)


def _add_switch(parser: options.Parser, name: str, help_text: str) -> None:
    """--name, --name=true, --name=false and --noname."""
    dest = name.strip("-").replace("-", "_")
    parser.add_argument(
        name, dest=dest, nargs="?", const=True, default=False, type=options.boolean, help=help_text
    )
    off: Any = {"dest": dest, "action": "store_false", "help": argparse.SUPPRESS}
    parser.add_argument(f"--no{name.strip('-')}", **off)


def run(args: argparse.Namespace) -> None:
    """Runs one mode."""
    if args.rest:
        raise errors.UserError(f"{args.rest[0]!r} is not a flag; write --flag=value")
    if args.config is None and (args.mode == "train" or args.dry_run):
        raise errors.UserError("--config is missing: which experiment? For example --config toy")
    if args.config is None and args.workdir is None:
        raise errors.UserError(f"--workdir is missing: mode {args.mode} works on the folder of a run")
    if args.config is None and args.overrides:
        raise errors.UserError(f"--config is missing: {args.overrides[0]} changes a field of it")
    config = None if args.config is None else library.load(args.config, overrides=args.overrides)

    from jaxdog import commands  # not at the top: it imports JAX, which takes seconds

    commands.init_distributed(args.coordinator, args.num_processes, args.process_id)
    commands.run_mode(
        args.mode,
        config,
        args.workdir,
        dry_run=args.dry_run,
        num_samples=args.num_samples,
        settings=photos.filters_of(args, "clean."),
        port=args.port,
    )


FLAGS_ONLY = options.Command(
    "--config",
    "Also with flags only: jaxdog --config CONFIG [--mode MODE] [--workdir RUN] ..., "
    "see jaxdog --config toy --help",
    """
examples:
  python -m jaxdog.main --config configs/biggan.py --config.train.max_hours=2 --workdir runs/short
  python -m jaxdog.main --mode sample --workdir runs/short --num_samples 100
""",
    add_arguments,
    run,
    takes_overrides=True,
)
