"""What commands are made of: their record, the parser, and options that several commands share.

Nothing in `cli` imports JAX before a command runs, so that `--help` is fast.
"""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from jaxdog.utils import errors, integers

OVERRIDE = re.compile(r"--?(no)?config\.")
NUMBER = re.compile(r"-[\d.]")  # a negative number is a value, not an option
SAME_BITS = "--xla_gpu_deterministic_ops"
MAX_SEEDS = 100_000  # in one list
OVERRIDES_HELP = """
--config.FIELD=VALUE sets a field of the config, for example --config.train.max_hours=2 or
--config.system.batch_size=64. An unknown field is an error that lists the fields there are.
"""


class Parser(argparse.ArgumentParser):
    """Options may be written with hyphens or underscores; an error is one line and exit status 1."""

    def __init__(self, **settings: Any):
        settings |= {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The parsed words; an unknown option is an error that suggests others."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(name, sorted(set(option_names(self))), n=2, cutoff=0.7)
            similar = f"; similar: {', '.join(near)}" if near else ""
            fields = (
                "; a field of the config is set with --config.FIELD=VALUE, such as --config.train.steps=500"
            )
            self.error(f"{name!r} is not an option{similar or fields}")
        return parsed

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}\nSee {self.prog} --help", file=sys.stderr)
        sys.exit(1)


class Command(NamedTuple):
    """One command of `jaxdog`."""

    name: str
    summary: str  # one line for `jaxdog --help`
    examples: str  # shown by its own --help
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], None]  # args.overrides: the --config.* words
    takes_overrides: bool = False


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """All options of a parser and of its commands, such as "--num-samples"."""
    names = []
    for action in parser._actions:
        names += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            names += [name for sub in action.choices.values() for name in option_names(sub)]
    return names


# ------------------------------------------------------------------ words


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(overrides, other words); `--config.x v` becomes `--config.x=v`, and `--noconfig.x` takes no value."""
    overrides, others, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        override = OVERRIDE.match(word)
        if override is None:
            others.append(word)
            continue
        takes_value = "=" not in word and override[1] is None
        if takes_value and rest and (not rest[0].startswith("-") or NUMBER.match(rest[0])):
            word = f"{word}={rest.pop(0)}"
        overrides.append(word)
    return overrides, others


def with_hyphens(words: Sequence[str]) -> list[str]:
    """Names of options with hyphens in place of underscores: --num_samples=9 -> --num-samples=9."""
    split = [(word, *word.partition("=")) for word in words]
    return [
        f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word
        for word, name, equals, value in split
    ]


def with_home(words: Sequence[str]) -> list[str]:
    """Words with the home folder in place of a leading ~, also in --out=~/x, which shells leave as it is."""
    split = [word.partition("=") if word.startswith("--") else ("", "", word) for word in words]
    return [f"{name}{equals}{os.path.expanduser(value)}" for name, equals, value in split]


# ------------------------------------------------------------------ types of values


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an option: an integer of at least `low` and at most `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text.replace(",", "").replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {limits}")
        return value

    return parse


def seed(text: str) -> int:
    """The type of an option: a seed of generated images."""
    return integer(0, integers.MAX_IMAGE_SEED)(text)


def side(text: str) -> int:
    """The type of an option: the side of square images in pixels."""
    if re.fullmatch(r"\d+\s*[x,]\s*\d+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is two numbers, and generated images are square: give their side, such as 64"
        )
    return integer(1)(text)


def boolean(text: str) -> bool:
    """The type of an option: true or false."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def words_of(text: str) -> list[str]:
    """The type of an option: a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def seeds_of(text: str) -> list[int]:
    """The type of an option: seeds with commas; 3-6 is 3,4,5,6."""
    values: list[int] = []
    for word in words_of(text):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if found is None:
            raise argparse.ArgumentTypeError(
                f"{word!r} in {text!r} is neither an integer nor a range like 3-6"
            )
        first, last = seed(found[1]), seed(found[2] or found[1])
        if len(values) + last - first >= MAX_SEEDS:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_SEEDS:,} seeds")
        values += range(first, last + 1)
    return values


# ------------------------------------------------------------------ shared options


def add_config(parser: Parser, required: bool) -> None:
    """The experiment, its photos and its resolution."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs=None if required else "?",
        help="a config by name (see jaxdog configs) or path; NAME:test is its smoke test, on drawn dogs",
    )
    parser.add_argument("--data", metavar="FOLDER", help="photos, or one folder of photos per class")
    parser.add_argument(
        "--resolution", metavar="N", type=side, help="side of the generated images in pixels; they are square"
    )


def add_run(parser: Parser, exported: bool = False) -> None:
    """The folder of a run, or, if `exported`, what `jaxdog export` made of one."""
    what = "the folder of a run" + (", an exported generator, or hf://USER/NAME" if exported else "")
    parser.add_argument("run", metavar="RUN", help=what)
    if exported:
        parser.add_argument(
            "--step", default="best", help="of a run: best (default), latest, or a step that has a checkpoint"
        )


def add_devices(parser: Parser, hosts: bool = False) -> None:
    """How JAX runs."""
    group = parser.add_argument_group("devices")
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="bit-identical reruns on GPUs, with slower operations; CPUs are deterministic without it",
    )
    if hosts:
        add_hosts(group)


def add_hosts(group: Any) -> None:
    """Options of a run on several hosts."""
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="several hosts: process 0; auto: detected (SLURM, TPU, MPI)",
    )
    group.add_argument("--num-processes", metavar="N", type=integer(1), help="several hosts: their number")
    group.add_argument("--process-id", metavar="I", type=integer(0), help="several hosts: this one, from 0")


# ------------------------------------------------------------------ JAX


def set_environment(args: argparse.Namespace) -> None:
    """Sets XLA_FLAGS for --deterministic; called before JAX starts its devices."""
    if getattr(args, "deterministic", False):
        os.environ["XLA_FLAGS"] = same_bits(os.environ.get("XLA_FLAGS", ""))


def same_bits(given: str) -> str:
    """XLA_FLAGS for --deterministic, from those `given`; raises errors.UserError if they contradict it."""
    present = [word for word in given.split() if word.partition("=")[0] == SAME_BITS]
    off = [word for word in present if word.partition("=")[2].lower() in ("false", "0")]
    if off:
        raise errors.UserError(f"--deterministic contradicts {off[0]} in XLA_FLAGS; give one of them")
    return given if present else f"{given} {SAME_BITS}=true".strip()
