"""Core-set and its distances against plain loops, on pools where ties and copies abound."""

import importlib
import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.acquisition.core_set import core_set
from al_lightning.acquisition.distances import nearest_squared

# The package also has a function of that name.
module = importlib.import_module("al_lightning.acquisition.core_set")
each_dtype = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)]
)


def rows(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y))


def greedy_by_definition(pool, labeled, num):
    """Each pick scans all rows for the greatest least distance; the first of equals wins."""
    picks = []
    while len(picks) < min(num, len(pool)):
        taken = labeled + [pool[i] for i in picks]
        others = [i for i in range(len(pool)) if i not in picks]
        picks.append(max(others, key=lambda i: min(squared(pool[i], row) for row in taken)))
    return picks


@settings(max_examples=60)
@given(
    N=st.integers(1, 30),
    M=st.integers(1, 4),
    D=st.integers(1, 5),
    num=st.integers(1, 35),
    candidates=st.integers(1, 8),
    whole=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_picks_are_those_of_the_greedy_loop(N, M, D, num, candidates, whole, seed):
    """Whole numbers make ties, copies of labeled rows and copies of each other."""
    table = rows(N + M, D, seed=seed)
    if whole:
        table = table.round()
    pool, labeled = table[:N], table[N:]
    with mock.patch.object(module, "NUM_CANDIDATES", candidates):
        picks = core_set(pool, labeled, num)
    assert picks.dtype == torch.int64
    assert picks.tolist() == greedy_by_definition(pool.tolist(), labeled.tolist(), num)


@each_dtype
def test_each_pick_is_the_farthest_of_a_pool_of_many_chunks(dtype, tolerance):
    pool, labeled = rows(3000, 6, dtype=dtype), rows(1200, 6, seed=1, dtype=dtype)
    picks = core_set(pool, labeled, 40).tolist()
    for place, pick in enumerate(picks):
        taken = torch.cat([labeled, pool[picks[:place]]]).double()
        farness = torch.cdist(pool.double(), taken).amin(1)
        assert farness[pick] >= farness.max() - tolerance


@given(N=st.integers(1, 30), D=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_without_labels_it_begins_with_the_row_farthest_from_the_mean(N, D, seed):
    pool = rows(N, D, seed=seed)
    first, *others = core_set(pool, pool[:0], N).tolist()
    mean = [sum(column) / N for column in zip(*pool.tolist())]
    farness = [squared(row, mean) for row in pool.tolist()]
    assert farness[first] >= max(farness) - 1e-9
    rest = [i for i in range(N) if i != first]
    remaining = greedy_by_definition(pool[rest].tolist(), [pool[first].tolist()], N)
    assert others == [rest[i] for i in remaining]


@each_dtype
def test_each_row_five_times_gives_no_two_copies(dtype, tolerance):
    """Far from the origin, where squares cancel to noise."""
    distinct = rows(400, 16, dtype=dtype) + 100
    pool = distinct.repeat(5, 1)
    picks = core_set(pool, distinct[:50], 1000)
    assert (picks[:350] % 400).unique().tolist() == list(range(50, 400))
    assert len(picks.unique()) == 1000
    # Everything else is a copy: in the order it stands in.
    left = [i for i in range(2000) if i not in set(picks[:350].tolist())]
    assert picks[350:].tolist() == left[:650]


@pytest.mark.parametrize("row", [torch.zeros(3), torch.full((3,), 0.1)])
@pytest.mark.parametrize("num_labeled", [0, 2])
def test_equal_rows_are_taken_in_order(row, num_labeled):
    pool = row.repeat(1500, 1)
    assert core_set(pool, pool[:num_labeled], 1300).tolist() == list(range(1300))


def test_one_row_and_more_than_there_are():
    assert core_set(torch.ones(1, 2), torch.ones(0, 2), 1).tolist() == [0]
    pool = torch.tensor([[0.0], [1.0], [5.0]])
    assert core_set(pool, pool[:1], 9).tolist() == [2, 1, 0]


def test_half_precision_is_measured_in_single():
    pool = rows(300, 8, dtype=torch.bfloat16)
    wide = core_set(pool.float(), pool[:3].float(), 50)
    assert torch.equal(core_set(pool, pool[:3], 50), wide)


def test_inputs_come_back_as_they_were():
    pool, labeled = rows(50, 3), rows(4, 3, seed=1)
    before = pool.clone(), labeled.clone()
    core_set(pool, labeled, 10)
    core_set(pool, labeled[:0], 10)
    assert torch.equal(pool, before[0])
    assert torch.equal(labeled, before[1])


@pytest.mark.parametrize(
    ("embeddings", "labeled", "num", "message"),
    [
        (torch.ones(0, 2), torch.ones(1, 2), 1, "the pool must hold at least one row"),
        (torch.ones(2, 2), torch.ones(1, 2), 0, "num must be at least 1, got 0"),
        (torch.ones(4), torch.ones(1, 4), 1, r"embeddings must be \(N, D\), got \(4,\)"),
        (torch.ones(2, 2), torch.ones(1, 3), 1, "labeled must match the other embeddings"),
        (torch.ones(2, 2), torch.ones(1, 2).double(), 1, "labeled must match"),
        (torch.tensor([[0.0], [math.nan]]), torch.ones(1, 1), 1, r"found 1 rows .*at \[1\]"),
        (torch.ones(2, 1), torch.tensor([[math.inf]]), 1, "labeled must be finite"),
        (torch.tensor([[1e30], [0.0]]), torch.ones(1, 1), 1, "squares to be summed"),
    ],
)
def test_refuses_what_it_cannot_measure(embeddings, labeled, num, message):
    with pytest.raises(ValueError, match=message):
        core_set(embeddings, labeled, num)


@each_dtype
@given(N=st.integers(0, 20), M=st.integers(1, 9), D=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_nearest_squared_agrees_with_plain_loops(dtype, tolerance, N, M, D, seed):
    x, centers = rows(N, D, seed=seed, dtype=dtype), rows(M, D, seed=seed + 1, dtype=dtype)
    table = [[squared(row, center) for center in centers.tolist()] for row in x.tolist()]
    distances, nearest = nearest_squared(x, centers)
    expected = torch.tensor([min(row) for row in table], dtype=torch.float64)
    torch.testing.assert_close(distances, expected, atol=tolerance, rtol=tolerance)
    for row, place in zip(table, nearest.tolist()):
        assert row[place] <= min(row) + tolerance


@each_dtype
def test_nearest_squared_over_many_chunks_is_exactly_zero_for_copies(dtype, tolerance):
    x, centers = rows(2500, 5, dtype=dtype) + 100, rows(2100, 5, seed=1, dtype=dtype) + 100
    x[::3] = centers[: len(x[::3])]
    distances, nearest = nearest_squared(x, centers)
    assert (distances[::3] == 0).all()
    assert torch.equal(nearest[::3], torch.arange(len(x[::3])))
    expected = torch.cdist(x.double(), centers.double()).square().min(1)
    torch.testing.assert_close(distances.double(), expected.values, atol=1e-5, rtol=1e-4)
