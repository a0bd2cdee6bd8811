"""Squared Euclidean distances to the nearest of many centres, in bounded memory.

Shape suffixes: N rows, M centres, D embedding dimensions, B rows and P centres of a chunk.
"""

import torch
from torch import Tensor

# A chunk of rows against a chunk of centres is a table of 16 MiB in float32.
CHUNK = 2**11


def nearest_squared(x_ND: Tensor, centers_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of each row to its nearest centre, and which one that is.

    The nearest is found by matrix products, where squares of large numbers cancel; its distance is
    then taken by differences, so that a row equal to its nearest centre is at exactly 0.

    Args:
        x_ND: (N, D) rows.
        centers_MD: (M, D) centres, M >= 1, of the same dtype.

    Returns:
        distances_N, float32 or wider, never negative; nearest_N, int64 positions of centres: of
        equally near ones the first, where rounding does not tell them apart.
    """
    distances = x_ND.new_empty(len(x_ND), dtype=torch.promote_types(x_ND.dtype, torch.float32))
    nearest = torch.empty(len(x_ND), dtype=torch.int64, device=x_ND.device)
    # About the middle of the centres the squares are no larger than they need be.
    middle_D = centers_MD.mean(0, dtype=distances.dtype)
    for start in range(0, len(x_ND), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk_BD = x_ND[rows].to(distances.dtype)
        nearest[rows] = _nearest(chunk_BD - middle_D, centers_MD, middle_D)
        distances[rows] = (chunk_BD - centers_MD[nearest[rows]]).square_().sum(-1)
    return distances, nearest


def _nearest(offsets_BD: Tensor, centers_MD: Tensor, middle_D: Tensor) -> Tensor:
    best_B = offsets_BD.new_full((len(offsets_BD),), torch.inf)
    nearest_B = torch.zeros(len(offsets_BD), dtype=torch.int64, device=offsets_BD.device)
    for start in range(0, len(centers_MD), CHUNK):
        centers_PD = centers_MD[start : start + CHUNK] - middle_D
        # |x - c|^2 without |x|^2, which is the same for all centres of a row.
        partial_BP = torch.addmm(centers_PD.square().sum(-1), offsets_BD, centers_PD.T, alpha=-2)
        values_B, places_B = partial_BP.min(-1)
        nearest_B = torch.where(values_B < best_B, places_B + start, nearest_B)
        best_B = torch.minimum(best_B, values_B)
    return nearest_B
