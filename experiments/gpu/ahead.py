"""What XLA makes of a training step for a GPU that is not here, and first states to take along to one.

    python experiments/gpu/ahead.py --config biggan --dtype bfloat16 --out .pack/ahead
    python experiments/gpu/ahead.py --config biggan --set generator.channels=64 --out .pack/ahead --only-init

Needs jax[cuda13], of the version on the other machine if its programs are to run there, but neither GPU nor
driver. Prints the kernels of a step by what they are, its convolutions as cuDNN is asked for them, and its
memory; leaves the program's text in NAME.txt and the compiled first state in NAME.init, which
`speed.py --begin` loads in place of compiling it again. Convolutions run only where XLA has timed them:
training steps are compiled over there.
"""

import argparse
import ast
import collections
import pathlib
import re
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import serialize_executable  # noqa: E402

from experiments import absent  # noqa: E402
from experiments.bench import operations, step  # noqa: E402
from experiments.gpu import speed, worker  # noqa: E402
from jaxdog import sharding  # noqa: E402
from jaxdog.data import batches  # noqa: E402
from jaxdog.training import train_step  # noqa: E402

FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant")  # no kernels


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="biggan")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--steps", type=int, default=10, help="of a dispatch")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".pack/ahead"))
    parser.add_argument("--only-init", action="store_true", help="no step")
    parser.add_argument("--most", type=int, default=25, help="rows")
    return parser.parse_args()


def loop(text: str) -> list[str]:
    """The lines of the body of a program's longest loop, those of computations that it calls among them."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if begun := operations.COMPUTATION.match(line):
            name = begun[1]
        elif name and line.startswith("  "):
            bodies.setdefault(name, []).append(line)
    found = [bodies[name] for name in re.findall(r"body=%([^\s,]+)", text) if name in bodies]
    called = re.compile(r" call\(.*to_apply=%([^\s,]+)")

    def all_of(lines: list[str]) -> list[str]:
        inner = [bodies[match[1]] for line in lines if (match := called.search(line))]
        return lines + [line for each in inner for line in all_of(each)]

    return max((all_of(body) for body in found), key=len, default=[])


def counted(text: str) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """(kernels of the loop by what they are; its convolutions by what cuDNN is asked for)."""
    kinds: collections.Counter[str] = collections.Counter()
    asked: collections.Counter[str] = collections.Counter()
    for line in loop(text):
        found = operations.parsed(line)
        if not found or found[2] in (*FREE, "call"):
            continue
        target = re.search(r'custom_call_target="([^"]*)"', line)
        kind = target[1] if target else found[0] if found[2] == "fusion" else found[2]
        kinds[re.sub(r"[.\d]+$", "", kind)] += 1
        if target and "conv" in target[1]:
            window = re.search(r"window={([^}]*)}", line)
            asked[f"{target[1]} {found[1].split(']')[0].strip('(')}] {window[1] if window else ''}"] += 1
    return kinds, asked


def blank(side: int) -> Any:
    """A training set of the real one's size."""
    image = jnp.zeros((step.PICTURES, side, side, 3), jnp.uint8)
    return batches.resident(image, jnp.zeros(step.PICTURES, jnp.int32))


def compiled(job: dict[str, Any], out: pathlib.Path, only_init: bool) -> str:
    """The text of a step's program; leaves it and the first state's program."""
    with absent.present("cuda", 1):
        config, over = worker.config_of(job), sharding.mesh()
        functions = train_step.compiled(step.last(config), 0, job["k"], over)
        data = sharding.described(jax.eval_shape(lambda: blank(config.data.store_size)), over)
        shape = jax.eval_shape(functions.first, data)
        first = jax.jit(functions.first, out_shardings=sharding.placed(shape, over, False))
        made, _, _ = serialize_executable.serialize(first.lower(data).compile())
        out.mkdir(parents=True, exist_ok=True)
        (at := out / speed.first_state(job)).write_bytes(made)
        print(f"{at}: {len(made) / 2**20:.1f} MiB")
        if only_init:
            return ""
        state = sharding.described(shape, over)
        dispatch = functions.dispatch.lower(state, data, 0.0).compile()
        print(f"working memory: {dispatch.memory_analysis().temp_size_in_bytes / 1e9:.2f} GB")
        at.with_suffix(".txt").write_text(text := dispatch.as_text())
        return text


def main() -> None:
    """Compiles, counts."""
    args = parse()
    jax.config.update("jax_platforms", "cpu")
    changes = dict(setting.split("=", 1) for setting in args.set)
    made = {name: ast.literal_eval(value) for name, value in changes.items()}
    job = speed.job("jaxdog", args.config, args.config, args.dtype, made, k=args.steps)
    text = compiled(job, args.out, args.only_init)
    if not text:
        return
    kinds, asked = counted(text)
    print(f"{kinds.total()} kernels and copies in a step\n")
    for found in (kinds, asked):
        rows = found.most_common(args.most)
        print("\n".join(f"{count:6} {name}" for name, count in rows) + "\n")


if __name__ == "__main__":
    main()
