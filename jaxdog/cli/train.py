"""`jaxdog train` and `jaxdog find-batch-size`."""

import argparse
from typing import Any

from jaxdog.cli import options
from jaxdog.config import library
from jaxdog.utils import errors


def _add_train(parser: options.Parser) -> None:
    options.add_config(parser, required=False)
    parser.add_argument(
        "--workdir", metavar="RUN", help="folder of the run; default: runs/NAME, with --data runs/NAME_FOLDER"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config, parameter counts and FLOPs of a step, and stop",
    )
    options.add_devices(parser, hosts=True)


def _train(args: argparse.Namespace) -> None:
    if args.config is None and args.data is None:
        raise errors.UserError(
            "which experiment? Give a config (jaxdog configs lists them), photos (--data), or both; "
            "for example jaxdog train toy"
        )
    config = load(args) if args.config is not None else None

    from jaxdog import commands, cost  # not at the top: they import JAX, which takes seconds
    from jaxdog.config import build

    commands.init_distributed(args.coordinator, args.num_processes, args.process_id)
    if config is None:
        import jax

        from jaxdog.advice import own_photos

        config, text = own_photos.choose(args.data, args.resolution, args.overrides)
        if jax.process_index() == 0:
            print(text)
    elif args.resolution is not None:
        cost.check_networks(build.check(config))  # before photos are read
    commands.run_mode("train", config, args.workdir, dry_run=args.dry_run)


def load(args: argparse.Namespace) -> Any:
    """The config that the arguments of `options.add_config` describe."""
    return library.load(args.config, overrides=args.overrides, data=args.data, resolution=args.resolution)


TRAIN = options.Command(
    "train",
    "train a config, or resume its run; writes samples, scores and a report",
    """
  jaxdog train toy                                        drawn dogs, minutes on a CPU
  jaxdog train biggan --data photos/ --resolution 64      your photos
  jaxdog train --data photos/                             chooses a config for them, and says why
  jaxdog train stylegan2 --data photos/ --workdir runs/cats --config.train.max_hours=4
  jaxdog train my_config.py --dry-run                     parameters and FLOPs, without training
""",
    _add_train,
    _train,
    takes_overrides=True,
)


def _add_find_batch_size(parser: options.Parser) -> None:
    options.add_config(parser, required=True)


def _find_batch_size(args: argparse.Namespace) -> None:
    config = load(args)

    from jaxdog import commands

    commands.run_mode("find_batch_size", config, None)


FIND_BATCH_SIZE = options.Command(
    "find-batch-size",
    "list the batch sizes of a config that fit in device memory",
    """
  jaxdog find-batch-size biggan
  jaxdog find-batch-size stylegan2 --resolution 128 --config.dtype=bfloat16
""",
    _add_find_batch_size,
    _find_batch_size,
    takes_overrides=True,
)
