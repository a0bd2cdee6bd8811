"""Runs killed with SIGKILL and resumed until they are done, beside runs that nothing disturbed.

The promise: after at least 200 kills, at random moments and inside every write, nothing differs in
``metrics.csv`` (apart from the seconds), ``queries/*.csv``, TensorBoard's points and the weights of
the last cycle, bit for bit, on the CPU. Then the accidents of ``accidents.py``: a full disk, a
journal cut at every byte, damaged checkpoints, a read-only folder, a clock that jumps back.

A kill takes the process, not the machine: that written data survives a power cut is not shown.

python benchmarks/chaos.py                         # half an hour of one core or more; Linux
python benchmarks/chaos.py --kills 25 --every 20   # a quick try
"""

import itertools
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accidents import accidents
from attempts import (
    KILLED,
    DiesInWrite,
    Outcome,
    attempt,
    differences,
    ended,
    last_words,
    outcome,
    prepare,
)
from common import arguments, header, verdict

LAST_CHECKPOINT = [
    "--trainer.enable_checkpointing=true",
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
]
PLAIN, EPOCHS = "least confidence, warm", "last.ckpt every epoch"
VARIANTS = {
    PLAIN: [],
    "random, cold": ["--active.strategy=random", "--active.warm_start=false"],
    "margin, a loader worker": ["--active.strategy=margin", "--data.num_workers=1"],
    EPOCHS: [*LAST_CHECKPOINT, "--trainer.max_epochs=3"],
    "last.ckpt every step": [*LAST_CHECKPOINT, "--trainer.callbacks.every_n_train_steps=1"],
    "layers made late, cold": [
        *LAST_CHECKPOINT,
        "--stranger=late",
        "--active.warm_start=false",
        "--active.strategy=margin",
    ],
    "a partial state, two optimizers": [*LAST_CHECKPOINT, "--stranger=adapter"],
    "a schedule, a rule that ends it": [
        "--active.strategy=schedule",
        '--active.strategy_args={"stages": {"0": "random", "42": {"strategy": "mix"}}}',
        '--active.stop_when=["stable", {"max_labels": 60}]',
        "--active.num_cycles=9",
        "--active.labels_in_doubt=true",
    ],
}
STRIDE = 12
"""All variants but the plain one die in every twelfth write, and once more on their way back."""


@dataclass
class Variant:
    """A command line and what it leaves when nothing disturbs it."""

    name: str
    args: list[str]
    expected: Outcome
    seconds: float


@dataclass
class Tally:
    """What came of the runs of one variant, killed in one way."""

    mode: str
    variant: Variant
    runs: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, run_dir: Path, status: int) -> None:
        """Counts a run that was to be at its end, and removes it unless something is wrong."""
        self.runs += 1
        if problem := ended(run_dir, status, self.variant.expected):
            self.wrong.append(problem)

    def __str__(self) -> str:
        row = f"{self.mode:<34} {self.variant.name:<32} {self.runs:>5} {self.kills:>6}"
        shown = "".join(f"\n    {problem}" for problem in self.wrong[:3])
        return f"{row} {len(self.wrong):>12}{shown}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=200, help="least number, at random moments")
    parser.add_argument("--every", type=int, default=1, help="die in every so manyth write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(header(), flush=True)
    with places() as folder:
        variants = {name: undisturbed(name, given) for name, given in VARIANTS.items()}
        check_comparison(variants)
        tallies = kill(list(variants.values()), args.kills, args.every, random.Random(args.seed))
        findings = accidents(Path(PLAIN), variants[EPOCHS].args, random.Random(args.seed))
        num_wrong = sum(len(tally.wrong) for tally in tallies)
        num_wrong += sum(finding.held is False for finding in findings)
        num_kills = sum(tally.kills for tally in tallies)
        print(f"kills {num_kills}  {verdict(num_kills, at_least=args.kills)}")
        print(f"differences {num_wrong}  {verdict(num_wrong, at_most=0)}")
        if num_wrong or num_kills < args.kills:
            sys.exit(f"what differs is kept in {folder}")
    shutil.rmtree(folder)


@contextmanager
def places() -> Iterator[Path]:
    """A folder for the runs, and one for temporary files, on another disk where there is one."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-")).resolve()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        prepare(folder, Path(temporary))
        is_other = Path(temporary).stat().st_dev != folder.stat().st_dev
        print(f"temporary files on {'another' if is_other else 'the same'} disk", flush=True)
        yield folder


def undisturbed(name: str, args: list[str]) -> Variant:
    begin = time.perf_counter()
    status = attempt(Path(name), args)
    seconds = time.perf_counter() - begin
    if status != 0:
        sys.exit(f"{name}: undisturbed it ended with status {status}: {last_words(Path(name))}")
    return Variant(name, args, outcome(Path(name)), seconds)


def check_comparison(variants: dict[str, Variant]) -> None:
    """A comparison that cannot tell two other runs apart would prove nothing."""
    for one, other in itertools.pairwise(variants.values()):
        differing = differences(one.expected, other.expected)
        assert {"metrics.csv", "cycle_2.csv", "the last weights"} <= {*differing}, differing


# ---- kills ---------------------------------------------------------------------------------------


def kill(variants: list[Variant], num_kills: int, every: int, draw: random.Random) -> list[Tally]:
    """All ways to kill, each printed when it is done."""
    each = -(-num_kills // len(variants))
    print(f"{'killed':<34} {'run':<32} {'runs':>5} {'kills':>6} {'differences':>12}")
    tallies = []
    for number, variant in enumerate(variants):
        tallies.append(at_random_moments(variant, each, draw))
        print(tallies[-1], flush=True)
        again = None if number == 0 else draw
        tallies.append(inside_writes(variant, every if number == 0 else every * STRIDE, again))
        print(tallies[-1], flush=True)
    return tallies


def at_random_moments(variant: Variant, num_kills: int, draw: random.Random) -> Tally:
    """Kills each attempt after a random time, until one is faster."""
    tally = Tally("at random moments", variant)
    while tally.kills < num_kills:
        run_dir = Path(f"{variant.name}, random {tally.runs}")
        status = KILLED
        while status == KILLED:
            moment = draw.uniform(0, variant.seconds)
            status = attempt(run_dir, variant.args, kill_after=moment)
            tally.kills += status == KILLED
        tally.add(run_dir, status)
    return tally


def inside_writes(variant: Variant, step: int, again: random.Random | None) -> Tally:
    """A run that dies in its first write, one that dies in its second, until one lives.

    Args:
        variant: What to run.
        step: 1 for every write.
        again: Draws the write in which the process that resumes dies too.
    """
    tally = Tally(f"inside {'every' if step == 1 else f'1 of {step}'} writes", variant)
    tally.mode += " and again" if again else ""
    for number in itertools.count(1, step):
        run_dir = Path(f"{variant.name}, write {number}")
        deaths = [number, again.randint(1, 100)] if again else [number]
        kills = 0
        for death in deaths:
            status = attempt(run_dir, variant.args, during=[DiesInWrite(death, Path.cwd())])
            if status != KILLED:
                break
            kills += 1
        if status == KILLED:
            status = attempt(run_dir, variant.args)
        tally.kills += kills
        tally.add(run_dir, status)
        if kills == 0:
            return tally
    raise AssertionError("unreachable")


if __name__ == "__main__":
    main()
