"""How much each cause of differing FIDs matters, on real dogs.

    python experiments/scorer/effects.py WEIGHTS [--fake images.zip] [--n 1000] [--out OUT]

Two disjoint sets of N photos, squashed to 64x64, or N photos and N images of a zip. One thing changes at a
time: the resize before Inception, the file format, the number of images, the real side, the weights, the
precision, or the formula. Rows that have the same images share their features, so that a difference is that
thing's alone. Features are kept in a folder, so that an interrupted run goes on. Without --fake, the table is
also written into docs/metrics.md.
"""

import argparse
import dataclasses
import io
import pathlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import scipy.linalg

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog.data import crop_dataset, crop_recipes, image_files, sources  # noqa: E402
from jaxdog.metrics import features, fid  # noqa: E402
from jaxdog.metrics.backbones import inception, inception_weights, networks  # noqa: E402
from jaxdog.utils import files  # noqa: E402

PAGE = HERE.parent.parent / "docs" / "metrics.md"
SIZE, BATCH = 64, 8
LAYERS = {"mixed_7": "fid768", "pool_3": "fid2048"}
Images = np.ndarray  # [n, 64, 64, 3], uint8, or float32 in 0..255
Prepare = Callable[[Any], Any]  # images to the network's input [n, 299, 299, 3]


@dataclasses.dataclass(frozen=True)
class Network:
    """Inception as one program runs it."""

    params: Any
    cache: pathlib.Path  # folder of features
    prepare: Prepare = inception.preprocess
    cast: Callable[[jax.Array], jax.Array] = lambda x: x  # of weights and of the input of each convolution

    def features(self, images: Images, name: str) -> dict[str, np.ndarray]:
        """Layer -> [n, d] of all images, read from the folder if they are there."""
        path = self.cache / f"{name}.npz"
        if path.exists():
            with np.load(path) as stored:
                return dict(stored)
        params = jax.tree.map(self.cast, self.params)

        def cast_input(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, inception.Conv) and context.method_name == "__call__":
                args = (self.cast(args[0]),)
            return next_fun(*args, **kwargs)

        @jax.jit
        def forward(x: jax.Array) -> dict[str, jax.Array]:
            with nn.intercept_methods(cast_input):
                found = inception.Inception().apply({"params": params}, x)
            assert isinstance(found, dict)
            return {layer: found[layer].astype(jnp.float32) for layer in LAYERS}

        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
        parts = [jax.device_get(forward(self.prepare(batch))) for batch in batches]
        print(name, len(images), flush=True)
        found = {layer: np.concatenate([part[layer] for part in parts]) for layer in LAYERS}
        with files.atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **found)
        return found

    def both(self, real: Images, fake: Images, name: str) -> tuple[dict[str, np.ndarray], ...]:
        """The features of both sides."""
        return self.features(real, f"{name}, real"), self.features(fake, f"{name}, fake")


# Inputs -----------------------------------------------------------------------------------------------------


def half_pixel(image: Images) -> jax.Array:
    """Bilinear with pixel centers, as torch.nn.functional.interpolate does."""
    shape = (image.shape[0], inception.SIZE, inception.SIZE, 3)
    return (jax.image.resize(image.astype(jnp.float32), shape, "linear", antialias=False) - 128.0) / 128.0


def pillow_bicubic(image: Images) -> np.ndarray:
    """Pillow's bicubic filter in float32, as clean-fid does."""

    def resize(plane: np.ndarray) -> np.ndarray:
        size = (inception.SIZE, inception.SIZE)
        return np.asarray(PIL.Image.fromarray(plane).resize(size, PIL.Image.Resampling.BICUBIC))

    planes = [[resize(plane) for plane in x.transpose(2, 0, 1)] for x in image.astype(np.float32)]
    return (np.clip(np.array(planes).transpose(0, 2, 3, 1), 0, 255) - 128.0) / 128.0


def tf32(x: jax.Array) -> jax.Array:
    """Rounded to the ten bits of mantissa that tensor cores multiply."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return jax.lax.bitcast_convert_type((bits + 0x1000) & jnp.uint32(0xFFFFE000), jnp.float32)


def bfloat16(x: jax.Array) -> jax.Array:
    """Rounded to bfloat16; sums stay in float32."""
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def jpeg(images: Images, quality: int) -> Images:
    """The images after JPEG."""

    def one(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(PIL.Image.open(buffer).convert("RGB"))

    return np.stack([one(image) for image in images])


# Formulas ---------------------------------------------------------------------------------------------------


def moments(x: np.ndarray, ddof: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance in float64."""
    return x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False, ddof=ddof)


def by_sqrtm(
    real: np.ndarray, fake: np.ndarray, ddof: int = 1, eps: float = 0.0, dtype: Any = float
) -> float:
    """The textbook formula with scipy's square root of the product of covariances."""
    (m1, c1), (m2, c2) = moments(real, ddof), moments(fake, ddof)
    diagonal = eps * np.eye(len(c1))
    root: Any = scipy.linalg.sqrtm(((c1 + diagonal) @ (c2 + diagonal)).astype(dtype))
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2.0 * np.trace(root.real))


# The table --------------------------------------------------------------------------------------------------


def score(real: dict[str, np.ndarray], fake: dict[str, np.ndarray]) -> dict[str, float]:
    """Both distances."""
    return {name: fid.frechet_exact(real[layer], fake[layer]) for layer, name in LAYERS.items()}


def in_parts(real: dict[str, np.ndarray], fake: dict[str, np.ndarray], count: int) -> dict[str, float]:
    """Mean distances of `count` disjoint parts of the generated side."""
    parts = [{layer: x[i::count] for layer, x in fake.items()} for i in range(count)]
    found = [score(real, part) for part in parts]
    return {name: float(np.mean([row[name] for row in found])) for name in LAYERS.values()}


def table(rows: dict[str, dict[str, float]], kind: str) -> str:
    """Both scores of each row, and by how much they differ from the first row's, as Markdown."""
    base, *_ = rows.values()
    lines = []
    for name, row in rows.items():
        changes = [100.0 * (row[key] / base[key] - 1.0) for key in row]
        pairs = zip(row.values(), changes, strict=True)
        cells = [cell for value, change in pairs for cell in (f"{value:.4f}", f"{change:+.2f} %")]
        lines.append([name, *cells])
    names = [features.metric_name(name, kind, layer) for layer, name in LAYERS.items()]
    return trial.markdown(["what differs", names[0], "", names[1], ""], lines)


def main() -> None:
    """Computes all rows."""
    parser = trial.command_line(__doc__)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("--fake", help="images.zip of a trained model, in place of other photos")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument(
        "--features", type=pathlib.Path, default="runs/effects", help="where features are kept"
    )
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "effects.json")
    args = parser.parse_args()
    weights = networks.load("inception", args.weights, pathlib.Path.home())
    rows = compute(args, weights.params)
    fake = "a generator's samples" if args.fake else "other photos"
    trial.write(args.out, {"n": args.n, "fake": fake, "weights": weights.kind, "rows": rows})
    text = table(rows, weights.kind)
    print(text)
    if not args.fake:
        trial.replace_block(PAGE, "effects", text)


def compute(args: argparse.Namespace, params: Any) -> dict[str, dict[str, float]]:
    """The scores of each row."""
    n, source = args.n, sources.tfds()
    order = np.random.RandomState(2).permutation(len(source.photos))[: 2 * n]
    photos = [source.photos[int(i)].read() for i in order]

    def crops(recipe: Any, some: list[np.ndarray], **settings: Any) -> Images:
        return np.stack([recipe(photo, size=SIZE, **settings)[0].image for photo in some])

    real = crops(crop_recipes.squash, photos[:n])
    fake = crops(crop_recipes.squash, photos[n:])
    if args.fake:
        fake = crop_dataset.load(image_files.source(args.fake), crop_recipes.as_is, "", None).image[:n]
    folder = args.features / f"{n}{'-samples' if args.fake else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    base = Network(params, folder)
    a, b = base.both(real, fake, "as jaxdog computes it")
    rows: dict[str, dict[str, float]] = {"as jaxdog computes it": score(a, b)}
    for name, prepare in {"bilinear, pixel centers": half_pixel, "bicubic": pillow_bicubic}.items():
        other = dataclasses.replace(base, prepare=prepare)
        there, here = other.both(real, fake, name)
        rows[f"resized to 299: {name}"] = score(there, here)
        rows[f"resized to 299: {name}, generated side only"] = score(a, here)
    for quality in (95, 75):
        found = base.features(jpeg(fake, quality), f"JPEG {quality}")
        rows[f"generated images as JPEG, quality {quality}"] = score(a, found)
    truncated = base.features(fake.astype(np.float32) - 0.5, "truncated")
    rows["generated images half a level darker, as truncation makes them"] = score(a, truncated)
    for count in (2, 4):
        rows[f"generated images: {n // count}"] = in_parts(a, b, count)
    rows[f"real images: {n // 2}"] = in_parts(b, a, 2)
    squares = crops(crop_recipes.short_side_center, photos[:n])
    cropped = base.features(squares, "squares")
    rows["real side: middle squares of the photos"] = score(cropped, b)
    tf1 = base.features(crops(crop_recipes.squash, photos[:n], resampler="tf1-bilinear"), "tf1")
    rows["real side: squashed by TensorFlow 1's bilinear resize"] = score(tf1, b)
    for name, cast in {"TF32": tf32, "bfloat16": bfloat16}.items():
        other = dataclasses.replace(base, cast=cast)
        rows[f"products in {name}"] = score(*other.both(real, fake, name))
    random = dataclasses.replace(base, params=inception_weights.random().params)
    rows["random weights"] = score(*random.both(real, fake, "random"))
    formulas: dict[str, Callable[..., float]] = {
        "float64, matrix square root": by_sqrtm,
        "covariances divided by n": partial(by_sqrtm, ddof=0),
        "1e-6 on the diagonals": partial(by_sqrtm, eps=1e-6),
        "the product of covariances in float32": partial(by_sqrtm, dtype=np.float32),
    }
    for name, formula in formulas.items():
        rows[f"formula: {name}"] = {key: formula(a[layer], b[layer]) for layer, key in LAYERS.items()}
        print(name, flush=True)
    return rows


if __name__ == "__main__":
    main()
