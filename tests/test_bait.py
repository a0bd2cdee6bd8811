"""BAIT against its objective by full matrices; DropQuery's candidates by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.acquisition import bait, drop_query, kmeans


def rows_of(probs, embeddings):
    p = probs.double().amax(1)
    return (p * (1 - p)).sqrt()[:, None] * embeddings.double()


def greedy(rows, known, everything, num):
    """Forward to twice ``num`` by the trace itself, then backward."""

    def trace(taken):
        inverse = torch.linalg.inv(known + rows[taken].T @ rows[taken])
        return torch.trace(inverse @ everything).item()

    taken = []
    while len(taken) < min(2 * num, len(rows)):
        left = [row for row in range(len(rows)) if row not in taken]
        taken.append(min(left, key=lambda row: trace([*taken, row])))
    while len(taken) > min(num, len(rows)):
        out = min(range(len(taken)), key=lambda i: trace(taken[:i] + taken[i + 1 :]))
        taken.pop(out)
    return taken


def draw(seed, N, D, C=4):
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(N, C, generator=generator)).softmax(1)
    return probs, torch.randn(N, D, generator=generator)


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    N=st.integers(1, 30),
    D=st.integers(1, 40),
    M=st.integers(1, 8),
    num=st.integers(1, 6),
    regularization=st.floats(0.05, 5.0),
)
def test_picks_are_those_of_the_objective(seed, N, D, M, num, regularization):
    """D above N too: the inverse is of a matrix that the regularization makes whole."""
    probs, embeddings = draw(seed, N, D)
    labeled_probs, labeled_embeddings = draw(seed + 1, M, D)
    rows, labeled = rows_of(probs, embeddings), rows_of(labeled_probs, labeled_embeddings)
    ridge = regularization * torch.eye(D, dtype=torch.float64)
    found = bait(probs, embeddings, num, regularization=regularization)
    assert found.tolist() == greedy(rows, ridge, rows.T @ rows, num)
    given = {"labeled_probs": labeled_probs, "labeled_embeddings": labeled_embeddings}
    found = bait(probs, embeddings, num, regularization=regularization, **given)
    whole = rows.T @ rows + labeled.T @ labeled
    assert found.tolist() == greedy(rows, ridge + labeled.T @ labeled, whole, num)


def test_updates_keep_their_digits_over_many_picks():
    probs, embeddings = draw(0, 400, 12)
    rows = rows_of(probs, embeddings)
    found = bait(probs, embeddings.double(), 60, regularization=0.01)
    assert torch.equal(found, bait(probs, embeddings, 60, regularization=0.01))

    def trace(taken):
        known = 0.01 * torch.eye(12, dtype=torch.float64) + rows[taken].T @ rows[taken]
        return torch.trace(torch.linalg.inv(known) @ rows.T @ rows).item()

    draws = [torch.randperm(400, generator=torch.Generator().manual_seed(s))[:60] for s in range(9)]
    assert trace(found) < 0.8 * min(map(trace, draws))


def test_samples_are_averaged_and_sure_rows_come_last():
    probs, embeddings = draw(0, 20, 3)
    assert torch.equal(
        bait(probs[:, None].repeat(1, 5, 1), embeddings, 4), bait(probs, embeddings, 4)
    )
    probs[:15] = torch.eye(4)[0]
    assert sorted(bait(probs, embeddings, 5).tolist()) == [15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regularization": 0.0}, "regularization must be above 0 and finite, got 0.0"),
        ({"labeled_probs": torch.ones(1, 4) / 4}, "give both labeled_probs and labeled_embeddings"),
        (
            {"labeled_probs": torch.ones(1, 4) / 4, "labeled_embeddings": torch.zeros(1, 2)},
            "labeled_embeddings must match",
        ),
        (
            {"labeled_probs": torch.ones(2, 4) / 4, "labeled_embeddings": torch.zeros(1, 3)},
            "lengths labeled_probs 2, labeled_embeddings 1",
        ),
    ],
)
def test_bad_input_is_refused(arguments, message):
    probs, embeddings = draw(0, 5, 3)
    with pytest.raises(ValueError, match=message):
        bait(probs, embeddings, 2, **arguments)


def candidates(flips, num, num_passes):
    """The rows that the definition clusters, with the threshold lowered by hand."""
    for threshold in range(num_passes // 2, -2, -1):
        found = [row for row, count in enumerate(flips) if count > threshold]
        if len(found) >= min(25 * num, len(flips)):
            return found
    raise AssertionError


@pytest.mark.parametrize("num_passes", [1, 3, 4, 10])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("num", [1, 3])
def test_drop_query_clusters_the_rows_that_flip(num_passes, share, num):
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(200, 4, generator=generator)
    flips = torch.randint(num_passes + 1, (200,), generator=generator)
    flips[torch.rand(200, generator=generator) > share] = 0
    seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
    found = drop_query(flips, embeddings, num, seeded[0], num_passes=num_passes)
    rows = torch.tensor(candidates(flips.tolist(), num, num_passes))
    z = embeddings[rows].double()
    z = z / z.norm(dim=1, keepdim=True)
    assert found.tolist() == rows[kmeans(z, z[:0], num, seeded[1])].tolist()


@pytest.mark.parametrize(
    ("flips", "message"),
    [
        (torch.tensor([0, 4]), r"from 0 to num_passes=3, got \(2,\) torch.int64 from 0 to 4"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.tensor([0, 1, 2]), "lengths flips 3, embeddings 2"),
    ],
)
def test_flips_must_be_counts(flips, message):
    with pytest.raises(ValueError, match=message):
        drop_query(flips, torch.ones(2, 2), 1, torch.Generator())
    with pytest.raises(ValueError, match="num_passes must be at least 1"):
        drop_query(torch.zeros(2).long(), torch.ones(2, 2), 1, torch.Generator(), num_passes=0)
