"""The command line: flags -> config -> one mode.

    python -m jaxdog.main --config configs/biggan.py [--config.x.y=v] [--workdir DIR] [--mode MODE]

Only flags are read here; what a mode does is in `modes.py`, imported once the flags are known to be right.
"""

import os
import runpy
import sys

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from jaxdog.cleaning import filters

MODES = ("train", "evaluate", "sample", "submit", "report", "clean", "label", "fit")

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment: a file with get_config(); file.py:test picks a variant. Other modes than "
    "train read it from the work folder.",
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/<name of the config>.")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    MODES,
    "train does the whole job and resumes it; clean decides which crops to train on, label asks you; "
    "fit tells which batches a device's memory holds; the others redo one part from a work folder.",
)
DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
CLEAN = {
    name: DEFINE[type(value)](f"clean.{name}", value, "Mode clean, see README: Cleaning the photos.")
    for name, value in filters.Settings()._asdict().items()
}
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the config, the networks' sizes and costs, and stop.")
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic",
    False,
    "The same command, the same numbers to the last bit on GPUs too, by slower operations; CPUs need none.",
)
# What --deterministic tells XLA; all else is left as XLA, or XLA_FLAGS, has it.
SAME_BITS = "--xla_gpu_deterministic_ops"
COUNT = flags.DEFINE_integer("n", 100, "Mode sample: how many pictures.", lower_bound=1)
PORT = flags.DEFINE_integer(
    "port", 0, "Mode label: the page's port; 0: any that is free.", lower_bound=0, upper_bound=65535
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Several hosts: host:port of process 0; auto: as the cluster (SLURM, TPU slices, MPI) says.",
)
PROCESSES = flags.DEFINE_integer("processes", None, "Several hosts: how many processes.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "Several hosts: which one this is, from 0.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Runs one mode; a mistake of the user ends in one paragraph, not in a traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is no flag; write --flag=value")
    if CONFIG.value is None and (MODE.value == "train" or DRY_RUN.value):
        raise app.UsageError("--config is missing: which experiment? For example --config configs/toy.py")
    if CONFIG.value is None and WORKDIR.value is None:
        raise app.UsageError(f"--workdir is missing: mode {MODE.value} works on the folder of a run")

    if DETERMINISTIC.value:
        os.environ["XLA_FLAGS"] = same_bits(os.environ.get("XLA_FLAGS", ""))
    from jaxdog import commands  # JAX is imported here, when the flags are known to be right

    commands.distributed(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    try:
        commands.run(
            MODE.value,
            CONFIG.value,
            WORKDIR.value,
            dry_run=DRY_RUN.value,
            count=COUNT.value,
            settings=filters.Settings(**{name: flag.value for name, flag in CLEAN.items()}),
            port=PORT.value,
        )
    except commands.EXPECTED as error:
        print(f"\njaxdog: {error}", file=sys.stderr)
        sys.exit(1)


def same_bits(given: str) -> str:
    """XLA_FLAGS for --deterministic, from those `given`; raises UsageError where they say the opposite."""
    said = [word for word in given.split() if word.partition("=")[0] == SAME_BITS]
    wrong = [word for word in said if word.partition("=")[2].lower() in ("false", "0")]
    if wrong:
        raise app.UsageError(f"--deterministic contradicts {wrong[0]} in XLA_FLAGS; give one of them")
    return given if said else f"{given} {SAME_BITS}=true".strip()


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; an override of a field that does not exist names the fields there are."""
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is not None:
            str(CONFIG.value.keys())  # a config file that could not be read says so now
        return rest
    except (AttributeError, KeyError) as error:  # how ml_collections says that an override has no field
        message = _unknown_field(argv) or str(error)
    except flags.Error as error:
        message = str(error)
    except (OSError, ValueError) as error:
        message = f"the config cannot be read: {' '.join(str(error).split())}"
    print(f"jaxdog: {message}", file=sys.stderr)
    sys.exit(1)


def _unknown_field(argv: list[str]) -> str | None:
    """The first override `--config.a.b=v` without a field to change, and the fields beside it."""
    words = " ".join(argv).replace("--config=", "--config ").split()
    file, *variant = words[words.index("--config") + 1].split(":")
    config = runpy.run_path(file)["get_config"](*variant)
    overrides = [arg.lstrip("-").partition("=")[0] for arg in argv if arg.lstrip("-").startswith("config.")]
    for override in overrides:
        section, path = config, "config"
        for field in override.split(".")[1:]:
            if not isinstance(section, ml_collections.ConfigDict) or field not in section:
                fields = sorted(section) if isinstance(section, ml_collections.ConfigDict) else []
                return f"{path}.{field} is no field of {path}; fields: {', '.join(fields) or 'none'}"
            section, path = section[field], f"{path}.{field}"
    return None


def run() -> None:
    """Entry point of the console script."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
