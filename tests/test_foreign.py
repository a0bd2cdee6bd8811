"""Modules that others wrote predict by themselves: no wrapper, their own hooks and callbacks."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn
from torch.utils.data import Dataset
from toys import QUIET, TRAINER, Plain, asked, loop_of, points, points_data, weights

from al_lightning import ActiveDataModule, ActiveLearningLoop, Strategy
from al_lightning.prediction.read_pool import read_pool

ALL = Strategy(select=lambda pool, num, generator: torch.arange(num))


class Dicts(Dataset):
    """Rows as dicts of two inputs, a label and a number that no network takes."""

    def __init__(self, label="label"):
        self.rows, self.label = points(120), label

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        x, y = self.rows[index]
        return {"left": x[:2], "right": x[2:], self.label: y, "number": index}


class OnDicts(Plain):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["left"], batch["right"]), batch["label"])

    def forward(self, left, right):
        return self.net(torch.cat([left, right], -1))


def dicts_data(**arguments):
    return ActiveDataModule(Dicts(), initial_labeled_size=20, batch_size=16, **arguments)


class Keywords(OnDicts):
    def forward(self, left, **others):
        assert others.keys() == {"right", "number"}
        return super().forward(left, others["right"])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["left"], right=batch["right"], number=0), batch["label"])


class Whole(OnDicts):
    def forward(self, batch, scale=1.0):
        return super().forward(batch["left"], batch["right"])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch["label"])


@pytest.mark.parametrize("kind", [OnDicts, Keywords, Whole])
def test_a_dict_batch_is_given_as_forward_takes_it(kind):
    expected = asked(loop_of(OnDicts(), dicts_data()).run())
    assert asked(loop_of(kind(), dicts_data()).run()) == expected


def test_a_forward_that_takes_other_keys_is_refused_before_training():
    class Other(OnDicts):
        def forward(self, left, up):
            return self.net(left)

        def on_fit_start(self):
            raise AssertionError("trained")

    with pytest.raises(ValueError, match=r"forward must take the keys.*found \['left', 'up'\]"):
        loop_of(Other(), dicts_data()).run()


class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.seen = []

    def setup(self, stage):
        self.seen.append("setup")

    def on_predict_start(self):
        self.seen.append("start")

    def on_predict_batch_start(self, batch, batch_idx, dataloader_idx=0):
        self.seen.append("batch")

    def on_predict_end(self):
        self.seen.append("end")


@pytest.mark.parametrize("mc_samples", [None, 3])
def test_the_module_itself_predicts(mc_samples):
    module = Hooked()
    callbacks = []

    class Watch(L.Callback):
        def on_predict_batch_start(self, trainer, pl_module, *args):
            callbacks.append(pl_module)

    own = vars(module).get("predict_step")
    pool = read_pool(
        TRAINER(callbacks=[Watch()]), module, points_data(), ALL, mc_samples=mc_samples
    )
    assert module.seen == ["setup", "start", *["batch"] * len(callbacks), "end"]
    assert set(callbacks) == {module}
    assert vars(module).get("predict_step") is own
    assert pool.probs.ndim == (2 if mc_samples is None else 3)


def test_the_modules_own_step_is_back_after_an_error():
    class Fails(Plain):
        def forward(self, x):
            raise ZeroDivisionError

    module = Fails()
    with pytest.raises(ZeroDivisionError):
        read_pool(TRAINER(), module, points_data(), ALL)
    assert "predict_step" not in vars(module)


def test_a_stock_callback_finds_the_backbone():
    class WithBackbone(Plain):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Linear(4, 4)

        def forward(self, x):
            return self.net(self.backbone(x))

        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)

    def trainer(**given):
        return L.Trainer(
            callbacks=[BackboneFinetuning(1, verbose=False)], max_epochs=3, **{**given, **QUIET}
        )

    assert len(loop_of(WithBackbone(), trainer=trainer).run()) == 3


@pytest.mark.parametrize(
    "arguments",
    [{}, {"mc_samples": 3, "strategy": "bald"}, {"embedding_layer": "net.3", "strategy": "badge"}],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch warns itself while it traces
def test_compiled_modules_are_as_uncompiled_ones(arguments):
    expected = asked(loop_of(Plain(), **arguments).run())
    whole = torch.compile(Plain(), backend="eager")
    assert asked(loop_of(whole, **arguments).run()) == expected
    inside = Plain()
    inside.net = torch.compile(inside.net, backend="eager")
    assert asked(loop_of(inside, **arguments).run()) == expected
    in_place = Plain()
    in_place.net.compile(backend="eager")
    assert asked(loop_of(in_place, **arguments).run()) == expected


def test_a_module_of_the_other_package_is_named_as_such():
    other = type("Lit", (nn.Module,), {"__module__": "pytorch_lightning.core.module"})
    with pytest.raises(TypeError, match=r"got Lit; it is of the package pytorch_lightning: write"):
        loop_of(other())
    with pytest.raises(TypeError, match=r"must be a lightning.LightningModule, .* got Linear"):
        loop_of(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="got str"):
        ActiveLearningLoop("net", points_data(), trainer=TRAINER)


class TestEmbeddingLayer:
    def test_an_empty_sequential_is_a_layer(self):
        class Headless(Plain):
            def __init__(self):
                super().__init__()
                self.pooled = nn.Sequential()

            def forward(self, x):
                return self.net(self.pooled(x))

        data = points_data()
        every = Strategy(select=ALL.select, keep={"embedding": "embedding"})
        pool = read_pool(TRAINER(), Headless(), data, every, embedding_layer="pooled")
        assert torch.equal(pool.embedding, data.sets.pool.tensors[0][pool.indices])

    def test_a_layer_may_be_called_by_keyword_after_other_arguments(self):
        class Scaled(nn.Module):
            def forward(self, scale, *, x):
                return scale * x

        class Inside(Plain):
            def __init__(self):
                super().__init__()
                self.scaled = Scaled()

            def forward(self, x):
                return self.net(self.scaled(2, x=x))

        data = points_data()
        every = Strategy(select=ALL.select, keep={"embedding": "embedding"})
        pool = read_pool(TRAINER(), Inside(), data, every, embedding_layer="scaled")
        assert torch.equal(pool.embedding, data.sets.pool.tensors[0][pool.indices])

    def test_a_layer_that_setup_makes_is_found(self):
        class Late(Plain):
            def setup(self, stage):
                if not hasattr(self, "late"):
                    self.late = nn.Dropout(0.5)

            def forward(self, x):
                return self.net(self.late(x))

        results = loop_of(Late(), strategy="core_set", embedding_layer="late").run()
        assert len(results) == 3
        assert len(loop_of(Late(), strategy="bald", mc_samples=3).run()) == 3
        with pytest.raises(ValueError, match="must name a layer of the model, got 'lat'"):
            loop_of(Late(), strategy="core_set", embedding_layer="lat").run()


def test_sequences_of_any_length_are_sampled():
    class Texts(Dataset):
        def __len__(self):
            return 60

        def __getitem__(self, index):
            return torch.ones(2 + index % 5, 4) * (index % 3 + index / 100), index % 3

    def padded(items):
        x, y = zip(*items, strict=True)
        return nn.utils.rnn.pad_sequence(x, batch_first=True), torch.tensor(y)

    class Reads(Plain):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.net(self.drop(x).sum(1))

    data = ActiveDataModule(
        Texts(),
        initial_labeled_size=20,
        batch_size=8,
        eval_batch_size=3,
        collate_fn=padded,
        eval_collate_fn=padded,
    )
    assert len(loop_of(Reads(), data, strategy="bald", mc_samples=4, num_cycles=2).run()) == 2
    assert weights(Reads()).isfinite().all()
