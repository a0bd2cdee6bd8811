"""Scoring the pool on a CPU: the tutorial's way, ours, and the bare network.

Three sides with the same weights over the same rows: (a) the tutorial's ``get_uncertainty``, (b)
``read_pool`` with a new Trainer, as the loop calls it, (c) our network, softmax and 1 - max over
float images in memory, 64 at a time, and nothing else. The promises: a / b at least 3, b / c at
most 1.15, the scores agree, and (b) needs at most 200 MB above the data set.

First all three in turn in one process; there (a) profits from (b), which teaches the process's
allocator to reuse the activations of one batch for the next. Then (a) and (b) in turn, each in a
process of its own, as the two scripts run.

python benchmarks/pool_scoring.py            # 59,000 rows, about 10 minutes on two cores
python benchmarks/pool_scoring.py --rows 5000 --repeats 2
python benchmarks/pool_scoring.py --alone library    # one side in this process: seconds a pass
python benchmarks/pool_scoring.py --memory   # the last line alone; the full run starts it itself
"""

import subprocess
import sys
import time
from typing import Any

import lightning as L
import torch
from common import PeakMemory, arguments, header, interleaved, ratio_line, spread, verdict
from torch import Tensor
from torch.utils.data import Dataset
from tutorial import DATA_DIR, SimpleCNN, get_uncertainty, load_mnist

from al_lightning import STRATEGIES, ActiveMNISTDataModule, LitSimpleCNN, PoolOutputs, Strategy
from al_lightning.mnist.datamodule import DigitImages
from al_lightning.prediction.read_pool import read_pool
from al_lightning.training.trainers import quiet

NUM_ROWS = 60_000
INITIAL_LABELED_SIZE = 1000
BATCH_SIZE = 64


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=NUM_ROWS - INITIAL_LABELED_SIZE, help="in pool")
    parser.add_argument("--memory", action="store_true", help="measure the memory of (b) alone")
    parser.add_argument("--alone", choices=["tutorial", "library"], help="time one side, one pass")
    parser.add_argument("--precision", default="32-true", help="the Trainer's, for --alone library")
    args = parser.parse_args()
    if args.alone:
        print(seconds_alone(args.alone, args.rows, args.precision))
        return
    if args.memory:
        print(memory_line(args.rows))
        return
    print(header(), flush=True)
    compare_times(args.rows, args.repeats)
    compare_processes(args.rows, args.repeats)
    memory = [sys.executable, __file__, "--memory", "--rows", str(args.rows)]
    sys.stdout.flush()
    subprocess.run(memory, check=True)  # a new process, whose allocator has kept nothing


def compare_times(num_rows: int, repeats: int) -> None:
    """Runs the three sides in turn and prints ratios and the largest difference of scores."""
    data, ours, rows = pool_of(num_rows), LitSimpleCNN(), Scores()
    theirs = SimpleCNN()
    theirs.load_state_dict(ours.state_dict())
    tutorial_set: Dataset[tuple[Tensor, int]] = load_mnist(DATA_DIR)[0]
    pool = data.unlabeled_indices
    images = digits(data).images_NHW[pool][:, None].float() / 255

    def tutorial() -> None:
        rows.tutorial = torch.from_numpy(get_uncertainty(theirs, tutorial_set, pool.tolist()))

    def library() -> None:
        rows.library = score_with_library(ours, data)

    def bare() -> None:
        rows.bare = score_bare(ours, images)

    seconds = interleaved({"tutorial": tutorial, "library": library, "bare": bare}, repeats)
    print(f"{len(pool):,} rows, median of {repeats} (range)")
    for name, values in seconds.items():
        micros = [1e6 * value / len(pool) for value in values]
        print(f"{name:<34} {spread(micros, '.0f')} microseconds a row")
    a, b, c = seconds["tutorial"], seconds["library"], seconds["bare"]
    print(ratio_line("tutorial / library", a, b, at_least=3))
    print(ratio_line("library / bare network", b, c, at_most=1.15))
    outputs = rows.library
    assert torch.equal(outputs.indices, pool)
    assert outputs.scores is not None
    for name, other in (("tutorial", rows.tutorial), ("bare", rows.bare)):
        gap = float((outputs.scores - other).abs().max())
        line = f"largest difference of scores, library to {name}"
        print(f"{line:<50} {gap:.1e}  {verdict(gap, at_most=1e-5)}")


def compare_processes(num_rows: int, repeats: int) -> None:
    """One pass of (a) and of (b), in turn, each pass in a new process."""
    sides = {
        "tutorial": ["tutorial"],
        "library": ["library"],
        "library, bf16-mixed": ["library", "--precision", "bf16-mixed"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            command = [sys.executable, __file__, "--rows", str(num_rows), "--alone", *side]
            seconds[name].append(float(subprocess.check_output(command, text=True)))
    print("each pass in a process of its own")
    for name, values in seconds.items():
        micros = [1e6 * value / num_rows for value in values]
        print(f"{name:<34} {spread(micros, '.0f')} microseconds a row")
    tutorial = seconds["tutorial"]
    print(ratio_line("tutorial / library", tutorial, seconds["library"], at_least=3))
    print(ratio_line("tutorial / library, bf16-mixed", tutorial, seconds["library, bf16-mixed"]))


def seconds_alone(side: str, num_rows: int, precision: Any) -> float:
    """Seconds of one pass of one side in a process that runs nothing else."""
    if side == "library":
        data, ours = pool_of(num_rows), LitSimpleCNN()
        begin = time.perf_counter()
        score_with_library(ours, data, precision)
    else:
        pool = torch.randperm(NUM_ROWS)[:num_rows].tolist()
        tutorial_set, theirs = load_mnist(DATA_DIR)[0], SimpleCNN()
        begin = time.perf_counter()
        get_uncertainty(theirs, tutorial_set, pool)
    return time.perf_counter() - begin


class Scores:
    """What each side came to last."""

    tutorial: Tensor
    library: PoolOutputs
    bare: Tensor


def pool_of(num_rows: int) -> ActiveMNISTDataModule:
    """MNIST with ``num_rows`` unlabeled."""
    data = ActiveMNISTDataModule(DATA_DIR, initial_labeled_size=NUM_ROWS - num_rows)
    data.prepare_data()
    data.setup()
    return data


def digits(data: ActiveMNISTDataModule) -> DigitImages:
    """The data set, whose pixels are one tensor."""
    dataset = data.sets.pool
    assert isinstance(dataset, DigitImages)
    return dataset


def score_with_library(
    model: LitSimpleCNN, data: ActiveMNISTDataModule, precision: Any = "32-true"
) -> PoolOutputs:
    """As the loop does it; a new Trainer is part of it."""
    strategy = STRATEGIES["least_confidence"]
    assert isinstance(strategy, Strategy)
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return read_pool(trainer, model, data, strategy)


def score_bare(model: LitSimpleCNN, images_N1HW: Tensor) -> Tensor:
    """The network and the score, and nothing else."""
    model.eval()
    with torch.inference_mode():
        starts = range(0, len(images_N1HW), BATCH_SIZE)
        batches = (images_N1HW[start : start + BATCH_SIZE] for start in starts)
        return torch.cat([1 - model(batch).softmax(-1).amax(-1) for batch in batches])


def memory_line(num_rows: int) -> str:
    """Peak memory of (b) above the data set and the model, first call of a new process."""
    data, model = pool_of(num_rows), LitSimpleCNN()
    score_bare(model, torch.zeros(BATCH_SIZE, 1, 28, 28))  # loads the kernels of the network
    with PeakMemory() as memory:
        score_with_library(model, data)
    line = f"{'peak memory of library, MB':<34} {memory.peak:.0f}"
    data_mb = digits(data).images_NHW.nbytes / 1e6
    return f"{line} above the data set of {data_mb:.0f}  {verdict(memory.peak, at_most=200)}"


if __name__ == "__main__":
    main()
