"""Drawn dogs for demos and tests: ten breeds that differ in coat, ears and build, with labels and boxes.

Any number of photos, about 3 ms each; deterministic for one version of Pillow.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from jaxdog.data import photos
from jaxdog.utils import errors

VERSION = 1  # part of the source's key; increment when the drawings change
SCALE = 3  # supersampling factor, for smooth edges
TWO_DOGS = 0.15  # probability of two dogs in a photo

Color = tuple[int, int, int]
INK: Color = (28, 24, 26)
ROSE: Color = (232, 120, 130)


class Breed(NamedTuple):
    """How a breed is drawn; lengths are relative to the height of the trunk."""

    name: str
    coat: Color
    pale: Color  # muzzle, chest, feet
    ear: str  # "floppy", "pointed", "round"
    ear_color: Color
    mark: str  # "plain", "spots", "saddle", "mask", "curls"
    mark_color: Color
    trunk: float  # length
    leg: float
    head: float  # radius
    muzzle: float  # length
    tail: str  # "up", "curl", "stub"


# fmt: off
BREEDS = (
    Breed("beagle", (196, 132, 72), (250, 244, 232),
          "floppy", (150, 88, 40), "saddle", (48, 42, 42), 1.5, 0.8, 0.52, 0.55, "up"),
    Breed("corgi", (226, 146, 66), (255, 248, 236),
          "pointed", (214, 128, 52), "plain", INK, 1.9, 0.45, 0.58, 0.5, "stub"),
    Breed("dachshund", (122, 68, 38), (160, 98, 56),
          "floppy", (88, 46, 26), "plain", INK, 2.5, 0.4, 0.48, 0.75, "up"),
    Breed("dalmatian", (248, 248, 246), (255, 255, 255),
          "floppy", (44, 42, 46), "spots", (40, 38, 42), 1.6, 1.15, 0.5, 0.6, "up"),
    Breed("husky", (112, 120, 136), (250, 250, 252),
          "pointed", (84, 92, 108), "mask", INK, 1.55, 1.0, 0.58, 0.55, "curl"),
    Breed("labrador", (236, 204, 140), (246, 224, 176),
          "floppy", (214, 172, 104), "plain", INK, 1.65, 1.0, 0.56, 0.55, "up"),
    Breed("poodle", (246, 232, 224), (252, 244, 240),
          "round", (236, 214, 206), "curls", (236, 216, 208), 1.3, 1.15, 0.5, 0.6, "stub"),
    Breed("pug", (222, 188, 142), (70, 58, 56),
          "floppy", (62, 52, 52), "plain", INK, 1.3, 0.65, 0.66, 0.3, "curl"),
    Breed("setter", (158, 62, 34), (178, 84, 50),
          "floppy", (132, 46, 24), "plain", INK, 1.75, 1.15, 0.5, 0.7, "up"),
    Breed("terrier", (62, 60, 68), (96, 94, 104),
          "pointed", (50, 48, 56), "plain", INK, 1.4, 0.5, 0.6, 0.65, "up"),
)
# fmt: on


def dogs(n: int = 512, seed: int = 0, sizes: tuple[int, int] = (80, 112)) -> photos.Source:
    """n drawn photos; the breed of photo i is i modulo 10, everything else is a function of (seed, i).

    Args:
      n: number of photos.
      seed: random seed.
      sizes: smallest and largest side; height and width are independent.
    """
    if n < 1 or not 32 <= sizes[0] <= sizes[1]:
        raise errors.UserError(
            f"n is {n} and sizes is {sizes}, and must satisfy n >= 1 and 32 <= sizes[0] <= sizes[1]"
        )
    key = f"toy-v{VERSION}-{n}-{seed}-{sizes[0]}-{sizes[1]}"
    return photos.Source(key, tuple(b.name for b in BREEDS), _Drawings(n, seed, sizes))


class _Drawings(Sequence[photos.Photo]):
    """Photos that are drawn on access."""

    def __init__(self, n: int, seed: int, sizes: tuple[int, int]):
        self._n, self._seed, self._sizes = n, seed, sizes

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index):  # type: ignore[override]
        if not 0 <= index < self._n:
            raise IndexError(f"drawing {index} of {self._n}")
        image, boxes = draw(index % len(BREEDS), (self._seed, index), self._sizes)
        return photos.Photo(
            f"toy_{index:05d}.png", index % len(BREEDS), boxes, functools.partial(np.array, image)
        )


def draw(
    label: int, seed: Sequence[int], sizes: tuple[int, int]
) -> tuple[np.ndarray, tuple[photos.Box, ...]]:
    """One photo uint8 [h, w, 3] with one or two dogs of a breed, and their boxes."""
    rng = np.random.default_rng(seed)
    h, w = (int(side) for side in rng.integers(sizes[0], sizes[1] + 1, 2))
    scene, horizon = _scene(rng, h * SCALE, w * SCALE)
    count = 2 if rng.random() < TWO_DOGS else 1
    bounds = []
    for k in range(count):
        layer = Image.new("RGBA", scene.size, (0, 0, 0, 0))
        middle = 0.5 if count == 1 else 0.28 + 0.44 * k
        _dog(
            layer, rng, BREEDS[label], middle + rng.uniform(-0.05, 0.05), horizon, 1.0 if count == 1 else 0.58
        )
        bounds.append(layer.getbbox())
        scene.alpha_composite(layer)
    image = np.asarray(scene.convert("RGB").resize((w, h), Image.Resampling.BOX))
    boxes = [(x0 // SCALE, y0 // SCALE, -(-x1 // SCALE), -(-y1 // SCALE)) for x0, y0, x1, y1 in bounds]
    return image, tuple(boxes)


# ------------------------------------------------------------------------------------- the scene


def _scene(rng: np.random.Generator, h: int, w: int) -> tuple[Image.Image, float]:
    """A background of w x h pixels, and the height (a fraction of h) at which its ground begins."""
    place = int(rng.integers(4))  # meadow, beach, snow, room
    sky = [(150, 200, 240), (130, 205, 235), (196, 212, 230), (232, 214, 190)][place]
    ground = [(104, 170, 80), (236, 214, 164), (242, 246, 250), (176, 124, 82)][place]
    sky, ground = _tint(rng, sky, 22), _tint(rng, ground, 22)
    horizon = rng.uniform(0.5, 0.68)
    line = int(horizon * h)
    fade = np.linspace(0.86, 1.08, line)[:, None, None] * np.asarray(sky)[None, None, :]
    near = np.linspace(1.0, 0.82, h - line)[:, None, None] * np.asarray(ground)[None, None, :]
    rows = np.clip(np.concatenate([fade, near]), 0, 255).astype(np.uint8)
    scene = Image.fromarray(np.broadcast_to(rows, (h, w, 3)).copy()).convert("RGBA")
    pen = ImageDraw.Draw(scene)
    if place == 3:
        _furniture(pen, rng, w, line)
    else:
        _outdoors(pen, rng, place, w, h, line)
    return scene, horizon


def _furniture(pen: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, line: int) -> None:
    """A window or painting on the wall, and a skirting board."""
    x, y, side = rng.uniform(0, 0.7) * w, rng.uniform(0.05, 0.3) * line, rng.uniform(0.2, 0.4) * w
    pen.rectangle((x, y, x + side, y + 0.8 * side), _tint(rng, (150, 190, 220), 50), (250, 250, 246), w // 50)
    pen.rectangle((0, line - w // 40, w, line), (250, 246, 238))


def _outdoors(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, place: int, w: int, h: int, line: int
) -> None:
    """The sun; trees, sea or hills of snow on the horizon; tufts on the ground."""
    x, y, r = rng.uniform(0.1, 0.9) * w, rng.uniform(0.08, 0.25) * h, 0.06 * w
    pen.ellipse((x - r, y - r, x + r, y + r), (255, 244, 190))
    if place == 1:
        pen.rectangle((0, 0.8 * line, w, line), _tint(rng, (70, 150, 196), 15))
    for _ in range(int(rng.integers(2, 5)) if place != 1 else 0):
        x, r = rng.uniform(0, w), rng.uniform(0.08, 0.22) * w
        color = _tint(rng, (64, 122, 62) if place == 0 else (214, 224, 236), 15)
        pen.ellipse((x - r, line - 1.1 * r, x + r, line + 0.4 * r), color)
    ground = [(84, 148, 64), (222, 198, 146), (226, 234, 242)][place]
    pen.rectangle((0, line, w, line + h // 40), ground)
    for _ in range(12):
        x, y, r = rng.uniform(0, w), rng.uniform(line, h), rng.uniform(0.01, 0.03) * w
        pen.ellipse((x - r, y - 0.3 * r, x + r, y + 0.3 * r), _tint(rng, ground, 10))


# ------------------------------------------------------------------------------------- the dog


class _Pen:
    """Draws in units of the trunk's height, x forward from the dog's center and y up from its feet."""

    def __init__(self, layer: Image.Image, x: float, y: float, unit: float, facing: int):
        self._draw, self._x, self._y, self._unit, self._facing = ImageDraw.Draw(layer), x, y, unit, facing

    def point(self, x: float, y: float) -> tuple[float, float]:
        return self._x + self._facing * x * self._unit, self._y - y * self._unit

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        x, y = self.point(x, y)
        rx, ry = rx * self._unit, ry * self._unit
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), color)

    def shape(self, corners: Sequence[tuple[float, float]], color: Color) -> None:
        self._draw.polygon([self.point(*corner) for corner in corners], color)

    def stroke(self, points: Sequence[tuple[float, float]], width: float, color: Color) -> None:
        """A line with round joints and ends."""
        self._draw.line([self.point(*p) for p in points], color, max(round(width * self._unit), 1))
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, color)


def _dog(
    layer: Image.Image, rng: np.random.Generator, breed: Breed, middle: float, horizon: float, room: float
):
    """Draws one dog on the layer, standing in profile or sitting and facing the viewer."""
    w, h = layer.size
    shift = int(rng.integers(-14, 15))
    breed = breed._replace(coat=_shade(breed.coat, shift), ear_color=_shade(breed.ear_color, shift))
    sits = rng.random() < 0.4
    wide = 2.6 if sits else breed.trunk + breed.head + breed.muzzle + 1.0
    tall = 3.2 if sits else breed.leg + 2.3
    unit = rng.uniform(0.72, 0.95) * min(room * w / wide, 0.9 * h / tall)
    feet = h * min(rng.uniform(horizon + 0.18, 0.98), 0.97)
    feet = max(feet, tall * unit + 0.02 * h)
    pen = _Pen(layer, middle * w, feet, unit, 1 if rng.random() < 0.5 else -1)
    if sits:
        _sitting(pen, rng, breed)
    else:
        _standing(pen, rng, breed)


def _standing(pen: _Pen, rng: np.random.Generator, breed: Breed) -> None:
    """In profile: far legs, tail, trunk, near legs, neck, head."""
    half, leg, far = breed.trunk / 2, breed.leg, _shade(breed.coat, -34)
    stride = rng.uniform(-0.14, 0.14)
    for x, sway, color in ((-half + 0.3, -stride, far), (half - 0.2, stride, far)):
        pen.stroke([(x, leg + 0.3), (x + sway, 0.1)], 0.24, color)
    _tail(pen, rng, breed, -half + 0.05, leg + 0.75)
    pen.oval(-half + 0.45, leg + 0.5, 0.5, 0.5, breed.coat)
    pen.oval(half - 0.45, leg + 0.52, 0.52, 0.52, breed.coat)
    pen.shape(
        [(-half + 0.45, leg), (half - 0.45, leg), (half - 0.45, leg + 1.04), (-half + 0.45, leg + 1.0)],
        breed.coat,
    )
    pen.oval(half - 0.25, leg + 0.36, 0.3, 0.34, breed.pale if breed.mark != "curls" else breed.coat)
    _marks(pen, rng, breed, half, leg)
    for x, sway in ((-half + 0.45, stride), (half - 0.42, -stride)):
        pen.stroke([(x, leg + 0.4), (x + sway, 0.12)], 0.27, breed.coat)
        pen.oval(x + sway + 0.06, 0.1, 0.19, 0.1, breed.pale)
    x, y = half + 0.12 + 0.2 * breed.head, leg + 1.0 + breed.head + rng.uniform(-0.1, 0.15)
    pen.stroke([(half - 0.4, leg + 0.6), (x, y)], 0.56, breed.coat)
    if rng.random() < 0.6:
        collar = _tint(rng, (200, 60, 60), 55)
        pen.stroke([(half - 0.36, leg + 1.2), (half + 0.16, leg + 0.86)], 0.11, collar)
    _profile(pen, rng, breed, x, y)


def _profile(pen: _Pen, rng: np.random.Generator, breed: Breed, x: float, y: float) -> None:
    """A head from the side, looking along +x."""
    r, m = breed.head, breed.muzzle
    if breed.ear == "pointed":
        pen.shape(
            [(x - 0.35 * r, y + 0.5 * r), (x + 0.02 * r, y + 1.75 * r), (x + 0.4 * r, y + 0.7 * r)],
            breed.ear_color,
        )
    pen.oval(x, y, r, r, breed.coat)
    pen.oval(x + 0.55 * r + 0.4 * m, y - 0.28 * r, 0.45 * r + 0.5 * m, 0.42 * r, breed.pale)
    tip = x + r + 0.88 * m
    if rng.random() < 0.5:
        pen.oval(tip - 0.3 * r, y - 0.7 * r, 0.13 * r, 0.3 * r, ROSE)
    pen.stroke([(tip - 0.15 * r, y - 0.5 * r), (x + 0.75 * r, y - 0.48 * r)], 0.06, INK)
    pen.oval(tip, y - 0.12 * r, 0.2 * r, 0.17 * r, INK)
    _eye(pen, x + 0.42 * r, y + 0.22 * r, 0.17 * r)
    if breed.ear == "floppy":
        pen.oval(x - 0.5 * r, y - 0.2 * r, 0.34 * r, 0.78 * r, breed.ear_color)
    elif breed.ear == "round":
        _curls(pen, rng, x - 0.45 * r, y - 0.1 * r, 0.5 * r, 0.7 * r, breed.ear_color)
        _curls(pen, rng, x + 0.05 * r, y + 0.9 * r, 0.6 * r, 0.4 * r, breed.coat)


def _sitting(pen: _Pen, rng: np.random.Generator, breed: Breed) -> None:
    """From the front: haunches, chest, legs, and a large head facing the viewer."""
    dark, r = _shade(breed.coat, -22), 1.25 * breed.head + 0.1
    _tail(pen, rng, breed, -0.6, 0.5)
    for side in (-1, 1):
        pen.oval(0.55 * side, 0.42, 0.42, 0.42, dark)
        pen.oval(0.72 * side, 0.1, 0.3, 0.11, breed.pale)
    pen.oval(0, 0.95, 0.66, 0.95, breed.coat)
    pen.oval(0, 1.02, 0.36, 0.6, breed.pale)
    if breed.mark == "spots":
        _spots(pen, rng, 0, 0.9, 0.5, 0.6, breed.mark_color)
    if breed.mark == "curls":
        _curls(pen, rng, 0, 0.9, 0.55, 0.7, breed.mark_color)
    for side in (-1, 1):
        pen.stroke([(0.24 * side, 0.9), (0.26 * side, 0.12)], 0.28, breed.coat)
        pen.oval(0.27 * side, 0.1, 0.2, 0.11, breed.pale)
    y = 1.75 + 0.5 * r
    if rng.random() < 0.6:
        pen.oval(0, y - 0.82 * r, 0.45, 0.14, _tint(rng, (200, 60, 60), 55))
    _face(pen, rng, breed, rng.uniform(-0.08, 0.08), y, r)


def _face(pen: _Pen, rng: np.random.Generator, breed: Breed, x: float, y: float, r: float) -> None:
    """A head from the front."""
    if breed.ear == "pointed":
        for side in (-1, 1):
            ear = [
                (x + side * 0.2 * r, y + 0.7 * r),
                (x + side * 0.72 * r, y + 1.6 * r),
                (x + side * 0.92 * r, y + 0.3 * r),
            ]
            pen.shape(ear, breed.ear_color)
    pen.oval(x, y, 1.02 * r, 0.94 * r, breed.coat)
    if breed.mark in ("saddle", "mask"):  # a blaze
        pen.oval(x, y + 0.3 * r, 0.2 * r, 0.62 * r, breed.pale)
    if breed.mark == "mask":
        for side in (-1, 1):
            pen.oval(x + 0.45 * side * r, y - 0.15 * r, 0.4 * r, 0.42 * r, breed.pale)
    pen.oval(x, y - 0.34 * r, (0.44 + 0.08 * breed.muzzle) * r, (0.34 + 0.16 * breed.muzzle) * r, breed.pale)
    if rng.random() < 0.6:
        pen.oval(x + 0.03 * r, y - 0.78 * r, 0.14 * r, 0.24 * r, ROSE)
    pen.stroke([(x - 0.22 * r, y - 0.56 * r), (x, y - 0.46 * r), (x + 0.22 * r, y - 0.56 * r)], 0.06, INK)
    pen.oval(x, y - 0.2 * r, 0.2 * r, 0.15 * r, INK)
    for side in (-1, 1):
        _eye(pen, x + 0.4 * side * r, y + 0.18 * r, 0.15 * r)
        if breed.ear == "floppy":
            pen.oval(x + 0.98 * side * r, y - 0.1 * r, 0.28 * r, 0.72 * r, breed.ear_color)
        elif breed.ear == "round":
            _curls(pen, rng, x + 0.98 * side * r, y - 0.15 * r, 0.34 * r, 0.6 * r, breed.ear_color)
    if breed.mark == "spots":
        _spots(pen, rng, x, y + 0.55 * r, 0.5 * r, 0.3 * r, breed.mark_color)
    if breed.mark == "curls":
        _curls(pen, rng, x, y + 0.85 * r, 0.6 * r, 0.34 * r, breed.coat)


def _eye(pen: _Pen, x: float, y: float, r: float) -> None:
    pen.oval(x, y, r, 1.1 * r, INK)
    pen.oval(x + 0.3 * r, y + 0.4 * r, 0.36 * r, 0.36 * r, (255, 255, 255))


def _tail(pen: _Pen, rng: np.random.Generator, breed: Breed, x: float, y: float) -> None:
    lift = rng.uniform(0.0, 0.3)
    if breed.tail == "up":
        pen.stroke(
            [(x + 0.2, y - 0.1), (x - 0.3, y + 0.1 + lift), (x - 0.55, y + 0.5 + lift)], 0.17, breed.coat
        )
    elif breed.tail == "curl":
        pen.oval(x - 0.02, y + 0.42, 0.33, 0.33, breed.coat)
        pen.oval(x + 0.04, y + 0.42, 0.13, 0.13, _shade(breed.coat, -30))
    else:
        pen.oval(x - 0.05, y + 0.12, 0.2, 0.2, breed.coat)


def _marks(pen: _Pen, rng: np.random.Generator, breed: Breed, half: float, leg: float) -> None:
    """Marks on a standing dog's trunk."""
    if breed.mark == "spots":
        _spots(pen, rng, 0, leg + 0.55, half - 0.3, 0.34, breed.mark_color)
    elif breed.mark == "curls":
        _curls(pen, rng, 0, leg + 0.6, half - 0.1, 0.42, breed.mark_color)
    elif breed.mark == "saddle":
        pen.oval(-0.1, leg + 0.78, half - 0.3, 0.3, breed.mark_color)


def _spots(
    pen: _Pen, rng: np.random.Generator, x: float, y: float, rx: float, ry: float, color: Color
) -> None:
    for a, b, r in rng.uniform((-1, -1, 0.05), (1, 1, 0.12), (11, 3)):
        pen.oval(x + a * rx, y + b * ry, r, r, color)


def _curls(
    pen: _Pen, rng: np.random.Generator, x: float, y: float, rx: float, ry: float, color: Color
) -> None:
    for a, b, shift in rng.uniform((-1, -1, -9), (1, 1, 9), (14, 3)):
        pen.oval(x + 0.9 * a * rx, y + 0.9 * b * ry, 0.17, 0.17, _shade(color, int(shift)))


def _shade(color: Sequence[int], shift: int) -> Color:
    r, g, b = (min(max(int(value) + shift, 0), 255) for value in color)
    return r, g, b


def _tint(rng: np.random.Generator, color: Sequence[int], max_shift: int) -> Color:
    """A random color near this one."""
    r, g, b = (
        min(max(int(value + step), 0), 255)
        for value, step in zip(color, rng.integers(-max_shift, max_shift + 1, 3), strict=True)
    )
    return r, g, b
