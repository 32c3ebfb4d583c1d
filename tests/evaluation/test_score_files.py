"""Scores of files against files, as anybody would ask for them, through the command line too."""

import hashlib
import json
import pathlib
import subprocess
import sys
import zipfile
from functools import cache, partial

import numpy as np
import pytest

from jaxdog.cli import options, scoring
from jaxdog.data import cropping, image_files, photos
from jaxdog.evaluation import score_files, score_options, score_table
from jaxdog.metrics import features, fid, metric_table
from jaxdog.metrics.backbones import dinov2, dinov2_weights, networks
from jaxdog.utils import errors
from tests.data.test_image_files import encoded, write_zip
from tests.metrics.backbones import test_dinov2_weights

GENERATOR = np.random.default_rng(0)
PHOTOS = [GENERATOR.integers(0, 256, (20 + i, 30, 3), np.uint8) for i in range(6)]  # of many sizes
FAKES = GENERATOR.integers(0, 256, (4, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("scorer")
    (folder / "real").mkdir()
    for i, photo in enumerate(PHOTOS):
        (folder / "real" / f"{i}.png").write_bytes(encoded(photo))
    write_zip(folder / "fake.zip", {f"{i}.png": encoded(image) for i, image in enumerate(FAKES)})
    np.save(folder / "fake.npy", FAKES)
    return folder


@pytest.fixture(scope="module")
def found(place: pathlib.Path) -> dict:
    """Photos of many sizes in a folder against a zip, through the command line."""
    command = [sys.executable, "-m", "jaxdog.score", "--real", str(place / "real")]
    command += ["--fake", str(place / "fake.zip"), "--weights", "random", "--out", str(place / "s.json")]
    command += ["--cache_dir", str(place / "cache"), "--save_real", str(place / "real.npz")]
    command += ["--metric", "mifid", "--metric", "prdc"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    scores = json.loads((place / "s.json").read_text())
    assert f"random_fid2048         {scores['random_fid2048']:,.6g}" in done.stdout
    few = "fewer than about 2,048 images; there are 4 generated images and 6 real images"
    assert f"note: FID is biased upwards for {few}" in done.stdout
    return scores


def test_what_is_left_out_is_among_the_warnings():
    source = photos.Source("x", ("a",), [None] * 3, ("left out as .heic files: 1 (a.heic)",))  # type: ignore
    assert score_files.omissions("real", source, 2) == [
        "real images left out as .heic files: 1 (a.heic)",
        "real images left out as broken: 1 of 3 (see the log)",
    ]
    assert score_files.omissions("real", source._replace(notes=()), 3) == []
    assert score_files.omissions("real", None, 3) == []


@pytest.mark.long
def test_numbers_say_what_they_are_and_how_they_were_made(found, place):
    names = {"random_fid768", "random_fid2048", "random_mifid", "memorization_distance"}
    names |= {"random_precision", "random_recall", "random_density", "random_coverage"}
    assert names == {name for name, x in found.items() if isinstance(x, float)} - {"seconds"}
    assert (found["samples"], found["real"], found["size"]) == (4, 6, "16x16")
    assert found["resampler"] == "lanczos" and found["weights_kind"] == "random"
    assert found["real_source"].startswith("folder-real") and "fake.zip" in found["generated_source"]


@pytest.mark.long
def test_arrays_and_files_of_features_score_the_same(found, place):
    """The array of the photos squashed by hand, and the features that the first call kept."""
    squashed = np.stack([cropping.resize(photo, 16, 16, "lanczos") for photo in PHOTOS])
    options = score_files.Options(weights="random", metrics=("mifid",), cache_dir=str(place / "other"))
    for real, fake in ((squashed, FAKES), (place / "real.npz", str(place / "fake.npy"))):
        again = score_files.score(real, fake, options)
        for name in ("random_fid768", "random_fid2048", "memorization_distance"):
            np.testing.assert_allclose(again[name], found[name], rtol=1e-4, atol=2e-6)


@pytest.mark.long
def test_features_alone_need_no_network_and_must_agree(place, found):
    same = score_files.score(
        place / "real.npz", place / "real.npz", score_files.Options(weights="none/there")
    )
    assert same["random_fid2048"] < 1e-3 and same["random_precision"] == 1
    other = features.load(place / "real.npz")
    features.save(place / "other.npz", other._replace(spec=other.spec._replace(size="32x32", source="b")))
    with pytest.raises(ValueError, match="and .*b.* cannot be compared: .*size is 16x16 .real. and 32x32"):
        score_files.score(place / "real.npz", place / "other.npz")


@pytest.mark.long
def test_fd_dinov2_of_a_file_of_weights(place, tmp_path, monkeypatch):
    """From the published layout on, with a small network: FD, precision, copies, a cached real side."""
    plan = test_dinov2_weights.TINY
    row = features.NETWORKS["dinov2"]
    monkeypatch.setitem(
        features.NETWORKS,
        "dinov2",
        row._replace(features=partial(features.dinov2_features, plan), width={"class_token": plan.width}),
    )
    source = networks.SOURCES["dinov2"]
    load = partial(dinov2_weights.load, plan=plan)
    monkeypatch.setitem(networks.SOURCES, "dinov2", source._replace(load=load))
    weights = test_dinov2_weights.write(tmp_path / "hub", plan, test_dinov2_weights.tensors(plan))
    options = score_files.Options(
        network="dinov2",
        weights=str(weights),
        metrics=("mifid", "prdc", "copies"),
        cache_dir=str(tmp_path),
    )
    found = score_files.score(place / "real", place / "fake.zip", options)
    distances = {f"{name}_dinov2_other" for name in ("fd", "precision", "recall", "density", "coverage")}
    assert distances <= set(found) and not any("mifid" in name for name in found)
    assert found["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert 0 < found["copies"]["authentic_share"] <= 1 and "real_distance" in found["copies"]
    images = [np.stack([cropping.resize(x, 16, 16, "lanczos") for x in PHOTOS]), FAKES]
    net = dinov2.DINOv2(plan)
    params = dinov2_weights.load(weights, plan).params
    real, fake = (net.apply({"params": params}, dinov2.preprocess(x))["class_token"] for x in images)
    np.testing.assert_allclose(found["fd_dinov2_other"], fid.frechet_exact(real, fake), rtol=1e-3)
    assert sum(file.name.count(".") == 1 for file in (tmp_path / "features").iterdir()) == 1


def test_mistakes_are_one_paragraph(place, tmp_path):
    with pytest.raises(ValueError, match=r"such as 20x30 and 21x30.*Set a size .*\(--size\)"):
        score_files.score(place / "real", place / "real", score_files.Options(weights="random"))
    np.save(tmp_path / "wide.npy", np.zeros((3, 8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="are 8 x 9 .height x width."):
        score_files.score(place / "real", tmp_path / "wide.npy", score_files.Options(weights="random"))
    with pytest.raises(ValueError, match="network is 'vgg'; choices: inception, inception_pytorch"):
        score_files.score(FAKES, FAKES, score_files.Options(network="vgg"))
    with pytest.raises(ValueError, match="the published weights of nasnet are not downloaded"):
        score_files.score(FAKES, FAKES, score_files.Options(network="nasnet"))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    command = [sys.executable, "-m", "jaxdog.score", "--real", str(place / "real")]
    done = subprocess.run([*command, "--fake", str(tmp_path / "empty.zip")], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "jaxdog: " in done.stderr and "has no photos" in done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "or --real and --fake" in done.stderr


@pytest.mark.parametrize("values", [[0], [1], [0, 1], [0, 1, 255]])
def test_floats_that_were_cast_to_uint8_are_an_error(tmp_path, values, monkeypatch):
    """Floats in [0, 1] become 0 and 1; -1 becomes 255. As an array, and as files."""
    monkeypatch.setattr(networks, "load", cache(networks.load))
    image = np.resize(np.array(values, np.uint8), (4, 8, 8, 3))
    write_zip(tmp_path / "cast.zip", {f"{i}.png": encoded(x) for i, x in enumerate(image)})
    for size, resampler in ((0, "lanczos"), (16, "box"), (5, "lanczos")):  # lanczos mixes values
        options = score_files.Options(weights="random", size=size, resampler=resampler)
        for fake in (image, tmp_path / "cast.zip"):
            with pytest.raises(
                ValueError, match=f"only have the values {', '.join(map(str, values))}, as fl"
            ):
                score_files.score(FAKES, fake, options)


def test_metrics_of_images_need_no_network(place, monkeypatch):
    """The weights do not exist. Real photos are resized as they are streamed."""

    def scores(compared):
        shapes = [x.shape for side in (compared.images.real, compared.images.fake) for x in side()]
        return {f"batch {i}": float(np.prod(shape)) for i, shape in enumerate(shapes)}

    monkeypatch.setitem(metric_table.METRICS, "pixels", metric_table.Metric(scores, needs="images"))
    options = score_files.Options(weights="none/there", metrics=("pixels",), batch_size=4)
    found = score_files.score(place / "real", place / "fake.npy", options)
    sizes = [found[f"batch {i}"] / 16 / 16 / 3 for i in range(3)]
    assert sizes == [4, 2, 4] and (found["real"], found["samples"]) == (6, 4)
    assert found["weights_kind"] == "unknown" and found["warnings"] == []
    assert "pixels" not in score_table.table(found) and "batch 0" in score_table.table(found)


def test_masks_and_bright_images_are_images():
    for values in ([0, 255], [255], [0, 1, 2]):
        score_files._check_values(image_files.array("x", np.resize(np.array(values, np.uint8), (4, 8, 8, 3))))


def test_outputs_that_would_not_be_written_are_an_error(tmp_path, monkeypatch):
    options = score_files.Options(weights="random", pairs=str(tmp_path / "p.png"), metrics=("mifid",))
    with pytest.raises(errors.UserError, match="pairs is .*p.png', but copies are not among the metrics"):
        score_files.score(FAKES, FAKES, options)
    monkeypatch.setenv("HOME", str(tmp_path))
    options = options._replace(pairs="~/p.png", metrics=("copies",), save_real="~/r.npz")
    checked = score_options.with_outputs(options, FAKES, FAKES)
    assert (checked.pairs, checked.save_real) == (str(tmp_path / "p.png"), str(tmp_path / "r.npz"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": None}, r"weights is None \(NoneType\), and must be text or a path; leave it out"),
        ({"cache_dir": None}, "cache_dir is None"),
        ({"save_real": 5}, r"save_real is 5 \(int\)"),
        ({"metrics": 5}, "metrics is 5, and must be names of metrics; choices: fid, mifid"),
        ({"metrics": ()}, r"metrics is \(\), and must be names of metrics"),
        ({"metrics": ("kid", 7)}, "7 is not a metric"),
        ({"metrics": ""}, "is not a metric"),
        ({"eps": float("nan")}, "eps is nan, and must be a finite number of at least 0"),
        ({"eps": float("inf")}, "eps is inf, and must be a finite number"),
        ({"network": "vgg"}, "network is 'vgg'; choices: inception, inception_pytorch"),
        ({"resampler": "cubic"}, "resampler is 'cubic'; choices: box, bilinear"),
        ({"save_as": "torch"}, "save_as is 'torch'; choices: jaxdog, pytorch-fid"),
    ],
)
def test_options_of_python_calls_are_checked(given, message):
    with pytest.raises(errors.UserError, match=message):
        score_options.from_keywords(given)


def test_paths_and_metrics_may_have_several_types(tmp_path):
    found = score_options.from_keywords(
        {"cache_dir": tmp_path, "metrics": ["kid", "isc"], "eps": np.float32(0.5)}
    )
    assert found == score_options.Options(cache_dir=str(tmp_path), metrics=("kid", "isc"), eps=0.5)
    assert score_options.from_keywords({"metrics": "kid, isc"}).metrics == ("kid", "isc")


def test_one_image_is_not_many_gray_ones(place, tmp_path):
    for shape in ((64, 64, 3), (3, 64, 64), (64, 64, 1)):
        np.save(tmp_path / "one.npy", np.resize(FAKES, shape))
        for fake in (np.resize(FAKES, shape), tmp_path / "one.npy"):
            with pytest.raises(ValueError, match="is that of one image; an array of images has shape"):
                score_files.score(FAKES, fake, score_files.Options(weights="random", size=64))


def test_flags_are_the_options_of_the_library():
    """Every option has a flag with the same default; choices are the rows of the library's tables."""
    parser = options.Parser()
    scoring.SCORE.add_arguments(parser)
    args = parser.parse_args(["a", "b"])
    assert scoring.options_of(args) == score_files.Options() and args.paths == ["a", "b"]
    given = {"weights": "random", "size": 64, "eps": 0.5, "batch_size": 8, "cache_dir": "c", "pairs": "p"}
    given |= {"network": "nasnet", "resampler": "box", "save_real": "r", "save_fake": "f"}
    given |= {"save_as": "pytorch-fid"}
    words = [f"--{name}={value}" for name, value in given.items()] + ["--metric=isc", "--metric", "kid,prdc"]
    args = parser.parse_args(options.with_hyphens(words))
    assert scoring.options_of(args)._asdict() == {**given, "metrics": ("isc", "kid", "prdc")}
    choices = {action.dest: action.choices for action in parser._actions}
    assert set(choices["network"]) == set(features.NETWORKS)
    assert set(choices["save_as"]) == set(score_options.FORMATS)
    assert set(choices["resampler"]) == set(cropping.RESAMPLERS)


def test_flags_are_parsed_without_jax():
    code = "import sys, jaxdog.score as score; import jaxdog.cli.entry; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
