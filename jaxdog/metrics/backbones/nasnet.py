"""NASNet-A-Large, the network of the private leaderboard's MiFID, with batch norm folded into its kernels.

Modules have the names of the published TF-slim graph. The path of a parameter, joined with "/", is its name
there, such as `conv0/weights` [kh, kw, in, out], or `cell_0/comb_iter_0/left/separable_5x5_1/...` with
`depthwise_weights` [kh, kw, in, 1] and `pointwise_weights` [1, 1, in, out]. `.../biases` [out] come from
batch norm. The network runs in float32 with matrix products at the highest precision, so that scores do not
depend on the machine.

Source: Zoph et al. 2018, arXiv:1707.07012, figure 4, as in the published graph. Unlike the figure, a
normal cell concatenates its second input with its five sums.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdog.metrics.backbones import inception
from jaxdog.ops import pooling

Array = jax.Array

SIZE = 331  # px, height and width of the network's input
WIDTH = {"final_mean": 4032}  # layer -> channels


class Plan(NamedTuple):
    """The size of a NASNet-A."""

    cells: int = 6  # normal cells in each of the three blocks
    filters: int = 168  # in the first block's cells; reductions double them; there are 24 * filters features
    stem: int = 96  # channels of conv0
    skip: bool = True  # after a reduction, the second input is from before the reduction's own input


LARGE = Plan()

# The five sums of a cell, OP:STATE + OP:STATE each. State 0 is the cell's input after a 1x1 convolution,
# state 1 the output of the cell before that, projected to the same shape; each sum becomes the next
# state. KxK is ReLU, depthwise and pointwise convolution, twice; avg and max are 3x3 pools that exclude the
# padding.
NORMAL = "5x5:0+3x3:1 5x5:1+3x3:1 avg:0+same:1 avg:1+avg:1 3x3:0+same:0"
REDUCTION = "5x5:0+7x7:1 max:0+7x7:1 avg:0+5x5:1 same:3+avg:2 3x3:2+max:0"  # stride 2 from states 0 and 1
NORMAL_OUTPUT, REDUCTION_OUTPUT = 1, 3  # the first of the states that are concatenated as the output


class Unit(NamedTuple):
    """A convolution and its batch norm: plain, or `separable` into a depthwise and a pointwise one."""

    name: str  # full name in the graph
    norm: str  # name of its batch norm; two convolutions that share one are concatenated before it
    c_in: int
    c_out: int
    kernel: int = 1
    stride: int = 1
    separable: bool = False

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of its parameters."""
        k, biases = self.kernel, {"biases": (self.c_out,)}
        if self.separable:
            depthwise, pointwise = (k, k, self.c_in, 1), (1, 1, self.c_in, self.c_out)
            return {"depthwise_weights": depthwise, "pointwise_weights": pointwise} | biases
        return {"weights": (k, k, self.c_in, self.c_out)} | biases


class Branch(NamedTuple):
    """One term of a sum."""

    op: str
    state: int
    stride: int
    units: tuple[Unit, ...]  # two, or none for pools and "same"


class Cell(NamedTuple):
    """Five sums; the first input is the output of the previous cell."""

    name: str
    previous: int  # index of the output that is the second input: 0 is conv0's, followed by the cells'
    projection: tuple[Unit, ...]  # second input -> state 1: none, a 1x1, or two of stride 2, concatenated
    entry: Unit  # first input -> state 0
    sums: tuple[tuple[Branch, Branch], ...]
    first_output: int  # the output concatenates the states from this one on


def _schedule(plan: Plan) -> Iterator[tuple[str, bool, int, int]]:
    """(name, whether it is a reduction, filters, index of the second input) of each cell."""
    yield "cell_stem_0", True, plan.filters // 4, 0
    yield "cell_stem_1", True, plan.filters // 2, 0
    latest = 2
    for i in range(3 * plan.cells):
        block, place = divmod(i, plan.cells)
        filters, previous = plan.filters * 2**block, latest - 1
        if block and place == 0:
            yield f"reduction_cell_{block - 1}", True, filters, previous
            latest += 1
            previous = previous if plan.skip else latest - 1
        yield f"cell_{i}", False, filters, previous
        latest += 1


def _projection(name: str, c_in: int, filters: int, halve: bool) -> tuple[Unit, ...]:
    if halve:
        paths = (f"{name}/path1_conv", f"{name}/path2_conv")
        return tuple(Unit(path, f"{name}/final_path_bn", c_in, filters // 2, stride=2) for path in paths)
    return (Unit(f"{name}/prev_1x1", f"{name}/prev_bn", c_in, filters),) if c_in != filters else ()


def _branch(scope: str, word: str, c_in: int, filters: int, stride: int) -> Branch:
    """A term of a sum. State 1 has `c_in` channels, the others `filters`; `stride` is for states 0 and 1."""
    op, state = word.split(":")
    c, stride = (c_in if state == "1" else filters), (stride if int(state) < 2 else 1)
    branch = Branch(op, int(state), stride, ())
    if not op[0].isdigit():
        return branch
    pair = []
    for i in (1, 2):
        name, norm = f"{scope}/separable_{op}_{i}", f"{scope}/bn_sep_{op}_{i}"
        pair.append(Unit(name, norm, c, filters, int(op[0]), stride, separable=True))
        c, stride = filters, 1
    return branch._replace(units=tuple(pair))


def cells(plan: Plan = LARGE) -> list[Cell]:
    """The network after conv0, cell by cell."""
    outputs = [(plan.stem, 0)]  # channels, and number of times the image was halved
    built: list[Cell] = []
    for name, reduces, filters, previous in _schedule(plan):
        (c, halved), (c_previous, halved_previous) = outputs[-1], outputs[previous]
        projection = _projection(name, c_previous, filters, halved != halved_previous)
        if not built:
            projection = ()  # the first cell has no second input and uses the first one
        c_state = filters if projection else c_previous
        sums = []
        for i, pair in enumerate((REDUCTION if reduces else NORMAL).split()):
            sides = zip(("left", "right"), pair.split("+"), strict=True)
            left, right = (
                _branch(f"{name}/comb_iter_{i}/{side}", word, c_state, filters, 1 + reduces)
                for side, word in sides
            )
            sums.append((left, right))
        entry = Unit(f"{name}/1x1", f"{name}/beginning_bn", c, filters)
        first_output = REDUCTION_OUTPUT if reduces else NORMAL_OUTPUT
        built.append(Cell(name, previous, projection, entry, tuple(sums), first_output))
        outputs.append(((2 + len(sums) - first_output) * filters, halved + reduces))
    return built


def units(plan: Plan = LARGE) -> Iterator[Unit]:
    """Every convolution, in the order of the graph."""
    yield Unit("conv0", "conv0_bn", 3, plan.stem, kernel=3, stride=2)
    for cell in cells(plan):
        yield from (*cell.projection, cell.entry)
        for sides in cell.sums:
            yield from (unit for branch in sides for unit in branch.units)


def shapes(plan: Plan = LARGE) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each parameter, in the order of the graph."""
    return {f"{unit.name}/{leaf}": shape for unit in units(plan) for leaf, shape in unit.shapes().items()}


def _depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """Depthwise convolution of [b, h, w, c] with [kh, kw, c, 1], padding SAME."""
    cpu, default = partial(_depthwise_on_cpu, stride=stride), partial(_depthwise_plain, stride=stride)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _depthwise_plain(x: Array, kernel: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel.transpose(0, 1, 3, 2),
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision=lax.Precision.HIGHEST,
    )


def _depthwise_on_cpu(x: Array, kernel: Array, stride: int) -> Array:
    """The same as a sum of shifted, weighted copies, which XLA's CPU backend fuses: 15 to 50 times faster."""
    b, h, w, c = x.shape
    k = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), *lax.padtype_to_pads((h, w), (k, k), (stride, stride), "SAME"), (0, 0)))
    rows, columns = stride * (-(-h // stride) - 1) + 1, stride * (-(-w // stride) - 1) + 1
    total = None
    for i in range(k):
        for j in range(k):
            shifted = lax.slice(x, (0, i, j, 0), (b, i + rows, j + columns, c), (1, stride, stride, 1))
            term = shifted * kernel[i, j, :, 0][None, None, None, :]
            total = term if total is None else total + term
    assert total is not None
    return total


class Layer(nn.Module):
    """y = unit(x) + biases, float32 [b, h, w, c]; conv0 pads VALID, depthwise kernels SAME."""

    unit: Unit

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = self.unit
        initial = {"biases": nn.initializers.zeros_init()}
        kernels = {
            leaf: self.param(leaf, initial.get(leaf, nn.initializers.he_normal()), shape)
            for leaf, shape in unit.shapes().items()
        }
        if unit.separable:
            x = _depthwise(x, kernels["depthwise_weights"], unit.stride)
            kernel = kernels["pointwise_weights"]
        else:
            kernel = kernels["weights"]
        if kernel.shape[0] == 1:
            x = x if unit.separable else x[:, :: unit.stride, :: unit.stride]
            x = jnp.dot(x, kernel[0, 0], precision=lax.Precision.HIGHEST)
        else:
            layout, stride = ("NHWC", "HWIO", "NHWC"), (unit.stride, unit.stride)
            x = lax.conv_general_dilated(
                x, kernel, stride, "VALID", dimension_numbers=layout, precision=lax.Precision.HIGHEST
            )
        return x + kernels["biases"][None, None, None, :]


class NASNet(nn.Module):
    """[b, 331, 331, 3] in [-1, 1] -> "final_mean" [b, 4032], the spatial mean of the last cell after ReLU.

    The pools of reduction cells exclude the padding, as in the graph. Keras' port includes zero
    padding in them, so its features differ at the borders, also at 331 px; the rest is the same.
    `include_padding` gives Keras' network.
    """

    plan: Plan = LARGE
    include_padding: bool = False

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        conv0 = next(units(self.plan))
        outputs = [Layer(conv0, name=conv0.name)(x)]
        for cell in cells(self.plan):
            outputs.append(_run(cell, outputs[-1], outputs[cell.previous], self.include_padding))
            self.sow("intermediates", cell.name, outputs[-1])
        return {"final_mean": jnp.mean(nn.relu(outputs[-1]), axis=(1, 2))}


def _run(cell: Cell, x: Array, previous: Array, include_padding: bool) -> Array:
    """One cell's output from its two inputs."""
    # The two halves of a strided projection read every other pixel, the second from (1, 1) on, zero-padded.
    views = (previous, jnp.pad(previous, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:])
    projected = [
        Layer(unit, name=unit.name)(nn.relu(view)) for unit, view in zip(cell.projection, views, strict=False)
    ]
    states = [Layer(cell.entry, name=cell.entry.name)(nn.relu(x))]
    states.append(jnp.concatenate(projected, axis=-1) if projected else previous)
    for left, right in cell.sums:
        states.append(
            _side(left, states[left.state], include_padding)
            + _side(right, states[right.state], include_padding)
        )
    return jnp.concatenate(states[cell.first_output :], axis=-1)


def _side(branch: Branch, x: Array, include_padding: bool) -> Array:
    for unit in branch.units:
        x = Layer(unit, name=unit.name)(nn.relu(x))
    if branch.op not in ("avg", "max"):
        return x
    stride, padding = branch.stride, "SAME"
    if include_padding and stride > 1:
        border = lax.padtype_to_pads(x.shape[1:3], (pooling.WINDOW,) * 2, (stride, stride), padding)
        x, padding = jnp.pad(x, ((0, 0), *border, (0, 0))), "VALID"
    return (pooling.max_pool if branch.op == "max" else pooling.avg_pool)(x, stride, padding)


def preprocess(image: Array) -> Array:
    """[b, h, w, 3] in 0..255 -> the network's input [b, 331, 331, 3] in [-1, 1]."""
    return (inception.legacy_resize(image, SIZE) / 255.0 - 0.5) * 2.0
