"""`jaxdog evaluate`, `submit` and `report`: parts of a run that are done again."""

import argparse
import pathlib

from jaxdog.cli import options
from jaxdog.config import library


def _add_arguments(parser: options.Parser) -> None:
    options.add_run(parser)
    options.add_devices(parser, hosts=True)


def _run(args: argparse.Namespace, mode: str) -> None:
    from jaxdog import commands  # not at the top: it imports JAX
    from jaxdog.config import saved

    commands.init_distributed(args.coordinator, args.num_processes, args.process_id)
    config = None
    if args.overrides:
        config = library.override(saved.load(pathlib.Path(args.run)), args.overrides)
    commands.run_mode(mode, config, args.run)


def _report(args: argparse.Namespace) -> None:
    from jaxdog import commands

    commands.run_mode("report", None, args.run)


COMMANDS = (
    options.Command(
        "evaluate",
        "score the images that a run submits again, without writing them",
        """
  jaxdog evaluate runs/biggan
  jaxdog evaluate runs/biggan --config.submit.images=2000
""",
        _add_arguments,
        lambda args: _run(args, "evaluate"),
        takes_overrides=True,
    ),
    options.Command(
        "submit",
        "write and score images.zip of a run again",
        """
  jaxdog submit runs/biggan
""",
        _add_arguments,
        lambda args: _run(args, "submit"),
        takes_overrides=True,
    ),
    options.Command(
        "report",
        "write report.html of a run again",
        """
  jaxdog report runs/biggan
""",
        options.add_run,
        _report,
    ),
)
