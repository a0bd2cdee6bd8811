"""An option that is added to ``Settings`` reaches all who must know it, with no further line."""

import json
from dataclasses import fields
from functools import partial

import lightning as L
import pytest
import torch
from compare_run import Net, Points
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import one_hot
from toys import Plain

from al_lightning import STRATEGIES, ActiveCLI, ActiveLearningLoop, power
from al_lightning.acquisition import margin
from al_lightning.compare.recipe import OURS, as_arguments, recipe_of_parts
from al_lightning.run.journal import read_records
from al_lightning.settings import Settings

BASE = {"strategy": "power_bald", "mc_samples": 3, "acquisition_size": 15, "num_cycles": 3}
OTHER = {
    "strategy": "power_margin",
    "acquisition_size": 14,
    "acquisition_growth": 1.5,
    "max_per_group": 3,
    "min_distance": 0.01,
    "num_cycles": 4,
    "task": "multilabel",
    "seed": 5,
    "warm_start": True,
    "ckpt_path": "best",
    "candidate_size": 50,
    "strategy_args": {"beta": 2.0},
    "mc_samples": 4,
    "embedding_layer": "net.3",
    "target": ("test_acc", 0.5),
    "stop_when": [{"max_labels": 60}],
    "labels_in_doubt": True,
    "add_class": "above",
    "oracle": "files",
    "accept_unasked": True,
}
"""Of each option a value that it does not have in ``BASE``."""
TRAINER = partial(
    L.Trainer,
    max_epochs=2,
    enable_progress_bar=False,
    logger=False,
    callbacks=[ModelCheckpoint(monitor="train_loss")],
)
OF_STRATEGY = set(Settings.names("of_strategy"))


class Named(Points):
    """People can label it."""

    def __init__(self, seed: int = 42) -> None:
        super().__init__(seed=seed)
        self.sets.pool.classes = ["left", "middle", "right"]
        self.group_key, self.sets.pool.group = "group", list(range(len(self.sets.pool)))


class Several(Named):
    """A label is a list of zeros and ones, as the task in ``OTHER`` has it."""

    def __init__(self, seed: int = 42) -> None:
        super().__init__(seed=seed)
        self.row_labels._targets = None
        for rows in {id(rows): rows for rows in (self.sets.pool, self.sets.test)}.values():
            rows.tensors = (rows.tensors[0], one_hot(rows.tensors[1], 3).float())


@pytest.fixture(autouse=True, scope="module")
def _another_strategy_that_takes_beta():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STRATEGIES, "power_margin", power(margin))
        yield


def plain(value):
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def test_each_option_is_tested_here():
    """Give a new option a value in ``OTHER``, and all that follows is tested of it too."""
    assert [option.name for option in fields(Settings)] == list(OTHER)


# ---- the command line ----------------------------------------------------------------------------


class Begins(ActiveCLI):
    """Begins the run that a command line asks for, and carries no cycle out."""

    def _run(self, loop):
        self.loop = loop
        return []


def test_each_option_is_a_flag_that_reaches_the_loop_and_the_journal(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    given = {**OTHER, "labels_in_doubt": False}  # which the task in OTHER does not have
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in given.items()}
    flags = [f"--active.{name}={text}" for name, text in texts.items()]
    trainer = ["--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    trainer += ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=train_loss"]
    with torch.random.fork_rng():  # the command line seeds the process
        cli = Begins(Plain, Several, args=[*flags, *trainer, f"--active.run_dir={tmp_path}"])
    assert {name: getattr(cli.loop.settings, name) for name in OTHER} == given
    active = read_records(tmp_path / "journal.jsonl")[0]["settings"]["active"]
    assert {name: active[name] for name in OTHER} == plain(given)


# ---- the journal, and what may change on resume --------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run that has begun, and no more."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    ActiveLearningLoop(
        Net(), Named(), trainer=TRAINER, run_dir=folder, monitors=[], **BASE
    ).prepare()
    return folder


@pytest.mark.parametrize("name", OTHER)
def test_each_option_stands_in_the_first_record(begun, name):
    start = read_records(begun / "journal.jsonl")[0]
    is_free = name in Settings.names("free")
    there, elsewhere = start["config"]["active"], start["asking"]
    if is_free:
        there, elsewhere = elsewhere, there
    assert there[name] != plain(OTHER[name])
    assert name not in elsewhere


@pytest.mark.parametrize("name", OTHER)
def test_a_run_goes_on_with_another_value_only_where_the_option_is_free(begun, name):
    def resume():
        given = {"trainer": TRAINER, "monitors": [], name: OTHER[name]}
        return ActiveLearningLoop.resume(begun, Net(), Named(), **given)

    if name in Settings.names("free"):
        assert getattr(resume(), name) == OTHER[name]
    elif name in Settings.names("later"):
        assert getattr(resume().settings, name) == OTHER[name]
        again = ActiveLearningLoop.resume(begun, Net(), Named(), trainer=TRAINER, monitors=[])
        assert plain(getattr(again.settings, name)) == plain(OTHER[name])
        assert again.records[-1]["changes"] == {name: plain(OTHER[name])}
    else:
        with pytest.raises(ValueError, match=rf"resumed as it began, found active\.{name}: began"):
            resume()


# ---- comparisons ---------------------------------------------------------------------------------


def beginning(**given):
    """With what the run of a comparison's one strategy begins."""
    own = {name: value for name, value in given.items() if name in OF_STRATEGY}
    shared = {name: value for name, value in given.items() if name not in OF_STRATEGY}
    return recipe_of_parts(Net, Points, TRAINER, {"mine": own}, shared).beginnings(1)["mine"]


@pytest.mark.parametrize("name", [n for n in OTHER if n in OF_STRATEGY or n not in OURS])
def test_a_comparison_sees_another_value_unless_the_option_is_free(name):
    value = (lambda query: {}) if name == "oracle" else OTHER[name]  # no people in a comparison
    different = beginning(**BASE).differences(beginning(**{**BASE, name: value}))
    found = [text for text in different if text.startswith(f"active.{name}: began with ")]
    assert len(found) == len(different) == (name not in Settings.names("free"))


@pytest.mark.parametrize("name", OTHER)
def test_strategies_that_are_compared_may_differ_in_what_is_a_strategys_own(name):
    strategies = {"mine": {name: OTHER[name]}}
    if name in OF_STRATEGY:
        assert as_arguments(strategies)["mine"][name] == OTHER[name]
    else:
        with pytest.raises(ValueError, match=f"must not set {name}, found in 'mine'"):
            as_arguments(strategies)
