"""Samples and scores a generator that was trained elsewhere: in float32, with real Inception weights.

    python experiments/gpu/score.py --from DIR --samples 10000 --weights FOLDER --archives FOLDER

DIR is what experiments/record/run.py exported: config.json, plan.json and the EMA's parts ema*.npz. The
score goes to DIR/score.json, a grid of samples to DIR/final.png.
"""

import json
import pathlib
import sys

import flax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from experiments import trial  # noqa: E402
from jaxdog.config import saved  # noqa: E402
from jaxdog.optim import ema  # noqa: E402


def main() -> None:
    """Builds the config that was trained, inserts the EMA, scores it."""
    parser = trial.parser(__doc__)
    parser.add_argument("--from", type=pathlib.Path, required=True, dest="folder")
    parser.add_argument("--ema_index", type=int, default=0, help="of the exported EMAs")
    args = parser.parse_args()
    config = saved.load(args.folder)
    arm = json.loads((args.folder / "plan.json").read_text())["arm"]
    with config.unlocked():  # the photos are here, where the training had packed crops
        config.data = trial.load_config(arm).data
    config.data.archives = args.archives
    config.dtype, config.eval.weights, config.eval.batch_size = "float32", args.weights, args.batch
    leaves: dict = {}
    for path in sorted(args.folder.glob(f"ema{args.ema_index}-*.npz")):
        leaves |= {name: x.astype(np.float32) for name, x in np.load(path).items()}
    exported = flax.traverse_util.unflatten_dict(leaves, sep="/")
    scored = trial.Trial(config, pathlib.Path(args.runs) / "score")
    scored.init()
    scored.state = scored.state.replace(ema=ema.EMA(exported["params"], exported.get("model_state", {})))
    scores = scored.score(args.samples)
    scored.grid(args.folder / "final.png", 120)
    trial.write(args.folder / "score.json", scores)
    print(scores)


if __name__ == "__main__":
    main()
