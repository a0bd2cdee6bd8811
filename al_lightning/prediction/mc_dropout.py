"""MC dropout for any LightningModule: posterior samples from the dropout it was trained with.

A posterior sample is one network, so its masks are the same for every row, batch and rank. A batch
runs once without dropout, and then once a sample.

Shape suffixes: B batch rows, K posterior samples, C classes, D embedding dimensions.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import gt
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from al_lightning.prediction.outputs import Outputs, flips_of, stacked
from al_lightning.prediction.shared_prefix import SharedPrefix
from al_lightning.prediction.tasks import Task
from al_lightning.prediction.wrapping import (
    Forward,
    Predict,
    Wrapping,
    cloned,
    plain_name,
    predictor,
    replaced_forwards,
)
from al_lightning.run.records import listed
from al_lightning.seeds import derive_seed
from al_lightning.settings import TaskName, check_at_least

SUPPORTED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
UNSUPPORTED = (nn.AlphaDropout, nn.FeatureAlphaDropout)
GOLDEN, MIX_1, MIX_2 = (
    number - (1 << 64) if number >> 63 else number  # as int64
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class MCDropout(Wrapping):
    """Predicts in the place of ``model``, with K networks that its dropout draws.

    Use it for ``Trainer.predict`` alone. The model stays in evaluation mode, and does not change.
    Dropout that is no module of its own stays off: ``F.dropout``, the attention weights inside
    ``nn.MultiheadAttention``, the layers inside ``nn.LSTM``. So does a layer that is never called,
    as that of attention weights under ``scaled_dot_product_attention``. A warning names those that
    can be found.

    Args:
        model: Any LightningModule with ``nn.Dropout`` or ``nn.Dropout1d/2d/3d`` in it. It predicts
            by its ``predict_step``, or else by its ``forward``.
        mc_samples: K, at least 1.
        task: What the model predicts.

    Raises:
        ValueError: for a module without dropout, or with a kind that is not one of these.

    References:
        Gal and Ghahramani 2016, arXiv:1506.02142, Eq. 6; one mask for the whole pool: Kirsch et al.
        2019, arXiv:1906.08158, section 3.
    """

    def __init__(
        self, model: L.LightningModule, mc_samples: int, task: TaskName = "multiclass"
    ) -> None:
        super().__init__(model)
        self.task = task
        self.model = model
        self.mc_samples = mc_samples
        Masks(model, mc_samples)  # refuses now what cannot be sampled
        self._masks: Masks | None = None

    def predictor(self, task: Task) -> Predict:
        """Return a function that predicts a batch with the K networks, as the task says.

        Its ``embedding`` is the one without dropout. It raises ValueError as :func:`sampled`.
        """
        predict = predictor(self.model, task)

        def predict_sampled(batch: Any, batch_idx: int) -> Outputs:
            masks = self._masks or Masks(self.model, self.mc_samples)
            return sampled(self.model, lambda: predict(cloned(batch), batch_idx), masks)

        return predict_sampled

    def on_predict_start(self) -> None:
        self._masks = Masks(self.model, self.mc_samples)
        self.model.on_predict_start()

    def on_predict_end(self) -> None:
        if self._masks is not None:
            self._masks.warn_of_silent()
        self._masks = None
        self.model.on_predict_end()


def sampled_predictor(model: L.LightningModule, predict: Predict, masks: "Masks") -> Predict:
    """Return a function that predicts a batch with the networks that the module's dropout draws.

    Args:
        model: As :class:`MCDropout` takes it.
        predict: Predicts a batch with the module.
        masks: The same for all batches of a prediction.
    """
    return lambda batch, batch_idx: sampled(model, lambda: predict(cloned(batch), batch_idx), masks)


class Masks:
    """Says which activations of a row each sample keeps, in each call of each dropout layer.

    Masks depend on torch's seed when this object is made, and on the layer's name, but not on the
    order of calls. They are drawn on the CPU, so every rank and device has the same ones. Each
    activation has a draw of its own, by its position. So rows may be of different lengths, and the
    mask of a short row is the beginning of the mask of a longer one.

    Args:
        model: Has the dropout layers.
        num_samples: K.

    Raises:
        ValueError: for K below 1, and for a model without dropout or with an unsupported kind.
    """

    def __init__(self, model: nn.Module, num_samples: int) -> None:
        check_at_least(1, mc_samples=num_samples)
        self.num_samples = num_samples
        self.dropouts = _checked_dropouts(model)
        self._seed = torch.initial_seed()
        self._drawn: dict[tuple[str, int], Tensor] = {}
        self._inside = _dropout_inside(model)
        self.reached: set[str] = set()

    def warn_of_silent(self, functions: Iterable[str] = ()) -> None:
        """Warn of dropout that no sample draws; of layers, those that were not called until now.

        Args:
            functions: Functions of dropout that were called.
        """
        silent = sorted(self.dropouts.keys() - self.reached) + self._inside + sorted(functions)
        if silent and self.reached:  # where none was reached, an error says so
            rank_zero_warn(
                f"MC dropout samples {len(self.reached)} dropout layers; other dropout of the "
                f"module stays off in prediction: {listed(silent)}; to leave none out, set its "
                "rate to 0 in training too, or train an Ensemble"
            )

    def of(self, name: str, call: int, x: Tensor) -> Tensor:
        """Return (K, *activations of one row), bool, on the device of ``x``."""
        dropout = self.dropouts[name]
        channels_alone = x.shape[1:2] + (1,) * (x.ndim - 2)
        row = x.shape[1:] if isinstance(dropout, nn.Dropout) else channels_alone
        drawn = self._drawn.get((name, call))
        if drawn is None or drawn.ndim != len(row) + 1 or any(map(gt, row, drawn.shape[1:])):
            earlier = drawn.shape[1:] if drawn is not None and drawn.ndim == len(row) + 1 else row
            seed = derive_seed(self._seed, "mc_dropout", name, call)
            kept = uniform(seed, (self.num_samples, *map(max, row, earlier))) >= dropout.p
            # In the layout of the activations a product takes half the time.
            last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            drawn = self._drawn[name, call] = kept.to(x.device, memory_format=layout)
        corner = (slice(None), *map(slice, row))
        return drawn[corner]


def uniform(seed: int, shape: Sequence[int]) -> Tensor:
    """Return numbers in [0, 1), float64, each a function of the seed and its position alone.

    The numbers of a smaller shape are a corner of those of a larger one.

    References:
        SplitMix64's mixing function: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195,
        Figure 16, with the constants of Stafford's variant 13.
    """
    numbers = torch.tensor(seed)
    for size in shape:
        numbers = _mixed(numbers[..., None] + GOLDEN * torch.arange(1, size + 1))
    return _shifted(numbers, 11).double() * 2.0**-53


def _mixed(numbers: Tensor) -> Tensor:
    numbers = (numbers ^ _shifted(numbers, 30)) * MIX_1
    numbers = (numbers ^ _shifted(numbers, 27)) * MIX_2
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift to the right with zeros, as if the numbers had no sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def sampled(model: nn.Module, predict: Callable[[], Outputs], masks: Masks) -> Outputs:
    """Return the predictions of one batch by K networks that dropout draws.

    Args:
        model: Has the dropout layers that ``masks`` was made for.
        predict: Predicts the batch with ``model``; called once without dropout and once a sample.
        masks: The same for all batches of a prediction.

    Returns:
        K samples a row, the ``embedding`` without dropout, and where a sample's class flips.

    Raises:
        ValueError: when no dropout layer was reached, when one does not see the rows first, or
            when ``predict`` gives samples itself.
    """
    passes, mha = _Passes(masks), torch.backends.mha
    with ExitStack() as stack, replaced_forwards(passes.forwards(model)):
        # Inside the fused kernels of transformers no dropout layer is ever called.
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        plain = predict()
        stacked([plain])  # refuses a model that samples by itself, before it does so K times
        passes.check_called()
        samples = []
        for sample in range(masks.num_samples):
            passes.begin(sample, num_rows=len(plain))
            samples.append(replace(predict(), embedding=None))
    outputs = replace(stacked(samples), embedding=plain.embedding)
    if plain.probs is None or plain.mask is not None or outputs.probs is None:
        return outputs
    return replace(outputs, flips=flips_of(outputs.probs, plain.probs))


def _checked_dropouts(model: nn.Module) -> dict[str, nn.Dropout]:
    """Return the dropout layers with a rate above 0, by name."""
    found: dict[str, Any] = {
        plain_name(name): module
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


def _dropout_inside(model: nn.Module) -> list[str]:
    """Return layers that drop something in training by code of their own.

    These are layers of torch that have dropout inside, and stochastic depth under its usual names.
    """
    return [
        f"{plain_name(name)} ({type(module).__name__})"
        for name, module in model.named_modules()
        if (isinstance(module, nn.MultiheadAttention) and module.dropout > 0)
        or (isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers > 1)
        or _skips_paths(module)
    ]


def _skips_paths(module: nn.Module) -> bool:
    """Tell whether a layer leaves out whole paths of a network, or blocks, at a rate above 0."""
    rate = getattr(module, "drop_prob", getattr(module, "p", None))
    is_rate = isinstance(rate, float) and rate > 0
    is_known = isinstance(module, (*SUPPORTED, *UNSUPPORTED))
    named = any(word in type(module).__name__ for word in ("Drop", "StochasticDepth"))
    return is_rate and named and not is_known


class _Passes:
    """Runs the dropout layers of one batch: first without dropout, then once a sample."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._prefix = SharedPrefix()
        self._sample: int | None = None
        self._num_rows = 0
        self._calls: Counter[str] = Counter()

    def forwards(self, model: nn.Module) -> dict[nn.Module, Forward]:
        """Return the replacements of ``forward`` for the modules inside ``model``."""
        dropouts = self._masks.dropouts
        return {
            **self._prefix.forwards(model, dropouts.values()),
            **{module: partial(self._drop, name, module) for name, module in dropouts.items()},
            model: partial(self._from_the_top, model.forward),
        }

    def begin(self, sample: int, num_rows: int) -> None:
        """Start the pass of one sample, over a batch that gave ``num_rows`` predictions."""
        self._sample, self._num_rows = sample, num_rows
        self._prefix.replay()
        self._calls.clear()

    def check_called(self) -> None:
        """Raise ValueError when no dropout layer has been reached, so that samples are equal."""
        if not self._masks.reached:
            raise ValueError(
                "a dropout layer must act in prediction, or all samples are equal, found none of "
                f"these called: {listed(sorted(self._masks.dropouts))}; call one in predict_step "
                "or forward"
            )

    def _from_the_top(self, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        # A second forward in one prediction, such as of a turned image, is by the same network.
        self._calls.clear()
        return forward(*args, **kwargs)

    def _drop(self, name: str, dropout: nn.Dropout, input: Tensor) -> Tensor:
        call = self._calls[name]
        self._calls[name] += 1
        self._masks.reached.add(name)
        self._prefix.end()
        if self._sample is None:
            return input
        if input.ndim == 0 or len(input) != self._num_rows:
            raise ValueError(
                f"dropout must see the rows of a batch in its first axis, {self._num_rows} here, "
                f"found {tuple(input.shape)} in {name}; put the rows first (batch_first=True)"
            )
        kept = self._masks.of(name, call, input)[self._sample]
        dropped = input.mul_(kept) if dropout.inplace else input * kept
        return dropped.mul_(1 / (1 - dropout.p))
