"""One contract for every strategy, and how strategies are found and checked."""

import pytest
import torch

from al_lightning import STRATEGIES, PoolOutputs, Strategy, by_score
from al_lightning.strategies import checked_positions, find_strategy, strategy_name


def pool_of(strategy: Strategy, probs: torch.Tensor) -> PoolOutputs:
    """What the inference would hand to ``strategy`` for these probabilities."""
    columns = {"embeddings": torch.randn(len(probs), 5)} if "embeddings" in strategy.needs else {}
    if strategy.score is not None:
        columns["scores"] = strategy.score(probs)
    elif "probs" in strategy.needs:
        columns["probs"] = probs
    return PoolOutputs(torch.arange(len(probs)) * 2, **columns)


def select(name: str, probs: torch.Tensor, num: int, seed: int = 0) -> list[int]:
    strategy = find_strategy(name)
    generator = torch.Generator().manual_seed(seed)
    return strategy.select(pool_of(strategy, probs), num, generator).tolist()


POOLS = {
    "random": torch.rand(50, 4).softmax(-1),
    "duplicates": torch.rand(5, 4).softmax(-1).repeat(10, 1),
    "one_hot": torch.eye(4).repeat(5, 1),
    "one_row": torch.tensor([[0.25, 0.75]]),
    "empty": torch.empty(0, 4),
}


@pytest.mark.parametrize("name", STRATEGIES)
class TestContract:
    @pytest.mark.parametrize("probs", POOLS.values(), ids=POOLS)
    @pytest.mark.parametrize("num", [1, 7, 500])
    def test_gives_distinct_positions_in_range(self, name, probs, num):
        chosen = select(name, probs, num)
        assert len(chosen) == len(set(chosen)) == min(num, len(probs))
        assert set(chosen) <= set(range(len(probs)))

    def test_depends_on_its_generator_alone(self, name):
        torch.manual_seed(1)
        first = select(name, POOLS["random"], 10)
        torch.manual_seed(2)
        state = torch.random.get_rng_state()
        assert select(name, POOLS["random"], 10) == first
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_leaves_its_input_alone(self, name):
        probs = POOLS["random"].clone()
        select(name, probs, 10)
        assert torch.equal(probs, POOLS["random"])

    def test_order_of_rows_does_not_matter_to_scores(self, name):
        if find_strategy(name).score is None:
            return
        order = torch.randperm(50)
        chosen = select(name, POOLS["random"][order], 10)
        assert order[chosen].tolist() == select(name, POOLS["random"], 10)


def test_random_takes_each_row_about_equally_often():
    counts = torch.zeros(10)
    for seed in range(2000):
        counts[select("random", torch.rand(10, 2).softmax(-1), 3, seed)] += 1
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
    chosen = strategy.select(pool_of(strategy, torch.eye(3)), 1, torch.Generator())
    assert chosen.tolist() == [0]


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
