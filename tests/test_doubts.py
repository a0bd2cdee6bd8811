"""Labels in doubt, what labels cost, and groups of rows."""

import csv
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from toys import TRAINER, Plain, loop_of, points, points_data

from al_lightning import SKIP, ActiveDataModule, ActiveLearningLoop
from al_lightning.data.row_values import group_numbers, values_under
from al_lightning.label.answers import OpenQuery
from al_lightning.label.page.desk import Desk
from al_lightning.monitor import Tables
from al_lightning.monitor.pictures import progress_figure
from al_lightning.run.journal import Journal


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mislabeled(share=0.1, num_rows=300, **arguments):
    """Points of which some have the label of another class; and which."""
    rows = points(num_rows)
    draw = torch.Generator().manual_seed(0)
    wrong = torch.rand(num_rows, generator=draw) < share
    x, y = rows.tensors
    data = ActiveDataModule(
        TensorDataset(x, torch.where(wrong, (y + 1) % 3, y)),
        test_set=points(50, seed=1),
        initial_labeled_size=150,
        batch_size=16,
        **arguments,
    )
    return data, wrong


# ---- labels in doubt -----------------------------------------------------------------------------


def test_the_labels_that_the_model_finds_least_likely_come_first():
    data, wrong = mislabeled()
    loop = loop_of(data=data, labels_in_doubt=True, num_cycles=2)
    query = loop.ask()
    doubts = loop.results[-1].doubts
    labeled = data.labeled_indices
    x, y = (table[labeled] for table in data.sets.pool.tensors)
    probs = loop.model.eval()(x).detach().double().softmax(-1)
    given = probs[torch.arange(150), y]
    order = given.argsort(stable=True)
    assert [row for row, *_ in doubts] == labeled[order].tolist()
    assert [p for _, p, *_ in doubts] == pytest.approx(given[order].tolist(), rel=1e-4)
    assert [c for *_, c, _ in doubts] == probs.argmax(1)[order].tolist()
    assert [label for *_, label in doubts] == y[order].tolist()
    first = [row for row, *_ in doubts[:45]]
    assert wrong[first].sum() >= 0.6 * wrong[labeled].sum()
    loop.tell(query.indices)


def test_the_list_forgets_what_people_have_looked_at(tmp_path):
    data, _ = mislabeled(num_rows=200)
    data.sets.pool.classes = ["a", "b", "c"]
    loop = ActiveLearningLoop(
        Plain(),
        data,
        trainer=TRAINER,
        run_dir=tmp_path,
        monitors=[Tables()],
        labels_in_doubt=True,
        acquisition_size=5,
        num_cycles=3,
    )
    loop.ask()
    before = table(tmp_path / "labels_in_doubt.csv")
    assert [list(row) for row in before[:1]] == [
        ["index", "path", "label", "probability", "predicted"]
    ]
    assert len(before) == 150
    assert before[0]["label"] in "abc"
    first, second = (int(row["index"]) for row in before[:2])
    loop.answer({first: data.labels_of([first])[0]})  # kept as it is
    loop.answer({second: 2})
    loop.answer(dict.fromkeys(loop.ask().indices, 0))
    loop.finish()
    after = [int(row["index"]) for row in table(tmp_path / "labels_in_doubt.csv")]
    assert not {first, second} & {*after}
    assert len(after) == 148


def test_samples_and_half_the_tasks():
    data, _ = mislabeled()
    loop = loop_of(data=data, labels_in_doubt=True, mc_samples=4, num_cycles=1)
    assert len(loop.run()[0].doubts) == 150
    with pytest.raises(ValueError, match="labels_in_doubt needs one class a row.*'regression'"):
        loop_of(labels_in_doubt=True, task="regression", strategy="random")
    assert loop_of(num_cycles=1).run()[0].doubts is None
    words = points_data(collate_fn=torch.utils.data.default_collate)
    words.row_labels.given[int(words.labeled_indices[0])] = "left"
    with pytest.raises(
        ValueError, match="labels_in_doubt needs labels that must be classes as who"
    ):
        loop_of(data=words, labels_in_doubt=True).prepare()


class OfImages(Plain):
    """Sees four pixels as four numbers."""

    def forward(self, x):
        return super().forward(x.flatten(1))


def test_the_page_finds_the_pictures_of_labels_in_doubt(tmp_path):
    x, y = points(60).tensors
    data = ActiveDataModule(
        TensorDataset(x.view(-1, 1, 2, 2), y),
        initial_labeled_size=20,
        batch_size=16,
        classes=["a", "b", "c"],
    )
    run = {"trainer": TRAINER, "run_dir": tmp_path, "oracle": "files", "acquisition_size": 3}
    loop = ActiveLearningLoop(OfImages(), data, **run, labels_in_doubt=True)
    (result,) = loop.run()
    desk = Desk(OpenQuery(Journal(tmp_path / "journal.jsonl")), tmp_path)
    for index in result.query.indices:
        desk.answer(index, 0, "", settles=False)
    row = desk.state("", second=True)["row"]
    assert row["index"] == result.doubts[0][0]
    assert row["doubt"] == "abc"[data.labels_of([row["index"]])[0]]
    assert desk.picture_file(row["index"]).is_file()
    desk.answer(row["index"], 1, "", settles=False)
    assert desk.state("", second=True)["row"]["index"] == result.doubts[1][0]
    desk.finish("", num_open=0)
    resumed = ActiveLearningLoop.resume(tmp_path, OfImages(), data, trainer=TRAINER)
    resumed.ask()
    assert data.labels_of([row["index"]]) == [1]


# ---- costs ---------------------------------------------------------------------------------------


def priced(**arguments):
    data = points_data(cost_key="price", **arguments)
    data.sets.pool.price = [0.5 + row % 4 for row in range(120)]
    return data


def test_what_all_labels_have_cost(tmp_path):
    data = priced()
    prices = data.sets.pool.price
    run = {"trainer": TRAINER, "run_dir": tmp_path, "acquisition_size": 10}
    loop = ActiveLearningLoop(Plain(), data, **run, num_cycles=3)
    first = sum(prices[row] for row in data.labeled_indices.tolist())
    query = loop.ask()
    loop.tell(query.indices, [SKIP, *[0] * 9])
    loop.ask()
    costs = [one.cost for one in loop.results]
    assert costs == pytest.approx([first, first + sum(prices[row] for row in query.indices)])
    assert [one.num_skipped for one in loop.results] == [0, 1]
    rows = table(tmp_path / "metrics.csv")
    assert [float(row["cost"]) for row in rows] == pytest.approx(costs)
    assert [row["num_skipped"] for row in rows] == ["0", "1"]
    assert "labeling_hours" not in rows[0]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [one.step for one in events.Scalars("by_cost/test_acc")] == [round(c) for c in costs]
    assert len(progress_figure(loop.results).axes) == 4


def test_a_budget_of_costs_ends_a_run():
    data = priced()
    loop = loop_of(data=data, stop_when={"max_cost": 70}, num_cycles=9)
    results = loop.run()
    assert [one.cost >= 70 for one in results] == [False] * (len(results) - 1) + [True]
    with pytest.raises(ValueError, match="max_cost needs the cost of a label of each row"):
        loop_of(stop_when={"max_cost": 70}).run()


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "much"])
def test_a_cost_that_is_none_is_refused_before_training(value):
    data = priced()
    data.sets.pool.price[7] = value
    with pytest.raises(ValueError, match="a cost must be a finite number, at least 0.*in row 7"):
        loop_of(data=data).prepare()


# ---- values of rows ------------------------------------------------------------------------------


class Dicts:
    """Items that hold their group."""

    def __init__(self, num_rows, first=0):
        self.rows = [
            {"x": row, "patient": f"p{(first + row) // 2}", "label": 0} for row in range(num_rows)
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def test_values_are_found_wherever_a_data_set_has_them():
    rows = Dicts(6)
    expected = ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert values_under(rows, "patient", "group_key") == expected
    told = points(6)
    told.patient = expected
    assert values_under(told, "patient", "group_key") == expected
    assert values_under(Subset(told, [5, 0]), "patient", "group_key") == ["p2", "p0"]
    told.name = "sixsix"  # text is no list of values
    with pytest.raises(ValueError, match="group_key must name something"):
        values_under(told, "name", "group_key")
    both = ConcatDataset([told, Subset(told, [2])])
    assert values_under(both, "patient", "group_key") == [*expected, "p1"]
    assert values_under(points(3), 1, "group_key") == points(3).tensors[1].tolist()
    assert group_numbers(["a", None, "a", float("nan"), None]).tolist() == [0, 1, 0, 2, 3]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [1.0, 2.0], "label": ["n", "y"], "patient": ["ann", "bob"]})
    data = ActiveDataModule(frame, initial_indices=[0], group_key="patient")
    assert data.groups_N.tolist() == [0, 1]
