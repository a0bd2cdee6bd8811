"""A project's own LightningDataModule becomes active as it is."""

from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)
from toys import TRAINER, Plain, asked, loop_of, points, weights

from al_lightning import ActiveCLI, ActiveDataModule, ActiveLearningLoop
from al_lightning.data.datamodule import ProjectDataModule

ROWS = points(150)


def negated(items):
    """A collate function that leaves its mark: the inputs of a batch change their sign."""
    x, y = torch.utils.data.default_collate(items)
    return [-x, y]


class Project(L.LightningDataModule):
    """As a project has it: random splits, hyperparameters, hooks that ask the Trainer."""

    def __init__(self, batch_size: int = 16, drop_last: bool = True):
        super().__init__()
        self.save_hyperparameters()
        self.stages, self.moved, self.prepared, self.epochs = [], [], 0, 0

    def prepare_data(self):
        self.prepared += 1

    def setup(self, stage=None):
        self.stages.append((stage, self.trainer is not None))
        self.train_set, self.val_set, self.test_set = random_split(ROWS, [100, 30, 20])

    def train_dataloader(self):
        how = {"drop_last": self.hparams.drop_last, "collate_fn": negated, "timeout": 0}
        return DataLoader(self.train_set, self.hparams.batch_size, shuffle=True, **how)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=7)

    def test_dataloader(self):
        return [DataLoader(self.test_set, batch_size=5), DataLoader(self.val_set, batch_size=5)]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.moved.append(self.trainer.state.stage)
        return batch

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict):
        self.epochs = state_dict["epochs"]


class Validated(Plain):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        super().test_step(batch, batch_idx)

    def on_train_epoch_start(self):
        datamodule = getattr(self.trainer.datamodule, "datamodule", None)
        if isinstance(datamodule, Project):
            datamodule.epochs += 1


def active(datamodule=None, **split):
    split = {"initial_labeled_size": 20, **split}
    return ActiveDataModule.from_datamodule(datamodule or Project(), **split)


def read(data):
    data.prepare_data()
    data.setup("fit")
    return data


def with_train(loader, base=Project):
    return type("Own", (base,), {"train_dataloader": lambda self: loader})()


def test_five_lines_and_everything_of_the_project_stays_in_use():
    datamodule = Project()
    data = active(datamodule)
    loop = ActiveLearningLoop(
        Validated(), data, trainer=TRAINER, strategy="margin", acquisition_size=9, num_cycles=3
    )
    results = loop.run()
    assert [result.num_labeled for result in results] == [20, 29, 38]
    assert results[0].metrics.keys() >= {
        "val_acc",
        "test_acc/dataloader_idx_0",
        "test_acc/dataloader_idx_1",
    }
    # Each stage once, with a Trainer; the pool is read from the rows to train on.
    assert datamodule.stages == [("fit", True), ("test", True)]
    stages = {"train", "sanity_check", "validate", "test", "predict"}
    assert {stage.value for stage in datamodule.moved} == stages
    assert datamodule.prepared
    assert len(data.pool.labeled_N) == 100


def test_loaders_are_made_as_the_projects():
    data = read(active(Project(drop_last=False), initial_labeled_size=33))
    train, pool, val = data.train_dataloader(), data.predict_dataloader(), data.val_dataloader()
    assert (train.batch_size, train.drop_last, train.collate_fn) == (11, False, negated)
    assert read(active(Project(drop_last=True))).train_dataloader().drop_last
    # The pool is read as validation is: by its size, and not by the function that mixes.
    assert (pool.batch_size, val.batch_size) == (7, 7)
    assert pool.collate_fn is not negated
    assert not pool.drop_last
    rows = torch.cat([batch[0] for batch in pool])
    own = data.project.rows
    assert torch.equal(rows, torch.stack([own[int(i)][0] for i in data.unlabeled_indices]))
    assert val.dataset is data.datamodule.val_set or len(val.dataset) == 30
    assert [len(one.dataset) for one in data.test_dataloader()] == [20, 30]


OPTIONS = {
    "num_workers": 1,
    "pin_memory": True,
    "persistent_workers": True,
    "prefetch_factor": 3,
    "timeout": 5,
    "worker_init_fn": print,
    "multiprocessing_context": "spawn",
}


def test_every_option_of_a_loader_is_taken_over():
    loader = DataLoader(ROWS, 8, shuffle=True, **OPTIONS)
    data = read(active(with_train(loader), initial_labeled_size=20))
    made = data.train_dataloader()
    for name, value in OPTIONS.items():
        found = getattr(made, name)
        assert (found.get_start_method() if name == "multiprocessing_context" else found) == value


def test_the_predict_loader_says_how_the_pool_is_read():
    class Predicts(Project):
        def predict_dataloader(self):
            return DataLoader(self.test_set, batch_size=3, collate_fn=negated)

    datamodule = Predicts()
    data = read(active(datamodule))
    pool = data.predict_dataloader()
    assert (pool.batch_size, pool.collate_fn) == (3, negated)
    assert [stage for stage, _ in datamodule.stages] == ["fit", "test", "predict"]
    assert read(active(Predicts(), eval_collate_fn=list)).predict_dataloader().collate_fn is list


def test_a_hook_that_says_there_is_no_such_data_counts_as_none():
    of_another_package = type("MisconfigurationException", (Exception,), {})

    class Absent(Project):
        def test_dataloader(self):
            raise MisconfigurationException("no test data")

        def predict_dataloader(self):
            raise of_another_package("no predict data")

    data = read(active(Absent()))
    assert not data.has_test
    assert data.predict_dataloader().batch_size == 7

    class Fails(Project):
        def test_dataloader(self):
            raise FileNotFoundError("test.csv")

    with pytest.raises(FileNotFoundError, match=r"test\.csv"):
        read(active(Fails()))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Stream(), batch_size=8),
        lambda: CombinedLoader([DataLoader(ROWS, 8), DataLoader(points(20), 4)], "sequential"),
        lambda: {"a": DataLoader(ROWS, 8), "b": DataLoader(points(20), 4)},
    ],
)
@pytest.mark.filterwarnings("ignore:rows to measure on")
def test_rows_to_measure_on_may_come_in_any_form(make):
    class Forms(Project):
        def val_dataloader(self):
            return make()

        def test_dataloader(self):
            return make()

    data = active(Forms())
    results = loop_of(Validated(), data, num_cycles=2).run()
    assert data.has_validation
    assert data.has_test
    assert any(name.startswith("val_acc") for name in results[0].metrics)
    assert any(name.startswith("test_acc") for name in results[0].metrics)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")  # by Lightning
def test_data_modules_that_lightning_makes_of_data_sets():
    made = L.LightningDataModule.from_datasets(ROWS, points(30, 2), points(30, 3), batch_size=16)
    results = loop_of(Validated(), active(made), num_cycles=2).run()
    assert results[0].metrics.keys() >= {"val_acc", "test_acc"}


def test_order_is_kept_where_the_project_does_not_shuffle():
    in_order = DataLoader(ROWS, 8)
    data = read(active(with_train(in_order)))
    rows = torch.cat([batch[0] for batch in data.train_dataloader()])
    assert torch.equal(rows, ROWS.tensors[0][data.labeled_indices])
    shuffled = read(active(with_train(DataLoader(ROWS, 8, shuffle=True))))
    rows = torch.cat([batch[0] for batch in shuffled.train_dataloader()])
    assert not torch.equal(rows, ROWS.tensors[0][data.labeled_indices])


def test_a_split_that_draws_is_the_same_again_and_the_generators_are_left_alone():
    torch.manual_seed(3)
    first = read(active()).project.rows.indices
    state = torch.get_rng_state()
    assert read(active()).project.rows.indices == first
    assert torch.equal(torch.get_rng_state(), state)
    assert read(active(seed=7)).project.rows.indices != first


def test_no_row_to_measure_on_is_a_row_to_learn_from():
    data = active()
    loop_of(Validated(), data).run()
    train = set(data.project.rows.indices)
    assert train.isdisjoint(data.val_dataloader().dataset.indices)
    assert train.isdisjoint(data.test_dataloader()[0].dataset.indices)


def test_a_resumed_run_is_as_one_that_was_never_interrupted(tmp_path):
    make = partial(active, initial_labeled_size=20)
    whole = loop_of(Validated(), make(), run_dir=tmp_path / "a", strategy="margin")
    results = whole.run()
    cut = loop_of(Validated(), make(), run_dir=tmp_path / "b", strategy="margin")
    cut.tell(cut.ask().indices)
    cut._run.release()
    data = make()
    resumed = ActiveLearningLoop.resume(
        tmp_path / "b", Validated(), data, trainer=TRAINER, monitors=[]
    )
    assert data.datamodule.epochs == 2  # the state of the project's module came back too
    assert asked(resumed.run()) == asked(results)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert data.datamodule.epochs == whole.data.datamodule.epochs == 6


def test_other_hyperparameters_are_another_run(tmp_path):
    loop = loop_of(Validated(), active(), run_dir=tmp_path)
    loop.ask()
    loop._run.release()
    with pytest.raises(ValueError, match=r"datamodule.batch_size: began with 16, now 8"):
        ActiveLearningLoop.resume(tmp_path, Validated(), active(Project(8)), trainer=TRAINER)


def test_state_and_hyperparameters_are_saved_with_the_split(tmp_path):
    data = active()
    loop = loop_of(Validated(), data, run_dir=tmp_path)
    loop.run()
    saved = torch.load(tmp_path / "cycle_1" / "weights.ckpt", weights_only=True)
    assert saved["datamodule_hyper_parameters"] == {"batch_size": 16, "drop_last": True}
    state = data.state_dict()
    assert state["datamodule"] == {"epochs": 6}
    other = active(initial_labeled_size=3)
    other.load_state_dict(state)
    assert other.datamodule.epochs == 6
    assert torch.equal(other.labeled_indices, data.labeled_indices)


class Augmented(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 60

    def __getitem__(self, index):
        return self.transform(ROWS[index][0]), int(ROWS[index][1])


def double(x):
    return 2 * x


def twice(x):
    return x


@pytest.mark.parametrize(
    "wrap",
    [
        lambda rows: rows,
        lambda rows: Subset(rows, range(5, 55)),
        lambda rows: ConcatDataset([Subset(rows, range(30)), Subset(rows, range(40, 60))]),
    ],
)
def test_pool_transform_takes_the_place_of_the_transform(wrap):
    loader = DataLoader(wrap(Augmented(double)), 8, shuffle=True)
    data = read(active(with_train(loader), pool_transform=twice))
    train, pool = data.sets.train, data.sets.pool
    assert all(torch.equal(train[i][0], 2 * pool[i][0]) for i in range(len(train)))
    assert [train[i][1] for i in range(50)] == [pool[i][1] for i in range(50)]
    plain = ActiveDataModule(wrap(Augmented(double)), initial_labeled_size=9, pool_transform=twice)
    assert torch.equal(plain.sets.pool[0][0], pool[0][0])


def test_pool_transform_needs_a_transform():
    with pytest.raises(ValueError, match=r"attribute `transform` .* none in TensorDataset"):
        ActiveDataModule(ROWS, initial_labeled_size=9, pool_transform=twice)


def test_pool_set_is_read_in_the_place_of_the_training_rows():
    plain = TensorDataset(ROWS.tensors[0] * 0, ROWS.tensors[1])
    data = read(active(with_train(DataLoader(ROWS, 8, shuffle=True)), pool_set=plain))
    assert all(not batch[0].any() for batch in data.predict_dataloader())


class OwnLoader(DataLoader):
    def __iter__(self):
        return iter([])


class Short(DataLoader):
    def __len__(self):
        return 3


class NoTrain(L.LightningDataModule):
    def setup(self, stage):
        pass


@pytest.mark.parametrize(
    ("loader", "error", "found"),
    [
        ([DataLoader(ROWS), DataLoader(ROWS)], ValueError, "one DataLoader of all rows.*list"),
        (None, ValueError, "one DataLoader of all rows.*NoneType"),
        (DataLoader(Stream(), 4), TypeError, "map-style.*Stream, a stream"),
        (
            DataLoader(ROWS, batch_sampler=type("Own", (BatchSampler,), {})(range(9), 3, False)),
            ValueError,
            "batch sampler Own",
        ),
        (DataLoader(ROWS, batch_size=None), ValueError, "batch sampler none"),
        (
            DataLoader(ROWS, 4, sampler=WeightedRandomSampler([1.0] * 150, 150)),
            ValueError,
            "sampler WeightedRandomSampler; leave it out",
        ),
        (
            DataLoader(ROWS, 4, sampler=RandomSampler(ROWS, num_samples=40)),
            ValueError,
            "RandomSampler; epoch_size= draws",
        ),
        (
            DataLoader(ROWS, 4, sampler=type("Half", (SequentialSampler,), {})(range(9))),
            ValueError,
            "sampler Half",
        ),
        (DataLoader(ROWS, 4, sampler=range(50)), ValueError, "sampler range"),
        (OwnLoader(ROWS, 4), ValueError, "found OwnLoader"),
        (Short(ROWS, 4), ValueError, "38 of 150 rows, found 3"),
    ],
)
def test_what_a_split_cannot_follow_is_named(loader, error, found):
    with pytest.raises(error, match=found):
        read(active(with_train(loader)))


def test_rows_that_are_promised_and_not_there_are_named():
    class Promises(Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            return ROWS.tensors[0][:60][index], 1

    with pytest.raises(ValueError, match=r"promises 100 rows.*row \d+.*IndexError"):
        loop_of(Plain(), active(with_train(DataLoader(Promises(), 4)))).ask()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (
            lambda: ActiveDataModule.from_datamodule(ROWS),
            "LightningDataModule, got .*TensorDataset",
        ),
        (lambda: active(active()), "active already"),
        (lambda: active(batch_size=3), "'batch_size'; Project decides it"),
        (lambda: active(initial_labelled_size=3), "did you mean 'initial_labeled_size'"),
        (lambda: loop_of(Plain(), Project()), r"ActiveDataModule\.from_datamodule\(datamodule"),
        (lambda: loop_of(Plain(), ROWS), r"ActiveDataModule\(train_set"),
    ],
)
def test_other_things_are_refused(make, found):
    with pytest.raises(TypeError, match=found):
        make()


def test_a_project_without_a_train_loader_is_refused():
    with pytest.raises(ValueError, match="train_dataloader of NoTrain must return one .* none"):
        read(active(NoTrain()))
    with pytest.raises(ValueError, match="validation rows of its own, got val_size=4"):
        read(active(val_size=4))


def test_validation_rows_can_be_held_out_where_the_project_has_none():
    class NoVal(Project):
        val_dataloader = L.LightningDataModule.val_dataloader

    data = read(active(NoVal(), val_size=8))
    assert len(data.val_dataloader().dataset) == 8
    assert loop_of(Validated(), data, num_cycles=1).run()[0].metrics["val_acc"] >= 0


CLI = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--active.acquisition_size=9"]
CLI += ["--active.num_cycles=2", "--trainer.enable_progress_bar=false", "--active.seed=5"]


@pytest.mark.parametrize(
    ("datamodule", "flags"),
    [
        (Project, ["--data.batch_size=8", "--data.initial_labeled_size=30"]),
        (None, ["--data.class_path=test_project.Project", "--data.init_args.batch_size=8"]),
    ],
)
def test_a_command_line_takes_the_projects_class(tmp_path, monkeypatch, datamodule, flags):
    monkeypatch.setattr("sys.argv", ["main.py"])
    if datamodule is None:
        flags = [*flags, "--data.init_args.initial_labeled_size=30"]
    folder = [f"--active.run_dir={tmp_path / 'run'}"]
    cli = ActiveCLI(Validated, datamodule, args=[*CLI, *flags, *folder])
    data = cli.datamodule
    assert isinstance(data, ProjectDataModule)
    assert (data.batch_size, data.seed) == (8, 5)
    assert [result.num_labeled for result in cli.results] == [30, 39]
    again = ["--active.resume=true", "--active.num_cycles=3"]
    cli = ActiveCLI(Validated, datamodule, args=[*folder, *again])
    assert [result.num_labeled for result in cli.results] == [30, 39, 48]


def test_an_argument_that_both_have_goes_to_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    cli = ActiveCLI(
        Validated,
        Seeded,
        args=[*CLI, "--data.val_size=4", "--data.initial_labeled_size=30"],
        runs_dir=tmp_path,
    )
    assert cli.datamodule.datamodule.given == (4, 5)
    assert cli.datamodule.seed == 5
    assert not cli.datamodule.pool.held_out


class Seeded(Project):
    def __init__(self, val_size: int, seed: int = 0):
        super().__init__()
        self.given = val_size, seed


def test_each_of_several_processes_tests_on_all_rows():
    first, _ = read(active()).project.whole_test()
    assert list(first.sampler) == list(range(20))
    assert isinstance(first.sampler, torch.utils.data.DistributedSampler)  # Lightning keeps it
