"""Draws and scores pictures of a generator that was trained elsewhere: in float32, with real weights.

    python experiments/gpu/score.py --from DIR --samples 10000 --weights FOLDER --archives FOLDER

DIR is what experiments/record/run.py has handed out: config.json and the parts ema*.npz, of which `--track`'s
are taken. The score goes to DIR/score.json, a sheet to DIR/final.png.
"""

import importlib
import json
import pathlib
import sys

import flax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog import commands  # noqa: E402
from jaxdog.optim import ema  # noqa: E402


def main() -> None:
    """Builds the config that was trained, puts the average in, scores it."""
    parser = trial.parser(__doc__)
    parser.add_argument("--from", type=pathlib.Path, required=True, dest="folder")
    parser.add_argument("--track", type=int, default=0, help="of the averages that were handed out")
    args = parser.parse_args()
    config = commands.saved(args.folder)
    arm = json.loads((args.folder / "plan.json").read_text())["arm"]
    with config.unlocked():  # the photos are here, where packed crops were there
        config.data = importlib.import_module(f"configs.{arm}").get_config().data
    config.data.archives = args.archives
    config.dtype, config.eval.weights, config.eval.batch_size = "float32", args.weights, args.batch
    leaves: dict = {}
    for path in sorted(args.folder.glob(f"ema{args.track}-*.npz")):
        leaves |= {name: x.astype(np.float32) for name, x in np.load(path).items()}
    average = flax.traverse_util.unflatten_dict(leaves, sep="/")
    tried = trial.Trial(config, pathlib.Path(args.runs) / "score")
    tried.begin()
    tried.state = tried.state.replace(ema=ema.Average(average["params"], average.get("stats", {})))
    found = tried.score(args.samples)
    tried.grid(args.folder / "final.png", 120)
    trial.write(args.folder / "score.json", found)
    print(found)


if __name__ == "__main__":
    main()
