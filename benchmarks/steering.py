"""Steering on MNIST: rows that mislead, a class that is rare, when to stop, labels in doubt.

blends    2,000 of 20,000 pictures are means of two digits, labeled at random. ``mix(random .2,
          margin .8)`` should ask for fewer of them than ``margin`` and be no worse on clean digits.
rare      A class is 1 % of 18,000 pictures. ``direct`` should find 20 of it with a third of
          random's labels and beat ``margin`` in balanced accuracy.
stop      ``stop_when=["stable"]`` should end a run within 20 % of the labels with which its
          accuracy is within .002 of the best. The rule is asked of the results of a long run: it
          is a function of them.
doubts    5 % of 2,000 labels are wrong. At least half of them should be among the first tenth of
          the labels in doubt.

Each finished run is saved, and one that the file holds is not repeated.

python benchmarks/steering.py blends rare stop doubts       # five seeds, about an hour of two cores
"""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import RESULTS, ROOT, Record, SavedRuns, arguments, header, numbers, verdict
from torchmetrics.classification import MulticlassAccuracy

from al_lightning import ActiveDataModule, ActiveLearningLoop, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist.datamodule import DigitImages
from al_lightning.run.records import CycleResult
from al_lightning.run.stop_rules import rule_of
from al_lightning.statistics import mean_interval
from al_lightning.training.trainers import quiet

TRAINER = partial(
    L.Trainer,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
RARE, NUM_RARE = 9, 20
MIX = {"strategy": "mix", "strategy_args": {"shares": {"random": 0.2, "margin": 0.8}}}
SIDES: dict[str, dict[str, dict[str, Any]]] = {
    "blends": {"margin": {"strategy": "margin"}, "mix": MIX, "random": {"strategy": "random"}},
    "rare": {name: {"strategy": name} for name in ("direct", "margin", "random")},
    "stop": {"margin": {"strategy": "margin", "stop_when": ["stable"]}},
    "doubts": {"in training": {"labels_in_doubt": True}},
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", nargs="+", choices=list(SIDES))
    parser.add_argument("--seeds", type=numbers, default=[42, 43, 44, 45, 46])
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data")
    parser.add_argument("--output", type=Path, help="folder of the results", default=RESULTS)
    args = parser.parse_args()
    source = ActiveMNISTDataModule(args.data_dir)
    source.ensure_read()
    train, test = source.sets.train, source.sets.test
    assert isinstance(train, DigitImages)
    assert isinstance(test, DigitImages)
    print(header(), flush=True)
    for what in args.what:
        saved = SavedRuns(args.output / f"steering_{what}.json", sides=SIDES[what])
        for seed in args.seeds:
            for side, options in SIDES[what].items():
                if f"{side} {seed}" not in saved.runs:
                    with quiet():
                        found = RUNS[what](train, test, seed, options)
                    saved.save(f"{side} {seed}", found)
                    print(what, side, seed, found.get("told", ""), flush=True)
        runs = {s: [saved.runs[f"{s} {seed}"] for seed in args.seeds] for s in SIDES[what]}
        REPORTS[what](runs)


def loop_of(data: ActiveDataModule, seed: int, **options: Any) -> ActiveLearningLoop:
    """Return a loop of the small CNN under the default recipe."""
    epochs = options.pop("max_epochs", 6)
    make = partial(LitSimpleCNN, lr=3e-3, dropout=0.5, schedule="one_cycle", augment=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
    model.test_acc = MulticlassAccuracy(10, average=options.pop("average", "micro"))
    trainer = partial(TRAINER, max_epochs=epochs)
    return ActiveLearningLoop(model, data, trainer=trainer, seed=seed, monitors=[], **options)


def curve(results: list[CycleResult]) -> Record:
    """Return the sizes and metrics of a run, for a file."""
    return {
        "num_labeled": [one.num_labeled for one in results],
        "metrics": [one.metrics for one in results],
    }


# ---- rows that mislead ---------------------------------------------------------------------------


def run_blends(train: DigitImages, test: DigitImages, seed: int, options: Record) -> Record:
    """Return the curve, and how many blends were asked."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train), generator=draw)[:22_000]
    pixels, labels = train.images_NHW[rows], train.targets[rows]
    first, second = pixels[18_000:20_000], pixels[20_000:]
    blends = (first.int() + second.int()).div(2, rounding_mode="floor").to(torch.uint8)
    pool = DigitImages(
        torch.cat([pixels[:18_000], blends]),
        torch.cat([labels[:18_000], torch.randint(10, (2000,), generator=draw)]),
    )
    data = ActiveDataModule(
        pool, test_set=test, initial_labeled_size=500, eval_batch_size=128, seed=seed
    )
    sizes = {"acquisition_size": 250, "num_cycles": 7, "warm_start": True}
    loop = loop_of(data, seed, **sizes, **options)
    results = loop.run()
    asked = [row for one in results if one.query for row in one.query.indices]
    blended = sum(row >= 18_000 for row in asked)
    return {**curve(results), "share": blended / len(asked), "told": blended}


def report_blends(runs: dict[str, list[Record]]) -> None:
    """Shares of blends and clean accuracy."""
    shares = {side: [one["share"] for one in found] for side, found in runs.items()}
    last = {side: [one["metrics"][-1]["test_acc"] for one in found] for side, found in runs.items()}
    for side in runs:
        share, accuracy = mean_interval(shares[side]), mean_interval(last[side])
        print(f"{side:<8} blends asked {told(share, '.3f')}  clean accuracy {told(accuracy)}")
    fall = mean_interval([a - b for a, b in zip(shares["margin"], shares["mix"], strict=True)])
    gain = mean_interval([a - b for a, b in zip(last["mix"], last["margin"], strict=True)])
    print(f"margin's share less mix's {told(fall, '.3f')}  {verdict(fall.mean, at_least=0)}")
    # No worse: the interval of the difference holds 0.
    print(f"mix's accuracy less margin's {told(gain)}  {verdict(gain.high or 0, at_least=0)}")


# ---- a class that is rare ------------------------------------------------------------------------


def run_rare(train: DigitImages, test: DigitImages, seed: int, options: Record) -> Record:
    """Return the curve, and by number of labels how many of the rare class are labeled."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=draw)
    targets = train.targets[order]
    kept = [order[targets == c][: 180 if c == RARE else 1980] for c in range(10)]
    rows = torch.cat(kept)[torch.randperm(180 + 9 * 1980, generator=draw)]
    pool = DigitImages(train.images_NHW[rows], train.targets[rows])
    data = ActiveDataModule(
        pool, test_set=test, initial_labeled_size=200, eval_batch_size=128, seed=seed
    )
    is_random = options["strategy"] == "random"
    # Random goes on, on its last cycle's network, until it has found as many.
    sizes = {"acquisition_size": 100, "num_cycles": 9, "warm_start": True, "average": "macro"}
    loop = loop_of(data, seed, **sizes, **options)
    results = loop.run()
    known = data.labeled_indices.tolist()
    order_of_labels = known[:0]
    first = set(known).difference(row for one in results if one.query for row in one.query.indices)
    order_of_labels = [*first, *(row for one in results if one.query for row in one.query.indices)]
    if is_random:
        rest = data.unlabeled_indices
        order_of_labels += rest[torch.randperm(len(rest), generator=draw)].tolist()
    count, needed = 0, None
    for number, row in enumerate(order_of_labels, start=1):
        count += int(pool.targets[row] == RARE)
        if count == NUM_RARE and needed is None:
            needed = number
    found = {**curve(results), "needed": needed, "told": needed}
    return {**found, "num_rare": int((pool.targets[data.labeled_indices] == RARE).sum())}


def report_rare(runs: dict[str, list[Record]]) -> None:
    """Labels to 20 of the rare class, and balanced accuracy."""
    for side, found in runs.items():
        last = mean_interval([one["metrics"][-1]["test_acc"] for one in found])
        area = mean_interval([sum(m["test_acc"] for m in one["metrics"]) / 9 for one in found])
        print(
            f"{side:<8} labels to {NUM_RARE} {[one['needed'] for one in found]}  of it in the end "
            f"{[one['num_rare'] for one in found]}  balanced accuracy {told(last)}, over the curve "
            f"{told(area)}"
        )
    ratios = [
        r["needed"] / d["needed"] for r, d in zip(runs["random"], runs["direct"], strict=True)
    ]
    mean = mean_interval(ratios)
    print(f"labels of random / of direct {told(mean, '.2f')}  {verdict(mean.mean, at_least=3)}")
    pairs = list(zip(runs["direct"], runs["margin"], strict=True))
    gains = [
        [x["test_acc"] - y["test_acc"] for x, y in zip(a["metrics"], b["metrics"], strict=True)]
        for a, b in pairs
    ]
    for when, values in {
        "over the curve": [sum(one) / len(one) for one in gains],
        "at the end": [one[-1] for one in gains],
    }.items():
        gain = mean_interval(values)
        print(f"balanced accuracy over margin, {when}: {told(gain)}", end="  ")
        print(verdict(gain.mean, at_least=0))


# ---- when to stop --------------------------------------------------------------------------------


def run_stop(train: DigitImages, test: DigitImages, seed: int, options: Record) -> Record:
    """Return the curve of a long run, with the agreement of successive models."""
    data = ActiveDataModule(
        train,
        test_set=test,
        val_size=5000,
        initial_labeled_size=1000,
        eval_batch_size=128,
        seed=seed,
    )
    # No mean of kappas reaches 1, so the run goes on, and the rule is asked afterwards.
    long = {**options, "stop_when": [{"stable": {"threshold": 1.0}}]}
    sizes = {"acquisition_size": 500, "num_cycles": 13, "warm_start": True}
    results = loop_of(data, seed, candidate_size=20_000, **sizes, **long).run()
    return {**curve(results), "told": [round(m.get("stop_kappa", 0), 4) for m in metrics(results)]}


def metrics(results: list[CycleResult]) -> list[dict[str, float]]:
    return [one.metrics for one in results]


def report_stop(runs: dict[str, list[Record]]) -> None:
    """Where the rule stops, and where accuracy is within .002 of the best."""
    for window in (3, 4, 5):  # chosen on the validation rows
        rule = {"stable": {"window": window}}
        off = [abs(ended(one, rule, "val_acc")[2]) for one in runs["margin"]]
        print(f"window {window}, validation rows: off by {sum(off) / len(off):.3f} on average")
    off = []
    for one in runs["margin"]:
        enough, stop, share = ended(one, "stable", "test_acc")
        off.append(share)
        print(f"enough at {enough:,}, stops at {stop:,}: {share:+.0%}")
    mean, worst = mean_interval(off), max(map(abs, off))
    print(f"labels too many, mean {told(mean, '.2f')}  {verdict(abs(mean.mean), at_most=0.2)}")
    print(f"the farthest seed {worst:.2f}  {verdict(worst, at_most=0.2)}")


def ended(run: Record, rule: Any, metric: str) -> tuple[int, int, float]:
    """Return the labels that are enough, those at which a rule stops, and the share too many."""
    holds = rule_of(rule).holds
    sizes, found = run["num_labeled"], run["metrics"]
    results = [CycleResult(n + 1, s, m) for n, (s, m) in enumerate(zip(sizes, found, strict=True))]
    ends = [sizes[n] for n in range(len(sizes)) if holds(results[: n + 1])]
    best = max(one[metric] for one in found)
    enough = next(s for s, m in zip(sizes, found, strict=True) if m[metric] >= best - 0.002)
    stop = ends[0] if ends else sizes[-1]
    return enough, stop, stop / enough - 1


# ---- labels in doubt -----------------------------------------------------------------------------


def run_doubts(train: DigitImages, test: DigitImages, seed: int, options: Record) -> Record:
    """Return the share of wrong labels that are among the first tenth of the list."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train), generator=draw)[:20_000]
    targets = train.targets[rows].clone()
    wrong = torch.rand(len(rows), generator=draw) < 0.05
    shift = torch.randint(1, 10, (len(rows),), generator=draw)
    targets[wrong] = (targets[wrong] + shift[wrong]) % 10
    pool = DigitImages(train.images_NHW[rows], targets)
    data = ActiveDataModule(
        pool, test_set=test, initial_labeled_size=1000, eval_batch_size=128, seed=seed
    )
    sizes = {"strategy": "margin", "acquisition_size": 500, "num_cycles": 3, "warm_start": True}
    results = loop_of(data, seed, **sizes, **options).run()
    labeled = data.labeled_indices
    tenth = [int(row) for row, *_ in results[-1].doubts or []][: len(labeled) // 10]
    num_wrong = int(wrong[labeled].sum())
    share = int(wrong[tenth].sum()) / num_wrong
    return {**curve(results), "num_wrong": num_wrong, "share": share, "told": share}


def report_doubts(runs: dict[str, list[Record]]) -> None:
    """The share of wrong labels that the first tenth holds."""
    for side, found in runs.items():
        share = mean_interval([one["share"] for one in found])
        print(f"{side:<12} wrong labels found {told(share, '.2f')}", end="  ")
        print(verdict(min(one["share"] for one in found), at_least=0.5))


def told(value: Any, form: str = ".4f") -> str:
    """Return a mean with its interval."""
    low, high = (value.mean if end is None else end for end in (value.low, value.high))
    return f"{value.mean:{form}} ({low:{form}} to {high:{form}})"


RUNS = {"blends": run_blends, "rare": run_rare, "stop": run_stop, "doubts": run_doubts}
REPORTS = {
    "blends": report_blends,
    "rare": report_rare,
    "stop": report_stop,
    "doubts": report_doubts,
}

if __name__ == "__main__":
    main()
