"""Words of the command line: overrides, spelling of options, types of values."""

import argparse

import pytest

from jaxdog.cli import options


def test_overrides_are_split_from_other_words() -> None:
    words = ["train", "--config.a.b=1", "toy", "--config.c", "2", "--workdir", "x", "--config.d", "-1.5"]
    words += ["--noconfig.e", "-config.f=3", "--config.g", "--dry_run", "--config", "file.py"]
    words += ["--noconfig.h", "dogs"]
    overrides, others = options.split_overrides(words)
    expected = ["--config.a.b=1", "--config.c=2", "--config.d=-1.5", "--noconfig.e", "-config.f=3"]
    assert overrides == [*expected, "--config.g", "--noconfig.h"]
    assert others == ["train", "toy", "--workdir", "x", "--dry_run", "--config", "file.py", "dogs"]


def test_options_may_have_underscores() -> None:
    words = ["--num_samples=a_b", "--dry_run", "some_file", "-n"]
    assert options.with_hyphens(words) == ["--num-samples=a_b", "--dry-run", "some_file", "-n"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (options.integer(1), "10_000", 10_000),
        (options.integer(0, 9), "9", 9),
        (options.boolean, "True", True),
        (options.boolean, "0", False),
        (options.words_of, "beagle, pug,", ["beagle", "pug"]),
        (options.seeds_of, "1,5-7", [1, 5, 6, 7]),
    ],
)
def test_values(kind, text, value) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (options.integer(1), "0", "0 is out of range: it must be at least 1"),
        (options.integer(0, 9), "10", "must be from 0 to 9"),
        (options.integer(0), "x", "'x' is not an integer"),
        (options.boolean, "maybe", "'maybe' is neither true nor false"),
        (options.seed, "18446744073709551616", "it must be from 0 to 18446744073709551615"),
        (options.seeds_of, "18446744073709551616", "it must be from 0 to 18446744073709551615"),
        (options.seeds_of, "1,0-9999999999999999999", "is more than 100,000 seeds"),
        (options.seeds_of, "1,b", "'b' in '1,b' is neither an integer nor a range like 3-6"),
    ],
)
def test_wrong_values(kind, text, message) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)
