"""Does it pay beyond one class a row? Several labels, numbers and pixels, each against random.

    python benchmarks/tasks.py [pairs] [diabetes] [shapes] [--seeds 5]

pairs      two MNIST digits side by side, ten yes/no labels: 200 labels to 1,200 out of 10,000
diabetes   scikit-learn's table of 442 patients, a mean and a variance: 30 labels to 90 out of 300
shapes     drawn shapes and a small U-Net, a class for each of 32 x 32 pixels: 20 to 100 out of 500

The networks of the last two are those of the examples. All strategies of a seed begin with the same
labels and weights. The mean of the curve (AUBC) is compared in pairs, seed by seed. A run goes on
where it was stopped, in ``runs/tasks``; the table is kept in ``benchmarks/results/tasks.json``.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from common import RESULTS, ROOT, header
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from al_lightning import ActiveDataModule, ActiveLearningLoop, by_score, over_parts
from al_lightning.acquisition import entropy
from al_lightning.mnist import ensure_mnist
from al_lightning.mnist.files import read_idx
from al_lightning.statistics import Curve, aubc, mean_interval, paired_t_test

sys.path.insert(0, str(ROOT / "examples"))
TRAINER = partial(
    L.Trainer,
    accelerator="auto",
    logger=False,
    enable_progress_bar=False,
    enable_checkpointing=False,
    enable_model_summary=False,
)


@dataclass(frozen=True)
class Problem:
    """A task with its data, network and strategies."""

    data: Callable[[int], ActiveDataModule]
    model: Callable[[], L.LightningModule]
    metric: str
    strategies: dict[str, Any]
    epochs: int
    options: dict[str, Any]


# ---- pairs of digits -----------------------------------------------------------------------------


def pairs(rows: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> TensorDataset:
    """Pictures (N, 1, 28, 56) of the digits in both columns of ``rows``, and ten labels."""
    both = torch.cat([images[rows[:, 0]], images[rows[:, 1]]], dim=-1)[:, None].float() / 255
    hot = torch.zeros(len(rows), 10).scatter_(1, labels[rows].long(), 1.0)
    return TensorDataset(both, hot)


def pairs_data(seed: int) -> ActiveDataModule:
    draw = torch.Generator().manual_seed(seed)
    sets = []
    folder = ensure_mnist(ROOT / "data")
    for part, num_rows in (("train", 10_000), ("t10k", 2_000)):
        images, labels = (
            read_idx(folder / f"{part}-{name}-ubyte") for name in ("images-idx3", "labels-idx1")
        )
        sets.append(
            pairs(torch.randint(len(labels), (num_rows, 2), generator=draw), images, labels)
        )
    return ActiveDataModule(
        sets[0], test_set=sets[1], initial_labeled_size=200, seed=seed, eval_batch_size=256
    )


class LitPairs(L.LightningModule):
    """The tutorial's two convolutions, with dropout, over both digits."""

    def __init__(self) -> None:
        super().__init__()
        convs = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU()]
        hidden = [nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(3840, 128), nn.ReLU()]
        self.net = nn.Sequential(*convs, *hidden, nn.Dropout(0.5), nn.Linear(128, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        is_right = ((self(batch[0]) > 0) == (batch[1] > 0)).all(1)
        self.log("test_exact", is_right.float().mean(), batch_size=len(is_right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


# ---- as in the examples --------------------------------------------------------------------------


def diabetes_data(seed: int) -> ActiveDataModule:
    from diabetes_regression import patients

    train_set, test_set = patients(seed)
    return ActiveDataModule(
        train_set, test_set=test_set, initial_labeled_size=30, batch_size=16, seed=seed
    )


def shapes_data(seed: int) -> ActiveDataModule:
    from segment_shapes import picture

    rows = [picture(10_000 * seed + n) for n in range(700)]
    return ActiveDataModule(
        rows[:500], test_set=rows[500:], initial_labeled_size=20, batch_size=8, seed=seed
    )


def problems() -> dict[str, Problem]:
    from diabetes_regression import LitNumbers
    from segment_shapes import LitUNet

    doubtful = over_parts(entropy, upper_tenth)
    return {
        "pairs": Problem(
            pairs_data,
            LitPairs,
            "test_exact",
            {n: n for n in ("random", "entropy", "margin", "bald")}
            | {"entropy of the worst label": by_score(over_parts(entropy, "max"))},
            15,
            {"task": "multilabel", "acquisition_size": 200, "num_cycles": 6},
        ),
        "diabetes": Problem(
            diabetes_data,
            LitNumbers,
            "test_mae",
            {n: n for n in ("random", "predictive_variance", "gaussian_bald", "greedy_outputs")}
            | {"core_set": "core_set"},
            30,
            {"task": "regression", "acquisition_size": 15, "num_cycles": 5},
        ),
        "shapes": Problem(
            shapes_data,
            LitUNet,
            "test_iou",
            {n: n for n in ("random", "entropy", "margin")}
            | {"entropy of the upper tenth": by_score(doubtful)},
            20,
            {"task": "dense", "acquisition_size": 20, "num_cycles": 5},
        ),
    }


def upper_tenth(scores_P: torch.Tensor) -> torch.Tensor:
    """Mean of the tenth of the pixels with the highest scores."""
    return scores_P.topk(max(1, len(scores_P) // 10)).values.mean()


SAMPLED = {"bald": 10, "predictive_variance": 20, "gaussian_bald": 20}
EMBEDDED = {"core_set": "net.6"}


def curve_of(name: str, problem: Problem, strategy: str, seed: int) -> Curve:
    """Run one strategy at one seed, or go on with it; return the metric against the labels."""
    place = ROOT / "runs" / "tasks" / name / strategy.replace(" ", "_") / f"seed_{seed}.json"
    if place.exists():
        return Curve(*map(tuple, json.loads(place.read_text())))

    def model() -> L.LightningModule:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return problem.model()

    loop = ActiveLearningLoop(
        model,
        problem.data(seed),
        trainer=partial(TRAINER, max_epochs=problem.epochs),
        strategy=problem.strategies[strategy],
        mc_samples=SAMPLED.get(strategy),
        embedding_layer=EMBEDDED.get(strategy),
        monitors=[],
        **problem.options,
    )
    results = loop.run()
    values = tuple(result.metrics[problem.metric] for result in results)
    curve = Curve(tuple(result.num_labeled for result in results), values)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps([curve.num_labeled, curve.accuracy]))
    return curve


def table_of(problem: Problem, curves: dict[str, list[Curve]]) -> list[dict[str, Any]]:
    """Return a row a strategy: end of the curve, its mean, and the difference from random."""
    areas = {name: [aubc(curve) for curve in theirs] for name, theirs in curves.items()}
    rows = []
    for name, theirs in curves.items():
        end = mean_interval([curve.accuracy[-1] for curve in theirs])
        row = {"strategy": name, "end": end.mean, "end_low": end.low, "end_high": end.high}
        row |= {"aubc": mean_interval(areas[name]).mean}
        if name != "random":
            ours, baseline = (dict(enumerate(areas[one])) for one in (name, "random"))
            test = paired_t_test(ours, baseline)
            row |= {
                "gain": test.difference,
                "gain_low": test.low,
                "gain_high": test.high,
                "p": test.p,
            }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["pairs", "diabetes", "shapes"])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print(header())
    path = RESULTS / "tasks.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name in args.names:
        problem = problems()[name]
        curves: dict[str, list[Curve]] = {}
        for seed in range(1, args.seeds + 1):
            for strategy in problem.strategies:
                curve = curve_of(name, problem, strategy, seed)
                curves.setdefault(strategy, []).append(curve)
                print(
                    name, strategy, seed, [f"{value:.4f}" for value in curve.accuracy], flush=True
                )
        kept[name] = {"metric": problem.metric, "seeds": args.seeds, "header": header()}
        kept[name]["table"] = table_of(problem, curves)
        path.write_text(json.dumps(kept, indent=1) + "\n")
        for row in kept[name]["table"]:
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})


if __name__ == "__main__":
    main()
