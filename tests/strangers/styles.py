"""Modules, data and Trainers in the styles that Lightning users write; none knows of us."""

import threading
from collections import namedtuple
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    Callback,
    EarlyStopping,
    ModelCheckpoint,
)
from torch import nn
from torch.utils.data import Dataset, TensorDataset, default_collate
from torchmetrics.classification import MulticlassAccuracy
from toys import Plain, points

from al_lightning import ActiveDataModule

ROWS = points(80)
Pair = namedtuple("Pair", "x y")


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


# ---- modules -------------------------------------------------------------------------------------


class Base(Plain):
    """Draws its weights by the seed of the run, as users' modules do."""


class LayersInConfigureModel(Base):
    def __init__(self):
        super().__init__()
        self.net = None

    def configure_model(self):
        if self.net is None:
            self.net = layers()


class LayersInSetup(Base):
    def __init__(self):
        super().__init__()
        self.net = None

    def setup(self, stage):
        if self.net is None:
            self.net = layers()


class Lazy(Base):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))


class Adapter(Base):
    """Keeps a frozen backbone out of its checkpoints."""

    strict_loading = False

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4).requires_grad_(False)
        nn.init.eye_(self.backbone.weight)
        nn.init.zeros_(self.backbone.bias)

    def forward(self, x):
        return self.net(self.backbone(x))

    def state_dict(self, *args, **kwargs):
        whole = super().state_dict(*args, **kwargs)
        return {name: value for name, value in whole.items() if "backbone" not in name}


class Annealed(Base):
    """A temperature, a counter and a frozen layer outside of the weights."""

    def __init__(self):
        super().__init__()
        self.tau, self.history = 1.0, []
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def training_step(self, batch, batch_idx):
        self.steps += 1
        self.history.append(batch_idx)
        return F.cross_entropy(self(batch[0]) / self.tau, batch[1])

    def on_train_epoch_end(self):
        self.tau *= 0.8

    def predict_step(self, batch, batch_idx):
        return self(batch[0]) * self.tau


class ManualOptimization(Base):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


class SeveralOptimizers(Base):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        body = torch.optim.SGD(self.net[0].parameters(), 0.1)
        head = torch.optim.Adam(self.net[3].parameters(), 0.01)
        return [body, head], [torch.optim.lr_scheduler.StepLR(body, 1)]

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()
            self.untoggle_optimizer(optimizer)


class WithMetrics(Base):
    def __init__(self):
        super().__init__()
        self.train_acc, self.val_acc = (MulticlassAccuracy(3) for _ in range(2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("train_acc", self.train_acc(logits, y))
        return F.cross_entropy(logits, y)

    def validation_step(self, batch, batch_idx):
        self.val_acc(self(batch[0]), batch[1])
        self.log("val_acc", self.val_acc)


class Backbone(Base):
    def __init__(self):
        super().__init__()
        self.backbone = self.net[0]

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.05)


class OnDicts(Base):
    """Takes its batch as keywords, like the models of a well-known hub."""

    def forward(self, ids, mask, label=None):
        return self.net(ids * mask)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(**batch), batch["label"])


class OnNames(Base):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch.x), batch.y)

    def predict_step(self, batch, batch_idx):
        return self(batch.x)


class OnTriples(Base):
    def training_step(self, batch, batch_idx):
        x, length, y = batch
        assert (length == 4).all()
        return F.cross_entropy(self(x), y)


class OnOneHot(Base):
    def training_step(self, batch, batch_idx):
        assert batch[1].shape[1:] == (3,)
        return F.cross_entropy(self(batch[0]), batch[1])


# ---- data ----------------------------------------------------------------------------------------


class Items(Dataset):
    """Rows in the form that ``make`` gives them."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return self.make(*ROWS[index])


def data(rows=ROWS, **arguments) -> ActiveDataModule:
    return ActiveDataModule(rows, initial_labeled_size=20, batch_size=16, **arguments)


def tested(**arguments):
    return data(test_set=points(30, seed=1), **arguments)


def pad(items):
    """Collates rows that are cut to lengths of their own."""
    x = [F.pad(x, (0, 4 - len(x))) for x, _ in items]
    return torch.stack(x), default_collate([y for _, y in items])


def cut(x, y):
    return x[: 2 + int(y)], y


def by_hand(query):
    return [int(ROWS[index][1]) for index in query.indices]


# ---- styles --------------------------------------------------------------------------------------

QUIET = {"enable_progress_bar": False, "logger": False, "accelerator": "cpu"}
PLAIN = partial(L.Trainer, max_epochs=2, enable_checkpointing=False, **QUIET)


def stock(**given: Any) -> L.Trainer:
    callbacks: list[Callback] = [
        BackboneFinetuning(1, backbone_initial_ratio_lr=1.0),
        EarlyStopping("train_loss", check_on_train_epoch_end=True),
        ModelCheckpoint(save_last=True),
    ]
    given = {**given, "max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(callbacks=callbacks, **given)


@dataclass(frozen=True)
class Style:
    """Says how to make the parts of a run."""

    model: Any
    data: Any = tested
    trainer: Any = PLAIN
    options: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """Make them anew."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return {"model": self.model(), "data": self.data(), "trainer": self.trainer}


class Unlogged(Base):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])


def compiled():
    return torch.compile(Unlogged(), backend="eager")


def labeled_tokens(x, y):
    return {**tokens(x, y), "label": y}


def tokens(x, y):
    return {"ids": x, "mask": (x > -9).float()}


def triple(x, y):
    return x, 4, y


PADDED = {"collate_fn": pad, "eval_collate_fn": pad}


STYLES = {
    "forward only": Style(Base),
    "layers in configure_model": Style(LayersInConfigureModel),
    "layers in setup": Style(LayersInSetup),
    "lazy layers": Style(Lazy),
    "an adapter with a partial state": Style(Adapter),
    "state outside of the weights": Style(Annealed),
    "compiled": Style(compiled),
    "a function that makes it": Style(lambda: partial(Base, seed=3)),
    "manual optimization": Style(ManualOptimization),
    "several optimizers": Style(SeveralOptimizers),
    "metrics": Style(WithMetrics, partial(tested, val_size=10)),
    "stock callbacks": Style(Backbone, tested, stock),
    "forward(**batch)": Style(OnDicts, partial(data, Items(labeled_tokens))),
    "tokens without labels": Style(
        OnDicts, partial(data, Items(tokens)), options={"oracle": by_hand}
    ),
    "named tuples": Style(OnNames, partial(data, Items(Pair))),
    "triples": Style(OnTriples, partial(data, Items(triple), label_key=2)),
    "one-hot": Style(OnOneHot, partial(data, Items(lambda x, y: (x, F.one_hot(y, 3).float())))),
    "a collate function": Style(Base, partial(data, Items(cut), **PADDED)),
    "MC dropout": Style(Base, options={"strategy": "bald", "mc_samples": 3}),
    "embeddings": Style(Base, options={"strategy": "badge", "embedding_layer": "net.3"}),
}


class Locked(Callback):
    def __init__(self):
        self.lock = threading.Lock()


OTHER_ROWS = TensorDataset(ROWS[:][0], (ROWS[:][1] + 1) % 3)
REFUSED = {
    "triples": (Style(OnTriples, partial(data, Items(triple))), "needs label_key"),
    "no labels": (Style(OnDicts, partial(data, Items(tokens))), "needs somebody who labels"),
    "labels of None": (
        Style(Base, partial(data, Items(lambda x, y: (x, None)))),
        "must have a label",
    ),
    "other rows": (Style(Base, partial(data, pool_set=OTHER_ROWS)), "must hold the same rows"),
    "a lock": (
        Style(Base, trainer=partial(PLAIN, callbacks=[Locked()])),
        "in a function that makes the Trainer",
    ),
    "barebones": (Style(Base, trainer=partial(L.Trainer, barebones=True)), "found barebones=True"),
    "another forward": (
        Style(OnDicts, partial(data, Items(lambda x, y: {"x": x, "label": y}))),
        "forward must take the keys",
    ),
    "a Trainer": (Style(Base, trainer=L.Trainer(**QUIET)), "must be a function that makes"),
}
"""Styles that cannot work, and the words that say why."""
