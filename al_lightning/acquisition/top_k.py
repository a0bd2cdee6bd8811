"""The ``num`` highest scores, exactly and in linear time."""

import torch
from torch import Tensor

from al_lightning.acquisition.checks import checked_num, checked_scores


def top_k(scores: Tensor, num: int) -> Tensor:
    """Return positions of the ``num`` highest scores, best first; of equals the earlier row wins.

    ``torch.topk`` does not define the order of equal scores, so two devices may ask for different
    rows. Here the position decides, in O(N + num log num).

    Args:
        scores: (N,) finite scores, higher = label sooner.
        num: Number of rows to take; all when it is above N.

    Returns:
        positions (min(num, N),), int64, on the device of ``scores``.

    Raises:
        ValueError: when ``num`` < 1, there are no scores, or one is NaN or infinite.

    >>> import torch
    >>> top_k(torch.tensor([0.1, 0.9, 0.5, 0.9, 0.5]), 3)
    tensor([1, 3, 2])
    """
    scores_N = checked_scores(scores)
    num = checked_num(num, len(scores_N))
    cut = scores_N.topk(num).values[-1]
    above = (scores_N > cut).nonzero()[:, 0]
    best_first = above[scores_N[above].argsort(descending=True, stable=True)]
    at_the_cut = (scores_N == cut).nonzero()[: num - len(above), 0]
    return torch.cat([best_first, at_the_cut])
