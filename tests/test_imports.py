"""The house rules that a machine can check: who imports whom, who may compile, how long things are."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A module imports only modules of lower rows. A new module is entered here.
LAYERS = (
    {"system", "models.products", "models.initial"},
    {"models.winograd"},
    {"models.convolution", "metrics.pooling", "resample", "colour", "curves", "data.extras"},
    {
        "losses",
        "breeds",
        "penalties",
        "diffaugment",
        "augment",
        "denoise",
        "finish",
        "optim",
        "ema",
        "models.layers",
    }
    | {"data.crop", "data.photos", "metrics.archives", "metrics.inception", "metrics.fid"}
    | {"metrics.neighbours", "metrics.copies", "metrics.inception_score", "metrics.kid"},
    {"models.heads"},
    {"sampling", "sections", "models.biggan", "data.dogs", "data.toy", "data.batches", "metrics.weights"}
    | {"models.biggan_deep", "models.progan", "data.multicrop"}
    | {"metrics.mifid", "metrics.prdc", "metrics.nasnet", "data.cheats", "models.memorizer"}
    | {
        "models.dcgan",
        "models.style_dcgan",
        "data.recipes",
        "models.vqvae",
        "models.priors",
        "models.pixelcnn",
    }
    | {"models.stylegan", "models.r3gan"}
    | {"models.sagan", "models.csagan", "models.resnet", "data.tables", "data.clusters", "data.segment"},
    {"systems.gan", "checkpoint", "writers", "plots", "metrics.features", "metrics.per_class"}
    | {"metrics.nasnet_weights", "metrics.forensics", "data.pictures", "data.curate", "systems.memorizer"}
    | {"systems.progressive", "systems.vae", "systems.vqvae", "data.clean", "data.labels", "metrics.vgg"},
    {"parts"},
    {"games"},
    {"factory"},
    {"devices", "networks", "transfer"},
    {"stream", "program"},
    {"train", "compare", "examine", "submit", "report", "label"},
    {"evaluate"},
    {"job", "scorer", "reconstruct", "cleaning", "costs"},
    {"sweep"},
    {"modes"},
    {"main", "score"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SHELL = LEVEL["devices"]  # from here up: compiling, devices, clocks

# What only some modules may touch, and which.
ONLY_IN_THE_SHELL = {"jit", "pmap", "Mesh", "NamedSharding", "device_put", "monotonic", "perf_counter"}
ONLY_IN = {
    "ml_collections": {"main", "modes", "factory"},
    "absl": {"main", "modes", "score"},
    "tensorflow": {"data.dogs"},
    "tensorflow_datasets": {"data.dogs"},
    "torch": set(),
    "sklearn": set(),  # by name only, in data.extras
    "cv2": set(),
    "grain": set(),
    "configs": set(),
}
LONG_FUNCTIONS = {("train", "train"): 150}
FILE_LINES, FUNCTION_LINES = 430, 60


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT / "jaxdog").with_suffix("").parts)


FILES = sorted(path for path in (ROOT / "jaxdog").rglob("*.py") if path.name != "__init__.py")
TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PROGRAMS = FILES + sorted((ROOT / "configs").glob("*.py")) + sorted((ROOT / "experiments").rglob("*.py"))


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
        found.append((whole, "") if whole in LEVEL or whole in TREES else (inner, name))
    return found


def lazy(tree: ast.Module) -> ast.Module:
    """The file without the bodies of its functions: what runs when it is imported."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

    return Strip().visit(ast.parse(ast.unparse(tree)))


def test_every_module_has_a_layer():
    missing = sorted(set(TREES) - set(LEVEL))
    assert not missing, f"enter {missing} in LAYERS"
    assert len(LEVEL) == sum(map(len, LAYERS)), "a module stands in two layers"


@pytest.mark.parametrize("name", sorted(TREES))
def test_imports_go_down(name):
    for other, _ in own(TREES[name]):
        assert other in LEVEL, f"{name} imports {other or 'jaxdog'}, which is no module of the package"
        assert LEVEL[other] < LEVEL[name], f"{name} (layer {LEVEL[name]}) imports {other} ({LEVEL[other]})"


@pytest.mark.parametrize("name", sorted(TREES))
def test_modules_are_imported_not_names(name):
    taken = [f"{other}.{what}" for other, what in own(TREES[name]) if what and other != "system"]
    assert not taken, f"{name}: import the module of {taken} and say where a name is from"
    assert not [module for module, _ in imports(TREES[name]) if module.startswith(".")], f"{name}: full names"


def test_models_share_layers_and_heads_only_and_systems_nothing():
    for name, tree in TREES.items():
        others = {other for other, _ in own(tree)}
        if name.startswith("models."):
            below = {"models.layers": {"models.convolution", "models.initial", "models.products"}}
            below["models.winograd"] = {"models.products"}
            below["models.convolution"] = {"models.products", "models.winograd"}
            assert others <= below.get(name, {"models.layers"}) | {"models.heads", "system"}, name
        if name.startswith("systems."):
            assert not any(other.startswith("systems.") for other in others), name


@pytest.mark.parametrize("name", sorted(name for name in TREES if LEVEL.get(name, 0) < SHELL))
def test_only_the_shell_compiles_places_and_measures(name):
    used = {node.attr for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Name)}
    used |= {what for _, what in imports(TREES[name])}
    assert not used & ONLY_IN_THE_SHELL, f"{name} is below the shell (layer {SHELL})"


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
            limit = LONG_FUNCTIONS.get((name, node.name), FUNCTION_LINES)
            assert lines <= limit, f"{name}.{node.name} has {lines} lines, the limit is {limit}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_unfinished(path):
    text = path.read_text(encoding="utf-8")
    for word in ("NotImplementedError", "TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert word not in text


def test_a_run_begins_without_other_frameworks():
    """torch is loaded by tensorboardX, where it is installed, once there is something to write."""
    others = {"tensorflow", "keras", "torch", "tensorboardX"}
    code = f"import sys, jaxdog.modes; print(sorted({others} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_checks_see_what_they_should():
    """The rules hold on a file that breaks them all."""
    bad = ast.parse("import jax\nfrom jaxdog import train, nowhere\nfrom jaxdog.data.crop import square\n")
    assert own(bad) == [("train", ""), ("", "nowhere"), ("data.crop", "square")]
    assert imports(
        lazy(ast.parse("import a\ndef f():\n    import b\nclass C:\n    def g(self): import c"))
    ) == [("a", "")]
