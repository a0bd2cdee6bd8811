"""Scores of rows that are many distributions: yes/no labels, pixels, tokens, boxes.

Shape suffixes: N rows, P parts of a row, n rows of a chunk, M parts of these rows that are there,
K posterior samples, C classes.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Reduce = Literal["mean", "max", "sum"] | Callable[[Tensor], Tensor]
"""How the scores (P,) of the parts of a row become one number."""

MAX_NUMBERS, MAX_NUMBERS_GPU = 1 << 18, 1 << 25
"""Probabilities in a chunk. On a CPU 1 MB in float32 stays near the processor; a GPU wants few and
large pieces of work."""


class OverParts:
    """A score for rows of parts; see :func:`over_parts`."""

    def __init__(self, score: Callable[[Tensor], Tensor], reduce: Reduce = "mean") -> None:
        if not (callable(reduce) or reduce in ("mean", "max", "sum")):
            raise ValueError(f'reduce must be "mean", "max", "sum" or a function, got {reduce!r}')
        self.score = score
        self.reduce = reduce
        named = [getattr(one, "__qualname__", str(one)) for one in (score, reduce)]
        self.__qualname__ = f"over_parts({', '.join(named)})"  # in a journal

    def __call__(self, probs: Tensor, mask_NP: Tensor | None = None) -> Tensor:
        """Return scores_N.

        Args:
            probs: (N, P, C), or (N, P, K, C) with K posterior samples.
            mask_NP: Says which parts are there; all, when not given. The others play no part.

        Raises:
            ValueError: for another number of axes, a mask of another shape, a row without a part,
                and as ``score`` does.
        """
        if probs.ndim not in (3, 4):
            raise ValueError(
                f"parts must be (N, P, C) or (N, P, K, C), got {tuple(probs.shape)}; a row of one "
                "distribution needs no over_parts"
            )
        N, P = probs.shape[:2]
        if mask_NP is not None:
            mask_NP = checked_mask(mask_NP, N, P)
            empty = (~mask_NP.any(1)).nonzero()[:, 0]
            if len(empty):
                raise ValueError(
                    f"each row must have a part, found {len(empty)} whose mask leaves out all, "
                    f"first at {empty[:5].tolist()}; leave such rows out of the data"
                )
        most = MAX_NUMBERS if probs.device.type == "cpu" else MAX_NUMBERS_GPU
        step = max(1, most // max(1, probs[:1].numel()))
        chunks = [
            self._scores(probs[i : i + step], None if mask_NP is None else mask_NP[i : i + step])
            for i in range(0, N, step)
        ]
        return torch.cat(chunks) if chunks else probs.new_zeros(0)

    def _scores(self, probs: Tensor, mask_nP: Tensor | None) -> Tensor:
        n, P = probs.shape[:2]
        if mask_nP is None or mask_nP.all():  # without a copy
            mask_nP = torch.ones(n, P, dtype=torch.bool, device=probs.device)
            scores_nP = self._of_each(probs.flatten(0, 1)).view(n, P)
        else:
            scores_M = self._of_each(probs[mask_nP])
            absent = -torch.inf if self.reduce == "max" else 0.0
            scores_nP = scores_M.new_full((n, P), absent)
            scores_nP[mask_nP] = scores_M
        if self.reduce == "max":
            return scores_nP.amax(1)
        if callable(self.reduce):
            pairs = zip(scores_nP, mask_nP, strict=True)
            return torch.stack([self.reduce(scores_P[there_P]) for scores_P, there_P in pairs])
        sums_n = scores_nP.sum(1)
        return sums_n if self.reduce == "sum" else sums_n / mask_nP.sum(1)

    def _of_each(self, probs: Tensor) -> Tensor:
        scores_M = self.score(probs)
        if scores_M.shape != probs.shape[:1]:
            raise ValueError(
                f"a score must give one number for each part, {len(probs)} here, got "
                f"{tuple(scores_M.shape)}"
            )
        return scores_M


def over_parts(score: Callable[[Tensor], Tensor], reduce: Reduce = "mean") -> OverParts:
    """Make a score of rows that are many distributions from a score of one.

    The loop does it by itself, with the mean, for the tasks ``multilabel`` and ``dense``. Parts
    count alike, and in any order.

    Args:
        score: Row-wise: (M, C) or (M, K, C) to (M,), higher = label sooner.
        reduce: ``"mean"`` over the parts that are there, ``"max"``, ``"sum"``, or a function of
            the scores of a row's parts, (P,) to a number: ``lambda scores: scores.quantile(0.9)``.

    Returns:
        A function ``(probs (N, P, [K,] C), mask (N, P) or None) -> scores_N``, in the unit of
        ``score``.

    Raises:
        ValueError: for another ``reduce``.

    References:
        The mean over tokens is the total token entropy over its length: Settles and Craven 2008,
        "An analysis of active learning strategies for sequence labeling tasks", section 3.1.

    >>> from al_lightning.acquisition import entropy
    >>> probs_NPC = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])
    >>> over_parts(entropy)(probs_NPC), over_parts(entropy, "max")(probs_NPC)
    (tensor([0.3466]), tensor([0.6931]))
    """
    return OverParts(score, reduce)


def checked_mask(mask_NP: Tensor, num_rows: int, num_parts: int) -> Tensor:
    """Return the mask in bool; raise ValueError unless it is one of these rows and parts."""
    if mask_NP.shape != (num_rows, num_parts) or mask_NP.is_floating_point():
        raise ValueError(
            f"a mask must say of each part whether it is there, {num_rows, num_parts} here, in "
            f"bool or whole numbers, got {tuple(mask_NP.shape)} of {mask_NP.dtype}"
        )
    return mask_NP.bool()
