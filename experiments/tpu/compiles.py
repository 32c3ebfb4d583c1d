"""Whether everything compiles for TPUs, by XLA's TPU compiler; needs jax[tpu], but no TPU.

    python experiments/tpu/compiles.py                                     # every config, the metrics
    python experiments/tpu/compiles.py --only biggan,stylegan,metrics --chips 8

Compiles for TPU v5e: of each config's test variant, in each phase, the initial state, a step and the
samples; and the metrics at the competition's size. compiles.json and compiles.md hold everything compiled
so far.
"""

import argparse
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import aot, trial  # noqa: E402
from experiments.bench import scaling  # noqa: E402

CONFIGS = sorted(path.stem for path in (trial.ROOT / "configs").glob("*.py"))
METRICS = "metrics"
CLASSES = 3
REAL, FAKE, BATCH = 20_579, 10_000, 64  # images; those in Inception at a time
Part = tuple[str, Callable[[], Any]]  # (what it is, a function that lowers it)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = trial.command_line(__doc__)
    choices = (*CONFIGS, METRICS)
    parser.add_argument("--only", type=trial.selection(choices), default=choices, help="names with commas")
    parser.add_argument("--chips", type=int, default=4, help=", ".join(map(str, aot.SLICES)))
    return parser.parse_args()


def of_config(name: str) -> Iterator[tuple[str, list[Part]]]:
    """Phases of a config, and what is compiled of each."""
    import jax
    import jax.numpy as jnp

    from jaxdog import sharding
    from jaxdog.config import build
    from jaxdog.data import batches
    from jaxdog.training import train_step

    mesh = sharding.make_mesh()
    config = build.check(trial.load_config(name, "test"))
    shape = (40, *2 * [config.data.stored_resolution], 3)
    data = jax.eval_shape(lambda: batches.make_data(jnp.zeros(shape, jnp.uint8), jnp.zeros(40, jnp.int32)))
    data = sharding.abstract_state(data, mesh)
    label = jax.ShapeDtypeStruct((8,), jnp.int32, sharding=sharding.replicated(mesh))
    state: Any = None
    for phase in build.phases(config, CLASSES):
        functions = train_step.CompiledPhase(phase, 0, 1, mesh)
        if phase.transition is None or state is None:
            init, given = functions.init_fn, data
        else:
            init, given = phase.transition, state
        state = sharding.abstract_state(jax.eval_shape(init, given), mesh)
        shardings = sharding.state_shardings(state, mesh, False)
        first = functools.partial(jax.jit(init, out_shardings=shardings).lower, given)
        step = functools.partial(functions.train_steps.lower, state, data, 0.0)
        grid = functools.partial(functions.sample_grid.lower, state, label)
        yield phase.name, [("first state", first), ("step", step), ("samples", grid)]


def of_metrics() -> list[Part]:
    """The metrics, features sharded as in a run; matrix factorizations are left to the host."""
    import jax
    import jax.numpy as jnp

    from jaxdog import sharding
    from jaxdog.metrics import comparison, features, kid, mifid, neighbors, prdc
    from jaxdog.metrics.backbones import inception

    mesh = sharding.make_mesh()
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    width = inception.WIDTH["pool_3"]

    def array(shape: tuple[int, ...], where: Any, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    def side(n: int) -> comparison.Rows:
        n = sharding.round_up(n, mesh)
        return comparison.Rows(array((n, width), rows), array((n,), rows))

    params = jax.eval_shape(
        lambda: inception.Inception(head=False).init(jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
    )["params"]
    params = sharding.abstract_state(params, mesh)
    real, fake = side(REAL), side(FAKE)
    weights = {"real_weight": real.weight, "fake_weight": fake.weight}
    radius = array(real.weight.shape, whole)
    images = array((BATCH, 64, 64, 3), rows, jnp.uint8)
    both = array((REAL, width), whole), array((FAKE, width), whole)

    def lower(function: Callable[..., Any], *given: Any, static: tuple[int, ...] = (), **named: Any) -> Any:
        compiled = sharding.jit_replicated(function, mesh, *static)
        return functools.partial(compiled.lower, *given, **named)

    return [
        ("memorization distance", lower(mifid.memorization_distance, fake.x, real.x, **weights)),
        ("radius", lower(neighbors.kth, real.x, prdc.K, static=(1,), weight=real.weight)),
        (
            "precision and recall",
            lower(prdc.prdc, real.x, fake.x, prdc.K, static=(2,), real_radius=radius, **weights),
        ),
        ("KID", lower(kid.kid, *both, kid.draw(REAL, FAKE))),
        ("Inception", lower(features.inception_features, params, images)),
    ]


def row(part: Part) -> dict[str, Any]:
    """Seconds, memory and collectives of what compiles; the error of what does not."""
    name, lower = part
    start = time.perf_counter()
    try:
        program = lower().compile()
    except Exception as error:  # a failure must not hide the others' results
        return {"part": name, "error": f"{type(error).__name__}: {error}"[:500]}
    result = {
        "part": name,
        "seconds": round(time.perf_counter() - start, 1),
        "working_mb": round(program.memory_analysis().temp_size_in_bytes / 1e6, 1),
        "collectives": {kind: x["count"] for kind, x in scaling.collectives(program.as_text()).items()},
    }
    print(result, flush=True)
    return result


def compiled(name: str, chips: int) -> dict[str, list[dict[str, Any]]]:
    """Title -> rows of everything that is compiled of a config, or of the metrics."""
    with aot.target("tpu", chips):
        if name == METRICS:
            return {name: [row(part) for part in of_metrics()]}
        return {
            name if phase in ("", "gan") else f"{name}, {phase}": [row(part) for part in parts]
            for phase, parts in of_config(name)
        }


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """As Markdown."""
    lines = []
    for name, rows in found.items():
        for x in rows:
            kinds = ", ".join(f"{n} {kind}" for kind, n in x.get("collectives", {}).items()) or "none"
            result = [f"no: {x['error']}", "", ""] if "error" in x else ["yes", x["working_mb"], kinds]
            lines.append([name, x["part"], *result])
    return trial.markdown(["what", "part", "compiles", "working memory, MB", "collectives"], lines)


def main() -> None:
    """Compiles; writes rows as they come."""
    args = parse()
    import jax

    jax.config.update("jax_platforms", "cpu")
    path, found = HERE / "compiles.json", {}
    for name in args.only:
        print(name, flush=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        found = dict(sorted({**known, **compiled(name, args.chips)}.items()))
        trial.write(path, found)
        path.with_suffix(".md").write_text(table(found))
    failed = [name for name, rows in found.items() if any("error" in x for x in rows)]
    if failed:
        sys.exit(f"does not compile: {', '.join(failed)}")


if __name__ == "__main__":
    main()
