"""Configs by name, and configs with overrides."""

import copy
import os
import pathlib

import numpy as np
import pytest

from configs import biggan, toy
from jaxdog.config import build, library
from jaxdog.utils import errors
from tests.subprocesses import ROOT


def test_every_config_of_the_repository_has_a_name_and_a_line() -> None:
    assert library.names() == tuple(sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
    for name in library.names():
        assert library.find(name) == ROOT / "configs" / f"{name}.py"
        assert 20 < len(library.describe(name)) < 120, name


def test_a_copy_of_a_config_is_a_start(tmp_path: pathlib.Path) -> None:
    """`jaxdog configs NAME > my_NAME.py` anywhere, also of one that is derived from another."""
    for name in library.names():
        copy = tmp_path / f"my_{name}.py"
        copy.write_bytes(library.find(name).read_bytes())
        assert library.load(copy, "test") == library.load(name, "test")


def test_describe_does_not_run_the_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_text('"""First line.\n\nMore."""\nraise RuntimeError\n')
    (tmp_path / "b.py").write_text("x = 1\n")
    assert library.describe(tmp_path / "a.py") == "First line."
    assert library.describe(tmp_path / "b.py") == ""


def test_names_and_paths_and_variants() -> None:
    assert library.load("biggan") == biggan.get_config()
    test = toy.get_config("test")
    test.name = "toy_test"  # and runs/toy_test is its work folder
    assert library.load("toy:test") == library.load("toy", "test") == test
    assert library.load(ROOT / "configs" / "toy.py", "test") == test
    assert library.load(f"{ROOT / 'configs' / 'toy.py'}:test") == test


def test_overrides_as_words_and_as_a_dictionary() -> None:
    words = [
        "train.steps=12",
        "--config.parallel.fsdp",
        "config.optimizer.g.learning_rate=1",
        "sample.sweep={}",
    ]
    one = library.load("toy:test", overrides=words)
    assert one.train.steps == 12 and one.parallel.fsdp is True and one.optimizer.g.learning_rate == 1.0
    assert not one.sample.sweep
    other = library.load(
        "toy:test",
        overrides={
            "train.steps": 12,
            "parallel": {"fsdp": True},
            "optimizer.g": {"learning_rate": 1.0},
            "sample.sweep": {},
        },
    )
    assert one == other
    both = library.load("toy", overrides={"train": {"steps": 500}, "train.log_every": 50})
    assert (both.train.steps, both.train.log_every) == (500, 50)
    assert library.load("toy").train.steps == 800


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.stepz=3"],
            "config.train.stepz is not a field of config.train; did you mean steps.",
        ),
        (["stepz=3"], "config.stepz is not a field of config; fields: augment, checkpoint"),
        (["train.steps.x=3"], "config.train.steps.x is not a field of config.train.steps; fields: none"),
        (["train.steps=many"], r"config.train.steps is 'many' \(str\), and must be of type int"),
        (
            ["train.log_every=2", "train.max_hours=soon"],
            "config.train.max_hours is 'soon' .*, and must be of type",
        ),
        (["train.log_every"], "config.train.log_every gets no value; write --config.train.log_every=VALUE"),
        (["augment.flp.p=1"], "config.augment.flp is not a field of config.augment; did you mean flip"),
        (["system.d_regularizers.r1.weight=1"], "config.system.d_regularizers.r1.interval is missing"),
        (["train.steps=3", "4"], "config.4 is not a field"),
        (["train.steps", "4"], "config.4 is not a field"),
        (
            {"train.stepz": 3},
            "config.train.stepz is not a field of config.train; did you mean steps.",
        ),
        ({"train": {"stepz": 3}}, "config.train.stepz"),
        ({"train.steps": "many"}, "config.train.steps is 'many'"),
        ("train.steps=3", "must be a list"),
        (["--noconfig.parallel.fsdp=true"], "has a value, and --noconfig.parallel.fsdp alone means False"),
        (
            {"system.d_regularizers.r1": 1, "system.d_regularizers.r1.weight": 2},
            "config.system.d_regularizers.r1.weight cannot be set, since r1 is set to 1",
        ),
        ({"sample.sweep": 5, "sample.sweep.truncation": (0.5,)}, "since sweep is set to 5"),
        (
            {"sample": {"truncation": 0.5}, "sample.sweep.truncation": (0.5, 1.0)},
            r"config.sample.truncation would have no effect: config.sample.sweep tries \(0.5, 1.0\)",
        ),
    ],
)
def test_wrong_overrides_name_the_fields(overrides, message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        library.load("toy:test", overrides=overrides)


@pytest.mark.parametrize(
    ("words", "section", "value"),
    [
        (["data.select.hold_out.every=10"], "data.select", {"hold_out": {"every": 10}}),
        (
            ["system.d_regularizers.r1.weight=(10, 1)", "system.d_regularizers.r1.interval=4"],
            "system.d_regularizers",
            {"r1": {"weight": (10, 1), "interval": 4}},
        ),
        (["system.diffaugment.translation.ratio=0.2"], "system.diffaugment", {"translation": {"ratio": 0.2}}),
        (["sample.sweep.truncation=(0.5,1.0)"], "sample.sweep", {"truncation": (0.5, 1.0)}),
        (["sample.postprocess.quantize={}"], "sample.postprocess", None),
        (["augment.flip=None"], "augment", {}),
        (["augment={}"], "augment", {}),
        (["augment={}", "augment.flip.p=0.3"], "augment", {"flip": {"p": 0.3}}),
        (["augment.flip=None", "augment.flip.p=0.3"], "augment", {"flip": {"p": 0.3}}),
        (["sample.sweep=None", "sample.sweep.truncation=(0.5,)"], "sample.sweep", {"truncation": (0.5,)}),
        (["system.loss.name=relativistic_average"], "system.loss", None),
        (["eval.final=mifid,isc"], "eval.final", ("mifid", "isc")),
        (["parallel.sync_batch_norm=false"], "parallel.sync_batch_norm", False),
        (["noconfig.parallel.sync_batch_norm"], "parallel.sync_batch_norm", False),
        (["data.path=1"], "data.path", "1"),
        (["train.max_hours=inf"], "train.max_hours", float("inf")),
    ],
)
def test_every_field_can_be_set(words: list[str], section: str, value: object) -> None:
    """Also fields of functions that the config does not have, and sections that lose or change theirs."""
    config = library.load("toy", overrides=words)
    build.check(config)
    found = library._current(config, section)
    found = found.to_dict() if isinstance(found, library.Config) else found
    assert value is None or found == value
    if not words[0].startswith("noconfig"):
        named = {word.partition("=")[0]: library._current(config, word.partition("=")[0]) for word in words}
        plain = {name: x.to_dict() if isinstance(x, library.Config) else x for name, x in named.items()}
        assert library.load("toy", overrides=plain) == config  # as a dictionary


def test_a_sweep_gets_and_loses_rows() -> None:
    config = library.load("toy:test", overrides=["sample.sweep.truncation=(0.5,)"])
    assert config.sample.sweep.to_dict() == {"ema_index": (0, 1), "truncation": (0.5,)}
    config = library.load(
        "toy:test", overrides=["sample.sweep.truncation=(0.5,)", "sample.sweep.ema_index=None"]
    )
    assert config.sample.sweep.to_dict() == {"truncation": (0.5,)}


def test_a_field_that_the_sweep_chooses_is_set_once_it_is_taken_out() -> None:
    swept = library.load("toy:test", overrides={"sample.sweep.truncation": (0.5, 1.0)})
    words = ["sample.truncation=0.7"]
    with pytest.raises(errors.ConfigError, match="config.sample.truncation would have no effect"):
        library.override(swept, words)
    assert library.override(swept, [*words, "sample.sweep.truncation=None"]).sample.truncation == 0.7


def test_overrides_are_left_unchanged() -> None:
    given = {"train": {"steps": 500}, "train.log_every": 50, "optimizer": {"g": {}}, "optimizer.g.b1": 0.1}
    kept = copy.deepcopy(given)
    assert library.load("toy", overrides=given).optimizer.g.b1 == 0.1
    assert given == kept


def test_a_file_with_the_name_of_a_config_does_not_hide_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").write_text("notes")
    assert library.find("toy") == ROOT / "configs" / "toy.py"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file.json", "file.json is not a Python file; .* get_config"),
        ("run", "run is a folder, and a config is .* its folder as --workdir"),
        ("biggn", "no config is called 'biggn'; similar: biggan"),
        ("zzzz", "no config is called 'zzzz'; names: acgan, "),
        ("toy.py", "toy.py does not exist"),
        ("some/toy", "some/toy does not exist"),
        ("toy:fast", "variant is 'fast'"),
        ("toy:tset", "variant is 'tset'; did you mean test"),
    ],
)
def test_unknown_configs(name: str, message: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "run").mkdir()
    with pytest.raises(errors.UserError, match=message):
        library.load(name)


def test_variants_have_names_of_their_own(tmp_path: pathlib.Path) -> None:
    """The variants of a config are other runs, in other folders."""
    text = "from configs import toy\n\ndef get_config({}):\n    return toy.get_config()\n"
    path = tmp_path / "a.py"
    path.write_text(text.format("variant=''"))
    assert [library.load(f"{path}{x}").name for x in ("", ":small", ":toy")] == [
        "toy",
        "toy_small",
        "toy_toy",
    ]
    path.write_text(text.format(""))
    assert library.load(path).name == "toy"
    with pytest.raises(errors.ConfigError, match=r"a.py has no variant 'small': .* Leave out ':small'"):
        library.load(f"{path}:small")


def test_a_file_without_get_config(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(errors.ConfigError, match="it has no function get_config"):
        library.load(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("returned", "what"),
    [("None", "a NoneType"), ("{}", "a dict"), ("ml_collections.ConfigDict()", "a config without a name")],
)
@pytest.mark.parametrize("variant", ["", ":small"])
def test_what_get_config_returns_is_checked(
    returned: str, what: str, variant: str, tmp_path: pathlib.Path
) -> None:
    text = f"import ml_collections\n\ndef get_config(variant='full'):\n    return {returned}\n"
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(
        errors.ConfigError, match=rf"get_config\(\) of .*a.py returned {what}, and must return"
    ):
        library.load(f"{tmp_path}/a.py{variant}")


def test_an_error_in_a_config_keeps_its_traceback(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        library.load(tmp_path / "a.py")


def test_a_folder_of_photos(tmp_path: pathlib.Path) -> None:
    config = library.load("biggan", data=tmp_path, overrides=["data.workers=3"])
    build.check(config)
    assert config.name == f"biggan_{tmp_path.name}"
    assert (config.data.source, config.data.path, config.data.classes) == ("folder", str(tmp_path), 0)
    assert library.load("leaky_biggan", data=tmp_path).data.select.to_dict() == {}  # drops dogs by name
    assert config.data.workers == 3 and config.data.crop == library.load("biggan").data.crop
    (tmp_path / "file").touch()
    with pytest.raises(errors.MissingFileError, match="file is a file; it should be a folder"):
        library.load("biggan", data=tmp_path / "file")


def test_a_folder_whose_name_is_not_utf_8(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    assert library.load("biggan", data=folder).name == r"biggan_caf\udce9"


def test_another_resolution() -> None:
    assert build.check(library.load("biggan", resolution=128)).data.stored_resolution == 128
    assert library.load("biggan", resolution=128).system.latent_dim == 102
    config = library.load("biggan", resolution=32)
    assert config.generator.attention == config.discriminator.attention == (16,)
    config = library.load("sngan", resolution=32)
    assert (config.system.resolution, config.data.stored_resolution) == (32, 64)
    widths = library.load("r3gan", resolution=256).discriminator.widths
    assert (
        widths == (32, 64, 128, 256, 384, 512, 512)
        and widths[1:] == (library.load("r3gan", resolution=128).generator.widths[::-1])
    )
    with pytest.raises(
        errors.UserError, match="the resolution .* is 0, and must be an integer of at least 1"
    ):
        library.load("biggan", resolution=0)


@pytest.mark.parametrize(
    ("name", "resolution", "generator", "discriminator"),
    [
        ("biggan", 128, (64,), (64,)),
        ("biggan", 256, (64,), (64,)),  # as the authors have it for 256 px
        ("sagan", 192, (48,), (48,)),
        ("csagan", 32, (32,), (16,)),
        ("csagan", 256, (64,), (64,)),
        ("flow", 256, (64, 32), ()),
        ("flow", 512, (64,), ()),
    ],
)
def test_attention_stays_small(
    name: str, resolution: int, generator: tuple[int, ...], discriminator: tuple[int, ...]
) -> None:
    """At 256x256, self-attention of one image would have 4 billion weights, 17 GB."""
    config = library.load(name, resolution=resolution)
    heights = [config.get(player, {}).get("attention", ()) for player in ("generator", "discriminator")]
    assert heights == [generator, discriminator]


def test_progressive_systems_get_fewer_or_more_stages() -> None:
    config = library.load("progan", resolution=32)
    assert config.system.resolutions == (4, 8, 16, 32)
    assert config.system.steps == (346 * 5, 346 * 10, 346 * 20, 346 * 100)  # the last stage is the longest
    assert config.ema.decay == (0.9, 0.9, 0.99, 0.99) and config.data.stored_resolution == 64
    config = library.load("stylegan", resolution=256)
    stage = 600_000 // 32
    assert config.system.resolutions == (8, 16, 32, 64, 128, 256)
    assert config.system.steps[:5] == (stage, *[2 * stage] * 4) and config.train.steps == sum(
        config.system.steps
    )
    assert config.system.fade[:5] == (0.0, *[0.5] * 4) and len(config.ema.decay) == 6
    for name, resolution in (("progan", 32), ("stylegan", 256)):
        build.check(library.load(name, resolution=resolution))
    with pytest.raises(
        errors.ConfigError, match="96 px; choices of progan, which grows from 4 px: 8, 16, 32"
    ):
        library.load("progan", resolution=96)
    with pytest.raises(errors.ConfigError, match="8 px; choices of stylegan"):
        library.load("stylegan", resolution=8)


def test_numbers_may_be_those_of_numpy() -> None:
    given = library.load("biggan", resolution=np.int64(128), overrides={"train.steps": np.int32(500)})  # type: ignore
    assert given == library.load("biggan", resolution=128, overrides={"train.steps": 500})
    with pytest.raises(errors.UserError, match="the resolution .* is True, and must be an integer"):
        library.load("biggan", resolution=True)
