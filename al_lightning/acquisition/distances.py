"""Squared Euclidean distances to the nearest of many centres, in bounded memory.

Shape suffixes: N rows, M centres, D embedding dimensions, B rows and P centres of a chunk.
"""

import torch
from torch import Tensor

# Centres are taken this many at a time.
CHUNK_CENTERS = 2**10


def nearest_squared(x_ND: Tensor, centers_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance of each row to its nearest centre, and that centre.

    Matrix products find the nearest centre, but lose digits where squares of large numbers cancel.
    Where rounding may have decided, they are done again in float64. Differences give the distance,
    so a row equal to its nearest centre is at exactly 0.

    Args:
        x_ND: (N, D) rows.
        centers_MD: (M, D) centres, M >= 1, in the same dtype or a wider one.

    Returns:
        distances_N, float64, never negative; nearest_N, int64 positions of centres: of equally near
        ones, as far as rounding tells, the first.
    """
    distances_N = x_ND.new_empty(len(x_ND), dtype=torch.float64)
    nearest_N = torch.empty(len(x_ND), dtype=torch.int64, device=x_ND.device)
    # About the middle of the centres the squares are no larger than they need be.
    middle_D = mean_row(centers_MD)
    for rows in chunks(x_ND):
        x_BD = widened(x_ND[rows])
        nearest_B = _nearest(x_BD, centers_MD, middle_D)
        # Measured: a fifth of the time of indexing.
        centers_BD = centers_MD.index_select(0, nearest_B)
        distances_N[rows] = (x_BD - centers_BD).square_().sum(-1, dtype=torch.float64)
        nearest_N[rows] = nearest_B
    return distances_N, nearest_N


def _nearest(x_BD: Tensor, centers_MD: Tensor, middle_D: Tensor) -> Tensor:
    offsets_BD = (x_BD - middle_D).to(x_BD.dtype)
    best_B = offsets_BD.new_full((len(offsets_BD),), torch.inf)
    second_B, largest_B = best_B.clone(), offsets_BD.square().sum(-1)
    nearest_B = torch.zeros(len(offsets_BD), dtype=torch.int64, device=offsets_BD.device)
    for start in range(0, len(centers_MD), CHUNK_CENTERS):
        centers_PD = (centers_MD[start : start + CHUNK_CENTERS] - middle_D).to(offsets_BD.dtype)
        squares_P = centers_PD.square().sum(-1)
        # |x - c|^2 without |x|^2, which is the same for all centres of a row.
        values_B, places_B, next_B = two_least(
            torch.addmm(squares_P, offsets_BD, centers_PD.T, alpha=-2)
        )
        nearest_B = torch.where(values_B < best_B, places_B + start, nearest_B)
        second_B = torch.minimum(torch.maximum(values_B, best_B), torch.minimum(second_B, next_B))
        best_B = torch.minimum(best_B, values_B)
        largest_B = torch.maximum(largest_B, squares_P.max())
    unsure = unsure_rows(second_B - best_B, largest_B, offsets_BD)
    if len(unsure):
        nearest_B[unsure] = _nearest(x_BD[unsure].double(), centers_MD.double(), middle_D.double())
    return nearest_B


def two_least(values_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the least of each row, its place, and the second least; change ``values_BP``."""
    least_B, places_B = values_BP.min(-1)
    second_B = values_BP.scatter_(1, places_B[:, None], torch.inf).amin(-1)
    return least_B, places_B, second_B


def unsure_rows(gaps_B: Tensor, squares_B: Tensor, factors_BD: Tensor) -> Tensor:
    """Return the rows for which rounding in a matrix product may be as large as a gap.

    Args:
        gaps_B: Differences that must be told apart.
        squares_B: The largest square among the factors of the products.
        factors_BD: Rows of a factor, in the dtype of the product.

    Returns:
        positions, int64; none where the product is in float64, beyond which nothing is done.
    """
    if factors_BD.dtype == torch.float64:
        return gaps_B.new_empty(0, dtype=torch.int64)
    return (gaps_B <= rounding(squares_B, factors_BD)).nonzero()[:, 0]


def rounding(squares_B: Tensor, factors_BD: Tensor) -> Tensor:
    """Return the error to expect in ``|x|^2 - 2 x c + |c|^2``."""
    # Lightning advises to let matrix products in float32 round more on a GPU.
    is_exact = torch.get_float32_matmul_precision() == "highest"
    is_rounded_more = factors_BD.dtype == torch.float32 and not is_exact
    unit = torch.finfo(torch.bfloat16 if is_rounded_more else factors_BD.dtype).eps
    # Errors of the D summands are of either sign; measured: never above half of this.
    relative: float = 4 * unit * max(4.0, factors_BD.shape[1] ** 0.5)
    return relative * squares_B


def distances_to_row(x_ND: Tensor, row_D: Tensor) -> Tensor:
    """Return the Euclidean distances_N to one row, float32 or wider: exactly 0 for an equal row.

    With one centre, differences alone take half the time of :func:`nearest_squared`.
    """
    row_1D = widened(row_D)[None]
    distances = [
        torch.cdist(widened(x_ND[rows]), row_1D, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
        for rows in chunks(x_ND)
    ]
    return torch.cat(distances)


def mean_row(x_ND: Tensor) -> Tensor:
    """Return the mean_D of all rows, float32 or wider, without a widened copy of them."""
    total_D = x_ND.new_zeros(x_ND.shape[1], dtype=torch.float64)
    for rows in chunks(x_ND):
        total_D += x_ND[rows].sum(0, dtype=total_D.dtype)
    return (total_D / len(x_ND)).to(wide(x_ND))


def chunks(x_ND: Tensor) -> list[slice]:
    """Return slices that cut the rows into chunks of a size that suits the device."""
    # What fits a CPU's cache, or what keeps a GPU busy.
    size = 2**10 if x_ND.device.type == "cpu" else 2**14
    return [slice(start, start + size) for start in range(0, len(x_ND), size)]


def widened(x: Tensor) -> Tensor:
    """Return the same numbers in float32 or wider."""
    return x.to(wide(x))


def wide(x: Tensor) -> torch.dtype:
    """Return float32 or a wider dtype of ``x``: half precision is too narrow for a sum."""
    return torch.promote_types(x.dtype, torch.float32)
