"""Stand in for a user's module in prediction, and ask the module for its predictions."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from al_lightning.data.items import inputs_of
from al_lightning.prediction.outputs import Outputs, read_multiclass

TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
Forward = Callable[..., Any]


class Wrapping(L.LightningModule):
    """Prepares batches as ``model`` does: the base of modules that stand in for another.

    Args:
        model: Its transfer hooks become those of this module. A subclass keeps the model itself.
    """

    def __init__(self, model: L.LightningModule) -> None:
        super().__init__()
        for hook in TRANSFER_HOOKS:
            setattr(self, hook, getattr(model, hook))


class _ForwardOnly(Wrapping):
    """Adds a ``predict_step`` to a module that has none; it calls ``forward`` on the inputs."""

    def __init__(self, model: L.LightningModule) -> None:
        super().__init__(model)
        self.model = model

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.model(inputs_of(batch))


def predicting(model: L.LightningModule) -> L.LightningModule:
    """Return the module itself if it has a ``predict_step``, else one that calls its ``forward``.

    The ``forward`` gets the first part of a tuple batch, or a dict batch as it is.
    """
    return model if is_overridden("predict_step", model) else _ForwardOnly(model)


def predicted(model: L.LightningModule, batch: Any, batch_idx: int) -> Outputs:
    """Return the prediction of a batch, by the module's ``predict_step`` or else ``forward``.

    Raises:
        ValueError: when the prediction cannot be read.
    """
    module = predicting(model)
    takes_index = is_param_in_hook_signature(module.predict_step, "batch_idx", min_args=2)
    prediction = module.predict_step(*((batch, batch_idx) if takes_index else (batch,)))
    is_dict = isinstance(prediction, Mapping)
    found = prediction.get("probs", prediction.get("logits")) if is_dict else prediction
    num_rows = len(found) if isinstance(found, Tensor) and found.ndim else 0
    return read_multiclass(prediction, num_rows)


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
