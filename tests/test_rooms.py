"""Rules of the code that a machine can check: who imports whom, who may compile, how long things are."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

from tests.subprocesses import ROOT

# A room imports only rooms above it in this list; within a room there are no circles.
ROOMS = (
    "utils",
    "types",
    "sharding",
    "ops",
    "models",
    "losses",
    "augment",
    "optim",
    "metrics",
    "data",
    "systems",
    "memorizers",
    "config",
    "evaluation",
    "training",
    "cleaning",
    "report",
    "render",
    "runs",
    "cost",
    "advice",
    "sampling_sweep",
    "generators",
    "commands",
    "api",
    "cli",
    "main",
    "score",
)
TOP_LEVEL_MODULES = 9  # at most, directly in jaxdog/

# Rooms that compile programs, place arrays on devices and read clocks; `data.host_loader` places arrays, too.
RUNTIME = {"sharding", *ROOMS[ROOMS.index("evaluation") :]}
ONLY_IN_THE_RUNTIME = {"jit", "pmap", "Mesh", "NamedSharding", "device_put", "monotonic", "perf_counter"}
# What only some modules may import, and which.
ONLY_IN = {
    "ml_collections": {"api", "commands", "config.build", "config.library", "config.resolve", "config.saved"},
    "absl": set(),
    "tensorflow": {"data.sources"},
    "tensorflow_datasets": set(),  # by name only, in utils.optional
    "resource": {"utils.memory"},  # Windows lacks these
    "fcntl": set(),
    "torch": set(),
    "sklearn": set(),  # by name only, in utils.optional
    "cv2": set(),
    "grain": set(),
    "configs": set(),
}
# The building blocks that models may import; no model imports another.
SHARED_BY_MODELS = {"attention", "heads", "initializers", "layers", "norms", "resolutions", "spectral_norm"}
FILE_LINES, FUNCTION_LINES = 400, 60


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT / "jaxdog").with_suffix("").parts)


FILES = sorted(path for path in (ROOT / "jaxdog").rglob("*.py") if path.name != "__init__.py")
TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PROGRAMS = FILES + sorted((ROOT / "configs").glob("*.py")) + sorted((ROOT / "experiments").rglob("*.py"))


@functools.cache
def imports(tree: ast.AST) -> list[tuple[str, str]]:
    """All imports in a file, nested ones too, as (module, name); name is "" for `import module`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [("." * node.level + (node.module or ""), alias.name) for alias in node.names]
    return found


def own(tree: ast.AST) -> list[tuple[str, str]]:
    """Imports from the package, as (module inside it, name taken from that module or "")."""
    found = []
    for module, name in imports(tree):
        if module != "jaxdog" and not module.startswith("jaxdog."):
            continue
        inner = module.removeprefix("jaxdog").lstrip(".")
        whole = f"{inner}.{name}".strip(".")
        found.append((whole, "") if whole in TREES else (inner, name))
    return found


def lazy(tree: ast.Module) -> ast.Module:
    """The file without the bodies of its functions: what runs when it is imported."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

    return Strip().visit(ast.parse(ast.unparse(tree)))


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_module_has_a_room():
    assert {room(name) for name in TREES} == set(ROOMS)
    assert sum("." not in name for name in TREES) <= TOP_LEVEL_MODULES


@pytest.mark.parametrize("name", sorted(TREES))
def test_rooms_import_only_earlier_rooms(name):
    for other, _ in own(TREES[name]):
        assert other in TREES, f"{name} imports {other or 'jaxdog'}, which is no module of the package"
        mine, theirs = (ROOMS.index(room(module)) for module in (name, other))
        assert theirs <= mine, f"{name} imports {other}, which comes later in ROOMS"


def test_no_module_imports_itself_through_others():
    """Each module can be sorted before all that import it."""
    below = {name: {other for other, _ in own(tree)} for name, tree in TREES.items()}
    graphlib.TopologicalSorter(below).prepare()  # raises CycleError


@pytest.mark.parametrize("name", sorted(TREES))
def test_modules_are_imported_not_names(name):
    taken = [f"{other}.{what}" for other, what in own(TREES[name]) if what and other != "types"]
    assert not taken, f"{name}: import the module of {taken} and say where a name is from"
    assert not [module for module, _ in imports(TREES[name]) if module.startswith(".")], f"{name}: full names"


def test_models_share_layers_and_heads_only_and_systems_sampling_only():
    for name, tree in TREES.items():
        others = {other for other, _ in own(tree)}
        if name.startswith("models."):
            shared = {f"models.{other}" for other in SHARED_BY_MODELS}
            assert {other for other in others if other.startswith("models.")} <= shared, name
        if name.startswith("systems."):
            shared = {"systems.sampling"}
            if name.startswith("systems.gan"):  # a GAN's parts
                shared |= {other for other in TREES if other.startswith("systems.gan_")}
            assert {other for other in others if other.startswith("systems.")} <= shared, name


@pytest.mark.parametrize(
    "name", sorted(name for name in TREES if room(name) not in RUNTIME and name != "data.host_loader")
)
def test_only_the_runtime_compiles_places_and_measures(name):
    used = {node.attr for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Name)}
    used |= {what for _, what in imports(TREES[name])}
    assert not used & ONLY_IN_THE_RUNTIME, f"{name} only describes computations; rooms that run: {RUNTIME}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_heavy_or_outer_packages_stay_where_they_belong(package):
    users = {
        name
        for name, tree in TREES.items()
        if any(module.split(".")[0] == package for module, _ in imports(tree))
    }
    assert users <= ONLY_IN[package]


def test_tensorflow_is_imported_lazily():
    top = {module.split(".")[0] for tree in TREES.values() for module, _ in imports(lazy(tree))}
    assert not top & {"tensorflow", "tensorflow_datasets"} and "jax" in top


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("name", sorted(TREES))
def test_functions_are_short(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name}.{node.name} has {lines} lines, limit {FUNCTION_LINES}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_unfinished(path):
    text = path.read_text(encoding="utf-8")
    for word in ("NotImplementedError", "TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert word not in text


def test_a_run_begins_without_other_frameworks():
    """torch is loaded by tensorboardX, where it is installed, once there is something to write."""
    others = {"tensorflow", "keras", "torch", "tensorboardX"}
    code = f"import sys, jaxdog.commands; print(sorted({others} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_checks_see_what_they_should():
    """The rules hold on a file that breaks them all."""
    bad = ast.parse("import jax\nfrom jaxdog import runs, nowhere\nfrom jaxdog.data.cropping import square\n")
    assert own(bad) == [("runs", ""), ("", "nowhere"), ("data.cropping", "square")]
    assert imports(
        lazy(ast.parse("import a\ndef f():\n    import b\nclass C:\n    def g(self): import c"))
    ) == [("a", "")]


def test_readme_lists_all_rooms_in_order() -> None:
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2].partition("\n## ")[0]
    lines = [line[4:].partition("  ")[0] for line in layout.splitlines() if line.startswith("    jaxdog/")]
    entries = [part.strip().removeprefix("jaxdog/") for line in lines for part in line.split(",")]
    listed = [entry.rstrip("/").removesuffix(".py") for entry in entries]
    assert [name for name in ROOMS if name not in ("main", "score")] == listed  # these start the last room
