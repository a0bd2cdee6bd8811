"""``ckpt_path="best"``: the best weights of a fit are tested, asked and, when warm, trained on."""

import json
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from toys import QUIET, Plain, asked, events, loop_of, points, points_data, weights

from al_lightning import ActiveLearningLoop, Ensemble

QUIET = {name: value for name, value in QUIET.items() if name != "enable_checkpointing"}
DIM = 4


class Spoiled(Plain):
    """Its second epoch is the best one; from the third on the weights are worthless.

    ``temperature`` is outside of the weights, and changes in each epoch.
    """

    def __init__(self, seed=0):
        super().__init__(seed)
        self.temperature = 1.0
        self.began = []

    def forward(self, x):
        return self.net(x) / self.temperature

    def on_train_epoch_start(self):
        self.temperature = 1.0 + self.current_epoch
        if self.current_epoch == 0:
            self.began.append(weights(self))
        if self.current_epoch >= 2:
            for weight in self.parameters():
                weight.data.zero_()

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", -abs(self.current_epoch - 1.0))
        self.log("val_epoch", float(self.current_epoch))

    def on_train_epoch_end(self):
        self.log("late", float(self.current_epoch))


class Late(Spoiled):
    """Makes its layers in ``setup``, anew each time."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.seed, self.net = seed, None

    def setup(self, stage):
        self.net = Plain(self.seed).net


def trainer(*callbacks, epochs=4, **checkpoint):
    checkpoint = {"monitor": "val_acc", "mode": "max", **checkpoint}
    how = {"max_epochs": epochs, "accelerator": "cpu", **QUIET}
    return partial(L.Trainer, callbacks=[ModelCheckpoint(**checkpoint), *callbacks], **how)


def data(**arguments):
    return points_data(val_set=points(60, seed=2), initial_labeled_size=48, **arguments)


def best_loop(model=None, folder=None, **arguments):
    arguments = {"trainer": trainer(), "num_cycles": 2, "strategy": "margin", **arguments}
    loop = loop_of(model or Spoiled(), data(), run_dir=folder, ckpt_path="best", **arguments)
    return loop


def accuracy(model, seed=1):
    x, y = points(50, seed=seed).tensors
    with torch.no_grad():
        return float((model.eval()(x).argmax(-1) == y).float().mean())


@pytest.mark.parametrize("late", [False, True])
def test_the_best_weights_are_tested_asked_and_kept(tmp_path, late):
    kept = []

    class Keeps(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            kept.append((pl_module.current_epoch, weights(pl_module)))

    loop = best_loop(Late() if late else Spoiled(), tmp_path, trainer=trainer(Keeps()))
    (first, _) = loop.run()
    best = kept[1][1]  # of the second epoch of the first fit
    saved = torch.load(tmp_path / "cycle_1" / "weights.ckpt", weights_only=True)
    found = torch.cat([v.flatten() for n, v in saved["state_dict"].items()])
    assert torch.equal(found, best)
    assert saved["epoch"] == 1
    assert "optimizer_states" not in saved
    # All metrics are those of the epoch, also one that a hook logs at its end.
    assert first.metrics["val_epoch"] == first.metrics["late"] == 1
    model = Spoiled()
    nn.utils.vector_to_parameters(best, model.parameters())
    assert first.metrics["test_acc"] == pytest.approx(accuracy(model))
    x = points(120).tensors[0][first.query.indices]
    probs = (model(x) / 2).softmax(-1)  # the temperature of that epoch
    top = probs.topk(2).values
    torch.testing.assert_close(torch.tensor(first.query.scores), 1 - (top[:, 0] - top[:, 1]))
    last = loop_of(Spoiled(), data(), trainer=trainer(), num_cycles=1).run()
    assert last[0].metrics["test_acc"] < first.metrics["test_acc"]
    assert last[0].metrics["val_epoch"] == 3


@pytest.mark.parametrize("warm", [False, True])
def test_a_warm_fit_begins_with_the_best_weights(tmp_path, warm):
    model = Spoiled()
    loop = best_loop(model, tmp_path, warm_start=warm)
    loop.run()
    saved = torch.load(tmp_path / "cycle_1" / "weights.ckpt", weights_only=True)
    found = torch.cat([v.flatten() for v in saved["state_dict"].values()])
    began = model.began[-1]
    assert torch.equal(began, found if warm else weights(Spoiled()))


@pytest.mark.parametrize(
    ("make", "warm"),
    [
        (Spoiled, True),
        (Late, False),
        pytest.param(Spoiled, False, marks=pytest.mark.slow),
        pytest.param(Late, True, marks=pytest.mark.slow),
    ],
)
def test_resumed_after_any_event_equals_uninterrupted(tmp_path, make, warm):
    whole = best_loop(make(), tmp_path / "whole", warm_start=warm)
    results = whole.run()
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    for cut in range(1, len(lines) + 1):
        folder = tmp_path / f"cut_{cut}"
        best_loop(make(), folder, warm_start=warm).run()
        (folder / "journal.jsonl").write_text("".join(lines[:cut]))
        resumed = ActiveLearningLoop.resume(folder, make(7), data(), trainer=trainer(), monitors=[])
        again = resumed.run()
        assert asked(again) == asked(results), cut
        assert [r.metrics for r in again] == [r.metrics for r in results], cut
        assert events(folder) == events(tmp_path / "whole"), cut
        if resumed.model.net is not None:
            assert torch.equal(weights(resumed.model), weights(whole.model)), cut


class KilledError(Exception):
    pass


class KilledAt(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == self.epoch:
            raise KilledError


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_fit_that_goes_on_knows_its_best_epoch(tmp_path, epoch, moved):
    make = partial(trainer, save_last=True, save_on_train_epoch_end=True)
    whole = best_loop(folder=tmp_path / "whole", trainer=make(), num_cycles=1)
    results = whole.run()
    folder = tmp_path / "cut"
    with pytest.raises(KilledError):
        best_loop(folder=folder, trainer=make(KilledAt(epoch)), num_cycles=1).run()
    if moved:
        folder = folder.rename(tmp_path / "elsewhere")
    resume = partial(ActiveLearningLoop.resume, folder, Spoiled(), data(), trainer=make())
    resumed = resume(monitors=[])
    if moved:
        with pytest.warns(UserWarning, match="in a folder that is no more the run's"):
            again = resumed.run()
    else:
        again = resumed.run()
    assert [r.metrics for r in again] == [r.metrics for r in results]
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_early_stopping_beside_it():
    stops = EarlyStopping("val_acc", mode="max", patience=1)
    loop = best_loop(trainer=trainer(stops, epochs=50))
    assert [result.metrics["val_epoch"] for result in loop.run()] == [1, 1]


def test_without_a_folder_the_run_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = best_loop(warm_start=True)
    whole = best_loop(folder=tmp_path / "run", warm_start=True)
    assert [r.metrics for r in alone.run()] == [r.metrics for r in whole.run()]
    assert torch.equal(weights(alone.model), weights(whole.model))


def test_each_member_of_an_ensemble_has_its_own_best_epoch(tmp_path):
    seeds = iter(range(9))
    loop = best_loop(Ensemble(lambda: Spoiled(next(seeds)), 2), tmp_path, strategy="vote_entropy")
    results = loop.run()
    for member in (0, 1):
        saved = torch.load(tmp_path / "cycle_2" / f"member_{member}" / "weights.ckpt")
        assert saved["epoch"] == 1
    assert results[-1].metrics["val_epoch"] == 1


def test_a_fixed_folder_of_checkpoints_serves_all_cycles(tmp_path):
    loop = best_loop(trainer=trainer(dirpath=tmp_path / "kept"), num_cycles=3)
    results = loop.run()
    assert [result.metrics["val_epoch"] for result in results] == [1, 1, 1]
    assert len(list(Path(tmp_path / "kept").glob("*.ckpt"))) == 3


@pytest.mark.parametrize(
    ("callbacks", "found"),
    [
        ([], r"found ModelCheckpoint\(monitor=None, save_top_k=1\)"),  # Lightning's own
        ([ModelCheckpoint(monitor="a", save_top_k=0)], r"found ModelCheckpoint\(monitor='a', save"),
    ],
)
def test_without_a_monitor_it_is_refused_before_training(tmp_path, callbacks, found):
    make = partial(L.Trainer, max_epochs=1, callbacks=callbacks, **QUIET)
    with pytest.raises(ValueError, match=rf'ckpt_path="best" needs .*{found}'):
        best_loop(folder=tmp_path / "run", trainer=make)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="found no ModelCheckpoint"):
        best_loop(trainer=partial(make, enable_checkpointing=False, callbacks=[]))


def test_other_words_are_refused():
    with pytest.raises(ValueError, match='must be "last" or "best", got \'first\''):
        loop_of(ckpt_path="first")


def test_a_journal_says_which_weights_were_taken(tmp_path):
    loop_of(run_dir=tmp_path, num_cycles=1).run()
    journal = tmp_path / "journal.jsonl"
    assert (
        json.loads(journal.read_text().splitlines()[0])["config"]["active"]["ckpt_path"] == "last"
    )


def test_what_changed_after_the_best_epoch_is_undone(tmp_path):
    """In the first epoch the temperature was still as given, so no checkpoint tells it."""

    class First(Spoiled):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", -float(self.current_epoch))

    loop = best_loop(First(), tmp_path)
    query = loop.ask()
    assert loop.model.temperature == 1.0
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    loop._run.release()
    (tmp_path / "journal.jsonl").write_text("".join(lines[:3]))  # up to the test
    resume = partial(ActiveLearningLoop.resume, tmp_path, First(), data(), trainer=trainer())
    assert resume(monitors=[]).ask() == query
