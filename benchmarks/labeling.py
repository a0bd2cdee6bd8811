"""The labeling page at work: its memory, its speed with many answers, keys in a real browser.

    python benchmarks/labeling.py                 # all of it, two minutes; needs Chromium for keys
    python benchmarks/labeling.py --parts memory answers

``memory`` serves 500 pictures of 3,000 x 4,000 pixels one after another, as originals, and reads
the largest memory that the server's process has had. ``answers`` measures a request with 10,000
answers in the journal, against one with 10. ``keys`` presses 20 keys a second in Chromium.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import header
from PIL import Image

from al_lightning.label.answers import OpenQuery
from al_lightning.run.journal import Journal, read_records

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from label_run import PRESS, Person, write_run

SIZE = (4000, 3000)
NUM_PICTURES = 500
NUM_ANSWERS = 10_000
KEYS_A_SECOND = 20
NUM_KEYS = 200


@contextmanager
def served(run_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a run's page in a process of its own; yield the process and the address."""
    command = [sys.executable, "-m", "al_lightning.label", str(run_dir), "--port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        yield server, found[0]
    finally:
        server.kill()
        server.communicate()


def peak_megabytes(process: subprocess.Popen[str]) -> float:
    """Return the largest resident memory that a process has had (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1000


def memory(folder: Path) -> None:
    """Serve large originals one after another."""
    run_dir = write_run(folder / "memory", num_rows=NUM_PICTURES, pictures=False)
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(SIZE).save(folder / "large.jpg", quality=92)
    images = run_dir / "queries" / "cycle_1" / "images"
    small = Image.open(folder / "large.jpg")
    small.thumbnail((1024, 1024))
    lines = []
    for index in range(10, 10 + NUM_PICTURES):
        small.save(images / f"{index}.jpg")
        original = folder / f"large_{index}.jpg"
        original.hardlink_to(folder / "large.jpg")
        part = {"kind": "picture", "file": f"images/{index}.jpg", "original": str(original)}
        lines.append(json.dumps({"index": index, "parts": [part]}))
    (images.parent / "rows.jsonl").write_text("\n".join(lines))
    with served(run_dir) as (server, address):
        person = Person(address, lambda row: 0)
        before, num_bytes = peak_megabytes(server), 0
        for index in range(10, 10 + NUM_PICTURES):
            for place in ("images", "originals"):
                num_bytes += len(person.open(f"{person.base}/{place}/{index}").read())
        print(
            f"memory: {NUM_PICTURES} pictures of {SIZE[0]} x {SIZE[1]}, {num_bytes / 1e9:.2f} GB "
            f"served; the server's peak {peak_megabytes(server):.0f} MB, {before:.0f} MB before"
        )


def answers(folder: Path) -> None:
    """Time requests with few and with many answers in the journal."""
    medians = {}
    for num in (10, NUM_ANSWERS):
        run_dir = write_run(folder / f"answers_{num}", num_rows=num + 120, pictures=False)
        journal = Journal(run_dir / "journal.jsonl")
        for n in range(num):  # without a sync for each, which this does not measure
            how: dict[str, Any] = {"cycle": 1, "number": n, "by": "ann", "at": "2026-01-01"}
            more = {"how": "page", "settles": False, "source": None, "seconds": 1.0}
            with _without_sync():
                journal.append("answers", answers=[[10 + n, {"label": n % 3}]], **how, **more)
        assert len(OpenQuery(journal).rows) == num
        with served(run_dir) as (_, address):
            person = Person(address, lambda row: 1)
            first = time.perf_counter()
            state = person.get("/state?by=ann")
            print(f"answers: {num:>6,}: first look {1e3 * (time.perf_counter() - first):.1f} ms")
            seconds: dict[str, list[float]] = {}
            for _ in range(50):
                looks: dict[str, Callable[[], Any]] = {
                    "answer": partial(person.answer, state["row"]),
                    "state": partial(person.get, "/state?by=ann&second=true"),
                    "undo": partial(person.post, "/undo", second=False),
                    "list": partial(person.get, "/answers?by=ann&words=dog"),
                    "grid": partial(person.get, "/grid?by=ann"),
                }
                for name, look in looks.items():
                    begin = time.perf_counter()
                    reply = look()
                    seconds.setdefault(name, []).append(time.perf_counter() - begin)
                    state = reply if name == "undo" else state
        for name, found in seconds.items():
            median, worst = statistics.median(found), sorted(found)[-3]
            medians[name, num] = median
            told = f"median {1e3 * median:.1f} ms, 95 % below {1e3 * worst:.1f} ms"
            ratio = medians[name, num] / medians[name, 10]
            print(f"answers: {num:>6,}: {name}: {told}, {ratio:.1f} x that with 10")


@contextmanager
def _without_sync() -> Iterator[None]:
    fsync = os.fsync
    os.fsync = lambda file: None
    try:
        yield
    finally:
        os.fsync = fsync


def keys(folder: Path) -> None:
    """Press keys faster than a person can, in a browser."""
    from playwright.sync_api import sync_playwright

    run_dir = write_run(folder / "keys", num_rows=NUM_KEYS)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with served(run_dir) as (_, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("heading", level=2).wait_for()
        begin = time.perf_counter()
        page.evaluate(PRESS, [NUM_KEYS, 1000 / KEYS_A_SECOND])
        pressed = time.perf_counter() - begin
        page.get_by_role("heading", name="Every row has an answer").wait_for()
        kept = time.perf_counter() - begin
        browser.close()
    records = [r for r in read_records(run_dir / "journal.jsonl") if r["event"] == "answers"]
    found = [pair for record in records for pair in record["answers"]]
    right = found == [[10 + n, {"label": n % 3}] for n in range(NUM_KEYS)]
    print(
        f"keys: {NUM_KEYS} keys at {NUM_KEYS / pressed:.1f} a second, {len(found)} answers kept "
        f"after {kept:.1f} s, each for its row: {right}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"memory": memory, "answers": answers, "keys": keys}
    parser.add_argument("--parts", nargs="+", choices=[*parts], default=[*parts])
    chosen = parser.parse_args().parts
    print(header())
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
