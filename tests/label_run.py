"""Run folders whose query waits for answers, written by hand."""

import numpy as np
from PIL import Image

from al_lightning.run.journal import Journal

CLASSES = ("cat", "dog", "elk")


def write_run(
    run_dir,
    *,
    num_rows=5,
    classes=CLASSES,
    cycle=1,
    names=None,
    pictures=True,
    task=None,
    doubts=(),
):
    """Asks for rows 10, 11, ...; row 0 is labeled, 1 invalid, unless it is cycle 0."""
    run_dir.mkdir(parents=True)
    indices = list(range(10, 10 + num_rows))
    active = {"strategy": "least_confidence", **({"task": task} if task else {})}
    predicted = {
        "multilabel": lambda n: [int(n % 2 == c % 2) for c in range(len(classes))],
        "regression": lambda n: [[n / 2, 0.25]],
    }.get(task, lambda n: n % len(classes or [0]))
    journal = Journal(run_dir / "journal.jsonl")
    journal.append(
        "start",
        run="abc",
        config={"active": active, "data": {"classes": classes}},
        split={
            "num_rows": 100,
            "labeled_indices": [0] if cycle else [],
            "held_out": [],
            "invalid": [1],
            "skipped": [],
        },
    )
    if cycle:
        journal.append("fit", cycle=1)
        journal.append("test", cycle=1, doubts=list(doubts))
    journal.append(
        "query",
        cycle=cycle,
        indices=indices,
        scores=[0.5 + n / 1000 for n in range(num_rows)] if cycle else None,
        predicted=[predicted(n) for n in range(num_rows)] if cycle else None,
        names=names,
    )
    images = run_dir / "queries" / f"cycle_{cycle}" / "images"
    images.mkdir(parents=True)
    for index in [*indices, *(row for row, *_ in doubts)] if pictures else ():
        pixels = np.add.outer(np.arange(28), np.arange(28)) * index % 256
        Image.fromarray(pixels.astype(np.uint8)).save(images / f"{index}.png")
    return run_dir


def answers(run_dir):
    """What the journal holds of each answer: row, answer, person."""
    records = Journal(run_dir / "journal.jsonl").of("answers")
    return [(index, answer, r["by"]) for r in records for index, answer in r["answers"]]
