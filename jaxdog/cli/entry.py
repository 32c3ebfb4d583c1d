"""The commands, and the entry points of `jaxdog`, `jaxdog-score` and `python -m jaxdog.main`.

jaxdog COMMAND ...                              one of COMMANDS
jaxdog --config FILE [--mode MODE] ...          with flags only, see `flags.py`
"""

import difflib
import importlib
import io
import sys
from collections.abc import Sequence

from jaxdog.cli import compare, configs, flags, images, options, photos, runs, scoring, train
from jaxdog.utils import errors, interrupts

COMMANDS = (
    train.TRAIN,
    *images.COMMANDS,
    scoring.SCORE,
    *runs.COMMANDS,
    compare.COMPARE,
    *photos.COMMANDS,
    configs.CONFIGS,
    train.FIND_BATCH_SIZE,
)
BY_NAME = {command.name: command for command in COMMANDS}
EXAMPLES = """
examples:
  jaxdog train toy                                   a small run on drawn dogs, in minutes
  jaxdog train biggan --data photos/ --resolution 64
  jaxdog train --data photos/                        chooses a config for these photos
  jaxdog sample runs/toy -n 9 --classes beagle --out beagles.png
  jaxdog COMMAND --help                              options and examples of one command
"""


def run() -> None:
    """Entry point of `jaxdog`."""
    interrupts.watch()
    main(sys.argv[1:])


def run_score() -> None:
    """Entry point of `jaxdog-score`."""
    interrupts.watch()
    main(["score", *sys.argv[1:]])


def main(argv: Sequence[str]) -> None:
    """Runs one command.

    Errors of the user, of the system or for lack of memory end in a paragraph, without a traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name of a file may have characters that it cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"):
            command, overrides, words = flags.FLAGS_ONLY, *options.split_overrides(flags.two_hyphens(argv))
            only = flags.FLAGS_ONLY
            parser = options.Parser(prog="jaxdog", description=only.summary, epilog=only.examples)
            command.add_arguments(parser)
        else:
            overrides, words = options.split_overrides(argv)
            name = next(iter(words), "--help")
            if not name.startswith("-") and name not in BY_NAME:
                raise errors.UserError(_unknown(name))
            command, parser = BY_NAME.get(name), tree(name)
        args = parser.parse_args(options.with_home(options.with_hyphens(words)) or ["--help"])
        assert command is not None  # --help and --version have ended the program
        if overrides and not command.takes_overrides:
            raise errors.UserError(f"jaxdog {command.name} takes no config, so {overrides[0]} has no effect")
        args.overrides = overrides
        options.set_environment(args)
        command.run(args)
    except errors.UserError as error:
        print(f"\njaxdog: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            raise
        print(f"\njaxdog: {errors.explain(error)}.", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        found = f" ({error})" if str(error) else ""
        print(f"\njaxdog: {errors.NO_MEMORY}{found}.", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:  # of which JAX's errors are
        if not (text := errors.out_of_memory(error)):
            raise
        print(f"\njaxdog: {text}.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\njaxdog: interrupted", file=sys.stderr)
        sys.exit(130)


def tree(name: str) -> options.Parser:
    """The parser of all commands, of which only that of `name` has its arguments."""
    parser = options.Parser(
        prog="jaxdog",
        description="GANs for small images in JAX.",
        epilog=f"{EXAMPLES}\n{flags.FLAGS_ONLY.summary}",
    )
    version = importlib.import_module("jaxdog").__version__ if name == "--version" else ""
    parser.add_argument("--version", action="version", version=f"jaxdog {version}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        overrides = options.OVERRIDES_HELP if command.takes_overrides else ""
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"{overrides}\nexamples:\n{command.examples.strip(chr(10))}",
        )
        if command.name == name:
            command.add_arguments(sub)
    return parser


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BY_NAME, n=2)
    similar = f"; similar: {', '.join(near)}" if near else ""
    return f"{name!r} is not a command{similar}. Commands: {', '.join(BY_NAME)}"
