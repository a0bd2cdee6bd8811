"""A folder of images without labels: a small CNN asks a person for the labels it learns most from.

    python examples/label_folder.py --data.folder photos --data.classes '[cat, dog]'

Only the last twenty lines know of active learning: they make the command line.
"""

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn

from al_lightning import ActiveCLI, ActiveImageDataModule


class LitImages(L.LightningModule):
    """Classifies images of any size: some convolutions, then the maximum of each feature.

    With a hundred labels this learns already; an average over the image does not.
    """

    def __init__(self, classes: list[str], lr: float = 2e-3, dropout: float = 0.3):
        super().__init__()
        self.save_hyperparameters()  # a checkpoint knows the names of its classes
        layers = [nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU()]
        for num_in, num_out in ((32, 64), (64, 128)):
            layers += [nn.Conv2d(num_in, num_out, 3, padding=1), nn.BatchNorm2d(num_out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(128, len(classes)))

    def forward(self, images):
        return self.head(self.features(images))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        images, labels = batch
        accuracy = (self(images).argmax(-1) == labels).float().mean()
        self.log("test_acc", accuracy, batch_size=len(labels))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


class LabelCLI(ActiveCLI):
    def add_arguments_to_parser(self, parser):
        super().add_arguments_to_parser(parser)
        # The data module knows the classes, and the model gets them from it.
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.set_defaults(
            {
                "trainer.max_epochs": 40,
                "active.oracle": "files",  # people
                "active.strategy": "margin",
                "active.acquisition_size": 20,
                "active.num_cycles": 5,
            }
        )


if __name__ == "__main__":
    LabelCLI(LitImages, ActiveImageDataModule, runs_dir="runs/folder")
