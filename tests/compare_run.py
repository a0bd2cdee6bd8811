"""What the processes of a comparison import by name, and a comparison to be killed.

``python compare_run.py out`` carries out the one that ``run_comparison("out")`` does.
"""

import os
import sys
import time
from pathlib import Path

import torch
from toys import TRAINER, Plain, points

from al_lightning import ActiveDataModule, ActiveMNISTDataModule
from al_lightning.compare import compare, processes

SEEDS = [1, 2]
STRATEGIES = ["random", "margin"]
PROTOCOL = {"trainer": TRAINER, "acquisition_size": 15, "num_cycles": 3}


class Net(Plain):
    """Its weights come from the global generator, as those of most modules do."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(int(torch.randint(2**31, ())))
        self.lr = lr

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Points(ActiveDataModule):
    def __init__(
        self,
        num_rows: int = 120,
        initial_labeled_size: int = 20,
        batch_size: int = 16,
        seed: int = 42,
    ) -> None:
        super().__init__(
            points(num_rows),
            test_set=points(50, seed=1),
            initial_labeled_size=initial_labeled_size,
            batch_size=batch_size,
            seed=seed,
        )


class TinyMNIST(ActiveMNISTDataModule):
    """On files that are no MNIST."""

    def prepare_data(self):
        self._folder = self.data_dir


def points_of_two(seed):
    """``Points``, once two processes other than the first have come to need them."""
    if os.getpid() != int(os.environ["FIRST_PROCESS"]):
        device = os.environ.get("CUDA_VISIBLE_DEVICES")
        print(f"process {os.getpid()} on {torch.get_num_threads()} threads and device {device}")
        meeting = Path(os.environ["MEETING"])
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < 2:
            time.sleep(0.02)
    return Points(seed=seed)


def first_rows(pool, num, generator):
    return torch.arange(num)


def fails(pool, num, generator):
    """In cycle 2, until the file that ``CURED`` names is there."""
    if len(pool) == 120 - 20 - 15 and not Path(os.environ["CURED"]).exists():
        raise RuntimeError("no such row")
    return torch.arange(num)


def dies(pool, num, generator):
    """In cycle 2."""
    if len(pool) == 120 - 20 - 15:
        print("about to die")
        os._exit(3)
    return torch.arange(num)


def run_comparison(out, **changes):
    given = {"model": Net, "data": Points, "strategies": STRATEGIES, "seeds": SEEDS, **PROTOCOL}
    return compare(out=out, **{**given, **changes})


if __name__ == "__main__":
    processes.num_cores = lambda: 2
    run_comparison(sys.argv[1], jobs=2)
