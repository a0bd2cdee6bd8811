"""Data sets are held against each other before a run."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from toys import Plain, loop_of, points, points_data

from al_lightning import ActiveDataModule
from al_lightning.data.row_checks import check_rows

X, Y = points(200).tensors


def checked(train_set, **arguments):
    data = ActiveDataModule(train_set, **{"initial_labeled_size": 20, **arguments})
    return check_rows(data.row_labels)


def told(train_set, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checked(train_set, **arguments)
    return [str(one.message) for one in caught]


class Reading(Dataset):
    """Adds noise that ``draw`` draws to each row."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 200

    def __getitem__(self, index):
        return X[index] + self.draw(), Y[index]


def test_usual_data_sets_pass_without_a_word():
    assert told(points(200), test_set=points(50, seed=1), val_set=points(50, seed=2)) == []
    assert told(Reading(lambda: torch.rand(4)), pool_set=TensorDataset(X, Y)) == []
    given = {"initial_labeled_size": None, "initial_labels": {0: 1}}
    assert told(TensorDataset(X), **given) == []
    train, test = random_split(points(200), [150, 50])
    assert told(train, test_set=test) == []
    assert told(train, pool_set=Subset(TensorDataset(X * 2, Y), train.indices)) == []
    sums = checked(points(200), test_set=points(50, seed=1))
    assert list(sums) == ["fingerprint", "test_fingerprint"]


def test_other_rows_in_the_pool_are_refused_before_training():
    class Fails(Plain):
        def on_fit_start(self):
            raise AssertionError("trained")

    one, other = (random_split(points(200), [150, 50])[0] for _ in range(2))
    data = ActiveDataModule(one, pool_set=other, initial_labeled_size=20)
    with pytest.raises(ValueError, match=r"same rows as train_set.*other places of their Tensor"):
        loop_of(Fails(), data).run()


def test_rows_are_known_by_their_labels_and_names():
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"row \d+ labeled \d in train_set and \d in pool_set"):
        checked(points(200), pool_set=TensorDataset(X[order], Y[order]))

    class Named(Dataset):
        def __init__(self, names):
            self.paths = names

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            return torch.zeros(4)

    names = [f"{i}.png" for i in range(50)]
    with pytest.raises(ValueError, match=r"other names, such as \('0.png', '49.png'\)"):
        checked(Named(names), pool_set=Named(names[::-1]))


def test_rows_to_measure_on_that_are_learned_from_are_told_once():
    rows = points(200)
    part = Subset(rows, range(100))
    (message,) = told(rows, test_set=part, val_set=Subset(part, [3, 4]))
    assert "found 2 rows of val_set and 100 rows of test_set in train_set too" in message
    (message,) = told(rows, test_set=points(200))
    assert "at least 32 rows of test_set" in message
    (message,) = told(rows, test_set=rows)
    assert "200 rows of test_set" in message


def test_a_pool_under_random_transforms_is_told():
    (message,) = told(Reading(lambda: torch.rand(4)))
    assert "without random transforms, found 32 of 32 rows" in message
    assert "pool_set" in message


@pytest.mark.parametrize("has_pool", [True, False])
def test_a_generator_of_ones_own_is_told(has_pool):
    own = np.random.default_rng(7)
    rows = Reading(lambda: torch.from_numpy(own.normal(size=4)).float())
    pool = {"pool_set": TensorDataset(X, Y)} if has_pool else {}
    (message,) = told(rows, **pool)
    assert "random values come from a generator of its own" in message
    (message,) = told(TensorDataset(X, Y), pool_set=rows)
    assert "rows of pool_set differ each time" in message


def test_rows_of_other_kinds_are_compared():
    images = [np.full((4, 4), i, dtype=np.uint8) for i in range(60)]
    rows = StackDataset(images, [i % 3 for i in range(60)])
    assert told(rows) == []
    with pytest.raises(ValueError, match="pool_set must hold the same rows"):
        checked(rows, pool_set=StackDataset(images, [(i + 1) % 3 for i in range(60)]))
    words = [{"text": f"row {i}", "label": str(i % 2)} for i in range(60)]
    (message,) = told(words, test_set=[dict(row) for row in words])
    assert "rows of test_set" in message


def test_a_run_is_not_disturbed_by_the_readings():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_rows(points_data().row_labels)
    assert torch.equal(torch.get_rng_state(), before)


# ---- rows and labels that say nothing ------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        TensorDataset(X.repeat(2, 1), Y.repeat(2)),
        TensorDataset(X.repeat_interleave(3, 0), Y.repeat_interleave(3)),
        ConcatDataset([points(200), points(200)]),
        Subset(points(200), [*range(100), *range(30)]),
        points(90_000) + points(90_000),
    ],
)
def test_rows_that_repeat_are_told_once(rows):
    (one,) = told(rows)
    assert "rows of the pool should not repeat, found" in one
    copy, original = map(int, re.findall(r"row (\d+)", one))
    assert torch.equal(rows[copy][0], rows[original][0])


def test_a_few_copies_among_many_rows_are_no_fault():
    x = X.clone()
    x[7] = x[3]
    assert told(TensorDataset(x, Y)) == []
    noise = Reading(lambda: torch.rand(4))
    assert told(noise, pool_set=TensorDataset(X, Y)) == []


def test_labels_that_are_all_the_same_are_told():
    (one,) = told(TensorDataset(X, torch.full((200,), 2)))
    assert "found 2 in all 200 rows that were read of train_set; look whether label_key" in one
    rare = torch.zeros(200, dtype=torch.long)
    rare[117] = 1
    assert told(TensorDataset(X, rare)) == []


@pytest.mark.parametrize("name", ["val_set", "test_set"])
def test_rows_to_measure_on_of_one_class_are_told(name):
    x, y = points(300, seed=1).tensors
    order = y.argsort()
    (one,) = told(points(200), **{name: TensorDataset(x[order][:50], y[order][:50])})
    assert f"found 0 in all 50 rows that were read of {name}; shuffle" in one
    assert told(points(200), **{name: TensorDataset(x, y)}) == []
