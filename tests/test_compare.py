"""Comparisons: their runs are ordinary, begin alike, are not done twice and survive a kill."""

import csv
import io
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import compare_run
import lightning as L
import pytest
import ray
import torch
import yaml
from compare_run import (
    PROTOCOL,
    SEEDS,
    STRATEGIES,
    Net,
    Points,
    TinyMNIST,
    dies,
    fails,
    first_rows,
    points_of_two,
    run_comparison,
)
from lightning.pytorch.callbacks import Callback
from tiny_mnist import write_tiny_mnist
from toys import QUIET, asked, events, loop_of, points_data, weights

import al_lightning
from al_lightning import ActiveCLI, ActiveLearningLoop, LitSimpleCNN, power
from al_lightning.acquisition import bald
from al_lightning.compare import CompareCLI, RunsFailedError, compare, processes, study
from al_lightning.compare.__main__ import main
from al_lightning.compare.cluster import on_ray
from al_lightning.compare.processes import default_jobs, in_processes, num_cores
from al_lightning.compare.progress import Progress
from al_lightning.compare.protocol import PUBLIC, described
from al_lightning.compare.runs import Run, plan, read_comparison
from al_lightning.compare.worker import work
from al_lightning.mnist import RECIPE
from al_lightning.monitor import defaults
from al_lightning.run.journal import read_records
from al_lightning.seeds import seeded

QUICK = {"trainer": partial(L.Trainer, max_epochs=1, **QUIET), "num_cycles": 2}
ALL_RUNS = [f"{name}, seed {seed}" for seed in SEEDS for name in STRATEGIES]
RUNS = [Run("random", seed, Path("nowhere")) for seed in range(20)]
HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE), str(HERE.parent)])


def folders(out, strategies=STRATEGIES, seeds=SEEDS):
    return [out / name / f"seed_{seed}" for seed in seeds for name in strategies]


def journals(out):
    return {path: path.read_bytes() for path in out.glob("*/*/journal.jsonl")}


def start_of(folder):
    return read_records(folder / "journal.jsonl")[0]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def wait_for(what):
    for _ in range(1200):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened for two minutes")


def cut_to(journal, num_lines):
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:num_lines]))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As the processes of the comparisons here compute, so that all bits are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def inline(monkeypatch):
    """Runs are carried out here, in turn, neither watched nor reported; gives which they are."""
    begun = SimpleNamespace(runs=[], jobs=[])

    def in_this_process(one_run, runs, look, *, jobs, gpus):
        begun.jobs.append(jobs)
        begun.runs += map(str, runs)
        return {run: work(one_run, run) for run in runs}

    monkeypatch.setattr(study, "check_can_travel", lambda _: None)
    monkeypatch.setattr(study, "in_processes", in_this_process)
    monkeypatch.setattr(study, "write_report", lambda *_: None)
    monkeypatch.setattr(defaults, "default_monitors", list)
    return begun


@pytest.fixture
def in_a_thread(inline, monkeypatch):
    """Like ``inline``, but while a run is carried out others are watched."""

    def beside(one_run, runs, look, *, jobs, gpus):
        with ThreadPoolExecutor(1) as pool:
            try:
                waiting = [pool.submit(one_run, run) for run in runs]
                while waiting:
                    _, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    look()
            finally:
                pool.shutdown(cancel_futures=True)
        return dict.fromkeys(runs)

    monkeypatch.setattr(study, "in_processes", beside)


@pytest.fixture
def no_executor(monkeypatch):
    """No run can be begun."""

    def impossible(*_, **__):
        raise AssertionError("a run was begun")

    monkeypatch.setattr(study, "in_processes", impossible)


@contextmanager
def meeting(folder):
    """Of the two processes that ``points_of_two`` waits for; gives their ids."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRST_PROCESS", str(os.getpid()))
        patch.setenv("MEETING", str(folder))
        met = []
        yield met
        met += [path.name for path in folder.iterdir()]


# ---- one comparison by processes, from many sides ------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """random and margin under two seeds, two at a time, with two GPUs that are not there."""
    folder, printed = tmp_path_factory.mktemp("ran"), io.StringIO()
    with (
        meeting(folder / "meeting") as met,
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(printed),
    ):
        patch.setattr(processes, "num_cores", lambda: 2)
        with_gpus = lambda *given, jobs, gpus: in_processes(*given, jobs=jobs, gpus=["7", "9"])  # noqa: E731
        patch.setattr(study, "in_processes", with_gpus)
        found = run_comparison(folder / "out", data=points_of_two, jobs=2)
    return SimpleNamespace(out=folder / "out", found=found, printed=printed.getvalue(), met=met)


@pytest.fixture
def copied(ran, tmp_path):
    """The folder of that comparison, to be changed."""
    return Path(shutil.copytree(ran.out, tmp_path / "copied"))


def test_each_run_has_a_process_and_two_share_cores_and_gpus(ran):
    said = [
        re.search(r"process (\d+) on (\d+) threads and device (\d+)", text).groups()
        for text in ((folder / "output.txt").read_text() for folder in folders(ran.out))
    ]
    assert sorted(process for process, _, _ in said) == sorted(ran.met)
    assert len(ran.met) == 4
    assert {threads for _, threads, _ in said} == {"1"}
    assert {device for _, _, device in said} == {"7", "9"}


def test_runs_are_ordinary_run_folders(ran):
    for folder in folders(ran.out):
        seed = int(folder.name.removeprefix("seed_"))
        assert events(folder)[-1] == ("end", 3)
        assert {"metrics.csv", "progress.png", "queries"} <= {
            path.name for path in folder.iterdir()
        }
        resumed = ActiveLearningLoop.resume(
            folder, Net(), Points(seed=seed), trainer=PROTOCOL["trainer"]
        )
        assert resumed.finished
        accuracies = tuple(result.metrics["test_acc"] for result in resumed.results)
        assert ran.found.curves[folder.parent.name][seed].accuracy == accuracies
        assert ran.found.curves[folder.parent.name][seed].num_labeled == (20, 35, 50)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_runs_are_those_of_the_loop_by_hand(ran, strategy):
    folder = ran.out / strategy / "seed_2"
    with seeded(2, "model"):
        model = Net()
    by_hand = loop_of(model, Points(seed=2), strategy=strategy, seed=2, **PROTOCOL)
    results = by_hand.run()
    kept = ActiveLearningLoop.resume(folder, Net(), Points(seed=2), trainer=PROTOCOL["trainer"])
    assert asked(kept.results) == asked(results)
    assert [r.metrics for r in kept.results] == [r.metrics for r in results]
    assert torch.equal(weights(kept.model), weights(model))


def test_every_cycle_has_its_row(ran):
    rows = table(ran.out / "results.csv")
    assert ",".join(rows[0]).startswith("strategy,seed,cycle,num_labeled,test_acc,train_loss,")
    assert [(r["strategy"], r["seed"], r["cycle"], r["num_labeled"]) for r in rows] == [
        (strategy, str(seed), str(cycle), str(labels))
        for strategy in STRATEGIES
        for seed in SEEDS
        for cycle, labels in ((1, 20), (2, 35), (3, 50))
    ]
    curves = ran.found.curves
    assert [float(row["test_acc"]) for row in rows] == [
        value for name in STRATEGIES for seed in SEEDS for value in curves[name][seed].accuracy
    ]


def test_runs_at_one_seed_begin_alike(ran):
    starts = {folder: start_of(folder) for folder in folders(ran.out)}
    for what in ("split", "weights"):
        by_seed = {
            seed: [starts[folder][what] for folder in folders(ran.out, seeds=[seed])]
            for seed in SEEDS
        }
        assert all(first == second for first, second in by_seed.values())
        assert by_seed[1] != by_seed[2]


def test_a_line_a_cycle_tells_how_far_it_is(ran):
    pattern = r"(\w+, seed \d) \| cycle (\d)/3 \| labels \d\d \| train_loss \S+ \| test_acc .* s"
    lines = [re.fullmatch(pattern, line).groups() for line in ran.printed.splitlines()]
    assert sorted(lines) == sorted((run, cycle) for run in ALL_RUNS for cycle in "123")


def test_what_is_there_is_not_done_again_but_reported_again(copied, no_executor, capsys):
    before = journals(copied)
    reports = {path.name: path.read_bytes() for path in copied.glob("*.*") if path.is_file()}
    assert {"results.csv", "summary.csv", "summary.md", "curves.png"} <= set(reports)
    for name in reports:
        (copied / name).unlink()
    run_comparison(copied)
    assert journals(copied) == before
    for name in ("results.csv", "summary.csv", "summary.md"):
        assert (copied / name).read_bytes() == reports[name]
    assert (copied / "curves.png").exists()
    assert capsys.readouterr().out == ""


def test_seeds_and_strategies_are_added_to_what_is_there(copied, ran, inline):
    before = journals(copied)
    found = run_comparison(copied, strategies=["entropy", *STRATEGIES], seeds=[2, 1])
    assert inline.runs == ["entropy, seed 2", "entropy, seed 1"]
    assert list(found.curves) == ["entropy", *STRATEGIES]
    assert {name: found.curves[name] for name in STRATEGIES} == ran.found.curves
    inline.runs.clear()
    found = run_comparison(copied, strategies=["margin"], seeds=[1, 3, 2])
    assert inline.runs == ["margin, seed 3"]
    assert found.seeds == [1, 2, 3]
    assert {path: journals(copied)[path] for path in before} == before


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"trainer": QUICK["trainer"]}, "trainer.max_epochs: began with 2, now 1"),
        ({"acquisition_size": 16}, "active.acquisition_size: began with 15, now 16"),
        ({"data": partial(Points, num_rows=121)}, "data.rows: began with 120, now 121"),
    ],
)
@pytest.mark.parametrize("strategies", [STRATEGIES, ["entropy"]])
def test_another_protocol_is_refused_also_of_runs_not_asked_for(
    ran, no_executor, strategies, change, found
):
    before = journals(ran.out)
    with pytest.raises(
        ValueError, match="must follow one protocol, found margin, seed 1: "
    ) as info:
        run_comparison(ran.out, strategies=strategies, **change)
    assert found in str(info.value)
    for run in ALL_RUNS:
        assert f"{run}: " in str(info.value)
    assert str(info.value).endswith("; give what they began with, or compare in another folder")
    assert journals(ran.out) == before
    assert not (ran.out / "entropy").exists()


def other_net():
    return Net()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model": other_net}, "model: began with 'compare_run.Net', now '.*other_net'"),
        ({"model": partial(Net, lr=0.5)}, "model: began with 'compare_run.Net', now .*'lr': 0.5"),
        (
            {"trainer": partial(L.Trainer, max_epochs=2, callbacks=[Callback()], **QUIET)},
            "trainer.callbacks: began with None, now .*callback.Callback",
        ),
        ({"oracle": first_rows}, "oracle: began with 'dataset', now 'compare_run.first_rows'"),
    ],
)
def test_what_no_journal_says_is_compared_too(ran, no_executor, change, found):
    with pytest.raises(ValueError, match=f"must follow one protocol, found {found}"):
        run_comparison(ran.out, seeds=[1, 2, 3], **change)


def test_where_a_run_is_computed_is_no_other_protocol(copied, no_executor):
    trainer = partial(PROTOCOL["trainer"], accelerator="cpu", enable_progress_bar=True)
    assert run_comparison(copied, trainer=trainer).seeds == SEEDS


def test_a_protocol_under_which_nothing_began_binds_nobody(ran, tmp_path, inline):
    shutil.copy(ran.out / "protocol.json", tmp_path)
    run_comparison(tmp_path, strategies=["random"], seeds=[1], model=other_net, **QUICK)
    assert inline.runs == ["random, seed 1"]
    assert "other_net" in (tmp_path / "protocol.json").read_text()


class Moved(Net):
    __module__ = "al_lightning.mnist.model"


@pytest.mark.parametrize("was", ["al_lightning.models.Moved", "al_lightning.a.b.c.Moved"])
def test_a_comparison_goes_on_after_what_the_package_exports_has_moved(
    copied, no_executor, monkeypatch, was
):
    path = copied / "protocol.json"
    path.write_text(path.read_text().replace("compare_run.Net", was))
    with pytest.raises(ValueError, match=f"began with '{was}', now 'al_lightning.mnist.model.Mov"):
        run_comparison(copied, model=Moved)
    monkeypatch.setattr(al_lightning, "__all__", [*al_lightning.__all__, "Moved"])
    run_comparison(copied, model=Moved)


def test_what_is_public_is_described_by_its_public_name():
    names = {
        "al_lightning.models.LitSimpleCNN": "al_lightning.LitSimpleCNN",
        "al_lightning.mnist.datamodule.ActiveMNISTDataModule": "al_lightning.ActiveMNISTDataModule",
        "al_lightning.cli.ActiveCLI": "al_lightning.ActiveCLI",
        "al_lightning.statistics.curves.Curve": "al_lightning.statistics.Curve",
        "al_lightning.old.CompareCLI": "al_lightning.compare.CompareCLI",
        "al_lightning.old.bald": "al_lightning.acquisition.bald",
        "al_lightning.old.nothing": "al_lightning.old.nothing",
        "my_al_lightning.old.ActiveCLI": "my_al_lightning.old.ActiveCLI",
        "al_lightning or ActiveCLI": "al_lightning or ActiveCLI",
    }
    assert {name: described(name) for name in names} == names
    assert described(LitSimpleCNN) == "al_lightning.LitSimpleCNN"
    whole = {"run": partial(Net, lr=0.1, model=LitSimpleCNN), "callbacks": [Callback(), bald]}
    assert described(described(whole)) == described(whole)
    assert described(whole)["callbacks"][1] == "al_lightning.acquisition.bald"


def test_each_public_name_is_of_one_thing():
    packages = [import_module(f"al_lightning{package}") for package in PUBLIC]
    for package in packages:
        for name in package.__all__:
            things = {id(getattr(other, name)) for other in packages if name in other.__all__}
            assert len(things) == 1, name


def test_warm_and_cold_starts_can_be_compared_but_not_mixed(copied, ran, inline, no_executor):
    with pytest.raises(ValueError, match="active.warm_start: began with False, now True"):
        run_comparison(copied, warm_start=True)
    with pytest.raises(AssertionError, match="a run was begun"):
        run_comparison(copied, strategies={"warm": {"strategy": "margin", "warm_start": True}})


def test_a_strategy_of_another_name_is_the_others_run(copied, no_executor):
    with pytest.raises(ValueError, match="active.strategy: began with 'margin', now 'entropy'"):
        run_comparison(copied, strategies={"margin": "entropy"})


def test_what_is_a_strategys_own_is_no_other_protocol(copied, inline):
    mine = {"mine": {"strategy": "bald", "mc_samples": 2, "candidate_size": 40}}
    run_comparison(copied, strategies=mine, seeds=[1])
    run_comparison(copied, strategies=["entropy"], seeds=[1])
    assert inline.runs == ["mine, seed 1", "entropy, seed 1"]


def test_a_damaged_journal_is_named(copied, no_executor, monkeypatch, capsys):
    journal = copied / "margin" / "seed_1" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"fit"', '"fat"', 1))
    sentence = rf"{re.escape(str(journal))} is damaged at line 2 of \d+: .*restore the file"
    with pytest.raises(ValueError, match=sentence):
        run_comparison(copied)
    with pytest.raises(SystemExit, match="2"):
        cli("--strategies=random", f"--out={copied}")
    assert re.search(sentence, capsys.readouterr().err)


def test_a_run_that_lacks_a_cycle_is_not_averaged_but_gone_on_with(copied, ran, inline):
    cut_to(copied / "random" / "seed_2" / "journal.jsonl", 9)  # within the third cycle
    with pytest.raises(ValueError, match="must be over .* found random, seed 2 missing or unf"):
        read_comparison(plan(STRATEGIES, SEEDS, copied), "test_acc")
    found = run_comparison(copied)
    assert inline.runs == ["random, seed 2"]
    assert found.curves == ran.found.curves


def test_runs_of_other_sizes_are_refused(copied, inline, tmp_path):
    run_comparison(tmp_path / "short", strategies=["margin"], seeds=[2], **QUICK)
    shutil.rmtree(copied / "margin" / "seed_2")
    shutil.move(tmp_path / "short" / "margin" / "seed_2", copied / "margin")
    sentence = (
        r"the same training-set sizes, found random, seed 1 and margin, seed 2 apart at \[50\]; "
        "a strategy must choose the same number"
    )
    with pytest.raises(ValueError, match=sentence):
        read_comparison(plan(STRATEGIES, SEEDS, copied), "test_acc")


# ---- what cannot work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"strategies": ["random", "margn"]},
            "strategy 'margn' cannot run: strategy must be one of .*, got 'margn'; did you mean "
            "'margin'?",
        ),
        ({"seeds": [1, 2, 1]}, r"seeds must be at least one and all distinct, got \[1, 2, 1\]"),
        ({"seeds": []}, r"seeds must be at least one and all distinct, got \[\]"),
        ({"seeds": [1, "a"]}, r"seeds must be whole numbers, got \['a'\]; give some such as 42"),
        ({"strategies": []}, r"strategies must be at least one and all distinct, got \[\]"),
        (
            {"strategies": ["random", "margin", "random"]},
            "strategies must be distinct, got random repeated",
        ),
        (
            {"strategies": {"a/b": "margin"}},
            "name is that of a folder here, .* got 'a/b'; in a map",
        ),
        ({"strategies": {"..": "margin"}}, r"name is that of a folder here, .* got '\.\.'"),
        ({"strategies": {"a?": "margin"}}, r"name is that of a folder here, .* got 'a\?'"),
        (
            {"strategies": {"a": "margin", "A": "random"}},
            r"must differ by more than upper and lower case, got \['a', 'A'\]",
        ),
        ({"seeds": [True]}, r"seeds must be whole numbers, got \[True\]"),
        (
            {"interval": (10, 500)},
            r"interval must lie within the sizes of the runs, 20 to 50, got \(10, 500\)",
        ),
        ({"strategies": {8: "margin"}}, "name is that of a folder here, .* got 8"),
        ({"interval": (50, 20)}, r"interval must be two sizes, the lower first, got \(50, 20\)"),
        ({"interval": (50,)}, r"interval must be two sizes, the lower first, got \(50,\)"),
        ({"thresholds": ["90%"]}, r"thresholds must be numbers, got \['90%'\]"),
        ({"jobs": 0}, "jobs must be at least 1, and for processes alone, got 0 for processes"),
        (
            {"jobs": 2, "executor": "ray"},
            "got 2 for ray; how much a Ray cluster does .* to say",
        ),
        ({"executor": "dask"}, 'executor must be "processes" or "ray", got \'dask\''),
        ({"target": ("test_acc", 0.5)}, "target is not for a comparison .* of the same sizes"),
        ({"run_dir": "x"}, "run_dir is not for a comparison to be given: strategies and seeds"),
        ({"strategy": "margin"}, "strategy is not for a comparison to be given: strategies and"),
        (
            {"strategies": {"a": {"strategy": "margin", "seed": 1, "num_cycles": 2}}},
            "a strategy must not set num_cycles, seed, found in 'a'; it may set strategy, .*mc_sam",
        ),
        ({"oracle": "files"}, 'labels by themselves, found oracle="files"; give "dataset", or a'),
        ({"acquisition_size": 0}, "acquisition_size must be at least 1, got 0"),
        ({"nonsense": 1}, "cannot run: .*unexpected keyword argument 'nonsense'"),
        (
            {"trainer": partial(L.Trainer, accelerator="cpu", devices=2, **QUIET)},
            "must be one process, .* found a Trainer of 2 on cpu; give it devices=1",
        ),
        (
            {"strategies": {"a": lambda pool, num, generator: torch.arange(num)}},
            "classes and functions of a module, or partials of them, found .*<lambda>",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_begun(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run_comparison(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_a_seed_is_not_for_a_comparison_to_be_given(tmp_path):
    with pytest.raises(ValueError, match="seed is not for a comparison to be given"):
        compare(Net, Points, strategies=STRATEGIES, seeds=SEEDS, out=tmp_path / "out", seed=3)


@pytest.mark.parametrize(
    ("what", "given"), [("model", Net()), ("data", Points()), ("data", 3), ("model", "Net")]
)
def test_model_and_data_must_be_functions(tmp_path, what, given):
    sentence = f"{what} must be a function that makes one for each run, got an instance of "
    with pytest.raises(TypeError, match=sentence + type(given).__name__):
        run_comparison(tmp_path / "out", **{what: given})


class LosingCount(Net):
    def test_step(self, batch, batch_idx):
        self.log("test_acc", float("nan"), batch_size=len(batch[0]))


def test_a_metric_that_is_no_number_is_said_after_the_first_cycle(tmp_path, in_a_thread):
    sentence = "^random, seed 1 has test_acc = nan in cycle 1, which cannot be compared; look for"
    with pytest.raises(ValueError, match=sentence):
        run_comparison(tmp_path, model=LosingCount)


def data_of_its_own(seed):
    """Other rows each time, with the labels in the same places."""
    data = Points(seed=seed)
    data.sets.pool.tensors[0].add_(time.perf_counter())
    return data


def test_data_that_differs_at_one_seed_is_refused(tmp_path, inline):
    with pytest.raises(ValueError, match="found other initial data in margin, seed 1 than in rand"):
        run_comparison(tmp_path, data=data_of_its_own, seeds=[1])


def the_same_rows(seed):
    return points_data(initial_labeled_size=None, initial_indices=list(range(20)), seed=seed)


def test_labels_that_are_the_same_under_every_seed_are_said(tmp_path, inline):
    with pytest.warns(UserWarning, match="runs of all seeds began with the same labels, so inter"):
        run_comparison(tmp_path, data=the_same_rows, strategies=["random"])


class Counting(Net):
    """Not what the seed says, but whatever comes next."""

    made = 0

    def __init__(self):
        super().__init__()
        Counting.made += 1
        torch.nn.init.constant_(self.net[0].weight, Counting.made)


def test_weights_that_differ_at_one_seed_are_refused_at_once(tmp_path, in_a_thread, inline):
    sentence = (
        "must begin alike, found other initial weights in margin, seed 1 than in random, seed 1; "
        "make model and data by functions that draw from the seed alone"
    )
    again = {"out": tmp_path / "out", "strategies": STRATEGIES, "seeds": [1, 2, 3, 4, 5], **QUICK}
    with pytest.raises(ValueError, match=sentence):
        compare(Counting, Points, **again)
    assert len(journals(tmp_path / "out")) < 10
    with pytest.raises(ValueError, match=sentence):
        compare(Counting, Points, **again)


def test_labels_that_differ_at_one_seed_are_refused(tmp_path, inline):
    drawn = iter(range(9))
    other_points = lambda seed: Points(seed=next(drawn))  # noqa: E731
    with pytest.raises(ValueError, match="other initial labels in margin, seed 1 than in random, "):
        run_comparison(tmp_path, data=other_points, seeds=[1], **QUICK)


def test_a_metric_that_is_not_logged_is_said_after_the_first_cycle(tmp_path, in_a_thread):
    sentence = (
        r"random, seed 1 has no 'val_acc' in cycle 1, it has \['test_acc', 'train_loss'\]; log it "
        "in test_step, or name another metric"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=sentence):
            run_comparison(tmp_path, metric="val_acc", **{**QUICK, "num_cycles": 4})
        assert len(journals(tmp_path)) < len(ALL_RUNS)
    assert not (tmp_path / "results.csv").exists()


# ---- what a strategy may be ----------------------------------------------------------------------


def test_strategies_have_names_of_their_own_and_are_whatever_the_loop_takes(tmp_path, inline):
    mine = {
        "first rows": first_rows,
        "sharp": {"strategy": power(bald, beta=8.0), "mc_samples": 3},
        "plain": "margin",
        "few": {"strategy": "margin", "candidate_size": 20},
        "random": None,
    }
    found = run_comparison(tmp_path, strategies=mine, seeds=[1], **QUICK)
    assert list(found.curves) == list(mine)
    config = {name: start_of(tmp_path / name / "seed_1")["config"]["active"] for name in mine}
    assert [config[name]["mc_samples"] for name in mine] == [None, 3, None, None, None]
    assert [config[name]["candidate_size"] for name in mine] == [None, None, None, 20, None]
    assert (config["plain"]["strategy"], config["random"]["strategy"]) == ("margin", "random")
    (_, first, *_), (_, few, *_) = (
        [record for record in read_records(path) if record["event"] in ("start", "query")]
        for path in (tmp_path / name / "seed_1" / "journal.jsonl" for name in ("first rows", "few"))
    )
    labeled = set(start_of(tmp_path / "plain" / "seed_1")["split"]["labeled_indices"])
    assert first["indices"] == [row for row in range(120) if row not in labeled][:15]
    assert few["indices"] != first["indices"]
    inline.runs.clear()
    run_comparison(tmp_path, strategies=mine, seeds=[1], **QUICK)
    assert inline.runs == []


def test_one_name_is_one_strategy(tmp_path, inline):
    found = run_comparison(tmp_path, strategies="random", seeds=[1], **QUICK)
    assert list(found.curves) == ["random"]


# ---- runs that fail ------------------------------------------------------------------------------


def test_a_run_that_fails_is_named_and_the_others_are_kept(tmp_path, inline, monkeypatch):
    monkeypatch.setenv("CURED", str(tmp_path / "cured"))
    out, strategies = tmp_path / "out", {"random": "random", "bad": fails}
    log = out / "bad" / "seed_1" / "output.txt"
    sentence = (
        "^2 of 4 runs failed, so nothing is averaged: bad, seed 1: RuntimeError: no such row "
        rf"\(see {re.escape(str(log))}\); bad, seed 2: .*; the others are kept, and the same call"
    )
    with pytest.raises(RunsFailedError, match=sentence):
        run_comparison(out, strategies=strategies)
    assert re.search(r"Traceback .*in fails\n.*RuntimeError: no such row\n$", log.read_text(), re.S)
    assert not (out / "summary.csv").exists()
    for folder in folders(out, ["random"]):
        assert events(folder)[-1] == ("end", 3)
    assert events(log.parent)[-1] == ("test", 2)

    (tmp_path / "cured").touch()
    inline.runs.clear()
    found = run_comparison(out, strategies=strategies)
    assert inline.runs == ["bad, seed 1", "bad, seed 2"]
    assert found.curves["bad"][1].num_labeled == (20, 35, 50)


def test_many_failures_are_counted(tmp_path, inline, monkeypatch):
    monkeypatch.setattr(Net, "training_step", lambda *_: None / 0)
    with pytest.raises(RunsFailedError, match=r"^6 of 6 .*random, seed 4: .* and 2 more; the"):
        run_comparison(tmp_path, strategies=["random"], seeds=[1, 2, 3, 4, 5, 6])


@pytest.mark.slow
def test_a_process_that_is_killed_is_reported_as_such_and_the_others_are_finished(tmp_path):
    sentence = r"^1 of 2 runs failed, .*: bad, seed 1: its process ended abruptly: .*output.txt\)"
    with pytest.raises(RunsFailedError, match=sentence):
        run_comparison(tmp_path, strategies={"bad": dies, "random": "random"}, seeds=[1], jobs=1)
    assert events(tmp_path / "random" / "seed_1")[-1] == ("end", 3)
    folder = tmp_path / "bad" / "seed_1"
    assert events(folder)[-1] == ("test", 2)
    assert (folder / "output.txt").read_text().endswith("about to die\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("too small"), "ValueError: too small"),
        (SystemExit(), "exit status None"),
        (SystemExit(2), "exit status 2"),
    ],
)
def test_every_way_to_fail_is_a_reason(tmp_path, error, reason):
    def one_run(run):
        raise error

    assert work(one_run, Run("random", 1, tmp_path / "run")) == reason


# ---- interrupted ---------------------------------------------------------------------------------


@pytest.fixture
def start():
    """Starts a program that prints a line a cycle; gives it once its first cycle is over."""
    started = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": PATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # In the background, where the tests may run, Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        while "cycle 1/" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):  # as it should be
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def children_of(process):
    """All that came of it: one that tidies up, the server that forks runs, and the runs."""
    return descendants(process.pid)


def descendants(number):
    threads = Path(f"/proc/{number}/task").iterdir()
    own = [child for thread in threads for child in (thread / "children").read_text().split()]
    return [one for child in own for one in (child, *descendants(child))]


def none_is_left(processes):
    return not any(Path(f"/proc/{process}").exists() for process in processes)


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_as_if_nothing_had_been(tmp_path, start, ran, inline):
    process = start(HERE / "compare_run.py", tmp_path / "out")
    children = children_of(process)
    assert len(children) == 4
    process.kill()
    process.wait()
    wait_for(lambda: none_is_left(children))
    runs = plan(STRATEGIES, SEEDS, tmp_path / "out")
    left = [str(run) for run in runs if not run.finished]
    assert left
    assert any(run.records() for run in runs)

    found = run_comparison(tmp_path / "out")
    assert inline.runs == left
    assert found.curves == ran.found.curves
    for folder in folders(tmp_path / "out"):
        undisturbed = ran.out / folder.relative_to(tmp_path / "out")
        queries = [
            [r["indices"] for r in read_records(path / "journal.jsonl") if r["event"] == "query"]
            for path in (folder, undisturbed)
        ]
        assert queries[0] == queries[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_and_gives_its_status(tmp_path, start, number):
    process = start(
        *COMMAND,
        "--strategies=random,margin,entropy",
        f"--out={tmp_path}",
        "--jobs=1",
        "--active.acquisition_size=1",
        "--active.num_cycles=90",
    )
    children = children_of(process)
    assert len(children) == 3
    if number == signal.SIGINT:  # a terminal sends it to all, but what it means the first says
        for child in children:
            os.kill(int(child), number)
        for _ in range(5):
            assert "cycle" in process.stdout.readline()
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    (words,) = [line for line in errors.splitlines() if not line.startswith("Seed set")]
    assert words == (
        f"stopped by {number.name}; finished steps are kept, and the same command goes on"
    )
    wait_for(lambda: none_is_left(children))
    assert list(journals(tmp_path)) == [tmp_path / "random" / "seed_1" / "journal.jsonl"]


# ---- the command line ----------------------------------------------------------------------------

SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_checkpointing=false",
    "--active.acquisition_size=15",
    "--active.num_cycles=2",
    "--seeds=1,2",
]
CLASSES = ["--model_class=compare_run.Net", "--datamodule_class=compare_run.Points"]
COMMAND = ["-m", "al_lightning.compare", *CLASSES, *SMALL]


def cli(*args, model=Net, data=Points, program=CompareCLI, **kwargs):
    """The command line's comparison, or the status with which it exits."""
    state = torch.random.get_rng_state()
    try:
        return program(model, data, args=[*SMALL, *args], **kwargs)
    finally:
        torch.random.set_rng_state(state)


@pytest.fixture(autouse=True)
def program(monkeypatch):
    monkeypatch.setattr("sys.argv", ["compare.py"])


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """A comparison by ``python -m al_lightning.compare``, a thread to each run."""
    out = tmp_path_factory.mktemp("commanded") / "out"
    command = [
        *(sys.executable, *COMMAND, "--strategies=random,margin"),
        *(f"--out={out}", f"--jobs={num_cores()}"),
    ]
    environment = {**os.environ, "PYTHONPATH": PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(out=out, printed=done.stdout, errors=done.stderr)


def test_the_command_tells_how_far_it_is_and_what_came_out(commanded):
    lines = commanded.printed.splitlines()
    cycles, (first, second, tables, curves) = lines[:-4], lines[-4:]
    assert sorted(line.split(" | cycle ")[0].strip() for line in cycles) == sorted(2 * ALL_RUNS)
    for line in (first, second):
        assert re.fullmatch(
            r"(random|margin) +\| test accuracy at 35 labels 0\.\d{4} ± 0\.\d{4}", line
        )
    out = commanded.out
    assert tables == f"tables and pictures: {out}, the words: {out / 'summary.md'}"
    assert curves == f"curves: tensorboard --logdir {out}"
    assert len(table(out / "results.csv")) == 8
    assert "Traceback" not in commanded.errors


def test_its_runs_are_those_of_the_ordinary_command_line(commanded, tmp_path, inline):
    for folder in folders(commanded.out, seeds=[2]):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        strategy, seed = folder.parent.name, int(folder.name.removeprefix("seed_"))
        assert (config["active"]["strategy"], config["active"]["seed"]) == (strategy, seed)
        before = (folder / "journal.jsonl").read_bytes()
        kept = cli_of_one_run(f"--active.run_dir={folder}", "--active.resume=true")
        assert (folder / "journal.jsonl").read_bytes() == before
        other = tmp_path / strategy / str(seed)
        again = cli_of_one_run(f"--config={folder / 'config.yaml'}", f"--active.run_dir={other}")
        assert [r.metrics for r in again.results] == [r.metrics for r in kept.results]
        assert asked(again.results) == asked(kept.results)
        assert start_of(other)["weights"] == start_of(folder)["weights"]


def cli_of_one_run(*args):
    state = torch.random.get_rng_state()
    try:
        return ActiveCLI(Net, Points, args=list(args))
    finally:
        torch.random.set_rng_state(state)


class Linked(ActiveCLI):
    """Ties one argument to another, as programs of LightningCLI do."""

    def add_arguments_to_parser(self, parser):
        super().add_arguments_to_parser(parser)
        parser.link_arguments("data.batch_size", "model.lr", compute_fn=lambda size: size / 1000)


class LinksNothing(CompareCLI):
    def add_arguments_to_parser(self, parser):
        super().add_arguments_to_parser(parser)
        parser.link_arguments("data.batch_size", "model.lr", compute_fn=lambda size: size / 1000)


class LinksAll(LinksNothing):
    run_class = Linked


def test_runs_have_what_a_program_adds(tmp_path, inline, capsys):
    args = ["--strategies=random", f"--out={tmp_path}"]
    with pytest.raises(SystemExit, match="2"):
        cli(*args, program=LinksNothing)
    assert "LinksNothing adds arguments or links of its own" in capsys.readouterr().err
    cli(*args, program=LinksAll)
    for folder in tmp_path.glob("random/*"):
        # It is computed anew, from batches of 16.
        assert "lr" not in start_of(folder)["settings"].get("model", {})
        assert start_of(folder)["config"]["model"] == {}
    assert inline.runs


def test_runs_of_the_command_line_begin_alike_too(commanded):
    starts = [start_of(folder) for folder in folders(commanded.out)]
    for what in ("split", "weights"):
        assert starts[0][what] == starts[1][what] != starts[2][what] == starts[3][what]


def test_the_same_command_does_nothing_again(commanded, no_executor, capsys):
    before = journals(commanded.out)
    found = cli("--strategies=random,margin", f"--out={commanded.out}").comparison
    assert journals(commanded.out) == before
    assert capsys.readouterr().out.splitlines() == commanded.printed.splitlines()[-4:]
    assert list(found.curves) == STRATEGIES


def test_a_command_with_another_protocol_is_refused(commanded, no_executor, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli(
            "--strategies=entropy", f"--out={commanded.out}", "--model.lr=0.5", "--data.num_rows=99"
        )
    assert re.search(
        "compare.py: error: all runs in .* must follow one protocol, found margin, seed 1: "
        "data.num_rows: began with 120, now 99; model.lr: began with 0.01, now 0.5; margin, seed 2",
        capsys.readouterr().err,
    )


def test_runs_of_functions_are_not_gone_on_with_by_a_command_line(ran, no_executor, capsys):
    """They draw other weights from the same seed, so they would not be comparable."""
    with pytest.raises(SystemExit, match="2"):
        cli("--strategies=random", f"--out={ran.out}")
    assert "found margin, seed 1: no command line began it, which makes" in capsys.readouterr().err


def test_runs_of_a_command_line_are_not_gone_on_with_by_functions(commanded, no_executor):
    with pytest.raises(ValueError, match="margin, seed 1: a command line began it, which makes"):
        run_comparison(commanded.out)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--strategies=random,margn"], "strategy 'margn' cannot run: .* did you mean 'margin'?"),
        (["--strategies=random,random"], "strategies must be distinct, got random repeated"),
        (["--strategies=8"], "a strategy's name is that of a folder here, .* got 8"),
        (["--strategies={a: {b: c}"], "argument --strategies: .*{a: {b: c}"),
        (
            ["--strategies={a: {strategy: margin, nonsense: 1}}"],
            "must not set nonsense, found in 'a'; it may set .*candidate_size, strategy_args",
        ),
        (["--strategies={a: {num_cycles: 1}}"], "must not set num_cycles, found in 'a'"),
        (["--strategies={a: {resume: true}}"], "must not set resume, found in 'a'"),
        (["--strategies=random", "--seeds=1,1"], r"all distinct, got \[1, 1\]"),
        (["--strategies=random", "--seeds=a"], r"seeds must be whole numbers, got \['a'\]"),
        (
            ["--strategies=random", "--interval=35,20"],
            "interval must be two sizes, the lower first",
        ),
        (["--strategies=random", "--interval=20"], r"must be two sizes, .* got \(20,\)"),
        (["--strategies=random", "--interval=a,b"], r"interval must be numbers, got \['a', 'b'\]"),
        (["--strategies=random", "--thresholds=90%"], "thresholds must be numbers, got"),
        (["--strategies=random", "--jobs=0"], "jobs must be at least 1, .* got 0 for processes"),
        (["--strategies=random", "--jobs=2", "--executor=ray"], "got 2 for ray"),
        (["--strategies=random", "--executor=dask"], "executor.*\n.*Got value: dask"),
        (
            ["--strategies=random", "--active.strategy=margin"],
            "--active.strategy is not for a",
        ),
        (["--strategies=random", "--active.seed", "3"], "--active.seed is not for a comparison"),
        (
            ["--strategies=random", "--active.target=[a, 1]"],
            "--active.target is not for a comparison",
        ),
        (["--strategies=random", "--config=target.yaml"], "so active.target must be null"),
        (["--strategies=random", "--config=oracle.yaml"], 'found oracle="files"'),
        (
            ["--strategies=random", "--trainer.devices=2"],
            "found a Trainer of 2 on cpu; give it devices=1",
        ),
        (["--strategies=random", "--data.initial_labeled_size=0.5"], "initial_labeled_size"),
        ([], "arguments are required: strategies"),
    ],
)
def test_a_mistake_is_a_sentence_and_status_2(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    Path("target.yaml").write_text("active: {target: [test_acc, 0.5]}")
    Path("oracle.yaml").write_text("active: {oracle: files}")
    with pytest.raises(SystemExit, match="2"):
        cli("--out=out", *args)
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not Path("out").exists()


def test_strategies_of_a_command_line_are_names_or_yaml(tmp_path, inline, capsys):
    sharp = {"strategy": "power_bald", "strategy_args": {"beta": 8.0}, "mc_samples": 2}
    flag = f"--strategies={json.dumps({'random': None, 'power 8': sharp})}"
    found = cli(flag, "--seeds=1", f"--out={tmp_path / 'flag'}").comparison
    assert "one seed: no interval or test can be given" in capsys.readouterr().out

    config = {"strategies": {"random": "random", "power 8": sharp}, "seeds": 1, "thresholds": 0.4}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    small = [flag for flag in SMALL if not flag.startswith("--seeds")]
    out = tmp_path / "file"
    again = CompareCLI(Net, Points, args=[*small, f"--config={tmp_path}/mine.yaml", f"--out={out}"])
    assert again.comparison.thresholds == (0.4,)
    assert again.comparison.curves == found.curves
    for folder in ("flag", "file"):
        settings = yaml.safe_load(
            (tmp_path / folder / "power 8" / "seed_1" / "config.yaml").read_text()
        )
        assert sharp.items() <= settings["active"].items()


def test_a_run_that_fails_has_status_1(tmp_path, inline, monkeypatch, capsys):
    def not_now(self, *args):
        raise RuntimeError("not now")

    monkeypatch.setattr(Net, "test_step", not_now)
    with pytest.raises(SystemExit, match="1"):
        cli("--strategies=random", f"--out={tmp_path}")
    message = (
        r"compare.py: error: 2 of 2 runs failed, .*random, seed 1: RuntimeError: not now \(see"
    )
    assert re.search(message, capsys.readouterr().err)
    text = (tmp_path / "random" / "seed_1" / "output.txt").read_text()
    assert text.endswith("RuntimeError: not now\n")


def test_mnist_is_compared_by_its_recipe(tmp_path, inline, capsys):
    write_tiny_mnist(tmp_path / "data")
    args = [
        "--strategies=random,margin",
        *("--data.initial_labeled_size=30", f"--data.data_dir={tmp_path / 'data'}"),
        *("--metric=test_loss", f"--out={tmp_path / 'out'}", "--seeds=1"),
    ]
    given = {"model": LitSimpleCNN, "data": TinyMNIST, "config_file": RECIPE}
    found = cli(*args, **given).comparison
    assert len(inline.runs) == 2
    assert found.num_labeled == (30, 45)
    assert "| test_loss at 45 labels" in capsys.readouterr().out
    for folder in folders(tmp_path / "out", seeds=[1]):
        assert start_of(folder)["settings"]["active"]["warm_start"] is True  # as the recipe has it
    shutil.move(tmp_path / "data", tmp_path / "moved")
    moved = [*args, f"--data.data_dir={tmp_path / 'moved'}", "--data.num_workers=0"]
    assert cli(*moved, **given).comparison.curves == found.curves
    assert len(inline.runs) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model_class=compare_run.Net"], "go together, give both or none"),
        (
            ["--model_class=compare_run.Nought", CLASSES[1]],
            "must be given as package.module.Name, found no 'compare_run.Nought'",
        ),
        (["--model_class=Net", CLASSES[1]], "must be given as package.module.Name, found no 'Net'"),
        (["--model_class=nowhere.Net", CLASSES[1]], "No module named 'nowhere'"),
        ([*CLASSES, "--strategies=margn", "--out=out", *SMALL], "did you mean 'margin'?"),
    ],
)
def test_a_mistake_of_the_program_is_a_sentence(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["__main__.py", *args])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert re.search(f"python -m al_lightning.compare: error: .*{message}", capsys.readouterr().err)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("flag", "tells"),
    [
        ("--help", ["--seeds 42,43,44 --out", "random,margin,badge; or in YAML", "val_size"]),
        (
            "--help_all",
            ["--strategies STRATEGIES random,margin,badge; or in YAML", "--data.val_size"],
        ),
    ],
)
def test_help_tells_of_all_that_can_be_given(monkeypatch, capsys, flag, tells):
    monkeypatch.setattr("sys.argv", ["__main__.py", flag])
    with pytest.raises(SystemExit, match="0"):
        main()
    text = " ".join(capsys.readouterr().out.split())
    assert "--model_class package.module.Name --datamodule_class package.module.Name: on a" in text
    assert all(words in text for words in [*tells, "--jobs"])


def test_print_config_can_be_given_back(tmp_path, monkeypatch, capsys, inline):
    monkeypatch.setattr(
        "sys.argv",
        ["__main__.py", *CLASSES, *SMALL, "--strategies=random", "--out=out", "--print_config"],
    )
    with pytest.raises(SystemExit, match="0"):
        main()
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert (config["strategies"], config["seeds"], config["out"]) == (["random"], [1, 2], "out")
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["__main__.py", *CLASSES, "--config=config.yaml", "--seeds=1"])
    main()
    assert inline.runs == ["random, seed 1"]
    assert events(tmp_path / "out" / "random" / "seed_1")[-1] == ("end", 2)


# ---- Ray -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ray_gives_the_same_curves(tmp_path, ran, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or its workers wait for all others
    monkeypatch.setattr(ray, "init", partial(ray.init, num_cpus=2, include_dashboard=False))
    with meeting(tmp_path / "meeting") as met:
        found = run_comparison(tmp_path / "out", data=points_of_two, executor="ray")
    assert not ray.is_initialized()
    assert len(met) == 2
    assert "on 1 threads" in (tmp_path / "out" / "random" / "seed_1" / "output.txt").read_text()
    assert found.curves == ran.found.curves


def test_ray_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    sentence = r'executor="ray" needs Ray, which is not installed: pip install ray'
    with pytest.raises(ValueError, match=sentence):
        run_comparison(tmp_path / "out", executor="ray")
    assert not (tmp_path / "out").exists()


class Ray(SimpleNamespace):
    """A cluster that carries out nothing, but says what it is asked for."""

    def __init__(self, **members):
        self.calls, self.options = [], {}
        super().__init__(**{"is_initialized": lambda: True, **members})

    def remote(self, function):
        def options(**given):
            self.options = given
            return SimpleNamespace(remote=lambda one_run, run: run)

        return SimpleNamespace(options=options)

    def wait(self, waiting, num_returns, timeout):
        assert num_returns == len(waiting)
        return waiting[:1], waiting[1:]

    def get(self, run):
        if run.seed == 2:
            raise self.exceptions.RayError("the machine was lost")
        return None if run.seed == 3 else f"outcome of {run}"

    def cancel(self, run, force):
        self.calls.append((run, force))

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass


def test_a_cluster_gives_the_outcome_of_each_run(monkeypatch):
    theirs, looks = Ray(), []
    monkeypatch.setitem(sys.modules, "ray", theirs)
    outcomes = on_ray(print, RUNS[1:4], lambda: looks.append(1), num_gpus=1)
    assert list(outcomes.values()) == ["outcome of random, seed 1", "the machine was lost", None]
    assert list(outcomes) == RUNS[1:4]
    assert len(looks) == 3
    assert theirs.calls == []


def test_a_cluster_of_the_user_is_left_running_and_rid_of_our_runs(monkeypatch):
    theirs = Ray()
    monkeypatch.setitem(sys.modules, "ray", theirs)

    def look():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_ray(print, RUNS[:2], look, num_gpus=1)
    assert theirs.options == {"num_cpus": 1, "num_gpus": 1, "max_retries": 0}
    here = [Run("random", seed, Path("nowhere").absolute()) for seed in (0, 1)]
    assert theirs.calls == [(run, True) for run in here]


@pytest.mark.parametrize(
    ("address", "begun", "has_our_path"),
    [(None, "local", True), ("ray://head", "ray://head", False)],
)
def test_a_cluster_is_the_one_that_is_named_or_our_own(monkeypatch, address, begun, has_our_path):
    theirs = Ray(
        is_initialized=lambda: False,
        init=lambda *given, runtime_env, **options: theirs.calls.append((given, runtime_env)),
        shutdown=lambda: theirs.calls.append("shutdown"),
    )
    monkeypatch.setitem(sys.modules, "ray", theirs)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert on_ray(print, [], print, num_gpus=0) == {}
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    assert theirs.calls == [((begun,), path if has_our_path else None), "shutdown"]


# ---- small parts ---------------------------------------------------------------------------------


def test_a_run_for_each_gpu_or_core_as_far_as_memory_goes(monkeypatch):
    monkeypatch.setattr(processes, "num_cores", lambda: 8)
    monkeypatch.setattr(processes, "num_that_fit", lambda: 6)
    given = (20, "cpu", 0), (20, "cuda", 4), (3, "cuda", 4), (3, "cpu", 0), (20, "mps", 0)
    assert [default_jobs(*one) for one in given] == [6, 4, 3, 3, 1]
    monkeypatch.undo()
    assert 1 <= num_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert num_cores() == os.cpu_count()


def test_memory_is_that_of_processes_like_this_one(monkeypatch):
    monkeypatch.setattr(processes, "left_in_groups", lambda *places: 10**12)
    sizes = {"MemAvailable": 7_000, "VmHWM": 2_000}
    monkeypatch.setattr(processes, "_kilobytes", lambda path, field: sizes[field])
    assert processes.num_that_fit() == 3
    monkeypatch.setattr(processes, "left_in_groups", lambda *places: 5_000 * 1024)
    assert processes.num_that_fit() == 2
    monkeypatch.undo()
    assert 0 < processes.num_that_fit() < 10_000


def group(folder, limit, used, names=("memory.max", "memory.current")):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used)):
        (folder / name).write_text(f"{value}\n")


def test_a_containers_memory_is_that_of_its_control_groups(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "root"
    assert processes.left_in_groups(membership, root) == sys.maxsize
    membership.write_text("0::/jobs/mine\n")
    group(root / "jobs" / "mine", "max", 5)
    assert processes.left_in_groups(membership, root) == sys.maxsize
    group(root / "jobs", 1000, 300)
    assert processes.left_in_groups(membership, root) == 700
    (root / "jobs" / "memory.stat").write_text("anon 100\ninactive_file 200\n")
    assert processes.left_in_groups(membership, root) == 900
    group(root, 100, 300)  # a container sees its own group at the top
    assert processes.left_in_groups(membership, root) == 0
    old = tmp_path / "old"
    membership.write_text("5:cpu,cpuacct:/a\n4:memory:/docker/abc\n")
    group(old / "memory", 900, 100, ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    assert processes.left_in_groups(membership, old) == 800


class Process:
    """Stands in for a process; the one that began last is the first to end."""

    at_work = []

    def __init__(self, run, outcome, begun):
        self.run, self.sentinel, self.begun = run, outcome, begun
        self.pid = None

    def start(self):
        self.pid = 1
        Process.at_work.append(self)
        self.begun.runs.append(self.run)
        self.begun.gpus.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        self.begun.at_a_time.append(len(Process.at_work))

    def is_alive(self):
        over = Process.at_work[-1] is self
        if over:
            Process.at_work.pop()
        return not over

    def kill(self):
        Process.at_work.remove(self)

    def join(self):
        assert self not in Process.at_work


@pytest.fixture
def begun(monkeypatch):
    """What processes are begun with, that are none; the third one dies."""
    monkeypatch.setattr(Process, "at_work", [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = SimpleNamespace(runs=[], threads=[], gpus=[], at_a_time=[])

    def prepared(one_run, run, num_threads, method):
        reader, writer = multiprocessing.Pipe(duplex=False)
        with writer:
            if run.seed != 2:
                writer.send(f"outcome of {run}" if run.seed % 2 else None)
        found.threads.append(num_threads)
        return processes._Begun(run, Process(run, reader, found), reader)

    monkeypatch.setattr(processes, "_prepared", prepared)
    monkeypatch.setattr(processes, "num_cores", lambda: 8)
    return found


@pytest.mark.parametrize(
    ("jobs", "gpus", "threads", "first_gpus"),
    [(3, ["0", "5"], 2, ["0", "5", "0"]), (16, [], 1, [None] * 16)],
)
def test_cores_are_shared_and_gpus_dealt_in_turn(begun, jobs, gpus, threads, first_gpus):
    looks = []
    outcomes = in_processes(print, RUNS, lambda: looks.append(1), jobs=jobs, gpus=gpus)
    assert begun.runs == RUNS
    assert set(begun.threads) == {threads}
    assert begun.gpus[:jobs] == first_gpus
    assert set(begun.gpus[jobs:]) == {first_gpus[-1]}  # the place that became free each time
    assert begun.at_a_time == [*range(1, jobs), *[jobs] * (21 - jobs)]
    assert looks
    died = outcomes.pop(RUNS[2])
    assert died == "its process ended abruptly: it crashed, or was killed, as when memory runs out"
    assert outcomes == {
        run: f"outcome of {run}" if run.seed % 2 else None for run in RUNS if run.seed != 2
    }


def test_an_error_ends_all_processes(begun):
    def look():
        raise ValueError("seen enough")

    with pytest.raises(ValueError, match="seen enough"):
        in_processes(print, RUNS, look, jobs=4)
    assert len(begun.runs) == 4
    assert Process.at_work == []


def test_ctrl_c_while_a_process_starts_ends_it_too(begun, monkeypatch):
    start = Process.start

    def interrupted(process):
        if len(begun.runs) == 2:
            raise KeyboardInterrupt
        start(process)
        if len(begun.runs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Process, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_processes(print, RUNS, print, jobs=4)
    assert len(begun.runs) == 2
    assert Process.at_work == []
    begun.runs[:] = RUNS[:2]
    with pytest.raises(KeyboardInterrupt):
        in_processes(print, RUNS, print, jobs=4)
    assert Process.at_work == []


@pytest.mark.parametrize("before", ["3", None])
def test_new_processes_see_a_gpu_and_this_one_what_it_saw(monkeypatch, before):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for gpu, seen in (("1", "1"), (None, before)):
        with processes.new_processes_see(gpu):
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_a_program_without_a_guard_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "name", processes.NAME)
    with pytest.raises(RuntimeError, match="begin it under `if __name__ == .__main__.:`"):
        run_comparison(tmp_path / "out")


@pytest.mark.slow
def test_a_program_that_begins_a_comparison_when_it_is_imported_ends(tmp_path):
    """Each process knows its name before it imports the program."""
    path = tmp_path / "program.py"
    path.write_text(f"from compare_run import *\nrun_comparison({str(tmp_path / 'out')!r}, jobs=4)")
    command, environment = [sys.executable, path], {**os.environ, "PYTHONPATH": PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count('begin it under `if __name__ == "__main__":`') == 4
    assert "4 of 4 runs failed" in done.stderr
    assert "its process ended abruptly" in done.stderr
    assert list(tmp_path.glob("out/*/*")) == []


def test_what_a_notebook_defines_cannot_travel(monkeypatch):
    typed = ModuleType("__main__")
    exec("def one_run(run): pass", vars(typed))
    monkeypatch.setitem(sys.modules, "__main__", typed)
    with pytest.raises(ValueError, match="cannot import what a notebook .* into a file and import"):
        processes.check_can_travel(typed.one_run)


def test_runs_that_go_on_have_as_many_threads_as_all_had(copied, inline, monkeypatch):
    monkeypatch.setattr(processes, "num_cores", lambda: 3)
    cut_to(copied / "random" / "seed_2" / "journal.jsonl", 9)
    run_comparison(copied)
    assert (inline.runs, inline.jobs) == (["random, seed 2"], [3])


def test_visible_gpus_are_called_as_the_variable_calls_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert processes.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8932f937")
    assert processes.visible_gpus() == ["3", "GPU-8932f937"]


def test_all_that_a_run_prints_goes_into_its_file(tmp_path, capfd):
    logger = logging.Logger("of a run")
    child = "import warnings; print('by a child'); warnings.warn('warned')"

    def one_run(run):
        print("printed")
        print("printed to what was kept", file=out)
        os.write(1, b"written\n")
        os.write(2, b"written as an error\n")
        logger.error("logged")
        subprocess.run([sys.executable, "-c", child], check=True)
        raise RuntimeError("failed")

    run = Run("random", 1, tmp_path / "run")
    run.folder.mkdir()
    (run.folder / "output.txt").write_text("from before\n")
    # As a program has them; those of pytest go past the descriptors.
    with (
        open(1, "w", closefd=False) as out,
        open(2, "w", closefd=False) as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        logger.addHandler(logging.StreamHandler(sys.stderr))
        assert work(one_run, run) == "RuntimeError: failed"
    text = (run.folder / "output.txt").read_text()
    assert text.startswith("from before\n")
    for words in ("printed\n", "what was kept\n", "written\n", "an error\n", "logged\n", "child\n"):
        assert words in text
    assert "UserWarning: warned" in text
    assert re.search(r"Traceback .*\nRuntimeError: failed\n", text, re.DOTALL)
    print("after", flush=True)
    os.write(2, b"also after\n")
    assert capfd.readouterr() == ("after\n", "also after\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def unfolding(ran, tmp_path):
    """A run folder whose journal comes to be, up to a line."""
    lines = (ran.out / "margin" / "seed_1" / "journal.jsonl").read_text().splitlines(keepends=True)
    run = Run("margin", 1, tmp_path / "margin" / "seed_1")
    run.folder.mkdir(parents=True)

    def unfold(num_lines):
        (run.folder / "journal.jsonl").write_text("".join(lines[:num_lines]))

    return run, unfold


def test_progress_is_a_line_a_cycle_and_none_for_what_was_there(unfolding, capsys):
    run, unfold = unfolding
    other = Run("random", 12, run.folder.parent / "nothing yet")
    unfold(4)
    seen = []
    with Progress([run, other], [run, other], "test_acc") as progress:
        for num_lines in (4, 5, 7, 7, 8, 12):
            unfold(num_lines)
            progress.look()
            seen.append(capsys.readouterr())
    lines = [out for out, _ in seen]
    assert [bool(line) for line in lines] == [False, False, False, False, True, True]
    assert re.fullmatch(r"margin, seed 1  \| cycle 2/3 \| labels 35 \| .* s\n", lines[4])
    assert re.fullmatch(r"margin, seed 1  \| cycle 3/3 \| labels 50 \| .* s\n", lines[5])
    assert {err for _, err in seen} == {""}


def test_progress_on_a_terminal_is_a_bar_a_run(unfolding, capsys, monkeypatch):
    run, unfold = unfolding
    unfold(4)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress([run], [run], "test_acc") as progress:
        for num_lines in (4, 8, 12):
            unfold(num_lines)
            progress.look()
    last = terminal.getvalue().split("\r")[-1]
    accuracy = read_records(run.folder / "journal.jsonl")[-2]["metrics"]["test_acc"]
    assert re.search(rf"margin, seed 1: .* 3/3 .*labels 50, test_acc {accuracy:.4f}", last)
    assert capsys.readouterr().out == ""


def test_progress_on_a_terminal_refuses_a_metric_that_was_not_logged(unfolding, monkeypatch):
    run, unfold = unfolding
    unfold(4)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with (
        pytest.raises(ValueError, match="margin, seed 1 has no 'val_acc' in cycle 1"),
        Progress([run], [run], "val_acc") as progress,
    ):
        progress.look()


def test_the_report_of_one_seed_says_that_it_is_sure_of_nothing(copied, no_executor):
    run_comparison(copied, seeds=[1])
    text = (copied / "summary.md").read_text()
    assert "One seed: no interval or test can be given; run at least two, better five." in text
    assert "±" not in text.split("\n\n", 2)[2]
    assert compare_run.SEEDS == [1, 2]
