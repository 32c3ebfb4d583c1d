"""The images at the end of a run: files that the report shows."""

import jax
import numpy as np
import PIL.Image

from jaxdog.render import media
from jaxdog.report import report
from jaxdog.training import writers
from jaxdog.utils import plots
from tests.render import fakes

NAMES = tuple(f"class {i}" for i in range(12))


def test_the_files_of_a_run(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 20, 8, 8, 3), dtype=np.uint8)
    with writers.Writer(tmp_path) as writer:
        for i, step in enumerate((10, 20, 30)):
            writer.image("grid", step, plots.grid(images[i], 10))
    media.write(tmp_path, fakes.z_system(), {}, NAMES, jax.random.key(0), exclude_classes=(0, 1, 2, 3))
    written = {path.name: path for path in (tmp_path / report.MEDIA).iterdir()}
    assert set(written) == set(report.MEDIA_SECTIONS) - {report.NEAREST}
    with PIL.Image.open(written[report.INTERPOLATION]) as image:
        assert image.n_frames == media.FRAMES and image.size == (8 * media.TILES, 8)
    with PIL.Image.open(written[report.TIMELAPSE]) as image:
        assert image.n_frames == 3 and image.size == (80, 16)
    with PIL.Image.open(written[report.CLASSES]) as image:
        assert image.size[1] == 48 * 8
    page = report.write(tmp_path).read_text()
    for name in written:
        assert f"<h2>{report.MEDIA_SECTIONS[name][0]}</h2>" in page
    assert page.count("data:image/gif") == 2 and len(page) < 300_000


def test_other_systems_have_fewer(tmp_path):
    media.write(tmp_path, fakes.without_latents(), {}, NAMES[:1], jax.random.key(0))
    assert [path.name for path in (tmp_path / report.MEDIA).iterdir()] == [report.CLASSES]


def test_the_state_is_prepared(tmp_path):
    """A system with standing statistics: `prepare` adds the brightness that sampling needs."""
    system = fakes.without_latents()
    bright = system._replace(
        prepare=lambda state, key: {"bright": 0.5},
        sample=lambda state, key, label: system.sample(state, key, label) + state["bright"],
    )
    media.write(tmp_path, bright, {}, NAMES[:1], jax.random.key(0))
    with PIL.Image.open(tmp_path / report.MEDIA / report.CLASSES) as image:
        assert np.asarray(image)[0, -1].tolist() == [191] * 3
