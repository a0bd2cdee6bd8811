"""BADGE against gradient embeddings in full, and its draws against k-means++ by the book."""

import importlib
import math
from collections import Counter
from itertools import permutations
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.acquisition.badge import badge, squared_norms, squared_to_nearest

# The package also has a function of that name.
module = importlib.import_module("al_lightning.acquisition.badge")
each_dtype = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)]
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pool(N, C, D, *, seed, dtype=torch.float64):
    generator = seeded(seed)
    logits = torch.randn(N, C, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return (logits * 2).to(dtype).softmax(-1), embeddings.to(dtype)


def gradients_by_definition(probs, embeddings):
    """Each row's outer product, written out."""
    gradients = []
    for p, h in zip(probs.tolist(), embeddings.tolist()):
        label = p.index(max(p))
        gradients.append([(p[c] - (c == label)) * value for c in range(len(p)) for value in h])
    return gradients


def squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y))


def badge_by_definition(probs, embeddings, num, generator, proposals):
    """Takes the same draws, and measures everything anew in each step."""
    gradients = gradients_by_definition(probs, embeddings)
    norms = [squared(g, [0.0] * len(g)) for g in gradients]
    num, picks = min(num, len(gradients)), []
    if max(norms) > 0:
        picks = [norms.index(max(norms))]

    def distance(i):
        return min(squared(gradients[i], gradients[pick]) for pick in picks)

    while picks and len(picks) < num:
        before = [distance(i) for i in range(len(gradients))]
        if not sum(before):
            break
        draws = torch.rand(2 * proposals, generator=generator, dtype=torch.float64).tolist()
        for number, (where, keep) in enumerate(zip(draws[:proposals], draws[proposals:])):
            point, i = where * sum(before), 0
            while sum(before[: i + 1]) <= point:
                i += 1
            if len(picks) < num and (number == 0 or keep * before[i] < distance(i)):
                picks.append(i)
    others = [i for i in range(len(gradients)) if i not in picks]
    draws = torch.rand(len(others), generator=generator, dtype=torch.float64).tolist()
    return picks + [i for _, i in sorted(zip(draws, others))][: num - len(picks)]


@settings(max_examples=40)
@given(
    N=st.integers(1, 20),
    C=st.integers(2, 5),
    D=st.integers(1, 4),
    num=st.integers(1, 24),
    proposals=st.sampled_from([1, 3, 16]),
    certain=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_picks_are_those_of_the_definition(N, C, D, num, proposals, certain, seed):
    """Half of the pools have copies and one-hot rows, so that distances of 0 must be filled."""
    probs, embeddings = pool(N, C, D, seed=seed)
    if certain:
        probs[::3] = torch.eye(C, dtype=probs.dtype)[0]
        probs[1::4], embeddings[1::4] = probs[-1].clone(), embeddings[-1].clone()
    with mock.patch.object(module, "NUM_PROPOSALS", proposals):
        picks = badge(probs, embeddings, num, seeded(seed))
    expected = badge_by_definition(probs, embeddings, num, seeded(seed), proposals)
    assert picks.dtype == torch.int64
    assert picks.tolist() == expected


@pytest.mark.parametrize("proposals", [1, 8])
def test_frequencies_are_those_of_kmeans_plus_plus(proposals):
    """Rows 1 and 2 are near copies: whoever forgets that one was taken takes both too often."""
    probs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.6, 0.4], [0.3, 0.7]])
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.2, 2.0], [-1.0, 0.5], [1.0, 1.0]])
    gradients = gradients_by_definition(probs, embeddings)

    def chances(picks):
        mass = [min(squared(g, gradients[pick]) for pick in picks) for g in gradients]
        return [m / sum(mass) for m in mass]

    num_runs, generator = 1500, seeded(0)
    with mock.patch.object(module, "NUM_PROPOSALS", proposals):
        seen = Counter(
            tuple(badge(probs, embeddings, 3, generator).tolist()) for _ in range(num_runs)
        )
    assert {picks[0] for picks in seen} == {0}
    chi_squared = 0.0
    for second, third in permutations(range(1, 5), 2):
        expected = num_runs * chances([0])[second] * chances([0, second])[third]
        chi_squared += (seen[0, second, third] - expected) ** 2 / expected
    assert chi_squared < 31.3  # 11 degrees of freedom: exceeded once in 1,000


@each_dtype
@given(
    N=st.integers(1, 12),
    C=st.integers(2, 5),
    D=st.integers(1, 6),
    P=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_distances_are_those_of_the_gradient_embeddings(dtype, tolerance, N, C, D, P, seed):
    probs, embeddings = pool(N, C, D, seed=seed, dtype=dtype)
    centers = torch.randint(N, (P,), generator=seeded(seed))
    gradients = gradients_by_definition(probs, embeddings)
    nearest = [min(squared(g, gradients[c]) for c in centers.tolist()) for g in gradients]
    torch.testing.assert_close(
        squared_to_nearest(probs, embeddings, centers),
        torch.tensor(nearest, dtype=dtype),
        atol=tolerance,
        rtol=tolerance,
    )
    norms = [squared(g, [0.0] * len(g)) for g in gradients]
    torch.testing.assert_close(
        squared_norms(probs, embeddings),
        torch.tensor(norms, dtype=dtype),
        atol=tolerance,
        rtol=tolerance,
    )


def test_distances_over_many_chunks():
    probs, embeddings = pool(3000, 4, 3, seed=0)
    gradients = torch.tensor(gradients_by_definition(probs, embeddings), dtype=torch.float64)
    centers = torch.arange(0, 3000, 100)
    expected = torch.cdist(gradients, gradients[centers]).square().amin(1)
    found = squared_to_nearest(probs, embeddings, centers)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert (found[centers] == 0).all()


@each_dtype
def test_each_row_five_times_gives_no_two_copies(dtype, tolerance):
    """Far from the origin, where squares cancel to noise; 50 of the rows have no gradient."""
    probs, embeddings = pool(300, 5, 8, seed=0, dtype=dtype)
    probs[:50] = torch.eye(5, dtype=dtype)[1]
    probs, embeddings = probs.repeat(5, 1), (embeddings + 100).repeat(5, 1)
    picks = badge(probs, embeddings, 1000, seeded(0))
    assert len(picks.unique()) == 1000
    uncertain = picks[:251] % 300
    # All rows without a gradient are copies of one another too.
    assert len(uncertain.unique()) == 251
    assert (uncertain >= 50).sum() == 250


def test_rows_closer_than_rounding_tells_are_taken_once():
    probs, embeddings = pool(600, 3, 4, seed=0, dtype=torch.float32)
    for offset in (10.0, 1000.0):
        picks = badge(probs[:1].expand(600, 3), offset + 1e-3 * embeddings, 600, seeded(0))
        assert len(picks.unique()) == 600


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_least_and_the_greatest_draw_lead_to_rows_not_taken(draw):
    """In a pool that begins with the row taken first and ends with its copy."""
    probs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.6, 0.4], [0.5, 0.5]])
    embeddings = torch.tensor([[3.0], [1.1], [-2.3], [3.0]])

    def uniform(num, *, generator, device):
        return torch.full((num,), draw, dtype=torch.float64, device=device)

    with mock.patch.object(module, "uniform", uniform):
        picks = badge(probs, embeddings, 3, seeded(0)).tolist()
    assert sorted(picks) == [0, 1, 2]


@pytest.mark.parametrize("C", [2, 5])
def test_without_any_gradient_all_rows_are_equally_likely(C):
    probs, embeddings = torch.eye(C)[torch.zeros(6, dtype=torch.int64)], torch.randn(6, 3)
    generator = seeded(0)
    runs = [badge(probs, embeddings, 4, generator).tolist() for _ in range(600)]
    assert all(len(set(picks)) == 4 for picks in runs)
    first = Counter(picks[0] for picks in runs)
    assert all(60 < first[row] < 140 for row in range(6))
    assert sorted(badge(torch.full((6, C), 1 / C), torch.zeros(6, 3), 9, generator)) == list(
        range(6)
    )


def test_samples_are_averaged_first():
    samples_NKC = torch.rand(30, 4, 3, generator=seeded(0)).softmax(-1)
    embeddings = torch.randn(30, 5, generator=seeded(1))
    picks = badge(samples_NKC, embeddings, 10, seeded(2))
    assert torch.equal(picks, badge(samples_NKC.mean(1), embeddings, 10, seeded(2)))


def test_the_seed_alone_decides_and_inputs_come_back_as_they_were():
    probs, embeddings = pool(200, 3, 4, seed=0)
    before = probs.clone(), embeddings.clone()
    torch.manual_seed(1)
    picks = badge(probs, embeddings, 50, seeded(3))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(badge(probs, embeddings, 50, seeded(3)), picks)
    assert not torch.equal(badge(probs, embeddings, 50, seeded(4)), picks)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # drawn from by none of these
    assert torch.equal(probs, before[0])
    assert torch.equal(embeddings, before[1])


def test_half_precision_is_measured_in_single():
    probs, embeddings = pool(100, 3, 4, seed=0, dtype=torch.bfloat16)
    wide = badge(probs.float(), embeddings.float(), 50, seeded(0))
    assert torch.equal(badge(probs, embeddings, 50, seeded(0)), wide)


@pytest.mark.parametrize(
    ("probs", "embeddings", "num", "message"),
    [
        (torch.ones(0, 2), torch.ones(0, 2), 1, "the pool must hold at least one row"),
        (torch.eye(2), torch.ones(2, 2), 0, "num must be at least 1, got 0"),
        (torch.eye(2), torch.ones(3, 2), 1, "lengths probs 2, embeddings 3"),
        (torch.eye(2) * 3, torch.ones(2, 2), 1, "pass logits.softmax"),
        (torch.eye(2), torch.ones(2), 1, r"embeddings must be \(N, D\), got \(2,\)"),
        (torch.eye(2), torch.tensor([[1.0], [math.nan]]), 1, r"found 1 rows .*at \[1\]"),
        (torch.full((1, 2), 0.5), torch.full((1, 2), 1e30), 1, "squares to be summed"),
    ],
)
def test_refuses_what_it_cannot_measure(probs, embeddings, num, message):
    with pytest.raises(ValueError, match=message):
        badge(probs, embeddings, num, seeded(0))
