"""Calibration: how far a model's confidence is from its accuracy, and the temperature that helps.

Shape suffixes: N rows, C classes, B bins.
"""

from torch import Tensor

NUM_BINS = 15
# From sharper to flatter by factors of 5 %, with 1 among them.
TEMPERATURES = [1.05**step for step in range(-60, 61)]


def calibration_error(probs: Tensor, labels: Tensor, *, num_bins: int = NUM_BINS) -> float:
    """Return the expected calibration error (ECE): the mean gap of confidence and accuracy.

    Rows are put into bins of one width by their largest probability. A bin counts as much as it
    holds rows.

    Args:
        probs: (N, C) distributions over classes.
        labels: (N,) classes, whole numbers.
        num_bins: Number of bins.

    Returns:
        A number in [0, 1]; 0 is best.

    Raises:
        ValueError: for no rows, other shapes, or labels that are no classes.

    References:
        Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, Eq. 3.

    >>> import torch
    >>> probs = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
    >>> calibration_error(probs, torch.tensor([0, 1]))
    0.25
    """
    _check(probs, labels)
    confidence_N, predicted_N = probs.double().max(1)
    gaps_N = confidence_N - (predicted_N == labels).double()
    bins_N = (confidence_N * num_bins).ceil().long().sub(1).clamp_min(0)
    gaps_B = gaps_N.new_zeros(num_bins).index_add_(0, bins_N, gaps_N)
    return gaps_B.abs().sum().item() / len(labels)


def temperature(probs: Tensor, labels: Tensor) -> float:
    """Return the temperature T at which ``softmax(log(probs) / T)`` is calibrated best.

    Of 121 temperatures from .05 to 19 it is the one of least :func:`calibration_error`; of equal
    ones the nearest to 1. The rows must not have been trained on, or the model looks surer than it
    is right elsewhere.

    Args:
        probs: (N, C) distributions over classes, of rows held out.
        labels: (N,) classes, whole numbers.

    Raises:
        ValueError: as :func:`calibration_error`.

    References:
        Guo et al. 2017, arXiv:1706.04599, section 4.2, with ECE in the place of the likelihood, as
        in Bae et al. 2025, arXiv:2412.20644.

    >>> import torch
    >>> probs = torch.tensor([[0.9, 0.1]] * 4)  # right in three of four cases
    >>> sharpened(probs, temperature(probs, torch.tensor([0, 0, 0, 1])))[0, 0] < 0.77
    tensor(True)
    """
    _check(probs, labels)
    nearest_first = sorted(TEMPERATURES, key=lambda t: max(t, 1 / t))
    return min(nearest_first, key=lambda t: calibration_error(sharpened(probs, t), labels))


def sharpened(probs: Tensor, temperature: float) -> Tensor:
    """Return ``softmax(log(probs) / temperature)``, (..., C): what the logits would have given."""
    return (probs.log() / temperature).softmax(-1)


def _check(probs: Tensor, labels: Tensor) -> None:
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or not len(probs):
        raise ValueError(
            "probs must be (N, C) and labels (N,) with N at least 1, got "
            f"{tuple(probs.shape)} and {tuple(labels.shape)}"
        )
    is_class = not labels.is_floating_point() and labels.min() >= 0 and labels.max() < len(probs[0])
    if not is_class:
        raise ValueError(
            f"labels must be whole numbers from 0 to {probs.shape[1] - 1}, got {labels.dtype} from "
            f"{labels.min().item()} to {labels.max().item()}"
        )
    if not ((probs >= 0).all() and ((probs.sum(1) - 1).abs() < 1e-2).all()):
        raise ValueError("probs must be distributions; pass logits.softmax(-1), not logits")
