"""Tables of labels that people make: CSV files in any of the usual forms.

A file is checked as a whole before any of it counts. Everything that is wrong with it becomes one
error that names the lines. A path in such a file never opens anything: it is only compared with
names that are known already.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from al_lightning.run.folder import write_whole
from al_lightning.run.label_form import NONE
from al_lightning.run.records import NUM_SHOWN, Mark, listed

READ = ("index", "path", "label", "labeler")
"""The columns that are read; all other columns of a file are ignored."""

MARKS = [mark.value for mark in Mark]

NOT_IN_A_FILE = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold; so the configuration of a labeling tool cannot hold them."""


# ---- errors --------------------------------------------------------------------------------------


class Problems:
    """Collects what is wrong with a file, so that one error can say all of it.

    Args:
        path: The file.
        place: The unit that is counted in it: ``"line"`` or ``"task"``.
    """

    def __init__(self, path: Path, place: str) -> None:
        self.path = path
        self.place = place
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, rule: str, found: str, number: int, cure: str) -> None:
        """Note that ``found`` at a place breaks a rule; the error lists all that break it."""
        self.note(rule, f"{found} in {self.place} {number}", cure)

    def note(self, rule: str, found: str, cure: str) -> None:
        """Note ``found``, which names its own place."""
        self._found.setdefault((rule, cure), []).append(found)

    def only_counts(self, rule: str, cure: str) -> bool:
        """Return True when the error already shows as many of this kind as it can."""
        return len(self._found.get((rule, cure), ())) >= NUM_SHOWN

    def check(self) -> None:
        """Raise ValueError when anything was noted."""
        sentences = [
            f"{rule}, found {listed(found)}; {cure}" for (rule, cure), found in self._found.items()
        ]
        if sentences:
            raise ValueError(f"{self.path}: {'. '.join(sentences)}")


def shown(text: str) -> str:
    """Return a cell as an error shows it: in quotes, and cut when it is long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def check_classes(classes: Sequence[str], *, several: bool = False) -> None:
    """Raise ValueError unless people can answer with these words.

    Args:
        classes: Names of the classes.
        several: Several of them may apply to a row, or none.

    Raises:
        ValueError: for fewer than two classes, or none where several may apply; for one that is
            empty, that appears twice, that is called ``skip`` or ``invalid``, or that holds
            characters that a file cannot hold; where several may apply, for ``none`` and for ``;``.
    """
    if len(classes) < 2 - several:
        raise ValueError(
            f"classes must be at least {2 - several}, got {list(classes)}; name them with "
            "classes=, or give labels in which each occurs"
        )
    words = [name.strip() for name in classes]
    looks = [_look(word) for word in words]
    for position, (name, word) in enumerate(zip(classes, words, strict=True)):
        if not word:
            why = "must have a name"
        elif word.lower() in MARKS:
            why = f"must not be called {' or '.join(MARKS)}, which are answers of their own"
        elif word in words[:position]:
            why = "must differ from each other by more than spaces around them"
        elif looks[position] in looks[:position]:
            other = classes[looks.index(looks[position])]
            why = f"must look different, and {shown(other)} of other characters looks the same"
        elif several and (";" in word or word == NONE):
            why = f"must not be called {NONE} or hold a semicolon, which is between several"
        elif NOT_IN_A_FILE.search(name):
            why = "must be of characters that a text file can hold"
        else:
            continue
        raise ValueError(f"classes {why}, got {shown(name)} at position {position}; rename it")


LOOKALIKES = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406"
    "\u0408\u0405\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
    "ABEKMHOPCTYXIJSaeopcyxijsABEZHIKMNOPTYXo",
)
"""Cyrillic and Greek letters that look as Latin ones do."""


def _look(word: str) -> str:
    """Return a word by its look: the same for composed letters, other widths, other alphabets."""
    return unicodedata.normalize("NFKC", word).translate(LOOKALIKES)


# ---- labels to start from ------------------------------------------------------------------------


def read_labels(path: Path) -> dict[str, str]:
    """Read the labels in a CSV file with the columns ``path`` and ``label``.

    Returns:
        Class names by relative path with forward slashes. A line without a label gives none; nor
        does a line whose label is ``skip`` or ``invalid``.

    Raises:
        ValueError: when anything in the file is wrong; for example, when a path leads out of the
            folder that it is relative to.
    """
    problems = Problems(path, "line")
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, cells in read_table(path, ("path",), problems):
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
    return {name: label for name, label in labels.items() if label.lower() not in MARKS}


def _inside(path: str) -> str | None:
    """Return a relative path in its shortest form; None when it is absolute or leads elsewhere.

    >>> _inside("./cats//1.png"), _inside("../1.png"), _inside("C:1.png")
    ('cats/1.png', None, None)
    """
    path = path.strip().replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or re.match("/|[A-Za-z]:", path):
        return None
    return "/".join(parts)


# ---- files ---------------------------------------------------------------------------------------


FORMULA = re.compile("'*[-=+@\t\r]")
"""The beginning of a cell that a spreadsheet would run, perhaps with quotes that were put before.
"""


def safe(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: a quote is put before it.

    A number stays as it is.

    >>> safe("=1+1"), safe("-0.5"), safe("- none"), read_safe(safe("'=a"))
    ("'=1+1", '-0.5', "'- none", "'=a")
    """
    if not isinstance(cell, str) or not FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def read_safe(cell: str) -> str:
    """Return the cell that :func:`safe` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file that any spreadsheet opens; completely or not at all."""
    text = io.StringIO()
    # With this line end a lone CR in a name is quoted, on Python before 3.13 too.
    csv.writer(text, lineterminator="\r\n").writerows([map(safe, row) for row in rows])
    content = text.getvalue()
    # Without the byte-order mark, Excel reads a file as one of the old code pages.
    write_whole(path, content.encode("utf-8" if content.isascii() else "utf-8-sig"))


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, or raise ValueError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} must be a file that can be read, found: {error.strerror}; change it or take "
            "it away"
        ) from error


def read_table(
    path: Path, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each line that is not blank after the header: its number, and its cells by column.

    Args:
        path: A CSV file.
        keys: The file must have one of these columns, beside ``label``.
        problems: Collects lines that do not fit the header.
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
        yield number, {n: read_safe(cells[names.index(n)]) for n in READ if n in names}


def _decoded(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 when it begins with a byte-order mark."""
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
    """Return the separator that finds most of our columns in the first line that is not blank."""
    lines = (line for line in io.StringIO(text, newline="") if line.strip(' ,;\t\r\n"'))
    header = next(lines, "").lower()

    def num_columns(separator: str) -> int:
        return len({cell.strip(' \t\r\n"') for cell in header.split(separator)}.intersection(READ))

    return max(",;\t", key=num_columns)


def _split(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not blank; a cell in quotes may span several."""
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
