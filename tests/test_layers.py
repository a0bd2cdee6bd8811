"""The architecture: what a file may import, how long it may be, and how its docstrings begin."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "al_lightning"
LAYERS = [
    {"acquisition", "statistics", "seeds", "distributed", "settings"},
    {"strategies", "run", "stopping"},
    {"label", "data"},
    {"prediction"},
    {"mnist", "monitor"},
    {"training"},
    {"loop"},
    {"parser"},
    {"cli"},
    {"compare"},
    {"__main__"},
]
"""Ground first. A file imports from its own layer and from lower ones."""
ROOT = {
    "__init__",
    "__main__",
    "loop",
    "settings",
    "parser",
    "cli",
    "stopping",
    "seeds",
    "distributed",
}
MAX_LINES = {"loop.py": 350, "data/datamodule.py": 350}
ALL_FILES = sorted(PACKAGE.rglob("*.py"))
FILES = [path for path in ALL_FILES if path != PACKAGE / "__init__.py"]


def name_of(path: Path) -> str:
    """``mnist/files.py``."""
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    """``loop`` for loop.py, ``mnist`` for mnist/files.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> set[str]:
    """Every module that the file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            # ``from package import file`` names a file, ``from file import name`` does not.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def parts_imported(path: Path) -> set[str]:
    """The parts of this package that the file imports from."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("al_lightning.")}


def file_of(module: str) -> Path | None:
    """The file of a module of this package; None for a name in one, or another package's."""
    path = PACKAGE.parent / module.replace(".", "/")
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file in FILES), None)


def test_imports_come_from_lower_layers():
    depth_of = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}
    wrong = [
        f"{name_of(path)} imports {part}"
        for path in FILES
        for part in parts_imported(path)
        if depth_of[part] > depth_of[part_of(path)]
    ]
    assert not wrong


def test_each_part_has_its_layer_and_the_root_holds_few_files():
    assert {part_of(path) for path in FILES} == set().union(*LAYERS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT


def test_no_two_parts_import_each_other():
    edges = {
        (part_of(path), part)
        for path in FILES
        for part in parts_imported(path)
        if part != part_of(path)
    }
    assert edges
    assert not [(a, b) for a, b in edges if (b, a) in edges]


def test_there_is_no_circle_between_files():
    files = {path: {file_of(name) for name in imports(path)} - {None, path} for path in FILES}
    assert sum(map(len, files.values())) > len(FILES)
    TopologicalSorter(files).prepare()  # CycleError names the files of a circle


def test_acquisition_knows_torch_alone_and_the_journal_the_standard_library():
    for path in FILES:
        outside = {name.split(".")[0] for name in imports(path)} - {"al_lightning"}
        if part_of(path) == "acquisition":
            assert outside - sys.stdlib_module_names <= {"torch"}, name_of(path)
    journal = {name.split(".")[0] for name in imports(PACKAGE / "run" / "journal.py")}
    assert journal - {"al_lightning"} <= sys.stdlib_module_names


def test_files_are_short():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in ALL_FILES}
    assert MAX_LINES.keys() <= lengths.keys()
    assert not {n: num for n, num in lengths.items() if num > MAX_LINES.get(n, 400)}


def test_docstrings_begin_with_what_a_thing_does_or_is():
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = [
        (name_of(path), ast.get_docstring(node) or "")
        for path in ALL_FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, documented)
    ]
    begin = [(name, text) for name, text in docstrings if text.startswith(BEGINNINGS)]
    assert not begin
    assert any(text for _, text in docstrings)


BEGINNINGS = ("What ", "Whether ", "How ")
