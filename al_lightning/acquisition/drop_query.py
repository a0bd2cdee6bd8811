"""DropQuery: of the rows whose prediction flips under dropout, one from each cluster.

Shape suffixes: N pool rows, Q candidates, D embedding dimensions.
"""

from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_embeddings, checked_lengths, checked_num
from al_lightning.acquisition.herding import unit_rows
from al_lightning.acquisition.kmeans import kmeans

# The code of the paper clusters at least so many rows for each one to take.
ROWS_PER_PICK = 25


def drop_query(
    flips: Tensor, embeddings: Tensor, num: int, generator: Generator, *, num_passes: int = 3
) -> Tensor:
    """Cluster the rows whose prediction flips in most passes; take the row nearest each centre.

    A row is a candidate when its prediction changes in more than ``num_passes // 2`` passes. While
    there are fewer than 25 candidates for each row to take, one flip less is enough; in the end all
    rows are candidates. They are scaled to length 1, but for rows of zeros, and clustered by
    :func:`kmeans`.

    Args:
        flips: (N,) whole numbers: of the passes with dropout, how many predict another class than
            the network without dropout.
        embeddings: (N, D) finite embeddings of the same rows.
        num: Number of rows to take; all when it is above N.
        generator: Source of the first centres.
        num_passes: Number of passes with dropout, at least 1; the paper has 3.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, largest cluster first.

    Raises:
        ValueError: for ``num`` or ``num_passes`` < 1, an empty pool, flips that are no counts of so
            many passes, embeddings that are not finite (N, D), or other lengths.

    References:
        Gupte et al. 2024, "Revisiting active learning in the era of vision foundation models",
        arXiv:2401.14555, section 3 and its published code.

    >>> import torch
    >>> flips = torch.tensor([0, 3, 2, 0, 0, 0])
    >>> embeddings = torch.tensor([[1.0, 0], [1, 0.1], [1, 0.1], [0, 1], [0, 1], [0.1, 1]])
    >>> drop_query(flips, embeddings, 2, torch.Generator().manual_seed(0)).sort().values
    tensor([1, 3])
    """
    embeddings_ND = checked_embeddings(embeddings)
    num = checked_num(num, len(embeddings_ND))
    checked_lengths(flips=len(flips), embeddings=len(embeddings_ND))
    if num_passes < 1:
        raise ValueError(f"num_passes must be at least 1, got {num_passes}")
    if flips.ndim != 1 or flips.is_floating_point() or not _are_counts(flips, num_passes):
        raise ValueError(
            f"flips must be (N,) whole numbers from 0 to num_passes={num_passes}, got "
            f"{tuple(flips.shape)} {flips.dtype} from {flips.min().item()} to {flips.max().item()}"
        )
    flips_N = flips.to(embeddings_ND.device)
    enough = min(ROWS_PER_PICK * num, len(flips_N))
    # Without a flip there is nothing left to lower.
    thresholds = range(num_passes // 2, -2, -1)
    threshold = next(t for t in thresholds if (flips_N > t).sum() >= enough)
    candidates_Q = (flips_N > threshold).nonzero()[:, 0]
    z_QD = unit_rows(embeddings_ND[candidates_Q])
    return candidates_Q[kmeans(z_QD, z_QD[:0], num, generator)]


def _are_counts(flips_N: Tensor, most: int) -> bool:
    return bool(((flips_N >= 0) & (flips_N <= most)).all())
