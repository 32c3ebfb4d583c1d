"""Statistics of other programs: what they write is read, hostile files are refused, and ours is theirs."""

import pathlib
import pickle
import tracemalloc

import numpy as np
import pytest

from jaxdog.metrics import features, statistics_files
from jaxdog.metrics.backbones import weight_files
from tests import oracles
from tests.fuzz import samples

ROWS, MEAN, COVARIANCE = samples.moments()
SPEC = features.FeatureSpec("inception", "published", "0" * 64, "32x32", "none", "ours")


def close(found: features.Moments | None, n: int = 0) -> None:
    assert found is not None and found.n == n
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.mean, MEAN, rtol=1e-6)
    np.testing.assert_allclose(found.covariance, COVARIANCE, rtol=1e-6, atol=1e-12)


def write(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A file of a program."""
    path = folder / name
    if name == "pytorch_fid.npz":
        np.savez_compressed(path, mu=MEAN, sigma=COVARIANCE)
    elif name == "clean_fid.npz":
        np.savez_compressed(path, mu=ROWS.mean(0), sigma=COVARIANCE)
    elif name == "organizers.npz":
        np.savez(path, m=MEAN, s=COVARIANCE)
    elif name.startswith("stylegan"):
        path.write_bytes(samples.stylegan_pickle(protocol=int(name[8])))
    else:
        path.write_bytes(samples.zipped(samples.torch_fidelity_members()))
    return path


@pytest.mark.parametrize(
    "name, program, n",
    [
        ("pytorch_fid.npz", "pytorch-fid", 0),
        ("clean_fid.npz", "clean-fid", 0),
        ("organizers.npz", "the competition", 0),
        ("torch_fidelity.pt", "torch-fidelity", 0),
        *((f"stylegan{protocol}.pkl", "StyleGAN", 20) for protocol in (2, 3, 4, 5)),
    ],
)
def test_mean_and_covariance_of_each_program_are_read(name, program, n, tmp_path):
    path = write(tmp_path, name)
    assert statistics_files.is_statistics_file(path)
    found = statistics_files.read(path)
    assert found.program == program and found.rows is None and found.width == 6
    close(found.moments, n)


@pytest.mark.parametrize("program", ["clean-fid", "the competition", "StyleGAN"])
def test_features_are_read_where_a_file_has_them(program, tmp_path):
    path = tmp_path / ("f.pkl" if program == "StyleGAN" else "f.npz")
    if program == "StyleGAN":
        path.write_bytes(samples.stylegan_pickle(all_features=True))
    elif program == "clean-fid":
        np.savez_compressed(path, feats=ROWS)
    else:
        np.savez(path, m=MEAN, s=COVARIANCE, features=ROWS.astype(np.float64))
    assert statistics_files.is_statistics_file(path)
    found = statistics_files.read(path)
    assert found.program == program and found.moments is None
    np.testing.assert_array_equal(found.rows, ROWS)


@pytest.mark.oracle
def test_files_of_torch_fidelity_itself_are_read(tmp_path):
    torch, metric = oracles.torch_fidelity("metric_fid")
    torch.save(metric.fid_features_to_statistics(torch.from_numpy(ROWS)), tmp_path / "a-stat-fid-2048.pt")
    close(statistics_files.read(tmp_path / "a-stat-fid-2048.pt").moments)
    torch.save(torch.from_numpy(ROWS), tmp_path / "a-features-2048.pt")
    np.testing.assert_array_equal(statistics_files.read(tmp_path / "a-features-2048.pt").rows, ROWS)


def test_other_files_are_not_statistics(tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    for path in (tmp_path / "images.npz", tmp_path, tmp_path / "none.npz", tmp_path / "none.pkl"):
        assert not statistics_files.is_statistics_file(path)


class Hostile:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_is_unpickled(tmp_path, capsys):
    for name, data in (
        ("a.pkl", pickle.dumps({"num_items": Hostile()})),
        ("a.pt", samples.zipped({"archive/data.pkl": pickle.dumps({"mu": Hostile()}, 2)})),
        ("b.pkl", pickle.dumps({"num_items": 1, "raw_mean": np.array([None])})),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            ValueError, match=rf"{name} cannot be read as statistics of features: (it asks|.*no n)"
        ):
            statistics_files.read(tmp_path / name)
    np.savez(tmp_path / "a.npz", mu=np.array([Hostile()]), sigma=np.eye(1))
    with pytest.raises(ValueError, match="'mu.npy' is not an array of numbers"):
        statistics_files.read(tmp_path / "a.npz")
    assert capsys.readouterr().out == ""


def test_arrays_are_no_larger_than_their_bytes(tmp_path):
    """A shape that its bytes do not fill, a million references to one text, and text that is no bytes."""
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85X\x01\x00\x00\x00b\x87R"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R"
    encode = b"c_codecs\nencode\n"
    text = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\x00X\x06\x00\x00\x00latin1q\x01"
    cases = {
        r"the shape \(1099511627776,\), and 8 bytes": (
            head + b"(K\x01\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"\x85" + dtype + b"\x89" + encode
            + b"X\x08\x00\x00\x00aaaaaaaaX\x06\x00\x00\x00latin1\x86Rtb."
        ),
        "copies more than it holds": (
            b"\x80\x02](" + text + (encode + b"h\x00h\x01\x86R") * 1000 + b"e."
        ),
        "something other than text as latin1": (
            b"\x80\x02" + encode + b"X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R."
        ),
        "'O8', which is no number": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R.",
        "little-endian": (
            b"\x80\x02" + dtype + b"(K\x03X\x01\x00\x00\x00>NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb."
        ),
    }  # fmt: skip
    for message, data in cases.items():
        (tmp_path / "a.pkl").write_bytes(data)
        tracemalloc.start()
        with pytest.raises(ValueError, match=message):
            statistics_files.read(tmp_path / "a.pkl")
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def test_weights_still_hold_tensors_only(tmp_path):
    """Arrays are read from statistics, not from state dicts."""
    (tmp_path / "w.pth").write_bytes(samples.zipped(samples.torch_fidelity_members()))
    with pytest.raises(
        weight_files.ArchiveError, match="asks for numpy.*_reconstruct, which is not a tensor"
    ):
        weight_files.read_torch(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "mean, covariance, message",
    [
        (MEAN[:5], COVARIANCE, r"mean is float64 \[5\], its covariance float64 \[6, 6\]; expected"),
        (MEAN, COVARIANCE + np.triu(COVARIANCE), "not symmetric"),
        (MEAN, COVARIANCE * np.nan, "not finite"),
        (MEAN.astype(int), COVARIANCE, r"mean is int64 \[6\]"),
    ],
)
def test_what_is_no_mean_and_covariance_is_an_error(mean, covariance, message, tmp_path):
    np.savez(tmp_path / "a.npz", mu=mean, sigma=covariance)
    with pytest.raises(ValueError, match=f"a.npz cannot be read as statistics of features: .*{message}"):
        statistics_files.read(tmp_path / "a.npz")


def wide(d: int, program: str = "pytorch-fid") -> statistics_files.Statistics:
    moments = features.Moments(np.zeros(d), np.eye(d), 0)
    return statistics_files.Statistics(pathlib.Path("real.npz"), program, None, moments)


def test_the_width_says_which_layer():
    assert statistics_files.layer_of(wide(2048), "inception_pytorch") == "pool_3"
    assert statistics_files.layer_of(wide(768), "inception") == "mixed_7"
    assert statistics_files.network_of(wide(2048)) == "inception_pytorch"
    assert statistics_files.network_of(wide(2048, "clean-fid")) == "inception_clean"
    assert statistics_files.network_of(wide(2048, "StyleGAN")) == "inception"
    assert statistics_files.network_of(wide(4032)) == "nasnet"
    with pytest.raises(
        ValueError, match="192 features, and the network inception_pytorch has 768 .mixed_7.*64 and"
    ):
        statistics_files.network_of(wide(192))
    with pytest.raises(
        ValueError, match="2048 features, and the network nasnet has 4032 .final_mean.*inception: "
    ):
        statistics_files.side(wide(2048), "nasnet", SPEC)


def test_random_weights_do_not_fit_statistics():
    other = SPEC._replace(kind="random")
    with pytest.raises(ValueError, match="cannot be compared with features of random weights"):
        statistics_files.side(wide(2048), "inception", other)
    made = statistics_files.side(wide(2048), "inception", SPEC)
    assert made.spec == SPEC._replace(resampler="unknown", source="real.npz (pytorch-fid)")
    assert made.layers == {} and made.count == 0


def test_what_is_written_is_what_pytorch_fid_writes(tmp_path):
    rows = np.random.default_rng(1).gamma(2, size=(9, 2048)).astype(np.float32)
    statistics_files.write(tmp_path / "a.npz", features.Features({"pool_3": rows}, SPEC))
    with np.load(tmp_path / "a.npz") as found:
        assert set(found) == {"mu", "sigma"} and found["mu"].dtype == found["sigma"].dtype == np.float64
        np.testing.assert_allclose(found["mu"], rows.astype(np.float64).mean(0), rtol=1e-12)
        np.testing.assert_allclose(found["sigma"], np.cov(rows.astype(np.float64), rowvar=False), atol=1e-12)
    assert statistics_files.read(tmp_path / "a.npz").program == "pytorch-fid"
    made = statistics_files.side(statistics_files.read(tmp_path / "a.npz"), "inception", SPEC)
    statistics_files.write(tmp_path / "again.npz", made)
    assert statistics_files.read(tmp_path / "again.npz").width == 2048
    with pytest.raises(ValueError, match="ours has no features of pool_3 to save"):
        statistics_files.write(tmp_path / "b.npz", features.Features({"mixed_7": rows[:, :768]}, SPEC))
