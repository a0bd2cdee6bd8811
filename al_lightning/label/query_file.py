"""A query as a CSV file: people fill in its column ``label``, and the run reads it again."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from al_lightning.label.fold import Answer, in_words
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import Mark, listed
from al_lightning.run.tables import Problems, read_table, shown, write_table
from al_lightning.settings import TaskName

HEADER = ["index", "path", "predicted", "score", "label", "labeler"]


@dataclass(frozen=True)
class LabelRow:
    """Holds a row to label, as a person finds it in a file."""

    index: int
    """Data-set index."""
    name: str
    """The name by which a person knows it; empty when the data set has no names."""
    predicted: str
    """The model's prediction, in words; empty when there is none yet."""
    score: float | None
    label: str = ""
    labeler: str = ""
    text: str = ""
    """Text in it, for a row that is text."""
    table: Mapping[str, str] = field(default_factory=dict)
    """Its columns, for a row of a table."""


@dataclass(frozen=True)
class QueryRows:
    """Holds the query that the answers in a file must fit."""

    indices: list[int]
    """Data-set indices that were asked."""
    names: list[str] | None
    """One for each index; None for a data set without names."""
    classes: list[str] | None
    run: str
    """The run's identity; no other run has the same."""
    cycle: int
    task: TaskName = "multiclass"

    @property
    def form(self) -> LabelForm:
        """The form of a label."""
        return LabelForm(self.task, self.classes)


@dataclass(frozen=True)
class GivenAnswer:
    """Holds an answer in a file."""

    index: int
    """Data-set index."""
    answer: Answer
    """A label, SKIP or INVALID; None for a line without a label."""
    by: str | None
    """The person's name; None when the file does not say it."""
    line: int
    """Line in a CSV file, or position of the task in an export; from 1."""


# ---- answers -------------------------------------------------------------------------------------


def find_answer(word: str, form: LabelForm) -> Answer:
    """Return the label that these words mean, or a mark; None for any other word.

    >>> form = LabelForm("multiclass", ["cat", "dog"])
    >>> [find_answer(word, form) for word in (" dog ", "Skip", "Dog")]
    [1, <Mark.SKIP: 'skip'>, None]
    """
    marks = {mark.value: mark for mark in Mark}
    label = form.find(word)
    return marks.get(word.strip().lower()) if label is None else label


def add_unknown(word: str, form: LabelForm, number: int, problems: Problems) -> None:
    """Note a word that is no label, together with the class that was probably meant."""
    found = shown(word)
    if form.task == "regression":
        rule = "a label must be a number, skip or invalid"
        problems.add(rule, found, number, "write it with a point, and several with ; between them")
        return
    classes = form.classes or ()
    several = " or several with ; between them, none," * (form.task == "multilabel")
    rule = f"a label must be a class,{several} skip or invalid"
    cure = f"the classes are {listed([shown(name) for name in classes])}"
    if not problems.only_counts(rule, cure):  # the search is slow, and a file may be full of these
        by_lower = {name.lower(): name for name in classes}
        for near in difflib.get_close_matches(word.strip().lower(), by_lower, n=1):
            found += f" (meant {shown(by_lower[near])}?)"
    problems.add(rule, found, number, cure)


def add_repeats(given: Sequence[GivenAnswer], form: LabelForm, problems: Problems) -> None:
    """Note each row that the same person answered twice."""
    firsts: dict[tuple[int, str | None], GivenAnswer] = {}
    for one in given:
        first = firsts.setdefault((one.index, one.by), one)
        if first is one:
            continue
        where = f"row {one.index} in {problems.place}s {first.line} and {one.line}"
        if first.answer == one.answer:
            rule, cure = "a row must be answered once by a person", "take the duplicates out"
        else:
            words = [shown(in_words(answer, form)) for answer in (first.answer, one.answer)]
            where += f" as {' and '.join(words)}"
            rule, cure = "answers of one person must not conflict", "leave the right one"
        problems.note(rule, where + (f" by {shown(one.by)}" if one.by else ""), cure)


# ---- the file ------------------------------------------------------------------------------------


def write_to_label(path: Path, rows: Sequence[LabelRow]) -> None:
    """Write a query for people to fill in its column ``label``; completely or not at all.

    What people see of a row stands behind that: ``row.text``, and ``row.NAME`` for each column of a
    table. No class or column of ours has such a name.
    """
    cells = [[r.index, _writable(r.name), r.predicted, r.score, r.label, r.labeler] for r in rows]
    has_text = any(row.text for row in rows)
    names = [*dict.fromkeys(name for row in rows for name in row.table)]
    header = [*HEADER, *["row.text"] * has_text, *(f"row.{_writable(name)}" for name in names)]
    for line, row in zip(cells, rows, strict=True):
        line += [_writable(row.text)] * has_text
        line += [_writable(row.table.get(name, "")) for name in names]
    write_table(path, [header, *cells])


def _writable(name: str) -> str:
    """Escape what UTF-8 text cannot hold, because a file's name may be any bytes."""
    return name.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def read_answers(path: Path, query: QueryRows) -> list[GivenAnswer]:
    """Return every answer in a CSV file; see :func:`read_lines`."""
    return [one for one in read_lines(path, query) if one.answer is not None]


def read_lines(path: Path, query: QueryRows) -> list[GivenAnswer]:
    """Return every line of a CSV file, including answers to rows that were not asked.

    A line without a label is an answer of None: no answer yet, or one that was taken out again.

    Args:
        path: Has the columns ``index`` or ``path`` or both, ``label``, and perhaps ``labeler``,
            separated by commas, semicolons or tabs.
        query: The query that they must fit.

    Raises:
        ValueError: when anything in the file is wrong.
    """
    problems = Problems(path, "line")
    asked = _AskedRows(query)
    given = []
    for number, cells in read_table(path, ("index", "path"), problems):
        index = asked.find(cells, number, problems)
        word = cells["label"]
        answer = find_answer(word, query.form) if word.strip() else None
        if answer is None and word.strip():
            add_unknown(word, query.form, number, problems)
        elif index is not None:
            by = cells.get("labeler", "").strip() or None
            given.append(GivenAnswer(index, answer, by, number))
    add_repeats([one for one in given if one.answer is not None], query.form, problems)
    problems.check()
    return given


class _AskedRows:
    """Finds the row that a line is about."""

    def __init__(self, query: QueryRows) -> None:
        self.indices = set(query.indices)
        self.has_names = query.names is not None
        self.by_name: dict[str, list[int]] = {}
        for index, name in zip(query.indices, query.names or [], strict=self.has_names):
            self.by_name.setdefault(_writable(name), []).append(index)

    def find(self, cells: dict[str, str], number: int, problems: Problems) -> int | None:
        """Return the row's data-set index; None when something is wrong, which is noted."""
        index, name = cells.get("index", "").strip(), cells.get("path", "")
        if index and not re.fullmatch("[0-9]{1,18}", index):
            rule = "index must be the row's number in the data set"
            problems.add(rule, shown(index), number, "copy it from the query")
        elif index:
            return self._agreeing(int(index), name, number, problems)
        elif not name.strip():
            rule = "a line must say its row by index or path"
            problems.add(rule, "neither", number, "copy them from the query")
        elif not self.has_names:
            rule = "rows without names must be told by index"
            problems.add(rule, "a path alone", number, "copy it from the query")
        else:
            return self._named(name, number, problems)
        return None

    def _agreeing(self, index: int, name: str, number: int, problems: Problems) -> int | None:
        """Return the index, unless its name is known and is another one."""
        named = self._indices_of(name)
        known = bool(named) or index in self.indices
        if not (self.has_names and name.strip() and known) or index in named:
            return index
        rule = "index and path must be of the same row"
        problems.add(rule, f"{index} beside {shown(name)}", number, "copy both from the query")
        return None

    def _named(self, name: str, number: int, problems: Problems) -> int | None:
        named = self._indices_of(name)
        if len(named) == 1:
            return named[0]
        if named:
            rule, cure = "rows that share their name must be told by index", "add the index"
        else:
            rule = "a path must be a name in the query, to which alone it is matched"
            cure = "copy it from the query, or give the row's index"
        problems.add(rule, shown(name), number, cure)
        return None

    def _indices_of(self, name: str) -> list[int]:
        as_posix = name.strip().replace("\\", "/").removeprefix("./")
        for spelling in (name, name.strip(), as_posix):
            if spelling in self.by_name:
                return self.by_name[spelling]
        return []
