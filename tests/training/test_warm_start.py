"""Initial weights from another run."""

import pathlib
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from jaxdog.config import build, library, saved
from jaxdog.systems import gan
from jaxdog.training import checkpoint, train_step, warm_start
from jaxdog.utils import errors
from tests.systems import test_gan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run whose best checkpoint is not its last."""
    folder = tmp_path_factory.mktemp("run")
    saved.write(folder, build.check(library.load("toy:test")))
    kept = checkpoint.Checkpoints(folder / "checkpoints", 2, 2, "fid768")
    state = test_gan.perturbed(test_gan.init(gan.gan(test_gan.spec())))
    kept.save(3, state, 0.0)
    kept.set_score(3, 1.0)
    kept.save(6, jax.tree.map(lambda x: x * 0, state), 0.0)
    kept.set_score(6, 2.0)
    kept.close()
    return folder


@pytest.mark.long
def test_all_weights_of_an_equal_system_are_transferred(folder: pathlib.Path) -> None:
    expected = test_gan.perturbed(test_gan.init(gan.gan(test_gan.spec())))
    fresh = test_gan.init(gan.gan(test_gan.spec()))
    started = warm_start.transfer(fresh, warm_start.load(folder))
    for player in ("g", "d", "ema"):
        for name in warm_start.TRANSFERRED:
            got, want = (getattr(getattr(x, player), name) for x in (started.state, expected))
            jax.tree.map(np.testing.assert_array_equal, got, want)
    jax.tree.map(np.testing.assert_array_equal, started.state.g.opt_state, fresh.g.opt_state)
    assert started.state.step == 0 and jax.tree.structure(started.state) == jax.tree.structure(fresh)
    counts = [len(jax.tree.leaves((x.params, x.model_state))) for x in (fresh.g, fresh.d, fresh.ema)]
    players = zip(("g", "d", "ema"), counts, strict=True)
    assert sorted(started.report) == sorted(f"{name}: {n} of {n} arrays transferred" for name, n in players)


def test_arrays_that_do_not_fit_are_reported(folder: pathlib.Path) -> None:
    """Another first layer of D, an additional norm, and a run without an EMA."""
    source = warm_start.load(folder)
    source["d"]["params"]["first"]["kernel"] = np.ones((5, 5), np.float32)
    del source["ema"]
    fresh = test_gan.init(gan.gan(test_gan.spec(discriminator=test_gan.Discriminator(norm=True))))
    started = warm_start.transfer(fresh, source)
    np.testing.assert_array_equal(
        started.state.d.params["first"]["kernel"], fresh.d.params["first"]["kernel"]
    )
    np.testing.assert_array_equal(
        started.state.d.params["last"]["kernel"], source["d"]["params"]["last"]["kernel"]
    )
    jax.tree.map(np.testing.assert_array_equal, started.state.ema.params, source["g"]["params"])
    kernel = fresh.d.params["first"]["kernel"].shape
    assert f"  d/params/first/kernel is {kernel} here and (5, 5) there" in started.report
    assert any(line.startswith("  d/model_state/") and "is missing there" in line for line in started.report)


def test_further_averages_start_as_the_average(folder: pathlib.Path) -> None:
    source = warm_start.load(folder)
    fresh = test_gan.init(gan.gan(test_gan.spec(extra_ema_decays=(0.9, 0.99))))
    started = warm_start.transfer(fresh, source)
    for extra in started.state.extra_emas:
        jax.tree.map(np.testing.assert_array_equal, extra.params, source["ema"]["params"])
    assert any(line.startswith("extra_emas/1: ") for line in started.report)
    source["extra_emas"] = [{"params": jax.tree.map(lambda x: x + 1, source["ema"]["params"])}]
    first, second = warm_start.transfer(fresh, source).state.extra_emas
    jax.tree.map(np.testing.assert_array_equal, first.params, source["extra_emas"][0]["params"])
    jax.tree.map(np.testing.assert_array_equal, second.params, source["ema"]["params"])


def test_an_unusable_run_is_an_error(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fresh = test_gan.init(gan.gan(test_gan.spec()))
    with pytest.raises(
        errors.ConfigError, match="no array of the run in config.init_from fits; its players: net"
    ):
        warm_start.transfer(fresh, {"net": {"params": {"a": np.zeros(3)}}})
    warm_start.check(folder)
    with pytest.raises(FileNotFoundError, match="init_from is .*config.json does not exist"):
        warm_start.load(tmp_path)
    for text in ("[]", "{}", '{"eval": 3}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(errors.UserError, match="config.init_from is .*, which cannot be used: .*config"):
            warm_start.load(tmp_path)
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        warm_start.load(tmp_path)


def full(shape: jax.ShapeDtypeStruct, value: int) -> np.ndarray:
    return np.full(shape.shape, value, shape.dtype)


def test_an_autoencoder_initializes_a_gan() -> None:
    """All of the generator, and of the discriminator all but its last convolution."""
    states = {}
    for name in ("vae", "vae_lsgan"):
        config = build.check(library.load(name, "test"))
        (phase,) = build.phases(config, 3)
        side = config.data.stored_resolution
        shapes = train_step.init_shapes(phase, (side, side, 3))
        states[name] = jax.tree.map(partial(full, value=len(states)), shapes)
    source = {
        name: {"params": net.params, "model_state": net.model_state}
        for name, net in vars(states["vae"]).items()
        if name != "step"
    }
    started = warm_start.transfer(states["vae_lsgan"], source)
    assert not any(x.any() for x in jax.tree.leaves((started.state.g.params, started.state.ema.params)))
    still = {
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(started.state.d.params)
        if x.any()
    }
    assert still and all("head" in name for name in still)
