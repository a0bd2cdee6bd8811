"""Resuming: whatever interrupted a run, it ends as it would have, or says why it cannot."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch.utils.data import TensorDataset
from toys import TRAINER, Plain, asked, events, loop_of, points, points_data, weights

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.run.folder import checksum
from al_lightning.run.journal import read_records
from al_lightning.run.lock import lock, unlock
from al_lightning.run.weights import load_state
from al_lightning.training.checkpoints import last_checkpoint


def resume(run_dir, model=None, data=None, **arguments):
    arguments = {"trainer": TRAINER, "monitors": [], **arguments}
    return ActiveLearningLoop.resume(run_dir, model or Plain(), data or points_data(), **arguments)


@pytest.mark.parametrize(
    ("strategy", "warm"),
    [
        ("margin", True),
        ("random", False),
        pytest.param("margin", False, marks=pytest.mark.slow),
        pytest.param("random", True, marks=pytest.mark.slow),
    ],
)
def test_resumed_after_any_event_equals_uninterrupted(tmp_path, strategy, warm):
    arguments = {"strategy": strategy, "warm_start": warm}
    whole = loop_of(run_dir=tmp_path / "whole", **arguments)
    whole_results = whole.run()
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    for cut in range(1, len(lines) + 1):
        run_dir = tmp_path / f"cut_{cut}"
        loop_of(run_dir=run_dir, **arguments).run()
        (run_dir / "journal.jsonl").write_text("".join(lines[:cut]))
        resumed = resume(run_dir, Plain(seed=99), points_data(seed=7))
        results = resumed.run()
        assert asked(results) == asked(whole_results), cut
        assert [r.metrics for r in results] == [r.metrics for r in whole_results], cut
        assert torch.equal(weights(resumed.model), weights(whole.model)), cut
        assert events(run_dir) == events(tmp_path / "whole"), cut


def test_a_resumed_run_asks_with_the_arguments_that_it_began_with(tmp_path):
    arguments = {
        "strategy": "power_bald",
        "strategy_args": {"beta": 4.0},
        "mc_samples": 3,
        "embedding_layer": "net.3",
    }
    whole = loop_of(**arguments).run()
    loop_of(run_dir=tmp_path, **arguments).ask()
    resumed = resume(tmp_path)
    assert {name: getattr(resumed, name) for name in list(arguments)[1:]} == {
        name: arguments[name] for name in list(arguments)[1:]
    }
    assert asked(resumed.run()) == asked(whole)


def test_finished_steps_are_not_repeated(tmp_path):
    loop = loop_of(run_dir=tmp_path)
    loop.tell(loop.ask().indices)
    done = events(tmp_path)
    again = resume(tmp_path, strategy=None)  # as if it were not given
    assert again.results == loop.results
    assert again.data.num_labeled == 35
    again.run()
    assert events(tmp_path)[: len(done)] == done
    assert [e for e, _ in events(tmp_path)].count("fit") == 3


def test_told_labels_survive_a_resume(tmp_path):
    loop = loop_of(run_dir=tmp_path)
    query = loop.ask()
    loop.tell(query.indices, torch.full((15,), 2))
    again = resume(tmp_path)
    assert again.data.labels_of(query.indices) == [2] * 15


def test_a_query_that_waits_for_labels_is_asked_again_after_a_resume(tmp_path):
    query = loop_of(run_dir=tmp_path).ask()
    again = resume(tmp_path)
    assert again.ask() == query


# ---- inside a fit --------------------------------------------------------------------------------


class KilledError(Exception):
    pass


class KilledAt(Callback):
    """Stops the process, as far as a test can, in ``hook`` once it was called ``calls`` times."""

    def __init__(self, hook, calls):
        self.seen = 0
        setattr(self, hook, partial(self.count, calls))

    def count(self, calls, *args):
        self.seen += 1
        if self.seen == calls:
            raise KilledError


class Epochs(Callback):
    trained = 0

    def on_train_epoch_start(self, trainer, pl_module):
        Epochs.trained += 1


def checkpointing(*callbacks, epochs=4, **checkpoint):
    return partial(
        L.Trainer,
        max_epochs=epochs,
        enable_progress_bar=False,
        logger=False,
        callbacks=[Epochs(), ModelCheckpoint(save_last=True, **checkpoint), *callbacks],
    )


class Validating(Plain):
    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", torch.nn.functional.cross_entropy(self(x), y))


CUTS = {
    "in the first epoch": ("on_train_batch_end", 1, 4),
    "in the third": ("on_train_batch_end", 2 * 2 + 1, 2),
    "at the end of the fourth": ("on_train_end", 1, 0),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("workers", "warm", "epoch_size"),
    [(0, False, None), (0, True, None), (1, False, None), (1, True, None), (0, True, 32)],
)
def test_a_fit_goes_on_from_its_last_checkpoint(tmp_path, cut, workers, warm, epoch_size):
    hook, calls, epochs_left = CUTS[cut]
    arguments = {"num_cycles": 2, "warm_start": warm}
    data = partial(points_data, num_workers=workers, epoch_size=epoch_size)
    whole = loop_of(data=data(), run_dir=tmp_path / "whole", trainer=checkpointing(), **arguments)
    results = whole.run()
    killed = loop_of(
        data=data(),
        run_dir=tmp_path / "cut",
        trainer=checkpointing(KilledAt(hook, calls)),
        **arguments,
    )
    with pytest.raises(KilledError):
        killed.run()
    assert events(tmp_path / "cut") == [("start", None)]
    before = Epochs.trained
    resumed = resume(tmp_path / "cut", data=data(), trainer=checkpointing())
    first = resumed.ask()
    assert Epochs.trained - before == epochs_left
    resumed.tell(first.indices)
    again = resumed.run()
    assert asked(again) == asked(results)
    assert [r.metrics for r in again] == [r.metrics for r in results]
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_a_run_is_resumed_with_the_epochs_that_it_began_with(tmp_path):
    loop_of(data=points_data(epoch_size=32), run_dir=tmp_path).ask()
    with pytest.raises(ValueError, match="data.epoch_size: began with 32, now None"):
        resume(tmp_path)


def test_a_fit_that_was_to_stop_early_does_so_when_it_goes_on(tmp_path):
    def stops():
        return EarlyStopping("train_loss", mode="max", patience=1, check_on_train_epoch_end=True)

    whole = loop_of(num_cycles=1, run_dir=tmp_path / "whole", trainer=checkpointing(stops()))
    results = whole.run()
    killed = checkpointing(stops(), KilledAt("on_train_end", 1))
    with pytest.raises(KilledError):
        loop_of(num_cycles=1, run_dir=tmp_path / "cut", trainer=killed).run()
    before = Epochs.trained
    resumed = resume(tmp_path / "cut", trainer=checkpointing(stops()))
    assert [r.metrics for r in resumed.run()] == [r.metrics for r in results]
    assert Epochs.trained == before
    assert torch.equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize(("epoch", "epochs_left"), [(2, 4), (4, 4)])
def test_checkpoints_from_validation_do_not_lose_training_metrics(tmp_path, epoch, epochs_left):
    """They come before the epoch's training metrics are known: the fit begins anew."""
    whole = loop_of(
        Validating(),
        points_data(val_size=10),
        num_cycles=1,
        run_dir=tmp_path / "whole",
        trainer=checkpointing(save_on_train_epoch_end=False),
    )
    results = whole.run()
    between = {"save_on_train_epoch_end": False}
    killed = checkpointing(KilledAt("on_train_epoch_end", epoch), **between)
    with pytest.raises(KilledError):
        loop_of(
            Validating(),
            points_data(val_size=10),
            num_cycles=1,
            run_dir=tmp_path / "cut",
            trainer=killed,
        ).run()
    assert list(tmp_path.glob("cut/cycle_1/checkpoints/last.ckpt"))
    before = Epochs.trained
    resumed = resume(
        tmp_path / "cut", Validating(), points_data(val_size=10), trainer=checkpointing()
    )
    with pytest.warns(UserWarning, match="use ModelCheckpoint.save_on_train_epoch_end=True"):
        again = resumed.run()
    assert [r.metrics for r in again] == [r.metrics for r in results]
    assert Epochs.trained - before == epochs_left
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_another_cycles_checkpoint_is_not_gone_on_from(tmp_path):
    """A folder of the user's own holds the last checkpoint of every cycle, and of other runs.

    Even of one with the same configuration, whose module may have been edited since.
    """
    shared = checkpointing(dirpath=tmp_path / "shared")
    whole = loop_of(num_cycles=2, run_dir=tmp_path / "whole", trainer=checkpointing()).run()
    before = Epochs.trained
    loop_of(num_cycles=2, run_dir=tmp_path / "other", trainer=shared).run()
    assert asked(loop_of(num_cycles=2, run_dir=tmp_path / "run", trainer=shared).run()) == asked(
        whole
    )
    assert Epochs.trained - before == 4 * 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_fit_begins_anew(tmp_path, damage):
    with pytest.raises(KilledError):
        loop_of(
            num_cycles=1,
            run_dir=tmp_path / "cut",
            trainer=checkpointing(KilledAt("on_train_end", 1)),
        ).run()
    (last,) = tmp_path.glob("cut/cycle_1/checkpoints/last.ckpt")
    damaged = bytearray(last.read_bytes())
    damaged[damaged.index(b"\x00" * 16, 2000) - 40] ^= 1  # a weight, which torch.load would take
    contents = {"cut": last.read_bytes()[:-100], "flipped": bytes(damaged), "empty": b""}
    last.write_bytes(contents[damage])
    resumed = resume(tmp_path / "cut", trainer=checkpointing())
    with pytest.warns(UserWarning, match="last.ckpt cannot be read, the fit goes on without it"):
        results = resumed.run()
    whole = loop_of(num_cycles=1, run_dir=tmp_path / "whole", trainer=checkpointing()).run()
    assert [r.metrics for r in results] == [r.metrics for r in whole]


def test_a_checkpoint_from_inside_an_epoch_is_not_gone_on_from(tmp_path):
    steps = {"every_n_train_steps": 1}
    whole = loop_of(num_cycles=1, run_dir=tmp_path / "whole", trainer=checkpointing(**steps))
    results = whole.run()
    for calls in (3, 4):  # after the first batch of the second epoch, and after its last
        killed = checkpointing(KilledAt("on_train_batch_start", calls + 1), **steps)
        run_dir = tmp_path / str(calls)
        with pytest.raises(KilledError):
            loop_of(num_cycles=1, run_dir=run_dir, trainer=killed).run()
        resumed = resume(run_dir, trainer=checkpointing(**steps))
        with pytest.warns(UserWarning, match="last.ckpt was saved inside an epoch"):
            again = resumed.run()
        assert [r.metrics for r in again] == [r.metrics for r in results]
        assert torch.equal(weights(resumed.model), weights(whole.model))


class Noisy(TensorDataset):
    """Draws at each reading, in the process that reads."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.5 * torch.randn(4), y


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_is_the_same_when_a_fit_goes_on(tmp_path, workers):
    def data():
        rows = points(120)
        return ActiveDataModule(
            Noisy(*rows.tensors),
            pool_set=rows,
            test_set=points(50, seed=1),
            initial_labeled_size=20,
            batch_size=8,
            num_workers=workers,
        )

    one = {"num_cycles": 1}
    whole = loop_of(data=data(), run_dir=tmp_path / "whole", trainer=checkpointing(), **one)
    whole.run()
    killed = checkpointing(KilledAt("on_train_batch_end", 2 * 3 + 1))
    with pytest.raises(KilledError):
        loop_of(data=data(), run_dir=tmp_path / "cut", trainer=killed, **one).run()
    resumed = resume(tmp_path / "cut", data=data(), trainer=checkpointing())
    before = Epochs.trained
    resumed.run()
    assert Epochs.trained - before == 2
    assert torch.equal(weights(resumed.model), weights(whole.model))


class Configured(Plain):
    """With hyperparameters that a checkpoint can only pickle."""

    def __init__(self, activation=torch.nn.ReLU, folder=Path("somewhere"), lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net[1] = self.hparams.activation()

    def on_train_start(self):
        assert self.hparams.activation is torch.nn.ReLU


def test_hyperparameters_that_are_no_plain_values_do_not_prevent_resuming(tmp_path):
    one = {"num_cycles": 1, "run_dir": tmp_path / "run"}
    with pytest.raises(KilledError):
        loop_of(Configured(), trainer=checkpointing(KilledAt("on_train_end", 1)), **one).run()
    before = Epochs.trained
    loop = resume(tmp_path / "run", Configured(), trainer=checkpointing())
    loop.run()
    assert Epochs.trained == before
    assert loop.model.hparams.folder == Path("somewhere")
    again = resume(tmp_path / "run", Configured(), trainer=checkpointing())
    assert torch.equal(weights(again.model), weights(loop.model))
    saved = tmp_path / "run" / "cycle_1" / "weights.ckpt"
    assert Configured.load_from_checkpoint(saved, weights_only=True).hparams.lr == 0.01


def test_what_slurm_left_elsewhere_is_not_loaded_unnoticed(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "hpc_ckpt_1.ckpt").touch()
    fixed = partial(TRAINER, default_root_dir=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="hpc_ckpt_1.ckpt before every fit.*leave default_root"):
        loop_of(trainer=fixed, run_dir=tmp_path / "run").run()


def test_a_warm_fit_that_failed_begins_again_where_it_began(tmp_path):
    """In one process: what the failed attempt learned is forgotten."""
    whole = loop_of(warm_start=True, num_cycles=2)
    whole.run()
    fails = {"left": 1}

    class FailsOnce(Callback):
        def on_train_end(self, trainer, pl_module):
            if loop.data.num_labeled == 35 and fails["left"]:
                fails["left"] -= 1
                raise KilledError

    def trainer(**arguments):
        return TRAINER(callbacks=[FailsOnce()], **arguments)

    loop = loop_of(warm_start=True, num_cycles=2, trainer=trainer)
    with pytest.raises(KilledError):
        loop.run()
    loop.run()
    assert torch.equal(weights(loop.model), weights(whole.model))


# ---- what cannot be resumed ----------------------------------------------------------------------


def test_resume_explains_what_it_cannot_resume(tmp_path):
    with pytest.raises(ValueError, match="holds no run to resume: journal.jsonl"):
        resume(tmp_path / "nothing")

    def mine(pool, num, generator):
        return torch.arange(num)

    loop_of(strategy=mine, run_dir=tmp_path / "run").ask()
    with pytest.raises(ValueError, match="strategy must be one of"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", strategy=mine).ask().cycle == 1


def other_rows():
    x, y = points(120).tensors
    return ActiveDataModule(
        TensorDataset(x + 1, y), test_set=points(50, seed=1), initial_labeled_size=20, batch_size=16
    )


class Tunable(Plain):
    def __init__(self, lr=0.01, width=16):
        super().__init__()
        self.save_hyperparameters()


@pytest.mark.parametrize(
    ("arguments", "different"),
    [
        ({"warm_start": True}, ["active.warm_start: began with False, now True"]),
        ({"data": points_data(90)}, ["data.rows: began with 120, now 90"]),
        ({"data": points_data(batch_size=8)}, ["data.batch_size: began with 16, now 8"]),
        ({"data": other_rows()}, ["data.fingerprint.0: began with", "and 24 more"]),
        (
            {"trainer": partial(TRAINER, max_epochs=3, precision="bf16-mixed")},
            ["trainer.max_epochs: began with 2, now 3", "trainer.precision: began with '32-true'"],
        ),
        ({"model": Tunable(lr=0.1)}, ["model.lr: began with 0.01, now 0.1"]),
        (
            {"seed": 1, "warm_start": True, "num_cycles": 9},
            ["found active.seed: began with 42, now 1; active.warm_start: began with False"],
        ),
    ],
)
def test_another_configuration_is_refused_key_by_key_and_nothing_changed(
    tmp_path, arguments, different
):
    loop_of(Tunable(), run_dir=tmp_path).ask()
    before = (tmp_path / "journal.jsonl").read_bytes()
    arguments = {"model": Tunable(), "data": points_data(seed=3), **arguments}
    labeled, learned = arguments["data"].labeled_indices, weights(arguments["model"])
    with pytest.raises(ValueError, match="must be resumed as it began, found") as error:
        resume(tmp_path, **arguments)
    for text in different:
        assert text in str(error.value)
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert torch.equal(arguments["data"].labeled_indices, labeled)
    assert torch.equal(weights(arguments["model"]), learned)


def test_the_arguments_of_the_run_may_be_given_again(tmp_path):
    loop_of(run_dir=tmp_path, target=("test_acc", 2.0)).ask()
    again = resume(tmp_path, acquisition_size=15, num_cycles=3, target=("test_acc", 2.0))
    assert again.ask().cycle == 1
    with pytest.raises(TypeError, match="acquisition_siz"):
        resume(tmp_path, acquisition_siz=15)


def test_another_network_is_refused(tmp_path):
    loop_of(run_dir=tmp_path).ask()
    model = Plain()
    model.net[3] = torch.nn.Linear(16, 4)
    with pytest.raises(ValueError, match="model must be as the run began with.*net.3.weight"):
        resume(tmp_path, model)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "missing"])
@pytest.mark.parametrize("name", ["initial_weights.pt", "cycle_1/weights.ckpt"])
def test_damaged_weights_are_named(tmp_path, name, damage):
    loop_of(run_dir=tmp_path).ask()
    path = tmp_path / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    path.write_bytes(
        {
            "flipped": content[:middle] + flipped + content[middle + 1 :],
            "cut": content[:middle],
        }.get(damage, b"")
    )
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=rf"{name} must be as the run wrote it, .*found "):
        resume(tmp_path)


# ---- one writer ----------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from pathlib import Path
from al_lightning.run.lock import lock
lock(Path(sys.argv[1]))
if os.fork() == 0:  # as a loader worker, which may outlive the loop
    print("held", os.getppid(), os.getpid(), flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    loop_of(run_dir=tmp_path).ask()
    unlock(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    _, pid, worker = holder.stdout.readline().split()
    before = (tmp_path / "journal.jsonl").read_bytes()
    try:
        message = f"must have one writer, found .* held by process {pid} on host {os.uname()[1]}"
        with pytest.raises(ValueError, match=message):
            resume(tmp_path)
        with pytest.raises(ValueError, match="one writer"):
            lock(tmp_path)
        os.kill(int(pid), signal.SIGKILL)
        holder.wait()
        assert (tmp_path / "journal.jsonl").read_bytes() == before
        assert len(resume(tmp_path).run()) == 3
    finally:
        os.kill(int(worker), signal.SIGKILL)
        holder.stdout.close()


def test_a_finished_run_holds_no_lock(tmp_path):
    loop_of(run_dir=tmp_path).run()
    code = "import sys, pathlib, al_lightning.run.lock as r; r.lock(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


def test_two_loops_of_one_process_cannot_write_over_each_other(tmp_path):
    first = loop_of(run_dir=tmp_path)
    first.ask()
    resume(tmp_path).run()
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(RuntimeError, match="must have one writer, found .* resume the run anew"):
        first.tell(first.ask().indices)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_folder_that_was_removed_is_locked_anew(tmp_path):
    loop_of(run_dir=tmp_path / "run").ask()
    shutil.rmtree(tmp_path / "run")
    loop_of(run_dir=tmp_path / "run").ask()
    code = "import sys, pathlib, al_lightning.run.lock as r; r.lock(pathlib.Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True
    )
    assert f"held by process {os.getpid()}" in other.stderr


@pytest.mark.slow
def test_a_run_that_could_not_be_resumed_is_not_held(tmp_path):
    loop_of(run_dir=tmp_path).ask()
    unlock(tmp_path)
    (tmp_path / "cycle_1" / "weights.ckpt").unlink()
    with pytest.raises(ValueError, match="found no file"):
        resume(tmp_path)
    code = "import sys, pathlib, al_lightning.run.lock as r; r.lock(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run's folder and, for each number of records, the rows that are labeled by then."""
    folder = tmp_path_factory.mktemp("run")
    loop_of(run_dir=folder).run()
    labeled, rows = [], set()
    for record in read_records(folder / "journal.jsonl"):
        if record["event"] in ("start", "labels"):
            rows |= set(record.get("indices") or record["split"]["labeled_indices"])
        labeled.append(sorted(rows))
    return folder, labeled


@st.composite
def damages(draw):
    """A function of a file's content: bytes replaced, taken out, put in, repeated or moved."""
    kind = draw(st.sampled_from(["replace", "insert", "delete", "repeat", "move", "truncate"]))
    place, length = draw(st.floats(0, 1)), draw(st.integers(1, 300))
    noise = draw(st.binary(min_size=1, max_size=20))
    on_lines = draw(st.booleans())

    def damage(content):
        parts = content.splitlines(keepends=True) if on_lines else content
        start = int(place * (len(parts) - 1))
        end = start + (1 + length % 3 if on_lines else length)
        before, piece, after = parts[:start], parts[start:end], parts[end:]
        put_in = [noise] if on_lines else noise
        pieces = {
            "replace": (before, put_in, after),
            "insert": (before, put_in, piece, after),
            "delete": (before, after),
            "repeat": (before, piece, piece, after),
            "move": (before, after, piece),
            "truncate": (before,),
        }[kind]
        return b"".join(b"".join(piece) if on_lines else piece for piece in pieces)

    return damage


@settings(max_examples=60)
@given(damage=damages())
def test_a_damaged_journal_is_an_error_or_a_split_that_was(finished_run, damage):
    folder, labeled = finished_run
    journal = folder / "journal.jsonl"
    content = journal.read_bytes()
    try:
        journal.write_bytes(damage(content))
        refused = None
        try:
            loop = resume(folder)
        except ValueError as error:
            refused = str(error)
        if refused is None:
            num_records = len(read_records(journal))
            assert loop.data.labeled_indices.tolist() == labeled[num_records - 1]
            assert content.startswith(journal.read_bytes())
        else:
            assert "is damaged at line" in refused or "holds no run" in refused
    finally:
        journal.write_bytes(content)


def test_nothing_in_a_run_folder_is_unpickled(tmp_path):
    """A pickle that would run code is refused, even where its checksum is right."""

    class Evil:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "ran", "x"))

    loop_of(run_dir=tmp_path / "run").ask()
    path = tmp_path / "run" / "initial_weights.pt"
    torch.save({"net.0.weight": Evil()}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        load_state(path, checksum(path))
    for name in ("last.ckpt", "hpc_ckpt_1.ckpt"):
        shutil.copy(path, tmp_path / "run" / "cycle_1" / name)
    trainer = TRAINER(default_root_dir=tmp_path / "run" / "cycle_1")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert last_checkpoint(trainer, "", tmp_path / "run" / "cycle_1") is None
    assert not (tmp_path / "ran").exists()
