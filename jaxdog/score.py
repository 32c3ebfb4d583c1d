"""Scores of any pictures against any others, without a run: files -> numbers.

    python -m jaxdog.score --real PATH --fake PATH [--weights PATH] [--out scores.json]

A path is a folder, a zip, an .npy or .npz array, a file of features, or tfds for Stanford Dogs.
"""

import json
import logging
import pathlib
import sys

from absl import app, flags

NETWORKS = ("inception", "nasnet")
METRICS = ("mifid", "is", "kid", "prdc", "fid_infinity", "per_class", "forensics")

REAL = flags.DEFINE_string("real", None, "Real pictures: a folder, zip, array, file of features, or tfds.")
FAKE = flags.DEFINE_string("fake", None, "Generated pictures, in the same forms.")
WEIGHTS = flags.DEFINE_string("weights", "published", "published, random, or a file or folder of weights.")
NETWORK = flags.DEFINE_enum(
    "network", "inception", NETWORKS, "inception: the public leaderboard's; nasnet: the private one's."
)
SIZE = flags.DEFINE_integer(
    "size", 0, "Both sides are squashed to this many pixels; 0: the generated pictures' own.", lower_bound=0
)
RESAMPLER = flags.DEFINE_enum(
    "resampler",
    "lanczos",
    ("box", "bilinear", "bicubic", "lanczos", "area", "tf1-bilinear"),
    "How pictures are squashed: lanczos (the competition's demo) or tf1-bilinear (its organisers' code).",
)
EPS = flags.DEFINE_float("eps", None, "Threshold of MiFID; default: 0.1 for inception, 0.25 for nasnet.")
SCORES = flags.DEFINE_multi_enum(
    "metric", ["mifid", "is", "kid", "prdc"], METRICS, "May be given repeatedly."
)
OUT = flags.DEFINE_string("out", None, "Where to write the numbers as JSON.")
PAIRS = flags.DEFINE_string(
    "pairs", "", "With --metric forensics: where to show suspects beside photos (.png)."
)
SAVE_REAL = flags.DEFINE_string("save_real", "", "Where to keep the real side's features (.npz).")
SAVE_FAKE = flags.DEFINE_string("save_fake", "", "Where to keep the generated side's features (.npz).")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Pictures in flight.", lower_bound=1)
CACHE = flags.DEFINE_string("cache_dir", "~/.cache/jaxdog", "Where weights and real features are kept.")


def main(argv: list[str]) -> None:
    """Prints the scores; a mistake of the user ends in one paragraph, not in a traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is no flag; write --flag=value")
    if REAL.value is None or FAKE.value is None:
        raise app.UsageError("--real and --fake are both needed: what is scored against what?")

    from jaxdog.evaluation import score_files  # JAX is imported here, when the flags are known to be right
    from jaxdog.training import writers  # JAX is imported here, when the flags are known to be right

    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("jaxdog").addHandler(logging.StreamHandler())
    options = score_files.Options(
        network=NETWORK.value,
        weights=WEIGHTS.value,
        size=SIZE.value,
        resampler=RESAMPLER.value,
        eps=EPS.value,
        metrics=tuple(SCORES.value),
        batch_size=BATCH_SIZE.value,
        cache_dir=CACHE.value,
        pairs=PAIRS.value,
        save_real=SAVE_REAL.value,
        save_fake=SAVE_FAKE.value,
    )
    try:
        found = score_files.score(REAL.value, FAKE.value, options)
        if OUT.value is not None:
            pathlib.Path(OUT.value).write_text(json.dumps(writers.to_json(found), indent=2) + "\n")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"\njaxdog-score: {error}", file=sys.stderr)
        sys.exit(1)
    print(score_files.table(found))


def run() -> None:
    """Entry point of the console script."""
    app.run(main)


if __name__ == "__main__":
    run()
