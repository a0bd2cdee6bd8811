"""What people see of a row: found by itself, or as the data set describes it."""

import csv
import json
import wave
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset
from toys import QUIET, TRAINER, Plain, points_data

from al_lightning import ActiveDataModule, ActiveLearningLoop, ImagePool
from al_lightning.data.frames import FrameRows
from al_lightning.data.sets import extras
from al_lightning.label.answers import OpenQuery
from al_lightning.label.page.desk import Desk
from al_lightning.monitor import Console, Exchange
from al_lightning.monitor.describe import parts_of
from al_lightning.run.journal import Journal

RED = Image.new("RGB", (4, 3), "red")


class Rows(Dataset):
    """Items as they are given; further arguments become attributes of the data set."""

    def __init__(self, *items, **extra):
        self.items = items
        vars(self).update(extra)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def seen(value, label_key=None):
    """Kinds and values of the parts of one item; a picture by its size and first pixel."""

    def plain(part):
        if part.kind != "picture":
            return part.kind, part.value
        return part.kind, (part.value.size, part.value.convert("RGB").getpixel((0, 0)))

    return [plain(part) for part in parts_of(Rows(value), 0, label_key)]


IS_RED = ("picture", ((4, 3), (255, 0, 0)))
LONG = "long words " * 10


@pytest.mark.parametrize(
    ("item", "parts"),
    [
        (RED, [IS_RED]),
        ((RED, 1), [IS_RED]),
        ({"image": RED, "label": 1}, [IS_RED]),
        (torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 3, 4), [IS_RED]),
        ("a text", [("text", "a text")]),
        (("a text", 1), [("text", "a text")]),
        ({"text": "short", "label": 1}, [("text", "short")]),
        ({"text": LONG, "n": 3, "label": 1}, [("text", LONG), ("table", {"n": "3"})]),
        (
            {"age": 42, "height": torch.tensor(1.75), "name": "ann", "label": 2},
            [("table", {"age": "42", "height": "1.75", "name": "ann"})],
        ),
        (pd.Series({"a": 1.5, "b": "x", "label": 0}), [("table", {"a": "1.5", "b": "x"})]),
        ({"image": RED, "caption": LONG}, [IS_RED, ("text", LONG)]),
        (torch.ones(4), []),
        ((torch.ones(4), 1), []),
        ({"input_ids": torch.ones(5), "label": 1}, []),
    ],
)
def test_well_known_items_are_seen_without_a_word(item, parts):
    assert seen(item) == parts


def test_the_label_is_not_shown_wherever_it_is():
    assert seen({"age": 42, "kind": "cat"}, "kind") == [("table", {"age": "42"})]
    assert seen(("a", 5, "b"), 1) == [("text", "a")]


def test_a_row_of_pandas_is_a_table():
    frame = pd.DataFrame({"age": [42, 43], "pay": [1.5, 2.0], "label": ["low", "high"]})
    assert parts_of(FrameRows(frame), 1)[0].value == {"age": "43", "pay": "2"}


# ---- as the data set describes it ----------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    RED.save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "clip.mp4").write_bytes(b"film")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    return tmp_path


def described(value):
    return parts_of(Rows(0, describe=lambda index: value), 0)


def test_each_kind_of_description(files):
    found = described(
        [
            "a text",
            files / "red.png",
            {"age": 42, "pay": 0.125},
            pd.Series({"a": 1}),
            {"audio": files / "a.wav", "text": ["one", "two"], "table": {"x": 1}},
            files / "clip.mp4",
            np.full((3, 4, 3), [255, 0, 0], dtype=np.uint8),
        ]
    )
    kinds = "text picture table table audio text text table video picture"
    assert [part.kind for part in found] == kinds.split()
    values = [part.value for part in found]
    assert values[2:4] == [{"age": "42", "pay": "0.125"}, {"a": "1"}]
    assert values[5:8] == ["one", "two", {"x": "1"}]
    assert (values[4], values[8]) == (files / "a.wav", files / "clip.mp4")
    assert found[1].original == files / "red.png"
    for picture in (values[1], values[9]):
        assert (picture.size, picture.convert("RGB").getpixel((0, 0))) == ((4, 3), (255, 0, 0))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("broken.png", "the file is no picture that can be read"),
        ("nowhere.png", "the file is no picture that can be read: No such file"),
        ("notes.txt", "a path must be of a picture, a sound or a film, got"),
        ({"audio": "none.wav"}, "audio must be the path of a file, found nothing at"),
        ({"picture": 3}, "picture must be an image or a path, got int"),
        ({"video": 3}, "video must be a path, got int"),
        (3.5, "picture must be an image or a path, got float"),
        (None, "got NoneType; describe(index) returns text, a picture"),
    ],
)
def test_what_is_no_description_is_said_in_its_place(files, value, why):
    if isinstance(value, str):
        value = files / value
    (part,) = described(value)
    assert part.kind == "problem"
    assert why in part.value


def test_a_description_that_fails_for_one_row_leaves_the_others():
    rows = Rows(0, 0, 0, describe=lambda index: ["a", "b"][index])
    assert [part.value for i in (0, 1) for part in parts_of(rows, i)] == ["a", "b"]
    (part,) = parts_of(rows, 2)
    assert part == ("problem", "describe(2) failed: IndexError: list index out of range", None)


def test_an_error_in_the_data_set_itself_keeps_its_traceback():
    class Slip(Rows):
        def __getitem__(self, index):
            return self.itemz[index]

    with pytest.raises(AttributeError, match="itemz"):
        parts_of(Slip(0), 0)


def test_descriptions_and_files_of_parts_of_a_data_set(files):
    whole = Rows(
        *range(4), describe=lambda index: f"row {index}", file=lambda index: f"{index}.png"
    )
    part = Subset(whole, [3, 1])
    assert [parts_of(part, index)[0].value for index in (0, 1)] == ["row 3", "row 1"]
    both = ConcatDataset([part, whole])
    assert [parts_of(both, index)[0].value for index in (1, 2)] == ["row 1", "row 0"]
    assert extras(both).file(0) == "3.png"
    (files / "broken.png").unlink()
    pool = ImagePool(files)
    (picture,) = parts_of(Subset(pool, [0]), 0)
    assert (picture.kind, picture.original) == ("picture", files / "red.png")


# ---- in a run ------------------------------------------------------------------------------------


class Described(Dataset):
    """Points that a model sees as tensors, and people in words."""

    holds_labels = False

    def __init__(self):
        self.points = points_data().sets.pool

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return self.points[index][0]

    def describe(self, index):
        if index == 7:
            raise KeyError("no words")
        return [f"=row {index}", {"x": self.points[index][0][0].item()}]


def loop_of(dataset, run_dir, monitors, **data):
    data = {"initial_labels": {n: n % 3 for n in range(6)}, "classes": ["a", "b", "c"], **data}
    module = ActiveDataModule(dataset, batch_size=8, **data)
    return ActiveLearningLoop(
        Plain(),
        module,
        trainer=partial(TRAINER.func, max_epochs=1, **QUIET),
        run_dir=run_dir,
        monitors=monitors,
        oracle="files",
        acquisition_size=34,
        num_cycles=2,
    )


def test_rows_reach_the_page_and_the_files_as_described(tmp_path, capsys):
    loop = loop_of(Described(), tmp_path / "run", [Exchange(), Console()])
    loop.run()
    assert "numbers alone" not in capsys.readouterr().out
    folder = tmp_path / "run" / "queries" / "cycle_1"
    desk = Desk(OpenQuery(Journal(tmp_path / "run" / "journal.jsonl")), tmp_path / "run")
    parts = {row["index"]: row["parts"] for row in map(desk._described, range(6, 40), [""] * 34)}
    assert [part["kind"] for part in parts[8]] == ["text", "table"]
    assert parts[8][0]["text"] == "=row 8"
    assert parts[7] == [{"kind": "problem", "text": "describe(7) failed: KeyError: 'no words'"}]
    with open(folder / "to_label.csv", newline="") as file:
        table = {int(row["index"]): row for row in csv.DictReader(file)}
    assert table[8]["row.text"] == "'=row 8"  # which no spreadsheet runs
    assert float(table[8]["row.x"]) == pytest.approx(float(Described()[8][0]), rel=1e-4)
    assert (table[7]["row.text"], table[7]["row.x"]) == ("", "")
    assert not (folder / "label_studio_tasks.json").exists()  # a row has nothing to be shown there
    rows = [table[index] for index in sorted(table)]
    for row in rows:
        row["label"] = "b"
    with open(folder / "to_label.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert [result.num_labeled for result in loop.run()] == [6, 40]


def test_text_goes_to_label_studio(tmp_path):
    class Words(Described):
        def describe(self, index):
            return {"text": f"row {index}", "table": {"x": index}}

    loop_of(Words(), tmp_path / "run", [Exchange()]).run()
    folder = tmp_path / "run" / "queries" / "cycle_1"
    tasks = json.loads((folder / "label_studio_tasks.json").read_text())
    by_index = {task["data"]["index"]: task["data"] for task in tasks}
    assert (by_index[8]["text"], by_index[8]["table"]) == ("row 8", {"x": "8"})
    config = (folder / "label_studio_config.xml").read_text()
    assert '<Text name="text" value="$text" />' in config
    assert '<Table name="table" value="$table" />' in config
    assert '<Choices name="label" toName="text"' in config
    assert "<Image" not in config


def test_rows_that_are_numbers_alone_are_said_at_the_start(tmp_path, capsys):
    class Silent(Described):
        describe = None

    loop_of(Silent(), tmp_path / "run", [Console()]).prepare()
    assert "people will see the rows as numbers alone" in capsys.readouterr().out


def test_a_large_picture_keeps_the_way_to_its_original(tmp_path):
    large = tmp_path / "photos" / "large.jpg"
    large.parent.mkdir()
    Image.new("RGB", (3000, 2000), "red").save(large)
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photos" / "small.png")

    class Photos(Described):
        photos = [large, tmp_path / "photos" / "small.png"]

        def describe(self, index):
            return self.photos[index % 2]

    loop_of(Photos(), tmp_path / "run", [Exchange()]).run()
    desk = Desk(OpenQuery(Journal(tmp_path / "run" / "journal.jsonl")), tmp_path / "run")
    rows = {row["index"]: row for row in map(desk._described, (8, 9), ["", ""])}
    assert (rows[8]["original"], rows[9]["original"]) == ("/originals/8", None)
    assert desk.original(8) == (large, "image/jpeg")
    with Image.open(desk.picture_file(8)) as picture:
        assert picture.size == (1024, 683)
    large.write_bytes(b"<script>")  # no picture: not served
    assert desk.original(8) is None
