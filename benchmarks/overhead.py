"""Overhead of a cycle: all that is not training, testing, scoring or drawing.

The loop runs as ``train.py`` runs it (same network, 60,000 rows, 500 of them asked, run folder on
disk, all four monitors, model and epochs of ``configs/mnist.yaml``), but an epoch, a test and a
pool are 4 batches each, every training batch a point of the curves. Timers around the steps, the
loaders and the drawing take their time out of each cycle's wall time; what is left counts as
overhead, Lightning's own included: making Trainers, starting epochs, calling the hooks of a batch.
The promise: under 0.5 s a cycle.

In turn with each cycle a bare ``L.Trainer`` with its default logger fits, tests and predicts as
many batches, which shows how much of it is ours.

python benchmarks/overhead.py                # about a minute
python benchmarks/overhead.py --profile      # and the functions that the overhead consists of
"""

import argparse
import cProfile
import gc
import importlib
import pstats
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from common import ROOT, Stopwatch, arguments, header, ratio_line, spread, verdict
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from al_lightning import (
    ActiveDataModule,
    ActiveLearningLoop,
    Console,
    LitSimpleCNN,
    Pictures,
    Tables,
    TensorBoard,
)
from al_lightning.mnist.datamodule import DigitImages
from al_lightning.monitor import tensorboard
from al_lightning.prediction.read_pool import _Reader
from al_lightning.run.journal import Journal
from al_lightning.training.trainers import quiet

NUM_BATCHES = 4
BATCH_SIZE = 8
EVAL_BATCH_SIZE = 128
ACQUISITION_SIZE = 500
WORK = ["training", "testing", "scoring", "loading", "drawing"]

Recipe = dict[str, dict[str, Any]]
"""A configuration file."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="cycles, after one to warm up")
    parser.add_argument("--epochs", type=int, help="those of configs/mnist.yaml when not given")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    recipe = yaml.safe_load((ROOT / "configs" / "mnist.yaml").read_text())
    args.epochs = args.epochs or recipe["trainer"]["max_epochs"]
    print(header(), flush=True)
    runs = ROOT / "runs"  # a disk, where a system's temporary folder may be memory
    runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs) as folder:
        measure(args, recipe, Path(folder))


def measure(args: argparse.Namespace, recipe: Recipe, folder: Path) -> None:
    """Runs cycles of the loop and of a bare Trainer in turn and prints where the time went."""
    trainer = partial(
        L.Trainer,
        accelerator="cpu",
        max_epochs=args.epochs,
        limit_train_batches=NUM_BATCHES,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    loop = make_loop(args, recipe, trainer, folder / "run")
    watch, profiler = Stopwatch(), cProfile.Profile()
    cycles: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    with quiet(validates=False), watching(watch):
        begin = time.perf_counter()
        loop.prepare()
        start = time.perf_counter() - begin
        watch.take()
        for turn in range(args.repeats + 1):
            gc.collect()
            if args.profile and turn:
                profiler.enable()
            begin = time.perf_counter()
            query = loop.ask()
            assert query is not None
            loop.tell(query.indices)
            seconds = time.perf_counter() - begin
            profiler.disable()
            cycles.append({**watch.take(), "wall": seconds})
            bare.append(bare_cycle(trainer, loop, folder / "bare", watch))
    print(f"{args.repeats} cycles of {args.epochs} epochs; seconds a cycle: median (range)")
    print(f"{'start, once':<34} {start:.3f}")
    report(cycles[1:], bare[1:])
    if args.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def make_loop(
    args: argparse.Namespace, recipe: Recipe, trainer: partial[L.Trainer], run_dir: Path
) -> ActiveLearningLoop:
    """``train.py``'s loop over random images, with 4 batches to test and to score."""

    def images(num: int) -> DigitImages:
        draw = torch.Generator().manual_seed(num)
        pixels = torch.randint(256, (num, 28, 28), generator=draw, dtype=torch.uint8)
        return DigitImages(pixels, torch.randint(10, (num,), generator=draw))

    data = ActiveDataModule(
        images(args.rows),
        test_set=images(NUM_BATCHES * EVAL_BATCH_SIZE),
        initial_labeled_size=1000,
        batch_size=BATCH_SIZE,
        eval_batch_size=EVAL_BATCH_SIZE,
    )
    return ActiveLearningLoop(
        LitSimpleCNN(**recipe["model"]),
        data,
        trainer=trainer,
        acquisition_size=ACQUISITION_SIZE,
        candidate_size=NUM_BATCHES * EVAL_BATCH_SIZE,
        num_cycles=args.repeats + 2,
        warm_start=recipe["active"]["warm_start"],
        run_dir=run_dir,
    )


def bare_cycle(
    trainer: partial[L.Trainer], loop: ActiveLearningLoop, folder: Path, watch: Stopwatch
) -> dict[str, float]:
    """The same batches by a Trainer that knows nothing of active learning."""
    data = loop.data
    train, test = data.sets.train, data.sets.test
    assert test is not None
    shuffled = DataLoader(train, BATCH_SIZE, shuffle=True, collate_fn=data.collate_fn)
    rows = DataLoader(test, EVAL_BATCH_SIZE, collate_fn=data.collate_fn)
    gc.collect()
    begin = time.perf_counter()
    bare = trainer(
        default_root_dir=folder,
        logger=TensorBoardLogger(folder),
        enable_model_summary=False,
    )
    bare.fit(loop.model, shuffled)
    bare.test(loop.model, rows, verbose=False)
    bare.predict(loop.model, rows, return_predictions=False)
    seconds = time.perf_counter() - begin
    return {**watch.take(), "wall": seconds}


@contextmanager
def watching(watch: Stopwatch) -> Iterator[None]:
    """Timers around all that is work, and around the parts of what is not."""
    # Of the optimizer the update alone: Adam.step runs the whole closure.
    stages = [
        (LitSimpleCNN, "training_step", "training"),
        (LitSimpleCNN, "backward", "training"),
        (importlib.import_module("torch.optim.adam"), "adam", "training"),
        (LitSimpleCNN, "test_step", "testing"),
        (LitSimpleCNN, "predict_step", "scoring"),
        (_Reader, "write_on_batch_end", "scoring"),
        (DigitImages, "__getitems__", "loading"),
        (Pictures, "on_cycle", "drawing"),
        (Pictures, "on_labels", "drawing"),
        (tensorboard, "drawn", "drawing"),
        (tensorboard, "query_figure", "drawing"),
        (tensorboard, "progress_figure", "drawing"),
        (L.Trainer, "__init__", "Trainer()"),
        (L.Trainer, "fit", "Trainer.fit around its steps"),
        (L.Trainer, "test", "Trainer.test around its steps"),
        (L.Trainer, "predict", "Trainer.predict around its steps"),
        (L.Trainer, "save_checkpoint", "weights on disk"),
        (TensorBoardLogger, "log_metrics", "TensorBoard, cycle's curves"),
        (TensorBoardLogger, "log_hyperparams", "TensorBoard, cycle's curves"),
        (TensorBoardLogger, "save", "TensorBoard, cycle's curves"),
        (TensorBoardLogger, "finalize", "TensorBoard, cycle's curves"),
        (TensorBoard, "on_cycle", "TensorBoard, active/..."),
        (TensorBoard, "on_labels", "TensorBoard, active/..."),
        (Tables, "on_cycle", "tables"),
        (Tables, "on_labels", "tables"),
        (Console, "on_cycle", "console"),
        (Journal, "append", "journal"),
        (shutil, "rmtree", "old cycle folder"),
        (ActiveLearningLoop, "ask", "loop, all else"),
        (ActiveLearningLoop, "tell", "loop, all else"),
    ]
    with ExitStack() as patches, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for owner, function, stage in stages:
            patches.enter_context(watch.watch(owner, function, stage))
        yield


def report(cycles: list[dict[str, float]], bare: list[dict[str, float]]) -> None:
    """Overhead and its parts; ours beside the bare Trainer's."""
    overhead, bare_overhead = [left(cycle) for cycle in cycles], [left(cycle) for cycle in bare]
    names = sorted(
        {name for cycle in cycles for name in cycle} - {"wall"},
        key=lambda name: (
            name not in WORK,
            -statistics.median(cycle.get(name, 0.0) for cycle in cycles),
        ),
    )
    print(f"{'':<34} {'loop':<24} bare Trainer")
    for name in names:
        sides = [spread([cycle.get(name, 0.0) for cycle in side], ".3f") for side in (cycles, bare)]
        print(f"{('  ' if name in WORK else '+ ') + name:<34} {sides[0]:<24} {sides[1]}")
    for name, ours, theirs in (
        ("wall", [cycle["wall"] for cycle in cycles], [cycle["wall"] for cycle in bare]),
        ("overhead: wall less work", overhead, bare_overhead),
    ):
        print(f"{name:<34} {spread(ours, '.3f'):<24} {spread(theirs, '.3f')}")
    median = statistics.median(overhead)
    print(f"\n{'overhead a cycle':<34} {median:.3f} s  {verdict(median, at_most=0.5)}")
    print(ratio_line("overhead, loop / bare Trainer", overhead, bare_overhead))
    walls = [cycle["wall"] - cycle.get("drawing", 0.0) for cycle in cycles]
    bare_walls = [cycle["wall"] for cycle in bare]
    print(ratio_line("wall less drawing, loop / bare", walls, bare_walls))


def left(cycle: dict[str, float]) -> float:
    """Wall time less the work."""
    return cycle["wall"] - sum(cycle.get(name, 0.0) for name in WORK)


if __name__ == "__main__":
    main()
