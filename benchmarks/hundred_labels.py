"""A hundred labels on MNIST: features without labels, a good choice, and the pool in training.

A small CNN begins with self-supervised weights (self_supervised.py) and learns by FixMatch from its
labels and all other images: confident classes of weakly changed images, told by a running mean of
the weights, are the labels of strongly changed ones; their shares are aligned to equal ones
(Berthelot et al. 2020, arXiv:1911.09785). Chosen: 40 labels by ``max_herding``, then 15 a cycle by
``uncertainty_herding``. Random: the same with random rows. Tuned on 10,000 validation rows. The
promise: at least .9900 with 100 chosen labels.

python benchmarks/hundred_labels.py          # three seeds, about 50 minutes on two cores
"""

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from common import RESULTS, ROOT, Record, SavedRuns, arguments, header, numbers, verdict
from self_supervised import NUM_FEATURES, Encoder, learned_encoder
from torch import Tensor, nn

from al_lightning import ActiveLearningLoop, ActiveMNISTDataModule
from al_lightning.acquisition import max_herding
from al_lightning.mnist.augment import random_affine
from al_lightning.mnist.unlabeled import pseudo_label_loss, strongly_changed
from al_lightning.statistics import mean_interval
from al_lightning.training.trainers import quiet

STRATEGIES = {"chosen": "uncertainty_herding", "random": "random"}
FIRST, MORE, CYCLES = 40, 15, 5
KEPT = 0.99
THRESHOLD = 0.9


class SemiSupervised(L.LightningModule):
    """Predicts by a running mean of the weights that it trains."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        head = [nn.ReLU(), nn.Dropout(0.3), nn.Linear(NUM_FEATURES, 10)]
        self.network = nn.Sequential(copy.deepcopy(encoder), *head)
        self.mean = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("shares", torch.full((10,), 0.1))
        self.register_buffer("steps", torch.tensor(0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch["labeled"]
        others = batch["unlabeled"]
        beliefs = self.mean.eval()(random_affine(others)).softmax(1)
        self.shares.mul_(KEPT).add_((1 - KEPT) * beliefs.mean(0))
        beliefs = beliefs / self.shares
        beliefs = beliefs / beliefs.sum(1, keepdim=True)
        logits = self.network(strongly_changed(torch.cat([x, others])))
        loss = F.cross_entropy(logits[: len(x)], y)
        share = min(1.0, float(self.steps) / 200)
        return loss + share * pseudo_label_loss(logits[len(x) :], beliefs, THRESHOLD)

    def on_train_batch_end(self, *args: Any) -> None:
        self.steps += 1
        kept = min(KEPT, float(self.steps / (9 + self.steps)))
        states = self.mean.state_dict().values(), self.network.state_dict().values()
        for mean, new in zip(*states, strict=True):
            mean.copy_(mean.lerp(new, 1 - kept) if mean.is_floating_point() else new)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._log_accuracy("val_acc", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._log_accuracy("test_acc", batch)

    def _log_accuracy(self, name: str, batch: Any) -> None:
        right = (self.mean(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log(name, right, batch_size=len(batch[1]))

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        embedding = self.mean[:2](batch[0])
        return {"probs": self.mean[2:](embedding).softmax(1), "embedding": embedding}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=2e-3, weight_decay=1e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="in a cycle")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data")
    parser.add_argument("--encoder", type=Path, help="file of its weights; made if it is missing")
    parser.add_argument("--output", type=Path, default=RESULTS / "hundred_labels.json")
    args = parser.parse_args()
    print(header(), flush=True)
    source = ActiveMNISTDataModule(args.data_dir)
    source.ensure_read()
    images = source.sets.train
    with tempfile.TemporaryDirectory() as folder, quiet():
        encoder = learned_encoder(images, args.encoder or Path(folder) / "encoder.pt")
        with torch.inference_mode():
            parts = torch.arange(len(images)).split(1000)
            features = torch.cat([encoder(images.__getitems__(part.tolist())[0]) for part in parts])
    saved = SavedRuns(args.output, steps=args.steps)
    for seed in args.seeds:
        for name in STRATEGIES:
            if f"{name} {seed}" not in saved.runs:
                with quiet():
                    saved.save(f"{name} {seed}", run(name, seed, args, encoder, features))
                print(name, seed, saved.runs[f"{name} {seed}"], flush=True)
    report({n: [saved.runs[f"{n} {seed}"] for seed in args.seeds] for n in STRATEGIES})


def run(name: str, seed: int, args: Any, encoder: Encoder, features: Tensor) -> Record:
    """Return accuracies by number of labels."""
    shared: dict[str, Any] = {"data_dir": args.data_dir, "val_size": 10_000, "seed": seed}
    shared |= {"batch_size": 64, "unlabeled_batch_size": 256, "steps_per_epoch": args.steps}
    data = ActiveMNISTDataModule(initial_labeled_size=FIRST, eval_batch_size=1000, **shared)
    data.ensure_read()
    if name == "chosen":
        rows = torch.cat([data.labeled_indices, data.unlabeled_indices]).msort()
        first = rows[max_herding(features[rows], features[:0], FIRST)].msort()
        data.load_state_dict({**data.state_dict(), "labeled_indices": first})
    trainer = partial(
        L.Trainer,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loop = ActiveLearningLoop(
        partial(SemiSupervised, encoder),
        data,
        trainer=trainer,
        strategy=STRATEGIES[name],
        acquisition_size=MORE,
        num_cycles=CYCLES,
        warm_start=True,
        seed=seed,
        monitors=[],
    )
    results = loop.run()
    return {
        metric: {str(one.num_labeled): round(one.metrics[metric], 4) for one in results}
        for metric in ("val_acc", "test_acc")
    }


def report(runs: dict[str, list[Record]]) -> None:
    """Mean test accuracy with 100 labels, and the promise."""
    last = str(FIRST + MORE * (CYCLES - 1))
    means = {n: mean_interval([one["test_acc"][last] for one in runs[n]]) for n in runs}
    for name, found in means.items():
        print(f"{name}, {last} labels: {found.mean:.4f} ({found.low:.4f} to {found.high:.4f})")
    print(f"chosen  {verdict(means['chosen'].mean, at_least=0.99)}")


if __name__ == "__main__":
    main()
