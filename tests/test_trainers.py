"""Trainers, loggers and callbacks of the user: what they see, and what is left on the disk."""

import csv
import random
import threading
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Callback,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics import MeanMetric
from toys import TRAINER, Plain, asked, events, loop_of, points_data, weights

from al_lightning import ActiveLearningLoop
from al_lightning.run.lock import unlock
from al_lightning.seeds import isolated, seeded

LOUD = partial(L.Trainer, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
BATCHES = [2, 3, 4]  # of 20, 35 and 50 rows in batches of up to 16
ENDS = np.cumsum(BATCHES) - 1


def resume(run_dir, model=None, **arguments):
    arguments = {"trainer": TRAINER, "monitors": [], **arguments}
    return ActiveLearningLoop.resume(run_dir, model or Plain(), points_data(), **arguments)


# ---- loggers -------------------------------------------------------------------------------------


def steps_in(folder, name="train_loss_step"):
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [int(row["step"]) for row in rows if row.get(name)]


@pytest.mark.parametrize("has_run_dir", [True, False])
@pytest.mark.parametrize("how", ["partial", "list", "function", "its own file each"])
def test_steps_of_a_users_logger_go_on(tmp_path, how, has_run_dir):
    logs = tmp_path / "logs"
    made = []

    def function(version, **given):
        made.append(CSVLogger(logs, name="", version=version))
        return LOUD(**{**given, "logger": made[-1], "log_every_n_steps": 1})

    one = CSVLogger(logs, name="", version="v")
    factories = {
        "partial": partial(LOUD, logger=one, log_every_n_steps=1),
        "list": partial(LOUD, logger=[one], log_every_n_steps=1),
        "function": partial(function, "v"),
        "its own file each": lambda **given: function(f"v{len(made)}", **given),
    }
    run_dir = {"run_dir": tmp_path / "run"} if has_run_dir else {}
    loop = loop_of(trainer=factories[how], **run_dir)
    loop.run()
    assert [record["steps"] for record in loop.records if record["event"] == "fit"] == BATCHES
    if how != "its own file each":
        assert [path.name for path in logs.iterdir()] == ["v"]
        assert steps_in(logs / "v") == list(range(sum(BATCHES)))
        assert steps_in(logs / "v", "test_acc") == [int(end) + 1 for end in ENDS]
    else:
        files = sorted(logs.iterdir())
        assert [len(steps_in(folder)) for folder in files] == BATCHES
    assert "log_metrics" not in vars(one)


def test_steps_go_on_after_a_resume_for_any_logger(tmp_path):
    class Own(Logger):
        name, version = "own", 0

        def __init__(self, seen):
            super().__init__()
            self.seen = seen

        def log_metrics(self, metrics, step=None):
            self.seen += [("train" if "train_loss_step" in metrics else "", step)]

        def log_hyperparams(self, *args, **kwargs):
            pass

    whole, cut = [], []
    loop_of(trainer=partial(LOUD, logger=Own(whole), log_every_n_steps=1)).run()
    run_dir = tmp_path / "run"
    trainer = partial(LOUD, logger=Own(cut), log_every_n_steps=1)
    loop = loop_of(run_dir=run_dir, trainer=trainer)
    loop.tell(loop.ask().indices)
    unlock(run_dir)
    resume(run_dir, trainer=trainer).run()
    assert cut == whole
    assert [step for name, step in whole if name] == list(range(sum(BATCHES)))


def test_loggers_that_write_elsewhere_are_all_used(tmp_path):
    class Own(CSVLogger):
        def __init__(self, seen):
            super().__init__(tmp_path, name="", version="v")
            self.seen = seen

        def log_metrics(self, metrics, step=None):
            self.seen.append(step)

    made = []

    def make(**given):
        made.append([])
        return LOUD(**{**given, "logger": Own(made[-1]), "log_every_n_steps": 1})

    loop_of(trainer=make).run()
    assert len([seen for seen in made if seen]) == 3


def test_tensorboard_shows_one_curve(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="one")
    loop_of(trainer=partial(LOUD, logger=logger, log_every_n_steps=1)).run()
    shown = EventAccumulator(str(tmp_path / "one")).Reload()
    assert [e.step for e in shown.Scalars("train_loss_step")] == list(range(sum(BATCHES)))


def test_our_own_curves_begin_at_zero_in_each_cycle(tmp_path):
    loop_of(trainer=partial(LOUD, log_every_n_steps=1), run_dir=tmp_path).run()
    for cycle, num in enumerate(BATCHES, 1):
        shown = EventAccumulator(str(tmp_path / f"cycle_{cycle}")).Reload()
        assert [e.step for e in shown.Scalars("train_loss_step")] == list(range(num))


# ---- nothing on the disk -------------------------------------------------------------------------


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch):
    class Logs(Plain):
        def on_train_end(self):
            self.logger.experiment.add_scalar("own", 1.0)

    monkeypatch.chdir(tmp_path)
    loop_of(Logs(), trainer=LOUD).run()
    loop_of(trainer=partial(LOUD, callbacks=[LearningRateMonitor()])).run()
    assert list(tmp_path.iterdir()) == []
    own = ModelCheckpoint(tmp_path / "own", monitor="train_loss")
    loop_of(trainer=partial(LOUD, callbacks=[own])).run()
    loop_of(trainer=lambda **given: LOUD(callbacks=[ModelCheckpoint(tmp_path / "own")], **given))
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert len(list((tmp_path / "own").iterdir())) == 3


# ---- callbacks -----------------------------------------------------------------------------------


class Locked(Callback):
    def __init__(self):
        self.lock = threading.Lock()


class Holds(Callback):
    def __init__(self, held):
        self.held = held


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: Locked(), r"Locked.* cannot be \(cannot pickle"),
        (lambda model: Holds(i for i in "a"), r"Holds.* cannot be \(cannot pickle"),
        (lambda model: Holds(model), "would hold a copy of Plain"),
        (lambda model: Holds({"layer": [model.net[0]]}), "would hold a copy of Linear"),
        (lambda model: Holds(model.forward), "would hold a copy of Plain"),
    ],
)
def test_a_callback_that_cannot_be_copied_is_refused_with_the_way_out(make, words):
    model = Plain()
    with pytest.raises(ValueError, match=rf"(?s){words}.*in a function that makes the Trainer"):
        loop_of(model, trainer=partial(LOUD, callbacks=[make(model)]))
    loop_of(model, trainer=lambda **given: LOUD(callbacks=[make(model)], **given)).run()


def test_a_metric_in_a_callback_is_copied():
    loop_of(trainer=partial(LOUD, callbacks=[Holds(MeanMetric())])).run()


def test_users_callbacks_see_the_real_steps_alone(tmp_path):
    seen = []

    class Writer(BasePredictionWriter):
        def write_on_batch_end(self, trainer, pl_module, prediction, indices, batch, *args):
            seen.append("batch")

    class Notes(Callback):
        def setup(self, trainer, pl_module, stage):
            seen.append(stage)

    class Sees(Plain):
        def predict_step(self, batch, batch_idx):
            assert self.logger is not None
            self.logger.experiment.add_text("a", "b")
            return self(batch[0])

    trainer = partial(LOUD, callbacks=[Writer("batch"), Notes()])
    loop = loop_of(Sees(), trainer=trainer, num_cycles=2, run_dir=tmp_path)
    loop.prepare()
    assert seen == []
    loop.run()
    assert seen == ["fit", "test", "predict", *["batch"] * 7, "fit", "test"]


@pytest.mark.parametrize("strategy", ["margin", pytest.param("random", marks=pytest.mark.slow)])
def test_tuners_act_in_each_fit(tmp_path, strategy):
    class Rated(Plain):
        def __init__(self):
            super().__init__()
            self.lr = 1e-2

    sizes = BatchSizeFinder(max_trials=2, steps_per_trial=1)
    rates = LearningRateFinder(num_training_steps=3)
    trainer = partial(LOUD, callbacks=[sizes, rates], max_epochs=2)
    loop = loop_of(Rated(), trainer=trainer, run_dir=tmp_path, strategy=strategy)
    assert len(loop.run()) == 3


def test_verbose_checkpoints_and_a_users_news_come_through(tmp_path, caplog):
    class Tells(Callback):
        def on_fit_start(self, trainer, pl_module):
            rank_zero_info("the user has news")

    checkpoint = {"monitor": "train_loss", "verbose": True, "mode": "max"}
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        trainer = partial(LOUD, callbacks=[Tells(), ModelCheckpoint(tmp_path, **checkpoint)])
        loop_of(trainer=trainer, num_cycles=1).run()
    told = [record.getMessage() for record in caplog.records]
    assert "the user has news" in told
    assert any("'train_loss' reached" in one for one in told)


def test_a_logger_that_cannot_be_made_anew_is_named_before_training(tmp_path):
    made = []

    class Once(CSVLogger):
        def __init__(self):
            if made:
                raise RuntimeError("the experiment exists")
            made.append(self)
            super().__init__(tmp_path)

    def trainer(**given):
        return L.Trainer(**{**given, "logger": Once()})

    with pytest.raises(ValueError, match=r"second call failed: the experiment exists; make what"):
        loop_of(trainer=trainer)


def test_parts_of_the_other_package_are_named():
    foreign = type("Stops", (Callback,), {"__module__": "pytorch_lightning.callbacks"})
    with pytest.raises(TypeError, match="found Stops of pytorch_lightning; import them from"):
        loop_of(trainer=partial(LOUD, callbacks=[foreign()]))


BARE = partial(L.Trainer, barebones=True)


@pytest.mark.parametrize("make", [BARE, lambda: BARE()])
def test_a_trainer_that_logs_nothing_is_refused(make):
    with pytest.raises(ValueError, match="found barebones=True, which turns them off; leave it"):
        loop_of(trainer=make)


# ---- checkpoints ---------------------------------------------------------------------------------


class Vocabulary:
    words = ()


@pytest.mark.parametrize(
    ("added", "found"),
    [
        (np.float64(1.5), r"'mine' \(float64\)"),
        ({"good": 1, "bad": np.int64(3)}, r"'mine'\['bad'\]"),
        (Vocabulary(), r"'mine' \(Vocabulary\)"),
        ([torch.zeros(2), {"deep": np.zeros(2)}], r"'mine' \(list\)"),
    ],
)
def test_a_checkpoint_that_could_not_be_read_is_refused_when_it_is_written(tmp_path, added, found):
    class Saves(Plain):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["mine"] = added

    class Mended(Plain):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["mine"] = {"mean": 1.5, "words": ["a"], "sums": torch.zeros(2)}

    with pytest.raises(ValueError, match=rf"tensors and plain Python values.*found {found}"):
        loop_of(Saves(), run_dir=tmp_path).run()
    assert events(tmp_path) == [("start", None)]
    unlock(tmp_path)
    assert len(resume(tmp_path, Mended()).run()) == 3


def test_what_others_keep_in_a_checkpoint_is_looked_at_too(tmp_path):
    class Keeps(Callback):
        def state_dict(self):
            return {"best": np.float32(1)}

    with pytest.raises(ValueError, match=r"found 'callbacks'\[.*Keeps.*'\] that is not"):
        loop_of(run_dir=tmp_path, trainer=partial(LOUD, callbacks=[Keeps()])).run()


class KilledError(Exception):
    pass


class DiesBefore(Callback):
    at = None

    def on_train_epoch_start(self, trainer, pl_module):
        if DiesBefore.at == trainer.current_epoch:
            DiesBefore.at = None
            raise KilledError


class WithBackbone(Plain):
    def __init__(self):
        super().__init__()
        self.backbone = self.net[0]

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.05)


def test_a_fit_that_unfreezes_goes_on_to_the_same_end(tmp_path):
    def unfreezes(**given):
        tunes = BackboneFinetuning(1, backbone_initial_ratio_lr=1.0)
        saves = ModelCheckpoint(save_last=True)
        return LOUD(**{**given, "max_epochs": 4, "callbacks": [tunes, saves, DiesBefore()]})

    def end(run_dir, at):
        DiesBefore.at = at
        loop = loop_of(WithBackbone(), run_dir=run_dir, trainer=unfreezes, num_cycles=2)
        try:
            results = loop.run()
        except KilledError:
            unlock(run_dir)
            loop = resume(run_dir, WithBackbone(), trainer=unfreezes)
            results = loop.run()
        return weights(loop.model), asked(results)

    expected, queries = end(tmp_path / "whole", None)
    for epoch in (1, 2, 3):
        found, found_queries = end(tmp_path / str(epoch), epoch)
        assert torch.equal(found, expected), epoch
        assert found_queries == queries


# ---- random state --------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [isolated, partial(seeded, 3, "test")])
def test_the_global_generators_are_put_back_also_after_an_error(block):
    def state():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = state()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError), block():
        sum(state()) / 0
    assert state() == expected


def test_a_failed_step_of_a_run_leaves_the_generators_alone():
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            torch.rand(3)
            raise ZeroDivisionError

    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        loop_of(Fails()).run()
    assert torch.equal(torch.get_rng_state(), before)
