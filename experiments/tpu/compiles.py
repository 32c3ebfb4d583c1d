"""Whether all of it compiles for TPUs, asked of XLA's compiler for them; needs jax[tpu], but no TPU.

    python experiments/tpu/compiles.py                                     # every config, the scorer
    python experiments/tpu/compiles.py --only biggan,stylegan,scorer --chips 8

Compiles for TPU v5e: of each config at its test's size, in each phase, the first state, a step and the sheet
of samples; and the scorer's functions at the competition's size. What is compiled cannot run here, so nothing
is said of numbers or speed. Leaves compiles.json and compiles.md beside this file, of all that was compiled.
"""

import argparse
import functools
import importlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments import absent  # noqa: E402
from experiments.bench import scaling  # noqa: E402

CONFIGS = sorted(path.stem for path in (HERE.parent.parent / "configs").glob("*.py"))
SCORER = "scorer"
CLASSES = 3
REAL, FAKE, BATCH = 20_579, 10_000, 64  # pictures; those that Inception sees at once
Part = tuple[str, Callable[[], Any]]  # (what it is, a function that lowers it)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join((*CONFIGS, SCORER)), help="separated by commas")
    parser.add_argument("--chips", type=int, default=4, help=", ".join(map(str, absent.SLICES)))
    args = parser.parse_args()
    unknown = sorted(set(args.only.split(",")) - {*CONFIGS, SCORER})
    if unknown:
        parser.error(f"{unknown[0]} is no config; choices: {', '.join((*CONFIGS, SCORER))}")
    return args


def trained(name: str) -> Iterator[tuple[str, list[Part]]]:
    """Phases of a config, and what is compiled of each."""
    import jax
    import jax.numpy as jnp

    from jaxdog import sharding
    from jaxdog.config import build
    from jaxdog.data import batches
    from jaxdog.training import train_step

    over = sharding.mesh()
    config = build.check(importlib.import_module(f"configs.{name}").get_config("test"))
    shape = (40, config.data.store_size, config.data.store_size, 3)
    data = sharding.described(
        jax.eval_shape(lambda: batches.resident(jnp.zeros(shape, jnp.uint8), jnp.zeros(40, jnp.int32))), over
    )
    label = jax.ShapeDtypeStruct((8,), jnp.int32, sharding=sharding.everywhere(over))
    last: Any = None
    for phase in build.phases(config, CLASSES):
        functions = train_step.compiled(phase, 0, 1, over)
        begin, given = (functions.first, data) if phase.enter is None or last is None else (phase.enter, last)
        last = sharding.described(jax.eval_shape(begin, given), over)
        where = sharding.placed(last, over, False)
        first = functools.partial(jax.jit(begin, out_shardings=where).lower, given)
        step = functools.partial(functions.dispatch.lower, last, data, 0.0)
        grid = functools.partial(functions.grid.lower, last, label)
        yield phase.name, [("first state", first), ("step", step), ("samples", grid)]


def scored() -> list[Part]:
    """The scorer's functions, sides dealt out as in a run; what factors matrices is left to the host."""
    import jax
    import jax.numpy as jnp

    from jaxdog import sharding
    from jaxdog.evaluation import metric_suite
    from jaxdog.metrics import features, kid, prdc
    from jaxdog.metrics.backbones import inception

    over = sharding.mesh()
    rows, whole = sharding.by_rows(over), sharding.everywhere(over)
    width = inception.WIDTH["pool_3"]

    def array(shape: tuple[int, ...], where: Any, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    def side(n: int) -> metric_suite.Rows:
        n = sharding.rounded(n, over)
        return metric_suite.Rows(array((n, width), rows), array((n,), rows))

    params = jax.eval_shape(
        lambda: inception.Inception(head=False).init(jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
    )["params"]
    params = sharding.described(params, over)
    radius = array((side(REAL).weight.shape[0],), whole)
    found = {
        "memorization distance": (metric_suite._memorization, (side(FAKE), side(REAL)), ()),
        "radius": (metric_suite._radius, (side(REAL), prdc.K), (1,)),
        "precision and recall": (metric_suite._prdc, (side(REAL), radius, side(FAKE), prdc.K), (3,)),
        "KID": (
            kid.kid,
            (array((REAL, width), whole), array((FAKE, width), whole), kid.draw(REAL, FAKE)),
            (),
        ),
        "Inception": (features.features, (params, array((BATCH, 64, 64, 3), rows, jnp.uint8)), ()),
    }
    return [
        (name, functools.partial(sharding.compiled(function, over, *static).lower, *given))
        for name, (function, given, static) in found.items()
    ]


def row(part: Part) -> dict[str, Any]:
    """Seconds, memory and collectives of what compiles; the error of what does not."""
    name, lower = part
    begun = time.perf_counter()
    try:
        made = lower().compile()
    except Exception as error:  # one that fails must not hide what the others do
        return {"part": name, "error": f"{type(error).__name__}: {error}"[:500]}
    found = {
        "part": name,
        "seconds": round(time.perf_counter() - begun, 1),
        "working_mb": round(made.memory_analysis().temp_size_in_bytes / 1e6, 1),
        "collectives": {kind: x["count"] for kind, x in scaling.collectives(made.as_text()).items()},
    }
    print(found, flush=True)
    return found


def one(name: str, chips: int) -> dict[str, list[dict[str, Any]]]:
    """Title -> rows of all that is compiled of a config, or of the scorer."""
    with absent.present("tpu", chips):
        if name == SCORER:
            return {name: [row(part) for part in scored()]}
        return {
            name if told in ("", "gan") else f"{name}, {told}": [row(part) for part in parts]
            for told, parts in trained(name)
        }


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """As Markdown."""
    lines = ["| what | part | compiles | working memory, MB | collectives |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        for x in rows:
            travels = ", ".join(f"{n} {kind}" for kind, n in x.get("collectives", {}).items()) or "none"
            said = f"no: {x['error']} | |" if "error" in x else f"yes | {x['working_mb']} | {travels}"
            lines.append(f"| {name} | {x['part']} | {said} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compiles; writes rows as they come."""
    args = parse()
    import jax

    jax.config.update("jax_platforms", "cpu")
    path, found = HERE / "compiles.json", {}
    for name in args.only.split(","):
        print(name, flush=True)
        made = one(name, args.chips)
        found = dict(sorted({**(json.loads(path.read_text()) if path.exists() else {}), **made}.items()))
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(table(found))
    failed = [name for name, rows in found.items() if any("error" in x for x in rows)]
    if failed:
        sys.exit(f"does not compile: {', '.join(failed)}")


if __name__ == "__main__":
    main()
