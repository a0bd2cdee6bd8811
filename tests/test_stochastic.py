"""Stochastic batches: chances against their definition, and the limits of the temperature."""

import math
from itertools import permutations

import pytest
import torch

from al_lightning.acquisition import stochastic, top_k


def chance_of_order(weights, order):
    """Draws one after another without replacement, each in proportion to its weight."""
    chance, left = 1.0, sum(weights)
    for i in order:
        chance *= weights[i] / left
        left -= weights[i]
    return chance


SCORES = [0.2, 1.0, 0.5]
WEIGHTS = {
    "power": lambda beta: [score**beta for score in SCORES],
    "softmax": lambda beta: [math.exp(beta * score) for score in SCORES],
    "softrank": lambda beta: [rank**-beta for rank in (3, 1, 2)],
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_orders_come_as_often_as_their_chance(kind, beta):
    draw, num_draws = torch.Generator().manual_seed(3), 1500
    counts = dict.fromkeys(permutations(range(3)), 0)
    for _ in range(num_draws):
        order = stochastic(torch.tensor(SCORES), 3, kind, beta, generator=draw)
        counts[tuple(order.tolist())] += 1
    for order, count in counts.items():
        chance = chance_of_order(WEIGHTS[kind](beta), order)
        # Five standard deviations of a binomial.
        margin = 5 * math.sqrt(num_draws * chance * (1 - chance)) + 1e-9
        assert abs(count - num_draws * chance) <= margin, (order, count, num_draws * chance)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_cold_draws_are_top_k(kind):
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0)) + 0.1
    chosen = stochastic(scores, 7, kind, 1e6, generator=torch.Generator())
    assert torch.equal(chosen, top_k(scores, 7))


def test_rows_without_score_come_last_under_power_and_in_random_order():
    scores = torch.tensor([0.0, 0.0, 3.0, 0.0, 1e-30])
    orders = {
        tuple(stochastic(scores, 5, generator=torch.Generator().manual_seed(s)).tolist())
        for s in range(60)
    }
    assert all(set(order[:2]) == {2, 4} for order in orders)
    assert {order[2] for order in orders} == {0, 1, 3}
    nothing = torch.zeros(6)
    chosen = stochastic(nothing, 6, generator=torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(6))


def test_depends_on_its_generator_alone():
    scores = torch.rand(30)

    def draw(seed):
        return stochastic(scores, 5, generator=torch.Generator().manual_seed(seed)).tolist()

    state = torch.random.get_rng_state()
    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(5)}) > 1
    assert torch.equal(torch.random.get_rng_state(), state)


def test_takes_the_whole_of_a_small_pool():
    assert stochastic(torch.ones(1), 9, generator=torch.Generator()).tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "num must be at least 1, got 0"),
        ({"beta": -1.0}, "beta must be at least 0 and finite, got -1.0"),
        ({"beta": math.nan}, "beta must be at least 0 and finite, got nan"),
        ({"beta": math.inf}, "beta must be at least 0 and finite, got inf"),
        ({"kind": "pwer"}, r"kind must be one of \['power', 'softmax', 'softrank'\], got 'pwer'"),
        ({"scores": torch.tensor([0.5, -0.5])}, 'non-negative for kind="power"'),
        ({"scores": torch.tensor([0.5, math.nan])}, r"must be finite.*\[1\]"),
        ({"scores": torch.empty(0)}, "the pool must hold at least one row"),
    ],
)
def test_refuses_what_it_cannot_draw_from(arguments, message):
    with pytest.raises(ValueError, match=message):
        stochastic(**{"scores": torch.rand(4), "num": 2, **arguments}, generator=torch.Generator())
