"""What a score of pixels costs beside the network, and what a pool of pixels takes in memory.

    python benchmarks/dense_scoring.py [--batch 16] [--side 64] [--rows 20000] [--repeats 10]

Cost: reading and scoring a batch of 16 x 64 x 64 x 5, or another, in turn with a small U-Net's
forward pass.
Memory: the growth of the process while 20,000 rows of 64 x 64 and of 16 x 16 pixels are scored.
"""

import argparse
import resource
import sys
from collections.abc import Callable

import lightning as L
import torch
from common import ROOT, header, interleaved
from torch import nn
from torch.utils.data import Dataset

from al_lightning import ActiveDataModule
from al_lightning.acquisition import entropy, least_confidence, margin
from al_lightning.prediction.read_pool import read_pool
from al_lightning.prediction.tasks import TASKS
from al_lightning.strategies import by_score, needs_of
from al_lightning.training.trainers import quiet

sys.path.insert(0, str(ROOT / "examples"))
NUM_CLASSES = 5


class Noise(Dataset):
    """Pictures made when they are read, so that only what is kept of them takes memory."""

    def __init__(self, num_rows: int, side: int) -> None:
        self.num_rows, self.side = num_rows, side

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        side = self.side
        return torch.full((3, side, side), index / self.num_rows), torch.zeros(side, side).long()


class Pixelwise(L.LightningModule):
    """One convolution, so that nothing but the pool takes memory."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, NUM_CLASSES, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)


def cost(repeats: int, batch: int, side: int) -> None:
    from segment_shapes import LitUNet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LitUNet().to(device).eval()
    model.head = nn.Conv2d(16, NUM_CLASSES, 1).to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    task, logits = TASKS["dense"], model(images).detach()

    def synchronized(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                for _ in range(5):
                    work()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    def scored(score: Callable[..., torch.Tensor]) -> Callable[[], object]:
        def work() -> object:
            outputs = task.read(logits, batch)
            return (
                outputs.is_finite,
                outputs.column(score, needs_of(score)),
                task.predicted(outputs),
            )

        return work

    sides = {score.__name__: scored(score) for score in (least_confidence, margin, entropy)}
    sides = {"network": lambda: model(images), **sides}
    times = interleaved({name: synchronized(work) for name, work in sides.items()}, repeats)
    for name, seconds in times.items():
        ratios = sorted(a / b for a, b in zip(seconds, times["network"], strict=True))
        middle = ratios[len(ratios) // 2]
        print(
            f"{device} {name}: {min(seconds) / 5 / batch * 1e6:.1f} us a row, {middle:.1%} of the "
            f"network ({ratios[0]:.1%}..{ratios[-1]:.1%})"
        )


def memory(num_rows: int) -> None:
    with quiet():
        for side in (16, 64):
            data = ActiveDataModule(Noise(num_rows, side), initial_indices=[0], batch_size=16)
            trainer = L.Trainer(
                accelerator="cpu", logger=False, enable_progress_bar=False,
                enable_checkpointing=False,
            )  # fmt: skip
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            pool = read_pool(trainer, Pixelwise(), data, by_score(entropy), TASKS["dense"])
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            kept = sum(c.numel() * c.element_size() for c in pool.columns.values()) / len(pool)
            table = num_rows * side * side * NUM_CLASSES * 4 / 2**20
            print(
                f"{num_rows} rows of {side} x {side}: the peak grew by {grown:.0f} MiB, {kept:.0f} "
                f"bytes a row are kept; a table of the pixels would take {table:.0f} MiB"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    args = parser.parse_args()
    print(header())
    cost(args.repeats, args.batch, args.side)
    memory(args.rows)


if __name__ == "__main__":
    main()
