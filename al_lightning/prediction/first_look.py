"""Look at the first batch that a module predicts: can these tensors be what they are taken for?"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.overrides import TorchFunctionMode

DROPOUT = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout")
NAMES = ("sigmoid", "sigmoid_", "softmax", "special_softmax", "special_expit")
NUM_KEPT = 8


class FirstLook(TorchFunctionMode):
    """Remembers the last outputs of a sigmoid or a softmax inside the block.

    Values alone do not tell: the logits of a network that has not been trained may all be in [0, 1]
    too.

    Args:
        label_shape: Shape of a label of the data, to hold predictions against; None when unknown.
        classes: Names of all classes where one was added, each of which must be predicted.

    Attributes:
        silent: Functions of dropout that were called, and drop nothing in prediction.
    """

    def __init__(
        self, label_shape: tuple[int, ...] | None, classes: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self._classes = classes
        self._label_shape = label_shape
        self._made: deque[tuple[str, Tensor]] = deque(maxlen=NUM_KEPT)
        self.silent: set[str] = set()
        self._told_of_ties = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in NAMES and isinstance(output, Tensor):
            self._made.append((name.strip("_"), output))
        elif name in DROPOUT and func.__module__ == "torch.nn.functional":
            rate, training = [*args[1:3], *(0.5, True)[len(args) - 1 :]][:2]
            given = kwargs or {}
            if given.get("p", rate) > 0 and not given.get("training", training):
                self.silent.add(f"F.{name}")
        return output

    def warn_of_ties(self, probs: Any) -> None:
        """Warn once when probabilities come in half precision, where near ones are equal."""
        is_half = isinstance(probs, Tensor) and probs.dtype in (torch.float16, torch.bfloat16)
        if is_half and not self._told_of_ties:
            self._told_of_ties = True
            rank_zero_warn(
                f"probabilities should come in float32, found {probs.dtype}, in which many rows "
                "get the same score; return logits, or logits.float().softmax(-1)"
            )

    def check_logits(self, raw: Tensor) -> None:
        """Raise ValueError when the tensor is the output of one of them, or a part of it."""
        for name, made in self._made:
            if made.untyped_storage().data_ptr() == raw.untyped_storage().data_ptr():
                raise ValueError(
                    f"a tensor from predict_step is read as logits, and this one is the output of "
                    f"{name}; return the logits, or {{'probs': probs}}"
                )

    def check_num_classes(self, num_classes: int) -> None:
        """Raise ValueError when a class that was added is not predicted."""
        if self._classes is not None and num_classes < len(self._classes):
            raise ValueError(
                f"each of the {len(self._classes)} classes {[*self._classes]} must be predicted, "
                f"found {num_classes} outputs; give the module a head of {len(self._classes)}"
            )

    def check_num_labels(self, num_labels: int) -> None:
        """Raise ValueError when the labels of the data are of another number."""
        if self._label_shape is not None and self._label_shape != (num_labels,):
            raise ValueError(
                f"each of the {num_labels} yes/no labels that are predicted must be in the data, "
                f"found labels of shape {self._label_shape}; predict as many as there are"
            )

    def check_classes_second(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError when (B, C, S) has as many classes as a label has parts."""
        if len(shape) == 3 and self._label_shape == shape[1:2] != shape[2:]:
            raise ValueError(
                "without a mask classes are the second axis, (B, C, *S), and here it is as long as "
                f"a label, got {shape} beside labels of shape {self._label_shape}; say tokens by "
                "{'logits': (B, T, C), 'mask': (B, T)}"
            )
