"""Loaders: batches that training can use, own collation, and subclasses that override a hook."""

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate
from toys import TRAINER, Plain, asked, loop_of, points, points_data

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.data.loaders import training_batch_size
from al_lightning.run.lock import unlock


def sizes(data):
    return [len(batch[0]) for batch in data.train_dataloader()]


@given(num_rows=st.integers(1, 400), batch_size=st.integers(1, 40))
def test_no_batch_of_one_row_where_it_can_be_avoided(num_rows, batch_size):
    size = training_batch_size(num_rows, batch_size)
    last = num_rows % size or min(size, num_rows)
    assert 1 <= size <= batch_size + 1
    if num_rows % batch_size != 1:
        assert size == batch_size
    if last == 1:
        others = range(2, batch_size + 2)
        assert batch_size == 1 or num_rows == 1 or all(num_rows % s == 1 for s in others)


@pytest.mark.parametrize("labeled", [65, 129, 33])
def test_every_row_is_served_once(labeled):
    data = points_data(200, initial_labeled_size=labeled, batch_size=32)
    assert sum(sizes(data)) == labeled
    assert min(sizes(data)) > 1


class Normed(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.net(self.norm(x))


def test_batch_norm_trains_at_one_row_more_than_a_batch(tmp_path):
    arguments = {"initial_labeled_size": 16, "batch_size": 16}
    arguments = {"data": points_data(**arguments), "acquisition_size": 1}
    assert len(loop_of(Normed(), run_dir=tmp_path, **arguments).run()) == 3


def test_drop_last_is_for_training_alone():
    data = points_data(100, initial_labeled_size=20, batch_size=16, loader={"drop_last": True})
    assert sizes(data) == [16]
    assert sum(len(batch[0]) for batch in data.predict_dataloader()) == 80
    assert sum(len(batch[0]) for batch in data.test_dataloader()) == 50
    few = points_data(100, initial_labeled_size=7, batch_size=16, loader={"drop_last": True})
    assert sizes(few) == [7]


def test_a_loader_takes_other_arguments():
    data = points_data(loader={"pin_memory": False, "timeout": 3}, num_workers=1)
    loaders = [data.train_dataloader(), data.predict_dataloader(), data.test_dataloader()]
    assert [loader.timeout for loader in loaders] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": True}, "must not hold 'shuffle', which the split decides"),
        ({"num_workers": 1}, "must not hold 'num_workers'; it is an argument of its own"),
        ({"pinmemory": True}, "got 'pinmemory'; did you mean 'pin_memory'"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        points_data(loader=options)


# ---- collation -----------------------------------------------------------------------------------


def doubled(items):
    x, y = default_collate(items)
    return 2 * x, y


def test_trainings_collation_is_not_that_of_the_rest():
    rows = points(60)
    data = ActiveDataModule(
        rows, val_set=rows, test_set=rows, initial_labeled_size=20, collate_fn=doubled
    )
    x = rows.tensors[0]
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert torch.equal(torch.cat([batch[0] for batch in loader]), x)
    pool = torch.cat([batch[0] for batch in data.predict_dataloader()])
    assert torch.equal(pool, x[data.unlabeled_indices])
    (batch,) = data.train_dataloader()
    assert torch.equal(batch[0].sort(0)[0], (2 * x[data.labeled_indices]).sort(0)[0])


class Ragged(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((1 + index % 3, 4), 1.0 + index / 100), index % 3


def padded(items):
    x, y = zip(*items, strict=True)
    return nn.utils.rnn.pad_sequence(x, batch_first=True).sum(1), torch.tensor(y)


def test_rows_that_need_a_collation_of_their_own_name_it_before_training():
    class Untrained(Plain):
        def on_fit_start(self):
            raise AssertionError("trained")

    arguments = {"initial_labeled_size": 20, "batch_size": 8, "collate_fn": padded}
    with pytest.raises(ValueError, match="give eval_collate_fn, which may be the same"):
        loop_of(Untrained(), ActiveDataModule(Ragged(), **arguments)).run()
    data = ActiveDataModule(Ragged(), **arguments, eval_collate_fn=padded)
    assert len(loop_of(data=data, acquisition_size=5, num_cycles=2).run()) == 2


# ---- hooks of a subclass -------------------------------------------------------------------------


def subclass(**hooks):
    kind = type("Mine", (ActiveDataModule,), hooks)
    return kind(points(120), initial_labeled_size=20, batch_size=16)


def test_a_subclass_may_override_setup_and_the_training_loader():
    def setup(self, stage):
        ActiveDataModule.setup(self, stage)
        self.was_set_up = True

    def combined(self):
        return CombinedLoader([ActiveDataModule.train_dataloader(self)], "max_size")

    class OnLists(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[0], batch_idx)

    data = subclass(setup=setup)
    assert len(loop_of(data=data).run()) == 3
    assert data.was_set_up
    assert len(loop_of(OnLists(), subclass(train_dataloader=combined)).run()) == 3
    ordinary = subclass(
        train_dataloader=lambda self: DataLoader(points(20), 8),
        predict_dataloader=lambda self: ActiveDataModule.predict_dataloader(self),
    )
    assert len(loop_of(data=ordinary).run()) == 3


def test_setup_must_split_the_data():
    class Own(ActiveDataModule):
        def setup(self, stage=None):
            self.train_set = points(120)

    with pytest.raises(ValueError, match=r"Own.setup must split the data; call super\(\).setup"):
        loop_of(data=Own(initial_labeled_size=20)).run()


@pytest.mark.parametrize(
    "loader",
    [
        lambda self: DataLoader(points(120), batch_size=16),
        lambda self: [ActiveDataModule.predict_dataloader(self)] * 2,
        lambda self: CombinedLoader([ActiveDataModule.predict_dataloader(self)], "sequential"),
    ],
)
def test_other_rows_in_the_prediction_are_refused(loader):
    with pytest.raises(ValueError, match="predict_dataloader must serve the rows that it is asked"):
        loop_of(data=subclass(predict_dataloader=loader)).run()


# ---- the split of a run --------------------------------------------------------------------------


def test_a_tested_old_checkpoint_takes_no_labels_back(tmp_path):
    data = points_data()
    loop = loop_of(data=data, run_dir=tmp_path, num_cycles=4)
    for _ in range(2):
        loop.tell(loop.ask().indices)
    whole = asked(loop_of(num_cycles=4).run())
    old = tmp_path / "cycle_1" / "weights.ckpt"
    with pytest.warns(UserWarning, match="saved with 20 labeled rows; the split stays .* 50 label"):
        TRAINER().test(Plain(), datamodule=data, ckpt_path=old, verbose=False)
    assert data.num_labeled == 50
    assert asked(loop.run()) == whole
    with_old = TRAINER()
    with_old.test(Plain(), datamodule=data, ckpt_path=old, verbose=False)
    assert data.num_labeled == 20  # the run is over: the data are the user's again


def test_labels_by_hand_are_refused_while_a_run_is_on(tmp_path):
    data = points_data()
    data.label([int(data.unlabeled_indices[0])])
    loop = loop_of(data=data, run_dir=tmp_path, num_cycles=2)
    query = loop.ask()
    row = int(data.unlabeled_indices[0])
    for act in (data.label, data.skip, data.mark_invalid):
        with pytest.raises(ValueError, match="labels of a run must come through it, .* use tell"):
            act([row])
    loop.tell(query.indices)
    loop.run()
    data.label([int(data.unlabeled_indices[0])])
    del loop
    other = points_data()
    loop = loop_of(data=other)
    loop.ask()
    del loop
    other.label([int(other.unlabeled_indices[0])])


def test_ask_holds_the_split_against_the_journal():
    loop = loop_of()
    loop.tell(loop.ask().indices)
    loop.data.pool.label([int(loop.data.unlabeled_indices[0])])
    with pytest.raises(ValueError, match="found 36 labeled rows against 35"):
        loop.ask()


def test_one_data_module_may_serve_the_next_run_and_its_resume(tmp_path):
    data = points_data()
    loop = loop_of(data=data, run_dir=tmp_path)
    loop.tell(loop.ask().indices)
    unlock(tmp_path)
    again = ActiveLearningLoop.resume(tmp_path, Plain(), data, trainer=TRAINER, monitors=[])
    assert asked(again.run()) == asked(loop_of().run())


def test_a_split_that_was_loaded_in_inference_mode_can_be_labeled():
    data = points_data()
    with torch.inference_mode():
        data.load_state_dict(points_data().state_dict())
    data.label([int(data.unlabeled_indices[0])])
    assert data.num_labeled == 21


# ---- prepare_data --------------------------------------------------------------------------------


@pytest.mark.slow
def test_data_is_prepared_once_a_node(tmp_path):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parent / "prepare_run.py"
    by_torchrun = [*("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}")]
    for name, command in (("torchrun", by_torchrun), ("children", [])):
        folder = tmp_path / name
        folder.mkdir()
        given = [*command, str(script), str(folder), "2"]
        done = subprocess.run(
            [sys.executable, *given],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        before = [path.name for path in folder.glob("before_training_*")]
        assert sum(name.endswith("_1") for name in before) >= 1
        assert len(before) == 2


def test_one_process_prepares_by_itself():
    calls = []
    data = subclass(prepare_data=lambda self: calls.append(1))
    data._row_labels, sets = None, data.sets
    data.load_sets = lambda: sets
    trainer = partial(L.Trainer, logger=False, enable_checkpointing=False)()
    data.ensure_read(trainer)
    data.ensure_read(trainer)
    assert calls == [1]


# ---- pinned memory -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "loader", "pinned"),
    [
        ("cuda", None, True),
        ("cpu", None, False),
        ("cuda", {"pin_memory": False}, False),
        ("cpu", {"pin_memory": True}, True),
    ],
)
def test_memory_is_pinned_on_a_gpu_unless_said_otherwise(monkeypatch, device, loader, pinned):
    data = points_data(val_set=points(20), loader=loader)
    assert data.predict_dataloader().pin_memory == bool(loader and loader["pin_memory"])
    data.trainer = TRAINER()
    monkeypatch.setattr(type(data.trainer.strategy), "root_device", torch.device(device))
    makes = (data.train_dataloader, data.val_dataloader, data.test_dataloader)
    loaders = [make() for make in (*makes, data.predict_dataloader)]
    assert [one.pin_memory for one in loaders] == [pinned] * 4
