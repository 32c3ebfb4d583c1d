"""Animations are read back: number, size, durations and pixels of their frames."""

import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from jaxdog.render import animation
from jaxdog.utils import errors, optional


def smooth(n: int, h: int = 20, w: int = 31) -> np.ndarray:
    """Smooth images that move."""
    t, y, x = np.ogrid[0:n, 0:h, 0:w]
    waves = [np.sin(0.2 * x + 0.1 * c * y + 0.3 * t + c) for c in range(3)]
    return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def read(path):
    """Frames and durations in ms."""
    frames, shown = [], []
    with PIL.Image.open(path) as image:
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
            shown.append(image.info["duration"])
        return np.stack(frames), shown, image.info.get("loop")


def root_mean_square(a, b):
    return np.sqrt(np.mean(np.square(a.astype(float) - b)))


@pytest.mark.parametrize(("suffix", "error"), [(".gif", 7.0), (".webp", 7.0)])
def test_frames_come_back(tmp_path, suffix, error):
    frames = smooth(9)
    path = animation.write(tmp_path / "new" / f"a{suffix}", frames, fps=20)
    back, shown, loop = read(path)
    assert back.shape == frames.shape and shown == [50] * 9 and loop == 0
    assert root_mean_square(back, frames) < error
    assert not list(path.parent.glob(".*"))


def test_few_colors_are_exact_in_a_gif(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (100, 3), dtype=np.uint8)
    frames = colors[np.random.default_rng(1).integers(0, 100, (4, 10, 12))]
    np.testing.assert_array_equal(read(animation.write(tmp_path / "a.gif", frames))[0], frames)


def test_durations_do_not_drift(tmp_path):
    shown = read(animation.write(tmp_path / "a.gif", smooth(30), fps=30))[1]
    assert set(shown) == {30, 40} and sum(shown) == 1000
    assert animation.durations(3, 24.0, 0.001) == [42, 41, 42]


def test_frames_are_enlarged(tmp_path):
    frames = smooth(3)
    back = read(animation.write(tmp_path / "a.gif", frames, upscale=3))[0]
    assert back.shape == (3, 60, 93, 3)
    np.testing.assert_array_equal(back[:, 0::3, 0::3], back[:, 2::3, 2::3])
    large = animation.enlarge(frames, 2, "lanczos")
    cells = large.reshape(3, 20, 2, 31, 2, 3).mean((2, 4))
    assert large.shape == (3, 40, 62, 3) and root_mean_square(cells, frames) < 2


def read_mp4(path, h, w):
    """Frames, and what ffmpeg says about the file."""
    exe = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    words = [exe, "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(words, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, h, w, 3), done.stderr.decode()


def test_an_mp4_has_all_frames(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    frames = smooth(12, 33, 47)
    path = animation.write(tmp_path / "a.mp4", frames, fps=24, upscale=2)
    assert path.stat().st_size > 1000 and not list(tmp_path.glob(".*"))
    back, facts = read_mp4(path, 66, 94)
    assert "h264" in facts and "24 fps" in facts and "Duration: 00:00:00.50" in facts
    assert len(back) == 12 and root_mean_square(back, animation.enlarge(frames, 2)) < 8
    back, _ = read_mp4(animation.write(tmp_path / "odd.mp4", frames), 34, 48)
    assert len(back) == 12 and root_mean_square(back[:, :33, :47], frames) < 12


def test_a_failure_of_ffmpeg_is_shown(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", shutil.which("false"))
    with pytest.raises(errors.UserError, match=r"ffmpeg could not write the MP4 file \(code 1\)"):
        animation.write(tmp_path / "a.mp4", smooth(2))
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        optional.MissingExtraError, match=r"an MP4 file needs imageio-ffmpeg.*jaxdog\[video\]"
    ):
        animation.write(tmp_path / "a.mp4", smooth(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "frames", "options", "message"),
    [
        ("a.avi", smooth(2), {}, "a.avi: an animation's suffix must be one of .gif, .webp, .mp4"),
        ("a", smooth(2), {}, "must be one of"),
        ("a.gif", smooth(2).astype(float), {}, r"got \[2, 20, 31, 3\] float64"),
        ("a.gif", smooth(2)[0], {}, r"\[n, h, w, 3\]"),
        ("a.gif", smooth(2)[:0], {}, "n at least 1"),
        ("a.gif", smooth(2), {"fps": 0}, "fps is 0"),
        ("a.gif", smooth(2), {"fps": 0.001}, "fps is 0.001, and must be at least 0.1"),
        ("a.webp", smooth(2), {"fps": 1e-5}, "fps is 1e-05, and must be at least 0.1"),
        ("a.gif", smooth(2), {"fps": 60}, "fps is 60, and at most 50 for a GIF"),
        ("a.gif", smooth(2), {"upscale": 0}, "upscale is 0"),
        ("a.gif", smooth(2), {"upscale": 2, "resample": "box"}, "'box'; choices: 'nearest', 'lanczos'"),
    ],
)
def test_wrong_input_leaves_an_existing_file(tmp_path, name, frames, options, message):
    (tmp_path / name).write_text("before")
    with pytest.raises(errors.UserError, match=message):
        animation.write(tmp_path / name, frames, **options)
    assert (tmp_path / name).read_text() == "before" and len(list(tmp_path.iterdir())) == 1
