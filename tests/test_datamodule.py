"""``ActiveDataModule``: one split, honest indices, loaders for any map-style data set."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from al_lightning import ActiveDataModule
from al_lightning.acquisition import max_herding
from al_lightning.data.initial import Initial
from al_lightning.data.items import inputs_of, read_label, replace_label
from al_lightning.data.pool import as_indices
from al_lightning.data.sets import extras
from al_lightning.data.views import RowView


def rows(num_rows=40, num_classes=4):
    """Row i holds the number i and the class i % 4."""
    x = torch.arange(num_rows, dtype=torch.float32)[:, None]
    return TensorDataset(x, torch.arange(num_rows) % num_classes)


def served(loader):
    """The data-set indices that a loader of ``rows()`` serves, in order."""
    return [int(value) for batch in loader for value in batch[0][:, 0]]


def test_loaders_partition_the_rows():
    data = ActiveDataModule(
        rows(), test_set=rows(8), initial_labeled_size=10, val_size=6, batch_size=4
    )
    train, val, pool = (
        served(loader)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader())
    )
    assert sorted(train) == data.labeled_indices.tolist()
    assert pool == data.unlabeled_indices.tolist()
    assert sorted(train + val + pool) == list(range(40))
    assert (data.num_labeled, len(val), data.num_unlabeled) == (10, 6, 24)
    assert served(data.test_dataloader()) == list(range(8))
    assert len(data.predict_dataloader().dataset) == 24


def test_initial_rows_are_the_tutorials_for_the_same_seed():
    data = ActiveDataModule(rows(), initial_labeled_size=10, seed=42)
    np.random.seed(42)
    order = np.arange(40)
    np.random.shuffle(order)
    assert data.labeled_indices.tolist() == sorted(order[:10].tolist())
    other = ActiveDataModule(rows(), initial_labeled_size=10, seed=43)
    assert not torch.equal(other.labeled_indices, data.labeled_indices)


def test_splitting_leaves_the_global_generators_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    ActiveDataModule(rows(), initial_labeled_size=10).train_dataloader()
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.parametrize(("num", "shares"), [(8, [2, 2, 2, 2]), (6, [2, 2, 1, 1])])
def test_balanced_takes_equally_many_of_each_class(num, shares):
    data = ActiveDataModule(rows(), initial_labeled_size=num, initial_sampling="balanced")
    labels = data.labels_of(data.labeled_indices.tolist())
    assert sorted((labels.count(c) for c in range(4)), reverse=True) == shares


def test_the_start_is_drawn_from_rows_seed_and_labels_alone():
    def own(indices):
        return [i % 4 for i in indices]

    start = Initial(size=8, sampling="balanced", val_size=3)
    first, held_out = start.split(40, 7, own)
    assert start.split(40, 7, own) == (first, held_out) != start.split(40, 8, own)
    shuffled = np.random.RandomState(7).permutation(40).tolist()
    assert first == [i for c in range(4) for i in [i for i in shuffled if i % 4 == c][:2]]
    assert held_out == [i for i in shuffled if i not in first][:3]
    with pytest.raises(ValueError, match="need a data set that holds labels"):
        start.split(40, 7, None)
    assert Initial(indices=[5, 2], val_size=1).split(6, 0, own)[0] == [5, 2]
    with pytest.raises(ValueError, match=r"positions in classes \['a', 'b'\], got \[2\]"):
        Initial(labels={0: 1, 3: 2}, classes=["a", "b"])
    assert Initial(labels={0: 1, 3: 2}).split(6, 0, None) == ([0, 3], [])


def test_balanced_needs_enough_of_each_class():
    uneven = TensorDataset(torch.zeros(10, 1), torch.tensor([0] * 9 + [1]))
    with pytest.raises(ValueError, match="needs 2 rows of class 1, found 1"):
        ActiveDataModule(uneven, initial_labeled_size=4, initial_sampling="balanced")


def test_typiclust_begins_with_one_row_of_each_cluster():
    centers = torch.tensor([[0.0, 0], [9, 0], [0, 9], [9, 9]])
    draw = torch.Generator().manual_seed(0)
    embeddings = centers.repeat(10, 1) + torch.randn(40, 2, generator=draw) / 4
    arguments = {"initial_sampling": "typiclust", "initial_embeddings": embeddings}
    data = ActiveDataModule(rows(), initial_labeled_size=4, **arguments)
    assert sorted(i % 4 for i in data.labeled_indices.tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"got 39 for 40 rows"):
        ActiveDataModule(
            rows(), initial_labeled_size=4, **{**arguments, "initial_embeddings": embeddings[1:]}
        )
    with pytest.raises(ValueError, match="go together, got 'typiclust' without embeddings"):
        ActiveDataModule(rows(), initial_labeled_size=4, initial_sampling="typiclust")
    with pytest.raises(ValueError, match="go together, got 'random' with embeddings"):
        ActiveDataModule(rows(), initial_labeled_size=4, initial_embeddings=embeddings)


def test_max_herding_begins_with_rows_that_cover_the_others():
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.eye(4).repeat(10, 1) + torch.randn(40, 4, generator=draw) / 20
    arguments = {"initial_sampling": "max_herding", "initial_embeddings": embeddings}
    data = ActiveDataModule(rows(), initial_labeled_size=4, **arguments)
    assert sorted(i % 4 for i in data.labeled_indices.tolist()) == [0, 1, 2, 3]
    first = max_herding(embeddings, embeddings[:0], 4)
    assert data.labeled_indices.tolist() == sorted(first.tolist())
    with pytest.raises(ValueError, match="go together, got 'max_herding' without embeddings"):
        ActiveDataModule(rows(), initial_labeled_size=4, initial_sampling="max_herding")


def test_label_moves_rows_and_new_loaders_see_it():
    data = ActiveDataModule(rows(), initial_indices=[0, 1], batch_size=8)
    data.label(torch.tensor([30, 5]))
    data.label(np.array([7]))
    assert data.labeled_indices.tolist() == [0, 1, 5, 7, 30]
    assert sorted(served(data.train_dataloader())) == [0, 1, 5, 7, 30]
    assert 30 not in served(data.predict_dataloader())


def test_given_labels_replace_the_data_sets_own():
    data = ActiveDataModule(rows(), initial_indices=[0], batch_size=8)
    data.label([9, 10], torch.tensor([3, 0]))
    labels = {int(x): int(y) for xs, ys in data.train_dataloader() for x, y in zip(xs, ys)}
    assert labels == {0: 0, 9: 3, 10: 0}
    assert data.labels_of([9, 10, 11]) == [3, 0, 3]
    ((x, y),) = ActiveDataModule(rows(), initial_indices=[0]).train_dataloader()
    assert next(iter(data.train_dataloader()))[1].dtype == y.dtype


@pytest.mark.parametrize(
    ("indices", "labels", "error", "message"),
    [
        ([5, 6], [1], ValueError, "labels must be one an index, got 1 for 2"),
        ([0], None, ValueError, "labeled already"),
        ([5, 5], None, ValueError, "must not repeat"),
        ([40], None, ValueError, "in 0..39"),
        ([5.0], None, TypeError, "whole numbers, got float64"),
        (torch.ones(40, dtype=torch.bool), None, TypeError, "for a mask pass mask.nonzero"),
    ],
)
def test_label_refuses_what_does_not_fit_and_changes_nothing(indices, labels, error, message):
    data = ActiveDataModule(rows(), initial_indices=[0])
    with pytest.raises(error, match=message):
        data.label(indices, labels)
    assert data.labeled_indices.tolist() == [0]
    assert data.row_labels.given == {}


class Stream(IterableDataset):
    def __iter__(self):
        yield 1


class Unsized(Dataset):
    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"train_set": rows()}, ValueError, "give one of initial_labeled_size, .*got none"),
        (
            {"train_set": rows(), "initial_labeled_size": 2, "initial_indices": [1]},
            ValueError,
            "got initial_labeled_size and initial_indices",
        ),
        ({"train_set": rows(), "initial_labeled_size": 0}, ValueError, "at least 1, got 0"),
        ({"train_set": rows(), "initial_labeled_size": 41}, ValueError, "got 41 rows of 40"),
        ({"train_set": rows(), "initial_indices": [1, 1]}, ValueError, "must not repeat"),
        ({"train_set": rows(), "initial_indices": [40]}, ValueError, "in 0..39"),
        ({"train_set": rows(), "initial_indices": []}, ValueError, "at least one row"),
        (
            {"train_set": rows(), "pool_set": rows(39), "initial_labeled_size": 2},
            ValueError,
            "got 39 rows against 40",
        ),
        (
            {"train_set": rows(), "val_set": rows(), "val_size": 3, "initial_labeled_size": 2},
            ValueError,
            "either val_set or val_size",
        ),
        (
            {"train_set": rows(), "initial_labeled_size": 2, "initial_sampling": "even"},
            ValueError,
            "got 'even'",
        ),
        ({"train_set": Stream(), "initial_labeled_size": 2}, TypeError, "got Stream"),
        ({"train_set": Unsized(), "initial_labeled_size": 2}, TypeError, "got Unsized"),
        ({"train_set": rows(), "initial_labeled_size": 2, "batch_size": 0}, ValueError, "got 0"),
        (
            {"train_set": rows(), "initial_labeled_size": 2, "epoch_size": 0},
            ValueError,
            "epoch_size must be at least 1, got 0",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ActiveDataModule(**arguments)


def test_state_survives_a_weights_only_file(tmp_path):
    data = ActiveDataModule(rows(), initial_labeled_size=5, val_size=3)
    asked = data.unlabeled_indices[:4]
    data.label(asked, [3, 2, 1, 0])
    torch.save(data.state_dict(), tmp_path / "state.pt")
    other = ActiveDataModule(rows(), initial_labeled_size=9, seed=1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.pool.labeled_N, data.pool.labeled_N)
    assert torch.equal(other.unlabeled_indices, data.unlabeled_indices)
    assert other.row_labels.given == dict(zip(asked.tolist(), [3, 2, 1, 0], strict=True))


def test_state_of_another_data_set_is_refused():
    data = ActiveDataModule(rows(), initial_labeled_size=5)
    with pytest.raises(ValueError, match="of 50 rows, this data set has 40"):
        data.load_state_dict(ActiveDataModule(rows(50), initial_labeled_size=5).state_dict())


def test_a_split_goes_through_a_journal_and_back():
    data = ActiveDataModule(rows(), initial_labeled_size=5, val_size=3)
    labeled, skipped, invalid = data.unlabeled_indices[:3].tolist()
    data.label([labeled], [3])
    data.skip([skipped])
    data.mark_invalid([invalid])
    record = data.split_record()
    assert list(record) == [
        "num_rows",
        "labeled_indices",
        "held_out",
        "invalid",
        "skipped",
        "given_labels",
        "seed",
    ]
    written = json.loads(json.dumps(record))
    assert written["given_labels"] == [[labeled, 3]]
    other = ActiveDataModule(rows(), initial_labeled_size=9, seed=1)
    other.load_state_dict(written)
    assert other.split_record() == record
    assert other.state_dict()["labeled_indices"].dtype == torch.int64
    with pytest.raises(ValueError, match="of 41 rows, this data set has 40"):
        other.load_state_dict({**written, "num_rows": 41, "seed": 9, "labeled_indices": [0]})
    assert other.split_record() == record


def test_replay_brings_the_split_to_what_a_journal_says():
    data = ActiveDataModule(rows(), initial_indices=[0, 1])
    data.replay(
        {
            "indices": [5, 6],
            "labels": [3, 3],
            "skipped": [7],
            "invalid": [8, 1],
            "corrected": [[0, 2], [5, 1]],
        }
    )
    assert data.labeled_indices.tolist() == [0, 5, 6]
    assert (data.pool.skipped, data.pool.invalid) == ({7}, {1, 8})
    assert data.labels_of([0, 5, 6]) == [2, 1, 3]
    nothing = {"skipped": [], "invalid": [], "corrected": []}
    data.replay({"indices": [9], "labels": None, **nothing})
    assert data.labels_of([9]) == [1]
    data.mark_invalid([6])
    assert data.row_labels.given == {0: 2, 5: 1}
    with pytest.raises(ValueError, match=r"only a label that is there .*found \[20\]"):
        data.replay({"indices": [], "labels": [], **nothing, "corrected": [[20, 1]]})


def test_inside_serving_only_these_rows_are_predicted():
    data = ActiveDataModule(rows(), initial_indices=[0, 1], batch_size=4)
    data.skip([5])
    pool = [i for i in range(2, 40) if i != 5]
    for chosen in ([9, 3, 0], torch.tensor([9, 3, 0])):
        with data.serving(chosen):
            assert served(data.predict_dataloader()) == [9, 3, 0]
        assert served(data.predict_dataloader()) == pool
    with data.serving(None):
        assert served(data.predict_dataloader()) == pool
    with data.serving([]):
        assert served(data.predict_dataloader()) == []
    with pytest.raises(KeyError), data.serving([3]):
        raise KeyError
    assert served(data.predict_dataloader()) == pool


def test_what_a_data_set_may_have_is_read_when_it_is_asked_for():
    class Some:
        paths = ("a", "b")

        @property
        def targets(self):
            raise RuntimeError("an expensive look at every row")

    found = extras(Some())
    assert (found.paths, found.classes, found.picture) == (("a", "b"), None, None)
    with pytest.raises(RuntimeError, match="expensive"):
        found.targets


def test_an_empty_data_set_is_named():
    with pytest.raises(ValueError, match="got 2 rows of 0 in all"):
        ActiveDataModule(rows(0), initial_labeled_size=2)


def test_order_of_batches_is_the_same_for_the_same_split():
    first, second = (
        ActiveDataModule(rows(), initial_labeled_size=20, seed=7).train_dataloader() for _ in "ab"
    )
    torch.manual_seed(0)
    order = served(first)
    torch.manual_seed(1)
    assert served(second) == order != sorted(order)


def test_workers_serve_the_same_rows():
    data = ActiveDataModule(rows(), initial_labeled_size=5, batch_size=4, num_workers=2)
    assert served(data.predict_dataloader()) == data.unlabeled_indices.tolist()


class Dicts(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"text": [index] * (1 + index % 3), "target": index % 2}


def test_dict_items_and_a_collate_function_of_ones_own():
    def pad(items):
        widest = max(len(item["text"]) for item in items)
        return {
            "text": torch.tensor([i["text"] + [-1] * (widest - len(i["text"])) for i in items]),
            "target": torch.tensor([i["target"] for i in items]),
        }

    data = ActiveDataModule(
        Dicts(),
        initial_labeled_size=4,
        initial_sampling="balanced",
        label_key="target",
        batch_size=4,
        collate_fn=pad,
        eval_collate_fn=pad,
    )
    asked = int(data.unlabeled_indices[0])
    data.label([asked], [7])
    batches = list(data.train_dataloader())
    assert {int(y) for batch in batches for y in batch["target"]} == {0, 1, 7}
    assert all(batch["text"].ndim == 2 for batch in data.predict_dataloader())


def test_labels_that_are_not_where_we_look_are_explained():
    with pytest.raises(ValueError, match="if they hold labels, say where with label_key="):
        ActiveDataModule(Dicts(), initial_labeled_size=4, initial_sampling="balanced")
    data = ActiveDataModule(Dicts(), initial_labeled_size=4)
    assert not data.holds_labels
    with pytest.raises(ValueError, match="if they hold labels, say where with label_key="):
        data.label([0])
    assert data.num_labeled == 0
    with pytest.raises(ValueError, match=r"its label at 'label', found a dict with \['target', 't"):
        read_label(Dicts()[0])


def test_inputs_are_the_first_part():
    assert [inputs_of(item) for item in ((1, 2), [1, 2], 1)] == [1, 1, 1]
    assert inputs_of({"x": 1}) == {"x": 1}


def test_read_and_replace_label():
    assert read_label((torch.zeros(2), torch.tensor(3))) == 3
    assert read_label([5, 6, 7], label_key=0) == 5
    assert replace_label((1, 2, 3), 9) == (1, 9, 3)
    assert replace_label({"x": 1, "label": 2}, 9) == {"x": 1, "label": 9}
    with pytest.raises(ValueError, match="at 1, found Tensor"):
        read_label(torch.zeros(3))


class Batches(Dataset):
    """Collates a batch itself."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor([float(index)]), index % 2

    def __getitems__(self, indices):
        x = torch.tensor(indices, dtype=torch.float32)[:, None]
        return x, x[:, 0].long() % 2


def test_a_data_set_that_gives_whole_batches_agrees_with_its_items():
    data = ActiveDataModule(Batches(), initial_indices=[0], batch_size=4)
    x, y = next(iter(data.predict_dataloader()))
    assert x[:, 0].tolist() == [1, 2, 3, 4]
    assert y.tolist() == [1, 0, 1, 0]
    data.label([4], [5])  # from here on, item by item
    ((x, y),) = data.train_dataloader()
    assert dict(zip(x[:, 0].tolist(), y.tolist(), strict=True)) == {0: 0, 4: 5}


def test_row_view_indexes_like_a_sequence():
    view = RowView(rows(), [4, 8])
    assert view[-1][0].item() == 8
    assert [int(x) for x, _ in view.__getitems__([1, 0, 1])] == [8, 4, 8]
    with pytest.raises(IndexError):
        view[2]


def test_data_that_is_not_read_yet_says_so():
    class Later(ActiveDataModule):
        pass

    with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\)"):
        Later(initial_labeled_size=3).num_labeled
    with pytest.raises(ValueError, match="pass train_set, or override load_sets"):
        Later(initial_labeled_size=3).setup()


@pytest.mark.parametrize("empty", [[], np.array([]), torch.tensor([])])
def test_no_indices_are_no_indices(empty):
    assert as_indices(empty) == []
