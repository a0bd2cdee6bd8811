"""Rows at the border of each class, small classes first: for classes that are rare.

Shape suffixes: N candidates, M labeled rows, K posterior samples, C classes.
"""

import torch
from torch import Tensor

from al_lightning.acquisition.checks import checked_num
from al_lightning.acquisition.scores import mean_probs
from al_lightning.acquisition.top_k import top_k


def direct(
    probs: Tensor, num: int, *, labeled_probs: Tensor | None = None, labels: Tensor | None = None
) -> Tensor:
    """Choose the rows nearest to the borders of classes, above all of those with few labels.

    Of class k, a row has the margin ``p_k - max_(j != k) p_j``. The border is the margin that
    separates the labeled rows of class k best from the others. Half of the rows that lie there are
    of the class, so a rare class gains rows fast. Of a class without a labeled row the rows with
    the largest margins are taken. Half of the batch goes to the classes with the fewest labels,
    until they would have as many as the others; the smallest chooses first. The other half is
    nearest to any border of the model, which is where it has two classes alike.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over K.
        num: Number of rows to take; all when it is above N.
        labeled_probs: The same of the M labeled rows. Without them each border is at margin 0,
            where the model's own is.
        labels: (M,) their classes, whole numbers.

    Returns:
        positions (min(num, N),), int64; the classes take turns, the smallest first.

    Raises:
        ValueError: for ``num`` < 1, no rows, rows that are no distributions, or labels that are no
            classes or of another number.

    References:
        DIRECT, Nuggehalli et al. 2023, arXiv:2312.09196, section 4, which follows GALAXY, Zhang et
        al. 2022, arXiv:2202.01402. Theirs narrows each border down by labels inside a batch and
        gives each class as many; here a batch is chosen whole, by shares that were tuned on
        validation rows.

    >>> probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> direct(probs, 1, labeled_probs=probs[[0, 2]], labels=torch.tensor([0, 1]))
    tensor([1])
    """
    margins_NC = class_margins(probs)
    num = checked_num(num, len(margins_NC))
    borders_C = margins_NC.new_zeros(margins_NC.shape[1])
    counts_C = torch.zeros_like(borders_C)
    if labeled_probs is not None and labels is not None:
        borders_C, counts_C = _borders(class_margins(labeled_probs), labels, margins_NC.shape[1])
    order = counts_C.argsort(stable=True).tolist()  # fewest labels first
    quotas = filled_up([int(counts_C[k]) for k in order], num // 2)
    # Half of the batch is nearest to any border of the model, whatever the classes.
    keys_N = -margins_NC.amax(1)
    chosen: list[list[int]] = []
    is_taken_N = torch.zeros(len(margins_NC), dtype=torch.bool, device=margins_NC.device)
    for k, quota in zip(order, quotas, strict=True):
        if quota:
            keys_of_class_N = _nearness(margins_NC[:, k], borders_C[k])
            chosen.append(_best(keys_of_class_N, is_taken_N, quota))
    chosen.append(_best(keys_N, is_taken_N, num - sum(quotas)))
    in_turn = [one[n] for n in range(num) for one in chosen if n < len(one)]
    return torch.tensor(in_turn, device=margins_NC.device)


def _nearness(margins_N: Tensor, border: Tensor) -> Tensor:
    """Return keys in [-2, 1]: the nearer to the border the higher."""
    if border.isfinite():
        return -(margins_N - border).abs()
    return margins_N if border > 0 else -margins_N


def _best(keys_N: Tensor, is_taken_N: Tensor, num: int) -> list[int]:
    """Take the free rows with the highest keys."""
    positions = top_k(keys_N.masked_fill(is_taken_N, -4), num)
    is_taken_N[positions] = True
    return positions.tolist()


def filled_up(counts: list[int], num: int) -> list[int]:
    """Share ``num`` rows out so that the classes with the fewest labels catch up with the others.

    Args:
        counts: Labels of each class.
        num: Number of rows.

    >>> filled_up([2, 20, 20], 15), filled_up([0, 1], 3)
    ([15, 0, 0], [2, 1])
    """
    filled = list(counts)
    for _ in range(num):  # water in vessels of one shape
        filled[filled.index(min(filled))] += 1
    return [full - count for full, count in zip(filled, counts, strict=True)]


def class_margins(probs: Tensor) -> Tensor:
    """Return (N, C): how far the probability of each class is above the largest of the others."""
    probs_NC = mean_probs(probs)
    (first_N, second_N), place_N = probs_NC.topk(2).values.T, probs_NC.argmax(-1)
    others_NC = first_N[:, None].expand_as(probs_NC).clone()
    others_NC.scatter_(1, place_N[:, None], second_N[:, None])
    margins_NC: Tensor = probs_NC - others_NC
    return margins_NC


def _borders(margins_MC: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the border of each class, infinite on a side where nothing is, and its labels."""
    if margins_MC.shape[1] != num_classes or labels.shape != margins_MC.shape[:1]:
        raise ValueError(
            f"labeled_probs must be (M, {num_classes}) and labels (M,), got "
            f"{tuple(margins_MC.shape)} and {tuple(labels.shape)}"
        )
    is_class = not labels.is_floating_point() and ((labels >= 0) & (labels < num_classes)).all()
    if len(labels) and not is_class:
        raise ValueError(
            f"labels must be whole numbers from 0 to {num_classes - 1}, got {labels.dtype} from "
            f"{labels.min().item()} to {labels.max().item()}"
        )
    labels = labels.to(margins_MC.device, torch.int64)
    counts_C = torch.bincount(labels, minlength=num_classes)
    borders = [border_of(margins_MC[:, k], labels == k) for k in range(num_classes)]
    return margins_MC.new_tensor(borders), counts_C.to(margins_MC)


def border_of(margins_M: Tensor, is_in_M: Tensor) -> float:
    """Return the threshold at which ``margins_M >= threshold`` tells best who is in the class.

    It is the middle between two neighbours; of equally good ones the highest. Infinite when the
    best is to let none in, or all.

    >>> border_of(torch.tensor([0.5, -0.5, -0.25]), torch.tensor([True, False, False]))
    0.125
    """
    margins_M, order = margins_M.sort(descending=True, stable=True)
    signs_M = torch.where(is_in_M[order], 1, -1)
    gains = torch.cat([signs_M.new_zeros(1), signs_M.cumsum(0)])  # of letting the first n in
    is_between = torch.ones_like(gains, dtype=torch.bool)
    is_between[1:-1] = margins_M[:-1] > margins_M[1:]  # equal rows cannot be told apart
    best = int(gains.masked_fill(~is_between, -len(gains)).argmax())
    if best in (0, len(margins_M)):
        return float("inf") if best == 0 else float("-inf")
    return ((margins_M[best - 1] + margins_M[best]) / 2).item()
