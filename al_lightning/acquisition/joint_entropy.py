"""Entropy of several rows' labels together, by a tree of their joint outcomes.

A configuration is one label for each row seen so far. Later rows need only two things of it: its
probability, and the plausibility of each posterior sample under it. This pair is kept:

    ``H(y_1..y_b) = sum_i H(y_i | y_1..y_i-1)``,
    ``H(y_i | y_1..y_i-1) = sum_s p(s) H(sum_k p(k | s) p(y_i | w_k))`` over configurations ``s``.

While C^b configurations fit, this is exact. After that, the tree is thinned: probable
configurations stay as they are, and the others are sampled so that each keeps its probability in
expectation. The entropy stays unbiased. The sum over the newest row's labels is always exact; only
the choice of the conditional entropies that are averaged is random. The paper averages
``-log p(y_1..y_b)`` of sampled labels, which varies far more.

Shape suffixes: N rows, R some of them, B rows taken jointly, K posterior samples, C classes,
M = R * C, S configurations, G groups of them. Everything is computed in float64.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from al_lightning.acquisition.checks import checked_samples
from al_lightning.acquisition.draws import uniform

# Numbers in the largest table of a chunk of rows: 2 MiB of float64, about a core's cache.
CHUNK_NUMBERS = 2**18
BLOCK = 1024
LLOYD_STEPS = 2


class Configurations(NamedTuple):
    """Holds the joint outcomes of the rows seen so far.

    Attributes:
        weights: (S,) their probabilities, or unbiased estimates of them; positive.
        posterior: (S, K) ``p(w_k | configuration)``; rows sum to one.
    """

    weights: Tensor
    posterior: Tensor


def joint_entropy(
    probs_BKC: Tensor, *, generator: Generator, max_configurations: int = 10_000
) -> Tensor:
    """Return the joint entropy of the rows' labels, ``H(y_1..y_B)``; only the weights tie them.

    Args:
        probs_BKC: (B, K, C), p(y | w_k), the same K posterior samples for each row.
        generator: Drawn from only when C^(B - 1) configurations are more than
            ``max_configurations``; otherwise the answer is exact.
        max_configurations: Number of configurations to keep. Time and memory grow with it, and the
            variance falls faster than its inverse.

    Returns:
        A float64 scalar in nats, ``[0, B log C]``; unbiased where it is not exact.

    Raises:
        ValueError: unless every row is K distributions, or when ``max_configurations`` < 1.

    References:
        Kirsch et al. 2019, arXiv:1906.08158, Eq. 9 to 12; thinning as in Fearnhead and Clifford
        2003, "On-line inference for hidden Markov models via particle filters", section 3.

    >>> coins = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 3)  # all heads, or all tails
    >>> joint_entropy(coins, generator=torch.Generator()).exp()
    tensor(2., dtype=torch.float64)
    """
    checked_samples(probs_BKC)
    configurations = no_rows_seen(probs_BKC)
    total = configurations.weights.new_zeros(())
    for probs_KC in probs_BKC:
        configurations = thinned(configurations, max_configurations, generator)
        total += entropy_of_chunk(probs_KC[None], configurations)[0]
        configurations = with_row(configurations, probs_KC)
    return total


def no_rows_seen(probs_NKC: Tensor) -> Configurations:
    """Return the one configuration of no rows: all posterior samples are equally plausible."""
    K = probs_NKC.shape[1]
    weights_S = torch.ones(1, dtype=torch.float64, device=probs_NKC.device)
    return Configurations(weights_S, weights_S.new_full((1, K), 1 / K))


def with_row(configurations: Configurations, probs_KC: Tensor) -> Configurations:
    """Continue each configuration by each label of one more row; drop impossible ones."""
    weights_S, posterior_SK = configurations
    likelihood_CK = normalised(probs_KC).T
    joint_SK = ((weights_S[:, None] * posterior_SK)[:, None] * likelihood_CK).flatten(0, 1)
    weights_S = joint_SK.sum(-1)
    possible_S = weights_S > 0
    weights_S = weights_S[possible_S]
    return Configurations(weights_S, joint_SK[possible_S].div_(weights_S[:, None]))


def weights_known(probs_NKC: Tensor) -> Configurations:
    """Return the configurations if the weights themselves were seen: one sample in each."""
    K = probs_NKC.shape[1]
    posterior_SK = torch.eye(K, dtype=torch.float64, device=probs_NKC.device)
    return Configurations(posterior_SK.mean(0), posterior_SK)


def conditional_entropy(
    probs_NKC: Tensor, rows_R: Tensor, configurations: Configurations
) -> Tensor:
    """Return ``H(y | configuration)`` of some rows, averaged over configurations: (R,), nats."""
    _, K, C = probs_NKC.shape
    tallest = max(K, min(len(configurations.weights), BLOCK))
    chunks = torch.split(rows_R, max(1, CHUNK_NUMBERS // (C * tallest)))
    return torch.cat([entropy_of_chunk(probs_NKC[rows_R], configurations) for rows_R in chunks])


def entropy_of_chunk(probs_RKC: Tensor, configurations: Configurations) -> Tensor:
    """Return the :func:`conditional_entropy` of a chunk, over blocks of the configurations."""
    R, K, C = probs_RKC.shape
    columns_KM = normalised(probs_RKC).transpose(0, 1).reshape(K, R * C)
    negative_M = columns_KM.new_zeros(R * C)
    tiny = torch.finfo(columns_KM.dtype).tiny
    # A block of posteriors stays in the cache while all columns pass.
    blocks = (torch.split(tensor, BLOCK) for tensor in configurations)
    for weights_S, posterior_SK in zip(*blocks, strict=True):
        predicted_SM = posterior_SK @ columns_KM
        # entr() takes one logarithm at a time on a CPU, log() several
        negative_M += weights_S @ predicted_SM.clamp_min(tiny).log_().mul_(predicted_SM)
    return -negative_M.view(R, C).sum(-1)


def thinned(configurations: Configurations, num: int, generator: Generator) -> Configurations:
    """Return at most ``num`` configurations; each keeps its own weight in expectation.

    Those heavier than some ``c`` stay. The others stay with probability ``weight / c`` and then
    weigh ``c``. The draw is stratified along an order in which neighbours find the same posterior
    sample most plausible, and are about equally sure of it.
    """
    if num < 1:
        raise ValueError(f"max_configurations must be at least 1, got {num}")
    weights_S, posterior_SK = configurations
    if len(weights_S) <= num:
        return configurations
    heaviest_first_S = weights_S.argsort(descending=True, stable=True)
    sorted_S = weights_S[heaviest_first_S]
    rest_S = sorted_S.flip(0).cumsum(0).flip(0)
    places_left = torch.arange(num, 0, -1, device=weights_S.device)
    num_kept = int((sorted_S[:num] * places_left <= rest_S[:num]).nonzero()[0])
    c = rest_S[num_kept] / (num - num_kept)

    light = heaviest_first_S[num_kept:]
    light = light[by_posterior(posterior_SK[light])]
    strata = torch.arange(num - num_kept, device=weights_S.device)
    points = strata + uniform(len(strata), generator=generator, device=weights_S.device)
    drawn = torch.searchsorted((weights_S[light] / c).cumsum(0), points, right=True)
    drawn = light[drawn.clamp_max(len(light) - 1)]  # rounding can reach past the end
    kept = heaviest_first_S[:num_kept]
    return Configurations(
        torch.cat([weights_S[kept], c.expand(len(drawn))]), posterior_SK[torch.cat([kept, drawn])]
    )


def grouped(configurations: Configurations, num: int) -> Configurations:
    """Average configurations with similar posteriors in at most ``num`` groups, by k-means.

    Entropy is concave, so with any groups, no row's conditional entropy is lower than before. The
    closer the posteriors in a group are, the less the entropy is raised.
    """
    weights_S, posterior_SK = configurations
    spread = torch.arange(num, device=weights_S.device) * len(weights_S) // num
    centres_GK = posterior_SK[by_posterior(posterior_SK)[spread]]
    joint_SK = weights_S[:, None] * posterior_SK
    for _ in range(LLOYD_STEPS):
        nearest_S = nearest(posterior_SK, centres_GK)
        weights_G = weights_S.new_zeros(num).index_add_(0, nearest_S, weights_S)
        joint_GK = torch.zeros_like(centres_GK).index_add_(0, nearest_S, joint_SK)
        used_G = weights_G > 0
        centres_GK[used_G] = joint_GK[used_G] / weights_G[used_G, None]
    return Configurations(weights_G[used_G], centres_GK[used_G])


def nearest(points_SK: Tensor, centres_GK: Tensor) -> Tensor:
    """Return the position of the centre that is closest to each point, (S,)."""
    half_norms_G = centres_GK.square().sum(-1) / 2
    chunks = torch.split(points_SK, max(1, CHUNK_NUMBERS // len(centres_GK)))
    return torch.cat([(half_norms_G - chunk_SK @ centres_GK.T).argmin(-1) for chunk_SK in chunks])


def by_posterior(posterior_SK: Tensor) -> Tensor:
    """Return the order by most plausible posterior sample, the surest of each sample first."""
    plausibility_S, sample_S = posterior_SK.max(-1)
    return (sample_S + (1 - plausibility_S)).argsort(stable=True)


def normalised(probs: Tensor) -> Tensor:
    """Return the distributions in float64 with sums of one; an error would pass for information."""
    probs = probs.double()
    return probs / probs.sum(-1, keepdim=True)
