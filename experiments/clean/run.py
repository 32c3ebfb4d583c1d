"""Do clusters of crops tell near dogs from far ones? Purity of each method's clusters against known framing.

    JAXDOG_DATA=FOLDER nice -n 15 python experiments/clean/run.py --n 1500

JAXDOG_DATA holds stanford_dogs/ (the three archives) and inception/ (weights). Two sets:

  drawn  drawn dogs, whose boxes take a known share of their photos: near from --near on
  real   N Stanford Dogs, every second one of a draw cut to its middle and a little up: near by construction,
         because photos that are cut to their boxes already have no framing of their own

Every method of mode clean, at 2 and at 8 clusters. framing.json beside this file holds what was measured.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
from sklearn import metrics

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from jaxdog import sharding  # noqa: E402  (the package beside this folder)
from jaxdog.cleaning import clusters, filters, segment  # noqa: E402
from jaxdog.data import cropped_boxes, photos, sources, toy  # noqa: E402
from jaxdog.evaluation import evaluate  # noqa: E402  (the package beside this folder)
from jaxdog.metrics.backbones import networks  # noqa: E402  (the package beside this folder)

SIZE, SMALL, COMPONENTS = 64, 32, 64  # of crops, of what pixels and segments look at; principal components
MIDDLE = (0.08, 0.25, 0.58, 0.75)  # top, left, bottom, right of the part that stays of a near photo
CLUSTERS = (2, 8)
METHODS = ("pixels", "segments", "features")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1500, help="photos of each set, at most 3000")
    parser.add_argument("--near", type=float, default=0.4, help="share of the photo from which a dog is near")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="pictures in flight through Inception")
    parser.add_argument("--only", default="drawn,real", help="sets, separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="of clustering, separated by commas")
    parser.add_argument("--out", default=str(HERE / "framing.json"))
    args = parser.parse_args()
    if not 16 <= args.n <= 3000:
        parser.error(f"--n is {args.n}, and must be from 16 to 3000")
    return args


def drawn(args: argparse.Namespace) -> tuple[photos.Source, None]:
    """Drawn dogs; their framing is what their boxes say."""
    return toy.dogs(args.n, args.seed), None


def real(args: argparse.Namespace) -> tuple[photos.Source, np.ndarray]:
    """Photos spread evenly over all breeds, and which of them were cut to be near."""
    data = pathlib.Path(os.environ.get("JAXDOG_DATA", ROOT.parent / "shared" / "data"))
    whole = sources.tfds(archives=data / "stanford_dogs")
    chosen = np.linspace(0, len(whole.photos) - 1, args.n).round().astype(int)
    near = np.random.default_rng(args.seed).permutation(args.n) % 2 == 0

    def photo(i: int) -> photos.Photo:
        found = whole.photos[int(chosen[i])]
        read = functools.partial(middle, found.read) if near[i] else found.read
        return found._replace(boxes=(), read=read)

    return whole._replace(key=f"{whole.key}, framed", photos=sources.Lazy(args.n, photo)), near


def middle(read) -> np.ndarray:
    """The part of a photo where a standing dog's head mostly is."""
    image = read()
    h, w, _ = image.shape
    top, left, bottom, right = (round(f * n) for f, n in zip(MIDDLE, (h, w, h, w), strict=True))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def agreement(number: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Purity (share of crops in the larger class of their cluster), and two measures corrected for chance."""
    table = metrics.cluster.contingency_matrix(truth, number)
    return {
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "adjusted_rand": float(metrics.adjusted_rand_score(truth, number)),
        "adjusted_mutual_information": float(metrics.adjusted_mutual_info_score(truth, number)),
    }


def one_cluster(near: np.ndarray) -> float:
    """The purity of all crops as one cluster."""
    return float(max(near.mean(), 1 - near.mean()))


def vectors(args: argparse.Namespace, crops: photos.Crops, facts: filters.Facts) -> dict[str, Any]:
    """Method -> () -> float32 [n, d]."""
    data = pathlib.Path(os.environ.get("JAXDOG_DATA", ROOT.parent / "shared" / "data"))

    def inception() -> np.ndarray:
        weights = networks.load("inception", str(data / "inception"), pathlib.Path.home())
        extractor = evaluate.Extractor("inception", weights, sharding.mesh(), args.batch)
        return extractor.of_images(crops.image)["pool_3"]

    return {
        "pixels": lambda: clusters.pixels(crops.image, SMALL),
        "segments": lambda: clusters.vectors(np.asarray(facts.look)),
        "features": inception,
    }


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One set: its framing, and how well each method's clusters agree with it."""
    source, cut = {"drawn": drawn, "real": real}[name](args)
    crops = photos.crops(source, functools.partial(cropped_boxes.box, size=SIZE), "box", None)
    begun = time.monotonic()
    facts = filters.survey(source, crops, functools.partial(segment.cut_out, size=SMALL))
    seconds = {"cutting out": round(time.monotonic() - begun, 1)}
    share = filters.shares(facts)
    by_box = share >= args.near
    near = by_box if cut is None else cut[crops.photo]
    methods: dict[str, Any] = {}
    made = vectors(args, crops, facts)
    for method in args.methods.split(","):
        begun = time.monotonic()
        x, told = made[method](), np.ones(len(near), bool)
        if method == "segments":  # those of which no dog was cut out are in no cluster
            told = segment.told(np.asarray(facts.look))
        rows = methods[method] = {
            "clustered": int(told.sum()),
            "purity_of_one_cluster": one_cluster(near[told]),
        }
        for k in CLUSTERS:
            found = clusters.cluster(x, told, COMPONENTS, k, args.seed)
            rows[f"k={k}"] = {
                **agreement(found.number[told], near[told]),
                "breeds": agreement(found.number[told], crops.label[told]),
                "explained_variance": found.explained,
            }
        seconds[method] = round(time.monotonic() - begun, 1)
        print(name, method, json.dumps(rows), flush=True)
    return {
        "source": source.key,
        "crops": len(crops.image),
        "near": int(near.sum()),
        "framing": "share of the box in its photo" if cut is None else "cut to the middle, or not",
        "share_quartiles": np.percentile(share, [0, 25, 50, 75, 100]).round(4).tolist(),
        "near_by_box_share": int(by_box.sum()),
        "purity_of_one_cluster": one_cluster(near),
        "methods": methods,
        "seconds": seconds,
    }


def main() -> None:
    args = parse()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    found = {
        "commit": commit,
        "n": args.n,
        "seed": args.seed,
        "near_from_share": args.near,
        "crop_pixels": SIZE,
        "pixels_looked_at": SMALL,
        "components": COMPONENTS,
        "sets": {},
    }
    for name in args.only.split(","):
        found["sets"][name] = measured(name, args)
        pathlib.Path(args.out).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
