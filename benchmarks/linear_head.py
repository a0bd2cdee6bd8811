"""Ten to a hundred labels on MNIST: a linear head on features that were learned without labels.

The features come from self_supervised.py, and are cached once. Each strategy chooses its first ten
labels too, and ten more a cycle. A seed draws 5,000 validation rows, on which the width of the
kernel was tuned, the random choices, and the head. The promises: ``max_herding`` or
``uncertainty_herding`` beats random by at least .05 at 10 labels and .02 at 50.

python benchmarks/linear_head.py          # five seeds, about 12 minutes on two cores
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from common import RESULTS, ROOT, Record, SavedRuns, arguments, header, numbers, verdict
from self_supervised import NUM_FEATURES, learned_encoder
from torch import Tensor, nn

from al_lightning import ActiveDataModule, ActiveLearningLoop, ActiveMNISTDataModule, cache_features
from al_lightning.acquisition import max_herding, probcover, typiclust
from al_lightning.statistics import mean_interval
from al_lightning.training.trainers import quiet

STRATEGIES = ["random", "max_herding", "uncertainty_herding", "typiclust", "probcover"]
WIDTH = 0.5
SIZES = [10, 20, 50, 100]
TRAINER = partial(
    L.Trainer,
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)


class Head(L.LightningModule):
    """A linear layer on features of length 8."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NUM_FEATURES, 10)

    def forward(self, x_BD: Tensor) -> Tensor:
        return self.linear(8 * F.normalize(x_BD, dim=1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._log_accuracy("val_acc", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._log_accuracy("test_acc", batch)

    def _log_accuracy(self, name: str, batch: Any) -> None:
        right = (self(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log(name, right, batch_size=len(batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2, weight_decay=1e-3)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4])
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data")
    parser.add_argument("--encoder", type=Path, help="file of its weights; made if it is missing")
    parser.add_argument("--width", type=float, default=WIDTH)
    parser.add_argument("--output", type=Path, default=RESULTS / "linear_head.json")
    args = parser.parse_args()
    print(header(), flush=True)
    source = ActiveMNISTDataModule(args.data_dir, eval_batch_size=1000)
    source.ensure_read()
    with tempfile.TemporaryDirectory() as folder:
        encoder = learned_encoder(source.sets.train, args.encoder or Path(folder) / "encoder.pt")
        saved = SavedRuns(args.output, width=args.width)
        for seed in args.seeds:
            for strategy in STRATEGIES:
                if f"{strategy} {seed}" not in saved.runs:
                    with quiet():
                        features = featured(
                            encoder,
                            source,
                            Path(folder) / "features.npy",
                            strategy,
                            seed,
                            args.width,
                        )
                        saved.save(f"{strategy} {seed}", run(features, strategy, seed, args.width))
    report({s: [saved.runs[f"{s} {seed}"] for seed in args.seeds] for s in STRATEGIES})


def featured(
    encoder: nn.Module, source: ActiveDataModule, path: Path, strategy: str, seed: int, width: float
) -> ActiveDataModule:
    """Return features with the first ten rows that a strategy chooses, none of them held out."""
    shared = {"batch_size": 32, "steps_per_epoch": 300, "eval_batch_size": 10_000, "seed": seed}
    make = partial(cache_features, encoder, source, path, trainer=TRAINER, **shared)
    data = make(initial_labeled_size=10, val_size=5000)
    pool = data.sets.pool.features_NVD[:, 0]
    rows = torch.cat([data.labeled_indices, data.unlabeled_indices]).msort()
    nothing, generator = pool[:0], torch.Generator().manual_seed(seed)
    if strategy == "random":
        return data
    if strategy.endswith("herding"):
        first = max_herding(pool[rows], nothing, 10, bandwidth=width)
    else:
        choose = typiclust if strategy == "typiclust" else probcover
        first = choose(pool[rows], nothing, 10, generator)
    state = data.state_dict()
    data.load_state_dict({**state, "labeled_indices": rows[first].msort()})
    return data


def run(data: ActiveDataModule, strategy: str, seed: int, width: float) -> Record:
    """Return accuracy by number of labels."""
    loop = ActiveLearningLoop(
        Head(),
        data,
        trainer=TRAINER,
        strategy=strategy,
        strategy_args={"bandwidth": width} if strategy == "max_herding" else {},
        acquisition_size=10,
        num_cycles=10,
        seed=seed,
        monitors=[],
    )
    results = loop.run()
    return {
        name: {str(one.num_labeled): one.metrics[name] for one in results}
        for name in ("val_acc", "test_acc")
    }


def report(runs: dict[str, list[Record]]) -> None:
    """Mean test accuracies with intervals, and the promises."""
    for strategy, of_seeds in runs.items():
        for size in SIZES:
            c = mean_interval([one["test_acc"][str(size)] for one in of_seeds])
            print(f"{strategy:<22}{size:>4}  {c.mean:.4f} ({c.low:.4f} to {c.high:.4f})")
    for size, promised in ((10, 0.05), (50, 0.02)):
        mean = {
            s: sum(one["test_acc"][str(size)] for one in found) / len(found)
            for s, found in runs.items()
        }
        gain = max(mean["max_herding"], mean["uncertainty_herding"]) - mean["random"]
        print(f"herding over random at {size:<4} {gain:.4f}  {verdict(gain, at_least=promised)}")


if __name__ == "__main__":
    main()
