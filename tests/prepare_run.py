"""A script for torchrun: notes each call of ``prepare_data``, then runs two cycles."""

import sys
import time
from functools import partial
from pathlib import Path

import lightning as L
import torch
from toys import QUIET, Plain, points

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.data.sets import DataSets


class Prepared(ActiveDataModule):
    def __init__(self, folder, **arguments):
        super().__init__(**arguments)
        self.folder = folder

    def prepare_data(self):
        time.sleep(1)  # the others must wait
        (self.folder / f"prepared_{time.time_ns()}").touch()

    def load_sets(self):
        assert list(self.folder.glob("prepared_*")), "read before it was prepared"
        return DataSets(points(60), points(60))


def trainer(devices, **given):
    given = {**given, **QUIET}
    return L.Trainer(max_epochs=1, accelerator="cpu", devices=devices, strategy="ddp", **given)


def main(folder, devices):
    data = Prepared(folder, initial_labeled_size=20, batch_size=8)
    make = partial(trainer, devices)
    loop = ActiveLearningLoop(Plain(), data, trainer=make, acquisition_size=5, num_cycles=2)
    data.ensure_read(loop._example)
    (folder / f"before_training_{time.time_ns()}_{len(list(folder.glob('prepared_*')))}").touch()
    assert len(loop.run()) == 2
    torch.distributed.destroy_process_group()  # left to the exit, a thread of gloo may abort it


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
