"""Deep ensembles: several networks, each trained by a fit of its own, that predict together.

Shape suffixes: B batch rows, M members, C classes, D embedding dimensions.
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
from al_lightning.prediction.wrapping import Wrapping, cloned, predicted, step_of


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
    whole-number label for each row. The mean of the members' own tests is ``member_test_acc`` and
    so on, which is also what a ``target`` names. The first member's transfer hooks prepare the
    batches of all. Callbacks see a fit of each member, and a test and prediction of the whole.

    To train by hand, call ``Trainer.fit`` for each of :attr:`members`.

    Args:
        members: A function that makes one member, or the members.
        num_members: M; for a function.

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
    ) -> None:
        if callable(members) != (num_members is not None) or num_members == 0:
            raise ValueError(
                "an ensemble takes a function and num_members >= 1, or a list of members, got "
                f"{type(members).__name__} and num_members={num_members}"
            )
        modules = [members() for _ in range(num_members or 0)] if callable(members) else members
        _check_members(modules)
        super().__init__(modules[0])
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
        """Compare the averaged prediction with the classes in the batch."""
        probs_BC = self._predicted(batch, batch_idx).mean_probs
        key = getattr(getattr(self.trainer, "datamodule", None), "label_key", None)
        self._tested.append(_compared(probs_BC, batch, key))

    def on_test_epoch_end(self) -> None:
        """Log accuracy and loss, unless one batch shows that the labels are no classes."""
        tested = [batch for batch in self._tested if batch is not None]
        if tested and len(tested) == len(self._tested):
            accuracy, loss = torch.cat(tested, dim=1).mean(1)
            self.log("test_acc", accuracy, sync_dist=True)
            self.log("test_loss", loss, sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``probs`` (B, M, C), and ``embedding`` (B, M D) when all give one.

        Raises:
            ValueError: when a member's prediction cannot be read or is sampled already.
        """
        return self._predicted(batch, batch_idx).prediction

    def _predicted(self, batch: Any, batch_idx: int) -> Outputs:
        return stacked([predicted(step_of(one), cloned(batch), batch_idx) for one in self.members])


def _compared(probs_BC: Tensor, batch: Any, label_key: int | str | None) -> Tensor | None:
    """Return hits and losses (2, B); None when the batch holds no positions of classes."""
    try:
        labels = read_label(batch, label_key)
    except ValueError:
        return None
    if not isinstance(labels, int | Tensor):
        return None
    labels_B = torch.as_tensor(labels, device=probs_BC.device).reshape(-1)
    B, C = probs_BC.shape
    is_class_B = (labels_B >= 0) & (labels_B < C) & (not labels_B.is_floating_point())
    if len(labels_B) != B or not is_class_B.all():
        return None
    losses_B = nll_loss(probs_BC.log(), labels_B.long(), reduction="none")
    return torch.stack([(probs_BC.argmax(-1) == labels_B).float(), losses_B])


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
