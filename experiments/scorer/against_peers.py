"""Every score of real dogs against real dogs, ours and an independent implementation's, in one run.

    python experiments/scorer/against_peers.py FEATURES [--images IMAGES --weights FOLDER] [--out OUT]

FEATURES is a file of features of real photos (jaxdog-score --save_real); its even rows are compared with
its odd rows. Each measurement has a process of its own, which reports the value, the seconds of the score
alone (compilation included) and the peak memory above what the process held before. With IMAGES, an uint8
array (.npy), both sides also go from images to FID with the same weights.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

LAYERS = {
    "fid768": "mixed_7",
    **dict.fromkeys(("fid2048", "memorization_distance", "kid", "inception_score"), "pool_3"),
    **dict.fromkeys(("precision_recall", "density_coverage"), "pool_3"),
}
IMAGES = "pictures_to_fid2048"  # the measurement that starts from images
Arrays = tuple[np.ndarray, np.ndarray]  # the real and the generated side


def halves(path: str, name: str) -> Arrays:
    """Features of both sides."""
    with np.load(path) as stored:
        rows = stored[LAYERS[name]]
    real, fake = np.ascontiguousarray(rows[::2]), np.ascontiguousarray(rows[1::2])
    if name == "inception_score":  # logits of a fixed random head: the fitted weights have no classifier
        fake = fake @ np.random.RandomState(0).normal(size=(fake.shape[1], 1008)).astype(np.float32) * 0.05
    return real, fake


def ours(name: str, real: np.ndarray, fake: np.ndarray) -> list[float]:
    """jaxdog's score."""
    import jax

    from jaxdog.metrics import fid, inception_score, kid, mifid, prdc

    functions = {
        "fid768": lambda r, f: (fid.frechet(fid.factor(r), fid.factor(f)),),
        "fid2048": lambda r, f: (fid.frechet(fid.factor(r), fid.factor(f)),),
        "memorization_distance": lambda r, f: (mifid.memorization_distance(f, r),),
        "kid": lambda r, f: kid.kid(r, f, kid.draw(len(r), len(f))),
        "inception_score": lambda r, f: inception_score.inception_score(f),
        "precision_recall": lambda r, f: prdc.prdc(r, f)[:2],
        "density_coverage": lambda r, f: prdc.prdc(r, f, k=5, closed=False)[2:],
    }
    return [float(x) for x in jax.jit(functions[name])(real, fake)]


def memorization_distance(real: np.ndarray, fake: np.ndarray) -> list[float]:
    """The competition's definition in float64 numpy."""
    real, fake = (x.astype(np.float64)[x.sum(axis=1) != 0] for x in (real, fake))
    real, fake = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (real, fake))
    return [float(np.mean(np.min(1.0 - np.abs(np.matmul(fake, real.T)), axis=1)))]


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> list[float]:
    """Naeem et al.'s definition with scikit-learn's distances."""
    from sklearn.metrics import pairwise_distances

    radius = np.partition(pairwise_distances(real, n_jobs=-1), k, axis=1)[:, k]
    inside = pairwise_distances(real, fake, n_jobs=-1) < radius[:, None]
    return [float(inside.sum(axis=0).mean() / k), float(inside.any(axis=1).mean())]


def peer(name: str, real: np.ndarray, fake: np.ndarray) -> list[float]:
    """An independent implementation's score."""
    from tests import oracles

    own = {"memorization_distance": memorization_distance, "density_coverage": density_coverage}
    if name in own:
        return own[name](real, fake)
    modules = {"kid": "metric_kid", "inception_score": "metric_isc", "precision_recall": "metric_prc"}
    torch, metric = oracles.torch_fidelity(modules.get(name, "metric_fid"))
    real, fake = torch.from_numpy(real), torch.from_numpy(fake)
    if name == "kid":
        scores = metric.kid_features_to_metric(real, fake, verbose=False)
    elif name == "inception_score":
        scores = metric.isc_features_to_metric(fake, 10, shuffle=False)
    elif name == "precision_recall":
        scores = metric.prc_features_to_metric(fake, real, verbose=False, save_cpu_ram=True)
    else:
        sides = [metric.fid_features_to_statistics(x) for x in (real, fake)]
        scores = metric.fid_statistics_to_metric(*sides, False)
    return list(scores.values())[:2]


def ours_of_images(images: np.ndarray, weights: str, _: int) -> list[float]:
    """jaxdog's FID, from images."""
    from jaxdog.evaluation import score_files

    with tempfile.TemporaryDirectory() as cache:
        options = score_files.Options(weights=weights, metrics=("mifid",), cache_dir=cache)
        return [score_files.score(images[::2], images[1::2], options)["fid2048_approx"]]


def peer_of_images(images: np.ndarray, weights: str, batch: int) -> list[float]:
    """torch-fidelity's FID, from images, with the same kernels and batch norms that are identities."""
    from jaxdog.metrics.backbones import inception_weights
    from tests import oracles

    torch, extractor = oracles.torch_fidelity("feature_extractor_inceptionv3")
    _, metric = oracles.torch_fidelity("metric_fid")
    state = oracles.inception_state(inception_weights.load(weights).params)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.pth")
        torch.save(state, path)
        net = extractor.FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=path, verbose=False
        )
    sides = []
    for part in (images[::2], images[1::2]):
        batches = torch.from_numpy(part).permute(0, 3, 1, 2).split(batch)
        with torch.no_grad():
            sides.append(metric.fid_features_to_statistics(torch.cat([net(x)[0] for x in batches])))
    return list(metric.fid_statistics_to_metric(*sides, False).values())


def measure(name: str, who: str, args: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: value, seconds, MB above the arrays."""
    if name == IMAGES:
        function = ours_of_images if who == "ours" else peer_of_images
        given: tuple = np.load(args.images), args.weights, args.peer_batch
    else:
        function = ours if who == "ours" else peer
        given = name, *halves(args.features, name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    from experiments import timing

    value, seconds = timing.timed(lambda: function(*given))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"value": value, "seconds": seconds, "peak_mb": (peak - before) / 1e3}


def main() -> None:
    """Measures; writes OUT."""
    parser = trial.command_line(__doc__)
    parser.add_argument("features")
    parser.add_argument("--images")
    parser.add_argument("--weights")
    parser.add_argument("--peer_batch", type=int, default=16, help="images in torch-fidelity's Inception")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "against_peers.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print("RESULT " + json.dumps(measure(*args.one, args)))
        return
    rows: dict[str, dict[str, Any]] = {}
    for name in (*LAYERS, *([IMAGES] if args.images else [])):
        rows[name] = {}
        for who in ("ours", "peer"):
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name, who]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                sys.exit(f"{name} {who}: {done.stderr[-2000:]}")
            rows[name][who] = json.loads(lines[0].removeprefix("RESULT "))
        print(name, rows[name], flush=True)
    trial.write(args.out, rows)


if __name__ == "__main__":
    main()
