"""Tasks: small functions that read what ``predict_step`` or ``forward`` returned.

Nothing is guessed from the number of axes: the task says what a tensor means, and posterior samples
come from ``mc_samples``, from an ensemble, or under a key that says so.

Shape suffixes: B batch rows, P parts of a row, K posterior samples, C classes, L yes/no labels,
O predicted numbers, D embedding dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from al_lightning.acquisition.distances import widened
from al_lightning.acquisition.over_parts import checked_mask
from al_lightning.prediction.first_look import FirstLook
from al_lightning.prediction.outputs import Outputs, stacked
from al_lightning.settings import TASK_NAMES
from al_lightning.strategies import STRATEGIES, Strategy, find_strategy
from al_lightning.strategies.compose import name_of

ANY = frozenset({"embedding", "score"})
"""Outputs that a module may give beside its predictions, whatever the task."""


@dataclass(frozen=True)
class Task:
    """Says how to read a module's predictions, and what strategies find in them.

    Args:
        expected: What ``predict_step`` may return, for a sentence.
        read_raw: Reads the predictions by name, see :func:`_by_name`.
        predicted: What is told of a row that is asked, (B, ...); None for a score alone.
        gives: What a strategy may keep: ``"probs"`` whole, functions of ``"distributions"``,
            ``"mean"`` and ``"variance"``.
        look: Refuses what a first batch shows to be no logits, or of other labels.
    """

    expected: str
    read_raw: Callable[[Mapping[str, Any], FirstLook | None], Outputs]
    predicted: Callable[[Outputs], Tensor | None]
    gives: frozenset[str]
    look: FirstLook | None = None

    def read(self, prediction: Any, num_rows: int | None = None) -> Outputs:
        """Read the prediction of a batch.

        Args:
            prediction: A tensor, a dict, a named tuple, an output of Hugging Face's models, for
                numbers a tuple or a distribution of torch; or an :class:`Outputs`. With ``score``
                (B,) alone it is of any task. Under ``samples`` (B, K, ...) stand K predictions.
            num_rows: B, where it is known.

        Raises:
            ValueError: for anything else; names what came and what is expected.
        """
        if isinstance(prediction, Outputs):
            return prediction
        named = _by_name(prediction)
        if named is None:
            raise ValueError(
                f"predict_step must return {self.expected}, got {_described(prediction)}"
            )
        if self.look is not None and "tensor" in named and "distributions" in self.gives:
            self.look.check_logits(named["tensor"])
        if self.look is not None:
            self.look.warn_of_ties(named.get("probs"))
        outputs = self._read_named(named, prediction)
        num = len(outputs)
        if num_rows not in (None, num):
            raise ValueError(
                f"predict_step must return {self.expected}, with B = {num_rows} rows here, got "
                f"{_described(prediction)}"
            )
        names = "embedding", "score", "flips"
        embedding, score, flips = (_beside(named, name, num) for name in names)
        if embedding is None and score is None and flips is None:
            return outputs
        return replace(outputs, embedding=embedding, score=score, flips=flips)

    def _read_named(self, named: Mapping[str, Any], prediction: Any) -> Outputs:
        if "samples" in named:
            samples = named["samples"]
            if not isinstance(samples, Tensor) or samples.ndim < 2:
                raise ValueError(f"'samples' must be (B, K, ...), got {_described(samples)}")
            others = {name: value for name, value in named.items() if name != "samples"}
            each = [{**others, "logits": one} for one in samples.unbind(1)]
            return stacked([self._read_named(one, one) for one in each])
        if not named.keys().isdisjoint(KEYS):
            try:
                return self.read_raw(named, self.look)
            except _UnreadableError as error:
                raise ValueError(
                    f"predict_step must return {self.expected}, {error.rule}got "
                    f"{_described(prediction)}"
                ) from None
        if isinstance(named.get("score"), Tensor):
            return Outputs(score=named["score"])
        raise ValueError(f"predict_step must return {self.expected}, got {_described(prediction)}")


class _UnreadableError(Exception):
    """Says that a prediction has not the form of the task."""

    def __init__(self, rule: str = "") -> None:
        self.rule = rule


KEYS = ("tensor", "logits", "probs", "mean")
"""Names under which a prediction may stand; ``tensor`` is one without a name."""


def _by_name(prediction: Any) -> Mapping[str, Any] | None:
    """Return the parts of a prediction by name; None for what no task can read."""
    if isinstance(prediction, Tensor):
        return {"tensor": prediction}
    if isinstance(prediction, Mapping):
        return prediction
    if hasattr(prediction, "_asdict"):
        named: Mapping[str, Any] = prediction._asdict()
        return named
    if isinstance(prediction, torch.distributions.Distribution):
        return {"mean": prediction.mean, "variance": prediction.variance}
    if isinstance(prediction, tuple) and len(prediction) == 2:
        return {"mean": prediction[0], "variance": prediction[1]}
    return None


def _described(prediction: Any) -> str:
    if isinstance(prediction, Tensor):
        return f"a tensor of shape {tuple(prediction.shape)}"
    if isinstance(prediction, Mapping):
        shapes = {n: tuple(v.shape) for n, v in prediction.items() if isinstance(v, Tensor)}
        return f"a dict with {sorted(map(str, prediction))}{f' of {shapes}' * bool(shapes)}"
    return type(prediction).__name__


def _raw(named: Mapping[str, Any], *keys: str) -> Tensor:
    """Return the first tensor under these names; the prediction is unreadable without one."""
    raw = next((named[key] for key in keys if named.get(key) is not None), None)
    if not isinstance(raw, Tensor) or not raw.ndim or not raw.is_floating_point():
        raise _UnreadableError()
    return raw


def _beside(named: Mapping[str, Any], name: str, num_rows: int) -> Tensor | None:
    """Return the embedding, the score or the flips that came with a prediction."""
    value = named.get(name)
    num_axes, form, cure = (2, f"({num_rows}, D)", "flatten it")
    if name == "flips":
        form, cure = f"({num_rows}, K)", "give one number a sample"
    if name == "score":
        num_axes, form, cure = (1, f"({num_rows},)", "give one number a row")
    if value is not None and not (
        isinstance(value, Tensor) and value.ndim == num_axes and len(value) == num_rows
    ):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name!r} must be {form}, got {found}; {cure}")
    return value


# ---- one distribution a row ----------------------------------------------------------------------


def read_multiclass(named: Mapping[str, Any], look: FirstLook | None = None) -> Outputs:
    """Read logits (B, C), or ``probs`` (B, C) or, for K posterior samples, (B, K, C)."""
    raw = _raw(named, "probs", "logits", "tensor")
    is_probs = named.get("probs") is raw
    if raw.ndim == 3 and not is_probs:
        raise ValueError(
            f"logits of three axes could be (B, K, C), K posterior samples, or (B, T, C), T tokens "
            f"or boxes a row, and which is not guessed, got {tuple(raw.shape)}; return samples as "
            '{"probs": logits.softmax(-1)}, take them by mc_samples or an Ensemble, return one '
            'distribution a row, (B, C), or say task="dense"'
        )
    if raw.ndim not in (2, 3) or raw.shape[-1] < 2:
        raise _UnreadableError("with C >= 2, ")
    if look is not None:
        look.check_num_classes(raw.shape[-1])
    if is_probs:
        return Outputs(raw, num_samples=raw.shape[1] if raw.ndim == 3 else None)
    if "tensor" in named and _are_probs(raw):
        raise ValueError(
            "a tensor from predict_step is read as logits, and these rows are non-negative and sum "
            'to 1; return the logits, or {"probs": probs}'
        )
    return Outputs(widened(raw).softmax(-1))


def read_binary(named: Mapping[str, Any], look: FirstLook | None = None) -> Outputs:
    """Read one logit a row, (B,) or (B, 1), or the probability of yes under ``probs``."""
    raw = _raw(named, "probs", "logits", "tensor")
    if raw.ndim == 3 and raw.shape[-1] == 2 and named.get("probs") is raw:
        return Outputs(raw, num_samples=raw.shape[1])  # as MCDropout and Ensemble give them
    if raw.ndim > 2 or raw.shape[1:] not in ((), (1,)):
        raise _UnreadableError()
    return Outputs(_yes_or_no(raw.reshape(len(raw)), is_probs=named.get("probs") is raw))


def read_multilabel(named: Mapping[str, Any], look: FirstLook | None = None) -> Outputs:
    """Read logits (B, L) of L yes/no labels, or their probabilities under ``probs``."""
    raw = _raw(named, "probs", "logits", "tensor")
    if raw.ndim != 2 or not raw.shape[1]:
        raise _UnreadableError()
    if look is not None:
        look.check_num_labels(raw.shape[1])
    probs_BLC = _yes_or_no(raw, is_probs=named.get("probs") is raw)
    return Outputs(probs_BLC, mask=torch.ones_like(raw, dtype=torch.bool))


def _yes_or_no(raw: Tensor, *, is_probs: bool) -> Tensor:
    """Return (..., 2), the probabilities of no and yes."""
    raw = widened(raw)
    if not is_probs:
        return torch.stack([(-raw).sigmoid(), raw.sigmoid()], dim=-1)
    if not ((raw >= 0) & (raw <= 1) | raw.isnan()).all():  # NaN is reported with its rows
        raise ValueError(
            f"probs must be probabilities of yes, in [0, 1], found {raw.min().item():.3g} to "
            f"{raw.max().item():.3g}; return logits under 'logits'"
        )
    return torch.stack([1 - raw, raw], dim=-1)


def _are_probs(raw: Tensor) -> bool:
    return bool((raw >= 0).all() and ((raw.sum(-1) - 1).abs() < 1e-3).all())


# ---- a distribution a part -----------------------------------------------------------------------


def read_dense(named: Mapping[str, Any], look: FirstLook | None = None) -> Outputs:
    """Read (B, C, *S) of pixels; with ``mask`` (B, T), (B, T, C) of tokens or boxes."""
    raw = _raw(named, "probs", "logits", "tensor")
    mask = named.get("mask")
    if raw.ndim < 3 or (mask is not None and raw.ndim != 3):
        raise _UnreadableError()
    raw_BCP = raw.flatten(2) if mask is None else raw.movedim(2, 1)
    B, C, P = raw_BCP.shape
    if C < 2:
        raise _UnreadableError("with C >= 2, ")
    if mask is None:
        if look is not None:
            look.check_classes_second(tuple(raw.shape))
        mask = torch.ones(B, P, dtype=torch.bool, device=raw.device)
    mask = checked_mask(mask, B, P)
    # Classes outermost: what is computed of each part then runs over neighbours in memory.
    probs_CBP = widened(raw_BCP).movedim(1, 0).contiguous()
    if named.get("probs") is not raw:
        probs_CBP = probs_CBP.softmax(0)
    size = tuple(raw.shape[2:]) if raw.ndim == 4 else None
    return Outputs(probs_CBP.permute(1, 2, 0), mask=mask, size=size)


def _shares(outputs: Outputs) -> Tensor | None:
    """Return the mean distribution (B, C) over the parts that are there."""
    probs_BPC = outputs.mean_probs
    if probs_BPC is None or outputs.mask is None:
        return None
    if outputs.mask.all():
        return probs_BPC.mean(1)
    there_BP1 = outputs.mask[..., None]
    return torch.where(there_BP1, probs_BPC, 0).sum(1) / there_BP1.sum(1)


# ---- numbers -------------------------------------------------------------------------------------


def read_regression(named: Mapping[str, Any], look: FirstLook | None = None) -> Outputs:
    """Read a mean (B,) or (B, O), and its variance where there is one."""
    mean = _raw(named, "mean", "logits", "tensor")
    variance = named.get("variance")
    if mean.ndim > 2:
        raise _UnreadableError()
    if variance is None:
        return Outputs(mean=widened(mean).reshape(len(mean), -1))
    if not isinstance(variance, Tensor) or variance.shape != mean.shape:
        raise ValueError(
            f"each mean must have a variance, got {_described(variance)} for means of shape "
            f"{tuple(mean.shape)}"
        )
    if (variance < 0).any():
        raise ValueError(
            f"variances must not be below 0, found {variance.min().item():.3g}; if the network "
            "predicts their logarithms, return exp() of them"
        )
    mean, variance = (widened(table).reshape(len(table), -1) for table in (mean, variance))
    return Outputs(mean=mean, variance=variance)


def _mean_and_deviation(outputs: Outputs) -> Tensor | None:
    """Return (B, O, 2), or (B, O, 1) where the model tells no deviation."""
    told = [table for table in (outputs.mean_mean, outputs.deviation) if table is not None]
    return torch.stack(told, dim=-1) if told else None


# ---- by name -------------------------------------------------------------------------------------


def _likeliest(outputs: Outputs) -> Tensor | None:
    probs = outputs.mean_probs
    return None if probs is None else probs.argmax(-1)


WHOLE, PARTS = (
    frozenset({"probs", "flips", "class", "distributions"}) | ANY,
    frozenset({"distributions"}) | ANY,
)

TASKS: dict[str, Task] = {
    "multiclass": Task(
        "logits (B, C) as a tensor, or a dict with 'logits' (B, C), or with 'probs' (B, C) or, for "
        "K posterior samples, (B, K, C), and perhaps 'embedding' (B, D)",
        read_multiclass,
        _likeliest,
        WHOLE,
    ),
    "binary": Task(
        "one logit a row, (B,) or (B, 1), as a tensor or under 'logits', or the probability of yes "
        "under 'probs'; two logits a row are task='multiclass'",
        read_binary,
        _likeliest,
        WHOLE,
    ),
    "multilabel": Task(
        "logits (B, L) of L yes/no labels, as a tensor or under 'logits', or their probabilities "
        "under 'probs'",
        read_multilabel,
        _likeliest,
        PARTS,
    ),
    "dense": Task(
        "logits (B, C, *S) of pixels, as a tensor or under 'logits', or {'logits': (B, T, C), "
        "'mask': (B, T)} of tokens or boxes; 'probs' in the place of 'logits' for probabilities",
        read_dense,
        _shares,
        PARTS | {"map"},
    ),
    "regression": Task(
        "a mean (B,) or (B, O), {'mean': ..., 'variance': ...}, a pair (mean, variance), a "
        "distribution of torch, or {'samples': (B, K, O)}",
        read_regression,
        _mean_and_deviation,
        frozenset({"mean", "variance"}) | ANY,
    ),
}
assert tuple(TASKS) == TASK_NAMES


NEEDED = {
    "probs": "one distribution a row",
    "class": "one distribution a row",
    "distributions": "distributions over classes",
    "mean": "a predicted mean",
    "variance": "a predicted variance",
}


def find_task(name: str, strategy: Strategy) -> Task:
    """Return the task of that name, once the strategy is known to work for it.

    Raises:
        ValueError: when the strategy keeps what the task does not give; names those that work.
    """
    task = TASKS[name]
    if lacking := strategy.needs - task.gives:
        able = [one for one in STRATEGIES if find_strategy(one).needs <= task.gives]
        needed = " and ".join(sorted(NEEDED.get(one, one) for one in lacking))
        raise ValueError(
            f"strategy must be one that task={name!r} has, got "
            f"{strategy.name or name_of(strategy.select)}, which needs {needed}; it has {able}"
        )
    return task
