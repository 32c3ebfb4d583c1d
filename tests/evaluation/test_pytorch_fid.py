"""A folder against a file that pytorch-fid has made, with the same weights in both programs."""

import pathlib
import tarfile
import warnings

import numpy as np
import PIL.Image
import pytest

import jaxdog
from jaxdog.metrics.backbones import inception_weights
from tests import oracles

COUNT = 60  # images of each side


def photos(archive: pathlib.Path, count: int) -> list[np.ndarray]:
    """[64, 64, 3] uint8 each."""
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                file = tar.extractfile(member)
                assert file is not None
                found.append(np.asarray(PIL.Image.open(file).convert("RGB").resize((64, 64))))
            if len(found) == count:
                return found
    raise AssertionError(f"{archive} has too few photos")


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("d, name", [(768, "fid768_pytorch"), (2048, "fid2048_pytorch_approx")])
def test_the_score_is_that_of_pytorch_fid(d, name, real_data, tmp_path, monkeypatch):
    oracles.torch_fidelity("utils")  # makes torchvision importable, too
    pytest.importorskip("pytorch_fid", reason="pytorch-fid is an oracle (make oracles)")
    from pytorch_fid import fid_score
    from pytorch_fid import inception as network

    state = oracles.inception_state(inception_weights.load(real_data / "inception").params)
    monkeypatch.setattr(network, "load_state_dict_from_url", lambda *_, **__: state)
    images = photos(real_data / "stanford_dogs" / "images.tar", 2 * COUNT)
    folders = [tmp_path / "real", tmp_path / "fake"]
    for folder, side in zip(folders, (images[::2], images[1::2]), strict=True):
        folder.mkdir()
        for i, image in enumerate(side):
            PIL.Image.fromarray(image).save(folder / f"{i:03}.png")
    saved = tmp_path / "real.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fid_score.save_fid_stats([str(folders[0]), str(saved)], 20, "cpu", d, num_workers=0)
        theirs = fid_score.calculate_fid_given_paths([str(saved), str(folders[1])], 20, "cpu", d, 0)
    theirs = float(theirs)
    settings = {
        "weights": str(real_data / "inception"),
        "cache_dir": str(tmp_path / "cache"),
        "metrics": "fid",
    }
    ours = jaxdog.score(
        saved, folders[1], save_fake=str(tmp_path / "f.npz"), save_as="pytorch-fid", **settings
    )
    print(f"{d} features: pytorch-fid {theirs:.6f}, jaxdog {ours[name]:.6f}")
    assert ours["network"] == "inception_pytorch" and ours["samples"] == COUNT and theirs > 0.1
    np.testing.assert_allclose(ours[name], theirs, atol=1e-3)
    if d == 2048:  # ours, read by pytorch-fid
        with np.load(tmp_path / "f.npz") as made:
            again = jaxdog.score(saved, tmp_path / "f.npz")["fid2048_pytorch"]
            assert made["mu"].shape == (d,)
        np.testing.assert_allclose(again, theirs, atol=1e-3)
