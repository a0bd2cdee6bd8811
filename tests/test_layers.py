"""The architecture: a module imports only from the layers above it."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "al_lightning"
LAYERS = [
    {"acquisition", "statistics", "seeds", "distributed", "settings"},
    {"strategies", "run", "stopping"},
    {"label", "data"},
    {"prediction"},
    {"mnist", "monitor"},
    {"training"},
    {"loop"},
    {"cli"},
    {"compare"},
]


def imports(path: Path) -> set[str]:
    """Every module that the file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def part_of(path: Path) -> str:
    """``loop`` for loop.py, ``mnist`` for mnist/files.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_come_from_above(path):
    (depth,) = [level for level, parts in enumerate(LAYERS) if part_of(path) in parts]
    allowed = set().union(*LAYERS[:depth], {part_of(path)})
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("al_lightning.")}
    # Siblings of one layer may use each other as long as it stays one way; see the next test.
    assert ours <= allowed | LAYERS[depth], f"{path} imports {ours - allowed}"


def test_no_two_parts_import_each_other():
    edges = {
        (part_of(path), name.split(".")[1])
        for path in FILES
        for name in imports(path)
        if name.startswith("al_lightning.") and name.split(".")[1] != part_of(path)
    }
    assert edges
    assert not [(a, b) for a, b in edges if (b, a) in edges]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_acquisition_knows_torch_alone_and_the_journal_the_standard_library(path):
    outside = {name.split(".")[0] for name in imports(path)} - {"al_lightning", "collections"}
    if part_of(path) == "acquisition":
        assert outside - sys.stdlib_module_names <= {"torch"}
    if part_of(path) == "journal":
        assert outside <= {"json", "os", "zlib", "pathlib", "typing"}
