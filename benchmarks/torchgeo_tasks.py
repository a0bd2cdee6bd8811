"""Five modules of torchgeo, two cycles each on generated data: what a user writes for each.

    python -m venv geo && geo/bin/pip install torchgeo requests pycocotools -e .
    geo/bin/python benchmarks/torchgeo_tasks.py

torchgeo's ``predict_step`` gives probabilities as plain tensors, or lists of boxes. So each module
is given one method; its training and test steps, losses, metrics, optimizers and schedulers stay as
they are.
"""

import inspect
from functools import partial
from typing import Any

import lightning as L
import torch
from torchgeo.trainers import (
    ClassificationTask,
    MultiLabelClassificationTask,
    ObjectDetectionTask,
    RegressionTask,
    SemanticSegmentationTask,
)

from al_lightning import ActiveDataModule, ActiveLearningLoop


class Classes(ClassificationTask):
    """Gives logits instead of probabilities."""

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self(batch["image"])


class Labels(MultiLabelClassificationTask):
    """Gives logits instead of probabilities."""

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self(batch["image"])


class Numbers(RegressionTask):
    """Samples by turning the picture."""

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        return {"samples": torch.stack([self(batch["image"]), self(batch["image"].flip(-1))], 1)}


class Pixels(SemanticSegmentationTask):
    """Gives logits instead of classes."""

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self(batch["image"])


class Boxes(ObjectDetectionTask):
    """Scores a picture by the doubt in its boxes."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        found = super().predict_step(batch, batch_idx)
        scores = [(1 - one["scores"]).sum() for one in found]
        return {"score": torch.stack(scores)}


def rows(kind: str, num: int = 24, side: int = 64) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for _ in range(num):
        row: dict[str, Any] = {"image": torch.rand(3, side, side, generator=draw)}
        if kind == "classes":
            row["label"] = torch.randint(3, (), generator=draw)
        elif kind == "labels":
            row["label"] = torch.randint(2, (4,), generator=draw)
        elif kind == "numbers":
            row["label"] = torch.rand((), generator=draw)
        elif kind == "pixels":
            row["mask"] = torch.randint(3, (side, side), generator=draw)
        else:
            row["bbox_xyxy"] = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
            row["label"] = torch.ones(1).long()
        made.append(row)
    return made


def together(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the pictures; leave what belongs to boxes in lists."""
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
    return {**batch, "image": torch.stack(batch["image"])}


SMALL = {"model": "resnet18", "weights": None, "in_channels": 3}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "classes": (Classes, {**SMALL, "num_classes": 3}, {}, {"strategy": "margin"}),
    "labels": (
        Labels,
        {**SMALL, "num_classes": 4, "loss": "bce"},
        {},
        {"task": "multilabel", "strategy": "entropy"},
    ),
    "numbers": (Numbers, SMALL, {}, {"task": "regression", "strategy": "predictive_variance"}),
    "pixels": (
        Pixels,
        {"model": "unet", "backbone": "resnet18", "in_channels": 3, "num_classes": 3},
        {"label_key": "mask"},
        {"task": "dense", "strategy": "margin"},
    ),
    "boxes": (
        Boxes,
        {"model": "faster-rcnn", "backbone": "resnet18", "num_classes": 2},
        {"collate_fn": together, "eval_collate_fn": together},
        {"strategy": "score"},
    ),
}


def main() -> None:
    for kind, (module, arguments, data, options) in CASES.items():
        trainer = partial(
            L.Trainer, max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        train, val, test = rows(kind), rows(kind, 8), rows(kind, 8)
        for one, other in zip(val, test, strict=True):
            one["image"], other["image"] = 1 - one["image"], one["image"] / 2
        # torchgeo's learning rate follows val_loss, so it needs validation rows.
        active = ActiveDataModule(
            train, val_set=val, test_set=test, initial_labeled_size=8, batch_size=4, **data
        )
        loop = ActiveLearningLoop(
            partial(module, **arguments), active, trainer=trainer, acquisition_size=4,
            num_cycles=2, monitors=[], **options,
        )  # fmt: skip
        results = loop.run()
        num_lines = len(inspect.getsource(module).splitlines()) - 2 + len(data)  # its docstring
        asked = results[0].query
        assert asked is not None
        print(kind, module.__base__.__name__, "lines:", num_lines, "asked:", asked.indices)


if __name__ == "__main__":
    main()
