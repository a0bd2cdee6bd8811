"""Where labels come from: the data set itself, a function of the user's, or files people fill in.

Whatever an oracle leaves open is asked for later: the run stops, and goes on when it is resumed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from al_lightning.answers import Answer, OpenQuery
from al_lightning.label_files import GivenAnswer, QueryRows, check_classes, read_answers
from al_lightning.label_studio import read_export
from al_lightning.ranks import from_first_rank
from al_lightning.records import Query
from al_lightning.run_folder import checksum

Oracle = Callable[[Query], Mapping[int, Answer] | Sequence[Answer] | None]
"""``oracle(query) -> answers``: one for each of ``query.indices`` in their order, or by data-set
index. An answer is a label in plain values, ``SKIP`` or ``INVALID``; None, for a row or for all,
means later."""


@dataclass(frozen=True)
class Batch:
    """Answers that came together."""

    answers: dict[int, Answer]
    by: str | None
    how: str
    source: str | None = None
    """Tells a person's part of a file in one state of it, so that it is not taken twice."""


def check_oracle(oracle: str | Oracle, run_dir: Path | None, classes: Sequence[str] | None) -> None:
    """Looks whether ``oracle`` can be asked, before there is anything to ask.

    Raises:
        ValueError: when it is no oracle, or people lack the classes or a place for their files.
    """
    if not (callable(oracle) or oracle in ("dataset", "files")):
        raise ValueError(f'oracle must be "dataset", "files" or a function, got {oracle!r}')
    if oracle == "files" and run_dir is None:
        raise ValueError('oracle="files" needs a run_dir, where the files are; name one')
    if oracle == "files" and classes is None:
        raise ValueError(
            'oracle="files" needs the names of the classes, and the data module has none; give it '
            'classes=["cat", "dog"]'
        )
    if oracle != "dataset" and classes is not None:
        check_classes(classes)


def take_answers(
    oracle: str | Oracle,
    query: Query,
    waiting: OpenQuery,
    folder: Path | None,
    *,
    accept_unasked: bool,
) -> None:
    """Keeps what the oracle answers by now, all of it or, on an error, nothing.

    Args:
        oracle: ``"files"`` or a function.
        query: What it is asked.
        waiting: The same in the journal.
        folder: Of the query; its files are read.
        accept_unasked: Takes answers to rows of the pool that were not asked.

    Raises:
        ValueError: when something answered cannot be.
    """

    def answered() -> list[Batch]:
        if callable(oracle):
            return from_function(oracle, query)
        assert folder is not None
        return from_files(folder, waiting)

    batches = from_first_rank(answered)
    for batch in batches:
        waiting.check(batch.answers, accept_unasked=accept_unasked)
    for batch in batches:
        waiting.answer(
            batch.answers,
            by=batch.by,
            how=batch.how,
            source=batch.source,
            accept_unasked=accept_unasked,
        )


def from_function(oracle: Oracle, query: Query) -> list[Batch]:
    """What a function answers.

    Raises:
        ValueError: when it gives another number of answers than rows were asked.
    """
    given: Any = oracle(query)
    if given is None:
        return []
    if not isinstance(given, Mapping):
        values = given.tolist() if isinstance(given, Tensor | np.ndarray) else list(given)
        if len(values) != len(query.indices):
            raise ValueError(
                f"an oracle must answer each row that was asked, or give a dict by data-set index, "
                f"got {len(values)} answers for {len(query.indices)} rows; None means later"
            )
        given = dict(zip(query.indices, values, strict=True))
    answers = {int(i): _plain(answer) for i, answer in given.items() if answer is not None}
    return [Batch(answers, by=None, how="oracle")] if answers else []


def _plain(answer: Answer) -> Answer:
    return answer.item() if isinstance(answer, Tensor | np.generic) else answer


def answer_files(folder: Path) -> list[Path]:
    """The files in a query's folder that hold answers: ``to_label*.csv`` and ``export*.json``."""
    return sorted([*folder.glob("to_label*.csv"), *folder.glob("export*.json")])


def from_files(folder: Path, query: OpenQuery) -> list[Batch]:
    """What is new in the files of a query's folder, in the order of their names.

    Raises:
        ValueError: as :func:`~al_lightning.label_files.read_answers`; nothing is taken then.
    """
    taken = {record.get("source") for record in query.records}
    batches = []
    for path in answer_files(folder):
        read = read_export if path.suffix == ".json" else read_answers
        state = checksum(path)
        people: dict[str | None, list[GivenAnswer]] = {}
        for given in read(path, query_rows(query)):
            people.setdefault(given.by, []).append(given)
        for by, answers in people.items():
            source = f"{path.name} {state} {by or ''}"
            if source not in taken:
                values = {given.index: given.answer for given in answers}
                batches.append(
                    Batch(values, by, "label studio" if read is read_export else "files", source)
                )
    return batches


def query_rows(query: OpenQuery) -> QueryRows:
    """What answers in files must fit.

    Raises:
        ValueError: when the classes are not known.
    """
    if query.classes is None:
        raise ValueError(
            "labels in files need the names of the classes, and the data module has none; give it "
            'classes=["cat", "dog"]'
        )
    start, asked = query.journal.records[0], query.record
    return QueryRows(query.indices, asked["names"], query.classes, start["run"], query.cycle)
