"""Which form of a convolution is fast on a GPU: outputs and both gradients, in every way it can be written.

    python experiments/gpu/forms.py --out DIR/forms.json

All are compiled in a few threads; then the forms of a layer are timed in turns. How far a form's results are
from the first one's is told, too.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from experiments import trial  # noqa: E402
from jaxdog.ops import conv  # noqa: E402

Form = Callable[[jax.Array, jax.Array], jax.Array]


def plain(x: jax.Array, kernel: jax.Array, **more: Any) -> jax.Array:
    """One resolution, zeros around."""
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=order, **more)


def phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A transposed convolution as four of 2x2."""
    return conv._phases(x, kernel)  # pyright: ignore[reportPrivateUsage]


def more_inputs(x: jax.Array, kernel: jax.Array, to: int) -> jax.Array:
    """With channels of zeros."""
    wide = [(0, 0)] * 3 + [(0, to - x.shape[-1])]
    return plain(jnp.pad(x, wide), jnp.pad(kernel, [*wide[:2], wide[3], wide[0]]))


def more_outputs(x: jax.Array, kernel: jax.Array, to: int) -> jax.Array:
    """Computes more than are wanted."""
    wide = [(0, 0)] * 3 + [(0, to - kernel.shape[-1])]
    return plain(x, jnp.pad(kernel, wide))[..., : kernel.shape[-1]]


def half(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Products of bfloat16, sums and result float32."""
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return plain(x, kernel, preferred_element_type=jnp.float32)


def shifted(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product with all taps, then shifts."""
    return conv._shifted(x, kernel, (conv.same(3),) * 2)  # pyright: ignore[reportPrivateUsage]


FORMS: dict[str, dict[str, Form]] = {
    "up": {
        "upsampled, then 3x3": lambda x, k: plain(conv.upsample_nearest(x), k),
        "4x4, transposed": lambda x, k: conv.conv2d(x, k, "up"),
    },
    "down": {
        "3x3, then pooled": lambda x, k: conv.avg_pool(plain(x, k)),
        "4x4 of stride 2": lambda x, k: conv.conv2d(x, k, "down"),
    },
    "transposed": {"four of 2x2": phases, "transposed": conv.transposed},
    "from pictures": {
        "3 channels": plain,
        "4 channels": functools.partial(more_inputs, to=4),
        "8 channels": functools.partial(more_inputs, to=8),
    },
    "to pictures": {
        "3 channels": plain,
        "4 channels": functools.partial(more_outputs, to=4),
        "8 channels": functools.partial(more_outputs, to=8),
        "bfloat16 to float32": half,
        "one product, shifted": shifted,
    },
}


class Layer(NamedTuple):
    """Of a network: b pictures of h x h, c channels to k."""

    kind: str  # of FORMS
    b: int
    h: int
    c: int
    k: int
    dtype: str

    def operands(self) -> tuple[jax.Array, jax.Array]:
        """Maps and a kernel."""
        size = 4 if self.kind == "transposed" else 3
        x = jax.random.normal(jax.random.key(0), (self.b, self.h, self.h, self.c))
        kernel = jax.random.normal(jax.random.key(1), (size, size, self.c, self.k)) / (size * self.c**0.5)
        return x.astype(self.dtype), kernel


def layers() -> Iterator[Layer]:
    """Of BigGAN, DCGAN."""
    for b, dtype in ((32, "bfloat16"), (256, "bfloat16"), (64, "float32")):
        yield from (Layer("up", b, h, c, k, dtype) for h, c, k in ((8, 512, 256), (32, 128, 64)))
        yield from (Layer("down", b, h, c, k, dtype) for h, c, k in ((64, 64, 64), (16, 256, 256)))
    yield from (Layer("transposed", 32, h, 512, 256, "bfloat16") for h in (8, 16))
    yield from (Layer("from pictures", 64, 64, 3, 64, dtype) for dtype in ("bfloat16", "float32"))
    yield Layer("to pictures", 64, 64, 64, 3, "float32")


def compiled(layer: Layer, form: Form) -> tuple[Any, float]:
    """(outputs and both gradients from maps, kernel, the output's gradient; seconds to compile)."""

    def every(x: jax.Array, kernel: jax.Array, g: jax.Array) -> Any:
        def computed(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return form(x, kernel.astype(x.dtype))

        y, back = jax.vjp(computed, x, kernel)
        return y, back(g.astype(y.dtype))

    x, kernel = layer.operands()
    g = jax.random.normal(jax.random.key(2), jax.eval_shape(form, x, kernel.astype(x.dtype)).shape)
    mark = time.perf_counter()
    made = jax.jit(every).lower(x, kernel, g).compile()
    return made, time.perf_counter() - mark


def apart(first: Any, other: Any) -> float:
    """The largest difference of norms, to the first's."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    both = [(a.astype(jnp.float32), b.astype(jnp.float32)) for a, b in pairs]
    return max(float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(a.ravel())) for a, b in both)


def timed(
    runs: dict[str, Any], operands: tuple[Any, ...], seconds: float, rounds: int = 5
) -> dict[str, float]:
    """Microseconds of one run of each, the median of turns."""
    many, found = {}, {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            count = many.get(name, 3)
            jax.block_until_ready(run(*operands))
            mark = time.perf_counter()
            jax.block_until_ready([run(*operands) for _ in range(count)][-1])
            took = (time.perf_counter() - mark) / count
            found[name].append(1e6 * took)
            many[name] = max(3, int(seconds / rounds / took))
    return {name: statistics.median(us[1:]) for name, us in found.items()}


def main() -> None:
    """All layers; a table on the way, JSON at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each form of a layer")
    parser.add_argument("--threads", type=int, default=8)
    args = parser.parse_args()
    rows = []
    with futures.ThreadPoolExecutor(args.threads) as pool:
        made = {
            layer: {name: pool.submit(compiled, layer, form) for name, form in FORMS[layer.kind].items()}
            for layer in layers()
        }
        for layer, forms in made.items():
            runs = {name: future.result()[0] for name, future in forms.items()}
            compiling = {name: future.result()[1] for name, future in forms.items()}
            x, kernel = layer.operands()
            form = next(iter(FORMS[layer.kind].values()))
            g = jax.random.normal(jax.random.key(2), jax.eval_shape(form, x, kernel.astype(x.dtype)).shape)
            first = next(iter(runs.values()))(x, kernel, g)
            rows.append({"layer": layer._asdict(), "compile_seconds": compiling})
            rows[-1]["apart"] = {name: apart(first, run(x, kernel, g)) for name, run in runs.items()}
            rows[-1]["runs"] = runs, (x, kernel, g)
    for row in rows:
        row["microseconds"] = timed(*row.pop("runs"), args.seconds)
        print(*row["layer"].values(), {k: round(v, 1) for k, v in row["microseconds"].items()}, flush=True)
        print("   ", row["apart"], row["compile_seconds"], flush=True)
    trial.write(args.out, rows)


if __name__ == "__main__":
    main()
