"""The trial before training: what would fail after an hour fails in the first minute."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.distributed import from_first_rank
from al_lightning.prediction.first_look import FirstLook
from al_lightning.prediction.read_pool import read_pool
from al_lightning.prediction.tasks import ANY, Task
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import plain
from al_lightning.run.run import Run
from al_lightning.seeds import generator, seeded_step
from al_lightning.settings import Settings
from al_lightning.strategies import Strategy
from al_lightning.training.start import Completing, Start
from al_lightning.training.trainers import TrainerFactory, trial_trainer

MAX_PLAIN = 10_000
"""Numbers in a label that is looked at; a larger one is a mask."""


class Trial:
    """Reads a batch of the pool and chooses from it.

    A module that the strategy cannot read must say so before an hour of training. So must a
    strategy whose arguments do not work, or whose function fails.

    Args:
        start: The module; its layers are there afterwards.
        data: Serves the rows.
        trainer: Makes a Trainer.
        strategies: Those that choose in turn, and what else is read of the model.
        task: Reads the module's predictions.
        settings: What the run is asked to do, with a seed.
    """

    def __init__(
        self,
        start: Start,
        data: ActiveDataModule,
        trainer: TrainerFactory,
        strategies: Sequence[Strategy],
        task: Task,
        settings: Settings,
    ) -> None:
        self.start = start
        self.data = data
        self.trainer = trainer
        self.strategies = strategies
        self.task = task
        self.settings = settings

    def ask_once(self, run: Run) -> None:
        """Predict a batch, choose from it, and change nothing but the module."""
        assert self.settings.seed is not None
        # Rows that wait for an answer may be such that cannot be read.
        asked = {index for record in run.journal.of("query")[-1:] for index in record["indices"]}
        few = self.data.eval_batch_size
        first = self.data.pool.askable_indices[: few + len(asked)].tolist()
        rows = torch.tensor([row for row in first if row not in asked][:few])
        labeled = self.data.labeled_indices[:few]
        if not len(rows):
            rows = labeled
        look = self._looked(labeled.tolist())
        trainer = self._trainer(run.folder)
        for strategy in self.strategies:
            with seeded_step(trainer, self.settings.seed, "try"), look() as first:
                pool = read_pool(
                    trainer,
                    self.start.model,
                    self.data,
                    strategy,
                    replace(self.task, look=first),
                    rows=rows,
                    labeled_rows=labeled if len(labeled) else rows,
                    max_validation=few,
                    embedding_layer=self.settings.embedding_layer,
                    mc_samples=self.settings.mc_samples,
                )
                num = min(2, self.settings.size_of_query(1))
                draw = generator(self.settings.seed, "try")
                from_first_rank(partial(strategy.choose, pool, num, draw))
        if trainer.state.fn is None and self.start.is_late:  # the columns needed no network
            self.make_layers(run)

    def _looked(self, rows: Sequence[int]) -> Callable[[], FirstLook]:
        """Return a function that looks at a batch; raise ValueError for labels of another task.

        Args:
            rows: The labeled rows whose labels are looked at.
        """
        added = self.data.classes if self.data.has_further_class else None
        if all(strategy.needs <= ANY for strategy in self.strategies):
            return partial(FirstLook, None, added)
        form = LabelForm(self.settings.task, self.data.classes)
        found = self.data.row_labels.found(rows)
        for row, label in found.items():
            is_large = math.prod(getattr(label, "shape", ())) > MAX_PLAIN
            value = [[]] if is_large else plain(label)
            if not form.fits(value):
                raise ValueError(
                    f"a label of task={form.task!r} must be {form.rule}, found {value!r:.80} for "
                    f"row {row}; say with task= what a label is, such as "
                    f"{form.likely_task(value)!r}, or with label_key= where it is"
                )
        arrays = [label for label in found.values() if not isinstance(label, str | dict)]
        shapes = {tuple(np.shape(label)) for label in arrays}
        return partial(FirstLook, shapes.pop() if len(shapes) == 1 else None, added)

    def make_layers(self, run: Run) -> None:
        """Let Lightning call the hooks that make layers, on no batch."""
        assert self.settings.seed is not None
        trainer = self._trainer(run.folder)
        trainer.limit_predict_batches = 0
        with seeded_step(trainer, self.settings.seed, "try"):
            trainer.predict(self.start.model, datamodule=self.data, return_predictions=False)
        self.start.complete(self.start.model)

    def _trainer(self, run_dir: Path | None) -> L.Trainer:
        trainer = trial_trainer(self.trainer, run_dir)
        trainer.callbacks.insert(0, Completing(self.start))  # type: ignore[attr-defined]
        return trainer
