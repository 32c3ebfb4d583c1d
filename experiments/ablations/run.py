"""Claims of a participant of 2019, tested: two arms that differ in one thing, and several seeds.

    python experiments/ablations/run.py --narrow --minutes 3 --weights FOLDER --archives FOLDER --seeds 2
    python experiments/ablations/run.py --only rate,labels --kimg 1000 --weights published

Both arms of a question get the same budget. An arm without changes is the config as it is, trained once for
all its questions. Each training has a process of its own and leaves rows/NAME-SEED.json; one whose row is
there, of the same config and budget, is not run again. answers.json, answers.md and curves.png are made of
all rows that are there.
"""

import argparse
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import trial  # noqa: E402
from experiments.entries import run as entries  # noqa: E402


class Question(NamedTuple):
    """A claim about a config, and two arms: the changes of each."""

    claim: str
    config: str
    arms: dict[str, dict[str, Any]]
    needs: str = ""  # trained before: a config, for as long as an arm; or the clusters of "framing"
    loss: str = ""  # a loss of both arms that is compared, too
    sampling: bool = False  # one training of the unchanged arm is sampled in both ways


NEEDS = "needs-"  # prefix of tasks that others need
CLUSTERS = "{runs}/framing/clean.csv"
RATE = "optimizer.g.learning_rate"
QUESTIONS = {
    "spectral_norm": Question(
        "spectral norm took his MiFID from 56 to 46",
        "lsgan_sn",
        {"without": {"generator.spectral": False, "discriminator.spectral": False}, "with": {}},
    ),
    "rate": Question(
        "a larger learning rate of the generator took it from 46 to 39",
        "lsgan_sn",
        {"2e-4": {RATE: 2e-4}, "8e-4": {}},
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
        "a GAN initialized from a VAE is no better",
        "lsgan_sn",
        {"from scratch": {}, "from a VAE": {"init_from": "{runs}/needs-vae-{seed}"}},
        needs="vae",
    ),
    "labels": Question(
        "class labels do not help",
        "biggan",
        {"without": {"discriminator.projection": False}, "with": {}},
    ),
    "framing": Question(
        "one framing alone is prettier, less diverse, and scores no better",
        "biggan",
        {
            "all": {},
            "one": {
                "data.select": {
                    "from_csv": {"path": CLUSTERS, "keep": False, "clusters": (0,), "labels": "class"}
                }
            },
        },
        needs="framing",
    ),
    "dragan_slopes": Question(
        "DRAGAN made his dogs collapse; his slopes were measured per pixel",
        "dragan",
        {"per pixel": {"system.d_regularizers.dragan.per_pixel": True}, "per image": {}},
    ),
    "prior": Question(
        "(not of 2019) a transformer learns the codes better than a PixelCNN",
        "vqvae2",
        {
            "pixelcnn": {
                "system.prior.name": "pixelcnn",
                "system.prior.attention": (0,),
                "system.prior.width": 64,
                "system.prior.layers": 4,
                "system.prior.heads": 4,
            },
            "transformer": {},
        },
        loss="loss/prior",
    ),
}
SCORES = ("fid768", "fid2048", "recall", "precision", "coverage")
LOWER_IS_BETTER = {"fid768", "fid2048"}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.parser(__doc__, QUESTIONS)
    parser.add_argument("--seeds", type=int, default=2, help="of each arm")
    args = parser.parse_args()
    trial.check_budget(parser, args)
    return args


def fill(value: Any, **words: Any) -> Any:
    """Placeholders in strings filled in, at any depth."""
    if isinstance(value, dict):
        return {k: fill(v, **words) for k, v in value.items()}
    return value.format(**words) if isinstance(value, str) else value


def name_of(question: str, arm: str) -> str:
    """The name of an arm's rows: arms without changes share those of their config."""
    asked = QUESTIONS[question]
    return f"{question}-{arm}".replace(" ", "_") if asked.arms[arm] else asked.config


def row_path(question: str, arm: str, seed: int) -> pathlib.Path:
    """The file of an arm's row."""
    return HERE / "rows" / f"{name_of(question, arm)}-{seed}.json"


def config_of(question: str, arm: str, seed: int, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """An arm's config, and its changes."""
    asked = QUESTIONS[question]
    changes = fill(asked.arms[arm], runs=args.runs, seed=seed)
    return entries.config_of(asked.config, args, **changes, seed=seed)


def is_trained(question: str, arm: str, seed: int, args: argparse.Namespace) -> bool:
    """Whether an arm's row is there, of the same config and budget."""
    return trial.is_done(row_path(question, arm, seed), config_of(question, arm, seed, args)[1])


def run(question: str, arm: str, seed: int, args: argparse.Namespace) -> None:
    """Trains and scores an arm; an unchanged config also as the questions about its sampling sample it."""
    from jaxdog.config import build

    config, changes = config_of(question, arm, seed, args)
    path, asked = row_path(question, arm, seed), QUESTIONS[question]
    trained = trial.Trial(config, pathlib.Path(args.runs) / path.stem)
    row = trained.train()
    trained.grid(HERE / "grids" / f"{path.stem}.png", 24)
    trial.write(path, {"name": path.stem, **row, "after": trained.score(args.samples), "changes": changes})
    alike = [] if asked.arms[arm] else [x for x, y in QUESTIONS.items() if y.config == asked.config]
    for other in (x for x in alike if QUESTIONS[x].sampling):
        sampled = next(x for x, changes in QUESTIONS[other].arms.items() if changes)
        config, changes = config_of(other, sampled, seed, args)
        phase = build.phases(build.check(config), config.data.classes)[-1]
        path, score = row_path(other, sampled, seed), trained.score(args.samples, phase)
        trial.write(path, {"name": path.stem, **row, "after": score, "changes": changes})


def make_clusters(args: argparse.Namespace) -> None:
    """Four clusters of cut-out dogs, of all crops: nothing is dropped."""
    command = [sys.executable, "-m", "jaxdog.main", "--mode", "clean", "--config", "configs/biggan.py"]
    command += ["--workdir", f"{args.runs}/framing", "--clean.method=segments", "--clean.num_clusters=4"]
    command += ["--clean.min_aspect=0", "--clean.max_aspect=1000"]
    command += ["--clean.duplicates=false", "--clean.near_duplicates=0"]
    command += [f"--config.data.archives={args.archives}"] if args.archives else []
    subprocess.run(command, check=True, cwd=trial.ROOT)


def make_need(name: str, args: argparse.Namespace) -> None:
    """Makes what an arm starts from: "framing", or "vae-0", a config and the seed."""
    if name == "framing":
        return make_clusters(args)
    config_name, seed = name.rsplit("-", 1)
    config, _ = entries.config_of(config_name, args, **{"seed": int(seed), "checkpoint.every": 100})
    trial.Trial(config, pathlib.Path(args.runs) / f"{NEEDS}{name}").train()


def needs(question: str, seed: int, args: argparse.Namespace) -> list[str]:
    """The tasks before an arm, unless their results are there."""
    asked, runs = QUESTIONS[question], pathlib.Path(args.runs)
    if asked.needs == "framing":
        return [] if (runs / "framing" / "clean.csv").exists() else [f"{NEEDS}framing"]
    name = f"{NEEDS}{asked.needs}-{seed}"
    return [name] if asked.needs and not (runs / name / "checkpoints").exists() else []


def tasks(args: argparse.Namespace) -> list[trial.Task]:
    """What is missing: needs first, then seed by seed, those that wait last."""
    found: dict[str, trial.Task] = {}
    for seed in range(args.seeds):
        for name in args.only:
            asked = QUESTIONS[name]
            for arm, changes in asked.arms.items():
                if asked.sampling and changes:
                    continue  # comes with the training of the other arm
                after = needs(name, seed, args) if changes else []
                arms = asked.arms if asked.sampling else (arm,)
                if not all(is_trained(name, x, seed, args) for x in arms):
                    task = trial.Task(f"{name}/{arm}/{seed}", after)
                    found.setdefault(f"{name_of(name, arm)}-{seed}", task)
    first = dict.fromkeys(x for task in found.values() for x in task.after)
    return [trial.Task(x) for x in first] + sorted(found.values(), key=lambda task: len(task.after))


def value_of(row: dict[str, Any], score: str) -> float:
    """A score, or the mean of a loss over the last ten lines of the log."""
    if score.startswith("loss/"):
        last = [line[score] for line in row["losses"] if score in line][-10:]
        return sum(last) / len(last)
    return trial.score_of(row, score)


def answer(name: str, arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The scores of both arms over their seeds, and what they say in a line."""
    first, second = QUESTIONS[name].arms
    losses = (QUESTIONS[name].loss,) if QUESTIONS[name].loss else ()
    scores = {
        score: {arm: [value_of(row, score) for row in arms[arm]] for arm in (first, second)}
        for score in (*SCORES, *losses)
    }
    lines = []
    for score in (*losses, "fid768", "fid2048", "recall"):
        one, other = scores[score][first], scores[score][second]
        means = [sum(x) / len(x) for x in (one, other)]
        apart = max(one) < min(other) or max(other) < min(one)
        better = (means[0] < means[1]) == (score in LOWER_IS_BETTER or score in losses)
        verdict = f"{first if better else second} is better" if apart else "the seeds overlap"
        verdict = verdict if min(len(one), len(other)) > 1 else "one seed says nothing"
        lines.append(f"{score} {first} {means[0]:.3g}, {second} {means[1]:.3g}: {verdict}")
    claim = QUESTIONS[name].claim
    return {"question": name, "claim": claim, "answer": "; ".join(lines), "scores": scores}


def collect() -> None:
    """All rows that are there -> answers.json, answers.md, curves.png."""
    rows = trial.read_rows(HERE / "rows")
    answers = []
    for name, asked in QUESTIONS.items():
        arms = {
            arm: [row for x, row in rows.items() if x.rsplit("-", 1)[0] == name_of(name, arm)]
            for arm in asked.arms
        }
        if all(arms.values()):
            answers.append(answer(name, arms))
    trial.write(HERE / "answers.json", answers)
    header, keys = ["question", "claim of 2019", "here"], ("question", "claim", "answer")
    text = trial.markdown(header, [[x[key] for key in keys] for x in answers])
    (HERE / "answers.md").write_text(text)
    trial.loss_curves({name: row["losses"] for name, row in rows.items()}, HERE / "curves.png")
    print(text)


def main() -> None:
    """Trains what is missing and makes the table."""
    args = parse()
    if args.one and args.one.startswith(NEEDS):
        return make_need(args.one.removeprefix(NEEDS), args)
    if args.one:
        question, arm, seed = args.one.split("/")
        return run(question, arm, int(seed), args)
    failed = trial.run_tasks(__file__, tasks(args), args.jobs)
    collect()
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
