"""Curves by number of labels go to the loggers of the user's Trainer too, each point once."""

import csv
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import Plain, loop_of, points_data

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.monitor import Loggers, default_monitors


class Remembers(Logger):
    """Keeps what is logged by number of labels."""

    def __init__(self):
        self.active, self.tables, self.images, self.saves = [], [], [], 0

    name = version = "remembers"
    experiment = None

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if "active/num_labeled" in metrics:
            self.active.append((step, dict(metrics)))

    def save(self):
        self.saves += 1

    def log_table(self, key, columns, data, step=None):
        self.tables.append((key, step, columns, data))

    def log_image(self, key, images, step=None):
        self.images.append((key, step, images))


def trainer(*loggers):
    how = {"max_epochs": 1, "enable_progress_bar": False, "enable_checkpointing": False}
    return partial(L.Trainer, logger=list(loggers), accelerator="cpu", **how)


def run(*loggers, **arguments):
    loop = loop_of(trainer=trainer(*loggers), **arguments)
    loop.monitors = [Loggers()]
    return loop, loop.run()


@pytest.mark.parametrize("folder", [False, True])
def test_each_metric_of_each_cycle_by_number_of_labels(tmp_path, folder):
    one, other = Remembers(), Remembers()
    loop, results = run(one, other, run_dir=tmp_path / "run" if folder else None)
    assert loop.loggers == [one, other]
    for logger in (one, other):
        assert [step for step, _ in logger.active] == [20, 35, 50]
        for (step, metrics), result in zip(logger.active, results):
            assert metrics.pop("active/num_labeled") == step
            assert metrics == {f"active/{n}": v for n, v in result.metrics.items()}


def test_without_a_folder_and_without_monitors_they_are_told_too():
    logger = Remembers()
    loop_of(trainer=trainer(logger)).run()  # monitors=[] in loop_of
    assert logger.active == []
    ActiveLearningLoop(
        Plain(), points_data(), trainer=trainer(logger), acquisition_size=15, num_cycles=2
    ).run()
    assert [step for step, _ in logger.active] == [20, 35]
    assert any(isinstance(one, Loggers) for one in default_monitors())


def test_tables_and_pictures_of_queries():
    logger = Remembers()
    pictures = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3

    class Net(Plain):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))

    data = ActiveDataModule(
        torch.utils.data.TensorDataset(pictures, labels), initial_labeled_size=20
    )
    _, (first, *_) = run(logger, model=Net(), data=data, num_cycles=2)
    ((key, step, columns, rows),) = logger.tables
    assert (key, step, columns) == (
        "active/queries_table",
        20,
        ["index", "score", "predicted", "label"],
    )
    assert [int(row[0]) for row in rows] == first.query.indices
    assert [int(row[3]) for row in rows] == labels[first.query.indices].tolist()
    ((key, step, (picture,)),) = logger.images
    assert (key, step, picture.mode) == ("active/queries", 20, "RGB")
    assert min(picture.size) > 100


def test_a_resumed_run_logs_what_is_missing_and_nothing_twice(tmp_path):
    logger = Remembers()
    loop = loop_of(trainer=trainer(logger), run_dir=tmp_path)
    loop.monitors = [Loggers()]
    loop.tell(loop.ask().indices)
    loop.ask()
    loop._run.release()
    notes = tmp_path / ".loggers.jsonl"
    lines = notes.read_text().splitlines(keepends=True)
    notes.write_text("".join(lines[:-1]))  # killed before the last point was logged
    again = Remembers()
    ActiveLearningLoop.resume(
        tmp_path, Plain(), points_data(), trainer=trainer(again), monitors=[Loggers()]
    ).run()
    assert [step for step, _ in logger.active] == [20, 35]
    assert [step for step, _ in again.active] == [35, 50]
    assert [step for _, step, *_ in logger.tables + again.tables] == [20, 35]


def test_tensorboard_and_csv_files_hold_the_curves(tmp_path):
    board = TensorBoardLogger(tmp_path, "board", 0)
    table = CSVLogger(tmp_path, "table", 0)
    _, results = run(board, table)
    # A file a cycle; two that are begun in one second need not be in the order of their names.
    files = [EventAccumulator(str(path)).Reload() for path in (tmp_path / "board").rglob("events*")]
    tag = "active/test_acc"
    found = [event for f in files if tag in f.Tags()["scalars"] for event in f.Scalars(tag)]
    points = sorted((event.step, event.value) for event in found)
    expected = [(r.num_labeled, pytest.approx(r.metrics["test_acc"])) for r in results]
    assert points == expected
    tag = "active/queries/text_summary"
    texts = [event for f in files if tag in f.Tags()["tensors"] for event in f.Tensors(tag)]
    assert sorted(event.step for event in texts) == [20, 35]
    text = texts[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[0] == "|index|score|predicted|label|"
    with open(tmp_path / "table" / "version_0" / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["active/test_acc"]]
    assert [(int(row["step"]), float(row["active/test_acc"])) for row in rows] == expected
