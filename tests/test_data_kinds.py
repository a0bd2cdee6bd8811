"""Data as people have it: Hugging Face, folders of images, tables, triples, words and one-hot."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from toys import TRAINER, Plain, loop_of, points

from al_lightning import ActiveDataModule
from al_lightning.data.class_numbers import ClassNumbers
from al_lightning.data.frames import FrameRows
from al_lightning.data.items import holds_label, inputs_of, read_label, replace_label
from al_lightning.data.sets import extras, find_unreadable, names_of

WORDS = ["cat", "dog", "owl"]


def words_of(dataset):
    x, y = dataset.tensors
    return [(row, WORDS[label]) for row, label in zip(x, y.tolist())]


def messages(caplog):
    return [
        r.getMessage() for r in caplog.records if "positions of their classes" in r.getMessage()
    ]


# ---- words and one-hot ---------------------------------------------------------------------------


def test_words_become_the_positions_of_their_classes_and_it_is_said_once(caplog):
    rows = words_of(points(60))
    data = ActiveDataModule(
        rows,
        test_set=words_of(points(20, seed=1)),
        initial_labeled_size=20,
        initial_sampling="balanced",
        classes=WORDS,
    )
    loop = loop_of(Plain(), data)
    assert len(loop.run()) == 3
    assert messages(caplog) == [
        "labels are words; training gets the positions of their classes: cat = 0, dog = 1, owl = 2"
    ]
    for index in range(60):
        assert WORDS[data.labels_of([index])[0]] == rows[index][1]
    labels = torch.cat([batch[1] for batch in data.train_dataloader()])
    assert sorted(labels.tolist()) == sorted(data.labels_of(data.labeled_indices.tolist()))
    assert data.classes == WORDS


def test_words_stay_words_for_a_function_that_makes_batches_or_without_classes():
    rows = words_of(points(60))
    seen = ActiveDataModule(rows, initial_labeled_size=9, classes=WORDS, collate_fn=list)
    assert {item[1] for batch in seen.train_dataloader() for item in batch} <= set(WORDS)
    plain = ActiveDataModule(rows, initial_labeled_size=9)
    assert {word for _, words in plain.train_dataloader() for word in words} <= set(WORDS)


def test_a_word_that_names_no_class_is_named():
    rows = words_of(points(60))
    with pytest.raises(ValueError, match=r"one of the classes cat, dog, got 'owl'; add it"):
        loop_of(Plain(), ActiveDataModule(rows, initial_labeled_size=50, classes=WORDS[:2])).ask()


def test_batches_read_at_once_get_positions_too():
    class Many(list):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    rows = ClassNumbers(Many([(1, "b"), (2, "a")]), ["a", "b"], None)
    assert rows.__getitems__([1, 0]) == [(2, 0), (1, 1)]
    assert (len(rows), rows[0]) == (2, (1, 1))


@pytest.mark.parametrize(
    "one_hot",
    [
        lambda y: F.one_hot(y, 3).float(),
        lambda y: F.one_hot(y, 3),
        lambda y: F.one_hot(y, 3).numpy(),
        lambda y: F.one_hot(y, 3).tolist(),
    ],
)
def test_one_hot_labels_take_the_position_that_a_person_gives(one_hot):
    x, y = points(60).tensors
    items = list(zip(x, one_hot(y)))
    for label in range(3):
        changed = replace_label(items[0], label)[1]
        assert type(changed) is type(items[0][1])
        assert np.asarray(changed).tolist() == [float(c == label) for c in range(3)]
    with pytest.raises(ValueError, match="position in the 3 classes .* got 3"):
        replace_label(items[0], 3)


def test_a_run_on_one_hot_labels():
    class Soft(Plain):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    x, y = points(60).tensors
    data = ActiveDataModule(
        TensorDataset(x, F.one_hot(y, 3).float()),
        initial_labeled_size=21,
        initial_sampling="balanced",
        classes=WORDS,
    )
    counts = torch.stack([data.sets.train[int(i)][1] for i in data.labeled_indices]).sum(0)
    assert counts.tolist() == [7, 7, 7]
    loop = loop_of(Soft(), data)
    loop.tell(loop.ask().indices, [2] * 15)
    assert loop.ask() is not None
    rows = [data.train_dataloader().dataset[i][1] for i in range(36)]
    assert all(row.tolist() in torch.eye(3).tolist() for row in rows)


# ---- triples and records -------------------------------------------------------------------------


def test_the_input_of_a_triple_with_a_path_is_the_image():
    image = torch.rand(3, 4, 4)
    assert inputs_of(("a.png", image, 1)) is image
    batch = torch.utils.data.default_collate([("a.png", image, 1), ("b.png", image, 0)])
    assert inputs_of(batch).shape == (2, 3, 4, 4)
    assert inputs_of(("a long text", torch.tensor([3]), 1)) == "a long text"
    assert inputs_of(("a long text", 1)) == "a long text"


def test_a_run_on_triples():
    x, y = points(60).tensors
    rows = [(f"{i}.png", x[i], y[i]) for i in range(60)]

    class Triples(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[1:], batch_idx)

    data = ActiveDataModule(rows, initial_labeled_size=20, label_key=2)
    loop = loop_of(Triples(), data, strategy="margin")  # by its forward
    assert len(loop.run()) == 3
    with pytest.raises(ValueError, match="needs label_key"):
        ActiveDataModule(rows, initial_labeled_size=20)


def test_rows_of_pandas_hold_their_label_by_name():
    row = pd.Series({"a": 1.5, "label": 2})
    assert holds_label(row)
    assert read_label(row) == 2
    assert replace_label(row, 1)["label"] == 1
    assert row["label"] == 2
    assert read_label({"labels": 3, "x": 1}) == 3
    assert replace_label({"labels": 3, "x": 1}, 4) == {"labels": 4, "x": 1}
    assert replace_label({"x": 1}, 4) == {"x": 1, "label": 4}


# ---- tables --------------------------------------------------------------------------------------


def table(num_rows=60, seed=0):
    x, y = points(num_rows, seed).tensors
    columns = {f"x{i}": x[:, i].numpy() for i in range(4)}
    return pd.DataFrame({**columns, "age": range(num_rows), "kind": [WORDS[c] for c in y.tolist()]})


class Tabular(Plain):
    def forward(self, batch):
        return super().forward(torch.stack([batch[f"x{i}"] for i in range(4)], 1).float())

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch["kind"])

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch).argmax(-1) == batch["kind"]).float().mean())


def test_a_table_is_a_data_set_of_dicts():
    frame = table()
    rows = FrameRows(frame.set_index("age", drop=False), "kind")
    assert len(rows) == 60
    for index in (0, 59):
        assert rows[index] == {**frame.iloc[index].to_dict(), "age": index}
        assert type(rows[index]["age"]) is int
        assert type(rows[index]["x0"]) is float
    assert rows.classes == WORDS
    assert rows.targets == frame["kind"].tolist()
    categories = frame.assign(kind=pd.Categorical(frame["kind"], ["owl", "dog", "cat", "elk"]))
    assert FrameRows(categories, "kind").classes == ["owl", "dog", "cat", "elk"]
    numbers = FrameRows(frame, "age")
    assert numbers.classes is None
    assert FrameRows(frame).targets is None


def test_a_run_on_a_table():
    frame = table()
    data = ActiveDataModule(
        frame, test_set=table(20, seed=1), initial_labeled_size=20, label_key="kind", batch_size=8
    )
    assert data.sets.pool is data.sets.train
    loop = loop_of(Tabular(), data, strategy="margin", num_cycles=2)
    assert len(loop.run()) == 2
    assert data.classes == WORDS
    assert [WORDS[label] for label in data.labels_of(range(60))] == frame["kind"].tolist()


# ---- folders of images ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    for kind in WORDS[:2]:
        (tmp_path / kind).mkdir()
        for i in range(12):
            pixels = draw.integers(0, 256, (9 + i, 8, 3), dtype=np.uint8)
            pixels[..., WORDS.index(kind)] //= 8
            Image.fromarray(pixels).save(tmp_path / kind / f"{i:02}.png")
    return tmp_path


TO_TENSOR = [v2.ToImage(), v2.Resize((6, 6)), v2.ToDtype(torch.float32, scale=True)]


def test_an_image_folder_with_v2_transforms(folder):
    rows = ImageFolder(folder, v2.Compose([v2.RandomHorizontalFlip(), *TO_TENSOR]))
    data = ActiveDataModule(
        Subset(rows, range(1, 23)), pool_transform=v2.Compose(TO_TENSOR), initial_labeled_size=6
    )
    assert data.classes == WORDS[:2]
    assert data.names_of([0, 21]) == ["cat/01.png", "dog/10.png"]
    assert data.labels_of([0, 10, 11, 21]) == [0, 0, 1, 1]

    class Net(Plain):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))

    loop = loop_of(Net(), data, acquisition_size=3, strategy="margin")
    results = loop.run()
    assert len(results) == 3
    assert results[0].query.names[0].endswith(".png")


def test_extras_are_found_inside_subsets_and_joined_data_sets():
    class Told(list):
        classes = WORDS
        holds_labels = True

        def __init__(self, first):
            super().__init__(range(first, first + 4))
            self.paths = [f"{i}.png" for i in self]
            self.targets = [i % 3 for i in self]

        def picture(self, index):
            return self[index]

        def unreadable(self):
            return {1: f"row {self[1]} is broken"}

    joined = ConcatDataset([Told(0), Subset(Told(4), [3, 1])])
    rows = Subset(joined, [5, 0, 1, 4])  # the numbers 5, 0, 1 and 7
    assert [rows[i] for i in range(4)] == [5, 0, 1, 7]
    assert names_of(rows, [0, 3]) == ["5.png", "7.png"]
    assert extras(rows).targets == [2, 0, 1, 1]
    assert extras(rows).classes == WORDS
    assert extras(rows).holds_labels is True
    assert [extras(rows).picture(i) for i in range(4)] == [5, 0, 1, 7]
    broken, _ = find_unreadable(rows)
    assert broken == [0, 2]
    assert extras(ConcatDataset([Told(0), [1, 2]])).paths is None
    other = Told(0)
    other.classes = ["elk"]
    assert extras(ConcatDataset([Told(0), other])).classes is None


# ---- Hugging Face --------------------------------------------------------------------------------


def texts(num_rows=60, label="label", seed=0):
    datasets = pytest.importorskip("datasets")
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, num_rows).tolist()
    ids = [
        [int(c) + 1 if draw.random() < 0.6 else int(draw.integers(1, 9)) for _ in range(length)]
        for c, length in zip(labels, draw.integers(3, 12, num_rows))
    ]
    rows = {"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids], label: labels}
    features = datasets.Features(
        {
            "input_ids": datasets.Sequence(datasets.Value("int64")),
            "attention_mask": datasets.Sequence(datasets.Value("int64")),
            label: datasets.ClassLabel(names=WORDS),
        }
    )
    return datasets.Dataset.from_dict(rows, features=features)


def padded(items):
    """As ``DataCollatorWithPadding`` does, which also names the label ``labels``."""
    length = max(len(item["input_ids"]) for item in items)
    batch = {
        name: torch.tensor([item[name] + [0] * (length - len(item[name])) for item in items])
        for name in ("input_ids", "attention_mask")
    }
    key = "labels" if "labels" in items[0] else "label"
    return {**batch, "labels": torch.tensor([item[key] for item in items])}


class Texts(Plain):
    def __init__(self):
        super().__init__()
        self.embed, self.encoder = nn.Embedding(10, 8), nn.Linear(8, 8)
        self.net = nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask, labels=None):
        assert labels is None
        hidden = self.encoder(self.embed(input_ids)) * attention_mask[..., None]
        return self.net(hidden.sum(1) / attention_mask.sum(1, keepdim=True))

    def training_step(self, batch, batch_idx):
        labels = batch.pop("labels")
        return F.cross_entropy(self(**batch), labels)

    def test_step(self, batch, batch_idx):
        labels = batch.pop("labels")
        self.log("test_acc", (self(**batch).argmax(-1) == labels).float().mean())


@pytest.mark.parametrize("label", ["label", "labels"])
def test_arrow_rows_with_dynamic_padding(label, tmp_path):
    rows = texts(label=label)
    data = ActiveDataModule(
        rows,
        test_set=texts(20, label, seed=1),
        initial_labeled_size=20,
        initial_sampling="balanced",
        batch_size=8,
        collate_fn=padded,
        eval_collate_fn=padded,
    )
    assert data.classes == WORDS
    assert data.labels_of(range(60)) == rows[label]
    loop = loop_of(Texts(), data, strategy="core_set", embedding_layer="encoder", run_dir=tmp_path)
    query = loop.ask()
    loop.tell(query.indices, [0] * 15)
    assert loop.ask() is not None
    given = [data.train_dataloader().dataset[i] for i in range(35)]
    assert sum(item[label] == 0 for item in given) >= 15


def test_an_embedding_of_tokens_does_not_depend_on_the_padding():
    from al_lightning.prediction.read_pool import read_pool
    from al_lightning.strategies import Strategy

    keep = Strategy(lambda pool, num, generator: torch.arange(num), keep={"embedding": "embedding"})
    model, found = Texts().eval(), []
    for size in (1, 7, 60):
        data = ActiveDataModule(
            texts(),
            initial_labeled_size=1,
            batch_size=size,
            collate_fn=padded,
            eval_collate_fn=padded,
        )
        pool = read_pool(TRAINER(), model, data, keep, embedding_layer="encoder")
        found.append(pool.columns["embedding"])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
    item = data.sets.pool[int(pool.indices[0])]
    expected = model.embed(torch.tensor(item["input_ids"])).mean(0)
    torch.testing.assert_close(found[0][0], expected.detach())


def test_an_embedding_whose_size_depends_on_the_batch_is_refused():
    def without_mask(items):
        batch = padded(items)
        return {"input_ids": batch["input_ids"], "mask": batch["attention_mask"]}

    class NoMask(Texts):
        def forward(self, input_ids, mask):
            return super().forward(input_ids, mask)

    data = ActiveDataModule(
        texts(),
        initial_labeled_size=20,
        batch_size=4,
        collate_fn=without_mask,
        eval_collate_fn=without_mask,
    )
    with pytest.raises(
        ValueError, match="embeddings of all rows must be of one size.*behind the pooling"
    ):
        loop_of(NoMask(), data, strategy="core_set", embedding_layer="encoder").ask()
