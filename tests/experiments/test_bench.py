"""What training steps are timed against: PyTorch's trainers have our sizes, losses and moving parameters."""

import argparse
import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import trial
from experiments.bench import operations, step
from jaxdog.losses import adversarial

torch = pytest.importorskip("torch", reason="torch is what is timed against (make oracles)")
torch_games = pytest.importorskip("experiments.bench.torch_games")


def args_of() -> argparse.Namespace:
    made = trial.parser("")
    made.set_defaults(kimg=1.0, narrow=True)
    return made.parse_args([])


@pytest.mark.parametrize("name", step.FAMILIES)
def test_a_step_moves_as_many_parameters_as_ours(name: str) -> None:
    config = step.config_of(name, args_of())
    config.game.batch_size = 4
    params = step.parameters(config)
    ours = [sum(x.size for x in jax.tree.leaves(params[player])) for player in ("g", "d")]
    g, d = torch_games.networks(config, params, step.CLASSES, torch.contiguous_format)
    assert [sum(x.numel() for x in player.params) for player in (g, d)] == ours
    trainer = torch_games.Trainer(g, d, config, step.CLASSES)
    before = [[x.detach().clone() for x in player.params] for player in (g, d)]
    real, label = torch.rand(4, 3, 64, 64) * 2 - 1, torch.arange(4)
    for _ in range(2):  # in the first, gains of zero keep what is behind them still
        assert all(torch.isfinite(x) for x in trainer.step(real, label))
    for old, player in zip(before, (g, d), strict=True):
        moved = [bool((x != y).any()) for x, y in zip(old, player.params, strict=True)]
        assert np.mean(moved) > 0.9


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("hinge", adversarial.hinge()),
        ("non_saturating", adversarial.non_saturating()),
        ("least_squares", adversarial.least_squares(sigmoid=True)),
    ],
)
def test_losses_are_ours(name: str, ours: adversarial.Loss) -> None:
    real, fake = np.random.default_rng(0).normal(scale=2.0, size=(2, 16)).astype(np.float32)
    key = jax.random.key(0)
    expected = [*(np.mean(x) for x in ours.d(key, real, fake)), np.mean(ours.g(key, real, fake))]
    of_real, of_fake, of_made = torch_games.LOSSES[name]
    given = [of_real(torch.tensor(real)), of_fake(torch.tensor(fake)), of_made(torch.tensor(fake))]
    np.testing.assert_allclose([float(x) for x in given], expected, rtol=1e-6)


@pytest.mark.parametrize(("taps", "stride"), [((1.0, 2.0, 1.0), 1), ((1.0, 3.0, 3.0, 1.0), 2)])
def test_shifted_sums_filter_as_convolutions_do(taps: tuple[float, ...], stride: int) -> None:
    twin = pytest.importorskip("tests.twin_stylegan")
    x = torch.tensor(np.random.default_rng(1).normal(size=(2, 3, 8, 6)).astype(np.float32))
    expected = twin.filtered(x, taps, stride)
    np.testing.assert_allclose(torch_games.filtered(x, taps, stride), expected, atol=1e-6)


def test_what_is_not_there_is_named() -> None:
    config = step.config_of("biggan", args_of())
    config.generator.name = "resnet"
    with pytest.raises(SystemExit, match="no PyTorch resnet; families: biggan, dcgan"):
        torch_games.networks(config, {}, 3, torch.contiguous_format)


PROGRAM = """
%body {
  %a = f32[8,4,4,2]{3,2,1,0} parameter(0)
  %b = f32[1,1,2,3]{3,2,1,0} parameter(1)
  %conv.1 = f32[8,4,4,3]{3,2,1,0} convolution(%a, %b), window={size=1x1}, dim_labels=b01f_01io->b01f, \
metadata={op_name="jit(dispatch)/while/body/g/rgb/conv"}
  ROOT %fusion.2 = (f32[2]{0}, f32[]) fusion(%conv.1), kind=kLoop
  %copy = f32[8]{0} copy(%c)
}
ENTRY %main {
  %while.3 = (f32[2]{0}) while(%t), condition=%until, body=%body, \
backend_config={"known_trip_count":{"n":"2"}}
}
"""


def test_a_profile_names_what_took_time_the_longest_first() -> None:
    rows = operations.operations(
        PROGRAM, collections.Counter({"conv.1": 2.0, "fusion.2": 6.0, "else": 1.0}), 2
    )
    assert [(row.name, row.ms) for row in rows] == [("fusion.2", 3.0), ("conv.1", 1.0)]
    assert rows[1].shape == "f32[8,4,4,3]" and rows[1].source == "g/rgb/conv"
    assert rows[1].flop == 2 * 8 * 4 * 4 * 2 * 3 and rows[0].flop == 0


@pytest.mark.parametrize("stride", (1, 2))
def test_products_and_convolutions_are_counted_as_xla_counts_them(stride: int) -> None:
    def conv(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), ((1, 2), (0, 1)), dimension_numbers=names
        )

    x, kernel = jnp.ones((3, 7, 8, 40)), jnp.ones((3, 4, 40, 48))
    for function, given in (
        (conv, (x, kernel)),
        (lambda a, b: jnp.einsum("bij,bjk->bki", a, b), (jnp.ones((3, 64, 96)), jnp.ones((3, 96, 80)))),
    ):
        compiled = jax.jit(function).lower(*given).compile()
        flop = operations.work(compiled.as_text())
        assert max(flop.values()) == compiled.cost_analysis()["flops"] > 1e5


def test_durations_are_those_of_the_operations_that_ran(tmp_path) -> None:
    x = jnp.ones((256, 256))
    compiled = (
        jax.jit(lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x, None, 3)[0])
        .lower(x)
        .compile()
    )
    jax.block_until_ready(compiled(x))
    with jax.profiler.trace(str(tmp_path)):
        jax.block_until_ready(compiled(x))
    found = operations.operations(compiled.as_text(), operations.durations(str(tmp_path)), 1)
    assert any("256,256" in row.shape and row.ms > 0 for row in found)
    assert max(row.flop for row in found) == 3 * 2 * 256**3  # the loop's three turns
    assert not any(row.name.startswith(operations.AROUND) for row in found)
