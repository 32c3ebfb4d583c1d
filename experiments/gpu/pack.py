"""The crops that a config trains on as a zip of WebP pictures, a folder per breed: small enough to travel.

    python experiments/gpu/pack.py --config biggan --archives FOLDER --out .pack/crops.zip

Pictures are at `config.data.store_size`. WebP loses a little: --quality 100 is still lossy, 22,125 crops of
64 pixels take about 40 MB at 90. Unpacked, they are what `config.data.source = "folder"` reads.
"""

import argparse
import importlib
import io
import pathlib
import sys
import zipfile

from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from jaxdog.config import build  # noqa: E402
from jaxdog.data import cropping, photos  # noqa: E402


def main() -> None:
    """Crops, encodes, and says how large it has become."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="biggan", help="a file of configs/")
    parser.add_argument("--archives", default="", help="as data.archives")
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".pack/crops.zip"))
    args = parser.parse_args()
    config = importlib.import_module(f"configs.{args.config}").get_config()
    config.data.archives = args.archives
    data = build.check(config).data
    source, recipe = build.source(data), build.recipe(data)
    cache = pathlib.Path(data.cache_dir).expanduser() / "crops"
    crops = photos.crops(source, recipe, cropping.key(recipe), cache, data.workers or None)
    crops = build.curated(data)(crops)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.out, "w", zipfile.ZIP_STORED) as packed:
        for i, (image, label) in enumerate(zip(crops.image, crops.label, strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "WEBP", quality=args.quality, method=6)
            packed.writestr(f"{crops.breeds[label]}/{i:06d}.webp", encoded.getvalue())
    size = args.out.stat().st_size / 2**20
    print(f"{args.out}: {len(crops.image):,} crops of {crops.image.shape[1]} pixels, {size:.1f} MiB")


if __name__ == "__main__":
    main()
