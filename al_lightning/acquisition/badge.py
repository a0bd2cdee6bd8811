"""BADGE: rows whose gradients are large and differ, drawn by k-means++ seeding.

A row's gradient embedding is the gradient of the last layer's weights if the row's own prediction
were its label: the outer product g of a = p - onehot(argmax p) and the embedding h. It is never
formed, since
    |g_i - g_j|^2 = |a_i|^2 |h_i|^2 + |a_j|^2 |h_j|^2 - 2 (a_i.a_j) (h_i.h_j).

Shape suffixes: N pool rows, K posterior samples, C classes, D embedding dimensions, B rows of a
chunk, P centres, R proposed rows.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from al_lightning.acquisition.checks import checked_embeddings, checked_lengths, checked_num
from al_lightning.acquisition.distances import chunks, two_least, unsure_rows, wide
from al_lightning.acquisition.draws import uniform
from al_lightning.acquisition.progress import report
from al_lightning.acquisition.scores import mean_probs

# Rows proposed at a time. Measured: nearly all are kept, and more save no time.
NUM_PROPOSALS = 256


def badge(probs: Tensor, embeddings: Tensor, num: int, generator: Generator) -> Tensor:
    """Draw each row by the squared distance of its gradient to the nearest one taken before it.

    The first is the row with the largest gradient, as in the authors' code. The paper only says
    k-means++, whose first draw is uniform. Copies of rows taken have distance 0 and come last, in
    random order. Rows without a gradient (one-hot predictions) are all copies of one another.

    The draws are exact, without a pass over the pool for each row. Distances only fall as rows are
    taken. So 256 rows are proposed at once by the present distances, and each in turn is kept with
    a chance: its distance now, divided by the distance by which it was proposed. Then one matrix
    product gives the distances of the pool to all rows that were kept. Time is linear in N. Memory
    beside the inputs is a few numbers a row.

    Args:
        probs: (N, C), or (N, K, C), which is averaged over its K samples first.
        embeddings: (N, D) finite inputs of the last layer for the same rows.
        num: Number of rows to take; all when it is above N.
        generator: Source of all draws.

    Returns:
        positions (min(num, N),), int64, on the device of the embeddings, in the order taken.

    Raises:
        ValueError: for ``num`` < 1, an empty pool, rows of ``probs`` that are no distributions,
            embeddings that are not finite (N, D) or so large that squares overflow, or different
            lengths.

    References:
        Ash et al. 2020, arXiv:1906.03671, Algorithm 1 and Eq. 1; Arthur and Vassilvitskii 2007,
        "k-means++"; drawing by outdated distances: Cohen-Addad et al. 2020, arXiv:2012.11891.

    >>> probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])
    >>> embeddings = torch.tensor([[9.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> badge(probs, embeddings, 4, torch.Generator().manual_seed(0))[:2]
    tensor([1, 3])
    """
    probs_NC, embeddings_ND = mean_probs(probs), checked_embeddings(embeddings)
    num = checked_num(num, len(embeddings_ND))
    checked_lengths(probs=len(probs_NC), embeddings=len(embeddings_ND))
    distances_N = squared_norms(probs_NC, embeddings_ND)
    picks: list[Tensor] = []
    if distances_N.max() > 0:
        picks.append(distances_N.argmax()[None])
        distances_N.fill_(torch.inf)  # 0 is no row taken
        _meet(distances_N, probs_NC, embeddings_ND, picks[0])
    while (missing := num - sum(map(len, picks))) and distances_N.max() > 0:
        picks.append(_drawn(distances_N, probs_NC, embeddings_ND, missing, generator=generator))
        _meet(distances_N, probs_NC, embeddings_ND, picks[-1])
        report(sum(map(len, picks)), num)
    if missing:  # only copies are left
        left_N = torch.ones_like(distances_N, dtype=torch.bool)
        for rows in picks:
            left_N[rows] = False
        left = left_N.nonzero()[:, 0]
        draws = uniform(len(left), generator=generator, device=left.device)
        picks.append(left[draws.argsort(stable=True)][:missing])
    return torch.cat(picks)


def _meet(distances_N: Tensor, probs_NC: Tensor, embeddings_ND: Tensor, picks: Tensor) -> None:
    """Lower each distance, in place, to the distance of a new pick where that is nearer."""
    torch.minimum(distances_N, squared_to_nearest(probs_NC, embeddings_ND, picks), out=distances_N)
    distances_N[picks] = 0  # also where rounding found another pick nearest


def _drawn(
    distances_N: Tensor,
    probs_NC: Tensor,
    embeddings_ND: Tensor,
    num: int,
    *,
    generator: Generator,
) -> Tensor:
    """Return the next picks out of one set of proposals: at least one and at most ``num``."""
    cpu = torch.device("cpu")
    # On the CPU: elsewhere cumsum may differ from run to run, and strict determinism forbids it.
    mass_N = distances_N.to(cpu, torch.float64).cumsum(0)
    draws = uniform(2 * NUM_PROPOSALS, generator=generator, device=cpu)
    proposal_draws_R, keep_draws_R = draws.chunk(2)
    # A draw of at most 1 - 2^-53 times the total stays below the total, also after rounding.
    rows_R = torch.searchsorted(mass_N, proposal_draws_R * mass_N[-1], right=True)
    rows_R = rows_R.to(distances_N.device)
    distances_R, probs_RC = distances_N[rows_R], probs_NC[rows_R]
    embeddings_RD = embeddings_ND[rows_R]
    thresholds_R = keep_draws_R.to(distances_R) * distances_R
    kept = torch.zeros(1, dtype=torch.int64, device=rows_R.device)  # the first was drawn as now
    while len(kept) < num:
        _meet(distances_R, probs_RC, embeddings_RD, kept[-1:])
        stands = (distances_R > thresholds_R).nonzero()[:, 0]
        stands = stands[stands > kept[-1]]
        if not len(stands):
            break
        kept = torch.cat([kept, stands[:1]])
    return rows_R[kept]


def squared_norms(probs_NC: Tensor, embeddings_ND: Tensor) -> Tensor:
    """Return the squared length of each row's gradient embedding, float32 or wider."""
    norms = []
    for rows in chunks(embeddings_ND):
        a_BC, h_BD = factors(probs_NC, embeddings_ND, rows)
        norms.append(_dot(a_BC, a_BC) * _dot(h_BD, h_BD))
    return torch.cat(norms)


def squared_to_nearest(probs_NC: Tensor, embeddings_ND: Tensor, centers: Tensor) -> Tensor:
    """Return the squared distance of each row's gradient embedding to the nearest centre's.

    Matrix products find the nearest centre, but lose digits where squares of large numbers cancel.
    So differences give its distance, and a row equal to its nearest centre is at exactly 0.

    Args:
        probs_NC: (N, C) predictions.
        embeddings_ND: (N, D) embeddings of the same rows.
        centers: (P,) positions among these rows.

    Returns:
        distances_N, float32 or wider, never negative.
    """
    a_PC, h_PD = factors(probs_NC, embeddings_ND, centers)
    distances = []
    for rows in chunks(embeddings_ND):
        a_BC, h_BD = factors(probs_NC, embeddings_ND, rows)
        nearest_B = _nearest(a_BC, h_BD, a_PC, h_PD)
        b_BC, k_BD = a_PC.index_select(0, nearest_B), h_PD.index_select(0, nearest_B)
        distances.append(_squared_difference(a_BC, h_BD, b_BC, k_BD))
    return torch.cat(distances)


def _nearest(a_BC: Tensor, h_BD: Tensor, a_PC: Tensor, h_PD: Tensor) -> Tensor:
    squares_P = _dot(a_PC, a_PC) * _dot(h_PD, h_PD)
    # Without |g_i|^2, which is the same for all centres of a row.
    products_BP = (a_BC @ a_PC.T).mul_(h_BD @ h_PD.T)
    least_B, nearest_B, second_B = two_least(torch.sub(squares_P, products_BP, alpha=2))
    largest_B = torch.maximum(_dot(a_BC, a_BC) * _dot(h_BD, h_BD), squares_P.max())
    unsure = unsure_rows(second_B - least_B, largest_B, h_BD)
    if len(unsure):
        doubled = a_BC[unsure].double(), h_BD[unsure].double(), a_PC.double(), h_PD.double()
        nearest_B[unsure] = _nearest(*doubled)
    return nearest_B


def _squared_difference(a_BC: Tensor, h_BD: Tensor, b_BC: Tensor, k_BD: Tensor) -> Tensor:
    """Return ``|a (x) h - b (x) k|^2 = |(a-b) (x) (h+k) + (a+b) (x) (h-k)|^2 / 4``."""
    da_BC, sa_BC, dh_BD, sh_BD = a_BC - b_BC, a_BC + b_BC, h_BD - k_BD, h_BD + k_BD
    squared_B = (
        _dot(da_BC, da_BC) * _dot(sh_BD, sh_BD)
        + _dot(sa_BC, sa_BC) * _dot(dh_BD, dh_BD)
        + 2 * _dot(da_BC, sa_BC) * _dot(dh_BD, sh_BD)
    )
    return squared_B.div_(4).clamp_min_(0)


def factors(probs_NC: Tensor, embeddings_ND: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
    """Return the two factors of the gradient embeddings at ``rows``, float32 or wider."""
    dtype = torch.promote_types(wide(probs_NC), embeddings_ND.dtype)
    probs_BC, h_BD = probs_NC[rows].to(dtype), embeddings_ND[rows].to(dtype)
    return probs_BC - one_hot(probs_BC.argmax(-1), probs_BC.shape[1]), h_BD


def _dot(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    return (x_BD * y_BD).sum(-1)
