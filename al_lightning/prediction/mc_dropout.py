"""MC dropout for any LightningModule: posterior samples from the dropout it was trained with.

A posterior sample is one network, so its masks are the same for every row, batch and rank. A batch
runs once without dropout, and then once a sample from its first dropout on.

Shape suffixes: B batch rows, K posterior samples, C classes, D embedding dimensions.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from al_lightning.prediction.read_pool import Outputs, predicting, read_outputs
from al_lightning.seeds import generator

SUPPORTED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
UNSUPPORTED = (nn.AlphaDropout, nn.FeatureAlphaDropout)
PLAIN = (Tensor, int, float, str, type(None))
COMPUTE_AGAIN = object()
Forward = Callable[..., Any]


class MCDropout(L.LightningModule):
    """Predicts in the place of ``model``, with K networks that its dropout draws.

    For ``Trainer.predict`` alone; the module itself stays in evaluation mode and unchanged. Dropout
    that is no module cannot be seen and stays off: ``F.dropout``, the attention weights inside
    ``nn.MultiheadAttention``, the layers inside ``nn.LSTM``.

    Args:
        model: Any LightningModule with ``nn.Dropout`` or ``nn.Dropout1d/2d/3d`` in it; what it
            predicts, by ``predict_step`` or ``forward``, is read as in a prediction of its own.
        mc_samples: K, at least 1.

    Raises:
        ValueError: for a module without dropout, or with a kind that is not one of these.

    References:
        Gal and Ghahramani 2016, arXiv:1506.02142, Eq. 6; one mask for the whole pool: Kirsch et al.
        2019, arXiv:1906.08158, section 3.
    """

    def __init__(self, model: L.LightningModule, mc_samples: int) -> None:
        super().__init__()
        if mc_samples < 1:
            raise ValueError(f"mc_samples must be at least 1, got {mc_samples}")
        self.mc_samples = mc_samples
        self._dropouts = _checked_dropouts(model)
        self._masks: _Masks | None = None
        self.model = model
        self.on_before_batch_transfer = model.on_before_batch_transfer  # type: ignore[method-assign]
        self.transfer_batch_to_device = model.transfer_batch_to_device  # type: ignore[method-assign]
        self.on_after_batch_transfer = model.on_after_batch_transfer  # type: ignore[method-assign]

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """``probs`` (B, K, C), and ``embedding`` (B, D), without dropout, when the model gives one.

        Raises:
            ValueError: when a dropout layer was not reached or does not see the rows first, or when
                the model's prediction cannot be read or is sampled already.
        """
        passes = _Passes(self._dropouts, self._masks or _Masks(self.mc_samples))
        # Inside the fused kernels of transformers no dropout layer is ever called.
        with _without_fast_path(), replaced_forwards(passes.forwards(self.model)):
            plain = predicted(self.model, cloned(batch), batch_idx)
            passes.check_all_called()
            probs = []
            for sample in range(self.mc_samples):
                passes.begin(sample, num_rows=len(plain.probs))
                probs.append(predicted(self.model, cloned(batch), batch_idx).probs)
        outputs = {"probs": torch.stack(probs, dim=1)}
        return outputs if plain.embedding is None else {**outputs, "embedding": plain.embedding}

    def on_predict_start(self) -> None:
        self._masks = _Masks(self.mc_samples)
        self.model.on_predict_start()

    def on_predict_end(self) -> None:
        self._masks = None
        self.model.on_predict_end()


def predicted(model: L.LightningModule, batch: Any, batch_idx: int) -> Outputs:
    """What ``predict_step``, or else ``forward``, says of a batch: one distribution a row.

    Raises:
        ValueError: when it cannot be read, or holds several distributions a row.
    """
    module = predicting(model)
    takes_index = is_param_in_hook_signature(module.predict_step, "batch_idx", min_args=2)
    prediction = module.predict_step(*((batch, batch_idx) if takes_index else (batch,)))
    is_dict = isinstance(prediction, Mapping)
    found = prediction.get("probs", prediction.get("logits")) if is_dict else prediction
    num_rows = len(found) if isinstance(found, Tensor) and found.ndim else 0
    outputs = read_outputs(prediction, num_rows)
    if outputs.probs.ndim == 3:
        raise ValueError(
            "the module must predict one distribution a row, (B, C), to be sampled or joined with "
            f"others, got samples already: {tuple(outputs.probs.shape)}; use it without this "
            "wrapper, or make it predict without sampling (mc_samples=1)"
        )
    return outputs


def cloned(tree: Any) -> Any:
    """The same nest of containers with copies of its tensors, which may be written to."""
    return apply_to_collection(tree, Tensor, torch.clone)


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Runs ``forwards`` instead of the modules' own inside the block, whatever ends it."""
    before = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)
        for module, forward in before.items():
            vars(module)["forward"] = forward


@contextmanager
def _without_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _checked_dropouts(model: nn.Module) -> dict[str, nn.Dropout]:
    """The dropout layers with a rate above 0, by name."""
    found: dict[str, Any] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (*SUPPORTED, *UNSUPPORTED)) and module.p > 0
    }
    # A subclass may have a forward of its own, which the masks would silently replace.
    bad = [
        f"{name} ({type(module).__name__}, p={module.p})"
        for name, module in found.items()
        if type(module) not in SUPPORTED or module.p >= 1
    ]
    if bad or not found:
        raise ValueError(
            "MC dropout needs layers of nn.Dropout or nn.Dropout1d/2d/3d with a rate above 0 and "
            f"below 1, and no other kind, found {', '.join(bad) or 'none'}; put them in the module "
            "and train with them, and set p = 0 where another kind is to stay off"
        )
    return found


class _Masks:
    """Which activations of a row each sample keeps, in each call of each dropout layer.

    They follow from the seed that prediction began with and the layer's name, whatever the order of
    calls, and are drawn on the CPU, so every rank and device has the same.
    """

    def __init__(self, mc_samples: int) -> None:
        self._mc_samples = mc_samples
        self._seed = torch.initial_seed()
        self._drawn: dict[tuple[str, int], Tensor] = {}

    def of(self, name: str, call: int, dropout: nn.Dropout, x: Tensor) -> Tensor:
        """(K, *activations of one row), bool, on the device of ``x``."""
        channels_alone = x.shape[1:2] + (1,) * (x.ndim - 2)
        row = x.shape[1:] if isinstance(dropout, nn.Dropout) else channels_alone
        if (name, call) not in self._drawn:
            draw = generator(self._seed, "mc_dropout", name, call)
            kept = torch.rand(self._mc_samples, *row, generator=draw) >= dropout.p
            self._drawn[name, call] = kept.to(x.device)
        kept_K = self._drawn[name, call]
        if kept_K.shape[1:] != row:
            raise ValueError(
                "one dropout mask serves the whole pool, so all rows must be of one shape, found "
                f"{tuple(kept_K.shape[1:])} and then {tuple(row)} in {name}; pad to one length"
            )
        return kept_K


class _Passes:
    """The passes of one batch: first without dropout, then once a sample.

    What is computed before the first dropout is the same in all of them. So the first pass keeps
    the output of each outermost module without dropout that ends before it, and the later passes,
    which make the same calls in the same order, take it instead of computing it.
    """

    def __init__(self, dropouts: Mapping[str, nn.Dropout], masks: _Masks) -> None:
        self._dropouts = dropouts
        self._masks = masks
        self._sample: int | None = None
        self._num_rows = 0
        self._calls: Counter[str] = Counter()
        self._reached: set[str] = set()
        self._kept: list[Any] = []
        self._next = 0  # position in _kept
        self._keeping = True
        self._inside = False  # a module whose output is kept as a whole

    def forwards(self, model: nn.Module) -> dict[nn.Module, Forward]:
        """What the modules inside ``model`` are to run instead of their own ``forward``."""
        with_dropout = set(self._dropouts.values())
        forwards: dict[nn.Module, Forward] = {
            dropout: partial(self._drop, name, dropout) for name, dropout in self._dropouts.items()
        }
        for module in model.modules():
            if with_dropout.isdisjoint(module.modules()):
                forwards[module] = partial(self._once, module.forward)
        return {**forwards, model: partial(self._from_the_top, model.forward)}

    def begin(self, sample: int, num_rows: int) -> None:
        """Starts the pass of one sample, over a batch that gave ``num_rows`` predictions."""
        self._sample, self._num_rows = sample, num_rows
        self._next, self._keeping = 0, False
        self._calls.clear()

    def check_all_called(self) -> None:
        """Raises ValueError when a dropout layer has not been reached."""
        if missing := sorted(self._dropouts.keys() - self._reached):
            raise ValueError(
                "every dropout layer must act in prediction, found never called: "
                f"{', '.join(missing)}; call it in predict_step or forward, or set its p to 0"
            )

    def _from_the_top(self, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        # Another forward in the same prediction, of a turned image say, is by the same network.
        self._calls.clear()
        return forward(*args, **kwargs)

    def _drop(self, name: str, dropout: nn.Dropout, input: Tensor) -> Tensor:
        call = self._calls[name]
        self._calls[name] += 1
        self._reached.add(name)
        self._keeping = False
        if self._sample is None:
            return input
        if input.ndim == 0 or len(input) != self._num_rows:
            raise ValueError(
                f"dropout must see the rows of a batch in its first axis, {self._num_rows} here, "
                f"found {tuple(input.shape)} in {name}; put the rows first (batch_first=True)"
            )
        kept = self._masks.of(name, call, dropout, input)[self._sample]
        dropped = input.mul_(kept) if dropout.inplace else input * kept
        return dropped.mul_(1 / (1 - dropout.p))

    def _once(self, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        if self._inside or not (self._keeping or self._next < len(self._kept)):
            return forward(*args, **kwargs)
        self._inside = True
        try:
            if self._keeping:
                output, kept = _run_and_keep(forward, args, kwargs)
                self._kept.append(kept)
            elif self._kept[self._next] is COMPUTE_AGAIN:
                output = forward(*args, **kwargs)
            else:
                output = cloned(self._kept[self._next])
        finally:
            self._inside = False
        self._next += 1
        return output


def _run_and_keep(forward: Forward, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The output, and a copy of it, or ``COMPUTE_AGAIN`` where a copy cannot stand in for the call.

    That is so when the module writes into its input or returns a part of it (an activation in
    place, a flatten), since what comes later may use the input too; and when something other than
    tensors goes in or out.
    """
    before = cloned((args, kwargs))
    output = forward(*args, **kwargs)
    given, was, made = _leaves((args, kwargs)), _leaves(before), _leaves(output)
    if not all(isinstance(leaf, PLAIN) for leaf in given + made):
        return output, COMPUTE_AGAIN
    inputs = [(a, b) for a, b in zip(given, was, strict=True) if isinstance(a, Tensor)]
    untouched = all(torch.equal(a, b) for a, b in inputs)
    memory = {a.untyped_storage().data_ptr() for a, _ in inputs}
    apart = memory.isdisjoint(b.untyped_storage().data_ptr() for b in made if isinstance(b, Tensor))
    return output, cloned(output) if untouched and apart else COMPUTE_AGAIN


def _leaves(tree: Any) -> list[Any]:
    branches = list(tree.values()) if isinstance(tree, Mapping) else tree
    if isinstance(branches, list | tuple):
        return [leaf for branch in branches for leaf in _leaves(branch)]
    return [tree]
