"""``LitSimpleCNN`` against the tutorial's network, written the tutorial's way."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import QUIET

from al_lightning import LitSimpleCNN
from al_lightning.mnist.augment import random_affine
from al_lightning.mnist.fast_on_cpu import LinearOverMaps
from al_lightning.prediction.mc_dropout import Masks, MCDropout
from al_lightning.training.trainers import quiet


class TutorialCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


@pytest.fixture
def images():
    return torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_weights_move_to_and_from_the_tutorials_network(images):
    ours, theirs = LitSimpleCNN(), TutorialCNN()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(images), theirs(images))
    theirs.load_state_dict(LitSimpleCNN().state_dict())
    assert sum(p.numel() for p in ours.parameters()) == 1_199_882


def test_gradients_are_the_tutorials(images):
    ours, theirs = LitSimpleCNN().double(), TutorialCNN().double()  # which no rounding can part
    ours.load_state_dict(theirs.state_dict())
    y = torch.arange(6)
    F.cross_entropy(ours(images.double()), y).backward()
    F.cross_entropy(theirs(images.double()), y).backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_prediction_is_softmax_uncertainty(images):
    model = LitSimpleCNN(dropout=0.5).eval()
    with torch.inference_mode():
        out = model.predict_step((images, torch.zeros(6)), 0)
        expected = model(images).softmax(-1)
    torch.testing.assert_close(out["probs"], expected)
    torch.testing.assert_close(out["uncertainty"], 1 - expected.max(-1).values)
    assert out["embedding"].shape == (6, 128)


def masks_of(model):
    """Both dropouts' masks (K, 9216) and (K, 128), bool, under the present seed."""
    masks = Masks(model, model.mc_samples)
    return (
        masks.of("dropout1", 0, torch.empty(1, 64, 12, 12)).flatten(1),
        masks.of("dropout2", 0, torch.empty(1, 128)),
    )


def test_mc_dropout_is_the_network_with_its_weights_masked(images):
    torch.manual_seed(5)
    model = LitSimpleCNN(dropout=0.5, mc_samples=3).eval()
    with torch.inference_mode():
        out = model.predict_step((images, None), 0)
        for k, (mask_F, mask_D) in enumerate(zip(*masks_of(model), strict=True)):
            # Dropping an input is a zero column in the layer's weights.
            thinned = TutorialCNN().eval()
            thinned.load_state_dict(model.state_dict())
            thinned.fc1.weight *= mask_F / 0.75
            thinned.fc2.weight *= mask_D / 0.5
            torch.testing.assert_close(out["probs"][:, k], thinned(images).softmax(-1))
        plain = F.relu(model.fc1(model.features(images).flatten(1)))
    assert out["probs"].shape == (6, 3, 10)
    torch.testing.assert_close(out["uncertainty"], 1 - out["probs"].mean(1).max(-1).values)
    torch.testing.assert_close(out["embedding"], plain)


def test_its_own_samples_are_those_that_the_loop_takes_of_any_module(images):
    """``--active.mc_samples``, which a comparison sets for the strategies that need it alone."""
    model = LitSimpleCNN(dropout=0.5).eval()
    own = LitSimpleCNN(dropout=0.5, mc_samples=5).eval()
    own.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    by_wrapper, by_itself = (m.predict_step(images, 0) for m in (MCDropout(model, 5), own))
    assert by_wrapper["probs"].shape == (len(images), 5, 10)
    for name in ("probs", "embedding"):
        torch.testing.assert_close(by_wrapper[name], by_itself[name])
    plain = model.predict_step(images, 0)
    torch.testing.assert_close(by_wrapper["embedding"], plain["embedding"], rtol=0, atol=0)


def test_it_is_not_sampled_twice(images):
    model = LitSimpleCNN(dropout=0.5, mc_samples=3).eval()
    with pytest.raises(ValueError, match=r"got samples already: \(6, 3, 10\).*\(mc_samples=1\)"):
        MCDropout(model, 2).predict_step(images, 0)


def test_masks_keep_their_share_and_follow_the_seed():
    model = LitSimpleCNN(dropout=0.5, mc_samples=20)
    torch.manual_seed(1)
    features, hidden = masks_of(model)
    assert features.float().mean() == pytest.approx(0.75, abs=0.01)
    assert hidden.float().mean() == pytest.approx(0.5, abs=0.05)
    torch.rand(3)  # what was drawn since does not matter, the seed does
    assert torch.equal(masks_of(model)[0], features)
    torch.manual_seed(2)
    assert not torch.equal(masks_of(model)[0], features)


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_mc_dropout_does_not_depend_on_the_batches(images, batch_size):
    model = LitSimpleCNN(dropout=0.5, mc_samples=4)
    loader = DataLoader(TensorDataset(images, torch.arange(6)), batch_size=batch_size)

    class Reseeding(L.Callback):
        def on_predict_batch_start(self, *args):
            torch.manual_seed(9)  # the seed that prediction began with counts

    torch.manual_seed(5)
    with quiet():
        batches = L.Trainer(callbacks=[Reseeding()], **QUIET).predict(model, loader)
    torch.manual_seed(5)
    with torch.inference_mode():
        whole = model.eval().predict_step((images, None), 0)
    probs = torch.cat([batch["probs"] for batch in batches])
    torch.testing.assert_close(probs, whole["probs"])
    assert model._masks is None


def test_images_without_labels_are_predicted_alike(images):
    model = LitSimpleCNN().eval()
    with torch.inference_mode():
        alone, labeled = (model.predict_step(batch, 0) for batch in (images, (images, None)))
    assert torch.equal(alone["probs"], labeled["probs"])


def test_a_prediction_that_failed_leaves_no_weights_behind(images):
    class Fails(L.Callback):
        def on_predict_batch_end(self, *args):
            raise KeyError

    model = LitSimpleCNN()
    loader = DataLoader(TensorDataset(images, torch.arange(6)), batch_size=2)
    with quiet(), pytest.raises(KeyError):
        L.Trainer(callbacks=[Fails()], **QUIET).predict(model, loader)
    model.load_state_dict(LitSimpleCNN().state_dict())
    with torch.inference_mode():
        out = model.predict_step((images, None), 0)
        torch.testing.assert_close(out["probs"], model(images).softmax(-1))


def test_a_linear_layer_over_maps_follows_its_weights():
    layer = LinearOverMaps(4 * 3 * 3, 5).eval()
    maps = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)

    def check():
        expected = F.linear(maps.flatten(1), layer.weight, layer.bias)
        torch.testing.assert_close(layer(maps), expected)
        with torch.inference_mode():
            torch.testing.assert_close(layer(maps), expected.detach())
            torch.testing.assert_close(layer(maps.flatten(1)), expected.detach())

    check()
    layer.load_state_dict(LinearOverMaps(36, 5).state_dict())
    check()
    layer.train()
    layer(maps).sum().backward()
    torch.optim.Adam(layer.parameters(), lr=1.0, fused=True).step()
    layer.eval()
    check()
    maps = maps.double()
    layer.double()
    check()
    with torch.inference_mode():  # such weights have no version
        made_here = LinearOverMaps(36, 5).eval()
        made_here(maps.float())


def test_dropout_acts_in_training_alone(images):
    model = LitSimpleCNN(dropout=0.5)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    assert (model.dropout1.p, model.dropout2.p) == (0.25, 0.5)


def test_affine_moves_but_keeps_its_limits():
    blob = torch.zeros(500, 1, 28, 28)
    blob[:, :, 13:15, 13:15] = 1
    moved = random_affine(blob)
    assert moved.shape == blob.shape
    mass = moved.sum((1, 2, 3))
    rows = (moved.sum(3)[:, 0] * torch.arange(28)).sum(1) / mass
    columns = (moved.sum(2)[:, 0] * torch.arange(28)).sum(1) / mass
    # Two pixels along axes turned by ten degrees about the middle, 13.5, in an image that may
    # shrink by a tenth: 2 (cos 10 + sin 10) / 0.9.
    for centre in (rows, columns):
        assert ((centre - 13.5).abs() < 2.58 + 0.1).all()
        assert centre.std() > 0.8
        assert abs(centre.mean() - 13.5) < 0.3
    still = random_affine(blob, degrees=0, shift=0, scale=0)
    torch.testing.assert_close(still, blob, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_one_cycle_spans_the_fit(images):
    rates = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = LitSimpleCNN(lr=0.01, schedule="one_cycle", augment=True)
    loader = DataLoader(TensorDataset(images, torch.arange(6)), batch_size=1)
    with quiet():
        L.Trainer(max_epochs=3, callbacks=[Watch()], **QUIET).fit(model, loader)
    assert len(rates) == 18
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[-1] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0}, "lr must be positive, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"mc_samples": 0, "dropout": 0.5}, "mc_samples must be at least 1.*got 0"),
        ({"mc_samples": 5}, r"above 1 needs dropout > 0, got 5 with dropout=0.0"),
        ({"schedule": "cosine"}, "got 'cosine'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LitSimpleCNN(**arguments)
