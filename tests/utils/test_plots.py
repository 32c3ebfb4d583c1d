"""Figures show the right curves, as SVG that can be embedded in a page; grids are filled row by row."""

import math
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from jaxdog.utils import plots

LOG = [{"step": i, "kimg": i / 10, "loss/d": 1.0 / i, "loss/g": float(i)} for i in range(1, 40)]


def letters(svg: str) -> list[str]:
    root = xml.etree.ElementTree.fromstring(svg)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text") if element.text]


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]*)"', svg)


def test_a_grid_lies_row_by_row():
    images = np.random.default_rng(0).integers(1, 256, (5, 2, 3, 3), dtype=np.uint8)
    sheet = plots.grid(images, columns=3)
    assert sheet.shape == (4, 9, 3) and sheet.dtype == np.uint8
    for i, image in enumerate(images):
        y, x = 2 * (i // 3), 3 * (i % 3)
        np.testing.assert_array_equal(sheet[y : y + 2, x : x + 3], image)
    assert (sheet[2:, 6:] == 0).all()


def test_a_grid_needs_columns():
    with pytest.raises(ValueError, match="at least 1 column, got 0"):
        plots.grid(np.zeros((1, 2, 2, 3), np.uint8), columns=0)


def test_rows_have_names_beside_them():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 30, 20, 3), dtype=np.uint8)
    sheet = plots.labeled_rows(images, ["pug", "a longer name"])
    margin = sheet.shape[1] - 3 * 60
    assert sheet.shape[0] == 2 * 90 and sheet.dtype == np.uint8  # enlarged three times
    large = images.repeat(3, axis=2).repeat(3, axis=3)
    np.testing.assert_array_equal(sheet[:, margin:], plots.grid(large.reshape(-1, 90, 60, 3), 3))
    dark = [np.flatnonzero((row[:, :margin] < 100).any((0, 2))) for row in (sheet[:90], sheet[90:])]
    assert 0 < dark[0].max() < dark[1].max() < margin and dark[0].min() > 0
    with pytest.raises(ValueError, match=r"1 names for images of shape \[2, 3, 30, 20, 3\]"):
        plots.labeled_rows(images, ["pug"])


def test_losses_come_first_among_the_groups():
    log = [{"step": 1, "grad_norm/d": 1.0, "loss/g": 1.0}, {"step": 2, "loss/d": 1.0, "kimg": 2.0}]
    assert list(plots.scalar_groups(log).items()) == [
        ("loss", ["loss/d", "loss/g"]),
        ("grad_norm", ["grad_norm/d"]),
    ]


def test_a_figure_names_its_curves():
    svg = plots.scalars(LOG, ["loss/d", "loss/g"], "loss")
    assert svg is not None and {"d", "g", "kimg"} <= set(letters(svg))


def test_a_figure_can_share_a_page():
    one, two = plots.scalars(LOG, ["loss/d"], "one"), plots.scalars(LOG, ["loss/d"], "two")
    assert one and two
    assert one.startswith("<svg") and "<style" not in one and "<metadata" not in one
    assert ids(one) and not set(ids(one)) & set(ids(two))
    assert set(re.findall(r'"#([^"]+)"', one)) <= set(ids(one))  # every reference has its target
    assert "currentColor" in one and plots._INK not in one and "white" not in one


def test_a_figure_is_a_function_of_its_curves():
    assert plots.scalars(LOG, ["loss/d"], "loss") == plots.scalars(LOG, ["loss/d"], "loss")


def test_a_label_cannot_break_the_page():
    svg = plots.draw([('<b>"x', [1.0], [1.0])], '<i>"y', salt="s")
    assert svg is not None and '<b>"x' in letters(svg)
    assert xml.etree.ElementTree.fromstring(svg).get("aria-label") == '<i>"y over kimg'


def test_what_is_not_finite_is_skipped():
    log = [
        {"kimg": 1.0, "x": None},
        {"kimg": 2.0, "x": math.inf},
        {"x": 1.0},
        {"kimg": 3.0},
        {"kimg": 4.0, "x": 5.0},
    ]
    assert plots._points(log, "x") == ([4.0], [5.0])
    assert plots.scalars(log[:4], ["x"], "x") is None


def test_every_metric_has_a_figure_and_every_sample_count_a_curve():
    scores = [
        {"kimg": 1.0, "samples": 2000, "fid768": 2.0, "mifid_approx": 3.0, "memorization_distance": 0.2},
        {"kimg": 2.0, "samples": 2000, "fid768": 1.0, "mifid_approx": 2.0, "memorization_distance": 0.2},
        {"kimg": 2.0, "samples": 10_000, "fid768": 0.5, "final": True},
    ]
    figures = plots.metrics(scores)
    assert list(figures) == ["fid768", "mifid_approx", "memorization_distance"]
    assert {"2,000 samples", "final, 10,000 samples"} <= set(letters(figures["fid768"]))
    assert "10,000 samples" not in letters(figures["mifid_approx"])


@pytest.mark.parametrize(
    "name", ["fid2048", "mifid", "fid768", "fid2048_approx", "random_fid2048", "random_mifid", "fd_dinov2"]
)
def test_metrics_are_known_by_name(name):
    assert plots.is_metric(name) and not plots.is_metric("memorization_distance")


def test_downsampling_keeps_means_and_short_curves():
    x, y = np.arange(1000.0), np.random.default_rng(0).normal(size=1000)
    thin_x, thin_y = plots.downsample(x, y, points=100)
    np.testing.assert_allclose(thin_x, x.reshape(100, 10).mean(axis=1))
    np.testing.assert_allclose(thin_y, y.reshape(100, 10).mean(axis=1))
    odd_x, _ = plots.downsample(x[:157], y[:157], points=100)
    assert len(odd_x) == 100 and (np.diff(odd_x) > 0).all()
    np.testing.assert_allclose(plots.downsample(x[:157], np.full(157, 3.0), points=100)[1], 3.0)
    np.testing.assert_array_equal(plots.downsample(x[:100], y[:100], points=100)[1], y[:100])


def test_a_final_score_does_not_continue_the_curve():
    """It is of other images: at an equal number of samples it would be a vertical line at the best step."""
    scores = [{"kimg": float(k), "samples": 2000, "fid768": 9.0 - k} for k in (1, 2, 3)]
    scores.insert(2, {"kimg": 2.0, "samples": 2000, "fid768": 5.0, "final": True})
    assert {"2,000 samples", "final, 2,000 samples"} <= set(letters(plots.metrics(scores)["fid768"]))


def test_names_may_hold_anything():
    """Dollars are no formulas, backslashes no references, and markup is text."""
    for name in ("fid_$a_$", r"fid_\g<1>\d", "fid<b>&'\"", "$", "fid$\\frac{$"):
        svg = plots.draw([(name, [1.0, 2.0], [2.0, 1.0]), ("other", [1.0], [1.0])], name, salt=name)
        assert svg is not None and name in letters(svg) and "<b>" not in svg


@pytest.mark.parametrize(
    "value", [10**400, float("inf"), float("nan"), True, "3", None, [1.0]], ids=lambda x: type(x).__name__
)
def test_what_is_no_number_is_not_plotted(value):
    svg = plots.metrics([{"kimg": 1.0, "samples": 5, "fid": value}])
    assert svg == {}
