"""Uncertainty of a prediction: row-wise scores, higher = label sooner.

Shape suffixes: N rows, K posterior samples, C classes.
"""

import torch
from torch import Tensor
from torch.special import entr

from al_lightning.acquisition.checks import checked_probs


def least_confidence(probs: Tensor) -> Tensor:
    """Return one minus the probability of the likeliest class, ``1 - p1``.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over its K samples first.

    Returns:
        scores_N in ``[0, 1 - 1/C]``, float32 or wider.

    Raises:
        ValueError: unless every row is a distribution.

    References:
        Lewis and Gale 1994, arXiv:cmp-lg/9407020; Settles 2009, section 3.1, ``x*_LC``.

    >>> import torch
    >>> least_confidence(torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]))
    tensor([0.5000, 0.2500, 0.0000])
    """
    return 1 - mean_probs(probs).amax(-1)


def margin(probs: Tensor) -> Tensor:
    """Return one minus the lead of the likeliest class over the second, ``1 - (p1 - p2)``.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over its K samples first.

    Returns:
        scores_N in ``[0, 1]``, float32 or wider; 1 where two classes tie for the lead.

    Raises:
        ValueError: unless every row is a distribution.

    References:
        Scheffer et al. 2001, "Active hidden Markov models", section 3; Settles 2009, ``x*_M``.

    >>> import torch
    >>> margin(torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    tensor([1.0000, 0.7500, 0.0000])
    """
    first_N, second_N = _top_two(mean_probs(probs))
    return 1 - (first_N - second_N)


def entropy(probs: Tensor) -> Tensor:
    """Return the Shannon entropy of the prediction, ``-sum_c p_c log p_c``, with ``0 log 0 = 0``.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over its K samples first.

    Returns:
        scores_N in nats, ``[0, log C]``, float32 or wider.

    Raises:
        ValueError: unless every row is a distribution.

    References:
        Shannon 1948; Settles 2009, section 3.1, ``x*_H``.

    >>> import torch
    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    scores_N: Tensor = entr(mean_probs(probs)).sum(-1)
    return scores_N


def _top_two(probs_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest and the second largest of each row."""
    if probs_NC.stride(-1) == 1:
        first_N, second_N = probs_NC.topk(2, dim=-1).values.unbind(-1)
        return first_N, second_N
    # Classes lie outermost in memory, as those of pixels do. A pass over each takes a tenth.
    a_N, b_N, *others = probs_NC.unbind(-1)
    first_N, second_N = torch.maximum(a_N, b_N), torch.minimum(a_N, b_N)
    for c_N in others:
        second_N = torch.maximum(second_N, torch.minimum(first_N, c_N))
        first_N = torch.maximum(first_N, c_N)
    return first_N, second_N


def mean_probs(probs: Tensor) -> Tensor:
    """Return the predictive distribution: (N, C) as it is, (N, K, C) averaged over K.

    Raises:
        ValueError: unless every row is a distribution.
    """
    probs = checked_probs(probs)
    return probs.mean(1) if probs.ndim == 3 else probs
