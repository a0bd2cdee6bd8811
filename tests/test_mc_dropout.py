"""MC dropout of any module, against the module computed by hand under the masks that were drawn."""

import copy
from collections import Counter
from itertools import product

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import StochasticDepth
from toys import QUIET, Plain, Predicting, loop_of, points_data

from al_lightning import Strategy
from al_lightning.prediction.mc_dropout import MCDropout, uniform
from al_lightning.prediction.read_pool import read_pool
from al_lightning.seeds import derive_seed
from al_lightning.training.trainers import quiet

SEED = 5


def mask(name, call, K, shape, p):
    """The masks by their definition: (K, *shape), scaled."""
    seed = derive_seed(SEED, "mc_dropout", name, call)
    drawn = [slow_uniform(seed, position) for position in product(*map(range, (K, *shape)))]
    return (torch.tensor(drawn).view(K, *shape) >= p).float() / (1 - p)


def slow_uniform(seed, position):
    """One number in [0, 1) by SplitMix64, in whole numbers of Python."""
    number = seed
    for i in position:
        number = (number + 0x9E3779B97F4A7C15 * (i + 1)) % 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            number = ((number ^ (number >> shift)) * factor) % 2**64
    return (number >> 11) / 2**53


def test_draws_are_uniform_and_those_of_a_smaller_shape_are_a_corner():
    drawn = uniform(7, (20, 30, 40))
    assert torch.equal(uniform(7, (3, 30, 5)), drawn[:3, :, :5])
    assert not torch.equal(uniform(8, (20, 30, 40)), drawn)
    counts = torch.histc(drawn, 10, 0, 1) / drawn.numel()
    assert (counts - 0.1).abs().max() < 0.01
    neighbours = torch.corrcoef(torch.stack([drawn[:, :-1].flatten(), drawn[:, 1:].flatten()]))
    assert neighbours[0, 1].abs() < 0.03


class Net(L.LightningModule):
    """Gives what ``build`` makes of a batch; seeded weights, eval mode."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


def made(forward, **build):
    """A module with those parts and that forward; ``predict_step`` is left to the package."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {name: make() for name, make in build.items()}
    return type("Made", (Net,), {"forward": forward})(**parts).eval()


def sampled(model, x, K=3, **autocast):
    torch.manual_seed(SEED)
    with torch.inference_mode():
        return MCDropout(model, K).predict_step((x, None), 0)["probs"]


@pytest.fixture
def x():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def linear(inputs, outputs):
    return lambda: nn.Linear(inputs, outputs)


def test_each_sample_is_the_network_under_its_masks(x):
    model = Plain().eval()
    probs = sampled(model, x, K=4)
    masks = mask("net.2", 0, 4, (16,), 0.1)
    hidden = model.net[0](x).relu()
    expected = torch.stack([model.net[3](hidden * m).softmax(-1) for m in masks], dim=1)
    torch.testing.assert_close(probs, expected)
    assert probs.shape == (6, 4, 3)
    assert not torch.equal(probs[:, 0], probs[:, 1])


def test_a_dropout_called_twice_has_a_mask_for_each_call(x):
    def forward(self, x):
        return self.head(self.drop(self.body(self.drop(x)).relu()))

    model = made(
        forward, body=linear(4, 4), head=linear(4, 3), drop=lambda: nn.Dropout(0.4, inplace=True)
    )
    first, second = (mask("drop", call, 3, (4,), 0.4) for call in (0, 1))
    expected = [
        model.head(model.body(x * a).relu() * b).softmax(-1)
        for a, b in zip(first, second, strict=True)
    ]
    torch.testing.assert_close(sampled(model, x), torch.stack(expected, dim=1))
    assert not torch.equal(first, second)


def test_dropout_in_place_acts_on_its_input(x):
    def forward(self, x):
        self.drop(x)
        return self.head(x)

    model = made(forward, drop=lambda: nn.Dropout(0.4, inplace=True), head=linear(4, 3))
    expected = [model.head(x * m).softmax(-1) for m in mask("drop", 0, 3, (4,), 0.4)]
    torch.testing.assert_close(sampled(model, x), torch.stack(expected, dim=1))


def test_a_module_inside_may_be_a_lightning_module_too(x):
    def forward(self, x):
        return self.head(self.drop(self.inner(self.drop(x))))

    drop = nn.Dropout(0.4)
    inner = made(lambda self, x: self.body(self.aside(x)), body=linear(4, 4), aside=nn.Dropout)
    model = made(forward, inner=lambda: inner, drop=lambda: drop, head=linear(4, 3))
    first, second = (mask("drop", call, 3, (4,), 0.4) for call in (0, 1))
    aside = mask("inner.aside", 0, 3, (4,), 0.5)
    expected = [
        model.head(inner.body(x * a * b) * c).softmax(-1)
        for a, b, c in zip(first, aside, second, strict=True)
    ]
    torch.testing.assert_close(sampled(model, x), torch.stack(expected, dim=1))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.Dropout1d, (2, 5)), (nn.Dropout2d, (2, 5, 5)), (nn.Dropout3d, (2, 5, 5, 5))],
)
def test_channels_drop_as_a_whole(kind, shape):
    def forward(self, x):
        return self.drop(x).flatten(2).sum(-1)

    model = made(forward, drop=lambda: kind(0.5))
    x = torch.rand(3, *shape)
    masks = mask("drop", 0, 8, (2, *[1] * (len(shape) - 1)), 0.5)
    expected = torch.stack([(x * m).flatten(2).sum(-1).softmax(-1) for m in masks], dim=1)
    torch.testing.assert_close(sampled(model, x, K=8), expected)


class Residual(L.LightningModule):
    """Residuals around a dropout, activations in place, a view, batch norm, a shared layer."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
            self.relu = nn.ReLU(inplace=True)
            self.pool = nn.AdaptiveAvgPool2d(3)
            self.writes = Writing()
            self.flat = nn.Flatten()
            self.shared = nn.Linear(36, 36)
            self.drop = nn.Dropout(0.3)
            self.norm = nn.BatchNorm1d(36)
            self.head = nn.Linear(36, 3)
            for norm in (self.stem[1], self.norm):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x.sub_(0.5)  # into the batch itself
        before = self.stem(x)
        after = self.relu(before)  # in place, so `before` is rectified too
        pooled = self.pool(after + before)
        twice = self.writes(pooled)  # doubles `pooled`, and returns something else
        flat = self.flat(pooled)
        flat += self.shared(self.flat(twice))  # through the view, into `pooled`
        dropped = self.drop(flat) + pooled.flatten(1)
        return self.head(self.norm(self.shared(dropped)))

    def by_hand(self, x, mask):
        before = F.relu(self.stem(x - 0.5))
        pooled = 2 * self.pool(2 * before)
        pooled = pooled.flatten(1) + self.shared(pooled.flatten(1) + 1)
        return self.head(self.norm(self.shared(pooled * mask + pooled)))


class Writing(nn.Module):
    def forward(self, x):
        x.mul_(2)
        return x + 1


def test_any_architecture_gives_what_its_forward_gives():
    model, x = Residual().eval(), torch.rand(5, 1, 6, 6)
    expected = [model.by_hand(x, m).softmax(-1) for m in mask("drop", 0, 3, (36,), 0.3)]
    before = x.clone()
    torch.testing.assert_close(sampled(model, x), torch.stack(expected, dim=1))
    assert torch.equal(x, before)


def test_the_trunk_runs_once_and_the_head_once_a_sample():
    model, calls = Residual().eval(), Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d | nn.Linear | Writing):
            own = module.forward
            module.forward = lambda *args, n=name, own=own: (calls.update([n]), own(*args))[1]
    sampled(model, torch.rand(5, 1, 6, 6), K=7)
    # `shared` lies on both sides; `writes` changes its input, so its output alone would not do.
    once, always = {"stem.0": 1, "stem.1": 1}, {"norm": 8, "head": 8, "writes": 8}
    assert calls == {**once, **always, "shared": 1 + 8}


def test_hooks_of_the_modules_own_act_in_every_pass_as_once(x):
    model = Plain().eval()
    plain = sampled(model, x)
    handle = model.net[0].register_forward_hook(lambda module, args, out: out * 2)
    model.net[0].weight.data /= 2
    model.net[0].bias.data /= 2
    torch.testing.assert_close(sampled(model, x), plain)
    handle.remove()


def test_embeddings_come_from_the_pass_without_dropout(x):
    model = Predicting(lambda logits: {"logits": logits, "embedding": logits * 2}).eval()
    torch.manual_seed(SEED)
    with torch.inference_mode():
        out = MCDropout(model, 3).predict_step((x, None), 0)
        torch.testing.assert_close(out["embedding"], 2 * model(x))
    assert "embedding" not in MCDropout(Plain(), 3).eval().predict_step((x, None), 0)
    assert is_overridden("predict_step", model)
    torch.testing.assert_close(out["probs"], sampled(Plain().eval(), x))


@pytest.mark.parametrize("eval_batch_size", [1, 7, 64, 1000])
def test_the_pool_is_read_with_the_same_masks_in_any_batches(eval_batch_size):
    model, data = Plain(), points_data(eval_batch_size=eval_batch_size)
    every = Strategy(select=lambda pool, num, generator: torch.arange(num))
    torch.manual_seed(SEED)
    state = torch.get_rng_state()
    with quiet():
        pool = read_pool(L.Trainer(**QUIET), MCDropout(model, 3), data, every)
    x = data.sets.pool.tensors[0][pool.indices]
    torch.testing.assert_close(pool.probs, sampled(model.eval(), x))
    torch.manual_seed(SEED)
    assert torch.equal(torch.get_rng_state(), state)


def test_masks_follow_the_seed_prediction_began_with(x):
    sampler = MCDropout(Plain(), 3)
    loader = DataLoader(TensorDataset(x), batch_size=2)
    torch.manual_seed(SEED)

    class Reseeding(L.Callback):
        def on_predict_batch_start(self, *args):
            torch.manual_seed(9)

    with quiet():
        batches = L.Trainer(callbacks=[Reseeding()], **QUIET).predict(sampler, loader)
    probs = torch.cat([batch["probs"] for batch in batches])
    torch.testing.assert_close(probs, sampled(Plain().eval(), x))
    torch.manual_seed(9)
    assert not torch.equal(sampler.predict_step((x, None), 0)["probs"], probs)


def test_a_wrapped_module_prepares_its_own_batches(x):
    seen = []

    class Prepares(Plain):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            seen.append("before")
            return batch[0] / 2

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            seen.append("transfer")
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

        def on_after_batch_transfer(self, batch, dataloader_idx):
            seen.append("after")
            return batch * 4

    torch.manual_seed(SEED)
    with quiet():
        (out,) = L.Trainer(**QUIET).predict(
            MCDropout(Prepares(), 2), DataLoader(TensorDataset(x), 6)
        )
    assert seen == ["before", "transfer", "after"]
    torch.testing.assert_close(out["probs"], sampled(Plain().eval(), 2 * x, K=2))


def state_of(model):
    return [
        (name, module.training, module.__dict__.keys(), dict(module._forward_hooks))
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_and_the_random_state_are_as_before(x, fails):
    model = Plain()
    model.net[1].train()
    model.net[2].eval()
    own = model.net[0].forward = lambda x: F.linear(x, model.net[0].weight)
    before, rng = copy.copy(state_of(model)), torch.get_rng_state()
    if fails:
        model.net[3].forward = lambda x: 1 / 0
        with pytest.raises(ZeroDivisionError):
            sampled_with_state(model, x)
        del model.net[3].forward
    else:
        sampled_with_state(model, x)
    assert state_of(model) == before
    assert model.net[0].forward is own
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.backends.mha.get_fastpath_enabled()


def sampled_with_state(model, x):
    return MCDropout(model, 2).predict_step((x, None), 0)


def test_bfloat16_samples_are_the_full_precision_ones_nearly(x):
    model = Plain().eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = sampled(model, x, K=5)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, sampled(model, x, K=5), atol=0.02, rtol=0)


@pytest.mark.parametrize("padding", [False, True])
def test_transformers_leave_their_fast_path(padding):
    def forward(self, x):
        mask = torch.arange(6).expand(len(x), 6) >= 4 if padding else None
        return self.head(self.encoder(x, src_key_padding_mask=mask)[:, 0])

    def encoder():
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        return nn.TransformerEncoder(layer, 2)

    model = made(forward, encoder=encoder, head=linear(8, 3))
    x = torch.randn(5, 6, 8)
    probs = sampled(model, x, K=4)
    assert (probs[:, 0] - probs[:, 1]).abs().amax() > 1e-3
    torch.testing.assert_close(sampled(model, x[:2], K=4), probs[:2])


def test_two_forwards_in_one_prediction_are_by_one_network(x):
    class Twice(Plain):
        def predict_step(self, batch):
            assert torch.equal(self(batch[0]), self(batch[0]))
            return self(batch[0])

    torch.testing.assert_close(sampled(Twice().eval(), x), sampled(Plain().eval(), x))


def test_recorded_outputs_may_be_nests_of_tensors():
    def forward(self, x):
        out, (hidden, _) = self.rnn(x)
        return self.head(self.drop(out[:, -1] + hidden[-1]))

    model = made(
        forward,
        rnn=lambda: nn.LSTM(4, 5, batch_first=True),
        drop=lambda: nn.Dropout(0.5),
        head=linear(5, 3),
    )
    x = torch.randn(3, 7, 4)
    out = model.rnn(x)[0][:, -1] * 2
    expected = [model.head(out * m).softmax(-1) for m in mask("drop", 0, 3, (5,), 0.5)]
    torch.testing.assert_close(sampled(model, x), torch.stack(expected, dim=1))


def test_what_cannot_be_sampled_is_named(x):
    with pytest.raises(ValueError, match="mc_samples must be at least 1, got 0"):
        MCDropout(Plain(), 0)
    bare = made(lambda self, x: self.head(x), head=linear(4, 3))
    with pytest.raises(ValueError, match="found none; put them in the module"):
        MCDropout(bare, 2)
    for drop in (nn.AlphaDropout(0.3), nn.Dropout(1.0), type("Own", (nn.Dropout,), {})()):
        with pytest.raises(ValueError, match=rf"found drop \({type(drop).__name__}, p="):
            MCDropout(Net(drop=drop), 2)
    off = Plain()
    off.net[2].p = 0.0
    with pytest.raises(ValueError, match="found none"):
        MCDropout(off, 2)
    unused = made(lambda self, x: self.head(x), head=linear(4, 3), aside=lambda: nn.Dropout(0.5))
    with pytest.raises(ValueError, match="samples are equal, found none of these called: aside"):
        sampled(unused, x)
    three_axes = Predicting(lambda logits: logits[:, None].expand(-1, 4, -1))
    with pytest.raises(ValueError, match=r"which is not guessed, got \(6, 4, 3\)"):
        sampled(three_axes, x)
    calls = []

    def samples(logits):
        calls.append(len(logits))
        return {"probs": logits.softmax(-1)[:, None].expand(-1, 4, -1)}

    with pytest.raises(ValueError, match=r"got samples already: \(6, 4, 3\); use it without this"):
        sampled(Predicting(samples), x)
    assert calls == [6]  # refused at once
    with pytest.raises(ValueError, match="predict_step must return.*got NoneType"):
        sampled(Predicting(lambda logits: None), x)


def test_rows_must_come_first():
    sideways = made(lambda self, x: self.drop(x.T).T, drop=lambda: nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"first axis, 6 here, found \(4, 6\) in drop"):
        sampled(sideways, torch.randn(6, 4))


@pytest.mark.parametrize("lengths", [(4, 7, 2), (7, 4, 2), (2, 4, 7)])
def test_rows_may_be_of_any_length_and_a_short_one_has_the_beginning_of_the_mask(lengths):
    model = made(lambda self, x: self.drop(x)[:, :2], drop=lambda: nn.Dropout(0.5))
    sampler = MCDropout(model, 5)
    torch.manual_seed(SEED)
    sampler.on_predict_start()
    for length in lengths:
        x = torch.randn(6, length)
        expected = (mask("drop", 0, 5, (length,), 0.5)[:, None] * x)[..., :2].softmax(-1)
        probs = sampler.predict_step((x, None), 0)["probs"]
        torch.testing.assert_close(probs, expected.transpose(0, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_device_has_the_same_masks(x):
    torch.testing.assert_close(
        sampled(Plain().eval().cuda(), x.cuda()).cpu(), sampled(Plain().eval(), x)
    )


class Functional(Plain):
    """Drops activations by a function, beside its layer of dropout."""

    def forward(self, x):
        x = F.dropout(x, 0.2, training=self.training)
        x = F.dropout(x, p=0.0, training=False)
        return self.net(F.dropout1d(x[..., None], 0.3, self.training)[..., 0])


class DropPath(nn.Module):
    """As timm has it."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return x


class SkipsPaths(Plain):
    def __init__(self):
        super().__init__()
        self.path, self.depth = DropPath(0.1), StochasticDepth(0.2, "row")
        self.none, self.rnn = DropPath(0.0), nn.LSTM(4, 4, 2, dropout=0.3)

    def forward(self, x):
        return self.net(self.depth(self.none(self.path(x))))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (Functional, "F.dropout, F.dropout1d"),
        (SkipsPaths, "path (DropPath), depth (StochasticDepth), rnn (LSTM)"),
    ],
)
def test_dropout_that_stays_off_is_named_once_in_a_run(make, named):
    with pytest.warns(UserWarning, match="stays off in prediction") as caught:
        loop_of(make(), strategy="bald", mc_samples=4).run()
    told = [str(one.message) for one in caught if "stays off" in str(one.message)]
    assert len(told) == 1
    assert f"stays off in prediction: {named};" in told[0]
