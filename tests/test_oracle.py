"""Labels from people: the loop waits, keeps what came, and goes on as if it had come at once."""

import csv
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from toys import QUIET, TRAINER, Plain, asked, events, loop_of, points, points_data, weights

from al_lightning import (
    INVALID,
    SKIP,
    ActiveDataModule,
    ActiveLearningLoop,
    Exchange,
    Tables,
)
from al_lightning.data.views import UnreadableRowError
from al_lightning.label.answers import AnswersError, OpenQuery
from al_lightning.monitor import Pictures as QueryPictures
from al_lightning.run.journal import Journal
from al_lightning.run.lock import LOCK

CLASSES = ["left", "middle", "right"]
TRUTH = points(120).tensors[1].tolist()


class Inputs(Dataset):
    """The rows of ``points`` without their labels."""

    paths = [f"row {i}" for i in range(120)]

    def __init__(self):
        self.rows = points(120).tensors[0]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def unlabeled_data(**arguments):
    """As ``points_data``, whose first rows it labels, without labels."""
    first = points_data().labeled_indices.tolist()
    arguments = {"initial_labels": {i: TRUTH[i] for i in first}, **arguments}
    return ActiveDataModule(
        Inputs(), test_set=points(50, seed=1), batch_size=16, classes=CLASSES, **arguments
    )


def resume(run_dir, data=None, **arguments):
    arguments = {"trainer": TRAINER, "monitors": [], **arguments}
    return ActiveLearningLoop.resume(run_dir, Plain(), data or unlabeled_data(), **arguments)


def all_of_it(query):
    return [TRUTH[i] for i in query.indices]


def in_parts(query):
    """Every second row, and those left open of an earlier time: after two calls all is there."""
    return {i: TRUTH[i] for n, i in enumerate(query.indices) if n % 2 == in_parts.calls % 2}


def test_labels_from_a_function_train_as_the_data_sets_own():
    own = loop_of()
    others = loop_of(data=unlabeled_data(), oracle=all_of_it)
    assert asked(others.run()) == asked(own.run())
    assert torch.equal(weights(others.model), weights(own.model))


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda v: dict(enumerate(v))])
def test_a_function_answers_with_a_list_an_array_or_by_index(make):
    query = loop_of(data=unlabeled_data(), oracle=lambda q: None).ask()

    def oracle(query):
        made = make(all_of_it(query))
        return {query.indices[n]: v for n, v in made.items()} if isinstance(made, dict) else made

    loop = loop_of(data=unlabeled_data(), oracle=oracle, num_cycles=2)
    loop.run()
    assert loop.data.labels_of(query.indices) == all_of_it(query)


def test_partial_answers_wait_and_the_run_ends_as_one_that_had_them_at_once(tmp_path):
    whole = loop_of(data=unlabeled_data(), oracle=all_of_it)
    whole_results = whole.run()
    run_dir, loop, in_parts.calls = tmp_path / "run", None, 0
    data = unlabeled_data()
    loop = loop_of(data=data, oracle=in_parts, run_dir=run_dir)
    while not loop.finished:
        before = len(loop.records)
        loop.run()
        assert len(loop.records) > before
        in_parts.calls += 1
        loop = resume(run_dir, oracle=in_parts)
    assert in_parts.calls == 3
    assert asked(loop.results) == asked(whole_results)
    assert [r.metrics for r in loop.results] == [r.metrics for r in whole_results]
    assert torch.equal(weights(loop.model), weights(whole.model))


def test_later_means_that_the_run_waits_and_can_go_on_here(tmp_path):
    labels = []
    loop = loop_of(
        data=unlabeled_data(), oracle=lambda q: labels and all_of_it(q), run_dir=tmp_path
    )
    labels = None
    (result,) = loop.run()
    assert not loop.finished
    assert loop.run() == [result]  # still later: nothing is done again
    assert [e for e, _ in events(tmp_path)].count("fit") == 1
    labels = [1]
    assert len(loop.run()) == 3
    assert loop.finished


def test_while_a_run_waits_others_write_its_journal(tmp_path):
    loop = loop_of(data=unlabeled_data(), oracle=lambda q: None, run_dir=tmp_path)
    loop.run()
    page = Journal(tmp_path / "journal.jsonl")
    query = OpenQuery(page)
    query.answer({i: TRUTH[i] for i in query.indices[:4]}, by="ann", how="page")
    assert loop.run()[-1].cycle == 1  # some are still open
    assert len(loop.records) == len(page.records)
    page = Journal(tmp_path / "journal.jsonl")
    OpenQuery(page).finish(by="ann", how="page")
    assert loop.run()[-1].cycle == 2
    assert loop.results[-1].num_labeled == 24
    assert loop.data.labels_of(query.indices[:4]) == [TRUTH[i] for i in query.indices[:4]]


def test_skipped_rows_stay_and_are_not_asked_again_and_invalid_ones_leave():
    seen = []

    def oracle(query):
        seen.extend(query.indices)
        return [SKIP, INVALID, *all_of_it(query)[2:]]

    loop = loop_of(data=unlabeled_data(), oracle=oracle, strategy="margin", num_cycles=4)
    results = loop.run()
    assert len(seen) == len(set(seen)) == 45
    assert [r.num_labeled for r in results] == [20, 33, 46, 59]
    skipped, invalid = seen[::15], seen[1::15]
    assert loop.data.pool.skipped == set(skipped)
    assert set(skipped) <= set(loop.data.unlabeled_indices.tolist())
    assert not set(invalid) & set(loop.data.unlabeled_indices.tolist())
    assert not set(invalid) & set(loop.data.labeled_indices.tolist())


def test_a_run_ends_when_only_skipped_rows_are_left():
    loop = loop_of(
        data=points_data(num_rows=30), oracle=lambda q: [SKIP] * len(q.indices), num_cycles=9
    )
    assert [r.num_labeled for r in loop.run()] == [20, 20]
    assert loop.records[-1]["reason"] == "pool is empty"
    assert loop.data.num_unlabeled == 10


def test_tell_takes_skips_and_an_earlier_label_can_be_corrected():
    loop = loop_of(data=unlabeled_data())
    query = loop.ask()
    loop.tell(query.indices[:3], [0, SKIP, INVALID], by="ann")
    assert loop.data.num_labeled == 21
    assert loop.data.pool.skipped == {query.indices[1]}
    loop.ask()
    loop.answer({query.indices[0]: 2}, by="ben")
    loop.finish(by="ben")
    assert loop.data.num_labeled == 21
    assert loop.data.labels_of([query.indices[0]]) == [2]
    batches = [batch[1] for batch in loop.data.train_dataloader()]
    assert len(torch.cat(batches)) == 21


def test_answers_before_a_tell_count_and_what_is_told_holds():
    loop = loop_of(data=unlabeled_data())
    query = loop.ask()
    loop.answer({i: 0 for i in query.indices[:3]}, by="ann")
    loop.answer({query.indices[2]: 1}, by="ben")  # they differ, until it is told
    loop.tell(query.indices[2:4], [2, 2])
    assert loop.data.labels_of(query.indices[:4]) == [0, 0, 2, 2]
    assert loop.data.num_labeled == 24


def test_who_told_is_named_and_not_who_answered_before(tmp_path):
    loop = loop_of(data=unlabeled_data(), run_dir=tmp_path)
    query = loop.ask()
    loop.answer({i: 0 for i in query.indices[:2]}, by="ann")
    loop._watching = [Tables()]
    loop.tell(query.indices[1:3], [1, 2], by="ben")
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = {int(row["index"]): (row["label"], row["labelers"]) for row in csv.DictReader(file)}
    expected = [("left", "ann"), ("middle", "ben"), ("right", "ben")]
    assert [rows[i] for i in query.indices[:3]] == expected


def test_numbers_of_numpy_are_numbers():
    loop = loop_of(data=unlabeled_data(initial_labels={np.int64(3): np.int64(1)}))
    query = loop.ask()
    loop.answer({np.int64(query.indices[0]): np.int64(2)})
    loop.finish()
    assert loop.data.row_labels.given == {3: 1, query.indices[0]: 2}
    with pytest.raises(ValueError, match="got None; leave it out"):
        loop.answer({loop.ask().indices[0]: None})


def test_an_answer_that_cannot_be_a_label_is_refused_before_it_is_kept(tmp_path):
    loop = loop_of(oracle=lambda q: ["cat"] * len(q.indices), run_dir=tmp_path)
    with pytest.raises(AnswersError, match="a label must be as the data set's are.*got 'cat'"):
        loop.run()
    assert events(tmp_path)[-1] == ("query", 1)
    with pytest.raises(ValueError, match="got 'cat'"):
        loop.answer({loop.ask().indices[0]: "cat"})
    assert resume(tmp_path, points_data(), oracle=lambda q: [1] * len(q.indices)).run()


def test_an_error_of_the_users_function_is_its_own():
    loop = loop_of(data=unlabeled_data(), oracle=lambda q: int("no number"))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        loop.run()
    assert caught.type is ValueError


def test_the_data_set_labels_only_what_people_left_open(tmp_path):
    loop = loop_of(run_dir=tmp_path, oracle=lambda q: None, num_cycles=2)
    query = loop.run()[-1].query
    loop.answer({query.indices[0]: INVALID, query.indices[1]: 0, query.indices[2]: 2}, by="ann")
    loop.answer({query.indices[2]: 1}, by="ben")
    again = resume(tmp_path, points_data(), oracle="dataset")
    again.run()
    assert again.data.pool.invalid == {query.indices[0]}
    own = [TRUTH[i] for i in query.indices[2:]]
    assert again.data.labels_of(query.indices[1:]) == [0, *own]


def test_who_labels_is_remembered(tmp_path, watched):
    loop_of(data=unlabeled_data(), oracle=lambda q: None, run_dir=tmp_path / "a").run()
    with pytest.raises(ValueError, match="came from a function, which is not kept; give it again"):
        resume(tmp_path / "a")
    watched(tmp_path / "b", accept_unasked=True).run()
    again = resume(tmp_path / "b")
    assert (again.oracle, again.accept_unasked) == ("files", True)


def test_what_another_process_trained_meanwhile_is_taken_up(tmp_path):
    arguments = {"run_dir": tmp_path / "run", "warm_start": True}
    loop = loop_of(data=unlabeled_data(), oracle=lambda q: None, **arguments)
    query = loop.run()[-1].query
    other = resume(tmp_path / "run", oracle=lambda q: None)
    other.tell(query.indices, all_of_it(query))
    other.run()  # cycle 2, and waits
    loop.oracle = all_of_it
    results = loop.run()
    whole = loop_of(data=unlabeled_data(), oracle=all_of_it, warm_start=True)
    assert asked(results) == asked(whole.run())
    assert torch.equal(weights(loop.model), weights(whole.model))


def test_what_another_process_ended_is_over(tmp_path):
    loop = loop_of(data=unlabeled_data(), oracle=lambda q: None, run_dir=tmp_path)
    loop.run()
    resume(tmp_path, oracle=all_of_it).run()
    assert len(loop.run()) == 3
    assert loop.finished
    assert is_free(tmp_path)


def is_free(run_dir):
    """Whether another process could take the folder: one without torch, which starts at once."""
    script = (
        "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    command = [sys.executable, "-c", script, run_dir / LOCK]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_undo_reaches_the_journal():
    loop = loop_of(data=unlabeled_data())
    query = loop.ask()
    loop.answer({query.indices[0]: 2})
    assert loop.undo() == [query.indices[0]]
    with pytest.raises(ValueError, match="no answer to take back"):
        loop.undo()


# ---- a run that begins without labels ------------------------------------------------------------


def begin_with_nothing(**arguments):
    return unlabeled_data(initial_labels=None, initial_labeled_size=20, **arguments)


def test_a_run_without_labels_asks_for_the_first_and_trains_as_one_that_had_them():
    whole = loop_of(data=unlabeled_data(), oracle=all_of_it)
    whole_results = whole.run()
    loop = loop_of(data=begin_with_nothing(), oracle=all_of_it)
    first, *results = loop.run()
    assert (first.cycle, first.num_labeled, first.metrics) == (0, 0, {})
    assert first.query.scores is None
    assert first.query.names == [f"row {i}" for i in first.query.indices]
    assert set(first.query.indices) == set(points_data().labeled_indices.tolist())
    assert asked(results) == asked(whole_results)
    assert torch.equal(weights(loop.model), weights(whole.model))


def test_a_strategy_that_compares_with_labeled_rows_begins_without_any():
    arguments = {"strategy": "core_set", "embedding_layer": "net.3", "num_cycles": 2}
    loop = loop_of(data=begin_with_nothing(), oracle=all_of_it, **arguments)
    assert [r.num_labeled for r in loop.run()] == [0, 20, 35]


def test_resumed_after_any_event_it_equals_the_uninterrupted(tmp_path):
    arguments = {"oracle": in_thirds, "num_cycles": 2}
    whole = loop_of(data=begin_with_nothing(), run_dir=tmp_path / "whole", **arguments)
    while not whole.finished:
        whole.run()
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    names = [event for event, _ in events(tmp_path / "whole")]
    assert names.count("answers") == 6
    for cut in range(1, len(lines) + 1):
        run_dir = tmp_path / f"cut_{cut}"
        shutil.copytree(tmp_path / "whole", run_dir)
        (run_dir / "journal.jsonl").write_text("".join(lines[:cut]))
        loop = resume(run_dir, begin_with_nothing(seed=42), oracle=in_thirds)
        while not loop.finished:
            loop.run()
        assert asked(loop.results) == asked(whole.results), cut
        assert [r.metrics for r in loop.results] == [r.metrics for r in whole.results], cut
        assert torch.equal(weights(loop.model), weights(whole.model)), cut
        assert loop.data.state_dict()["skipped"] == whole.data.state_dict()["skipped"]


def in_thirds(query):
    """Each call answers another third of the rows; the last row of a query is skipped."""
    in_thirds.calls += 1
    third = query.indices[in_thirds.calls % 3 :: 3]
    return {i: SKIP if i == query.indices[-1] else TRUTH[i] for i in third}


in_thirds.calls = 0


def test_the_first_rows_may_not_all_be_left_out():
    loop = loop_of(data=begin_with_nothing(), oracle=lambda q: [SKIP] * len(q.indices))
    with pytest.raises(ValueError, match="at least one row must get a label"):
        loop.run()


def test_rows_that_cannot_be_read_are_named_and_left_out(tmp_path):
    class Broken(Inputs):
        def unreadable(self):
            return {i: "truncated" for i in (first[0], 7)}

    first = begin_with_nothing()
    first = first.first_indices
    data = ActiveDataModule(Broken(), initial_labeled_size=20, classes=CLASSES)
    loop = loop_of(data=data, oracle=all_of_it, run_dir=tmp_path, num_cycles=2)
    with pytest.warns(UserWarning, match=f"2 rows cannot be read .*row {first[0]}: truncated"):
        query = loop.ask()
    assert query.indices == first[1:]
    assert data.pool.invalid == {first[0], 7}
    data = ActiveDataModule(Broken(), initial_labeled_size=20, classes=CLASSES)
    again = resume(tmp_path, data, oracle=all_of_it)
    assert again.data.pool.invalid == {first[0], 7}
    assert again.ask() == query


def test_a_renamed_row_is_noticed_wherever_it_is(tmp_path):
    class Renamed(Inputs):
        paths = [f"row {i}" for i in range(55)] + ["row 54a"] + [f"row {i}" for i in range(56, 120)]

    loop_of(data=unlabeled_data(), oracle=lambda q: None, run_dir=tmp_path).run()
    first = points_data().labeled_indices.tolist()
    data = ActiveDataModule(
        Renamed(),
        initial_labels={i: TRUTH[i] for i in first},
        test_set=points(50, seed=1),
        batch_size=16,
        classes=CLASSES,
    )
    with pytest.raises(ValueError, match="must be there .* found 1 missing: row 55;"):
        resume(tmp_path, data, oracle=all_of_it)


def test_rows_to_begin_with_must_not_all_be_broken():
    class Broken(Inputs):
        def unreadable(self):
            return dict.fromkeys(range(120), "truncated")

    for arguments in ({"initial_labeled_size": 20}, {"initial_labels": {3: 1}}):
        loop = loop_of(data=ActiveDataModule(Broken(), classes=CLASSES, **arguments))
        with pytest.raises(ValueError, match="at least one row to begin with must be readable"):
            loop.ask()


def test_a_function_cannot_answer_processes_that_have_not_met():
    trainer = partial(TRAINER.func, accelerator="cpu", devices=2, strategy="ddp", **QUIET)
    loop = loop_of(data=begin_with_nothing(), oracle=all_of_it, trainer=trainer, strategy="random")
    with pytest.raises(ValueError, match="2 processes cannot share the answers of a function"):
        loop.run()


# ---- files ---------------------------------------------------------------------------------------


class Pictures(Inputs):
    def picture(self, index):
        return Image.new("RGB", (20, 10), (index, 0, 0))


def filed(run_dir, **arguments):
    data = unlabeled_data()
    return loop_of(data=data, oracle="files", run_dir=run_dir, **arguments)


def fill_in(run_dir, cycle, name="to_label.csv", rows=slice(None), label=None, labeler=""):
    """Labels rows of the file that the run wrote, as a person would."""
    folder = run_dir / "queries" / f"cycle_{cycle}"
    with open(folder / "to_label.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for row in table[rows]:
        row["label"] = label or CLASSES[TRUTH[int(row["index"])]]
        row["labeler"] = labeler
    with open(folder / name, "w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


@pytest.fixture
def watched(monkeypatch):
    """Runs are watched by what writes files."""

    def loop_with_files(run_dir, data=None, **arguments):
        data = data or unlabeled_data()
        return ActiveLearningLoop(
            Plain(),
            data,
            run_dir=run_dir,
            monitors=[Tables(), Exchange()],
            oracle="files",
            **{"trainer": TRAINER, "acquisition_size": 15, "num_cycles": 3, **arguments},
        )

    return loop_with_files


go_on = partial(resume, oracle="files")


def test_files_are_written_filled_in_and_read(tmp_path, watched):
    whole = loop_of(data=unlabeled_data(), oracle=all_of_it)
    whole.run()
    loop = watched(tmp_path)
    loop.run()
    for cycle in (1, 2):
        assert not loop.finished
        fill_in(tmp_path, cycle, labeler="ann")
        loop = go_on(tmp_path)
        loop.monitors = [Tables(), Exchange()]
        loop.run()
    assert loop.finished
    assert asked(loop.results) == asked(whole.results)
    assert torch.equal(weights(loop.model), weights(whole.model))
    with open(tmp_path / "queries" / "cycle_1.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [CLASSES[TRUTH[int(row["index"])]] for row in rows]
    assert {row["labelers"] for row in rows} == {"ann"}
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {(row["labelers"], row["how"]) for row in rows} == {("ann", "files")}
    assert all(row["path"] == f"row {row['index']}" for row in rows)


def test_a_half_filled_file_is_kept_and_read_once(tmp_path, watched):
    watched(tmp_path).run()
    fill_in(tmp_path, 1, rows=slice(4))
    loop = go_on(tmp_path)
    loop.run()
    assert [record["event"] for record in loop.records].count("answers") == 1
    loop.undo()
    again = go_on(tmp_path)
    again.run()  # the file says nothing new: what was taken back stays so
    assert OpenQuery(Journal(tmp_path / "journal.jsonl")).rows == {}
    fill_in(tmp_path, 1)
    loop = go_on(tmp_path)
    loop.run()
    assert len(OpenQuery(Journal(tmp_path / "journal.jsonl")).rows) == 11
    loop.finish()
    assert go_on(tmp_path).run()[-1].num_labeled == 31


def test_an_emptied_cell_takes_back_what_its_file_said(tmp_path, watched):
    query = watched(tmp_path).run()[-1].query
    first, second, third, fourth = query.indices[:4]
    fill_in(tmp_path, 1, rows=slice(4), labeler="ann")
    go_on(tmp_path).run()
    page = OpenQuery(Journal(tmp_path / "journal.jsonl"))
    page.answer({second: 0}, by="ann", how="page")  # she has changed her mind since
    page.answer({third: 0}, by="ben", how="page")
    path = tmp_path / "queries" / "cycle_1" / "to_label.csv"
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    for row in table[:3]:
        row["label"] = ""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    for _ in range(2):  # read once: the second time it says nothing new
        loop = go_on(tmp_path)
        loop.run()
    rows = OpenQuery(Journal(tmp_path / "journal.jsonl")).rows
    assert first not in rows
    assert rows[second].by_labeler == {"ann": 0}
    assert rows[third].by_labeler == {"ben": 0}
    assert rows[fourth].by_labeler == {"ann": TRUTH[fourth]}
    assert [record["event"] for record in loop.records].count("answers") == 4


def test_what_a_person_wrote_is_not_written_over(tmp_path, watched):
    loop = watched(tmp_path)
    loop.run()
    fill_in(tmp_path, 1, rows=slice(4))
    path = tmp_path / "queries" / "cycle_1" / "to_label.csv"
    before = path.read_text()
    loop.run()
    assert path.read_text() == before


def test_two_people_who_differ_in_files_keep_the_run_waiting(tmp_path, watched, capsys):
    watched(tmp_path).run()
    fill_in(tmp_path, 1, "to_label_ann.csv", labeler="ann")
    fill_in(tmp_path, 1, "to_label_ben.csv", rows=slice(3), label="left", labeler="ben")
    loop = go_on(tmp_path)
    loop.run()
    assert not loop.finished
    query = OpenQuery(Journal(tmp_path / "journal.jsonl"))
    differing = [i for i in query.indices[:3] if TRUTH[i] != 0]
    assert query.open_indices == differing
    assert differing
    loop.answer({i: TRUTH[i] for i in differing}, by="ann", settles=True)
    assert loop.run()[-1].cycle == 2


def test_a_bad_file_changes_nothing_of_any_file(tmp_path, watched):
    watched(tmp_path).run()
    fill_in(tmp_path, 1, "to_label_a.csv", rows=slice(3), labeler="ann")
    fill_in(tmp_path, 1, "to_label_b.csv", rows=slice(3), label="up", labeler="ben")
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"to_label_b.csv.*line"):
        go_on(tmp_path).run()
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_rows_that_were_not_asked_are_accepted_when_asked_for(tmp_path, watched):
    query = watched(tmp_path).run()[-1].query
    (stranger, *_) = [
        i for i in unlabeled_data().unlabeled_indices.tolist() if i not in query.indices
    ]
    path = tmp_path / "queries" / "cycle_1" / "to_label_more.csv"
    path.write_text(f"index,label\n{stranger},left\n")
    with pytest.raises(ValueError, match=f"were not: \\[{stranger}\\]"):
        go_on(tmp_path).run()
    fill_in(tmp_path, 1)
    loop = go_on(tmp_path, accept_unasked=True)
    assert loop.run()[-1].num_labeled == 36
    assert loop.data.labels_of([stranger]) == [0]


def test_pictures_are_written_for_people(tmp_path, watched):
    data = ActiveDataModule(
        Pictures(), initial_labels={0: 0, 1: 1}, test_set=points(50, seed=1), classes=CLASSES
    )
    query = watched(tmp_path, data).run()[-1].query
    folder = tmp_path / "queries" / "cycle_1"
    for index in query.indices:
        assert Image.open(folder / "images" / f"{index}.png").getpixel((3, 3)) == (index, 0, 0)
    assert {path.name for path in folder.iterdir()} >= {
        "images",
        "to_label.csv",
        "label_studio_tasks.json",
        "label_studio_config.xml",
    }


def test_a_run_that_waits_holds_no_lock(tmp_path):
    loop = loop_of(data=unlabeled_data(), oracle=lambda q: None, run_dir=tmp_path)
    loop.ask()
    assert not is_free(tmp_path)
    loop.run()
    assert is_free(tmp_path)


def test_files_of_a_query_that_was_cut_off_are_set_aside(tmp_path, watched):
    watched(tmp_path).run()
    (tmp_path / "queries" / "cycle_2").mkdir()
    (tmp_path / "queries" / "cycle_2" / "to_label.csv").write_text("index,label\n3,left\n")
    loop = go_on(tmp_path)
    loop.tell(loop.ask().indices[:2], [0, 1])
    loop.run()
    assert not (tmp_path / "queries" / "cycle_2").exists()
    assert (tmp_path / "queries" / "cycle_2_before_1" / "to_label.csv").exists()
    assert (tmp_path / "queries" / "cycle_1" / "to_label.csv").exists()


def test_a_file_counts_by_what_changed_in_it(tmp_path, watched):
    query = watched(tmp_path).run()[-1].query
    one, two = query.indices[:2]
    path = tmp_path / "queries" / "cycle_1" / "to_label.csv"

    def read(text):
        path.write_text(f"index,label\n{text}")
        go_on(tmp_path).run()
        rows = OpenQuery(Journal(tmp_path / "journal.jsonl")).rows
        return {index: row.answer for index, row in rows.items()}

    assert read(f"{one},left\n") == {one: 0}
    assert read(f"{one},right\n") == {one: 2}
    assert read(f"{one},left\n") == {one: 0}
    page = OpenQuery(Journal(tmp_path / "journal.jsonl"))
    page.answer({one: 1}, how="page")
    assert read(f"{one},left\n{two},left\n") == {one: 1, two: 0}


def test_one_person_cannot_say_two_things_in_two_files(tmp_path, watched):
    watched(tmp_path).run()
    fill_in(tmp_path, 1, "to_label_a.csv", rows=slice(1), label="left")
    fill_in(tmp_path, 1, "to_label_b.csv", rows=slice(1), label="right")
    with pytest.raises(AnswersError, match="line 2 of to_label_a.csv and line 2 of to_label_b.csv"):
        go_on(tmp_path).run()


def test_a_name_that_is_no_proper_text_can_be_labeled(tmp_path, watched):
    class Odd(Inputs):
        paths = [f"caf\udce9 {i}" for i in range(120)]

    def data():
        first = points_data().labeled_indices.tolist()
        return ActiveDataModule(Odd(), initial_labels={i: TRUTH[i] for i in first}, classes=CLASSES)

    watched(tmp_path, data()).run()
    fill_in(tmp_path, 1)
    loop = resume(tmp_path, data(), monitors=[Tables(), Exchange()])
    assert loop.run()[-1].cycle == 2
    assert (tmp_path / "labels.csv").read_bytes().count(b"caf\\udce9") == 15


def test_a_row_that_broke_after_it_was_asked_can_be_called_invalid(tmp_path, watched):
    broken = set()

    class Breaking(Pictures):
        holds_labels = False

        def __getitem__(self, index):
            if index in broken:
                raise UnreadableRowError(f"row {index}")
            return self.rows[index]

        picture = __getitem__

    def data():
        return ActiveDataModule(
            Breaking(), initial_labels={0: TRUTH[0], 1: TRUTH[1]}, classes=CLASSES
        )

    query = watched(tmp_path, data()).run()[-1].query
    broken.add(query.indices[0])
    shutil.rmtree(tmp_path / "queries" / "cycle_1")
    monitors = [Tables(), QueryPictures(), Exchange()]
    loop = resume(tmp_path, data(), oracle="files", monitors=monitors)
    loop.run()
    fill_in(tmp_path, 1, rows=slice(1, None))
    loop.answer({query.indices[0]: INVALID})
    assert loop.run()[-1].num_labeled == 16
    assert loop.data.pool.invalid == broken


# ---- what bad input gets -------------------------------------------------------------------------


def test_bad_oracles_are_named_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match='oracle must be "dataset", "files" or a function'):
        loop_of(oracle="people").ask()
    with pytest.raises(ValueError, match='oracle="files" needs a run_dir'):
        loop_of(data=unlabeled_data(), oracle="files").ask()
    with pytest.raises(ValueError, match="needs the names of the classes"):
        loop_of(oracle="files", run_dir=tmp_path / "run").ask()
    with pytest.raises(ValueError, match=r"run needs somebody who labels.*inputs alone"):
        loop_of(data=unlabeled_data()).run()
    assert not (tmp_path / "run").exists()


def test_an_oracle_that_miscounts_is_told():
    loop = loop_of(data=unlabeled_data(), oracle=lambda q: [0, 1])
    with pytest.raises(ValueError, match="got 2 answers for 15 rows; None means later"):
        loop.run()
    assert loop.data.num_labeled == 20


def test_labels_must_be_given_where_the_data_has_none():
    loop = loop_of(data=unlabeled_data())
    query = loop.ask()
    with pytest.raises(ValueError, match="inputs alone, so a label must be given for each"):
        loop.tell(query.indices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_size": 5}, "need a data set that holds labels"),
        ({"initial_sampling": "balanced"}, "need a data set that holds labels"),
        ({"initial_labels": {}}, "at least one row must be labeled"),
        ({"initial_labels": {3: 7}}, r"positions in classes .*'right'\], got \[7\]"),
        ({"initial_labels": {0: 1}, "initial_labeled_size": 3}, "give one of"),
    ],
)
def test_data_without_labels_cannot_be_split_by_them(arguments, message):
    arguments = {"initial_labels": None, "initial_labeled_size": 9, **arguments}
    if arguments["initial_labels"] in ({}, {3: 7}):
        del arguments["initial_labeled_size"]
    with pytest.raises(ValueError, match=message):
        ActiveDataModule(Inputs(), classes=CLASSES, **arguments)
