"""Features on one and on four devices, the names of scores, and the real side's cache."""

import logging
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog.metrics import features
from jaxdog.metrics.backbones import inception_weights


def test_names_say_what_a_score_is():
    assert features.names("published") == ("fid768", "fid2048", "mifid")
    assert features.names("fitted") == ("fid768", "fid2048_approx", "mifid_approx")
    assert features.names("random") == ("rfid768", "rfid2048", "rmifid")
    assert len({name for kind in ("published", "other", "random") for name in features.names(kind)}) == 9
    assert features.called("kid", "fitted") == "kid_approx" and features.called("kid", "published") == "kid"
    with pytest.raises(ValueError, match="'guessed'; known are published, fitted, other, random"):
        features.names("guessed")


def test_one_device_and_four_agree():
    """The same pictures whole on one device and dealt out; each picture's features are its own."""
    image = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)
    params = inception_weights.random().params
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


ABOUT = features.About("inception", "random", "a" * 64, "64x64", "lanczos", "drawn dogs")


def made(n: int = 5, **changes: Any) -> features.Features:
    generator = np.random.default_rng(0)
    found = {
        name: generator.normal(size=(n, width)).astype(np.float32)
        for name, width in [("mixed_7", 768), ("pool_3", 2048)]
    }
    label = np.arange(n, dtype=np.int32) % 2
    return features.Features(found, ABOUT, label, ("pug", "collie"))._replace(**changes)


def test_cache_changes_with_everything_that_changes_features(tmp_path):
    paths = {features.cache_path(tmp_path, "dogs", ABOUT), features.cache_path(tmp_path, "dog", ABOUT)}
    for field in ("network", "kind", "sha256", "size", "resampler"):
        paths.add(features.cache_path(tmp_path, "dogs", ABOUT._replace(**{field: "x"})))
    assert len(paths) == 7
    assert features.cache_path(tmp_path, "dogs", ABOUT._replace(source="the same, named otherwise")) in paths


def test_file_round_trip(tmp_path):
    path, wrote = tmp_path / "new" / "dogs.npz", made()
    features.save(path, wrote)
    read = features.load(path)
    assert read.about == ABOUT and read.breeds == ("pug", "collie") and read.count == 5
    np.testing.assert_array_equal(read.label, wrote.label)
    for name, x in wrote.found.items():
        np.testing.assert_array_equal(read.found[name], x)
    assert len(list(path.parent.iterdir())) == 1  # no temporary file stays
    features.save(path, made(label=None, breeds=()))
    assert features.load(path).label is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "rows", "nan", "foreign", "version"])
def test_damaged_file_is_said_and_not_used(tmp_path, damage, caplog, monkeypatch):
    path, whole = tmp_path / "dogs.npz", made()
    features.save(path, whole)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:20000] + bytes([content[20000] ^ 255]) + content[20001:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "rows":
        features.save(path, made(found=dict(whole.found, mixed_7=whole.found["mixed_7"][:3])))
    elif damage == "nan":
        features.save(path, made(found=dict(whole.found, mixed_7=np.full((5, 768), np.nan))))
    elif damage == "foreign":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    else:
        monkeypatch.setattr(features, "VERSION", 0)
        features.save(path, whole)
        monkeypatch.undo()
    with pytest.raises(ValueError, match="dogs.npz is no whole file of features: "):
        features.load(path)
    with caplog.at_level(logging.WARNING):
        assert features.cached(path) is None
    assert "damaged" in caplog.text and "computed again" in caplog.text


def test_missing_file(tmp_path):
    assert features.cached(tmp_path / "none.npz") is None
    with pytest.raises(FileNotFoundError):
        features.load(tmp_path / "none.npz")


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        features.keep(tmp_path / "file" / "k.npz", made())
    assert "could not be kept" in caplog.text


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "dogs.npz"
    features.save(path, made())
    before = path.read_bytes()

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        features.save(path, made(7))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("field, value", [("sha256", "b" * 64), ("size", "96x96"), ("kind", "published")])
def test_sides_made_differently_are_refused_naming_both(field, value):
    other = ABOUT._replace(source="samples", **{field: value})
    message = (
        f"features of drawn dogs .* those of samples.*{field}: {getattr(ABOUT, field)} .real. against {value}"
    )
    with pytest.raises(ValueError, match=message):
        features.comparable(ABOUT, other)
    features.comparable(ABOUT, ABOUT._replace(resampler="none", source="samples"))
