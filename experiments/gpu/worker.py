"""One program on a GPU that gets ready and then measures on demand: the other side of `speed.py`.

Its argument is a job as JSON. It compiles and warms up, reports what that took, and answers each line on
stdin, "go SECONDS" or "profile FOLDER", with one line of JSON on stdout. Everything else goes to stderr.
XLA times the algorithms of each convolution and product while it compiles, so the worker waits for its turn
to compile.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import jax  # noqa: E402
from jax.experimental import serialize_executable  # noqa: E402

from experiments import timing, trial  # noqa: E402
from jaxdog import sharding  # noqa: E402
from jaxdog.training import train_step  # noqa: E402

ANSWERS = os.fdopen(os.dup(1), "w")
# Name -> (turn, images); costs; how a turn is profiled.
Ready = tuple[dict[str, tuple[timing.Turn, float]], dict[str, Any], Callable[[str], Any] | None]
CACHE = pathlib.Path(os.environ.get("JAXDOG_SPEED_CACHE", tempfile.gettempdir())) / "xla"  # as in a run


def config_of(job: dict[str, Any]) -> Any:
    """A config at its own widths, without fades, with the job's changes."""
    config = trial.load_config(job["config"])
    config.dtype = job["dtype"]
    with config.unlocked():  # sections may be given whole
        config.update_from_flattened_dict(job.get("set", {}))
    return timing.without_fades(config)


def ours(job: dict[str, Any]) -> Ready:
    """A turn of k training steps."""
    config, k, mesh = config_of(job), job["k"], sharding.make_mesh()
    images = k * config.system.batch_size
    data = timing.random_data(timing.stored_resolution(config))
    functions = train_step.CompiledPhase(timing.last_phase(config), 0, k, mesh)
    shape = sharding.abstract_state(jax.eval_shape(functions.init_fn, data), mesh)
    lowered = functions.train_steps.lower(shape, data, 0.0)
    init = initializer(job, functions, data)
    wait_for_turn()
    state, init_seconds = timing.timed(lambda: jax.block_until_ready(init(data)))
    program, compile_seconds = timing.timed(lowered.compile)
    costs = {
        "init_seconds": init_seconds,
        "compile_seconds": compile_seconds,
        "parameters": [timing.count(getattr(state, net).params) for net in ("g", "d")],
        "temporary_gb": program.memory_analysis().temp_size_in_bytes / 1e9,
        "flop_of_step": (program.cost_analysis() or {}).get("flops", float("nan")),
    }
    turn = timing.stepper(program, state, data)
    turn()

    def profile(folder: str) -> dict[str, Any]:
        with jax.profiler.trace(folder):
            turn()
        return {"steps": k}

    return {"train": (turn, images)}, costs, profile


def initializer(job: dict[str, Any], functions: train_step.CompiledPhase, data: Any) -> Callable[[Any], Any]:
    """Makes the initial state: compiled here, or loaded if the job names a program of `ahead.py`."""
    if not job.get("init"):
        return functions.init
    trees = jax.tree.structure(((data,), {})), jax.tree.structure(jax.eval_shape(functions.init_fn, data))
    return serialize_executable.deserialize_and_load(pathlib.Path(job["init"]).read_bytes(), *trees)


def wait_for_turn() -> None:
    """Returns when `speed.py` lets this worker compile."""
    say({"waiting": True})
    sys.stdin.readline()


def pytorch(job: dict[str, Any]) -> Ready:
    """Turns of PyTorch's trainer in each of the job's forms: layout, eager or compiled."""
    import torch

    from experiments.bench import torch_trainers

    jax.config.update("jax_platforms", "cpu")
    config = config_of(job)
    functional = job["config"] in (
        "progan",
        "stylegan",
    )  # their PyTorch networks start from jaxdog's parameters
    params = timing.initial_params(config) if functional else {}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    turns: dict[str, tuple[timing.Turn, float]] = {}
    costs: dict[str, Any] = {"failed_forms": {}}
    images, half = job["k"] * config.system.batch_size, job["dtype"] == "bfloat16"
    for form in job["forms"]:
        for layout, players in attempts(form, torch_trainers.compilable(config)):
            name = f"{form.split()[0]} {layout} {players}".strip()
            try:
                train, _, costs["parameters"] = torch_trainers.turns(
                    config, params, timing.CLASSES, job["k"], layout, players, half
                )
                costs[f"first turn, {name}"] = timing.seconds(train)
            except Exception as error:  # a form that fails must not cost the others
                costs["failed_forms"][name] = f"{type(error).__name__}: {str(error)[:300]}"
                continue
            turns[f"train, {name}"] = train, images
            break
    return turns, costs, None


def attempts(form: str, compilable: str) -> list[tuple[str, str]]:
    """(layout, players for torch.compile) of a form, and fallbacks if it fails."""
    first = "channels_last" if "channels_last" in form else "contiguous_format"
    if "compile" not in form:
        return [(first, "")]
    layouts = dict.fromkeys((first, "contiguous_format", "channels_last"))
    return [(layout, players) for players in dict.fromkeys((compilable, "g")) for layout in layouts]


def limits(job: dict[str, Any]) -> Ready:
    """FLOP/s of one large matrix product and one large convolution, in place of images/s."""
    many = 20  # in a row, so that launching them takes no time

    def repeated(run: timing.Turn) -> timing.Turn:
        return lambda: jax.block_until_ready([run() for _ in range(many)])

    peaks = timing.peaks(job.get("n", 8192), job.get("maps", (256, 32, 256)), job["dtype"])
    return {name: (repeated(run), many * flop) for name, (run, flop) in peaks.items()}, {}, None


KINDS = {"jaxdog": ours, "torch": pytorch, "limits": limits}


def say(value: Any) -> None:
    """Answers."""
    ANSWERS.write(json.dumps(value, default=float) + "\n")
    ANSWERS.flush()


def free_memory() -> None:
    """PyTorch returns cached GPU memory, which all processes share."""
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


def measure(turns: dict[str, tuple[timing.Turn, float]], duration: float) -> dict[str, float]:
    """Images/s of each turn: the median of at least two, for about `duration` seconds."""
    rates = {}
    for name, (turn, images) in turns.items():
        times: list[float] = []
        free_memory()
        turn()
        while sum(times) < duration or len(times) < 2:
            times.append(timing.seconds(turn))
        rates[name] = images / sorted(times)[len(times) // 2]
    return rates


def main() -> None:
    """Gets ready, and answers until stdin ends."""
    job = json.loads(sys.argv[1])
    os.dup2(2, 1)  # only answers go to stdout
    if job["kind"] != "torch":
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    (turns, costs, profile), ready_seconds = timing.timed(lambda: KINDS[job["kind"]](job))
    free_memory()
    say({"ready_seconds": ready_seconds, **costs})
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        try:
            say(measure(turns, float(rest)) if word == "go" else profile(rest) if profile else {})
        except Exception as error:
            say({"failed": f"{type(error).__name__}: {str(error)[:500]}"})
        free_memory()
    with contextlib.suppress(Exception):
        if job["kind"] == "jaxdog":
            say({"peak_gb": jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e9})


if __name__ == "__main__":
    main()
