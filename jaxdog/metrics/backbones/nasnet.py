"""NASNet-A-Large, the eye of the private leaderboard, with batch norm folded into its kernels.

Every module carries the name it has in the published TF-slim graph, so the path of a parameter joined with
"/" is that name: `conv0/weights` [kh, kw, in, out], `cell_0/comb_iter_0/left/separable_5x5_1/...` with
`depthwise_weights` [kh, kw, in, 1] and `pointwise_weights` [1, 1, in, out]; `.../biases` [out] are what is
left of batch norm. The network runs in float32 with matrix products at the highest precision: a score must
not depend on the machine.

Source: Zoph et al. 2018, arXiv:1707.07012, figure 4, as published in the graph: unlike the figure's, a normal
cell joins its second input to its five sums.
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
WIDTH = {"final_mean": 4032}  # channels of the features


class Plan(NamedTuple):
    """How large a NASNet-A is."""

    cells: int = 6  # normal cells in each of the three blocks
    filters: int = (
        168  # of the first block's cells; a reduction doubles them, the features are 24 times these
    )
    stem: int = 96  # channels of conv0
    skip: bool = True  # after a reduction the second input comes from before the reduction's own input


LARGE = Plan()

# What a cell adds to its states, OP:STATE + OP:STATE each time. State 0 is the cell's input after a 1x1
# convolution, 1 the output of the cell before it, fitted; every sum becomes the next state. KxK is twice
# relu, depthwise and pointwise convolution; avg and max are 3x3 pools, where the padding counts in neither.
NORMAL = "5x5:0+3x3:1 5x5:1+3x3:1 avg:0+same:1 avg:1+avg:1 3x3:0+same:0"
REDUCTION = "5x5:0+7x7:1 max:0+7x7:1 avg:0+5x5:1 same:3+avg:2 3x3:2+max:0"  # stride 2 from states 0 and 1
NORMAL_KEEPS, REDUCTION_KEEPS = 1, 3  # the first of the states that are the cell's output, joined


class Unit(NamedTuple):
    """A convolution and its batch norm: plain, or `separable` into a depthwise and a pointwise one."""

    name: str  # full name in the graph
    norm: str  # that of its batch norm; two convolutions that share one are joined before it
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
    """One side of a sum."""

    op: str
    state: int
    stride: int
    units: tuple[Unit, ...]  # two, or none for pools and "same"


class Cell(NamedTuple):
    """Five sums; the first input is always the latest output."""

    name: str
    previous: int  # which output is the second input: 0 is conv0's, then come the cells'
    fit: tuple[Unit, ...]  # make it state 1: nothing, a 1x1, or two of stride 2 whose outputs are joined
    entry: Unit  # makes the first input state 0
    sums: tuple[tuple[Branch, Branch], ...]
    keeps: int


def _schedule(plan: Plan) -> Iterator[tuple[str, bool, int, int]]:
    """(name, whether it reduces, filters, index of the second input's output) of each cell."""
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


def _fit(name: str, c_in: int, filters: int, halve: bool) -> tuple[Unit, ...]:
    if halve:
        paths = (f"{name}/path1_conv", f"{name}/path2_conv")
        return tuple(Unit(path, f"{name}/final_path_bn", c_in, filters // 2, stride=2) for path in paths)
    return (Unit(f"{name}/prev_1x1", f"{name}/prev_bn", c_in, filters),) if c_in != filters else ()


def _branch(scope: str, word: str, c_in: int, filters: int, stride: int) -> Branch:
    """`c_in` is that of state 1, and `stride` that of states 0 and 1; the others are filters and 1."""
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
    outputs = [(plan.stem, 0)]  # channels, and how often the image was halved
    found: list[Cell] = []
    for name, reduces, filters, previous in _schedule(plan):
        (c, halved), (c_previous, halved_previous) = outputs[-1], outputs[previous]
        fit = _fit(name, c_previous, filters, halved != halved_previous)
        if not found:
            fit = ()  # the first cell has no second input and takes its first, as it is
        c_state = filters if fit else c_previous
        sums = []
        for i, pair in enumerate((REDUCTION if reduces else NORMAL).split()):
            sides = zip(("left", "right"), pair.split("+"), strict=True)
            left, right = (
                _branch(f"{name}/comb_iter_{i}/{side}", word, c_state, filters, 1 + reduces)
                for side, word in sides
            )
            sums.append((left, right))
        entry = Unit(f"{name}/1x1", f"{name}/beginning_bn", c, filters)
        keeps = REDUCTION_KEEPS if reduces else NORMAL_KEEPS
        found.append(Cell(name, previous, fit, entry, tuple(sums), keeps))
        outputs.append(((2 + len(sums) - keeps) * filters, halved + reduces))
    return found


def units(plan: Plan = LARGE) -> Iterator[Unit]:
    """Every convolution, in the order of the graph."""
    yield Unit("conv0", "conv0_bn", 3, plan.stem, kernel=3, stride=2)
    for cell in cells(plan):
        yield from (*cell.fit, cell.entry)
        for sides in cell.sums:
            yield from (unit for branch in sides for unit in branch.units)


def shapes(plan: Plan = LARGE) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each parameter, in the order of the graph."""
    return {f"{unit.name}/{leaf}": shape for unit in units(plan) for leaf, shape in unit.shapes().items()}


def _depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """Each channel of [b, h, w, c] with its own [kh, kw] of `kernel` [kh, kw, c, 1], padding SAME."""
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
    """The same sums as shifted copies times weights, which XLA's CPU backend fuses: 15 to 50 times faster."""
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
    """[b, 331, 331, 3] in [-1, 1] -> "final_mean" [b, 4032], the mean over space of the last cell's relu.

    Where a pool of a reduction cell reaches over the border the graph leaves the padding out. Keras' port
    pools over zeros that count there, so its features differ at every border, at 331 px too; all else is the
    same, strided convolutions included. With `zeros_count` the network is Keras' port to the last border.
    """

    plan: Plan = LARGE
    zeros_count: bool = False

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        conv0 = next(units(self.plan))
        outputs = [Layer(conv0, name=conv0.name)(x)]
        for cell in cells(self.plan):
            outputs.append(_run(cell, outputs[-1], outputs[cell.previous], self.zeros_count))
            self.sow("intermediates", cell.name, outputs[-1])
        return {"final_mean": jnp.mean(nn.relu(outputs[-1]), axis=(1, 2))}


def _run(cell: Cell, x: Array, previous: Array, zeros_count: bool) -> Array:
    """One cell's output from its two inputs."""
    # The two halves of a fit see every other pixel, the second from (1, 1) on, with zeros past the end.
    views = (previous, jnp.pad(previous, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:])
    fitted = [Layer(unit, name=unit.name)(nn.relu(view)) for unit, view in zip(cell.fit, views, strict=False)]
    states = [Layer(cell.entry, name=cell.entry.name)(nn.relu(x))]
    states.append(jnp.concatenate(fitted, axis=-1) if fitted else previous)
    for left, right in cell.sums:
        states.append(
            _side(left, states[left.state], zeros_count) + _side(right, states[right.state], zeros_count)
        )
    return jnp.concatenate(states[cell.keeps :], axis=-1)


def _side(branch: Branch, x: Array, zeros_count: bool) -> Array:
    for unit in branch.units:
        x = Layer(unit, name=unit.name)(nn.relu(x))
    if branch.op not in ("avg", "max"):
        return x
    stride, padding = branch.stride, "SAME"
    if zeros_count and stride > 1:
        border = lax.padtype_to_pads(x.shape[1:3], (pooling.WINDOW,) * 2, (stride, stride), padding)
        x, padding = jnp.pad(x, ((0, 0), *border, (0, 0))), "VALID"
    return (pooling.max_pool if branch.op == "max" else pooling.avg_pool)(x, stride, padding)


def preprocess(image: Array) -> Array:
    """[b, h, w, 3] in 0..255 -> the network's input [b, 331, 331, 3] in [-1, 1]."""
    return (inception.legacy_resize(image, SIZE) / 255.0 - 0.5) * 2.0
