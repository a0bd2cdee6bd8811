"""Tasks: each form of prediction against a slow definition, whole runs, and what is refused."""

import csv
import warnings
from collections import namedtuple
from dataclasses import replace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from toys import QUIET, TRAINER

from al_lightning import (
    INVALID,
    SKIP,
    STRATEGIES,
    ActiveDataModule,
    ActiveLearningLoop,
    Ensemble,
    by_score,
    diverse,
    over_parts,
    power,
)
from al_lightning.acquisition import bald, core_set, entropy, gaussian_bald, margin
from al_lightning.prediction.first_look import FirstLook
from al_lightning.prediction.outputs import stacked
from al_lightning.prediction.read_pool import read_pool
from al_lightning.prediction.tasks import TASKS
from al_lightning.run.records import map_of
from al_lightning.strategies import find_strategy, needs_of
from al_lightning.training.trainers import quiet

draw = torch.Generator().manual_seed(0)
LOGITS = {
    "multiclass": torch.randn(5, 4, generator=draw) * 3,
    "binary": torch.randn(5, generator=draw) * 3,
    "multilabel": torch.randn(5, 4, generator=draw) * 3,
    "dense": torch.randn(5, 3, 2, 4, generator=draw) * 3,
    "tokens": torch.randn(5, 6, 3, generator=draw) * 3,
}
MASK = torch.arange(6) < torch.tensor([6, 1, 3, 6, 2])[:, None]


def entropy_of(probs):
    return -sum(p * p.log() for p in probs.double() if p > 0)


def yes_no(z):
    p = 1 / (1 + (-z.double()).exp())
    return entropy_of(torch.stack([p, 1 - p]))


def shares(z):
    return z.double().exp() / z.double().exp().sum()


DEFINITIONS = {
    "multiclass": lambda z_C: entropy_of(shares(z_C)),
    "binary": yes_no,
    "multilabel": lambda z_L: sum(map(yes_no, z_L)) / len(z_L),
    "dense": lambda z: (
        sum(entropy_of(shares(z[:, h, w])) for h in range(z.shape[1]) for w in range(z.shape[2]))
        / z[0].numel()
    ),
}


def scores(outputs, score):
    return outputs.column(score, needs_of(score))


@pytest.mark.parametrize("task", DEFINITIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_entropy_of_each_task_is_the_mean_over_parts(task, dtype):
    logits = LOGITS[task].to(dtype)
    found = scores(TASKS[task].read(logits, 5), entropy)
    expected = torch.stack([DEFINITIONS[task](row) for row in logits])
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


Named = namedtuple("Named", ["logits", "loss"])
PROBS = {
    "multiclass": LOGITS["multiclass"].softmax(-1),
    "binary": LOGITS["binary"].sigmoid(),
    "multilabel": LOGITS["multilabel"].sigmoid(),
    "dense": LOGITS["dense"].softmax(1),
}


@pytest.mark.parametrize("task", PROBS)
def test_every_form_of_a_prediction_reads_alike(task):
    logits, read = LOGITS[task], TASKS[task].read
    plain = read(logits, 5)
    forms = [{"logits": logits}, {"probs": PROBS[task]}, Named(logits, None), plain]
    if task == "binary":
        forms += [logits[:, None], {"probs": PROBS[task][:, None]}]
    for form in forms:
        torch.testing.assert_close(read(form, 5).probs, plain.probs)
    embedded = read({"logits": logits, "embedding": torch.ones(5, 2), "score": torch.ones(5)}, 5)
    assert (embedded.embedding.shape, embedded.score.shape) == ((5, 2), (5,))
    samples = read({"samples": torch.stack([logits, -logits], 1)}, 5)
    joined = stacked([plain, read(-logits)])
    assert samples.num_samples == 2
    torch.testing.assert_close(samples.probs, joined.probs)
    torch.testing.assert_close(scores(samples, margin), scores(joined, margin))


def test_tokens_leave_padding_out():
    read = TASKS["dense"].read
    logits = LOGITS["tokens"]
    found = scores(read({"logits": logits, "mask": MASK}, 5), entropy)
    expected = [
        sum(entropy_of(shares(z)) for z in row[there]) / there.sum()
        for row, there in zip(logits, MASK)
    ]
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)
    noise = torch.where(MASK[..., None], logits, torch.nan)  # as of a row of padding alone
    outputs = read({"logits": noise, "mask": MASK.long()}, 5)
    assert torch.equal(scores(outputs, entropy), found)
    assert outputs.is_finite.all()
    told = TASKS["dense"].predicted(outputs)
    torch.testing.assert_close(told[1], shares(logits[1, 0]).float())
    assert not read({"logits": noise, "mask": torch.ones(5, 6).bool()}, 5).is_finite.all()


def test_a_row_of_one_part_is_the_multiclass_case():
    logits = LOGITS["multiclass"]
    dense, plain = TASKS["dense"].read(logits[..., None]), TASKS["multiclass"].read(logits)
    for score in (entropy, margin, over_parts(margin, "max")):
        torch.testing.assert_close(scores(dense, score), scores(plain, score))


def test_numbers_are_read_in_every_form():
    read, mean, variance = TASKS["regression"].read, torch.randn(5, 2), torch.rand(5, 2) + 0.1
    both = [
        {"mean": mean, "variance": variance},
        (mean, variance),
        torch.distributions.Normal(mean, variance.sqrt()),
        namedtuple("Gauss", ["mean", "variance"])(mean, variance),
    ]
    for form in both:
        outputs = read(form, 5)
        torch.testing.assert_close((outputs.mean, outputs.variance), (mean, variance))
    assert read(mean[:, 0], 5).mean.shape == (5, 1)
    assert read({"logits": mean}, 5).variance is None
    samples = read({"samples": torch.stack([mean, mean + 2], 1)}, 5)
    torch.testing.assert_close(samples.mean_mean, mean + 1)
    torch.testing.assert_close(samples.deviation, torch.ones(5, 2))
    joined = stacked([read((mean, variance)), read((mean + 2, variance))])
    torch.testing.assert_close(joined.deviation, (variance + 1).sqrt())
    expected = [
        gaussian_bald(torch.stack([mean[:, o], mean[:, o] + 2], 1), variance[:, [o, o]])
        for o in range(2)
    ]
    torch.testing.assert_close(scores(joined, gaussian_bald), sum(expected) / 2)
    told = TASKS["regression"].predicted(joined)
    torch.testing.assert_close(told, torch.stack([mean + 1, (variance + 1).sqrt()], -1))
    assert TASKS["regression"].predicted(read(mean)).shape == (5, 2, 1)


def test_a_map_is_the_nearest_pixels_of_the_likeliest_classes():
    logits = LOGITS["dense"]
    found = TASKS["dense"].read(logits).map
    assert found.shape == (5, 64, 64)
    rows, columns = torch.arange(64) * 2 // 64, torch.arange(64) * 4 // 64
    assert torch.equal(found, logits.argmax(1)[:, rows][:, :, columns].byte())
    assert not TASKS["dense"].read({"logits": LOGITS["tokens"], "mask": MASK}).map.numel()


@pytest.mark.parametrize(
    ("task", "prediction", "message"),
    [
        ("binary", torch.zeros(5, 2), r"one logit a row.*task='multiclass', got .*\(5, 2\)"),
        ("binary", {"probs": torch.full((5,), 1.5)}, r"in \[0, 1\], found 1.5 to 1.5"),
        ("multilabel", torch.zeros(5, 2, 2), r"logits \(B, L\) of L yes/no.*\(5, 2, 2\)"),
        ("multilabel", {"probs": -torch.ones(5, 2)}, "probabilities of yes"),
        ("dense", torch.zeros(5, 3), r"\(B, C, \*S\) of pixels.*got a tensor of shape \(5, 3\)"),
        ("dense", {"logits": torch.zeros(5, 3, 2), "mask": torch.ones(5, 2)}, r"\(5, 3\) here"),
        ("dense", torch.zeros(5, 1, 8), "with C >= 2"),
        ("regression", torch.zeros(5, 2, 2), r"a mean \(B,\) or \(B, O\)"),
        ("regression", (torch.zeros(5, 1), -torch.ones(5, 1)), "found -1; if the network predicts"),
        ("regression", (torch.zeros(5, 1), torch.ones(5, 2)), "each mean must have a variance"),
        ("regression", [torch.zeros(5)], "got list"),
        ("multiclass", {"score": torch.zeros(5, 1)}, r"'score' must be \(5,\), got \(5, 1\)"),
        ("multiclass", {"samples": torch.zeros(5)}, r"'samples' must be \(B, K, ...\)"),
        ("multiclass", torch.zeros(4, 3), r"with B = 5 rows here, got .*\(4, 3\)"),
        ("multiclass", {"logits": torch.zeros(5, 3).long()}, "predict_step must return"),
    ],
)
def test_what_a_task_cannot_read_is_named(task, prediction, message):
    with pytest.raises(ValueError, match=message):
        TASKS[task].read(prediction, 5)


# ---- whole runs ----------------------------------------------------------------------------------


class Any(L.LightningModule):
    """Learns whatever ``loss`` says, and returns what ``make`` makes of its last layer."""

    def __init__(self, out, loss, make=lambda z: z, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, out)]
            self.net = nn.Sequential(*layers)
        self.loss, self.make = loss, make

    def forward(self, x):
        return self.make(self.net(x))

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


X = torch.randn(120, 8, generator=torch.Generator().manual_seed(1))
BCE = F.binary_cross_entropy_with_logits


def nll(z, y):
    return F.gaussian_nll_loss(z[:, 0], y, z[:, 1].exp())


def as_pixels(z):
    return z.view(-1, 3, 2, 2)


KINDS = {
    "binary": (1, lambda z, y: BCE(z[:, 0], y), lambda z: z, (X[:, 0] > 0).float()),
    "multilabel": (5, BCE, lambda z: z, (X[:, :5] > 0).float()),
    "dense": (
        12,
        lambda z, y: F.cross_entropy(as_pixels(z), y),
        as_pixels,
        (X[:, :4] > 0).long().view(-1, 2, 2) + 1,
    ),
    "regression": (2, nll, lambda z: (z[:, 0], z[:, 1].exp()), X[:, 0] * 2),
}
GENERAL = {"power(score)": power("score"), "diverse(score)": diverse("score", by=core_set)}


def data_of(task, **arguments):
    y = KINDS[task][3]
    sets = TensorDataset(X[:100], y[:100]), TensorDataset(X[100:], y[100:])
    return ActiveDataModule(sets[0], test_set=sets[1], initial_labeled_size=20, **arguments)


def module_of(task, make=None, seed=0):
    out, loss, own, _ = KINDS[task]
    return Any(out, loss, make or own, seed)


def loop_of(task, model=None, strategy="random", data=None, **options):
    options = {"acquisition_size": 6, "num_cycles": 2, "monitors": [], **options}
    model = module_of(task) if model is None else model
    data = data or data_of(task)
    return ActiveLearningLoop(model, data, trainer=TRAINER, task=task, strategy=strategy, **options)


def able(task):
    return [n for n in STRATEGIES if find_strategy(n).needs <= TASKS[task].gives and n != "score"]


@pytest.mark.parametrize("kind", ["dropout", "ensemble"])
@pytest.mark.parametrize(("task", "strategy"), [(t, s) for t in KINDS for s in able(t)])
def test_every_strategy_of_a_task_runs(task, strategy, kind):
    model, options = module_of(task), {"mc_samples": 3, "embedding_layer": "net.3"}
    if kind == "ensemble":
        if "embedding" in find_strategy(strategy).needs:
            pytest.skip("these members give no embedding")
        model = Ensemble([module_of(task, seed=seed) for seed in (1, 2)])
        options = {}
    first, last = loop_of(task, model, strategy, **options).run()
    assert len(set(first.query.indices)) == 6
    assert last.num_labeled == 26
    named = {"regression": {"test_mae", "test_mse"}}.get(task, {"test_acc", "test_loss"})
    expected = {"member_test_loss"} | named if kind == "ensemble" else {"test_loss"}
    assert set(last.metrics) == expected


@pytest.mark.parametrize("task", ["multilabel", "dense"])
def test_rows_are_asked_by_the_mean_over_their_parts(task):
    loop = loop_of(task, strategy="margin")
    query = loop.ask()
    with torch.inference_mode():
        logits = loop.model.eval()(X[:100])
    each = scores(TASKS[task].read(logits), margin)
    best = each[loop.data.unlabeled_indices].topk(6).values
    torch.testing.assert_close(torch.tensor(query.scores), best)


def test_the_test_of_an_ensemble_is_of_the_averaged_prediction():
    ensemble = Ensemble([module_of("multilabel", seed=seed) for seed in (1, 2)])
    loop = loop_of("multilabel", ensemble)
    loop.ask()
    x, y = loop.data.sets.test.tensors
    with torch.inference_mode():
        probs = sum(member.eval()(x).sigmoid() for member in ensemble.members) / 2
    metrics = loop.results[0].metrics
    assert metrics["test_acc"] == pytest.approx(((probs > 0.5) == (y > 0)).float().mean().item())
    assert metrics["test_loss"] == pytest.approx(F.binary_cross_entropy(probs, y).item(), abs=1e-5)
    numbers = Ensemble([module_of("regression", seed=seed) for seed in (1, 2)])
    loop = loop_of("regression", numbers)
    loop.ask()
    with torch.inference_mode():
        mean = sum(member.eval()(x)[0] for member in numbers.members) / 2
    error = mean - loop.data.sets.test.tensors[1]
    assert loop.results[0].metrics["test_mae"] == pytest.approx(error.abs().mean().item())
    assert loop.results[0].metrics["test_mse"] == pytest.approx(error.square().mean().item())


@pytest.mark.parametrize("strategy", ["score", *GENERAL.values()], ids=["score", *GENERAL])
def test_a_score_of_its_own_is_enough_for_any_module(strategy):
    model = module_of("regression", lambda z: {"score": z[:, 0].exp(), "embedding": z})
    loop = loop_of("multiclass", model, strategy, data_of("regression"))
    query = loop.ask()
    assert query.predicted is None
    if strategy == "score":
        with torch.inference_mode():
            own = loop.model.eval()(X[:100])["score"][loop.data.unlabeled_indices]
        torch.testing.assert_close(torch.tensor(query.scores), own.topk(6).values)


def test_a_pool_of_pixels_keeps_a_number_a_row_and_asks_with_maps(tmp_path):
    loop = loop_of("dense", strategy="entropy", run_dir=tmp_path / "run")
    with quiet():
        pool = read_pool(L.Trainer(**QUIET), loop.model, loop.data, loop.strategy, TASKS["dense"])
    assert {name: tuple(c.shape[1:]) for name, c in pool.columns.items()} == {
        "scores": (),
        "predicted": (3,),
    }
    query = loop.ask()
    assert [len(map_of(packed)) for packed in query.maps] == [64] * 6
    again = ActiveLearningLoop.resume(
        tmp_path / "run", module_of("dense"), data_of("dense"), trainer=TRAINER, monitors=[]
    )
    assert again.ask() == query


def test_a_strategy_that_a_task_does_not_have_names_those_that_it_has():
    for task, strategy in (("regression", "margin"), ("multilabel", "badge"), ("dense", "epig")):
        with pytest.raises(ValueError, match=rf"task='{task}' has, got .* it has \['random',"):
            loop_of(task, strategy=strategy)
    with pytest.raises(ValueError, match="which needs a predicted mean; it has"):
        loop_of("binary", strategy="predictive_variance")
    with pytest.raises(ValueError, match="task must be one of .* did you mean 'multilabel'"):
        loop_of("multilabel").settings.of({"task": "multi_label"})


REFUSED = {
    "a sigmoid": ("multilabel", lambda z: z.sigmoid(), None, "is the output of sigmoid; return"),
    "a part of one": ("binary", lambda z: torch.sigmoid(z)[:, 0], None, "the output of sigmoid"),
    "a softmax": ("dense", lambda z: as_pixels(z).softmax(1), None, "the output of softmax"),
    "too few": ("multilabel", lambda z: z[:, :4], None, r"4 yes/no labels .* of shape \(5,\)"),
    "log-variance": ("regression", lambda z: (z[:, 0], z[:, 1] - 9), None, "must not be below 0"),
    "a row without a part": (
        "dense",
        lambda z: {"logits": z.view(-1, 4, 3), "mask": torch.zeros(len(z), 4).long()},
        None,
        "whose mask leaves out all, data-set indices",
    ),
    "no variance": ("regression", lambda z: z[:, 0], "gaussian_bald", "needs mean and variance"),
    "no samples": ("multilabel", None, "bald", "needs posterior samples or ensemble members"),
}


@pytest.mark.parametrize(("task", "make", "strategy", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_before_training(task, make, strategy, message):
    strategy = strategy or ("greedy_outputs" if task == "regression" else "entropy")
    samples = 3 if strategy == "gaussian_bald" else None
    loop = loop_of(task, module_of(task, make), strategy, mc_samples=samples)
    loop._cycles.fit = None  # nobody gets there
    with pytest.raises(ValueError, match=message):
        loop.run()


def test_tokens_without_a_mask_are_told_from_signals():
    tags = (X[:, :4] > 0).long()
    data = ActiveDataModule(TensorDataset(X, tags), initial_labeled_size=20)
    tagger = Any(12, None, lambda z: z.view(-1, 4, 3))
    with pytest.raises(ValueError, match=r"here it is as long as a label, got \(64, 4, 3\)"):
        loop_of("dense", tagger, "margin", data).ask()


@pytest.mark.parametrize(
    ("task", "labels", "said"),
    [
        ("multiclass", KINDS["multilabel"][3], "one class, found .* such as 'multilabel'"),
        ("multiclass", KINDS["regression"][3], "one class, found .* such as 'regression'"),
        ("multiclass", KINDS["dense"][3], r"one class, found \[\[.* such as 'dense'"),
        ("binary", torch.arange(120) % 3, "0 for no or 1 for yes, found 2 .* such as 'multiclass'"),
        ("multilabel", torch.arange(120) % 3, "a list of zeros and ones.* such as 'multiclass'"),
        ("dense", torch.arange(120) % 3, "a list of classes, one for each part"),
        ("regression", ["a", "b"] * 60, "a finite number, or a list of them, found 'a'"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_named(task, labels, said):
    rows = list(zip(X, labels))
    data = ActiveDataModule(rows, initial_labeled_size=20)
    strategy = "greedy_outputs" if task == "regression" else "entropy"
    kind = "multilabel" if task == "multiclass" else task
    with pytest.raises(ValueError, match=f"a label of task='{task}' must be {said}"):
        loop_of(task, module_of(kind), strategy, data).ask()
    random = loop_of(task, module_of(kind), "random", ActiveDataModule(rows, initial_indices=[0]))
    random.prepare()  # it reads no prediction, so nothing is misread


def test_untrained_logits_that_happen_to_be_in_0_1_are_logits():
    model = module_of("binary")
    with torch.no_grad():
        model.net[3].weight.mul_(0.01)
        model.net[3].bias.fill_(0.5)
    assert loop_of("binary", model, "margin").ask()


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its journal does not know the option."""
    import json

    from toys import Plain, points_data

    parts = {"trainer": TRAINER, "monitors": [], "strategy": "margin"}
    loop = ActiveLearningLoop(
        Plain(), points_data(), run_dir=tmp_path, acquisition_size=5, num_cycles=2, **parts
    )
    loop.prepare()
    loop._run.release()
    path = tmp_path / "journal.jsonl"
    text = path.read_text()
    record = json.loads(text)
    assert record["config"]["active"].pop("task") == "multiclass"
    from al_lightning.run.journal import Journal

    path.unlink()
    event = record.pop("event")
    Journal(path).append(event, **{n: v for n, v in record.items() if n not in ("crc", "at_")})
    del parts["strategy"]
    again = ActiveLearningLoop.resume(tmp_path, Plain(), points_data(), **parts)
    assert len(again.run()) == 2


# ---- labels --------------------------------------------------------------------------------------


def test_people_answer_with_several_classes(tmp_path):
    data = data_of("multilabel", classes=["a", "b", "c", "d", "e"])
    loop = loop_of("multilabel", data=data, strategy="margin", oracle="files", run_dir=tmp_path)
    query = loop.ask()
    first, second, third = query.indices[:3]
    loop.answer({first: [1, 0, 0, 0, 1], second: SKIP, third: INVALID})
    for wrong in (1, [1, 0], [2, 0, 0, 0, 0]):
        with pytest.raises(ValueError, match=r"a label must be a list of 5 zeros and ones"):
            loop.answer({query.indices[3]: wrong})
    loop.finish()
    assert data.labels_of([first]) == [[1, 0, 0, 0, 1]]
    batch = next(iter(data.train_dataloader()))
    assert batch[1].dtype == torch.float32


def test_numbers_by_hand_have_the_form_of_the_data_sets_own():
    rows = TensorDataset(X, KINDS["regression"][3][:, None])  # (N, 1)
    data = ActiveDataModule(rows, initial_labeled_size=20)
    loop = loop_of("regression", Any(1, lambda z, y: F.mse_loss(z, y)), "random", data)
    query = loop.ask()
    loop.tell(query.indices, [0.5 * n for n in range(6)])
    batch = next(iter(data.train_dataloader()))
    assert batch[1].shape == (len(batch[0]), 1)
    data = ActiveDataModule(rows, initial_labeled_size=20)
    loop = loop_of("regression", Any(1, lambda z, y: F.mse_loss(z, y)), "random", data)
    (row, *_) = loop.ask().indices
    with pytest.raises(ValueError, match="a label must be a finite number"):
        loop.answer({row: float("inf")})


def test_a_mask_may_stay_in_its_file(tmp_path):
    masks = KINDS["dense"][3]

    class Masks(TensorDataset):
        def open_label(self, path):
            return torch.load(path)

    def labeled(query):
        paths = [tmp_path / f"{index}.pt" for index in query.indices]
        for path, index in zip(paths, query.indices):
            torch.save(masks[index] * 0 + 2, path)
        return [str(path) for path in paths]

    data = ActiveDataModule(Masks(X, masks), initial_labeled_size=20, batch_size=8)
    folder = tmp_path / "run"
    monitors = {"monitors": None}
    loop = loop_of("dense", None, "entropy", data, oracle=labeled, run_dir=folder, **monitors)
    loop.run()
    row = loop.results[0].query.indices[0]
    assert data.labels_of([row]) == [str(tmp_path / f"{row}.pt")]
    view = data.train_dataloader().dataset
    position = data.labeled_indices.tolist().index(row)
    assert torch.equal(view[position][1], torch.full((2, 2), 2))
    with open(folder / "queries" / "cycle_1.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert cells[0]["label"].endswith(f"{row}.pt")
    assert loop.records[-1]["event"] == "end"


# ---- dropout -------------------------------------------------------------------------------------


def test_attention_that_calls_no_dropout_layer_is_named_once():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=9, num_hidden_layers=1, **sizes)

    class Text(L.LightningModule):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.bert = BertForSequenceClassification(config)

        def forward(self, input_ids):
            return self.bert(input_ids)

        def training_step(self, batch, batch_idx):
            return self.bert(batch["input_ids"], labels=batch["label"]).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    ids = torch.randint(9, (40, 5), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": one, "label": int(one[0]) % 2} for one in ids]
    data = ActiveDataModule(rows, initial_labeled_size=10)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loop = loop_of("multiclass", Text(), "bald", data, mc_samples=3, num_cycles=3)
        results = loop.run()
    found = [str(one.message) for one in said if "MC dropout samples" in str(one.message)]
    assert len(found) == 1
    assert "stays off in prediction: bert.bert.encoder.layer.0.attention.self.dropout" in found[0]
    assert max(results[0].query.scores) > 0


def test_lstm_and_attention_dropout_inside_is_named():
    class Sequence(Any):
        def __init__(self):
            super().__init__(3, F.cross_entropy)
            self.rnn = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)

        def forward(self, x):
            return self.net(self.rnn(x[:, None])[0][:, 0])

    rows = TensorDataset(X, torch.arange(120) % 3)
    loop = loop_of(
        "multiclass", Sequence(), "bald", ActiveDataModule(rows, initial_labeled_size=20),
        mc_samples=2,
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"stays off in prediction: rnn \(LSTM\)"):
        loop.prepare()


def test_samples_and_members_differ_and_scores_of_samples_see_it():
    loop = loop_of("multilabel", strategy=by_score(over_parts(bald, "max")), mc_samples=4)
    assert find_strategy(loop.strategy).min_samples == 2
    assert min(loop.ask().scores) > 0
    tokens = {"logits": LOGITS["tokens"]}
    members = [TASKS["dense"].read({**tokens, "mask": m}) for m in (MASK, MASK | ~MASK)]
    with pytest.raises(ValueError, match="samples of a row must be of the same parts"):
        stacked(members)


# ---- half precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_in_half_precision_are_told_once_and_logits_are_widened(dtype):
    logits = torch.randn(180, 10, generator=torch.Generator().manual_seed(0)) * 3
    task = replace(TASKS["multiclass"], look=FirstLook(None))
    with pytest.warns(UserWarning, match=rf"should come in float32, found {dtype}") as caught:
        tied = task.read({"probs": logits.to(dtype).softmax(-1)}).probs
    task.read({"probs": logits.to(dtype).softmax(-1)})  # a second warning would be an error
    assert len(caught) == 1
    wide = task.read(logits.to(dtype)).probs
    assert wide.dtype == torch.float32
    assert margin(tied).unique().numel() < margin(wide).unique().numel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.read({"probs": logits.softmax(-1)})
