"""Rows drawn by score with a quota for each class.

Shape suffix: N candidates.
"""

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_lengths, checked_num, checked_scores
from al_lightning.acquisition.stochastic import stochastic


def stratified(
    scores: Tensor,
    classes: Tensor,
    num: int,
    *,
    share: float = 1.0,
    beta: float = 1.0,
    generator: Generator,
) -> Tensor:
    """Draw as many rows of each class, likelier where the score is higher.

    Each class draws from its own rows in proportion to ``score ** beta``, and the classes take
    turns. A class that has no row left passes.

    Args:
        scores: (N,) finite, at least 0, higher = label sooner.
        classes: (N,) the predicted class of each row, or any other number that tells rows apart.
        num: Number of rows to take; all when it is above N.
        share: Share of the batch with quotas, in [0, 1]; the others are drawn from all rows.
        beta: The preference for high scores: 0 is uniform, large values take the highest.
        generator: Source of the noise.

    Returns:
        positions (min(num, N),), int64, the rows with quotas first.

    Raises:
        ValueError: as :func:`~al_lightning.acquisition.stochastic`; for a share outside [0, 1], or
            classes that are not finite or not one a row.

    References:
        ClaSP PE, Lüth et al. 2026, arXiv:2601.13677: stratified by predicted class, with power
        noise (Kirsch et al. 2023, arXiv:2106.12059).

    >>> scores, classes = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 0, 0, 1])
    >>> stratified(scores, classes, 2, beta=1e9, generator=torch.Generator())
    tensor([0, 3])
    """
    scores_N = checked_scores(scores)
    num = checked_num(num, len(scores_N))
    checked_lengths(scores=len(scores_N), classes=len(classes))
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}; .3 is 30 %")
    if not classes.isfinite().all():
        raise ValueError("classes must be finite, found NaN; look for NaN in the model's outputs")
    drawn_N = stochastic(scores_N, len(scores_N), "power", beta, generator=generator)
    num_quota = round(share * num)
    in_turn_N = drawn_N[_rank_in_class(classes[drawn_N]).argsort(stable=True)][:num_quota]
    is_left_N = torch.ones_like(scores_N, dtype=torch.bool)
    is_left_N[in_turn_N] = False
    others_N = drawn_N[is_left_N[drawn_N]]
    return torch.cat([in_turn_N, others_N[: num - num_quota]])


def _rank_in_class(classes_N: Tensor) -> Tensor:
    """Return of each row how many rows of its class stand before it."""
    _, numbers_N, counts = torch.unique(classes_N, return_inverse=True, return_counts=True)
    by_class_N = numbers_N.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    ranks_N = torch.empty_like(by_class_N)
    ranks_N[by_class_N] = torch.arange(len(classes_N), device=classes_N.device)
    return torch.sub(ranks_N, starts[numbers_N])
