"""Deep ensembles: several networks trained side by side in one ordinary ``Trainer.fit``.

Shape suffixes: B batch rows, M members, C classes, D embedding dimensions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from al_lightning.prediction.wrapping import cloned, predicted, replaced_forwards

NOT_CALLED = (
    "backward",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_callbacks",
    "on_save_checkpoint",
    "on_load_checkpoint",
)
Entries = dict[str, list[tuple[int, Any, tuple[Any, ...], dict[str, Any]]]]


def _in_each(hook: str, *, of_tested: bool = False) -> Callable[..., None]:
    """A hook that runs every member's, or that of the members whose step was run."""

    def call(ensemble: "Ensemble", *args: Any, **kwargs: Any) -> None:
        as_one = of_tested and ensemble._tested_as_one
        arguments = [(*args, *kwargs.values())] * (1 if as_one else len(ensemble.members))
        ensemble._each(hook, *arguments, prefix="member_" if of_tested and not as_one else "")

    return call


class Ensemble(L.LightningModule):
    """Trains its members on the same batches, each as it would be alone, and predicts with all.

    They differ by their initial weights and by what they draw in training. The members' losses are
    added up, so gradients, clipping, accumulation and schedules stay each member's own; M members
    take M times the memory. ``train_loss`` and all else that is logged in training is the mean over
    members. In validation and test the first member's step runs with the averaged prediction as the
    output of its ``forward``, so ``test_acc`` is the ensemble's. Where the step does not use
    ``forward``, or that is not what it predicts, each member is tested alone and the means are
    logged as ``member_test_acc``. The first member's transfer hooks prepare the batches of all.

    Args:
        members: A function that makes one member, or the members.
        num_members: M; for a function.

    Raises:
        ValueError: for members that are no LightningModules of automatic optimization, share
            weights or begin with equal ones, or override a hook that an ensemble does not call.

    References:
        Lakshminarayanan et al. 2017, arXiv:1612.01474, Algorithm 1, without adversarial training.
    """

    def __init__(
        self,
        members: Callable[[], L.LightningModule] | Sequence[L.LightningModule],
        num_members: int | None = None,
    ) -> None:
        super().__init__()
        if callable(members) != (num_members is not None) or num_members == 0:
            raise ValueError(
                "an ensemble takes a function and num_members >= 1, or a list of members, got "
                f"{type(members).__name__} and num_members={num_members}"
            )
        modules = [members() for _ in range(num_members or 0)] if callable(members) else members
        _check_members(modules)
        for m, member in enumerate(modules):
            self.add_module(f"member_{m}", member)  # Lightning tells direct children their trainer
        first = modules[0]
        self.on_before_batch_transfer = first.on_before_batch_transfer  # type: ignore[method-assign]
        self.transfer_batch_to_device = first.transfer_batch_to_device  # type: ignore[method-assign]
        self.on_after_batch_transfer = first.on_after_batch_transfer  # type: ignore[method-assign]
        # Steps that the members lack must seem lacking here too.
        if is_overridden("validation_step", first):
            self.validation_step = self._validate  # type: ignore[method-assign]
        if is_overridden("test_step", first):
            self.test_step = self._test  # type: ignore[method-assign]
        self._tested_as_one = True

    @property
    def members(self) -> list[L.LightningModule]:
        """The M modules."""
        return [child for child in self.children() if isinstance(child, L.LightningModule)]

    # ---- training --------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any] | None:
        outputs = self._each("training_step", *((cloned(batch), batch_idx) for _ in self.members))
        outputs = [out if isinstance(out, Mapping) else {"loss": out} for out in outputs]
        losses = [out["loss"] for out in outputs if out["loss"] is not None]
        if not losses:
            return None
        detached = [
            {name: x.detach() if isinstance(x, Tensor) else x for name, x in out.items()}
            for out in outputs
        ]
        return {"loss": torch.stack(losses).sum(), "members": detached}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        each = outputs["members"] if outputs else [outputs] * len(self.members)
        self._each("on_train_batch_end", *((own, batch, batch_idx) for own in each))

    def configure_optimizers(self) -> Any:
        configured = [_parts(member.configure_optimizers()) for member in self.members]
        joint = JointOptimizer([optimizer for optimizer, _ in configured])
        schedules = [
            {
                "reduce_on_plateau": isinstance(schedule["scheduler"], ReduceLROnPlateau),
                **schedule,
                "scheduler": MemberSchedule(schedule["scheduler"], joint, member),
            }
            for member, (_, own) in zip(self.members, configured, strict=True)
            for schedule in own
        ]
        return [joint], schedules

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.member.lr_scheduler_step(scheduler.own, metric)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        for member, own in zip(self.members, optimizer.each, strict=True):
            member.configure_gradient_clipping(own, gradient_clip_val, gradient_clip_algorithm)

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self._each("on_before_zero_grad", *((own,) for own in optimizer.each))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self._each("on_before_optimizer_step", *((own,) for own in optimizer.each))

    # ---- validation, test and prediction ---------------------------------------------------------

    def _validate(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("validation_step", batch, batch_idx)

    def _test(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test_step", batch, batch_idx)

    def _evaluate(self, step: str, batch: Any, batch_idx: int) -> None:
        first, *others = self.members
        # Only logits may be averaged, and forward could as well return features.
        probs = predicted(first, cloned(batch), batch_idx).probs
        own_forward, averaged = first.forward, []

        def forward(*args: Any, **kwargs: Any) -> Any:
            logits = own_forward(*cloned(args), **cloned(kwargs))
            averaged.append(_predicts(logits, probs))
            if not averaged[-1]:
                return logits
            return _averaged([logits, *(m(*cloned(args), **cloned(kwargs)) for m in others)])

        entries: Entries = {}
        with replaced_forwards({first: forward}):
            _run(0, first, step, (cloned(batch), batch_idx), entries)
        self._tested_as_one = bool(averaged) and all(averaged)
        if not self._tested_as_one:
            for m, member in enumerate(others, start=1):
                _run(m, member, step, (cloned(batch), batch_idx), entries)
        self._log(entries, "" if self._tested_as_one else "member_")

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """``probs`` (B, M, C), and ``embedding`` (B, M D) when all give one: theirs side by side.

        Raises:
            ValueError: when a member's prediction cannot be read or is sampled already.
        """
        outputs = [predicted(member, cloned(batch), batch_idx) for member in self.members]
        prediction = {"probs": torch.stack([out.probs for out in outputs], dim=1)}
        embeddings = [out.embedding for out in outputs if out.embedding is not None]
        if len(embeddings) == len(outputs):
            prediction["embedding"] = torch.cat(embeddings, dim=1)
        return prediction

    # ---- hooks and logging -----------------------------------------------------------------------

    setup = _in_each("setup")
    teardown = _in_each("teardown")
    configure_model = _in_each("configure_model")
    on_fit_start = _in_each("on_fit_start")
    on_fit_end = _in_each("on_fit_end")
    on_train_start = _in_each("on_train_start")
    on_train_end = _in_each("on_train_end")
    on_train_epoch_start = _in_each("on_train_epoch_start")
    on_train_epoch_end = _in_each("on_train_epoch_end")
    on_train_batch_start = _in_each("on_train_batch_start")
    on_after_backward = _in_each("on_after_backward")
    on_validation_start = _in_each("on_validation_start")
    on_validation_end = _in_each("on_validation_end", of_tested=True)
    on_validation_epoch_start = _in_each("on_validation_epoch_start")
    on_validation_epoch_end = _in_each("on_validation_epoch_end", of_tested=True)
    on_test_start = _in_each("on_test_start")
    on_test_end = _in_each("on_test_end", of_tested=True)
    on_test_epoch_start = _in_each("on_test_epoch_start")
    on_test_epoch_end = _in_each("on_test_epoch_end", of_tested=True)
    on_predict_start = _in_each("on_predict_start")
    on_predict_end = _in_each("on_predict_end")

    def _each(self, hook: str, *arguments: tuple[Any, ...], prefix: str = "") -> list[Any]:
        """Runs a hook of the members, each with its own arguments, and logs what they log."""
        entries: Entries = {}
        pairs = zip(self.members, arguments, strict=False)
        results = [_run(m, one, hook, args, entries) for m, (one, args) in enumerate(pairs)]
        self._log(entries, prefix)
        return results

    def _log(self, entries: Entries, prefix: str) -> None:
        """Logs the mean of each number, and each member's own metric, which has no mean."""
        for name, logged in entries.items():
            values = []
            for m, value, args, kwargs in logged:
                if isinstance(value, Metric):
                    own_name = name if len(logged) == 1 else f"member_{m}_{name}"
                    self.log(own_name, value, *args, **kwargs)
                else:
                    values.append(torch.as_tensor(value, dtype=torch.float32, device=self.device))
            if values:
                self.log(prefix + name, torch.stack(values).mean(), *args, **kwargs)


def _run(m: int, member: L.LightningModule, hook: str, args: Any, entries: Entries) -> Any:
    """Runs a hook of member ``m`` and adds what it logs to ``entries``."""

    def log(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("metric_attribute", None)  # its name in the member; Lightning finds it in us
        entries.setdefault(name, []).append((m, value, args, kwargs))

    # Lightning refuses `log` outside a hook that it runs itself, and knows by private state which
    # one it runs. `log_dict` goes through `log`, so this one public name is enough to replace.
    member.log = log  # type: ignore[method-assign]
    try:
        method = getattr(member, hook)
        if hook.endswith("_step") and not _takes_index(method):
            args = args[:1]
        return method(*args)
    finally:
        del member.log


def _takes_index(step: Callable[..., Any]) -> bool:
    return is_param_in_hook_signature(step, "batch_idx", min_args=2)


def _predicts(logits: Any, probs_BC: Tensor) -> bool:
    """Whether what ``forward`` returned are the logits of what ``predict_step`` returned."""
    return (
        isinstance(logits, Tensor)
        and logits.shape == probs_BC.shape
        and torch.allclose(
            logits.float().softmax(-1), probs_BC.float(), atol=1e-3, rtol=0, equal_nan=True
        )
    )


def _averaged(logits: Sequence[Tensor]) -> Tensor:
    """Logits (B, C) of the mean of the members' probabilities."""
    log_probs_MBC = torch.stack([one.float() for one in logits]).log_softmax(-1)
    return log_probs_MBC.logsumexp(0) - math.log(len(logits))


class JointOptimizer(Optimizer):
    """The members' optimizers as the one that Lightning's automatic optimization allows.

    Manual optimization would take them as they are, but counts each as a global step, and knows
    neither clipping, accumulation nor schedulers. The groups here are the members' own dicts.
    """

    def __init__(self, each: Sequence[Optimizer]) -> None:
        self.each = each
        super().__init__([group for optimizer in each for group in optimizer.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        result = None if closure is None else closure()
        for optimizer in self.each:
            optimizer.step()
        return result

    def state_dict(self) -> dict[str, Any]:
        return {"each": [optimizer.state_dict() for optimizer in self.each]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.each, state_dict["each"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [group for optimizer in self.each for group in optimizer.param_groups]


class MemberSchedule:
    """A member's scheduler as one of the joint optimizer, as which Lightning accepts it."""

    def __init__(self, own: Any, optimizer: JointOptimizer, member: L.LightningModule) -> None:
        self.own, self.optimizer, self.member = own, optimizer, member

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.own.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.own.load_state_dict(state_dict)


def _parts(configured: Any) -> tuple[Optimizer, list[dict[str, Any]]]:
    """The optimizer and the scheduler configurations that ``configure_optimizers`` returned.

    Raises:
        ValueError: unless it is one optimizer, in any of the forms that Lightning takes.
    """
    one, schedules, monitor = configured, [], None
    if isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], tuple | list):
        one, schedules = one
        schedules = schedules if isinstance(schedules, tuple | list) else [schedules]
    if isinstance(one, tuple | list) and len(one) == 1:
        one = one[0]
    if isinstance(one, Mapping):
        schedules = [one["lr_scheduler"]] if "lr_scheduler" in one else []
        one, monitor = one["optimizer"], one.get("monitor")
    if not isinstance(one, Optimizer):
        raise ValueError(
            "each member must have one optimizer, got from configure_optimizers "
            f"{type(configured).__name__}; return an optimizer or a dict with 'optimizer'"
        )
    return one, [
        dict(s) if isinstance(s, Mapping) else {"scheduler": s, "monitor": monitor}
        for s in schedules
    ]


def _check_members(members: Sequence[Any]) -> None:
    kinds = {type(m).__name__ for m in members if not isinstance(m, L.LightningModule)}
    if kinds or not members:
        raise ValueError(f"members must be LightningModules, got {sorted(kinds) or 'none'}")
    for member in members:
        overridden = [hook for hook in NOT_CALLED if is_overridden(hook, member)]
        if overridden or not member.automatic_optimization:
            found = ", ".join(overridden) or "automatic_optimization=False"
            raise ValueError(
                f"members train by automatic optimization with Lightning's own {NOT_CALLED}, found "
                f"{found} in {type(member).__name__}; use a callback, or configure_optimizers"
            )
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
