"""Curves of a run as SVG text, and grids of images. Pure functions of records and arrays.

Axes and text use the page's text color (`currentColor`), so that the SVG is readable on light and dark pages.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from matplotlib.figure import Figure

from jaxdog.utils import errors

Record = Mapping[str, Any]
Curve = tuple[str, Sequence[float], Sequence[float]]  # name, x, y

MAX_POINTS = 500  # longer curves are averaged to this many points
MIN_CELL = 48  # px, smallest side of an image in `labeled_rows`
TEXT_SIZE = 14  # px, of its names
COLORS = ("#2f7ed8", "#e0663a", "#2a9d6f", "#a463c7", "#c99a1e", "#d1477a", "#4aa3b8", "#7d8a2e")
DASHES = ((), (5.0, 2.0), (1.0, 1.5), (5.0, 1.5, 1.0, 1.5))

_INK = "#010203"  # drawn in this color, then replaced by currentColor
_STYLE: Any = {
    "svg.fonttype": "none",  # keeps text as text, in the page's font
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.parse_math": False,  # names may have dollars
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
}


def is_metric(key: str) -> bool:
    """Whether a score's key names a Frechet metric: fid2048, mifid_approx, random_fid2048, fd_dinov2, ..."""
    return "fid" in key.lower() or "fd_" in key


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images uint8 [n, h, w, 3] -> [rows * h, columns * w, 3], row by row; unused cells are black."""
    if columns < 1:
        raise errors.UserError(f"a grid needs at least 1 column, got {columns}")
    n, h, w, c = images.shape
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, h, w, c), np.uint8)
    sheet[:n] = images
    return sheet.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def labeled_rows(images: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Rows of images with a name to the left of each: uint8 [r, c, h, w, 3], r names -> [H, W, 3] uint8.

    Images smaller than `MIN_CELL` pixels are enlarged by repeating pixels.
    """
    if images.ndim != 5 or len(images) != len(names) or not images.size:
        raise errors.UserError(
            f"{len(names)} names for images of shape {list(images.shape)}, not [r, c, h, w, 3]"
        )
    factor = -(-MIN_CELL // min(images.shape[2:4]))
    images = images.repeat(factor, axis=2).repeat(factor, axis=3)
    r, c, h, w, _ = images.shape
    font = PIL.ImageFont.load_default(TEXT_SIZE)
    margin = max(int(np.ceil(font.getlength(name))) for name in names) + TEXT_SIZE
    sheet = PIL.Image.new("RGB", (margin + c * w, r * h), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        draw.text((TEXT_SIZE // 2, i * h + h // 2), name, "black", font, anchor="lm")
    result = np.array(sheet)
    result[:, margin:] = grid(images.reshape(-1, h, w, 3), c)
    return result


def scalar_groups(log: Sequence[Record]) -> dict[str, list[str]]:
    """Names of the log's scalars, grouped by the part before the slash, `loss` first; others are omitted."""
    groups: dict[str, list[str]] = {}
    for name in sorted({key for record in log for key in record if "/" in key}):
        groups.setdefault(name.split("/")[0], []).append(name)
    return dict(sorted(groups.items(), key=lambda item: (item[0] != "loss", item[0])))


def scalars(log: Sequence[Record], names: Sequence[str], label: str) -> str | None:
    """Curves of the named log scalars over kimg; None if none of their values is finite."""
    short = [name.split("/", 1)[-1] for name in names]
    curves = [(s, *_points(log, name)) for s, name in zip(short, names, strict=True)]
    return draw(curves, label, salt=label)


def metrics(scores: Sequence[Record]) -> dict[str, str]:
    """One figure per metric and for the memorization distance: name -> SVG.

    Each number of samples has its own curve, as Frechet distances decrease with the number of samples. Final
    scores are points of their own: they are of other images than the evaluations during training.
    """
    names = sorted({key for record in scores for key in record if is_metric(key)})
    names += [key for key in ("memorization_distance",) if any(key in record for record in scores)]
    figures = {}
    for name in names:
        kinds: dict[tuple[bool, int], list[Record]] = {}
        for record in scores:
            if name in record:
                kinds.setdefault((bool(record.get("final")), record.get("samples", 0)), []).append(record)
        curves = [
            (f"{'final, ' if final else ''}{count:,} samples", *_points(records, name))
            for (final, count), records in sorted(kinds.items(), key=lambda item: item[0])
        ]
        if (figure := draw(curves, name, salt=name)) is not None:
            figures[name] = figure
    return figures


def draw(
    curves: Sequence[Curve],
    label: str,
    salt: str,
    x_label: str = "kimg",
    styles: Sequence[int] | None = None,
) -> str | None:
    """Curves as an SVG element; None if there are no points.

    Args:
      curves: the curves; those without points are left out.
      label: name of the figure.
      salt: the ids in the element derive from it.
      x_label: name of the x-axis.
      styles: the style of each curve, see `line_style`, without a legend; None: in order, with a legend.
    """
    drawn = [curve for curve in curves if len(curve[1])]
    if styles is not None:
        styles = [style for style, curve in zip(styles, curves, strict=True) if len(curve[1])]
    if not drawn:
        return None
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(5.0, 2.9), layout="constrained")
        axes = figure.subplots()
        for (name, x, y), i in zip(drawn, styles or range(len(drawn)), strict=True):
            color, dashes = line_style(i)
            x, y = downsample(np.asarray(x), np.asarray(y))
            marker = "o" if len(x) <= 30 else None
            line: Any = {"color": color, "linestyle": (0, dashes) if dashes else "-", "linewidth": 1.6}
            axes.plot(x, y, label=name, marker=marker, markersize=3.5, **line)
        axes.set_xlabel(x_label)
        axes.grid(alpha=0.15, color=_INK, linewidth=0.6)
        if styles is None and (len(drawn) > 1 or drawn[0][0] != label):
            figure.legend(frameon=False, loc="outside upper left", ncols=4, fontsize=9, handlelength=1.2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), f"{label} over {x_label}")


def line_style(i: int) -> tuple[str, tuple[float, ...]]:
    """Color and dashes (in line widths; (): a solid line) of curve i; the first 32 differ."""
    return COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]


def _inline(svg: str, label: str) -> str:
    """A stand-alone SVG file -> an element of a page, without prologue, style or ids that could clash."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    size = re.compile(r'width="[^"]*pt" height="[^"]*pt"')
    return size.sub(lambda _: f'role="img" aria-label="{html.escape(label)}"', svg, count=1)


def downsample(x: np.ndarray, y: np.ndarray, points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` points, each the mean of consecutive ones; x and y are [n]."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), points + 1).astype(int)
    widths = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / widths, np.add.reduceat(y, edges[:-1]) / widths


def _points(records: Sequence[Record], name: str) -> tuple[list[float], list[float]]:
    """The finite values of `name` and their kimg."""
    pairs = [(r["kimg"], r[name]) for r in records if _finite(r.get("kimg")) and _finite(r.get(name))]
    return [float(x) for x, _ in pairs], [float(y) for _, y in pairs]


def _finite(value: Any) -> bool:
    """Whether a value is a number that can be plotted; axes of larger ones would overflow."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
