"""Non-local means against OpenCV's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog.ops import non_local_means
from tests.ops import test_resample


@pytest.mark.parametrize("sigma", [0, 6])
@pytest.mark.parametrize(("luminance", "color", "template", "search"), [(2.65, 1.0, 7, 11), (8.0, 4.0, 5, 9)])
@pytest.mark.oracle
def test_dogs_equal_opencv(real_data, sigma, luminance, color, template, search):
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    photos = test_resample.dogs(real_data, 4, 64)
    noise = sigma * np.random.default_rng(0).standard_normal(photos.shape)
    photos = np.clip(np.rint(photos + noise), 0, 255).astype(np.uint8)
    strengths = dict(luminance=luminance, color=color, template=template, search=search)
    got = jax.jit(lambda image: non_local_means.non_local_means(image, **strengths))(
        test_resample.image_of(photos)
    )
    want = np.stack(
        [
            cv2.fastNlMeansDenoisingColored(
                np.ascontiguousarray(photo[..., ::-1]), None, luminance, color, template, search
            )[..., ::-1]
            for photo in photos
        ]
    ).astype(int)
    apart = np.abs(test_resample.levels(got) - want)
    assert apart.mean() < 0.01 and apart.max() <= 4
    assert np.abs(photos - want).mean() > 0.5  # OpenCV did something


def test_noise_is_removed_and_edges_stay():
    edge = np.where(np.arange(32) < 16, 40.0, 200.0)[None, None, :, None] * np.ones((1, 32, 1, 3))
    noisy = edge + np.random.default_rng(1).normal(0, 3, (1, 32, 32, 3))
    got = non_local_means.non_local_means(test_resample.image_of(noisy), 8.0, 8.0, 5, 15)
    apart = np.asarray(127.5 * (got + 1)) - edge
    assert apart.std() < 1.2
    assert np.abs(apart[:, :, 14:18]).max() < 6


@pytest.mark.oracle
def test_images_smaller_than_the_windows():
    cv2 = pytest.importorskip("cv2", reason="opencv is an oracle (make oracles)")
    small = np.random.default_rng(2).integers(100, 140, (1, 6, 6, 3), np.uint8)
    want = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(small[0, ..., ::-1]), None, 9, 9, 5, 9)
    got = test_resample.levels(non_local_means.non_local_means(test_resample.image_of(small), 9, 9, 5, 9))
    assert np.abs(got[0] - want[..., ::-1].astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (dict(template=6), "template is 6; it must be odd and positive: 1, 3, 5"),
        (dict(search=0), "search is 0; it must be odd and positive: 1, 3, 5"),
        (dict(luminance=0.0), "luminance is 0.0; it must be positive"),
        (dict(color=-1.0), "color is -1.0; it must be positive"),
    ],
)
def test_errors_name_the_setting(settings, match):
    with pytest.raises(ValueError, match=match):
        non_local_means.non_local_means(
            jnp.zeros((1, 16, 16, 3)), **(dict(luminance=1.0, color=1.0) | settings)
        )
