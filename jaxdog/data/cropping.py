"""Photo and boxes -> square uint8 crops: the recipes, and the small steps they are made of.

A recipe is `(photo uint8 [h, w, 3], boxes, *, size, ...) -> list of uint8 [size, size, 3]`. Boxes are
(xmin, ymin, xmax, ymax) in pixels, xmax and ymax outside; no box at all means the whole photo. Every
keyword is a plain value, so a recipe with its settings has a name (`key`) to cache under.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]

VERSION = 1  # grows when a recipe's pixels change: caches made before are then not used any more

_PILLOW = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
RESAMPLERS = (*_PILLOW, "area", "tf1-bilinear")
MODES = ("grow", "grow_high", "grow_evenly", "pad", "clip", "center")
PAD_MODES = ("none", "reflect", "black")
WHICH = ("all", "first", "last")


# ------------------------------------------------------------------------------------- recipes


def squash(
    photo: np.ndarray, boxes: Sequence[Box] = (), *, size: int, resampler: str = "lanczos"
) -> list[np.ndarray]:
    """The whole photo, its aspect ratio not kept: the real side of the competition's metric.

    `resampler` "lanczos" is Pillow's (the public demo of the metric), "tf1-bilinear" the other recipe
    that was published for it.
    """
    return [resize(photo, size, size, resampler)]


def short_side_center(
    photo: np.ndarray, boxes: Sequence[Box] = (), *, size: int, resampler: str = "lanczos"
) -> list[np.ndarray]:
    """The whole photo, short side resized to `size`, the middle of the long side cut out."""
    return [fit_center(photo, size, resampler)]


def box_square(
    photo: np.ndarray,
    boxes: Sequence[Box],
    *,
    size: int,
    mode: str = "grow",
    pad_mode: str = "none",
    which: str = "all",
    margin: int | float = 0,
    min_side: int = 1,
    min_aspect: float = 0.0,
    max_aspect: float = float("inf"),
    resampler: str = "lanczos",
) -> list[np.ndarray]:
    """One square crop per box that passes the filters.

    Args:
      photo: uint8 [h, w, 3].
      boxes: in pixels; clipped to the photo first.
      size: side of the crops.
      mode: how a box becomes a square.
        "grow": its short side grows inside the photo, evenly, then on the side that has room left;
          what stays non-square where the photo ends is padded by `pad_mode` or, with "none", squashed;
        "grow_high": the same, but what lacks room on the right or below is not made up for on the other side;
        "grow_evenly": the same, but it grows on both sides only as far as the nearer border allows;
        "pad": a square around the box's centre, which may leave the photo; `pad_mode` fills it;
        "clip": the plain box, squashed;
        "center": short side to `size`, the middle of the long side.
      pad_mode: "reflect" (about the border pixel), "black", or "none".
      which: "all" boxes, the "first" or the "last" one only.
      margin: added on each of the four sides and clipped to the photo: pixels if int, a fraction of
        that axis' side if float.
      min_side: boxes whose short side (before the margin) has fewer pixels are dropped.
      min_aspect, max_aspect: boxes whose h / w is outside these limits are dropped.
      resampler: one of RESAMPLERS.

    Raises:
      ValueError: a mode that is not among the choices.
    """
    _choose("mode", mode, MODES)
    _choose(
        "pad_mode", pad_mode, PAD_MODES if mode in GROWTHS else PAD_MODES[1:] if mode == "pad" else ("none",)
    )
    h, w, _ = photo.shape
    out = []
    for box in select(boxes, h, w, which):
        box = clip(box, h, w)
        bw, bh = box[2] - box[0], box[3] - box[1]
        if min(bw, bh) < max(min_side, 1) or not min_aspect <= bh / bw <= max_aspect:
            continue
        box = clip(add_margin(box, margin), h, w)
        if mode == "center":
            out.append(fit_center(take(photo, box), size, resampler))
            continue
        if mode in GROWTHS:
            box = grow(box, h, w, mode)
        if mode == "pad" or pad_mode != "none":
            box = square(box)
        out.append(resize(take(photo, box, pad_mode), size, size, resampler))
    return out


def corner(
    photo: np.ndarray, boxes: Sequence[Box] = (), *, size: int, resampler: str = "lanczos"
) -> list[np.ndarray]:
    """The top left corner of the whole photo, mirrored: what hirune924's memorizer of 2019 learnt by heart.

    The short side is resized to 73 / 64 of `size` first. A photo whose sides are as 0.74 or further apart
    lies down before that (a tall one is squashed to 400 x 300, a wide one to 300 x 400), so the crop
    passes its end and a strip of 10 / 64 stays black.
    """
    h, w, _ = photo.shape
    side = 73 * size // 64
    if w < h:
        if w / h <= 0.74:
            photo, h, w = resize(photo, 300, 400, resampler), 300, 400
        h, w = int(side / w * h), side
    else:
        if h / w <= 0.74:
            photo, h, w = resize(photo, 400, 300, resampler), 400, 300
        h, w = side, int(side / h * w)
    cut = take(resize(photo, h, w, resampler), (0, 0, size, size), "black")
    return [np.ascontiguousarray(cut[:, ::-1])]


def top_left_square(
    photo: np.ndarray, boxes: Sequence[Box], *, size: int, which: str = "all", resampler: str = "lanczos"
) -> list[np.ndarray]:
    """The square on a box's short side, at its top left: the crop of cdeotte's memorizer of 2019."""
    h, w, _ = photo.shape
    out = []
    for box in select(boxes, h, w, which):
        xmin, ymin, xmax, ymax = clip(box, h, w)
        side = min(xmax - xmin, ymax - ymin)
        if side > 0:
            cut = take(photo, (xmin, ymin, xmin + side, ymin + side))
            out.append(resize(cut, size, size, resampler))
    return out


def upper_middle(
    photo: np.ndarray, boxes: Sequence[Box] = (), *, size: int, resampler: str = "lanczos"
) -> list[np.ndarray]:
    """The whole photo at a width of 100 / 64 of `size`, its square at 18 / 64 from the left and at the top.

    Two thirds of the pictures in cdeotte's supervised net of 2019; below a photo that is too wide the square
    stays black.
    """
    h, w, _ = photo.shape
    wide, left = 100 * size // 64, 18 * size // 64
    photo = resize(photo, max(int(h / (w / wide)), 1), wide, resampler)
    return [np.ascontiguousarray(take(photo, (left, 0, left + size, size), "black"))]


def four_squares(
    photo: np.ndarray, boxes: Sequence[Box], *, size: int, resampler: str = "lanczos"
) -> list[np.ndarray]:
    """Four crops of each dog, as MeisterMorxrc's DCGAN of 2019 saw it.

    The squares on the box's short side at its top left and at its top right; the box with its short side
    grown evenly, as far as the photo reaches, but never to its last row or column, and squashed; and a square
    that hardly looks at the box: the largest about the box's middle inside the photo, and then larger by 0.28
    of the room that is left, away from the border it touches.
    """
    h, w, _ = photo.shape
    out = []
    for box in select(boxes, h, w, "all"):
        xmin, ymin, xmax, ymax = clip(box, h, w)
        short, more = min(xmax - xmin, ymax - ymin), abs((xmax - xmin) - (ymax - ymin)) // 2
        if short <= 0:
            continue
        if xmax - xmin >= ymax - ymin:
            grown = (xmin, max(ymin - more, 0), xmax, min(ymax + more, h - 1))
        else:
            grown = (max(xmin - more, 0), ymin, min(xmax + more, w - 1), ymax)
        squares = (
            (xmin, ymin, xmin + short, ymin + short),
            (xmax - short, ymin, xmax, ymin + short),
            grown,
            _about((xmin + xmax) / 2, (ymin + ymax) / 2, h, w),
        )
        pixels = [take(photo, cut) for cut in squares if cut[0] < cut[2] and cut[1] < cut[3]]
        out += [resize(cut, size, size, resampler) for cut in pixels]
    return out


def _about(x: float, y: float, h: int, w: int) -> Box:
    """The last of `four_squares`, about (x, y)."""
    half = min(w - x, h - y, x, y)
    left, top, right, bottom = x - half, y - half, w - x - half, h - y - half  # the room that is left
    more = int(sorted((left, top, right, bottom))[1] * 0.28)  # the first is that on the side that it touches
    # It grows by `more` on both sides of an axis, or by twice that on the side away from the border.
    moves = {"left": (0, 2, 1, 1), "right": (2, 0, 1, 1), "top": (1, 1, 0, 2), "bottom": (1, 1, 2, 0)}
    touched = next(side for side, gap in zip(moves, (left, right, top, bottom), strict=True) if gap <= 0)
    low_x, high_x, low_y, high_y = (more * times for times in moves[touched])
    corners = (x - half - low_x, y - half - low_y, x + half + high_x, y + half + high_y)
    return (round(corners[0]), round(corners[1]), round(corners[2]), round(corners[3]))


RECIPES: dict[str, Callable[..., list[np.ndarray]]] = {
    "box_square": box_square,
    "corner": corner,
    "four_squares": four_squares,
    "short_side_center": short_side_center,
    "squash": squash,
    "top_left_square": top_left_square,
    "upper_middle": upper_middle,
}


def key(recipe: Callable) -> str:
    """The name of a recipe with all its settings, defaults too, to cache its crops under.

    Args:
      recipe: a function of this kind, or `functools.partial` of one with keyword arguments.
    """
    function, given = recipe, {}
    if isinstance(recipe, functools.partial):
        function, given = recipe.func, recipe.keywords
    settings = {
        name: given.get(name, parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    inside = ",".join(f"{name}={settings[name]!r}" for name in sorted(settings))
    return f"{getattr(function, '__name__', repr(function))}-v{VERSION}({inside})"


# ------------------------------------------------------------------------------------- boxes


def select(boxes: Sequence[Box], h: int, w: int, which: str) -> Sequence[Box]:
    """The boxes that a recipe wants; the whole photo if there is none."""
    _choose("which", which, WHICH)
    boxes = list(boxes) or [(0, 0, w, h)]
    return {"all": boxes, "first": boxes[:1], "last": boxes[-1:]}[which]


def clip(box: Box, h: int, w: int) -> Box:
    """The part of the box that lies in a photo of h x w; empty (xmin == xmax) if none does."""
    xmin, ymin = min(max(box[0], 0), w), min(max(box[1], 0), h)
    return xmin, ymin, max(min(box[2], w), xmin), max(min(box[3], h), ymin)


def add_margin(box: Box, margin: int | float) -> Box:
    """The box with a margin on each side: pixels if int, a fraction of that axis' side if float."""
    xmin, ymin, xmax, ymax = box
    fraction = isinstance(margin, float)
    dx = round(margin * (xmax - xmin)) if fraction else int(margin)
    dy = round(margin * (ymax - ymin)) if fraction else int(margin)
    return xmin - dx, ymin - dy, xmax + dx, ymax + dy


def square(box: Box) -> Box:
    """The square on the box's long side and about its centre; may leave the photo. An odd pixel goes low."""
    xmin, ymin, xmax, ymax = box
    spare = (ymax - ymin) - (xmax - xmin)
    if spare > 0:
        xmin -= spare - spare // 2
        return xmin, ymin, xmin + (ymax - ymin), ymax
    ymin -= -spare - -spare // 2
    return xmin, ymin, xmax, ymin + (xmax - xmin)


def grow(box: Box, h: int, w: int, mode: str = "grow") -> Box:
    """The box with its short side grown towards the long one, as far as a photo of h x w allows.

    Both ends grow by half; what one end lacks because the photo ends there, the other takes over, both of
    them ("grow"), the high one only ("grow_high"), or neither of them ("grow_evenly").
    """
    xmin, ymin, xmax, ymax = box
    along = GROWTHS[mode]
    if xmax - xmin < ymax - ymin:
        xmin, xmax = along(xmin, xmax, ymax - ymin, w)
    else:
        ymin, ymax = along(ymin, ymax, xmax - xmin, h)
    return xmin, ymin, xmax, ymax


def _grow_axis(low: int, high: int, target: int, limit: int) -> tuple[int, int]:
    """[low, high) grown to `target` pixels inside [0, limit), or to all of it."""
    target = min(target, limit)
    low = low - (target - (high - low) + 1) // 2
    low = min(max(low, 0), limit - target)
    return low, low + target


def _grow_high(low: int, high: int, target: int, limit: int) -> tuple[int, int]:
    """Half of what is missing, rounded down, is added at the low end, the rest at the high end."""
    missing = target - (high - low)
    before = min(low, missing // 2)
    return low - before, high + min(limit - high, missing - before)


def _grow_evenly(low: int, high: int, target: int, limit: int) -> tuple[int, int]:
    """As many pixels at both ends; an odd one that is missing stays away."""
    more = min((target - (high - low)) // 2, low, limit - high)
    return low - more, high + more


GROWTHS = {"grow": _grow_axis, "grow_high": _grow_high, "grow_evenly": _grow_evenly}


# ------------------------------------------------------------------------------------- pixels


def take(photo: np.ndarray, box: Box, pad_mode: str = "none") -> np.ndarray:
    """The pixels of the box, uint8 [ymax - ymin, xmax - xmin, 3].

    Pixels outside the photo are black, or mirrored about the border pixel ("reflect"); with "none"
    the box has to lie inside.
    """
    h, w, _ = photo.shape
    xmin, ymin, xmax, ymax = box
    if pad_mode == "none" or (xmin >= 0 and ymin >= 0 and xmax <= w and ymax <= h):
        if clip(box, h, w) != tuple(box):
            raise ValueError(f"box {box} leaves the photo of {w} x {h} (w x h) and pad_mode is 'none'")
        return photo[ymin:ymax, xmin:xmax]
    rows, columns = np.arange(ymin, ymax), np.arange(xmin, xmax)
    if pad_mode == "reflect":
        return photo[_mirror(rows, h)][:, _mirror(columns, w)]
    out = photo[np.clip(rows, 0, h - 1)][:, np.clip(columns, 0, w - 1)]
    out[(rows < 0) | (rows >= h)] = 0
    out[:, (columns < 0) | (columns >= w)] = 0
    return out


def _mirror(i: np.ndarray, n: int) -> np.ndarray:
    """Any integers -> [0, n), mirrored about 0 and n - 1 without repeating them."""
    period = max(2 * (n - 1), 1)
    i = i % period
    return np.minimum(i, period - i) if n > 1 else np.zeros_like(i)


def fit_center(image: np.ndarray, size: int, resampler: str) -> np.ndarray:
    """Short side resized to `size`, the middle `size` of the long side; uint8 [size, size, 3]."""
    image = fit_short(image, size, resampler)
    h, w, _ = image.shape
    top, left = round((h - size) / 2), round((w - size) / 2)
    return image[top : top + size, left : left + size]


def fit_short(image: np.ndarray, size: int, resampler: str) -> np.ndarray:
    """Short side resized to `size`, the long side in proportion, its fraction of a pixel cut off."""
    h, w, _ = image.shape
    short = min(h, w)
    h, w = (size if side == short else int(size * side / short) for side in (h, w))
    return resize(image, h, w, resampler)


def resize(image: np.ndarray, h: int, w: int, resampler: str) -> np.ndarray:
    """uint8 [_, _, 3] -> uint8 [h, w, 3].

    "box", "bilinear", "bicubic", "lanczos" are Pillow's (antialiased when shrinking). "area" weights
    each pixel by the area it shares with the output pixel. "tf1-bilinear" is TensorFlow 1's kernel:
    pixel i reads at i * in / out, two neighbours, no antialias. The last two are computed in float32
    and rounded to the nearest integer (ties to even).
    """
    _choose("resampler", resampler, RESAMPLERS)
    if resampler in _PILLOW:
        if image.shape[:2] == (h, w):
            return np.ascontiguousarray(image)
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((w, h), _PILLOW[resampler]))
    exact = _tf1_bilinear(image, h, w) if resampler == "tf1-bilinear" else _area(image, h, w)
    return np.rint(exact).astype(np.uint8)


def _tf1_bilinear(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """TensorFlow 1's ResizeBilinear, align_corners and half_pixel_centers off; float32 [h, w, 3]."""
    top, bottom, y = _legacy_taps(image.shape[0], h)
    left, right, x = _legacy_taps(image.shape[1], w)
    pixels, x, y = image.astype(np.float32), x[None, :, None], y[:, None, None]
    rows = pixels[:, left] + (pixels[:, right] - pixels[:, left]) * x
    return rows[top] + (rows[bottom] - rows[top]) * y


def _legacy_taps(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For m outputs over n inputs: lower index, upper index, weight of the upper one."""
    source = np.arange(m, dtype=np.float32) * np.float32(n / m)
    low = source.astype(np.int64)
    return low, np.minimum(low + 1, n - 1), source - low.astype(np.float32)


def _area(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """The mean of the image over each output pixel's area; float32 [h, w, 3]."""
    rows, columns = _overlap(image.shape[0], h), _overlap(image.shape[1], w)
    return np.einsum("hH,HWc,wW->hwc", rows, image.astype(np.float32), columns, optimize=True)


def _overlap(n: int, m: int) -> np.ndarray:
    """[m, n] share of output pixel i that input pixel j covers; rows sum to 1."""
    low, edge = np.arange(m) * (n / m), np.arange(n)
    shared = np.minimum((low + n / m)[:, None], edge[None, :] + 1) - np.maximum(low[:, None], edge[None, :])
    return (np.maximum(shared, 0) * (m / n)).astype(np.float32)


def _choose(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it can be {', '.join(map(repr, choices))}")
