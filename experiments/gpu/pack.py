"""The training crops of a config as a small zip of WebP images, a folder per class.

    python experiments/gpu/pack.py --config biggan --archives FOLDER --out .pack/crops.zip

22,125 crops of 64 pixels take about 40 MB at --quality 90; WebP is lossy at 100, too. Unpacked, they are
read with config.data.source = "folder".
"""

import io
import pathlib
import sys
import zipfile

from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog.config import build  # noqa: E402
from jaxdog.data import crop_dataset, crop_recipes  # noqa: E402


def main() -> None:
    """Crops, encodes, prints the size."""
    parser = trial.command_line(__doc__)
    parser.add_argument("--config", default="biggan", help="a file of configs/")
    parser.add_argument("--archives", default="", help="data.archives")
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".pack/crops.zip"))
    args = parser.parse_args()
    config = trial.load_config(args.config)
    config.data.archives = args.archives
    data = build.check(config).data
    source, recipe = build.source(data), build.recipe(data)
    cache = pathlib.Path(data.cache_dir).expanduser() / "crops"
    crops = crop_dataset.load(source, recipe, crop_recipes.cache_key(recipe), cache, data.workers or None)
    crops = build.select_crops(data)(crops)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.out, "w", zipfile.ZIP_STORED) as packed:
        for i, (image, label) in enumerate(zip(crops.image, crops.label, strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "WEBP", quality=args.quality, method=6)
            packed.writestr(f"{crops.class_names[label]}/{i:06d}.webp", encoded.getvalue())
    size = args.out.stat().st_size / 2**20
    print(f"{args.out}: {len(crops.image):,} crops of {crops.image.shape[1]} pixels, {size:.1f} MiB")


if __name__ == "__main__":
    main()
