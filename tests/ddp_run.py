"""Run by test_ddp.py in processes of its own: ``python ddp_run.py OUT_DIR DEVICES [NODES]``."""

import json
import sys
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader, random_split
from toys import QUIET, Plain, points, points_data

from al_lightning import (
    INVALID,
    SKIP,
    ActiveDataModule,
    ActiveLearningLoop,
    Strategy,
    by_score,
    cache_features,
)
from al_lightning.acquisition import margin
from al_lightning.label.answers import AnswersError
from al_lightning.prediction.read_pool import read_pool
from al_lightning.seeds import seeded_step
from al_lightning.training.trainers import quiet

SHARED = ("accelerator", "devices", "num_nodes", "strategy", "logger", "enable_progress_bar")
POOLS = (1, 3, 100)
EVERYTHING = Strategy(
    lambda pool, num, generator: torch.arange(num),
    {"probs": "probs", "embeddings": "embedding"},
    labeled=("embeddings",),
    min_samples=2,
)


class Normed(Plain):
    """Its running means differ between processes that train together; logs without sync_dist."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.net(self.norm(x))


class Semi(Plain):
    """Notes the unlabeled rows that it sees."""

    def training_step(self, batch, batch_idx):
        self.seen = [*getattr(self, "seen", []), *batch["unlabeled"][:, 0].tolist()]
        return nn.functional.cross_entropy(self(batch["labeled"][0]), batch["labeled"][1])


def main(out: Path, devices: int, num_nodes: int = 1) -> None:
    trainer = partial(
        L.Trainer,
        max_epochs=1,
        accelerator="cpu",
        devices=devices,
        num_nodes=num_nodes,
        strategy="ddp" if devices * num_nodes > 1 else "auto",
        **QUIET,
    )
    state = {}
    for num_rows in POOLS:
        data = points_data(20 + num_rows, num_workers=num_rows == 3)
        with quiet():
            pool = read_pool(trainer(), Plain(), data, by_score(margin))
        if rank_zero_only.rank:
            assert not len(pool)
            assert not pool.columns
        else:
            state[f"pool of {num_rows}"] = [pool.indices.tolist(), pool.scores.tolist()]
    model = Plain()
    predicts = trainer()
    with quiet(), seeded_step(predicts, 0, "predict"):
        pool = read_pool(
            predicts,
            model,
            points_data(57),
            EVERYTHING,
            embedding_layer="net.3",
            mc_samples=4,
        )
    state |= {name: column.tolist() for name, column in pool.columns.items()}
    (state["test"],) = trainer().test(model, datamodule=points_data(), verbose=False)

    with quiet():
        features = cache_features(Plain(), points_data(57), out / "features.npy", trainer=trainer)
    state["features"] = features.sets.pool.features_NVD.flatten(1).tolist()
    semi = points_data(121, unlabeled_batch_size=7, steps_per_epoch=3)
    with quiet():
        fits = trainer()
        fits.fit(Semi(), datamodule=semi)
    state["unlabeled"] = [sorted(fits.lightning_module.seen), semi.unlabeled_indices.tolist()]

    loop = ActiveLearningLoop(
        Normed(),
        points_data(121, batch_size=10),  # no batch of one row, which BatchNorm refuses
        trainer=trainer,
        acquisition_size=15,
        num_cycles=3,
        run_dir=out / "run",
    )
    results = loop.run()
    state["run"] = [[result.metrics, result.query and result.query.indices] for result in results]
    state["labeled"] = loop.data.labeled_indices.tolist()
    state["means"] = loop.model.norm.running_mean.tolist()
    state["answered"] = answered_by_the_first(trainer, rank_zero_only.rank)
    state["refused"] = refused_by_the_first(trainer, rank_zero_only.rank)
    state["steered"] = steered(trainer)
    state["best of a project"] = best_of_a_project(trainer, out / "project")
    state["labels of its own"] = labels_of_its_own(trainer, rank_zero_only.rank)
    state["query of its own"] = query_of_its_own(trainer, rank_zero_only.rank)
    (out / f"rank_{rank_zero_only.rank}.json").write_text(json.dumps(state))


class Project(L.LightningDataModule):
    """As a project has it: a random split, and test rows that no number of ranks divides."""

    def setup(self, stage):
        self.train, self.val = random_split(points(121), [100, 21])

    def train_dataloader(self):
        return DataLoader(self.train, 10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4)

    def test_dataloader(self):
        return DataLoader(points(51, seed=1), 4)


class Validated(Normed):
    """Its first epoch is the best one."""

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", -float(self.current_epoch), sync_dist=True)


def best_of_a_project(trainer, out: Path) -> list:
    """The metrics, queries and last weights of a project's run by its best weights."""
    how = {name: value for name, value in trainer.keywords.items() if name in SHARED}
    best = [ModelCheckpoint(monitor="val_acc", mode="max")]
    loop = ActiveLearningLoop(
        Validated(),
        ActiveDataModule.from_datamodule(Project(), initial_labeled_size=20),
        trainer=partial(L.Trainer, max_epochs=3, callbacks=best, **how),
        acquisition_size=10,
        num_cycles=2,
        run_dir=out,
        ckpt_path="best",
        warm_start=True,
        monitors=[],
    )
    results = loop.run()
    state = {name: value.tolist() for name, value in loop.model.state_dict().items()}
    return [[r.metrics, r.query and r.query.indices] for r in results] + [state]


def steered(trainer) -> list:
    """What a run with stages, limits, a stop set and doubts asks, and why it ends."""
    data = points_data(101, group_key="patient", cost_key="price")
    data.sets.pool.patient = [row // 3 for row in range(101)]
    data.sets.pool.price = [row % 5 for row in range(101)]
    loop = ActiveLearningLoop(
        Plain(),
        data,
        trainer=trainer,
        strategy="schedule",
        strategy_args={"stages": {0: "random", 25: {"strategy": "direct"}}},
        max_per_group=1,
        acquisition_size=8,
        num_cycles=5,
        stop_when=[{"stable": {"threshold": 1.0}}, {"low_uncertainty": 1e-9}, {"max_labels": 40}],
        labels_in_doubt=True,
        monitors=[],
    )
    results = loop.run()
    found = [[r.metrics, r.query and r.query.indices, r.cost, r.doubts] for r in results]
    return [*found, loop.records[-1]["reason"]]


def answered_by_the_first(trainer, rank: int) -> list:
    """What holds when a function, such as one that asks a person, answers unlike on each rank."""
    loop = ActiveLearningLoop(
        Plain(),
        points_data(61),
        trainer=trainer,
        acquisition_size=4,
        num_cycles=3,
        oracle=lambda query: [rank, SKIP if rank else 2, SKIP, INVALID],
    )
    results = loop.run()
    asked = [result.query.indices for result in results if result.query]
    labels = [loop.data.labels_of(indices[:2]) for indices in asked]
    return [labels, sorted(loop.data.pool.skipped), sorted(loop.data.pool.invalid)]


def refused_by_the_first(trainer, rank: int) -> str:
    """What every process is told when the first one's function gives too few answers."""
    loop = ActiveLearningLoop(
        Plain(),
        points_data(61),
        trainer=trainer,
        acquisition_size=4,
        oracle=lambda query: [0] * (4 if rank else 3),
    )
    try:
        loop.run()
    except AnswersError as error:
        return str(error)
    return "no error"


def labels_of_its_own(trainer, rank: int) -> str:
    """What a process is told that labels unlike the others, as they may who ask a person each."""
    loop = ActiveLearningLoop(
        Plain(), points_data(61), trainer=trainer, acquisition_size=4, num_cycles=2
    )
    loop.tell(loop.ask().indices, [rank] * 4)
    return error_of(loop.ask)


def query_of_its_own(trainer, rank: int) -> list[int]:
    """What is asked when each process would choose unlike the others: the first one's choice."""
    loop = ActiveLearningLoop(
        Plain(),
        points_data(61),
        trainer=trainer,
        acquisition_size=4,
        strategy=lambda pool, num, generator: rank + torch.arange(num),
    )
    query = loop.ask()
    return [loop.data.unlabeled_indices.tolist().index(row) for row in query.indices]


def error_of(do) -> str:
    try:
        do()
    except RuntimeError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
