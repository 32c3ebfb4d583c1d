"""CIFAR-10 numbers that torch-fidelity publishes, made again here; for who has the data and the weights.

    python experiments/scorer/cifar10.py cifar-10-binary.tar.gz [--weights FILE]

The archive is the "binary version" of CIFAR-10. 5,000 pictures of the training and 5,000 of the test set are
drawn as torch-fidelity's tests draw them; each row says what we get, what is published, and how far apart
they may be. Exits with 1 if a row is further apart.
"""

import argparse
import pathlib
import sys
import tarfile

import jax
import numpy as np

from jaxdog import sharding
from jaxdog.evaluation import evaluate
from jaxdog.metrics import features, fid, inception_score, kid, prdc
from jaxdog.metrics.backbones import networks

SEED, LIMIT = 2020, 5000
RECORD = 1 + 3 * 32 * 32  # bytes: class, then red, green and blue planes


def pictures(archive: str, names: list[str]) -> np.ndarray:
    """[n, 32, 32, 3] uint8, in the order of the files."""
    with tarfile.open(archive) as tar:
        members = {pathlib.PurePosixPath(member.name).name: member for member in tar if member.isfile()}
        parts = []
        for name in names:
            opened = tar.extractfile(members[name]) if name in members else None
            if opened is None:
                sys.exit(f"{archive} has no file {name}: it is not the binary version of CIFAR-10")
            parts.append(np.frombuffer(opened.read(), np.uint8).reshape(-1, RECORD)[:, 1:])
    planes = np.concatenate(parts).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--weights", default="published")
    options = parser.parse_args()
    train = pictures(options.archive, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test = pictures(options.archive, ["test_batch.bin"])
    draws = [np.random.RandomState(SEED) for _ in range(2)]
    train = train[draws[0].choice(len(train), LIMIT, replace=False)]
    test = test[draws[1].choice(len(test), LIMIT, replace=False)]
    weights = networks.load("inception", options.weights, pathlib.Path("~/.cache/jaxdog").expanduser())
    if weights.kind != "published":
        sys.exit(f"the weights are of kind {weights.kind!r}; the numbers hold for the published ones")
    extractor = evaluate.Extractor("inception", weights, sharding.mesh(), 100)
    one, two = extractor.of_images(train, "train"), extractor.of_images(test, "test")
    pool, other = one["pool_3"], two["pool_3"]
    logits = one[features.LOGITS][np.random.RandomState(SEED).permutation(LIMIT)]
    distance = jax.jit(lambda r, f: fid.frechet(fid.factor(r), fid.factor(f)))(other, pool)
    score = inception_score.inception_score(jax.numpy.asarray(logits))
    kernel = jax.jit(kid.kid)(pool, other, kid.draw(LIMIT, LIMIT, seed=SEED))
    balls = jax.jit(prdc.prdc)(other, pool)
    rows = [
        ("FID", distance, 10.3233274, 1e-3),
        ("Inception Score", score.mean, 10.75051, 1e-2),
        ("Inception Score, std", score.std, 0.5778723, 1e-2),
        ("KID", kernel.mean, -2.907863e-05, 1e-6),
        ("KID, std", kernel.std, 1.023118e-04, 1e-6),
        ("precision", balls.precision, 0.6852, 1e-3),
        ("recall", balls.recall, 0.6908, 1e-3),
    ]
    wrong = 0
    for name, x, published, tolerance in rows:
        apart = abs(float(x) - published)
        wrong += apart > tolerance
        print(f"{name:<22}{float(x):>16.8g}{published:>16.8g}  apart {apart:.2g}, at most {tolerance:g}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
