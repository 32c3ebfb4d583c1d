"""Draws and scores pictures of a generator that was trained elsewhere by run.py: float32, with real weights.

    python experiments/gpu/score.py --from DIR --samples 10000 --weights FOLDER --archives FOLDER

DIR holds row.json and the parts ema*.npz. The score goes to DIR/score.json, a sheet to DIR/final.png.
"""

import importlib
import json
import pathlib
import sys

import flax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog import ema  # noqa: E402


def main() -> None:
    """Builds the config that was trained, puts the average in, scores it."""
    parser = trial.parser(__doc__)
    parser.add_argument("--from", type=pathlib.Path, required=True, dest="folder")
    args = parser.parse_args()
    row = json.loads((args.folder / "row.json").read_text())
    config = importlib.import_module(f"configs.{row['config']}").get_config()
    changes = {name: tuple(x) if isinstance(x, list) else x for name, x in row["changes"].items()}
    trial.shorten(config, args, **changes)
    config.dtype = "float32"
    leaves: dict = {}
    for path in sorted(args.folder.glob("ema*.npz")):
        leaves |= dict(np.load(path))
    average = flax.traverse_util.unflatten_dict(leaves, sep="/")
    tried = trial.Trial(config, pathlib.Path(args.runs) / "score")
    tried.begin()
    tried.state = tried.state.replace(ema=ema.Average(average["params"], average.get("stats", {})))
    found = tried.score(args.samples)
    tried.grid(args.folder / "final.png", 120)
    (args.folder / "score.json").write_text(json.dumps(found, indent=1, default=float) + "\n")
    print(json.dumps(found, indent=1, default=float))


if __name__ == "__main__":
    main()
