"""Scores of posterior samples, and EPIG, against definitions in plain Python."""

import importlib
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from al_lightning.acquisition import (
    bald,
    consensus_kl,
    epig,
    mean_std,
    variation_ratio,
    vote_entropy,
)


def entropy_of(p):
    return -sum(q * math.log(q) for q in p if q > 0)


def mean_of(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def bald_by_definition(p_KC):
    return entropy_of(mean_of(p_KC)) - sum(map(entropy_of, p_KC)) / len(p_KC)


def consensus_kl_by_definition(p_MC):
    consensus = mean_of(p_MC)
    divergences = [
        sum(p * math.log(p / q) for p, q in zip(p_C, consensus, strict=True) if p > 0)
        for p_C in p_MC
    ]
    return sum(divergences) / len(p_MC)


def votes(p_KC):
    return Counter(max(range(len(p_C)), key=lambda c: (p_C[c], -c)) for p_C in p_KC)


def variation_ratio_by_definition(p_KC):
    return 1 - votes(p_KC).most_common(1)[0][1] / len(p_KC)


def vote_entropy_by_definition(p_MC):
    return entropy_of([count / len(p_MC) for count in votes(p_MC).values()])


def mean_std_by_definition(p_KC):
    means, K = mean_of(p_KC), len(p_KC)
    variances = [sum((p_C[c] - m) ** 2 for p_C in p_KC) / K for c, m in enumerate(means)]
    return sum(map(math.sqrt, variances)) / len(means)


SCORES = {
    "bald": (bald, bald_by_definition),
    "consensus_kl": (consensus_kl, consensus_kl_by_definition),
    "variation_ratio": (variation_ratio, variation_ratio_by_definition),
    "vote_entropy": (vote_entropy, vote_entropy_by_definition),
    "mean_std": (mean_std, mean_std_by_definition),
}
each_score = pytest.mark.parametrize(("score", "definition"), SCORES.values(), ids=SCORES)
each_dtype = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)]
)


def samples(N, K, C, seed=0, dtype=torch.float64):
    """Distributions with some zeros, and some rows that are certain."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, K, C, generator=draw, dtype=dtype) * 4
    logits[torch.rand(N, K, C, generator=draw) < 0.2] = -math.inf
    logits[..., 0] = logits[..., 0].clamp_min(-5)
    return logits.softmax(-1)


@each_score
@each_dtype
@given(N=st.integers(0, 6), K=st.integers(1, 6), C=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_score_agrees_with_its_definition(score, definition, dtype, tolerance, N, K, C, seed):
    probs_NKC = samples(N, K, C, seed, dtype)
    expected = torch.tensor([definition(row) for row in probs_NKC.tolist()], dtype=dtype)
    torch.testing.assert_close(score(probs_NKC), expected, atol=tolerance, rtol=0)


@each_score
def test_one_sample_and_equal_samples_do_not_disagree(score, definition):
    one = samples(5, 1, 4)
    torch.testing.assert_close(score(one), torch.zeros(5).double(), atol=1e-12, rtol=0)
    equal = one.expand(5, 3, 4)
    torch.testing.assert_close(score(equal), torch.zeros(5).double(), atol=1e-12, rtol=0)
    assert (score(equal) >= 0).all()


@each_score
def test_members_that_are_certain_of_different_classes_disagree_most(score, definition):
    clash = torch.eye(4)[None]
    torch.testing.assert_close(
        score(clash)[0].item(), definition(clash[0].tolist()), atol=1e-6, rtol=0
    )
    assert score(clash) > score(samples(50, 4, 4, dtype=torch.float32)).max() - 1e-6


@each_score
def test_score_is_row_wise_and_leaves_its_input_alone(score, definition):
    probs = samples(9, 4, 5)
    before = probs.clone()
    torch.testing.assert_close(score(probs[2:3]), score(probs)[2:3])
    order = torch.randperm(9)
    torch.testing.assert_close(score(probs[order]), score(probs)[order])
    assert torch.equal(probs, before)


@each_score
@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (torch.rand(5, 3).softmax(-1), r"must be \(N, K, C\).*got \(5, 3\); predict with mc_sampl"),
        (torch.randn(5, 2, 3) * 9, "pass logits.softmax"),
        (torch.tensor([[[math.nan, 1.0]]]), "sum to 1"),
    ],
)
def test_score_refuses_what_are_no_samples(score, definition, probs, message):
    with pytest.raises(ValueError, match=message):
        score(probs)


# ---- EPIG ----------------------------------------------------------------------------------------


def epig_by_definition(p_KC, targets_TKC):
    K, C = len(p_KC), len(p_KC[0])
    total = 0.0
    for t_KC in targets_TKC:
        label, target = mean_of(p_KC), mean_of(t_KC)
        for a in range(C):
            for b in range(C):
                joint = sum(p_KC[k][a] * t_KC[k][b] for k in range(K)) / K
                if joint > 0:
                    total += joint * math.log(joint / (label[a] * target[b]))
    return total / len(targets_TKC)


@each_dtype
@given(
    N=st.integers(0, 4),
    T=st.integers(1, 4),
    K=st.integers(1, 4),
    C=st.integers(2, 4),
    seed=st.integers(0, 10**6),
)
def test_epig_agrees_with_its_definition(dtype, tolerance, N, T, K, C, seed):
    probs, targets = samples(N, K, C, seed, dtype), samples(T, K, C, seed + 1, dtype)
    expected = [epig_by_definition(row, targets.tolist()) for row in probs.tolist()]
    torch.testing.assert_close(
        epig(probs, targets), torch.tensor(expected, dtype=dtype), atol=tolerance, rtol=0
    )


def test_epig_in_chunks_is_epig(monkeypatch):
    probs, targets = samples(50, 3, 4), samples(7, 3, 4, seed=1)
    whole = epig(probs, targets)
    module = importlib.import_module("al_lightning.acquisition.epig")  # not the function
    monkeypatch.setattr(module, "MAX_ELEMENTS", 1000)
    torch.testing.assert_close(epig(probs, targets), whole)


@pytest.mark.parametrize(
    "targets", [torch.empty(0, 3, 4), samples(2, 2, 4), samples(2, 3, 5)], ids=["none", "K", "C"]
)
def test_epig_refuses_targets_of_other_samples(targets):
    with pytest.raises(ValueError, match=r"target_probs must be \(T, K, C\) with T >= 1"):
        epig(samples(5, 3, 4), targets)
