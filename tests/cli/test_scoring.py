"""`jaxdog score` and `compare`: outputs are checked first; results are printed before they are written."""

import pathlib
from typing import Any

import pytest

from jaxdog.cli import entry
from jaxdog.evaluation import score_files
from jaxdog.report import compare
from jaxdog.utils import errors, files


@pytest.fixture(autouse=True)
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").touch()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the computations that were asked for."""
    calls: list[str] = []

    def score(*_: Any) -> dict[str, Any]:
        calls.append("score")
        return {"mifid": 12.5, "warnings": (), "seconds": 1.0}

    monkeypatch.setattr(score_files, "score", score)
    monkeypatch.setattr(compare, "table", lambda *_: calls.append("table") or "the table")
    return calls


@pytest.mark.parametrize(
    "words", ["score a b --out file/x.json", "compare a --out file/x.html", "compare a --out ."]
)
def test_outputs_are_checked_before_the_work(
    words: str, asked: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        entry.main(words.split())
    assert "--out is '" in capsys.readouterr().err and not asked


@pytest.mark.parametrize(
    ("words", "shown"), [("score a b --out x", "mifid"), ("compare a --out x", "the table")]
)
def test_results_are_printed_before_they_are_written(
    words: str, shown: str, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise errors.UserError("the disk is full")

    monkeypatch.setattr(files, "write_text", fail)
    monkeypatch.setattr(compare, "write", fail)
    with pytest.raises(SystemExit):
        entry.main(words.split())
    printed = capsys.readouterr()
    assert shown in printed.out and "the disk is full" in printed.err and len(asked) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"save_real": "file/x.npz"}, "save_real is 'file/x.npz', and file cannot be written to"),
        ({"save_fake": "x.json"}, "save_fake is 'x.json'; it must end in .npz"),
        ({"pairs": "x.gif"}, "pairs is 'x.gif'; it must end in .png"),
        (
            {"save_real": "x.npz", "save_fake": "./x.npz"},
            "save_fake is './x.npz', which would replace save_real",
        ),
        (
            {"save_real": "real.npz"},
            r"save_real is 'real.npz', which would replace the real images \(real.npz\)",
        ),
        ({"save_fake": "fake.npz"}, "save_fake is 'fake.npz', which would replace the generated images"),
    ],
)
def test_files_of_a_score_are_checked_before_images_are_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        score_files.score("real.npz", "fake.npz", score_files.Options(**fields))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("score a.zip b --out a.zip", "--out is 'a.zip', which would replace the real images (a.zip)"),
        ("score a file --out file", "--out is 'file', which would replace the generated images (file)"),
        (
            "score a b --save-fake x.npz --out x.npz",
            "--out is 'x.npz', which would replace the file of save_fake",
        ),
        ("score a b --eps nan", "eps is nan, and must be a finite number of at least 0"),
        ("score a b --eps=-1", "eps is -1.0, and must be a finite number of at least 0"),
        ("score a b --eps inf", "eps is inf, and must be a finite number of at least 0"),
    ],
)
def test_mistakes_are_found_before_the_work(
    words: str, message: str, asked: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        entry.main(words.split())
    assert message in capsys.readouterr().err and not asked
