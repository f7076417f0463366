"""The tree: a module imports only from rows above it, third-party packages have a home, and the import is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "realwork"
ROWS = [
    ["errors"],
    ["types"],
    ["text", "fields", "references", "faultpoints", "activity"],
    ["secret"],
    ["limits"],
    ["config"],
    ["tools"],
    ["schedule"],
    ["sandbox"],
    ["testing"],
    ["model"],
    ["runfile"],
    ["plugins"],
    ["dataset"],
    ["environment"],
    ["grading", "snapshots"],
    ["episode"],
    ["record"],
    ["rollout"],
    ["backends", "preflight", "sweeping"],
    ["analysis"],
    ["distributed"],
    ["settings"],
    ["opening"],
    ["api", "streaming"],
    ["bench"],
    ["tiny"],
    ["web"],
    ["cli"],
]
HOMES = {
    "ray": {"distributed"},
    "docker": {"sandbox"},
    "requests": {"sandbox"},
    "urllib3": {"sandbox"},
    "openai": {"model"},
    "httpx2": {"model"},
    "pyarrow": {"dataset", "analysis"},
    "aiohttp": {"web"},
    "jinja2": {"web"},
    "markupsafe": {"web"},
    "pygments": {"web"},
    "plotly": {"web"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "setproctitle": {"cli"},
    "yaml": {"runfile"},
    "iniconfig": {"testing"},
    "ik_llama_cpp": {"tiny"},
    "numpy": {"tiny"},
}
RANK = {name: rank for rank, names in enumerate(ROWS) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def row_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every imported module of `path`, with the ones only for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (
                [f"realwork.{alias.name}" for alias in node.names] if node.module == "realwork" else [node.module]
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rows_above_it(path):
    own = row_of(path)
    used = {
        name.split(".")[1] for name in imports(path) if name.startswith("realwork.") and name != "realwork.__version__"
    }
    assert not {row for row in used - {own} if RANK[row] >= RANK[own]}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_third_party_package_is_imported_in_its_home_only(path):
    used = {name.split(".")[0] for name in imports(path)}
    assert not {name for name in used & HOMES.keys() if row_of(path) not in HOMES[name]}


def test_the_help_loads_nothing_of_the_viewer():
    code = "import sys, realwork.cli.app; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & {"aiohttp", "jinja2", "plotly", "pyarrow", "realwork.web"}


def test_importing_realwork_loads_no_heavy_package():
    code = "import sys, realwork; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & HOMES.keys()
