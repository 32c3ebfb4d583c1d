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
