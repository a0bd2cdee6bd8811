"""Resuming a run behind 5 and behind 80 cycles: seconds until it can go on, and their ratio.

What stands in the run folder is not drawn again, so the number of cycles behind a run should hardly
matter. Both runs are resumed in turn, with their default monitors. Promised: a ratio of at most
1.5.

python benchmarks/resume.py                         # about a minute
python benchmarks/resume.py --rows 500
"""

import contextlib
import io
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from common import arguments, header, verdict
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.run.lock import unlock
from al_lightning.training.trainers import quiet

FEW, MANY = 5, 80
TRAINER = partial(
    L.Trainer,
    max_epochs=1,
    limit_train_batches=1,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_checkpointing=False,
)


class Net(L.LightningModule):
    """Learns nothing that matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 3)."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data(rows: int) -> ActiveDataModule:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(20 + rows * (MANY + 2), 1, 8, 8, generator=draw)
    return ActiveDataModule(TensorDataset(x, torch.arange(len(x)) % 3), initial_labeled_size=20)


def begin(folder: Path, rows: int) -> dict[int, Path]:
    """Carries out the run, and keeps a copy of it at both lengths."""
    given = {"strategy": "random", "acquisition_size": rows, "num_cycles": 1000}
    run_dir = folder / "run"
    loop = ActiveLearningLoop(Net(), data(rows), trainer=TRAINER, run_dir=run_dir, **given)
    copies = {}
    for cycle in range(1, MANY + 1):
        loop.tell(loop.ask().indices)  # type: ignore[union-attr]
        if cycle in (FEW, MANY):
            copies[cycle] = folder / f"behind_{cycle}"
            shutil.copytree(run_dir, copies[cycle])
    return copies


def seconds(run_dir: Path, rows: int) -> float:
    model, rows_of = Net(), data(rows)
    begin = time.perf_counter()
    ActiveLearningLoop.resume(run_dir, model, rows_of, trainer=TRAINER).prepare()
    taken = time.perf_counter() - begin
    unlock(run_dir)
    return taken


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=10, help="asked in a cycle")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(quiet(validates=False))
        copies = begin(Path(folder), args.rows)
        for run_dir in copies.values():
            seconds(run_dir, args.rows)
        pairs = [
            [seconds(copies[cycle], args.rows) for cycle in (FEW, MANY)]
            for _ in range(args.repeats)
        ]
    few, many = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"behind {FEW} cycles {few:.3f} s, behind {MANY} {many:.3f} s, {args.rows} rows a cycle")
    print(f"ratio {ratio:.2f}  {verdict(ratio, at_most=1.5)}")


if __name__ == "__main__":
    main()
