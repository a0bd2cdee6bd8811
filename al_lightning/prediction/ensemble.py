"""Deep ensembles: several networks, each trained by a fit of its own, that predict together.

Shape suffixes: B batch rows, P parts of a row, C classes, O predicted numbers, M of a result: all
parts.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from al_lightning.data.items import read_label
from al_lightning.prediction.outputs import Outputs, stacked
from al_lightning.prediction.tasks import TASKS, Task
from al_lightning.prediction.wrapping import Predict, Wrapping, cloned, predictor
from al_lightning.settings import TaskName

CLASSIFIED = ("test_acc", "test_loss")


def _in_each(hook: str) -> Callable[..., None]:
    """Make a hook that calls every member's."""

    def call(ensemble: "Ensemble", *args: Any, **kwargs: Any) -> None:
        for member in ensemble.members:
            getattr(member, hook)(*args, **kwargs)

    return call


class Ensemble(Wrapping):
    """Predicts with all its members; the loop trains them one after the other, each as if alone.

    Members differ by their initial weights and by their random draws in training. Each has its own
    Trainer, callbacks, optimizers and curves, so Lightning can do for each what it does for one
    module. Its weights are in ``cycle_N/member_M``. A metric of training is the mean over members.
    ``test_acc`` and ``test_loss`` are those of the averaged prediction, where a batch holds one
    class for each row or part; for numbers ``test_mae`` and ``test_mse`` are. The mean
    of the members' own tests is ``member_test_acc`` and so on. A ``target`` may name any of them.
    The first member's transfer hooks prepare the batches of all. Callbacks see a fit of each
    member, and a test and prediction of the whole.

    To train by hand, call ``Trainer.fit`` for each of :attr:`members`.

    Args:
        members: A function that makes one member, or the members.
        num_members: M; for a function.
        task: What the members predict; a loop sets its own.

    Raises:
        ValueError: for members that are no LightningModules, share weights or begin with equal
            ones.

    References:
        Lakshminarayanan et al. 2017, arXiv:1612.01474, Algorithm 1, without adversarial training.
    """

    def __init__(
        self,
        members: Callable[[], L.LightningModule] | Sequence[L.LightningModule],
        num_members: int | None = None,
        task: TaskName = "multiclass",
    ) -> None:
        if callable(members) != (num_members is not None) or num_members == 0:
            raise ValueError(
                "an ensemble takes a function and num_members >= 1, or a list of members, got "
                f"{type(members).__name__} and num_members={num_members}"
            )
        modules = [members() for _ in range(num_members or 0)] if callable(members) else members
        _check_members(modules)
        super().__init__(modules[0])
        self.task = task
        for m, member in enumerate(modules):
            self.add_module(f"member_{m}", member)  # Lightning tells direct children their trainer

    @property
    def members(self) -> list[L.LightningModule]:
        """The M modules."""
        return [child for child in self.children() if isinstance(child, L.LightningModule)]

    setup = _in_each("setup")
    teardown = _in_each("teardown")
    configure_model = _in_each("configure_model")
    on_predict_start = _in_each("on_predict_start")
    on_predict_end = _in_each("on_predict_end")

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Refuse: train the members, not the ensemble.

        Raises:
            ValueError: always; says how to train them.
        """
        raise ValueError(
            "an ensemble must be trained member by member, got Trainer.fit(ensemble); give it to "
            "ActiveLearningLoop, or fit each of ensemble.members"
        )

    def configure_optimizers(self) -> None:
        """Return none: each member has its own."""

    def on_test_epoch_start(self) -> None:
        self._tested: list[Tensor | None] = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Compare the averaged prediction with the labels in the batch."""
        outputs = self.predictor(TASKS[self.task])(batch, batch_idx)
        key = getattr(getattr(self.trainer, "datamodule", None), "label_key", None)
        self._tested.append(_compared(outputs, batch, key, self.task))

    def on_test_epoch_end(self) -> None:
        """Log two metrics, unless one batch shows that the labels are not what is predicted."""
        tested = [batch for batch in self._tested if batch is not None]
        if tested and len(tested) == len(self._tested):
            names = ("test_mae", "test_mse") if self.task == "regression" else CLASSIFIED
            for name, value in zip(names, torch.cat(tested, dim=1).mean(1), strict=True):
                self.log(name, value, sync_dist=True)

    def predictor(self, task: Task) -> Predict:
        """Return a function that predicts a batch with each member: M samples a row."""
        each = [predictor(member, task) for member in self.members]
        return lambda batch, batch_idx: stacked([one(cloned(batch), batch_idx) for one in each])


def _compared(
    outputs: Outputs, batch: Any, label_key: int | str | None, task: TaskName
) -> Tensor | None:
    """Return (2, M): hits and losses of all parts with a label, or errors and their squares.

    It is None when the batch holds no such labels.
    """
    try:
        labels = read_label(batch, label_key)
    except ValueError:
        return None
    if not isinstance(labels, int | float | Tensor):
        return None
    B = len(outputs)
    labels = torch.as_tensor(labels, device=outputs.device).reshape(B, -1)
    if (numbers_BO := outputs.mean_mean) is not None:
        errors_BO = labels - numbers_BO
        return torch.stack([errors_BO.abs().flatten(), errors_BO.square().flatten()])
    probs = outputs.mean_probs
    if probs is None or labels.shape != (probs.shape[:-1] if probs.ndim == 3 else (B, 1)):
        return None
    probs_BPC, C = probs.reshape(B, -1, probs.shape[-1]), probs.shape[-1]
    is_class_BP = (labels >= 0) & (labels < C) & (labels == labels.round())
    if outputs.mask is not None:  # padding, and parts without a label, do not count
        is_class_BP &= outputs.mask
    elif not is_class_BP.all():
        return None
    if labels.is_floating_point() and task not in ("binary", "multilabel"):
        return None
    probs_MC, labels_M = probs_BPC[is_class_BP], labels[is_class_BP].long()
    losses_M = nll_loss(probs_MC.log(), labels_M, reduction="none")
    return torch.stack([(probs_MC.argmax(-1) == labels_M).float(), losses_M])


def networks_of(model: L.LightningModule) -> list[L.LightningModule]:
    """Return the networks to train: the members of an ensemble, or the model itself."""
    return model.members if isinstance(model, Ensemble) else [model]


def mean_of(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the networks that logged it.

    >>> mean_of([{"loss": 1.0, "acc": 0.5}, {"loss": 2.0}])
    {'loss': 1.5, 'acc': 0.5}
    """
    found: dict[str, list[float]] = {}
    for logged in metrics:
        for name, value in logged.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _check_members(members: Sequence[Any]) -> None:
    kinds = {type(m).__name__ for m in members if not isinstance(m, L.LightningModule)}
    if kinds or not members:
        raise ValueError(f"members must be LightningModules, got {sorted(kinds) or 'none'}")
    for (i, first), (j, second) in combinations(enumerate(members), 2):
        ours, theirs = list(first.parameters()), list(second.parameters())
        if not {id(p) for p in ours if p.requires_grad}.isdisjoint(map(id, theirs)):
            raise ValueError(
                f"members must not share weights that train, {i} and {j} do; copy them"
            )
        if ours and len(ours) == len(theirs) and all(map(torch.equal, ours, theirs)):
            raise ValueError(
                f"members must differ in their initial weights, found {i} and {j} equal; do not "
                "seed inside the function that makes them"
            )
