"""A data set is known again by its rows, and not confused by random transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from toys import points

from al_lightning.data.fingerprint import NUM_ROWS, SomeRows
from al_lightning.data.fingerprint import fingerprint as sums_of
from al_lightning.data.views import UnreadableRowError


def fingerprint(dataset):
    return sums_of(SomeRows(dataset))


def test_some_rows_evenly_spaced_first_and_last_among_them():
    indices = [int(index) for index in fingerprint(points(1000))]
    assert len(indices) == NUM_ROWS
    assert (indices[0], indices[-1]) == (0, 999)
    assert set(np.diff(indices)) <= {32, 33}
    assert list(fingerprint(points(1))) == ["0"]
    assert len(fingerprint(points(5))) == 5


def test_a_row_that_cannot_be_read_says_nothing():
    class Broken(TensorDataset):
        def __getitem__(self, index):
            if index == 4:
                raise UnreadableRowError
            return super().__getitem__(index)

    whole = fingerprint(points(5))
    broken = fingerprint(Broken(*points(5).tensors))
    assert broken == {index: crc for index, crc in whole.items() if index != "4"}


def test_a_changed_row_shows_where_it_is():
    x, y = (part.clone() for part in points(1000).tensors)
    before = fingerprint(TensorDataset(x, y))
    assert fingerprint(TensorDataset(x, y)) == before
    y[999] = 1 - y[999]
    after = fingerprint(TensorDataset(x, y))
    assert [index for index in before if before[index] != after[index]] == ["999"]


def test_random_transforms_give_the_same_sums_and_are_left_alone():
    class Noisy:
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return torch.rand(3), np.random.rand(2), index

    class Counting(Noisy):
        calls = 0

        def __getitem__(self, index):
            self.calls += 1
            return self.calls if index else 0

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = fingerprint(Noisy())
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert fingerprint(Noisy()) == first
    assert len(set(first.values())) == NUM_ROWS
    # One that keeps a state of its own cannot be told by its rows; the others can.
    assert list(fingerprint(Counting())) == ["0"]


IMAGE = Image.new("L", (2, 2))
DARKER = Image.new("L", (2, 2), 9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.float32(1), np.float32(2)),
        (IMAGE, DARKER),
        ({"x": 1}, {"y": 1}),
        ({"x": "one"}, {"x": "two"}),
        ([1, 2], [2, 1]),
        ((1, (2, 3)), (1, (2, 4))),
        (None, False),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (torch.tensor(1), torch.tensor(2)),
        (np.array(["a", None], dtype=object), np.array(["b", None], dtype=object)),
        (b"a", "a"),
        (1, 1.0),
    ],
)
def test_items_of_every_kind_are_told_apart(one, other):
    assert fingerprint([one]) == fingerprint([one]) != fingerprint([other])


def test_addresses_in_memory_do_not_count():
    one, other = (np.array([f"{'some text'}{i}", i], dtype=object) for i in (1, 1))
    assert one[0] is not other[0]
    assert fingerprint([one]) == fingerprint([other])


def test_of_an_unknown_object_the_class_counts():
    class Label:
        pass

    assert fingerprint([Label()]) == fingerprint([Label()]) != fingerprint([object()])
