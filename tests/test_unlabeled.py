"""Unlabeled rows in training: what is served, in which order, and what a module makes of it."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import Dataset, TensorDataset
from toys import QUIET, TRAINER, Plain, asked, loop_of, points_data, weights

from al_lightning import ActiveDataModule, ActiveLearningLoop, LitSimpleCNN
from al_lightning.mnist.datamodule import DigitImages
from al_lightning.mnist.unlabeled import pseudo_label_loss, strongly_changed
from al_lightning.training.trainers import quiet


def numbered(num_rows=30, **arguments):
    rows = TensorDataset(torch.arange(num_rows), torch.arange(num_rows) % 3)
    arguments = {"initial_indices": [3, 8, 20, 21, 29], "batch_size": 2, **arguments}
    return ActiveDataModule(rows, unlabeled_batch_size=4, **arguments)


def batches(data, epoch=0):
    loader = data.train_dataloader()
    for one in loader.flattened:
        one.sampler.set_epoch(epoch)
    return [batch for batch, _, _ in iter(loader)]


def test_an_epoch_has_as_many_unlabeled_batches_as_labeled_ones():
    data = numbered()
    assert isinstance(data.train_dataloader(), CombinedLoader)
    epoch = batches(data)
    labeled = torch.cat([batch["labeled"][0] for batch in epoch]).tolist()
    assert sorted(labeled) == [3, 8, 20, 21, 29]
    unlabeled = torch.cat([batch["unlabeled"] for batch in epoch]).tolist()
    assert len(unlabeled) == 4 * len(epoch)
    assert not set(unlabeled) & set(labeled)


def test_steps_per_epoch_says_how_many():
    epoch = batches(numbered(steps_per_epoch=7))
    assert [len(batch["labeled"][0]) for batch in epoch] == [2] * 7
    assert [len(batch["unlabeled"]) for batch in epoch] == [4] * 7
    rows = TensorDataset(torch.arange(30), torch.arange(30) % 3)
    alone = ActiveDataModule(rows, initial_indices=[1, 2], batch_size=2, steps_per_epoch=5)
    assert [len(x) for x, _ in alone.train_dataloader()] == [2] * 5


def test_orders_follow_from_seed_labels_and_epoch_alone():
    torch.manual_seed(0)
    one = batches(numbered(), epoch=3)
    torch.manual_seed(1)
    again, other = batches(numbered(), epoch=3), batches(numbered(), epoch=4)
    for key in ("labeled", "unlabeled"):
        whole = [
            torch.cat([_inputs(b[key]) for b in epoch]).tolist() for epoch in (one, again, other)
        ]
        assert whole[0] == whole[1] != whole[2]


def _inputs(batch):
    return batch[0] if isinstance(batch, list | tuple) else batch


class Records(Dataset):
    """Items of any form."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.make(index)


@pytest.mark.parametrize(
    ("make", "label_key", "expected"),
    [
        (lambda i: (torch.tensor(i), i % 2), None, torch.Tensor),
        (lambda i: {"x": torch.tensor(i), "label": i % 2}, None, {"x"}),
        (lambda i: (torch.tensor(i), "text", i % 2), 2, 2),
        (lambda i: torch.tensor(i), None, torch.Tensor),
    ],
    ids=["pair", "dict", "triple", "inputs"],
)
def test_labels_are_left_out_of_any_item(make, label_key, expected):
    data = ActiveDataModule(
        Records(make),
        initial_labels={0: 1, 5: 0},
        batch_size=2,
        unlabeled_batch_size=3,
        label_key=label_key,
    )
    data.label([7], [1])
    batch = next(iter(data.train_dataloader()))[0]["unlabeled"]
    if isinstance(expected, set):
        assert batch.keys() == expected
    elif isinstance(expected, int):
        assert len(batch) == expected
    else:
        assert isinstance(batch, expected)
        assert batch.shape == (3,)


def test_batches_that_the_data_set_collates_lose_their_labels():
    images = DigitImages(torch.zeros(20, 28, 28, dtype=torch.uint8), torch.arange(20) % 10)
    data = ActiveDataModule(images, initial_indices=[0, 1], batch_size=2, unlabeled_batch_size=3)
    batch = next(iter(data.train_dataloader()))[0]
    assert batch["unlabeled"].shape == (3, 1, 28, 28)
    assert [part.shape[0] for part in batch["labeled"]] == [2, 2]


def test_when_the_pool_is_empty_there_are_labeled_rows_alone():
    data = numbered(6, initial_indices=[0, 1, 2])
    data.label([3, 4, 5])
    (batch, *_) = batches(data)
    assert batch.keys() == {"labeled"}


def test_skipped_rows_help_and_invalid_and_held_out_rows_do_not():
    data = numbered(10, initial_indices=[0, 1], steps_per_epoch=60, val_size=2)
    free = sorted(set(data.unlabeled_indices.tolist()))
    data.skip(free[:1])
    data.mark_invalid(free[1:2])
    served = torch.cat([batch["unlabeled"] for batch in batches(data)])
    assert set(served.tolist()) == set(free) - set(free[1:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
        ({"unlabeled_batch_size": 0}, "unlabeled_batch_size must be at least 1"),
        ({"steps_per_epoch": 2, "epoch_size": 3}, "either epoch_size or steps_per_epoch, got both"),
    ],
)
def test_sizes_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        points_data(**arguments)


class Consistent(Plain):
    """The twenty lines that a user writes: agree on noisy copies of unlabeled rows."""

    def training_step(self, batch, batch_idx):
        x, y = batch["labeled"]
        loss = F.cross_entropy(self(x), y)
        others = batch.get("unlabeled")
        if others is not None:
            with torch.no_grad():
                beliefs = self(others).softmax(-1)
            noisy = others + 0.1 * torch.randn_like(others)
            loss = loss + pseudo_label_loss(self(noisy), beliefs, 0.9)
        self.log("train_loss", loss, on_epoch=True, batch_size=len(y))
        return loss


def semi(**arguments):
    return points_data(unlabeled_batch_size=8, steps_per_epoch=5, **arguments)


class Kills(Callback):
    def __init__(self, batch):
        self.batch = batch
        self.seen = 0

    def on_train_batch_start(self, *_):
        self.seen += 1
        if self.seen > self.batch:
            raise RuntimeError("killed")


def checkpointing(*callbacks):
    arguments = {**QUIET, "enable_checkpointing": True, "enable_model_summary": False}
    made = [ModelCheckpoint(every_n_epochs=1, save_last=True), *callbacks]
    return L.Trainer(callbacks=made, accelerator="cpu", max_epochs=3, **arguments)


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path, num_workers):
    def data():
        return semi(num_workers=num_workers)

    with quiet():
        whole = loop_of(Consistent(), data(), trainer=checkpointing, num_cycles=2)
        results = whole.run()
        with pytest.raises(RuntimeError, match="killed"):
            loop_of(
                Consistent(),
                data(),
                trainer=lambda: checkpointing(Kills(12)),
                num_cycles=2,
                run_dir=tmp_path,
            ).run()
        resumed = ActiveLearningLoop.resume(
            tmp_path, Consistent(), data(), trainer=checkpointing, monitors=[]
        )
        again = resumed.run()
    assert asked(again) == asked(results)
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_a_run_goes_on_under_the_same_sizes_alone(tmp_path):
    loop_of(Consistent(), semi(), run_dir=tmp_path).ask()
    with pytest.raises(ValueError, match="unlabeled_batch_size: began with 8, now 9"):
        ActiveLearningLoop.resume(
            tmp_path,
            Consistent(),
            points_data(unlabeled_batch_size=9, steps_per_epoch=5),
            trainer=TRAINER,
            monitors=[],
        )


def test_a_run_labels_its_whole_pool_away():
    with quiet():
        data = points_data(50, unlabeled_batch_size=8)
        results = loop_of(Consistent(), data, num_cycles=4).run()
    assert [result.num_labeled for result in results] == [20, 35, 50]


def test_pseudo_label_loss_is_that_of_its_definition():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator, requires_grad=True)
    beliefs = (3 * torch.randn(40, 5, generator=generator)).softmax(-1)
    loss = pseudo_label_loss(logits, beliefs, 0.8)
    terms = [
        F.cross_entropy(logits[i], beliefs[i].argmax()) if beliefs[i].max() >= 0.8 else 0.0
        for i in range(40)
    ]
    torch.testing.assert_close(loss, sum(terms) / 40)
    loss.backward()
    assert (logits.grad[beliefs.amax(1) < 0.8] == 0).all()


def test_strong_changes_erase_a_square_and_keep_the_rest():
    torch.manual_seed(0)
    changed = strongly_changed(torch.ones(200, 1, 28, 28))
    erased = (changed == 0).flatten(1).sum(1)
    assert (erased > 0).float().mean() > 0.9
    inner = (changed[:, :, 8:20, 8:20] == 0).flatten(1).sum(1)
    assert inner.max() == 100
    assert changed.shape == (200, 1, 28, 28)


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks")
@pytest.mark.parametrize("unlabeled", ["fixmatch", "pseudo_label"])
def test_the_module_learns_from_images_without_labels(unlabeled):
    """Bright and dark squares: two labels a class, and the others tell how they vary."""
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(60, 28, 28, generator=generator) * 60).to(torch.uint8)
    targets = torch.arange(60) % 2
    images[targets == 1, 8:20, 8:20] += 150
    rows = DigitImages(images, targets)
    data = ActiveDataModule(
        rows,
        test_set=rows,
        initial_indices=[0, 1, 2, 3],
        batch_size=4,
        unlabeled_batch_size=16,
        steps_per_epoch=20,
    )
    model = LitSimpleCNN(unlabeled=unlabeled, threshold=0.6, dropout=0.2)
    seen = []
    model.register_forward_pre_hook(
        lambda module, args: seen.append((len(args[0]), module.training))
    )
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **QUIET)
    with quiet():
        trainer.fit(model, datamodule=data)
        (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    assert metrics["test_acc"] > 0.95
    steps = [(16, False), (20, True)] if unlabeled == "fixmatch" else [(20, True)]
    assert seen[: 20 * len(steps)] == steps * 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unlabeled": "mixmatch"}, "unlabeled must be one of fixmatch, pseudo_label, got 'mixm"),
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\], got 1.5"),
    ],
)
def test_the_module_checks_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LitSimpleCNN(**arguments)
