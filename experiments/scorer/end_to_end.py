"""Two folders of photos to FID, ours and the peers' programs, with the same weights: seconds and memory.

    python experiments/scorer/end_to_end.py IMAGES.TAR WEIGHTS [--n 5000] [--rounds 1] [--out OUT]

2N photos of the archive become JPEG files of 256x256, their middle squares, in two folders. Each program
reads both folders in a process of its own, one after another, as a user would start it: jaxdog score, and
torch-fidelity's calculate_metrics and clean-fid's compute_fid with their own numbers of worker processes.
Seconds are those of the process, its start and compilation included. Memory is the peak of its share of
pages (PSS), worker processes included; it is read seldom enough to take at most 2 % of a core, since a
process waits while its memory is counted. Pairs of rows that OUT has are not measured again.
"""

import argparse
import collections
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402

SIZE = 256
# Program -> ours with the same resize, and the name of its score.
PAIRS = {
    "torch-fidelity": ("inception", "fid2048_approx"),
    "clean-fid": ("inception_clean", "fid2048_clean_approx"),
}


def prepare(archive: str, n: int, folder: pathlib.Path) -> None:
    """2n JPEG files in folder/real and folder/fake, if they are not there."""
    import numpy as np
    import PIL.Image

    from jaxdog.data import crop_recipes

    if (folder / "done").exists():
        return
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.isfile()]
        chosen = np.random.RandomState(0).permutation(len(members))[: 2 * n]
        sides = {members[row].offset: ("real", "fake")[i % 2] for i, row in enumerate(chosen)}
        for side in ("real", "fake"):
            (folder / side).mkdir(parents=True, exist_ok=True)
        for member in members:
            if member.offset not in sides:
                continue
            file = tar.extractfile(member)
            assert file is not None
            photo = PIL.Image.open(io.BytesIO(file.read())).convert("RGB")
            crop, *_ = crop_recipes.short_side_center(np.asarray(photo), size=SIZE)
            name = pathlib.PurePosixPath(member.name).name
            PIL.Image.fromarray(crop.image).save(folder / sides[member.offset] / name, quality=95)
    (folder / "done").touch()


# Programs ---------------------------------------------------------------------------------------------------


def peer_weights(weights: str, folder: str) -> str:
    """The path of a file of the weights as torch-fidelity reads them."""
    import torch

    from jaxdog.metrics.backbones import inception_weights
    from tests import oracles

    path = pathlib.Path(folder) / "weights.pth"
    torch.save(oracles.inception_state(inception_weights.load(weights).params), path)
    return str(path)


def torch_fidelity(real: str, fake: str, weights: str) -> float:
    """torch-fidelity's FID."""
    from tests import oracles

    _, metrics = oracles.torch_fidelity("metrics")
    with tempfile.TemporaryDirectory() as folder:
        found = metrics.calculate_metrics(
            input1=fake,
            input2=real,
            fid=True,
            feature_extractor="inception-v3-compat",
            feature_extractor_weights_path=peer_weights(weights, folder),
            cuda=False,
            cache=False,
        )
    return found["frechet_inception_distance"]


def clean_fid(real: str, fake: str, weights: str) -> float:
    """clean-fid's FID; its network is not at hand, so torch-fidelity's runs without its resize."""
    from tests import oracles

    torch, extractor = oracles.torch_fidelity("feature_extractor_inceptionv3")
    with tempfile.TemporaryDirectory() as folder:
        path = peer_weights(weights, folder)
        net = extractor.FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=path, verbose=False
        )
    extractor.vassert = lambda *_: None  # images are floats already
    extractor.interpolate_bilinear_2d_like_tensorflow1x = lambda x, **_: x
    from cleanfid import fid

    cpu = torch.device("cpu")
    return float(fid.compute_fid(fake, real, custom_feat_extractor=lambda x: net(x)[0], device=cpu))


# Measurement ------------------------------------------------------------------------------------------------


def pss(pid: int) -> int:
    """Bytes of a process and its descendants; shared pages are divided among those that share them."""
    total = 0
    try:
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += sum(pss(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended
        pass
    return total


def measure(command: list[str]) -> tuple[str, dict[str, float]]:
    """Output, and seconds and peak memory in GB of a command."""
    peak, ended, start = 0, threading.Event(), time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:

        def watch() -> None:
            nonlocal peak
            pause = 0.5
            while not ended.wait(pause):
                begin = time.monotonic()
                peak = max(peak, pss(process.pid))
                pause = max(0.5, 50 * (time.monotonic() - begin))

        watcher = threading.Thread(target=watch)
        watcher.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - start
        ended.set()
        watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}: {output[-3000:]}")
    return output, {"seconds": seconds, "memory_gb": peak / 1e9}


def ours(network: str, name: str, folders: list[str], weights: str) -> dict[str, Any]:
    """jaxdog score, its caches empty."""
    with tempfile.TemporaryDirectory() as cache:
        out = pathlib.Path(cache) / "scores.json"
        options = ["--network", network, "--weights", weights, "--metric", "fid", "--out", str(out)]
        command = [sys.executable, "-m", "jaxdog.main", "score", *folders, *options, "--cache-dir", cache]
        _, cost = measure(command)
        return {"value": json.loads(out.read_text())[name], **cost}


def theirs(program: str, folders: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """A peer's program."""
    command = [sys.executable, __file__, args.archive, args.weights, "--one", program, *folders]
    output, cost = measure(command)
    (value,) = re.findall(r"RESULT (\S+)", output)  # behind a progress bar
    return {"value": float(value), **cost}


def complete(path: pathlib.Path, n: int) -> list[dict[str, Any]]:
    """The rows of an earlier run where both programs of a pair were measured, one after the other."""
    before = json.loads(path.read_text()) if path.is_file() else {"n": n, "rows": []}
    rows = before["rows"] if before["n"] == n else []
    counts = collections.Counter((row["round"], row["resize"]) for row in rows)
    return [row for row in rows if counts[row["round"], row["resize"]] == 2]


def main() -> None:
    """Measures in turns; writes OUT."""
    parser = trial.command_line(__doc__)
    parser.add_argument("archive", metavar="IMAGES.TAR")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--photos", type=pathlib.Path, default="runs/end_to_end", help="where photos are put")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "end_to_end.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        program, *folders = args.one
        function = torch_fidelity if program == "torch-fidelity" else clean_fid
        print(f"RESULT {function(*folders, args.weights)!r}")
        return
    photos = args.photos / str(args.n)
    prepare(args.archive, args.n, photos)
    folders = [str(photos / side) for side in ("real", "fake")]
    rows = complete(args.out, args.n)
    measured = {(row["round"], row["resize"]) for row in rows}
    for turn in range(args.rounds):
        for program, pair in PAIRS.items():
            if (turn, pair[0]) in measured:
                continue
            for who in ("jaxdog", program):
                row = ours(*pair, folders, args.weights) if who == "jaxdog" else theirs(who, folders, args)
                rows.append({"round": turn, "program": who, "resize": pair[0], **row})
                print(rows[-1], flush=True)
                trial.write(args.out, {"n": args.n, "rows": rows})


if __name__ == "__main__":
    main()
