"""Run folders whose query waits for answers, written by hand."""

import http.cookiejar
import json
import time
import urllib.request

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
    (images.parent / "to_label.csv").touch()  # with it the folder is complete
    for index in [*indices, *(row for row, *_ in doubts)] if pictures else ():
        pixels = np.add.outer(np.arange(28), np.arange(28)) * index % 256
        Image.fromarray(pixels.astype(np.uint8)).save(images / f"{index}.png")
    return run_dir


PRESS = """([num, pause]) => new Promise((resolve) => {
  let n = 0;
  const timer = setInterval(() => {
    const key = String(1 + n % 3);
    document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    if (++n === num) { clearInterval(timer); resolve(); }
  }, pause);
})"""
"""In a browser: presses the keys 1, 2, 3 in turn, one every ``pause`` milliseconds."""


class Person:
    """Somebody at the page, over HTTP; ``truth`` gives the answer to a row as the page shows it."""

    def __init__(self, address, truth, name="ann"):
        self.base, self.truth, self.name = address.partition("/?")[0], truth, name
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.open = urllib.request.build_opener(jar).open
        self.open(address, timeout=30).read()

    def get(self, path):
        return json.load(self.open(self.base + path, timeout=30))

    def post(self, path, **body):
        content = json.dumps({"by": self.name, **body}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, content, headers)
        return json.load(self.open(request, timeout=30))

    def answer(self, row, second=False):
        about = {"settles": False, "second": second}
        return self.post("/answer", index=row["index"], answer=self.truth(row), **about)

    def label_all(self):
        """Answer every query until the run is over; return the last state."""
        while True:
            state = self.get(f"/state?by={self.name}")
            while state.get("row"):
                state = self.answer(state["row"])
            if "row" in state:
                state = self.post("/finish", num_open=state["num_open"])
            if state.get("is_over") or not state["goes_on"]:
                return state
            time.sleep(0.1)


def answers(run_dir):
    """What the journal holds of each answer: row, answer, person."""
    records = Journal(run_dir / "journal.jsonl").of("answers")
    return [(index, answer, r["by"]) for r in records for index, answer in r["answers"]]
