"""BAIT: the rows whose labels leave least doubt about the predictions of all rows.

Shape suffixes: N pool rows, M labeled rows, T rows taken, K posterior samples, C classes,
D embedding dimensions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from al_lightning.acquisition.checks import (
    checked_embeddings,
    checked_lengths,
    checked_num,
    checked_probs,
)
from al_lightning.acquisition.distances import chunks
from al_lightning.acquisition.progress import report

# Twice as many rows are taken as are kept.
OVERSAMPLING = 2


def bait(
    probs: Tensor,
    embeddings: Tensor,
    num: int,
    *,
    labeled_probs: Tensor | None = None,
    labeled_embeddings: Tensor | None = None,
    regularization: float = 1.0,
) -> Tensor:
    """Take rows S such that tr((regularization I + F_labeled + F_S)^-1 F_all) is small.

    F is the Fisher information of the last layer, for the binary question whether the likeliest
    class is right: F of a row is p (1 - p) h h^T, with p its largest probability and h its
    embedding, and F of several rows is their sum. F_all is of the pool and the labeled rows. Twice
    ``num`` rows are taken, one after the other, each the one that lowers the trace most. Then those
    are given back, one after the other, that raise it least. Of equal rows the earlier wins.

    A pick is an update of rank one. It costs one pass over the embeddings, and D x D numbers are
    kept beside a few a row. D may be above N.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over its K samples first.
        embeddings: (N, D) finite embeddings of the same rows: the input of the last layer.
        num: Number of rows to take; all when it is above N.
        labeled_probs: (M, C) of the labeled rows.
        labeled_embeddings: (M, D) of them; both or none.
        regularization: Lambda, above 0.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken.

    Raises:
        ValueError: for ``num`` < 1, a ``regularization`` not above 0, an empty pool, rows of
            ``probs`` that are no distributions, embeddings that are not finite (N, D), different
            lengths, or one of the labeled tables without the other.

    References:
        Huseljic et al. 2024, "Fast Fishing", arXiv:2404.08981, section 4, the binary approximation
        of Ash et al. 2021, "Gone fishing", arXiv:2106.09675, Algorithm 1.

    >>> probs = torch.tensor([[0.5, 0.5], [0.6, 0.4], [1.0, 0.0], [0.9, 0.1]])
    >>> embeddings = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 9.0], [0.0, 3.0]])
    >>> bait(probs, embeddings, 2)
    tensor([0, 3])
    """
    embeddings_ND = checked_embeddings(embeddings)
    num = checked_num(num, len(embeddings_ND))
    scales_N = _scales(probs)
    checked_lengths(probs=len(scales_N), embeddings=len(embeddings_ND))
    if not 0 < regularization < math.inf:
        raise ValueError(
            f"regularization must be above 0 and finite, got {regularization}; the paper has 1"
        )
    if (labeled_probs is None) != (labeled_embeddings is None):
        raise ValueError("give both labeled_probs and labeled_embeddings, or neither, got one")
    tables = [(embeddings_ND, scales_N)]
    D = embeddings_ND.shape[1]
    known_DD = regularization * torch.eye(D, dtype=torch.float64, device=embeddings_ND.device)
    if labeled_probs is not None and labeled_embeddings is not None:
        labeled_MD = checked_embeddings(
            labeled_embeddings, "labeled_embeddings", like_ND=embeddings_ND
        )
        tables.append((labeled_MD, _scales(labeled_probs)))
        checked_lengths(labeled_probs=len(labeled_probs), labeled_embeddings=len(labeled_MD))
        known_DD += _fisher(tables[1:])
    inverse_DD = torch.cholesky_inverse(torch.linalg.cholesky(known_DD))
    doubt = _Doubt(inverse_DD, inverse_DD @ _fisher(tables) @ inverse_DD)
    picks = _forward(doubt, embeddings_ND, scales_N, min(OVERSAMPLING * num, len(embeddings_ND)))
    taken = torch.stack(picks)
    rows_TD = embeddings_ND[taken].double() * scales_N[taken][:, None]
    return taken[_backward(doubt, rows_TD, num)]


class _Doubt:
    """Keeps A = (lambda I + F)^-1 and B = A F_all A as rows join F and leave it.

    A row x that joins lowers tr(A F_all) by x^T B x / (1 + x^T A x). One that leaves raises it by
    x^T B x / (1 - x^T A x). Both follow from the formula of Sherman and Morrison.
    """

    def __init__(self, inverse_DD: Tensor, spread_DD: Tensor) -> None:
        self.inverse_DD = inverse_DD
        self.spread_DD = spread_DD

    def forms(self, rows_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Return x^T A x and x^T B x of each row, (T,) float64."""
        a_T = ((rows_TD @ self.inverse_DD) * rows_TD).sum(1)
        return a_T, ((rows_TD @ self.spread_DD) * rows_TD).sum(1)

    def change(self, row_D: Tensor, sign: int) -> "_Change":
        """Let a row join (+1) or leave (-1); return what that does to the forms of others."""
        v_D, w_D = self.inverse_DD @ row_D, self.spread_DD @ row_D
        c = sign + row_D @ v_D
        spread = (row_D @ w_D) / c**2
        self.inverse_DD -= torch.outer(v_D, v_D) / c
        crossed_DD = torch.outer(v_D, w_D) / c
        self.spread_DD += torch.outer(spread * v_D, v_D) - crossed_DD - crossed_DD.T
        return _Change(torch.stack([v_D, w_D], dim=1), c, spread)


class _Change:
    """Says how x^T A x and x^T B x change for other rows when a row has joined or left."""

    def __init__(self, directions_D2: Tensor, c: Tensor, spread: Tensor) -> None:
        self.directions_D2 = directions_D2
        self.c = c
        self.spread = spread

    def apply(self, a_T: Tensor, b_T: Tensor, along_T2: Tensor) -> None:
        """Update the forms in place, given the products of the rows and the directions."""
        along_v_T, along_w_T = along_T2.unbind(1)
        a_T -= along_v_T.square() / self.c
        b_T += self.spread * along_v_T.square() - 2 * along_v_T * along_w_T / self.c


def _forward(doubt: _Doubt, embeddings_ND: Tensor, scales_N: Tensor, num: int) -> list[Tensor]:
    """Take ``num`` positions, each the one that lowers the trace most."""
    parts = [
        doubt.forms(embeddings_ND[rows].double() * scales_N[rows][:, None])
        for rows in chunks(embeddings_ND)
    ]
    a_N, b_N = (torch.cat(part) for part in zip(*parts, strict=True))
    is_left_N = torch.ones_like(a_N, dtype=torch.bool)
    picks: list[Tensor] = []
    while len(picks) < num:
        report(len(picks), num)
        falls_N = torch.where(is_left_N, b_N / (1 + a_N), -torch.inf)
        picks.append(falls_N.argmax())
        is_left_N[picks[-1]] = False
        change = doubt.change(embeddings_ND[picks[-1]].double() * scales_N[picks[-1]], +1)
        change.apply(a_N, b_N, _products(embeddings_ND, change.directions_D2) * scales_N[:, None])
    return picks


def _backward(doubt: _Doubt, rows_TD: Tensor, num: int) -> Tensor:
    """Return the positions of ``num`` rows, ascending, after those that matter least have left."""
    a_T, b_T = doubt.forms(rows_TD)
    is_kept_T = torch.ones_like(a_T, dtype=torch.bool)
    for left in range(len(rows_TD) - num):
        report(left, len(rows_TD) - num)
        # The later of equal rows leaves.
        rises_T = torch.where(is_kept_T, b_T / (1 - a_T), torch.inf).flip(0)
        least = len(rises_T) - 1 - rises_T.argmin()
        is_kept_T[least] = False
        change = doubt.change(rows_TD[least], -1)
        change.apply(a_T, b_T, rows_TD @ change.directions_D2)
    return is_kept_T.nonzero()[:, 0]


def _scales(probs: Tensor) -> Tensor:
    """Return sqrt(p (1 - p)) of the largest probability of each row, (N,) float64."""
    probs = checked_probs(probs)
    p_N = (probs.mean(1) if probs.ndim == 3 else probs).amax(-1).double()
    return (p_N * (1 - p_N)).clamp_min(0).sqrt()


def _fisher(tables: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of x x^T over all rows x = scale * embedding, (D, D) float64."""
    D = tables[0][0].shape[1]
    fisher_DD = torch.zeros(D, D, dtype=torch.float64, device=tables[0][0].device)
    for embeddings_ND, scales_N in tables:
        for rows in chunks(embeddings_ND):
            x_BD = embeddings_ND[rows].double() * scales_N[rows][:, None]
            fisher_DD += x_BD.T @ x_BD
    return fisher_DD


def _products(embeddings_ND: Tensor, directions_D2: Tensor) -> Tensor:
    """Return embeddings @ directions, (N, 2) float64, without a widened copy of them.

    In float32 the updates of many picks would lose the digits that decide.
    """
    parts = [embeddings_ND[rows].double() @ directions_D2 for rows in chunks(embeddings_ND)]
    return torch.cat(parts)
