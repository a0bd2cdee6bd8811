"""An ensemble against its members trained alone."""

from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torchmetrics.classification import MulticlassAccuracy
from toys import QUIET, Plain, Predicting, asked, loop_of, points, points_data, weights

from al_lightning import ActiveDataModule, ActiveLearningLoop, Ensemble, LitSimpleCNN
from al_lightning.run.folder import checksum
from al_lightning.run.weights import save_state
from al_lightning.training.trainers import quiet


class Member(Plain):
    """Without dropout, so that it is the same alone and in an ensemble."""

    def __init__(self, seed=0, optimizers=None):
        super().__init__(seed)
        self.net[2].p = 0.0
        self.optimizers_of = optimizers
        self.test_metric = MulticlassAccuracy(3, average="micro")

    def configure_optimizers(self):
        return (self.optimizers_of or super().configure_optimizers.__func__)(self)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.test_metric(self(x), y)
        self.log("test_acc", self.test_metric, batch_size=len(y))

    def validation_step(self, batch):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


class Manual(Member):
    """Two optimizers, stepped by hand."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.5) for layer in (self.net[0], self.net[3])]

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-2)


def one_cycle(module):
    optimizer = adam(module)
    steps = int(module.trainer.estimated_stepping_batches)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def each_epoch(module):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)]


def plateau(module):
    optimizer = adam(module)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.best = -1.0  # nothing is better, so each epoch lowers the rate
    return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "val_loss"}


def data(**arguments):
    return points_data(val_set=points(16, seed=2), **arguments)


KINDS = {
    "one": partial(Member, optimizers=adam),
    "one cycle": partial(Member, optimizers=one_cycle),
    "each epoch": partial(Member, optimizers=each_epoch),
    "plateau": partial(Member, optimizers=plateau),
    "manual": Manual,
}
TRAINERS = {
    "plain": {},
    "clipped": {"gradient_clip_val": 0.3, "accumulate_grad_batches": 2},
    "early": {"callbacks": [EarlyStopping("val_loss", patience=0)], "max_epochs": 6},
}


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_each_member_trains_as_it_would_alone(kind, trainer):
    if kind is Manual and "gradient_clip_val" in trainer:
        pytest.skip("Lightning refuses to clip and accumulate under manual optimization")
    arguments = {"max_epochs": 3, **QUIET, **trainer}
    factory = partial(L.Trainer, **arguments)
    ensemble = Ensemble([kind(1), kind(2)])
    together = loop_of(ensemble, data(), trainer=factory)
    together.ask()
    alone = [loop_of(kind(seed), data(), trainer=factory) for seed in (1, 2)]
    for member, loop in zip(ensemble.members, alone, strict=True):
        loop.ask()
        assert torch.equal(weights(member), weights(loop.model))
    assert not torch.equal(weights(ensemble.members[0]), weights(ensemble.members[1]))
    (result,), logged = together.results, [loop.results[0].metrics for loop in alone]
    for name in ("train_loss", "val_loss"):
        assert result.metrics[name] == pytest.approx(sum(m[name] for m in logged) / 2)
    each = sum(metrics["test_acc"] for metrics in logged) / 2
    assert result.metrics["member_test_acc"] == pytest.approx(each)


def test_the_test_is_of_the_averaged_prediction():
    ensemble = Ensemble([Member(seed) for seed in (1, 2, 3)])
    loop = loop_of(ensemble, data())
    loop.ask()
    x, y = loop.data.sets.test.tensors
    with torch.inference_mode():
        probs = sum(member(x).softmax(-1) for member in ensemble.members) / 3
    metrics = loop.results[0].metrics
    assert metrics["test_acc"] == pytest.approx((probs.argmax(-1) == y).float().mean().item())
    assert metrics["test_loss"] == pytest.approx(F.nll_loss(probs.log(), y).item(), abs=1e-5)


@pytest.mark.filterwarnings("ignore:rows to measure on")
def test_labels_that_are_shares_are_tested_by_the_members_alone():
    class Shares(Member):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def test_step(self, batch, batch_idx):
            self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

        validation_step = L.LightningModule.validation_step

    x, y = points(120).tensors
    rows = torch.utils.data.TensorDataset(x, F.one_hot(y, 3).float())
    shares = ActiveDataModule(rows, test_set=rows, initial_labeled_size=20)
    loop = loop_of(Ensemble([Shares(1), Shares(2)]), shares)
    loop.ask()
    assert set(loop.results[0].metrics) == {"member_test_loss"}


def test_prediction_holds_every_members():
    x, _ = points(7).tensors
    plain = Ensemble([Member(seed) for seed in (1, 2, 3)]).eval()
    out = plain.predict_step((x, None), 0)
    expected = torch.stack([member(x).softmax(-1) for member in plain.members], dim=1)
    torch.testing.assert_close(out["probs"], expected)
    assert "embedding" not in out
    embedding = [Predicting(lambda logits: {"logits": logits, "embedding": logits * 2})]
    embedding.append(Predicting(embedding[0].make))
    nn.init.ones_(embedding[1].net[0].weight)
    out = Ensemble(embedding).eval().predict_step((x, None), 0)
    together = torch.cat([2 * member(x) for member in embedding], dim=1)
    torch.testing.assert_close(out["embedding"], together)
    samples = Predicting(lambda logits: {"probs": logits.softmax(-1)[:, None].expand(-1, 4, -1)})
    with pytest.raises(ValueError, match=r"got samples already: \(7, 4, 3\)"):
        Ensemble([samples]).predict_step((x, None), 0)


def test_members_draw_their_own_dropout():
    members = [Plain(1), Plain(1)]
    members[1].net[3].bias.data += 1e-5
    loop_of(Ensemble(members)).ask()
    assert (weights(members[0]) - weights(members[1])).abs().max() > 1e-2


@pytest.mark.parametrize("warm", [False, True])
def test_resumed_after_any_event_it_equals_the_uninterrupted(tmp_path, warm):
    def ensemble(*seeds):
        return Ensemble([Plain(seed) for seed in seeds])

    arguments = {"warm_start": warm, "strategy": "vote_entropy", "num_cycles": 2}
    whole = loop_of(ensemble(1, 2), run_dir=tmp_path / "whole", **arguments)
    results = whole.run()
    assert {
        path.parent.name for path in (tmp_path / "whole" / "cycle_1").rglob("weights.ckpt")
    } == {
        "member_0",
        "member_1",
    }
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    for cut in range(1, len(lines) + 1):
        run_dir = tmp_path / f"cut_{cut}"
        loop_of(ensemble(1, 2), run_dir=run_dir, **arguments).run()
        (run_dir / "journal.jsonl").write_text("".join(lines[:cut]))
        factory = whole.trainer
        resumed = ActiveLearningLoop.resume(
            run_dir, ensemble(8, 9), points_data(), trainer=factory, monitors=[]
        )
        assert asked(resumed.run()) == asked(results), cut
        assert [r.metrics for r in resumed.results] == [r.metrics for r in results], cut
        assert torch.equal(weights(resumed.model), weights(whole.model)), cut


def test_a_fit_that_was_interrupted_goes_on_at_the_member_in_hand(tmp_path):
    starts = []

    class Stopping(Plain):
        stop_at = None

        def on_train_epoch_start(self):
            starts.append((self.seed, self.current_epoch))
            if (self.seed, self.current_epoch) == Stopping.stop_at:
                raise KeyboardInterrupt

        def __init__(self, seed):
            super().__init__(seed)
            self.seed = seed

    factory = partial(
        L.Trainer,
        max_epochs=3,
        enable_progress_bar=False,
        logger=False,
        callbacks=[ModelCheckpoint(save_last=True)],
    )

    def loop(run_dir):
        ensemble = Ensemble([Stopping(1), Stopping(2)])
        return loop_of(ensemble, trainer=factory, run_dir=run_dir, strategy="random")

    whole = loop(tmp_path / "whole")
    whole.ask()
    starts.clear()
    Stopping.stop_at = (2, 1)
    with pytest.raises(SystemExit):  # Lightning's
        loop(tmp_path / "cut").ask()
    Stopping.stop_at = None
    starts.clear()
    again = ActiveLearningLoop.resume(
        tmp_path / "cut",
        Ensemble([Stopping(1), Stopping(2)]),
        points_data(),
        trainer=factory,
        monitors=[],
    )
    again.ask()
    assert starts == [(2, 1), (2, 2)]
    assert torch.equal(weights(again.model), weights(whole.model))


def test_a_cold_start_resets_all_members():
    starts, seen = [], []

    class Starting(Member):
        def on_fit_start(self):
            starts.append(weights(self).clone())

    def first_rows(pool, num, generator):
        seen.append((tuple(pool.probs.shape), len(pool)))
        return torch.arange(num)

    ensemble = Ensemble([Starting(1), Starting(2)])
    loop = loop_of(ensemble, data(), strategy=first_rows, acquisition_size=10)
    results = loop.run()
    assert [shape for shape, _ in seen] == [(rows, 2, 3) for _, rows in seen]
    assert [rows for _, rows in seen[-2:]] == [100, 90]
    for one, again in zip(starts[:2], starts[4:], strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(weights(ensemble.members[0]), starts[0])
    assert [set(result.metrics) >= {"train_loss", "test_acc"} for result in results] == [True] * 3


@pytest.mark.filterwarnings("ignore:rows to measure on")
def test_the_packages_own_network_is_a_member():
    x, y = torch.rand(12, 1, 28, 28), torch.arange(12) % 10
    rows = torch.utils.data.TensorDataset(x, y)
    digits = ActiveDataModule(rows, test_set=rows, initial_labeled_size=6, batch_size=3)
    ensemble = Ensemble(partial(LitSimpleCNN, dropout=0.2, schedule="one_cycle"), num_members=2)
    trainer = partial(L.Trainer, max_epochs=1, **QUIET)
    loop = loop_of(ensemble, digits, trainer=trainer, strategy="bald", acquisition_size=2)
    assert len(loop.ask().indices) == 2
    with torch.inference_mode():
        out = ensemble.eval().predict_step((x, None), 0)
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {"probs": (12, 2, 10), "embedding": (12, 256)}
    right = (out["probs"].mean(1).argmax(-1) == y).float().mean().item()
    assert loop.results[0].metrics["test_acc"] == pytest.approx(right)


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
        ((shared(),), "must not share weights that train, 0 and 1 do"),
        ((Plain, 3), "must differ in their initial weights, found 0 and 1 equal"),
    ],
)
def test_bad_members_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(*arguments)


@pytest.mark.filterwarnings("ignore:.*configure_optimizers.* returned .None.")
def test_an_ensemble_is_not_fitted_as_one():
    loader = torch.utils.data.DataLoader(points(16), batch_size=8)
    trainer = L.Trainer(max_epochs=1, **QUIET)
    with quiet(), pytest.raises(ValueError, match="member by member.* fit each of ensemble.memb"):
        trainer.fit(Ensemble([Member(1), Member(2)]), loader)


def test_members_that_share_a_checkpoint_folder_stay_apart(tmp_path):
    factory = partial(
        L.Trainer,
        max_epochs=2,
        enable_progress_bar=False,
        logger=False,
        callbacks=[ModelCheckpoint(dirpath=tmp_path / "shared", save_last=True)],
    )
    ensemble = Ensemble([Plain(1), Plain(2)])
    loop_of(ensemble, trainer=factory, run_dir=tmp_path / "run", strategy="random").ask()
    assert not torch.equal(weights(ensemble.members[0]), weights(ensemble.members[1]))


def test_weights_in_one_file_are_read_too(tmp_path):
    """As an earlier version wrote those of an ensemble."""
    ensemble = Ensemble([Plain(1), Plain(2)])
    loop = loop_of(ensemble, run_dir=tmp_path)
    loop.ask()
    path = tmp_path / "cycle_1" / "weights.ckpt"
    save_state({"state_dict": ensemble.state_dict()}, path)
    record = {"event": "fit", "cycle": 1, "weights": checksum(path)}
    other = Ensemble([Plain(3), Plain(4)])
    loop_of(other)._cycles.take_fit(loop._run, record)
    assert torch.equal(weights(other), weights(ensemble))


@pytest.mark.filterwarnings("ignore:rows to measure on")
@pytest.mark.parametrize(
    ("relabel", "has_classes"),
    [
        (lambda x, y: {"x": x, "y": y}, False),
        (lambda x, y: (x, y + 1), False),
        (lambda x, y: (x, y.int()), True),
        (lambda x, y: (x, "abc"[int(y)]), False),
    ],
    ids=["no label where we look", "from 1 to C", "int32", "words"],
)
def test_labels_of_any_kind_pass_and_classes_alone_are_averaged(relabel, has_classes):
    class Indifferent(Plain):
        """Learns without labels; tests in its own way."""

        def training_step(self, batch, batch_idx):
            x = batch["x"] if isinstance(batch, dict) else batch[0]
            return self(x).square().mean()

        def predict_step(self, batch, batch_idx):
            return self(batch["x"] if isinstance(batch, dict) else batch[0])

        def test_step(self, batch, batch_idx):
            self.log("own", 1.0, batch_size=1)

    class Rows(list):
        holds_labels = True

    rows = Rows(relabel(x, y) for x, y in sorted(points(60), key=lambda row: int(row[1])))
    data = ActiveDataModule(rows, test_set=rows, initial_labeled_size=20)
    loop = loop_of(Ensemble([Indifferent(1), Indifferent(2)]), data)
    loop.ask()
    metrics = loop.results[0].metrics
    assert metrics["member_own"] == 1.0
    assert ("test_acc" in metrics) == has_classes
