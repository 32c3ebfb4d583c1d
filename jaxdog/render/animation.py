"""Writes frames as an animation: GIF and WebP with Pillow, MP4 with imageio-ffmpeg (extra `video`)."""

import os
import pathlib
import subprocess
from collections.abc import Callable
from typing import Literal

import numpy as np
import PIL.Image

from jaxdog.utils import errors, files, integers, optional

MIN_FPS = 0.1  # a GIF stores at most 655 s per frame, and equal frames as one
MAX_GIF_FPS = 50  # browsers slow down frames that are shorter than 1/50 s
PALETTE_PIXELS = 2**20  # at most, evenly spaced, from which a GIF's palette is made
FFMPEG = ("imageio_ffmpeg", "an MP4 file")
CRF = 16  # constant rate factor of H.264; 0 is lossless, 18 is close to it
RESAMPLING = {"nearest": PIL.Image.Resampling.NEAREST, "lanczos": PIL.Image.Resampling.LANCZOS}


def write(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    fps: float = 24.0,
    upscale: int = 1,
    resample: Literal["nearest", "lanczos"] = "nearest",
) -> pathlib.Path:
    """Writes an animation, which repeats forever as GIF or WebP, and returns its path.

    The suffix selects the format. A GIF has one palette of 256 colors for all frames. An MP4 is H.264, with a
    row or column repeated where the height or width is odd. Consecutive frames that are equal may be stored
    once, with a longer duration. The write is atomic: if it fails, an existing file is unchanged.

    Args:
      path: a .gif, .webp or .mp4 file; missing folders are created.
      frames: [n, h, w, 3] uint8.
      fps: frames per second, at least 0.1; a GIF at most 50.
      upscale: integer factor by which each frame is enlarged.
      resample: "nearest" repeats pixels, "lanczos" smooths.

    Raises:
      UserError: an unknown suffix, frames of another shape or type, a value out of range, or ffmpeg failed.
      MissingExtraError: an MP4 without imageio-ffmpeg.
    """
    path = pathlib.Path(path)
    check(path, fps)
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise errors.UserError(
            f"frames must be [n, h, w, 3] uint8 with n at least 1, got {list(frames.shape)} {frames.dtype}"
        )
    frames = enlarge(frames, upscale, resample)
    with files.atomic_path(path) as temporary:
        WRITERS[path.suffix.lower()](temporary, frames, fps)
    return path


def check(path: pathlib.Path, fps: float) -> None:
    """Raises the errors of `write` that do not depend on the frames."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise errors.UserError(f"{path.name}: an animation's suffix must be one of {', '.join(WRITERS)}")
    if not MIN_FPS <= fps < float("inf"):
        raise errors.UserError(f"fps is {fps:g}, and must be at least {MIN_FPS}")
    if suffix == ".gif" and fps > MAX_GIF_FPS:
        raise errors.UserError(
            f"fps is {fps:g}, and at most {MAX_GIF_FPS} for a GIF; a .webp or .mp4 file may have more"
        )
    if suffix == ".mp4":
        optional.load(*FFMPEG)


def enlarge(frames: np.ndarray, factor: int, resample: str = "nearest") -> np.ndarray:
    """Images [n, h, w, 3] uint8 -> [n, factor * h, factor * w, 3] uint8."""
    integers.check(factor, "upscale", 1)
    if resample not in RESAMPLING:
        raise errors.UserError(f"resample is {resample!r}; choices: {', '.join(map(repr, RESAMPLING))}")
    if factor == 1:
        return frames
    if resample == "nearest":
        return frames.repeat(factor, axis=1).repeat(factor, axis=2)
    h, w = frames.shape[1] * factor, frames.shape[2] * factor
    images = [PIL.Image.fromarray(frame).resize((w, h), RESAMPLING[resample]) for frame in frames]
    return np.stack([np.asarray(image) for image in images])


def durations(n: int, fps: float, unit: float) -> list[int]:
    """How long each of n frames is shown, in multiples of `unit` seconds, without accumulating rounding."""
    times = np.rint(np.arange(n + 1) / (fps * unit)).astype(int)
    return [int(x) for x in np.diff(times)]


def _write_gif(path: pathlib.Path, frames: np.ndarray, fps: float) -> None:
    palette = _palette(frames)
    images = [PIL.Image.fromarray(x).quantize(palette=palette, dither=PIL.Image.Dither.NONE) for x in frames]
    shown = [10 * x for x in durations(len(frames), fps, 0.01)]  # ms; a GIF counts in 10 ms
    images[0].save(
        path, "GIF", save_all=True, append_images=images[1:], duration=shown, loop=0, optimize=False
    )


def _palette(frames: np.ndarray) -> PIL.Image.Image:
    """An image whose palette suits all frames: by median cut or an octree, whichever is closer."""
    pixels = frames.reshape(-1, 3)
    pixels = pixels[None, :: -(-len(pixels) // PALETTE_PIXELS)]
    methods = PIL.Image.Quantize.MEDIANCUT, PIL.Image.Quantize.FASTOCTREE
    candidates = [PIL.Image.fromarray(pixels).quantize(256, method) for method in methods]

    def error(candidate: PIL.Image.Image) -> float:
        return float(np.square(np.asarray(candidate.convert("RGB"), np.float32) - pixels).mean())

    return min(candidates, key=error)


def _write_webp(path: pathlib.Path, frames: np.ndarray, fps: float) -> None:
    images = [PIL.Image.fromarray(frame) for frame in frames]
    shown = durations(len(frames), fps, 0.001)
    images[0].save(
        path, "WEBP", save_all=True, append_images=images[1:], duration=shown, loop=0, quality=90, method=4
    )


def _write_mp4(path: pathlib.Path, frames: np.ndarray, fps: float) -> None:
    exe = optional.load(*FFMPEG).get_ffmpeg_exe()
    _, h, w, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")  # H.264 halves the colors
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", "-"]
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(CRF), "-movflags", "+faststart"]
    command = [exe, "-y", "-loglevel", "error", *source, *target, "-f", "mp4", str(path)]
    # Not by imageio_ffmpeg.write_frames, whose fork can hang in a process with threads, which JAX starts.
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="backslashreplace").split())[-1000:]
        raise errors.UserError(f"ffmpeg could not write the MP4 file (code {done.returncode}): {reason}")


WRITERS: dict[str, Callable[[pathlib.Path, np.ndarray, float], None]] = {
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".mp4": _write_mp4,
}
