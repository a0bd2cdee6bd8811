"""The baseline: active learning on MNIST as a plain PyTorch tutorial writes it.

Its flaws are part of it and stay: images decoded from PIL one at a time, a list comprehension that
is quadratic in pool and query, a sort of the whole pool. Pictures are left out, so it is compared
at its fastest.

python benchmarks/tutorial.py --seed 42      # about 4 minutes on two cores
"""

from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from common import ROOT, Stopwatch, arguments, header
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from al_lightning.mnist import ensure_mnist

DATA_DIR = ROOT / "data"
BATCH_SIZE = 64
INITIAL_LABELED_SIZE = 1000
ACQUISITION_SIZE = 500
NUM_CYCLES = 5


class TutorialRecord(TypedDict):
    """One cycle; ``seconds`` of ``load`` (first cycle), ``fit``, ``test``, ``predict``, ``query``.

    ``predict`` scores the pool; ``query`` sorts the scores and moves the rows.
    """

    cycle: int
    num_labeled: int
    train_loss: float
    test_acc: float
    seconds: dict[str, float]


class SimpleCNN(nn.Module):
    """The tutorial's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        logits: Tensor = self.fc2(x)
        return logits


def load_mnist(data_dir: str | Path = DATA_DIR) -> tuple[Dataset[Any], Dataset[Any]]:
    """The training and the test part, as torchvision serves them."""
    to_tensor = transforms.ToTensor()
    train_set = datasets.MNIST(str(data_dir), train=True, download=False, transform=to_tensor)
    test_set = datasets.MNIST(str(data_dir), train=False, download=False, transform=to_tensor)
    return train_set, test_set


def train_one_epoch(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer
) -> float:
    """Trains; returns the mean of the batches' losses."""
    model.train()
    running_loss = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        running_loss += loss.item()
    return running_loss / len(loader)


def evaluate(model: nn.Module, loader: DataLoader[Any]) -> float:
    """The share of images classified correctly."""
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in loader:
            predicted = model(images).argmax(dim=1)
            correct += int((predicted == labels).sum())
            total += len(labels)
    return correct / total


def get_uncertainty(model: nn.Module, dataset: Dataset[Any], indices: list[int]) -> np.ndarray:
    """Least confidence of each row: 1 - max softmax."""
    model.eval()
    uncertainties: list[np.ndarray] = []
    with torch.no_grad():
        for images, _ in DataLoader(Subset(dataset, indices), batch_size=BATCH_SIZE):
            probs = F.softmax(model(images), dim=1)
            uncertainties.append((1 - probs.max(dim=1).values).numpy())
    return np.concatenate(uncertainties)


def without(unlabeled: list[int], new: list[int]) -> list[int]:
    """The tutorial's bookkeeping, O(pool x query)."""
    return [i for i in unlabeled if i not in new]


def run_tutorial(
    seed: int,
    strategy: Literal["least_confidence", "random"] = "least_confidence",
    *,
    num_cycles: int = NUM_CYCLES,
    data_dir: str | Path = DATA_DIR,
) -> list[TutorialRecord]:
    """The whole tutorial; one record a cycle."""
    watch = Stopwatch()
    np.random.seed(seed)
    torch.manual_seed(seed)
    with watch.stage("load"):
        train_set, test_set = load_mnist(data_dir)
    indices = np.arange(len(train_set))  # type: ignore[arg-type]
    np.random.shuffle(indices)
    labeled = indices[:INITIAL_LABELED_SIZE].tolist()
    unlabeled = indices[INITIAL_LABELED_SIZE:].tolist()
    model = SimpleCNN()
    optimizer = torch.optim.Adam(model.parameters())
    test_loader = DataLoader(test_set, batch_size=BATCH_SIZE)
    records: list[TutorialRecord] = []
    for cycle in range(1, num_cycles + 1):
        num_labeled = len(labeled)
        train_loader = DataLoader(Subset(train_set, labeled), batch_size=BATCH_SIZE, shuffle=True)
        with watch.stage("fit"):
            train_loss = train_one_epoch(model, train_loader, optimizer)
        with watch.stage("test"):
            test_acc = evaluate(model, test_loader)
        if cycle < num_cycles:
            if strategy == "random":
                positions = np.random.choice(len(unlabeled), ACQUISITION_SIZE, replace=False)
            else:
                with watch.stage("predict"):
                    scores = get_uncertainty(model, train_set, unlabeled)
                with watch.stage("query"):
                    positions = np.argsort(scores)[-ACQUISITION_SIZE:]
            with watch.stage("query"):
                new = [unlabeled[position] for position in positions]
                labeled = labeled + new
                unlabeled = without(unlabeled, new)
        records.append(
            {
                "cycle": cycle,
                "num_labeled": num_labeled,
                "train_loss": train_loss,
                "test_acc": test_acc,
                "seconds": watch.take(),
            }
        )
    return records


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--strategy", choices=["least_confidence", "random"], default="least_confidence"
    )
    parser.add_argument("--cycles", type=int, default=NUM_CYCLES)
    args = parser.parse_args()
    ensure_mnist(DATA_DIR)
    print(header())
    for record in run_tutorial(args.seed, args.strategy, num_cycles=args.cycles):
        phases = ", ".join(f"{name} {value:.1f}" for name, value in record["seconds"].items())
        print(
            f"cycle {record['cycle']} | labels {record['num_labeled']} | train_loss "
            f"{record['train_loss']:.4f} | test_acc {record['test_acc']:.4f} | seconds: {phases}"
        )


if __name__ == "__main__":
    main()
