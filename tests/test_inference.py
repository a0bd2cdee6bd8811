"""Reading the pool: any module that gives logits takes part, each row is known by its index."""

import lightning as L
import pytest
import torch
from toys import QUIET, Plain, Predicting, points, points_data

from al_lightning import Strategy, by_score
from al_lightning.acquisition import margin
from al_lightning.prediction.outputs import Outputs, stacked
from al_lightning.prediction.read_pool import read_pool
from al_lightning.prediction.tasks import TASKS
from al_lightning.training.trainers import quiet

ALL = Strategy(select=lambda pool, num, generator: torch.arange(num))
EMBEDDED = Strategy(ALL.select, {"probs": "probs", "embeddings": "embedding"})


def read(model, data, strategy=ALL, **rows):
    with quiet():
        return read_pool(L.Trainer(**QUIET), model, data, strategy, **rows)


def logits_of(model, data, indices):
    with torch.inference_mode():
        model.eval()
        return model(data.sets.pool.tensors[0][indices])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("eval_batch_size", [7, 16, 1000])
def test_probabilities_are_those_of_each_row(eval_batch_size, num_workers):
    model = Plain()
    data = points_data(eval_batch_size=eval_batch_size, num_workers=num_workers)
    pool = read(model, data)
    expected = logits_of(model, data, data.unlabeled_indices).softmax(-1)
    assert torch.equal(pool.indices, data.unlabeled_indices)
    torch.testing.assert_close(pool.probs, expected)
    assert torch.equal(pool.predicted, expected.argmax(-1))


def test_candidates_are_read_alone_in_ascending_order():
    model, data = Plain(), points_data()
    wanted = data.unlabeled_indices[torch.tensor([3, 20, 50])]
    pool = read(model, data, rows=wanted)
    assert torch.equal(pool.indices, wanted)
    torch.testing.assert_close(pool.probs, logits_of(model, data, pool.indices).softmax(-1))
    assert len(read(model, data)) == data.num_unlabeled


def test_a_score_is_kept_instead_of_the_probabilities():
    model, data = Plain(), points_data()
    pool = read(model, data, by_score(margin))
    with pytest.raises(AttributeError, match=r"no 'probs' among .*scores.*; name it in Strategy"):
        pool.probs
    torch.testing.assert_close(
        pool.scores, margin(logits_of(model, data, pool.indices).softmax(-1))
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda logits: logits,
        lambda logits: {"logits": logits},
        lambda logits: {"probs": logits.softmax(-1)},
        lambda logits: {"probs": logits.softmax(-1), "uncertainty": logits[:, 0]},
        lambda logits: logits.log_softmax(-1),
        lambda logits: {"probs": logits.softmax(-1)[:, None].expand(-1, 4, -1)},
        lambda logits: Outputs(logits.softmax(-1)),
    ],
)
def test_every_form_of_the_same_prediction_reads_alike(make):
    model, data = Predicting(make), points_data()
    pool = read(model, data)
    probs = pool.probs.mean(1) if pool.probs.ndim == 3 else pool.probs
    torch.testing.assert_close(probs, logits_of(model, data, pool.indices).softmax(-1))


def test_embeddings_are_kept_when_needed():
    model = Predicting(lambda logits: {"logits": logits, "embedding": logits * 2})
    data = points_data()
    pool = read(model, data, EMBEDDED)
    torch.testing.assert_close(pool.embeddings, 2 * logits_of(model, data, pool.indices))
    with pytest.raises(ValueError, match="needs embeddings: name a layer"):
        read(Plain(), data, EMBEDDED)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (None, "got NoneType"),
        ([torch.zeros(5, 3)], "got list"),
        ({"score": 1}, r"got a dict with \['score'\]"),
        (torch.zeros(5), r"got a tensor of shape \(5,\)"),
        (torch.zeros(5, 1), r"C >= 2, got a tensor of shape \(5, 1\)"),
        (torch.zeros(4, 3), r"B = 5 rows here.*shape \(4, 3\)"),
        (torch.zeros(5, 2, 3), r"tokens or boxes a row, and which is not guessed, got \(5, 2, 3\)"),
        ({"logits": torch.zeros(5, 2, 3)}, r'got \(5, 2, 3\); return samples as {"probs"'),
        (torch.eye(5), r"are non-negative and sum to 1; return the logits, or"),
        (
            {"logits": torch.zeros(5, 3), "embedding": torch.zeros(5, 2, 2)},
            r"'embedding' must be \(5, D\), got \(5, 2, 2\)",
        ),
    ],
)
def test_what_cannot_be_read_is_named(prediction, message):
    with pytest.raises(ValueError, match=message):
        TASKS["multiclass"].read(prediction, 5)


def test_samples_are_said_and_stacked():
    one = Outputs(torch.eye(3), torch.ones(3, 2))
    both = stacked([one, Outputs(torch.eye(3).flip(0), torch.zeros(3, 2))])
    assert (both.probs.shape, both.embedding.shape, both.num_samples) == ((3, 2, 3), (3, 4), 2)
    torch.testing.assert_close(both.mean_probs, (torch.eye(3) + torch.eye(3).flip(0)) / 2)
    assert stacked([one, Outputs(torch.eye(3))]).embedding is None
    with pytest.raises(ValueError, match=r"got samples already: \(3, 2, 3\)"):
        stacked([both])
    assert TASKS["multiclass"].read({"probs": both.probs}, 3).num_samples == 2
    assert TASKS["multiclass"].read({"probs": torch.eye(3)}, 3).num_samples is None


def test_nan_is_reported_by_data_set_index():
    data = points_data(eval_batch_size=1000)
    bad = data.unlabeled_indices[[3, 60]].tolist()
    data.sets.pool.tensors[0][bad] = float("nan")
    with pytest.raises(ValueError, match=rf"of 2 rows.*data-set indices \[{bad[0]}, {bad[1]}\]"):
        read(Plain(), data)
    infinite = by_score(lambda probs: probs[:, 0] / 0)
    with pytest.raises(ValueError, match="the scores of"):
        read(Plain(), points_data(), infinite)


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`")
def test_a_modules_own_transfer_hook_is_used():
    class Halving(Plain):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] / 2, batch[1]]

    model, data = Halving(), points_data()
    pool = read(model, data)
    x = data.sets.pool.tensors[0][pool.indices]
    with torch.inference_mode():
        torch.testing.assert_close(pool.probs, model.eval()(x / 2).softmax(-1))


def test_the_trainers_own_callbacks_stay_as_they_were():
    trainer, data = L.Trainer(**QUIET), points_data()
    before = list(trainer.callbacks)
    with quiet():
        read_pool(trainer, Plain(), data, ALL)
    assert trainer.callbacks == before


def test_flips_are_told_against_the_network_without_dropout():
    """Of the samples, also where all of them agree on another class than the plain network."""
    model, data = Plain(), points_data()
    strategy = Strategy(ALL.select, {"flips": "flips", "probs": "probs"})
    pool = read(model, data, strategy, mc_samples=9)
    plain = logits_of(model, data, pool.indices).argmax(-1)
    expected = (pool.probs.argmax(-1) != plain[:, None]).float()
    assert torch.equal(pool.flips, expected)
    assert 0 < pool.flips.mean() < 0.5


def test_flips_of_samples_alone_are_told_against_their_mean():
    probs = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
    outputs = TASKS["multiclass"].read({"probs": probs})
    assert outputs.column("flips", ("flips",)).tolist() == [[0, 1, 0]]
    said = TASKS["multiclass"].read({"probs": probs, "flips": torch.ones(1, 3)})
    assert said.column("flips", ("flips",)).tolist() == [[1, 1, 1]]
    with pytest.raises(ValueError, match=r"'flips' must be \(1, K\), got \(3,\); give one number"):
        TASKS["multiclass"].read({"probs": probs, "flips": torch.ones(3)})


@pytest.mark.parametrize("val", ["held out", "given"])
def test_a_strategy_finds_validation_rows_with_their_labels(val):
    given = points(25, seed=3)
    model = Plain()
    data = points_data(**({"val_size": 25} if val == "held out" else {"val_set": given}))
    strategy = Strategy(ALL.select, {"probs": "probs"}, validation=("probs",))
    pool = read(model, data, strategy)
    rows = data.validation_rows
    x, y = (torch.stack(column) for column in zip(*(rows[i] for i in range(25))))
    assert torch.equal(pool.validation_labels, y)
    with torch.inference_mode():
        torch.testing.assert_close(pool.validation_probs, model.eval()(x).softmax(-1))
    assert len(read(model, data, strategy, max_validation=4).validation_probs) == 4
    assert "validation_probs" not in read(model, points_data(), strategy).columns


def test_validation_labels_must_be_classes():
    given = torch.utils.data.TensorDataset(torch.randn(3, 4), torch.eye(3))
    strategy = Strategy(ALL.select, {"probs": "probs"}, validation=("probs",))
    with pytest.raises(
        ValueError, match=r"must be classes as whole numbers, found \[1.0, 0.0, 0.0"
    ):
        read(Plain(), points_data(val_set=given), strategy)
