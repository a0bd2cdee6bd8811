"""Labels in CSV files: what people fill in for a query, and labels to start from.

A file that people made is checked whole before any of it counts, and all that is wrong with it is
one error that names the lines. A path in such a file is only ever matched to names that are known
already; it never opens anything.
"""

import codecs
import csv
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from al_lightning.label.answers import Answer, Mark
from al_lightning.run.folder import write_whole

HEADER = ["index", "path", "predicted", "score", "label", "labeler"]
READ = ("index", "path", "label", "labeler")
"""The columns that are read; whatever else a file holds is its owner's."""

NUM_SHOWN = 5
"""An error shows so many of a kind, and counts the others."""

NOT_IN_A_FILE = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold, and so neither a labeling tool's configuration."""


@dataclass(frozen=True)
class LabelRow:
    """A row to label, as a person finds it in a file."""

    index: int
    """Data-set index."""
    name: str
    """What a person knows it by; empty when the data set has no names."""
    predicted: str
    """The model's class; empty when there is none yet."""
    score: float | None
    label: str = ""
    labeler: str = ""


@dataclass(frozen=True)
class QueryRows:
    """What the answers in a file must fit."""

    indices: list[int]
    """Data-set indices that were asked."""
    names: list[str] | None
    """One an index; None for a data set without names."""
    classes: list[str]
    run: str
    """Tells this run from every other."""
    cycle: int


@dataclass(frozen=True)
class GivenAnswer:
    """An answer in a file."""

    index: int
    """Data-set index."""
    answer: Answer
    """Position in the classes, SKIP or INVALID."""
    by: str | None
    """Who, when the file says so."""
    line: int
    """Line in a CSV file, position of the task in an export; from 1."""


class Problems:
    """What is wrong with a file, gathered so that all of it is said at once.

    Args:
        path: The file.
        place: What is counted in it: ``"line"`` or ``"task"``.
    """

    def __init__(self, path: Path, place: str) -> None:
        self.path = path
        self.place = place
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, rule: str, found: str, number: int, cure: str) -> None:
        """Notes ``found`` at a place; what breaks one rule is listed together."""
        self.note(rule, f"{found} in {self.place} {number}", cure)

    def note(self, rule: str, found: str, cure: str) -> None:
        """The same for what says itself where it is."""
        self._found.setdefault((rule, cure), []).append(found)

    def only_counts(self, rule: str, cure: str) -> bool:
        """Whether so many were noted that a further one will not be shown."""
        return len(self._found.get((rule, cure), ())) >= NUM_SHOWN

    def check(self) -> None:
        """Raises ValueError when anything was noted."""
        sentences = [
            f"{rule}, found {listed(found)}; {cure}" for (rule, cure), found in self._found.items()
        ]
        if sentences:
            raise ValueError(f"{self.path}: {'. '.join(sentences)}")


def listed(found: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(found) - NUM_SHOWN} more" if len(found) > NUM_SHOWN else ""
    return ", ".join(found[:NUM_SHOWN]) + more


def shown(text: str) -> str:
    """A cell as an error shows it: quoted, and not at any length."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


# ---- classes and answers -------------------------------------------------------------------------


def check_classes(classes: Sequence[str]) -> None:
    """Whether people can answer in these words.

    Raises:
        ValueError: for fewer than two, for one that is empty, twice there, called ``skip`` or
            ``invalid``, or that holds characters that a file cannot.
    """
    if len(classes) < 2:
        raise ValueError(f"classes must be at least 2, got {list(classes)}")
    words = [name.strip() for name in classes]
    marks = [mark.value for mark in Mark]
    for position, (name, word) in enumerate(zip(classes, words, strict=True)):
        if not word:
            why = "must have a name"
        elif word.lower() in marks:
            why = f"must not be called {' or '.join(marks)}, which are answers of their own"
        elif word in words[:position]:
            why = "must differ from each other by more than spaces around them"
        elif NOT_IN_A_FILE.search(name):
            why = "must be of characters that a text file can hold"
        else:
            continue
        raise ValueError(f"classes {why}, got {shown(name)} at position {position}; rename it")


def find_answer(word: str, classes: Sequence[str]) -> Answer:
    """Position of the class of that name, or a mark; None for a word that is neither.

    >>> [find_answer(word, ["cat", "dog"]) for word in (" dog ", "Skip", "Dog")]
    [1, <Mark.SKIP: 'skip'>, None]
    """
    for spelling in (word, word.strip()):
        if spelling in classes:
            return classes.index(spelling)
    marks = {mark.value: mark for mark in Mark}
    return marks.get(word.strip().lower())


def add_unknown(word: str, classes: Sequence[str], number: int, problems: Problems) -> None:
    """Notes a label that is none, with the class that it was likely meant to be."""
    rule = "a label must be a class, skip or invalid"
    cure = f"the classes are {listed([shown(name) for name in classes])}"
    found = shown(word)
    if not problems.only_counts(rule, cure):  # the search takes long, a file may be of other words
        by_lower = {name.lower(): name for name in classes}
        for near in difflib.get_close_matches(word.strip().lower(), by_lower, n=1):
            found += f" (meant {shown(by_lower[near])}?)"
    problems.add(rule, found, number, cure)


def add_repeats(given: Sequence[GivenAnswer], classes: Sequence[str], problems: Problems) -> None:
    """Notes each row that one and the same person answered twice."""
    firsts: dict[tuple[int, str | None], GivenAnswer] = {}
    for one in given:
        first = firsts.setdefault((one.index, one.by), one)
        if first is one:
            continue
        where = f"row {one.index} in {problems.place}s {first.line} and {one.line}"
        if first.answer == one.answer:
            rule, cure = "a row must be answered once by a person", "take the duplicates out"
        else:
            words = [shown(_word(answer, classes)) for answer in (first.answer, one.answer)]
            where += f" as {' and '.join(words)}"
            rule, cure = "answers of one person must not conflict", "leave the right one"
        problems.note(rule, where + (f" by {shown(one.by)}" if one.by else ""), cure)


def _word(answer: Answer, classes: Sequence[str]) -> str:
    return str(answer.value) if isinstance(answer, Mark) else classes[answer]


# ---- a query's file ------------------------------------------------------------------------------


def write_to_label(path: Path, rows: Sequence[LabelRow]) -> None:
    """Writes a query for people to fill in its column ``label``; whole or not at all."""
    text = io.StringIO()
    # With this line end a lone CR in a name is quoted, on Python before 3.13 too.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(HEADER)
    for row in rows:
        score = "" if row.score is None else row.score
        writer.writerow(
            [row.index, _writable(row.name), row.predicted, score, row.label, row.labeler]
        )
    content = text.getvalue()
    # Excel takes a file without the mark for one of the old code pages.
    write_whole(path, content.encode("utf-8" if content.isascii() else "utf-8-sig"))


def _writable(name: str) -> str:
    """The name with escapes for what UTF-8 text cannot hold: file names may be any bytes."""
    return name.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def read_answers(path: Path, query: QueryRows) -> list[GivenAnswer]:
    """Every answer in a CSV file, also to rows that were not asked.

    Args:
        path: Columns ``index`` or ``path`` or both, ``label``, and ``labeler`` if any; separated by
            commas, semicolons or tabs. A line without a label is no answer yet.
        query: What they must fit.

    Raises:
        ValueError: when anything about the file is wrong.
    """
    problems = Problems(path, "line")
    asked = _AskedRows(query)
    given = []
    for number, cells in _read_table(path, ("index", "path"), problems):
        index = asked.find(cells, number, problems)
        word = cells["label"]
        if not word.strip():
            continue
        answer = find_answer(word, query.classes)
        if answer is None:
            add_unknown(word, query.classes, number, problems)
        elif index is not None:
            by = cells.get("labeler", "").strip() or None
            given.append(GivenAnswer(index, answer, by, number))
    add_repeats(given, query.classes, problems)
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
        """The row's data-set index; None when there was something to note."""
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
        """The index, unless its name is known and is another one."""
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


# ---- labels to start from ------------------------------------------------------------------------


def read_labels(path: Path) -> dict[str, str]:
    """The labels in a CSV file with the columns ``path`` and ``label``.

    Returns:
        Class names by relative path with forward slashes. A line without a label gives none, nor
        does one that was skipped or invalid.

    Raises:
        ValueError: when anything about the file is wrong, such as a path that leads out of the
            folder that it is relative to.
    """
    problems = Problems(path, "line")
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, cells in _read_table(path, ("path",), problems):
        name, label = _inside(cells["path"]), cells["label"].strip()
        if name is None:
            rule = "a path must be relative and stay in its folder"
            cure = "write it relative to the folder of the images"
            problems.add(rule, shown(cells["path"]), number, cure)
        elif label and name in labels:
            where = f"{shown(name)} in lines {lines[name]} and {number}"
            if labels[name] == label:
                problems.note("a path must be listed once", where, "take the duplicates out")
            else:
                where += f" as {shown(labels[name])} and {shown(label)}"
                problems.note("a path must not be in conflict", where, "leave the right label")
        elif label:
            labels[name], lines[name] = label, number
    problems.check()
    marks = [mark.value for mark in Mark]
    return {name: label for name, label in labels.items() if label.lower() not in marks}


def _inside(path: str) -> str | None:
    """A relative path in its shortest form, or None when it is none or leads elsewhere.

    >>> _inside("./cats//1.png"), _inside("../1.png"), _inside("C:1.png")
    ('cats/1.png', None, None)
    """
    path = path.strip().replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or re.match("/|[A-Za-z]:", path):
        return None
    return "/".join(parts)


# ---- tables --------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """What the file holds; ValueError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} must be a file that can be read, found: {error.strerror}; change it or take "
            "it away"
        ) from error


def _read_table(
    path: Path, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column, of each line after the header that is not blank.

    Args:
        path: A CSV file.
        keys: Columns of which one must be there, beside ``label``.
        problems: Takes lines that do not fit the header.
    """
    text = _decoded(path)
    lines = _split(text, _separator(text), path)
    number, header = next(lines, (1, [""]))
    names = [cell.strip().lower() for cell in header]
    twice = [name for name in READ if names.count(name) > 1]
    if twice or "label" not in names or not set(keys).intersection(names):
        raise ValueError(
            f"{path}: the first line must name the columns, label and {' or '.join(keys)} among "
            f"them, each once, found {listed([shown(cell) for cell in header])} in line {number}; "
            "put the header of the query there"
        )
    for number, cells in lines:
        if any(cell.strip() for cell in cells[len(names) :]):
            rule = "a line must not have more cells than the header"
            found = f"{len(cells)} for {len(names)}"
            problems.add(rule, found, number, "put a cell that holds the separator in quotes")
            continue
        cells += [""] * (len(names) - len(cells))
        yield number, {name: cells[names.index(name)] for name in READ if name in names}


def _decoded(path: Path) -> str:
    """The file's text, of UTF-8 with or without its mark, or UTF-16 with it."""
    content = read_bytes(path)
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    try:
        text = content.decode(encoding)
        before, separator, _ = text.partition("\0")
    except UnicodeDecodeError as error:
        before, separator = content[: error.start].decode(encoding, "replace"), "?"
    if separator:
        number = 1 + len(re.findall("\r\n|\r|\n", before))
        raise ValueError(
            f"{path} must be a text file in UTF-8, found bytes that are not in line {number}; "
            'save it as "CSV UTF-8"'
        )
    return text


def _separator(text: str) -> str:
    """The one that parts most of our columns in the first line that is not blank."""
    lines = (line for line in io.StringIO(text, newline="") if line.strip(' ,;\t\r\n"'))
    header = next(lines, "").lower()

    def num_columns(separator: str) -> int:
        return len({cell.strip(' \t\r\n"') for cell in header.split(separator)}.intersection(READ))

    return max(",;\t", key=num_columns)


def _split(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank; a quoted cell may go over several."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path} must be a CSV file, found that it is not from line {number} on: {error}; "
            "put cells that hold quotes in quotes, and double those within"
        ) from error
