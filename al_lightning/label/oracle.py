"""The sources of labels: the data set, a function of the user, or files that people fill in.

An oracle may leave rows open. Then the run stops, and asks for them again when it is resumed.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from al_lightning.distributed import from_first_rank, processes_have_met
from al_lightning.label.answers import AnswersError, OpenQuery
from al_lightning.label.fold import Answer, from_plain
from al_lightning.label.label_studio import read_export
from al_lightning.label.page import serving
from al_lightning.label.query_file import GivenAnswer, QueryRows, read_lines
from al_lightning.run.label_form import LabelForm
from al_lightning.run.records import Query, listed, plain
from al_lightning.run.tables import check_classes
from al_lightning.settings import PEOPLE

Oracle = Callable[[Query], Mapping[int, Answer] | Sequence[Answer] | None]
"""``oracle(query) -> answers``: one for each of ``query.indices`` in their order, or a dict by
data-set index. An answer is a label in plain values, ``SKIP`` or ``INVALID``. None means later, for
a row or for all rows."""


@dataclass(frozen=True)
class AnswersTogether:
    """Holds answers that came together, from one person or file."""

    answers: dict[int, Answer]
    by: str | None
    how: str
    source: str | None = None
    """The file that holds them."""


def check_oracle(
    oracle: str | Oracle, run_dir: Path | None, form: LabelForm, num_processes: int = 1
) -> None:
    """Check that ``oracle`` can be asked for labels of that form, before the first query.

    Raises:
        ValueError: when it is no oracle, people lack the classes or a folder for their files, or
            a page cannot be served.
    """
    if not (callable(oracle) or oracle in ("dataset", *PEOPLE)):
        raise ValueError(
            f'oracle must be "dataset", "files" or a function, or "page", got {oracle!r}'
        )
    if oracle in PEOPLE and run_dir is None:
        raise ValueError(f'oracle="{oracle}" needs a run_dir, where the files are; name one')
    if oracle in PEOPLE and form.task == "dense":
        raise ValueError(
            f'oracle="{oracle}" has no place for a label of many parts, found task="dense"; let '
            "the data set read finished masks and tell() their rows, or give a function that "
            "returns their paths"
        )
    if oracle in PEOPLE and form.needs_classes and form.classes is None:
        raise ValueError(
            f'oracle="{oracle}" needs the names of the classes, and the data module has none; give '
            'it classes=["cat", "dog"]'
        )
    if oracle == "page" and num_processes > 1:
        raise ValueError(
            f'oracle="page" needs one process, found {num_processes}, of which the others would '
            'wait for people; give oracle="files", and let `python -m al_lightning.label RUN_DIR` '
            "start the program for each cycle"
        )
    if oracle == "page":
        serving()  # says which package is missing
    if oracle != "dataset" and form.needs_classes and form.classes is not None:
        check_classes(form.classes, several=form.task == "multilabel")


def check_reveals(are_held: bool) -> None:
    """Raise ValueError when the data set should reveal labels and holds none."""
    if not are_held:
        raise ValueError(
            "run needs somebody who labels, and this data set's items are inputs alone; give "
            'oracle="page", or a function, or call ask() and tell() by hand; if they hold labels, '
            "say where with label_key="
        )


@contextmanager
def attended(oracle: str | Oracle, run_dir: Path | None) -> Iterator[Callable[[], bool]]:
    """Yield a function that waits for labels, while the run's folder is free.

    It returns True once labels have come. With any oracle but the page it returns False at once:
    then the run stops, and somebody resumes it.

    Raises:
        ValueError: when the page cannot be served.
    """
    if oracle != "page":
        yield lambda: False
        return
    assert run_dir is not None
    with serving().page_beside(run_dir) as labels_came:
        yield labels_came


def collected(
    oracle: str | Oracle,
    query: Query,
    waiting: OpenQuery,
    folder: Path | None,
    num_processes: int,
) -> list[AnswersTogether]:
    """Return the new answers; the first process asks the oracle and tells the others.

    Args:
        oracle: People or a function.
        query: The query that the oracle must answer.
        waiting: The same query in the journal.
        folder: The query's folder, whose files are read.
        num_processes: Number of processes of the run, whether they have met or not.

    Raises:
        AnswersError: when an answer cannot be accepted.
        ValueError: when several processes that have not met yet would each call a function.
    """
    if callable(oracle) and num_processes > 1 and not processes_have_met():
        raise ValueError(
            f"{num_processes} processes cannot share the answers of a function before they "
            'have trained or predicted together; give oracle="files", or answer this query '
            "in one process"
        )

    def answered() -> list[AnswersTogether]:
        if callable(oracle):
            return from_function(query, oracle(query))
        assert folder is not None
        return from_files(folder, waiting)

    return from_first_rank(answered)


def from_function(query: Query, given: Any) -> list[AnswersTogether]:
    """Return the answers that a function gave.

    Raises:
        AnswersError: when the number of answers is not the number of rows that were asked.
    """
    if given is None:
        return []
    if not isinstance(given, Mapping):
        values = [plain(answer) for answer in given]
        if len(values) != len(query.indices):
            raise AnswersError(
                f"an oracle must answer each row that was asked, or give a dict by data-set index, "
                f"got {len(values)} answers for {len(query.indices)} rows; None means later"
            )
        given = dict(zip(query.indices, values, strict=True))
    answers = {operator.index(i): plain(a) for i, a in given.items() if a is not None}
    return [AnswersTogether(answers, by=None, how="oracle")] if answers else []


def from_files(folder: Path, query: OpenQuery) -> list[AnswersTogether]:
    """Return the new answers in the files of a query's folder, in the order of their names.

    The files are ``to_label*.csv`` and ``export*.json``. A line counts when it is new, or differs
    from the last reading. So an answer that was changed or undone on the page stays as it is there.
    A label that was taken out of a file takes back what the file answered, unless the person has
    answered in another way since.

    Raises:
        AnswersError: when a file is wrong, or two files give different answers of one person.
    """
    asked = query_rows(query)
    readings: dict[tuple[Path, str | None], list[GivenAnswer]] = {}
    for path in sorted([*folder.glob("to_label*.csv"), *folder.glob("export*.json")]):
        if not path.is_file():
            continue
        try:
            read = read_export(path, asked) if is_export(path) else read_lines(path, asked)
        except ValueError as error:
            raise AnswersError(str(error)) from error
        answered = {given.index for given in read if given.answer is not None}
        emptied = {given.index for given in read} - answered
        for by, rows in _standing(query, path.name).items():
            gone = [GivenAnswer(index, None, by, 0) for index in rows if index in emptied]
            readings.setdefault((path, by), []).extend(gone)
        for given in read:
            if given.answer is not None:
                readings.setdefault((path, given.by), []).append(given)
    _check_agree(readings)
    batches = []
    for (path, by), read in readings.items():
        before = _last_reading(query, path.name, by)
        new = {g.index: g.answer for g in read if before.get(g.index) != g.answer}
        how = "label studio" if is_export(path) else "files"
        if new:
            batches.append(AnswersTogether(new, by, how, source=path.name))
    return batches


def is_export(path: Path) -> bool:
    """Tell whether Label Studio wrote the file."""
    return path.suffix == ".json"


def _standing(query: OpenQuery, source: str) -> dict[str | None, list[int]]:
    """Return by person the rows whose last answer of that person came from this file."""
    found: dict[str | None, list[int]] = {}
    for index, row in query.rows.items():
        for by in row.by_labeler:
            last = query.answers.last(index, by)
            if last is not None and last["source"] == source:
                found.setdefault(by or None, []).append(index)
    return found


def _last_reading(query: OpenQuery, source: str, by: str | None) -> dict[int, Answer]:
    """Return a person's answers in a file when it was last read, also those undone since."""
    said: dict[int, Answer] = {}
    for record in query.records:
        if record["event"] == "answers" and (record["source"], record["by"]) == (source, by):
            said.update({index: from_plain(answer) for index, answer in record["answers"]})
    return said


def _check_agree(readings: Mapping[tuple[Path, str | None], Sequence[GivenAnswer]]) -> None:
    """Raise AnswersError when two files hold different answers of one person to a row."""
    firsts: dict[tuple[int, str | None], tuple[Path, GivenAnswer]] = {}
    different = []
    for (path, by), read in readings.items():
        for given in read:
            if given.answer is None:
                continue
            first_path, first = firsts.setdefault((given.index, by), (path, given))
            if first.answer != given.answer:
                different.append(
                    f"row {given.index} in line {first.line} of {first_path.name} and line "
                    f"{given.line} of {path.name}"
                )
    if different:
        raise AnswersError(
            f"answers of one person must not conflict, found {listed(different)}; leave the right "
            "ones, or say in the column labeler who gave which"
        )


def query_rows(query: OpenQuery) -> QueryRows:
    """Return the query that answers in files must fit."""
    form, names, run = query.form, query.record["names"], query.journal.records[0]["run"]
    classes = None if form.classes is None else list(form.classes)
    return QueryRows(query.indices, names, classes, run, query.cycle, form.task)
