"""A pool that is larger than memory: what grows with its rows while it is scored?

A million small images in a memory-mapped file, and 40,000 PNG files in a folder, scored by
``read_pool`` with a new Trainer; the mapped file also by ``ActiveLearningLoop.ask`` after an epoch
on 100 labels, and with two loader workers. The promise: memory does not depend on the number of
rows but for the mask and the scores, so what a row adds to the peak is at most what it takes in the
mask, in the draw of the first labels and in the result, with what ``torch.topk`` needs to choose.

What is measured is anonymous memory (RssAnon): pages of the mapped file count as resident too, but
the kernel drops them when it needs room. Each size runs in a process of its own, so that peaks do
not mix, and is watched from another, so that watching does not slow it. What a small pool before it
has left free goes back to the system, so all sizes begin alike. Linux with glibc only.

python benchmarks/larger_than_memory.py      # about three minutes on two cores, 260 MB of disk
python benchmarks/larger_than_memory.py --rows 20000,100000 --files 500,1000
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from common import arguments, header, numbers, verdict
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from al_lightning import STRATEGIES, ActiveDataModule, ActiveLearningLoop, Strategy
from al_lightning.prediction.read_pool import read_pool
from al_lightning.training.trainers import quiet

SIZES = [125_000, 250_000, 500_000, 1_000_000]
FILES = [20_000, 40_000]
SHAPE = (1, 16, 16)
CHUNK = 50_000
NUM_LABELED, NUM_ASKED = 100, 500
WARM_UP_ROWS = 5_000

MASK = 1
"""Bytes a row: a bool that says what is labeled."""
COLUMNS = 8 + 8 + 4
"""Bytes a row: index, predicted class and score, as they come from the network."""
SHUFFLED = 8
"""Bytes a row: the order that the first labels are drawn from; freed, and not always given back."""
RESULT = MASK + SHUFFLED + 8 + COLUMNS
"""Bytes a row: what is listed above, and the index of the pool that the columns must agree with."""
CHOICE = 8 + 8 + 1
"""Bytes a row: ``torch.topk`` orders pairs of score and position; a bool says what is above."""
NAME = np.dtype("S10")
"""Of a file; the array of names is the data set's own."""


class Task(NamedTuple):
    """What one process does."""

    way: str
    kind: str
    folder: str
    num_rows: int
    batch_size: int
    num_workers: int = 0


class Peak(NamedTuple):
    """What it took."""

    own_mb: float
    """Growth of the process that scores."""
    workers_mb: float
    """All that its loader workers hold, most of it shared with it since they were forked."""
    grown_mb: float
    """What they hold beyond what they began with."""
    seconds: float


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=numbers, default=SIZES, help="of the mapped file")
    parser.add_argument("--files", type=numbers, default=FILES, help="in the folder")
    parser.add_argument("--batch-size", type=int, default=512, help="of the prediction")
    parser.add_argument("--alone", type=json.loads, help="one task, in this process")
    args = parser.parse_args()
    if args.alone:
        run_alone(Task(*args.alone))
        return
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_mapped(Path(folder), max(args.rows))
        for way, allowed in (("read_pool", RESULT), ("ask", RESULT + CHOICE)):
            tasks = [Task(way, "mapped", folder, rows, args.batch_size) for rows in args.rows]
            compare(f"{way}, mapped file", tasks, allowed)
        ends = (min(args.rows), max(args.rows))
        tasks = [Task("read_pool", "mapped", folder, rows, args.batch_size, 2) for rows in ends]
        compare("read_pool, mapped file, 2 workers", tasks, RESULT)
    with tempfile.TemporaryDirectory() as folder:
        tasks = [Task("read_pool", "files", folder, rows, args.batch_size) for rows in args.files]
        compare("read_pool, folder of files", tasks, RESULT + NAME.itemsize)


# ---- the data ------------------------------------------------------------------------------------


def write_mapped(folder: Path, num_rows: int) -> None:
    """Images and labels, a chunk at a time."""
    draw = np.random.default_rng(0)
    create = partial(np.lib.format.open_memmap, mode="w+", dtype=np.uint8)
    images = create(folder / "images.npy", shape=(num_rows, *SHAPE))
    labels = create(folder / "labels.npy", shape=(num_rows,))
    for start in range(0, num_rows, CHUNK):
        rows = slice(start, min(start + CHUNK, num_rows))
        images[rows] = draw.integers(0, 256, images[rows].shape, np.uint8)
        labels[rows] = draw.integers(0, 10, labels[rows].shape, np.uint8)
    print(f"mapped file of {num_rows:,} images: {images.nbytes / 1e6:.0f} MB", flush=True)


def write_files(folder: Path, num_files: int) -> None:
    """PNG files until there are as many."""
    draw = np.random.default_rng(0)
    present = sum(1 for _ in os.scandir(folder))
    for number in range(present, num_files):
        Image.fromarray(draw.integers(0, 256, SHAPE[1:], np.uint8)).save(
            folder / f"{number:06}.png", compress_level=1
        )


class MappedImages(Dataset[Any]):
    """The first ``num_rows`` images of the mapped file, as whole batches."""

    def __init__(self, folder: Path, num_rows: int) -> None:
        self.folder = folder
        self.num_rows = num_rows

    @cached_property
    def arrays(self) -> Sequence[np.ndarray]:
        """Mapped by each process when it first reads."""
        return [
            np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels")
        ]

    def __getstate__(self) -> dict[str, Any]:
        # A mapping pickles as all that it maps, so a worker gets the path and maps by itself.
        return {"folder": self.folder, "num_rows": self.num_rows}

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        images, labels = self.arrays
        return torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]).long()


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Images of a folder, whose names are one array of bytes; the number is all that is known."""

    def __init__(self, folder: Path, num_rows: int) -> None:
        # Not a Path: it interns each name, and the table of interned strings grows in a leap.
        self.folder = os.fsencode(folder)
        with os.scandir(self.folder) as entries:
            names = (entry.name for entry in islice(entries, num_rows))
            self.names = np.fromiter(names, NAME, count=num_rows)  # never a list of strings
        self.names.sort()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(os.path.join(self.folder, self.names[index])) as image:
            return torch.from_numpy(np.array(image))[None], index % 10


KINDS: dict[str, Callable[[Path, int], Dataset[Any]]] = {
    "mapped": MappedImages,
    "files": ImageFiles,
}


# ---- a process that scores -----------------------------------------------------------------------


class LitLinear(L.LightningModule):
    """As little network as there is: what is measured is all else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 10))

    def forward(self, images_B1HW: Tensor) -> Tensor:
        logits_BC: Tensor = self.net(images_B1HW.float() / 255)
        return logits_BC

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


new_trainer = partial(
    L.Trainer,
    accelerator="cpu",
    max_epochs=1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)


def score_by_read_pool(data: ActiveDataModule) -> None:
    """As the loop does it."""
    strategy = STRATEGIES["margin"]
    assert isinstance(strategy, Strategy)
    with quiet():
        outputs = read_pool(new_trainer(), LitLinear(), data, strategy)
    assert outputs.scores is not None
    assert len(outputs.scores) == data.num_unlabeled


def score_by_ask(data: ActiveDataModule) -> None:
    """The loop's first cycle: a fit, a prediction of the whole pool, a choice."""
    loop = ActiveLearningLoop(
        LitLinear(), data, trainer=new_trainer, strategy="margin", acquisition_size=NUM_ASKED
    )
    query = loop.ask()
    assert query is not None
    assert len(query.indices) == NUM_ASKED


WAYS: dict[str, Callable[[ActiveDataModule], None]] = {
    "read_pool": score_by_read_pool,
    "ask": score_by_ask,
}


def run_alone(task: Task) -> None:
    """A small pool first; says that it is ready; when told to, the whole one; prints seconds."""
    score(task._replace(num_rows=min(task.num_rows, WARM_UP_ROWS)))
    gc.collect()
    # What the small pool and the imports have freed would be used up before anything grew.
    ctypes.CDLL(None).malloc_trim(0)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    score(task)
    print(time.perf_counter() - begin)


def score(task: Task) -> None:
    """From the data set to the scores."""
    data = ActiveDataModule(
        KINDS[task.kind](Path(task.folder), task.num_rows),
        initial_labeled_size=NUM_LABELED,
        eval_batch_size=task.batch_size,
        num_workers=task.num_workers,
    )
    WAYS[task.way](data)


# ---- the process that watches --------------------------------------------------------------------


def compare(name: str, tasks: list[Task], allowed: float) -> None:
    """Peaks at each size, and bytes a row beyond the smallest."""
    print(f"{name}, batches of {tasks[0].batch_size}")
    peaks = []
    for task in tasks:
        if task.kind == "files":
            write_files(Path(task.folder), task.num_rows)
        peaks.append(watched(task))
        own, workers, grown, seconds = peaks[-1]
        line = f"  {task.num_rows:>9,} rows  {seconds:6.1f} s  peak growth {own:6.1f} MB"
        if len(peaks) > 1:
            line += f"  {slope(tasks, [peak.own_mb for peak in peaks]):6.1f} bytes a row"
        if task.num_workers:
            line += f"; workers grow by {grown:.1f} MB to {workers:.0f}, shared pages included"
        print(line, flush=True)
    own_slope = slope(tasks, [peak.own_mb for peak in peaks])
    print(f"  {'bytes a row':<30} {own_slope:6.1f}  {verdict(own_slope, at_most=allowed)}")
    if num_workers := tasks[0].num_workers:
        of_workers = slope(tasks, [peak.grown_mb for peak in peaks])
        promise = verdict(of_workers, at_most=num_workers * MASK)
        print(f"  {'bytes a row, all workers':<30} {of_workers:6.1f}  {promise}")


def slope(tasks: list[Task], megabytes: list[float]) -> float:
    """Bytes a row from the first size to the last measured."""
    rows = tasks[len(megabytes) - 1].num_rows - tasks[0].num_rows
    return (megabytes[-1] - megabytes[0]) * 1e6 / rows


def watched(task: Task) -> Peak:
    """Runs the task in a new process and looks at its memory every few milliseconds."""
    command = [sys.executable, __file__, "--alone", json.dumps(task)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the process that scores failed: {task}")
        begin = anonymous_mb(process.pid)
        print(file=process.stdin, flush=True)
        own = [0.0]
        workers: dict[int, list[float]] = {}
        while process.poll() is None:
            own.append(anonymous_mb(process.pid) - begin)
            for worker in children(process.pid):
                workers.setdefault(worker, []).append(anonymous_mb(worker))
            time.sleep(0.003)
        held = sum(map(max, workers.values()))
        grown = held - sum(looks[0] for looks in workers.values())
        return Peak(max(own), held, grown, float(process.stdout.read()))


def anonymous_mb(pid: int) -> float:
    """Memory of a process that is no page of a file; 0 when it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    _, found, rest = status.partition("RssAnon:")
    return int(rest.split()[0]) * 1024 / 1e6 if found else 0.0


def children(pid: int) -> list[int]:
    """Processes that a process has started: the workers of its loader."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, thread.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            continue
    return found


if __name__ == "__main__":
    main()
