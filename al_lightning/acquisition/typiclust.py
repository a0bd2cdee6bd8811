"""TypiClust: the most typical row of each cluster that has no label yet.

Shape suffixes: N pool rows, M labeled rows, G clusters, D embedding dimensions, P pool rows and L
labeled rows of one cluster, R rows of it that serve as neighbours, B rows of a chunk.
"""

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_num
from al_lightning.acquisition.clustering import fit_centres, round_robin, sample_without_replacement
from al_lightning.acquisition.distances import nearest_squared, unsure_rows, widened
from al_lightning.acquisition.progress import report

NUM_NEIGHBOURS = 20
MIN_CLUSTER_SIZE = 5
# Neighbours are searched among at least so many rows of a cluster, and among more where the pool is
# so small that this needs no more than so many distances.
MIN_REFERENCES = 2**10
NUM_DISTANCES = 2**29
# The relative error that a squared distance may have.
PRECISION = 1e-4
# Elements in the largest table of one chunk: 16 MiB in float32.
CHUNK_ELEMENTS = 2**22


def typiclust(
    embeddings: Tensor,
    labeled: Tensor,
    num: int,
    generator: Generator,
    *,
    max_clusters: int = 500,
) -> Tensor:
    """Take, again and again, the most typical row of the largest cluster with the fewest labels.

    Pool and labeled rows together are cut into ``min(M + num, max_clusters)`` clusters. A cluster's
    labels are its labeled rows and the rows taken already; its size counts pool and labeled rows.
    The most typical row has the least mean distance to its 20 nearest neighbours within the cluster
    (to all rows of a smaller one), labeled neighbours included. The paper's typicality is the
    inverse of that distance.

    The paper leaves some choices open. Clusters under 5 rows are outliers, which the authors' code
    drops; here they wait until all others are used up, so a pool of any size can be taken whole.
    Typicality is computed once for each cluster, not anew after each row. In a cluster of more than
    1,024 rows, or more than 2^29 / N where that is larger (8,947 in a pool of 60,000), neighbours
    are searched in a seeded sample of so many. Centres are fitted to a sample too, see
    :mod:`al_lightning.acquisition.clustering`. Time is linear in N, memory a few chunks.

    Args:
        embeddings: (N, D) finite embeddings of the pool.
        labeled: (M, D) those of the labeled rows; M may be 0.
        num: Number of rows to take; all when it is above N.
        generator: Source of the samples and of the first centres.
        max_clusters: Cap on the number of clusters.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken.

    Raises:
        ValueError: for ``num`` or ``max_clusters`` < 1, an empty pool, or embeddings that are not
            finite, (N, D) and alike.

    References:
        Hacohen et al. 2022, arXiv:2202.02794, Algorithm 1.

    >>> pool = torch.tensor([7.0, 8.0, 9.0, 9.5, 11.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])[:, None]
    >>> typiclust(pool, pool[:0], 2, torch.Generator().manual_seed(0))
    tensor([8, 2])
    """
    embeddings_ND = checked_embeddings(embeddings)
    labeled_MD = checked_embeddings(labeled, "labeled", like_ND=embeddings_ND)
    num = checked_num(num, len(embeddings_ND))
    if max_clusters < 1:
        raise ValueError(f"max_clusters must be at least 1, got {max_clusters}")
    tables = (embeddings_ND, labeled_MD)
    num_clusters = min(len(labeled_MD) + num, max_clusters)
    centres_GD = fit_centres(tables, num_clusters, generator=generator)
    clusters_N, clusters_M = (nearest_squared(table, centres_GD)[1] for table in tables)
    pool_rows = _rows_by_cluster(clusters_N, len(centres_GD))
    labeled_rows = _rows_by_cluster(clusters_M, len(centres_GD))

    order = _clusters_to_visit(clusters_N, clusters_M, len(centres_GD), num)
    positions = torch.empty_like(order)
    max_references = max(MIN_REFERENCES, NUM_DISTANCES // len(embeddings_ND))
    clusters = sorted(set(order.tolist()))
    for visited, cluster in enumerate(clusters):
        report(visited, len(clusters))
        turns = (order == cluster).nonzero()[:, 0]
        members_P = pool_rows[cluster]
        distances_P = mean_neighbour_distance(
            *tables,
            members_P,
            labeled_rows[cluster],
            max_references=max_references,
            generator=generator,
        )
        most_typical = distances_P.argsort(stable=True)[: len(turns)]
        positions[turns] = members_P[most_typical]
    return positions


def _clusters_to_visit(
    clusters_N: Tensor, clusters_M: Tensor, num_clusters: int, num: int
) -> Tensor:
    """Return the cluster of each row to take: fewest labels first, then largest first."""
    labels_G = clusters_M.bincount(minlength=num_clusters)
    sizes_G = clusters_N.bincount(minlength=num_clusters) + labels_G
    after_all_others = len(clusters_N) + len(clusters_M)
    # A cluster joins once the others have as many labels as it began with.
    first_round_G = labels_G + after_all_others * (sizes_G < MIN_CLUSTER_SIZE)
    largest_first_G = sizes_G.argsort(descending=True, stable=True)
    rows = round_robin(clusters_N, largest_first_G, num, first_round_G=first_round_G)
    return clusters_N[rows]


def _rows_by_cluster(clusters_N: Tensor, num_clusters: int) -> tuple[Tensor, ...]:
    counts = clusters_N.bincount(minlength=num_clusters).tolist()
    return torch.split(clusters_N.argsort(stable=True), counts)


def mean_neighbour_distance(
    embeddings_ND: Tensor,
    labeled_MD: Tensor,
    members_P: Tensor,
    labeled_members_L: Tensor,
    *,
    max_references: int,
    generator: Generator,
) -> Tensor:
    """Return the mean distance of a cluster's pool rows to the nearest in it: 1 / typicality.

    Args:
        embeddings_ND: (N, D) the pool.
        labeled_MD: (M, D) the labeled rows.
        members_P: Positions of the cluster's rows in the pool, at least one.
        labeled_members_L: Positions of its labeled rows.
        max_references: Number of the cluster's rows that may serve as neighbours; where there are
            more, a sample of so many serves.
        generator: Source of that sample.

    Returns:
        distances_P, 0 for a row that is alone in its cluster.
    """
    P, size = len(members_P), len(members_P) + len(labeled_members_L)
    device = embeddings_ND.device
    references = torch.arange(size, device=device)
    if size > max_references:
        sample = sample_without_replacement(size, max_references, generator=generator)
        references = sample.to(device)
    from_pool, from_labeled = references[references < P], references[references >= P] - P
    parts = [embeddings_ND[members_P[from_pool]], labeled_MD[labeled_members_L[from_labeled]]]
    references_RD = widened(torch.cat(parts))
    own_column_P = torch.full((P,), -1, device=device)
    own_column_P[from_pool] = torch.arange(len(from_pool), device=device)

    num_neighbours = min(NUM_NEIGHBOURS, len(references_RD) - 1)
    if num_neighbours == 0:
        return references_RD.new_zeros(P)
    rows = max(1, CHUNK_ELEMENTS // max(references_RD.shape))
    chunks = zip(torch.split(members_P, rows), torch.split(own_column_P, rows), strict=True)
    means = [
        _mean_of_nearest(widened(embeddings_ND[members_B]), references_RD, own_B, num_neighbours)
        for members_B, own_B in chunks
    ]
    return torch.cat(means)


def _mean_of_nearest(
    rows_BD: Tensor, references_RD: Tensor, own_column_B: Tensor, num: int
) -> Tensor:
    """Return the mean distance of each row to the ``num`` nearest references, without itself."""
    # About the cluster's middle, the squares in |x|^2 - 2xy + |y|^2 are no larger than the result.
    middle_D = references_RD.mean(0)
    offsets_BD, offsets_RD = rows_BD - middle_D, references_RD - middle_D
    squares_B, squares_R = offsets_BD.square().sum(1), offsets_RD.square().sum(1)
    # What is left out, |x|^2, is the same for all neighbours of a row.
    partial_BR = torch.addmm(squares_R, offsets_BD, offsets_RD.T, alpha=-2)
    is_reference = (own_column_B >= 0).nonzero()[:, 0]
    partial_BR[is_reference, own_column_B[is_reference]] = torch.inf  # not its own neighbour
    nearest_BK = partial_BR.topk(num, largest=False).values
    squared_BK = (nearest_BK + squares_B[:, None]).clamp_min(0)
    means_B = squared_BK.sqrt().mean(1)
    largest_B = torch.maximum(squares_B, squares_R.max())
    unsure = unsure_rows(PRECISION * squared_BK[:, 0], largest_B, offsets_BD)
    if len(unsure):
        doubled = rows_BD[unsure].double(), references_RD.double()
        again_B = _mean_of_nearest(*doubled, own_column_B[unsure], num)
        means_B[unsure] = again_B.to(means_B.dtype)
    return means_B
