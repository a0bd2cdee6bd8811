"""``ActiveMNISTDataModule`` on small files and on the real ones."""

import lightning as L
import numpy as np
import pytest
import torch
from tiny_mnist import write_tiny_mnist
from torchvision.datasets import MNIST
from torchvision.transforms.v2.functional import pil_to_tensor

from al_lightning import ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist import datamodule as mnist_datamodule


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A data folder with small files, taken as they are."""
    write_tiny_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setattr(
        mnist_datamodule, "ensure_mnist", lambda data_dir: data_dir / "MNIST" / "raw"
    )
    return tmp_path


def test_batches_are_what_totensor_gives(tiny):
    data = ActiveMNISTDataModule(tiny, initial_labeled_size=20, batch_size=8)
    data.prepare_data()
    data.setup()
    x, y = next(iter(data.predict_dataloader()))
    assert (x.shape, x.dtype, y.dtype) == ((8, 1, 28, 28), torch.float32, torch.int64)
    assert 0 <= x.min() < x.max() <= 1
    for image, label, index in zip(x, y, data.unlabeled_indices[:8].tolist(), strict=True):
        single, digit = data.sets.pool[index]
        assert torch.equal(image, single)
        assert int(label) == digit


def test_setup_splits_once(tiny):
    data = ActiveMNISTDataModule(tiny, initial_labeled_size=20)
    for stage in ("fit", "test", "predict"):
        data.prepare_data()
        data.setup(stage)
        data.label([int(data.unlabeled_indices[0])])
    assert data.num_labeled == 23


def test_balanced_and_held_out_rows(tiny):
    data = ActiveMNISTDataModule(
        tiny, initial_labeled_size=20, initial_sampling="balanced", val_size=30
    )
    data.setup()
    labels = data.labels_of(data.labeled_indices.tolist())
    assert sorted(labels) == sorted([*range(10)] * 2)
    assert (data.num_unlabeled, len(data.val_dataloader().dataset)) == (250, 30)


def test_the_split_is_in_lightnings_checkpoints(tiny):
    data = ActiveMNISTDataModule(tiny, initial_labeled_size=20, val_size=10)
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=tiny
    )
    trainer.fit(LitSimpleCNN(), datamodule=data)
    path = trainer.checkpoint_callback.best_model_path
    checkpoint = torch.load(path, weights_only=True)
    state = checkpoint["ActiveMNISTDataModule"]
    assert torch.equal(state["labeled_indices"], data.labeled_indices)


def test_evaluation_batches_fit_the_device(tiny):
    data = ActiveMNISTDataModule(tiny, batch_size=32, initial_labeled_size=20)
    data.setup()
    assert data.eval_batch_size == 32
    data.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup()
    assert data.eval_batch_size == 128
    chosen = ActiveMNISTDataModule(tiny, eval_batch_size=7, initial_labeled_size=20)
    chosen.trainer = L.Trainer(logger=False, enable_checkpointing=False)
    chosen.setup()
    assert chosen.eval_batch_size == 7


def test_real_images_are_torchvisions_and_the_split_the_tutorials(mnist_dir):
    data = ActiveMNISTDataModule(mnist_dir)
    data.prepare_data()
    data.setup()
    theirs = MNIST(mnist_dir, train=True)
    assert len(theirs) == 60_000
    for index in (0, 12_345, 59_999):
        image, digit = theirs[index]
        assert torch.equal(data.sets.train[index][0], pil_to_tensor(image) / 255)
        assert data.sets.train[index][1] == digit
    assert len(data.sets.test) == 10_000
    np.random.seed(42)
    order = np.arange(60_000)
    np.random.shuffle(order)
    assert data.labeled_indices.tolist() == sorted(order[:1000].tolist())


def test_fashion_mnist_has_its_own_files_and_names(tiny, monkeypatch):
    (tiny / "MNIST" / "raw").rename(tiny / "clothes")
    monkeypatch.setattr(mnist_datamodule, "ensure_fashion_mnist", lambda folder: folder / "clothes")
    data = ActiveMNISTDataModule(tiny, name="FashionMNIST", initial_labeled_size=20)
    data.prepare_data()
    data.setup()
    assert data.classes[:2] == ["T-shirt/top", "Trouser"]
    assert len(data.sets.test) == 60
    with pytest.raises(ValueError, match="name must be MNIST or FashionMNIST, got 'KMNIST'"):
        ActiveMNISTDataModule(tiny, name="KMNIST")
