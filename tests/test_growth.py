"""Runs of people's labels go on when the data gains rows, or a class more."""

import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from toys import TRAINER, Plain, loop_of, points

from al_lightning import ActiveCLI, ActiveDataModule, ActiveLearningLoop
from al_lightning.data.growth import ordered
from al_lightning.data.views import UnreadableRowError
from al_lightning.label.answers import OpenQuery
from al_lightning.run.growth import classes_of, num_rows_of
from al_lightning.run.journal import Journal, read_records

CLASSES = ["left", "middle", "right"]
X, Y = points(200).tensors
TRUTH = {f"{(7 * i) % 200:03}.png": (X[i], int(Y[i])) for i in range(200)}
"""Rows by name; the order of names is not that of the numbers."""
EVEN = [name for name in sorted(TRUTH) if int(name[:3]) % 2 == 0]
ALL = sorted(TRUTH)


class Folder(Dataset):
    """Files without labels, in the order of their names, as ``ImagePool`` has them."""

    holds_labels = False

    def __init__(self, names, changed=(), broken=()):
        self.paths, self.changed, self.broken = list(names), changed, broken

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        name = self.paths[index]
        if name in self.broken:
            raise UnreadableRowError(name)
        return TRUTH[name][0] + (name in self.changed)

    def unreadable(self):
        return {i: "truncated" for i, name in enumerate(self.paths) if name in self.broken}


def data(names=EVEN, classes=CLASSES, **folder):
    return ActiveDataModule(
        Folder(names, **folder), initial_labeled_size=12, batch_size=8, classes=classes
    )


def by_name(query):
    """An oracle that knows the file's label."""
    return [TRUTH[name][1] for name in query.names]


def loop_at(folder, **arguments):
    arguments = {"oracle": by_name, "acquisition_size": 10, "num_cycles": 3, **arguments}
    return loop_of(data=arguments.pop("data", data()), run_dir=folder, **arguments)


def resume(folder, rows=None, model=None, **arguments):
    arguments = {"oracle": by_name, "trainer": TRAINER, "monitors": [], **arguments}
    return ActiveLearningLoop.resume(folder, model or Plain(), rows or data(), **arguments)


def released(loop):
    loop._run.release()
    return loop


def labeled_names(loop):
    return {
        loop.data.names_of([i])[0]: loop.data.labels_of([i])[0]
        for i in loop.data.labeled_indices.tolist()
    }


# ---- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
def test_new_files_between_the_old_ones_join_the_pool(tmp_path, waits):
    loop = loop_at(tmp_path)
    loop.tell(loop.ask().indices, by_name(loop.ask()))  # cycle 0: the first rows
    query = loop.ask()
    if not waits:
        loop.tell(query.indices, by_name(query))
    known = labeled_names(released(loop))
    again = resume(tmp_path, data(ALL))
    assert labeled_names(again) == known
    assert len(again.data.pool.labeled_N) == 200
    assert sorted(again.data.names_of(range(200))) == ALL
    assert again.data.names_of(range(100)) == EVEN
    assert again.data.num_unlabeled == 200 - len(known)
    if waits:
        assert again.ask() == query
    results = again.run()
    # Everything has the label of its own file, also what was asked of the further ones.
    final = labeled_names(again)
    assert final == {name: TRUTH[name][1] for name in final}
    assert any(i >= 100 for i in results[-2].query.indices)
    grown = [record["grown"] for record in again.records if record.get("grown")]
    assert grown == [{"num_rows": 200, "added": 100, "invalid": []}]


def test_a_run_that_grew_goes_on_as_before_and_may_grow_again(tmp_path):
    loop = loop_at(tmp_path, num_cycles=4)
    loop.tell(loop.ask().indices, by_name(loop.ask()))
    loop.ask()
    released(loop)
    first = [*EVEN, "001.png", "151.png", "003.png"]
    names = sorted(first)
    again = resume(tmp_path, data(names))
    query = again.ask()
    again.tell(query.indices, by_name(query))
    again.ask()
    released(again)
    third = resume(tmp_path, data(ALL))
    assert third.data.names_of(range(103)) == [*EVEN, "001.png", "003.png", "151.png"]
    released(third)
    fourth = resume(tmp_path, data(ALL))  # nothing new
    fourth.run()
    final = labeled_names(fourth)
    assert final == {name: TRUTH[name][1] for name in final}
    assert [r["grown"]["added"] for r in fourth.records if r.get("grown")] == [3, 97]
    assert num_rows_of(fourth.records) == 200


def test_names_that_were_written_before_a_kill_change_nothing(tmp_path):
    loop = loop_at(tmp_path)
    loop.tell(loop.ask().indices, by_name(loop.ask()))
    loop.ask()
    released(loop)
    with open(tmp_path / "names.jsonl", "a") as file:
        file.writelines(json.dumps(name) + "\n" for name in ["199.png", "001.png"])
    again = resume(tmp_path, data(ALL))
    assert again.data.names_of(range(102)) == [*EVEN, "001.png", "003.png"]


def test_rows_without_names_are_known_by_their_content(tmp_path):
    class Unnamed(Folder):
        paths = property(lambda self: None, lambda self, names: setattr(self, "names", names))

        def __len__(self):
            return len(self.names)

        def __getitem__(self, index):
            return TRUTH[self.names[index]][0] + (self.names[index] in self.changed)

        def unreadable(self):
            return {}

    def unnamed(names, **folder):
        rows = Unnamed(names, **folder)
        return ActiveDataModule(rows, initial_labeled_size=12, batch_size=8, classes=CLASSES)

    oracle = lambda query: [0] * len(query.indices)  # noqa: E731
    loop = loop_at(tmp_path, data=unnamed(EVEN), oracle=oracle)
    loop.tell(loop.ask().indices, oracle(loop.ask()))
    loop.ask()
    released(loop)
    more = [*EVEN, "001.png", "003.png"]
    with pytest.raises(ValueError, match=r"found 1 of 32 that were read changed: row 0;"):
        resume(tmp_path, unnamed(more, changed=[EVEN[0]]), oracle=oracle)
    with pytest.raises(ValueError, match="that were read changed: row"):
        resume(tmp_path, unnamed(["001.png", *EVEN]), oracle=oracle)
    again = resume(tmp_path, unnamed(more), oracle=oracle)
    assert again.data.num_unlabeled == 102 - 12
    again.run()


def test_old_rows_that_changed_or_are_gone_are_named(tmp_path):
    loop = loop_at(tmp_path)
    loop.tell(loop.ask().indices, by_name(loop.ask()))
    released(loop)
    with pytest.raises(
        ValueError, match=r"found 2 of 32 that were read changed: 000.png, 198.png;"
    ):
        resume(tmp_path, data(ALL, changed=["000.png", "198.png", "001.png"]))
    without = [name for name in ALL if name not in ("004.png", "008.png")]
    with pytest.raises(ValueError, match=r"found 2 missing: 004.png, 008.png; put them back"):
        resume(tmp_path, data(without))
    assert resume(tmp_path).data.num_labeled == 12  # and nothing has changed


def test_broken_new_files_are_left_out_also_later(tmp_path):
    loop = loop_at(tmp_path)
    loop.tell(loop.ask().indices, by_name(loop.ask()))
    loop.ask()
    released(loop)
    broken = {"broken": ["001.png", "003.png"]}
    with pytest.warns(UserWarning, match=r"2 rows cannot be read .* 001.png: truncated"):
        again = resume(tmp_path, data(ALL, **broken))
    assert again.data.num_unlabeled == 200 - 12 - 2
    released(again)
    third = resume(tmp_path, data(ALL, **broken))
    third.run()
    assert sorted(third.data.names_of(sorted(third.data.pool.invalid))) == ["001.png", "003.png"]
    query = OpenQuery.of(Journal.in_memory(read_records(tmp_path / "journal.jsonl")[:7]))
    with pytest.raises(ValueError, match="rows of the pool, found 1 others"):
        query.check({200: 1}, accept_unasked=True)
    query.check({150: 1}, accept_unasked=True)


def test_a_run_that_ended_with_its_pool_goes_on(tmp_path):
    loop = loop_at(tmp_path, data=data(EVEN[:25]), num_cycles=9, acquisition_size=20)
    results = loop.run()
    assert loop.finished
    assert results[-1].num_labeled == 25
    again = resume(tmp_path, data(EVEN[:60]))
    assert not again.finished
    assert again.run()[-1].num_labeled == 60


def test_a_simulated_run_must_have_the_same_rows(tmp_path):
    class Labeled(Folder):
        holds_labels = True

        def __getitem__(self, index):
            return TRUTH[self.paths[index]]

    def labeled(names):
        return ActiveDataModule(Labeled(names), initial_labeled_size=12, batch_size=8)

    released(loop_of(data=labeled(EVEN), run_dir=tmp_path)).ask()
    with pytest.raises(ValueError, match="a run must be resumed as it began"):
        resume(tmp_path, labeled(ALL), oracle="dataset")


def test_names_that_repeat_are_no_names(tmp_path):
    rows = data().row_labels
    assert ordered(rows, ["a", "b"], ["a", "a", "b"]) is rows
    assert ordered(rows, EVEN, EVEN) is rows


# ---- a class -------------------------------------------------------------------------------------


class Wide(Plain):
    """With as many outputs as classes."""

    def __init__(self, num_classes=3, names=None):
        super().__init__()
        self.save_hyperparameters()
        with torch.random.fork_rng():
            torch.manual_seed(num_classes)
            self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, num_classes))


FOUR = [*CLASSES, "above"]


def waiting(folder, **arguments):
    loop = loop_at(folder, model=Wide(3, CLASSES), num_cycles=4, **arguments)
    loop.tell(loop.ask().indices, by_name(loop.ask()))
    query = loop.ask()
    released(loop)
    return query


@pytest.mark.parametrize("given", [CLASSES, FOUR])
def test_a_class_is_added_while_the_query_waits(tmp_path, given):
    query = waiting(tmp_path)
    rows = partial(data, classes=given)
    again = resume(tmp_path, rows(), Wide(4, FOUR), add_class="above")
    assert again.data.classes == classes_of(again.records) == FOUR
    assert again.ask() == query
    again.tell(query.indices, [3] * 10)
    results = again.run()
    assert len(results) == 1 + 4
    assert all(again.data.labels_of([i]) == [3] for i in query.indices)
    # Later nothing has to be said again, and the run is the same.
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    added = next(n for n, line in enumerate(lines) if '"classes": ["left"' in line and n)
    for cut in range(added + 1, len(lines)):
        (tmp_path / "journal.jsonl").write_text("".join(lines[:cut]))
        third = resume(tmp_path, rows(), Wide(4, FOUR))
        if cut == added + 1:
            third.tell(query.indices, [3] * 10)
        again = third.run()
        assert [r.metrics for r in again] == [r.metrics for r in results], cut
        assert [r.query and r.query.indices for r in again] == [
            r.query and r.query.indices for r in results
        ]
        released(third)


def test_a_cold_start_begins_with_the_weights_of_the_module_with_the_class(tmp_path):
    waiting(tmp_path)
    again = resume(tmp_path, data(), Wide(4, FOUR), add_class="above")
    again.tell(again.ask().indices, [3] * 10)
    saved = torch.load(tmp_path / "initial_weights_2.pt", weights_only=True)
    assert torch.equal(saved["net.2.weight"], Wide(4).net[2].weight)
    again.run()
    assert again.model.net[2].out_features == 4


def test_the_module_must_predict_the_class(tmp_path):
    waiting(tmp_path)
    again = resume(tmp_path, data(), Wide(3, CLASSES), add_class="above")
    with pytest.raises(ValueError, match=r"each of the 4 classes .* found 3 outputs; give the"):
        again.ask()
    released(again)
    with pytest.raises(ValueError, match=r"model.num_classes: began with 3, now 5"):
        resume(tmp_path, data(), Wide(5, FOUR))
    released(resume(tmp_path, data(), Wide(4, FOUR)))  # now with such a head
    again = resume(tmp_path, data(), Wide(4, FOUR))
    again.tell(again.ask().indices, [3] * 10)
    again.ask()
    released(again)
    assert sum("classes" in record for record in again.records) == 2
    with pytest.raises(ValueError, match=r"must be as the run began with.*size mismatch"):
        resume(tmp_path, data(), Wide(3, CLASSES))


def test_a_class_cannot_come_where_weights_or_predictions_are_of_the_others(tmp_path):
    waiting(tmp_path / "warm", warm_start=True)
    with pytest.raises(ValueError, match="without warm_start, while its query waits"):
        resume(tmp_path / "warm", data(), Wide(4, FOUR), add_class="above")
    loop = loop_at(tmp_path / "over", model=Wide(3, CLASSES), num_cycles=1)
    loop.run()
    with pytest.raises(ValueError, match="the last event 'end'; go on without add_class"):
        resume(tmp_path / "over", data(), Wide(4, FOUR), add_class="above", num_cycles=2)


def test_other_classes_are_refused(tmp_path):
    waiting(tmp_path)
    for classes in (FOUR, ["left", "middle", "above"]):
        with pytest.raises(ValueError, match="classes"):
            resume(tmp_path, data(classes=classes), Wide(len(classes), classes))
    with pytest.raises(ValueError, match=r"model.names: began with \['left'"):
        resume(tmp_path, data(), Wide(3, ["a", "b", "c"]))


def test_the_page_offers_the_class(tmp_path):
    waiting(tmp_path)
    before = OpenQuery.of(Journal.copy_of(tmp_path / "journal.jsonl"))
    with pytest.raises(ValueError, match="position in the 3 classes"):
        before.check({before.indices[0]: 3})
    released(resume(tmp_path, data(), Wide(4, FOUR), add_class="above"))
    now = OpenQuery.of(Journal.copy_of(tmp_path / "journal.jsonl"))
    assert now.form.classes == FOUR
    now.check({now.indices[0]: 3})


class Rows(ActiveDataModule):
    names = EVEN

    def __init__(self, classes: list[str], seed: int = 42):
        rows = Folder(self.names)
        super().__init__(rows, initial_labeled_size=12, batch_size=8, classes=classes, seed=seed)


class Head(Wide):
    def __init__(self, classes: list[str]):
        super().__init__(len(classes), classes)


class CLI(ActiveCLI):
    def add_arguments_to_parser(self, parser):
        super().add_arguments_to_parser(parser)
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")


def labels_in_files(folder, word):
    """Fill in the query's file, as a person would."""
    path = max(folder.glob("queries/cycle_*/to_label.csv"), key=lambda path: path.parent.name)
    header, *lines = path.read_text().splitlines()
    place = header.split(",").index("label")
    rows = [line.split(",") for line in lines]
    for row in rows:
        row[place] = word(row[1])
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")


def test_a_command_line_needs_one_flag_for_a_class(tmp_path, no_pictures, monkeypatch, capsys):
    monkeypatch.setenv("PL_GLOBAL_SEED", "")
    monkeypatch.setattr("sys.argv", ["train.py"])
    folder = tmp_path / "run"
    flags = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--active.oracle=files"]
    flags += ["--data.classes=[left, middle, right]", "--active.acquisition_size=6"]
    run = [f"--active.run_dir={folder}", "--active.strategy=margin"]
    again = [f"--active.run_dir={folder}", "--active.resume=true"]
    truth = lambda name: CLASSES[TRUTH[name][1]]  # noqa: E731
    CLI(Head, Rows, args=[*flags, *run])
    labels_in_files(folder, truth)
    CLI(Head, Rows, args=again)  # trains, and waits with a query
    monkeypatch.setattr(Rows, "names", ALL)
    cli = CLI(Head, Rows, args=[*again, "--active.add_class=above"])
    assert cli.model.net[2].out_features == 4
    labels_in_files(folder, lambda name: "above")
    cli = CLI(Head, Rows, args=[*again])
    assert cli.datamodule.labels_of(cli.results[1].query.indices) == [3] * 6
    assert cli.datamodule.classes == FOUR
    assert "classes:\n  - left\n  - middle\n  - right\n  - above" in (
        (folder / "config.yaml").read_text()
    )
    capsys.readouterr()
    with pytest.raises(SystemExit):
        CLI(Head, Rows, args=[*again, "--data.classes=[a, b, c, d]"])
    assert "data.classes: began with" in capsys.readouterr().err
