"""`jaxdog configs`."""

import argparse

from jaxdog.cli import options
from jaxdog.config import library


def _add_arguments(parser: options.Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="shows the file of this config")


def _run(args: argparse.Namespace) -> None:
    if args.name is not None:
        path = library.find(args.name)
        print(f"# {path}\n{path.read_text(encoding='utf-8').rstrip()}")
        return
    names = library.names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {library.describe(name)}")


CONFIGS = options.Command(
    "configs",
    "list the configs that come with jaxdog, or show one",
    """
  jaxdog configs
  jaxdog configs biggan > my_biggan.py       then: jaxdog train my_biggan.py
""",
    _add_arguments,
    _run,
)
