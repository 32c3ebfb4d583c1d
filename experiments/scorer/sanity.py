"""What the scores say of real photos, damaged ones, copies and a GAN's samples.

    python experiments/scorer/sanity.py REAL WEIGHTS [--gan images.zip] [--n 400] [--out OUT]

REAL is a file of features of all photos of prepared Stanford Dogs, squashed to 64x64 (jaxdog-score
--save_real). N random photos are held out and damaged; the rest is the real set and the source of the
copies. Every row has the same number of images, so that FID has the same bias.
"""

import argparse
import io
import json
import pathlib
from collections.abc import Callable
from functools import partial

import numpy as np
import PIL.Image
import PIL.ImageFilter

from jaxdog import sharding
from jaxdog.data import crop_dataset, crop_recipes, image_files, sources
from jaxdog.evaluation import copies, feature_extractor, metric_suite
from jaxdog.memorizers import baselines
from jaxdog.metrics import features
from jaxdog.metrics.backbones import networks

SIZE, BATCH = 64, 16


def jpeg(image: PIL.Image.Image, quality: int) -> PIL.Image.Image:
    """An image after JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return PIL.Image.open(buffer).convert("RGB")


def blur(image: PIL.Image.Image, radius: float) -> PIL.Image.Image:
    """An image after Gaussian blur."""
    return image.filter(PIL.ImageFilter.GaussianBlur(radius))


def damaged(images: np.ndarray) -> dict[str, np.ndarray]:
    """The images after JPEG, blur and noise of growing strength."""

    def each(change: Callable[[PIL.Image.Image], PIL.Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(change(PIL.Image.fromarray(image))) for image in images])

    sets = {"as they are": images}
    sets |= {f"JPEG quality {x}": each(partial(jpeg, quality=x)) for x in (75, 40, 10)}
    sets |= {f"Gaussian blur, {x} px": each(partial(blur, radius=x)) for x in (0.5, 1.0, 2.0)}
    for sigma in (5, 15, 40):
        noise = np.random.RandomState(0).normal(0, sigma, images.shape)
        sets[f"noise, sigma {sigma}"] = np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)
    return sets


def main() -> None:
    """Scores all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("real", help="features of all squashed photos, in the order of tfds")
    parser.add_argument("weights")
    parser.add_argument("--gan", help="images.zip of a trained model")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--out", type=pathlib.Path, default="experiments/scorer/sanity.json")
    args = parser.parse_args()
    n, mesh, source = args.n, sharding.make_mesh(), sources.tfds()
    order = np.random.RandomState(1).permutation(len(source.photos))  # photos are sorted by class
    is_train = np.ones(len(order), bool)
    is_train[order[:n]] = False
    real = features.select(features.load(args.real), is_train)
    training = source._replace(photos=[source.photos[int(i)] for i in np.flatnonzero(is_train)])
    held_out = [source.photos[int(i)].read() for i in np.flatnonzero(~is_train)]
    held_out = np.stack([crop_recipes.squash(photo, size=SIZE)[0].image for photo in held_out])
    sets = {f"held out, {name}": images for name, images in damaged(held_out).items()}
    for recipe in baselines.IMITATIONS:
        sets[f"imitation, {recipe}"] = baselines.imitation(training, recipe, n, SIZE).image
    for recipe in baselines.MEMORIZERS:
        sets[f"memorizer, {recipe}"] = baselines.memorizer(training, recipe, n, SIZE).image
    if args.gan:
        samples = crop_dataset.load(image_files.source(args.gan), crop_recipes.as_is, "", None).image
        sets["a GAN's samples"] = samples[np.linspace(0, len(samples) - 1, n).astype(int)]
    weights = networks.load("inception", args.weights, pathlib.Path.home())
    extractor = feature_extractor.FeatureExtractor("inception", weights, mesh, BATCH)
    suite = metric_suite.MetricSuite(real, mesh)
    views = partial(crop_recipes.whole_and_boxes, size=SIZE)
    parts = crop_dataset.load(training, views, crop_recipes.cache_key(views), None)
    rows: dict[str, dict] = {}
    for name, images in sets.items():
        spec = extractor.spec(f"{SIZE}x{SIZE}", "none", name)
        fake = features.Features(extractor.extract(images), spec)
        rows[name] = dict(suite.scores(fake, ("mifid", "kid", "prdc")).scores)
        if not name.startswith("held out") or name.endswith("as they are"):
            result = copies.find_copies(images, parts.image, parts.photo, mesh, fake, real)
            facts = copies.summary(result, parts)
            rows[name]["copies"] = {key: x for key, x in facts.items() if key != "evidence"}
        print(name, rows[name], flush=True)
        args.out.write_text(json.dumps({"n": n, "real": real.count, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
