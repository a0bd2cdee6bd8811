"""Looks at a model between its test and its query: at the stop set, and at labels in doubt.

What they find stands in the record of the test.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
from torch import Generator, Tensor

from al_lightning.acquisition import entropy
from al_lightning.acquisition.scores import mean_probs
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.distributed import is_first_rank
from al_lightning.label.agreement import cohens_kappa
from al_lightning.prediction.read_pool import class_numbers, read_pool
from al_lightning.prediction.tasks import Task
from al_lightning.run.journal import Record
from al_lightning.run.records import NUM_DOUBTS
from al_lightning.run.run import Run
from al_lightning.run.stop_rules import KAPPA, UNCERTAINTY
from al_lightning.seeds import generator, seeded_step
from al_lightning.settings import Settings
from al_lightning.strategies import PoolOutputs, Strategy

NUM_STOP_SET = 2000
"""Rows of the stop set, as in Bloodgood and Vijay-Shanker 2009."""
NUM_CHECKED = 16
"""Labels that are looked at before the first fit."""


def _first(pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
    return torch.arange(min(num, len(pool)))


STOP_SET = Strategy(_first, keep={"scores": entropy})
DOUBTS = Strategy(_first, keep={"probs": "probs"})


@dataclass(frozen=True)
class Looks:
    """Looks at the stop set where a rule reads it, and at the labels where that is asked for.

    Args:
        data: Serves the rows.
        task: Reads the predictions.
        settings: What the run is asked to do, with a seed.
        reads: The metrics of the stop set that are wanted.
    """

    data: ActiveDataModule
    task: Task
    settings: Settings
    reads: frozenset[str]

    @property
    def strategies(self) -> list[Strategy]:
        """The strategies by which it reads, for a trial before the first fit."""
        return [STOP_SET] * bool(self.reads) + [DOUBTS] * self.settings.labels_in_doubt

    def check_labels(self) -> None:
        """Raise ValueError when labels are wanted in doubt and are no classes."""
        if self.settings.labels_in_doubt:
            self._classes_of(self.data.labeled_indices[:NUM_CHECKED])

    def at(self, trainer: L.Trainer, model: L.LightningModule, run: Run, cycle: int) -> Record:
        """Return what is found in a cycle, as fields of a record; all ranks must call it."""
        found: Record = {}
        if self.reads:
            found |= self._stop_set(trainer, model, run, cycle)
        if self.settings.labels_in_doubt:
            found |= {"doubts": self._doubts(trainer, model, cycle)}
        return found

    def _stop_set(
        self, trainer: L.Trainer, model: L.LightningModule, run: Run, cycle: int
    ) -> Record:
        drawn = self._stop_rows(run)
        invalid = torch.tensor([*self.data.pool.invalid], dtype=torch.int64)
        there = ~torch.isin(drawn, invalid)
        if not there.any():
            return {}
        pool = self._read(trainer, model, STOP_SET, drawn[there], "stop set", cycle)
        if not is_first_rank():
            return {}
        metrics = {UNCERTAINTY: pool.scores.double().mean().item()}
        if KAPPA not in self.reads:
            return {"metrics": metrics}
        predicted = np.full(len(drawn), -1, dtype=np.int32)
        predicted[there.numpy()] = pool.predicted.cpu().numpy()
        before = (run.journal.find("test", cycle - 1) or {}).get("stop_set")
        if before is not None and len(earlier := unpacked(before)) == len(predicted):
            both = (earlier >= 0) & (predicted >= 0)
            metrics[KAPPA] = cohens_kappa(earlier[both].tolist(), predicted[both].tolist())
        return {"metrics": metrics, "stop_set": packed(predicted)}

    def _stop_rows(self, run: Run) -> Tensor:
        """Draw rows that the run did not begin with, the same in each cycle, ascending."""
        split = run.start["split"]
        is_there = torch.ones(split["num_rows"], dtype=torch.bool)
        is_there[[*split["labeled_indices"], *split["held_out"], *split["invalid"]]] = False
        rows = is_there.nonzero()[:, 0]
        assert self.settings.seed is not None
        draw = generator(self.settings.seed, "stop set")
        return rows[torch.randperm(len(rows), generator=draw)[:NUM_STOP_SET].msort()]

    def _doubts(
        self, trainer: L.Trainer, model: L.LightningModule, cycle: int
    ) -> list[list[float]]:
        """Return index, probability of the label, predicted class, label; most in doubt first.

        Northcutt et al. 2021, arXiv:1911.00068, section 3: the self-confidence of a label. The
        model was trained on these labels, so the probabilities are too high; their order counts.
        """
        rows = self.data.labeled_indices
        pool = self._read(trainer, model, DOUBTS, rows, "doubts", cycle)
        if not is_first_rank():
            return []
        labels = self._classes_of(rows)
        probs_MC = mean_probs(pool.probs).double().cpu()
        return least_likely(rows.tolist(), probs_MC, torch.tensor(labels))

    def _classes_of(self, rows: Tensor) -> list[int]:
        return class_numbers(
            "labels_in_doubt needs labels that", self.data.labels_of(rows.tolist())
        )

    def _read(
        self,
        trainer: L.Trainer,
        model: L.LightningModule,
        strategy: Strategy,
        rows: Tensor,
        purpose: str,
        cycle: int,
    ) -> PoolOutputs:
        assert self.settings.seed is not None
        samples = self.settings.mc_samples if strategy is DOUBTS else None
        with seeded_step(trainer, self.settings.seed, purpose, cycle):
            return read_pool(
                trainer, model, self.data, strategy, self.task, rows=rows, mc_samples=samples
            )


def least_likely(
    rows: Sequence[int], probs_MC: Tensor, labels_M: Tensor, num: int = NUM_DOUBTS
) -> list[list[float]]:
    """Return the rows whose labels are least likely: index, probability, likeliest class, label.

    >>> probs = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    >>> least_likely([5, 7], probs, torch.tensor([0, 0]), 1)
    [[7, 0.5, 0, 0]]
    """
    given_M = probs_MC.gather(1, labels_M[:, None])[:, 0]
    order = given_M.argsort(stable=True)[:num].tolist()
    likeliest = probs_MC.argmax(1).tolist()
    labels = labels_M.tolist()
    return [[rows[n], given_M[n].item(), likeliest[n], labels[n]] for n in order]


def packed(values: np.ndarray) -> str:
    """Return whole numbers as text for a journal."""
    return base64.b64encode(zlib.compress(values.astype("<i4").tobytes())).decode()


def unpacked(text: str) -> np.ndarray:
    """Return the numbers that :func:`packed` wrote.

    >>> unpacked(packed(np.array([3, -1])))
    array([ 3, -1], dtype=int32)
    """
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
