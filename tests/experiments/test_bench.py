"""The PyTorch trainers of the benchmarks have our parameter counts and losses, and update all parameters."""

import argparse

import jax
import numpy as np
import pytest

from experiments import timing, trial
from experiments.bench import step
from jaxdog.losses import adversarial

torch = pytest.importorskip("torch", reason="the benchmarks need torch (make oracles)")
pytestmark = pytest.mark.oracle
torch_trainers = pytest.importorskip("experiments.bench.torch_trainers")


def args_of() -> argparse.Namespace:
    parser = trial.parser("")
    parser.set_defaults(kimg=1.0, narrow=True)
    return parser.parse_args([])


@pytest.mark.parametrize("name", step.FAMILIES)
def test_a_step_updates_as_many_parameters_as_ours(name: str) -> None:
    config = step.config_of(name, args_of())
    config.system.batch_size = 4
    params = timing.initial_params(config)
    ours = [timing.count(params[player]) for player in ("g", "d")]
    g, d = torch_trainers.networks(config, params, timing.CLASSES, torch.contiguous_format)
    assert [sum(x.numel() for x in player.params) for player in (g, d)] == ours
    trainer = torch_trainers.Trainer(g, d, config, timing.CLASSES)
    before = [[x.detach().clone() for x in player.params] for player in (g, d)]
    real, label = torch.rand(4, 3, 64, 64) * 2 - 1, torch.arange(4)
    for _ in range(2):  # in the first step gains of zero stop the gradients behind them
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
    real_loss, fake_loss, g_loss = torch_trainers.LOSSES[name]
    given = [real_loss(torch.tensor(real)), fake_loss(torch.tensor(fake)), g_loss(torch.tensor(fake))]
    np.testing.assert_allclose([float(x) for x in given], expected, rtol=1e-6)


@pytest.mark.parametrize(("taps", "stride"), [((1.0, 2.0, 1.0), 1), ((1.0, 3.0, 3.0, 1.0), 2)])
def test_shifted_sums_filter_as_convolutions_do(taps: tuple[float, ...], stride: int) -> None:
    twin = pytest.importorskip("tests.twins.stylegan")
    x = torch.tensor(np.random.default_rng(1).normal(size=(2, 3, 8, 6)).astype(np.float32))
    expected = twin.filtered(x, taps, stride)
    np.testing.assert_allclose(torch_trainers.filtered(x, taps, stride), expected, atol=1e-6)


def test_an_unknown_family_is_an_error() -> None:
    config = step.config_of("biggan", args_of())
    config.generator.name = "resnet"
    with pytest.raises(SystemExit, match="no PyTorch resnet; families: biggan, dcgan"):
        torch_trainers.networks(config, {}, 3, torch.contiguous_format)


def test_turns_train_and_sample() -> None:
    config = step.config_of("biggan", args_of())
    config.system.batch_size = 4  # a multiple of the devices
    train, sample, counts = torch_trainers.turns(config, {}, timing.CLASSES, 1, "contiguous_format")
    ours = timing.initial_params(config)
    assert counts == [timing.count(ours[player]) for player in ("g", "d")]
    train()
    sample()
