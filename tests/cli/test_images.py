"""`jaxdog sample`, `interpolate`, `project` and `export` with a stand-in for the generator."""

import errno
import pathlib
import types
import zipfile
from typing import Any

import numpy as np
import PIL.Image
import pytest

from jaxdog.cli import entry, images
from jaxdog.generators import generator

COLORS = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20


class Stub:
    """Images of one gray level each; keeps what it is asked for."""

    resolution, classes, notes = 8, ("beagle", "pug"), ("a note",)

    def __init__(self, asked: list[tuple]):
        self.asked = asked

    def sample(self, n: int, **given: Any) -> np.ndarray:
        self.asked.append(("sample", n, given))
        return np.broadcast_to(COLORS[:n], (n, 8, 8, 3))

    def interpolate(self, seeds: list[int], **given: Any) -> np.ndarray:
        self.asked.append(("interpolate", seeds, given))
        return np.broadcast_to(COLORS[: given["frames"]], (given["frames"], 8, 8, 3))

    def project(self, image: pathlib.Path, **given: Any) -> Any:
        self.asked.append(("project", image.name, given))
        images = np.broadcast_to(COLORS, (12, 8, 8, 3))
        losses = np.array([2.0, 1.0], np.float32)
        return types.SimpleNamespace(
            z=np.ones(4, np.float32), w=None, label=1, image=images[5], target=images[10], losses=losses
        )

    def save_pretrained(self, folder: pathlib.Path, **given: Any) -> None:
        self.asked.append(("export", folder.name, given))
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes(1_000_000))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[tuple]:
    """What was asked of the generator, in a folder that has a run, `r`."""
    calls: list[tuple] = []

    def from_run(folder: Any, step: Any) -> Stub:
        calls.append(("run", str(folder), step))
        return Stub(calls)

    def from_pretrained(name: str) -> Stub:
        calls.append(("pretrained", name))
        return Stub(calls)

    monkeypatch.setattr(generator.Generator, "from_run", from_run)
    monkeypatch.setattr(generator.Generator, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r" / "checkpoints").mkdir(parents=True)
    return calls


def test_sample_writes_a_grid(asked: list[tuple], capsys: pytest.CaptureFixture) -> None:
    words = "sample r -n 9 --classes beagle,pug --classes pug --seed 3 --truncation 0.7 --columns 3"
    entry.main([*words.split(), "--step", "latest"])
    given = {"classes": ["beagle", "pug", "pug"], "seed": 3, "truncation": 0.7}
    assert asked == [("run", "r", "latest"), ("sample", 9, given)]
    grid = np.asarray(PIL.Image.open("samples.png"))
    assert grid.shape == (24, 24, 3) and (grid[::8, ::8, 0].ravel() == COLORS[:9].ravel()).all()
    printed = capsys.readouterr()
    assert printed.out == "9 images: samples.png\n" and printed.err == "note: a note\n"


def test_sample_writes_files(asked: list[tuple]) -> None:
    entry.main("sample hf://u/n -n 12 --out folder".split())
    assert asked == [
        ("pretrained", "hf://u/n"),
        ("sample", 12, {"classes": None, "seed": 0, "truncation": None}),
    ]
    paths = sorted(pathlib.Path("folder").iterdir())
    assert [path.name for path in paths] == [f"{i:05d}.png" for i in range(12)]
    assert np.asarray(PIL.Image.open(paths[5])).max() == COLORS[5].item()
    entry.main("sample r -n 12 --out images.zip".split())
    with zipfile.ZipFile("images.zip") as archive:
        assert len(archive.namelist()) == 12


def test_a_folder_may_end_in_a_number(asked: list[tuple]) -> None:
    entry.main("sample r -n 2 --out images_0.7".split())
    assert len(list(pathlib.Path("images_0.7").iterdir())) == 2


def test_a_class_whose_name_has_a_comma(asked: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "classes", ("dog, black", "dog", "pug"))
    entry.main(["sample", "r", "-n", "4", "--classes", "dog, black", "--classes", "dog,pug"])
    assert asked[1][2]["classes"] == ["dog, black", "dog", "pug"]


def test_a_photo_is_not_replaced_by_its_projection(asked: list[tuple], capsys: pytest.CaptureFixture) -> None:
    PIL.Image.new("L", (30, 20), 100).save("photo.png")
    before = pathlib.Path("photo.png").read_bytes()
    with pytest.raises(SystemExit):
        entry.main("project r photo.png --out photo.png".split())
    assert "--out is 'photo.png', which would replace the photo" in capsys.readouterr().err
    assert pathlib.Path("photo.png").read_bytes() == before and not asked


def test_images_of_two_commands_are_not_mixed(
    asked: list[tuple], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder gets all images or none, and only if it is empty."""
    whole, saved = PIL.Image.Image.save, []

    def save(image: PIL.Image.Image, *args: Any, **given: Any) -> None:
        saved.append(image)
        if len(saved) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(image, *args, **given)

    monkeypatch.setattr(PIL.Image.Image, "save", save)
    pathlib.Path("folder").mkdir()
    pathlib.Path("folder", ".DS_Store").touch()
    with pytest.raises(SystemExit):
        entry.main("sample r -n 12 --out folder".split())
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in pathlib.Path("folder").iterdir()] == [".DS_Store"]
    entry.main("sample r -n 12 --out folder".split())
    asked.clear()
    with pytest.raises(SystemExit):
        entry.main("sample r -n 3 --out folder".split())
    assert "'folder', which is not empty (12 entries)" in capsys.readouterr().err and not asked


@pytest.mark.parametrize("words", ["--out=~/a.png", "--out ~/a.png"])
def test_the_home_folder_is_where_the_image_goes(
    words: str, asked: list[tuple], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The shell leaves ~ in --out=~/a.png as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    entry.main(f"sample ~/r -n 4 {words}".split())
    assert asked[0] == ("pretrained", str(tmp_path / "home" / "r"))
    assert (tmp_path / "home" / "a.png").is_file() and not pathlib.Path("~").exists()


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_interpolate(suffix: str, asked: list[tuple]) -> None:
    words = f"interpolate r --seeds 1,3-4 --classes pug --frames 5 --no-loop --upscale 2 --out a.{suffix}"
    entry.main([*words.split(), "--step=40"])
    given = {"classes": ["pug"], "frames": 5, "loop": False, "truncation": None}
    assert asked == [("run", "r", 40), ("interpolate", [1, 3, 4], given)]
    with PIL.Image.open(f"a.{suffix}") as image:
        assert (image.size, image.n_frames) == ((16, 16), 5)


def test_project(asked: list[tuple], capsys: pytest.CaptureFixture) -> None:
    PIL.Image.new("L", (30, 20), 100).save("photo.png")
    entry.main("project r photo.png --steps 7 --class pug --out p.png".split())
    assert asked[1] == ("project", "photo.png", {"steps": 7, "classes": "pug", "seed": 0})
    pair = np.asarray(PIL.Image.open("p.png"))
    assert pair.shape == (8, 16, 3) and (pair[0, 0, 0], pair[0, 8, 0]) == (200, 100)
    with np.load("p.npz") as found:
        assert set(found) == {"z", "label", "losses"} and found["label"] == 1
    assert capsys.readouterr().out == "class pug, loss 1\np.png, p.npz\n"


def test_export(asked: list[tuple], capsys: pytest.CaptureFixture) -> None:
    entry.main("export r --out dogs --dtype float16".split())
    assert asked[1] == ("export", "dogs", {"dtype": "float16"})
    assert "dogs: 1.0 MB; jaxdog sample dogs, or jaxdog.Generator.from_pretrained('dogs')" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample r --out file/x.png", "file cannot be written to"),
        ("sample r --out file", "which is a file, and must be a folder"),
        ("interpolate r --out file/x.gif", "file cannot be written to"),
        ("interpolate r --fps 60", "fps is 60, and at most 50 for a GIF"),
        ("interpolate r --fps 0.001", "fps is 0.001, and must be at least 0.1"),
        ("project r file --out file/x.png", "file cannot be written to"),
        ("export r --out file", "which is a file, and must be a folder"),
        ("export r --out r", "r is the folder of a run, whose config.json must stay"),
    ],
)
def test_outputs_are_checked_before_the_work(
    words: str, message: str, asked: list[tuple], capsys: pytest.CaptureFixture
) -> None:
    pathlib.Path("file").touch()
    with pytest.raises(SystemExit):
        entry.main(words.split())
    assert message in capsys.readouterr().err and not asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample young", "young is the folder of a run that has no checkpoint yet: wait for the first one"),
        (
            "sample r -n 2 --classes beagle,pug,pug,beagle",
            "is 2, so that pug, beagle would have no image: give at least 4",
        ),
        ("sample r --step=worst", "--step is 'worst'; choices: best, latest, or the step of a checkpoint"),
        ("sample dogs64 --step=latest", "--step is for the folder of a run, and dogs64 has no checkpoints"),
    ],
)
def test_mistakes(words: str, message: str, asked: list[tuple], capsys: pytest.CaptureFixture) -> None:
    pathlib.Path("young").mkdir()
    pathlib.Path("young", "dataset.json").write_text("{}")
    with pytest.raises(SystemExit):
        entry.main(words.split())
    assert message in capsys.readouterr().err


def test_a_grid_is_nearly_square(tmp_path: pathlib.Path) -> None:
    for n, size in ((1, (2, 2)), (9, (6, 6)), (100, (20, 20)), (300, (20, 60))):
        images.write_images(tmp_path / "a.png", np.zeros((n, 2, 2, 3), np.uint8))
        with PIL.Image.open(tmp_path / "a.png") as image:
            assert image.size == size
