"""Networks of one run as the beginning of another."""

import json
import pathlib
from functools import partial

import jax
import numpy as np
import pytest

from jaxdog.config import build, schema
from jaxdog.data import batches
from jaxdog.systems import gan
from jaxdog.training import checkpoint, warm_start
from tests.config import test_build
from tests.systems import test_gan, test_systems


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run whose best checkpoint is not its last."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps({"eval": {"best": "fid768"}}))
    kept = checkpoint.Checkpoints(folder / "checkpoints", 2, 2, "fid768")
    state = test_gan.stirred(test_gan.start(gan.gan(test_gan.game())))
    kept.save(3, state, {}, score=1.0)
    kept.save(6, jax.tree.map(lambda x: x * 0, state), {}, score=2.0)
    kept.close()
    return folder


def test_all_networks_of_an_equal_system_are_taken(folder: pathlib.Path) -> None:
    expected = test_gan.stirred(test_gan.start(gan.gan(test_gan.game())))
    fresh = test_gan.start(gan.gan(test_gan.game()))
    begun = warm_start.begin(fresh, warm_start.load(folder))
    for player in ("g", "d", "ema"):
        for name in warm_start.LEARNT:
            got, want = (getattr(getattr(x, player), name) for x in (begun.state, expected))
            jax.tree.map(np.testing.assert_array_equal, got, want)
    jax.tree.map(np.testing.assert_array_equal, begun.state.g.opt, fresh.g.opt)
    assert begun.state.step == 0 and jax.tree.structure(begun.state) == jax.tree.structure(fresh)
    counts = [len(jax.tree.leaves((x.params, x.stats))) for x in (fresh.g, fresh.d, fresh.ema)]
    players = zip(("g", "d", "ema"), counts, strict=True)
    assert sorted(begun.report) == sorted(f"{name}: {n} of {n} arrays taken" for name, n in players)


def test_what_does_not_fit_is_kept_and_named(folder: pathlib.Path) -> None:
    """Another first layer of D, a norm more, and a run without an average."""
    source = warm_start.load(folder)
    source["d"]["params"]["first"]["kernel"] = np.ones((5, 5), np.float32)
    del source["ema"]
    fresh = test_gan.start(gan.gan(test_gan.game(discriminator=test_gan.Judge(norm=True))))
    begun = warm_start.begin(fresh, source)
    np.testing.assert_array_equal(begun.state.d.params["first"]["kernel"], fresh.d.params["first"]["kernel"])
    np.testing.assert_array_equal(
        begun.state.d.params["last"]["kernel"], source["d"]["params"]["last"]["kernel"]
    )
    jax.tree.map(np.testing.assert_array_equal, begun.state.ema.params, source["g"]["params"])
    kernel = fresh.d.params["first"]["kernel"].shape
    assert f"  d/params/first/kernel is {kernel} here and (5, 5) there" in begun.report
    assert any(line.startswith("  d/stats/") and "is not there" in line for line in begun.report)


def test_what_cannot_be_used_is_an_error(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fresh = test_gan.start(gan.gan(test_gan.game()))
    with pytest.raises(schema.ConfigError, match="nothing of config.init_from's run fits; its players: net"):
        warm_start.begin(fresh, {"net": {"params": {"a": np.zeros(3)}}})
    with pytest.raises(FileNotFoundError, match="no run is there"):
        warm_start.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eval": {"best": "fid768"}}))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        warm_start.load(tmp_path)


def full(shape: jax.ShapeDtypeStruct, value: int) -> np.ndarray:
    return np.full(shape.shape, value, shape.dtype)


def test_an_autoencoder_begins_a_least_squares_game() -> None:
    """All of the generator, and of the discriminator all but its last convolution."""
    states = {}
    for name in ("vae", "vae_lsgan"):
        config = test_systems.load(test_build.ROOT / "configs" / f"{name}.py")
        (phase,) = build.phases(config, 3)
        side = config.data.store_size
        data = batches.resident(np.zeros((1, side, side, 3), np.uint8), np.zeros(1, np.int32))
        batch = batches.batch(data, jax.random.key(0), 0, phase.batch_size)
        shapes = jax.eval_shape(phase.system.init, jax.random.key(0), batch)
        states[name] = jax.tree.map(partial(full, value=len(states)), shapes)
    source = {
        name: {"params": net.params, "stats": net.stats}
        for name, net in vars(states["vae"]).items()
        if name != "step"
    }
    begun = warm_start.begin(states["vae_lsgan"], source)
    assert not any(x.any() for x in jax.tree.leaves((begun.state.g.params, begun.state.ema.params)))
    still = {
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(begun.state.d.params)
        if x.any()
    }
    assert still and all("head" in name for name in still)
