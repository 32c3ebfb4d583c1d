"""Resolutions of feature maps and the widths at each."""

import pytest

from jaxdog.models import resolutions


def test_widths_halve_above_a_height() -> None:
    assert resolutions.widths(512, 64, 32) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}
    assert list(resolutions.widths(512, 64, 64).values()) == [512] * 5
    with pytest.raises(ValueError, match="2 channels are too few for 16x16"):
        resolutions.widths(2, 16, 4)
    with pytest.raises(ValueError, match="size 48 is not among 4, 8, 16"):
        resolutions.widths(512, 48, 32)


def test_the_bottom_is_the_size_halved() -> None:
    assert [resolutions.bottom_width(96, doublings) for doublings in (0, 4, 5)] == [96, 6, 3]
    with pytest.raises(ValueError, match="size 96 is not a multiple of 64, which 6 doublings"):
        resolutions.bottom_width(96, 6)
