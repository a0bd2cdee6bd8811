"""Features once: what is cached, what is known of it, and what a kill or damage leaves."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toys import QUIET, Plain, asked, loop_of, points, points_data

from al_lightning import ActiveDataModule, cache_features
from al_lightning.acquisition import max_herding
from al_lightning.data.feature_file import FeatureFile
from al_lightning.monitor.exchange import picture_of
from al_lightning.prediction.read_pool import read_pool
from al_lightning.strategies import find_strategy
from al_lightning.training.trainers import quiet

HERE = Path(__file__).parent


def backbone(seed=0, num_features=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, num_features))


def trainer(**arguments):
    return L.Trainer(accelerator="cpu", enable_model_summary=False, **{**QUIET, **arguments})


def cached(path, network=None, data=None, **arguments):
    arguments = {"trainer": trainer(), **arguments}
    with quiet():
        network = backbone() if network is None else network
        return cache_features(network, data or points_data(), path, **arguments)


def expected(network, dataset):
    network.eval()
    with torch.inference_mode():
        return network(dataset.tensors[0])


class Counting(nn.Module):
    """Counts the rows that pass."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.network(x)


def test_items_are_features_and_labels_and_the_split_stays(tmp_path):
    source, network = points_data(val_size=10), backbone()
    source.label([3, 7], [2, 0])
    data = cached(tmp_path / "features", network, source)
    rows = source.sets.train
    torch.testing.assert_close(_all(data.sets.pool), expected(network, rows))
    torch.testing.assert_close(_all(data.sets.test), expected(network, source.sets.test))
    assert [data.sets.pool[i][1] for i in range(120)] == rows.tensors[1].tolist()
    assert torch.equal(data.labeled_indices, source.labeled_indices)
    assert data.pool.held_out == source.pool.held_out
    assert data.labels_of([3, 7]) == [2, 0]
    batch = next(iter(data.predict_dataloader()))
    assert batch[0].shape == (16, 4)
    assert batch[0].dtype == torch.float32
    assert batch[1].tolist() == rows.tensors[1][data.unlabeled_indices[:16]].tolist()


def _all(rows):
    return torch.stack([rows[i][0] for i in range(len(rows))])


def test_the_file_is_used_again_wherever_it_lies(tmp_path):
    network = Counting(backbone())
    cached(tmp_path / "one.npy", network)
    assert network.seen == 170
    (tmp_path / "one.npy").rename(tmp_path / "two.npy")
    cached(tmp_path / "two.npy", network)
    assert network.seen == 170
    found = np.load(tmp_path / "two.npy", mmap_mode="r")
    assert found.shape == (170, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": backbone(seed=1)}, "weights"),
        ({"network": nn.Sequential(*backbone()[:2], nn.Tanh(), backbone()[2])}, "weights"),
        ({"data": points_data(119)}, r'pool rows "120 \w{8}" there, "119 \w{8}" here'),
        ({"data": points_data(120, test_set=points(50))}, "test rows"),
        ({"num_views": 2}, "num_views 1 there, 2 here"),
        ({"dtype": "float16"}, 'dtype "float32" there, "float16" here'),
        ({"embedding_layer": "2"}, 'embedding_layer null there, "2" here'),
    ],
)
def test_features_of_other_rows_or_weights_are_refused(tmp_path, changes, message):
    cached(tmp_path / "features")
    with pytest.raises(ValueError, match=f"of the same rows and weights, found.*{message}"):
        cached(tmp_path / "features", **changes)


def test_a_damaged_file_is_found_and_another_file_refused(tmp_path):
    path = tmp_path / "features"
    cached(path)
    content = bytearray(path.read_bytes())
    content[128 + 4 * 16 + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"found 1 of 170 rows damaged, first at \[4\]; delete"):
        cached(path)
    labels = content.rindex(b'"kept"') + 30
    content[labels] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be a whole file of features"):
        cached(path)
    path.write_bytes(content[:-20])
    with pytest.raises(ValueError, match="must be a whole file of features"):
        cached(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="must be a whole file of features"):
        cached(path)


class Dying(Counting):
    """Fails at some row."""

    def __init__(self, network, after):
        super().__init__(network)
        self.after = after

    def forward(self, x):
        if self.seen + len(x) > self.after:
            raise RuntimeError("gone")
        return super().forward(x)

    def __repr__(self):
        return "the same network"


def test_what_was_written_before_an_end_is_not_made_again(tmp_path):
    whole = cached(tmp_path / "whole", Dying(backbone(), after=1000))
    with pytest.raises(RuntimeError, match="gone"):
        cached(tmp_path / "part", Dying(backbone(), after=70))
    assert len(FeatureFile(tmp_path / "part", _about(tmp_path / "part")).missing()) == 170 - 64
    network = Dying(backbone(), after=1000)
    data = cached(tmp_path / "part", network, points_data(eval_batch_size=11))
    assert network.seen == 170 - 64
    torch.testing.assert_close(_all(data.sets.pool), _all(whole.sets.pool))
    torch.testing.assert_close(_all(data.sets.test), _all(whole.sets.test))


def _about(path):
    file = FeatureFile.__new__(FeatureFile)
    file.path = path
    about = file._read_about()
    about.pop("kept")
    return about


SLOWLY = """
import sys, time, torch
sys.path.insert(0, {here!r})
from test_cached_features import backbone, cached, Counting
class Slow(Counting):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)
    def __repr__(self):
        return "the same network"
network = Slow(backbone())
cached({path!r}, network)
print(network.seen)
"""


@pytest.mark.slow
def test_a_kill_leaves_what_was_written(tmp_path):
    path = tmp_path / "features"
    program = SLOWLY.format(here=str(HERE), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not path.exists() and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(0.12)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(FeatureFile(path, _about(path)).missing())
    assert 0 < left < 170
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(again.stdout.split()[-1]) == left


def test_a_full_disk_says_so_and_nothing_counts(tmp_path, monkeypatch):
    program = (
        "import sys, resource\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from test_cached_features import cached\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"cached({str(tmp_path / 'features')!r})\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "the features need 0 MB in" in run.stderr
    assert 'give another path, or dtype="float16"' in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_modes_are_as_before_and_batchnorm_does_not_learn(tmp_path):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    network[0].eval()
    before = network[1].running_mean.clone()
    cached(tmp_path / "features", network)
    assert [module.training for module in network] == [False, True, True]
    assert torch.equal(network[1].running_mean, before)


class Wakes(Plain):
    """Trains its BatchNorm whenever it predicts."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def predict_step(self, batch, batch_idx):
        self.norm.train()
        return self.norm(batch[0])


def test_a_backbone_that_changes_is_refused_and_nothing_is_kept(tmp_path):
    with pytest.raises(ValueError, match="must not change while features are made"):
        cached(tmp_path / "features", Wakes())
    assert not (tmp_path / "features").exists()


class Gives(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x[:, :, None, None], r"got \(16, 4, 1, 1\); pool the maps: nn.Sequential\("),
        (lambda x: x[:, None], r"got \(16, 1, 4\); return one vector a row"),
        (lambda x: {"features": x}, r"under 'embedding' in a dict, got \['features'\]"),
        (lambda x: x / 0, "must be finite, found NaN or infinity in 16 rows"),
    ],
)
def test_what_a_backbone_gives_is_checked(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        cached(tmp_path / "features", Gives(make))


def test_features_are_the_input_of_a_layer_or_an_embedding(tmp_path):
    network, rows = backbone(), points(120)
    data = cached(tmp_path / "layer", network, embedding_layer="2")
    torch.testing.assert_close(_all(data.sets.pool), expected(network[:2], rows))
    data = cached(tmp_path / "named", Gives(lambda x: {"embedding": 2 * x}))
    torch.testing.assert_close(_all(data.sets.pool), 2 * rows.tensors[0])
    data = cached(tmp_path / "module", Plain(), embedding_layer="net.3")
    assert data.sets.pool[0][0].shape == (16,)


def test_half_precision_on_disk_is_served_whole(tmp_path):
    network = backbone()
    data = cached(tmp_path / "half", network, dtype="float16")
    assert data.sets.pool[0][0].dtype == torch.float32
    wanted = expected(network, points(120))
    torch.testing.assert_close(_all(data.sets.pool), wanted, atol=2e-3, rtol=2e-3)


def test_numbers_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must fit float16, found .*e\+0\d; scale them down"):
        cached(tmp_path / "half", Gives(lambda x: 1e5 * x), dtype="float16")
    data = cached(tmp_path / "bfloat", Gives(lambda x: x.bfloat16()))
    torch.testing.assert_close(_all(data.sets.pool), points(120).tensors[0].bfloat16().float())


class Noisy(Dataset):
    def __init__(self, rows, noise):
        self.rows, self.noise = rows, noise

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        x, y = self.rows[index]
        return x + self.noise * torch.randn(4), int(y)


def test_training_draws_views_and_scores_do_not(tmp_path):
    rows = points(60)

    def made(name, eval_batch_size):
        source = ActiveDataModule(
            Noisy(rows, 1.0),
            pool_set=Noisy(rows, 0.0),
            initial_labeled_size=20,
            eval_batch_size=eval_batch_size,
        )
        return cached(tmp_path / name, nn.Identity(), source, num_views=3)

    data, again = made("one", 7), made("two", 60)
    views_NVD = data.sets.train.features_NVD
    assert views_NVD.shape == (60, 3, 4)
    assert torch.equal(views_NVD, again.sets.train.features_NVD)  # whatever the batches were
    assert len(views_NVD.flatten(0, 1).unique(dim=0)) == 180
    torch.testing.assert_close(_all(data.sets.pool), rows.tensors[0])
    torch.manual_seed(0)
    drawn = {tuple(data.sets.train[5][0].tolist()) for _ in range(50)}
    assert drawn == {tuple(view.tolist()) for view in views_NVD[5]}


def test_a_run_on_features_is_that_of_the_rows_they_stand_for(tmp_path):
    """With the identity as a backbone there must be no difference at all."""
    with quiet():
        plain = loop_of(data=points_data(), strategy="margin")
        on_rows = plain.run()
        loop = loop_of(data=cached(tmp_path / "features", nn.Identity()), strategy="margin")
        on_features = loop.run()
    assert asked(on_rows) == asked(on_features)
    assert [r.metrics["test_acc"] for r in on_rows] == [r.metrics["test_acc"] for r in on_features]


class Unpredictable(Plain):
    def forward(self, x):
        assert self.training or self.trainer.testing, "no forward pass was needed"
        return super().forward(x)


@pytest.mark.parametrize("strategy", ["core_set", "max_herding", "kmeans"])
def test_strategies_on_embeddings_run_no_network(tmp_path, strategy):
    data = cached(tmp_path / "features")
    with quiet():
        results = loop_of(Unpredictable(), data, strategy=strategy, num_cycles=2).run()
    assert len(results[0].query.indices) == 15


class Late(Plain):
    def configure_model(self):
        if not hasattr(self, "late"):
            self.late = nn.Linear(3, 3)

    def forward(self, x):
        return self.late(super().forward(x))


def test_layers_that_come_late_are_made_without_a_prediction(tmp_path):
    with quiet():
        loop = loop_of(Late(), cached(tmp_path / "features"), strategy="core_set", num_cycles=2)
        assert len(loop.run()) == 2


def test_a_split_is_checked_before_features_are_made(tmp_path):
    network = Counting(backbone())
    with pytest.raises(ValueError, match=r"got \['val_size'\] alone; give initial_labeled_size"):
        cached(tmp_path / "features", network, val_size=10)
    with pytest.raises(ValueError, match=r"which rows are labeled first, got \[\] alone"):
        cached(tmp_path / "features", network, Project())
    with pytest.raises(TypeError, match="unexpected argument 'batchsize'; did you mean 'batch_s"):
        cached(tmp_path / "features", network, batchsize=3)
    with pytest.raises(TypeError, match="trainer must be a lightning.Trainer or make one, got int"):
        cached(tmp_path / "features", network, trainer=3)
    assert network.seen == 0


def test_columns_of_features_stand_beside_predictions(tmp_path):
    data, model = cached(tmp_path / "features", val_size=20, initial_labeled_size=20), Plain()
    with quiet():
        pool = read_pool(trainer(), model, data, find_strategy("uncertainty_herding"))
    rows = data.sets.pool.features_NVD[:, 0]
    torch.testing.assert_close(pool.embeddings, rows[data.unlabeled_indices])
    torch.testing.assert_close(pool.labeled_embeddings, rows[data.labeled_indices])
    assert len(pool.validation_labels) == len(pool.validation_probs) == 20
    held_out = sorted(data.pool.held_out)
    assert pool.validation_labels.tolist() == data.labels_of(held_out)
    with torch.inference_mode():
        wanted = model.eval()(rows[held_out]).softmax(-1)
    torch.testing.assert_close(pool.validation_probs, wanted)


def test_the_first_rows_are_chosen_on_the_features(tmp_path):
    data = cached(tmp_path / "features", initial_labeled_size=5, initial_sampling="max_herding")
    rows = data.sets.pool.features_NVD[:, 0]
    assert sorted(max_herding(rows, rows[:0], 5).tolist()) == data.labeled_indices.tolist()


class Pictures(Dataset):
    """Pictures by name, with words for labels."""

    classes = ("cat", "dog")

    def __init__(self, num):
        self.paths = [f"{i}.png" for i in range(num)]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return torch.full((1, 4, 4), index / 10), self.classes[index % 2]

    def picture(self, index):
        return Image.new("RGB", (9, 9), (index, 0, 0))


def test_people_see_the_rows_and_labels_keep_their_names(tmp_path):
    source = ActiveDataModule(Pictures(8), initial_indices=[0, 1])
    data = cached(tmp_path / "features", nn.Flatten(), source)
    assert data.classes == ["cat", "dog"]
    assert data.sets.pool[3][1] == 1
    assert data.names_of([3]) == ["3.png"]
    loop = loop_of(Plain(), data)
    assert picture_of(loop, 3).startswith(b"\x89PNG")
    assert data.sets.for_people.picture(3).size == (9, 9)


def test_a_data_set_without_labels_stays_one(tmp_path):
    class Inputs(Dataset):
        def __len__(self):
            return 30

        def __getitem__(self, index):
            return torch.full((4,), float(index))

    source = ActiveDataModule(Inputs(), initial_labeled_size=4, classes=["a", "b"])
    data = cached(tmp_path / "features", nn.Identity(), source)
    assert data.first_indices == source.first_indices
    assert not data.holds_labels
    assert data.sets.pool[2].tolist() == [2.0] * 4


class Project(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(points(40), batch_size=8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(points(10, seed=2), batch_size=5)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] * 2, batch[1]]


def test_a_project_of_its_own_is_cached_through_its_hooks(tmp_path):
    data = cached(tmp_path / "features", nn.Identity(), Project(), initial_labeled_size=6)
    torch.testing.assert_close(_all(data.sets.pool), 2 * points(40).tensors[0])
    torch.testing.assert_close(_all(data.sets.val), 2 * points(10, seed=2).tensors[0])
    assert data.num_labeled == 6


def test_all_batches_must_be_predicted(tmp_path):
    with pytest.raises(ValueError, match="features are made of all rows, got limit_predict"):
        cached(tmp_path / "features", trainer=trainer(limit_predict_batches=2))
    made = partial(trainer)
    assert cached(tmp_path / "features", trainer=made).num_labeled == 20
