"""real_features.npz: a hard link or a copy of the cached features, of one spec only."""

import os
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxdog.evaluation import saved_features
from jaxdog.metrics import features

SPEC = features.FeatureSpec("inception", "random", "ab" * 32, "8x8", "lanczos", "photos")


@pytest.fixture
def side(tmp_path: pathlib.Path) -> features.Features:
    """Features in a cache."""
    width = features.NETWORKS["inception"].width
    layers = {name: np.ones((3, width[name]), np.float32) for name in features.frechet_layers("inception")}
    path = tmp_path / "cache" / "features.npz"
    made = features.Features(layers, SPEC, np.arange(3, dtype=np.int32), ("a", "b", "c"), path)
    features.save(path, made)
    return made


def test_the_cached_file_is_linked(side: features.Features, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert saved_features.load(run, SPEC) is None and "missing" in saved_features.describe(run, "inception")
    for _ in range(2):
        saved_features.keep(run, side)
    assert side.file is not None and (run / "real_features.npz").samefile(side.file)
    assert [path.name for path in run.iterdir()] == ["real_features.npz"]
    side.file.unlink()
    loaded = saved_features.load(run, SPEC)
    assert loaded is not None and loaded.class_names == side.class_names
    np.testing.assert_array_equal(loaded.layers["pool_3"], side.layers["pool_3"])
    for other in (SPEC._replace(sha256="0" * 64), SPEC._replace(size="9x9"), SPEC._replace(source="others")):
        assert saved_features.load(run, other) is None
    assert "random weights of inception (sha256 abababababab...) from 8x8 images" in saved_features.describe(
        run, "inception"
    )
    assert saved_features.name("dinov2") == "real_features_dinov2.npz"  # beside that of Inception


@pytest.mark.parametrize("cached", [True, False])
def test_it_is_copied_where_links_fail(
    side: features.Features, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", fail)
    saved_features.keep(tmp_path, side if cached else side._replace(file=None))
    assert side.file is not None and not (tmp_path / "real_features.npz").samefile(side.file)
    assert saved_features.load(tmp_path, SPEC) is not None


def test_damaged_features_are_as_good_as_none(side: features.Features, tmp_path: pathlib.Path) -> None:
    (tmp_path / "real_features.npz").write_bytes(b"PK broken")
    assert saved_features.load(tmp_path, SPEC) is None
    assert "missing or damaged" in saved_features.describe(tmp_path, "inception")
    saved_features.keep(tmp_path, side)
    assert saved_features.load(tmp_path, SPEC) is not None


def test_a_folder_that_cannot_be_written_is_no_error(
    side: features.Features, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    saved_features.keep(tmp_path / "file", side)
    assert "could not be written" in caplog.text and "need the photos" in caplog.text
