"""Strategies made of strategies: shares, stages, quotas and limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_strategies import choose, pool_of, some_rows
from toys import TRAINER, Plain, asked, loop_of, points_data

from al_lightning import STRATEGIES, ActiveLearningLoop, PoolOutputs, Strategy
from al_lightning.acquisition import bald, entropy, margin
from al_lightning.run.journal import read_records
from al_lightning.settings import Settings
from al_lightning.strategies import find_strategy, limited, mix, per_class, power, schedule
from al_lightning.strategies.compositions import shared_out

ROWS = some_rows(60)


def chosen(strategy, rows=ROWS, num=10, seed=0):
    return choose(strategy, rows, num, seed)


# ---- shares --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 40), st.floats(0, 0.999))
def test_each_share_gets_its_part_up_to_one_row(weights, num, draw):
    shares = [weight / sum(weights) for weight in weights]
    counts = shared_out(shares, num, draw)
    assert sum(counts) == num
    for share, count in zip(shares, counts):
        assert abs(count - share * num) < 1 + 1e-6


def test_rounding_is_even_over_many_cycles():
    draws = [n / 1000 for n in range(1000)]
    firsts = [shared_out([0.25, 0.75], 1, draw)[0] for draw in draws]
    assert sum(firsts) == 250


def test_a_mix_takes_no_row_twice_and_each_part_its_share():
    strategy = mix({"random": 0.2, "margin": 0.5, "entropy": 0.3})
    found = chosen(strategy)
    assert len(set(found)) == 10
    # Whatever the random part took, the best of the others by margin are five of the query.
    by_margin, by_entropy = (chosen(name, num=60) for name in ("margin", "entropy"))
    best = by_margin[:5]
    assert len(set(found) & set(by_margin[:7])) >= 5
    left = [row for row in by_entropy if row not in best]
    assert len(set(found) & set(left[:5])) >= 3


def test_the_parts_choose_in_turn_from_what_is_left():
    first = Strategy(lambda pool, num, generator: torch.arange(num), {}, name="first")
    seen = []

    def look(pool, num, generator):
        seen.append(pool.indices.tolist())
        return torch.arange(num)

    strategy = mix({first: 0.5, Strategy(look, {}, name="second"): 0.5})
    pool = PoolOutputs(torch.arange(10) * 3)
    found = strategy.choose(pool, 4, torch.Generator()).tolist()
    assert seen == [[6, 9, 12, 15, 18, 21, 24, 27]]
    assert found == [0, 2, 1, 3]  # in turn, so a beginning of the query is a mix too
    assert strategy.choose(pool, 99, torch.Generator()).sort().values.tolist() == list(range(10))


def test_what_other_parts_took_counts_as_labeled():
    """A core-set part keeps away from the rows of the part before it."""
    embeddings = torch.tensor([[0.0], [10.0], [10.1], [5.0]])
    columns = {"embeddings": embeddings, "labeled_embeddings": torch.zeros(1, 1)}
    first = Strategy(lambda pool, num, generator: torch.ones(1, dtype=torch.int64), {}, name="x")
    strategy = mix({first: 0.5, "core_set": 0.5})
    pool = PoolOutputs(torch.arange(4), **columns)
    assert strategy.choose(pool, 2, torch.Generator()).tolist() == [1, 3]


def test_columns_of_one_name_and_other_meaning_stand_side_by_side():
    strategy = mix({"margin": 0.5, "entropy": 0.25, "badge": 0.25})
    assert strategy.keep == {
        "scores": margin,
        "scores_1": entropy,
        "probs": "probs",
        "embeddings": "embedding",
    }
    assert mix({"bald": 0.5, "core_set": 0.5}).min_samples == 2
    assert mix({"direct": 0.5, "core_set": 0.5}).labels
    assert mix({"core_set": 0.5, "bait": 0.5}).labeled == ("embeddings", "probs")


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"random": 0.2, "margin": 0.7}, "sum to 1, got 0.9 in all"),
        ({"random": 0.0, "margin": 1.0}, r"each be above 0.*got \{'random': 0.0\}"),
        ({"random": 1.5, "margin": -0.5}, "each be above 0"),
        ({"random": math.nan, "margin": 1.0}, "each be above 0"),
        ({"random": "half", "margin": 0.5}, "got {'random': 'half'}"),
        ({"random": True}, "got {'random': True}"),
        ({"random": 0.5, "margn": 0.5}, "did you mean 'margin'"),
        ({}, "shares must name strategies and their shares"),
        (0.2, "shares must name strategies.*got 0.2"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        mix(shares)
    with pytest.raises(ValueError, match=message):
        loop_of(strategy="mix", strategy_args={"shares": shares})


# ---- stages --------------------------------------------------------------------------------------


def test_a_stage_holds_from_its_number_of_labels_on():
    strategy = schedule({0: "random", 35: "margin", "50": {"strategy": "power_bald"}})
    names = [strategy.at(num).name or strategy.at(num) for num in (0, 34, 35, 49, 50, 10**6)]
    assert names[2:] == ["margin", "margin", "power(bald)", "power(bald)"]
    assert strategy.at(34) is STRATEGIES["random"]
    assert strategy.needs == {"distributions"}


def test_stages_hold_in_a_run_and_after_a_resume(tmp_path):
    """The same as another strategy in each cycle, also when the journal has the numbers as text."""
    args = {"stages": {0: "random", 35: "margin"}}
    loop = loop_of(run_dir=tmp_path, strategy="schedule", strategy_args=args, num_cycles=2)
    first, _ = loop.run()
    assert first.query.scores is None
    resumed = ActiveLearningLoop.resume(
        tmp_path, Plain(), points_data(), trainer=TRAINER, monitors=[], num_cycles=4
    )
    results = resumed.run()
    assert [r.query and r.query.scores is not None for r in results] == [False, True, True, None]
    assert asked(results)[0] == asked(loop_of(strategy="random", num_cycles=2).run())[0]
    (changed,) = [r for r in read_records(tmp_path / "journal.jsonl") if r["event"] == "settings"]
    assert changed["changes"] == {"num_cycles": 4}


def test_stages_within_shares_and_stages():
    within = schedule({0: "random", 100: "margin"})
    strategy = mix({within: 0.5, "entropy": 0.5})
    assert [start for start, _ in strategy.stages] == [0, 100]
    assert strategy.at(99).keep == {"scores": entropy}
    assert set(strategy.at(100).keep.values()) == {margin, entropy}
    outer = schedule({0: within, 50: "entropy", 200: within})
    assert [start for start, _ in outer.stages] == [0, 50, 200]
    assert outer.at(60).name == "entropy"
    assert outer.at(250).name == "margin"


def test_every_stage_is_tried_before_training():
    with pytest.raises(ValueError, match="needs embeddings: name a layer"):
        loop_of(strategy="schedule", strategy_args={"stages": {0: "random", 90: "core_set"}}).ask()
    with pytest.raises(ValueError, match="strategy must be one that task='regression' has"):
        loop_of(strategy=schedule({0: "random", 90: "margin"}), task="regression")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({10: "random"}, r"stages must begin at 0 labels.*got \[10\]"),
        ({}, "stages must begin at 0 labels"),
        ({0: "random", "0": "margin"}, "each at another number"),
        ({0: "random", -5: "margin"}, "whole numbers of labels, got -5"),
        ({0: "random", 1.5: "margin"}, "whole numbers of labels, got 1.5"),
        ({0: "random", True: "margin"}, "whole numbers of labels, got True"),
        ({0: "rndom"}, "did you mean 'random'"),
        ({0: {"name": "random"}}, "a part must name its strategy"),
        ("random", "stages must name a strategy by number of labels"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        loop_of(strategy="schedule", strategy_args={"stages": stages})


# ---- quotas --------------------------------------------------------------------------------------


def test_chance_decides_less_in_each_cycle():
    strategy = per_class(margin, beta=1.0, growth=1e9)
    pool = pool_of(strategy, ROWS)
    late = PoolOutputs(pool.indices, cycle=2, **pool.columns)
    draws = [strategy.choose(late, 6, torch.Generator().manual_seed(s)).tolist() for s in (0, 1)]
    assert draws[0] == draws[1]
    early = [strategy.choose(pool, 6, torch.Generator().manual_seed(s)).tolist() for s in (0, 1)]
    assert early[0] != early[1]
    classes = pool.classes[draws[0]].tolist()
    assert sorted(classes[:4]) == [0, 1, 2, 3]


@pytest.mark.parametrize("keep", [{}, {"scores": margin}], ids=["nothing", "a score"])
def test_the_cycle_reaches_the_strategy(keep):
    cycles = []

    def mine(pool, num, generator):
        cycles.append(pool.cycle)
        return torch.arange(num)

    loop_of(strategy=Strategy(mine, keep, name="mine")).run()
    assert cycles[-2:] == [1, 2]  # before them it may have been tried


def test_a_score_may_be_named():
    assert find_strategy("per_class", {"score": "margin"}).keep["scores"] is margin
    assert per_class("score").keep["scores"] == "score"
    assert per_class(bald).min_samples == 2
    with pytest.raises(ValueError, match="got 'core_set', which has none"):
        per_class("core_set")
    for wrong in ({"share": 2}, {"beta": -1}, {"growth": 0.5}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"^{name} must"):
            find_strategy("per_class", wrong)


# ---- limits --------------------------------------------------------------------------------------


def test_at_most_so_many_of_a_group():
    data = points_data(120, group_key="patient")
    data.sets.pool.patient = [row // 10 for row in range(120)]
    free = loop_of(strategy="margin", num_cycles=2).run()[0].query.indices
    loop = loop_of(data=data, strategy="margin", max_per_group=2, num_cycles=2)
    query = loop.run()[0].query
    groups = [row // 10 for row in query.indices]
    assert len(groups) == 15
    assert max(map(groups.count, groups)) == 2
    # It is the order of the strategy, without those that a full group forbids.
    order = loop_of(strategy="margin", acquisition_size=100, num_cycles=2).run()[0].query.indices
    counts, expected = {}, []
    for row in order:
        counts[row // 10] = counts.get(row // 10, 0) + 1
        expected += [row] if counts[row // 10] <= 2 else []
    assert query.indices == expected[:15]
    assert query.indices != free


def test_a_query_is_shorter_where_the_groups_are_full():
    data = points_data(120, group_key="patient")
    data.sets.pool.patient = [row % 4 for row in range(120)]
    loop = loop_of(data=data, strategy="random", max_per_group=2)
    assert [len(one.query.indices) for one in loop.run()[:-1]] == [8, 8]


def near(a, b):
    return (ROWS.embeddings[a] - ROWS.embeddings[b]).norm().item()


@pytest.mark.parametrize("name", ["margin", "random", "core_set", "badge", "mix", "typiclust"])
def test_near_copies_are_left_out(name):
    strategy = limited(name, min_distance=1.5)
    found = chosen(strategy, num=12)
    assert len(set(found)) == len(found)
    assert min(near(a, b) for a in found for b in found if a != b) >= 1.5
    most = chosen(strategy, num=60)  # all rows that are left are near one that was taken
    assert all(
        min(near(row, other) for other in most) < 1.5 for row in range(60) if row not in most
    )
    if name == "margin":
        order, expected = chosen("margin", num=60), []
        for row in order:
            if all(near(row, other) >= 1.5 for other in expected):
                expected.append(row)
        assert most == expected


def test_limits_go_with_stages():
    strategy = limited(schedule({0: "random", 50: "margin"}), min_distance=0.5)
    assert strategy.at(0).needs == {"embedding"}
    assert strategy.at(50).needs == {"embedding", "distributions"}
    assert limited("margin") is STRATEGIES["margin"]
    assert power(margin).name == limited(power(margin), min_distance=1.0).name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_per_group": 0}, "max_per_group must be at least 1, got 0"),
        ({"min_distance": 0.0}, "min_distance must be above 0, got 0.0"),
        ({"min_distance": math.nan}, "min_distance must be above 0, got nan"),
        ({"max_per_group": 1}, "max_per_group needs to know the group of each row; name it"),
    ],
)
def test_limits_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        loop_of(strategy="random", **given).ask()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("patient", "group_key must name something.*got 'patient' and found 2 parts in row 0"),
        (7, "group_key must name something.*got 7 and found 2 parts"),
    ],
)
def test_a_group_key_that_is_missing_is_refused_before_training(key, message):
    with pytest.raises(ValueError, match=message):
        loop_of(data=points_data(group_key=key), strategy="margin", max_per_group=1).ask()


# ---- sizes ---------------------------------------------------------------------------------------


def test_the_size_of_a_query_may_change_with_the_cycle():
    sizes = [len(rows) for rows in asked(loop_of(acquisition_size=[5, 10], num_cycles=4).run())[:3]]
    assert sizes == [5, 10, 10]
    grown = loop_of(acquisition_size=8, acquisition_growth=1.5, num_cycles=4).run()
    assert [len(rows) for rows in asked(grown)[:3]] == [8, 12, 18]
    assert Settings(acquisition_growth=9.0).size_of_query(10**6) > 10**15  # and no overflow


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"acquisition_size": []}, r"must list one number or more, got \[\]"),
        ({"acquisition_size": [5, 0]}, "acquisition_size must be at least 1, got 0"),
        ({"acquisition_growth": 0.5}, "acquisition_growth must be at least 1, got 0.5"),
        ({"acquisition_growth": math.nan}, "acquisition_growth must be at least 1, got nan"),
        ({"acquisition_size": [5], "acquisition_growth": 2.0}, "either a list of sizes or"),
        ({"acquisition_size": [5, 50], "candidate_size": 20}, "must be at least .*=50, got 20"),
        (
            {"acquisition_size": 10, "acquisition_growth": 2.0, "candidate_size": 50},
            "must be at least acquisition_size=80, got 50",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**given)


def test_columns_of_several_strategies_are_of_their_own_rows():
    """What a part sees is what it would see alone."""
    seen = []

    def look(pool, num, generator):
        seen.append({n: c.clone() for n, c in pool.columns.items()})
        return torch.arange(num)

    alone = Strategy(look, {"scores": entropy, "e": "embedding"}, labeled=("e",), name="look")
    strategy = mix({"margin": 0.5, alone: 0.5})
    strategy.choose(pool_of(strategy, ROWS), 2, torch.Generator())
    (found,) = seen
    assert set(found) == {"scores", "e", "labeled_e"}
    first = chosen("margin", num=1)
    left = [row for row in range(60) if row not in first]
    expected = pool_of(alone, ROWS).columns
    torch.testing.assert_close(found["scores"], expected["scores"][left])
    torch.testing.assert_close(found["e"], expected["e"][left])
    torch.testing.assert_close(
        found["labeled_e"], torch.cat([expected["labeled_e"], expected["e"][first]])
    )
