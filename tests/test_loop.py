"""The loop on real Trainers: ask, tell, run, resume, and what it refuses."""

import json
import logging
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from toys import QUIET, TRAINER, Plain, Predicting, asked, events, loop_of, points_data, weights

from al_lightning import STRATEGIES, ActiveDataModule, Strategy
from al_lightning.prediction.tasks import TASKS
from al_lightning.strategies import find_strategy
from al_lightning.training.trainers import quiet

# ---- ask, tell, run ------------------------------------------------------------------------------


OF_CLASSES = [n for n in STRATEGIES if find_strategy(n).needs <= TASKS["multiclass"].gives]


@pytest.mark.parametrize("strategy", [n for n in OF_CLASSES if n != "score"])
def test_run_grows_the_labels_and_asks_nothing_after_the_last_fit(strategy):
    loop = loop_of(strategy=strategy, mc_samples=3, embedding_layer="net.3")
    results = loop.run()
    assert [result.cycle for result in results] == [1, 2, 3]
    assert [result.num_labeled for result in results] == [20, 35, 50]
    assert [len(result.query.indices) for result in results[:-1]] == [15, 15]
    assert results[-1].query is None
    assert loop.finished
    assert loop.ask() is None
    assert all({"train_loss", "test_acc"} == result.metrics.keys() for result in results)
    assert loop.data.num_labeled == 50


def test_a_strategy_says_before_training_what_it_lacks():
    """Nothing has been trained or written when the error comes."""

    def refused(message, **arguments):
        model, run_dir = Plain(), arguments.pop("run_dir", None)
        before = weights(model)
        with pytest.raises(ValueError, match=message):
            loop_of(model, run_dir=run_dir, **arguments).run()
        assert torch.equal(weights(model), before)

    refused(r"needs posterior samples.*got \(16, 3\); set mc_samples above 1", strategy="bald")
    refused(r"needs posterior samples.*got \(16, 1, 3\)", strategy="power_bald", mc_samples=1)
    refused("needs embeddings: name a layer with embedding_layer", strategy="core_set")
    refused("did you mean 'net.3'", strategy="core_set", embedding_layer="net.33")
    refused("'margin' takes no arguments", strategy="margin", strategy_args={"beta": 1})
    refused(
        "beta must be at least 0",
        strategy="power_bald",
        mc_samples=3,
        strategy_args={"beta": -1.0},
    )


def test_the_embedding_is_the_input_of_the_layer():
    seen = []

    def look(pool, num, generator):
        seen.append(pool)
        return torch.arange(num)

    model, data = Plain(), points_data()
    strategy = Strategy(look, {"embeddings": "embedding"}, labeled=("embeddings",))
    loop = loop_of(model, data, strategy=strategy, embedding_layer="net.3")
    loop.ask()
    pool, x = seen[-1], data.sets.train.tensors[0]
    model.eval()
    torch.testing.assert_close(pool.embeddings, model.net[:3](x[pool.indices]))
    torch.testing.assert_close(pool.labeled_embeddings, model.net[:3](x[data.labeled_indices]))
    assert not model.net[3]._forward_pre_hooks


def test_an_embedding_layer_that_prediction_does_not_pass_is_named_as_such():
    model = Plain()
    model.unused = torch.nn.Linear(4, 4)
    with pytest.raises(ValueError, match="16 rows here, but it was not called; name a layer that"):
        loop_of(model, strategy="core_set", embedding_layer="unused").run()


def test_under_mc_dropout_the_embedding_is_the_one_without():
    seen = []

    def look(pool, num, generator):
        seen.append(pool)
        return torch.arange(num)

    model, data = Plain(), points_data()
    strategy = Strategy(look, {"probs": "probs", "embeddings": "embedding"}, min_samples=2)
    loop_of(model, data, strategy=strategy, mc_samples=3, embedding_layer="net.3").ask()
    pool, x = seen[-1], data.sets.train.tensors[0]
    assert pool.probs.shape == (100, 3, 3)
    model.eval()
    torch.testing.assert_close(pool.embeddings, model.net[:3](x[pool.indices]))


def test_what_is_asked_is_what_gets_labeled():
    loop = loop_of()
    first = loop.ask()
    pool_before = set(loop.data.unlabeled_indices.tolist())
    assert set(first.indices) <= pool_before
    loop.tell(first.indices)
    assert set(loop.data.unlabeled_indices.tolist()) == pool_before - set(first.indices)


def test_the_query_holds_the_highest_scores_best_first():
    loop = loop_of(strategy="margin")
    query = loop.ask()
    with torch.inference_mode():
        x = loop.data.sets.pool.tensors[0]
        top = loop.model.eval()(x).softmax(-1).topk(2).values
    scores = 1 - (top[:, 0] - top[:, 1])
    expected = scores[loop.data.unlabeled_indices].topk(15).values
    torch.testing.assert_close(torch.tensor(query.scores), expected)
    torch.testing.assert_close(scores[query.indices], expected)


def test_asking_again_gives_the_same_query_without_training_again():
    loop = loop_of()
    query = loop.ask()
    before = weights(loop.model)
    assert loop.ask() == query
    assert torch.equal(weights(loop.model), before)


def test_labels_told_are_trained_on():
    loop = loop_of()
    query = loop.ask()
    loop.tell(query.indices, [2] * 15)
    assert loop.data.labels_of(query.indices) == [2] * 15
    later = [int(y) for _, ys in loop.data.train_dataloader() for y in ys]
    assert later.count(2) >= 15


def test_a_part_of_the_query_may_be_told_and_the_rest_returns_to_the_pool():
    loop = loop_of()
    query = loop.ask()
    loop.tell(query.indices[:4])
    assert loop.data.num_labeled == 24
    assert loop.ask().cycle == 2


@pytest.mark.parametrize(
    ("pick", "labels", "message"),
    [
        (lambda q, pool: [*q[:2], next(i for i in pool if i not in q)], None, "not asked for"),
        (lambda q, pool: [], None, "got none"),
        (lambda q, pool: q[:2], [1], "one an index, got 1 for 2"),
        (lambda q, pool: [q[0], q[0]], None, "must not repeat"),
    ],
)
def test_tell_refuses_and_changes_nothing(pick, labels, message):
    loop = loop_of()
    query = loop.ask()
    with pytest.raises(ValueError, match=message):
        loop.tell(pick(query.indices, loop.data.unlabeled_indices.tolist()), labels)
    assert loop.data.num_labeled == 20
    assert loop.ask() == query


def test_tell_needs_a_question():
    with pytest.raises(ValueError, match=r"call ask\(\) first"):
        loop_of().tell([1])


def test_an_empty_pool_ends_the_run():
    loop = loop_of(data=points_data(40), num_cycles=10)
    assert [result.num_labeled for result in loop.run()] == [20, 35, 40]
    assert loop.data.num_unlabeled == 0


def test_a_target_ends_the_run():
    with pytest.warns(UserWarning, match='the first fit has reached the target.*add "min" to it'):
        always = loop_of(target=("test_acc", 0.0)).run()
    assert len(always) == 1
    assert always[0].query is None
    assert len(loop_of(target=("test_acc", 1.1)).run()) == 3
    with pytest.raises(ValueError, match=r"got 'acc'; it logs \['test_acc', 'train_loss'\]"):
        loop_of(target=("acc", 0.5)).run()


@pytest.mark.parametrize(("value", "num"), [(100.0, 1), (0.0, 3)])
def test_a_target_may_be_reached_from_above(value, num):
    assert len(loop_of(target=("train_loss", value, "min")).run()) == num
    assert len(loop_of(target=("train_loss", value, "max")).run()) == (3 if num == 1 else 1)


def test_candidates_are_a_seeded_subset_and_the_right_rows_are_labeled():
    seen = []

    def watch(pool, num, generator):
        seen.append(pool)
        return torch.arange(num)

    results = loop_of(strategy=watch, candidate_size=30).run()
    again = loop_of(strategy=watch, candidate_size=30).run()
    assert asked(results) == asked(again)
    assert [len(pool) for pool in seen] == [16, 30, 30] * 2  # the first batch is a trial
    assert not torch.equal(seen[1].indices, seen[2].indices)
    for pool, query in zip(seen[1:3], asked(results)[:2], strict=True):
        assert query == pool.indices[:15].tolist()
        x = points_data().sets.pool.tensors[0][pool.indices]
        assert x.shape == (30, 4)


def test_candidate_scores_belong_to_their_rows():
    loop = loop_of(candidate_size=30)
    query = loop.ask()
    with torch.inference_mode():
        x = loop.data.sets.pool.tensors[0][query.indices]
        expected = 1 - loop.model.eval()(x).softmax(-1).amax(-1)
    torch.testing.assert_close(torch.tensor(query.scores), expected)


# ---- fresh trainers, cold and warm starts, randomness --------------------------------------------


class Starts(L.Callback):
    """Notes the weights that each fit begins with, and how many epochs it had."""

    seen: list = []  # on the class: the loop trains with copies of the callback

    def on_fit_start(self, trainer, pl_module):
        Starts.seen.append(weights(pl_module).clone())

    def on_fit_end(self, trainer, pl_module):
        Starts.seen.append(trainer.current_epoch)


@pytest.mark.parametrize("warm", [False, True])
def test_cold_starts_go_back_and_warm_starts_go_on(warm):
    Starts.seen = []
    model = Plain()
    given = weights(model).clone()
    loop = loop_of(model, trainer=partial(TRAINER, callbacks=[Starts()]), warm_start=warm)
    loop.ask()
    after_first = weights(model).clone()
    loop.tell(loop.ask().indices)
    loop.ask()
    first_start, first_epochs, second_start, second_epochs = Starts.seen
    assert (first_epochs, second_epochs) == (2, 2)
    assert torch.equal(first_start, given)
    assert torch.equal(second_start, after_first if warm else given)


def test_a_stateful_callback_in_a_partial_is_new_in_every_cycle():
    class StopAtOnce(EarlyStopping):
        epochs: list = []

        def on_fit_end(self, trainer, pl_module):
            StopAtOnce.epochs.append(trainer.current_epoch)

    # `mode=max` on a falling loss: the first fit stops after patience; a reused one after 1 epoch.
    stop = StopAtOnce("train_loss", mode="max", patience=3, check_on_train_epoch_end=True)
    loop_of(trainer=partial(L.Trainer, max_epochs=9, callbacks=[stop], **QUIET)).run()
    assert len(set(StopAtOnce.epochs)) == 1
    assert StopAtOnce.epochs[0] >= 3
    assert stop.wait_count == 0


def test_a_function_and_a_bare_lambda_make_trainers_too():
    def make(**arguments):
        return L.Trainer(max_epochs=1, **{**arguments, **QUIET})

    assert len(loop_of(trainer=make, num_cycles=2).run()) == 2
    assert len(loop_of(trainer=lambda: TRAINER(), num_cycles=2).run()) == 2


def test_equal_seeds_give_equal_runs_whatever_the_global_state():
    torch.manual_seed(1)
    first = loop_of(strategy="margin")
    first_results = first.run()
    torch.manual_seed(2)
    second = loop_of(strategy="margin")
    assert asked(second.run()) == asked(first_results)
    assert torch.equal(weights(first.model), weights(second.model))
    other = loop_of(strategy="random", seed=1)
    assert asked(other.run()) != asked(loop_of(strategy="random", seed=2).run())


def test_a_run_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    loop_of(num_cycles=2).run()
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- what is refused, before any training, with nothing written ----------------------------------


class Refusing(Plain):
    def training_step(self, batch, batch_idx):
        raise AssertionError("training began")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"strategy": "entrpy"}, ValueError, "did you mean 'entropy'"),
        ({"acquisition_size": 0}, ValueError, "acquisition_size must be at least 1, got 0"),
        ({"num_cycles": 0}, ValueError, "num_cycles must be at least 1, got 0"),
        ({"candidate_size": 3}, ValueError, "at least acquisition_size=15, got 3"),
        ({"trainer": TRAINER()}, TypeError, "a function that makes a new Trainer.*got Trainer"),
        ({"trainer": lambda: 3}, TypeError, "must make a lightning.Trainer, got int"),
        (
            {"trainer": lambda trainer=TRAINER(): trainer},
            ValueError,
            "found Trainer.* handed out twice",
        ),
        (
            {"trainer": lambda stop=EarlyStopping("x"): TRAINER(callbacks=[stop])},
            ValueError,
            "found EarlyStopping handed out twice",
        ),
        (
            {"trainer": partial(TRAINER, limit_predict_batches=3)},
            ValueError,
            "limit_predict_batches=3.*use candidate_size",
        ),
        (
            {"model": Predicting(lambda logits: "nothing")},
            ValueError,
            r"predict_step must return logits.*got str",
        ),
        (
            {"model": Predicting(lambda logits: logits.softmax(-1))},
            ValueError,
            "return the logits, or",
        ),
    ],
)
def test_mistakes_are_named_before_training_and_nothing_is_written(
    tmp_path, arguments, error, message
):
    with pytest.raises(error, match=message):
        loop_of(**{"model": Refusing(), "run_dir": tmp_path / "run", **arguments}).run()
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_refused_and_kept(tmp_path):
    loop_of(run_dir=tmp_path).ask()
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"must not hold a run.*ActiveLearningLoop.resume\('"):
        loop_of(run_dir=tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder that can be written.*is a file"):
        loop_of(run_dir=tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"can be written, got /proc/none/run \(.*name another"):
        loop_of(run_dir="/proc/none/run").ask()


def test_nan_in_the_scores_stops_the_run_and_the_split_is_as_before(tmp_path):
    data = points_data()
    loop = loop_of(data=data, run_dir=tmp_path)
    loop.tell(loop.ask().indices)
    bad = int(data.unlabeled_indices[17])
    before = data.pool.labeled_N.clone()
    data.sets.pool.tensors[0][bad] = float("inf")
    with pytest.raises(ValueError, match=rf"NaN or infinite, data-set indices \[{bad}\]"):
        loop.ask()
    assert torch.equal(data.pool.labeled_N, before)
    assert ("query", 2) not in events(tmp_path)


def test_the_journal_is_plain_json(tmp_path):
    loop_of(run_dir=tmp_path).run()
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["event"] for record in records] == [
        "start",
        *["fit", "test", "query", "labels"] * 2,
        *["fit", "test", "end"],
    ]
    assert records[0]["config"]["active"]["strategy"] == "least_confidence"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_deterministic_run_on_a_gpu_repeats_itself():
    trainer = partial(TRAINER, accelerator="gpu", devices=1, deterministic=True)
    first, second = (loop_of(trainer=trainer) for _ in range(2))
    assert asked(first.run()) == asked(second.run())
    assert torch.equal(weights(first.model), weights(second.model))


def test_options_are_attributes_and_fixed():
    loop = loop_of(strategy="margin", num_cycles=2)
    assert (loop.num_cycles, loop.strategy.name, loop.settings.strategy) == (2, "margin", "margin")
    with pytest.raises(AttributeError, match="must not change, got another num_cycles; make a new"):
        loop.num_cycles = 3
    loop.oracle = "files"  # who labels may change at any time
    assert loop.settings.oracle == "files"
    with pytest.raises(AttributeError, match="no attribute 'num_cicles'"):
        loop.num_cicles
    with pytest.raises(TypeError, match="'num_cicles'; did you mean 'num_cycles'"):
        loop_of(num_cicles=2)


def test_hyperparameters_that_cannot_be_pickled_are_left_out(tmp_path):
    class Data(ActiveDataModule):
        def __init__(self, transform):
            rows = points_data().sets
            super().__init__(rows.train, test_set=rows.test, initial_labeled_size=20)
            self.save_hyperparameters("transform")

    loop_of(data=Data(lambda x: x), run_dir=tmp_path).ask()
    checkpoint = torch.load(tmp_path / "cycle_1" / "weights.ckpt", weights_only=True)
    assert checkpoint["datamodule_hyper_parameters"] == {}


def test_names_that_users_take_are_free():
    class Data(ActiveDataModule):
        def __init__(self):
            rows = points_data().sets
            super().__init__(rows.train, test_set=rows.test, initial_labeled_size=20)
            self.labels = ["a", "b", "c"]

        def read(self, path):
            raise AssertionError("it is the user's own")

    assert len(loop_of(data=Data()).ask().indices) == 15


def test_quiet_holds_back_known_messages_alone_however_deep(caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, logger.name):
        with quiet():
            with quiet():  # as within a cycle
                pass
            L.Trainer(**QUIET, accelerator="cpu", precision="bf16-mixed")
            logger.info("Epoch 0, global step 2: 'val_loss' reached 0.5, saving model")
        logger.info("GPU available: False, used: False")
    assert [record.getMessage()[:7] for record in caplog.records] == ["Epoch 0", "GPU ava"]
