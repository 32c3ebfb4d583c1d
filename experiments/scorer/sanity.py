"""What the scores say of real photos, spoilt ones, copies and a GAN's pictures: a table to compare with.

    python experiments/scorer/sanity.py REAL WEIGHTS [--gan images.zip] [--n 400] [--out OUT]

REAL is a file of features of all photos of prepared Stanford Dogs, squashed to 64x64. N of them, drawn at
random, are held out and spoilt; the rest is the real side, and cheats are made from it. Every row has the
same number of pictures, so the bias of few pictures is the same.
"""

import argparse
import io
import json
import pathlib
from functools import partial

import numpy as np
import PIL.Image
import PIL.ImageFilter

from jaxdog import sharding
from jaxdog.data import cropping, image_files, photos, sources
from jaxdog.evaluation import copies, evaluate, metric_suite
from jaxdog.memorizers import baselines
from jaxdog.metrics import features
from jaxdog.metrics.backbones import networks

SIZE = 64


def spoilt(images: np.ndarray) -> dict[str, np.ndarray]:
    """The same pictures through ever stronger JPEG, blur and noise."""

    def each(change) -> np.ndarray:
        return np.stack([np.asarray(change(PIL.Image.fromarray(image))) for image in images])

    def jpeg(quality: int):
        def change(picture: PIL.Image.Image) -> PIL.Image.Image:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality)
            return PIL.Image.open(buffer).convert("RGB")

        return change

    found = {"as they are": images}
    for quality in (75, 40, 10):
        found[f"JPEG quality {quality}"] = each(jpeg(quality))
    for radius in (0.5, 1.0, 2.0):
        found[f"Gaussian blur, {radius} px"] = each(
            lambda p, r=radius: p.filter(PIL.ImageFilter.GaussianBlur(r))
        )
    for sigma in (5, 15, 40):
        noise = np.random.RandomState(0).normal(0, sigma, images.shape)
        found[f"noise, sigma {sigma}"] = np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("real", help="file of features of all squashed photos, in the order of tfds")
    parser.add_argument("weights")
    parser.add_argument("--gan", help="images.zip of a trained model")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--out", default="experiments/scorer/sanity.json")
    options = parser.parse_args()
    n, over = options.n, sharding.mesh()
    source = sources.tfds()
    order = np.random.RandomState(1).permutation(len(source.photos))  # breeds come in order
    train, held = np.sort(order[n:]), np.sort(order[:n])
    everything = features.load(options.real)
    real = everything._replace(
        found={layer: x[train] for layer, x in everything.found.items()},
        label=None if everything.label is None else everything.label[train],
    )
    training = source._replace(photos=[source.photos[int(i)] for i in train])
    held_out = np.stack([cropping.squash(source.photos[int(i)].read(), size=SIZE)[0] for i in held])
    sets = {f"held out, {name}": images for name, images in spoilt(held_out).items()}
    for recipe in baselines.IMITATIONS:
        sets[f"imitation, {recipe}"] = baselines.imitation(training, recipe, n, SIZE).image
    for recipe in baselines.MEMORIZERS:
        sets[f"memorizer, {recipe}"] = baselines.memorizer(training, recipe, n, SIZE).image
    if options.gan:
        made = photos.crops(image_files.source(options.gan), image_files.as_is, "", None).image
        sets["a GAN's samples"] = made[np.linspace(0, len(made) - 1, n).astype(int)]
    extractor = evaluate.Extractor(
        "inception", networks.load("inception", options.weights, pathlib.Path.home()), over, 16
    )
    comparer = metric_suite.Comparer(real, over)
    views = partial(image_files.whole_and_boxes, size=SIZE)
    parts = photos.crops(training, views, cropping.key(views), None)
    rows = {}
    for name, images in sets.items():
        found = extractor.of_images(images)
        fake = features.Features(found, extractor.about(f"{SIZE}x{SIZE}", "none", name))
        rows[name] = dict(comparer.scores(fake, ("mifid", "kid", "prdc")).scores)
        if not name.startswith("held out") or name.endswith("as they are"):
            examined = copies.examine(images, parts.image, parts.photo, over, fake, real)
            told = copies.facts(examined, parts)
            del told["evidence"]
            rows[name]["forensics"] = told
        print(name, rows[name], flush=True)
        pathlib.Path(options.out).write_text(json.dumps({"n": n, "real": real.count, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
