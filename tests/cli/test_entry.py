"""Commands: help, examples and mistakes; both forms of the command line do the same."""

import errno
import io
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from configs import toy
from jaxdog import commands
from jaxdog.cli import entry, options
from jaxdog.config import build, library, places, saved
from jaxdog.utils import errors

# Runs `--help` of every command, and prints whether JAX was imported, and the CPU time until then.
HELP = """
import contextlib, io, sys, time
from jaxdog.cli import entry
first = None
for name in ("", *entry.BY_NAME):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            entry.main([*filter(None, [name]), "--help"])
        except SystemExit as stop:
            assert stop.code == 0
    first = first or time.process_time()
print("jax" in sys.modules, first)
"""


def output(words: list[str], capsys: pytest.CaptureFixture, code: int) -> str:
    with pytest.raises(SystemExit) as stop:
        entry.main(words)
    assert stop.value.code == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_help_is_fast() -> None:
    """No command's help imports JAX; the fastest of three tries takes less than half a second."""
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        jax_imported, first = done.stdout.split()
        assert jax_imported == "False"
        seconds.append(float(first))
        if seconds[-1] < 0.5:
            return
    pytest.fail(f"jaxdog --help takes {min(seconds):.2f} s of CPU time")


def test_help_lists_all_commands(capsys: pytest.CaptureFixture) -> None:
    for words in ([], ["-h"], ["--help"]):
        text = output(words, capsys, 0)
        for command in entry.COMMANDS:
            assert re.search(rf"^    {command.name}\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(entry.BY_NAME))
def test_examples_are_shown_and_understood(name: str, capsys: pytest.CaptureFixture) -> None:
    text = output([name, "--help"], capsys, 0)
    examples = re.findall(r"^  jaxdog (.*)$", text.partition("\nexamples:\n")[2], re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(re.sub(r" {2,}.*| > .*", "", example))
        overrides, words = options.split_overrides(words)
        assert words[0] == name
        args = entry.tree(name).parse_args(options.with_hyphens(words))
        config = getattr(args, "config", None) or "toy"
        if not config.startswith("my_"):
            library.load(config, overrides=overrides)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "'trian' is not a command; similar: train. Commands: train, sample"),
        (["train"], "which experiment? Give a config"),
        (["train", "biggn"], "no config is called 'biggn'; similar: biggan"),
        (["train", "nowhere.py"], "nowhere.py does not exist"),
        (["train", "toy", "--data", "nowhere"], "nowhere does not exist; it should be a folder of photos"),
        (["train", "progan", "--resolution=96"], "choices of progan, which grows from 4 px: 8, 16, 32"),
        (["train", "toy", "--config.train.stepz=3"], "config.train.stepz is not a field of config.train"),
        (
            ["train", "toy", "--config.train.steps=many"],
            "config.train.steps is 'many' (str), and must be of type int",
        ),
        (["train", "toy", "--resolutoin=64"], "'--resolutoin' is not an option; similar: --resolution"),
        (["train", "toy", "--resolution=64x96"], "'64x96' is two numbers, and generated images are square"),
        (
            ["train", "toy", "--steps=10"],
            "'--steps' is not an option; a field of the config is set",
        ),
        (["train", "toy", "--num-processes=0"], "must be at least 1"),
        (["evaluate"], "the following arguments are required: RUN"),
        (["evaluate", "nowhere"], "nowhere is not the folder of a run"),
        (["report", "x", "--config.train.steps=3"], "jaxdog report takes no config"),
        (["score", "a"], "give two sets of images"),
        (["score", "a", "b", "--fake=c"], "give two sets of images"),
        (["score", "a", "b", "--metric=fido"], "'fido' is not a metric; choices: fid, mifid, isc"),
        (["configs", "nothing"], "no config is called 'nothing'"),
        (["sample", "x", "--out=x.jpg"], "it must end in .png or .zip, or be a folder"),
        (["interpolate", "x", "--seeds=a"], "neither an integer nor a range like 3-6"),
        (["interpolate", "x", "--out=x.avi"], "it must end in .gif, .webp, .mp4"),
        (["project", "x", "nowhere.png"], "nowhere.png does not exist"),
        (["--mode=evaluate"], "--workdir is missing: mode evaluate works on the folder of a run"),
        (["--mode=train"], "--config is missing"),
        (["--workdir=x", "--mode=evaluate", "--config.train.steps=3"], "--config is missing"),
        (["--config=toy", "--mode=fly"], "invalid choice: 'fly' (choose from 'train', 'evaluate', 'sample'"),
        (["--config=toy", "extra"], "'extra' is not a flag; write --flag=value"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_paragraph(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = output(words, capsys, 1)
    assert message in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 31525501544 bytes.\nMore"),
            1,
            r"too little memory \(Out of memory allocating 31525501544 bytes\). Training: set a smaller",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device. Free some space"),
        (
            OSError(errno.ELOOP, "Too many levels", "a/b"),
            1,
            r"Too many levels \(a/b\). A file, or a symbolic",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 1, "denied .* make this one writable"),
        (errors.WriteError("a could not be written"), 1, "a could not be written"),
        (
            OSError(errno.ESTALE, "Stale file handle"),
            1,
            "Stale file handle. The disk or the network connection",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), 1, r"No such file \(a/b\)\."),
        (
            MemoryError("Unable to allocate 20 GiB"),
            1,
            r"too little memory: .* \(Unable to allocate 20 GiB\)\.",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_of_the_system_are_one_paragraph(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(commands, "run_mode", fail)
    with pytest.raises(SystemExit) as stop:
        entry.main(["report", "runs/x"])
    shown = capsys.readouterr().err
    assert stop.value.code == code and len(shown.strip().splitlines()) == 1
    assert re.match(f"\njaxdog: .*{message}", shown)


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("of a library, not of the system")

    monkeypatch.setattr(commands, "run_mode", fail)
    with pytest.raises(OSError, match="of a library"):
        entry.main(["report", "runs/x"])


def test_what_the_output_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a terminal with Latin-1: results are not lost for the name of a file."""
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1"))
    monkeypatch.setattr(commands, "run_mode", lambda *_: print("caf\udce9 \u2603 \u00e9", flush=True))
    entry.main(["report", "runs/x"])
    assert shown.getvalue() == b"caf\\udce9 \\u2603 \xe9\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The calls of `commands.run_mode`, with all of their arguments."""
    seen: list[tuple] = []

    def run_mode(mode: str, config: Any, workdir: Any, **more: Any) -> None:
        defaults = {"dry_run": False, "num_samples": 100, "settings": commands.filters.Settings(), "port": 0}
        seen.append((mode, None if config is None else config.to_dict(), workdir, {**defaults, **more}))

    monkeypatch.setattr(commands, "run_mode", run_mode)
    return seen


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("train toy:test", "--config toy:test"),
        ("train toy:test --workdir w --config.seed=7", "--config=toy:test --workdir=w --config.seed=7"),
        ("train --config.seed 7 toy:test --dry-run", "-config toy:test --config.seed 7 --dry_run"),
        ("train toy:test --config.parallel.fsdp", "--config toy:test --config.parallel.fsdp --nodry_run"),
        ("evaluate w", "--mode evaluate --workdir w"),
        ("submit w", "--mode submit --workdir w --dry_run=false"),
        ("report w", "--mode report --workdir w"),
        ("find-batch-size toy:test", "--config toy:test --mode find_batch_size"),
        (
            "clean toy:test --workdir w --min_side 9 --duplicates=false",
            "--config toy:test --mode clean --workdir w --clean.min_side 9 --clean.duplicates=false",
        ),
        ("label toy:test --port 80", "--config toy:test --mode label --port 80"),
    ],
)
def test_flags_alone_do_the_same(words: str, flags: str, calls: list[tuple]) -> None:
    entry.main(words.split())
    entry.main(flags.split())
    assert calls[0] == calls[1]


def test_the_file_of_a_config_may_be_given_by_path(calls: list[tuple]) -> None:
    path = str(places.folder() / "toy.py")
    entry.main(["train", f"{path}:test"])
    entry.main(["--config", f"{path}:test", "--mode=sample", "--num_samples=9", "--workdir=w"])
    assert calls[0][1] == {**toy.get_config("test").to_dict(), "name": "toy_test"}
    assert calls[1][0] == "sample" and calls[1][3]["num_samples"] == 9


def test_a_run_is_evaluated_with_overrides(calls: list[tuple], tmp_path: pathlib.Path) -> None:
    saved.write(tmp_path, build.check(toy.get_config("test")))
    entry.main(["evaluate", str(tmp_path), "--config.submit.images=5"])
    entry.main(["clean", str(tmp_path), "--config.data.workers=2"])
    (_, evaluated, *_), (mode, cleaned, workdir, _) = calls
    assert evaluated["submit"]["images"] == 5
    assert (mode, workdir, cleaned["data"]["workers"]) == ("clean", str(tmp_path), 2)


def test_train_on_a_folder(calls: list[tuple], tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "cats"
    folder.mkdir()
    entry.main(["train", "sngan", "--data", str(folder), "--resolution=32", "--config.data.workers=2"])
    config = calls[0][1]
    data = {"source": "folder", "path": str(folder), "classes": 0, "workers": 2, "stored_resolution": 64}
    assert data.items() <= config["data"].items()
    assert config["system"]["resolution"] == 32 and config["name"] == "sngan_cats"


def test_several_hosts(calls: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(commands, "init_distributed", lambda *given: seen.append(given))
    hosts = "--coordinator host:1 --num_processes 2 --process_id 1".split()
    entry.main(["train", "toy:test", *hosts])
    entry.main(["--config", "toy:test", *hosts])
    entry.main(["evaluate", "w", *hosts])
    assert seen == 3 * [("host:1", 2, 1)] and len(calls) == 3


def test_configs(capsys: pytest.CaptureFixture) -> None:
    entry.main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(library.names())
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    entry.main(["configs", "toy"])
    assert "def get_config(" in capsys.readouterr().out


def test_a_network_that_cannot_have_a_size_is_found_before_photos_are_read(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    words = ["train", "biggan", "--data", str(tmp_path), "--workdir", str(run), "--resolution=160"]
    assert "BigGAN at 160x160 is unknown; sizes: 32, 64, 96, 128, 256" in output(words, capsys, 1)
    assert not run.exists()


def test_attention_moves_with_the_resolution(calls: list[tuple], tmp_path: pathlib.Path) -> None:
    entry.main(["train", "biggan", "--data", str(tmp_path), "--resolution=128"])
    assert calls[0][1]["generator"]["attention"] == (64,)
