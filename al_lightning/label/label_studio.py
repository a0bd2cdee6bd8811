"""A query as tasks for Label Studio, and the answers in its exports.

The tasks contain the pictures, so no server is needed for them. The data of each task hold the
row's identity. An export returns them, so we know which row an answer is for.
"""

import base64
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_lightning.label.fold import Answer
from al_lightning.label.query_file import (
    GivenAnswer,
    LabelRow,
    QueryRows,
    add_repeats,
    add_unknown,
    find_answer,
)
from al_lightning.run.folder import write_whole
from al_lightning.run.label_form import BETWEEN, NONE, LabelForm
from al_lightning.run.records import SKIP, Mark, listed
from al_lightning.run.tables import Problems, check_classes, read_bytes

TASKS = "label_studio_tasks.json"
CONFIG = "label_studio_config.xml"

CHOICES, IMAGE, TEXT, TABLE = "label", "image", "text", "table"
"""Names of the tags in the configuration; answers refer to them."""

MAX_BYTES = 200 * 10**6
"""Of a file of tasks."""

SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


# ---- out -----------------------------------------------------------------------------------------


def write_tasks(
    folder: Path,
    rows: Sequence[LabelRow],
    pictures: Mapping[int, bytes | Path],
    query: QueryRows,
    strategy: str,
) -> None:
    """Write the tasks to import and the labeling configuration; each completely or not at all.

    A task holds a row's picture, text and table, as far as all rows have them. Label Studio takes
    files of up to 250 MB. So tasks that are larger become several files, ``TASKS`` with a number,
    each of which is imported into the same project.

    Args:
        folder: The folder that gets the files.
        rows: The rows of the query, with their text and table.
        pictures: By data-set index, a PNG or JPEG, or the path of one.
        query: The query.
        strategy: The strategy's name, for the version of the model's predictions.

    Raises:
        ValueError: for classes that :func:`~al_lightning.run.tables.check_classes` refuses, or a
            picture that is missing, where rows have nothing else, or is of another kind.
    """
    form = query.form
    if form.needs_classes:
        check_classes(form.classes or (), several=form.task == "multilabel")
    missing = [row.index for row in rows if row.index not in pictures]
    has = {IMAGE: not missing, TEXT: all(r.text for r in rows), TABLE: all(r.table for r in rows)}
    kinds = [kind for kind, is_there in has.items() if is_there]
    if not kinds:
        raise ValueError(
            f"each row needs a picture, found {len(missing)} without: {missing[:5]}; add theirs"
        )
    version = f"al_lightning {strategy}, cycle {query.cycle}"
    num_parts, size = 0, 0
    part: list[str] = []  # a file at a time, because the pictures are in it
    for row, score in zip(rows, _unit_scores(rows), strict=True):
        task: dict[str, Any] = {"data": {**_data(row, kinds, pictures), **_identity(row, query)}}
        if row.predicted:
            task["predictions"] = [_prediction(row.predicted, score, version, form, kinds[0])]
        content = json.dumps(task, indent=1)
        size += len(content)
        if part and size > MAX_BYTES:
            num_parts += 1
            write_whole(folder / _numbered(num_parts), _joined(part))
            part, size = [], len(content)
        part.append(content)
    write_whole(folder / (_numbered(num_parts + 1) if num_parts else TASKS), _joined(part))
    write_whole(folder / CONFIG, _config(form, kinds).encode())


def _numbered(number: int) -> str:
    return TASKS.replace(".json", f"_{number}.json")


def _joined(tasks: Sequence[str]) -> bytes:
    return f"[{', '.join(tasks)}]".encode()


def _data(
    row: LabelRow, kinds: Sequence[str], pictures: Mapping[int, bytes | Path]
) -> dict[str, Any]:
    held: dict[str, Any] = {TEXT: row.text, TABLE: dict(row.table)}
    if IMAGE in kinds:
        held[IMAGE] = _data_uri(row.index, pictures[row.index])
    return {kind: held[kind] for kind in kinds}


def _identity(row: LabelRow, query: QueryRows) -> dict[str, Any]:
    return {"run": query.run, "cycle": query.cycle, "index": row.index, "name": row.name}


def _prediction(
    words: str, score: float | None, version: str, form: LabelForm, shown: str
) -> dict[str, Any]:
    if form.task == "regression":
        value: dict[str, Any] = {"number": float(words.split()[0].rstrip(";"))}
    else:
        value = {"choices": words.split(BETWEEN) if form.task == "multilabel" else [words]}
    tags = {"from_name": CHOICES, "to_name": shown, "type": next(iter(value)), "value": value}
    prediction = {"model_version": version, "result": [tags]}
    return prediction if score is None else {**prediction, "score": score}


def _unit_scores(rows: Sequence[LabelRow]) -> list[float | None]:
    """Return scores in [0, 1], as Label Studio needs them; rescaled when one is outside."""
    scores = [row.score if row.score is not None else math.nan for row in rows]
    known = [score for score in scores if math.isfinite(score)]
    low, high = min([0.0, *known]), max([1.0, *known])
    if (low, high) != (0.0, 1.0):
        low, high = min(known), max(known)
    span = (high - low) or 1.0
    return [(score - low) / span if math.isfinite(score) else None for score in scores]


def _data_uri(index: int, picture: bytes | Path) -> str:
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    for signature, mime in SIGNATURES.items():
        if content.startswith(signature):
            return f"data:{mime};base64,{base64.b64encode(content).decode()}"
    raise ValueError(
        f"pictures must be PNG or JPEG, got one for row {index} that begins with "
        f"{content[:8]!r}; convert it"
    )


def _config(form: LabelForm, kinds: Sequence[str]) -> str:
    view = ET.Element("View")
    for kind in kinds:
        ET.SubElement(view, kind.capitalize(), name=kind, value=f"${kind}")
    if form.task == "regression":  # who leaves it empty cancels the task, which is a skip
        ET.SubElement(view, "Number", name=CHOICES, toName=kinds[0], required="true")
        ET.indent(view)
        return ET.tostring(view, encoding="unicode") + "\n"
    several = form.task == "multilabel"
    kind = "multiple" if several else "single"
    choices = ET.SubElement(view, "Choices", name=CHOICES, toName=kinds[0], choice=kind)
    choices.set("required", "true")
    for word in [*(form.classes or ()), *[NONE] * several, *(mark.value for mark in Mark)]:
        choice = ET.SubElement(choices, "Choice", value=word)
        if "$" in word:  # the page would take "$5" for a variable, but not in an alias
            choice.set("value", word.replace("$", "$\u200b"))
            choice.set("alias", word)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


# ---- back ----------------------------------------------------------------------------------------


def read_export(path: Path, query: QueryRows) -> list[GivenAnswer]:
    """Return every answer in an export; several people may answer a row, each by an annotation.

    Args:
        path: A file that Label Studio exported as ``JSON``. A cancelled annotation is a skip; a
            task without annotations is open.
        query: The query that the answers must fit.

    Raises:
        ValueError: when anything in the file is wrong, such as tasks of another query.
    """
    problems = Problems(path, "task")
    names = dict(zip(query.indices, query.names or [], strict=query.names is not None))
    given, strangers = [], []
    for number, task in enumerate(_tasks(path), start=1):
        data = task["data"]
        if not _is_ours(data, query, names):
            strangers.append(str(number))
            continue
        for annotation in task["annotations"]:
            answer = _answer(annotation, query.form, number, problems)
            if answer is not None:
                by = _annotator(annotation, number, problems)
                given.append(GivenAnswer(data["index"], answer, by, number))
    if strangers:
        problems.note(
            f"tasks must be those of cycle {query.cycle} of run {query.run}",
            f"an export from another project: tasks {listed(strangers)}",
            "export the project that this query was imported into",
        )
    add_repeats(given, query.form, problems)
    problems.check()
    return given


def _tasks(path: Path) -> list[dict[str, Any]]:
    """Return the tasks; each has a dict ``data`` and a list of dicts ``annotations``."""
    content = read_bytes(path)
    tasks: Any = None
    try:
        tasks = json.loads(content.decode("utf-8-sig"))
        wrong = _what_is_wrong(tasks)
    except (ValueError, RecursionError) as error:
        wrong = f"no JSON: {error}"
    if wrong:
        raise ValueError(
            f"{path} must be what Label Studio exports as JSON, found {wrong}; in its project "
            "choose Export and there JSON"
        )
    return list(tasks)


def _what_is_wrong(tasks: Any) -> str:
    """Say where the file differs from a list of tasks; empty when it does not."""
    if not isinstance(tasks, list):
        return f"a {type(tasks).__name__} where a list of tasks should be"
    for number, task in enumerate(tasks, start=1):
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            return f"no data in task {number}, as in JSON-MIN"
        annotations = task.get("annotations")
        if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
            return f"no annotations in task {number}"
    return ""


def _is_ours(data: dict[str, Any], query: QueryRows, names: Mapping[int, str]) -> bool:
    index, name = data.get("index"), data.get("name")
    identity = (data.get("run"), data.get("cycle"))
    if identity != (query.run, query.cycle) or type(index) is not int or index < 0:
        return False
    return name == names.get(index, name)


def _answer(annotation: dict[str, Any], form: LabelForm, number: int, problems: Problems) -> Answer:
    """Return the answer; None when there is none, or when it is wrong, which is noted."""
    if annotation.get("was_cancelled"):
        return SKIP
    result = annotation.get("result")
    if result == []:
        return None  # sent off without a choice
    word = _words(result, form)
    if word is None:
        kind = "number" if form.task == "regression" else "choice"
        rule = f"an annotation must hold one {kind} of the control {CHOICES!r}"
        problems.add(rule, "another", number, f"use {CONFIG} as it is")
        return None
    answer = find_answer(word, form)
    if answer is None:
        add_unknown(word, form, number, problems)
    return answer


def _words(result: Any, form: LabelForm) -> str | None:
    """Return what was chosen or entered; other controls, such as for remarks, are ignored."""
    regions = [r for r in result if isinstance(r, dict)] if isinstance(result, list) else []
    match [region for region in regions if region.get("from_name") == CHOICES]:
        case [{"value": {"choices": [str(word)]}}] if form.task != "regression":
            return word
        case [{"value": {"choices": [*words]}}] if form.task == "multilabel":
            return BETWEEN.join(map(str, words))
        case [{"value": {"number": int(number) | float(number)}}] if form.task == "regression":
            return repr(number)
    return None


def _annotator(annotation: dict[str, Any], number: int, problems: Problems) -> str | None:
    """Return the person, whom an export knows by e-mail address or by account number."""
    match annotation.get("completed_by"):
        case None:
            return None
        case {"email": str(email)} if email.strip():
            return email.strip()
        case int(account) | {"id": int(account)}:
            return f"annotator {account}"
    rule = "completed_by must be an account's number or hold its e-mail"
    found = f"a {type(annotation['completed_by']).__name__}"
    problems.add(rule, found, number, "export it anew")
    return None
