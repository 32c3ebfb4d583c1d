"""A twin of NASNet-A in TensorFlow: a frozen graph of random weights, laid out and named as TF-slim does it.

Written for the tests from the rules of that implementation: states in a list, indices into it, batch norm on
its own, paddings left to TensorFlow.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from jaxdog.metrics.backbones import nasnet

# (operations, which states they take, whether a state is used up), two operations for every sum.
NORMAL = (
    ("sep 5", "sep 3", "sep 5", "sep 3", "avg", "none", "avg", "avg", "sep 3", "none"),
    (0, 1, 1, 1, 0, 1, 1, 1, 0, 0),
    (True, False, False, False, False, False, False),
)
REDUCTION = (
    ("sep 5", "sep 7", "max", "sep 7", "avg", "sep 5", "none", "avg", "sep 3", "max"),
    (0, 1, 0, 1, 0, 1, 3, 2, 2, 0),
    (True, True, True, False, False, False, False),
)


class Twin:
    """Builds the graph; every constant is drawn when it is named, batch norm's too."""

    def __init__(self, plan: nasnet.Plan, size: int, seed: int):
        self.plan, self.size = plan, size
        self.generator = np.random.default_rng(seed)
        self.graph = tf.Graph()
        with self.graph.as_default():
            self._build()

    def frozen(self) -> bytes:
        return self.graph.as_graph_def().SerializeToString()

    def run(self, image: np.ndarray, names: list[str]) -> list[np.ndarray]:
        with tf.compat.v1.Session(graph=self.graph) as session:
            return session.run([f"{name}:0" for name in names], {"input:0": image})

    def _constant(self, name: str, value: np.ndarray) -> Any:
        return tf.constant(value.astype(np.float32), name=name)

    def _kernel(self, name: str, *shape: int, fan: int) -> Any:
        return self._constant(name, self.generator.normal(0, np.sqrt(1.5 / fan), shape))

    def _norm(self, x: Any, name: str) -> Any:
        c, draw = x.shape[-1], self.generator
        values = {
            "gamma": draw.uniform(0.5, 1.2, c),
            "beta": draw.normal(0, 0.3, c),
            "moving_mean": draw.normal(0, 0.3, c),
            "moving_variance": draw.uniform(0.3, 2, c),
        }
        gamma, beta, mean, variance = (self._constant(f"{name}/{leaf}", v) for leaf, v in values.items())
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3, name=f"{name}/normed")

    def _conv(self, x: Any, name: str, c: int, k: int = 1, stride: int = 1) -> Any:
        kernel = self._kernel(f"{name}/weights", k, k, x.shape[-1], c, fan=k * k * x.shape[-1])
        return tf.nn.conv2d(x, kernel, stride, "VALID")

    def _separable(self, x: Any, scope: str, c: int, k: int, stride: int) -> Any:
        for i in (1, 2):
            name = f"{scope}/separable_{k}x{k}_{i}"
            x, c_in = tf.nn.relu(x), x.shape[-1]
            depthwise = self._kernel(f"{name}/depthwise_weights", k, k, c_in, 1, fan=k * k)
            pointwise = self._kernel(f"{name}/pointwise_weights", 1, 1, c_in, c, fan=c_in)
            x = tf.nn.depthwise_conv2d(x, depthwise, (1, stride, stride, 1), "SAME")
            x = self._norm(tf.nn.conv2d(x, pointwise, 1, "SAME"), f"{scope}/bn_sep_{k}x{k}_{i}")
            stride = 1
        return x

    def _previous(self, x: Any, net: Any, scope: str, c: int) -> Any:
        if x is None:
            return net
        if x.shape[2] != net.shape[2]:
            x = tf.nn.relu(x)
            shifted = tf.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
            halves = [
                self._conv(tf.nn.avg_pool2d(half, 1, 2, "VALID"), f"{scope}/path{i}_conv", c // 2)
                for i, half in enumerate((x, shifted), 1)
            ]
            return self._norm(tf.concat(halves, -1), f"{scope}/final_path_bn")
        if x.shape[-1] != c:
            return self._norm(self._conv(tf.nn.relu(x), f"{scope}/prev_1x1", c), f"{scope}/prev_bn")
        return x

    def _cell(self, scope: str, net: Any, previous: Any, c: int, rules: tuple, stride: int) -> Any:
        operations, indices, used = rules
        previous = self._previous(previous, net, scope, c)
        net = self._norm(self._conv(tf.nn.relu(net), f"{scope}/1x1", c), f"{scope}/beginning_bn")
        states = [net, previous]
        for i in range(5):
            sides = []
            for side, at in (("left", 2 * i), ("right", 2 * i + 1)):
                x, step = states[indices[at]], stride if indices[at] < 2 else 1
                kind, *k = operations[at].split()
                if kind == "sep":
                    x = self._separable(x, f"{scope}/comb_iter_{i}/{side}", c, int(k[0]), step)
                elif kind == "avg":
                    x = tf.nn.avg_pool2d(x, 3, step, "SAME")
                elif kind == "max":
                    x = tf.nn.max_pool2d(x, 3, step, "SAME")
                sides.append(x)
            states.append(sides[0] + sides[1])
        kept = [state for state, gone in zip(states, used, strict=True) if not gone]
        return tf.concat(kept, -1, name=f"{scope}/cell_output/concat")

    def _build(self) -> None:
        plan = self.plan
        x = tf.compat.v1.placeholder(tf.float32, (None, self.size, self.size, 3), name="input")
        outputs = [None, self._norm(self._conv(x, "conv0", plan.stem, 3, 2), "conv0_bn")]
        for i, scale in enumerate((0.25, 0.5)):
            c = int(plan.filters * scale)
            outputs.append(self._cell(f"cell_stem_{i}", outputs[-1], outputs[-2], c, REDUCTION, 2))
        scale = 1
        for i in range(3 * plan.cells):
            previous = outputs[-2]
            if i in (plan.cells, 2 * plan.cells):
                scale *= 2
                name = f"reduction_cell_{i // plan.cells - 1}"
                outputs.append(self._cell(name, outputs[-1], outputs[-2], plan.filters * scale, REDUCTION, 2))
                previous = previous if plan.skip else outputs[-2]
            outputs.append(self._cell(f"cell_{i}", outputs[-1], previous, plan.filters * scale, NORMAL, 1))
        mean = tf.reduce_mean(tf.nn.relu(outputs[-1]), (1, 2), name="final_layer/Mean")
        classes = self._constant(
            "final_layer/FC/weights", self.generator.normal(0, 1, (24 * plan.filters, 11))
        )
        tf.matmul(mean, classes, name="final_layer/FC/MatMul")
