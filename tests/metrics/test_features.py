"""Features on one and on four devices, the names of scores, and the real side's cache."""

import logging
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdog.metrics import copy_test, features, statistics_files
from jaxdog.metrics.backbones import inception, inception_weights, networks


def test_names_of_scores_by_kind_of_weights():
    assert features.metric_names("published") == ("fid768", "fid2048", "mifid")
    assert features.metric_names("fitted") == ("fid768", "fid2048_approx", "mifid_approx")
    assert features.metric_names("random") == ("random_fid768", "random_fid2048", "random_mifid")
    assert (
        len({name for kind in ("published", "other", "random") for name in features.metric_names(kind)}) == 9
    )
    assert (
        features.metric_name("kid", "fitted") == "kid_approx"
        and features.metric_name("kid", "published") == "kid"
    )
    with pytest.raises(ValueError, match="'guessed'; kinds: published, fitted, other, random"):
        features.metric_names("guessed")


def test_table_of_networks():
    """Names, and thresholds of leaderboards where a network had one."""
    assert list(features.NETWORKS) == list(networks.SOURCES)
    for name, row in features.NETWORKS.items():
        assert row.suffix == ("" if name == "inception" else f"_{name.removeprefix('inception_')}")
        assert row.layer in row.frechet and set(row.frechet) <= set(row.width)
        assert (row.eps is None) == (not row.board) and row.board in {*copy_test.CHEAT_DISTANCES, ""}
    distances = [name for row in features.NETWORKS.values() for name in row.frechet.values()]
    resized = [f"fid{width}_{program}" for program in ("pytorch", "clean") for width in (768, 2048)]
    dinov2 = ["fd_dinov2", "fd_dinov2_base", "fd_dinov2_small"]
    assert distances == ["fid768", "fid2048", *resized, "fid_nasnet", *dinov2]


@pytest.mark.long
def test_flops_are_those_that_xla_counts():
    params = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in inception.shapes().items()}
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    row = features.NETWORKS["inception"]
    counted = jax.jit(row.features).lower(inception_weights.nest(params), image).cost_analysis()["flops"]
    assert counted == pytest.approx(row.flops, rel=0.01)


@pytest.mark.long
def test_one_device_and_four_agree():
    """The same images on one device and sharded over four have the same features."""
    image = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)
    params = inception_weights.random().params
    mesh = Mesh(np.array(jax.devices()), "data")
    compute = jax.jit(features.inception_features)
    alone = compute(params, image)
    sharded = compute(
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
        np.testing.assert_allclose(sharded[name], x, atol=1e-5 * scale, rtol=0)


SPEC = features.FeatureSpec("inception", "random", "a" * 64, "64x64", "lanczos", "drawn dogs")


def made(n: int = 5, **changes: Any) -> features.Features:
    generator = np.random.default_rng(0)
    found = {
        name: generator.normal(size=(n, width)).astype(np.float32)
        for name, width in [("mixed_7", 768), ("pool_3", 2048)]
    }
    label = np.arange(n, dtype=np.int32) % 2
    return features.Features(found, SPEC, label, ("pug", "collie"))._replace(**changes)


def test_cache_changes_with_everything_that_changes_features(tmp_path):
    paths = {features.cache_path(tmp_path, "dogs", SPEC), features.cache_path(tmp_path, "dog", SPEC)}
    for field in ("network", "kind", "sha256", "size", "resampler"):
        paths.add(features.cache_path(tmp_path, "dogs", SPEC._replace(**{field: "x"})))
    assert len(paths) == 7
    assert features.cache_path(tmp_path, "dogs", SPEC._replace(source="the same, named otherwise")) in paths


def test_file_round_trip(tmp_path):
    path, wrote = tmp_path / "new" / "dogs.npz", made()
    features.save(path, wrote)
    read = features.load(path)
    assert read.spec == SPEC and read.class_names == ("pug", "collie") and read.count == 5
    np.testing.assert_array_equal(read.label, wrote.label)
    for name, x in wrote.layers.items():
        np.testing.assert_array_equal(read.layers[name], x)
    assert len(list(path.parent.iterdir())) == 1  # no temporary file stays
    features.save(path, made(label=None, class_names=()))
    assert features.load(path).label is None


DAMAGES = ("cut", "flipped", "empty", "rows", "nan", "foreign", "version", "labels", "deep", "logits")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_logs_a_warning_and_is_not_used(tmp_path, damage, caplog, monkeypatch):
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
        features.save(path, made(layers=dict(whole.layers, mixed_7=whole.layers["mixed_7"][:3])))
    elif damage == "nan":
        features.save(path, made(layers=dict(whole.layers, mixed_7=np.full((5, 768), np.nan))))
    elif damage == "labels":
        features.save(path, made(label=np.arange(5, dtype=np.int32)))
    elif damage == "logits":
        features.save(path, made(layers=dict(whole.layers, **{features.LOGITS: np.zeros((3, 1008))})))
    elif damage == "deep":
        np.savez(path, metadata=np.array("[" * 200_000))
    elif damage == "foreign":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    else:
        monkeypatch.setattr(features, "VERSION", 0)
        features.save(path, whole)
        monkeypatch.undo()
    with pytest.raises(ValueError, match="dogs.npz is not a complete file of features: "):
        features.load(path)
    with caplog.at_level(logging.WARNING):
        assert features.load_cached(path) is None
    assert "damaged" in caplog.text and "recomputed" in caplog.text


def test_the_size_of_the_images_is_known(tmp_path):
    """It is not of statistics alone, whose features could never be compared with those of images."""
    path = tmp_path / "dogs.npz"
    for size in ("unknown", "64", "64x0", "64x-1", "9" * 5000 + "x1"):
        with pytest.raises(ValueError, match="the size of its images is .*, not height x width"):
            features.save(path, made(spec=SPEC._replace(size=size)))
    features.save(path, made())
    with np.load(path) as arrays:
        changed = dict(arrays)
    changed["metadata"] = np.array(str(changed["metadata"]).replace("64x64", "unknown"))
    np.savez(path, **changed)
    with pytest.raises(ValueError, match="dogs.npz is not a complete file .* images is 'unknown'"):
        features.load(path)


def test_files_are_known_by_their_suffix_in_any_case(tmp_path):
    features.save(tmp_path / "DOGS.NPZ", made())
    assert features.is_features_file(tmp_path / "DOGS.NPZ")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    (tmp_path / "stats.npz").rename(tmp_path / "STATS.NPZ")
    assert statistics_files.is_statistics_file(tmp_path / "STATS.NPZ")
    assert statistics_files.read(tmp_path / "STATS.NPZ").width == 3
    assert not features.is_features_file(tmp_path / "STATS.NPZ")


def test_missing_file(tmp_path):
    assert features.load_cached(tmp_path / "none.npz") is None
    with pytest.raises(FileNotFoundError):
        features.load(tmp_path / "none.npz")


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        features.save_cached(tmp_path / "file" / "k.npz", made())
    assert "could not be written" in caplog.text


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
def test_sides_that_are_not_comparable_are_refused(field, value):
    other = SPEC._replace(source="samples", **{field: value})
    message = (
        f"features of drawn dogs .*and samples cannot.*{field} is {getattr(SPEC, field)} .real. and {value}"
    )
    with pytest.raises(ValueError, match=message):
        features.check_comparable(SPEC, other)
    features.check_comparable(SPEC, SPEC._replace(resampler="none", source="samples"))
