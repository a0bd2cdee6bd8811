"""Queries that are asked again: under another model, from Python and by the command line."""

import pickle
import re

import pytest
import torch
from compare_run import SEEDS, Net, Points
from toys import asked, loop_of

from al_lightning.compare.cli import CompareCLI
from al_lightning.compare.replayed import SplitAsBefore
from al_lightning.run.journal import read_records
from al_lightning.strategies import find_strategy, replay

FLAGS = [
    "--trainer.max_epochs=1",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--jobs=1",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run that asked for 15 rows and then for 20."""
    folder = tmp_path_factory.mktemp("source") / "run"
    loop = loop_of(data=Points(), run_dir=folder, strategy="margin", acquisition_size=[15, 20])
    loop.run()
    return folder, asked(loop.results)


def test_another_model_learns_from_the_same_rows(source):
    folder, queries = source
    strategy = {"strategy": "replay", "strategy_args": {"run_dir": str(folder)}}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = Net(lr=0.1)
    loop = loop_of(model, Points(), acquisition_size=[15, 20], **strategy)
    assert asked(loop.run()) == queries
    again = loop_of(data=Points(), strategy=replay(folder), acquisition_size=99)
    assert asked(again.run()) == queries


def test_other_first_rows_are_refused_before_the_query_is_asked(source):
    folder, _ = source
    loop = loop_of(data=Points(seed=1), strategy=replay(folder))
    with pytest.raises(ValueError, match="asked again must be in the pool, found row"):
        loop.run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_dir": "nowhere"}, "nowhere holds no run whose queries to ask"),
        ({"folder": "nowhere"}, r"'replay' takes \['run_dir'\], got \['folder'\]"),
        ({}, "strategy must be one of"),
    ],
)
def test_a_run_that_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_strategy("replay", arguments)


def test_a_run_without_queries_is_refused(tmp_path):
    loop_of(data=Points(), run_dir=tmp_path, num_cycles=1).run()
    with pytest.raises(ValueError, match="must have some, found none"):
        replay(tmp_path)


def compare(tmp_path, source, *flags, data=Points):
    given = [f"--queries_from={source[0]}", f"--out={tmp_path}", "--strategies=random", *FLAGS]
    seeds = ",".join(map(str, SEEDS))
    with torch.random.fork_rng():
        return CompareCLI(Net, data, args=[*given, f"--seeds={seeds}", *flags])


@pytest.mark.filterwarnings("ignore:the runs of all seeds began with the same labels")
def test_the_command_line_compares_the_queries_with_others(tmp_path, source):
    """Each run begins with the source's labels and asks for as many rows; weights differ."""
    flags = ["--model.lr=0.05", "--active.candidate_size=30"]  # which are for the others
    cli = compare(tmp_path, source, *flags)
    assert set(cli.comparison.curves) == {"random", "replay"}
    assert cli.comparison.num_labeled == (20, 35, 55)
    starts, queries = {}, {}
    for seed in SEEDS:
        records = read_records(tmp_path / "replay" / f"seed_{seed}" / "journal.jsonl")
        starts[seed] = records[0]
        queries[seed] = [r["indices"] for r in records if r["event"] == "query"]
    assert queries[1] == queries[2] == source[1][:2]
    assert starts[1]["split"] == starts[2]["split"]
    assert starts[1]["weights"] != starts[2]["weights"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.initial_labeled_size=30"], "must begin with the 20 labels of .*found 30 labels"),
        (["--data.num_rows=100"], "must begin with the 20 labels|the same data alone"),
        (["--queries_from=nowhere"], "nowhere holds no run"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(tmp_path, source, flags, message, capfd):
    if flags[0].startswith("--queries_from"):
        source, flags = ["nowhere"], []
    with pytest.raises(SystemExit) as exit:
        compare(tmp_path, source, *flags)
    assert exit.value.code == 2
    assert re.search(message, capfd.readouterr().err)


def test_a_program_with_runs_of_its_own_says_what_to_do(tmp_path, source, capfd):
    class Own(CompareCLI):
        run_class = SplitAsBefore

    given = [f"--queries_from={source[0]}", f"--out={tmp_path}", "--strategies=random", *FLAGS]
    with torch.random.fork_rng(), pytest.raises(SystemExit):
        Own(Net, Points, args=given)
    assert "compare with replay(run_dir) in Python" in capfd.readouterr().err


def test_replay_travels_to_other_processes(source):
    strategy = pickle.loads(pickle.dumps(replay(source[0])))
    assert [start for start, _ in strategy.stages] == [0, 35]
    assert strategy.needs == frozenset()
