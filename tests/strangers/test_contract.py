"""One contract over all styles: two cycles, the same end after any event, and on two processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from styles import REFUSED, STYLES, Style
from toys import asked

from al_lightning import ActiveLearningLoop
from al_lightning.training.as_given import AsGiven

OPTIONS = {"acquisition_size": 6, "num_cycles": 2, "monitors": []}


def begin(style: Style, **arguments) -> ActiveLearningLoop:
    return ActiveLearningLoop(**style.parts(), **{**OPTIONS, **style.options, **arguments})


def resume(style: Style, run_dir: Path) -> ActiveLearningLoop:
    functions = {name: value for name, value in style.options.items() if callable(value)}
    return ActiveLearningLoop.resume(run_dir, **style.parts(), monitors=[], **functions)


def weights(loop):
    return torch.cat([p.detach().flatten() for p in loop.model.parameters()])


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("name", STYLES)
def test_it_runs_and_goes_on_after_any_event_to_the_same_end(tmp_path, name):
    style = STYLES[name]
    whole = begin(style, run_dir=tmp_path / "whole")
    results = whole.run()
    fits = [result for result in results if result.num_labeled]
    assert len(fits) == 2
    assert fits[1].num_labeled == fits[0].num_labeled + 6
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    for cut in range(1, len(lines)):
        run_dir = tmp_path / f"cut_{cut}"
        shutil.copytree(tmp_path / "whole", run_dir)
        (run_dir / "journal.jsonl").write_text("".join(lines[:cut]))
        again = resume(style, run_dir)
        found = again.run()
        assert asked(found) == asked(results), cut
        assert [r.metrics for r in found] == [r.metrics for r in results], cut
        assert torch.equal(weights(again), weights(whole)), cut


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_training(tmp_path, name, monkeypatch):
    style, words = REFUSED[name]
    monkeypatch.setattr("lightning.Trainer.fit", None)
    with pytest.raises((ValueError, TypeError), match=words) as error:
        begin(style, run_dir=tmp_path / "run").run()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "journal.jsonl").exists()


@pytest.mark.slow
def test_two_processes_agree_and_ask_as_one_does(tmp_path):
    script = Path(__file__).parent / "two_processes.py"
    path = os.pathsep.join([str(script.parent), str(script.parent.parent), *sys.path])
    # As after seed_everything(7).
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PL_GLOBAL_SEED": "7", "PYTHONPATH": path}
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path), devices],
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    alone = json.loads((tmp_path / "1_of_0.json").read_text())
    first, second = (json.loads((tmp_path / f"2_of_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for name in alone:
        assert first[name]["untrained"] == alone[name]["untrained"], name
        assert len(first[name]["trained"]) == 2


def test_the_module_is_as_it_was_given_when_each_cycle_begins(monkeypatch):
    seen = []
    restore = AsGiven.restore
    monkeypatch.setattr(AsGiven, "restore", lambda self: (seen.append(1), restore(self)))
    loop = begin(STYLES["state outside of the weights"])
    loop.run()
    assert seen
    assert (loop.model.tau, len(loop.model.history)) == (0.8**2, 4)
