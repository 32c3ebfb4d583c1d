"""`jaxdog score`: scores of any images against any others, without a run (`evaluation.score_files`)."""

import argparse
import json
from typing import Any, get_args

from jaxdog.cli import options
from jaxdog.evaluation import score_options
from jaxdog.metrics import metric_table
from jaxdog.utils import errors, files, logs, outputs

DEFAULTS = score_options.Options()


def _add_arguments(parser: options.Parser) -> None:
    kinds = (
        "a folder, a .zip, an .npy or .npz array, a file of features or statistics, or tfds for Stanford Dogs"
    )
    parser.add_argument("paths", metavar="REAL FAKE", nargs="*", help=f"real and generated images: {kinds}")
    parser.add_argument("--real", help="REAL, as an option")
    parser.add_argument("--fake", help="FAKE, as an option")
    parser.add_argument("--out", metavar="FILE", help="file to write the scores to, as JSON")
    group = parser.add_argument_group("how images are scored")  # one option for each field of Options
    group.add_argument(
        "--network",
        choices=get_args(metric_table.Network),
        help="inception: the public leaderboard's (default); inception_pytorch, inception_clean: images "
        "resized as in pytorch-fid or clean-fid, default for their statistics; nasnet: the private "
        "leaderboard's; dinov2: that of FD-DINOv2 (ViT-L/14), dinov2_base and dinov2_small: smaller ones",
    )
    group.add_argument(
        "--weights", metavar="KIND", help="published (default), random, or a file or folder of weights"
    )
    group.add_argument(
        "--size",
        metavar="N",
        type=options.integer(0),
        help="both sides are squashed to squares of N pixels; 0 (default): size of the generated images",
    )
    group.add_argument(
        "--resampler",
        choices=score_options.RESAMPLERS,
        help="how images are squashed: lanczos (default) as in the competition's demo, tf1-bilinear as in "
        "its organizers' code",
    )
    group.add_argument(
        "--eps",
        type=float,
        help="MiFID's threshold; default: 0.1 (inception), 0.25 (nasnet), none and no MiFID (dinov2)",
    )
    group.add_argument(
        "--metric",
        dest="metrics",
        metavar="NAME,NAME",
        action="extend",
        type=_metrics,
        help=f"default: {','.join(metric_table.DEFAULT)}; choices: {', '.join(metric_table.METRICS)}",
    )
    group.add_argument(
        "--pairs", metavar="PNG", help="with --metric copies: images beside the photos they copy"
    )
    group.add_argument("--save-real", metavar="NPZ", help="file for the real side's features")
    group.add_argument("--save-fake", metavar="NPZ", help="file for the generated side's features")
    group.add_argument(
        "--save-as",
        choices=score_options.FORMATS,
        help="format of these files. jaxdog: features (default); pytorch-fid: mu and sigma, as pytorch-fid "
        "saves them",
    )
    group.add_argument("--batch-size", type=options.integer(1), help="images per forward pass; default: 64")
    group.add_argument(
        "--cache-dir", help=f"of weights and of the real side's features; default: {DEFAULTS.cache_dir}"
    )


def _metrics(text: str) -> list[str]:
    names = options.words_of(text)
    for name in names:
        if name not in metric_table.METRICS:
            choices = ", ".join(metric_table.METRICS)
            raise argparse.ArgumentTypeError(f"{name!r} is not a metric; choices: {choices}")
    return names


def options_of(args: argparse.Namespace) -> score_options.Options:
    """The `Options` of parsed arguments; raises errors.UserError as `score_options.from_keywords`."""
    given: dict[str, Any] = {name: getattr(args, name) for name in DEFAULTS._fields}
    return score_options.from_keywords({name: x for name, x in given.items() if x is not None})


def _run(args: argparse.Namespace) -> None:
    """Prints the scores; user errors are printed without a traceback."""
    real, fake, *more = [*args.paths, None, None] if args.paths else [args.real, args.fake]
    if more[2:] or (args.paths and (args.real or args.fake)) or real is None or fake is None:
        raise errors.UserError("give two sets of images, as in jaxdog score REAL FAKE, or --real and --fake")
    given = options_of(args)
    if args.out is not None:
        used = {"the real images": real, "the generated images": fake}
        used |= {f"the file of {name}": getattr(given, name) for name in score_options.OUTPUTS}
        outputs.check(args.out, "--out", apart=used)
    from jaxdog.evaluation import score_files, score_table  # not at the top: they import JAX
    from jaxdog.training import writers

    logs.show()
    try:
        scores = score_files.score(real, fake, given)
        print(score_table.table(scores), flush=True)
        if args.out is not None:
            files.write_text(args.out, json.dumps(writers.to_json(scores), indent=2) + "\n")
    except OSError as error:
        raise errors.UserError(errors.explain(error)) from error
    except ImportError as error:
        raise errors.UserError(str(error)) from error


SCORE = options.Command(
    "score",
    "score images against others: FID, MiFID, KID, Inception Score, precision, recall, copies",
    """
  jaxdog score photos/ images.zip
  jaxdog score photos/ images.zip --metric mifid,copies --pairs pairs.png --out scores.json
  jaxdog score real.npz images.zip            features that an earlier --save-real has written, or
                                              statistics of pytorch-fid, clean-fid, StyleGAN (.pkl) or
                                              torch-fidelity (.pt): FID, without MiFID, KID and others
  jaxdog score photos/ images.zip --network inception_pytorch --save-real mu_sigma.npz --save-as pytorch-fid
""",
    _add_arguments,
    _run,
)
