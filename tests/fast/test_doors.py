"""Imports go one way: cli -> features -> worlds -> machine -> kernel -> core."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kdrv"
LAYERS = (
    {"core"},
    {"toolchain"},
    {"kernel"},
    {"machine"},
    {"guest", "devices"},
    {"qemu", "sim"},
    {"build"},
    {"scaffold"},
    {"testing"},
    {"explore"},
    {"gate"},
    {"report"},
    {"cli"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("kdrv.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_below_its_own(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    for name in _imports(path) - {own}:
        assert RANK[name] < RANK[own], f"{path} imports kdrv.{name}"


def test_every_package_has_a_place() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= set(RANK)


def test_modules_stay_readable() -> None:
    long = {str(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert long == {}
