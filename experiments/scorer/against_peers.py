"""Every score of real dogs against real dogs, ours and an independent implementation's, in one run.

    python experiments/scorer/against_peers.py FEATURES [--pictures IMAGES --weights FOLDER] [--out OUT]

FEATURES is a file of features of real photos (jaxdog-score --save_real); its even rows are one half, its odd
rows the other. Each measurement has a process of its own, which reports its value, the seconds of the score
alone (compiling included) and its peak memory above what it held before. With IMAGES, a uint8 array of
pictures (.npy), both sides also go from pictures to FID with the same weights.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

LAYER = {"fid768": "mixed_7"}
MEASURES = ("fid768", "fid2048", "memorization_distance", "kid", "inception_score", "precision_recall")
MEASURES += ("density_coverage",)


def halves(path: str, layer: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as stored:
        rows = stored[layer]
    return np.ascontiguousarray(rows[::2]), np.ascontiguousarray(rows[1::2])


def logits(pool: np.ndarray) -> np.ndarray:
    """The fitted weights have no classifier: a fixed random one gives the score something to work on."""
    head = np.random.RandomState(0).normal(size=(pool.shape[1], 1008)).astype(np.float32) * 0.05
    return pool @ head


def ours(name: str, real: np.ndarray, fake: np.ndarray) -> list[float]:
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


def memorization_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The competition's recipe, word by word in float64 numpy."""
    real, fake = (x.astype(np.float64)[x.sum(axis=1) != 0] for x in (real, fake))
    real, fake = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (real, fake))
    return float(np.mean(np.min(1.0 - np.abs(np.matmul(fake, real.T)), axis=1)))


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> list[float]:
    """Naeem et al.'s definition on sklearn's distances."""
    from sklearn.metrics import pairwise_distances

    radius = np.partition(pairwise_distances(real, n_jobs=-1), k, axis=1)[:, k]
    inside = pairwise_distances(real, fake, n_jobs=-1) < radius[:, None]
    return [float(inside.sum(axis=0).mean() / k), float(inside.any(axis=1).mean())]


def peer(name: str, real: np.ndarray, fake: np.ndarray) -> list[float]:
    from tests import oracles

    if name == "memorization_distance":
        return [memorization_distance(real, fake)]
    if name == "density_coverage":
        return density_coverage(real, fake)
    if name.startswith("fid"):
        _, metric = oracles.torch_fidelity("metric_fid")
        torch, _ = oracles.torch_fidelity("metric_fid")
        sides = [metric.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
        return list(metric.fid_statistics_to_metric(*sides, False).values())
    if name == "kid":
        torch, metric = oracles.torch_fidelity("metric_kid")
        found = metric.kid_features_to_metric(torch.from_numpy(real), torch.from_numpy(fake), verbose=False)
    elif name == "inception_score":
        torch, metric = oracles.torch_fidelity("metric_isc")
        found = metric.isc_features_to_metric(torch.from_numpy(fake), 10, shuffle=False)
    else:
        torch, metric = oracles.torch_fidelity("metric_prc")
        sides = (torch.from_numpy(fake), torch.from_numpy(real))
        found = metric.prc_features_to_metric(*sides, verbose=False, save_cpu_ram=True)
    return list(found.values())[:2]


def pictures_ours(images: np.ndarray, weights_folder: str, _: int) -> list[float]:
    from jaxdog.evaluation import score_files

    with tempfile.TemporaryDirectory() as cache:
        options = score_files.Options(weights=weights_folder, metrics=("mifid",), cache_dir=cache)
        return [score_files.score(images[::2], images[1::2], options)["fid2048_approx"]]


def pictures_peer(images: np.ndarray, weights_folder: str, batch: int) -> list[float]:
    """torch-fidelity with the same kernels, batch norm that changes nothing beside them."""
    from jaxdog.metrics.backbones import inception_weights
    from tests import oracles

    torch, extractor = oracles.torch_fidelity("feature_extractor_inceptionv3")
    _, metric = oracles.torch_fidelity("metric_fid")
    known, state = inception_weights.load(weights_folder).params, {}
    for unit, prefix in inception_weights.torch_names().items():
        kernel, bias = (torch.from_numpy(np.array(known[unit][leaf])) for leaf in ("kernel", "bias"))
        state[f"{prefix}.conv.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        state[f"{prefix}.bn.weight"] = torch.full_like(
            bias, np.sqrt(1 + inception_weights.BATCH_NORM_EPSILON)
        )
        state[f"{prefix}.bn.bias"] = bias
        state[f"{prefix}.bn.running_mean"] = torch.zeros_like(bias)
        state[f"{prefix}.bn.running_var"] = torch.ones_like(bias)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.pth")
        torch.save(state, path)
        net = extractor.FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=path, verbose=False
        )
    sides = []
    for part in (images[::2], images[1::2]):
        rows = []
        with torch.no_grad():
            for start in range(0, len(part), batch):
                rows.append(net(torch.from_numpy(part[start : start + batch]).permute(0, 3, 1, 2))[0])
        sides.append(metric.fid_features_to_statistics(torch.cat(rows)))
    return list(metric.fid_statistics_to_metric(*sides, False).values())


def measure(name: str, who: str, options: argparse.Namespace) -> dict:
    """In a process of its own: value, seconds, MB above the arrays."""
    if name == "pictures_to_fid2048":
        images = np.load(options.pictures)
        function = pictures_ours if who == "ours" else pictures_peer
        arguments = images, options.weights, options.peer_batch
    else:
        real, fake = halves(options.features, LAYER.get(name, "pool_3"))
        if name == "inception_score":
            fake = logits(fake)
        function, arguments = (ours if who == "ours" else peer), (name, real, fake)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    value = function(*arguments)
    seconds = time.monotonic() - begun
    return {
        "value": value,
        "seconds": seconds,
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("features")
    parser.add_argument("--pictures")
    parser.add_argument("--weights")
    parser.add_argument("--peer_batch", type=int, default=16, help="pictures torch-fidelity sees together")
    parser.add_argument("--out", default="experiments/scorer/against_peers.json")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print("RESULT " + json.dumps(measure(*options.only, options)))
        return
    rows = {}
    for name in (*MEASURES, *(["pictures_to_fid2048"] if options.pictures else [])):
        rows[name] = {}
        for who in ("ours", "peer"):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name, who]
            root = pathlib.Path(__file__).resolve().parents[2]
            done = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                sys.exit(f"{name} {who}: {done.stderr[-2000:]}")
            rows[name][who] = json.loads(lines[0].removeprefix("RESULT "))
        print(name, rows[name], flush=True)
    pathlib.Path(options.out).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
