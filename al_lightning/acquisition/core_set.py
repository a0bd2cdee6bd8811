"""Core-set: the rows that leave no row of the pool far from a labeled one.

Shape suffixes: N pool rows, M labeled rows, R candidates, D embedding dimensions.
"""

import torch
from torch import Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_num
from al_lightning.acquisition.distances import mean_row, nearest_squared
from al_lightning.acquisition.progress import report

# Measured: more candidates a round save few rounds, and each must be compared with the picks.
NUM_CANDIDATES = 512
# Below every distance: a row that is chosen already.
CHOSEN = -1.0


def core_set(embeddings: Tensor, labeled: Tensor, num: int) -> Tensor:
    """Take, again and again, the row farthest from its nearest labeled or taken row (k-center).

    With no labeled rows the first is the row farthest from the mean of the pool. So the choice is
    a function of the pool alone; the method begins with an extreme row in any case. Copies of
    labeled or taken rows come last, in their order in the pool.

    The picks are exact, without a pass over the pool for each. Distances only fall as rows are
    taken. So a pick among the 512 farthest rows is the pick of the whole pool while it is farther
    than the 513th was before. Then one matrix product gives the distances of the pool to all these
    picks. Time is linear in N. Memory beside the embeddings is a few numbers a row.

    Args:
        embeddings: (N, D) finite embeddings of the pool.
        labeled: (M, D) those of the labeled rows; M may be 0.
        num: Number of rows to take; all when it is above N.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken; of
        equally far rows the earlier one goes first.

    Raises:
        ValueError: for ``num`` < 1, an empty pool, embeddings that are not finite, (N, D) and
            alike, or so large that squares overflow.

    References:
        Sener and Savarese 2018, arXiv:1708.00489, Algorithm 1; Gonzalez 1985, "Clustering to
        minimize the maximum intercluster distance".

    >>> pool = torch.tensor([[0.0], [1.0], [9.0], [4.0], [9.0]])
    >>> core_set(pool, torch.tensor([[0.0]]), 5)
    tensor([2, 3, 1, 0, 4])
    """
    embeddings_ND = checked_embeddings(embeddings)
    labeled_MD = checked_embeddings(labeled, "labeled", like_ND=embeddings_ND)
    num = checked_num(num, len(embeddings_ND))
    starts = labeled_MD if len(labeled_MD) else mean_row(embeddings_ND)[None]
    distances_N, _ = nearest_squared(embeddings_ND, starts)
    picks = []
    if not len(labeled_MD):
        picks.append(distances_N.argmax()[None])
        distances_N.fill_(torch.inf)  # the mean is no labeled row
        _meet(distances_N, embeddings_ND, picks[0])
    while sum(map(len, picks)) < num and distances_N.max() > 0:
        picks.append(_farthest(distances_N, embeddings_ND, num - sum(map(len, picks))))
        _meet(distances_N, embeddings_ND, picks[-1])
        report(sum(map(len, picks)), num)
    copies = (distances_N == 0).nonzero()[:, 0]
    return torch.cat([*picks, copies])[:num]


def _meet(distances_N: Tensor, embeddings_ND: Tensor, picks: Tensor) -> None:
    """Lower each distance, in place, to the distance of a new pick where that is nearer."""
    nearest_N, _ = nearest_squared(embeddings_ND, embeddings_ND[picks])
    torch.minimum(distances_N, nearest_N, out=distances_N)
    distances_N[picks] = CHOSEN


def _farthest(distances_N: Tensor, embeddings_ND: Tensor, num: int) -> Tensor:
    """Return the next picks that the farthest rows decide: at least one and at most ``num``."""
    farthest = distances_N.topk(min(NUM_CANDIDATES + 1, len(distances_N))).values
    # All rows, or all but those that are no farther than this.
    cut = farthest[-1] if len(farthest) > NUM_CANDIDATES else distances_N.new_tensor(0)
    candidates = (distances_N > cut).nonzero()[:, 0]
    if not len(candidates):  # hundreds tie for the farthest: the first is right, nothing more
        return distances_N.argmax()[None]
    embeddings_RD, distances_R = embeddings_ND[candidates], distances_N[candidates]
    picks: list[Tensor] = []
    while len(picks) < num and distances_R.max() > cut:
        picks.append(distances_R.argmax())
        _meet(distances_R, embeddings_RD, picks[-1][None])
    return candidates[torch.stack(picks)]
