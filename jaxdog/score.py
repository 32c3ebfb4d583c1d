"""Command line of `evaluation.score_files`: scores of any images against any others, without a run.

    python -m jaxdog.score --real PATH --fake PATH [--weights PATH] [--out scores.json]

A path is a folder, a .zip, an .npy or .npz array, a file of features, or tfds for Stanford Dogs.
"""

import json
import logging
import sys
from typing import Any

from absl import app, flags

from jaxdog.evaluation import score_options
from jaxdog.utils import errors, files

DEFAULTS = score_options.Options()

REAL = flags.DEFINE_string("real", None, "Real images: a folder, .zip, array, file of features, or tfds.")
FAKE = flags.DEFINE_string("fake", None, "Generated images, in one of the same formats.")
OUT = flags.DEFINE_string("out", None, "File to write the scores to, as JSON.")

# Each flag below is a field of score_options.Options.
flags.DEFINE_string("weights", DEFAULTS.weights, "published, random, or a file or folder of weights.")
flags.DEFINE_enum(
    "network",
    DEFAULTS.network,
    score_options.NETWORKS,
    "inception: the public leaderboard's; nasnet: the private one's.",
)
flags.DEFINE_integer(
    "size",
    DEFAULTS.size,
    "Both sides are squashed to squares of this many pixels; 0: the size of the generated images.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "resampler",
    DEFAULTS.resampler,
    score_options.RESAMPLERS,
    "How images are squashed: lanczos as in the competition's demo, tf1-bilinear as in its organizers' code.",
)
flags.DEFINE_float("eps", DEFAULTS.eps, "MiFID's threshold; default: 0.1 for inception, 0.25 for nasnet.")
flags.DEFINE_multi_enum("metric", list(DEFAULTS.metrics), score_options.METRICS, "May be given repeatedly.")
flags.DEFINE_string("pairs", DEFAULTS.pairs, "With --metric copies: a .png of images beside photos.")
flags.DEFINE_string("save_real", DEFAULTS.save_real, "File for the real side's features (.npz).")
flags.DEFINE_string("save_fake", DEFAULTS.save_fake, "File for the generated side's features (.npz).")
flags.DEFINE_integer("batch_size", DEFAULTS.batch_size, "Images per forward pass.", lower_bound=1)
flags.DEFINE_string(
    "cache_dir", DEFAULTS.cache_dir, "Cache of downloaded weights and of the real side's features."
)


def main(argv: list[str]) -> None:
    """Prints the scores; user errors are printed without a traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag; write --flag=value")
    if REAL.value is None or FAKE.value is None:
        raise app.UsageError("--real and --fake are required")
    from jaxdog.evaluation import score_files  # imports JAX, so after the flags are checked
    from jaxdog.training import writers

    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("jaxdog").addHandler(logging.StreamHandler())
    given: dict[str, Any] = {"metrics": tuple(flags.FLAGS.metric)}
    given |= {name: getattr(flags.FLAGS, name) for name in DEFAULTS._fields if name != "metrics"}
    try:
        scores = score_files.score(REAL.value, FAKE.value, score_options.Options(**given))
        if OUT.value is not None:
            files.write_text(OUT.value, json.dumps(writers.to_json(scores), indent=2) + "\n")
    except (errors.UserError, OSError, RuntimeError, ImportError) as error:
        print(f"\njaxdog-score: {error}", file=sys.stderr)
        sys.exit(1)
    print(score_files.table(scores))


def run() -> None:
    """Entry point of the console script."""
    app.run(main)


if __name__ == "__main__":
    run()
