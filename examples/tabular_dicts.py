"""A table made active, in dict batches: which machines are worth a look by the mechanic?

    python examples/tabular_dicts.py
    python examples/tabular_dicts.py --strategy random --run_dir runs/machines_random

A row holds eight sensor readings, the kind of machine, and its state: fine, worn or failing. Four
of five machines are fine, so the first rows are drawn in equal numbers from each state, and the
accuracy is the mean over the states. The table is generated, so there is nothing to download.
"""

from datetime import datetime
from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from al_lightning import ActiveDataModule, ActiveLearningLoop

NUM_KINDS, NUM_STATES, NUM_SENSORS = 5, 3, 8


def machines(num_rows, seed=0):
    """Return the rows as dicts; a list is a data set already."""
    draw = torch.Generator().manual_seed(seed)
    kind = torch.randint(NUM_KINDS, (num_rows,), generator=draw)
    state = torch.multinomial(torch.tensor([0.8, 0.12, 0.08]), num_rows, True, generator=draw)
    # Each kind wears in its own way.
    typical = 1.2 * torch.randn(NUM_KINDS, NUM_STATES, NUM_SENSORS, generator=draw)
    x = typical[kind, state] + torch.randn(num_rows, NUM_SENSORS, generator=draw)
    return [{"x": x[i], "kind": kind[i], "label": state[i]} for i in range(num_rows)]


class LitMLP(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.kinds = nn.Embedding(NUM_KINDS, 4)
        self.hidden = nn.Sequential(nn.Linear(NUM_SENSORS + 4, 64), nn.ReLU(), nn.Dropout(0.2))
        self.states = nn.Linear(64, NUM_STATES)
        self.accuracy = MulticlassAccuracy(NUM_STATES)

    def forward(self, batch):
        return self.states(self.hidden(torch.cat([batch["x"], self.kinds(batch["kind"])], -1)))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch), batch["label"])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.accuracy(self(batch), batch["label"])
        self.log("test_acc", self.accuracy)

    def predict_step(self, batch, batch_idx):
        return {"probs": self(batch).softmax(-1)}

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main(strategy: str = "margin", num_cycles: int = 6, run_dir: str = ""):
    L.seed_everything(42)
    rows = machines(6000)
    data = ActiveDataModule(
        rows[:3000], test_set=rows[3000:], initial_labeled_size=30, initial_sampling="balanced"
    )
    loop = ActiveLearningLoop(
        LitMLP(),
        data,
        trainer=partial(L.Trainer, max_epochs=40, enable_progress_bar=False),
        strategy=strategy,
        acquisition_size=30,
        num_cycles=num_cycles,
        run_dir=run_dir or f"runs/machines/{datetime.now():%Y-%m-%d_%H-%M-%S}",
    )
    loop.run()


if __name__ == "__main__":
    CLI(main)
