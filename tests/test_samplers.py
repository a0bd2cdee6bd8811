"""Orders that derive from the epoch, and shares of whole batches."""

import lightning as L
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import QUIET, Plain, points_data

from al_lightning.data.samplers import BatchShards, EpochShuffle
from al_lightning.training.trainers import quiet


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 5))
def test_shares_are_the_batches_of_one_process_dealt_in_turn(num_rows, batch_size, num_replicas):
    rows = list(range(num_rows))
    batches = [rows[i : i + batch_size] for i in range(0, num_rows, batch_size)]
    for rank in range(num_replicas):
        shards = BatchShards(rows, batch_size, num_replicas=num_replicas, rank=rank)
        own = list(shards)
        assert len(shards) == len(own)
        assert [own[i : i + batch_size] for i in range(0, len(own), batch_size)] == (
            batches[rank::num_replicas]
        )


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 3))
def test_shares_of_an_epoch_are_even_and_hold_every_row(num_rows, num_replicas, epoch):
    shares = [
        list(EpochShuffle(range(num_rows), 1, epoch=epoch, num_replicas=num_replicas, rank=rank))
        for rank in range(num_replicas)
    ]
    (length,) = {len(share) for share in shares}
    assert length == -(-num_rows // num_replicas)
    assert set().union(*shares) == set(range(num_rows))
    in_turn = [row for rows in zip(*shares) for row in rows]
    assert in_turn[:num_rows] == list(EpochShuffle(range(num_rows), 1, epoch=epoch))


def test_an_order_derives_from_seed_purpose_and_epoch():
    def order(*purpose, epoch=0, told=None):
        sampler = EpochShuffle(range(50), *purpose, epoch=epoch)
        if told is not None:
            sampler.set_epoch(told)
        return list(sampler), torch.rand(1, generator=sampler.worker_seeds).item()

    assert order(1, "shuffle", 20, epoch=3) == order(1, "shuffle", 20, told=3)
    assert sorted(order(1)[0]) == list(range(50))
    different = [order(1), order(2), order(1, "shuffle"), order(1, epoch=1)]
    assert len({str(rows) for rows, _ in different}) == 4
    assert len({seed for _, seed in different}) == 4


@given(st.integers(1, 30), st.integers(1, 90), st.integers(1, 4), st.integers(0, 3))
def test_draws_of_an_epoch_are_so_many_dealt_in_turn(num_rows, num_draws, num_replicas, epoch):
    def drawn(**share):
        return list(EpochShuffle(range(num_rows), 1, num_draws=num_draws, epoch=epoch, **share))

    whole = drawn()
    assert len(whole) == num_draws
    assert set(whole) <= set(range(num_rows))
    shares = [drawn(num_replicas=num_replicas, rank=rank) for rank in range(num_replicas)]
    assert {len(share) for share in shares} == {-(-num_draws // num_replicas)}
    assert [row for rows in zip(*shares) for row in rows][:num_draws] == whole


def test_draws_are_with_replacement_and_even():
    counts = torch.bincount(torch.tensor(list(EpochShuffle(range(20), 1, num_draws=20_000))))
    assert len(counts) == 20
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 43.8  # its 99.9 % point at 19 degrees of freedom
    one, other = (list(EpochShuffle(range(20), 1, num_draws=20, epoch=e)) for e in (0, 1))
    assert len(set(one)) < 20
    assert one != other


class Remembers(Plain):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_train_epoch_start(self):
        self.epochs.append([])

    def training_step(self, batch, batch_idx):
        self.epochs[-1] += batch[0][:, 0].tolist()
        return super().training_step(batch, batch_idx)


def test_each_epoch_of_a_fit_has_its_own_order():
    model, data = Remembers(), points_data()
    with quiet(validates=False):
        L.Trainer(max_epochs=3, **QUIET).fit(model, datamodule=data)
    assert len({str(epoch) for epoch in model.epochs}) == 3
    assert len({str(sorted(epoch)) for epoch in model.epochs}) == 1


def test_an_epoch_of_a_set_size_draws_the_labeled_rows():
    model, data = Remembers(), points_data(epoch_size=50)
    with quiet(validates=False):
        L.Trainer(max_epochs=2, **QUIET).fit(model, datamodule=data)
    assert [len(epoch) for epoch in model.epochs] == [50, 50]
    assert model.epochs[0] != model.epochs[1]
    labeled = {data.sets.train[int(i)][0][0].item() for i in data.labeled_indices}
    assert set(model.epochs[0] + model.epochs[1]) == labeled  # 100 draws of 20 rows
