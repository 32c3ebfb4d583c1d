"""Memorizers and imitations show the photos that they name, cropped and blended as in 2019."""

import numpy as np
import pytest

from jaxdog.data import crop_recipes, photos, select, toy
from jaxdog.memorizers import baselines
from jaxdog.utils import errors


@pytest.fixture(scope="module")
def source() -> photos.Source:
    return toy.dogs(12, 3, (70, 90))


def first(recipe, source: photos.Source, i: int, size: int) -> np.ndarray:
    return recipe(source.photos[i].read(), source.photos[i].boxes, size=size)[0].image


def test_the_sample_is_numpys_of_2019_over_sorted_names():
    names = [f"{i:03d}.jpg" for i in range(20)][::-1]
    np.random.seed(57)  # the legacy generator is the point
    chosen = np.random.choice(np.arange(20), 8, replace=False)
    got = select.draw(names, 8, 57)
    assert [names[i] for i in got] == [sorted(names)[i] for i in chosen]
    assert len(set(got.tolist())) == 8 and got.dtype == np.int32


@pytest.mark.parametrize("name", baselines.MEMORIZERS)
def test_a_memorizer_is_crops_of_the_photos_it_names(source, name):
    recipes = baselines.MEMORIZERS[name]
    got = baselines.memorizer(source, name, 7, size=32)
    assert got.image.shape == (7, 32, 32, 3) and got.image.dtype == np.uint8
    np.testing.assert_array_equal(got.photo, select.draw([p.name for p in source.photos], 7, 57))
    for k, i in enumerate(got.photo):
        np.testing.assert_array_equal(got.image[k], first(recipes[k % len(recipes)], source, i, 32))


def test_two_thirds_of_the_upper_middle_memorizer_are_off_center(source):
    got = baselines.memorizer(source, "upper-middle", 6, size=32)
    centered = [
        np.array_equal(image, first(crop_recipes.short_side_center, source, i, 32))
        for image, i in zip(*got, strict=True)
    ]
    assert centered == [False, False, True] * 2


@pytest.mark.parametrize("name", baselines.IMITATIONS)
def test_an_imitation_is_its_photo_with_a_trace_of_another(source, name):
    got = baselines.imitation(source, name, 8, size=32)
    own = np.stack([first(baselines.IMITATIONS[name], source, i, 32) for i in got.photo]).astype(int)
    assert len(set(got.photo.tolist())) == 8
    assert np.abs(got.image - own).max() <= 1  # 0.001 of 255 is a quarter of a step
    half = baselines.imitation(source, name, 8, size=32, blend_weight=0.5)
    both = (own + own[[-1, *range(7)]]) / 2
    assert np.abs(half.image - both).max() <= 0.5
    np.testing.assert_array_equal(baselines.imitation(source, name, 8, size=32, blend_weight=1.0).image, own)


def test_the_boxes_imitation_is_cut_to_the_first_box(source):
    whole, box = (baselines.imitation(source, name, 8, size=32).image for name in ("whole", "box"))
    assert np.abs(whole.astype(int) - box).mean() > 5


def test_with_fewer_photos_all_are_used_with_a_warning(source, caplog):
    got = baselines.memorizer(source, "corner", 50, size=16)
    assert sorted(got.photo) == list(range(12))
    assert "There are only 12 photos, so 12 are sampled instead of 50" in caplog.text


def test_broken_photos_are_left_out(source, caplog):
    def torn() -> np.ndarray:
        raise photos.BrokenPhotoError("torn")

    listed = [p._replace(read=torn) if i == 5 else p for i, p in enumerate(source.photos)]
    got = baselines.memorizer(source._replace(photos=listed), "corner", 12, size=16)
    whole = baselines.memorizer(source, "corner", 12, size=16)
    np.testing.assert_array_equal(got.photo, whole.photo[whole.photo != 5])
    np.testing.assert_array_equal(got.image, whole.image[whole.photo != 5])
    assert "toy_00005.png: torn" in caplog.text
    with pytest.raises(ValueError, match="none of the 1 photos drawn from toy"):
        baselines.memorizer(source._replace(photos=listed[5:6]), "corner", 1)


def test_a_photo_that_the_system_does_not_let_be_read_is_an_error(source):
    def closed() -> np.ndarray:
        raise PermissionError(13, "Permission denied")

    listed = [p._replace(read=closed) if i == 5 else p for i, p in enumerate(source.photos)]
    with pytest.raises(errors.UserError, match="the photo toy_00005.png cannot be read: Permission denied"):
        baselines.memorizer(source._replace(photos=listed), "corner", 12, size=16)


def test_invalid_arguments_are_errors(source):
    with pytest.raises(ValueError, match="recipe is 'middle'; choices: 'corner', 'top-left', 'upper-middle'"):
        baselines.memorizer(source, "middle")
    with pytest.raises(ValueError, match="recipe is 'corner'; choices: 'whole', 'box'"):
        baselines.imitation(source, "corner")
    with pytest.raises(ValueError, match="blend_weight is 999; a blend needs"):
        baselines.imitation(source, blend_weight=999)
    with pytest.raises(ValueError, match="cannot sample 0 of 12"):
        baselines.memorizer(source, n=0)
    with pytest.raises(ValueError, match="gives 1 images, but a blend needs 2"):
        baselines.imitation(source._replace(photos=[source.photos[0]]), n=1)
