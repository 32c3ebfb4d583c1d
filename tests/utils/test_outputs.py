"""Outputs that can be written, and those that cannot."""

import pathlib
import tempfile

import pytest

from jaxdog.utils import errors, outputs


@pytest.fixture(autouse=True)
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.png").touch()


@pytest.mark.parametrize("path", ["new.png", "file.png", "folder/new.png", "new/er/x.PNG"])
def test_files_that_can_be_written(path: str, tmp_path: pathlib.Path) -> None:
    assert outputs.check(path, "--out", (".png",)) == pathlib.Path(path)
    assert outputs.check(tmp_path / path, "--out") == tmp_path / path
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["file.png", "folder"]


@pytest.mark.parametrize("path", ["new", "folder", "folder/new", "new/er"])
def test_folders_that_can_be_written(path: str) -> None:
    assert outputs.check(path, "--out", folder=True) == pathlib.Path(path)


@pytest.mark.parametrize(
    ("path", "suffixes", "folder", "message"),
    [
        ("x.jpg", (".png", ".zip"), False, r"--out is 'x.jpg'; it must end in .png, .zip"),
        ("folder", (), False, "--out is 'folder', which is a folder, and must be a file"),
        ("file.png", (), True, "--out is 'file.png', which is a file, and must be a folder"),
        (
            "file.png/x.png",
            (),
            False,
            "--out is 'file.png/x.png', and file.png cannot be written to: Not a dir",
        ),
        ("file.png/x/y", (), True, "file.png cannot be written to"),
    ],
)
def test_what_cannot_be_written(path: str, suffixes: tuple[str, ...], folder: bool, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        outputs.check(path, "--out", suffixes, folder)


def test_a_folder_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: pathlib.Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(errors.UserError, match="folder cannot be written to: Permission denied"):
        outputs.check("folder/x.png", "--out")


@pytest.mark.parametrize(
    ("path", "used"),
    [
        ("file.png", "file.png"),
        ("folder/../file.png", "file.png"),
        ("link.png", "file.png"),  # symbolic
        ("file.png", "link.png"),
        ("hard.png", "file.png"),
        ("folder/photo.png", "folder"),  # an image among others
        ("new.png", "./new.png"),  # of two outputs
    ],
)
def test_an_output_replaces_no_input_and_no_other_output(path: str, used: str) -> None:
    pathlib.Path("link.png").symlink_to("file.png")
    pathlib.Path("hard.png").hardlink_to("file.png")
    pathlib.Path("folder/photo.png").touch()
    with pytest.raises(
        errors.UserError, match=f"--out is {path!r}, which would replace the photos .{used}.: na"
    ):
        outputs.check(path, "--out", apart={"the scores": None, "the photos": used})


@pytest.mark.parametrize("path", ["new.png", "folder/new.png", "folder/scores.json"])
def test_an_output_may_be_beside_the_inputs(path: str) -> None:
    pathlib.Path("folder/scores.json").touch()  # of an earlier command
    used = {"the photos": "folder", "others": "file.png", "an array": b"", "nothing": ""}
    assert outputs.check(path, "--out", apart=used) == pathlib.Path(path)
