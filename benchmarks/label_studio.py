"""A query through a real Label Studio and back, until the run trains on what people answered there.

A small run on tiny images waits for labels; its tasks are imported into a Label Studio on this
machine, two people annotate them through its API, and the export goes into the run's folder. Each
step is checked. Label Studio gets an environment of its own in ``benchmarks/.label_studio``, made
at the first run, and its data a temporary folder; the server listens on 127.0.0.1 alone and is
stopped whatever happens.

python benchmarks/label_studio.py   # a minute or two, and some more for the first one
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from common import header
from PIL import Image
from torch import Tensor

from al_lightning import INVALID, SKIP, ActiveLearningLoop, Exchange
from al_lightning.data.images import ActiveImageDataModule
from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import Answer
from al_lightning.label.label_studio import CONFIG, TASKS, read_export, write_tasks
from al_lightning.label.oracle import query_rows
from al_lightning.label.query_file import LabelRow, QueryRows
from al_lightning.run.journal import Journal

ENVIRONMENT = Path(__file__).resolve().parent / ".label_studio"
VERSION = "1.23.2"
CLASSES = ["red", 'green & "lime"', "$5 <blue>"]
COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def main() -> None:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the server is stopped then too
    print(header(), f"| Label Studio {VERSION}")
    environment()
    with tempfile.TemporaryDirectory() as folder:
        run_dir, images = Path(folder) / "run", Path(folder) / "images"
        draw_images(images)
        run_until_it_waits(run_dir, images)
        with label_studio(Path(folder) / "server") as (ann, ben):
            through_label_studio(run_dir, images, ann, ben)
            words_and_tables(Path(folder) / "words", ann)


def check(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise SystemExit(f"{what}: FAILED, expected {expected}, found {found}")
    print(f"{what}: held", flush=True)


# ---- the run -------------------------------------------------------------------------------------


class Colors(L.LightningModule):
    """Tells the classes by their mean color."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.mean((2, 3)))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


TRAINER = partial(L.Trainer, max_epochs=3, logger=False, enable_progress_bar=False)


def draw_images(folder: Path) -> None:
    """Eight of each class, named by it, and a table of labels for the first two."""
    table = ["path;label"]
    folder.mkdir()
    for label, color in enumerate(COLORS):
        for n in range(8):
            name = f"{label}, {n}.png"
            Image.new("RGB", (12, 12), tuple(c + 2 * n for c in color)).save(folder / name)
            if n < 2:
                word = CLASSES[label].replace('"', '""')
                table.append(f'{name};"{word}"')
    (folder / "labels.csv").write_text("\n".join(table))


def data_of(images: Path) -> ActiveImageDataModule:
    return ActiveImageDataModule(images, images / "labels.csv", classes=CLASSES, image_size=12)


def run_until_it_waits(run_dir: Path, images: Path) -> None:
    torch.manual_seed(0)
    loop = ActiveLearningLoop(
        Colors(),
        data_of(images),
        trainer=TRAINER,
        strategy="entropy",
        acquisition_size=6,
        num_cycles=2,
        oracle="files",
        run_dir=run_dir,
        monitors=[Exchange()],
    )
    loop.run()
    folder = run_dir / "queries" / "cycle_1"
    check(
        "the run waits, with tasks", [(folder / name).exists() for name in (TASKS, CONFIG)], [1] * 2
    )


def resume(run_dir: Path, images: Path) -> ActiveLearningLoop:
    loop = ActiveLearningLoop.resume(
        run_dir,
        Colors(),
        data_of(images),
        trainer=TRAINER,
        oracle="files",
        monitors=[Exchange()],
    )
    loop.run()
    return loop


# ---- the way through -----------------------------------------------------------------------------


def through_label_studio(run_dir: Path, images: Path, ann: "Person", ben: "Person") -> None:
    folder = run_dir / "queries" / "cycle_1"
    project, tasks = import_tasks(folder, ann)
    given, in_doubt = annotate(tasks, ann, ben)

    query = query_rows(OpenQuery(Journal(run_dir / "journal.jsonl")))
    for emails in (True, False):  # the last one stays for the run
        write_export(folder / "export.json", project, ann, emails)
        expected = [(n, a, by.email if emails else f"annotator {by.account}") for n, a, by in given]
        found = [(g.index, g.answer, g.by) for g in read_export(folder / "export.json", query)]
        what = "the export holds every answer" + " and people's e-mails" * emails
        check(what, sorted(found, key=str), sorted(expected, key=str))

    loop = resume(run_dir, images)
    check("while two people differ the run waits", loop.results[-1].cycle, 1)
    ben.correct(in_doubt, true_class(tasks[0]))
    write_export(folder / "export.json", project, ann, emails=False)
    loop = resume(run_dir, images)
    check("then it goes on to its end", loop.finished, True)
    labels = {i: a for i, a, by in given if a not in (SKIP, INVALID) and by == ann}
    check("the labels arrived", loop.data.labels_of(list(labels)), list(labels.values()))
    check("it trained on them", [r.num_labeled for r in loop.results], [6, 6 + len(labels)])


def words_and_tables(folder: Path, ann: "Person") -> None:
    """Send rows of text and of a table there and back, without a run."""
    query = QueryRows([3, 4, 8], ["x", "y", "z"], CLASSES, "abc", 1)
    rows = [
        LabelRow(index, name, CLASSES[0], 0.5, text=f"text {name} = $5", table={"age": f"{index}"})
        for index, name in zip(query.indices, query.names or [], strict=True)
    ]
    write_tasks(folder, rows, {}, query, "margin")
    project, tasks = import_tasks(folder, ann)
    for task, name in zip(tasks, CLASSES, strict=True):
        ann.annotate(task, name)
    write_export(folder / "export.json", project, ann, emails=False)
    found = [(one.index, one.answer) for one in read_export(folder / "export.json", query)]
    check("text and tables go there and back", sorted(found), [(3, 0), (4, 1), (8, 2)])


def import_tasks(folder: Path, ann: "Person") -> tuple[int, list[dict[str, Any]]]:
    """A new project's number, and the query's tasks as the server has them."""
    tasks = json.loads((folder / TASKS).read_bytes())
    config = (folder / CONFIG).read_text(encoding="utf-8")
    project = ann.call("POST", "projects/", {"title": "cycle 1", "label_config": config})["id"]
    imported = ann.call("POST", f"projects/{project}/import?return_task_ids=true", tasks)
    check("tasks imported", imported["task_count"], len(tasks))
    kept = ann.call("GET", f"tasks?project={project}&fields=all")["tasks"]
    kept.sort(key=lambda task: imported["task_ids"].index(task["id"]))
    check("their data is kept", [task["data"] for task in kept], [task["data"] for task in tasks])
    check("predictions arrived", predictions(kept), predictions(tasks))
    return project, kept


def predictions(tasks: list[dict[str, Any]]) -> list[tuple[str, float, Any]]:
    """What is predicted for each: version, score and choice."""
    all_of_it = [prediction for task in tasks for prediction in task["predictions"]]
    return [(p["model_version"], p["score"], p["result"]) for p in all_of_it]


def annotate(
    tasks: list[dict[str, Any]], ann: "Person", ben: "Person"
) -> tuple[list[tuple[int, Answer, "Person"]], int]:
    """Two people differ on the first row; one is skipped, one is invalid, the others get labels.

    Returns:
        Index, answer and person of each annotation, and the number of the wrong one.
    """
    first, skipped, invalid, *others = tasks
    wrong = CLASSES[CLASSES.index(true_class(first)) - 1]
    in_doubt = ben.annotate(first, wrong)
    ann.annotate(skipped, None)
    ben.annotate(invalid, "invalid")
    given = [
        (first["data"]["index"], CLASSES.index(wrong), ben),
        (skipped["data"]["index"], SKIP, ann),
        (invalid["data"]["index"], INVALID, ben),
    ]
    for task in (first, *others):
        ann.annotate(task, true_class(task))
        given.append((task["data"]["index"], CLASSES.index(true_class(task)), ann))
    return given, in_doubt


def true_class(task: dict[str, Any]) -> str:
    return CLASSES[int(task["data"]["name"][0])]


def write_export(path: Path, project: int, ann: "Person", emails: bool) -> None:
    """As the page's button does, or a snapshot, which can tell people by e-mail."""
    if not emails:
        path.write_bytes(ann.fetch(f"projects/{project}/export?exportType=JSON"))
        return
    options = {"serialization_options": {"annotations__completed_by": {"only_id": False}}}
    exports = f"projects/{project}/exports/"
    number = ann.call("POST", exports, options)["id"]
    while ann.call("GET", f"{exports}{number}")["status"] in ("created", "in_progress"):
        time.sleep(0.2)
    path.write_bytes(ann.fetch(f"{exports}{number}/download?exportType=JSON"))


# ---- Label Studio --------------------------------------------------------------------------------


class Person(NamedTuple):
    """An account at the server."""

    email: str
    token: str
    url: str
    account: int = 0

    def fetch(self, path: str, method: str = "GET", content: Any = None) -> bytes:
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"Token {self.token}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # none to 127.0.0.1
        try:
            with opener.open(request, timeout=60) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read()[:500]!r}") from error

    def call(self, method: str, path: str, content: Any = None) -> Any:
        return json.loads(self.fetch(path, method, content))

    def annotate(self, task: dict[str, Any], word: str | None) -> int:
        """Sends an annotation, or with None skips the task, as its page does; gives its number."""
        shown = "image" if "image" in task["data"] else "text"
        content = {"result": chosen(word, shown), "was_cancelled": word is None}
        return int(self.call("POST", f"tasks/{task['id']}/annotations/", content)["id"])

    def correct(self, annotation: int, word: str) -> None:
        self.call("PATCH", f"annotations/{annotation}/", {"result": chosen(word)})


def chosen(word: str | None, shown: str = "image") -> list[dict[str, Any]]:
    region = {"from_name": "label", "to_name": shown, "type": "choices"}
    return [] if word is None else [{**region, "value": {"choices": [word]}}]


def environment() -> None:
    if (ENVIRONMENT / "complete").exists():
        return
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    (ENVIRONMENT / ".gitignore").write_text("*\n")
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"label-studio=={VERSION}"], check=True)
    (ENVIRONMENT / "complete").touch()


@contextmanager
def label_studio(folder: Path) -> Iterator[tuple[Person, Person]]:
    """A server with two accounts, while the context lasts."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    people = [Person(f"{n}@example.org", secrets.token_hex(20), url) for n in ("ann", "ben")]
    quiet = {"COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false"}  # nothing goes out
    variables = {**os.environ, **quiet, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    program = str(ENVIRONMENT / "bin" / "label-studio")
    with open(folder / "log.txt", "w+") as log:
        both: dict[str, Any] = {
            "env": variables,
            "stdout": log,
            "stderr": log,
            "stdin": subprocess.DEVNULL,
        }
        for person in people:
            subprocess.run([program, "init", *account(person)], check=True, **both)
        serve = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([program, *serve], **both)
        try:
            wait_for(url, process)
            numbers = [person.call("GET", "current-user/whoami")["id"] for person in people]
            ann, ben = (p._replace(account=n) for p, n in zip(people, numbers, strict=True))
            yield ann, ben
            log.seek(0)
            check("the server found no fault", "alidation failed" in log.read(), False)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def account(person: Person) -> list[str]:
    name = ["--username", person.email, "--password", secrets.token_hex(8)]
    return [*name, "--user-token", person.token, "--enable-legacy-api-token"]


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(240):
        try:
            opener.open(f"{url}/health", timeout=5).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    raise SystemExit("Label Studio did not start within two minutes")


if __name__ == "__main__":
    main()
