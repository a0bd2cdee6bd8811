"""Scores over the parts of a row, and scores of numbers, against slow definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from al_lightning import over_parts
from al_lightning.acquisition import (
    bald,
    entropy,
    gaussian_bald,
    least_confidence,
    margin,
    predictive_variance,
)
from al_lightning.acquisition import over_parts as same
from al_lightning.acquisition.over_parts import OverParts

REDUCE = {
    "mean": lambda scores: sum(scores) / len(scores),
    "max": max,
    "sum": sum,
    "median": lambda scores: sorted(scores)[(len(scores) - 1) // 2],
}


def parts_of(N, P, K, C, seed):
    """Probabilities (N, P, [K,] C) in float64, and a mask with a part in each row."""
    draw = torch.Generator().manual_seed(seed)
    shape = (N, P, C) if K is None else (N, P, K, C)
    probs = (torch.randn(shape, generator=draw, dtype=torch.float64) * 3).softmax(-1)
    mask = torch.rand(N, P, generator=draw) < 0.6
    mask[torch.arange(N), torch.randint(P, (N,), generator=draw)] = True
    return probs, mask


def reduced(name):
    return (lambda scores_P: scores_P.median()) if name == "median" else name


@pytest.mark.parametrize("name", REDUCE)
@pytest.mark.parametrize(("score", "K"), [(entropy, None), (margin, 3), (bald, 4)])
@given(N=st.integers(0, 5), P=st.integers(1, 6), C=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_parts_that_are_there_are_reduced(name, score, K, N, P, C, seed):
    probs, mask = parts_of(N, P, K, C, seed)
    for given_mask in (mask, None):
        there = torch.ones_like(mask) if given_mask is None else mask
        expected = [
            REDUCE[name]([float(score(probs[n, p][None])) for p in range(P) if there[n, p]])
            for n in range(N)
        ]
        found = over_parts(score, reduced(name))(probs, given_mask)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_padding_never_counts_and_order_does_not_either(monkeypatch):
    module = __import__("sys").modules[OverParts.__module__]
    monkeypatch.setattr(module, "MAX_NUMBERS", 10)  # a row a chunk
    probs, mask = parts_of(7, 5, None, 3, seed=1)
    found = over_parts(entropy)(probs, mask)
    broken = torch.where(mask[..., None], probs, math.nan)
    assert torch.equal(over_parts(entropy)(broken, mask), found)
    order = torch.randperm(5)
    torch.testing.assert_close(over_parts(entropy)(probs[:, order], mask[:, order]), found)
    torch.testing.assert_close(over_parts(entropy)(probs[:, :1]), entropy(probs[:, 0]))


def test_bad_parts_are_named():
    probs, mask = parts_of(4, 3, None, 2, seed=0)
    assert same is over_parts
    assert over_parts(entropy, "max").__qualname__ == "over_parts(entropy, max)"
    with pytest.raises(ValueError, match='reduce must be "mean", "max", "sum" or a function'):
        over_parts(entropy, "min")
    with pytest.raises(ValueError, match=r"parts must be \(N, P, C\) or .*got \(4, 2\)"):
        over_parts(entropy)(probs[:, 0])
    with pytest.raises(ValueError, match=r"\(4, 3\) here, in bool or whole numbers, got \(4, 2\)"):
        over_parts(entropy)(probs, mask[:, :2])
    with pytest.raises(ValueError, match=r"got \(4, 3\) of torch.float32"):
        over_parts(entropy)(probs, mask.float())
    mask[[1, 3]] = False
    with pytest.raises(ValueError, match=r"found 2 whose mask leaves out all, first at \[1, 3\]"):
        over_parts(entropy)(probs, mask.long())
    with pytest.raises(ValueError, match="one number for each part, 12 here"):
        over_parts(lambda probs_MC: probs_MC)(probs)


@given(N=st.integers(0, 9), C=st.integers(2, 7), seed=st.integers(0, 10**6))
def test_margin_is_the_same_whichever_axis_lies_outermost(N, C, seed):
    probs = torch.randn(N, C, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    probs[N // 2 :] = 1 / C  # ties
    assert torch.equal(margin(probs.T.contiguous().T), margin(probs))


@given(p=st.floats(0, 1))
def test_of_yes_and_no_two_scores_are_what_the_books_say(p):
    probs = torch.tensor([[1 - p, p]], dtype=torch.float64)
    assert margin(probs).item() == pytest.approx(1 - abs(2 * p - 1))
    assert least_confidence(probs).item() == pytest.approx(1 - max(p, 1 - p))


# ---- numbers -------------------------------------------------------------------------------------


def variance_by_definition(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


def information_by_definition(means, variances):
    """Entropies of Gaussians, ``log(2 pi e v) / 2``, written out."""

    def h(v):
        return math.log(2 * math.pi * math.e * v) / 2

    total = sum(variances) / len(variances) + variance_by_definition(means)
    return h(total) - sum(map(h, variances)) / len(variances)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@given(N=st.integers(0, 6), K=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_scores_of_numbers_agree_with_their_definitions(dtype, tolerance, N, K, seed):
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(N, K, generator=draw, dtype=torch.float64) * 2
    variance = torch.rand(N, K, generator=draw, dtype=torch.float64) + 0.01
    spread = torch.tensor(
        [variance_by_definition(row) for row in mean.tolist()], dtype=torch.float64
    )
    told = torch.tensor(
        [information_by_definition(*rows) for rows in zip(mean.tolist(), variance.tolist())],
        dtype=torch.float64,
    )
    near = {"rtol": tolerance, "atol": tolerance, "check_dtype": False}
    torch.testing.assert_close(predictive_variance(mean.to(dtype)), spread, **near)
    torch.testing.assert_close(gaussian_bald(mean.to(dtype), variance.to(dtype)), told, **near)
    assert (gaussian_bald(mean, variance) >= 0).all()


def test_the_bound_lies_above_the_information_of_the_mixture():
    """The entropy of the mixture itself, by numerical integration."""
    mean, variance = torch.tensor([[-2.0, 0.0, 3.0]]), torch.tensor([[0.5, 1.0, 2.0]])
    x = torch.linspace(-15, 15, 20001, dtype=torch.float64)[:, None]
    density = torch.distributions.Normal(mean.double(), variance.double().sqrt()).log_prob(x).exp()
    mixture = density.mean(1)
    integral = torch.trapezoid(torch.special.entr(mixture), x[:, 0]).item()
    own = sum(math.log(2 * math.pi * math.e * v) / 2 for v in variance[0].tolist()) / 3
    bound = gaussian_bald(mean, variance).item()
    assert integral - own < bound < 1.5 * (integral - own)


@pytest.mark.parametrize(
    ("mean", "variance", "message"),
    [
        (torch.zeros(3), None, r"mean must be \(N, K\).*got \(3,\); of several outputs"),
        (torch.zeros(3, 2).long(), None, "finite numbers in floating point, got torch.int64"),
        (torch.full((3, 2), math.nan), None, "with 6 that are not finite"),
        (torch.zeros(3, 2), torch.ones(3, 3), r"got \(3, 2\) means and \(3, 3\) variances"),
        (torch.zeros(3, 2), torch.zeros(3, 2), r"variances must be above 0, found 0; if the"),
    ],
)
def test_bad_numbers_are_named(mean, variance, message):
    with pytest.raises(ValueError, match=message):
        predictive_variance(mean) if variance is None else gaussian_bald(mean, variance)
