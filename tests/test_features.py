"""Features on one and on four devices, the names of scores, and the real side's cache."""

import logging

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog.metrics import features, weights


def test_names_say_what_a_score_is():
    assert features.names("published") == ("fid768", "fid2048", "mifid")
    assert features.names("fitted") == ("fid768", "fid2048_approx", "mifid_approx")
    assert features.names("random") == ("rfid768", "rfid2048", "rmifid")
    assert len({name for kind in ("published", "other", "random") for name in features.names(kind)}) == 9
    with pytest.raises(ValueError, match="'guessed'; known are published, fitted, other, random"):
        features.names("guessed")


def test_one_device_and_four_agree():
    """The same pictures whole on one device and dealt out; each picture's features are its own."""
    image = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)
    params = weights.random().params
    mesh = Mesh(np.array(jax.devices()), "data")
    compute = jax.jit(features.features)
    alone = compute(params, image)
    dealt = compute(
        jax.device_put(params, NamedSharding(mesh, P())),
        jax.device_put(image, NamedSharding(mesh, P("data"))),
    )
    assert {name: x.shape for name, x in alone.items()} == {
        "mixed_7": (4, 768),
        "mixed_8": (4, 1280),
        "pool_3": (4, 2048),
    }
    for name, x in alone.items():
        scale = float(np.abs(x).max())
        assert 1e-3 < scale < 1e3 and float(np.std(x, axis=0).max()) > 1e-3 * scale
        np.testing.assert_allclose(dealt[name], x, atol=1e-5 * scale, rtol=0)


def test_key_changes_with_everything_it_is_made_of():
    parts = ("dogs", "lanczos", "a" * 64)
    keys = {features.cache_key(*parts)}
    for i in range(3):
        keys.add(features.cache_key(*(part + "x" * (i == j) for j, part in enumerate(parts))))
    keys.add(features.cache_key("dogslanczos", "", "a" * 64))
    assert len(keys) == 5
    assert features.cache_key(*parts) in keys


@pytest.fixture
def found():
    generator = np.random.default_rng(0)
    return {
        name: generator.normal(size=(5, width)).astype(np.float32)
        for name, width in [("mixed_7", 768), ("pool_3", 2048)]
    }


def test_cache_round_trip(tmp_path, found):
    key = features.cache_key("dogs", "lanczos", "0")
    assert features.load(tmp_path / "cache", key) is None
    features.save(tmp_path / "cache", key, {**found, "mixed_8": np.zeros((5, 1280))}, {"data": "dogs"})
    kept = features.load(tmp_path / "cache", key)
    assert kept is not None and set(kept) == {"mixed_7", "pool_3"}
    for name in kept:
        np.testing.assert_array_equal(kept[name], found[name])
    assert features.load(tmp_path / "cache", features.cache_key("dogs", "tf1-bilinear", "0")) is None
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no temporary file stays


@pytest.mark.parametrize("damage", ["cut", "flipped", "renamed", "empty", "rows"])
def test_damaged_cache_is_said_and_not_used(tmp_path, found, damage, caplog):
    features.save(tmp_path, "k", found, {})
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:20000] + bytes([content[20000] ^ 255]) + content[20001:])
    elif damage == "renamed":
        features.save(tmp_path, "other", found, {})
        next(tmp_path.glob("*other*")).replace(path)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        features.save(tmp_path, "k", {**found, "mixed_7": found["mixed_7"][:3]}, {})
    with caplog.at_level(logging.WARNING):
        assert features.load(tmp_path, "k") is None
    assert "damaged" in caplog.text and "computed again" in caplog.text


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path, found, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        features.save(tmp_path / "file", "k", found, {})
    assert "could not be kept" in caplog.text


def test_interrupted_write_leaves_the_old_file(tmp_path, found, monkeypatch):
    features.save(tmp_path, "k", found, {})
    before = next(tmp_path.iterdir()).read_bytes()

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        features.save(tmp_path, "k", {name: 2 * x for name, x in found.items()}, {})
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == before
