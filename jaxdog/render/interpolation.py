"""Interpolations between latents: spherical in z, linear in w."""

from typing import Any, Literal

import numpy as np

from jaxdog import types
from jaxdog.render import decoding
from jaxdog.utils import errors

SPACES = ("auto", "z", "w")
_SMALL = 1e-5  # a sine of an angle below this is taken as 0


def interpolate(
    system: types.System,
    state: Any,
    z: np.ndarray,
    label: np.ndarray,
    key: types.Key,
    frames: int = 60,
    loop: bool = True,
    space: Literal["auto", "z", "w"] = "auto",
) -> np.ndarray:
    """Images along a path through keyframes, [frames, h, w, 3] uint8.

    In z the path is `slerp` and the class switches halfway between two keyframes, because class embeddings
    can only be mixed inside a generator. In w (style-based generators) the path is linear and the class
    changes gradually, since w depends on it. All frames have the same noise key: only the latent moves.

    Args:
      system: a system with a latent vector, which does not sample with batch statistics.
      state: its state to sample from, after `prepare`.
      z: [k, latent_dim] float32, the latents of the keyframes.
      label: [k] int32, their classes.
      key: for the noise that the generator adds.
      frames: number of images, evenly spaced along the path.
      loop: the path leads from the last keyframe back to the first, and no frame is repeated, so that it can
        be played in a circle. Otherwise it ends at the last keyframe.
      space: "auto": w if the system has it, else z.

    Raises:
      UserError: the system has no latent vector or no w, shapes do not match, or there is no frame.
    """
    decoding.require_latents(system, "interpolation")
    z, label = np.asarray(z, np.float32), np.asarray(label, np.int32)
    _check(system, z, label, frames, space)
    start, end, t = positions(len(z), frames, loop)
    keys = decoding.repeat_key(key, frames)
    if space == "z" or system.map_latents is None:
        path = slerp(z[start], z[end], t)
        return decoding.decode(system, state, path, label[np.where(t < 0.5, start, end)], keys)
    w = decoding.map_latents(system, state, z, label, decoding.repeat_key(key, len(z)))
    path = w[start] + t[:, None, None].astype(np.float32) * (w[end] - w[start])
    return decoding.synthesize(system, state, path, keys)


def positions(keyframes: int, frames: int, loop: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each frame lies: keyframe before it [n] int, keyframe after it [n] int, fraction [n] in [0, 1).

    A frame at a keyframe has a fraction of exactly 0.
    """
    index = np.arange(frames)
    segments, parts = (keyframes, frames) if loop else (keyframes - 1, max(frames - 1, 1))
    start, rest = np.divmod(index * segments, parts)
    end = (start + 1) % keyframes if loop else np.minimum(start + 1, keyframes - 1)
    return start, end, rest / parts


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Spherical interpolation (Shoemake 1985) of rows: a, b [n, d] and t [n] in [0, 1] -> [n, d] float32.

    The direction moves along the great circle at constant speed, and the norm changes linearly. Norms of
    Gaussian latents are all close to sqrt(d), and so are those in between; on a straight line they would
    shrink. Rows are a at t = 0 and b at t = 1. Between opposite rows some great circle is used, and a zero
    row has the direction of the other.
    """
    a, b, t = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(t, np.float64)[:, None]
    (u, norm_a), (v, norm_b) = _normalize(a), _normalize(b)
    u, v = np.where(norm_a > 0, u, v), np.where(norm_b > 0, v, u)
    angle = 2.0 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))[:, None]
    across = _reject(v, u)
    axis = np.eye(a.shape[1])[np.argmin(np.abs(u), axis=1)]  # far from parallel to u
    across = np.where(np.linalg.norm(across, axis=1, keepdims=True) > _SMALL, across, _reject(axis, u))
    across, _ = _normalize(across)
    direction = np.cos(t * angle) * u + np.sin(t * angle) * across
    between = ((1.0 - t) * norm_a + t * norm_b) * direction
    return np.where(t <= 0.0, a, np.where(t >= 1.0, b, between)).astype(np.float32)


def _normalize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of norm 1, where zero rows stay zero, and the norms [n, 1]."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0), norm


def _reject(rows: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Rows [n, d] without their components along `unit` [n, d]."""
    return rows - np.sum(rows * unit, axis=1, keepdims=True) * unit


def _check(system: types.System, z: np.ndarray, label: np.ndarray, frames: int, space: str) -> None:
    dim = decoding.latent_dim(system)
    if z.ndim != 2 or z.shape[1] != dim or not len(z):
        raise errors.UserError(
            f"latents have shape {list(z.shape)}, and must be [k, {dim}] with k at least 1"
        )
    if label.shape != (len(z),):
        raise errors.UserError(f"{len(z)} latents need {len(z)} classes, got shape {list(label.shape)}")
    if frames < 1:
        raise errors.UserError(f"frames is {frames}, and must be at least 1")
    if space not in SPACES:
        raise errors.UserError(f"space is {space!r}; choices: {', '.join(map(repr, SPACES))}")
    if space == "w" and system.map_latents is None:
        raise errors.UserError("space is 'w', which only style-based generators have; choices: 'auto', 'z'")
