"""One program on a GPU that gets ready, then measures whenever it is told to: the other side of `speed.py`.

Its one argument is a job as JSON. It compiles and warms up, says what that took, and answers each line that
it reads on stdin, "go SECONDS" or "profile FOLDER", with one line of JSON on stdout. All else goes to stderr.

XLA times the algorithms of each convolution and product while it compiles, so it waits for its turn to.
"""

import contextlib
import importlib
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from experiments import trial  # noqa: E402
from experiments.bench import step  # noqa: E402

ANSWERS = os.fdopen(os.dup(1), "w")
Turn = Callable[[], Any]
Ready = tuple[dict[str, tuple[Turn, float]], dict[str, Any], Callable[[str], Any] | None]
CACHE = pathlib.Path(os.environ.get("JAXDOG_SPEED_CACHE", tempfile.gettempdir())) / "xla"  # as runs have it


def config_of(job: dict[str, Any]) -> Any:
    """A config at its own widths, without fades, with what the job changes."""
    config = importlib.import_module(f"configs.{job['config']}").get_config()
    config.dtype = job["dtype"]
    with config.unlocked():  # sections may be given whole
        config.update_from_flattened_dict(job.get("set", {}))
    return step.unfaded(config)


def jaxdogs(job: dict[str, Any]) -> Ready:
    """Turns of k training steps and of drawing, what they cost to compile, and how a turn is traced."""
    import jax

    from jaxdog import sharding
    from jaxdog.training import train_step

    config, k, over = config_of(job), job["k"], sharding.mesh()
    images = k * config.game.batch_size
    data = step.pictures(config.data.store_size)
    functions = train_step.compiled(step.last(config), 0, k, over)
    first = sharding.described(jax.eval_shape(functions.first, data), over)
    lowered = functions.dispatch.lower(first, data, 0.0)
    init = beginning(job, functions, data)
    wait_for_turn()
    mark = time.perf_counter()
    state = jax.block_until_ready(init(data))
    counts = [sum(x.size for x in jax.tree.leaves(getattr(state, net).params)) for net in ("g", "d")]
    began, mark = time.perf_counter() - mark, time.perf_counter()
    dispatch = lowered.compile()
    found = {"compile_seconds": time.perf_counter() - mark, "init_seconds": began, "parameters": counts}
    found["temporary_gb"] = dispatch.memory_analysis().temp_size_in_bytes / 1e9
    found["flop_of_step"] = (dispatch.cost_analysis() or {}).get("flops", float("nan"))

    def turn() -> Any:
        nonlocal state
        state, scalars = dispatch(state, data, 0.0)
        return jax.block_until_ready(scalars)

    turn()
    turns = {"train": (turn, images)}
    if job.get("draw"):
        draw = step.drawer(config, state, k)
        draw()
        turns["draw"] = draw, images

    def profile(folder: str) -> dict[str, Any]:
        with jax.profiler.trace(folder):
            turn()
        return {"steps": k}

    return turns, found, profile


def beginning(job: dict[str, Any], functions: Any, data: Any) -> Callable[[Any], Any]:
    """What makes the first state: compiled here, or where the job says that `ahead.py` has left it."""
    import jax
    from jax.experimental import serialize_executable

    if not job.get("init"):
        return functions.init
    trees = jax.tree.structure(((data,), {})), jax.tree.structure(jax.eval_shape(functions.first, data))
    return serialize_executable.deserialize_and_load(pathlib.Path(job["init"]).read_bytes(), *trees)


def wait_for_turn() -> None:
    """Until the other side says that nobody else uses the GPU."""
    say({"waiting": True})
    sys.stdin.readline()


def torchs(job: dict[str, Any]) -> Ready:
    """Turns of PyTorch's trainer in each of the job's forms: layout, eager or compiled."""
    import torch

    config = config_of(job)
    params: dict[str, Any] = {}
    if job["config"] in ("progan", "stylegan"):  # whose networks begin as jaxdog's do
        os.environ["JAX_PLATFORMS"] = "cpu"
        params = step.parameters(config)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True  # it times, too
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    turns, found = {}, {"failed_forms": {}}
    images = job["k"] * config.game.batch_size
    for form in job["forms"]:
        for layout, players in attempts(form, config):
            told, begun = f"{form.split()[0]} {layout} {players}".strip(), time.perf_counter()
            try:
                made = step.theirs(config, params, job["k"], layout, players, job["dtype"] == "bfloat16")
                made[0]()
            except Exception as error:  # one form that fails must not cost the others
                found["failed_forms"][told] = f"{type(error).__name__}: {str(error)[:300]}"
                continue
            found |= {"parameters": made[2], f"first turn, {told}": time.perf_counter() - begun}
            turns[f"train, {told}"] = made[0], images
            if job.get("draw") and not players:
                turns[f"draw, {told}"] = made[1], images
            break
    return turns, found, None


def attempts(form: str, config: Any) -> list[tuple[str, str]]:
    """(layout, players that torch.compile makes) of a form, and what is tried where that fails."""
    layouts = [step.LAYOUTS["torch_channels_last" if "channels_last" in form else "torch"]]
    if "compile" not in form:
        return [(layouts[0], "")]
    layouts += [layout for layout in step.LAYOUTS.values() if layout not in layouts]
    return [(layout, made) for made in dict.fromkeys((step.compilable(config), "g")) for layout in layouts]


def limits(job: dict[str, Any]) -> Ready:
    """FLOP/s of one large matrix product and one large convolution, in place of images."""
    import jax

    many = 20  # in a row: the host's part is hidden

    def repeated(run: Turn) -> Turn:
        return lambda: jax.block_until_ready([run() for _ in range(many)])

    peaks = step.peaks(job.get("n", 8192), job.get("maps", (256, 32, 256)), job["dtype"])
    return {name: (repeated(run), many * flop) for name, (run, flop) in peaks.items()}, {}, None


def scored(job: dict[str, Any]) -> Ready:
    """Turns of the evaluation on the way, with a network of random weights: only how long it takes counts."""
    config = config_of(job)
    config.eval.weights = "random"
    with config.unlocked():
        config.data.update(dict(source="toy", toy_photos=512, classes=0))
    wait_for_turn()
    made = trial.Trial(config, pathlib.Path(tempfile.mkdtemp()))
    made.begin()
    assert made.run.evaluate is not None

    def turn() -> Any:
        return made.run.evaluate(made.phase, made.state, 0)

    turn()
    return {"draw and score": (turn, config.eval.samples)}, {}, None


def say(value: Any) -> None:
    """Answers."""
    ANSWERS.write(json.dumps(value, default=float) + "\n")
    ANSWERS.flush()


KINDS = {"jaxdog": jaxdogs, "torch": torchs, "limits": limits, "score": scored}


def empty() -> None:
    """PyTorch gives back what earlier turns of other forms left of the GPU's memory: processes share it."""
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


def measured(turns: dict[str, tuple[Turn, float]], seconds: float) -> dict[str, float]:
    """What each turn does per second: the median of the turns of about so many seconds, two at least."""
    found = {}
    for name, (turn, images) in turns.items():
        times: list[float] = []
        empty()
        turn()
        while sum(times) < seconds or len(times) < 2:
            times.append(step.seconds(turn))
        found[name] = images / sorted(times)[len(times) // 2]
    return found


def main() -> None:
    """Gets ready, and answers until stdin ends."""
    job, begun = json.loads(sys.argv[1]), time.perf_counter()
    os.dup2(2, 1)  # whatever prints, only answers are read
    if job["kind"] != "torch":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    turns, found, profile = KINDS[job["kind"]](job)
    empty()
    say({"ready_seconds": time.perf_counter() - begun, **found})
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        try:
            say(measured(turns, float(rest)) if word == "go" else profile(rest) if profile else {})
        except Exception as error:
            say({"failed": f"{type(error).__name__}: {str(error)[:500]}"})
        empty()
    with contextlib.suppress(Exception):
        if job["kind"] == "jaxdog":
            import jax

            say({"peak_gb": jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e9})


if __name__ == "__main__":
    main()
