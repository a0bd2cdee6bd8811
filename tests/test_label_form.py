"""Labels of every task: what is one, and the ways of people to write it: CSV and Label Studio."""

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from al_lightning.data.items import replace_label
from al_lightning.label.label_studio import CONFIG, TASKS, read_export, write_tasks
from al_lightning.label.query_file import LabelRow, QueryRows, read_answers, write_to_label
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import SKIP
from al_lightning.run.tables import check_classes

CLASSES = ["cat", "dog", "owl"]
SEVERAL = QueryRows([7, 3, 12, 5], None, CLASSES, "r1", 1, "multilabel")
NUMBERS = QueryRows([7, 3, 12, 5], None, None, "r1", 1, "regression")
PNG = b"\x89PNG\r\n\x1a\n"


@given(st.lists(st.booleans(), min_size=3, max_size=3))
def test_several_classes_are_read_as_they_are_written(chosen):
    form, label = LabelForm("multilabel", CLASSES), [int(one) for one in chosen]
    assert form.find(form.in_words(label)) == label


@given(st.floats(-1e30, 1e30))
def test_a_number_is_read_as_it_is_written(number):
    form = LabelForm("regression")
    is_float32 = float(np.float32(number)) == number
    found = form.find(form.in_words(number))
    assert np.float32(found) == number if is_float32 else found == number
    assert form.find(form.in_words([number, 1.5])) == [found, 1.5]


def test_a_number_of_a_float32_is_short():
    assert LabelForm("regression").in_words(torch.tensor(3.4).item()) == "3.4"


@pytest.mark.parametrize(
    ("query", "cells", "expected"),
    [
        (SEVERAL, ["cat; owl", "none", "skip", ""], {7: [1, 0, 1], 3: [0, 0, 0], 12: SKIP}),
        (NUMBERS, ["2.5", " -1e3", "skip", "1; 2"], {7: 2.5, 3: -1000.0, 12: SKIP, 5: [1.0, 2.0]}),
    ],
    ids=["several", "numbers"],
)
def test_the_csv_file_holds_labels_of_the_task(tmp_path, query, cells, expected):
    path = tmp_path / "to_label.csv"
    write_to_label(path, [LabelRow(i, "", "", None, c) for i, c in zip(query.indices, cells)])
    assert {one.index: one.answer for one in read_answers(path, query)} == expected
    with open(path, newline="", encoding="utf-8-sig") as file:
        assert next(csv.reader(file))[4] == "label"
    write_to_label(path, [LabelRow(7, "", "", None, "cat, dgo")])
    with pytest.raises(
        ValueError, match=r"a label must be a (class, or several|number).* in line 2"
    ):
        read_answers(path, query)


@pytest.mark.parametrize(
    ("query", "words", "result", "answer", "tag"),
    [
        (SEVERAL, "cat; owl", {"choices": ["dog", "owl"]}, [0, 1, 1], ("Choices", "multiple")),
        (SEVERAL, "none", {"choices": ["none"]}, [0, 0, 0], ("Choices", "multiple")),
        (NUMBERS, "3.2 ± 0.4", {"number": 4.5}, 4.5, ("Number", None)),
    ],
)
def test_label_studio_asks_and_answers_by_the_task(tmp_path, query, words, result, answer, tag):
    rows = [LabelRow(index, "", words, 0.5) for index in query.indices]
    write_tasks(tmp_path, rows, dict.fromkeys(query.indices, PNG), query, "entropy")
    control = ET.parse(tmp_path / CONFIG).getroot()[1]
    assert (control.tag, control.get("choice")) == tag
    tasks = json.loads((tmp_path / TASKS).read_text())
    predicted = tasks[0]["predictions"][0]["result"][0]
    assert predicted["value"] == (
        {"number": 3.2} if query is NUMBERS else {"choices": words.split("; ")}
    )
    region = {"from_name": "label", "to_name": "image", "type": predicted["type"], "value": result}
    tasks[0]["annotations"] = [{"result": [region]}]
    for task in tasks[1:]:
        task["annotations"] = []
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    (one,) = read_export(path, query)
    assert (one.index, one.answer) == (7, answer)


def test_words_that_stand_for_something_else_are_no_classes():
    for name in ("none", "a;b"):
        with pytest.raises(ValueError, match="not be called none or hold a semicolon"):
            check_classes(["cat", name], several=True)
        check_classes(["cat", name])
    check_classes(["cat"], several=True)


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        ("binary", [0, 1], [2, [0, 1], "yes", 0.5]),
        ("multilabel", [[0, 1, 1]], [[0, 1], 1, [0, 3, 0]]),
        ("regression", [1, 0.5, [1.0, 2.0]], ["a", float("nan"), [float("inf")]]),
        ("dense", [[0, 1, 2], [[0]], "masks/1.png"], [1, 0.5]),
        ("multiclass", [0, 2, [0.5, 0.5, 0.0]], [3, -1, 1.0, "cat"]),
    ],
)
def test_an_answer_must_be_of_the_task(task, good, bad):
    form = LabelForm(task, CLASSES)
    assert [form.accepts(label) for label in good] == [True] * len(good)
    assert [form.accepts(label) for label in bad] == [False] * len(bad)


def test_a_label_by_hand_takes_the_form_of_the_one_it_replaces():
    x = torch.zeros(2)
    assert replace_label((x, torch.zeros(1)), 2.5)[1].shape == (1,)
    held = replace_label((x, np.zeros(3, np.float32)), [1, 0, 1])[1]
    assert (held.dtype, held.tolist()) == (np.float32, [1, 0, 1])
