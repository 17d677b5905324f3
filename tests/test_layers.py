"""Which part may import what: the method knows neither Ray nor MLflow, and commands start fast."""

import ast
import json
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

REPO = Path(__file__).parents[1]
PACKAGES = (
    "tables",
    "store",
    "plan",
    "evidence",
    "stages",
    "report",
    "archive",
    "track",
    "run",
    "cluster",
    "cli",
)
"""The folders of sweeps/, the lowest floor first."""

METHOD = sorted(
    ".".join(path.relative_to(REPO).with_suffix("").parts)
    for path in (REPO / "wsss").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def loaded_by(*modules: str) -> set[str]:
    """Import the modules in a new interpreter; return the top-level packages loaded by then."""
    code = (
        f"import json, sys\nfor name in {modules!r}: __import__(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    return set(json.loads(found.stdout.splitlines()[-1]))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere, also inside its functions."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


def imported_packages(path: Path) -> set[str]:
    """Return the packages of sweeps/ that a file imports anywhere."""
    modules = {
        node.module or "" for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)
    }
    return {name.split(".")[1] for name in modules if name.startswith("sweeps.")}


def importers(package: str, *folders: str) -> set[str]:
    paths = [path for folder in folders for path in (REPO / folder).rglob("*.py")]
    assert len(paths) > 10
    return {str(path.relative_to(REPO)) for path in paths if package in imports(path)}


def test_no_module_of_the_method_loads_ray_or_mlflow_or_the_sweeps() -> None:
    assert "wsss.training.cam" in METHOD
    assert "wsss.labels.infer" in METHOD
    loaded = loaded_by(*METHOD)
    assert {"wsss", "torch", "matplotlib"} <= loaded
    assert not loaded & {"ray", "mlflow", "sweeps", "typer"}


def test_a_report_is_written_without_torch_ray_or_mlflow() -> None:
    loaded = loaded_by("sweeps.report.tables.document", "sweeps.report.formats.write")
    assert not loaded & {"torch", "ray", "mlflow", "statsmodels"}


def test_the_driver_of_a_sweep_or_search_leaves_torch_to_the_trials() -> None:
    loaded = loaded_by(
        "sweeps.run.subjects.tables",
        "sweeps.run.subjects.search",
        "sweeps.run.ray.tune",
        "sweeps.track.subjects",
        "sweeps.track.tracker",
        "sweeps.track.thread",
    )
    assert {"ray", "mlflow"} <= loaded
    assert not loaded & {"torch", "torchvision", "matplotlib"}


def test_only_the_tracker_imports_mlflow_and_only_runs_and_clusters_ray() -> None:
    assert importers("mlflow", "wsss", "sweeps") == {"sweeps/track/tracker.py"}
    of_ray = {path.split("/")[1] for path in importers("ray", "wsss", "sweeps")}
    assert of_ray == {"run", "cluster"}


def test_the_packages_of_the_sweeps_import_downward_alone() -> None:
    found = {}
    for path in (REPO / "sweeps").glob("*/**/*.py"):
        package = path.relative_to(REPO / "sweeps").parts[0]
        assert package in PACKAGES, path
        above = set(PACKAGES[PACKAGES.index(package) + 1 :])
        if upward := imported_packages(path) & above:
            found[str(path.relative_to(REPO))] = upward
    assert found == {}


def test_no_two_files_import_each_other_not_even_through_others() -> None:
    files = [path for folder in ("wsss", "sweeps") for path in (REPO / folder).rglob("*.py")]
    names = {".".join(path.relative_to(REPO).with_suffix("").parts): path for path in files}
    graph = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = found & names.keys()
    assert sum(map(len, graph.values())) > 500
    TopologicalSorter(graph).prepare()  # raises CycleError with the files of a circle


def test_the_method_never_imports_the_sweeps() -> None:
    assert importers("sweeps", "wsss") == {"wsss/__main__.py"}  # the program, for `python -m`


def test_nothing_unpickles_files_from_outside() -> None:
    for folder in ("wsss", "sweeps"):
        for path in (REPO / folder).rglob("*.py"):
            assert not imports(path) & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}, path
            for node in ast.walk(tree(path)):
                if not isinstance(node, ast.Call):
                    continue
                name, options = ast.unparse(node.func), [k.arg for k in node.keywords]
                if name == "torch.load":
                    assert "weights_only" in options, f"{path}:{node.lineno}"
                assert name not in ("yaml.load", "eval", "exec"), f"{path}:{node.lineno}"
