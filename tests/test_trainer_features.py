"""Features of Lightning's Trainer, each in two cycles: it acts in both as it does in one fit.

``docs/projects.md`` lists them.
"""

from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.tuner import Tuner
from toys import Plain, asked, loop_of, points, points_data, weights

SIZES = (48, 63)
WITH = "callbacks"


class Validated(Plain):
    def __init__(self, lr=1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class ByHand(Validated):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.manual_backward(loss)
        optimizer.step()
        self.log("train_loss", loss, on_epoch=True)


class Watch(callbacks.Callback):
    """Notes what happens in each fit, in a place that copies of it share."""

    fits: list[dict] = []

    def on_fit_start(self, trainer, pl_module):
        self.fits.append({"rows": [], "dtype": next(pl_module.parameters()).dtype})

    def on_train_batch_end(self, trainer, pl_module, *args):
        norms = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
        self.fits[-1].setdefault("norms", []).append(float(torch.stack(norms).norm()))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.fits[-1]["rows"].append(batch[0].clone())

    def on_fit_end(self, trainer, pl_module):
        self.fits[-1] |= {"epochs": trainer.current_epoch, "steps": trainer.global_step}


def run(model=None, **trainer):
    """Two cycles; returns the loop, its results and what ``Watch`` saw in each fit."""
    Watch.fits.clear()
    how = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    how |= trainer
    how["callbacks"] = [*how.get("callbacks", []), Watch()]
    data = points_data(val_set=points(40, seed=3), initial_labeled_size=SIZES[0])
    make = partial(L.Trainer, **how)
    loop = loop_of(
        Validated() if model is None else model,
        data,
        trainer=make,
        num_cycles=2,
        strategy="margin",
        run_dir=None,
    )
    results = loop.run()
    assert [result.num_labeled for result in results] == [*SIZES]
    assert all(torch.tensor(r.metrics["test_acc"]) >= 0 for r in results)
    return loop, results, list(Watch.fits)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_early_stopping_stops_each_fit():
    stops = callbacks.EarlyStopping("val_loss", patience=1, mode="max")
    _, _, fits = run(max_epochs=50, callbacks=[stops])
    assert all(1 < fit["epochs"] < 10 for fit in fits)


def test_stochastic_weight_averaging_averages_in_each_fit():
    class Means(callbacks.StochasticWeightAveraging):
        averaged: list[int] = []

        def on_train_end(self, trainer, pl_module):
            self.averaged.append(int(self.n_averaged))
            super().on_train_end(trainer, pl_module)

    loop, _, _ = run(max_epochs=4, callbacks=[Means(swa_lrs=0.05, swa_epoch_start=1)])
    first, second = Means.averaged
    assert first == second > 1
    assert not torch.equal(weights(loop.model), weights(run(max_epochs=4)[0].model))


def test_a_learning_rate_monitor_logs_in_each_cycle(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    monitor = callbacks.LearningRateMonitor("epoch")
    _, results, _ = run(logger=logger, callbacks=[monitor], log_every_n_steps=1)
    table = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "lr-Adam" in table.splitlines()[0]
    assert all(result.metrics["lr-Adam"] == pytest.approx(1e-2) for result in results)


def test_gradients_are_clipped_and_accumulated_in_each_fit():
    plain, clipped = run()[2], run(gradient_clip_val=0.05)[2]
    assert max(plain[0]["norms"]) > 0.06
    assert all(max(fit["norms"]) <= 0.0501 for fit in clipped)
    accumulated = run(accumulate_grad_batches=2)[2]
    assert [fit["steps"] for fit in plain + accumulated] == [6, 8, 4, 4]


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({"max_steps": 5, "max_epochs": -1}, [5, 5]),
        ({"limit_train_batches": 2}, [4, 4]),
        ({"limit_train_batches": 0.67}, [4, 4]),
        ({"max_epochs": 1}, [3, 4]),
        (
            {"max_epochs": 5, "callbacks": [callbacks.GradientAccumulationScheduler({1: 3})]},
            [7, 12],
        ),
    ],
)
def test_each_fit_has_its_steps(trainer, steps):
    assert [fit["steps"] for fit in run(**trainer)[2]] == steps


def test_max_time_ends_each_fit():
    _, _, fits = run(max_time={"milliseconds": 300}, max_epochs=-1)
    assert all(fit["epochs"] > 1 for fit in fits)


def test_loaders_made_anew_each_epoch_serve_the_same_rows():
    plain = run(max_epochs=3)[2]
    anew = run(max_epochs=3, reload_dataloaders_every_n_epochs=1)[2]
    for one, other in zip(plain, anew):
        assert all(torch.equal(a, b) for a, b in zip(one["rows"], other["rows"], strict=True))


@pytest.mark.parametrize(
    "profiler",
    [
        "simple",
        lambda: SimpleProfiler(filename="report"),
        lambda: AdvancedProfiler(filename="report"),
        lambda: PyTorchProfiler(schedule=None),
    ],
)
def test_profilers(profiler, tmp_path):
    how = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}

    def trainer(**given):
        made = profiler if isinstance(profiler, str) else profiler()
        return L.Trainer(**{**given, **how, "profiler": made})

    assert len(loop_of(trainer=trainer, num_cycles=2).run()) == 2


@pytest.mark.parametrize("bar", [callbacks.RichProgressBar, callbacks.TQDMProgressBar])
def test_progress_bars(bar, capsys):
    run(callbacks=[bar()], enable_progress_bar=True)
    assert "Predicting" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_precision(precision, dtype):
    loop, results, fits = run(precision=precision)
    assert [fit["dtype"] for fit in fits] == [dtype] * 2
    assert results[0].query.scores != run()[1][0].query.scores
    assert all(0 <= score <= 1 for score in results[0].query.scores)


def test_deterministic():
    try:
        one, other = (run(deterministic=True)[1] for _ in range(2))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert asked(one) == asked(other)


def test_the_tuner_finds_a_learning_rate_before_the_first_fit():
    model = Validated(1e-6)
    data = points_data(val_set=points(40, seed=3), initial_labeled_size=48)
    trainer = partial(L.Trainer, max_epochs=2, logger=False, enable_progress_bar=False)
    before = weights(model)
    found = Tuner(trainer(max_epochs=-1)).lr_find(model, datamodule=data, num_training=60)
    assert model.lr == found.suggestion() != 1e-6
    assert torch.equal(weights(model), before)
    results = loop_of(model, data, trainer=trainer, num_cycles=2).run()
    assert [result.num_labeled for result in results] == [48, 63]
    assert model.lr == found.suggestion()


def test_optimization_by_hand():
    loop, _, fits = run(ByHand())
    assert [fit["steps"] for fit in fits] == [6, 8]
    assert not torch.equal(weights(loop.model), weights(Validated()))


@pytest.mark.filterwarnings("default")  # torch.compile has some of its own
@pytest.mark.parametrize("part", ["module", "layer"])
def test_compiled(part):
    model = Validated()
    if part == "layer":
        model.net = torch.compile(model.net, backend="eager")
    compiled = torch.compile(model, backend="eager") if part == "module" else model
    assert asked(run(compiled)[1]) == asked(run()[1])


@pytest.mark.parametrize("kind", ["csv", "tensorboard", "both", "default", "none"])
def test_loggers(kind, tmp_path):
    made = {
        "csv": [CSVLogger],
        "tensorboard": [TensorBoardLogger],
        "both": [CSVLogger, TensorBoardLogger],
    }
    loggers = [make(tmp_path / make.__name__) for make in made.get(kind, [])]
    logger = loggers or kind == "default"
    loop, results, _ = run(logger=logger)
    assert asked(results) == asked(run()[1])
    assert len(loop.loggers) == len(loggers) + (kind == "default")
    assert all(
        any(path.is_file() for path in (tmp_path / type(one).__name__).rglob("*"))
        for one in loggers
    )


@pytest.mark.parametrize(
    "trainer",
    [
        {"detect_anomaly": True},
        {"num_sanity_val_steps": 0},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 0.5},
        {"limit_val_batches": 1},
        {"callbacks": [callbacks.ModelSummary(2)], "enable_model_summary": True},
        {"callbacks": [callbacks.Timer("00:01:00:00")]},
        {"callbacks": [callbacks.ModelPruning("l1_unstructured", amount=0.2)]},
        {"callbacks": [callbacks.LearningRateFinder(num_training_steps=30)]},
        {"callbacks": [callbacks.LambdaCallback(on_fit_start=lambda trainer, module: None)]},
    ],
    ids=lambda trainer: " ".join([*trainer, *(type(o).__name__ for o in trainer.get(WITH, ()))]),
)
def test_others_do_not_stand_in_the_way(trainer):
    run(**trainer)


def test_a_run_that_would_leave_out_part_of_the_pool_is_refused():
    with pytest.raises(ValueError, match="found limit_predict_batches=1 .fast_dev_run sets it too"):
        run(fast_dev_run=True)
