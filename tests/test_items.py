"""Items of any form: where their label is, and where a given one goes."""

from collections import OrderedDict, namedtuple
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, TensorDataset
from toys import TRAINER, Plain, asked, loop_of, points

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.data.items import holds_label, is_none, read_label, replace_label
from al_lightning.run.lock import unlock

Pair = namedtuple("Pair", "x y")
Three = namedtuple("Three", "x length label")
X = torch.zeros(2)


@pytest.mark.parametrize(
    ("item", "key", "held", "changed"),
    [
        (X, None, None, (X, 7)),
        ((X,), None, None, (X, 7)),
        ((X, 3), None, 3, (X, 7)),
        ([X, 3], None, 3, [X, 7]),
        ((X, "a.png"), 2, None, (X, "a.png", 7)),
        ((3, X), 0, 3, (7, X)),
        (Pair(X, 3), None, 3, Pair(X, 7)),
        (Pair(X, 3), "y", 3, Pair(X, 7)),
        (Three(X, 5, 3), "label", 3, Three(X, 5, 7)),
        (Three(X, 5, 3), 1, 5, Three(X, 7, 3)),
        ({"x": X}, None, None, {"x": X, "label": 7}),
        ({"x": X, "label": 3}, None, 3, {"x": X, "label": 7}),
        ({"x": X, "label": 3}, "y", None, {"x": X, "label": 3, "y": 7}),
        (OrderedDict(x=X, label=3), None, 3, OrderedDict(x=X, label=7)),
    ],
)
def test_a_label_goes_where_it_is_read(item, key, held, changed):
    before = repr(item)
    assert holds_label(item, key) == (held is not None)
    if held is None:
        with pytest.raises(ValueError, match="must hold its label at"):
            read_label(item, key)
    else:
        assert read_label(item, key) == held
    given = replace_label(item, 7, key)
    assert repr(given) == repr(changed)
    assert type(given) is type(changed)
    assert read_label(given, key) == 7
    assert repr(item) == before


def test_a_label_is_as_those_of_the_data_set():
    assert replace_label((X, torch.tensor(1)), 2)[1].dtype == torch.int64
    with pytest.raises(ValueError, match="must be as the data set's are, torch.int64, got 'cat'"):
        replace_label((X, torch.tensor(1)), "cat")


@pytest.mark.parametrize(
    ("label", "none"),
    [
        (None, True),
        (-100, True),
        (float("nan"), True),
        (torch.tensor(-100), True),
        (np.float32("nan"), True),
        (torch.full((3, 3), -100), True),
        (torch.tensor([-100, 2]), False),
        (-100.0, False),
        (0, False),
        (False, False),
        ("", False),
        ([], False),
        (torch.tensor([0.0, float("nan")]), False),
    ],
)
def test_a_label_that_is_none(label, none):
    assert is_none(label) == none


# ---- data sets -----------------------------------------------------------------------------------


class Rows(Dataset):
    """Each row is what ``make`` makes of inputs and label."""

    def __init__(self, make, num_rows=120, **extras):
        self.rows, self.make = points(num_rows), make
        vars(self).update(extras)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.make(*self.rows[index])


class AnyForm(Plain):
    """Learns from the label that it finds; notes all that it has seen."""

    def __init__(self, read=lambda batch: (batch[0], batch[1])):
        super().__init__()
        self.read, self.seen = read, []

    def training_step(self, batch, batch_idx):
        x, y = self.read(batch)
        self.seen += y.tolist()
        return F.cross_entropy(self(x), y)

    def predict_step(self, batch, batch_idx):
        return self(self.read(batch)[0])


UNLABELED = {
    "tokens": (lambda x, y: {"x": x, "mask": x > 0}, None, lambda b: (b["x"], b.get("label"))),
    "named key": (lambda x, y: {"x": x}, "y", lambda b: (b["x"], b.get("y"))),
    "with a path": (lambda x, y: (x, "a.png"), 2, lambda b: (b[0], b[-1])),
    "one part": (lambda x, y: (x,), None, lambda b: (b[0], b[-1])),
    "a tensor": (lambda x, y: x, None, lambda b: (b if torch.is_tensor(b) else b[0], b[-1])),
}


@pytest.mark.parametrize("name", UNLABELED)
def test_rows_without_labels_are_asked_and_labeled(tmp_path, name):
    make, key, read = UNLABELED[name]
    extras = {"holds_labels": False} if name == "with a path" else {}

    def data():
        return ActiveDataModule(
            Rows(make, **extras), label_key=key, initial_labeled_size=20, batch_size=16
        )

    def oracle(query):
        return [index % 3 for index in query.indices]

    assert not data().holds_labels
    whole = loop_of(AnyForm(read), data(), oracle=oracle, run_dir=tmp_path / "a")
    results = whole.run()
    assert len(whole.model.seen) == 2 * 50  # two epochs of the last fit
    labels = [index % 3 for index in whole.data.labeled_indices.tolist()]
    assert sorted(whole.model.seen) == sorted(2 * labels)
    loop = loop_of(AnyForm(read), data(), oracle=oracle, run_dir=tmp_path / "b")
    loop.tell(loop.ask().indices, [index % 3 for index in loop.results[0].query.indices])
    unlock(tmp_path / "b")
    again = ActiveLearningLoop.resume(
        tmp_path / "b", AnyForm(read), data(), trainer=TRAINER, monitors=[], oracle=oracle
    )
    assert asked(again.run()) == asked(results)


def test_a_data_set_that_says_so_decides():
    said = Rows(lambda x, y: {"x": x, "label": -1}, holds_labels=False)
    data = ActiveDataModule(said, initial_labeled_size=20)
    assert not data.holds_labels
    data.label([3], [2])
    (batch,) = data.train_dataloader()
    assert batch["label"].tolist() == [2]
    assert ActiveDataModule(Rows(lambda x, y: {"x": x}, holds_labels=True), initial_indices=[0])


@pytest.mark.parametrize(
    ("make", "key", "extras", "words"),
    [
        (lambda x, y: (x, 8, y), None, {}, "more than two parts needs label_key.*found 3 parts"),
        (lambda x, y: [x, 8, y], None, {}, "more than two parts needs label_key.*found 3 parts"),
        (lambda x, y: Three(x, 8, y), None, {}, "more than two parts needs label_key"),
        (lambda x, y: (x, 8, y), None, {"holds_labels": True}, "more than two parts"),
        (lambda x, y: (x, "a"), None, {"holds_labels": False}, "several parts and no label needs"),
        (lambda x, y: (x, y), 3, {}, "must be a position in an item, found 3 for 2 parts"),
        (lambda x, y: (x, y), "y", {}, "must be a position in an item, found 'y' for 2 parts"),
        (lambda x, y: (x, y), -1, {}, "must be a position in an item, found -1 for 2 parts"),
    ],
)
def test_a_label_without_a_clear_place_is_refused(make, key, extras, words):
    with pytest.raises(ValueError, match=words):
        ActiveDataModule(Rows(make, **extras), label_key=key, initial_labeled_size=20)


def test_a_person_labels_the_right_part_of_three():
    rows = Rows(lambda x, y: (x, torch.tensor(8), y))
    data = ActiveDataModule(rows, label_key=2, initial_labeled_size=4, batch_size=64)
    row = int(data.unlabeled_indices[0])
    data.label([row], [2])
    ((x, length, y),) = data.train_dataloader()
    assert set(length.tolist()) == {8}
    expected = [2 if i == row else int(rows[i][2]) for i in data.labeled_indices]
    assert sorted(y.tolist()) == sorted(expected)


def test_a_named_tuple_stays_one_in_training_and_in_the_pool():
    class ByName(Plain):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch.x), batch.y)

        def predict_step(self, batch, batch_idx):
            return self(batch.x)

    loop = loop_of(ByName(), ActiveDataModule(Rows(Pair), initial_labeled_size=20, batch_size=16))
    query = loop.ask()
    loop.tell(query.indices, [0] * len(query.indices))
    loop.tell(loop.ask().indices)
    assert loop.ask() is None


# ---- the item's own label ------------------------------------------------------------------------


class WithTargets(Dataset):
    """Holds raw ``targets``, as torchvision's data sets; items may differ from them."""

    def __init__(self, targets, shown=lambda y: y):
        self.targets, self.shown = targets, shown
        self.x = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(0))
        self.reads = 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.reads += 1
        return self.x[index], self.shown(int(np.asarray(self.targets)[index]))


def shifted(y):
    return (y + 1) % 3


CLASSES = np.arange(120) % 3


class Series:
    """As a pandas Series with an index of its own: looked up by name, counted by place."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, name):
        return self.values[{n: i for i, n in enumerate(reversed(range(len(self.values))))}[name]]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values)


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array, Series])
@pytest.mark.parametrize("shown", [int, shifted, lambda y: 2 if y == 1 else y])
def test_labels_are_those_of_the_items(kind, shown):
    rows = WithTargets(kind(CLASSES.tolist()), shown)
    data = ActiveDataModule(rows, initial_labeled_size=30, initial_sampling="balanced")
    expected = [shown(int(y)) for y in CLASSES]
    assert data.labels_of(range(120)) == expected
    first = [expected[i] for i in data.labeled_indices]
    assert len({first.count(y) for y in set(expected)}) == 1


def test_targets_are_used_where_they_are_the_same():
    rows = WithTargets(torch.from_numpy(CLASSES))
    data = ActiveDataModule(rows, initial_labeled_size=30)
    data.labels_of([0])
    before = rows.reads
    assert data.labels_of(range(120)) == CLASSES.tolist()
    assert rows.reads == before
    rows.target_transform = shifted
    data = ActiveDataModule(rows, initial_labeled_size=30)
    rows.shown = shifted
    assert data.labels_of([0, 1, 2]) == [1, 2, 0]


@pytest.mark.parametrize(
    "targets", [[[1], [2, 3], [1]], [{"a": 1}, {"b": 2}, {}], [None, 1, 2], [[1], [2], [0]]]
)
def test_targets_that_are_no_plain_labels_are_left_alone(targets):
    class Rows(Dataset):
        def __init__(self):
            self.targets = targets

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.zeros(2), index

    data = ActiveDataModule(Rows(), initial_labeled_size=1)
    assert data.labels_of([0, 1, 2]) == [0, 1, 2]


def test_a_rare_class_that_the_item_changes_is_found():
    targets = [0] * 5000
    targets[4999], targets[1234] = 1, 2
    rows = WithTargets(targets, lambda y: 9 if y == 2 else y)
    data = ActiveDataModule(rows, initial_labeled_size=30)
    assert data.labels_of([1234]) == [9]


def test_a_settled_and_a_revealed_row_are_trained_on_alike():
    rows = WithTargets(CLASSES.tolist(), shifted)
    loop = loop_of(Plain(), ActiveDataModule(rows, initial_labeled_size=30, batch_size=16))
    query = loop.ask()
    loop.answer({query.indices[0]: rows[query.indices[0]][1]})
    loop.run()
    view = loop.data.train_dataloader().dataset
    trained = {int(row): int(item[1]) for row, item in zip(view.indices, view, strict=True)}
    assert all(trained[i] == shifted(int(CLASSES[i])) for i in query.indices)


# ---- labels that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("none", [None, -100, float("nan")])
def test_a_label_that_is_none_is_refused(none):
    def some(x, y):
        return x, (none if x[0] < -1 else int(y))

    rows = Rows(some)
    bad = [i for i in range(120) if is_none(rows[i][1])]
    good = [i for i in range(120) if i not in bad]
    with pytest.raises(ValueError, match="a labeled row must have a label, found None, NaN or"):
        loop_of(Plain(), ActiveDataModule(rows, initial_indices=[*good[:9], bad[0]])).run()
    data = ActiveDataModule(rows, initial_indices=good[:9])
    with pytest.raises(ValueError, match=rf"for 1 rows: \[{bad[1]}\]"):
        data.label([good[20], bad[1]])
    with pytest.raises(ValueError, match="a label must say something"):
        data.label([good[20]], [none])
    assert data.num_labeled == 9
    data.label([bad[1]], [1])
    with pytest.raises(ValueError, match="a label must say something"):
        ActiveDataModule(rows, initial_labels={0: 1, 1: none})
    if none is not None:  # which is refused by its own words
        loop = loop_of(Plain(), ActiveDataModule(points(120), initial_labeled_size=20))
        query = loop.ask()
        with pytest.raises(ValueError, match="a label must say something"):
            loop.answer({query.indices[0]: none})


def test_random_state_is_left_alone_when_labels_are_read():
    rows = Rows(lambda x, y: (x + torch.rand(4) + np.random.rand(), int(y)))
    torch.manual_seed(1), np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    data = partial(ActiveDataModule, rows, initial_labeled_size=30)
    data(initial_sampling="balanced").labels_of(range(10))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_tensors_without_labels_of_a_tensor_data_set():
    data = ActiveDataModule(TensorDataset(torch.rand(30, 4)), initial_labels={2: 1, 5: 0})
    ((x, y),) = data.train_dataloader()
    assert x.shape == (2, 4)
    assert sorted(y.tolist()) == [0, 1]
