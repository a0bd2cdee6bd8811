"""Stand in for a user's module in prediction, and ask the module for its predictions."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from al_lightning.data.items import inputs_of
from al_lightning.prediction.outputs import Outputs
from al_lightning.prediction.tasks import TASKS, Task
from al_lightning.settings import TaskName

TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
Forward = Callable[..., Any]
Step = Callable[[Any, int], Any]
"""Predicts a batch, given its number."""
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Wrapping(L.LightningModule):
    """Prepares batches as ``model`` does: the base of modules that stand in for another.

    Args:
        model: Its transfer hooks become those of this module. A subclass keeps the model itself.

    Attributes:
        task: What the model predicts. A loop sets its own.
    """

    task: TaskName = "multiclass"

    def __init__(self, model: L.LightningModule) -> None:
        super().__init__()
        for hook in TRANSFER_HOOKS:
            setattr(self, hook, getattr(model, hook))

    def predictor(self, task: Task) -> "Predict":
        """Return a function that predicts a batch and reads the prediction, as the task says."""
        raise NotImplementedError

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return what is predicted by name, with samples as in :class:`Outputs`.

        Raises:
            ValueError: when a prediction cannot be read or is sampled already.
        """
        return self.predictor(TASKS[self.task])(batch, batch_idx).prediction


def step_of(model: L.LightningModule) -> Step:
    """Return a function that predicts a batch: the module's ``predict_step``, or its ``forward``.

    The ``forward`` gets the first part of a tuple batch. Of a dict batch it gets the keys that it
    takes, or the dict as it is.
    """
    if not is_overridden("predict_step", model):
        return lambda batch, batch_idx: _by_forward(model, batch)
    if is_param_in_hook_signature(model.predict_step, "batch_idx", min_args=2):
        return model.predict_step
    return lambda batch, batch_idx: model.predict_step(batch)


Predict = Callable[[Any, int], Outputs]
"""Predicts a batch, given its number, and reads the prediction."""


def predictor(model: L.LightningModule, task: Task) -> Predict:
    """Return a function that predicts a batch and reads the prediction, as the task says."""
    if isinstance(model, Wrapping):
        return model.predictor(task)
    step = step_of(model)
    return lambda batch, batch_idx: task.read(step(batch, batch_idx))


def _by_forward(model: L.LightningModule, batch: Any) -> Any:
    inputs = inputs_of(batch)
    if not isinstance(inputs, Mapping):
        return model(inputs)
    taken = list(inspect.signature(type(model).forward).parameters.values())[1:]
    named = [one for one in taken if one.kind in NAMED]
    needed = [one.name for one in named if one.default is one.empty]
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken)
    names = inputs.keys() if takes_any else {one.name for one in named} & inputs.keys()
    if names and inputs.keys() >= {*needed}:
        data = getattr(model._trainer, "datamodule", None)
        labels = {"label", "labels", getattr(data, "label_key", None)}
        left_out = labels - {*needed}
        return model(**{n: inputs[n] for n in inputs if n in names and n not in left_out})
    if len(needed) > 1:
        raise ValueError(
            f"forward must take the keys of a dict batch, {sorted(inputs)}, or the batch as one "
            f"argument, found {needed}; write a predict_step"
        )
    return model(inputs)


@contextmanager
def replaced_step(model: L.LightningModule, step: Step) -> Iterator[None]:
    """Let ``step`` predict in the place of the module's own ``predict_step`` inside the block."""
    own = vars(model).get("predict_step")
    vars(model)["predict_step"] = step
    try:
        yield
    finally:
        del vars(model)["predict_step"]
        if own is not None:
            vars(model)["predict_step"] = own


def plain_name(name: str) -> str:
    """Return the name of a layer or weight without the marks of compiled layers around it.

    >>> plain_name("net._orig_mod.0.weight")
    'net.0.weight'
    """
    return name.replace("_orig_mod.", "")


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run compiled layers as they were before inside the block, since hooks do not act in them."""
    is_compiled = any(
        isinstance(one, OptimizedModule)
        or one._compiled_call_impl is not None
        or getattr(one, "_compiler_ctx", None) is not None
        for one in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
        yield


def cloned(tree: Any) -> Any:
    """Return the same nest of containers with copies of its tensors, which may be written to."""
    return apply_to_collection(tree, Tensor, torch.clone)


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Replace the ``forward`` of modules inside the block, and put their own back after it."""
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            del vars(module)["forward"]
            if own is not None:
                vars(module)["forward"] = own
