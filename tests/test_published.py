"""The papers' networks, data and early stopping in ``benchmarks/``, which the tables come from."""

import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from tiny_mnist import write_tiny_mnist

from al_lightning import ActiveLearningLoop
from al_lightning.mnist import datamodule as mnist_datamodule
from al_lightning.training.trainers import quiet

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import paper_data
from paper_networks import BatchBALDNet, BestWeights, GalNet, early_stopping


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Makes a ``PaperMNIST`` of 300 small files, the last 40 of which validate."""
    write_tiny_mnist(tmp_path)
    monkeypatch.setattr(mnist_datamodule, "ensure_mnist", lambda data_dir: data_dir)
    monkeypatch.setattr(paper_data, "NUM_VALIDATION", 40)

    def make(**arguments):
        data = paper_data.PaperMNIST(tmp_path, **arguments)
        data.prepare_data()
        data.setup()
        return data

    return make


def test_two_of_each_digit_to_begin_with_and_validation_apart(digits):
    data = digits()
    assert len(data.pool.labeled_N) == 260
    labels = torch.tensor(data.labels_of(data.labeled_indices.tolist()))
    assert torch.bincount(labels, minlength=10).tolist() == [2] * 10
    held_out = data.sets.val.images_N1HW.flatten(1)
    assert len(held_out) == 40
    assert torch.cdist(held_out, data.sets.pool.images_N1HW.flatten(1)).min() > 1e-3
    assert sum(len(y) for _, y in data.train_dataloader()) == 5056


def test_copies_differ_by_the_noise_alone(digits):
    plain = digits(num_images=50).sets.pool
    noisy = digits(num_images=50, copies=5, noise=0.1, seed=1).sets.pool
    assert len(noisy) == 250
    noise = noisy.images_N1HW.view(5, 50, 28, 28) - plain.images_N1HW[:, 0]
    assert noise.std().item() == pytest.approx(0.1, rel=0.01)
    assert (noise[0] - noise[1]).std().item() == pytest.approx(0.1 * 2**0.5, rel=0.01)
    assert torch.equal(noisy.targets.view(5, 50), plain.targets.expand(5, 50))
    again = digits(num_images=50, copies=5, noise=0.1, seed=2).sets.pool
    assert torch.equal(again.images_N1HW, noisy.images_N1HW)  # the same data in every run


@pytest.mark.parametrize(
    ("network", "num_parameters"),
    # Counted from the papers' layers: kernels and biases of conv, conv, dense, dense.
    [
        (BatchBALDNet, 832 + 51_264 + 131_200 + 1_290),
        (GalNet, 544 + 16_416 + 495_744 + 1_290),
    ],
)
def test_networks_are_the_papers_and_take_part(digits, network, num_parameters):
    model = network()
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    data = digits(num_images=60)
    data.epoch_size = 64
    loop = ActiveLearningLoop(
        model,
        data,
        trainer=early_stopping,
        strategy="batchbald",
        acquisition_size=3,
        num_cycles=2,
        mc_samples=4,
    )
    assert [result.num_labeled for result in loop.run()] == [20, 23]


class Scripted(L.LightningModule):
    """Validates with given accuracies, and counts its epochs in its weight."""

    def __init__(self, accuracies):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.accuracies = accuracies

    def training_step(self, batch, batch_idx):
        return self.weight * 0

    def on_train_epoch_end(self):
        with torch.no_grad():
            self.weight += 1

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", self.accuracies[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_early_stopping_waits_three_epochs_and_gives_the_best_weights_back():
    model = Scripted([0.5, 0.8, 0.7, 0.8, 0.6, 0.9])
    trainer = early_stopping(logger=False, enable_model_summary=False, accelerator="cpu")
    loader = torch.utils.data.DataLoader(torch.zeros(4, 1))
    with quiet():
        trainer.fit(model, loader, loader)
    assert trainer.current_epoch == 5  # the fifth is the third without a better one than .8
    assert model.weight.item() == 1  # validation comes before the second epoch's end
    assert [type(c).__name__ for c in trainer.callbacks].count(BestWeights.__name__) == 1
