"""One contract for every strategy, and how strategies are found and checked."""

import math
import pickle
import time
from typing import NamedTuple

import lightning as L
import pytest
import torch

from al_lightning import STRATEGIES, PoolOutputs, Strategy, by_score
from al_lightning.acquisition import bald, core_set, entropy, gaussian_bald, kmeans, margin
from al_lightning.acquisition.progress import listening, report
from al_lightning.prediction.outputs import Outputs
from al_lightning.statistics import temperature
from al_lightning.statistics.calibration import sharpened
from al_lightning.strategies import (
    diverse,
    find_strategy,
    needs_of,
    power,
    softmax,
    softrank,
    strategy_name,
)
from al_lightning.strategies.registry import arguments_of
from al_lightning.strategies.strategy import checked_positions
from al_lightning.training.trainers import choosing_bar


class Rows(NamedTuple):
    """What a model might say of a pool, row by row."""

    probs: torch.Tensor
    """(N, K, C)."""
    embeddings: torch.Tensor
    """(N, D)."""

    def __getitem__(self, rows):
        return Rows(self.probs[rows], self.embeddings[rows])

    def outputs(self, num_samples) -> Outputs:
        """With numbers (N, K, O) and a score too, so that there is something for each strategy."""
        sampled = num_samples > 1
        probs, numbers = (
            table if sampled else table.mean(1)
            for table in (self.probs, self.probs[..., :2] * 3 - self.embeddings[:, None, :1])
        )
        return Outputs(
            probs,
            self.embeddings,
            self.probs.shape[1] if sampled else None,
            mean=numbers,
            variance=numbers.square() + 0.1,
            score=self.embeddings[:, 0],
        )


def some_rows(N=50, K=6, C=4, D=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Rows(
        (torch.randn(N, K, C, generator=draw) * 2).softmax(-1), torch.randn(N, D, generator=draw)
    )


LABELED = some_rows(7, seed=1)
POOLS = {
    "random": some_rows(),
    "duplicates": some_rows(5)[torch.arange(5).repeat(10)],
    "all_the_same": some_rows(1)[torch.zeros(20).long()],
    "one_hot": Rows(torch.eye(4).repeat(5, 1)[:, None].repeat(1, 3, 1), torch.zeros(20, 5)),
    "one_row": some_rows(1),
    "empty": some_rows(0),
}


def pool_of(strategy: Strategy, rows: Rows) -> PoolOutputs:
    """What the inference would hand to ``strategy`` for these rows."""
    outputs, labeled = (one.outputs(strategy.min_samples) for one in (rows, LABELED))
    columns = {
        name: outputs.column(column, needs_of(column)) for name, column in strategy.keep.items()
    }
    for name in strategy.labeled:
        column = strategy.keep[name]
        columns[f"labeled_{name}"] = labeled.column(column, needs_of(column))
    return PoolOutputs(torch.arange(len(rows.probs)) * 2, **columns)


def choose(name, rows: Rows, num: int, seed: int = 0) -> list[int]:
    strategy = find_strategy(name)
    generator = torch.Generator().manual_seed(seed)
    return strategy.choose(pool_of(strategy, rows), num, generator).tolist()


COMPOSITIONS = {
    "power(margin)": power(margin),
    "softmax(entropy)": softmax(entropy, beta=2.0),
    "softrank(bald)": softrank(bald),
    "diverse(margin, by=core_set)": diverse(margin, by=core_set, factor=3),
    "diverse(bald, by=kmeans)": diverse(bald, by=kmeans),
    "softmax(score)": softmax("score"),
    "diverse(score, by=core_set)": diverse("score", by=core_set),
    "power(gaussian_bald)": power(gaussian_bald),
}
ALL = {name: name for name in STRATEGIES} | COMPOSITIONS


@pytest.mark.parametrize("strategy", ALL.values(), ids=ALL)
class TestContract:
    @pytest.mark.parametrize("rows", POOLS.values(), ids=POOLS)
    @pytest.mark.parametrize("num", [1, 4, 500])
    def test_gives_distinct_positions_in_range(self, strategy, rows, num):
        chosen = choose(strategy, rows, num)
        assert len(chosen) == len(set(chosen)) == min(num, len(rows.probs))
        assert set(chosen) <= set(range(len(rows.probs)))

    def test_depends_on_its_generator_alone(self, strategy):
        torch.manual_seed(1)
        first = choose(strategy, POOLS["random"], 6)
        torch.manual_seed(2)
        state = torch.random.get_rng_state()
        assert choose(strategy, POOLS["random"], 6) == first
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_is_the_same_in_another_process(self, strategy):
        copy = pickle.loads(pickle.dumps(find_strategy(strategy)))
        assert choose(copy, POOLS["random"], 6) == choose(strategy, POOLS["random"], 6)
        assert arguments_of(copy.select) == arguments_of(find_strategy(strategy).select)

    def test_leaves_its_input_alone(self, strategy):
        rows = some_rows()
        choose(strategy, rows, 6)
        assert all(map(torch.equal, rows, some_rows()))

    def test_scores_depend_on_their_own_row_alone(self, strategy):
        rows, strategy = some_rows(), find_strategy(strategy)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:20]
        for name, column in pool_of(strategy, rows[order]).columns.items():
            if not name.startswith("labeled_"):
                expected = pool_of(strategy, rows).columns[name][order]
                torch.testing.assert_close(column, expected)

    def test_nan_is_refused(self, strategy):
        strategy = find_strategy(strategy)
        pool = pool_of(strategy, some_rows())
        for name in strategy.keep:
            broken = pool.columns[name].clone()
            broken[3] = math.nan
            columns = {**pool.columns, name: broken}
            with pytest.raises(ValueError, match=r"finite|sum to 1"):
                strategy.choose(PoolOutputs(pool.indices, **columns), 4, torch.Generator())


def copies(name, num=10, seed=0):
    """How many of the chosen are copies of another chosen one, each row being there five times."""
    rows = some_rows(40, seed=seed)[torch.arange(40).repeat(5)]
    chosen = choose(name, rows, num)
    return num - len({position % 40 for position in chosen})


def test_batches_of_repeated_rows():
    """Where each row is there five times, a cut at the top asks for copies."""
    num_copies = {
        name: sum(copies(name, seed=seed) for seed in range(5)) / 5
        for name in ("bald", "power_bald", "badge", "core_set", "typiclust", "kmeans", "margin")
    }
    assert num_copies["bald"] == num_copies["margin"] == 8  # ten rows are two, five times each
    assert num_copies["badge"] == num_copies["core_set"] == 0
    assert num_copies["typiclust"] <= 1
    assert num_copies["kmeans"] == 0
    assert 0 < num_copies["power_bald"] < 4
    # Six posterior samples hold no more than four rows can tell.
    assert copies("bald", num=4) == 3
    assert copies("batchbald", num=4) == 0


@pytest.mark.parametrize(
    "name",
    [
        "badge",
        "bait",
        "batchbald",
        "cluster_margin",
        "core_set",
        "drop_query",
        "kmeans",
        "max_herding",
        "probcover",
        "typiclust",
        "uncertainty_herding",
    ],
)
def test_long_choices_tell_how_far_they_have_come(name):
    heard = []
    with listening(lambda done, total: heard.append((done, total))):
        choose(name, some_rows(60), 6)
    assert heard
    assert all(0 <= done <= total for done, total in heard)
    num_heard = len(heard)
    choose(name, some_rows(60), 6)  # nobody listens any more
    assert len(heard) == num_heard


def test_the_bar_of_a_choice_shows_after_two_seconds_where_bars_are_shown(capsys):
    def choose_slowly(seconds, **shown):
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **shown)
        with choosing_bar(trainer):
            report(1, 4)
            time.sleep(seconds)
            report(2, 4)
        return capsys.readouterr().err

    assert "Choosing" not in choose_slowly(0.2)
    assert "Choosing" not in choose_slowly(2.1, enable_progress_bar=False)
    assert "Choosing:  50%" in choose_slowly(2.1)


def test_random_takes_each_row_about_equally_often():
    counts = torch.zeros(10)
    for seed in range(2000):
        counts[choose("random", some_rows(10), 3, seed)] += 1
    # 3/10 of 2000 draws each; five standard deviations of a binomial.
    assert ((counts - 600).abs() < 5 * (2000 * 0.3 * 0.7) ** 0.5).all()


def test_unknown_name_tells_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'margin'"):
        find_strategy("margn")
    with pytest.raises(TypeError, match="a name, a Strategy or a function.*got int"):
        find_strategy(3)


def test_a_plain_function_is_a_strategy(monkeypatch):
    def mine(pool, num, generator):
        return torch.arange(num)

    assert find_strategy(mine).select is mine
    assert strategy_name(mine).endswith("mine")
    monkeypatch.setitem(STRATEGIES, "mine", mine)
    assert find_strategy("mine").select is mine
    assert strategy_name(mine) == "mine"


def test_a_plain_score_is_a_strategy():
    def first_class(probs):
        return probs[:, 0]

    strategy = by_score(first_class)
    assert strategy_name(strategy).endswith("first_class")
    pool = PoolOutputs(torch.arange(3), scores=strategy.keep["scores"](torch.eye(3)))
    assert strategy.choose(pool, 1, torch.Generator()).tolist() == [0]


def test_arguments_reach_the_strategy_and_strange_ones_are_refused():
    def mine(pool, num, generator, *, offset=0):
        return torch.arange(num) + offset

    pool = PoolOutputs(torch.arange(9))
    assert find_strategy(mine, {"offset": 3}).choose(pool, 2, torch.Generator()).tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"mine' takes \['offset'\], got \['ofset'\]"):
        find_strategy(mine, {"ofset": 3})
    with pytest.raises(ValueError, match=r"'margin' takes no arguments, got \['beta'\]"):
        find_strategy("margin", {"beta": 1.0})
    rows = some_rows()
    cold = find_strategy("power_bald", {"beta": 1e9})
    chosen = cold.choose(pool_of(cold, rows), 5, torch.Generator()).tolist()
    assert chosen == choose("bald", rows, 5)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("power_bald", "beta", -1.0),
        ("epig", "num_targets", 0),
        ("batchbald", "max_configurations", 0),
        ("typiclust", "max_clusters", 0),
        ("probcover", "delta", 0.0),
        ("probcover", "num_classes", 1),
        ("cluster_margin", "candidate_factor", 0.5),
        ("max_herding", "bandwidth", 0.0),
        ("uncertainty_herding", "bandwidth", -1.0),
        ("uncertainty_herding", "temperature", 0.0),
        ("bait", "regularization", 0.0),
    ],
)
def test_each_argument_reaches_its_selector(name, argument, value):
    strategy = find_strategy(name, {argument: value})
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        strategy.choose(pool_of(strategy, some_rows()), 5, torch.Generator())


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep": {"probs": "probs"}, "labeled": ("embeddings",)},
        {"keep": {"e": "embedding"}, "labeled": "e"},
        {"keep": {"e": "embeddings"}},
        {"keep": {"indices": margin}},
        {"keep": {"predicted": margin}},
    ],
    ids=["labeled unkept", "a name for names", "unknown", "indices", "predicted"],
)
def test_a_strategy_says_what_it_can_keep(arguments):
    with pytest.raises(ValueError, match="keep must map names to functions of probabilities"):
        Strategy(core_set, **arguments)


def test_uncertainty_herding_is_calibrated_on_validation_rows():
    """An overconfident model is less sure of itself afterwards, and other rows are asked."""
    strategy, rows = find_strategy("uncertainty_herding"), some_rows(60)
    draw = torch.Generator().manual_seed(0)
    honest = sharpened(rows.probs.mean(1), 8.0)
    labels = torch.multinomial(honest, 1, generator=draw)[:, 0]
    columns = pool_of(strategy, rows).columns
    plain = PoolOutputs(torch.arange(60), **columns)
    held_out = {"validation_probs": columns["probs"], "validation_labels": labels}
    calibrated = PoolOutputs(torch.arange(60), **columns, **held_out)
    T = temperature(columns["probs"], labels)
    assert T > 2
    by_hand = find_strategy("uncertainty_herding", {"temperature": T})
    found = strategy.choose(calibrated, 9, torch.Generator())
    assert torch.equal(found, by_hand.choose(plain, 9, torch.Generator()))
    assert not torch.equal(found, strategy.choose(plain, 9, torch.Generator()))


def test_strategies_can_be_keys():
    assert {STRATEGIES["margin"]: 1}[STRATEGIES["margin"]] == 1


def test_compositions_say_what_they_are():
    assert strategy_name(power(bald)) == "power(bald)"
    assert strategy_name(diverse(margin, by=core_set)) == "diverse(margin, by=core_set)"
    with pytest.raises(ValueError, match="factor must be at least 1, got 0.5"):
        diverse(margin, by=core_set, factor=0.5)


def test_diverse_chooses_among_the_highest_scores():
    rows = some_rows()
    strategy = diverse(margin, by=core_set, factor=2)
    best = margin(rows.probs.mean(1)).topk(8).indices
    chosen = choose(strategy, rows, 4)
    assert set(chosen) <= set(best.tolist())
    expected = best[core_set(rows.embeddings[best], LABELED.embeddings, 4)]
    assert sorted(chosen) == sorted(expected.tolist())


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 1, 2], "int64 tensor of positions, got list"),
        (torch.tensor([0.0, 1.0, 2.0]), "got torch.float32"),
        (torch.tensor([0, 1]), r"3 distinct positions in 0..9, got 2 distinct"),
        (torch.tensor([0, 1, 1]), "got 2 distinct"),
        (torch.tensor([0, 1, 10]), "some out of range"),
        (torch.tensor([-1, 0, 1]), "some out of range"),
    ],
)
def test_a_strategy_must_keep_its_word(positions, message):
    with pytest.raises(ValueError, match=message):
        checked_positions(positions, 3, 10)
