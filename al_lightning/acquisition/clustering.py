"""k-means in time linear in the pool, and groups that take turns.

Centres are found on a seeded sample whose size does not grow with the pool. One pass then gives
every row its cluster. All selectors use the same sample size, seeding and number of iterations.

Shape suffixes: N rows, S sampled rows, G clusters or groups, D embedding dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.distances import distances_to_row, nearest_squared, widened
from al_lightning.acquisition.draws import uniform
from al_lightning.acquisition.progress import report

# Measured: 500 centres from so many of 60,000 rows leave 1.5 % more squared error than from all.
SAMPLE_ROWS = 2**15
# Fewer, because Lloyd's iterations repair a coarse choice of first centres.
SEEDING_ROWS = 2**13
# Both grow with the number of centres where that is large.
ROWS_PER_CENTRE = 4
# 10 iterations on such a sample leave 0.4 % more squared error than 50 do.
MAX_ITERATIONS = 10


def fit_centres(tables: Sequence[Tensor], num_clusters: int, *, generator: Generator) -> Tensor:
    """Return centres of k-means over the rows of all ``tables``: k-means++ and Lloyd on a sample.

    Args:
        tables: Each (N, D), with at least one row in all; they are never joined.
        num_clusters: The largest number of centres.
        generator: Source of the sample and of the seeding.

    Returns:
        centres_GD, float64, G = ``num_clusters`` or the number of distinct rows sampled
        if that is smaller. Some may be nearest to no row.

    References:
        Lloyd 1982; Arthur and Vassilvitskii 2007, "k-means++".
    """
    at_least = ROWS_PER_CENTRE * num_clusters
    sample_SD = sample_rows(tables, max(SAMPLE_ROWS, at_least), generator=generator)
    seeding_SD = sample_rows([sample_SD], max(SEEDING_ROWS, at_least), generator=generator)
    return lloyd(sample_SD, spread_rows(seeding_SD, num_clusters, generator=generator))


def spread_rows(sample_SD: Tensor, num: int, *, generator: Generator) -> Tensor:
    """Draw each row by its squared distance to the nearest one drawn before it: k-means++.

    Returns:
        rows (num, D), or all the distinct rows there are if those are fewer.
    """
    draws = uniform(num, generator=generator, device=sample_SD.device)
    drawn = [int(draws[0] * len(sample_SD))]
    nearest_S = distances_to_row(sample_SD, sample_SD[drawn[0]])
    for draw in draws[1:]:
        mass_S = nearest_S.double().square().cumsum(0)
        if mass_S[-1] == 0:
            break
        drawn.append(int(torch.searchsorted(mass_S, draw * mass_S[-1], right=True)))
        nearest_S = torch.minimum(nearest_S, distances_to_row(sample_SD, sample_SD[drawn[-1]]))
    return sample_SD[drawn]


def lloyd(sample_SD: Tensor, centres_GD: Tensor) -> Tensor:
    """Move each centre to the mean of its rows until no row changes sides, at most 10 times.

    A centre that has lost all its rows stays where it was, and may win rows again.
    """
    centres_GD, doubled_SD = centres_GD.double(), sample_SD.double()
    _, clusters_S = nearest_squared(sample_SD, centres_GD)
    for iteration in range(MAX_ITERATIONS):
        counts_G1 = clusters_S.bincount(minlength=len(centres_GD))[:, None]
        sums_GD = torch.zeros_like(centres_GD).index_add_(0, clusters_S, doubled_SD)
        centres_GD = torch.where(counts_G1 > 0, sums_GD / counts_G1.clamp_min(1), centres_GD)
        before_S = clusters_S
        _, clusters_S = nearest_squared(sample_SD, centres_GD)
        report(iteration + 1, MAX_ITERATIONS)
        if torch.equal(before_S, clusters_S):
            break
    return centres_GD


def round_robin(
    groups_N: Tensor, turns_G: Tensor, num: int, *, first_round_G: Tensor | None = None
) -> Tensor:
    """Return the first ``num`` rows when groups take turns and each gives one row a round.

    Args:
        groups_N: The group of each row, int64; a group gives its rows in the order they stand in.
        turns_G: The groups in the order they take turns within a round.
        num: Number of rows, at most N.
        first_round_G: The round in which each group joins; 0 for all when not given.

    Returns:
        positions (num,), int64, in the order they are given.
    """
    G = len(turns_G)
    places_G = turns_G.argsort()
    rounds_N = _earlier_in_group(groups_N, G)
    if first_round_G is not None:
        rounds_N += first_round_G[groups_N]
    keys_N = rounds_N * G + places_G[groups_N]  # no two are equal
    return keys_N.topk(num, largest=False).indices


def _earlier_in_group(groups_N: Tensor, num_groups: int) -> Tensor:
    """Count, for each row, the earlier rows of its own group."""
    by_group_N = groups_N.argsort(stable=True)
    counts_G = groups_N.bincount(minlength=num_groups)
    starts_G = counts_G.cumsum(0) - counts_G
    earlier_N = torch.empty_like(groups_N)
    places_N = torch.arange(len(groups_N), device=groups_N.device)
    earlier_N[by_group_N] = places_N - starts_G[groups_N[by_group_N]]
    return earlier_N


def sample_rows(tables: Sequence[Tensor], num: int, *, generator: Generator) -> Tensor:
    """Draw ``num`` rows from all ``tables`` without joining them, float32 or wider, in order."""
    sample = sample_without_replacement(sum(map(len, tables)), num, generator=generator)
    rows, start = [], 0
    for table in tables:
        here = sample[(sample >= start) & (sample < start + len(table))] - start
        rows.append(table[here.to(table.device)])
        start += len(table)
    return widened(torch.cat(rows))


def sample_without_replacement(num_rows: int, num: int, *, generator: Generator) -> Tensor:
    """Draw ``num`` of ``num_rows`` positions, or all, ascending, on the generator's device."""
    order = torch.randperm(num_rows, generator=generator, device=generator.device)
    return order[:num].sort().values
