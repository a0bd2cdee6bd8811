"""Numbers of every kind: half precision, whole numbers, gradients, large values, one large feature.

Each selector and score gives what it gives in float64 from the same numbers.
"""

import math

import pytest
import torch

from al_lightning.acquisition import (
    badge,
    bald,
    batchbald,
    cluster_margin,
    consensus_kl,
    core_set,
    entropy,
    epig,
    kmeans,
    least_confidence,
    margin,
    mean_std,
    probcover,
    stochastic,
    top_k,
    typiclust,
    variation_ratio,
    vote_entropy,
)
from al_lightning.acquisition.distances import mean_row, nearest_squared
from al_lightning.acquisition.probcover import count_within


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def probs_of(*shape, dtype=torch.float32, seed=0):
    logits = 2 * torch.randn(*shape[:-2], 1, shape[-1], generator=seeded(seed))
    logits = logits + 0.7 * torch.randn(*shape, generator=seeded(seed + 1))
    return logits.to(dtype).softmax(-1)


PREDICTED, X = probs_of(300, 4), torch.randn(300, 8, generator=seeded(3))
LABELED = torch.randn(40, 8, generator=seeded(4))
SELECTORS = {
    "core_set": lambda x, labeled: core_set(x, labeled, 12),
    "core_set from nothing": lambda x, labeled: core_set(x, labeled[:0], 12),
    "kmeans": lambda x, labeled: kmeans(x, labeled, 12, seeded()),
    "typiclust": lambda x, labeled: typiclust(x, labeled, 12, seeded()),
    "probcover": lambda x, labeled: probcover(x, labeled, 12, seeded()),
    "badge": lambda x, labeled: badge(PREDICTED[: len(x)], x, 12, seeded()),
    "cluster_margin": lambda x, labeled: cluster_margin(PREDICTED[: len(x)], x, 12, seeded()),
}
SCORES = {
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "bald": bald,
    "consensus_kl": consensus_kl,
    "variation_ratio": variation_ratio,
    "vote_entropy": vote_entropy,
    "mean_std": mean_std,
    "epig": lambda p: epig(p, p[:30]),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SCORES)
def test_half_precision_is_scored_in_float32(name, dtype):
    half = probs_of(400, 8, 5, dtype=dtype)
    wide = half.float().requires_grad_()
    found = SCORES[name](half)
    assert found.dtype == torch.float32
    assert torch.equal(found, SCORES[name](wide))
    assert not SCORES[name](wide).requires_grad
    exact = SCORES[name](half.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(found.double(), exact, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["epig", "bald"])
def test_bfloat16_agrees_with_the_exact_best_as_its_numbers_allow(name):
    logits = 2 * torch.randn(2000, 1, 10, generator=seeded(3))
    logits = logits + 0.7 * torch.randn(2000, 10, 10, generator=seeded(4))
    half = logits.bfloat16().softmax(-1)
    exact = set(top_k(SCORES[name](half.double()), 100).tolist())
    assert len(exact & set(top_k(SCORES[name](half), 100).tolist())) >= 99


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_embeddings_of_every_precision_are_chosen_from_as_in_float64(name, dtype):
    x, labeled = X.to(dtype), LABELED.to(dtype)
    expected = SELECTORS[name](x.double(), labeled.double())
    assert torch.equal(SELECTORS[name](x, labeled), expected)
    graph = SELECTORS[name](x.clone().requires_grad_(), labeled)
    assert torch.equal(graph, expected)


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_whole_numbers_are_embeddings(name, dtype):
    x, labeled = ((20 * table).abs().to(dtype) for table in (X, LABELED))
    expected = SELECTORS[name](x.double(), labeled.double())
    assert torch.equal(SELECTORS[name](x, labeled), expected)


def test_finite_half_precision_is_not_refused():
    x = torch.full((50, 600), 200.0, dtype=torch.float16)  # whose sum is beyond float16
    x[7] = 300
    assert core_set(x, x[:1], 1).tolist() == [7]


@pytest.mark.parametrize("name", SELECTORS)
def test_large_values_work_or_are_refused_in_one_sentence(name):
    large = SELECTORS[name](X * 2.0**50, LABELED * 2.0**50)
    assert torch.equal(large, SELECTORS[name](X, LABELED))
    for scale in (1e20, 3e37):
        with pytest.raises(ValueError, match=r"squares to be summed, found a length of .*; scale"):
            SELECTORS[name](X * scale, LABELED * scale)
        assert len(SELECTORS[name](X.double() * scale, LABELED.double() * scale)) == 12
    for bad in (math.nan, math.inf):
        x = X.clone()
        x[5, 2] = bad
        with pytest.raises(ValueError, match=r"found 1 rows with NaN or infinity, first at \[5\]"):
            SELECTORS[name](x, LABELED)


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(ValueError, match="must be floating point, got"):
        core_set(X.to(dtype), LABELED.to(dtype), 3)


def test_scores_with_a_gradient_are_chosen_from():
    scores = torch.rand(50, generator=seeded()).requires_grad_()
    assert torch.equal(top_k(scores, 5), top_k(scores.detach(), 5))
    drawn = stochastic(scores, 5, generator=seeded())
    assert torch.equal(drawn, stochastic(scores.detach(), 5, generator=seeded()))
    samples = probs_of(30, 4, 3)
    expected = batchbald(samples, 5, seeded())
    assert torch.equal(batchbald(samples.requires_grad_(), 5, seeded()), expected)


# ---- a feature of another scale ------------------------------------------------------------------

SHIFTS = {
    "two ends": lambda n, g: 1e4 * (2 * torch.randint(0, 2, (n,), generator=g) - 1),
    "three places": lambda n, g: 1e5 * (torch.randint(0, 3, (n,), generator=g) - 1.0),
    "a wide range": lambda n, g: 1e4 * torch.rand(n, generator=g),
    "one offset": lambda n, g: 1e6 + torch.randn(n, generator=g).round(),
}


def shifted(name, *sizes):
    g = seeded(1)
    tables = [torch.randn(n, 32, generator=g) for n in sizes]
    for table in tables:
        table[:, 0] = SHIFTS[name](len(table), g)
    return tables


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", SELECTORS)
def test_a_feature_of_another_scale_does_not_cancel_the_others(name, shift):
    x, labeled = shifted(shift, 300, 60)
    expected = SELECTORS[name](x.double(), labeled.double())
    assert torch.equal(SELECTORS[name](x, labeled), expected)


@pytest.mark.parametrize("shift", SHIFTS)
def test_copies_of_labeled_rows_come_last(shift):
    pool, labeled = shifted(shift, 1500, 200)
    pool[:1480] = labeled[torch.randint(0, 200, (1480,), generator=seeded(2))]
    assert sorted(core_set(pool, labeled, 20).tolist()) == list(range(1480, 1500))
    distances_N, _ = nearest_squared(pool, labeled)
    assert (distances_N[:1480] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", SHIFTS)
def test_the_nearest_is_that_of_differences(shift, dtype):
    x, centers = (table.to(dtype) for table in shifted(shift, 400, 90))
    differences = x.double()[:, None] - centers.double()
    exact = differences.square().sum(-1)
    distances_N, nearest_N = nearest_squared(x, centers)
    assert torch.equal(nearest_N, exact.argmin(-1))
    torch.testing.assert_close(distances_N.double(), exact.amin(-1), rtol=1e-5, atol=0)
    radius = 1.0001 * exact.sqrt().median().item()  # between two distances
    assert torch.equal(count_within(x, centers, radius), (exact < radius**2).sum(-1))


def test_reduced_matrix_products_are_seen_through():
    x, centers = torch.randn(500, 64, generator=seeded()), torch.randn(50, 64, generator=seeded(1))
    expected = (x.double()[:, None] - centers.double()).square().sum(-1).argmin(-1)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(nearest_squared(x, centers)[1], expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_mean_of_many_rows_keeps_its_digits():
    x = torch.full((70_000, 1), 1e4) + torch.arange(70_000)[:, None] % 7
    assert mean_row(x).item() == pytest.approx(x.double().mean().item(), rel=1e-7)
