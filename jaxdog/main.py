"""The command line: flags -> config -> one mode.

    python -m jaxdog.main --config configs/biggan.py [--config.x.y=v] [--workdir DIR] [--mode MODE]

This module only reads flags; the modes are in `commands.py`. `--help` works without importing JAX.
"""

import os
import runpy
import sys

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from jaxdog.cleaning import filters
from jaxdog.utils import errors

MODES = ("train", "evaluate", "sample", "submit", "report", "clean", "label", "find_batch_size")

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment: a file with get_config(); file.py:test is its smoke test. Modes other than "
    "train read it from the work folder.",
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/NAME_OF_THE_CONFIG.")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    MODES,
    "train runs the whole experiment, or resumes it; clean selects the crops to train on, label shows crops "
    "to label; find_batch_size lists the batch sizes that fit in device memory; others redo a part of a run.",
)
DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
CLEAN = {
    name: DEFINE[type(value)](f"clean.{name}", value, "Mode clean, see docs/data.md.")
    for name, value in filters.Settings()._asdict().items()
}
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, parameter counts and FLOPs of a step, and stop."
)
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic",
    False,
    "Bit-identical reruns on GPUs, with slower operations. CPUs are deterministic without it.",
)
SAME_BITS = "--xla_gpu_deterministic_ops"
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "Mode sample: number of images.", lower_bound=1)
PORT = flags.DEFINE_integer(
    "port", 0, "Mode label: port of the page; 0: any free port.", lower_bound=0, upper_bound=65535
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Several hosts: host:port of process 0; auto: detect it (SLURM, TPU slices, MPI).",
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Several hosts: number of processes.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Several hosts: index of this process, from 0.", lower_bound=0
)


def main(argv: list[str]) -> None:
    """Runs one mode. A UserError ends in one paragraph; other exceptions keep their traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag; write --flag=value")
    if CONFIG.value is None and (MODE.value == "train" or DRY_RUN.value):
        raise app.UsageError("--config is missing: which experiment? For example --config configs/toy.py")
    if CONFIG.value is None and WORKDIR.value is None:
        raise app.UsageError(f"--workdir is missing: mode {MODE.value} works on the folder of a run")

    if DETERMINISTIC.value:
        os.environ["XLA_FLAGS"] = same_bits(os.environ.get("XLA_FLAGS", ""))
    from jaxdog import commands  # not at the top: it imports JAX, which takes seconds

    commands.init_distributed(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    try:
        commands.run_mode(
            MODE.value,
            CONFIG.value,
            WORKDIR.value,
            dry_run=DRY_RUN.value,
            num_samples=NUM_SAMPLES.value,
            settings=filters.Settings(**{name: flag.value for name, flag in CLEAN.items()}),
            port=PORT.value,
        )
    except errors.UserError as error:
        print(f"\njaxdog: {error}", file=sys.stderr)
        sys.exit(1)


def same_bits(given: str) -> str:
    """XLA_FLAGS for --deterministic, from those `given`; raises UsageError if they contradict it."""
    present = [word for word in given.split() if word.partition("=")[0] == SAME_BITS]
    off = [word for word in present if word.partition("=")[2].lower() in ("false", "0")]
    if off:
        raise app.UsageError(f"--deterministic contradicts {off[0]} in XLA_FLAGS; give one of them")
    return given if present else f"{given} {SAME_BITS}=true".strip()


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; an override of an unknown field is an error that names the fields."""
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is not None:
            str(CONFIG.value.keys())  # raises OSError if the file could not be read
        return rest
    except (AttributeError, KeyError):  # ml_collections raises these for an override of an unknown field
        message = _unknown_field(argv)
        if message is None:
            raise
    except flags.Error as error:
        message = str(_user_error(error) or error)
    except OSError as error:
        message = f"the config cannot be read: {' '.join(str(error).split())}"
    print(f"jaxdog: {message}", file=sys.stderr)
    sys.exit(1)


def _user_error(error: BaseException | None) -> errors.UserError | None:
    """The UserError raised by a config file; ml_collections and absl wrap it in their own errors."""
    found = None
    while error is not None:
        found = error if isinstance(error, errors.UserError) else found
        error = error.__cause__ or error.__context__
    return found


def _unknown_field(argv: list[str]) -> str | None:
    """The error message for the first override of an unknown field; it names the fields that exist."""
    words = " ".join(argv).replace("--config=", "--config ").split()
    file, *variant = words[words.index("--config") + 1].split(":")
    config = runpy.run_path(file)["get_config"](*variant)
    overrides = [arg.lstrip("-").partition("=")[0] for arg in argv if arg.lstrip("-").startswith("config.")]
    for override in overrides:
        section, path = config, "config"
        for field in override.split(".")[1:]:
            if not isinstance(section, ml_collections.ConfigDict) or field not in section:
                fields = sorted(section) if isinstance(section, ml_collections.ConfigDict) else []
                return f"{path}.{field} is not a field of {path}; fields: {', '.join(fields) or 'none'}"
            section, path = section[field], f"{path}.{field}"
    return None


def run() -> None:
    """Entry point of the console script."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
