"""Rules that end a run: each against its definition, in runs, and after a resume."""

import math

import pytest
from toys import TRAINER, Plain, Predicting, loop_of, points_data

from al_lightning import INVALID, ActiveLearningLoop
from al_lightning.label.agreement import cohens_kappa
from al_lightning.run.journal import read_records
from al_lightning.run.records import CycleResult
from al_lightning.run.stop_rules import KAPPA, RULES, UNCERTAINTY, StopRules, rule_of
from al_lightning.settings import Settings

NEVER = {"stable": {"threshold": 1.0, "window": 3}}
"""Reads the stop set, and holds for models that never differ alone."""


def results(metric="val_acc", values=(), **more):
    return [
        CycleResult(n + 1, 100 * (n + 1), {metric: value}, {"fit": 1800.0}, **more)
        for n, value in enumerate(values)
    ]


def ends_at(rule, metric, values):
    """The first cycle in which a rule holds."""
    made = rule_of(rule)
    found = results(metric, values)
    return next((n + 1 for n in range(len(found)) if made.holds(found[: n + 1])), None)


@pytest.mark.parametrize(
    ("rule", "metric", "values", "cycle"),
    [
        ({"target": ["val_acc", 0.9]}, "val_acc", [0.8, 0.89, 0.9], 3),
        ({"target": ["val_loss", 0.1, "min"]}, "val_loss", [0.5, 0.1], 2),
        ({"target": ["val_acc", 0.9]}, "val_acc", [0.8, math.nan], None),
        ({"no_gain": "val_acc"}, "val_acc", [0.5, 0.6, 0.6, 0.59, 0.6], 5),
        ({"no_gain": ["val_acc", 2]}, "val_acc", [0.5, 0.6, 0.55, 0.61, 0.6, 0.61], 6),
        (
            {"no_gain": {"metric": "val_acc", "min_gain": 0.05}},
            "val_acc",
            [0.5, 0.52, 0.53, 0.55],
            4,
        ),
        ({"no_gain": {"metric": "l", "mode": "min", "patience": 1}}, "l", [3.0, 2.0, 2.5], 3),
        ("stable", KAPPA, [0.95, 0.99, 0.99, 0.99, 0.99], 5),
        ({"stable": {"threshold": 0.4, "window": 2}}, KAPPA, [0.9, 0.9], 2),
        ({"stable": {"threshold": 0.9, "window": 2}}, KAPPA, [0.85, 0.94, 0.86], 2 + 1),
        ("stable", KAPPA, [0.99, math.nan, 1.0, 1.0, 1.0], None),
        ("low_uncertainty", UNCERTAINTY, [0.5, 0.02, 0.01], 3),
        ({"low_uncertainty": 0.1}, UNCERTAINTY, [0.5, 0.02], 2),
        ({"max_labels": 250}, "any", [0, 0, 0], 3),
        ({"max_hours": 1}, "any", [0, 0, 0], 2),
    ],
)
def test_a_rule_holds_where_its_definition_says(rule, metric, values, cycle):
    assert ends_at(rule, metric, values) == cycle


def test_budgets_of_labels():
    spent = results(values=[0.5], cost=12.0, labeling_hours=2.5)
    assert rule_of({"max_cost": 12}).holds(spent) == "12 spent on labels, 12 were allowed"
    assert not rule_of({"max_cost": 12.5}).holds(spent)
    assert rule_of({"max_labeling_hours": 2}).holds(spent)
    assert not rule_of({"max_labeling_hours": 3}).holds(spent)
    with pytest.raises(ValueError, match="max_cost needs the cost of a label of each row"):
        rule_of({"max_cost": 1}).holds(results(values=[0.5]))


def end_of(loop):
    loop.run()
    last = loop.records[-1]
    return last["reason"], last["cycle"]


def test_the_reason_is_in_the_journal_and_on_the_console(tmp_path, capsys):
    data = points_data()
    loop = ActiveLearningLoop(
        Plain(),
        data,
        trainer=TRAINER,
        run_dir=tmp_path,
        acquisition_size=15,
        stop_when=[{"stable": {"window": 3}}, {"max_labels": 42}],
    )
    results = loop.run()
    assert [one.num_labeled for one in results] == [20, 35, 42]  # no more than are allowed
    last = read_records(tmp_path / "journal.jsonl")[-1]
    assert (last["reason"], last["why"]) == ("max_labels", "42 rows are labeled")
    assert "the run is over: max_labels, 42 rows are labeled" in capsys.readouterr().out


def test_a_run_that_stopped_goes_on_under_other_rules(tmp_path):
    loop = loop_of(run_dir=tmp_path, num_cycles=5, stop_when=[{"max_labels": 35}])
    assert end_of(loop) == ("max_labels", 2)

    def again(**changes):
        return ActiveLearningLoop.resume(
            tmp_path, Plain(), points_data(), trainer=TRAINER, monitors=[], **changes
        )

    assert again().finished  # under the same rules it is over
    other = again(stop_when=[{"max_labels": 50}])
    assert end_of(other) == ("max_labels", 3)
    assert end_of(again(stop_when=None)) == ("num_cycles", 5)
    whole = loop_of(num_cycles=5)
    whole.run()
    queries = [[r["indices"] for r in one.records if r["event"] == "query"] for one in (whole,)]
    journal = read_records(tmp_path / "journal.jsonl")
    assert [r["indices"] for r in journal if r["event"] == "query"] == queries[0]


def test_a_rule_sees_each_cycle_once_after_an_end(tmp_path):
    loop_of(run_dir=tmp_path, num_cycles=2).run()
    seen = []

    def look(results):
        seen.append([one.cycle for one in results])

    given = {"trainer": TRAINER, "monitors": [], "num_cycles": 3, "stop_when": look}
    ActiveLearningLoop.resume(tmp_path, Plain(), points_data(), **given).run()
    assert seen == [[1, 2], [1, 2, 3]]


def few_labels(results):
    return results[-1].num_labeled > 30 and "enough of it"


def test_a_function_of_the_results_ends_a_run(tmp_path):
    loop = loop_of(run_dir=tmp_path, stop_when=few_labels)
    assert end_of(loop) == ("few_labels", 2)
    assert loop.records[-1]["why"] == "enough of it"
    assert loop.config["active"]["stop_when"] == "a function"
    given = {"trainer": TRAINER, "monitors": []}
    with pytest.raises(ValueError, match="a function ends this run, which is not kept"):
        ActiveLearningLoop.resume(tmp_path, Plain(), points_data(), **given)
    resumed = ActiveLearningLoop.resume(
        tmp_path, Plain(), points_data(), **given, stop_when=["stable", few_labels], num_cycles=5
    )
    assert end_of(resumed) == ("few_labels", 2)


def test_an_error_in_a_users_rule_keeps_its_traceback():
    def slip(results):
        return results[-1].nothing

    with pytest.raises(AttributeError, match="nothing"):
        loop_of(stop_when=[slip]).run()


def test_kappa_is_that_of_the_predictions_of_successive_models():
    """By hand: predict the rows that the run did not begin with, after each fit."""
    loop = loop_of(num_cycles=4, warm_start=True, stop_when=[NEVER])
    data, by_hand, found, entropies = loop.data, [], [], []
    first = set(data.labeled_indices.tolist())
    rows = [row for row in range(120) if row not in first]
    while (query := loop.ask()) is not None:
        probs = loop.model.eval()(data.sets.pool.tensors[0][rows]).detach().double().softmax(-1)
        by_hand.append(probs.argmax(-1).tolist())
        entropies.append((-(probs * probs.log()).sum(-1)).mean().item())
        found.append(loop.results[-1].metrics)
        loop.tell(query.indices)
    assert KAPPA not in found[0]
    for before, now, metrics in zip(by_hand, by_hand[1:], found[1:]):
        assert metrics[KAPPA] == pytest.approx(cohens_kappa(before, now), abs=1e-12)
    assert [m[UNCERTAINTY] for m in found] == pytest.approx(entropies, rel=1e-4)


def test_the_stop_set_stays_the_same_over_a_resume(tmp_path):
    rule = {"stop_when": [NEVER], "num_cycles": 4}
    whole = loop_of(**rule)
    whole.run()
    loop = loop_of(run_dir=tmp_path, **rule)
    loop.tell(loop.ask().indices)
    resumed = ActiveLearningLoop.resume(
        tmp_path, Plain(), points_data(), trainer=TRAINER, monitors=[]
    )
    assert [one.metrics for one in resumed.run()] == [one.metrics for one in whole.results]


def test_a_row_that_left_the_data_is_left_out_of_both_predictions():
    loop = loop_of(num_cycles=4, warm_start=True, stop_when=[NEVER])
    data, by_hand = loop.data, []
    first = set(data.labeled_indices.tolist())
    for _ in range(2):
        query = loop.ask()
        rows = [row for row in range(120) if row not in first | data.pool.invalid]
        classes = loop.model.eval()(data.sets.pool.tensors[0][rows]).argmax(-1).tolist()
        by_hand.append(dict(zip(rows, classes)))
        loop.tell(query.indices, [INVALID] * 5 + data.labels_of(query.indices[5:]))
    both = by_hand[1].keys()
    assert len(both) == 95
    before, now = ([one[row] for row in both] for one in by_hand)
    assert loop.results[1].metrics[KAPPA] == pytest.approx(cohens_kappa(before, now), abs=1e-12)


def test_what_no_rule_reads_is_not_predicted():
    loop = loop_of(stop_when=[{"max_labels": 40}])
    loop.run()
    assert all(set(one.metrics) == {"train_loss", "test_acc"} for one in loop.results)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stop_when": "stabel"}, "must name rules of .*did you mean 'stable'"),
        ({"stop_when": {"max_labels": 0}}, "max_labels must be a whole number, at least 1, got 0"),
        ({"stop_when": {"max_labels": 10.5}}, "max_labels must be a whole number"),
        ({"stop_when": {"max_hours": -1}}, "max_hours must be given a number above 0, got -1"),
        ({"stop_when": {"max_cost": math.inf}}, "max_cost must be given a number above 0, got inf"),
        ({"stop_when": {"stable": {"threshold": 2}}}, "at least 0 and at most 1, got 2"),
        ({"stop_when": {"stable": {"thresold": 0.9}}}, r"stable takes \(threshold.*thresold"),
        ({"stop_when": "no_gain"}, r"no_gain takes \(metric"),
        ({"stop_when": {"no_gain": ["val_acc", 0]}}, "no_gain: patience must be a whole number"),
        ({"stop_when": {"target": ["a", 1, "up"]}}, 'mode must be "max" or "min", got \'up\''),
        ({"stop_when": "stable", "num_cycles": 4}, "can never hold: it needs 5 cycles, and num_cy"),
        ({"stop_when": {"no_gain": "val_acc"}}, "can never hold: it needs 4 cycles"),
        (
            {"stop_when": "stable", "task": "regression", "strategy": "random", "num_cycles": 9},
            "stable can never hold: it is for task multiclass or binary, got 'regression'",
        ),
        ({"stop_when": {"max_labels": 500}}, "max_labels=500 can never hold: there are 120 rows"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_before_training(given, message):
    with pytest.raises(ValueError, match=message):
        loop_of(**given).prepare()
    with pytest.raises(TypeError, match="a rule of stop_when must be a name"):
        loop_of(stop_when=[3])


def test_a_metric_that_nobody_logs_is_named():
    with pytest.raises(ValueError, match="no_gain must name a metric that the module logs.*val_ac"):
        loop_of(stop_when={"no_gain": "val_ac"}, num_cycles=9).run()


def test_a_module_whose_predictions_cannot_be_compared_says_so_before_training():
    model = Predicting(lambda logits: {"score": logits[:, 0]})
    with pytest.raises(ValueError, match="needs predicted probabilities"):
        loop_of(model, strategy="score", stop_when="stable", num_cycles=9).ask()


def test_each_rule_has_a_sentence_about_itself():
    assert all(rule.__doc__ and rule.__doc__.startswith("Stop ") for rule in RULES.values())
    assert StopRules(Settings()).reason(results(values=[0.5])) is None
    assert StopRules(Settings(stop_when="low_uncertainty")).reads == {UNCERTAINTY}
