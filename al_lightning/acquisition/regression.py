"""Uncertainty of predicted numbers: row-wise scores, higher = label sooner.

Shape suffixes: N rows, K posterior samples or ensemble members.
"""

import torch
from torch import Tensor

from al_lightning.acquisition.distances import widened


def predictive_variance(mean: Tensor) -> Tensor:
    """Return the variance of the predicted means over the samples, ``var_k mean_k``.

    It is the part of the variance that comes from not knowing the weights, which labels reduce; the
    noise of the labels themselves is left out.

    Args:
        mean: (N, K), the means that K posterior samples or members predict for each row.

    Returns:
        scores_N in squared units of the label, at least 0, float32 or wider. The variance is the
        population's, over K.

    Raises:
        ValueError: unless the input is (N, K) and finite.

    References:
        Gal and Ghahramani 2016, arXiv:1506.02142, Eq. 7, without its inverse precision; with a
        committee, Burbidge et al. 2007, "Active learning for regression based on query by
        committee", section 2.

    >>> predictive_variance(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    tensor([1., 0.])
    """
    return _spread(_checked("mean", mean))


def gaussian_bald(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the mutual information of label and weights when each sample predicts a Gaussian.

    That is ``H[mixture] - mean_k H[N(mean_k, variance_k)]``. The entropy of a mixture of Gaussians
    has no closed form. It is replaced by that of one Gaussian with the mixture's variance, an upper
    bound: ``(log(mean_k variance_k + var_k mean_k) - mean_k log variance_k) / 2``.

    Args:
        mean: (N, K), the means that K posterior samples or members predict for each row.
        variance: (N, K), their variances, above 0.

    Returns:
        scores_N in nats, at least 0, float32 or wider; 0 where all samples agree.

    Raises:
        ValueError: unless both are (N, K) and finite, and each variance is above 0.

    References:
        Houlsby et al. 2011, arXiv:1112.5745, Eq. 2, with the mixture's moments of Lakshminarayanan
        et al. 2017, arXiv:1612.01474, section 2.4.

    >>> mean, variance = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.ones(2, 2)
    >>> gaussian_bald(mean, variance)  # half of log 2, and nothing
    tensor([0.3466, 0.0000])
    """
    mean_NK, variance_NK = _checked("mean", mean), _checked("variance", variance)
    if mean_NK.shape != variance_NK.shape:
        raise ValueError(
            f"each mean must have a variance, got {tuple(mean_NK.shape)} means and "
            f"{tuple(variance_NK.shape)} variances"
        )
    if not (variance_NK > 0).all():
        raise ValueError(
            f"variances must be above 0, found {variance_NK.min().item():.3g}; if the network "
            "predicts their logarithms, take exp(), and add a small number where it can be 0"
        )
    total_N = variance_NK.mean(1) + _spread(mean_NK)
    return ((total_N.log() - variance_NK.log().mean(1)) / 2).clamp_min(0)  # rounding can be below


def _spread(mean_NK: Tensor) -> Tensor:
    return (mean_NK - mean_NK.mean(1, keepdim=True)).square().mean(1)  # also of no row


def _checked(name: str, values: Tensor) -> Tensor:
    """Return ``values``, float32 or wider, when they are one finite number a row and sample."""
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(
            f"{name} must be (N, K), with K posterior samples or members, got "
            f"{tuple(values.shape)}; of several outputs a row, score each as a row of its own"
        )
    if not values.is_floating_point() or not torch.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite numbers in floating point, got {values.dtype} with "
            f"{int((~torch.isfinite(values)).sum())} that are not finite; look for NaN in the "
            "model's outputs"
        )
    return widened(values.detach())
