"""What a participant of 2019 said of his trials, asked again: two arms that differ in one thing, and seeds.

    python experiments/ablations/run.py --narrow --minutes 3 --weights FOLDER --archives FOLDER --seeds 2
    python experiments/ablations/run.py --only rate,labels --kimg 1000 --weights published

Both arms of a question get the same budget. An arm that changes nothing is its entry as it is, trained once
for all questions of that entry. Each training has a process of its own and leaves rows/NAME-SEED.json beside
this file; one whose row is there, of the same config and budget, is not run again. answers.json, answers.md
and curves.png are made of all rows that are there.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from experiments import trial  # noqa: E402
from experiments.entries import run as entries  # noqa: E402


class Question(NamedTuple):
    """A claim, the config it was made of, and two arms: what each changes."""

    claim: str
    entry: str
    arms: dict[str, dict[str, Any]]
    needs: str = ""  # what comes first: an entry, trained for as long as an arm, or the clusters of "framing"
    loss: str = ""  # a loss that both arms have and that says something beside the scores
    sampling: bool = False  # one training of the first arm is drawn from in both ways


TABLE = "{runs}/framing/clean.csv"  # of mode clean: clusters of the dogs that were cut out
NEEDS = "needs-"  # stands before the name of what comes first
RATE = "optimizer.g.schedule.learning_rate"
QUESTIONS = {
    "spectral_norm": Question(
        "spectral norm took his MiFID from 56 to 46",
        "lsgan_sn",
        {"without": {"generator.spectral": False, "discriminator.spectral": False}, "with": {}},
    ),
    "rate": Question(
        "a larger rate of the generator took it from 46 to 39", "lsgan_sn", {"2e-4": {RATE: 2e-4}, "8e-4": {}}
    ),
    "truncation": Question(
        "latents within 0.5 took it a little below 39",
        "lsgan_sn",
        {"as drawn": {"sample.truncation": 0.0}, "within 0.5": {}},
        sampling=True,
    ),
    "upsampling": Question(
        "upsampling and a convolution are worse than a transposed convolution",
        "lsgan_sn",
        {"nearest": {"generator.upsampling": "nearest"}, "transposed": {}},
    ),
    "pretraining": Question(
        "a GAN that begins as a VAE is no better",
        "lsgan_sn",
        {"from scratch": {}, "from a VAE": {"init_from": "{runs}/needs-vae-{seed}"}},
        needs="vae",
    ),
    "labels": Question(
        "breeds do not help",
        "biggan",
        {"without": {"discriminator.projection": False}, "with": {}},
    ),
    "framing": Question(
        "one framing alone is prettier, less diverse, and scores no better",
        "biggan",
        {
            "all": {},
            "one": {
                "data.curate": {
                    "from_csv": {"path": TABLE, "keep": False, "clusters": (0,), "labels": "breed"}
                }
            },
        },
        needs="framing",
    ),
    "dragan_slopes": Question(
        "DRAGAN made his dogs collapse; his slopes were measured pixel by pixel",
        "dragan",
        {"per pixel": {"game.d_penalties.dragan.per_pixel": True}, "per picture": {}},
    ),
    "prior": Question(
        "(not of 2019) codes are learnt better by a transformer than by a PixelCNN",
        "vqvae2",
        {
            "pixelcnn": {
                "game.prior.name": "pixelcnn",
                "game.prior.attention": (0,),
                "game.prior.width": 64,
                "game.prior.layers": 4,
                "game.prior.heads": 4,
            },
            "transformer": {},
        },
        loss="loss/prior",
    ),
}
SCORES = ("fid768", "fid2048", "recall", "precision", "coverage")
LOWER = {"fid768", "fid2048"}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__)
    parser.add_argument("--only", default=",".join(QUESTIONS), help="questions, separated by commas")
    parser.add_argument("--seeds", type=int, default=2, help="of each arm")
    args = parser.parse_args()
    trial.check_budget(parser, args)
    unknown = sorted(set(args.only.split(",")) - set(QUESTIONS))
    if unknown:
        parser.error(f"{unknown[0]} is no question; questions: {', '.join(QUESTIONS)}")
    return args


def filled(value: Any, **words: Any) -> Any:
    """Places in strings filled in, however deep they stand."""
    if isinstance(value, dict):
        return {k: filled(v, **words) for k, v in value.items()}
    return value.format(**words) if isinstance(value, str) else value


def name_of(question: str, arm: str) -> str:
    """Of an arm's rows: arms that change nothing share those of their entry."""
    asked = QUESTIONS[question]
    return f"{question}-{arm}".replace(" ", "_") if asked.arms[arm] else asked.entry


def config_of(question: str, arm: str, seed: int, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """An arm's config, and what it changes."""
    asked = QUESTIONS[question]
    changes = filled(asked.arms[arm], runs=args.runs, seed=seed)
    return entries.config_of(asked.entry, args, **changes, seed=seed)


def trained(question: str, arm: str, seed: int, args: argparse.Namespace) -> bool:
    """Whether an arm's row is there, of the same config and budget."""
    return trial.kept(row_at(question, arm, seed), config_of(question, arm, seed, args)[1])


def row_at(question: str, arm: str, seed: int) -> pathlib.Path:
    """Where an arm's row is."""
    return HERE / "rows" / f"{name_of(question, arm)}-{seed}.json"


def one(question: str, arm: str, seed: int, args: argparse.Namespace) -> None:
    """Trains and scores an arm; an entry as it is, also as the questions of its sampling draw it."""
    from jaxdog.config import build

    config, told = config_of(question, arm, seed, args)
    name, asked = f"{name_of(question, arm)}-{seed}", QUESTIONS[question]
    tried = trial.Trial(config, pathlib.Path(args.runs) / name)
    row = tried.train()
    tried.grid(HERE / "grids" / f"{name}.png", 24)
    found = {"name": name, **row, "after": tried.score(args.samples), "changes": told}
    trial.write(row_at(question, arm, seed), found)
    alike = [] if asked.arms[arm] else [x for x, y in QUESTIONS.items() if y.entry == asked.entry]
    for other in (x for x in alike if QUESTIONS[x].sampling):
        drawn = next(x for x, changes in QUESTIONS[other].arms.items() if changes)
        config, told = config_of(other, drawn, seed, args)
        phase = build.phases(build.check(config), config.data.classes)[-1]
        path, score = row_at(other, drawn, seed), tried.score(args.samples, phase)
        trial.write(path, {"name": path.stem, **row, "after": score, "changes": told})


def _clusters(args: argparse.Namespace) -> None:
    """Four clusters of the dogs that were cut out, of all crops: nothing is dropped."""
    command = [sys.executable, "-m", "jaxdog.main", "--mode", "clean", "--config", "configs/biggan.py"]
    command += ["--workdir", f"{args.runs}/framing", "--clean.method=segments", "--clean.k=4"]
    command += ["--clean.min_aspect=0", "--clean.max_aspect=1000"]
    command += ["--clean.duplicates=false", "--clean.near_duplicates=0"]
    command += [f"--config.data.archives={args.archives}"] if args.archives else []
    subprocess.run(command, check=True, cwd=ROOT)


def number(row: dict[str, Any], score: str) -> float:
    """A score by its first name: fid2048 may be called fid2048_approx; or a loss, over its last ten lines."""
    if score.startswith("loss/"):
        last = [line[score] for line in row["losses"] if score in line][-10:]
        return sum(last) / len(last)
    return next(value for name, value in row["after"].items() if name.startswith(score))


def answer(name: str, arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The scores of each arm over its seeds, and what they say in a line."""
    first, second = QUESTIONS[name].arms
    more = (QUESTIONS[name].loss,) if QUESTIONS[name].loss else ()
    found = {
        score: {arm: [number(row, score) for row in arms[arm]] for arm in (first, second)}
        for score in (*SCORES, *more)
    }
    lines = []
    for score in (*more, "fid768", "fid2048", "recall"):
        one, other = found[score][first], found[score][second]
        mean = [sum(x) / len(x) for x in (one, other)]
        apart = max(one) < min(other) or max(other) < min(one)
        better = (mean[0] < mean[1]) == (score in LOWER or score in more)
        said = f"{first if better else second} is better" if apart else "the seeds overlap"
        said = said if min(len(one), len(other)) > 1 else "one seed says nothing"
        lines.append(f"{score} {first} {mean[0]:.3g}, {second} {mean[1]:.3g}: {said}")
    return {"question": name, "claim": QUESTIONS[name].claim, "answer": "; ".join(lines), "scores": found}


def collect() -> None:
    """All rows that are there -> answers.json, answers.md, curves.png."""
    rows = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "rows").glob("*.json"))}
    answers = []
    for name, asked in QUESTIONS.items():
        arms = {
            arm: [row for x, row in rows.items() if x.rsplit("-", 1)[0] == name_of(name, arm)]
            for arm in asked.arms
        }
        if all(arms.values()):
            answers.append(answer(name, arms))
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    lines = ["| question | claim of 2019 | here |", "|---|---|---|"]
    lines += [f"| {x['question']} | {x['claim']} | {x['answer']} |" for x in answers]
    (HERE / "answers.md").write_text("\n".join(lines) + "\n")
    trial.curves({name: row["losses"] for name, row in rows.items()}, HERE / "curves.png")
    print("\n".join(lines))


def needed(name: str, args: argparse.Namespace) -> None:
    """Makes what a question begins from: "framing", or "vae-0", the entry and the seed."""
    if name == "framing":
        return _clusters(args)
    entry, seed = name.rsplit("-", 1)
    config, _ = entries.config_of(entry, args, **{"seed": int(seed), "checkpoint.every": 100})
    trial.Trial(config, pathlib.Path(args.runs) / f"{NEEDS}{name}").train()


def needs(question: str, seed: int, args: argparse.Namespace) -> list[str]:
    """The jobs that come before an arm, unless what they make is there."""
    asked, runs = QUESTIONS[question], pathlib.Path(args.runs)
    if asked.needs == "framing":
        return [] if (runs / "framing" / "clean.csv").exists() else [f"{NEEDS}framing"]
    name = f"{NEEDS}{asked.needs}-{seed}"
    return [name] if asked.needs and not (runs / name / "checkpoints").exists() else []


def jobs(args: argparse.Namespace) -> list[trial.Job]:
    """What the questions lack: what some begin from first, then seed by seed, those that wait last."""
    found: dict[str, trial.Job] = {}
    for seed in range(args.seeds):
        for name in args.only.split(","):
            asked = QUESTIONS[name]
            for arm, changes in asked.arms.items():
                after = needs(name, seed, args) if changes else []  # an entry as it is begins from nothing
                drawn = asked.arms if asked.sampling else (arm,)
                made = asked.sampling and changes  # with the other arm's training
                if not made and not all(trained(name, x, seed, args) for x in drawn):
                    found.setdefault(f"{name_of(name, arm)}-{seed}", trial.Job(f"{name}/{arm}/{seed}", after))
    waited = list(dict.fromkeys(x for job in found.values() for x in job.after))
    return [trial.Job(x) for x in waited] + sorted(found.values(), key=lambda job: len(job.after))


def main() -> None:
    """Asks the questions one after the other, and makes the table."""
    args = parse()
    if args.one and args.one.startswith(NEEDS):
        return needed(args.one.removeprefix(NEEDS), args)
    if args.one:
        question, arm, seed = args.one.split("/")
        return one(question, arm, int(seed), args)
    failed = trial.side_by_side(__file__, jobs(args), args.jobs)
    collect()
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
