"""The wheel holds all that a user needs, and works in an empty folder."""

import email
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.subprocesses import ROOT, environment

CONFIGS = {path.name for path in (ROOT / "configs").glob("*.py")}


def build(kind: str, folder: pathlib.Path) -> pathlib.Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install -e '.[dev]'")
    words = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The unpacked wheel, beside a module that stands in for TensorFlow Datasets and cannot be imported."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "tensorflow_datasets.py").write_text("raise ImportError('not installed')\n")
    return folder


def run(unpacked: pathlib.Path, folder: pathlib.Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(PYTHONPATH=str(unpacked)),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_everything(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        texts = {n: archive.read(n).decode() for n in names if n.endswith(("METADATA", "entry_points.txt"))}
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "jaxdog" in tops
    package = {name.removeprefix("jaxdog/") for name in names if name.startswith("jaxdog/")}
    assert {f"configs/{name}" for name in CONFIGS} == {
        name for name in package if name.startswith("configs/")
    }
    own = {str(path.relative_to(ROOT / "jaxdog")) for path in (ROOT / "jaxdog").rglob("*") if path.is_file()}
    own = {name for name in own if "__pycache__" not in name and not name.startswith("configs/")}
    assert own == {name for name in package if not name.startswith("configs/")}
    assert "py.typed" in own and any(name.endswith(".j2") for name in own)
    metadata = next(email.message_from_string(text) for name, text in texts.items() if "METADATA" in name)
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert required and not [line for line in required if line.startswith("tensorflow")]
    assert any(url.startswith("Homepage, https://") for url in metadata.get_all("Project-URL", []))
    scripts = next(text for name, text in texts.items() if name.endswith("entry_points.txt"))
    assert "jaxdog = jaxdog.main:run" in scripts and "jaxdog-score = jaxdog.cli.entry:run_score" in scripts


@pytest.mark.long
def test_a_wheel_can_be_built_from_the_source_archive(tmp_path: pathlib.Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"configs/{name}" for name in CONFIGS} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "jaxdog/main.py", "jaxdog/py.typed"} <= names
    assert not [name for name in names if name.startswith(("experiments/", "runs/"))]


def test_configs_are_found_in_an_empty_folder(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = "import jaxdog; from jaxdog.config import library, places; print(jaxdog.__file__, places.folder())"
    code += "; print(*library.names()); print(library.load('vae_lsgan:test').name)"
    places, names, loaded = run(unpacked, tmp_path, "-c", code).splitlines()
    assert places.split() == [str(unpacked / "jaxdog" / "__init__.py"), str(unpacked / "jaxdog" / "configs")]
    assert {f"{name}.py" for name in names.split()} == CONFIGS and loaded == "vae_lsgan_test"
    assert "drawn dogs" in run(unpacked, tmp_path, "-m", "jaxdog.main", "configs")


@pytest.mark.long
def test_train_toy_in_an_empty_folder(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Without TensorFlow Datasets, and without anything of the repository."""
    run(unpacked, tmp_path, "-m", "jaxdog.main", "train", "toy:test")
    assert {"images.zip", "report.html", "config.json"} <= {
        p.name for p in (tmp_path / "runs/toy_test").iterdir()
    }
