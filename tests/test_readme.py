"""The README's Python runs as it stands, in order, on toys in place of the reader's project."""

import re
from functools import partial
from pathlib import Path

import lightning as L
import pytest
from torch.utils.data import DataLoader
from toys import QUIET, Plain, points

import al_lightning
from al_lightning import STRATEGIES
from al_lightning.run.stop_rules import RULES
from al_lightning.strategies import find_strategy
from al_lightning.strategies.registry import arguments_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STRATEGIES_PAGE = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(STRATEGIES)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    names = {
        "__name__": "readme",
        "model": Plain(),
        "train_set": points(400),
        "plain_set": points(400),
        "test_set": points(50, seed=1),
        "my_label_of": lambda index: index % 3,
    }
    try:
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
        assert {"unsure_of_class_2", "second_best"} <= STRATEGIES.keys() - before.keys()
        names["ActiveLearningLoop"](
            Plain(),
            names["ActiveDataModule"](points(60), initial_labeled_size=10),
            trainer=partial(L.Trainer, max_epochs=1, **QUIET),
            strategy="unsure_of_class_2",
            acquisition_size=5,
            num_cycles=2,
        ).run()
    finally:
        for name in STRATEGIES.keys() - before.keys():
            del STRATEGIES[name]
    assert len(names["results"]) == 5
    assert names["data"].num_labeled == 30 + 2 + 20


def test_the_page_of_projects_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "projects.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {"datamodule": Project(), "model": Validated()}
    block = block.replace("max_epochs=50", "max_epochs=2, accelerator='cpu'")
    exec(compile(block, "projects.md", "exec"), names)
    assert [result.num_labeled for result in names["results"]] == [100, 150, 200, 250, 300]


class Project(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(points(400), batch_size=32, shuffle=True)

    def val_dataloader(self):
        return DataLoader(points(60, seed=2), batch_size=32)

    def test_dataloader(self):
        return DataLoader(points(60, seed=1), batch_size=32)


class Validated(Plain):
    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())


def test_what_the_readme_names_exists():
    for path in re.findall(r"`((?:configs|examples|benchmarks|docs)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
    for name in set(re.findall(r"from al_lightning import (.*)", README)):
        assert set(name.split(", ")) <= set(al_lightning.__all__)


def test_the_forecast_of_the_page_about_steering_runs():
    page = (ROOT / "docs" / "steering.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        if "import" in block or "def " in block:
            exec(compile(block.split("loop =")[0], "steering.md", "exec"), names)
    assert 0.98 < names["ahead"].at(3000).accuracy < 1
    assert names["ahead"].labels_to(0.99).num_labeled > 2000
    assert not names["flat"]([])
    for name in re.findall(r"^\| `(\w+)`", page, flags=re.MULTILINE):
        assert name in RULES


def test_the_page_of_strategies_names_each_with_its_arguments():
    (block,) = re.findall(r"```python\n(.*?)```", STRATEGIES_PAGE, flags=re.DOTALL)
    exec(compile(block, "strategies.md", "exec"), {})
    table = STRATEGIES_PAGE.split("## What each needs")[1].split("*Samples*")[0]
    documented = {}
    for line in table.splitlines()[4:]:
        if line.startswith("|"):
            names, _, arguments, _ = (cell.strip() for cell in line.strip("|").split("|"))
            for name in re.findall(r"`(\w+)`", names):
                documented[name] = sorted(set(re.findall(r"`(\w+)` \(", arguments)))
    taken = {name: arguments_of(find_strategy(name)) for name in STRATEGIES}
    assert documented == taken
