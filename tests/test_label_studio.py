"""Label Studio: tasks that it takes, and what it exports read back; see benchmarks/label_studio.py
for the same with a real one.
"""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_label_files import class_names, mutated, outcome

from al_lightning.label.label_studio import read_export, write_tasks
from al_lightning.label.query_file import GivenAnswer, LabelRow, QueryRows
from al_lightning.run.records import INVALID, SKIP

CLASSES = ["cat", 'dog & "co" <b>', "naïve; é, 日本", "$5", "two words"]
NAMES = ["a/1.png", "b, 2.jpg", "é.png", "4.png", "5.png"]
QUERY = QueryRows([7, 3, 12, 40, 41], NAMES, CLASSES, run="run-abc", cycle=2)

# Of Label Studio 1.23.2, cut: the pictures, and what is the same in all tasks.
EXPORT = r"""
[{"id": 1, "annotations": [
  {"id": 1, "completed_by": 1, "result": [{"from_name": "label", "to_name": "image",
   "type": "choices", "value": {"choices": ["dog & \"co\" <b>"]}}], "was_cancelled": false,
   "ground_truth": false, "created_at": "2026-11-25T00:05:47.282632Z", "lead_time": 1.0,
   "prediction": {"id": 1, "result": [{"from_name": "label", "to_name": "image",
   "type": "choices", "value": {"choices": ["cat"]}}], "score": 0.9}, "result_count": 1,
   "unique_id": "8f6087be-816b-451b-a90b-97272b6d5ccc", "task": 1, "project": 1},
  {"id": 2, "completed_by": 2, "result": [{"from_name": "label", "to_name": "image",
   "type": "choices", "value": {"choices": ["na\u00efve; \u00e9, \u65e5\u672c"]}}],
   "was_cancelled": false, "lead_time": null, "result_count": 1, "task": 1, "project": 1}],
  "drafts": [], "predictions": [1], "data": {"image": "data:image/jpeg;base64,/9j/4AA",
  "run": "run-abc", "cycle": 2, "index": 7, "name": "a/1.png"}, "meta": {}, "allow_skip": true,
  "inner_id": 1, "total_annotations": 2, "cancelled_annotations": 0, "total_predictions": 1},
 {"id": 2, "annotations": [
  {"id": 3, "completed_by": 1, "result": [], "was_cancelled": true, "result_count": 0}],
  "drafts": [], "predictions": [2], "data": {"image": "data:image/png;base64,iVBORw0K",
  "run": "run-abc", "cycle": 2, "index": 3, "name": "b, 2.jpg"}, "total_annotations": 0,
  "cancelled_annotations": 1},
 {"id": 3, "annotations": [
  {"id": 4, "completed_by": 1, "result": [{"from_name": "label", "to_name": "image",
   "type": "choices", "value": {"choices": ["invalid"]}}], "was_cancelled": false}],
  "predictions": [3], "data": {"image": "data:image/jpeg;base64,/9j/4AA", "run": "run-abc",
  "cycle": 2, "index": 12, "name": "\u00e9.png"}},
 {"id": 4, "annotations": [
  {"id": 5, "completed_by": 1, "result": [{"from_name": "label", "to_name": "image",
   "type": "choices", "value": {"choices": ["$5"]}}], "was_cancelled": false}],
  "predictions": [4], "data": {"image": "data:image/png;base64,iVBORw0K", "run": "run-abc",
  "cycle": 2, "index": 40, "name": "4.png"}},
 {"id": 5, "annotations": [], "drafts": [], "predictions": [5], "data":
  {"image": "data:image/jpeg;base64,/9j/4AA", "run": "run-abc", "cycle": 2, "index": 41,
  "name": "5.png"}, "updated_by": null, "comment_authors": []}]
"""
ANSWERS = [
    GivenAnswer(7, 1, "annotator 1", 1),
    GivenAnswer(7, 2, "annotator 2", 1),
    GivenAnswer(3, SKIP, "annotator 1", 2),
    GivenAnswer(12, INVALID, "annotator 1", 3),
    GivenAnswer(40, 3, "annotator 1", 4),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "export.json"


def picture(kind="PNG"):
    content = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(content, kind)
    return content.getvalue()


def written(folder, rows, query=QUERY, pictures=None):
    pictures = pictures or {row.index: picture() for row in rows}
    write_tasks(folder, rows, pictures, query, "margin")
    return json.loads((folder / "label_studio_tasks.json").read_bytes())


def rows_of(scores, predicted="cat"):
    return [
        LabelRow(index, name, predicted, score)
        for index, name, score in zip(QUERY.indices, NAMES, scores)
    ]


# ---- out -----------------------------------------------------------------------------------------


def test_a_task_holds_the_row_its_picture_and_what_the_model_says(tmp_path):
    tasks = written(tmp_path, rows_of([0.5]))
    (prediction,) = tasks[0].pop("predictions")
    assert prediction == {
        "model_version": "al_lightning margin, cycle 2",
        "score": 0.5,
        "result": [
            {
                "from_name": "label",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": ["cat"]},
            }
        ],
    }
    identity = {"run": "run-abc", "cycle": 2, "index": 7, "name": "a/1.png"}
    uri = "data:image/png;base64," + base64.b64encode(picture()).decode()
    assert tasks == [{"data": {"image": uri, **identity}}]


def test_without_a_model_nothing_is_predicted(tmp_path):
    assert all("predictions" not in task for task in written(tmp_path, rows_of([0.5], "")))


def test_a_picture_is_what_its_content_says(tmp_path):
    file = tmp_path / "named.png"
    file.write_bytes(picture("JPEG"))
    pictures = {7: file, 3: picture("PNG"), 12: picture("JPEG")}
    tasks = written(tmp_path, rows_of([0.1, 0.2, 0.3]), pictures=pictures)
    uris = [task["data"]["image"] for task in tasks]
    assert [uri.partition(";")[0] for uri in uris] == [
        "data:image/jpeg",
        "data:image/png",
        "data:image/jpeg",
    ]
    with pytest.raises(ValueError, match=r"must be PNG or JPEG, got one for row 7 .* b'GIF8.*conv"):
        written(tmp_path, rows_of([0.1]), pictures={7: picture("GIF")})
    with pytest.raises(ValueError, match=r"needs a picture, found 2 without: \[7, 12\]; add"):
        written(tmp_path, rows_of([0.1, 0.2, 0.3]), pictures={3: picture()})


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 0.25, 1.0], [0.0, 0.25, 1.0]),
        ([0.4, None, 0.5], [0.4, None, 0.5]),
        ([-3.0, 1.0, 0.0], [0.0, 1.0, 0.75]),
        ([2.0, 2.0, None], [0.0, 0.0, None]),
        ([float("inf"), 4.0, 2.0], [None, 1.0, 0.0]),
        ([None, float("nan"), None], [None, None, None]),
    ],
)
def test_scores_are_as_label_studio_allows_them(tmp_path, scores, expected):
    tasks = written(tmp_path, rows_of(scores))
    assert [task["predictions"][0].get("score") for task in tasks] == expected


def test_classes_are_choices_whatever_their_names(tmp_path):
    classes = [*CLASSES, "two\nlines", " spaces ", "a$b.c $x"]
    query = QueryRows(QUERY.indices, NAMES, classes, "r", 1)
    written(tmp_path, rows_of([0.5]), query)
    view = ET.parse(tmp_path / "label_studio_config.xml").getroot()
    choices = view.findall("Choices/Choice")
    answers = [choice.get("alias") or choice.get("value") for choice in choices]
    assert answers == [*classes, "skip", "invalid"]
    # What its page takes for a variable, and shows as nothing.
    assert not any(re.search(r"\$[\w[\].{}]", choice.get("value")) for choice in choices)
    assert view.find("Image").attrib == {"name": "image", "value": "$image"}
    assert view.find("Choices").get("toName") == "image"


def test_classes_that_people_could_not_answer_in_are_refused(tmp_path):
    query = QueryRows([7], ["a"], ["cat", "skip"], "r", 1)
    with pytest.raises(ValueError, match="must not be called skip or invalid"):
        written(tmp_path, rows_of([0.5]), query)
    assert not list(tmp_path.iterdir())


# ---- back ----------------------------------------------------------------------------------------


def export(*answers):
    """An export of one task per row, each with (who, word) pairs; None is a cancelled one."""
    tasks = []
    for number, (index, name, people) in enumerate(zip(QUERY.indices, NAMES, answers), 1):
        annotations = [annotation(by, word) for by, word in people]
        data = {"image": "data:", "run": "run-abc", "cycle": 2, "index": index, "name": name}
        tasks.append({"id": number, "data": data, "annotations": annotations})
    return tasks


def annotation(by, word):
    region = {"from_name": "label", "to_name": "image", "type": "choices"}
    result = [] if word is None else [{**region, "value": {"choices": [word]}}]
    return {"completed_by": by, "result": result, "was_cancelled": word is None}


def test_a_real_export_is_read(path):
    path.write_text(EXPORT)
    assert read_export(path, QUERY) == ANSWERS
    path.write_text(EXPORT, encoding="utf-8-sig")
    assert read_export(path, QUERY) == ANSWERS


def test_people_are_told_by_e_mail_where_it_is_there(path):
    people = [{"id": 3, "email": "ann@x.org"}, {"id": 4, "email": ""}, 5, None, {"email": "b"}]
    path.write_text(json.dumps(export([(by, "cat") for by in people])))
    by = [one.by for one in read_export(path, QUERY)]
    assert by == ["ann@x.org", "annotator 4", "annotator 5", None, "b"]


def test_what_is_no_answer_leaves_the_row_open(path):
    tasks = export([(1, "cat")], [], [(1, "cat")])
    tasks[2]["annotations"][0]["result"] = []
    path.write_text(json.dumps(tasks))
    assert [one.index for one in read_export(path, QUERY)] == [7]


def test_remarks_beside_the_answer_are_let_be(path):
    tasks = export([(1, "cat")])
    remark = {"from_name": "remark", "type": "textarea", "value": {"text": ["blurred"]}}
    tasks[0]["annotations"][0]["result"].insert(0, remark)
    path.write_text(json.dumps(tasks))
    assert read_export(path, QUERY) == [GivenAnswer(7, 0, "annotator 1", 1)]


def test_a_row_of_this_query_that_was_not_asked_is_given_too(path):
    tasks = export([(1, "cat")])
    tasks[0]["data"] |= {"index": 8, "name": "others know"}
    path.write_text(json.dumps(tasks))
    assert read_export(path, QUERY) == [GivenAnswer(8, 0, "annotator 1", 1)]


def changed(position, **data):
    tasks = export([], [], [])
    tasks[position]["data"] |= data
    return tasks


def regions(result):
    tasks = export([(1, "cat")])
    tasks[0]["annotations"][0]["result"] = result
    return tasks


REGION = annotation(1, "cat")["result"][0]
ANOTHER = "an export from another project: tasks "
ONE_CHOICE = (
    "must hold one choice of the control 'label', found another in task 1; "
    "use label_studio_config.xml as it is"
)
BAD = {
    "another run": (changed(1, run="other"), f"run run-abc, found {ANOTHER}2; export the project"),
    "another cycle": (changed(2, cycle=3), f"be those of cycle 2 of run run-abc, found {ANOTHER}3"),
    "no index": (changed(0, index=None), f"{ANOTHER}1"),
    "a true index": (changed(0, index=True), f"{ANOTHER}1"),
    "a negative index": (changed(0, index=-1), f"{ANOTHER}1"),
    "another name": (changed(0, name="other"), f"{ANOTHER}1"),
    "all of another": (
        [{"data": {"text": "x"}, "annotations": []}] * 7,
        f"{ANOTHER}1, 2, 3, 4, 5 and 2 more; export",
    ),
    "no class": (
        export([(1, "cat")], [(1, "two word")]),
        "must be a class, skip or invalid, found 'two word' (meant 'two words'?) in task 2; the",
    ),
    "duplicate": (
        export([(1, "cat"), (1, "cat")]),
        "answered once by a person, found row 7 in tasks 1 and 1 by 'annotator 1'; take",
    ),
    "conflict": (
        export([(1, "cat")]) * 2 + export([(1, "invalid")]),
        "must not conflict, found row 7 in tasks 1 and 3 as 'cat' and 'invalid' by 'annotator 1'",
    ),
    "two choices": (regions([{**REGION, "value": {"choices": ["cat", "$5"]}}]), ONE_CHOICE),
    "two regions": (regions([REGION, REGION]), ONE_CHOICE),
    "another control": (regions([{**REGION, "from_name": "tag"}]), ONE_CHOICE),
    "no words": (regions([{**REGION, "value": {"choices": [1]}}]), ONE_CHOICE),
    "no value": (regions([{"from_name": "label"}]), ONE_CHOICE),
    "no regions": (regions(None), ONE_CHOICE),
    "nobody": (export([([], "cat")]), "or hold its e-mail, found a list in task 1; export it"),
    "no list": ({"a": 1}, "exports as JSON, found a dict where a list of tasks should be; in its"),
    "no tasks": ([1], "found no data in task 1, as in JSON-MIN; in its project choose Export"),
    "JSON-MIN": (
        [{"image": "", "run": "run-abc", "cycle": 2, "index": 7, "label": "cat", "annotator": 1}],
        "found no data in task 1, as in JSON-MIN; in its project choose Export and there JSON",
    ),
    "our tasks": ([{"data": {}}], "found no annotations in task 1; in its project"),
    "annotations of nothing": ([{"data": {}, "annotations": [1]}], "no annotations in task 1"),
}


@pytest.mark.parametrize(("tasks", "sentence"), BAD.values(), ids=BAD)
def test_bad_exports_are_refused_with_positions(path, tasks, sentence):
    path.write_text(json.dumps(tasks))
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read_export(path, QUERY)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no JSON: Expecting value: line 1"),
        (b"[{", "no JSON: Expecting property name"),
        (b"\xff\xfe", "no JSON: 'utf-8' codec can't decode"),
        (b"[" * 200_000, "no JSON: (maximum recursion|Stack overflow)"),
        (b'[{"data": ' * 100_000, "no JSON: (maximum recursion|Stack overflow)"),
        (b"[" + b"9" * 5000 + b"]", "no JSON: Exceeds the limit|found no data in task 1"),
        (b"id,label\n1,cat\n", "no JSON: "),
    ],
)
def test_what_is_no_json_is_refused(path, content, sentence):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"exports as JSON, found ({sentence})") as error:
        read_export(path, QUERY)
    assert str(error.value).startswith(str(path))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a file that can be read, found: Is a directory"):
        read_export(tmp_path, QUERY)


# ---- whatever there is ---------------------------------------------------------------------------


@given(st.data(), class_names)
def test_what_is_annotated_is_read(tmp_path_factory, data, classes):
    folder = tmp_path_factory.getbasetemp() / "label_studio"
    query = QueryRows(QUERY.indices, NAMES, classes, "r", 0)
    tasks = written(folder, rows_of([0.1, 0.2, 0.3, 0.4, 0.5], classes[0]), query)
    words = [*classes, "skip", "invalid", None]
    answers = [*range(len(classes)), SKIP, INVALID, SKIP]
    expected = []
    for number, task in enumerate(tasks, 1):
        people = data.draw(st.lists(st.integers(1, 3), max_size=2, unique=True))
        chosen = [data.draw(st.sampled_from(range(len(words)))) for _ in people]
        task["annotations"] = [annotation(by, words[n]) for by, n in zip(people, chosen)]
        expected += [
            GivenAnswer(task["data"]["index"], answers[n], f"annotator {by}", number)
            for by, n in zip(people, chosen)
        ]
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    assert read_export(path, query) == expected


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@st.composite
def replaced(draw):
    """The sample with something else at up to three places, however deep."""
    tasks = json.loads(EXPORT)
    for _ in range(draw(st.integers(1, 3))):
        place = tasks
        while place and draw(st.integers(0, 5)):
            keys = range(len(place)) if isinstance(place, list) else sorted(place)
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], list | dict) or not place[key]:
                place[key] = draw(anything | st.just(place))
                break
            place = place[key]
        else:
            break
    return tasks


def is_json(tasks):
    try:
        return json.dumps(tasks).encode()
    except ValueError:  # a place that holds itself
        return b"[[[" * 50_000


@given(st.binary(max_size=200) | mutated(EXPORT.encode()) | replaced().map(is_json))
def test_whatever_the_bytes_the_answers_are_valid_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(content)
    found, sentence = outcome(read_export, path, QUERY)
    if found is None:
        assert sentence.startswith(str(path))
    else:
        for one in found:
            assert type(one.index) is int
            assert one.index >= 0
            assert one.answer in (SKIP, INVALID) or one.answer in range(5)
            assert one.by is None or one.by.strip()
            assert one.line >= 1
        assert len({(one.index, one.by) for one in found}) == len(found)


# ---- parts, and other kinds of rows --------------------------------------------------------------


def test_tasks_that_are_too_large_for_one_file_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("al_lightning.label.label_studio.MAX_BYTES", 4000)
    rows = [LabelRow(index, "", "cat", 0.5) for index in QUERY.indices]
    content = io.BytesIO()
    Image.effect_noise((28, 28), 90).save(content, "PNG")
    query = QueryRows(QUERY.indices, None, CLASSES, "r", 1)
    pictures = dict.fromkeys(QUERY.indices, content.getvalue())
    write_tasks(tmp_path, rows, pictures, query, "margin")
    files = sorted(tmp_path.glob("label_studio_tasks*.json"))
    assert [file.name for file in files] == [f"label_studio_tasks_{n}.json" for n in (1, 2, 3)]
    assert max(file.stat().st_size for file in files) < 4010
    tasks = [task for file in files for task in json.loads(file.read_bytes())]
    assert [task["data"]["index"] for task in tasks] == QUERY.indices


def test_what_not_all_rows_have_is_left_out(tmp_path):
    rows = [
        LabelRow(1, "", "", None, text="a", table={"x": "1"}),
        LabelRow(2, "", "", None, text="b"),
    ]
    query = QueryRows([1, 2], None, ["a", "b"], "r", 1)
    write_tasks(tmp_path, rows, {}, query, "margin")
    tasks = json.loads((tmp_path / "label_studio_tasks.json").read_bytes())
    assert [task["data"]["text"] for task in tasks] == ["a", "b"]
    assert "table" not in tasks[0]["data"]
    view = ET.parse(tmp_path / "label_studio_config.xml").getroot()
    assert [child.tag for child in view] == ["Text", "Choices"]
    assert view.find("Choices").get("toName") == "text"
    with pytest.raises(ValueError, match="each row needs a picture, found 2 without"):
        write_tasks(
            tmp_path, [LabelRow(1, "", "", None), LabelRow(2, "", "", None)], {}, query, "m"
        )
