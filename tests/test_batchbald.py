"""BatchBALD and the joint entropy against sums over all joint outcomes, written out."""

import itertools
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from al_lightning.acquisition.batchbald import batchbald
from al_lightning.acquisition.joint_entropy import (
    conditional_entropy,
    grouped,
    joint_entropy,
    no_rows_seen,
    thinned,
    weights_known,
    with_row,
)

# By name: the package may export functions that are called as their modules are.
batchbald_module = sys.modules[batchbald.__module__]
joint_entropy_module = sys.modules[joint_entropy.__module__]

each_dtype = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)]
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_probs(*shape, seed=0, scale=2.0, dtype=torch.float64):
    return (torch.randn(*shape, generator=seeded(seed), dtype=dtype) * scale).softmax(-1)


def linear_pool(N, K, C, seed=0, features=4):
    """What K linear models say of N rows: rows depend on each other as in a real pool."""
    rows_ND = torch.randn(N, features, generator=seeded(seed), dtype=torch.float64)
    weights_KDC = torch.randn(K, features, C, generator=seeded(seed + 1), dtype=torch.float64)
    return torch.einsum("nd,kdc->nkc", rows_ND, weights_KDC).softmax(-1)


def entropy_by_definition(probs):
    return -sum(p * math.log(p) for p in probs if p > 0)


def joint_entropy_by_definition(rows):
    """Over lists: rows[b][k][c]."""
    K, C = len(rows[0]), len(rows[0][0])
    return entropy_by_definition(
        sum(math.prod(row[k][y] for row, y in zip(rows, labels)) for k in range(K)) / K
        for labels in itertools.product(range(C), repeat=len(rows))
    )


def information_by_definition(rows):
    noise = sum(entropy_by_definition(row_k) / len(row) for row in rows for row_k in row)
    return joint_entropy_by_definition(rows) - noise


def greedy_by_definition(rows, num):
    chosen = []
    for _ in range(min(num, len(rows))):
        gain = {
            n: information_by_definition([rows[i] for i in [*chosen, n]])
            for n in range(len(rows))
            if n not in chosen
        }
        chosen.append(min(n for n in gain if gain[n] >= max(gain.values()) - 1e-9))
    return chosen


def greedy_looking_at_every_row(probs_NKC, num, generator, max_configurations):
    """The same sampled configurations, and no bounds."""
    every_row = torch.arange(len(probs_NKC))
    noise_N = conditional_entropy(probs_NKC, every_row, weights_known(probs_NKC))
    configurations, chosen = no_rows_seen(probs_NKC), []
    for _ in range(num):
        configurations = thinned(configurations, max_configurations, generator)
        gains_N = conditional_entropy(probs_NKC, every_row, configurations) - noise_N
        gains_N[chosen] = -math.inf
        chosen.append(int(gains_N.argmax()))
        configurations = with_row(configurations, probs_NKC[chosen[-1]])
    return chosen


@each_dtype
@settings(max_examples=25)
@given(B=st.integers(0, 4), K=st.integers(1, 4), C=st.integers(2, 4), seed=st.integers(0, 10**6))
def test_joint_entropy_agrees_with_its_definition(dtype, tolerance, B, K, C, seed):
    probs_BKC = random_probs(B, K, C, seed=seed, dtype=dtype)
    expected = joint_entropy_by_definition(probs_BKC.tolist()) if B else 0.0
    found = joint_entropy(probs_BKC, generator=seeded())
    assert found.item() == pytest.approx(expected, abs=tolerance)


@each_dtype
@settings(max_examples=25)
@given(
    N=st.integers(1, 7),
    K=st.integers(1, 4),
    C=st.integers(2, 3),
    num=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_each_pick_is_the_greedy_one(dtype, tolerance, N, K, C, num, seed):
    probs_NKC = random_probs(N, K, C, seed=seed, dtype=dtype)
    exact = probs_NKC.double() / probs_NKC.double().sum(-1, keepdim=True)
    expected = greedy_by_definition(exact.tolist(), num)
    assert batchbald(probs_NKC, num, seeded()).tolist() == expected


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_zero_and_one_hot_probabilities(seed):
    votes_NK = torch.randint(0, 3, (6, 4), generator=seeded(seed))
    probs_NKC = torch.nn.functional.one_hot(votes_NK, 3).double()
    expected = joint_entropy_by_definition(probs_NKC[:4].tolist())
    assert joint_entropy(probs_NKC[:4], generator=seeded()).item() == pytest.approx(expected)
    assert batchbald(probs_NKC, 4, seeded()).tolist() == greedy_by_definition(probs_NKC.tolist(), 4)
    # Certain members leave at most one configuration for each, however many rows are chosen.
    assert sorted(batchbald(probs_NKC.repeat(9, 1, 1), 54, seeded()).tolist()) == list(range(54))


def test_copies_fill_the_best_by_bald_but_not_by_batchbald():
    probs_NKC = linear_pool(12, 20, 3).repeat_interleave(5, dim=0)
    every_row = torch.arange(60)
    known = conditional_entropy(probs_NKC, every_row, weights_known(probs_NKC))
    bald_N = conditional_entropy(probs_NKC, every_row, no_rows_seen(probs_NKC)) - known
    assert len(set((bald_N.topk(5).indices // 5).tolist())) == 1
    positions = batchbald(probs_NKC, 5, seeded())
    assert len(set((positions // 5).tolist())) == 5
    assert (positions % 5 == 0).all()  # of equal rows the earliest


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("K", [1, 3])
def test_nothing_to_learn_gives_the_earliest_rows(K, dtype):
    probs_NKC = random_probs(40, 1, 5, dtype=dtype).expand(40, K, 5)
    assert batchbald(probs_NKC, 7, seeded(), max_configurations=50).tolist() == list(range(7))


def test_equal_rows_come_in_order():
    probs_NKC = random_probs(1, 4, 3).expand(30, 4, 3)
    picks = batchbald(probs_NKC, 6, seeded(), max_configurations=9)
    assert picks.tolist() == list(range(6))


@each_dtype
def test_many_rows_do_not_underflow(dtype, tolerance):
    coins_BKC = torch.tensor([[[0.25, 0.75], [0.25, 0.75]]], dtype=dtype).expand(2000, 2, 2)
    found = joint_entropy(coins_BKC, generator=seeded(), max_configurations=16)
    assert found.item() == pytest.approx(2000 * entropy_by_definition([0.25, 0.75]), rel=1e-9)


@pytest.mark.parametrize("max_configurations", [1, 7, 60])
def test_sampled_joint_entropy_is_unbiased(max_configurations):
    probs_BKC = linear_pool(5, 6, 3)
    exact = joint_entropy_by_definition(probs_BKC.tolist())
    found = torch.stack(
        [
            joint_entropy(probs_BKC, generator=seeded(s), max_configurations=max_configurations)
            for s in range(400)
        ]
    )
    standard_error = found.std().item() / 20
    assert standard_error > 0
    assert abs(found.mean().item() - exact) < 4 * standard_error


def test_sampled_error_is_far_below_that_of_sampled_labels():
    """The paper's estimate: labels from the mixture, the newest row summed over."""
    probs_BKC, num = linear_pool(6, 10, 4), 200
    exact = joint_entropy(probs_BKC, generator=seeded(), max_configurations=4**6).item()

    def by_sampled_labels(generator):
        joint_SK = torch.ones(num, 10, dtype=torch.float64)
        member_S = torch.arange(num) % 10
        for row_KC in probs_BKC[:-1]:
            labels_S = row_KC[member_S].multinomial(1, generator=generator)[:, 0]
            joint_SK *= row_KC[:, labels_S].T
        joint_SC = joint_SK @ probs_BKC[-1] / 10
        return -(joint_SC * joint_SC.log() / joint_SK.mean(-1, keepdim=True)).sum(-1).mean()

    ours = [
        joint_entropy(probs_BKC, generator=seeded(s), max_configurations=num) for s in range(40)
    ]
    theirs = [by_sampled_labels(seeded(s)) for s in range(40)]
    ours_rms, theirs_rms = ((torch.stack(x) - exact).square().mean().sqrt() for x in (ours, theirs))
    assert ours_rms < theirs_rms / 10


def test_thinning_keeps_every_weight_in_expectation():
    configurations = no_rows_seen(linear_pool(4, 5, 3))
    for row_KC in linear_pool(4, 5, 3):
        configurations = with_row(configurations, row_KC)
    weights_S, posterior_SK = configurations
    mean_S, repeats = torch.zeros(81, dtype=torch.float64), 3000
    for seed in range(repeats):
        few = thinned(configurations, 20, seeded(seed))
        assert len(few.weights) == 20
        assert few.weights.sum().item() == pytest.approx(1)
        which = torch.cdist(few.posterior, posterior_SK).argmin(-1)
        mean_S.index_add_(0, which, few.weights / repeats)
    c = few.weights.min()
    certain_S = weights_S > c
    torch.testing.assert_close(mean_S[certain_S], weights_S[certain_S], atol=1e-12, rtol=0)
    error_S = (mean_S - weights_S) / (c * weights_S / repeats).sqrt()
    assert error_S.abs().max() < 4.5


def test_groups_never_lower_a_conditional_entropy():
    probs_NKC = linear_pool(50, 8, 3)
    configurations = no_rows_seen(probs_NKC)
    for row_KC in probs_NKC[:5]:
        configurations = with_row(configurations, row_KC)
    every_row = torch.arange(50)
    exact_N = conditional_entropy(probs_NKC, every_row, configurations)
    for num in (1, 5, 40, 243):
        groups = grouped(configurations, num)
        assert len(groups.weights) <= num
        assert groups.weights.sum().item() == pytest.approx(1)
        bound_N = conditional_entropy(probs_NKC, every_row, groups)
        assert (bound_N >= exact_N - 1e-12).all()
    torch.testing.assert_close(bound_N, exact_N, atol=1e-6, rtol=0)


@pytest.mark.parametrize("max_configurations", [8, 300, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_pass_over_no_row_that_is_best(seed, max_configurations, monkeypatch):
    monkeypatch.setattr(batchbald_module, "FEW", 2)
    probs_NKC = linear_pool(150, 12, 4, seed=seed)
    found = batchbald(probs_NKC, 8, seeded(seed), max_configurations=max_configurations)
    assert found.tolist() == greedy_looking_at_every_row(
        probs_NKC, 8, seeded(seed), max_configurations
    )


def test_few_rows_are_looked_at_closely(monkeypatch):
    looked_at = []

    def counted(probs_NKC, rows_R, configurations):
        looked_at.append(len(rows_R) * len(configurations.weights))
        return conditional_entropy(probs_NKC, rows_R, configurations)

    monkeypatch.setattr(batchbald_module, "conditional_entropy", counted)
    batchbald(linear_pool(400, 12, 4), 6, seeded(), max_configurations=1024)
    assert sum(looked_at) < 0.3 * 400 * (1 + 4 + 16 + 64 + 256 + 1024)


@pytest.mark.parametrize("max_configurations", [100, 10_000])
def test_chunks_do_not_change_the_answer_and_bound_the_tables(max_configurations, monkeypatch):
    def storage(tensor):
        return tensor.untyped_storage().data_ptr()

    class LargestTable(TorchDispatchMode):
        num_bytes = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and storage(result) != storage(probs_NKC):
                self.num_bytes = max(self.num_bytes, result.nbytes)
            return result

    probs_NKC = linear_pool(3000, 5, 3)
    whole = batchbald(probs_NKC, 6, seeded(), max_configurations=max_configurations)
    for chunk in (1, 4000):
        monkeypatch.setattr(joint_entropy_module, "CHUNK_NUMBERS", chunk)
        monkeypatch.setattr(joint_entropy_module, "BLOCK", 70)
        rows = slice(None) if chunk > 1 else slice(400)
        expected = batchbald(probs_NKC[rows], 6, seeded(), max_configurations=max_configurations)
        with LargestTable() as largest:
            found = batchbald(probs_NKC[rows], 6, seeded(), max_configurations=max_configurations)
        assert torch.equal(found, expected)
        if chunk > 1:
            assert torch.equal(found, whole)
            # Only the checks of the input grow with the pool: (N, K) sums, a byte a number.
            assert largest.num_bytes <= 8 * max(3000 * 5, 4000, max_configurations * 5 * 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_computed_in_float64(dtype):
    probs_NKC = linear_pool(30, 6, 3).to(dtype)
    before = probs_NKC.clone()
    exact = probs_NKC.double() / probs_NKC.double().sum(-1, keepdim=True)
    picks = batchbald(probs_NKC, 5, seeded())
    assert picks.dtype == torch.int64
    assert torch.equal(picks, batchbald(exact, 5, seeded()))
    found, expected = (joint_entropy(p[:4], generator=seeded()) for p in (probs_NKC, exact))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert torch.equal(probs_NKC, before)


def test_answer_depends_on_the_generator_alone():
    probs_NKC = linear_pool(60, 8, 4)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = batchbald(probs_NKC, 9, seeded(5), max_configurations=20)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first, batchbald(probs_NKC, 9, seeded(5), max_configurations=20))
    estimates = {
        joint_entropy(probs_NKC[:9], generator=seeded(s), max_configurations=20).item()
        for s in (1, 1, 2)
    }
    assert len(estimates) == 2


def test_takes_all_when_asked_for_more():
    probs_NKC = linear_pool(6, 5, 3)
    assert sorted(batchbald(probs_NKC, 99, seeded()).tolist()) == list(range(6))
    assert batchbald(probs_NKC[:1], 3, seeded()).tolist() == [0]


@pytest.mark.parametrize(
    ("probs", "num", "max_configurations", "message"),
    [
        (torch.rand(4, 3).softmax(-1), 2, 9, r"must be \(N, K, C\)"),
        (torch.rand(4, 3, 2).softmax(-1), 0, 9, "num must be at least 1, got 0"),
        (torch.rand(4, 3, 2).softmax(-1), 2, 0, "max_configurations must be at least 1, got 0"),
        (torch.rand(0, 3, 2), 2, 9, "at least one row"),
        (torch.full((4, 3, 2), math.nan), 2, 9, "sum to 1"),
        (torch.randn(4, 3, 2) * 9, 2, 9, "pass logits.softmax"),
    ],
)
def test_refuses_what_it_cannot_rank(probs, num, max_configurations, message):
    with pytest.raises(ValueError, match=message):
        batchbald(probs, num, seeded(), max_configurations=max_configurations)
    if probs.ndim == 2 or max_configurations == 0:
        with pytest.raises(ValueError, match=message):
            joint_entropy(probs, generator=seeded(), max_configurations=max_configurations)
