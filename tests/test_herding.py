"""Herding against its definition by a full matrix, and what a large pool costs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.acquisition import herding, max_herding, uncertainty_herding
from al_lightning.acquisition.herding import nearest_pair


def unit(x):
    x = x.double()
    lengths = x.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, x / lengths.clamp_min(1e-300), x)


def kernel(x, y, bandwidth):
    squared = (unit(x)[:, None] - unit(y)[None]).square().sum(-1)
    return torch.exp(-squared / bandwidth**2)


def greedy(embeddings, labeled, num, bandwidth, weights=None):
    """Take argmax_c mean_x u(x) max(0, k(c, x) - m(x)); of equal ones the first; then in order."""
    k = kernel(embeddings, embeddings, bandwidth)
    covered = torch.zeros(len(k), dtype=torch.float64)
    if len(labeled):
        covered = kernel(embeddings, labeled, bandwidth).amax(1)
    weights = torch.ones(len(k), dtype=torch.float64) if weights is None else weights.double()
    taken = []
    while len(taken) < min(num, len(k)):
        gains = (k - covered).clamp_min(0) @ weights
        gains[taken] = -1
        if gains.max() <= 1e-12 * weights.sum():
            taken += [row for row in range(len(k)) if row not in taken][: num - len(taken)]
            break
        taken.append(int((gains >= gains.max() * (1 - 1e-12)).nonzero()[0]))
        covered = torch.maximum(covered, k[taken[-1]])
    return taken


def draw(seed, N, D, M=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=generator), torch.randn(M, D, generator=generator)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    N=st.integers(1, 120),
    D=st.integers(2, 20),
    M=st.integers(0, 6),
    num=st.integers(1, 40),
    bandwidth=st.floats(0.3, 2.0),
)
def test_picks_are_those_of_the_definition(seed, N, D, M, num, bandwidth):
    embeddings, labeled = draw(seed, N, D, M)
    found = max_herding(embeddings, labeled, num, bandwidth=bandwidth).tolist()
    assert found == greedy(embeddings, labeled, num, bandwidth)
    weights = torch.rand(N, generator=torch.Generator().manual_seed(seed)) ** 3
    found = uncertainty_herding(weights, embeddings, labeled, num, bandwidth=bandwidth).tolist()
    assert found == greedy(embeddings, labeled, num, bandwidth, weights)


def test_float32_sums_decide_nothing(monkeypatch):
    """Above 2,048 rows sums are in float32; float64 decides between the best."""
    embeddings, labeled = draw(0, 300, 10, 2)
    monkeypatch.setattr(herding, "DOUBLE_ROWS", 100)
    monkeypatch.setattr(herding, "BLOCK_ROWS", 64)
    assert max_herding(embeddings, labeled, 60).tolist() == greedy(embeddings, labeled, 60, 1.0)


def test_the_default_widths():
    embeddings, labeled = draw(1, 60, 5, 3)
    assert torch.equal(
        max_herding(embeddings, labeled, 9), max_herding(embeddings, labeled, 9, bandwidth=1.0)
    )
    weights = torch.ones(60)
    width = min((unit(labeled)[i] - unit(labeled)[j]).norm() for i, j in [(0, 1), (0, 2), (1, 2)])
    assert nearest_pair(labeled) == pytest.approx(float(width))
    assert torch.equal(
        uncertainty_herding(weights, embeddings, labeled, 9),
        uncertainty_herding(weights, embeddings, labeled, 9, bandwidth=float(width)),
    )
    twice = labeled[:1].repeat(4, 1) * torch.tensor([[1.0], [2.0], [3.0], [0.5]])
    assert nearest_pair(twice) == nearest_pair(labeled[:0]) == 1.0


def test_copies_and_zeros_come_last_in_order():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]])
    assert max_herding(x, x[:1], 5).tolist() == [1, 4, 0, 2, 3]
    assert max_herding(torch.zeros(3, 2), x[:1], 3).tolist() == [0, 1, 2]
    assert max_herding(torch.zeros(3, 2), x[:0], 3).tolist() == [0, 1, 2]
    assert uncertainty_herding(torch.zeros(5), x, x[:0], 2).tolist() == [0, 1]


def test_only_uncertain_rows_are_to_be_covered():
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    uncertainty = torch.tensor([0.0, 0.0, 0.4, 0.5])
    assert uncertainty_herding(uncertainty, x, x[:0], 2, bandwidth=0.5).tolist() == [3, 2]


def coverage(embeddings, taken, bandwidth=1.0):
    return kernel(embeddings, embeddings[taken], bandwidth).amax(1).mean().item()


def clusters(N, num_clusters=40, D=16):
    generator = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(num_clusters, D, generator=generator)
    sizes = torch.arange(1, num_clusters + 1.0)
    of = torch.multinomial(sizes, N, replacement=True, generator=generator)
    return centres[of] + torch.randn(N, D, generator=generator) / 2, of


def test_a_sample_stands_for_a_large_pool(monkeypatch):
    embeddings, _ = clusters(3000)
    exact = max_herding(embeddings, embeddings[:0], 40)
    monkeypatch.setattr(herding, "EXACT_ROWS", 1000)
    monkeypatch.setattr(herding, "SAMPLE_ROWS", 1000)
    sampled = max_herding(embeddings, embeddings[:0], 40)
    assert torch.equal(sampled, max_herding(embeddings, embeddings[:0], 40))
    random = coverage(embeddings, torch.arange(40))
    gained = coverage(embeddings, sampled) - random
    assert gained > 0.9 * (coverage(embeddings, exact) - random)
    assert len(max_herding(embeddings, embeddings[:0], 2900).unique()) == 2900


def test_uncertain_rows_are_in_the_sample(monkeypatch):
    monkeypatch.setattr(herding, "EXACT_ROWS", 500)
    monkeypatch.setattr(herding, "SAMPLE_ROWS", 500)
    embeddings, of = clusters(5000)
    rare = of == 0  # of 820 shares one
    assert 0 < rare.sum() < 20
    taken = uncertainty_herding(rare.float(), embeddings, embeddings[:0], 1, bandwidth=1.0)
    assert rare[taken].all()
    rows_S, weights_S = herding._sampled(rare.double(), 4)
    assert rare[rows_S].sum() == rare.sum()
    assert len(rows_S) > 200  # and half of the sample is of the others
    assert weights_S.sum() == pytest.approx(float(rare.sum()), rel=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: max_herding(x, x[:0], 0), "num must be at least 1"),
        (lambda x: max_herding(x[:0], x[:0], 1), "at least one row"),
        (lambda x: max_herding(x, x[:0], 1, bandwidth=0.0), "bandwidth must be above 0, got 0.0"),
        (lambda x: max_herding(x / 0, x[:0], 1), "must be finite"),
        (lambda x: max_herding(x, x[:, :1], 1), "labeled must match"),
        (lambda x: uncertainty_herding(-x[:, 0].abs(), x, x, 1), "finite and not negative"),
        (lambda x: uncertainty_herding(x[:, 0] * math.nan, x, x, 1), "finite and not negative"),
        (lambda x: uncertainty_herding(x[1:, 0].abs(), x, x, 1), "lengths uncertainty 4"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(draw(0, 5, 3)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_other_numbers(dtype):
    embeddings = (draw(0, 50, 6)[0] * 10).abs().to(dtype)
    wanted = greedy(embeddings, embeddings[:0], 10, 1.0)
    assert max_herding(embeddings, embeddings[:0], 10).tolist() == wanted
