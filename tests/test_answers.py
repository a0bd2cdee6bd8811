"""What people answer: folded, taken back, settled and closed, from the journal alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from al_lightning import INVALID, SKIP
from al_lightning.label.agreement import agreements, cohens_kappa
from al_lightning.label.answers import OpenQuery, rows_before
from al_lightning.label.fold import fold, to_plain
from al_lightning.run.journal import Journal, read_records

CLASSES = ["cat", "dog", "eel"]


def waiting(path=None, *, asked=(5, 3, 8), classes=CLASSES, labeled=(0, 1)) -> OpenQuery:
    """A query of a run of ten rows, in which rows 0 and 1 are labeled and 9 is held out."""
    journal = Journal(path)
    split = {"num_rows": 10, "labeled_indices": list(labeled), "held_out": [9], "invalid": [7]}
    journal.append("start", config={"data": {"classes": classes}}, split=split, run="r")
    if labeled:
        for event in ("fit", "test"):
            journal.append(event, cycle=1)
    journal.append("query", cycle=1 if labeled else 0, indices=list(asked), names=None)
    return OpenQuery(journal)


def held(query):
    return {index: row.answer for index, row in query.rows.items()}


def test_an_answer_is_on_the_disk_and_holds_after_a_crash(tmp_path):
    path = tmp_path / "journal.jsonl"
    query = waiting(path)
    query.answer({5: 1}, by="ann", how="page")
    query.answer({3: SKIP, 8: INVALID}, by="ben", how="page")
    record = read_records(path)[-1]
    assert record["by"] == "ben"
    assert record["how"] == "page"
    assert record["at"].endswith("+00:00")
    again = OpenQuery(Journal(path))
    assert held(again) == {5: 1, 3: SKIP, 8: INVALID}
    assert again.open_indices == []


def test_answers_of_one_person_replace_each_other_and_undo_brings_them_back():
    query = waiting()
    query.answer({5: 1, 3: 0}, by="ann", how="page")
    query.answer({5: 2}, by="ann", how="page")
    assert held(query) == {5: 2, 3: 0}
    assert query.undo(how="page") == [5]
    assert held(query) == {5: 1, 3: 0}
    assert query.undo(how="page") == [5, 3]
    assert held(query) == {}
    with pytest.raises(ValueError, match="no answer to take back"):
        query.undo(how="page")


def test_undo_takes_back_ones_own():
    query = waiting()
    query.answer({5: 1}, by="ann", how="page")
    query.answer({3: 1}, by="ben", how="page")
    assert query.undo(by="ann", how="page") == [5]
    with pytest.raises(ValueError, match="no answer of ann to take back"):
        query.undo(by="ann", how="page")
    assert held(query) == {3: 1}


def test_people_who_differ_must_settle():
    query = waiting()
    query.answer({5: 1, 3: 2, 8: 0}, by="ann", how="page")
    query.answer({5: 1, 3: 0}, by="ben", how="page")
    assert query.rows[3].in_conflict
    assert query.open_indices == [3]
    with pytest.raises(ValueError, match=r"found 1 rows on which people differ: \[3\]; settle"):
        query.finish(how="page")
    query.answer({3: INVALID}, by="ann", how="page", settles=True)
    assert query.rows[3].answer is INVALID
    assert query.rows[3].labelers == ["ann", "ben"]
    record = query.finish(how="page")
    assert (record["indices"], record["labels"]) == ([5, 8], [1, 0])
    assert record["invalid"] == [3]


def test_what_has_no_answer_returns_and_labels_of_before_are_corrected():
    query = waiting()
    query.answer({5: 1, 0: 2, 1: INVALID}, how="files")
    query.answer({3: SKIP}, how="files")
    record = query.finish(by="ann", how="page")
    assert (record["indices"], record["labels"]) == ([5], [1])
    assert (record["skipped"], record["invalid"]) == ([3], [1])
    assert record["corrected"] == [[0, 2]]
    assert record["by"] == "ann"
    with pytest.raises(ValueError, match="no query waits for labels: .* 'labels'"):
        OpenQuery(query.journal)


def test_the_outcome_is_what_closing_would_record():
    query = waiting()
    query.answer({5: 1, 0: 2, 1: INVALID, 3: 0}, by="ann", how="files")
    query.answer({3: 1}, by="ben", how="page")
    before = list(query.journal.records)
    now = query.outcome()
    assert (now["indices"], now["labels"], now["skipped"]) == ([5], [1], [])
    assert (now["invalid"], now["corrected"], now["last"]) == ([1], [[0, 2]], [])
    then = query.outcome({3: SKIP, 5: 0})
    assert query.journal.records == before
    closed = query.finish({3: SKIP, 5: 0}, how="tell")
    assert {name: closed[name] for name in then} == then
    assert (then["indices"], then["labels"], then["skipped"]) == ([5], [0], [3])
    assert then["last"] == [3, 5]


def test_rows_before_are_those_of_closed_queries():
    query = waiting()
    query.answer({5: 1, 3: INVALID}, how="page")
    assert rows_before(query.journal.records) == ({0, 1}, {7, 9})
    query.finish(how="page")
    assert rows_before(query.journal.records) == ({0, 1, 5}, {3, 7, 9})


def test_the_first_labels_are_at_least_one():
    query = waiting(labeled=())
    assert query.cycle == 0
    query.answer({5: SKIP, 3: INVALID}, how="page")
    with pytest.raises(ValueError, match="at least one row must get a label"):
        query.finish(how="page")
    query.answer({8: 0}, how="page")
    assert query.finish(how="page")["indices"] == [8]


def test_the_last_label_cannot_be_taken_out():
    query = waiting(labeled=(0,))
    query.answer({0: INVALID, 5: SKIP}, how="page")
    with pytest.raises(ValueError, match="at least one row must get a label"):
        query.finish(how="page")
    query.answer({3: 1}, how="page")
    assert query.finish(how="page")["invalid"] == [0]


def test_who_settled_may_think_again():
    query = waiting()
    query.answer({5: 1}, by="ann", how="page")
    query.answer({5: 0}, by="ben", how="page")
    query.answer({5: 1}, by="ann", how="page", settles=True)
    query.answer({5: 0}, by="ben", how="page")
    assert held(query) == {5: 1}
    query.answer({5: 2}, by="ann", how="page")
    assert held(query) == {5: 2}


def test_a_label_may_be_several_classes_at_once():
    query = waiting()
    query.answer({5: [0, 1, 1]}, how="api")
    assert query.finish(how="api")["labels"] == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({5: 1, 4: 0}, r"rows that were asked, found 1 that were not: \[4\]; accept them with"),
        ({0: SKIP}, r"has a label cannot be skipped, found \[0\]"),
        ({5: 3}, r"position in the 3 classes \['cat', 'dog', 'eel'\], got 3 for row 5"),
        ({5: "cat"}, "got 'cat' for row 5"),
        ({5: -1}, "got -1 for row 5"),
        ({5: True}, "got True for row 5"),
    ],
)
def test_bad_answers_change_nothing(answers, message):
    query = waiting()
    before = list(query.journal.records)
    with pytest.raises(ValueError, match=message):
        query.answer(answers, how="page")
    assert query.journal.records == before


@pytest.mark.parametrize("index", [9, 7, 10, -1])  # held out, invalid, no rows
def test_unasked_rows_are_accepted_when_they_are_of_the_pool(index):
    query = waiting()
    query.answer({4: 0}, how="files", accept_unasked=True)
    assert query.finish(how="files")["indices"] == [4]
    with pytest.raises(ValueError, match=rf"rows of the pool, found 1 others: \[{index}\]"):
        waiting().answer({index: 0}, how="files", accept_unasked=True)


def test_rows_that_became_invalid_later_are_none_of_the_pool():
    query = waiting()
    query.answer({3: INVALID}, how="page")
    journal = query.journal
    query.finish(how="page")
    for event in ("fit", "test"):
        journal.append(event, cycle=2)
    journal.append("query", cycle=2, indices=[8], names=None)
    with pytest.raises(ValueError, match=r"rows of the pool, found 1 others: \[3\]"):
        OpenQuery(journal).answer({3: 0}, how="files", accept_unasked=True)


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("answer"),
            st.dictionaries(st.sampled_from([5, 3, 8]), st.sampled_from([0, 1, SKIP, INVALID])),
            st.sampled_from(["ann", "ben", None]),
            st.booleans(),
        ),
        st.tuples(st.just("undo"), st.sampled_from(["ann", "ben", None])),
    ),
    max_size=15,
)


@given(steps)
def test_any_history_folds_to_what_it_means(steps):
    """Against the definition: drop what was taken back, then read from the end."""
    query, kept = waiting(), []
    for step in steps:
        if step[0] == "answer":
            _, answers, by, settles = step
            query.answer(answers, by=by, how="page", settles=settles)
            kept.append((answers, by, settles))
            continue
        mine = [n for n, (_, by, _) in enumerate(kept) if step[1] in (None, by)]
        if mine:
            assert query.undo(by=step[1], how="page") == list(kept.pop(mine[-1])[0])
        else:
            with pytest.raises(ValueError, match="to take back"):
                query.undo(by=step[1], how="page")
    for index in (5, 3, 8):
        said = [(a[index], by, settles) for a, by, settles in kept if index in a]
        settled, settler = [], None
        for answer, by, settles in said:
            if settles or (settled and by == settler):  # who settled it may think again
                settled.append(answer)
                settler = by
        latest = {by: answer for answer, by, _ in said}
        expected = settled[-1] if settled else None
        if not settled and len(set(latest.values())) == 1:
            (expected,) = set(latest.values())
        row = query.rows.get(index)
        assert (row.answer if row else None) == expected
        assert (index in query.open_indices) == (expected is None)
        assert bool(row and row.in_conflict) == (expected is None and bool(said))


# ---- agreement -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_kappa_is_scikit_learns(pairs):
    first, second = zip(*pairs, strict=True)
    if len({*first, *second}) == 1:  # scikit-learn warns, and gives NaN
        assert math.isnan(cohens_kappa(first, second))
        return
    expected = cohen_kappa_score(first, second)
    assert cohens_kappa(first, second) == pytest.approx(expected, abs=1e-12)


def test_kappa_by_hand():
    # Equal in 3 of 4; by chance 1/2 * 3/4 + 1/2 * 1/4 = 1/2.
    assert cohens_kappa([0, 0, SKIP, SKIP], [0, 0, SKIP, 0]) == 0.5


def test_agreement_is_of_rows_that_both_answered_and_of_names_alone():
    query = waiting()
    query.answer({5: 1, 3: 0, 8: 1}, by="ann", how="page")
    query.answer({5: 1, 3: 1}, by="ben", how="page")
    query.answer({8: 1}, how="page")
    query.answer({3: 1}, by="ann", how="page", settles=True)
    query.undo(by="ann", how="page")
    (found,) = agreements(query.journal.records)
    assert (found.first, found.second, found.num_rows, found.num_equal) == ("ann", "ben", 2, 1)
    assert found.kappa == cohens_kappa([1, 0], [1, 1]) == 0.0


def test_fold_reads_answers_of_numbers_as_they_came():
    query = waiting(classes=None)
    query.answer({5: 2.5, 3: "cat"}, how="api")
    assert {i: row.answer for i, row in fold(query.records).items()} == {5: 2.5, 3: "cat"}
    assert torch.tensor(query.finish(how="api")["labels"][0]) == 2.5


# ---- taken back by row ---------------------------------------------------------------------------


def test_an_answer_of_any_age_is_taken_back_by_its_row():
    query = waiting()
    query.answer({5: 1, 3: 0}, by="ann", how="page")
    query.answer({5: 2}, by="ben", how="page")
    query.answer({8: 0}, by="ann", how="page")
    assert query.differing.keys() == {5}
    query.answer({5: None}, by="ann", how="page")
    assert held(query) == {5: 2, 3: 0, 8: 0}
    assert query.differing == {}
    query.answer({5: None}, by="ben", how="page")
    assert held(query) == {3: 0, 8: 0}
    assert query.open_indices == [5]
    assert query.undo(by="ben", how="page") == [5]  # what was taken back comes back
    assert held(query) == {5: 2, 3: 0, 8: 0}
    assert sorted(query.finish(how="page")["indices"]) == [3, 5, 8]


def test_what_settled_a_row_can_be_taken_back():
    query = waiting()
    query.answer({5: 1}, by="ann", how="page")
    query.answer({5: 2}, by="ben", how="page")
    query.answer({5: 0}, by="ben", how="page", settles=True)
    assert held(query)[5] == 0
    query.answer({5: None}, by="ben", how="page")
    assert held(query)[5] == 1
    assert not query.rows[5].in_conflict


@given(st.data())
def test_folding_is_reading_the_last_word_of_each_person(data):
    """Against a definition that looks at all records anew."""
    records, standing = [], []
    for number in range(data.draw(st.integers(0, 14))):
        if standing and data.draw(st.booleans()) and data.draw(st.booleans()):
            undone = data.draw(st.sampled_from(standing))
            standing.remove(undone)
            records.append({"event": "undo", "number": undone["number"]})
        rows = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
        word = data.draw(st.sampled_from([{"label": 0}, {"label": 1}, "skip", None]))
        record = {"event": "answers", "number": number, "by": data.draw(st.sampled_from("ab"))}
        record |= {"answers": [[row, word] for row in rows], "at": "", "how": "", "settles": False}
        records.append(record)
        standing.append(record)
    expected = {}
    for row in range(3):
        words = {}
        for record in standing:
            for index, word in record["answers"]:
                if index == row:
                    words[record["by"]] = word
        given = [word for word in words.values() if word is not None]
        if given:
            expected[row] = given[0] if all(word == given[0] for word in given) else "differ"
    found = {
        index: "differ" if row.in_conflict else to_plain(row.answer)
        for index, row in fold(records).items()
    }
    assert found == expected
