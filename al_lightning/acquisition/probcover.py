"""ProbCover: balls around few rows that hold as much of the pool as they can.

Shape suffixes: N pool rows, M labeled rows, D embedding dimensions, U rows still uncovered, Q balls
whose purity is looked at, A and B rows of a chunk.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_num
from al_lightning.acquisition.clustering import fit_centres, sample_rows
from al_lightning.acquisition.distances import nearest_squared, rounding, widened
from al_lightning.acquisition.draws import uniform
from al_lightning.acquisition.progress import report

MIN_PURITY = 0.95
# The purity of so many balls decides on the radius: a share of 5 % has a standard error of 0.7 %.
NUM_BALLS = 1024
# Rows on each side of a block of distances: 4 MiB in float32, half the time of 64 MiB.
BLOCK_ROWS = 2**10
# The degree of a row that was taken: no other row can have it.
NEVER = -(2**62)


def probcover(
    embeddings: Tensor,
    labeled: Tensor,
    num: int,
    generator: Generator,
    *,
    delta: float | None = None,
    num_classes: int = 10,
) -> Tensor:
    """Take, again and again, the row with the most uncovered rows nearer to it than ``delta``.

    This number is the row's degree. A row is covered when it is nearer than ``delta`` to a labeled
    row or to one taken before. Of equal degrees the earlier row wins. Once every row is covered, no
    choice is better than another, and the rest is drawn at random from ``generator``. A smaller
    ``delta`` would make better use of the labels.

    Only the degrees are kept, never the graph. Distances are computed block by block: for all pairs
    at first, and again for the rows that become covered, to lower the degrees of their neighbours.
    That is at most 2 N^2 distances, in O(N) memory.

    Args:
        embeddings: (N, D) finite embeddings of the pool.
        labeled: (M, D) those of the labeled rows; M may be 0.
        num: Number of rows to take; all when it is above N.
        generator: Source of the estimate of ``delta`` and of rows after all are covered.
        delta: Radius of the balls, Euclidean; when not given, :func:`pure_radius` estimates it.
        num_classes: Number of classes for the estimate of ``delta``; not used otherwise.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken.

    Raises:
        ValueError: for ``num`` < 1, ``num_classes`` < 2, ``delta`` not above 0, an empty pool, or
            embeddings that are not finite, (N, D) and alike.

    References:
        Yehuda et al. 2022, arXiv:2205.11320, Algorithm 1, and its heuristic for ``delta``.

    >>> pool = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0]])
    >>> probcover(pool, pool[:0], 2, torch.Generator(), delta=1.5)
    tensor([1, 3])
    """
    embeddings_ND = checked_embeddings(embeddings)
    labeled_MD = checked_embeddings(labeled, "labeled", like_ND=embeddings_ND)
    num = checked_num(num, len(embeddings_ND))
    if delta is None:
        delta = pure_radius((embeddings_ND, labeled_MD), num_classes, generator=generator)
    elif not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta}; it is a Euclidean distance")
    uncovered_N = count_within(embeddings_ND, labeled_MD, delta) == 0
    taken = _cover(embeddings_ND, uncovered_N, num, delta)
    left_N = torch.ones_like(uncovered_N)
    left_N[taken] = False
    left = left_N.nonzero()[:, 0]
    shuffled = uniform(len(left), generator=generator, device=left.device).argsort()
    return torch.cat([taken, left[shuffled[: num - len(taken)]]])


def _cover(embeddings_ND: Tensor, uncovered_N: Tensor, num: int, delta: float) -> Tensor:
    """Return at most ``num`` positions by greedy maximum coverage; stop once all is covered."""
    uncovered_N = uncovered_N.clone()
    degrees_N = torch.zeros_like(uncovered_N, dtype=torch.int64)
    chunks = torch.split(uncovered_N.nonzero()[:, 0], BLOCK_ROWS)
    for counted, chunk in enumerate(chunks):
        report(counted, len(chunks))
        degrees_N += count_within(embeddings_ND, embeddings_ND[chunk], delta)
    taken: list[Tensor] = []
    while len(taken) < num and uncovered_N.any():
        report(len(taken), num)
        taken.append(degrees_N.argmax())
        newest_1D = embeddings_ND[taken[-1]][None]
        newly_N = uncovered_N & (count_within(embeddings_ND, newest_1D, delta) > 0)
        uncovered_N &= ~newly_N
        for chunk in torch.split(newly_N.nonzero()[:, 0], BLOCK_ROWS):
            degrees_N -= count_within(embeddings_ND, embeddings_ND[chunk], delta)
        degrees_N[taken[-1]] = NEVER
    return torch.stack(taken) if taken else uncovered_N.new_empty(0, dtype=torch.int64)


def count_within(embeddings_ND: Tensor, others_MD: Tensor, delta: float) -> Tensor:
    """Count the ``others`` that are nearer than ``delta`` to each row, (N,), int64."""
    counts_N = torch.zeros(len(embeddings_ND), dtype=torch.int64, device=embeddings_ND.device)
    for others_BD in filter(len, torch.split(widened(others_MD), BLOCK_ROWS)):
        counts = [
            _count_below(delta**2, widened(rows_AD), others_BD)
            for rows_AD in torch.split(embeddings_ND, BLOCK_ROWS)
        ]
        counts_N += torch.cat(counts)
    return counts_N


def _count_below(limit: float, rows_AD: Tensor, others_BD: Tensor) -> Tensor:
    """Count, for each row, the others at a squared distance below the limit, (A,), int32.

    What float64 cannot tell from the limit is at the limit, and so not below. Otherwise chance, and
    the processor, would decide on the edge, where the rows are from which the limit was estimated.
    """
    squared_AB, rounding_A = squared_distances(rows_AD, others_BD)

    def count(bound_A: Tensor) -> Tensor:
        # A sum over booleans is seven times slower.
        return (squared_AB < bound_A[:, None]).view(torch.uint8).sum(1, dtype=torch.int32)

    counts_A = count(limit - rounding_A)
    if rows_AD.dtype != torch.float64:
        unsure = (counts_A < count(limit + rounding_A)).nonzero()[:, 0]
        if len(unsure):
            counts_A[unsure] = _count_below(limit, rows_AD[unsure].double(), others_BD.double())
    return counts_A


def squared_distances(rows_AD: Tensor, others_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances_AB, and how much each row's may be off."""
    # About the middle of the others the squares are hardly larger than the distances sought, so
    # that their difference keeps its digits.
    middle_D = others_BD.mean(0)
    rows_AD, others_BD = rows_AD - middle_D, others_BD - middle_D
    squares_A, squares_B = rows_AD.square().sum(1), others_BD.square().sum(1)
    squared_AB = torch.addmm(squares_B, rows_AD, others_BD.T, alpha=-2).add_(squares_A[:, None])
    return squared_AB, rounding(torch.maximum(squares_A, squares_B.max()), rows_AD)


def pure_radius(tables: Sequence[Tensor], num_classes: int, *, generator: Generator) -> float:
    """Return the largest radius at which 95 % of the balls around rows hold rows of one class only.

    K-means clusters take the place of the classes. A ball is pure up to the distance of the nearest
    row of another cluster. So the radius is exactly a quantile of that distance, and no grid of
    radii is tried. The quantile is taken over the balls around 1,024 rows drawn at random, each
    compared with all rows, in O(N).

    Args:
        tables: Each (N, D): pool and labeled rows.
        num_classes: Number of clusters, at least 2.
        generator: Source of the rows and of the clustering.

    Returns:
        The radius of open balls; infinite when all rows are the same.

    References:
        Yehuda et al. 2022, arXiv:2205.11320: purity of at least 0.95.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}; or pass delta")
    centres_GD = fit_centres(tables, num_classes, generator=generator)
    balls_QD = sample_rows(tables, NUM_BALLS, generator=generator)
    _, clusters_Q = nearest_squared(balls_QD, centres_GD)
    balls_QD = balls_QD.double()
    nearest_other_Q = balls_QD.new_full((len(balls_QD),), torch.inf)
    for table in filter(len, tables):
        _, clusters_N = nearest_squared(table, centres_GD)
        parts = torch.split(clusters_N, BLOCK_ROWS), torch.split(table, BLOCK_ROWS)
        for clusters_A, rows_AD in zip(*parts, strict=True):
            squared_AQ, _ = squared_distances(rows_AD.double(), balls_QD)
            squared_AQ[clusters_A[:, None] == clusters_Q] = torch.inf
            nearest_other_Q = torch.minimum(nearest_other_Q, squared_AQ.amin(0))
    num_impure = len(balls_QD) - math.ceil(MIN_PURITY * len(balls_QD))
    squared = nearest_other_Q.sort().values[num_impure]
    return math.sqrt(max(0.0, squared.item()))
