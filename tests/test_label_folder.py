"""A folder of unlabeled images to a trained classifier, as a person would: page, keys, resume."""

import csv
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from label_browser import NEEDS_BROWSER, press
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from al_lightning.label.answers import OpenQuery
from al_lightning.run.journal import Journal

pytestmark = NEEDS_BROWSER
EXAMPLE = Path(__file__).parent.parent / "examples" / "label_folder.py"
CLASSES = ("bar", "ring", "disk")
ADDRESS = re.compile(r"http://\S+")


def draw(folder, seeds):
    """Pictures of three shapes; gives the class of each by name."""
    folder.mkdir()
    truth = {}
    for seed in seeds:
        draw = random.Random(seed)
        kind = CLASSES[seed % 3]
        picture = Image.new("RGB", (48, 36), tuple(draw.choices(range(60), k=3)))
        pen, color = ImageDraw.Draw(picture), tuple(draw.choices(range(150, 256), k=3))
        x, y = draw.randrange(2, 22), draw.randrange(2, 12)
        if kind == "bar":
            pen.rectangle((x, y + 8, x + 22, y + 13), fill=color)
        else:
            pen.ellipse((x, y, x + 22, y + 22), color if kind == "disk" else None, color, 3)
        picture.save(folder / f"{seed:03}.png")
        truth[f"{seed:03}.png"] = kind
    return truth


@pytest.fixture
def project(tmp_path):
    """A folder of photos and a test set, and what each photo shows."""
    truth = draw(tmp_path / "photos", range(90))
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with open(tmp_path / "test.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label"), *draw(tmp_path / "test", range(90, 150)).items()]
        )
    (tmp_path / "test.csv").rename(tmp_path / "test" / "labels.csv")
    return tmp_path, truth


@pytest.fixture
def train(project, no_pictures, monkeypatch, capsys):
    """Runs the example in the project's folder and gives what it printed."""
    monkeypatch.chdir(project[0])
    monkeypatch.setenv("PL_GLOBAL_SEED", "")  # seed_everything sets it: put it back afterwards

    def train(*args):
        monkeypatch.setattr(sys, "argv", ["label_folder.py", *args])
        with torch.random.fork_rng():
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        return capsys.readouterr().out

    return train


def waiting(run_dir):
    return OpenQuery(Journal(run_dir / "journal.jsonl"))


def accuracies(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return [float(row["test_acc"]) for row in csv.DictReader(file) if row["test_acc"]]


@pytest.mark.filterwarnings("ignore:1 rows cannot be read and are left out. broken.png")
def test_a_person_labels_a_folder(project, train, serve, browse):
    folder, truth = project
    run_dir = folder / "runs" / "shapes"
    printed = train(
        "--data.folder=photos",
        "--data.classes=[bar, ring, disk]",
        "--data.test_folder=test",
        "--data.image_size=32",
        "--data.initial_labeled_size=4",
        "--active.acquisition_size=24",
        "--active.num_cycles=2",
        "--active.run_dir=runs/shapes",
        "--trainer.max_epochs=20",
        "--trainer.accelerator=cpu",
    )
    assert waiting(run_dir).journal.records[0]["split"]["invalid"] == [90]
    assert "cycle 0 waits for labels: 0 of 4 rows are answered" in printed
    for cycle in (0, 1):
        query = waiting(run_dir)
        assert query.cycle == cycle
        page = browse(serve(run_dir))
        keys = [str(1 + CLASSES.index(truth[name])) for name in query.record["names"]]
        press(page, *keys[:2])
        page.reload()
        expect(page.locator("#progress-text")).to_contain_text("2 of")
        press(page, "x", "u", *keys[2:])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=2)).to_have_text("The query is closed")
        printed = train("--active.run_dir=runs/shapes", "--active.resume=true")
    assert "curves: tensorboard" in printed
    first, last = accuracies(run_dir)
    assert last > first + 0.1
    with open(run_dir / "labels.csv", newline="") as file:
        table = {row["path"]: row["label"] for row in csv.DictReader(file)}
    assert len(table) == 28
    assert table == {path: truth[path] for path in table}


@pytest.mark.slow
def test_one_command_and_one_tab_for_eight_cycles(project, browse):
    folder, truth = project
    command = [
        *(sys.executable, EXAMPLE, "--data.folder=photos", "--data.classes=[bar, ring, disk]"),
        *("--data.test_folder=test", "--data.image_size=32", "--data.initial_labeled_size=6"),
        *("--active.acquisition_size=6", "--active.num_cycles=8", "--active.run_dir=runs/shapes"),
        *("--active.oracle=page", "--trainer.max_epochs=10", "--trainer.accelerator=cpu"),
    ]
    program = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = next(found[0] for line in program.stdout if (found := ADDRESS.search(line)))
        page = browse(address, complains=True)  # of the server that ends with its run
        began = page.evaluate("performance.timeOrigin")
        title, heading = page.locator("#row-title"), page.get_by_role("heading", level=2)
        for cycle in range(8):
            for number in range(1, 7):
                expect(title).to_contain_text(f"Row {number} of 6: ", timeout=60_000)
                name = title.text_content().partition(": ")[2]
                page.keyboard.press(str(1 + CLASSES.index(truth[name])))
            expect(heading).to_have_text("Every row has an answer")
            expect(page.get_by_role("heading", level=1)).to_have_text(f"Labeling, cycle {cycle}")
            page.keyboard.press("Enter")
        expect(heading).to_have_text("The run is over", timeout=60_000)
        expect(page.locator("#training-results li")).to_have_count(8)
        assert page.evaluate("performance.timeOrigin") == began  # the tab was never loaded again
        assert program.wait(timeout=60) == 0
    finally:
        program.kill()
        program.communicate()
    query = Journal(folder / "runs" / "shapes" / "journal.jsonl")
    assert [len(record["labels"]) for record in query.of("labels")] == [6] * 8
    pairs = [pair for r in query.of("labels") for pair in zip(r["indices"], r["labels"])]
    assert {f"{row:03}.png": CLASSES[label] for row, label in pairs}.items() <= truth.items()
