"""Labels in CSV files: the same answers however they were saved, and each mistake with its line."""

import csv
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from al_lightning.label.query_file import (
    GivenAnswer,
    LabelRow,
    QueryRows,
    read_answers,
    write_to_label,
)
from al_lightning.monitor.tables import write_table as write_safe
from al_lightning.run.records import INVALID, SKIP
from al_lightning.run.tables import check_classes, read_labels, read_safe, safe

NAMES = ["a/1.png", "b, c/2.png", 'say "é".png', "4.png"]
CLASSES = ["cat", "dog", "guinea pig; or hamster"]
QUERY = QueryRows(indices=[7, 3, 12, 40], names=NAMES, classes=CLASSES, run="r1", cycle=2)
ANSWERS = {7: 1, 3: SKIP, 12: INVALID, 40: 2}

GOOD = """index,path,predicted,score,label,labeler
7,a/1.png,cat,0.5,dog,
3,"b, c/2.png",cat,0.5,skip,
12,"say ""é"".png",cat,0.5,invalid,
40,4.png,cat,0.5,guinea pig; or hamster,
"""
SEMICOLONS = """path;label
a/1.png;dog
b, c/2.png;Skip
"say ""é"".png";INVALID
4.png;"guinea pig; or hamster"
"""
NO_PATHS = """

 INDEX ;"Label";remark
;;
7; dog;with, a comma
3;SKIP;
"12";"invalid";"two
lines"

40;"guinea pig; or hamster"
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "to_label.csv"


def answers_of(given):
    return {one.index: one.answer for one in given}


def outcome(read, *arguments):
    """What was read, or None and the error's sentence."""
    try:
        return read(*arguments), ""
    except ValueError as error:
        return None, str(error)


# ---- good files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    {
        "commas": GOOD.encode(),
        "BOM": GOOD.encode("utf-8-sig"),
        "UTF-16": GOOD.encode("utf-16"),
        "CRLF": GOOD.replace("\n", "\r\n").encode(),
        "CR": GOOD.replace("\n", "\r").encode(),
        "no last line end": GOOD.rstrip().encode(),
        "header in capitals": GOOD.replace("path", " Path ").replace("label,", "LABEL,").encode(),
        "backslashes": GOOD.replace("a/1", "a\\1").replace("c/2", "c\\2").encode(),
        "dot before": GOOD.replace("a/1", "./a/1").encode(),
        "spaces around": GOOD.replace("dog", "  dog ").replace("a/1.png", " a/1.png").encode(),
        "an open row": (GOOD + "3,,,,,Ann\n").encode(),
        "semicolons": SEMICOLONS.encode(),
        "tabs": SEMICOLONS.replace(";", "\t").replace("\t or", "; or").encode(),
        "no paths": NO_PATHS.encode(),
    }.values(),
    ids=lambda content: content[:12],
)
def test_good_files_are_read_alike(path, content):
    path.write_bytes(content)
    given = read_answers(path, QUERY)
    assert answers_of(given) == ANSWERS
    assert [one.by for one in given] == [None] * 4


def test_lines_are_counted_as_an_editor_counts_them(path):
    path.write_text(NO_PATHS, encoding="utf-8")
    assert [one.line for one in read_answers(path, QUERY)] == [5, 6, 7, 10]


def test_two_people_may_differ(path):
    path.write_text("index,label,labeler\n7,cat, Ann\n7,dog,Ben\n7,dog,\n3,,Ben\n")
    assert read_answers(path, QUERY) == [
        GivenAnswer(7, 0, "Ann", 2),
        GivenAnswer(7, 1, "Ben", 3),
        GivenAnswer(7, 1, None, 4),
    ]


def test_rows_that_were_not_asked_are_given_too(path):
    path.write_text("index,path,label\n8,who/knows.png,dog\n")
    assert read_answers(path, QUERY) == [GivenAnswer(8, 1, None, 2)]


def test_a_data_set_without_names_is_told_by_index(path):
    nameless = QueryRows(indices=[7, 3], names=None, classes=CLASSES, run="r1", cycle=2)
    path.write_text("index,path,label\n7,,dog\n3,anything,cat\n")
    assert answers_of(read_answers(path, nameless)) == {7: 1, 3: 0}
    path.write_text("path,label\na/1.png,dog\n")
    with pytest.raises(ValueError, match="told by index, found a path alone in line 2"):
        read_answers(path, nameless)


def test_a_query_that_nobody_answered_has_no_answers(path):
    write_to_label(path, [LabelRow(i, n, "cat", None) for i, n in zip(QUERY.indices, NAMES)])
    assert read_answers(path, QUERY) == []


# ---- bad files -----------------------------------------------------------------------------------

LONG = "x" * 200_000
BAD = {
    "a class that is none": (
        "index,label\n7,dgo\n3,Cat\n12,dog\n40,bird\n",
        "label must be a class, skip or invalid, found 'dgo' (meant 'dog'?) in line 2, 'Cat' "
        "(meant 'cat'?) in line 3, 'bird' in line 5; the classes are 'cat', 'dog', "
        "'guinea pig; or hamster'",
    ),
    "more than five": (
        "index,label\n" + "7,x\n" * 8,
        "'x' in line 2, 'x' in line 3, 'x' in line 4, 'x' in line 5, 'x' in line 6 and 3 more; the",
    ),
    "duplicate": (
        "index,label\n7,dog\n3,dog\n7,dog\n",
        "must be answered once by a person, found row 7 in lines 2 and 4; take the duplicates out",
    ),
    "duplicate by name and index": (
        "index,path,label,labeler\n7,,dog,Ann\n,a/1.png,dog,Ann\n",
        "once by a person, found row 7 in lines 2 and 3 by 'Ann'; take",
    ),
    "conflict": (
        "index,label\n7,dog\n3,dog\n7,skip\n",
        "one person must not conflict, found row 7 in lines 2 and 4 as 'dog' and 'skip'; leave",
    ),
    "two kinds at once": (
        "index,label\n7,dgo\nx,dog\n",
        "'dgo' (meant 'dog'?) in line 2; the classes are 'cat', 'dog', 'guinea pig; or hamster'. "
        "index must be the row's number in the data set, found 'x' in line 3; copy",
    ),
    "an index of another row": (
        "index,path,label\n7,a/1.png,dog\n3,a/1.png,dog\n",
        "index and path must be of the same row, found 3 beside 'a/1.png' in line 3; copy both",
    ),
    "a path of another row": (
        "index,path,label\n8,a/1.png,dog\n",
        "must be of the same row, found 8 beside 'a/1.png' in line 2",
    ),
    "a path that was not asked": (
        "path,label\na/1.png,dog\n../../etc/passwd,dog\n/a/1.png,\n",
        "a path must be a name in the query, to which alone it is matched, found "
        "'../../etc/passwd' in line 3, '/a/1.png' in line 4; copy",
    ),
    "no row": ("index,path,label\n,,dog\n", "row by index or path, found neither in line 2; copy"),
    "no whole number": (
        "index,label\n7.0,dog\n-3,dog\n٣,dog\n1e3,\n" + "9" * 5000 + ",dog\n",
        "found '7.0' in line 2, '-3' in line 3, '٣' in line 4, '1e3' in line 5, '9999",
    ),
    "a cell too many": (
        "path,label\na/1.png,dog\nb, c/2.png,dog\n4.png,cat,,\n",
        "not have more cells than the header, found 3 for 2 in line 3; put a cell that holds the",
    ),
    "empty": ("", "the first line must name the columns, label and index or path among them"),
    "no header": ("7,dog\n", "each once, found '7', 'dog' in line 1; put the header"),
    "no label": ("index,path\n7,a\n", "each once, found 'index', 'path' in line 1; put"),
    "no key": ("label,labeler\ndog,Ann\n", "each once, found 'label', 'labeler' in line 1"),
    "label twice": ("index,label,Label\n7,a,b\n", "found 'index', 'label', 'Label' in line 1"),
    "an open quote": (
        'index,label\n7,dog\n3,"dog\n12,dog\n',
        "must be a CSV file, found that it is not from line 3 on: unexpected end of data; put",
    ),
    "a stray quote": ('index,label\n7,dog\n3,"dog"gy\n', "not from line 3 on: ',' expected after"),
    "an enormous cell": (f"index,label\n7,{LONG}\n", "not from line 2 on: field larger than"),
    "a long word": (
        f"index,label\n7,{LONG[:9000]}\n",
        f"found '{'x' * 57}...' in line 2; the classes",
    ),
    "NUL": ("index,label\n7,d\0og\n", "must be a text file in UTF-8, found bytes that are not in "),
    "another code page": ("index,label\n7,dog\n3,caf\udce9\n", 'not in line 3; save it as "CSV'),
    "half a UTF-16 file": ("\udcff\udcfei\0n\0\n\0d", "that are not in line 2; save it as"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_with_lines(path, content, sentence):
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read_answers(path, QUERY)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 800


def test_a_file_of_other_words_is_refused_at_once(path, monkeypatch):
    searches = []
    monkeypatch.setattr("difflib.get_close_matches", lambda *a, **k: searches.append(a) or [])
    path.write_text("index,label\n" + "".join(f"{i},klass {i}\n" for i in range(100)))
    with pytest.raises(ValueError, match="'klass 4' in line 6 and 95 more; the classes are"):
        read_answers(path, QUERY)
    assert len(searches) == 5


def test_rows_of_one_name_are_told_by_index(path):
    twins = QueryRows(indices=[7, 3], names=["a", "a"], classes=CLASSES, run="r1", cycle=2)
    path.write_text("index,path,label\n7,a,dog\n3,a,cat\n")
    assert answers_of(read_answers(path, twins)) == {7: 1, 3: 0}
    path.write_text("index,path,label\n7,a,dog\n,a,cat\n")
    with pytest.raises(ValueError, match="share their name must be told by index, found 'a' in li"):
        read_answers(path, twins)


def test_what_is_no_file_is_refused(tmp_path):
    for reader in (read_labels, lambda path: read_answers(path, QUERY)):
        with pytest.raises(ValueError, match="must be a file that can be read, found: Is a dir"):
            reader(tmp_path)
        with pytest.raises(ValueError, match="must be a file that can be read, found: No such"):
            reader(tmp_path / "none.csv")


# ---- what is written is read ---------------------------------------------------------------------

any_text = st.text(st.characters(blacklist_categories=[]), max_size=12)
class_names = st.lists(
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from("\n\r\t,;\"'"))
    .filter(str.strip)
    .filter(lambda name: name.strip().lower() not in ("skip", "invalid")),
    min_size=2,
    max_size=5,
    unique_by=str.strip,
).filter(lambda names: not any("\ufffe" in name or "\uffff" in name for name in names))


@given(st.data(), class_names, st.lists(any_text, min_size=1, max_size=6, unique=True))
def test_what_is_written_is_read(tmp_path_factory, data, classes, names):
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    check_classes(classes)
    choices = {name: position for position, name in enumerate(classes)}
    choices |= {"skip": SKIP, "invalid": INVALID}
    indices = list(range(100, 100 + len(names)))
    words = [data.draw(st.sampled_from(list(choices))) for _ in names]
    labelers = [data.draw(st.sampled_from(["", "Ann", 'B, "é"'])) for _ in names]
    scores = [data.draw(st.none() | st.floats()) for _ in names]
    rows = [
        LabelRow(index, name, classes[0], score, word, labeler)
        for index, name, score, word, labeler in zip(indices, names, scores, words, labelers)
    ]
    write_to_label(path, rows)
    query = QueryRows(indices, names, classes, "r1", 1)
    found = read_answers(path, query)
    assert [(one.index, one.answer, one.by or "") for one in found] == [
        (index, choices[word], labeler) for index, word, labeler in zip(indices, words, labelers)
    ]


@given(class_names, st.lists(any_text.filter(str.strip), min_size=1, max_size=6))
def test_a_path_alone_finds_its_row_again(tmp_path_factory, classes, names):
    path = tmp_path_factory.getbasetemp() / "by_path.csv"
    names = list({name.strip(): name for name in names}.values())
    write_to_label(path, [LabelRow(i, name, "", 0.5, "skip") for i, name in enumerate(names)])
    no_index = path.read_bytes().replace(b"index,path", b"row,path")
    path.write_bytes(no_index)
    query = QueryRows(list(range(len(names))), names, classes, "r1", 1)
    found, sentence = outcome(read_answers, path, query)
    if found is None:
        assert "share their name" in sentence  # "\0" and r"\x00" are written alike
    else:
        assert [one.index for one in found] == query.indices


def test_a_spreadsheet_is_told_of_utf_8_where_it_matters(path):
    write_to_label(path, [LabelRow(1, "a", "b", None)])
    assert path.read_bytes() == b"index,path,predicted,score,label,labeler\r\n1,a,b,,,\r\n"
    write_to_label(path, [LabelRow(1, "é", "b", 0.25)])
    assert path.read_bytes().startswith(b"\xef\xbb\xbfindex,")


# ---- whatever the bytes --------------------------------------------------------------------------


def mutated(content: bytes):
    """Up to five bytes, or pieces that matter to a parser, put over others."""
    pieces = st.binary(max_size=2) | st.sampled_from(
        [b'"', b"\0", b"\r", b"\n", b",", b";", b"7", b"dog", b"Ann", b"\xff\xfe", b"[", b"null"]
    )
    change = st.tuples(st.integers(0, len(content)), st.integers(0, 4), pieces)

    def apply(changes):
        result = content
        for start, length, piece in changes:
            result = result[:start] + piece + result[start + length :]
        return result

    return st.lists(change, max_size=5).map(apply)


@given(
    st.binary(max_size=300)
    | st.sampled_from([GOOD, SEMICOLONS]).flatmap(lambda text: mutated(text.encode()))
)
def test_whatever_the_bytes_the_answers_are_valid_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    found, sentence = outcome(read_answers, path, QUERY)
    if found is None:
        assert sentence.startswith(str(path))
    else:
        for one in found:
            assert type(one.index) is int
            assert one.answer in (SKIP, INVALID) or one.answer in range(3)
            assert one.by is None or one.by.strip()
            assert one.line >= 2
        assert len({(one.index, one.by) for one in found}) == len(found)


@given(st.binary(max_size=300) | mutated(b"path,label\na/1.png,cat\nb\\2.png,dog\n./3,cat\n"))
def test_whatever_the_bytes_the_labels_are_valid_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz_labels.csv"
    path.write_bytes(content)
    found, sentence = outcome(read_labels, path)
    if found is None:
        assert sentence.startswith(str(path))
    else:
        for name, label in found.items():
            assert name
            assert not {"", ".", ".."}.intersection(name.split("/"))
            assert label
            assert label == label.strip()


# ---- labels to start from ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "path,label\ncats/1.png,cat\ndogs/2.png,dog\n3.png,\n",
        "index;Label;PATH\r\n1; cat;.\\cats\\1.png\r\n\r\n2;dog;./dogs//2.png\r\n",
        'path\tlabel\r"cats/1.png"\t"cat"\rdogs/./2.png\tdog\r',
        "\ufeffpath,label\ncats/1.png,cat\ncats/1.png,\ndogs/2.png,dog\n",
    ],
)
def test_labels_to_start_from(path, content):
    path.write_text(content, encoding="utf-8", newline="")
    assert read_labels(path) == {"cats/1.png": "cat", "dogs/2.png": "dog"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "path,label\n/etc/x,cat\n..\\1.png,cat\nC:\\1.png,cat\na/../../b,\n\\\\server\\a,dog\n.,a",
            "a path must be relative and stay in its folder, found '/etc/x' in line 2, "
            r"'..\\1.png' in line 3, 'C:\\1.png' in line 4, 'a/../../b' in line 5, "
            r"'\\\\server\\a' in line 6 and 1 more; write",
        ),
        ("path,label\n,cat\n", "stay in its folder, found '' in line 2"),
        (
            "path,label\na.png,cat\nb.png,cat\n.\\a.png,cat\n",
            "a path must be listed once, found 'a.png' in lines 2 and 4; take the duplicates out",
        ),
        (
            "path,label\na.png,cat\nb.png,cat\n./a.png,dog\n",
            "not be in conflict, found 'a.png' in lines 2 and 4 as 'cat' and 'dog'; leave the",
        ),
        ("index,label\n1,cat\n", "label and path among them, each once, found 'index', 'label'"),
        ("path,label\na,b,cat\n", "more cells than the header, found 3 for 2 in line 2"),
        ('path,label\n"a,cat\n', "not from line 2 on: unexpected end of data"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(path, content, sentence):
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read_labels(path)
    assert str(error.value).startswith(str(path))


# ---- classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["cat"], r"at least 2, got \['cat'\]"),
        ([], r"at least 2, got \[\]"),
        (["cat", " "], "must have a name, got ' ' at position 1; rename it"),
        (["cat", "dog", "cat"], "must differ from each other .*, got 'cat' at position 2"),
        (["cat", "cat "], "must differ from each other .*, got 'cat ' at position 1"),
        (["Skip", "cat"], "not be called skip or invalid, .*, got 'Skip' at position 0"),
        (["cat", "invalid "], "not be called skip or invalid, .*, got 'invalid ' at position 1"),
        (["cat", "d\0g"], r"a text file can hold, got 'd\\x00g' at position 1"),
        (["cat", "d\udce9g"], r"a text file can hold, got 'd\\udce9g' at position 1"),
    ],
)
def test_classes_that_people_could_not_answer_in(classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_classes(classes)


def test_classes_that_they_can(path):
    check_classes(["cat", "Cat", 'a "b", <c>', "日本", "two\nlines", "👩‍🚒"])


# ---- spreadsheets --------------------------------------------------------------------------------


def test_no_cell_is_run_by_a_spreadsheet_and_each_is_read_back(path):
    classes = ["=1+1", "-x", "+a", "@b", "'=c", "''-d", "\tcat", "-0.5", "plain"]
    names = [f"{name.strip()}.png" for name in classes]
    query = QueryRows(list(range(9)), names, classes, "r1", 1)
    both = enumerate(zip(names, classes))
    rows = [LabelRow(i, name, one, -0.5, one, "=ann", "+text") for i, (name, one) in both]
    write_to_label(path, rows)
    with open(path, newline="", encoding="utf-8-sig") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    begun = [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert set(begun) == {"-0.5"}  # which is a number
    found = read_answers(path, query)
    assert [(one.index, one.answer, one.by) for one in found] == [(n, n, "=ann") for n in range(9)]
    path.write_text("path,label\n-x.png,-x\n")  # as a person types it
    assert [one.answer for one in read_answers(path, query)] == [1]


def test_the_tables_of_a_run_are_safe_too(tmp_path):
    write_safe(tmp_path / "t.csv", ["index", "=path"], [[1, "=1+1"], [-2, "@x"], [-0.5, "plain"]])
    text = (tmp_path / "t.csv").read_text()
    assert text == "index,'=path\n1,'=1+1\n-2,'@x\n-0.5,plain\n"


@given(st.text(st.sampled_from("'=+-@\t\ra1."), max_size=6))
def test_a_safe_cell_is_read_back(text):
    cell = safe(text)
    assert read_safe(cell) == text
    try:
        float(text)
    except ValueError:
        assert not cell.startswith(tuple("=+-@\t\r"))
    else:
        assert cell == text


@pytest.mark.parametrize(
    "classes", [["cat", "c\u0430t"], ["caf\u00e9", "cafe\u0301"], ["\uff21", "A"], ["\u039f", "O"]]
)
def test_classes_that_look_the_same_are_refused(classes):
    with pytest.raises(ValueError, match="classes must look different, and '.*' of other char"):
        check_classes(classes)
    check_classes(["\u041a\u043e\u0442", "\u043a\u0438\u0442", "cat", "Cat", "\u00e9", "e"])
