"""Disagreement among posterior samples or ensemble members: row-wise scores, higher = label sooner.

Shape suffixes: N rows, K posterior samples (or committee members, M in the papers), C classes.
"""

import torch
from torch import Tensor
from torch.special import entr

from al_lightning.acquisition.checks import checked_samples


def bald(probs: Tensor) -> Tensor:
    """Return the mutual information of label and weights, ``H[mean_k p_k] - mean_k H[p_k]``.

    Args:
        probs: (N, K, C), K posterior samples for each row.

    Returns:
        scores_N in nats, ``[0, log(min(K, C))]``, float32 or wider; all zero when K
        is 1, since one sample cannot disagree with itself.

    Raises:
        ValueError: unless the input is (N, K, C) and every row is a distribution.

    References:
        Houlsby et al. 2011, arXiv:1112.5745, Eq. 2; with MC dropout, Gal et al. 2017,
        arXiv:1703.02910, section 3.

    >>> agree, clash = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
    >>> bald(torch.tensor([agree, clash]))
    tensor([0.0000, 0.6931])
    """
    probs_NKC = checked_samples(probs)
    marginal_N = entr(probs_NKC.mean(1)).sum(-1)  # entr(0) = 0, never NaN
    conditional_N = entr(probs_NKC).sum(-1).mean(1)
    scores_N: Tensor = (marginal_N - conditional_N).clamp_min(0)  # rounding can reach -1e-7
    return scores_N


def consensus_kl(probs: Tensor) -> Tensor:
    """Return the members' mean divergence from their consensus, ``mean_m KL(p_m || mean_m p_m)``.

    Written out, this is ``H[mean p] - mean H[p]``: the same number as :func:`bald`, under the name
    that is used for committees.

    Args:
        probs: (N, M, C), M committee members for each row.

    Returns:
        scores_N in nats, ``[0, log(min(M, C))]``, float32 or wider.

    Raises:
        ValueError: unless the input is (N, M, C) and every row is a distribution.

    References:
        McCallum and Nigam 1998, "Employing EM and pool-based active learning for text
        classification", section 3.2; Settles 2009, section 3.2, ``x*_KL``.

    >>> consensus_kl(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    tensor([0.6931])
    """
    return bald(probs)


def variation_ratio(probs: Tensor) -> Tensor:
    """Return the share of samples that do not vote for the commonest class, ``1 - f_mode / K``.

    A sample votes for its likeliest class, the first of equals. (One minus the largest *mean*
    probability, which some call by this name, is ``least_confidence``.)

    Args:
        probs: (N, K, C), K posterior samples for each row.

    Returns:
        scores_N in ``[0, 1 - 1/min(K, C)]``, float32 or wider; many rows tie.

    Raises:
        ValueError: unless the input is (N, K, C) and every row is a distribution.

    References:
        Freeman 1965, "Elementary Applied Statistics"; Gal 2016, "Uncertainty in Deep Learning",
        section 3.3.1.

    >>> variation_ratio(torch.tensor([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]]))
    tensor([0.2500])
    """
    return 1 - _vote_shares(probs).amax(-1)


def vote_entropy(probs: Tensor) -> Tensor:
    """Return the entropy of the votes, ``-sum_c v_c log v_c`` with ``v_c`` the share for class c.

    Args:
        probs: (N, M, C), M committee members; each votes for its likeliest class.

    Returns:
        scores_N in nats, ``[0, log(min(M, C))]``, float32 or wider; many rows tie.

    Raises:
        ValueError: unless the input is (N, M, C) and every row is a distribution.

    References:
        Dagan and Engelson 1995, "Committee-based sampling for training probabilistic classifiers",
        section 4 (without their normalisation by ``log min(M, C)``, which ranks alike); Settles
        2009, section 3.2, ``x*_VE``.

    >>> vote_entropy(torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.6, 0.4]]]))
    tensor([0.6931, 0.0000])
    """
    scores_N: Tensor = entr(_vote_shares(probs)).sum(-1)
    return scores_N


def mean_std(probs: Tensor) -> Tensor:
    """Return the samples' standard deviation, averaged over classes, ``mean_c sqrt(var_k p_kc)``.

    Args:
        probs: (N, K, C), K posterior samples for each row.

    Returns:
        scores_N in ``[0, 1/2]``, float32 or wider.

    Raises:
        ValueError: unless the input is (N, K, C) and every row is a distribution.

    References:
        Gal et al. 2017, arXiv:1703.02910, section 3 ("Mean STD"); Kampffmeyer et al. 2016. The
        variance is the population's, ``E[p^2] - E[p]^2``, as there.

    >>> mean_std(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.3, 0.7], [0.3, 0.7]]]))
    tensor([0.5000, 0.0000])
    """
    probs_NKC = checked_samples(probs)
    variance_NC = (probs_NKC - probs_NKC.mean(1, keepdim=True)).square().mean(1)
    return variance_NC.sqrt().mean(-1)


def _vote_shares(probs: Tensor) -> Tensor:
    """Return the share of the samples for which each class is the likeliest, (N, C)."""
    probs_NKC = checked_samples(probs)
    N, K, C = probs_NKC.shape
    votes_NC = probs_NKC.new_zeros(N, C)
    votes_NK = probs_NKC.argmax(-1)
    return votes_NC.scatter_add_(1, votes_NK, torch.ones_like(votes_NK, dtype=votes_NC.dtype)) / K
