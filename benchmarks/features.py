"""Cached features and herding: what they cost, side by side with what they replace.

- cycle: ResNet-18 (random weights), 20,000 colour images of 32 x 32, 500 of them labeled: a cycle
  (fit of a linear head, test on 2,000, margin of the pool) with the backbone in it, against the
  same on cached features, the check of the file included. Promised: at least 20 times faster.
- score: margin of a pool of 1 million x 512 features on disk, against reading the file. Promised:
  at most 3 s beyond it.
- herding: ``max_herding`` of 100 out of 1 million x 128, against one product of pool and picks, and
  the memory of both. Promised: at most 10 times; under 1.5 times the features.

python benchmarks/features.py cycle score herding
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from common import PeakMemory, arguments, header, spread, verdict
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet18

from al_lightning import ActiveDataModule, ActiveLearningLoop, cache_features
from al_lightning.acquisition import max_herding
from al_lightning.data.feature_file import FeatureFile
from al_lightning.data.feature_rows import FeatureRows
from al_lightning.prediction.read_pool import read_pool
from al_lightning.strategies import find_strategy
from al_lightning.training.trainers import quiet

TRAINER = partial(
    L.Trainer,
    max_epochs=10,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)


class Head(L.LightningModule):
    """A linear layer, behind a frozen backbone or on features that are there already."""

    def __init__(self, backbone: nn.Module | None = None, num_features: int = 512) -> None:
        super().__init__()
        self.backbone = (backbone or nn.Identity()).requires_grad_(False)
        self.linear = nn.Linear(num_features, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.backbone.eval()
        with torch.no_grad():
            features = self.backbone(x)
        return self.linear(features)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.linear.parameters(), lr=1e-3)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("parts", nargs="+", choices=["cycle", "score", "herding"])
    parser.add_argument("--rows", type=int, default=1_000_000, help="fewer, to try the script")
    parser.add_argument("--images", type=int, default=20_000, help="fewer, to try the script")
    args = parser.parse_args()
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as folder, quiet():
        for part in args.parts:
            if part == "cycle":
                cycle(args.images, Path(folder))
            elif part == "score":
                score(args.rows, Path(folder))
            else:
                herding(args.rows)


def timed(run: Any) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = run()
    return time.perf_counter() - begin, found


def cycle(num_rows: int, folder: Path) -> None:
    """Time a cycle with the backbone and two on cached features, the second after a restart."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(num_rows, 3, 32, 32, generator=draw)
    rows = TensorDataset(images, torch.randint(10, (num_rows,), generator=draw))
    tests = TensorDataset(torch.rand(2000, 3, 32, 32), torch.randint(10, (2000,)))
    backbone = resnet18()
    backbone.fc = nn.Identity()

    def data() -> ActiveDataModule:
        sizes = {"initial_labeled_size": 500, "batch_size": 64, "eval_batch_size": 250}
        return ActiveDataModule(rows, test_set=tests, **sizes)

    def once(model: Head, data: ActiveDataModule) -> None:
        options = {"strategy": "margin", "acquisition_size": 100, "num_cycles": 2, "monitors": []}
        ActiveLearningLoop(model, data, trainer=TRAINER, **options).ask()

    make = partial(cache_features, backbone, path=folder / "resnet.npy", trainer=TRAINER())
    with_backbone, _ = timed(lambda: once(Head(backbone), data()))
    first, _ = timed(lambda: once(Head(), make(data())))
    later = [timed(lambda: once(Head(), make(data())))[0] for _ in range(5)]
    print(f"cycle, backbone in it              {with_backbone:.1f} s")
    print(f"cycle, features made first         {first:.1f} s")
    print(f"cycle, features there              {spread(later)} s")
    ratio = with_backbone / sorted(later)[2]
    print(f"cycle, ratio                       {ratio:.1f}  {verdict(ratio, at_least=20)}")


def score(num_rows: int, folder: Path) -> None:
    """Time the margin of a pool on disk, and reading its file."""
    file = FeatureFile(folder / "pool.npy", {"num_rows": num_rows, "dtype": "float32"})
    draw = torch.Generator().manual_seed(0)
    for start in range(0, num_rows, 10_000):
        part = range(start, min(start + 10_000, num_rows))
        file.write(part, torch.randn(len(part), 512, generator=draw))
    labels = [0] * num_rows
    rows = FeatureRows(file.read()[:, None], labels, TensorDataset(torch.arange(num_rows)))
    data = ActiveDataModule(rows, initial_indices=[0], eval_batch_size=4096)
    margin = find_strategy("margin")
    scored, read = [], []
    for _ in range(5):
        read.append(timed(lambda: np.fromfile(file.path, np.uint8).max())[0])
        scored.append(timed(lambda: read_pool(TRAINER(), Head(), data, margin))[0])
    beyond = [a - b for a, b in zip(scored, read, strict=True)]
    print(f"score, read the file               {spread(read)} s")
    print(f"score, margin of the pool          {spread(scored)} s")
    median = sorted(beyond)[2]
    print(f"score, beyond reading              {spread(beyond)} s  {verdict(median, at_most=3)}")


def herding(num_rows: int) -> None:
    """Time herding and a product, and look at the memory, in a process of its own."""
    run = subprocess.run(
        [sys.executable, __file__, "--herding_alone", str(num_rows)], capture_output=True, text=True
    )
    found = json.loads(run.stdout.splitlines()[-1])
    ratios = [a / b for a, b in zip(found["herding"], found["product"], strict=True)]
    print(f"herding, 100 of {num_rows:,} x 128   {spread(found['herding'])} s")
    print(f"herding, one product               {spread(found['product'])} s")
    median = sorted(ratios)[2]
    print(f"herding, ratio                     {spread(ratios)}  {verdict(median, at_most=10)}")
    share = found["memory"]
    print(f"herding, memory / features         {share:.2f}  {verdict(share, at_most=1.5)}")


def herding_alone(num_rows: int) -> None:
    """Print what herding took; memory is that of the features and what is held beside them."""
    max_herding(torch.randn(10_000, 128), torch.zeros(0, 128), 10)
    table = torch.empty(num_rows, 128).normal_(generator=torch.Generator().manual_seed(0))
    with PeakMemory() as memory:
        picks = max_herding(table, table[:0], 100)
    herded, products = [], []
    for _ in range(5):
        herded.append(timed(lambda: max_herding(table, table[:0], 100))[0])
        products.append(timed(lambda: table @ table[picks].T)[0])
    share = 1 + memory.peak * 1e6 / table.nbytes
    print(json.dumps({"herding": herded, "product": products, "memory": share}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--herding_alone"]:
        herding_alone(int(sys.argv[2]))
    else:
        main()
