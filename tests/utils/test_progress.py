"""Progress where there is no terminal."""

import logging

import pytest

from jaxdog.utils import progress


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "jaxdog"]


def test_lines_take_the_place_of_a_bar(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "jaxdog"), progress.bar(40, "images", "img") as bar:
        bar.update(10)
        bar.update(30)
    *_, middle, last = lines(caplog)
    assert middle.startswith("images: 10 of 40, about ") and middle.endswith(" left")
    assert last == "images: 40 of 40, about 00:00 left"


def test_iterated_or_hidden(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "jaxdog"):
        assert list(progress.bar(3, "photos", "photo", visible=False, iterable=iter("abc"))) == list("abc")
        assert not lines(caplog)
        assert list(progress.bar(3, "photos", "photo", iterable=iter("abc"))) == list("abc")
    assert any(line.startswith("photos: 2 of 3, about ") for line in lines(caplog))


def test_short_work_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "jaxdog"), progress.bar(2, "images", "img") as bar:
        bar.update(2)
    assert not lines(caplog)
