"""Rows at the border of each class, and rows with a quota for each class, by their definitions."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.acquisition import direct, stratified
from al_lightning.acquisition.direct import border_of, class_margins, filled_up


def some_probs(N, C, seed=0, sharpness=2.0):
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(N, C, generator=draw).double() * sharpness).softmax(-1)


def margins_by_definition(probs):
    rows = probs.tolist()
    return [[p[k] - max(p[:k] + p[k + 1 :]) for k in range(len(p))] for p in rows]


def border_by_definition(margins, is_in):
    """Try every threshold between two rows, and beyond both ends; the highest of the best."""
    values = sorted(set(margins), reverse=True)
    cuts = [math.inf, *((a + b) / 2 for a, b in pairwise(values)), -math.inf]
    right = [sum((m >= cut) == i for m, i in zip(margins, is_in)) for cut in cuts]
    return cuts[right.index(max(right))]


def water(counts, num):
    """Fill the lowest, one row at a time."""
    levels = list(counts)
    for _ in range(num):
        levels[levels.index(min(levels))] += 1
    return [level - count for level, count in zip(levels, counts)]


def direct_by_definition(probs, num, labeled_probs, labels):
    margins, C = margins_by_definition(probs), probs.shape[1]
    num = min(num, len(margins))
    of_labeled = margins_by_definition(labeled_probs) if len(labels) else []
    counts = [labels.count(k) for k in range(C)]
    order = sorted(range(C), key=lambda k: counts[k])
    quotas = water([counts[k] for k in order], num // 2)
    taken, lists = set(), []
    for k, quota in zip(order, quotas):
        border = border_by_definition([m[k] for m in of_labeled], [y == k for y in labels])

        def distance(row, k=k, border=border):
            if math.isinf(border):
                return -margins[row][k] if border > 0 else margins[row][k]
            return abs(margins[row][k] - border)

        free = sorted((row for row in range(len(margins)) if row not in taken), key=distance)
        lists.append(free[:quota])
        taken.update(free[:quota])
    rest = sorted(
        (row for row in range(len(margins)) if row not in taken), key=lambda r: max(margins[r])
    )
    lists.append(rest[: num - len(taken)])
    return [one[n] for n in range(num) for one in lists if n < len(one)]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 25), st.integers(2, 5), st.integers(1, 30), st.integers(0, 12), st.integers())
def test_direct_is_its_definition(N, C, num, M, seed):
    probs, labeled = some_probs(N, C, seed % 1000), some_probs(M, C, seed % 1000 + 1)
    labels = torch.randint(C, (M,), generator=torch.Generator().manual_seed(seed % 1000))
    found = direct(probs, num, labeled_probs=labeled, labels=labels).tolist()
    assert found == direct_by_definition(probs, num, labeled, labels.tolist())
    torch.testing.assert_close(
        class_margins(probs).tolist(), margins_by_definition(probs), atol=1e-12, rtol=0
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), max_size=12))
def test_a_border_separates_best(rows):
    """Also where margins are equal, which no threshold can tell apart."""
    margins, is_in = [float(m) for m, _ in rows], [i for _, i in rows]
    found = border_of(torch.tensor(margins), torch.tensor(is_in, dtype=torch.bool))
    assert found == border_by_definition(margins, is_in)


def test_a_rare_class_is_asked_for_before_others():
    """Two of 22 labels are of it: half of the batch fills it up."""
    assert filled_up([2, 10, 10], 10) == [9, 1, 0]


def test_without_labels_each_border_is_the_models_own():
    probs = torch.tensor([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9]])
    assert direct(probs, 1).tolist() == [1]


def test_a_class_without_labels_gets_its_likeliest_rows():
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]])
    labeled = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    found = direct(probs, 2, labeled_probs=labeled, labels=torch.tensor([0, 1]))
    assert found.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.tensor([0, 5])}, "whole numbers from 0 to 2.*from 0 to 5"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels must be whole numbers"),
        ({"labels": torch.tensor([0])}, r"\(M, 3\) and labels \(M,\), got \(2, 3\) and \(1,\)"),
        ({"labeled_probs": some_probs(2, 4)}, r"labeled_probs must be \(M, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(arguments, message):
    given = {"labeled_probs": some_probs(2, 3), "labels": torch.tensor([0, 1]), **arguments}
    with pytest.raises(ValueError, match=message):
        direct(some_probs(5, 3), 2, **given)


# ---- quotas --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 40), st.floats(0, 1), st.integers())
def test_the_highest_scores_of_each_class_take_turns(N, C, num, share, seed):
    """Without chance it is a round robin over the classes, each by score."""
    draw = torch.Generator().manual_seed(seed % 1000)
    scores = torch.rand(N, generator=draw) + 0.01
    classes = torch.randint(C, (N,), generator=draw)
    found = stratified(scores, classes, num, share=share, beta=1e9, generator=draw).tolist()
    order = scores.argsort(descending=True, stable=True).tolist()
    num = min(num, N)
    rank = {}
    for row in order:
        rank[row] = sum(classes[row] == classes[other] for other in rank)
    in_turn = sorted(order, key=lambda row: rank[row])[: round(share * num)]
    rest = [row for row in order if row not in in_turn]
    assert found == in_turn + rest[: num - len(in_turn)]


def test_quotas_are_drawn_by_score():
    """The row with twice the score of the other of its class is taken twice as often."""
    scores, classes = torch.tensor([2.0, 1.0, 5.0]), torch.tensor([0, 0, 1])
    draw = torch.Generator().manual_seed(0)
    firsts = [stratified(scores, classes, 2, generator=draw).tolist() for _ in range(3000)]
    assert all(2 in found for found in firsts)
    # 2/3 of 3000; five standard deviations of a binomial.
    assert abs(sum(0 in found for found in firsts) - 2000) < 5 * (3000 * 2 / 9) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, r"share must lie in \[0, 1\], got 1.5"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"classes": torch.tensor([0.0, math.nan])}, "classes must be finite"),
        ({"classes": torch.tensor([0])}, "one of each, got lengths scores 2, classes 1"),
    ],
)
def test_quotas_that_cannot_be_are_refused(arguments, message):
    given = {"classes": torch.tensor([0, 1]), **arguments}
    with pytest.raises(ValueError, match=message):
        stratified(torch.rand(2), num=1, generator=torch.Generator(), **given)
