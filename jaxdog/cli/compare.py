"""`jaxdog compare`."""

import argparse

from jaxdog.cli import options
from jaxdog.utils import outputs


def _add_arguments(parser: options.Parser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs")
    parser.add_argument(
        "--out", metavar="FILE", default="compare.html", help="the page; default: compare.html"
    )


def _run(args: argparse.Namespace) -> None:
    outputs.check(args.out, "--out")
    from jaxdog.report import compare

    print(compare.table(args.runs), flush=True)
    print(compare.write(args.runs, args.out))


COMPARE = options.Command(
    "compare",
    "compare runs on one page: curves, final scores, grids, differences of configs",
    """
  jaxdog compare runs/biggan runs/sagan
  jaxdog compare runs/*_seed? --out seeds.html
""",
    _add_arguments,
    _run,
)
