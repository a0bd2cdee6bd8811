"""Scores and top-k against slow, obvious definitions that share no code with them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from al_lightning.acquisition import entropy, least_confidence, margin, top_k


def least_confidence_by_definition(p_C):
    return 1 - max(p_C)


def margin_by_definition(p_C):
    first, second = sorted(p_C, reverse=True)[:2]
    return 1 - (first - second)


def entropy_by_definition(p_C):
    return -sum(p * math.log(p) for p in p_C if p > 0)


SCORES = {
    "least_confidence": (least_confidence, least_confidence_by_definition),
    "margin": (margin, margin_by_definition),
    "entropy": (entropy, entropy_by_definition),
}
each_score = pytest.mark.parametrize(("score", "definition"), SCORES.values(), ids=SCORES)


@each_score
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@given(N=st.integers(0, 6), K=st.integers(1, 4), C=st.integers(2, 7), seed=st.integers(0, 10**6))
def test_score_agrees_with_its_definition(score, definition, dtype, tolerance, N, K, C, seed):
    logits = torch.randn(N, K, C, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    probs_NKC = (logits * 4).softmax(-1)
    averaged = [[sum(k[c] for k in row) / K for c in range(C)] for row in probs_NKC.tolist()]
    expected = torch.tensor([definition(row) for row in averaged], dtype=dtype)
    torch.testing.assert_close(score(probs_NKC), expected, atol=tolerance, rtol=0)
    if K == 1:
        torch.testing.assert_close(score(probs_NKC[:, 0]), expected, atol=tolerance, rtol=0)


@each_score
def test_score_is_row_wise_and_leaves_its_input_alone(score, definition):
    probs = torch.rand(9, 5).softmax(-1)
    before = probs.clone()
    torch.testing.assert_close(score(probs[2:3]), score(probs)[2:3])
    order = torch.randperm(9)
    torch.testing.assert_close(score(probs[order]), score(probs)[order])
    assert torch.equal(probs, before)


@each_score
def test_certain_and_uniform_rows_are_the_extremes(score, definition):
    rows = torch.cat([torch.eye(4), torch.full((1, 4), 0.25)])
    scores = score(rows)
    assert torch.equal(scores[:4], torch.zeros(4))
    assert scores[4] == scores.max()


@each_score
@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (torch.rand(5), r"must be \(N, C\) or \(N, K, C\).*got \(5,\)"),
        (torch.ones(5, 1), r"C >= 2 classes, got \(5, 1\)"),
        (torch.randn(5, 3) * 9, "pass logits.softmax"),
        (torch.tensor([[1.5, -0.5]]), "non-negative"),
        (torch.tensor([[math.nan, 1.0]]), "sum to 1"),
        (torch.tensor([[1, 0]]), "floating point"),
    ],
)
def test_score_refuses_what_is_no_distribution(score, definition, probs, message):
    with pytest.raises(ValueError, match=message):
        score(probs)


@given(scores=st.lists(st.integers(-3, 3), min_size=1, max_size=30), num=st.integers(1, 35))
def test_top_k_is_the_head_of_a_stable_sort(scores, num):
    best_first = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert top_k(torch.tensor(scores, dtype=torch.float32), num).tolist() == best_first[:num]


def test_top_k_refuses_bad_scores():
    with pytest.raises(ValueError, match=r"found 2 that are not, first at \[1, 3\]"):
        top_k(torch.tensor([0.0, math.nan, 1.0, math.inf]), 2)
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        top_k(torch.rand(3), 0)
    with pytest.raises(ValueError, match="the pool must hold at least one row"):
        top_k(torch.empty(0), 1)
    with pytest.raises(ValueError, match=r"must be \(N,\), got \(3, 2\)"):
        top_k(torch.rand(3, 2), 1)
