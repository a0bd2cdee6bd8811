"""What stands in the run folder is not made again, and any text is text."""

import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import TensorDataset
from toys import TRAINER, Plain, loop_of, points

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import Fold, fold
from al_lightning.monitor import pictures, tables, tensorboard
from al_lightning.monitor.drawing import LONGEST, as_shown
from al_lightning.monitor.kept import Kept, Notes
from al_lightning.run.journal import Journal
from al_lightning.run.lock import unlock


class OnImages(Plain):
    def forward(self, x):
        return self.net(x.flatten(1))


def images(classes=None):
    x, y = points(200).tensors
    rows = TensorDataset(x.view(-1, 1, 2, 2), y)
    return ActiveDataModule(
        rows,
        test_set=TensorDataset(x[:20].view(-1, 1, 2, 2) + 9, y[:20]),
        initial_labeled_size=20,
        batch_size=16,
        classes=classes,
    )


def begin(run_dir, num=3, **arguments):
    options = {"trainer": TRAINER, "acquisition_size": 5, "num_cycles": 9, **arguments}
    loop = ActiveLearningLoop(OnImages(), images(), run_dir=run_dir, **options)
    for _ in range(num):
        loop.tell(loop.ask().indices)
    unlock(run_dir)
    return loop


def resume(run_dir, **arguments):
    arguments = {"trainer": TRAINER, **arguments}
    return ActiveLearningLoop.resume(run_dir, OnImages(), images(), **arguments)


@pytest.fixture
def made(monkeypatch):
    """Counts what is drawn and written."""
    counts = {"drawn": 0, "tables": []}

    def counted(draw):
        def drawing(*args):
            counts["drawn"] += 1
            return draw(*args)

        return drawing

    for module in (pictures, tensorboard):
        for name in ("query_figure", "progress_figure"):
            monkeypatch.setattr(module, name, counted(getattr(module, name)))
    write = tables.write_table
    monkeypatch.setattr(
        tables,
        "write_table",
        lambda path, *a: (counts["tables"].append(path.name), write(path, *a)),
    )
    return counts


def pixels(png):
    return Image.open(io.BytesIO(png)).tobytes()


def points_of(run_dir):
    shown = EventAccumulator(str(run_dir), {"images": 0, "scalars": 0}).Reload()
    scalars = {
        name: [(e.step, e.value) for e in shown.Scalars(name)] for name in shown.Tags()["scalars"]
    }
    pictures = {
        name: [(e.step, pixels(e.encoded_image_string)) for e in shown.Images(name)]
        for name in shown.Tags()["images"]
    }
    return scalars, pictures


def files_in(run_dir):
    return {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and "cycle_" not in path.parts[-2] and path.name != "run.lock"
    }


def test_what_stands_is_not_made_again(tmp_path, made):
    begin(tmp_path)
    before = files_in(tmp_path)
    assert made["drawn"] > 0
    made["drawn"], made["tables"] = 0, []
    loop = resume(tmp_path)
    loop.prepare()
    assert made == {"drawn": 0, "tables": ["metrics.csv"]}
    assert files_in(tmp_path) == before
    loop.tell(loop.ask().indices)
    assert made["drawn"] == 3  # as in a run that nothing disturbed: once asked, once labeled


def test_a_resumed_run_shows_what_an_uninterrupted_one_does(tmp_path):
    begin(tmp_path / "whole", 4)
    begin(tmp_path / "cut", 2)
    loop = resume(tmp_path / "cut")
    for _ in range(2):
        loop.tell(loop.ask().indices)
    assert points_of(tmp_path / "cut") == points_of(tmp_path / "whole")
    whole, cut = (files_in(tmp_path / name) for name in ("whole", "cut"))
    for name in [n for n in whole if n.endswith(".csv") and n != "metrics.csv"]:
        assert whole[name] == cut[name], name
    for name in [n for n in whole if n.endswith(".png")]:
        assert pixels(whole[name]) == pixels(cut[name]), name


def torn(path):
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES = {
    "a picture is gone": lambda d: (d / "queries" / "cycle_2.png").unlink(),
    "a picture is another": lambda d: shutil.copy(d / "progress.png", d / "queries/cycle_2.png"),
    "a table is changed": lambda d: (d / "queries" / "cycle_1.csv").write_text("index\n"),
    "a table is gone": lambda d: (d / "queries" / "cycle_1.csv").unlink(),
    "events are cut": lambda d: torn(next(d.glob("events*"))),
    "events are gone": lambda d: next(d.glob("events*")).unlink(),
    "events are more": lambda d: next(d.glob("events*")).open("ab").write(b"torn") and None,
    "notes are cut": lambda d: [torn(path) for path in d.glob(".*.jsonl")],
    "notes are gone": lambda d: [path.unlink() for path in d.glob(".*.jsonl")],
    "notes of events are gone": lambda d: (d / ".tensorboard.jsonl").unlink(),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_stand_is_made_again(tmp_path, name):
    begin(tmp_path)
    expected, shown = files_in(tmp_path), points_of(tmp_path)
    DAMAGES[name](tmp_path)
    resume(tmp_path).prepare()
    found = files_in(tmp_path)
    same = [n for n in expected if not n.startswith(("events", "."))]
    assert {n: found[n] for n in same} == {n: expected[n] for n in same}
    assert points_of(tmp_path) == shown
    unlock(tmp_path)
    resume(tmp_path).prepare()
    assert points_of(tmp_path) == shown


def test_a_journal_that_was_cut_shows_nothing_of_what_came_after(tmp_path):
    begin(tmp_path, 4)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[: 1 + 2 * 4]))
    resume(tmp_path).prepare()
    scalars, shown = points_of(tmp_path)
    assert [step for step, _ in scalars["active/test_acc"]] == [20, 25]
    assert [step for step, _ in shown["active/queries"]] == [20, 25]


def test_another_run_in_the_folder_is_not_taken_for_this_one(tmp_path, made):
    begin(tmp_path)
    (tmp_path / "journal.jsonl").unlink()
    begin(tmp_path, strategy="random")
    scalars, shown = points_of(tmp_path)
    assert [step for step, _ in shown["active/queries"]] == [20, 25, 30]
    assert len(scalars["active/test_acc"]) == 3


def test_a_correction_is_shown_after_a_resume(tmp_path):
    loop = begin(tmp_path)
    first = loop.results[0].query.indices[0]
    again = resume(tmp_path)
    query = again.ask()
    again.answer({first: 2})
    again.tell(query.indices)
    unlock(tmp_path)
    resume(tmp_path).prepare()
    rows = (tmp_path / "queries" / "cycle_1.csv").read_text().splitlines()
    assert rows[1].split(",")[3] == "2"


def test_notes_drop_a_torn_line_and_go_on(tmp_path):
    path = tmp_path / ".notes.jsonl"
    notes = Notes(path)
    notes.add("a", 1)
    notes.add("b", None)
    torn(path)
    again = Notes(path)
    assert again.lines == [["a", 1]]
    again.add("c", "d")
    assert Notes(path).lines == [["a", 1], ["c", "d"]]
    kept = Kept(tmp_path, "kept")
    kept.note("none.png", "x")
    assert kept.stands("none.png", "x")
    assert not kept.stands("none.png", "y")
    (tmp_path / "none.png").write_bytes(b"1")
    assert not Kept(tmp_path, "kept").stands("none.png", "x")


# ---- answers as they come ------------------------------------------------------------------------


def test_answers_are_folded_as_they_come():
    records = []
    folded = Fold()
    draw = torch.Generator().manual_seed(0)
    for number in range(60):
        row, label = (int(torch.randint(0, 6, (1,), generator=draw)) for _ in range(2))
        answer = {"event": "answers", "number": number, "answers": [[row, {"label": label}]]}
        answer |= {
            "by": "ab"[number % 2],
            "at": str(number),
            "how": "x",
            "settles": number % 7 == 0,
        }
        records.append(answer)
        folded.add(answer)
        if number % 5 == 4:
            undo = {"event": "undo", "number": folded.standing[-1]["number"]}
            records.append(undo)
            folded.add(undo)
        assert folded.rows == fold(records)
        assert list(folded.rows) == list(fold(records))
        assert folded.num == number + 1


def test_a_further_answer_reads_no_earlier_one_again(tmp_path, monkeypatch):
    loop = loop_of(run_dir=tmp_path, acquisition_size=40)
    query = loop.ask()
    taken = []
    take = Fold.add
    monkeypatch.setattr(Fold, "add", lambda self, r: (taken.append(r["event"]), take(self, r))[1])
    for row in query.indices[:30]:
        loop.answer({row: 1})
    assert taken.count("answers") <= 30
    assert len(loop._open_query().rows) == 30
    page = OpenQuery(Journal(tmp_path / "journal.jsonl"))
    assert page.rows == loop._open_query().rows
    loop.undo()
    assert len(loop._open_query().rows) == 29
    loop.finish()
    assert loop.data.num_labeled == 49
    assert loop.ask().cycle == 2
    assert loop._open_query().rows == {}


# ---- any text ------------------------------------------------------------------------------------

TEXTS = [
    "$0_to_$50",
    "$$",
    "$",
    r"\frac{a",
    "a_b^c",
    "two\nlines\tand\x00more",
    "x" * 300,
    "",
    "שלום",
    "😀 猫",
    "\ud800 lone",
    "<b>&amp;",
    "=SUM(A1)",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_class_name_is_drawn_and_written(tmp_path, text):
    names = [text, f"{text} 2", "other"]

    def data():
        return images(classes=names)

    options = {"trainer": TRAINER, "acquisition_size": 5, "num_cycles": 2}
    loop = ActiveLearningLoop(OnImages(), data(), run_dir=tmp_path, **options)
    loop.run()
    assert (tmp_path / "queries" / "cycle_1.png").stat().st_size > 1000
    shutil.rmtree(tmp_path / "queries")
    again = ActiveLearningLoop.resume(tmp_path, OnImages(), data(), trainer=TRAINER)
    again.run()
    assert (tmp_path / "queries" / "cycle_1.png").exists()
    assert "queries" in os.listdir(tmp_path)


def test_a_name_is_shown_on_one_short_line():
    assert as_shown("a\nb") == "a b"
    assert as_shown(3) == "3"
    assert len(as_shown("y" * 500)) == LONGEST
    assert as_shown("\ud800") == "?"


def test_a_metric_with_any_name_is_shown(tmp_path):
    class Odd(OnImages):
        def training_step(self, batch, batch_idx):
            self.log("loss in $_{x}$", 1.0)
            return super().training_step(batch, batch_idx)

    options = {"trainer": TRAINER, "acquisition_size": 5, "num_cycles": 1}
    ActiveLearningLoop(Odd(), images(), run_dir=tmp_path, **options).run()
    assert "active/loss in $_{x}$" in points_of(tmp_path)[0]
    assert Path(tmp_path / "progress.png").exists()
