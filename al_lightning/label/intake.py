"""Check the answers of an oracle or a caller, keep them, and close the query.

A function that closes a query returns the journal's ``labels`` record. The data module then brings
its split up to date with that record.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from al_lightning.label.answers import AnswersError, OpenQuery
from al_lightning.label.fold import Answer
from al_lightning.label.oracle import AnswersTogether
from al_lightning.run.journal import Record
from al_lightning.run.records import Mark, plain

LabelSource = Any
"""``data.row_labels`` of a data module: it knows the rows, and the labels that they can hold."""


def tell(
    query: OpenQuery,
    source: LabelSource,
    rows: Sequence[int],
    labels: Sequence[Any] | Tensor | None,
    by: str | None,
) -> Record:
    """Close the query with these labels; see :meth:`~al_lightning.ActiveLearningLoop.tell`."""
    strangers = sorted(set(rows).difference(query.indices))
    if strangers or not rows:
        raise ValueError(
            "tell takes data-set indices of the open query, got "
            + (f"{strangers[:5]} that were not asked for" if strangers else "none")
        )
    marks: dict[int, Answer] = {}
    if labels is not None and len(labels) == len(rows):
        pairs = list(zip(rows, labels, strict=True))
        marks = {row: label for row, label in pairs if isinstance(label, Mark)}
        labels = [label for _, label in pairs if not isinstance(label, Mark)]
    source.pool.check(rows)
    rows, values = source.check([row for row in rows if row not in marks], labels)
    if values is None and not query.rows:
        return query.close({"indices": rows, "labels": None}, by=by, how="tell")
    answers = source.of(rows) if values is None else values
    return query.finish({**dict(zip(rows, answers, strict=True)), **marks}, by=by, how="tell")


def answer(
    query: OpenQuery, source: LabelSource, answers: Mapping[int, Answer], **how: Any
) -> None:
    """Keep some answers; see :meth:`~al_lightning.ActiveLearningLoop.answer`."""
    given = {operator.index(index): plain(answer) for index, answer in answers.items()}
    if None in given.values():
        raise ValueError("an answer must be a label, SKIP or INVALID, got None; leave it out")
    _check_values(source, given)
    query.answer(given, how="api", **how)


def reveal(query: OpenQuery, source: LabelSource) -> Record:
    """Close the query with the data set's own labels."""
    if query.open_indices:
        return tell(query, source, query.open_indices, None, by="data set")
    return query.finish(by="data set", how="api")


def take_in(
    query: OpenQuery,
    source: LabelSource,
    batches: Sequence[AnswersTogether],
    accept_unasked: bool,
) -> Record | None:
    """Keep the answers of an oracle: all of them or, on an error, none.

    Returns:
        The closing record once every row has an answer; None while some are open.

    Raises:
        AnswersError: when an answer cannot be accepted.
    """
    try:
        for batch in batches:
            query.check(batch.answers, accept_unasked=accept_unasked)
            _check_values(source, batch.answers)
        for batch in batches:
            given = asdict(batch)
            query.answer(given.pop("answers"), **given, accept_unasked=accept_unasked)
        return None if query.open_indices else query.finish(how="run")
    except ValueError as error:
        raise AnswersError(str(error)) from error


def _check_values(source: LabelSource, answers: Mapping[int, Answer]) -> None:
    labels = [a for a in answers.values() if a is not None and not isinstance(a, Mark)]
    source.check_values(labels)
