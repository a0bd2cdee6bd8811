"""The mask against plain sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from al_lightning.data.pool import Pool


@given(data=st.data(), num_rows=st.integers(1, 40))
def test_pool_agrees_with_two_sets(data, num_rows):
    order = data.draw(st.permutations(range(num_rows)))
    cuts = sorted(data.draw(st.tuples(*[st.integers(1, num_rows)] * 2)))
    initial, told, held_out = order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :][:3]
    pool = Pool(num_rows, initial, held_out)
    pool.label(told)
    labeled = set(initial) | set(told)
    unlabeled = set(range(num_rows)) - labeled - set(held_out)
    assert pool.labeled_indices.tolist() == sorted(labeled)
    assert pool.unlabeled_indices.tolist() == sorted(unlabeled)
    assert (pool.num_labeled, pool.num_unlabeled) == (len(labeled), len(unlabeled))
    assert pool.askable_indices.tolist() == sorted(unlabeled)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([5, 10], r"in 0..9, found 1 outside: \[10\]"),
        ([-1], r"outside: \[-1\]"),
        ([5, 6, 5], r"must not repeat, found \[5\]"),
        ([5, 0], r"found 1 labeled already: \[0\]"),
        ([5, 9], r"held out for validation, found \[9\]"),
    ],
)
def test_label_is_all_or_nothing(indices, message):
    pool = Pool(10, [0, 1], held_out=[9])
    before = pool.labeled_N.clone()
    with pytest.raises(ValueError, match=message):
        pool.label(indices)
    assert torch.equal(pool.labeled_N, before)
    assert pool.num_labeled == 2


def test_skipped_rows_stay_and_are_not_asked_for():
    pool = Pool(6, [0])
    pool.skip([4, 2])
    assert (pool.num_unlabeled, pool.num_askable) == (5, 3)
    assert pool.unlabeled_indices.tolist() == [1, 2, 3, 4, 5]
    assert pool.askable_indices.tolist() == [1, 3, 5]
    pool.label([4])  # a person changed their mind
    assert (pool.num_unlabeled, pool.num_askable) == (4, 3)
    with pytest.raises(ValueError, match="labeled already"):
        pool.skip([4])


def test_invalid_rows_leave_both_sides():
    pool = Pool(6, [0, 1], held_out=[5])
    pool.skip([3])
    pool.mark_invalid([1, 3, 2])
    assert (pool.num_labeled, pool.num_unlabeled, pool.num_askable) == (1, 1, 1)
    assert pool.labeled_indices.tolist() == [0]
    assert pool.askable_indices.tolist() == [4]
    pool.mark_invalid([3])  # said twice
    assert pool.num_unlabeled == 1
    with pytest.raises(ValueError, match=r"marked invalid, found \[3\]"):
        pool.label([3])
    with pytest.raises(ValueError, match=r"held out for validation must be valid, found \[5\]"):
        pool.mark_invalid([4, 5])
    assert pool.num_unlabeled == 1
