"""What an import loads: a command that needs no torch waits for none."""

import ast
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from label_run import write_run

import al_lightning
from al_lightning.label.answers import OpenQuery
from al_lightning.run.journal import Journal

SLOW = {"torch", "lightning", "numpy", "matplotlib", "tensorboard", "jsonargparse", "torchvision"}


def loaded_by(program, *arguments):
    """The slow packages that a program imports in a process of its own, and its lines."""
    report = "import json; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys\n{program}\n{report}", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *lines, names = done.stdout.splitlines()
    return SLOW.intersection(json.loads(names)), lines


COMMAND = """
import runpy
try:
    runpy.run_module("al_lightning.label", run_name="__main__", alter_sys=True)
except SystemExit as error:
    assert not error.code
"""


def test_the_help_of_the_labeling_page_loads_nothing_slow():
    loaded, lines = loaded_by(COMMAND, "--help")
    assert loaded == set()
    assert lines[0].startswith("usage: python -m al_lightning.label")


def test_a_summary_loads_nothing_slow(tmp_path):
    run_dir = write_run(tmp_path / "run")
    OpenQuery(Journal(run_dir / "journal.jsonl")).answer({10: 1}, by="ann", how="page")
    loaded, lines = loaded_by(COMMAND, str(run_dir), "--summary")
    assert loaded == set()
    assert [line.split() for line in lines] == [
        ["cycle", "labeled", "skipped", "invalid", "corrected", "open", "by"],
        ["1", "1", "0", "0", "0", "4", "ann", "1"],
        ["all", "1", "0", "0", "0", "4", "ann", "1"],
    ]


def test_the_package_alone_loads_nothing_slow():
    assert loaded_by("import al_lightning") == (set(), [])


def test_answers_files_and_the_page_load_nothing_slow():
    modules = "label.agreement, label.label_studio, label.page.server, label.query_file, run.tables"
    program = "\n".join(f"import al_lightning.{name}" for name in modules.split(", "))
    assert loaded_by(program) == (set(), [])


def test_the_loop_loads_neither_tensorboard_nor_jsonargparse():
    names = "ActiveLearningLoop, ActiveDataModule, STRATEGIES"
    loaded, _ = loaded_by(f"from al_lightning import {names}")
    assert loaded >= {"torch", "lightning"}
    assert loaded.isdisjoint({"tensorboard", "jsonargparse"})


# ---- names that are imported when they are used --------------------------------------------------


def test_every_public_name_is_there_and_checkers_read_the_same_names():
    tree = ast.parse(Path(al_lightning.__file__).read_text(encoding="utf-8"))
    (declared,) = [node.body for node in tree.body if isinstance(node, ast.If)]
    for_checkers = {alias.asname: node.module for node in declared for alias in node.names}
    assert for_checkers.keys() == set(al_lightning.__all__)
    assert len(al_lightning.__all__) == len(for_checkers)
    for name, module in for_checkers.items():
        found = getattr(al_lightning, name)
        assert found is getattr(importlib.import_module(module), name)
    everything = {}
    exec("from al_lightning import *", everything)
    assert everything.keys() - {"__builtins__"} == set(al_lightning.__all__)
    assert set(al_lightning.__all__) <= set(dir(al_lightning))


def test_a_class_that_was_reached_lazily_can_be_pickled():
    assert pickle.loads(pickle.dumps(al_lightning.SKIP)) is al_lightning.SKIP
    assert pickle.loads(pickle.dumps(al_lightning.CycleResult)) is al_lightning.CycleResult


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'al_lightning' has no attribute 'ActiveLoop'"):
        al_lightning.ActiveLoop
    with pytest.raises(ImportError, match="cannot import name 'ActiveLoop'"):
        exec("from al_lightning import ActiveLoop")


def test_rooms_are_attributes():
    program = "import al_lightning; print(al_lightning.acquisition.bald.__name__)"
    assert loaded_by(program)[1] == ["bald"]
