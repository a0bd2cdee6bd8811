"""A run may get another budget, target or strategy when it is resumed, and goes on with it."""

import shutil

import pytest
import torch
from toys import TRAINER, Plain, asked, events, loop_of, points_data, weights

from al_lightning import STRATEGIES, ActiveLearningLoop, by_score, diverse
from al_lightning.acquisition import core_set, margin
from al_lightning.label.answers import OpenQuery
from al_lightning.run.folder import claim_version, shown
from al_lightning.run.journal import Journal, read_records
from al_lightning.run.lock import unlock


def resume(run_dir, model=None, **arguments):
    arguments = {"trainer": TRAINER, "monitors": [], **arguments}
    return ActiveLearningLoop.resume(run_dir, model or Plain(), points_data(), **arguments)


def same(results, others):
    assert asked(results) == asked(others)
    assert [r.metrics for r in results] == [r.metrics for r in others]
    assert [r.cycle for r in results] == [r.cycle for r in others]


@pytest.mark.parametrize("warm_start", [True, False])
def test_an_extended_run_is_as_one_that_began_with_more(tmp_path, warm_start):
    whole = loop_of(num_cycles=4, warm_start=warm_start)
    results = whole.run()
    first = loop_of(num_cycles=2, run_dir=tmp_path, warm_start=warm_start)
    first.run()
    assert first.finished
    assert asked(first.results)[-1] is None
    longer = resume(tmp_path, num_cycles=4)
    assert not longer.finished
    same(longer.run(), results)
    assert torch.equal(weights(longer.model), weights(whole.model))
    assert longer.finished
    assert [event for event, _ in events(tmp_path)].count("end") == 2
    same(resume(tmp_path).run(), results)
    assert resume(tmp_path).num_cycles == 4


def test_killed_after_any_event_an_extended_run_ends_the_same(tmp_path):
    whole = loop_of(num_cycles=3)
    results = whole.run()
    loop_of(num_cycles=1, run_dir=tmp_path / "a").run()
    resume(tmp_path / "a", num_cycles=3).run()
    lines = (tmp_path / "a" / "journal.jsonl").read_text().splitlines(keepends=True)
    for cut in range(4, len(lines) + 1):
        run_dir = tmp_path / f"cut_{cut}"
        shutil.copytree(tmp_path / "a", run_dir)
        (run_dir / "journal.jsonl").write_text("".join(lines[:cut]))
        again = resume(run_dir, Plain(seed=9), num_cycles=3)
        same(again.run(), results)
        assert torch.equal(weights(again.model), weights(whole.model))


def test_a_change_that_does_not_lift_the_end_ends_again(tmp_path):
    results = loop_of(num_cycles=2, run_dir=tmp_path).run()
    same(resume(tmp_path, acquisition_size=7).run(), results)
    assert [event for event, _ in events(tmp_path)][-3:] == ["end", "settings", "end"]


def test_later_queries_are_chosen_in_another_way(tmp_path):
    loop = loop_of(run_dir=tmp_path, num_cycles=4)
    loop.tell(loop.ask().indices)
    other = resume(tmp_path, strategy="entropy", acquisition_size=7, candidate_size=40)
    query = other.ask()
    assert len(query.indices) == 7
    changes = read_records(tmp_path / "journal.jsonl")[-4]
    assert changes["event"] == "settings"
    assert changes["changes"] == {
        "strategy": "entropy",
        "acquisition_size": 7,
        "candidate_size": 40,
    }
    unlock(tmp_path)
    again = resume(tmp_path)
    assert (again.settings.strategy, again.acquisition_size) == ("entropy", 7)
    assert again.ask() == query


def test_a_query_waits_through_a_change(tmp_path):
    query = loop_of(run_dir=tmp_path).ask()
    again = resume(tmp_path, num_cycles=5)
    assert again.ask() == query
    assert OpenQuery(Journal(tmp_path / "journal.jsonl")).indices == query.indices
    again.tell(query.indices)
    assert len(again.run()) == 5


def test_an_interrupted_fit_goes_on_after_a_change(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("start", split={}, config={})
    before = journal.history
    journal.append("settings", cycle=0, changes={"num_cycles": 9})
    assert journal.history == before
    assert Journal(tmp_path / "journal.jsonl").history == before


def test_a_misspelt_target_is_mended_on_resume(tmp_path):
    with pytest.raises(ValueError, match=r"got 'test_ac'; it logs .*did you mean 'test_acc'\? res"):
        loop_of(run_dir=tmp_path, target=("test_ac", 2.0)).run()
    unlock(tmp_path)
    with pytest.raises(ValueError, match="got 'test_ac'"):
        resume(tmp_path).run()
    unlock(tmp_path)
    again = resume(tmp_path, target=("test_acc", 2.0))
    same(again.run(), loop_of().run())
    assert resume(tmp_path).settings.target == ["test_acc", 2.0]


def test_a_loss_that_ended_a_run_gets_its_direction(tmp_path):
    with pytest.warns(UserWarning, match='the first fit has reached.*"min"'):
        loop_of(run_dir=tmp_path, target=("train_loss", 0.001)).run()
    assert len(resume(tmp_path, target=("train_loss", 0.001, "min")).run()) == 3


@pytest.mark.parametrize(
    "target", [("acc",), ("acc", 0.5, "up"), (0.5, "acc"), ("acc", "0.5"), ("acc", 0.5, "min", 1)]
)
def test_a_target_of_another_form_is_refused(target):
    with pytest.raises(ValueError, match=r'and, if it is to fall, "min", such as'):
        loop_of(target=target)


# ---- strategies that a journal cannot make -------------------------------------------------------


def test_a_composed_strategy_must_be_given_again(tmp_path):
    composed = diverse(margin, by=core_set)
    loop = loop_of(run_dir=tmp_path, strategy=composed, embedding_layer="net.3")
    loop.tell(loop.ask().indices)
    unlock(tmp_path)
    words = r"composed cannot be made from its name, got 'diverse.*strategy=diverse\(margin, by=co"
    with pytest.raises(ValueError, match=words):
        resume(tmp_path)
    expected = loop_of(strategy=composed, embedding_layer="net.3").run()
    same(resume(tmp_path, strategy=composed).run(), expected)


@pytest.mark.parametrize("name", ["", " "])
def test_a_strategy_needs_a_name(tmp_path, name, monkeypatch):
    with pytest.raises(ValueError, match="must have a name"):
        loop_of(strategy=name)
    loop_of(run_dir=tmp_path).ask()
    with pytest.raises(ValueError, match="must have a name"):
        resume(tmp_path, strategy=name)
    monkeypatch.setitem(STRATEGIES, name, by_score(margin))
    with pytest.raises(ValueError, match="must have a name"):
        loop_of(strategy=name)


def test_arguments_that_a_journal_cannot_keep_are_refused():
    with pytest.raises(ValueError, match=r"strategy_args must be plain values.*partial\(select"):
        loop_of(strategy="power_bald", strategy_args={"beta": torch.tensor(1.0)}, mc_samples=2)


# ---- folders -------------------------------------------------------------------------------------


def test_two_programs_never_get_one_folder(tmp_path):
    assert [claim_version(tmp_path / "runs").name for _ in range(3)] == [
        "version_0",
        "version_1",
        "version_2",
    ]


def test_a_run_stays_in_its_folder_after_a_chdir(tmp_path, monkeypatch):
    class Moves(Plain):
        def on_train_start(self):
            monkeypatch.chdir(elsewhere)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    loop = loop_of(Moves(), run_dir="run")
    results = loop.run()
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "run" / "cycle_3" / "weights.ckpt").exists()
    assert loop.run_dir == tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    assert shown(loop.run_dir) == "run"
    same(resume("run").results, results)
