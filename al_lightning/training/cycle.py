"""The steps of one cycle: fit on the labeled rows, test, predict the pool and choose.

Each gives the fields of a record, plain values for the journal.
"""

import copy
import difflib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.distributed import check_same, is_first_rank
from al_lightning.prediction.mc_dropout import MCDropout
from al_lightning.prediction.read_pool import read_pool
from al_lightning.run.folder import WEIGHTS, checksum, sync
from al_lightning.run.journal import Record
from al_lightning.run.weights import load_state
from al_lightning.seeds import generator, seeded
from al_lightning.strategies import PoolOutputs, Strategy
from al_lightning.training.checkpoints import CycleFit, is_loadable, last_checkpoint, numbers
from al_lightning.training.trainers import choosing_bar


class Steps:
    """What the cycles of a run do; the loop says when.

    Args:
        model: Trained by each fit, from ``start_weights``.
        data: Serves the rows.
        strategy: Chooses.
        seed: Each step's randomness derives from it and the cycle.
        acquisition_size: Rows to choose.
        warm_start: Keeps the weights from cycle to cycle.
        candidate_size: Chooses from a random subset of that size.
        mc_samples: Predicts with that many samples of MC dropout.
        embedding_layer: Name of the layer whose input is the embedding.

    Attributes:
        start_weights: Where the next fit begins.

    Raises:
        ValueError: when there is no such layer, or no dropout to sample.
    """

    def __init__(
        self,
        model: L.LightningModule,
        data: ActiveDataModule,
        strategy: Strategy,
        *,
        seed: int,
        acquisition_size: int,
        warm_start: bool,
        candidate_size: int | None,
        mc_samples: int | None,
        embedding_layer: str | None,
    ) -> None:
        self.model = model
        self.data = data
        self.strategy = strategy
        self.seed = seed
        self.acquisition_size = acquisition_size
        self.warm_start = warm_start
        self.candidate_size = candidate_size
        self.predictor = model if mc_samples is None else MCDropout(model, mc_samples)
        self.layer = None if embedding_layer is None else _find_layer(model, embedding_layer)
        self.start_weights = _copied(model.state_dict())

    def try_asking(self, trainer: L.Trainer, asked: Sequence[int]) -> None:
        """Reads a batch of the pool and chooses from it.

        A module that the strategy cannot read must say so before an hour of training. So must a
        strategy whose arguments do not work, or whose function fails.

        Args:
            trainer: A new one.
            asked: Rows that wait for an answer, which may be that they cannot be read.
        """
        askable, few = self.data.pool.askable_rows(), self.data.eval_batch_size
        first = askable.at(range(min(few + len(asked), len(askable))))
        rows = [row for row in first if row not in set(asked)][:few]
        if not rows:
            return
        labeled = self.data.labeled_indices[:few].tolist()
        with seeded(self.seed, "try"):
            pool = self._read_pool(trainer, rows, labeled or rows)
        num = min(2, self.acquisition_size)
        self.strategy.choose(pool, num, generator(self.seed, "try"))

    # ---- fit -------------------------------------------------------------------------------------

    def fit(self, trainer: L.Trainer, cycle: int, history: str, folder: Path | None) -> Record:
        """Trains from the start weights, or on from where this fit was interrupted.

        Args:
            trainer: A new one.
            cycle: From 1.
            history: Checksum of all that was decided before.
            folder: Of the cycle; keeps the weights.
        """
        self.model.load_state_dict(self.start_weights)
        goes_on = folder and last_checkpoint(trainer, history, folder)
        if folder and goes_on is None and is_first_rank():
            # Curves and checkpoints of an attempt that was interrupted.
            shutil.rmtree(folder, ignore_errors=True)
        cycle_fit = CycleFit(self.data, history, goes_on, self.seed, "fit", cycle)
        trainer.callbacks.insert(0, cycle_fit)  # type: ignore[attr-defined]
        begin = time.perf_counter()
        with seeded(self.seed, "fit", cycle):
            trainer.fit(self.model, datamodule=self.data, ckpt_path=goes_on)
        seconds = time.perf_counter() - begin
        if self.warm_start:
            self.start_weights = _copied(self.model.state_dict())
        return {
            "num_labeled": self.data.num_labeled,
            "metrics": cycle_fit.metrics(trainer),
            "seconds": {"fit": seconds},
            "weights": folder and self._save_weights(trainer, folder),
        }

    def _save_weights(self, trainer: L.Trainer, folder: Path) -> str | None:
        """The checksum of the file, on the rank that wrote it."""
        with _plain_hparams(self.model), _plain_hparams(self.data):
            trainer.save_checkpoint(folder / WEIGHTS, weights_only=True)
        if not is_first_rank():
            return None
        sync(folder / WEIGHTS)
        return checksum(folder / WEIGHTS)

    def begin_from(self, weights: dict[str, Any]) -> None:
        """Takes over the initial weights of a run.

        Raises:
            ValueError: when the model is another one.
        """
        self._load(weights)
        self.start_weights = weights

    def take_fit(self, record: Record, folder: Path) -> None:
        """Takes over the weights of a fit that was done before.

        Raises:
            ValueError: when they are damaged.
        """
        self._load(load_state(folder / WEIGHTS, record["weights"])["state_dict"])
        if self.warm_start:
            self.start_weights = _copied(self.model.state_dict())

    def _load(self, weights: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"model must be as the run began with: {reason}") from error

    # ---- test ------------------------------------------------------------------------------------

    def test(self, trainer: L.Trainer, cycle: int) -> Record:
        """Tests; without a test set there is nothing to say."""
        if self.data.sets.test is None:
            return {"metrics": {}, "seconds": {}}
        begin = time.perf_counter()
        with seeded(self.seed, "test", cycle):
            trainer.test(self.model, datamodule=self.data, verbose=False)
        metrics = numbers(trainer.callback_metrics)
        return {"metrics": metrics, "seconds": {"test": time.perf_counter() - begin}}

    # ---- query -----------------------------------------------------------------------------------

    def query(self, trainer: L.Trainer, cycle: int) -> Record:
        """Predicts the pool, or its candidates, and chooses."""
        begin = time.perf_counter()
        pool = self._pool_outputs(trainer, cycle)
        predicted = time.perf_counter()
        draw = generator(self.seed, "select", cycle)
        with choosing_bar(trainer):
            positions = self.strategy.choose(pool, self.acquisition_size, draw)
        indices: list[int] = pool.indices[positions].tolist()
        check_same(trainer, "query", indices)

        def chosen(column: Tensor | None) -> list[Any] | None:
            return None if column is None else column[positions].tolist()

        return {
            "indices": indices,
            "scores": chosen(pool.scores),
            "predicted": chosen(pool.predicted),
            "names": self.data.names_of(indices),
            "seconds": {"predict": predicted - begin, "query": time.perf_counter() - predicted},
        }

    def _pool_outputs(self, trainer: L.Trainer, cycle: int) -> PoolOutputs:
        candidates = self._candidates(cycle)
        if not self.strategy.needs:
            everything = self.data.pool.askable_indices if candidates is None else candidates
            return PoolOutputs(torch.as_tensor(everything))
        with seeded(self.seed, "predict", cycle):
            return self._read_pool(trainer, candidates)

    def _candidates(self, cycle: int) -> list[int] | None:
        """Data-set indices to choose from, ascending; None for the whole pool."""
        pool = self.data.pool
        if self.candidate_size is None or self.candidate_size >= pool.num_askable:
            return None
        draw = generator(self.seed, "candidates", cycle)
        drawn = torch.randperm(pool.num_askable, generator=draw)[: self.candidate_size]
        return pool.askable_rows().at(drawn.msort().tolist())

    def _read_pool(
        self,
        trainer: L.Trainer,
        candidates: Sequence[int] | None,
        labeled: Sequence[int] | None = None,
    ) -> PoolOutputs:
        return read_pool(
            trainer,
            self.predictor,
            self.data,
            self.strategy,
            candidates=candidates,
            labeled=labeled,
            embedding_layer=self.layer,
        )


@contextmanager
def _plain_hparams(module: L.LightningModule | L.LightningDataModule) -> Iterator[None]:
    """Inside the block ``module`` has no hyperparameters that would have to be unpickled."""
    others = {name: v for name, v in module.hparams.items() if not is_loadable(v)}
    for name in others:
        del module.hparams[name]
    try:
        yield
    finally:
        module.hparams.update(others)


def _find_layer(model: L.LightningModule, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if name not in layers or not name:
        near = difflib.get_close_matches(name, layers, n=1, cutoff=0.0)
        raise ValueError(
            f"embedding_layer must name a layer of the model, got {name!r}; did you mean "
            f"{near[0]!r}? its layers are {[layer for layer in layers if layer]}"
        )
    return layers[name]


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in state.items()}
