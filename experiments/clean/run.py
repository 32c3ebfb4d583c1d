"""Do clusters of crops separate near from far dogs? Purity of each method's clusters for a known framing.

    JAXDOG_DATA=DATA python experiments/clean/run.py --n 600

DATA holds stanford_dogs/ (the three archives) and inception/ (weights). Two sets:

  drawn  drawn dogs, whose boxes cover a known fraction of their photos: near from --near on
  real   N Stanford Dogs, every second one of a random order cut to its middle and a little above: near by
         construction, because photos that are cut to their boxes already have no framing of their own

Every method of mode clean, with 2 and 8 clusters. framing.json holds the results.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog import sharding  # noqa: E402
from jaxdog.cleaning import clusters, filters, segment  # noqa: E402
from jaxdog.data import crop_dataset, crop_recipes, photos, sources, toy  # noqa: E402
from jaxdog.evaluation import feature_extractor  # noqa: E402
from jaxdog.metrics.backbones import networks  # noqa: E402

SIZE, VIEW_SIZE = 64, 32  # of crops; of what pixels and segments see
NUM_COMPONENTS, NUM_CLUSTERS = 64, (2, 8)
MIDDLE = (0.08, 0.25, 0.58, 0.75)  # top, left, bottom, right of what is left of a near photo
SETS, METHODS = ("drawn", "real"), ("pixels", "segments", "features")
BATCH = 16  # images in Inception at a time


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.command_line(__doc__)
    parser.add_argument("--n", type=int, default=1500, help="photos of each set, from 16 to 3000")
    parser.add_argument(
        "--near", type=float, default=0.4, help="fraction of the photo from which a dog is near"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=trial.selection(SETS), default=SETS, help="sets")
    parser.add_argument("--methods", type=trial.selection(METHODS), default=METHODS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "framing.json")
    args = parser.parse_args()
    if not 16 <= args.n <= 3000:
        parser.error(f"--n is {args.n}, and must be from 16 to 3000")
    return args


def data_folder() -> pathlib.Path:
    """JAXDOG_DATA."""
    if not (folder := os.environ.get("JAXDOG_DATA")):
        sys.exit("set JAXDOG_DATA to the folder of stanford_dogs/ and inception/")
    return pathlib.Path(folder)


def real_photos(n: int, seed: int) -> tuple[photos.Source, np.ndarray]:
    """Photos spread evenly over all classes, and which of them are cut to be near."""
    source = sources.tfds(archives=data_folder() / "stanford_dogs")
    chosen = np.linspace(0, len(source.photos) - 1, n).round().astype(int)
    near = np.random.default_rng(seed).permutation(n) % 2 == 0

    def photo(i: int) -> photos.Photo:
        whole = source.photos[int(chosen[i])]
        read = functools.partial(read_middle, whole.read) if near[i] else whole.read
        return whole._replace(boxes=(), read=read)

    return source._replace(key=f"{source.key}, framed", photos=sources.Lazy(n, photo)), near


def read_middle(read: Callable[[], np.ndarray]) -> np.ndarray:
    """The part of a photo where the head of a standing dog mostly is."""
    image = read()
    h, w, _ = image.shape
    top, left, bottom, right = (round(f * n) for f, n in zip(MIDDLE, (h, w, h, w), strict=True))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def agreement(cluster: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Purity (fraction of crops in the majority of their cluster), and the Rand index adjusted for chance."""
    table = metrics.cluster.contingency_matrix(truth, cluster)
    return {
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "adjusted_rand": float(metrics.adjusted_rand_score(truth, cluster)),
    }


def vectors_of(method: str, image: np.ndarray, cut_outs: np.ndarray) -> np.ndarray:
    """float32 [n, d] to cluster."""
    if method == "pixels":
        return clusters.pixel_vectors(image, VIEW_SIZE)
    if method == "segments":
        return clusters.to_vectors(cut_outs)
    weights = networks.load("inception", str(data_folder() / "inception"), pathlib.Path.home())
    extractor = feature_extractor.FeatureExtractor("inception", weights, sharding.make_mesh(), BATCH)
    return extractor.extract(image)["pool_3"]


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One set: its framing, and how well each method's clusters agree with it."""
    source, is_cut = real_photos(args.n, args.seed) if name == "real" else (toy.dogs(args.n, args.seed), None)
    crops = crop_dataset.load(source, functools.partial(crop_recipes.box, size=SIZE), "box", None)
    facts = filters.measure(source, crops, functools.partial(segment.cut_out, size=VIEW_SIZE))
    fraction, cut_outs = filters.area_fractions(facts), np.asarray(facts.view)
    near = fraction >= args.near if is_cut is None else is_cut[crops.photo]
    methods: dict[str, Any] = {}
    for method in args.methods:
        # Crops in which no dog was found are in no cluster of segments.
        among = segment.is_segmented(cut_outs) if method == "segments" else np.ones(len(near), bool)
        vectors = vectors_of(method, crops.image, cut_outs)
        share = near[among].mean()
        rows = methods[method] = {
            "clustered": int(among.sum()),
            "purity_of_one_cluster": float(max(share, 1 - share)),
        }
        for k in NUM_CLUSTERS:
            found = clusters.fit_and_assign(vectors, among, NUM_COMPONENTS, k, args.seed)
            rows[f"k={k}"] = {
                **agreement(found.cluster[among], near[among]),
                "classes": agreement(found.cluster[among], crops.label[among]),
                "explained_variance": found.explained_variance,
            }
        print(name, method, json.dumps(rows), flush=True)
    return {
        "source": source.key,
        "crops": len(crops.image),
        "near": int(near.sum()),
        "framing": "fraction of the box in its photo" if is_cut is None else "cut to the middle, or not",
        "area_fraction_quartiles": np.percentile(fraction, [0, 25, 50, 75, 100]).round(4).tolist(),
        "methods": methods,
    }


def main() -> None:
    """Measures the sets."""
    args = parse()
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=trial.ROOT, capture_output=True, text=True, check=False).stdout
    sets: dict[str, Any] = {}
    for name in args.only:
        sets[name] = measure(name, args)
        settings = {"commit": commit.strip(), "n": args.n, "seed": args.seed, "near_from": args.near}
        trial.write(args.out, {**settings, "sets": sets})


if __name__ == "__main__":
    main()
