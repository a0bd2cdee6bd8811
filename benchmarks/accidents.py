"""Accidents other than kills, for ``chaos.py``: disks, damaged files, clocks.

Each function makes one kind of accident happen, some in many places, and says what was seen.
"""

import ctypes
import json
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import lightning as L
from attempts import (
    KILLED,
    Outcome,
    attempt,
    curves,
    die,
    differences,
    ended,
    last_words,
    log_of,
    outcome,
    remove,
    wrong,
)

from al_lightning import ActiveLearningLoop, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.run.journal import Journal
from al_lightning.run.lock import unlock
from al_lightning.training.checkpoints import CycleFit

JOURNAL, LAST = "journal.jsonl", "cycle_2/checkpoints/last.ckpt"
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of unshare(2)


class Finding(NamedTuple):
    """What came of one kind of accident; ``held`` is None when it could not be made."""

    accident: str
    seen: str
    held: bool | None

    def __str__(self) -> str:
        word = {True: "held", False: "FAILED", None: "NOT SHOWN"}[self.held]
        return f"{self.accident:<28} {word}: {self.seen}"


def accidents(whole: Path, epochs: list[str], draw: random.Random) -> list[Finding]:
    """All of them, each printed when it is done.

    Args:
        whole: Folder of a finished run without further arguments.
        epochs: Arguments for a run whose fits save ``last.ckpt`` after each epoch.
        draw: Draws the bytes to flip.
    """
    expected, can_mount = outcome(whole), own_mounts()
    makers: list[Callable[[], Finding]] = [
        partial(journal_cut_resumes, whole),
        partial(journal_cut_finishes, whole, expected),
        partial(damaged_weights, whole, draw),
        partial(damaged_last, epochs, draw),
        partial(clock_jumps_back, expected),
    ]
    findings = []
    for make in makers + ([partial(disk_full, whole, expected), read_only] if can_mount else []):
        findings.append(make())
        print(findings[-1], flush=True)
    if not can_mount:
        for accident in ("disk full", "folder read-only"):
            findings.append(Finding(accident, "it takes the right to mount", None))
            print(findings[-1], flush=True)
    return findings


# ---- the journal ---------------------------------------------------------------------------------


def journal_cut_resumes(whole: Path) -> Finding:
    """Cuts at every byte, and looks at the split alone: a split takes no time."""
    folder = copied(whole, "journal, every byte")
    content = (folder / JOURNAL).read_bytes()
    settings = json.loads(content.splitlines()[0])["settings"]
    data = ActiveMNISTDataModule(**settings["data"])
    trainer = partial(
        L.Trainer,
        max_epochs=settings["trainer"]["max_epochs"],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    model = LitSimpleCNN(**settings["model"])
    failed = []
    for cut in range(len(content) + 1):
        (folder / JOURNAL).write_bytes(content[:cut])
        kept = content[: content.rfind(b"\n", 0, cut) + 1]
        try:
            ActiveLearningLoop.resume(folder, model, data, trainer=trainer)
            found = data.labeled_indices.tolist(), (folder / JOURNAL).read_bytes()
            is_right = found == (labeled(kept), kept)
        except ValueError as error:
            is_right = not kept and "holds no run to resume" in str(error)
        if not is_right:
            failed.append(cut)
    unlock(folder)
    seen = f"{len(content) + 1} cuts, {len(failed)} with another split {failed[:5] or ''}"
    return Finding("journal cut at every byte", seen, not failed)


def labeled(journal: bytes) -> list[int]:
    """The labeled rows that the records of a journal make, in order."""
    records = [json.loads(line) for line in journal.splitlines()]
    rows = [record["indices"] for record in records if record["event"] == "labels"]
    return sorted(sum(rows, records[0]["split"]["labeled_indices"])) if records else []


def journal_cut_finishes(whole: Path, expected: Outcome) -> Finding:
    """Cuts before each line and inside it, and goes on to the end."""
    lines = (whole / JOURNAL).read_bytes().splitlines(keepends=True)
    problems = []
    cuts = [(number, half) for number in range(len(lines)) for half in (False, True)]
    for number, half in cuts:
        folder = copied(whole, f"journal, line {number}{', half' if half else ''}")
        torn = lines[number][: len(lines[number]) // 2] if half else b""
        (folder / JOURNAL).write_bytes(b"".join(lines[:number]) + torn)
        problems.append(ended(folder, attempt(folder), expected))
    return tallied("journal cut, run to the end", problems)


# ---- damaged files -------------------------------------------------------------------------------


def damaged_weights(whole: Path, draw: random.Random) -> Finding:
    """Damages the weights that a resumed run needs; it must name the file and do nothing."""
    lines = (whole / JOURNAL).read_bytes().splitlines(keepends=True)
    problems = []
    for name in ("initial_weights.pt", "cycle_2/weights.ckpt"):
        for damage, content in damages((whole / name).read_bytes(), draw, num_flips=4):
            folder = copied(whole, f"{damage} {name.replace('/', ' ')}")
            (folder / JOURNAL).write_bytes(b"".join(lines[:6]))  # the second fit is the last record
            (folder / name).write_bytes(content)
            problems.append(refused(folder, attempt(folder), name))
    return tallied("damaged weights", problems, "named and refused")


def damaged_last(args: list[str], draw: random.Random) -> Finding:
    """Damages the checkpoint that an interrupted fit goes on from; it must say so and begin anew.

    A byte that is flipped outside the tensors and names of a zip file may have no meaning: then
    nothing need be said, but the result must be the same.
    """
    whole, cut = Path("last, undisturbed"), Path("last, killed in the third epoch")
    begun = attempt(whole, args), attempt(cut, args, during=[dies_in_epoch(2, cycle=2)])
    assert begun == (0, KILLED), begun
    expected, content = outcome(whole), (cut / LAST).read_bytes()
    problems, warned = [], 0
    for damage, damaged in damages(content, draw, num_flips=12):
        folder = copied(cut, f"last, {damage}")
        (folder / LAST).write_bytes(damaged)
        status = attempt(folder, args)
        has_warned = "last.ckpt cannot be read" in log_of(folder).read_text()
        warned += has_warned
        if status == 0 and not (has_warned or damage.startswith("flipped")):
            problems.append(f"{folder}: no warning")
        else:
            problems.append(ended(folder, status, expected))
    return tallied("damaged last.ckpt", problems, f"same result, {warned} with a warning")


def damages(content: bytes, draw: random.Random, num_flips: int) -> Iterator[tuple[str, bytes]]:
    """The content of a file, damaged in several ways, by name."""
    yield "cut short", content[:-100]
    yield "halved", content[: len(content) // 2]
    yield "emptied", b""
    for byte in sorted(draw.sample(range(len(content)), num_flips)):
        flipped = bytes([content[byte] ^ (1 << draw.randrange(8))])
        yield f"flipped at {byte}", content[:byte] + flipped + content[byte + 1 :]


# ---- the clock -----------------------------------------------------------------------------------


def clock_jumps_back(expected: Outcome) -> Finding:
    """Kills twice; each process that goes on has a clock an hour behind its predecessor's."""
    folder = Path("clock")
    statuses = [
        attempt(folder, during=[dies_before("fit", cycle=2)]),
        attempt(folder, during=[hours_back(1), dies_before("test", cycle=3)]),
        attempt(folder, during=[hours_back(2)]),
    ]
    if statuses != [KILLED, KILLED, 0]:
        return Finding("clock jumps back", f"statuses {statuses}: {last_words(folder)}", False)
    points = curves(folder)
    once = all(len({step for step, _ in those}) == len(those) for those in points.values())
    seen = f"{sum(map(len, points.values()))} points, {'each once' if once else 'some twice'}"
    differing = differences(outcome(folder), expected)
    return Finding("clock jumps back", f"{seen}; differs: {differing or 'nothing'}", not differing)


@contextmanager
def hours_back(hours: float) -> Iterator[None]:
    """The clock as it was some hours ago."""
    now = time.time
    with mock.patch("time.time", side_effect=lambda: now() - 3600 * hours):
        yield


def dies_before(event: str, cycle: int) -> AbstractContextManager[Any]:
    """The process dies when all that ``event`` needs is done and it is about to be recorded."""
    append = Journal.append

    def dying(self: Journal, name: str, **fields: Any) -> dict[str, Any]:
        if (name, fields.get("cycle")) == (event, cycle):
            die()
        return append(self, name, **fields)

    return mock.patch.object(Journal, "append", dying)


def dies_in_epoch(epoch: int, cycle: int) -> AbstractContextManager[Any]:
    """The process dies after the first batch of an epoch, from 0."""

    def dying(self: CycleFit, trainer: L.Trainer, *args: Any) -> None:
        folder = Path(trainer.default_root_dir)
        if (trainer.current_epoch, folder.name) == (epoch, f"cycle_{cycle}"):
            die()

    return mock.patch.object(CycleFit, "on_train_batch_end", dying)


# ---- disks ---------------------------------------------------------------------------------------


def own_mounts() -> bool:
    """Lets this process mount what no other sees and what is gone when it ends, if it may."""
    if ctypes.CDLL(None).unshare(NEW_MOUNTS) != 0:
        return False
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True)
    return done.returncode == 0


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mounts something at ``folder`` inside the block."""
    mount(*options, str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True)


def disk_full(whole: Path, expected: Outcome) -> Finding:
    """Runs on disks that end at, or a little after, each of the large files, then on enough."""
    weights = -(-(whole / "initial_weights.pt").stat().st_size // 4096) * 4
    sizes = [cycle * weights + kib for cycle in range(4) for kib in (4, 12, 24, 40, 64, 200, 2000)]
    problems, how = [], Counter[str]()
    for size in sizes:
        folder = Path(f"disk of {size} KiB")
        folder.mkdir()
        with mounted(folder, "-t", "tmpfs", "-o", f"size={size}k", "tmpfs"):
            status, printed = attempt(folder), log_of(folder).read_text()
            how["a traceback" if "Traceback" in printed else "a sentence"] += 1
            is_named = status > 0 and "No space left on device" in printed
            mount("-o", "remount,size=1g", str(folder))
            problem = wrong(folder, attempt(folder), expected)
            if not (problem or is_named):
                problem = f"{folder}: status {status}: {printed[-300:]}"
            problems.append(problem)
    ways = " and ".join(f"{num} with {way}" for way, num in how.items())
    return tallied("disk full", problems, f"stopped {ways}, same result when there was room")


def read_only() -> Finding:
    """Begins, and goes on, in a folder that cannot be written."""
    problems = []
    for is_begun in (False, True):
        folder = Path(f"read-only, {'begun' if is_begun else 'new'}")
        folder.mkdir()
        if is_begun:
            attempt(folder, during=[dies_before("query", cycle=2)])
        with mounted(folder, "--bind", str(folder)):
            mount("-o", "remount,bind,ro", str(folder))
            status = attempt(folder)
        problems.append(refused(folder, status, "run_dir must be a folder that can be written"))
    return tallied("folder read-only", problems, "refused in one sentence")


# ---- what they share -----------------------------------------------------------------------------


def copied(run_dir: Path, name: str) -> Path:
    """A copy of a run, without its lock."""
    return Path(shutil.copytree(run_dir, name, symlinks=True))


def refused(run_dir: Path, status: int, text: str) -> str:
    """What is wrong after an attempt that was to be refused: status 2 and a line with ``text``."""
    printed, words = log_of(run_dir).read_text(), last_words(run_dir)
    is_error = words.startswith("train.py: error: ") and text in words
    if status != 2 or not is_error or "Traceback" in printed:
        return f"{run_dir}: ended with status {status}: {words}"
    remove(run_dir)
    return ""


def tallied(accident: str, problems: list[str], otherwise: str = "same result") -> Finding:
    """A finding from what is wrong with each of several accidents, empty where nothing is."""
    failed = [problem for problem in problems if problem]
    shown = "".join(f"\n    {problem}" for problem in failed[:3])
    seen = f"{len(problems)} times, {len(failed)} wrong, else {otherwise}{shown}"
    return Finding(accident, seen, not failed)
