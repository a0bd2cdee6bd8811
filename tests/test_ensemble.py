"""An ensemble against its members trained alone."""

import copy
import math
from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from toys import QUIET, Plain, Predicting, points, points_data

from al_lightning import ActiveLearningLoop, LitSimpleCNN
from al_lightning.prediction.ensemble import Ensemble, _averaged
from al_lightning.training.trainers import quiet

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:.*does not have many workers"
)


class Member(Plain):
    """Without dropout, so that alone and together give the same; ``optimizers`` configures."""

    def __init__(self, seed=0, optimizers=None):
        super().__init__(seed)
        self.net[2].p = 0.0
        self.optimizers_of = optimizers
        self.test_metric = MulticlassAccuracy(3, average="micro")
        self.heard = []

    def configure_optimizers(self):
        return (self.optimizers_of or super().configure_optimizers.__func__)(self)

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.test_metric(logits, y)
        self.log("test_loss", F.cross_entropy(logits, y), batch_size=len(y))
        self.log("test_acc", self.test_metric, batch_size=len(y))

    def validation_step(self, batch):
        self.log_dict({"val_loss": F.cross_entropy(self(batch[0]), batch[1])})

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.heard.append(float(outputs["loss"]))


def loader(num_rows=50, seed=0):
    return DataLoader(points(num_rows, seed), batch_size=8)


def fitted(model, **arguments):
    arguments = {"max_epochs": 2, "enable_model_summary": False, **QUIET, **arguments}
    trainer = L.Trainer(**arguments)
    with quiet(validates=False):
        trainer.fit(model, loader(), loader(16, seed=2))
    return trainer


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-2)


def one_cycle(module):
    optimizer = adam(module)
    steps = int(module.trainer.estimated_stepping_batches)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }


def each_epoch(module):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)]


def often(module):
    optimizer = adam(module)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    config = {"scheduler": scheduler, "interval": "step", "frequency": 3, "name": "rate"}
    return {"optimizer": optimizer, "lr_scheduler": config}


FORMS = {
    "one": adam,
    "list": lambda module: [adam(module)],
    "one cycle": one_cycle,
    "each epoch": each_epoch,
    "often": often,
}


@pytest.mark.parametrize("arguments", [{}, {"gradient_clip_val": 0.3, "max_steps": 9}], ids=str)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_member_trains_as_it_would_alone(form, arguments):
    members = [Member(seed, form) for seed in (1, 2)]
    alone = copy.deepcopy(members)
    together = fitted(Ensemble(members), **arguments)
    for member, one in zip(members, alone, strict=True):
        trainer = fitted(one, **arguments)
        torch.testing.assert_close(weights(member), weights(one))
        assert together.global_step == trainer.global_step
        assert member.heard == pytest.approx(one.heard, abs=1e-5)
    assert not torch.equal(weights(members[0]), weights(members[1]))


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_accumulated_and_skipped_batches_are_each_members_own():
    class Skipping(Member):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            skip = batch_idx % 3 == 1 and self.net[0].weight[0, 0] > 0
            return None if skip else {"loss": loss}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            pass

    members = [Skipping(seed) for seed in (1, 2)]
    alone = copy.deepcopy(members)
    fitted(Ensemble(members), accumulate_grad_batches=2)
    for member, one in zip(members, alone, strict=True):
        fitted(one, accumulate_grad_batches=2)
        torch.testing.assert_close(weights(member), weights(one))


def test_a_plateau_sees_what_the_ensemble_logs():
    def plateau(module):
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(adam(module), patience=0, factor=0.5)
        scheduler.best = -1.0  # nothing is better, so each epoch lowers the rate
        return {
            "optimizer": scheduler.optimizer,
            "lr_scheduler": scheduler,
            "monitor": "val_loss",
        }

    ensemble = Ensemble(lambda: Member(int(torch.randint(99, ())), plateau), num_members=2)
    trainer = fitted(ensemble, max_epochs=4)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == [1e-2 / 16, 1e-2 / 16]


def test_training_logs_the_mean_and_testing_the_averaged_prediction(tmp_path):
    members = [Member(seed) for seed in (1, 2, 3)]
    ensemble, alone = Ensemble(members), copy.deepcopy(members)
    callbacks = [EarlyStopping("val_loss"), LearningRateMonitor()]
    trainer = fitted(ensemble, callbacks=callbacks, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    losses = [fitted(one).callback_metrics["train_loss"] for one in alone]
    torch.testing.assert_close(trainer.callback_metrics["train_loss"], sum(losses) / 3)
    with quiet():
        (metrics,) = trainer.test(ensemble, loader(40, seed=1), verbose=False)
    x, y = points(40, seed=1).tensors
    with torch.inference_mode():
        probs = sum(member(x).softmax(-1) for member in members) / 3
    assert metrics["test_acc"] == pytest.approx((probs.argmax(-1) == y).float().mean().item())
    assert metrics["test_loss"] == pytest.approx(F.nll_loss(probs.log(), y).item(), abs=1e-5)
    assert set(metrics) == {"test_acc", "test_loss"}
    assert all("log" not in vars(m) and "forward" not in vars(m) for m in members)


def test_the_average_is_of_probabilities_and_reaches_far_into_the_tails():
    logits = torch.tensor([[[0.0, 200.0]], [[0.0, 100.0]]], dtype=torch.float64)
    expected = torch.tensor([[-100 - math.log(2), 0.0]])
    torch.testing.assert_close(_averaged(list(logits)), expected)


def test_what_cannot_be_averaged_is_tested_alone_and_says_so():
    class Around(Member):
        """Its steps go past ``forward``."""

        def test_step(self, batch, batch_idx):
            own = copy.copy(self.net)
            self.test_metric(own(batch[0]), batch[1])
            self.log("test_acc", (own(batch[0]).argmax(-1) == batch[1]).float().mean())
            self.log("metric", self.test_metric)
            self.count = len(batch[0]) + getattr(self, "count", 0)

        def on_test_epoch_end(self):
            self.log("rows", float(self.count))

    class Features(Around):
        """Its ``forward`` gives as many features as there are classes."""

        def forward(self, x):
            return self.net(x).roll(1, -1)

        def predict_step(self, batch, batch_idx):
            return self.net(batch[0])

        def test_step(self, batch, batch_idx):
            self.net(batch[0])
            self.log("test_acc", (self(batch[0]).argmax(-1) == (batch[1] + 1) % 3).float().mean())
            self.test_metric(self(batch[0]).roll(-1, -1), batch[1])
            self.log("metric", self.test_metric)
            self.count = len(batch[0]) + getattr(self, "count", 0)

    x, y = points(40, seed=1).tensors
    for kind in (Around, Features):
        ensemble = Ensemble([kind(seed) for seed in (1, 2)])
        with quiet():
            (metrics,) = L.Trainer(**QUIET).test(ensemble, loader(40, seed=1), verbose=False)
        each = [(m.net(x).argmax(-1) == y).float().mean().item() for m in ensemble.members]
        assert metrics["member_test_acc"] == pytest.approx(sum(each) / 2)
        assert [metrics["member_0_metric"], metrics["member_1_metric"]] == pytest.approx(each)
        assert metrics["member_rows"] == 40
        assert not {"test_acc", "metric", "rows"} & set(metrics)


def test_prediction_holds_every_members():
    x, _ = points(7).tensors
    plain = Ensemble([Member(seed) for seed in (1, 2, 3)]).eval()
    out = plain.predict_step((x, None), 0)
    expected = torch.stack([member(x).softmax(-1) for member in plain.members], dim=1)
    torch.testing.assert_close(out["probs"], expected)
    assert "embedding" not in out
    embedding = [Predicting(lambda logits: {"logits": logits, "embedding": logits * 2})]
    embedding.append(copy.deepcopy(embedding[0]))
    nn.init.ones_(embedding[1].net[0].weight)
    out = Ensemble(embedding).eval().predict_step((x, None), 0)
    together = torch.cat([2 * member(x) for member in embedding], dim=1)
    torch.testing.assert_close(out["embedding"], together)
    samples = Predicting(lambda logits: logits[:, None].expand(-1, 4, -1))
    with pytest.raises(ValueError, match=r"got samples already: \(7, 4, 3\)"):
        Ensemble([samples]).predict_step((x, None), 0)


def test_members_draw_their_own_dropout():
    torch.manual_seed(0)
    members = [Plain(1), Plain(1)]
    members[1].net[3].bias.data += 1e-5
    fitted(Ensemble(members))
    assert (weights(members[0]) - weights(members[1])).abs().max() > 1e-2


def test_state_round_trips(tmp_path):
    ensemble = Ensemble([Member(1), Member(2)])
    trainer = fitted(ensemble)
    torch.save(ensemble.state_dict(), tmp_path / "weights.pt")
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    other = Ensemble(partial(Member, 3), num_members=1)
    with pytest.raises(RuntimeError, match="member_1"):
        other.load_state_dict(ensemble.state_dict())
    other = Ensemble([Member(3), Member(4)])
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(weights(other), weights(ensemble))
    assert next(iter(ensemble.state_dict())) == "member_0.net.0.weight"


def test_a_fit_goes_on_from_a_checkpoint(tmp_path):
    whole, half = (Ensemble([Member(1, often), Member(2, each_epoch)]) for _ in range(2))
    fitted(whole, max_epochs=4)
    fitted(half, max_epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    resumed = Ensemble([Member(3, often), Member(4, each_epoch)])
    with quiet():
        trainer = L.Trainer(max_epochs=4, **QUIET)
        trainer.fit(resumed, loader(), loader(16, 2), ckpt_path=tmp_path / "half.ckpt")
    torch.testing.assert_close(weights(resumed), weights(whole))
    (joint,) = trainer.optimizers
    rates = [group["lr"] for one in joint.each for group in one.param_groups]
    assert [group["lr"] for group in joint.param_groups] == rates
    assert rates[1] == pytest.approx(0.5 * 0.1**4)


def test_a_cold_start_resets_all_members():
    starts, seen = [], []

    class Starting(Member):
        def on_fit_start(self):
            starts.append(weights(self).clone())

    def first_rows(pool, num, generator):
        seen.append((pool.probs.shape, len(pool)))
        return torch.arange(num)

    ensemble = Ensemble([Starting(1), Starting(2)])
    loop = ActiveLearningLoop(
        ensemble,
        points_data(),
        trainer=partial(L.Trainer, max_epochs=2, **QUIET),
        strategy=first_rows,
        acquisition_size=10,
        num_cycles=3,
    )
    results = loop.run()
    assert [tuple(shape) for shape, _ in seen] == [(rows, 2, 3) for _, rows in seen]
    assert [rows for _, rows in seen[-2:]] == [100, 90]
    for one, again in zip(starts[:2], starts[4:], strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(weights(ensemble.members[0]), starts[0])
    assert [set(result.metrics) >= {"train_loss", "test_acc"} for result in results] == [True] * 3


def test_the_packages_own_network_is_a_member():
    ensemble = Ensemble(partial(LitSimpleCNN, dropout=0.2, schedule="one_cycle"), num_members=2)
    x, y = torch.rand(6, 1, 28, 28), torch.arange(6)
    rows = DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=3)
    trainer = L.Trainer(max_epochs=1, **QUIET)
    with quiet():
        trainer.fit(ensemble, rows)
        (metrics,) = trainer.test(ensemble, rows, verbose=False)
        probs = torch.cat([out["probs"] for out in trainer.predict(ensemble, rows)])
    assert metrics["test_acc"] == pytest.approx((probs.mean(1).argmax(-1) == y).float().mean())
    assert out_shape(ensemble, x) == {"probs": (6, 2, 10), "embedding": (6, 256)}


def out_shape(ensemble, x):
    with torch.inference_mode():
        out = ensemble.eval().predict_step((x, None), 0)
    return {name: tuple(value.shape) for name, value in out.items()}


class Manual(Plain):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Backward(Plain):
    def backward(self, loss):
        loss.backward()


def shared():
    first, second = Plain(1), Plain(2)
    second.net = first.net
    return [first, second]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Plain,), "takes a function and num_members.*num_members=None"),
        (([Plain()], 2), "got list and num_members=2"),
        ((Plain, 0), "num_members=0"),
        (([],), "must be LightningModules, got none"),
        (([nn.Linear(2, 2)],), r"must be LightningModules, got \['Linear'\]"),
        (([Manual()],), "found automatic_optimization=False in Manual"),
        (([Backward()],), "found backward in Backward"),
        ((shared(),), "must not share weights that train, 0 and 1 do"),
        ((Plain, 3), "must differ in their initial weights, found 0 and 1 equal"),
    ],
)
def test_bad_members_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(*arguments)


def test_a_member_must_have_one_optimizer():
    ensemble = Ensemble([Member(1, lambda module: [adam(module), adam(module)])])
    with pytest.raises(ValueError, match="one optimizer, got from configure_optimizers list"):
        fitted(ensemble)


def test_steps_that_members_lack_are_lacking():
    class Trained(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)

    with quiet(), pytest.raises(Exception, match="No `test_step"):
        L.Trainer(**QUIET).test(Ensemble([Trained()]), loader(), verbose=False)
